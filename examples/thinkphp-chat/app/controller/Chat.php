<?php
// What the page asks: ordinary requests with the cookie of the login.

declare(strict_types=1);

namespace app\controller;

use app\model\Messages;
use app\service\Push;
use think\facade\Session;
use think\Request;
use think\Response;

class Chat
{
    /** A real application checks a password here. */
    public function login(Request $request): Response
    {
        $name = trim((string) $request->post('name'));
        if (!preg_match('/^[\p{L}\p{N} ._-]{1,20}$/u', $name)) {
            return json(['wrong' => 'a name has 1 to 20 letters or digits'], 422);
        }
        session('user', $name);
        // Whoever knew the session's id before the login does not know it after.
        Session::regenerate(true);
        return $this->rooms();
    }

    /** Who am I, which rooms are there, and where is longwire? */
    public function rooms(): Response
    {
        return session('user')
            ? json(['user' => session('user'), 'rooms' => Messages::ROOMS, 'longwire' => config('longwire.public')])
            : json(['wrong' => 'log in first'], 401);
    }

    /** The last messages of all rooms, oldest first. */
    public function history(): Response
    {
        return session('user') ? json(['messages' => Messages::last(200)]) : json(['wrong' => 'log in first'], 401);
    }

    /** Who is in a room, and who left when and why. */
    public function online(Request $request): Response
    {
        if (!session('user')) {
            return json(['wrong' => 'log in first'], 401);
        }
        $room = $request->param('room');
        if (!in_array($room, Messages::ROOMS, true)) {
            return json(['wrong' => 'there is no such room'], 404);
        }
        $here = Push::call('presence', ['channel' => "room:$room"])['presence'];
        $users = array_values(array_unique(array_column($here, 'user')));
        return json(['online' => $users, 'left' => array_diff_key(Messages::whoLeft(), array_flip($users))]);
    }

    /** Says something, where no WebSocket can carry it up. The same as Longwire::message(). */
    public function send(Request $request): Response
    {
        if (!session('user')) {
            return json(['wrong' => 'log in first'], 401);
        }
        $wrong = Messages::accept(session('user'), $request->post());
        return $wrong ? json(['wrong' => $wrong], 422) : json((object) []);
    }
}
