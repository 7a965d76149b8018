//! How bytes travel between a client and its server.

use std::fmt;

/// How bytes travel between a client and its server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// An HTTP response that does not end, a line for each message; messages go up in POSTs of their own.
    Stream,
    /// Server-sent events; messages go up in POSTs of their own.
    EventStream,
    /// Long-poll: one request for each answer.
    Poll,
    /// A TCP connection without anything around it.
    Tcp,
}

impl Transport {
    /// The name in logs, events and settings.
    pub fn name(self) -> &'static str {
        match self {
            Transport::WebSocket => "websocket",
            Transport::Stream => "stream",
            Transport::EventStream => "sse",
            Transport::Poll => "poll",
            Transport::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
