//! How a connection of the plain dialect begins: who asks for what, over which transport.
//!
//! The server makes an [`Opening`] from a request's head, or from a listener's settings, and gives it to
//! [`Connection::plain`](crate::Connection::plain). Here is also what all its transports take alike: the names of
//! clients, and the list of channels with the position from which they are read ([`asked`]). It judges no
//! permission and no channel's name.

use super::Format;
use super::framing::Framing;
use super::position_token::{MAX_CHANNELS, PositionToken};
use crate::command::{Connect, Subscribe};
use crate::position::{Epoch, Since};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

/// The longest name by which a client may come back.
pub const MAX_CLIENT_NAME_BYTES: usize = 255;

/// How a connection begins.
#[derive(Clone, PartialEq, Debug)]
pub struct Opening {
    /// Who the client is. Completed by the first packet, where there is one to await.
    pub connect: Connect,
    /// Which channels it wants; each is answered before the client is welcomed.
    pub subscribes: Vec<Subscribe>,
    /// How bytes travel.
    pub carrier: Carrier,
    /// What pushes are made of; event streams and long-polls are always JSON.
    pub format: Format,
    /// How both sides show that they are there.
    pub beats: Arc<Beats>,
}

/// What carries a connection of the plain dialect.
///
/// The heads are those of a successful response, each line ended by CR and LF, without the empty line: they are
/// written when everything that was asked for is granted, so that a refusal can be an HTTP status.
#[derive(Clone, PartialEq, Debug)]
pub enum Carrier {
    /// Server-sent events.
    EventStream {
        /// Status line and headers.
        head: String,
        /// How long the browser waits before it comes back.
        retry_milliseconds: u64,
    },
    /// A response that goes on, a line a push.
    Lines {
        /// Status line and headers; says `Transfer-Encoding: chunked` if `is_chunked`.
        head: String,
        /// Each line is an HTTP chunk; otherwise the end of the connection ends the body.
        is_chunked: bool,
    },
    /// A response that is given when there is something to say.
    Poll {
        /// The connection may carry another request after the answer.
        keep_alive: bool,
        /// The client does not say where it stands: it is answered as soon as it is welcome.
        is_first: bool,
        /// How long the answer may take otherwise.
        wait: Duration,
        /// Header lines that every answer has besides its own, those for other origins say.
        head: String,
    },
    /// WebSocket messages, after the handshake.
    WebSocket {
        /// The peer takes compressed messages, and may send them.
        is_deflated: bool,
        /// How long a message of the peer may be.
        max_message_bytes: u32,
    },
    /// Packets over TCP.
    Tcp {
        /// How they are told apart.
        framing: Framing,
        /// How long a packet of the peer may be.
        max_packet_bytes: u32,
        /// What the first one says.
        first_packet: FirstPacket,
    },
}

/// What the first packet of a TCP connection says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum FirstPacket {
    /// Nothing particular: the connection begins without it.
    #[default]
    None,
    /// The name of the client.
    Client,
    /// The connection token.
    Token,
    /// A JSON object of `token`, `client`, `session`, `channels`, `since` and `data`, each of which may be absent.
    Json,
}

/// Signs of life that clients which know of none are given, and give.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Beats {
    /// What a client says to show that it is there: such messages go to nobody.
    pub messages: Vec<Bytes>,
    /// What it is answered; nothing if this is empty.
    pub answer: Bytes,
    /// What TCP connections are sent at every interval; nothing if this is empty.
    pub ping_packet: Bytes,
}

impl Beats {
    /// Whether a message is nothing but a sign of life.
    pub fn is_beat(&self, message: &[u8]) -> bool {
        self.messages.iter().any(|beat| **beat == *message)
    }
}

/// Why a client may not name itself so; the text goes on behind what the name is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadClientName {
    /// It is empty, or too long.
    #[error("has 1 to {MAX_CLIENT_NAME_BYTES} bytes")]
    Length,
    /// It has a control character.
    #[error("has no control characters")]
    ControlCharacter,
    /// It has what stands for bytes that are no text: two names of such bytes would be one.
    #[error("is UTF-8, without U+FFFD")]
    NotText,
}

