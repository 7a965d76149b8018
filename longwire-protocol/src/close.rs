//! Why a connection ends: the one table of close reasons.
//!
//! From a row come the WebSocket close frame, the centrifuge disconnect push, the HTTP status of a refused
//! stream, the metric label, the log line and `docs/close-codes.md`. Codes 3000 to 3999 are those of the
//! centrifuge protocol; 1002, 1007 and 1009 those of RFC 6455 section 7.4.1. What must stay true: a reason
//! is never made from a number, and nothing else in longwire maps a reason to a code or a text.

use std::borrow::Cow;
use std::fmt;

/// Who or what ended the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Category {
    /// The peer's program did: it left, or it broke the protocol.
    Client,
    /// The path between did.
    Network,
    /// This server did, for reasons of its own.
    Server,
    /// A rule of the operator or the backend did.
    Policy,
}

impl Category {
    /// The category in lower case, for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Category::Client => "client",
            Category::Network => "network",
            Category::Server => "server",
            Category::Policy => "policy",
        }
    }
}

/// What the peer is advised to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Advice {
    /// Come back, with the usual backoff.
    Reconnect,
    /// Come back after a delay: at once it would fail again.
    ReconnectAfter,
    /// Do not come back by itself: the same attempt would fail again.
    Stop,
}

impl Advice {
    /// The advice in words, for logs and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Advice::Reconnect => "reconnect",
            Advice::ReconnectAfter => "reconnect after a delay",
            Advice::Stop => "stop",
        }
    }
}

