"""What the benchmarks share: a longwire that runs alone on a core, and its own memory and CPU.

Not a benchmark. `transports`, `exchange` and `idle_check` import it; `side_by_side` stands alone, because its load
generator does this itself. What must stay true: every figure comes from /proc and is of one process (or of one and its
children), so that who measures may be slow.
"""

import contextlib
import os
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
LONGWIRE = str(TOP / "target" / "release" / "longwire")
TICK = os.sysconf("SC_CLK_TCK")


def fail(why):
    sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {why}")


def add_options(parser, runs=3):
    """The options that all have."""
    parser.add_argument("--longwire", default=LONGWIRE)
    parser.add_argument("--runs", type=int, default=runs)
    parser.add_argument("--realtime", action="store_true", help="run before everything else on this machine; needs root")


def prepare(options, core):
    """Raises the limit of descriptors, and keeps this program off the server's core."""
    longwire = options.longwire
    if not os.access(longwire, os.X_OK):
        fail(f"{longwire} is missing: run `cargo build --release`")
    if not {0, 1} <= os.sched_getaffinity(0):
        fail("two cores are needed, 0 and 1")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, {core})
    if options.realtime:
        # What it starts inherits it. On a busy core both sides would mostly wait for their turn, and find cold caches.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def family(pid):
    """A process and its children, such as the workers of `php -S`."""
    yield pid
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        # A thread may end meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def cpu_seconds(pid):
    """User and system time of a process and its children, in steps of 10 ms."""
    def of_one(one):
        fields = pathlib.Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK
    return sum(of_one(one) for one in family(pid))


def fine_cpu_seconds(pid):
    """The same of one process to the nanosecond, but without threads that have ended: for what hardly runs."""
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) / 1e9 for task in tasks)


def resident_bytes(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def busy_seconds():
    """What all processes of the machine have used of all cores."""
    fields = [int(n) for n in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:7])) / TICK


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def await_open(address, process):
    host, port = address.split(":")
    for _ in range(300):
        if process.poll() is not None:
            fail(f"{process.args[0]} ended with {process.returncode} before it listened on {address}")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        time.sleep(0.05)
    fail(f"{process.args[0]} did not listen on {address} within 15 s")


@contextlib.contextmanager
def running(command, address, core, environment=None, stderr=None):
    """A program on a core, from listening to gone, with its children."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL, stderr=stderr, preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        await_open(address, process)
        time.sleep(0.3)  # The probe's own connection is gone before the first figure is read.
        yield process
        if process.poll() is not None:
            fail(f"{command[0]} ended with {process.returncode} while it was measured")
    finally:
        # Killed, not drained: nobody listens any more, and the next run must start at once.
        for one in list(family(process.pid)) if process.poll() is None else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, 9)
        process.wait()


@contextlib.contextmanager
def longwire(binary, configuration, address, core=0):
    """A longwire with a configuration, alone on its core."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(configuration)
        file.flush()
        with running([binary, "serve", "--config", file.name], address, core) as process:
            yield process


def median(runs, at):
    return statistics.median(run[at] for run in runs)


def machine():
    """The machine and the commit, for the line above a table."""
    model = "unknown processor"
    with contextlib.suppress(OSError):
        names = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
        model = names[0] if names else model
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({model}), Linux {os.uname().release}"
