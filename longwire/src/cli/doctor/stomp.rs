//! A connection of STOMP, over TCP or WebSocket, on which as little is said as the protocol allows.
//!
//! It is what a doctor likes best: with `heart-beat:0,0` neither end says anything, so that the silence is the way's own
//! to end; and DISCONNECT with a receipt asks at any time whether the other end is there, and leaves. What must stay
//! true: nothing is sent, subscribed or acknowledged.

use super::line::{Break, Line};
use super::plan::StompAt;
use super::seen::Login;
use super::way::Way;
use super::websocket::{Socket, told};
use super::{Arguments, milliseconds, upgrade};
use crate::cli::printable;
use longwire_protocol::stomp::decode::{Bounds, Decoder};
use longwire_protocol::stomp::{Limits, Version};
use longwire_protocol::websocket::Event;
use longwire_protocol::websocket::frame::Opcode;
use std::time::Instant;

/// The subprotocols of WebSockets, the best first.
pub(super) const SUBPROTOCOLS: &[&str] = &["v12.stomp", "v11.stomp", "v10.stomp"];

/// Asks for an answer and leaves.
const DISCONNECT: &[u8] = b"DISCONNECT\nreceipt:longwire-doctor\n\n\0";

/// A connection.
pub(super) struct Stomp {
    carrier: Carrier,
    decoder: Decoder,
    bounds: Bounds,
    /// What came over WebSocket and was not used.
    received: Vec<u8>,
}

enum Carrier {
    Tcp(Line),
    WebSocket(Socket),
}

/// What came.
#[derive(Debug)]
pub(super) enum Heard {
    /// A sign of life.
    Beat,
    Frame {
        command: String,
        headers: Vec<(String, String)>,
        body: String,
    },
}

/// Who connects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'a> {
    login: &'a str,
    passcode: &'a str,
    /// The virtual host.
    host: &'a str,
}

/// Why nobody was let in.
#[derive(Debug)]
pub(super) struct NoLogin {
    /// In words.
    pub(super) text: String,
    /// The server said no, rather than nothing or something else.
    pub(super) is_refusal: bool,
}

impl From<String> for NoLogin {
    fn from(text: String) -> NoLogin {
        NoLogin { text, is_refusal: false }
    }
}

impl<'a> Who<'a> {
    /// Whom the URL names, or whom the token does, at this virtual host.
    pub(super) fn of(
        way: &Way,
        address: &'a longwire_client::Address,
        host: &'a str,
        arguments: &'a Arguments,
    ) -> Who<'a> {
        let named = (address.user.as_str(), address.password.as_str());
        let (login, passcode) = match (named, arguments.token.as_deref()) {
            // longwire takes a token in the passcode's place.
            (("", ""), Some(token)) => ("", token),
            (named, _) => named,
        };
        let is_sayable = !login.contains(['\n', '\r', '\0']) && !passcode.contains(['\n', '\r', '\0']);
        match way.secret(Some(passcode)).filter(|_| is_sayable) {
            Some(passcode) => Who { login, passcode, host },
            None => Who { login: "", passcode: "", host },
        }
    }
}

/// Opens a connection and logs in; `wants_ms` is how often the server is to beat, 0 for never.
///
/// # Errors
/// Why there is none, in words.
pub(super) async fn connect(
    way: &Way,
    at: &StompAt,
    who: Who<'_>,
    wants_ms: u64,
) -> Result<(Stomp, Login), NoLogin> {
    let begun = way.clock.now();
    let carrier = match at {
        StompAt::Tcp => Carrier::Tcp(way.open().await?),
        StompAt::WebSocket(path) => Carrier::WebSocket(upgrade::open(way, path, SUBPROTOCOLS, None).await?),
    };
    let bounds = Bounds::of(&Limits::default());
    let mut stomp = Stomp { carrier, decoder: Decoder::default(), bounds, received: Vec::new() };
    let mut frame = format!("CONNECT\naccept-version:1.0,1.1,1.2\nheart-beat:0,{wants_ms}\n");
    for (name, value) in [("host", who.host), ("login", who.login), ("passcode", who.passcode)] {
        if !value.is_empty() && !value.contains(['\n', '\r', '\0']) {
            frame.push_str(&format!("{name}:{value}\n"));
        }
    }
    frame.push_str("\n\0");
    let deadline = way.deadline();
    stomp.send(frame.as_bytes(), deadline).await.map_err(|broken| broken.text())?;
    loop {
        match stomp.next(deadline).await.map_err(|broken| broken.text())? {
            Heard::Beat => {}
            Heard::Frame { command, headers, .. } if command == "CONNECTED" => {
                let value = |name: &str| {
                    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
                };
                let login = Login {
                    dialect: "stomp",
                    ms: milliseconds(way.clock.now() - begun),
                    server: value("server").map(printable),
                    // What beats are asked for here says nothing about what other clients ask for.
                    ..Login::default()
                };
                return Ok((stomp, login));
            }
            Heard::Frame { command, headers, body } => {
                let is_refusal = command == "ERROR";
                return Err(NoLogin { text: refusal(&command, &headers, &body), is_refusal });
            }
        }
    }
}

