//! The errors that answer one command: code, text and whether trying again helps.
//!
//! They are the codes of the centrifuge protocol, used by every dialect and by the HTTP API. An error
//! answers a command and leaves the connection open; what closes a connection is a
//! [`CloseReason`](crate::CloseReason).

use std::fmt;

macro_rules! error_codes {
    ($($variant:ident $code:literal $temporary:literal $text:literal $doc:literal;)+) => {
        /// Why a command was refused.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum ErrorCode { $(#[doc = $doc] $variant,)+ }

        impl ErrorCode {
            /// All codes, in ascending order.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant,)+];

            /// The number on the wire.
            pub fn code(self) -> u32 { match self { $(ErrorCode::$variant => $code,)+ } }

            /// Whether the same command may succeed later without a change.
            pub fn is_temporary(self) -> bool { match self { $(ErrorCode::$variant => $temporary,)+ } }

            /// The text on the wire.
            pub fn text(self) -> &'static str { match self { $(ErrorCode::$variant => $text,)+ } }
        }
    };
}

error_codes! {
    Internal 100 true "internal server error" "The server or the backend failed.";
    NotKept 100 true "published, but a durable subscription cannot keep it" "The disk of the queues takes nothing.";
    Unauthorized 101 false "unauthorized" "The connection has no identity.";
    UnknownChannel 102 false "unknown channel" "The channel's namespace does not exist.";
    PermissionDenied 103 false "permission denied" "The channel's options or the token do not allow it.";
    MethodNotFound 104 false "method not found" "No such method.";
    NotFound 104 false "not found" "What is asked for does not exist.";
    AlreadySubscribed 105 false "already subscribed" "The channel is subscribed, or a subscribe is in flight.";
    LimitExceeded 106 false "limit exceeded" "More subscriptions than one connection may have.";
    BadRequest 107 false "bad request" "A field is missing, malformed or too long.";
    NotAvailable 108 false "not available" "The feature is off for this channel or this server.";
    TokenExpired 109 false "token expired" "The token is past its time; a fresh one may succeed.";
    Expired 110 false "expired" "The subscription or connection is past its time.";
    TooManyRequests 111 true "too many requests" "The rate limit was exceeded.";
    UnrecoverablePosition 112 false "unrecoverable position" "History no longer reaches back to the position.";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text(), self.code())
    }
}

impl std::error::Error for ErrorCode {}
