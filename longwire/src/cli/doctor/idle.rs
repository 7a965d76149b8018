//! How long a connection lasts on which nothing is said.
//!
//! Not one connection after the other, as a binary search would, but many at once, each silent for another length and
//! asked at its end whether it lives: a limit that ends connections is known to the second, one that forgets them is
//! known between two lengths, and all of it is over after the longest. Beside them one connection is kept as clients
//! keep theirs, with every beat answered. What must stay true: what was seen so far can be read at any time; a silent
//! connection sends nothing before its end.

use super::line::Break;
use super::plan::StompAt;
use super::seen::{Closing, Kept, Quiet, QuietLine, Silence};
use super::stomp::{self, Heard, Stomp, Who};
use super::upgrade::{self, Open, hears_end};
use super::way::Way;
use super::websocket::{Socket, text, told};
use longwire_protocol::websocket::Event;
use longwire_protocol::websocket::frame::Opcode;
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Lengths of silence, in seconds: denser where limits are usual, just behind the round ones.
const LENGTHS_S: [u64; 22] =
    [5, 10, 20, 30, 40, 50, 61, 75, 90, 121, 151, 181, 241, 301, 351, 421, 481, 601, 901, 1201, 1801, 3601];

/// Between the beginnings of two connections: who counts how fast they come has nothing to say.
const STAGGER: Duration = Duration::from_millis(60);

/// What comes so soon is a welcome and no disturbance.
const WELCOME_TIME: Duration = Duration::from_millis(1500);

/// How long an answer at the end of a silence may take, where the user's limit is not shorter.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// How often STOMP servers are asked to beat on the connection that is kept.
const STOMP_BEAT_MS: u64 = 10_000;

/// Beats that are kept.
const MAX_BEATS: usize = 1000;

/// On what to be silent.
#[derive(Clone, Debug)]
pub(super) enum On {
    /// A WebSocket of whom nothing is known.
    WebSocket { path: String, subprotocols: &'static [&'static str], ask: Option<Ask> },
    /// STOMP.
    Stomp(StompAt),
    /// A socket.
    Tcp,
}

/// How a WebSocket is asked whether it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    Ping,
    Close,
}

impl On {
    fn name(&self) -> String {
        match self {
            On::WebSocket { path, .. } => format!("WebSocket {path}"),
            On::Stomp(StompAt::Tcp) => "STOMP with heart-beat:0,0".to_owned(),
            On::Stomp(StompAt::WebSocket(path)) => format!("STOMP over WebSocket {path} with heart-beat:0,0"),
            On::Tcp => "TCP".to_owned(),
        }
    }

    fn asked_by(&self) -> Option<&'static str> {
        match self {
            On::WebSocket { ask, .. } => ask.map(|ask| if ask == Ask::Ping { "ping" } else { "close" }),
            On::Stomp(_) => Some("receipt"),
            On::Tcp => None,
        }
    }
}

/// The lengths of silence that are tried, the longest last.
pub(super) fn lengths(max: Duration) -> Vec<Duration> {
    let lengths = LENGTHS_S.iter().map(|seconds| Duration::from_secs(*seconds));
    lengths.filter(|length| *length < max).chain([max]).collect()
}

