<?php
// What devices report, one line of JSON each in readings.jsonl, and an answer to each: php -S 127.0.0.1:9000 backend.php
//
// A device repeats what was not answered, so a reading may come twice: its number says which it is.

declare(strict_types=1);

function keep(array $line): void
{
    $file = (getenv('RUNTIME_PATH') ?: __DIR__) . '/readings.jsonl';
    file_put_contents($file, json_encode(['at' => time(), ...$line]) . "\n", FILE_APPEND | LOCK_EX);
}

function answer(array $answer): never
{
    header('Content-Type: application/json');
    exit(json_encode((object) $answer));
}

/** With 4xx longwire drops the message and goes on; after 5xx, or a crash, it would come again for 30 seconds. */
function refuse(string $why): never
{
    http_response_code(400);
    exit($why);
}

$call = json_decode(file_get_contents('php://input'), true, 16, JSON_THROW_ON_ERROR);
$device = $call['name'];

switch ($_SERVER['REQUEST_URI']) {
    case '/open':
        keep(['device' => $device, 'event' => 'came', 'listener' => $call['listener'], 'address' => $call['address']]);
        // Bound as a user, the device can be addressed by its number from then on.
        answer(['user' => $device]);

    case '/message':
        // Text comes as `data`, bytes that are no text as `b64data`.
        $body = $call['data'] ?? base64_decode($call['b64data']);
        if ($call['listener'] === 'meters') {
            ['n' => $n, 'kwh' => $kwh] = (array) json_decode($body, true) + ['n' => null, 'kwh' => null];
            is_int($n) && is_numeric($kwh) || refuse('a reading has n and kwh');
            keep(['device' => $device, 'n' => $n, 'kwh' => $kwh]);
            answer(['data' => ['ack' => $n]]);
        }
        // A tracker's body: number, latitude and longitude in millionths of a degree, all 32 bits little-endian.
        strlen($body) === 12 || refuse('a reading has 12 bytes');
        ['n' => $n, 'lat' => $lat, 'lon' => $lon] = unpack('Vn/Vlat/Vlon', $body);
        $degrees = fn (int $value) => ($value < 0x80000000 ? $value : $value - 0x100000000) / 1e6;
        keep(['device' => $device, 'n' => $n, 'lat' => $degrees($lat), 'lon' => $degrees($lon)]);
        answer(['b64data' => base64_encode(pack('V', $n))]);

    case '/close':
        keep(['device' => $device, 'event' => 'went', 'reason' => $call['reason'], 'category' => $call['category']]);
        answer([]);
}
http_response_code(404);
