// A backend of an application, as small as it can be: answers webhooks and remembers what it was asked.

import { once } from 'node:events';
import http from 'node:http';

export class Backend {
  /** `[path, body, headers]` of every request. */
  asked = [];
  #server;
  #answers;

  /** Starts one on a free port; `answers` gives for a path a function from the request's body to `[status, text]`. */
  static async start(answers) {
    const backend = new Backend();
    backend.#answers = answers;
    backend.#server = http.createServer(async (request, response) => {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const body = JSON.parse(Buffer.concat(chunks).toString());
      backend.asked.push([request.url, body, request.headers]);
      const [status, text] = backend.#answers[request.url](body);
      response.writeHead(status, { 'Content-Type': 'application/json' }).end(text);
    });
    backend.#server.listen(0, '127.0.0.1');
    await once(backend.#server, 'listening');
    return backend;
  }

  get url() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  stop() {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

/** Answers RPCs in every way in which a backend may. */
export function answerRpc({ method, user, data, transport, protocol, encoding }) {
  const result = (value) => [200, JSON.stringify(value)];
  switch (method) {
    case 'echo':
      return result({ result: { data: { method, user, said: data, transport, protocol, encoding } } });
    case 'refuse':
      return result({ error: { code: 1404, message: 'no such thing' } });
    case 'ban':
      return result({ disconnect: { code: 4501, reason: 'banned' } });
    case 'garbage':
      return [200, '<html>it works!</html>'];
    default:
      return [500, '{"result":{"data":"a status other than 2xx is a failure"}}'];
  }
}
