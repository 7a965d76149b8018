"""stomp.py from PyPI, unmodified, over TCP in STOMP 1.0, 1.1 and 1.2: does what it is told and says what it saw.

Started with port and version. It is told by lines of JSON on standard input and answers in lines of JSON on standard output, as
client.py beside it; whether what it saw is right is judged by stomp_python.test.mjs. Ends at the end of its input.
"""

import json
import sys
import threading
import time
import traceback

import stomp

PORT, VERSION = int(sys.argv[1]), sys.argv[2]
CONNECTIONS = {"1.0": stomp.Connection10, "1.1": stomp.Connection11, "1.2": stomp.Connection12}
opened = []
numbers = iter(range(1, 1 << 30))


class Seen(stomp.ConnectionListener):
    """What a connection saw."""

    def __init__(self):
        self.messages, self.receipts, self.errors, self.connected, self.disconnected = [], [], [], [], 0
        self.on_connection = lambda: None
        self.on_each = lambda message: None

    def on_connected(self, frame):
        self.connected.append(frame.headers)

    def on_message(self, frame):
        self.messages.append(frame)
        self.on_each(frame)

    def on_receipt(self, frame):
        self.receipts.append(frame.headers["receipt-id"])

    def on_error(self, frame):
        self.errors.append(frame.headers.get("message"))

    def on_disconnected(self):
        self.disconnected += 1


def say(line):
    print(json.dumps(line), flush=True)


def call(deed, *arguments):
    """Asks for something that a client cannot do itself."""
    number = next(numbers)
    say({"call": number, "deed": deed, "arguments": arguments})
    answer = json.loads(sys.stdin.readline())
    assert answer["answer"] == number, answer
    if "failed" in answer:
        raise RuntimeError(answer["failed"])
    return answer.get("value")


def until(what, condition, limit=10.0):
    deadline = time.monotonic() + limit
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit} s: {what}")
        time.sleep(0.01)
    return value


def connected(**options):
    defaults = {"reconnect_attempts_max": 20, "reconnect_sleep_initial": 0.05, "reconnect_sleep_max": 0.2}
    kind = CONNECTIONS[VERSION]
    link = kind([("127.0.0.1", PORT)], **{**defaults, **options})
    seen = Seen()
    link.set_listener("seen", seen)
    link.connect(wait=True)
    opened.append(link)
    return link, seen


def receipted(seen, deed):
    receipt = f"r-{next(numbers)}"
    deed(receipt)
    until(f"the receipt; errors: {seen.errors}", lambda: receipt in seen.receipts)


def send(link, seen, destination, body, **headers):
    receipted(seen, lambda receipt: link.send(destination, body, headers={"receipt": receipt, **headers}))


def subscribe(link, seen, destination, ack="auto", id="1", **headers):
    receipted(seen, lambda receipt: link.subscribe(destination, id=id, ack=ack, headers={"receipt": receipt, **headers}))


def ack(link, frame, receipt=None, command="ack"):
    act = getattr(link, command)
    if VERSION == "1.2":
        act(frame.headers["ack"], receipt=receipt)
    elif VERSION == "1.1":
        act(frame.headers["message-id"], frame.headers["subscription"], receipt=receipt)
    else:
        act(frame.headers["message-id"], receipt=receipt)


def bodies(seen, count):
    until(f"{count} messages, not {[frame.body for frame in seen.messages]}", lambda: len(seen.messages) >= count)
    return [frame.body for frame in seen.messages]


def connects():
    _, seen = connected()
    headers = seen.connected[0]
    return [headers["version"], headers["server"].split("/")[0], "session" in headers]


def queue():
    link, seen = connected()
    for n in range(5):
        send(link, seen, "/queue/py", f"grüße {n}", mine=f"a:b\\c {n}" if VERSION != "1.0" else f"a {n}")
    other, taken = connected()
    subscribe(other, taken, "/queue/py", "client")
    came = bodies(taken, 5)
    receipted(taken, lambda receipt: ack(other, taken.messages[-1], receipt))
    other.disconnect()
    third, left = connected()
    subscribe(third, left, "/queue/py")
    send(third, left, "/queue/py", "last")
    return [came, [frame.headers["mine"] for frame in taken.messages], bodies(left, 1)]


