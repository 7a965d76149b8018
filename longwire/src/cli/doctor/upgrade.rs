//! What a WebSocket tells: whether it can be had, compressed or not, who speaks on it, pings, how long a message may be.
//!
//! What must stay true: the server gets no message that it was not made for. A limit of messages is found with one that
//! is never finished: its pieces count, and nobody is handed it.

use super::http::note_proxy;
use super::line::Break;
use super::plan::{self, Plan};
use super::seen::{Login, PingSeen, Seen, Size};
use super::way::Way;
use super::websocket::{Asked, Shaken, Socket, shake, text, told};
use super::{Arguments, milliseconds};
use longwire_protocol::websocket::Event;
use longwire_protocol::websocket::frame::Opcode;
use serde_json::{Value, json};
use std::time::Duration;

/// How long a pong may take before it counts as swallowed, where the user's limit is not shorter.
const PONG_TIME: Duration = Duration::from_secs(5);

/// How long a server that speaks first may take.
const WELCOME_TIME: Duration = Duration::from_millis(700);

/// The pieces of a message that is never finished.
const PIECE_BYTES: usize = 16 << 10;

/// The first length that is tried, and the exactness with which a limit is found.
const SMALLEST_BYTES: u64 = 16 << 10;
const EXACTNESS_BYTES: u64 = 1 << 10;

/// A WebSocket that is open and logged in, as far as that went.
pub(super) struct Open {
    pub(super) socket: Socket,
    pub(super) path: String,
    /// The server's beats are messages `{}`.
    pub(super) beats_are_messages: bool,
    /// They are to be answered with the same.
    pub(super) wants_pong: bool,
}

/// Opens one on `path`, offering nothing.
///
/// # Errors
/// Why there is none, in words.
pub(super) async fn open(
    way: &Way,
    path: &str,
    subprotocols: &[&str],
    token: Option<&str>,
) -> Result<Socket, String> {
    let shaken = attempt(way, path, subprotocols, token, false).await?;
    match shaken.socket {
        Some(socket) => Ok(socket),
        None => Err(shaken.seen.error.unwrap_or_else(|| match shaken.seen.status {
            Some(status) => format!("HTTP {status}"),
            None => "no answer".to_owned(),
        })),
    }
}

async fn attempt(
    way: &Way,
    path: &str,
    subprotocols: &[&str],
    token: Option<&str>,
    offer_deflate: bool,
) -> Result<Shaken, String> {
    let line = way.open().await?;
    let bearer = way.secret(token).map(|token| format!("Bearer {token}"));
    let mut headers = vec![("User-Agent", super::AGENT)];
    if let Some(bearer) = &bearer {
        headers.push(("Authorization", bearer.as_str()));
    }
    let asked =
        Asked { host: &way.authority, path, subprotocols, offer_deflate, headers: &headers, key: way.draw() };
    Ok(shake(line, &asked, way.deadline()).await)
}

/// Asks for a WebSocket at each path of the plan until one is given, and logs in.
pub(super) async fn look(way: &Way, plan: &Plan, arguments: &Arguments, seen: &mut Seen) -> Option<Open> {
    let token = arguments.token.as_deref();
    let mut first = None;
    for path in &plan.websockets {
        let shaken = match attempt(way, path, plan.subprotocols, token, false).await {
            Ok(shaken) => shaken,
            Err(error) => {
                let upgrade =
                    super::seen::Upgrade { path: path.clone(), error: Some(error), ..Default::default() };
                first.get_or_insert(upgrade);
                break;
            }
        };
        if let Some(head) = &shaken.head {
            note_proxy(seen, head, &shaken.seen.body);
        }
        if let Some(socket) = shaken.socket {
            let mut upgrade = shaken.seen;
            upgrade.compression = compression(way, path, plan.subprotocols, token).await;
            seen.upgrade = Some(upgrade);
            let is_centrifuge = plan::is_centrifuge(path);
            let mut open =
                Open { socket, path: path.clone(), beats_are_messages: is_centrifuge, wants_pong: false };
            match is_centrifuge {
                true => log_in(way, &mut open, token, seen).await,
                false => welcome(way, &mut open, seen).await,
            }
            return Some(open);
        }
        // Of several that are refused, the first is what the user meant.
        first.get_or_insert(shaken.seen);
    }
    seen.upgrade = first;
    None
}

/// What is answered to an offer of permessage-deflate.
async fn compression(way: &Way, path: &str, subprotocols: &[&str], token: Option<&str>) -> Option<String> {
    let shaken = attempt(way, path, subprotocols, token, true).await.ok()?;
    if let Some(mut socket) = shaken.socket {
        // The connection is given up, whether or not that is heard.
        let _ = socket.close(way.deadline()).await;
    }
    shaken.seen.compression.filter(|_| shaken.seen.status == Some(101))
}

/// The connect command of the centrifuge dialect.
pub(super) fn connect_command(way: &Way, token: Option<&str>) -> String {
    let mut connect = json!({"name": "longwire-doctor"});
    if let Some(token) = way.secret(token) {
        connect["token"] = Value::from(token);
    }
    json!({"id": 1, "connect": connect}).to_string()
}

/// What a reply to the connect command says.
pub(super) fn read_connected(reply: &Value, login: &mut Login) -> bool {
    if let Some(connected) = reply.get("connect") {
        login.server = connected["version"].as_str().map(super::super::printable);
        login.beat_s = connected["ping"].as_f64().filter(|seconds| *seconds > 0.0);
        return true;
    }
    let refusal = reply.get("error").or_else(|| reply.pointer("/push/disconnect"));
    if let Some(refusal) = refusal {
        let text = refusal["message"].as_str().or(refusal["reason"].as_str()).unwrap_or("no reason");
        login.refuse(super::super::printable(&format!("{} {text}", refusal["code"])));
        return true;
    }
    false
}

