<?php
// What longwire asks and tells: who a visitor is, who came, what was said, who went. Each is an ordinary request;
// nothing here stays alive between two of them.

declare(strict_types=1);

namespace app\controller;

use app\model\Messages;
use app\service\Push;
use think\Request;
use think\Response;

class Longwire
{
    /** Who is it? The cookie of the login came along with the browser's own request. */
    public function connect(Request $request): Response
    {
        Push::verify($request);
        $user = session('user');
        return json($user
            ? ['result' => ['user' => $user]]
            : ['disconnect' => ['code' => 4501, 'reason' => 'log in first']]);
    }

    /** onOpen: somebody is there. The answer lets them hear every room. */
    public function open(Request $request): Response
    {
        Push::verify($request);
        Messages::publish();
        return json(['join' => array_map(fn (string $room) => "room:$room", Messages::ROOMS)]);
    }

    /** onMessage: said over a WebSocket or a TCP socket. Answered only if something is wrong with it. */
    public function message(Request $request): Response
    {
        Push::verify($request);
        $message = json_decode($request->post('data', ''), true);
        $wrong = Messages::accept($request->post('user'), is_array($message) ? $message : []);
        return json($wrong ? ['data' => ['wrong' => $wrong, 'id' => $message['id'] ?? null]] : (object) []);
    }

    /** onClose: really gone. Who only changed trains, or reloaded the page, is back before this is called. */
    public function close(Request $request): Response
    {
        Push::verify($request);
        Messages::left($request->post('user'), $request->post('category'));
        return json((object) []);
    }
}
