"""A program in the rooms of the chat example, over raw TCP with nothing but the standard library.

    talker.py PORT FRAMING TOKEN NAME EVERY        FRAMING: `line` (a JSON text a line), `length` (4 bytes, big-endian)

Says something every EVERY seconds and keeps each message until it comes back; returns after a break, within a second,
with the positions that it had. Writes a line of JSON for each message that it heard, `{"n": ..., "id": ..., "text": ...}`,
for each beginning of a connection, `{"welcome": {...}}`, and for each that could not be made, `{"failed": "..."}`. At the
end of its input it says nothing more, waits until all that it said has come back, and ends with `{"said": [ids]}`.
"""

import json
import random
import socket
import struct
import sys
import threading
import time

PORT, FRAMING, TOKEN, NAME, EVERY = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], float(sys.argv[5])

is_over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()

unsaid, said, since = {}, [], {}


def write(line):
    print(json.dumps(line), flush=True)


def packed(value):
    body = json.dumps(value).encode()
    return body + b"\n" if FRAMING == "line" else struct.pack(">I", len(body)) + body


def bodies(received):
    """Takes whole packets off what was received."""
    while True:
        if FRAMING == "line":
            end = received.find(b"\n")
            if end < 0:
                return
            yield bytes(received[:end])
            del received[: end + 1]
        else:
            if len(received) < 4 or len(received) < 4 + struct.unpack(">I", received[:4])[0]:
                return
            end = 4 + struct.unpack(">I", received[:4])[0]
            yield bytes(received[4:end])
            del received[:end]


def keep(token):
    for one in filter(None, (token or "").split(",")):
        since[one.split("=")[0]] = one


def hear(message):
    keep(message.get("id"))
    for channel in message.get("channels", {}).values():
        keep(channel.get("id"))
    if "session" in message:
        write({"welcome": message})
    data = message.get("data")
    if "channel" in message and isinstance(data, dict) and "n" in data:
        write({name: data[name] for name in ("n", "id", "text")})
        unsaid.pop(data["id"], None)


def live():
    with socket.create_connection(("127.0.0.1", PORT), timeout=5) as line:
        first = {"token": TOKEN, "client": NAME}
        if since:
            first["since"] = ",".join(since.values())
        line.sendall(packed(first))
        received, is_welcome, said_at = bytearray(), False, 0.0
        while unsaid or not is_over.is_set():
            line.settimeout(0.05)
            try:
                chunk = line.recv(65536)
                if not chunk:
                    return
                received += chunk
            except TimeoutError:
                pass
            for body in bodies(received):
                message = json.loads(body)
                hear(message)
                if "session" in message and not is_welcome:
                    is_welcome = True
                    for waiting in unsaid.values():
                        line.sendall(packed(waiting))
            if is_welcome and not is_over.is_set() and time.monotonic() - said_at >= EVERY:
                said_at = time.monotonic()
                number = len(said) + 1
                message = {"id": f"{NAME}-{number:04}", "room": "lobby", "text": f"{NAME} {number}"}
                unsaid[message["id"]] = message
                said.append(message["id"])
                line.sendall(packed(message))


while unsaid or not is_over.is_set():
    try:
        live()
    except OSError as error:
        write({"failed": str(error)})
    if unsaid or not is_over.is_set():
        time.sleep(random.uniform(0.1, 0.5))
write({"said": said})
