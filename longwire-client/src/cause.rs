//! Why a connection ended, or never began, as this end knows it.
//!
//! One type for logs, events, counters and errors. What the server says in words of its own (close frame, disconnect
//! push, ERROR frame, refusal) is [`Cause::Told`]; everything else this end saw itself. Category and advice follow from
//! the cause alone, by the same table as the server's ([`CloseReason`]). What must stay true: a cause is named after what was seen, never guessed: silence
//! is [`Cause::Silent`] whatever may be behind it.

use longwire_protocol::{Advice, Category, CloseReason};
use std::fmt;
use std::time::Duration;

/// Why a connection ended or could not begin.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The name of the server could not be resolved.
    Unresolved(String),
    /// Nobody listens there.
    Refused,
    /// No connection came about within the connect timeout.
    ConnectTimeout,
    /// The system could not connect, for another reason: its words.
    Unreachable(String),
    /// TLS failed: its words.
    Tls(String),
    /// The server answered HTTP with this status where an upgrade or a stream was asked for.
    Status {
        /// The status.
        status: u16,
        /// After how long the server wants to be asked again (`Retry-After`).
        retry_after: Option<Duration>,
        /// The beginning of what it said with it, printable and on one line; empty if that is nothing or a page.
        text: String,
    },
    /// Connected, but the server did not complete handshake or login in time.
    LoginTimeout,
    /// The server closed and said why.
    Told {
        /// The code on the wire; 0 where the dialect has none (STOMP's ERROR without a code).
        code: u16,
        /// The text on the wire.
        text: String,
        /// What the server advises, as its code or flag says.
        advice: Advice,
        /// After how long it is to be tried again, if the server said so.
        after: Option<Duration>,
    },
    /// The stream ended in an orderly way, without a word.
    Ended,
    /// The connection broke: reset.
    Reset,
    /// The connection broke for another reason: the system's words.
    Broken(String),
    /// Nothing was heard within the heartbeat's limit.
    Silent {
        /// How long nothing had been heard.
        silence: Duration,
    },
    /// A write made no progress within the write timeout.
    WriteStalled,
    /// The server did not answer a command in time.
    CommandTimeout(&'static str),
    /// The server broke the protocol: the rule and where.
    Protocol(String),
    /// The server let this client in without a channel that its first packet asked for: nobody read that packet.
    PassedOver {
        /// The channel.
        channel: String,
    },
    /// The application's own source of tokens gave none: its words.
    NoToken {
        /// Why.
        what: String,
        /// There will be none.
        is_final: bool,
    },
    /// The application closed the client.
    Closed,
}

impl Cause {
    /// What a server says with a code of the centrifuge table, in a close frame or a disconnect push; the advice follows
    /// from the code.
    pub fn told(code: u16, text: impl Into<String>) -> Cause {
        let advice = match code {
            3500..=3999 | 4500..=4999 => Advice::Stop,
            _ => known(code).map_or(Advice::Reconnect, CloseReason::advice),
        };
        Cause::Told { code, text: text.into(), advice, after: None }
    }

    /// Who or what ended the connection: `Client` is this program.
    pub fn category(&self) -> Category {
        match self {
            Cause::Closed | Cause::NoToken { .. } => Category::Client,
            Cause::Told { code, .. } => known(*code).map_or(Category::Server, CloseReason::category),
            Cause::Status { status, .. } => match status {
                400..=499 => Category::Policy,
                _ => Category::Server,
            },
            Cause::Protocol(_)
            | Cause::CommandTimeout(_)
            | Cause::LoginTimeout
            | Cause::PassedOver { .. }
            | Cause::Ended => Category::Server,
            Cause::Unresolved(_)
            | Cause::Refused
            | Cause::ConnectTimeout
            | Cause::Unreachable(_)
            | Cause::Tls(_)
            | Cause::Reset
            | Cause::Broken(_)
            | Cause::Silent { .. }
            | Cause::WriteStalled => Category::Network,
        }
    }

    /// Whether to come back.
    pub fn advice(&self) -> Advice {
        match self {
            Cause::Closed | Cause::NoToken { is_final: true, .. } => Advice::Stop,
            Cause::Told { advice, .. } => *advice,
            Cause::Status { status: 408 | 425 | 429 | 500..=599, retry_after, .. } => {
                if retry_after.is_some() { Advice::ReconnectAfter } else { Advice::Reconnect }
            }
            // Another server, or another transport, may do; this one will say the same again.
            Cause::Status { .. } => Advice::Stop,
            // Until somebody sets the listener right.
            Cause::PassedOver { .. } => Advice::Stop,
            _ => Advice::Reconnect,
        }
    }

