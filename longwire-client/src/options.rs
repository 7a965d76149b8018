//! What every client can be told about how it connects, waits, gives up and comes back.
//!
//! Dialects add their own on top of [`Options`]. What must stay true: every field has a default with which a user is
//! served well, and each bound names what happens at it.

use longwire_protocol::heartbeat::OFF;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How a connection is made, kept and made again.
#[derive(Clone)]
pub struct Options {
    /// When to come back after a break, and when to give up.
    pub reconnect: Reconnect,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Whom to trust.
    pub tls: Tls,
    /// What waits while there is no connection.
    pub outbox: Outbox,
    /// Headers of every HTTP request, the WebSocket handshake included.
    pub headers: Vec<(String, String)>,
    /// The longest message that is received; a longer one ends the connection. 16 MiB.
    pub max_message_bytes: usize,
    /// What may wait for one subscription's reader, in messages. When it is reached the client reads no more from its
    /// socket until some are taken: the server then holds or sheds the rest by its own rules. A realtime call whose answer
    /// is not read meanwhile ends as [`Error::Timeout`](crate::Error::Timeout). Over STOMP and of a feed the same holds for
    /// `max_message_bytes` of them. 16 384.
    pub max_buffered: usize,
    /// Whether to offer permessage-deflate on WebSockets.
    pub offer_deflate: bool,
    /// Seed of everything that is drawn (delays, keys). `None`: the operating system's.
    pub seed: Option<u64>,
}

/// When to come back after a break, and when to give up.
#[derive(Clone, PartialEq, Debug)]
pub struct Reconnect {
    /// Whether to come back at all.
    pub is_on: bool,
    /// The span from which the delay before the first new attempt is drawn. 500 ms.
    pub first_delay: Duration,
    /// By what the span grows with each attempt that fails. 2.0.
    pub factor: f64,
    /// The longest span. 20 s.
    pub max_delay: Duration,
    /// How long a connection has to last before its end counts as the first failure again. 10 s.
    pub stable_after: Duration,
    /// How many attempts in a row may fail. `None`: any number.
    pub max_attempts: Option<u32>,
    /// For how long attempts may go on failing. `None`: for ever.
    pub max_elapsed: Option<Duration>,
}

/// How long things may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// Resolving, TCP and TLS together. 10 s.
    pub connect: Duration,
    /// From the connected socket to the end of handshake and login. 10 s.
    pub login: Duration,
    /// One write without progress. 10 s.
    pub write: Duration,
    /// One command without its reply. 10 s.
    pub command: Duration,
    /// Silence, where nothing else was agreed upon with the server. 60 s.
    pub silence: Duration,
}

/// Whom to trust over TLS; [`Tls::trusting`] makes one of certificates in PEM.
#[derive(Clone, Debug, Default)]
pub enum Tls {
    /// Whom the system trusts.
    #[default]
    System,
    /// As this configuration says.
    Config(Arc<rustls::ClientConfig>),
    /// Anybody: no protection against whoever is on the way. For tests and for looking into a problem.
    Anybody,
}

/// What waits while there is no connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outbox {
    /// How many bytes of sends may wait for a connection or for their confirmation. 8 MiB.
    pub max_bytes: usize,
    /// How many may wait. 65 536.
    pub max_sends: usize,
    /// What happens to a send that does not fit.
    pub when_full: WhenFull,
}

/// What happens to a send that does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhenFull {
    /// It waits until it fits.
    #[default]
    Wait,
    /// It fails at once.
    Fail,
    /// The oldest that was never written is given up: its caller is told so.
    DropOldest,
}

impl Options {
    /// The same, in memory that all clients with the defaults share, and with no time so long that no clock can show
    /// its end.
    pub(crate) fn shared(mut self: Arc<Options>) -> Arc<Options> {
        static DEFAULT: OnceLock<Arc<Options>> = OnceLock::new();
        if self.is_default() {
            return Arc::clone(DEFAULT.get_or_init(|| self));
        }
        let Options { reconnect, timeouts, .. } = Arc::make_mut(&mut self);
        let Reconnect { first_delay, max_delay, stable_after, max_elapsed, .. } = reconnect;
        let Timeouts { connect, login, write, command, silence } = timeouts;
        for time in [first_delay, max_delay, stable_after, connect, login, write, command, silence] {
            *time = (*time).min(OFF);
        }
        *max_elapsed = max_elapsed.map(|time| time.min(OFF));
        self
    }

    fn is_default(&self) -> bool {
        let Options {
            reconnect,
            timeouts,
            tls,
            outbox,
            headers,
            max_message_bytes,
            max_buffered,
            offer_deflate,
            seed,
        } = self;
        let default = Options::default();
        *reconnect == default.reconnect
            && *timeouts == default.timeouts
            && matches!(tls, Tls::System)
            && *outbox == default.outbox
            && headers.is_empty()
            && (*max_message_bytes, *max_buffered) == (default.max_message_bytes, default.max_buffered)
            && !*offer_deflate
            && seed.is_none()
    }
}

/// Without the headers' values, which may be secret.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Options")
            .field("reconnect", &self.reconnect)
            .field("timeouts", &self.timeouts)
            .field("tls", &self.tls)
            .field("outbox", &self.outbox)
            .field("headers", &headers)
            .field("max_message_bytes", &self.max_message_bytes)
            .field("max_buffered", &self.max_buffered)
            .field("offer_deflate", &self.offer_deflate)
            .field("seed", &self.seed)
            .finish()
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            reconnect: Reconnect::default(),
            timeouts: Timeouts::default(),
            tls: Tls::System,
            outbox: Outbox::default(),
            headers: Vec::new(),
            max_message_bytes: 16 << 20,
            max_buffered: 16_384,
            offer_deflate: false,
            seed: None,
        }
    }
}

impl Default for Reconnect {
    fn default() -> Reconnect {
        Reconnect {
            is_on: true,
            first_delay: Duration::from_millis(500),
            factor: 2.0,
            max_delay: Duration::from_secs(20),
            stable_after: Duration::from_secs(10),
            max_attempts: None,
            max_elapsed: None,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(10),
            login: Duration::from_secs(10),
            write: Duration::from_secs(10),
            command: Duration::from_secs(10),
            silence: Duration::from_secs(60),
        }
    }
}

impl Default for Outbox {
    fn default() -> Outbox {
        Outbox { max_bytes: 8 << 20, max_sends: 65_536, when_full: WhenFull::Wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_asks_for_nothing_special_shares_options() {
        let shared = |options: Options| Arc::new(options).shared();
        assert!(Arc::ptr_eq(&shared(Options::default()), &shared(Options::default())));
        let mut special = Options::default();
        special.timeouts.silence += Duration::from_secs(1);
        for special in [
            special,
            Options { tls: Tls::Anybody, ..Options::default() },
            Options { headers: vec![("a".to_owned(), "b".to_owned())], ..Options::default() },
            Options { max_buffered: 1, ..Options::default() },
            Options { seed: Some(0), ..Options::default() },
        ] {
            let kept = shared(special.clone());
            assert!(!Arc::ptr_eq(&kept, &shared(Options::default())));
            assert_eq!(format!("{kept:?}"), format!("{special:?}"));
        }
    }
}