async fn log_in(way: &Way, open: &mut Open, token: Option<&str>, seen: &mut Seen) {
    let begun = way.clock.now();
    let deadline = way.deadline();
    let mut login = Login { dialect: "centrifuge", ..Login::default() };
    let command = connect_command(way, token);
    if let Err(broken) = open.socket.send(Opcode::Text, command.as_bytes(), deadline).await {
        login.error = Some(broken.text());
    }
    while login.error.is_none() {
        match open.socket.next(deadline).await {
            Ok(Event::Message { data, .. }) => {
                let text = text(&data);
                let mut replies = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                if let Some(reply) = replies.find(|reply| read_connected(reply, &mut login)) {
                    open.wants_pong = reply["connect"]["pong"] == true;
                    break;
                }
            }
            Ok(Event::Close { code, reason }) => login.refuse(told(code, &reason)),
            Ok(_) => {}
            Err(broken) => login.error = Some(broken.text()),
        }
    }
    login.ms = milliseconds(way.clock.now() - begun);
    seen.login = Some(login);
}

/// Hears what a server says that speaks first.
async fn welcome(way: &Way, open: &mut Open, seen: &mut Seen) {
    let begun = way.clock.now();
    let mut login = Login { dialect: "plain", ..Login::default() };
    match open.socket.next(begun + WELCOME_TIME.min(way.limit)).await {
        Ok(Event::Message { data, .. }) => {
            let first: Value = serde_json::from_str(&text(&data)).unwrap_or_default();
            if !matches!(first["type"].as_str(), Some("subscribed" | "recovered"))
                || first.get("session").is_none()
            {
                return;
            }
        }
        Ok(Event::Close { code, reason }) => login.refuse(told(code, &reason)),
        _ => return,
    }
    login.ms = milliseconds(way.clock.now() - begun);
    seen.login = Some(login);
}

/// Pings, and where nothing comes back, closes to find out whether anybody is there. Whether the socket can still be used.
pub(super) async fn ping(way: &Way, open: &mut Open, seen: &mut Seen) -> bool {
    let begun = way.clock.now();
    let time = PONG_TIME.min(way.limit);
    let payload = way.draw().to_be_bytes();
    let answered = open.socket.ping(&payload[..8], begun + time).await;
    let mut ping = PingSeen { ms: None, waited_s: time.as_secs_f64(), is_close_answered: None };
    let is_usable = answered.is_ok();
    match answered {
        Ok(()) => ping.ms = Some(milliseconds(way.clock.now() - begun)),
        Err(Break::TimedOut) => {
            let deadline = way.clock.now() + time;
            let _ = open.socket.close(deadline).await;
            ping.is_close_answered = Some(hears_end(&mut open.socket, deadline).await);
        }
        // The connection ended, which is no word on pings.
        Err(_) => return false,
    }
    seen.ping = Some(ping);
    is_usable
}

/// Whether a close is answered, or the connection ended.
pub(super) async fn hears_end(socket: &mut Socket, deadline: std::time::Instant) -> bool {
    loop {
        match socket.next(deadline).await {
            Ok(Event::Close { .. }) => return true,
            Ok(_) => {}
            Err(broken) => return broken.closing().is_some(),
        }
    }
}

/// Finds out how long a message may be.
pub(super) async fn message_limit(
    way: &Way,
    plan: &Plan,
    path: &str,
    arguments: &Arguments,
    seen: &mut Seen,
) {
    let (max, token) = (arguments.max_message as u64, arguments.token.as_deref());
    let subprotocols = plan.subprotocols;
    let mut size = Size::default();
    // Upwards on one connection, then between what passed and what did not on fresh ones.
    let mut next = SMALLEST_BYTES.min(max);
    let mut grown = match open(way, path, subprotocols, token).await {
        Ok(socket) => Some((socket, 0_u64)),
        Err(error) => {
            size.error = Some(error);
            None
        }
    };
    while let Some((mut socket, sent)) = grown.take() {
        match send_up_to(way, &mut socket, sent, next).await {
            Ok(()) => {
                size.passed_bytes = next;
                if next < max {
                    grown = Some((socket, next));
                    next = (next * 2).min(max);
                } else {
                    // The message is never finished: the connection is given up.
                    let _ = socket.close(way.deadline()).await;
                }
            }
            Err(how) => (size.refused_bytes, size.how) = (Some(next), Some(how)),
        }
    }
    while let Some(refused) =
        size.refused_bytes.filter(|refused| refused - size.passed_bytes > EXACTNESS_BYTES)
    {
        let middle = size.passed_bytes + (refused - size.passed_bytes) / 2;
        let Ok(mut socket) = open(way, path, subprotocols, token).await else { break };
        match send_up_to(way, &mut socket, 0, middle).await {
            Ok(()) => size.passed_bytes = middle,
            Err(_) => size.refused_bytes = Some(middle),
        }
    }
    seen.message = Some(size);
}

/// Sends pieces of a message until it has so many bytes, and hears by a pong whether they were taken.
async fn send_up_to(way: &Way, socket: &mut Socket, mut sent: u64, bytes: u64) -> Result<(), String> {
    let deadline = way.deadline();
    let piece = [b' '; PIECE_BYTES];
    while sent < bytes {
        let len = (bytes - sent).min(PIECE_BYTES as u64) as usize;
        if socket.send_piece(sent == 0, &piece[..len], deadline).await.is_err() {
            // Who refuses closes; why, stands in what came before that.
            break;
        }
        sent += len as u64;
    }
    let payload = way.draw().to_be_bytes();
    socket.ping(&payload[..8], deadline).await.map_err(|broken| broken.text())
}