macro_rules! close_reasons {
    ($($variant:ident $code:literal $category:ident $advice:ident $status:literal $text:literal $doc:literal;)+) => {
        /// Why a connection was closed. One row of the table.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
        pub enum CloseReason { $(#[doc = $doc] $variant,)+ }

        impl CloseReason {
            /// Every row, in the table's order.
            pub const ALL: &[CloseReason] = &[$(CloseReason::$variant,)+];

            /// The row's name: the metric label and the word in the log.
            pub fn name(self) -> &'static str { match self { $(CloseReason::$variant => stringify!($variant),)+ } }

            /// The code in a WebSocket close frame or a disconnect push.
            pub fn code(self) -> u16 { match self { $(CloseReason::$variant => $code,)+ } }

            /// Who or what ended the connection.
            pub fn category(self) -> Category { match self { $(CloseReason::$variant => Category::$category,)+ } }

            /// What the peer is advised to do next.
            pub fn advice(self) -> Advice { match self { $(CloseReason::$variant => Advice::$advice,)+ } }

            /// The HTTP status of a stream that is refused for this reason before its response began.
            pub fn http_status(self) -> u16 { match self { $(CloseReason::$variant => $status,)+ } }

            /// The text on the wire: at most 32 ASCII characters, never JSON (centrifuge-js would parse it).
            pub fn text(self) -> &'static str { match self { $(CloseReason::$variant => $text,)+ } }

            /// What happened, in a sentence.
            pub fn explanation(self) -> &'static str { match self { $(CloseReason::$variant => $doc,)+ } }
        }
    };
}

close_reasons! {
    PeerClosed 3000 Client Reconnect 499 "connection closed" "The peer closed the connection in an orderly way.";
    PeerReset 3000 Network Reconnect 499 "connection closed" "The connection broke: reset or an error on the socket.";
    Drain 3001 Server ReconnectAfter 503 "shutdown" "This server is shutting down; another, or this one later, takes over.";
    InternalError 3004 Server Reconnect 500 "internal server error" "The server or the backend failed.";
    Expired 3005 Policy Reconnect 401 "connection expired" "The token's time ran out and it was not refreshed.";
    SubscriptionExpired 3006 Policy Reconnect 401 "subscription expired" "A subscription token's time ran out and it was not refreshed.";
    Slow 3008 Client Reconnect 503 "slow" "The peer read too slowly: its outbox passed the limit.";
    WriteStalled 3009 Network Reconnect 503 "write error" "A write made no progress within the limit: the peer stopped reading or vanished.";
    InsufficientState 3010 Server Reconnect 503 "insufficient state" "A publication is missing on this connection; reconnecting recovers it.";
    ForceReconnect 3011 Policy Reconnect 503 "force reconnect" "The backend asked the client to reconnect.";
    NoHeartbeat 3012 Network Reconnect 408 "no pong" "Nothing was heard from the peer within the heartbeat's limit.";
    TooManyRequests 3013 Policy Reconnect 429 "too many requests" "The peer sent more commands than its rate limit allows.";
    Stale 3000 Network Reconnect 408 "stale" "No connect command arrived in time.";
    StateInvalidated 3014 Policy Reconnect 503 "state invalidated" "The backend declared the client's state invalid.";
    ClientInUse 3015 Policy ReconnectAfter 409 "client in use" "Another live connection has this client's name, and a second one is refused.";
    BackendUnavailable 3016 Server ReconnectAfter 503 "backend unavailable" "The backend took no messages of the client for too long.";
    Answered 3017 Server Reconnect 200 "answered" "A long-poll was answered; the client asks again.";
    QueueUnavailable 3018 Server ReconnectAfter 503 "queue unavailable" "A queue takes nothing more: it is full, or the disk is, or somebody has it alone.";
    Full 3019 Server ReconnectAfter 503 "too many connections" "This server has as many connections as it may, or as it may from the peer's address.";
    InvalidToken 3500 Policy Stop 401 "invalid token" "The token's signature or claims are wrong.";
    BadRequest 3501 Client Stop 400 "bad request" "The peer sent something that the protocol does not allow.";
    ForceDisconnect 3503 Policy Stop 403 "force disconnect" "The backend disconnected the client.";
    ConnectionLimit 3504 Policy Stop 429 "connection limit" "The user has more connections than allowed.";
    ChannelLimit 3505 Policy Stop 429 "channel limit" "The connection has more server-side subscriptions than allowed.";
    InappropriateProtocol 3506 Server Stop 406 "inappropriate protocol" "A payload cannot be expressed in the connection's encoding.";
    PermissionDenied 3507 Policy Stop 403 "permission denied" "The connection is not allowed here.";
    NotAvailable 3508 Client Stop 501 "not available" "The peer used a feature that is off.";
    TooManyErrors 3509 Client Stop 429 "too many errors" "The peer's commands failed too often.";
    Replaced 3510 Policy Stop 409 "replaced" "A later connection of the same client took the session over.";
    ProtocolError 1002 Client Reconnect 400 "protocol error" "The peer broke the framing rules of the transport.";
    InvalidPayload 1007 Client Reconnect 400 "invalid payload" "A text message was not UTF-8, or compressed data was corrupt.";
    MessageTooBig 1009 Client Stop 413 "message too big" "A message was larger than the limit.";
}

/// How one connection is closed: the reason, and what is said to the peer.
///
/// A backend may close with a code and text of its own (4000 to 4999); the reason stays that of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Close {
    /// The row of the table.
    pub reason: CloseReason,
    /// The code that the peer is sent.
    pub code: u16,
    /// The text that the peer is sent.
    pub text: Cow<'static, str>,
}

impl Close {
    /// Closes for `reason` with a code and a text that the backend chose.
    pub fn custom(reason: CloseReason, code: u16, text: String) -> Close {
        Close { reason, code, text: Cow::Owned(text) }
    }

    /// What the peer is advised to do, from the code that it is sent (centrifuge protocol, section 9.3).
    pub fn advice(&self) -> Advice {
        if self.code == self.reason.code() {
            return self.reason.advice();
        }
        match self.code {
            3500..=3999 | 4500..=4999 => Advice::Stop,
            _ => Advice::Reconnect,
        }
    }
}

impl From<CloseReason> for Close {
    fn from(reason: CloseReason) -> Close {
        Close { reason, code: reason.code(), text: Cow::Borrowed(reason.text()) }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The table as Markdown: the contents of `docs/close-codes.md`.
pub fn close_codes_markdown() -> String {
    let mut page = String::from(
        "# Close codes\n\nGenerated from the table in `longwire-protocol/src/close.rs`; a test keeps it true.\n\n\
         Every connection ends for one of these reasons. The name is what the log line and the metric label\n\
         `reason` say; the code and the text are what the client receives (WebSocket close frame, disconnect\n\
         push); the HTTP status answers a stream that is refused before it began. Clients of the centrifuge\n\
         dialect stop at 3500 to 3999 and 4500 to 4999 and reconnect otherwise; 4000 to 4999 are free for\n\
         `disconnect` calls of the HTTP API.\n\n\
         | name | code | text | category | the client is advised to | HTTP | meaning |\n|---|---|---|---|---|---|---|\n",
    );
    for reason in CloseReason::ALL {
        page.push_str(&format!(
            "| `{}` | {} | {} | {} | {} | {} | {} |\n",
            reason.name(),
            reason.code(),
            reason.text(),
            reason.category().as_str(),
            reason.advice().as_str(),
            reason.http_status(),
            reason.explanation(),
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_fits_a_close_frame_and_is_not_json() {
        for reason in CloseReason::ALL {
            assert!(reason.text().len() <= 32 && reason.text().is_ascii(), "{reason}");
            assert!(serde_json::from_str::<serde_json::Value>(reason.text()).is_err(), "{reason}");
        }
    }

    #[test]
    fn the_advice_is_what_a_centrifuge_client_concludes_from_the_code() {
        for reason in CloseReason::ALL {
            let stops = matches!(reason.code(), 1009 | 3500..=3999 | 4500..=4999);
            assert_eq!(reason.advice() == Advice::Stop, stops, "{reason}");
        }
    }

    #[test]
    fn the_documented_table_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/close-codes.md");
        let documented = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(
            documented,
            close_codes_markdown(),
            "run `longwire docs` to write docs/close-codes.md anew"
        );
    }
}
