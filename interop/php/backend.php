<?php
// A backend as an application in PHP has one: says who may connect, subscribe and publish, answers calls, and keeps
// a record of who came and went.
//
//     BACKEND_DIR=/tmp/x BACKEND_SECRET=... php -S 127.0.0.1:9000 backend.php
//
// Nothing lives in memory between two requests, so that it can be killed at any time. Every request must be signed;
// one that is older than five minutes, or was changed, is refused. Events arrive at least once: each is kept once,
// in the order of its first arrival. With BACKEND_FLAKY=n every n-th delivery is kept and then answered with an
// error, which is what a backend that crashes between its commit and its answer looks like.

declare(strict_types=1);

const REPLAY_SECONDS = 300;

function database(): PDO
{
    $database = new PDO('sqlite:' . getenv('BACKEND_DIR') . '/backend.sqlite');
    $database->exec('PRAGMA busy_timeout = 5000');
    $database->exec('CREATE TABLE IF NOT EXISTS events (arrival INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, body TEXT NOT NULL)');
    $database->exec('CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL)');
    return $database;
}

function count_up(PDO $database, string $name, int $by = 1): int
{
    $database->prepare('INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value')->execute([$name, $by]);
    $statement = $database->prepare('SELECT value FROM counters WHERE name = ?');
    $statement->execute([$name]);
    return (int) $statement->fetchColumn();
}

/** Whether the header `t=<unix seconds>,v1=<HMAC-SHA256 in hex>` is that of this body, and fresh. */
function is_signed(string $header, string $body): bool
{
    if (preg_match('/^t=(\d+),v1=([0-9a-f]{64})$/', $header, $parts) !== 1) {
        return false;
    }
    $expected = hash_hmac('sha256', $parts[1] . '.' . $body, getenv('BACKEND_SECRET'));
    return hash_equals($expected, $parts[2]) && abs(time() - (int) $parts[1]) <= REPLAY_SECONDS;
}

/** Keeps each event once. */
function record(array $events): void
{
    $database = database();
    $database->beginTransaction();
    $insert = $database->prepare('INSERT OR IGNORE INTO events (id, body) VALUES (?, ?)');
    $repeated = 0;
    foreach ($events as $event) {
        $insert->execute([$event['id'], json_encode($event, JSON_THROW_ON_ERROR)]);
        $repeated += 1 - $insert->rowCount();
    }
    count_up($database, 'repeated', $repeated);
    $deliveries = count_up($database, 'deliveries');
    $database->commit();
    $flaky = (int) getenv('BACKEND_FLAKY');
    if ($flaky > 0 && $deliveries % $flaky === 0) {
        answer(['error' => 'crashed after the commit'], 500);
    }
}

function answer(array|object $value, int $status = 200): never
{
    http_response_code($status);
    header('Content-Type: application/json');
    echo json_encode($value, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE);
    exit;
}

function result(array|object $result): never
{
    answer(['result' => $result]);
}

function refuse(int $code, string $message): never
{
    answer(['error' => ['code' => $code, 'message' => $message]]);
}

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if ($path === '/health') {
    answer(['healthy' => true]);
}
if ($path === '/recorded') {
    $database = database();
    $events = $database->query('SELECT body FROM events ORDER BY arrival')->fetchAll(PDO::FETCH_COLUMN);
    $counters = $database->query('SELECT name, value FROM counters')->fetchAll(PDO::FETCH_KEY_PAIR);
    answer(['events' => array_map(json_decode(...), $events), 'counters' => (object) $counters]);
}

$body = file_get_contents('php://input');
if (!is_signed($_SERVER['HTTP_X_LONGWIRE_SIGNATURE'] ?? '', $body)) {
    count_up(database(), 'refused');
    answer(['error' => 'signature'], 401);
}
$request = json_decode($body, true, 64, JSON_THROW_ON_ERROR);
$user = $request['user'] ?? '';

switch ($path) {
    case '/events':
        record($request['events']);
        answer((object) []);

    case '/connect':
        $name = $request['data']['user'] ?? '';
        // The cookie of the application's own session, or a password.
        if (preg_match('/\bsession=([a-z0-9]+)/', $_SERVER['HTTP_COOKIE'] ?? '', $cookie) === 1) {
            $name = $cookie[1];
        } elseif (($request['data']['password'] ?? '') !== 'open sesame') {
            answer(['disconnect' => ['code' => 4501, 'reason' => 'unauthorized']]);
        }
        $lasts = $request['data']['lasts'] ?? 0;
        result([
            'user' => $name,
            'info' => ['name' => ucfirst($name)],
            'data' => ['welcome' => $name, 'transport' => $request['transport'], 'headers' => array_filter([
                'tenant' => $_SERVER['HTTP_X_TENANT'] ?? null,
                'region' => $_SERVER['HTTP_X_REGION'] ?? null,
                'other' => $_SERVER['HTTP_X_OTHER'] ?? null,
            ])],
            ...(($request['data']['inbox'] ?? false) ? ['channels' => ["inbox:$name"]] : []),
            ...($lasts > 0 ? ['expire_at' => time() + $lasts] : []),
        ]);

    case '/refresh':
        if (str_starts_with($user, 'brief')) {
            result(['expired' => true]);
        }
        $times = count_up(database(), "refresh $user");
        result(['expire_at' => time() + 2, 'info' => ['refreshed' => $times]]);

    case '/subscribe':
        if (str_starts_with($request['channel'], 'room:vip') && $user !== 'ann') {
            refuse(1403, 'for Ann only');
        }
        $lasts = $request['data']['lasts'] ?? 0;
        result([
            'info' => ['seat' => strlen($user)],
            'data' => ['topic' => "talk of {$request['channel']}"],
            ...($lasts > 0 ? ['expire_at' => time() + $lasts] : []),
        ]);

    case '/sub_refresh':
        if (str_starts_with($user, 'brief')) {
            result(['expired' => true]);
        }
        count_up(database(), "sub_refresh $user");
        result(['expire_at' => time() + 2]);

    case '/publish':
        if (str_contains($request['data']['text'] ?? '', 'spam')) {
            refuse(1422, 'no spam');
        }
        if (str_contains($request['data']['text'] ?? '', 'as is')) {
            result((object) []);
        }
        result(['data' => ['text' => strtoupper($request['data']['text']), 'by' => $user], 'tags' => ['checked' => 'yes']]);

    case '/rpc':
        switch ($request['method']) {
            case 'add':
                result(['data' => ['sum' => array_sum($request['data'])]]);
            case 'whoami':
                result(['data' => array_intersect_key($request, array_flip(['user', 'transport', 'protocol', 'encoding', 'method']))]);
            default:
                refuse(1404, "no method {$request['method']}");
        }

    default:
        answer(['error' => "no page $path"], 404);
}
