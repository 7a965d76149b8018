//! What the peer makes of everything that it received: the client's view, from the bytes alone.
//!
//! It reads the frames or events and keeps for each channel where it stands. Everything is well-formed; a
//! publication belongs to a subscription that the peer knows of, and in a positioned one continues what the
//! peer has seen, with the content that was published at that position. The id of an event names exactly
//! what was read, in all channels. The last words are the last. At the end both sides agree on what is
//! subscribed.

use super::World;
use longwire_protocol::plain::position_token::PositionToken;
use longwire_protocol::websocket::{Connection, Event, Kind, Role};
use longwire_protocol::{Epoch, Position};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

/// A subscribe or unsubscribe that was answered.
pub(super) struct Answered {
    pub(super) id: u32,
    pub(super) channel: String,
}

/// The channels that the peer believes to be subscribed to, and up to where it has seen everything; `None`
/// where nobody watches.
#[derive(Default)]
struct View {
    channels: BTreeMap<String, Option<Position>>,
}

/// Reads everything and compares.
pub(super) fn judge(mut world: World) {
    let closing = world.session.closing().cloned();
    if std::env::var_os("LONGWIRE_FUZZ_SHOW").is_some() {
        eprintln!("{closing:?}\n{}", String::from_utf8_lossy(&world.received));
    }
    let is_whole = !world.is_broken && closing.as_ref().is_none_or(|closing| closing.is_polite);
    let answered = std::mem::take(&mut world.answered);
    let view = match world.is_event_stream {
        true => {
            let text = &*String::from_utf8_lossy(&world.received);
            if is_whole && closing.is_some() {
                assert!(text.contains("event: disconnect\n") || text.starts_with("HTTP/1.1 "));
            }
            match event_stream(text, is_whole) {
                Some(view) => view,
                None => return,
            }
        }
        false => {
            let close_code = closing.as_ref().map(|closing| closing.close.code);
            websocket(&world, answered, is_whole.then_some(close_code))
        }
    };
    if closing.is_none() && !world.is_broken {
        let live = world.session.subscriptions.iter().filter(|subscription| !subscription.is_joining());
        let mut live: Vec<&str> = live.map(|subscription| &*subscription.channel).collect();
        live.sort_unstable();
        let believed: Vec<&str> = view.channels.keys().map(|channel| &**channel).collect();
        assert_eq!(believed, live, "what the peer believes to be subscribed to, and what it is");
    }
}

impl View {
    fn subscribe(&mut self, channel: &str, result: &Value) {
        let is_positioned = ["recoverable", "positioned"].iter().any(|flag| result[*flag] == true);
        let seen = match (is_positioned, result["epoch"].as_str()) {
            (true, epoch) => {
                let epoch = Epoch::parse(epoch.expect("a positioned subscription has an epoch"));
                Some(Position { offset: result["offset"].as_u64().unwrap_or_default(), epoch })
            }
            (false, _) => None,
        };
        self.channels.insert(channel.to_owned(), seen);
        let publications = result["publications"].as_array();
        assert!(publications.is_none() || result["recovered"] == true, "a recovery in part");
        for publication in publications.into_iter().flatten() {
            self.publication(channel, publication);
        }
    }

    fn publication(&mut self, channel: &str, publication: &Value) {
        let Some(seen) = self.channels.get_mut(channel) else {
            panic!("a publication in {channel:?}, which is not subscribed: {publication}");
        };
        if let Some(seen) = seen {
            let offset = publication["offset"].as_u64().unwrap_or_default();
            assert_eq!(offset, seen.offset + 1, "a gap or a repetition in {channel:?}");
            let data = &publication["data"];
            assert_eq!(
                (&data["o"], &data["e"]),
                (&offset.into(), &seen.epoch.as_str().into()),
                "other content"
            );
            seen.offset = offset;
        }
    }
}

