<?php
// A quote a second: php publish.php
// In an application this is one call where the price changes; curl does as well:
//     curl http://127.0.0.1:8000/api/publish -d '{"channel":"quotes:ACME","data":{"price":101.5}}'

declare(strict_types=1);

$api = getenv('LONGWIRE_API') ?: 'http://127.0.0.1:8000/api';
$prices = ['ACME' => 100.0, 'EMCA' => 40.0, 'MACE' => 7.0];
for ($n = 1; ; $n++) {
    $symbol = array_rand($prices);
    $prices[$symbol] = round($prices[$symbol] * (1 + random_int(-100, 100) / 10000), 2);
    $request = curl_init("$api/publish");
    curl_setopt_array($request, [
        CURLOPT_POSTFIELDS => json_encode(['channel' => "quotes:$symbol", 'data' => ['n' => $n, 'price' => $prices[$symbol]]]),
        CURLOPT_HTTPHEADER => ['Content-Type: application/json'],
        CURLOPT_RETURNTRANSFER => true,
    ]);
    echo curl_exec($request) === false ? curl_error($request) . "\n" : "$symbol $prices[$symbol]\n";
    usleep((int) (1_000_000 * (float) ($argv[1] ?? 1)));
}
