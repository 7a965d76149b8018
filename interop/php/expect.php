<?php
// Exact JSON, with names for what cannot be known before.
//
// An expectation is JSON. A text in it that begins with `$` is a name: where it first stands it takes whatever plain
// value is there, later the same value must be there again. `"$epoch"` may stand for a value and for a key. Nothing
// else may differ: no member more, no member less, `{}` is not `[]` and 1 is not "1". The order of members is not JSON.

declare(strict_types=1);

final class Mismatch extends Exception
{
}

final class Expectation
{
    /** @var array<string, mixed> Values by their names. */
    public array $names = [];

    /** Fails unless `$text` is the JSON that is expected. */
    public function match(string $expected, string $text): void
    {
        $actual = json_decode($text, false, 64, JSON_THROW_ON_ERROR);
        $this->compare(json_decode($expected, false, 64, JSON_THROW_ON_ERROR), $actual, '$', $text);
    }

    private function compare(mixed $expected, mixed $actual, string $path, string $text): void
    {
        if (is_string($expected) && str_starts_with($expected, '$')) {
            if (is_object($actual) || is_array($actual)) {
                throw new Mismatch("$path is not a plain value in $text");
            }
            $expected = $this->names[$expected] ??= $actual;
        }
        if (is_object($expected) && is_object($actual)) {
            $wanted = [];
            foreach (get_object_vars($expected) as $key => $value) {
                $key = (string) $key;
                $wanted[str_starts_with($key, '$') ? (string) ($this->names[$key] ?? throw new Mismatch("nothing is named $key")) : $key] = $value;
            }
            $there = get_object_vars($actual);
            $missing = array_diff(array_map(strval(...), array_keys($wanted)), array_map(strval(...), array_keys($there)));
            $more = array_diff(array_map(strval(...), array_keys($there)), array_map(strval(...), array_keys($wanted)));
            if ($missing !== [] || $more !== []) {
                throw new Mismatch("$path lacks [" . implode(', ', $missing) . '] and has more [' . implode(', ', $more) . "] in $text");
            }
            foreach ($wanted as $key => $value) {
                $this->compare($value, $there[$key], "$path.$key", $text);
            }
            return;
        }
        if (is_array($expected) && is_array($actual) && count($expected) === count($actual)) {
            foreach ($expected as $index => $value) {
                $this->compare($value, $actual[$index], "{$path}[$index]", $text);
            }
            return;
        }
        if (is_object($expected) || is_array($expected) || $expected !== $actual) {
            throw new Mismatch("$path is " . json_encode($actual) . ' and not ' . json_encode($expected) . " in $text");
        }
    }
}
