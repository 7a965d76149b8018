"""centrifuge-python from PyPI, unmodified, over WebSocket: does what it is told and says what it saw.

It is told by lines of JSON on standard input and answers in lines of JSON on standard output:

    {"run": "history"}                                            one of the functions in CASES
    {"saw": ...} or {"failed": "..."}                             what came of it
    {"call": 1, "deed": "api", "arguments": [...]}                asks for something that a client cannot do itself
    {"answer": 1, "value": ...} or {"answer": 1, "failed": "..."} and is given it

Whether what it saw is right is judged by who tells it: python.test.mjs. Ends at the end of its input.
"""

import asyncio
import json
import sys
import time
import traceback

from centrifuge import (
    CentrifugeError,
    Client,
    ClientEventHandler,
    DeltaType,
    StreamPosition,
    SubscriptionEventHandler,
)
from centrifuge.exceptions import ReplyError
from centrifuge.filter import Filter

URL, ENCODING = sys.argv[1], sys.argv[2]
LIMIT = 10.0

waiting: dict[int, asyncio.Future] = {}
clients: list[Client] = []


def say(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def call(deed, *arguments):
    number = len(waiting) + 1
    waiting[number] = asyncio.get_running_loop().create_future()
    say({"call": number, "deed": deed, "arguments": arguments})
    return await waiting[number]


async def publish(channel, data, **more):
    return await call("api", "publish", {"channel": channel, "data": data, **more})


async def token(ttl=60, **claims):
    return await call("token", {"exp": int(time.time()) + ttl, **claims})


async def until(what, condition, limit=LIMIT):
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit} s: {what}")
        await asyncio.sleep(0.01)


def pack(value):
    return value if ENCODING == "json" else json.dumps(value).encode()


def unpack(data):
    return data if ENCODING == "json" or data is None else json.loads(data)


def noting(base, names):
    """A handler that notes every event as (name, context)."""

    class Noting(base):
        def __init__(self):
            self.noted = []

        def contexts(self, wanted):
            return [context for name, context in self.noted if name == wanted]

        async def event(self, wanted, index=0):
            await until(
                f"event {wanted} number {index}; there were {[(n, getattr(c, 'code', None)) for n, c in self.noted]}",
                lambda: len(self.contexts(wanted)) > index,
            )
            return self.contexts(wanted)[index]

        def received(self):
            return [unpack(context.pub.data) for context in self.contexts("publication")]

        async def receives(self, count):
            await until(
                f"{count} publications; there are {len(self.received())}",
                lambda: len(self.contexts("publication")) >= count,
            )
            return self.received()

    for name in names:

        async def handler(self, context, name=name):
            self.noted.append((name, context))

        setattr(Noting, f"on_{name}", handler)
    return Noting


COMMON = ["subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error"]
ClientEvents = noting(ClientEventHandler, COMMON + ["connecting", "connected", "disconnected"])
SubscriptionEvents = noting(SubscriptionEventHandler, COMMON)


async def connected(user=None, claims=None, **options):
    events = ClientEvents()
    if user is not None or claims is not None:
        options["token"] = await token(**({"sub": user} if user else {}), **(claims or {}))
    client = Client(
        URL,
        events=events,
        use_protobuf=ENCODING == "protobuf",
        min_reconnect_delay=0.02,
        max_reconnect_delay=0.2,
        max_server_ping_delay=1.0,
        proxy=None,
        **options,
    )
    client.events_noted = events
    clients.append(client)
    await client.connect()
    await client.ready(LIMIT)
    return client, events


async def begun(client, channel, **options):
    events = SubscriptionEvents()
    subscription = client.new_subscription(
        channel, events=events, min_resubscribe_delay=0.02, max_resubscribe_delay=0.2, **options
    )
    await subscription.subscribe()
    return subscription, events


async def subscribed(client, channel, **options):
    subscription, events = await begun(client, channel, **options)
    await subscription.ready(LIMIT)
    return subscription, events


async def away(events):
    count = len(events.contexts("connecting")) + len(events.contexts("subscribing"))
    await call("refuse")
    await call("reset")
    await until(
        "the client noticed the cut",
        lambda: len(events.contexts("connecting")) + len(events.contexts("subscribing")) > count,
    )


async def code_of(awaitable):
    try:
        await awaitable
    except ReplyError as error:
        return error.code
    except CentrifugeError as error:
        return type(error).__name__
    return "success"


def recovery(context):
    return [context.was_recovering, context.recovered]


def page(n):
    same = "of the page, which is as it ever wäs, and will be"
    return {"n": n, "lines": [f"line {i}, changed by {n} \U0001f58a" if i == n % 40 else f"line {i} {same}" for i in range(40)]}


