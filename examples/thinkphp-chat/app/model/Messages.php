<?php
// What was said, in a table. A message is accepted when it stands there; then it is published, in the table's order.
//
// Every message has an id that its sender made, and may come any number of times: it is accepted once. What was
// accepted but not published (longwire was restarting, PHP was killed in between) is published before the next one, or
// when the next client comes, under its id, so that longwire lets no second copy pass. (Keys are kept in memory: when
// longwire is restarted between a publication and its answer, a second copy is published. Readers drop it by its id,
// as the page does.) SQLite here; any database will do.

declare(strict_types=1);

namespace app\model;

use app\service\Push;
use PDO;

class Messages
{
    public const ROOMS = ['lobby', 'help', 'random'];

    /** Accepts and publishes a message. Gives what is wrong with it, or null. */
    public static function accept(string $user, array $message): ?string
    {
        ['id' => $id, 'room' => $room, 'text' => $text] = $message + ['id' => '', 'room' => '', 'text' => ''];
        if (!is_string($id) || !preg_match('/^[\w-]{8,64}$/', $id)) {
            return 'a message needs an id of 8 to 64 letters or digits';
        }
        if (!in_array($room, self::ROOMS, true)) {
            return 'there is no such room';
        }
        if (!is_string($text) || trim($text) === '' || strlen($text) > 2000) {
            return 'a text has 1 to 2000 bytes';
        }
        self::run('INSERT OR IGNORE INTO messages (id, room, user, text, at) VALUES (?, ?, ?, ?, ?)', [$id, $room, $user, $text, time()]);
        self::publish();
        return null;
    }

    /** The last messages, oldest first. */
    public static function last(int $limit): array
    {
        $rows = self::run('SELECT n, id, room, user, text, at FROM messages ORDER BY n DESC LIMIT ?', [$limit])->fetchAll();
        return array_reverse($rows);
    }

    public static function left(string $user, string $category): void
    {
        self::run('REPLACE INTO departures (user, at, category) VALUES (?, ?, ?)', [$user, time(), $category]);
    }

    /** When and why somebody left: client, network, server or policy. */
    public static function whoLeft(): array
    {
        return self::run('SELECT user, at, category FROM departures ORDER BY at DESC LIMIT 20')->fetchAll(PDO::FETCH_UNIQUE);
    }

    /** Publishes what is accepted and not published, one process at a time, for that keeps the order. */
    public static function publish(): void
    {
        // A lock beside the database: nobody waits for that while this waits for longwire. Who does not get it leaves
        // its message to who has it, and who had it looks again.
        while (self::unpublished() && flock($lock ??= fopen(runtime_path() . 'publish.lock', 'c'), LOCK_EX | LOCK_NB)) {
            foreach (self::unpublished() as $row) {
                Push::call('publish', ['channel' => "room:{$row['room']}", 'data' => $row, 'idempotency_key' => $row['id']]);
                self::run('UPDATE messages SET published = 1 WHERE n = ?', [$row['n']]);
            }
            flock($lock, LOCK_UN);
        }
    }

    private static function unpublished(): array
    {
        return self::run('SELECT n, id, room, user, text, at FROM messages WHERE published = 0 ORDER BY n')->fetchAll();
    }

    private static function run(string $sql, array $values = []): \PDOStatement
    {
        static $database = null;
        if ($database === null) {
            is_dir(runtime_path()) || mkdir(runtime_path(), 0o777, true);
            $database = new PDO('sqlite:' . runtime_path() . 'chat.sqlite', options: [PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC]);
            $database->exec('PRAGMA busy_timeout = 10000');
            $database->exec('PRAGMA journal_mode = WAL');
            $database->exec('PRAGMA synchronous = NORMAL');
            $database->exec('CREATE TABLE IF NOT EXISTS messages (n INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL,
                room TEXT NOT NULL, user TEXT NOT NULL, text TEXT NOT NULL, at INTEGER NOT NULL, published INTEGER NOT NULL DEFAULT 0)');
            $database->exec('CREATE INDEX IF NOT EXISTS unpublished ON messages (n) WHERE published = 0');
            $database->exec('CREATE TABLE IF NOT EXISTS departures (user TEXT PRIMARY KEY, at INTEGER NOT NULL, category TEXT NOT NULL)');
        }
        $statement = $database->prepare($sql);
        $statement->execute($values);
        return $statement;
    }
}
