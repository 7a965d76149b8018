<?php
// Queues and topics as PHP's own Stomp class (PECL) uses them.
//
//     php stomp.php PORT VERSION CASE
//
// Does what the case says and writes what it saw as one line of JSON; stomp_php.test.mjs says what it should have seen.

declare(strict_types=1);

[, $port, $version, $case] = $argv;

function connect(): Stomp
{
    global $port, $version;
    $stomp = new Stomp("tcp://127.0.0.1:$port", '', '', $version === '1.0' ? [] : ['accept-version' => $version]);
    $stomp->setReadTimeout(10);
    return $stomp;
}

/** Sends something and waits for its receipt. */
function put(Stomp $stomp, string $destination, string $body, array $headers = []): void
{
    if (!$stomp->send($destination, $body, $headers + ['receipt' => 'r' . random_int(0, PHP_INT_MAX)])) {
        throw new RuntimeException("no receipt of $body: " . $stomp->error());
    }
}

function next_frame(Stomp $stomp): StompFrame
{
    $frame = $stomp->readFrame();
    if (!$frame) {
        throw new RuntimeException('nothing came: ' . $stomp->error());
    }
    return $frame;
}

/** Whether nothing comes for a moment. */
function is_quiet(Stomp $stomp): bool
{
    $stomp->setReadTimeout(0, 300_000);
    $frame = $stomp->readFrame();
    $stomp->setReadTimeout(10);
    return $frame === false;
}

$individual = ['ack' => 'client-individual', 'id' => 's'];

$cases = [
    // What is not acknowledged comes again, first.
    'acks' => function () use ($individual): array {
        $stomp = connect();
        foreach (['0', '1', '2'] as $body) {
            put($stomp, '/queue/acks', $body);
        }
        $stomp->subscribe('/queue/acks', $individual);
        $zero = next_frame($stomp);
        $stomp->ack($zero);
        $one = next_frame($stomp);
        unset($stomp);
        $stomp = connect();
        $stomp->subscribe('/queue/acks', $individual);
        $again = next_frame($stomp);
        $stomp->ack($again);
        $two = next_frame($stomp);
        $stomp->ack($two);
        $same = $again->headers['message-id'] === $one->headers['message-id'];
        $bodies = array_map(fn ($frame) => $frame->body, [$zero, $one, $again, $two]);
        return [$bodies, $again->headers['redelivered'], $same, is_quiet($stomp)];
    },
    // What comes at once is read one by one, with the receipts between.
    'burst' => function () use ($individual): array {
        $stomp = connect();
        $bodies = array_map(fn ($at) => str_repeat("$at", $at * $at), range(1, 30));
        foreach ($bodies as $body) {
            put($stomp, '/queue/burst', $body);
        }
        $stomp->subscribe('/queue/burst', $individual);
        $right = 0;
        foreach ($bodies as $body) {
            $frame = next_frame($stomp);
            $right += (int) ($frame->body === $body && $stomp->ack($frame));
        }
        return [$right, is_quiet($stomp)];
    },
    'nack' => function () use ($individual): array {
        $stomp = connect();
        put($stomp, '/queue/nack', 'work');
        $stomp->subscribe('/queue/nack', $individual);
        $first = next_frame($stomp);
        $stomp->nack($first);
        $second = next_frame($stomp);
        $stomp->nack($second, ['requeue' => 'false', 'receipt' => 'dead']);
        $stomp->subscribe('/queue/dead.nack', ['ack' => 'auto', 'id' => 'd']);
        $dead = next_frame($stomp);
        return [$first->headers['redelivered'], $second->headers['redelivered'], $dead->body, $dead->headers['x-death-reason']];
    },
    // What is taken and what comes of it are one deed.
    'transaction' => function () use ($individual): array {
        $stomp = connect();
        put($stomp, '/queue/in', 'work');
        $stomp->subscribe('/queue/in', $individual);
        $work = next_frame($stomp);
        $stomp->begin('t');
        $stomp->send('/queue/out', 'lost', ['transaction' => 't']);
        $stomp->ack($work, ['transaction' => 't']);
        $stomp->abort('t');
        $stomp->begin('t');
        $stomp->ack($work, ['transaction' => 't']);
        $stomp->send('/queue/out', 'result', ['transaction' => 't']);
        $stomp->commit('t', ['receipt' => 'committed']);
        unset($stomp);
        $stomp = connect();
        $stomp->subscribe('/queue/in', ['ack' => 'auto', 'id' => 'i']);
        $stomp->subscribe('/queue/out', ['ack' => 'auto', 'id' => 'o']);
        $out = next_frame($stomp);
        return [$out->body, $out->headers['destination'], is_quiet($stomp)];
    },
    'topic' => function (): array {
        $reader = connect();
        $reader->subscribe('/topic/news', ['ack' => 'auto', 'id' => 't', 'receipt' => 'subscribed']);
        put(connect(), '/topic/news', 'hello', ['color' => 'red']);
        $frame = next_frame($reader);
        return [$frame->body, $frame->headers['color']];
    },
    'bytes' => function (): array {
        $stomp = connect();
        $bytes = str_repeat(implode('', array_map('chr', range(0, 255))), 4000);
        put($stomp, '/queue/bytes', $bytes, ['content-length' => (string) strlen($bytes)]);
        $stomp->subscribe('/queue/bytes', ['ack' => 'auto', 'id' => 'b']);
        return [next_frame($stomp)->body === $bytes];
    },
    'refused' => function (): array {
        $stomp = connect();
        $sent = $stomp->send('/nowhere', 'x', ['receipt' => 'r']);
        return [$sent, $stomp->error() !== false];
    },
];

try {
    echo json_encode($cases[$case](), JSON_THROW_ON_ERROR), "\n";
} catch (Throwable $error) {
    fwrite(STDERR, "$error\n");
    exit(1);
}