fn refusal(command: &str, headers: &[(String, String)], body: &str) -> String {
    let message = headers.iter().find(|(name, _)| name == "message").map(|(_, value)| value.trim());
    let message = message.unwrap_or_default();
    let first = body.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    // Brokers say the half of it in either; ActiveMQ says there where in its program that was.
    let is_more = !first.contains("Exception") && !message.contains(first) && !first.contains(message);
    let text = match message {
        "" => first.to_owned(),
        message if is_more => format!("{message}: {first}"),
        message => message.to_owned(),
    };
    printable(format!("{command} {text}").trim())
}

impl Stomp {
    async fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), Break> {
        match &mut self.carrier {
            Carrier::Tcp(line) => line.send(bytes, deadline).await,
            Carrier::WebSocket(socket) => socket.send(Opcode::Text, bytes, deadline).await,
        }
    }

    /// What comes next. It may be given up and called again.
    pub(super) async fn next(&mut self, deadline: Instant) -> Result<Heard, Break> {
        loop {
            let received = match &mut self.carrier {
                Carrier::Tcp(line) => &mut line.received,
                Carrier::WebSocket(_) => &mut self.received,
            };
            if !received.is_empty() {
                let is_beat =
                    self.decoder.is_idle() && received.iter().all(|byte| matches!(byte, b'\n' | b'\r'));
                let mut input = received.as_slice();
                let decoded = self.decoder.decode(&mut input, &self.bounds);
                let heard = decoded.map(|frame| {
                    frame.map(|frame| Heard::Frame {
                        command: frame.command().to_owned(),
                        headers: frame
                            .headers(Version::V10)
                            .map(|(name, value)| (name.to_owned(), value.to_owned()))
                            .collect(),
                        body: String::from_utf8_lossy(&frame.body).into_owned(),
                    })
                });
                let left = input.len();
                let used = received.len() - left;
                received.drain(..used);
                match heard {
                    Ok(Some(heard)) => return Ok(heard),
                    Ok(None) if is_beat => return Ok(Heard::Beat),
                    Ok(None) => {}
                    Err(violation) => return Err(Break::Wrong(violation.to_string())),
                }
            }
            match &mut self.carrier {
                Carrier::Tcp(line) => {
                    line.read_more(deadline).await?;
                }
                Carrier::WebSocket(socket) => match socket.next(deadline).await? {
                    Event::Message { data, .. } => self.received.extend_from_slice(&data),
                    Event::Ping(payload) => {
                        socket.send(Opcode::Pong, &payload, deadline).await?;
                        return Ok(Heard::Beat);
                    }
                    Event::Pong(_) => return Ok(Heard::Beat),
                    Event::Close { code, reason } => return Err(Break::Failed(told(code, &reason))),
                },
            }
        }
    }

    /// Asks whether the other end is there, and leaves.
    pub(super) async fn ask(&mut self, deadline: Instant) -> Result<(), Break> {
        self.send(DISCONNECT, deadline).await?;
        loop {
            match self.next(deadline).await {
                Ok(Heard::Frame { .. }) => return Ok(()),
                Ok(Heard::Beat) => {}
                // Whoever ends a connection that is left is there.
                Err(Break::Ended) => return Ok(()),
                Err(broken) => return Err(broken),
            }
        }
    }
}
