// A Python process that does what it is told and says what it saw: python/client.py and python/stomp_client.py. `run` has installed
// what they need into .venv.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const file = (name) => fileURLToPath(new URL(name, import.meta.url));
const PYTHON = process.env.INTEROP_PYTHON ?? file('.venv/bin/python');

/** Runs cases of `program`, a file in python/, which is started with `parameters`; `call` does what it cannot do itself. */
export class Python {
  #child;
  #said = '';
  #outcome;

  constructor(program, parameters, call) {
    this.#child = spawn(PYTHON, [file(`python/${program}`), ...parameters], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child.stderr.on('data', (chunk) => (this.#said += chunk));
    const kill = () => this.#child.kill('SIGKILL');
    process.once('exit', kill);
    this.#child.once('exit', (code, signal) => {
      process.off('exit', kill);
      this.#outcome?.reject(new Error(`it ended with ${code ?? signal}; it said:\n${this.#said}`));
    });
    createInterface({ input: this.#child.stdout }).on('line', (text) => this.#hear(JSON.parse(text), call));
  }

  /** Runs a case and gives what it saw. */
  async run(name) {
    const outcome = new Promise((resolve, reject) => (this.#outcome = { resolve, reject }));
    this.#say({ run: name });
    const { saw, failed } = await outcome;
    if (failed !== undefined) throw new Error(`${failed}\n${this.#said}`);
    return saw;
  }

  async stop() {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const force = setTimeout(() => this.#child.kill('SIGKILL'), 5000);
    this.#child.stdin.end();
    await once(this.#child, 'exit');
    clearTimeout(force);
  }

  async #hear(line, call) {
    if (line.call === undefined) {
      this.#outcome.resolve(line);
      return;
    }
    const answer = await call(line.deed, ...line.arguments).then(
      (value) => ({ value }),
      (error) => ({ failed: error.message }),
    );
    this.#say({ answer: line.call, ...answer });
  }

  #say(line) {
    this.#child.stdin.write(`${JSON.stringify(line)}\n`);
  }
}
