<?php
// Every method of the HTTP API, as a backend in PHP uses it, with the exact JSON that it is answered.
//
//     php api.php URL KEY '{"ann": "<client id>", "bob": "<client id>"}'
//
// Ann and Bob are connected and subscribed to `room`, Ann to `limited#ann` too; Carl came by a token that was stolen,
// Dora by one that is old. php_api.test.mjs has seen to that, and looks at what they saw.
// Writes one line of JSON for each case: {"name": "...", "wrong": "..." or null}.

declare(strict_types=1);

require __DIR__ . '/longwire.php';
require __DIR__ . '/expect.php';

[, $url, $key, $clients] = $argv;
$longwire = new Longwire($url, $key);
$expectation = new Expectation();
foreach (json_decode($clients, true) as $name => $id) {
    $expectation->names["\$$name"] = $id;
}
$id = fn (string $name): string => $expectation->names["\$$name"];

/** Calls a method that must be answered 200 and exactly this. */
$exactly = function (string $method, array $parameters, string $expected) use ($longwire, $expectation): void {
    [$status, $text] = $longwire->post($method, $parameters);
    if ($status !== 200) {
        throw new Mismatch("$method was answered $status: $text");
    }
    $expectation->match($expected, $text);
};
/** The same for what follows an order soon, but maybe not at once: asks again for up to five seconds. */
$eventually = function (string $method, array $parameters, string $expected) use ($exactly, $expectation): void {
    $names = $expectation->names;
    for ($deadline = microtime(true) + 5; ; usleep(10_000)) {
        try {
            $exactly($method, $parameters, $expected);
            return;
        } catch (Mismatch $mismatch) {
            $expectation->names = $names;
            if (microtime(true) > $deadline) {
                throw $mismatch;
            }
        }
    }
};
$error = fn (int $code, string $message): string => json_encode(['error' => ['code' => $code, 'message' => $message]]);
const NOTHING = '{"result":{}}';
/** Ann's connection as it is listed; what time does to it has another name in every `$place`. */
$ann = fn (int $place): string => str_replace('@', (string) $place, '{"app_name":"js","app_version":"","transport":"websocket","protocol":"json","dialect":"centrifuge","user":"ann","address":"127.0.0.1","opened_ms_ago":"$opened-@","last_seen_ms_ago":"$seen-@","outbox_bytes":0,"write_blocked_ms":0,"num_channels":2,"expires_in_ms":"$expires-@","channels":[{"channel":"limited#ann","offset":0,"epoch":"$limited"},{"channel":"room","offset":4,"epoch":"$room"}],"state":{"channels":{"limited#ann":{},"room":{}}}}');

