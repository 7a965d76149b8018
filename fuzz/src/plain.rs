//! Promises of a connection of the plain dialect.
//!
//! What a peer says means the same however it is cut: messages within the limit, text that is UTF-8, no sign of
//! life, and nothing behind the end. What is published is said so that whoever reads it finds exactly that: one
//! object on one line in every framing, data as it was, a position that can be returned with.

use crate::input::{Input, pieces};
use crate::packets;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use longwire_protocol::command::{Command, Connect};
use longwire_protocol::connection::Inbound;
use longwire_protocol::encoding::encode_push;
use longwire_protocol::heartbeat::Intervals;
use longwire_protocol::message::{ClientId, ConnectResult};
use longwire_protocol::plain::position_token::PositionToken;
use longwire_protocol::plain::{
    Beats, Carrier, FirstPacket, Format, Framer, Framing, LengthField, Opening, Terminator, check_client_name,
};
use longwire_protocol::websocket::{self, Event, Kind, Role};
use longwire_protocol::{CloseReason, Connection, Epoch, Position, Publication, Push, Reply};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MAX_BYTES: u32 = 300;

/// Takes the data as a transport and what its peer says, then as something to publish.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let carrier = carrier(&mut input);
    let format = input.choose(&[Format::Json, Format::Bare]);
    let beats = Arc::new(Beats {
        messages: vec![Bytes::copy_from_slice(input.bytes(4)), Bytes::from_static(b"ping")],
        answer: Bytes::copy_from_slice(input.bytes(4)),
        ping_packet: Bytes::new(),
    });
    let seed = input.number();
    let opening = || Opening {
        connect: Connect::default(),
        subscribes: Vec::new(),
        carrier: carrier.clone(),
        format,
        beats: beats.clone(),
    };
    said(&opening, &mut input.clone());
    let stream = input.rest();
    let whole = hear(opening(), [stream]);
    assert_eq!(hear(opening(), pieces(stream, seed)), whole, "cut by {seed}");
}

fn carrier(input: &mut Input<'_>) -> Carrier {
    let first_packet = [FirstPacket::None, FirstPacket::Client, FirstPacket::Token, FirstPacket::Json];
    match input.byte() % 6 {
        0 => Carrier::WebSocket { is_deflated: input.flag(), max_message_bytes: MAX_BYTES },
        1 => Carrier::EventStream { head: "HTTP/1.1 200 OK\r\n".into(), retry_milliseconds: 1 },
        2 => Carrier::Lines { head: "HTTP/1.1 200 OK\r\n".into(), is_chunked: input.flag() },
        3 => Carrier::Poll {
            keep_alive: input.flag(),
            is_first: input.flag(),
            wait: Duration::from_secs(1),
            head: String::new(),
        },
        _ => Carrier::Tcp {
            framing: packets::framing(input),
            max_packet_bytes: MAX_BYTES,
            first_packet: input.choose(&first_packet),
        },
    }
}

fn connect(opening: Opening) -> Connection {
    let intervals = Intervals {
        interval: Duration::from_secs(25),
        timeout: Duration::ZERO,
        max_silence: Duration::from_secs(30),
    };
    Connection::plain(opening, Instant::now(), &intervals, 0.5)
}

fn welcome() -> Reply {
    Reply::Connect(Box::new(ConnectResult {
        client: ClientId(7),
        version: "fuzz",
        ttl_seconds: None,
        data: Bytes::new(),
        subs: Vec::new(),
        ping_seconds: 25,
        pong: false,
        session: String::new(),
        node: String::new(),
        resumed: false,
        lost: false,
    }))
}

