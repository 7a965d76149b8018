<?php
// The HTTP API as a PHP developer calls it: curl, one handle that keeps its connection, nothing else.

declare(strict_types=1);

final class Longwire
{
    private CurlHandle $curl;

    public function __construct(private readonly string $url, private readonly string $key)
    {
        $this->curl = curl_init();
    }

    /**
     * Calls a method and gives status and body.
     *
     * @return array{int, string}
     */
    public function post(string $method, array $parameters = [], array $headers = []): array
    {
        curl_reset($this->curl);
        curl_setopt_array($this->curl, [
            CURLOPT_URL => "{$this->url}/api/$method",
            CURLOPT_POST => true,
            // An object even if it is empty: PHP would write a list.
            CURLOPT_POSTFIELDS => json_encode((object) $parameters, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE | JSON_PRESERVE_ZERO_FRACTION),
            CURLOPT_HTTPHEADER => ['Content-Type: application/json', "X-API-Key: {$this->key}", ...$headers],
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT => 10,
        ]);
        $body = curl_exec($this->curl);
        if ($body === false) {
            throw new RuntimeException("$method: " . curl_error($this->curl));
        }
        return [curl_getinfo($this->curl, CURLINFO_RESPONSE_CODE), $body];
    }

    /** Connections that were opened so far by the last call: 0 if one was kept. */
    public function newConnections(): int
    {
        return curl_getinfo($this->curl, CURLINFO_NUM_CONNECTS);
    }
}