/// Runs all to their ends, at the same time.
pub(super) async fn together(mut futures: Vec<Pin<Box<dyn Future<Output = ()> + '_>>>) {
    poll_fn(move |cx| {
        futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Is silent for all lengths up to `max`.
pub(super) async fn quiet(way: &Way, on: &On, who: Who<'_>, max: Duration, cell: &RefCell<Quiet>) {
    let lengths = lengths(max);
    let lines =
        lengths.iter().map(|length| QuietLine { length_s: length.as_secs_f64(), outcome: Silence::Lasts });
    *cell.borrow_mut() = Quiet {
        on: on.name(),
        asked_by: on.asked_by(),
        max_s: max.as_secs_f64(),
        lines: lines.collect(),
        error: None,
    };
    let mut all: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    for (index, length) in lengths.into_iter().enumerate() {
        all.push(Box::pin(async move {
            way.clock.sleep(STAGGER * index as u32).await;
            let outcome = silence(way, on, who, length).await;
            cell.borrow_mut().lines[index].outcome = outcome;
        }));
    }
    together(all).await;
}

/// A connection that is silent.
enum Silent {
    WebSocket(Socket, Option<Ask>),
    Stomp(Box<Stomp>),
    Tcp(super::line::Line),
}

/// What came during a silence.
enum Came {
    Something,
    End(Closing),
    Nothing,
}

async fn silence(way: &Way, on: &On, who: Who<'_>, length: Duration) -> Silence {
    let opened = match on {
        On::WebSocket { path, subprotocols, ask } => {
            upgrade::open(way, path, subprotocols, None).await.map(|socket| Silent::WebSocket(socket, *ask))
        }
        On::Stomp(at) => {
            let connected = stomp::connect(way, at, who, 0).await;
            connected.map(|(stomp, _)| Silent::Stomp(Box::new(stomp))).map_err(|no| no.text)
        }
        On::Tcp => way.open().await.map(Silent::Tcp),
    };
    let mut silent = match opened {
        Ok(silent) => silent,
        Err(error) => return Silence::NotOpened(error),
    };
    let opened_at = way.clock.now();
    let mut since = opened_at;
    loop {
        match silent.next(since + length).await {
            Came::Nothing => break,
            Came::End(how) => {
                let after_s = (way.clock.now() - since).as_secs_f64();
                return Silence::Closed { after_s, how };
            }
            Came::Something if way.clock.now() - opened_at <= WELCOME_TIME => since = way.clock.now(),
            Came::Something => {
                return Silence::Disturbed { after_s: (way.clock.now() - since).as_secs_f64() };
            }
        }
    }
    silent.ask(way).await
}

impl Silent {
    /// What comes before `deadline`.
    async fn next(&mut self, deadline: Instant) -> Came {
        let broken = match self {
            Silent::WebSocket(socket, _) => match socket.next(deadline).await {
                Ok(Event::Close { code, reason }) => return Came::End(Closing::Told(told(code, &reason))),
                Ok(_) => return Came::Something,
                Err(broken) => broken,
            },
            Silent::Stomp(stomp) => match stomp.next(deadline).await {
                Ok(Heard::Frame { command, headers, .. }) if command == "ERROR" => {
                    let message = headers.into_iter().find(|(name, _)| name == "message");
                    let text = message.map(|(_, value)| value).unwrap_or_default();
                    return Came::End(Closing::Told(crate::cli::printable(&format!("ERROR {text}"))));
                }
                Ok(_) => return Came::Something,
                Err(broken) => broken,
            },
            Silent::Tcp(line) => match line.read_more(deadline).await {
                Ok(_) => {
                    line.received.clear();
                    return Came::Something;
                }
                Err(broken) => broken,
            },
        };
        match broken {
            Break::TimedOut => Came::Nothing,
            broken => Came::End(broken.closing().unwrap_or(Closing::Ended)),
        }
    }

    /// Whether the other end is there after all.
    async fn ask(&mut self, way: &Way) -> Silence {
        let deadline = way.clock.now() + ANSWER_TIME.min(way.limit);
        let is_alive = match self {
            Silent::WebSocket(socket, Some(Ask::Ping)) => {
                let is_alive = socket.ping(b"there?", deadline).await.is_ok();
                // Leaves politely; whether that is heard means nothing.
                let _ = socket.close(deadline).await;
                is_alive
            }
            Silent::WebSocket(socket, Some(Ask::Close)) => {
                socket.close(deadline).await.is_ok() && hears_end(socket, deadline).await
            }
            Silent::Stomp(stomp) => stomp.ask(deadline).await.is_ok(),
            Silent::WebSocket(_, None) | Silent::Tcp(_) => return Silence::NoEnd,
        };
        if is_alive { Silence::Alive } else { Silence::Lost }
    }
}

/// Keeps a WebSocket as clients do, until it ends.
pub(super) async fn keep(way: &Way, open: Open, cell: &RefCell<Kept>) {
    let begun = way.clock.now();
    let Open { mut socket, path, beats_are_messages, wants_pong } = open;
    cell.borrow_mut().path = path;
    let closing = loop {
        let deadline = way.clock.now() + way.limit;
        let answered = match socket.next(deadline).await {
            Ok(Event::Ping(payload)) => {
                note_beat(way, begun, "ping frame", cell);
                socket.send(Opcode::Pong, &payload, deadline).await
            }
            Ok(Event::Message { data, .. }) if beats_are_messages && text(&data).trim() == "{}" => {
                note_beat(way, begun, "message {}", cell);
                match wants_pong {
                    true => socket.send(Opcode::Text, b"{}", deadline).await,
                    false => Ok(()),
                }
            }
            Ok(Event::Message { .. } | Event::Pong(_)) => Ok(()),
            Ok(Event::Close { code, reason }) => break Closing::Told(told(code, &reason)),
            Err(broken) => Err(broken),
        };
        cell.borrow_mut().watched_s = (way.clock.now() - begun).as_secs_f64();
        if let Some(closing) = answered.err().and_then(|broken| broken.closing()) {
            break closing;
        }
    };
    let after_s = (way.clock.now() - begun).as_secs_f64();
    let mut kept = cell.borrow_mut();
    (kept.watched_s, kept.end) = (after_s, Some((after_s, closing)));
}

/// Keeps a connection of STOMP on which the server was asked to beat, until it ends.
pub(super) async fn keep_stomp(way: &Way, at: &StompAt, who: Who<'_>, cell: &RefCell<Kept>) {
    let begun = way.clock.now();
    let Ok((mut stomp, _)) = stomp::connect(way, at, who, STOMP_BEAT_MS).await else { return };
    cell.borrow_mut().path = "STOMP".to_owned();
    let closing = loop {
        match stomp.next(way.clock.now() + way.limit).await {
            Ok(Heard::Beat) => note_beat(way, begun, "newline", cell),
            Ok(Heard::Frame { command, .. }) if command == "ERROR" => {
                break Closing::Told("ERROR".to_owned());
            }
            Ok(Heard::Frame { .. }) => {}
            Err(broken) => {
                if let Some(closing) = broken.closing() {
                    break closing;
                }
            }
        }
        cell.borrow_mut().watched_s = (way.clock.now() - begun).as_secs_f64();
    };
    let after_s = (way.clock.now() - begun).as_secs_f64();
    let mut kept = cell.borrow_mut();
    (kept.watched_s, kept.end) = (after_s, Some((after_s, closing)));
}

fn note_beat(way: &Way, begun: Instant, kind: &'static str, cell: &RefCell<Kept>) {
    let at_s = ((way.clock.now() - begun).as_secs_f64() * 10.0).round() / 10.0;
    let mut kept = cell.borrow_mut();
    kept.kind = Some(kind);
    if kept.beats_s.len() < MAX_BEATS {
        kept.beats_s.push(at_s);
    }
}

/// What a run that was ended early leaves of its silent connections.
pub(super) fn give_up(quiet: &mut Quiet, after_s: f64) {
    for line in &mut quiet.lines {
        if line.outcome == Silence::Lasts {
            *line = QuietLine { length_s: after_s.min(line.length_s), outcome: Silence::NoEnd };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_is_what_the_user_wants_it_to_be() {
        let seconds =
            |max| lengths(Duration::from_secs(max)).iter().map(Duration::as_secs).collect::<Vec<_>>();
        assert_eq!(seconds(3), [3]);
        assert_eq!(seconds(5), [5]);
        assert_eq!(seconds(90), [5, 10, 20, 30, 40, 50, 61, 75, 90]);
        assert_eq!(seconds(100).last(), Some(&100));
        assert_eq!(seconds(7200).len(), 23);
    }
}