/// All that comes of what a peer says, and how it ends if it breaks a rule.
fn hear<'a>(
    opening: Opening,
    stream: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Inbound>, Option<CloseReason>) {
    let beats = opening.beats.clone();
    let mut link = connect(opening);
    let (mut all, mut broken, mut has_ended) = (Vec::new(), None, false);
    for mut piece in std::iter::once(&b""[..]).chain(stream) {
        loop {
            let inbound = match link.decode(&mut piece) {
                Ok(Some(inbound)) => inbound,
                Ok(None) => break,
                Err(fault) => {
                    assert!(broken.replace(fault.reason).is_none(), "broken twice");
                    assert!(!fault.what.is_empty());
                    let _ = link.farewell(&fault.reason.into());
                    return (all, broken);
                }
            };
            assert!(!has_ended, "{inbound:?} follows the end");
            match &inbound {
                Inbound::Command(numbered) => match &numbered.command {
                    Command::Connect(connect) => {
                        assert!(!link.is_open(), "a second connect");
                        assert!(
                            connect.client_name.is_empty() || check_client_name(&connect.client_name).is_ok()
                        );
                        // Channels that the first packet asks for are as good as brought.
                        let mut reply = welcome();
                        if let Reply::Connect(result) = &mut reply {
                            result.subs = connect
                                .subs
                                .iter()
                                .map(|s| (s.channel.clone(), Default::default()))
                                .collect();
                        }
                        let answer = link.reply(numbered.id, &reply);
                        assert!(answer.close.is_none() && link.is_open());
                    }
                    Command::Message { data, is_text } => {
                        assert!(link.is_open() && numbered.id == 0);
                        assert!(data.len() <= MAX_BYTES as usize && !beats.is_beat(data));
                        assert!(!is_text || std::str::from_utf8(data).is_ok());
                    }
                    other => panic!("nobody asked for {other:?}"),
                },
                Inbound::Transmit(_) => {}
                Inbound::Closed(_) => has_ended = true,
            }
            all.push(inbound);
        }
        assert!(piece.is_empty());
    }
    (all, broken)
}

/// Publishes, and reads what is said about it.
fn said(opening: &impl Fn() -> Opening, input: &mut Input<'_>) {
    // A publication without an offset has no position.
    let (offset, epoch) = (input.number(), Epoch::from_random(input.number()));
    let position = (offset != 0).then_some(Position { offset, epoch });
    let channel = input.text(40);
    let raw = input.bytes(400);
    let is_json = serde_json::from_slice::<Value>(raw).is_ok();
    let publication = Publication {
        offset,
        data: Bytes::copy_from_slice(raw),
        info: None,
        tags: vec![(input.text(20), input.text(20))],
        except: None,
        is_json,
    };
    let push = Push::Publication(Arc::new(publication));
    let mut begin = opening();
    if let Carrier::Tcp { first_packet, .. } = &mut begin.carrier {
        *first_packet = FirstPacket::None;
    }
    let (carrier, format) = (begin.carrier.clone(), begin.format);
    let mut link = connect(begin);
    assert!(matches!(link.decode(&mut &b""[..]), Ok(Some(Inbound::Command(_)))));
    let first = link.reply(1, &welcome()).bytes;
    assert_eq!(first.is_empty(), matches!(carrier, Carrier::Poll { .. }) || is_quiet(&carrier, format));
    let said = encode_push(link.encoding(), &channel, &push, position, &mut None);
    if !link.encoding().carries(&channel, &push) {
        return assert!(said.is_empty());
    }
    let content = match &carrier {
        Carrier::WebSocket { is_deflated, .. } => {
            let mut frames = websocket::Connection::new(Role::Client, *is_deflated, 1 << 20);
            let Ok(Some(Event::Message { kind, data })) = frames.decode(&mut &said[..]) else {
                panic!("a message")
            };
            assert_eq!(kind == Kind::Text, is_json || format == Format::Json);
            data
        }
        Carrier::EventStream { .. } => {
            let event = text(&said);
            let data = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect::<Vec<_>>();
            assert!(event.ends_with("\n\n") && data.len() == 1, "{event:?}");
            Bytes::copy_from_slice(data[0].as_bytes())
        }
        Carrier::Lines { is_chunked: false, .. } => said.slice(..said.len() - 1),
        Carrier::Lines { is_chunked: true, .. } => {
            let end = said.iter().position(|byte| *byte == b'\r').expect("a chunk's length");
            let length = usize::from_str_radix(&text(&said[..end]), 16).expect("a chunk's length");
            assert_eq!((said.len(), &said[said.len() - 2..]), (end + 2 + length + 2, &b"\r\n"[..]));
            said.slice(end + 2..said.len() - 3)
        }
        Carrier::Poll { .. } => {
            assert!(link.gather(&said) && link.gathered_bytes() == said.len());
            let answer = text(&link.finish(b"").concat());
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
            let body: Value = serde_json::from_str(body).expect("an object");
            assert_eq!(body["publications"].as_array().map(Vec::len), Some(1));
            said
        }
        Carrier::Tcp { framing: Framing::Length(field), .. } => {
            let is_whole = field.is_whole && format == Format::Bare;
            if is_whole {
                said
            } else {
                let framing = Framing::Length(LengthField { is_whole: false, ..*field });
                let packet = Framer::new(framing, u32::MAX).decode(&mut &said[..]);
                packet.expect("a packet").expect("a whole packet")
            }
        }
        Carrier::Tcp { framing: Framing::Terminator(terminator), .. } => {
            assert!(said.ends_with(terminator.as_slice()));
            let content = said.slice(..said.len() - terminator.as_slice().len());
            if *terminator == Terminator::LINE_FEED && format == Format::Json {
                assert!(!content.contains(&b'\n'), "a line feed in a line");
            }
            content
        }
    };
    let is_always_json = matches!(carrier, Carrier::EventStream { .. } | Carrier::Poll { .. });
    if format == Format::Json || is_always_json {
        read_envelope(
            &content,
            &channel,
            position,
            raw,
            is_json,
            !matches!(carrier, Carrier::EventStream { .. }),
        );
    } else {
        read_bare(&content, raw, is_json);
    }
}