/// Whether a client may name itself so, whichever way it says its name.
///
/// # Errors
/// Why not.
pub fn check_client_name(name: &str) -> Result<(), BadClientName> {
    if name.is_empty() || name.len() > MAX_CLIENT_NAME_BYTES {
        Err(BadClientName::Length)
    } else if name.chars().any(char::is_control) {
        Err(BadClientName::ControlCharacter)
    } else if name.contains(char::REPLACEMENT_CHARACTER) {
        Err(BadClientName::NotText)
    } else {
        Ok(())
    }
}

/// What a client asks for when it begins.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Asked {
    /// The channels that it names: the subscribes of its [`Opening`].
    pub subscribes: Vec<Subscribe>,
    /// The same and those where it stood, should the server bring them: the `subs` of its [`Connect`].
    pub returning: Vec<Subscribe>,
}

/// Makes commands of the channels that a client names and of where it stood, if it was here before.
pub fn asked(channels: Vec<String>, seen: Option<&PositionToken>) -> Asked {
    let subscribe = |channel: String| Subscribe {
        recover: seen.map(|seen| match seen.get(&channel) {
            Some(position) => position.into(),
            // The reader returns, but does not know where it stood here.
            None => Since { offset: 0, epoch: Some(Epoch::FOREIGN) },
        }),
        recoverable: true,
        positioned: true,
        join_leave: true,
        channel,
        ..Subscribe::default()
    };
    // A token or the backend may bring channels; where the reader stood in them stands in the same position token.
    let named = seen.into_iter().flat_map(PositionToken::iter).map(|(channel, _)| channel);
    let mut returning: Vec<Subscribe> = named.map(|channel| subscribe(channel.to_owned())).collect();
    for channel in &channels {
        if !returning.iter().any(|sub| sub.channel == *channel) {
            returning.push(subscribe(channel.clone()));
        }
    }
    Asked { subscribes: channels.into_iter().map(subscribe).collect(), returning }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct First<'a> {
    #[serde(default)]
    token: String,
    #[serde(default)]
    client: String,
    #[serde(default)]
    session: String,
    #[serde(default)]
    channels: Vec<String>,
    since: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl FirstPacket {
    /// Takes the first packet: completes `connect` and gives the channels that it asks for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn take(self, packet: &[u8], connect: &mut Connect) -> Result<Vec<Subscribe>, String> {
        let text =
            std::str::from_utf8(packet).map_err(|_| "the first packet is not UTF-8".to_owned())?.trim();
        match self {
            FirstPacket::None => return Ok(Vec::new()),
            FirstPacket::Client => {
                connect.client_name = named(text)?;
                return Ok(Vec::new());
            }
            FirstPacket::Token if text.is_empty() => return Err("the first packet is no token".to_owned()),
            FirstPacket::Token => {
                connect.token = text.to_owned();
                return Ok(Vec::new());
            }
            FirstPacket::Json => {}
        }
        let First { token, client, session, channels, since, data } =
            serde_json::from_str(text).map_err(|error| format!("the first packet: {}", brief(&error)))?;
        let client_name = if client.is_empty() { client } else { named(&client)? };
        if channels.len() > MAX_CHANNELS {
            return Err(format!(
                "the first packet: {} channels, at most {MAX_CHANNELS} are allowed",
                channels.len()
            ));
        }
        for (index, channel) in channels.iter().enumerate() {
            if channel.is_empty() || channels[..index].contains(channel) {
                return Err(format!("the first packet: channel {} is empty or named twice", index + 1));
            }
        }
        let seen = since
            .map(|since| PositionToken::parse(since.as_bytes()))
            .transpose()
            .map_err(|error| format!("the first packet: \"since\": {error}"))?;
        let Asked { subscribes, returning } = asked(channels, seen.as_ref());
        connect.token = token;
        connect.client_name = client_name;
        connect.session = session;
        connect.subs = returning;
        connect.has_since = seen.is_some();
        connect.answer = seen.as_ref().and_then(PositionToken::answer);
        connect.data = data.map_or(Bytes::new(), |data| Bytes::copy_from_slice(data.get().as_bytes()));
        Ok(subscribes)
    }
}

/// What is wrong with JSON, which may quote as much of it as there is.
fn brief(error: &serde_json::Error) -> String {
    const MAX_CHARS: usize = 160;
    let text = error.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}.. at line {} column {}", &text[..end], error.line(), error.column()),
        None => text,
    }
}

fn named(name: &str) -> Result<String, String> {
    match check_client_name(name) {
        Ok(()) => Ok(name.to_owned()),
        Err(error) => Err(format!("the first packet: a client's name {error}")),
    }
}
