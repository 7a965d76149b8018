<?php
// Speaks to longwire: calls its HTTP API, and makes sure that what comes from it does come from it.

declare(strict_types=1);

namespace app\service;

use RuntimeException;
use think\Request;

class Push
{
    /** Calls a method of the HTTP API (docs/http-api.md) and gives its result. */
    public static function call(string $method, array $parameters = []): array
    {
        static $curl = null;    // one connection for all calls of a request
        $curl ??= curl_init();
        curl_setopt_array($curl, [
            CURLOPT_URL => config('longwire.api') . "/$method",
            CURLOPT_POSTFIELDS => json_encode((object) $parameters, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE),
            CURLOPT_HTTPHEADER => ['Content-Type: application/json', 'X-API-Key: ' . config('longwire.key')],
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT => 3,
        ]);
        $answer = json_decode((string) curl_exec($curl), true);
        return $answer['result'] ?? throw new RuntimeException("longwire, $method: " . (curl_error($curl) ?: json_encode($answer)));
    }

    /** Refuses a call that does not bear longwire's signature, or is older than five minutes. */
    public static function verify(Request $request): void
    {
        $isSigned = preg_match('/^t=(\d+),v1=([0-9a-f]{64})$/', $request->header('x-longwire-signature', ''), $parts)
            && hash_equals(hash_hmac('sha256', $parts[1] . '.' . $request->getInput(), config('longwire.secret')), $parts[2])
            && abs(time() - (int) $parts[1]) <= 300;
        if (!$isSigned) {
            abort(401, 'not signed by longwire');
        }
    }
}