/// Whether such a link has neither a head nor a welcome.
fn is_quiet(carrier: &Carrier, format: Format) -> bool {
    format == Format::Bare && matches!(carrier, Carrier::WebSocket { .. } | Carrier::Tcp { .. })
}

fn read_envelope(
    content: &[u8],
    channel: &str,
    position: Option<Position>,
    raw: &[u8],
    is_json: bool,
    has_id: bool,
) {
    assert!(!content.iter().any(|byte| *byte == b'\n' || *byte == b'\r'), "more than a line");
    let object: Value = serde_json::from_slice(content).expect("JSON");
    assert_eq!(object["channel"], *channel);
    assert_eq!(object["offset"].as_u64().unwrap_or(0), position.map_or(0, |position| position.offset));
    if is_json {
        assert_eq!(object["data"], serde_json::from_slice::<Value>(raw).expect("JSON"));
    } else if let Ok(text) = std::str::from_utf8(raw) {
        assert_eq!(object["data"], text);
    } else {
        let encoded = object["b64data"].as_str().expect("base64");
        assert_eq!(STANDARD.decode(encoded).expect("base64"), raw);
    }
    if let Some(position) = position.filter(|_| has_id && !channel.is_empty()) {
        let id = object["id"].as_str().expect("a position");
        let mut token = PositionToken::default();
        token.set(channel, position);
        assert_eq!(PositionToken::parse(id.as_bytes()), Ok(token));
    }
}

fn read_bare(content: &[u8], raw: &[u8], is_json: bool) {
    match is_json.then(|| serde_json::from_slice::<Value>(raw).expect("JSON")) {
        Some(Value::String(text)) => assert_eq!(content, text.as_bytes()),
        Some(value) => assert_eq!(serde_json::from_slice::<Value>(content).expect("JSON"), value),
        None => assert_eq!(content, raw),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}