def topic():
    readers = [connected() for _ in range(3)]
    for link, seen in readers:
        subscribe(link, seen, "/topic/py")
    link, seen = connected()
    send(link, seen, "/topic/py", "hello")
    call("api", "publish", {"channel": "py", "data": "from the api"})
    return [bodies(seen, 2) for _, seen in readers]


def individual():
    link, seen = connected()
    for n in range(3):
        send(link, seen, "/queue/py-one", str(n))
    other, taken = connected()
    subscribe(other, taken, "/queue/py-one", "client-individual")
    bodies(taken, 3)
    receipted(taken, lambda receipt: ack(other, taken.messages[1], receipt))
    receipted(taken, lambda receipt: ack(other, taken.messages[2], receipt, "nack"))
    again = bodies(taken, 4)[3:]
    other.disconnect()
    subscribe(link, seen, "/queue/py-one")
    return [again, bodies(seen, 2)]


def transaction():
    link, seen = connected()
    subscribe(link, seen, "/queue/py-tx")
    for end, body in (("abort", "lost"), ("commit", "kept")):
        name = link.begin()
        link.send("/queue/py-tx", body, transaction=name)
        getattr(link, end)(name)
    send(link, seen, "/queue/py-tx", "last")
    return bodies(seen, 2)


def binary():
    link, seen = connected(auto_decode=False)
    subscribe(link, seen, "/queue/py-binary")
    body = bytes(range(256)) * 100
    receipted(seen, lambda receipt: link.send("/queue/py-binary", body, headers={"receipt": receipt}))
    return [frame == body for frame in bodies(seen, 1)]


def large():
    link, seen = connected()
    subscribe(link, seen, "/queue/py-large")
    body = "x" * (4 << 20)
    send(link, seen, "/queue/py-large", body)
    return [frame == body for frame in bodies(seen, 1)]


def beats():
    link, seen = connected(heartbeats=(1000, 1000))
    time.sleep(4.5)
    send(link, seen, "/queue/py-beats", "alive")
    return [seen.disconnected, seen.connected[0]["heart-beat"], link.is_connected()]


def silence():
    link, seen = connected(heartbeats=(1000, 1000))
    subscribe(link, seen, "/queue/py-silent", "client-individual")
    send(link, seen, "/queue/py-silent", "x")
    bodies(seen, 1)
    call("swallow")
    until("it is noticed", lambda: seen.disconnected > 0)
    other, again = connected()
    subscribe(other, again, "/queue/py-silent", "client-individual")
    return [bodies(again, 1), again.messages[0].headers["redelivered"], again.messages[0].headers["message-id"] == seen.messages[0].headers["message-id"]]


def cuts():
    """Works through a hundred messages while the link is cut again and again; whoever is cut off connects again."""
    taken, lock = set(), threading.Lock()
    current = []

    def begin():
        link, seen = connected()

        def work(frame):
            with lock:
                taken.add(frame.body)
            try:
                ack(link, frame)
            except stomp.exception.NotConnectedException:
                pass

        seen.on_each = work
        link.subscribe("/queue/py-cuts", id="1", ack="client-individual" if VERSION != "1.0" else "client", headers={"prefetch-count": "5"})
        current[:] = [seen]

    begin()
    for n in range(100):
        call("api", "queue/publish", {"queue": "py-cuts", "data": f"n{n}"})
        if n % 20 == 10:
            call("reset")
            until("the cut is noticed", lambda: current[0].disconnected > 0)
            begin()
    until(f"all, not {len(taken)}", lambda: len(taken) == 100)
    return len(taken)


def refused():
    link, seen = connected()
    link.send("/nowhere/x", "x")
    until("the error", lambda: seen.errors)
    until("the end", lambda: seen.disconnected > 0)
    return len(seen.errors)


CASES = [connects, queue, topic, individual, transaction, binary, large, beats, silence, cuts, refused]


def main():
    while line := sys.stdin.readline():
        case = {case.__name__: case for case in CASES}[json.loads(line)["run"]]
        try:
            outcome = {"saw": case()}
        except Exception:
            outcome = {"failed": traceback.format_exc()}
        for link in opened:
            try:
                if link.is_connected():
                    link.disconnect()
            except Exception:
                # A link that a case broke is as gone as it can be.
                pass
        opened.clear()
        say(outcome)


main()
