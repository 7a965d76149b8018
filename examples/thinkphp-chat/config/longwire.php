<?php
// Where longwire is, and the two secrets that longwire.toml has as well.

return [
    // For this backend: the HTTP API.
    'api' => getenv('LONGWIRE_API') ?: 'http://127.0.0.1:8000/api',
    // For the page; empty once nginx serves both under one name.
    'public' => getenv('LONGWIRE_PUBLIC') ?: 'http://127.0.0.1:8000',
    'key' => 'change me: what PHP shows to longwire',
    'secret' => 'change me: what longwire signs its calls with',
];