async def connect():
    client, events = await connected()
    return {"state": client.state.value, "client": events.contexts("connected")[0].client}


async def publish_and_receive():
    ann, ann_events = await connected("ann", {"info": {"name": "Ann"}})
    bob, _ = await connected("bob")
    hers, her_events = await subscribed(ann, "py-chat")
    _, his_events = await subscribed(bob, "py-chat")
    await hers.publish(pack({"text": "hello \U0001f44b", "nested": [1, None, True]}))
    await publish("py-chat", "from the backend", tags={"kind": "x"})
    saw = []
    for events in (her_events, his_events):
        data = await events.receives(2)
        first, second = (context.pub for context in events.contexts("publication"))
        saw.append([
            data,
            [first.offset, first.info.user, unpack(first.info.conn_info), first.info.client == ann_events.contexts("connected")[0].client],
            [second.offset, second.info, second.tags],
        ])
    return saw


async def history():
    subscription, _ = await subscribed((await connected())[0], "py-past")
    for n in range(1, 11):
        await publish("py-past", {"n": n})
    top = await subscription.history(limit=0)
    at = lambda offset: StreamPosition(offset=offset, epoch=top.epoch)

    async def page_of(**options):
        return [[unpack(pub.data)["n"], pub.offset] for pub in (await subscription.history(**options)).publications]

    return {
        "position": [top.offset, top.publications, top.epoch != ""],
        "first": await page_of(limit=3),
        "all": len(await page_of(limit=-1)),
        "since": await page_of(limit=2, since=at(3)),
        "reverse": await page_of(limit=2, reverse=True),
        "reverse since": await page_of(limit=2, since=at(4), reverse=True),
        "other epoch": await code_of(subscription.history(limit=1, since=StreamPosition(offset=1, epoch="zzzzzzzz"))),
    }


async def presence():
    ann, ann_events = await connected("ann", {"info": {"name": "Ann"}})
    guest, guest_events = await connected()
    subscription, _ = await subscribed(ann, "py-room")
    await subscribed(guest, "py-room")
    names = {
        ann_events.contexts("connected")[0].client: "ann",
        guest_events.contexts("connected")[0].client: "guest",
    }
    result = await subscription.presence()
    stats = await subscription.presence_stats()
    return {
        "there": sorted([names[key], names[info.client], info.user, unpack(info.conn_info)] for key, info in result.clients.items()),
        "stats": [stats.num_clients, stats.num_users],
    }


async def join_and_leave():
    _, events = await subscribed((await connected())[0], "py-door", join_leave=True)
    guest, _ = await connected("guest")
    await subscribed(guest, "py-door")
    users = lambda name: [context.info.user for context in events.contexts(name)]
    await until("the join", lambda: "guest" in users("join"))
    await guest.disconnect()
    await until("the leave", lambda: "guest" in users("leave"))
    return "both"


async def recovers():
    _, events = await subscribed((await connected())[0], "py-cut")
    await publish("py-cut", 1)
    await events.receives(1)
    await away(events)
    for n in (2, 3, 4):
        await publish("py-cut", n)
    await call("allow")
    context = await events.event("subscribed", 1)
    await publish("py-cut", 5)
    data = await events.receives(5)
    return [recovery(context), data, [c.pub.offset for c in events.contexts("publication")]]


async def cannot_recover():
    _, events = await subscribed((await connected())[0], "small:py-gone")
    await publish("small:py-gone", 1)
    await events.receives(1)
    await away(events)
    for n in range(2, 22):
        await publish("small:py-gone", n)
    await call("allow")
    context = await events.event("subscribed", 1)
    await publish("small:py-gone", 22)
    return [recovery(context), context.stream_position.offset, await events.receives(2)]


async def deltas():
    _, events = await subscribed((await connected())[0], "py-delta", delta=DeltaType.FOSSIL)

    async def send(first, last):
        for n in range(first, last + 1):
            await publish("py-delta", page(n), delta=n % 10 != 3)

    await send(1, 30)
    await events.receives(30)
    kinds = [context.pub.delta for context in events.contexts("publication")]
    await away(events)
    await send(31, 40)
    await call("allow")
    context = await events.event("subscribed", 1)
    await send(41, 45)
    data = await events.receives(45)
    return [data == [page(n) for n in range(1, 46)], kinds.count(True), recovery(context)]


