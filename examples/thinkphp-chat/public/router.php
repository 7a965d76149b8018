<?php
// The little of ThinkPHP that the controllers use, so that the example runs on php-cli alone:
//
//     php -S 127.0.0.1:9000 -t public public/router.php
//
// A ThinkPHP project has all of this: copy app/, config/ and route/ there unchanged, and leave this file behind.

declare(strict_types=1);

namespace think {
    class Request
    {
        public function getInput(): string { return file_get_contents('php://input'); }
        public function header(string $name, ?string $default = null): ?string
        {
            return $_SERVER['HTTP_' . strtoupper(strtr($name, '-', '_'))] ?? $default;
        }
        public function post(string $name = '', mixed $default = null): mixed
        {
            $values = $_POST ?: (array) json_decode($this->getInput(), true);
            return $name === '' ? $values : $values[$name] ?? $default;
        }
        public function param(string $name, mixed $default = null): mixed
        {
            return $this->post($name) ?? $_GET[$name] ?? $default;
        }
    }
    class Response
    {
        public function __construct(public readonly mixed $data, public readonly int $code) {}
    }
}

namespace think\facade {
    class Session
    {
        public static function regenerate(bool $destroy = false): void { session_regenerate_id($destroy); }
    }
    class Route
    {
        public static array $actions = [];
        public static function __callStatic(string $method, array $rule): void
        {
            self::$actions[strtoupper($method) . ' /' . $rule[0]] = explode('/', $rule[1]);
        }
    }
}

namespace {
    function json(mixed $data, int $code = 200): think\Response { return new think\Response($data, $code); }
    function abort(int $code, string $message): never { throw new DomainException($message, $code); }
    function runtime_path(): string { return (getenv('RUNTIME_PATH') ?: dirname(__DIR__) . '/runtime') . '/'; }
    function config(string $name): mixed
    {
        [$file, $key] = explode('.', $name);
        return (require dirname(__DIR__) . "/config/$file.php")[$key];
    }
    function session(string $name, mixed $value = ''): mixed
    {
        is_dir(runtime_path()) || mkdir(runtime_path(), 0o777, true);
        // Who only reads does not lock it.
        session_status() === PHP_SESSION_ACTIVE || session_start([
            'save_path' => runtime_path(),
            'read_and_close' => $value === '',
            'use_strict_mode' => 1,
            'cookie_httponly' => 1,
            'cookie_samesite' => 'Lax',
        ]);
        return $value === '' ? $_SESSION[$name] ?? null : $_SESSION[$name] = $value;
    }

    $path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
    if ($path === '/' || is_file(__DIR__ . $path)) {
        return false;
    }
    spl_autoload_register(fn (string $class) => require dirname(__DIR__) . '/' . strtr($class, '\\', '/') . '.php');
    require dirname(__DIR__) . '/route/app.php';
    try {
        [$controller, $action] = think\facade\Route::$actions["{$_SERVER['REQUEST_METHOD']} $path"] ?? abort(404, 'no such page');
        $answer = (new ("app\\controller\\$controller"))->$action(new think\Request());
    } catch (Throwable $error) {
        $answer = json(['wrong' => $error->getMessage()], $error instanceof DomainException ? $error->getCode() : 500);
    }
    http_response_code($answer->code);
    header('Content-Type: application/json');
    echo json_encode($answer->data, JSON_UNESCAPED_UNICODE);
}
