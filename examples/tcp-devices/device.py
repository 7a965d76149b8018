#!/usr/bin/env python3
"""Simulates devices on raw TCP: device.py {meter|tracker} NUMBER [--every SECONDS] [--port PORT]

A device says its number, reports, repeats what was not answered, says "HB" when it has nothing else to say, and
comes back after a growing, random delay. Standard library only.
"""
import argparse, json, random, socket, struct, time


class Meter:
    """4 bytes of length, big-endian, then JSON."""
    port, head = 9501, 4

    def pack(self, body):
        return struct.pack(">I", len(body)) + body

    def length(self, head):
        return struct.unpack(">I", head)[0]

    def reading(self, n):
        return json.dumps({"n": n, "kwh": 1000 + n / 4}).encode()

    def answered(self, body):
        return json.loads(body).get("ack") if body.startswith(b"{") else None


class Tracker:
    """2 bytes of magic, 2 bytes of length, little-endian, then three numbers."""
    port, head = 9502, 4

    def pack(self, body):
        return b"\x5a\xa5" + struct.pack("<H", len(body)) + body

    def length(self, head):
        return struct.unpack_from("<H", head, 2)[0]

    def reading(self, n):
        return struct.pack("<Iii", n, 52_520_008 + 10 * n, -13_404_954 + 10 * n)

    def answered(self, body):
        return struct.unpack("<I", body)[0] if len(body) == 4 else None


def packets(device, received):
    """Takes whole packets off what was received."""
    while len(received) >= device.head and len(received) >= device.head + device.length(received[:device.head]):
        end = device.head + device.length(received[:device.head])
        yield bytes(received[device.head:end])
        del received[:end]


def live(device, number, port, every, unanswered, count):
    """One connection, until it breaks: reports every `every` seconds, and begins with what was not answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(device.pack(number.encode()))
        for reading in unanswered.values():
            line.sendall(device.pack(reading))
        received, report_at, beat_at = bytearray(), time.monotonic() + every, time.monotonic() + 10
        while True:
            line.settimeout(max(0.01, min(report_at, beat_at) - time.monotonic()))
            try:
                if not (chunk := line.recv(4096)):
                    return
                received += chunk
            except TimeoutError:
                pass
            for body in packets(device, received):
                n = device.answered(body)
                if n is None:
                    print(f"{number}: heard {body!r}", flush=True)
                elif unanswered.pop(n, None):
                    print(f"{number}: {n} is kept", flush=True)
            if time.monotonic() >= report_at:
                report_at += every
                count[0] += 1
                unanswered[count[0]] = device.reading(count[0])
                line.sendall(device.pack(unanswered[count[0]]))
            if time.monotonic() >= beat_at:
                beat_at += 10
                line.sendall(device.pack(b"HB"))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("kind", choices=["meter", "tracker"])
    arguments.add_argument("number")
    arguments.add_argument("--every", type=float, default=2)
    arguments.add_argument("--port", type=int)
    given = arguments.parse_args()
    device = {"meter": Meter, "tracker": Tracker}[given.kind]()
    unanswered, count, failures = {}, [0], 0
    while True:
        began = time.monotonic()
        try:
            live(device, given.number, given.port or device.port, given.every, unanswered, count)
        except OSError as error:
            print(f"{given.number}: {error}", flush=True)
        failures = 0 if time.monotonic() - began > 5 else failures + 1
        time.sleep(random.uniform(0, min(30, 0.25 * 2 ** failures)))


if __name__ == "__main__":
    main()