async def filters():
    client, _ = await connected()
    wanted = Filter.all(Filter.eq("kind", "even"), Filter.gt("n", "4"))
    _, events = await subscribed(client, "py-filtered", tags_filter=wanted)
    for n in range(1, 11):
        await publish("py-filtered", n, tags={"kind": "odd" if n % 2 else "even", "n": str(n)})
    data = await events.receives(3)
    _, refused = await begun(client, "wish:py-filtered", tags_filter=wanted)
    return [data, (await refused.event("unsubscribed")).code]


async def token_refresh():
    asked = []

    async def get_token():
        asked.append(1)
        return await token(ttl=2, sub="long")

    client, events = await connected(get_token=get_token)
    await until("three refreshes", lambda: len(asked) >= 4, 15.0)
    await client.publish("py-long", pack("still here"))
    return len(events.contexts("connected"))


async def subscription_token_refresh():
    asked = []

    async def get_token(channel):
        asked.append(channel)
        return await token(ttl=2, sub="ann", channel=channel)

    client, _ = await connected("ann")
    _, events = await subscribed(client, "$py-secret", get_token=get_token)
    await until("three refreshes", lambda: len(asked) >= 4, 15.0)
    await publish("$py-secret", "still open")
    return [await events.receives(1), len(events.contexts("subscribing")), sorted(set(asked))]


async def get_state():
    states = []

    async def state(channel):
        top = await call("api", "history", {"channel": channel})
        states.append(top["offset"])
        if len(states) == 1:
            await publish(channel, 1)
        return StreamPosition(offset=top["offset"], epoch=top["epoch"])

    _, events = await subscribed((await connected())[0], "small:py-state", get_state=state)
    await events.receives(1)
    await away(events)
    for n in range(2, 22):
        await publish("small:py-state", n)
    await call("allow")
    await until("getState was asked again", lambda: len(states) == 2)
    await events.event("subscribed", 1)
    await publish("small:py-state", 22)
    data = await events.receives(2)
    return [data, states, [context.recovered for context in events.contexts("subscribed")]]


async def rpc():
    client, _ = await connected("ann")
    result = await client.rpc("echo", pack({"say": "grüß"}))
    return {
        "echo": unpack(result.data),
        "refuse": await code_of(client.rpc("refuse", pack({}))),
        "crash": await code_of(client.rpc("crash", pack({}))),
    }


async def server_side():
    client, events = await connected("post", {"channels": ["py-inbox"]})
    await events.event("subscribed")
    await publish("py-inbox", 1)
    await events.receives(1)
    await away(events)
    for n in (2, 3):
        await publish("py-inbox", n)
    await call("allow")
    context = await events.event("subscribed", 1)
    data = await events.receives(3)
    await call("api", "unsubscribe", {"channel": "py-inbox", "user": "post"})
    ended = await events.event("unsubscribed")
    return [recovery(context), data, [c.channel for c in events.contexts("publication")], ended.channel]


async def ordered_away():
    codes = []
    for order in (None, {"code": 4501, "reason": "banned"}):
        client, events = await connected(f"gone{order is None}")
        await call("api", "disconnect", {"user": f"gone{order is None}", **({"disconnect": order} if order else {})})
        context = await events.event("disconnected")
        codes.append([context.code, context.reason])
    client, events = await connected("elsewhere")
    await call("api", "disconnect", {"user": "elsewhere", "disconnect": {"code": 4001, "reason": "elsewhere"}})
    codes.append((await events.event("connecting", 1)).code)
    await events.event("connected", 1)
    return codes


async def refused():
    client, events = await connected()
    codes = []
    for channel in ("closed:py", "nowhere:py", "$py"):
        codes.append((await (await begun(client, channel))[1].event("unsubscribed")).code)
    codes.append(await code_of(client.publish("closed:py", pack({}))))
    codes.append(await code_of(client.presence("closed:py")))
    return [codes, len(events.contexts("connected"))]


CASES = [
    connect, publish_and_receive, history, presence, join_and_leave, recovers, cannot_recover, deltas, filters, token_refresh,
    subscription_token_refresh, get_state, rpc, server_side, ordered_away, refused,
]


async def run(name):
    case = {case.__name__: case for case in CASES}[name]
    try:
        outcome = {"saw": await asyncio.wait_for(case(), 50)}
    except Exception:
        outcome = {"failed": traceback.format_exc()}
    await call("allow")
    for client in clients:
        await client.disconnect()
    clients.clear()
    say(outcome)


async def main():
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks = set()
    while line := await reader.readline():
        order = json.loads(line)
        if "run" in order:
            tasks.add(asyncio.create_task(run(order["run"])))
        else:
            answer = waiting[order["answer"]]
            if "failed" in order:
                answer.set_exception(RuntimeError(order["failed"]))
            else:
                answer.set_result(order.get("value"))


asyncio.run(main())
