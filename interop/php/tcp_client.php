<?php
// Raw TCP as a PHP program speaks it, with stream_socket_client and nothing else.
//
//     tcp_client.php PORT FRAMING FIRST        FRAMING: `line`, or `v2` (2 bytes magic, 2 bytes length, little-endian)
//
// Sends FIRST and then each line of its input as one packet; writes each packet that it is sent as one line. Ends with its
// input, or when the server closes.

declare(strict_types=1);

[, $port, $framing, $first] = $argv;
$line = stream_socket_client("tcp://127.0.0.1:$port", $code, $error, 5) ?: exit("cannot connect: $error\n");
stream_set_blocking($line, false);
stream_set_blocking(STDIN, false);

$pack = fn (string $body): string => $framing === 'line' ? "$body\n" : "\x5a\xa5" . pack('v', strlen($body)) . $body;
$received = '';
$typed = '';
fwrite($line, $pack($first));
while (!feof($line)) {
    $readable = [$line, STDIN];
    $none = null;
    stream_select($readable, $none, $none, 5);
    $typed .= (string) fread(STDIN, 8192);
    while (($end = strpos($typed, "\n")) !== false) {
        fwrite($line, $pack(substr($typed, 0, $end)));
        $typed = substr($typed, $end + 1);
    }
    if (feof(STDIN)) {
        break;
    }
    $received .= (string) fread($line, 8192);
    while (true) {
        if ($framing === 'line') {
            $end = strpos($received, "\n");
            if ($end === false) {
                break;
            }
            echo substr($received, 0, $end), "\n";
            $received = substr($received, $end + 1);
        } else {
            if (strlen($received) < 4 || strlen($received) < 4 + unpack('v', $received, 2)[1]) {
                break;
            }
            $length = unpack('v', $received, 2)[1];
            echo substr($received, 4, $length), "\n";
            $received = substr($received, 4 + $length);
        }
    }
}