/** What must be true, and the calls that show it; they run in this order. */
$cases = [
    'publish answers with the position, which rises by one' => function () use ($exactly) {
        $exactly('publish', ['channel' => 'php', 'data' => ['n' => 1]], '{"result":{"offset":1,"epoch":"$epoch"}}');
        $exactly('publish', ['channel' => 'php', 'data' => ['n' => 2]], '{"result":{"offset":2,"epoch":"$epoch"}}');
    },
    'publish into a channel without history answers with nothing' => fn () => $exactly('publish', ['channel' => 'bare:php', 'data' => 1], NOTHING),
    'publish takes any data, what PHP makes of an empty array too' => function () use ($exactly) {
        foreach ([[], '', 'ümläut', 0, 1.5, false, ['a' => ['b' => []]]] as $number => $data) {
            $exactly('publish', ['channel' => 'php-any', 'data' => $data, 'tags' => [], 'skip_history' => false], '{"result":{"offset":' . ($number + 1) . ',"epoch":"$any"}}');
        }
        $exactly('history', ['channel' => 'php-any', 'limit' => -1], '{"result":{"publications":[{"data":[],"offset":1},{"data":"","offset":2},{"data":"ümläut","offset":3},{"data":0,"offset":4},{"data":1.5,"offset":5},{"data":false,"offset":6},{"data":{"a":{"b":[]}},"offset":7}],"epoch":"$any","offset":7}}');
    },
    'publish takes base64 and tags' => function () use ($exactly) {
        $exactly('publish', ['channel' => 'php-b64', 'b64data' => base64_encode('{"b":64}'), 'tags' => ['lang' => 'de']], '{"result":{"offset":1,"epoch":"$b64"}}');
        $exactly('history', ['channel' => 'php-b64', 'limit' => 1], '{"result":{"publications":[{"data":{"b":64},"offset":1,"tags":{"lang":"de"}}],"epoch":"$b64","offset":1}}');
    },
    'publish can leave history out' => function () use ($exactly) {
        $exactly('publish', ['channel' => 'php-skip', 'data' => 1, 'skip_history' => true], NOTHING);
        $exactly('history', ['channel' => 'php-skip', 'limit' => 1], '{"result":{"publications":[],"epoch":"$skip","offset":0}}');
    },
    'publish refuses what is wrong' => function () use ($exactly, $error) {
        $exactly('publish', ['data' => 1], $error(107, 'bad request'));
        $exactly('publish', ['channel' => 'php'], $error(107, 'bad request'));
        $exactly('publish', ['channel' => 'php', 'b64data' => '%'], $error(107, 'bad request'));
        $exactly('publish', ['channel' => 'nowhere:php', 'data' => 1], $error(102, 'unknown channel'));
    },
    'publish with an idempotency key publishes once' => function () use ($exactly) {
        foreach ([1, 2, 3] as $attempt) {
            $exactly('publish', ['channel' => 'php-once', 'data' => $attempt, 'idempotency_key' => 'order-7'], '{"result":{"offset":1,"epoch":"$once"}}');
        }
        $exactly('publish', ['channel' => 'php-once', 'data' => 'other', 'idempotency_key' => 'order-8'], '{"result":{"offset":2,"epoch":"$once"}}');
        $exactly('history', ['channel' => 'php-once', 'limit' => -1], '{"result":{"publications":[{"data":1,"offset":1},{"data":"other","offset":2}],"epoch":"$once","offset":2}}');
        $exactly('publish', ['channel' => 'php-once2', 'data' => 1, 'idempotency_key' => 'order-7'], '{"result":{"offset":1,"epoch":"$once2"}}');
    },
    'publish skips what is older than the newest version' => function () use ($exactly) {
        $exactly('publish', ['channel' => 'php-version', 'data' => 'v5', 'version' => 5], '{"result":{"offset":1,"epoch":"$version"}}');
        foreach ([4, 5] as $version) {
            $exactly('publish', ['channel' => 'php-version', 'data' => "v$version again", 'version' => $version], '{"result":{"offset":1,"epoch":"$version"}}');
        }
        $exactly('publish', ['channel' => 'php-version', 'data' => 'v6', 'version' => 6], '{"result":{"offset":2,"epoch":"$version"}}');
        $exactly('publish', ['channel' => 'php-version', 'data' => 'v1 of another', 'version' => 1, 'version_epoch' => 'b'], '{"result":{"offset":3,"epoch":"$version"}}');
        $exactly('history', ['channel' => 'php-version', 'limit' => -1], '{"result":{"publications":[{"data":"v5","offset":1},{"data":"v6","offset":2},{"data":"v1 of another","offset":3}],"epoch":"$version","offset":3}}');
    },
    'publish as a delta is kept in full' => function () use ($exactly) {
        foreach ([1, 2] as $n) {
            $exactly('publish', ['channel' => 'php-delta', 'data' => ['text' => str_repeat('x', 200), 'n' => $n], 'delta' => true], '{"result":{"offset":' . $n . ',"epoch":"$delta"}}');
        }
        $data = fn (int $n): string => '{"data":{"text":"' . str_repeat('x', 200) . '","n":' . $n . '},"offset":' . $n . '}';
        $exactly('history', ['channel' => 'php-delta', 'limit' => -1], '{"result":{"publications":[' . $data(1) . ',' . $data(2) . '],"epoch":"$delta","offset":2}}');
    },
    'broadcast answers for each channel in its place' => fn () => $exactly(
        'broadcast',
        ['channels' => ['php-b1', 'nowhere:x', 'bare:php', 'php-b2'], 'data' => ['a' => 1]],
        '{"result":{"responses":[{"result":{"offset":1,"epoch":"$b1"}},{"error":{"code":102,"message":"unknown channel"}},{"result":{}},{"result":{"offset":1,"epoch":"$b2"}}]}}',
    ),
    'broadcast refuses no channels' => fn () => $exactly('broadcast', ['channels' => [], 'data' => 1], $error(107, 'bad request')),
    'broadcast with an idempotency key publishes once in each channel' => function () use ($exactly) {
        foreach ([1, 2] as $attempt) {
            $exactly('broadcast', ['channels' => ['php-b3', 'php-b4'], 'data' => $attempt, 'idempotency_key' => 'k'], '{"result":{"responses":[{"result":{"offset":1,"epoch":"$b3"}},{"result":{"offset":1,"epoch":"$b4"}}]}}');
        }
    },
    'history gives pages and both directions' => function () use ($exactly, $id) {
        $page = fn (string $publications): string => '{"result":{"publications":[' . $publications . '],"epoch":"$epoch","offset":2}}';
        $pub = fn (int $n): string => '{"data":{"n":' . $n . '},"offset":' . $n . '}';
        $since = fn (int $offset): array => ['offset' => $offset, 'epoch' => $id('epoch')];
        $exactly('history', ['channel' => 'php'], $page(''));
        $exactly('history', ['channel' => 'php', 'limit' => 0, 'reverse' => false, 'since' => []], $page(''));
        $exactly('history', ['channel' => 'php', 'limit' => 1], $page($pub(1)));
        $exactly('history', ['channel' => 'php', 'limit' => -1, 'reverse' => true], $page("{$pub(2)},{$pub(1)}"));
        $exactly('history', ['channel' => 'php', 'limit' => 9, 'since' => $since(1)], $page($pub(2)));
        $exactly('history', ['channel' => 'php', 'limit' => 9, 'since' => $since(2), 'reverse' => true], $page($pub(1)));
    },
    'history refuses another epoch and a channel without' => function () use ($exactly, $error) {
        $exactly('history', ['channel' => 'php', 'limit' => 1, 'since' => ['offset' => 1, 'epoch' => 'zzzzzzzz']], $error(112, 'unrecoverable position'));
        $exactly('history', ['channel' => 'bare:php'], $error(108, 'not available'));
        $exactly('history', [], $error(107, 'bad request'));
    },
    'history_remove keeps the position' => function () use ($exactly, $error) {
        $exactly('history_remove', ['channel' => 'php'], NOTHING);
        $exactly('history', ['channel' => 'php', 'limit' => 9], '{"result":{"publications":[],"epoch":"$epoch","offset":2}}');
        $exactly('history_remove', ['channel' => 'bare:php'], $error(108, 'not available'));
    },
    'presence says who is there, and with what infos' => function () use ($exactly) {
        $exactly('presence', ['channel' => 'room'], '{"result":{"presence":{"$ann":{"user":"ann","client":"$ann","conn_info":{"name":"Ann"}},"$bob":{"user":"bob","client":"$bob"}}}}');
        $exactly('presence_stats', ['channel' => 'room'], '{"result":{"num_clients":2,"num_users":2}}');
        $exactly('presence', ['channel' => 'empty'], '{"result":{"presence":{}}}');
        $exactly('presence_stats', ['channel' => 'empty'], '{"result":{"num_clients":0,"num_users":0}}');
    },
    'presence is refused where there is none' => function () use ($exactly, $error) {
        foreach (['presence', 'presence_stats'] as $method) {
            $exactly($method, ['channel' => 'bare:php'], $error(108, 'not available'));
            $exactly($method, ['channel' => 'nowhere:php'], $error(102, 'unknown channel'));
            $exactly($method, [], $error(107, 'bad request'));
        }
    },
    'channels are listed, all or by pattern' => function () use ($exactly) {
        $exactly('channels', ['pattern' => 'roo?'], '{"result":{"channels":{"room":{"num_clients":2}}}}');
        $exactly('channels', [], '{"result":{"channels":{"room":{"num_clients":2},"limited#ann":{"num_clients":1}}}}');
        $exactly('channels', ['pattern' => 'none*'], '{"result":{"channels":{}}}');
    },
    'info describes the node' => fn () => $exactly('info', [], '{"result":{"nodes":[{"uid":"$uid","name":"$name","version":"$longwire","num_clients":4,"num_users":4,"num_channels":2,"num_subs":3,"uptime":"$uptime"}]}}'),
    'subscribe and unsubscribe change what a user has' => function () use ($exactly, $eventually, $error) {
        $exactly('subscribe', ['channel' => 'told', 'user' => 'ann', 'client' => '', 'info' => ['by' => 'php'], 'data' => ['why' => 'because']], NOTHING);
        $eventually('presence', ['channel' => 'told'], '{"result":{"presence":{"$ann":{"user":"ann","client":"$ann","conn_info":{"name":"Ann"},"chan_info":{"by":"php"}}}}}');
        $exactly('unsubscribe', ['channel' => 'told', 'user' => 'ann'], NOTHING);
        $eventually('presence', ['channel' => 'told'], '{"result":{"presence":{}}}');
        $exactly('subscribe', ['channel' => 'told', 'user' => 'nobody'], NOTHING);
        $exactly('subscribe', ['user' => 'ann'], $error(107, 'bad request'));
        $exactly('subscribe', ['channel' => 'nowhere:x', 'user' => 'ann'], $error(102, 'unknown channel'));
        $exactly('unsubscribe', ['channel' => 'nowhere:x', 'user' => 'ann'], $error(102, 'unknown channel'));
    },
    'refresh prolongs a connection' => fn () => $exactly('refresh', ['user' => 'ann', 'client' => $id('ann'), 'expire_at' => time() + 3600], NOTHING),
    'rpc knows no method' => function () use ($exactly, $error) {
        $exactly('rpc', ['method' => 'anything', 'params' => []], $error(104, 'method not found'));
    },
    'batch answers at the top, each command in its own shape' => fn () => $exactly(
        'batch',
        ['commands' => [
            ['publish' => ['channel' => 'php-batch', 'data' => 1]],
            ['publish' => ['channel' => 'nowhere:x', 'data' => 1]],
            ['broadcast' => ['channels' => ['bare:x'], 'data' => 1]],
            ['history' => ['channel' => 'php-batch', 'limit' => 1]],
            ['presence_stats' => ['channel' => 'room']],
            null,
            ['no_such_method' => []],
            ['unsubscribe' => ['channel' => 'php-batch', 'user' => 'nobody']],
        ]],
        '{"replies":[{"publish":{"offset":1,"epoch":"$batch"}},{"error":{"code":102,"message":"unknown channel"}},{"broadcast":{"responses":[{"result":{}}]}},{"history":{"publications":[{"data":1,"offset":1}],"epoch":"$batch","offset":1}},{"presence_stats":{"num_clients":2,"num_users":2}},{"error":{"code":107,"message":"bad request"}},{"error":{"code":104,"message":"method not found"}},{"unsubscribe":{}}]}',
    ),
    'batch in parallel keeps the order' => fn () => $exactly(
        'batch',
        ['parallel' => true, 'commands' => [['publish' => ['channel' => 'php-p1', 'data' => 1]], ['presence_stats' => ['channel' => 'room']], ['publish' => ['channel' => 'php-p2', 'data' => 1]]]],
        '{"replies":[{"publish":{"offset":1,"epoch":"$p1"}},{"presence_stats":{"num_clients":2,"num_users":2}},{"publish":{"offset":1,"epoch":"$p2"}}]}',
    ),
    'an error can be an HTTP status' => function () use ($longwire, $expectation) {
        foreach ([[['channel' => 'nowhere:x', 'data' => 1], 404, 102, 'unknown channel'], [['data' => 1], 400, 107, 'bad request']] as [$parameters, $wanted, $code, $message]) {
            [$status, $text] = $longwire->post('publish', $parameters, ['X-Centrifugo-Error-Mode: transport']);
            if ($status !== $wanted) {
                throw new Mismatch("$status and not $wanted: $text");
            }
            $expectation->match(json_encode(['code' => $code, 'message' => $message]), $text);
        }
    },
    'a wrong key and an unknown method are refused' => function () use ($longwire, $url) {
        $answers = [(new Longwire($url, 'wrong'))->post('info'), (new Longwire($url, ''))->post('info'), $longwire->post('no_such_method')];
        $statuses = array_column($answers, 0);
        if ($statuses !== [401, 401, 404] || $answers[0][1] !== '' || $answers[1][1] !== '') {
            throw new Mismatch(json_encode($answers));
        }
    },
    'one connection serves many calls' => function () use ($longwire) {
        foreach (range(1, 50) as $n) {
            $longwire->post('info');
            if ($n > 1 && $longwire->newConnections() !== 0) {
                throw new Mismatch("call $n opened a connection");
            }
        }
    },
    'publish can report how far it came, and leave somebody out' => function () use ($exactly, $id, $error) {
        $report = fn (int $offset, int $reached): string => '{"result":{"offset":' . $offset . ',"epoch":"$room","report":{"reached":' . $reached . ',"nodes":[{"uid":"$uid","subscribers":2,"reached":' . $reached . '}]}}}';
        $exactly('publish', ['channel' => 'room', 'data' => 'to both', 'report' => true], $report(1, 2));
        $exactly('publish', ['channel' => 'room', 'data' => 'not to Bob', 'report' => true, 'exclude_user' => 'bob'], $report(2, 1));
        $exactly('publish', ['channel' => 'room', 'data' => 'not to Ann', 'report' => true, 'exclude_client' => $id('ann')], $report(3, 1));
        $exactly('publish', ['channel' => 'room', 'data' => 'to both', 'report' => false, 'exclude_user' => '', 'exclude_client' => ''], '{"result":{"offset":4,"epoch":"$room"}}');
        $exactly('publish', ['channel' => 'bare:php', 'data' => 'to nobody', 'report' => true], '{"result":{"report":{"reached":0,"nodes":[{"uid":"$uid","subscribers":0,"reached":0}]}}}');
        $exactly('publish', ['channel' => 'room', 'data' => 1, 'exclude_client' => 'nonsense'], $error(107, 'bad request'));
    },
    'connections are listed, by user, by channel and in pages' => function () use ($exactly, $ann) {
        $bob = '{"app_name":"js","app_version":"","transport":"websocket","protocol":"json","dialect":"centrifuge","user":"bob","address":"127.0.0.1","opened_ms_ago":"$b-opened","last_seen_ms_ago":"$b-seen","outbox_bytes":0,"write_blocked_ms":0,"num_channels":1,"expires_in_ms":"$b-expires","channels":[{"channel":"room","offset":4,"epoch":"$room"}],"state":{"channels":{"room":{}}}}';
        $exactly('connections', ['user' => 'bob'], '{"result":{"connections":{"$bob":' . $bob . '},"cursor":""}}');
        $exactly('connections', ['channel' => 'limited#ann'], '{"result":{"connections":{"$ann":' . $ann(1) . '},"cursor":""}}');
        $exactly('connections', ['transport' => 'sse'], '{"result":{"connections":{},"cursor":""}}');
        $exactly('connections', ['user' => 'nobody', 'channel' => '', 'transport' => '', 'limit' => 0, 'cursor' => ''], '{"result":{"connections":{},"cursor":""}}');
    },
    'one connection is told of in full' => function () use ($exactly, $id, $error, $ann) {
        $exactly('connection', ['client' => $id('ann')], '{"result":{"client":"$ann","connection":' . $ann(2) . '}}');
        $exactly('connection', ['client' => '00000000-0000-4000-8000-000000000000'], $error(104, 'not found'));
        $exactly('connection', [], $error(107, 'bad request'));
    },
    'a revoked token ends its connection' => function () use ($exactly, $error) {
        $exactly('user_status', ['users' => ['carl']], '{"result":{"statuses":[{"user":"carl","online":true,"connections":1,"last_seen":"$carl-seen"}]}}');
        $exactly('revoke_token', ['uid' => 'stolen', 'expire_at' => time() + 60], NOTHING);
        $exactly('revoke_token', [], $error(107, 'bad request'));
    },
    'invalidated tokens end the connections of a user' => function () use ($exactly, $error) {
        $exactly('invalidate_user_tokens', ['user' => 'dora', 'issued_before' => time() - 60], NOTHING);
        $exactly('invalidate_user_tokens', [], $error(107, 'bad request'));
    },
    'user_status says who is there and who was' => function () use ($exactly, $eventually, $error, $expectation) {
        $status = fn (string $user, bool $online): string => json_encode(['user' => $user, 'online' => $online, 'connections' => (int) $online, 'last_seen' => "\$last-$user"]);
        foreach (['carl', 'dora'] as $user) {
            $eventually('user_status', ['users' => [$user]], '{"result":{"statuses":[' . $status($user, false) . ']}}');
        }
        $exactly('user_status', ['users' => ['carl', 'ann', 'never']], '{"result":{"statuses":[' . $status('carl', false) . ',' . $status('ann', true) . ',{"user":"never","online":false,"connections":0,"last_seen":0}]}}');
        foreach (['carl', 'ann'] as $user) {
            if (abs(time() - $expectation->names["\$last-$user"]) > 60) {
                throw new Mismatch("$user was last seen at {$expectation->names["\$last-$user"]}");
            }
        }
        $exactly('user_status', ['users' => []], $error(107, 'bad request'));
    },
    'disconnect ends who is named and spares the whitelist' => function () use ($exactly, $id) {
        $exactly('disconnect', ['user' => 'bob', 'client' => '', 'whitelist' => [$id('bob')]], NOTHING);
        $exactly('presence_stats', ['channel' => 'room'], '{"result":{"num_clients":2,"num_users":2}}');
        $exactly('disconnect', ['user' => 'bob', 'disconnect' => ['code' => 4999, 'reason' => 'over']], NOTHING);
        $exactly('disconnect', ['user' => 'nobody'], NOTHING);
    },
];

foreach ($cases as $name => $prove) {
    try {
        $prove();
        $wrong = null;
    } catch (Throwable $thrown) {
        $wrong = get_class($thrown) . ': ' . $thrown->getMessage();
    }
    echo json_encode(['name' => $name, 'wrong' => $wrong], JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE), "\n";
}