    /// After how long the server wants to be tried again.
    pub fn after(&self) -> Option<Duration> {
        match self {
            Cause::Told { after, .. } => *after,
            Cause::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The cause in one word, for counters and scripts.
    pub fn name(&self) -> &'static str {
        match self {
            Cause::Unresolved(_) => "unresolved",
            Cause::Refused => "refused",
            Cause::ConnectTimeout => "connect_timeout",
            Cause::Unreachable(_) => "unreachable",
            Cause::Tls(_) => "tls",
            Cause::Status { .. } => "status",
            Cause::LoginTimeout => "login_timeout",
            Cause::Told { .. } => "told",
            Cause::Ended => "ended",
            Cause::Reset => "reset",
            Cause::Broken(_) => "broken",
            Cause::Silent { .. } => "silent",
            Cause::WriteStalled => "write_stalled",
            Cause::CommandTimeout(_) => "command_timeout",
            Cause::Protocol(_) => "protocol",
            Cause::PassedOver { .. } => "passed_over",
            Cause::NoToken { .. } => "no_token",
            Cause::Closed => "closed",
        }
    }
}

/// The row of the table that a code is of, where only one has it.
fn known(code: u16) -> Option<CloseReason> {
    let mut rows = CloseReason::ALL.iter().copied().filter(|reason| reason.code() == code);
    rows.next().filter(|_| rows.next().is_none())
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Unresolved(what) => write!(f, "the server's name cannot be resolved: {what}"),
            Cause::Refused => f.write_str("connection refused: nobody listens there"),
            Cause::ConnectTimeout => f.write_str("no connection within the connect timeout"),
            Cause::Unreachable(what) => write!(f, "cannot connect: {what}"),
            Cause::Tls(what) => write!(f, "TLS failed: {what}"),
            Cause::Status { status, text, .. } => {
                let phrase = longwire_protocol::http::reason_phrase(*status);
                write!(f, "the server answered HTTP {status} {phrase}")?;
                if text.is_empty() { Ok(()) } else { write!(f, ": {text}") }
            }
            Cause::LoginTimeout => f.write_str("the server did not complete the login in time"),
            Cause::Told { code: 0, text, .. } => write!(f, "the server said: {text}"),
            Cause::Told { code, text, .. } => write!(f, "the server said {code}: {text}"),
            Cause::Ended => f.write_str("the server ended the connection without a word"),
            Cause::Reset => f.write_str("the connection was reset"),
            Cause::Broken(what) => write!(f, "the connection broke: {what}"),
            Cause::Silent { silence } => write!(f, "nothing was heard for {:.1} s", silence.as_secs_f64()),
            Cause::WriteStalled => f.write_str("the server took nothing within the write timeout"),
            Cause::CommandTimeout(what) => write!(f, "the server did not answer \"{what}\" in time"),
            Cause::Protocol(what) => write!(f, "the server broke the protocol: {what}"),
            Cause::PassedOver { channel } => write!(
                f,
                "the server did not read the packet that asks for the channel \"{channel}\": its listener needs \
                 first_packet = \"json\""
            ),
            Cause::NoToken { what, .. } => write!(f, "no token: {what}"),
            Cause::Closed => f.write_str("closed by this program"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_category_of_what_was_told_is_the_tables() {
        let told = |code, advice| Cause::Told { code, text: String::new(), advice, after: None };
        assert_eq!(told(3500, Advice::Stop).category(), Category::Policy);
        assert_eq!(told(3001, Advice::ReconnectAfter).category(), Category::Server);
        // Several rows share the code, or none has it: what is certain is who spoke.
        assert_eq!(told(3000, Advice::Reconnect).category(), Category::Server);
        assert_eq!(told(4321, Advice::Reconnect).category(), Category::Server);
    }

    #[test]
    fn the_advice_of_a_code_is_the_tables() {
        for reason in CloseReason::ALL.iter().filter(|reason| reason.code() != 3000) {
            assert_eq!(Cause::told(reason.code(), "").advice(), reason.advice(), "{reason}");
        }
        for (code, advice) in [
            (1000, Advice::Reconnect),
            (3000, Advice::Reconnect),
            (3599, Advice::Stop),
            (4000, Advice::Reconnect),
            (4500, Advice::Stop),
        ] {
            assert_eq!(Cause::told(code, "").advice(), advice, "{code}");
        }
    }

    #[test]
    fn a_status_that_asks_for_patience_is_not_final() {
        let status = |status| Cause::Status { status, retry_after: None, text: String::new() }.advice();
        let passed_over = Cause::PassedOver { channel: "news".to_owned() };
        assert_eq!((passed_over.advice(), passed_over.category()), (Advice::Stop, Category::Server));
        for final_status in [200, 301, 400, 401, 403, 404] {
            assert_eq!(status(final_status), Advice::Stop, "{final_status}");
        }
        for passing in [408, 429, 500, 502, 503] {
            assert_eq!(status(passing), Advice::Reconnect, "{passing}");
        }
    }
}
