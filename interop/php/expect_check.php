<?php
// That exactness can fail: pairs that match and pairs that do not. Writes the pairs that were judged wrongly.

declare(strict_types=1);

require __DIR__ . '/expect.php';

$pairs = [
    ['{"a":1,"b":[1,{}]}', '{"b":[1,{}],"a":1}', true],
    ['{"a":"$x","b":"$x"}', '{"a":7,"b":7}', true],
    ['{"a":"$x","b":{"$x":1}}', '{"a":"k","b":{"k":1}}', true],
    ['{"a":"$x","b":"$x"}', '{"a":7,"b":8}', false],
    ['{"a":"$x","b":"$x"}', '{"a":7,"b":"7"}', false],
    ['{"a":"$x","b":{"$x":1}}', '{"a":"k","b":{"l":1}}', false],
    ['{"a":"$x"}', '{"a":{}}', false],
    ['{"a":"$x"}', '{}', false],
    ['{}', '{"a":1}', false],
    ['{}', '[]', false],
    ['[]', '{}', false],
    ['{"a":1}', '{"a":"1"}', false],
    ['{"a":1}', '{"a":1.0}', false],
    ['{"a":null}', '{}', false],
    ['{"a":0}', '{"a":false}', false],
    ['[1,2]', '[2,1]', false],
    ['[1]', '[1,1]', false],
    ['{"a":1}', 'nonsense', false],
];
foreach ($pairs as [$expected, $text, $isMatch]) {
    try {
        (new Expectation())->match($expected, $text);
        $judged = true;
    } catch (Mismatch | JsonException) {
        $judged = false;
    }
    if ($judged !== $isMatch) {
        echo "$expected against $text\n";
    }
}