/// `closed` is the code that the last words must have, if the stream came whole and if it was closed.
fn websocket(world: &World, mut answered: VecDeque<Answered>, closed: Option<Option<u16>>) -> View {
    let mut connection = Connection::new(Role::Client, world.is_deflated, u32::MAX);
    let mut input = &world.received[..];
    let mut view = View::default();
    let mut close = None;
    while let Some(event) = connection.decode(&mut input).expect("the server keeps the rules") {
        match event {
            Event::Message { kind: Kind::Text, data } => {
                let said: Value = serde_json::from_slice(&data).expect("a message is one object");
                assert!(!data.contains(&b'\n'), "a line break");
                hear(&said, &mut view, &mut answered);
            }
            Event::Pong(_) => {}
            Event::Close { code, .. } => close = code,
            other => panic!("{other:?} from a server"),
        }
        assert!(!connection.has_ended() || input.is_empty(), "something stands behind the close frame");
    }
    if let Some(expected) = closed {
        assert_eq!(close, expected, "the code of the last words");
        assert!(connection.is_idle() || connection.has_ended(), "a frame in part");
    }
    view
}

fn hear(said: &Value, view: &mut View, answered: &mut VecDeque<Answered>) {
    for member in ["subscribe", "unsubscribe"] {
        if said.get(member).is_some() {
            let Answered { id, channel } = answered.pop_front().expect("an answer that nobody gave");
            assert_eq!(said["id"], id);
            if member == "subscribe" {
                view.subscribe(&channel, &said[member]);
            } else {
                view.channels.remove(&channel);
            }
        }
    }
    for (channel, result) in said["connect"]["subs"].as_object().into_iter().flatten() {
        view.subscribe(channel, result);
    }
    let push = &said["push"];
    let channel = push["channel"].as_str().unwrap_or_default();
    if push.get("subscribe").is_some() {
        view.subscribe(channel, &push["subscribe"]);
    } else if push.get("unsubscribe").is_some() {
        view.channels.remove(channel);
    } else if push.get("pub").is_some() {
        view.publication(channel, &push["pub"]);
    } else if push.get("join").is_some() || push.get("leave").is_some() {
        assert!(view.channels.contains_key(channel), "a movement in {channel:?}, which is not subscribed");
    }
}

/// The view of a stream that began; `None` if it did not.
fn event_stream(text: &str, is_whole: bool) -> Option<View> {
    let (head, mut rest) = text.split_once("\r\n\r\n")?;
    if !head.starts_with("HTTP/1.1 200") {
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        assert!(!is_whole || length == Some(&rest.len().to_string()), "the length of a refusal");
        return None;
    }
    let mut view = View::default();
    let mut has_ended = false;
    while let Some((event, behind)) = rest.split_once("\n\n") {
        assert!(!has_ended, "something stands behind the last words");
        rest = behind;
        let (mut id, mut name, mut data) = (None, "message", None);
        for line in event.lines() {
            match line.split_once(": ") {
                Some(("id", token)) => {
                    id = Some(PositionToken::parse(token.as_bytes()).expect("an id is a token"));
                }
                Some(("event", event)) => name = event,
                Some(("data", json)) => {
                    let json: Value = serde_json::from_str(json).expect("data is JSON");
                    assert!(data.replace(json).is_none(), "data of two lines");
                }
                Some(("retry", _)) => {}
                _ => assert_eq!(line, ":"),
            }
        }
        let Some(data) = data else { continue };
        let channel = data["channel"].as_str().unwrap_or_default();
        match name {
            "subscribed" | "recovered" => {
                for (channel, state) in data["channels"].as_object().expect("the channels") {
                    let told = state["epoch"].as_str().map(|epoch| Position {
                        offset: state["offset"].as_u64().unwrap_or_default(),
                        epoch: Epoch::parse(epoch),
                    });
                    let named = id.as_ref().and_then(|token| token.get(channel));
                    view.channels.insert(channel.clone(), named.or(told));
                }
            }
            "message" => {
                view.publication(channel, &data);
                assert!(
                    id.is_some() || view.channels.values().all(Option::is_none),
                    "an event without its id"
                );
            }
            "unsubscribe" => drop(view.channels.remove(channel)),
            "join" | "leave" => assert!(view.channels.contains_key(channel)),
            "disconnect" => has_ended = true,
            other => panic!("an event {other:?}"),
        }
        if let Some(token) = id {
            for (channel, seen) in &view.channels {
                if seen.is_some() {
                    assert_eq!(token.get(channel), *seen, "the id of {event:?} misplaces {channel:?}");
                }
            }
        }
    }
    assert!(!is_whole || rest.is_empty(), "an event in part: {rest:?}");
    Some(view)
}
