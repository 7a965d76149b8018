//! What clients ask of durable queues, in the words that all dialects and the HTTP API share.
//!
//! A *message* waits in a *queue* until a *consumer* acknowledges it; each is given to one consumer at a time. What a
//! message carries beside its body are [`Headers`], kept as one block of escaped lines, so that a message costs one
//! allocation for them and goes out as it came in. Nothing here keeps a queue: the server does. What must stay true: a
//! block of headers holds no name that the server itself writes on a delivery, and no raw line feed, carriage return or
//! colon inside a name or a value.

use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The priority of a message that names none; 0 is the lowest, 9 the highest.
pub const DEFAULT_PRIORITY: u8 = 4;

/// The headers of a message: lines `name:value\n` with the escapes of STOMP 1.2 (`\n`, `\r`, `\c`, `\\`), each name once.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Headers(Bytes);

impl Headers {
    /// Takes a block that was made by [`Headers::of`] or [`as_bytes`](Self::as_bytes) before, as a store reads it back.
    /// A block that is none reads as what lines it has.
    pub fn from_block(block: Bytes) -> Headers {
        Headers(block)
    }

    /// Makes the block of these pairs, in their order; of several of one name the first counts.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Headers {
        let mut block = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for (name, value) in pairs {
            if !names.contains(&name) {
                names.push(name);
                escape(name, &mut block);
                block.push(b':');
                escape(value, &mut block);
                block.push(b'\n');
            }
        }
        Headers(block.into())
    }

    /// The block.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        let lines = self.0.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.filter_map(|line| {
            let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
            Some((unescape(name), unescape(value)))
        })
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Whether a header belongs to a frame of STOMP and not to what is sent with it: such a one is never handed on.
pub fn is_frame_header(name: &str) -> bool {
    matches!(
        name,
        "destination"
            | "content-length"
            | "receipt"
            | "transaction"
            | "message-id"
            | "subscription"
            | "ack"
            | "redelivered"
            | "x-delivery-count"
    )
}

/// Whether a header belongs to a frame, or is the server's own: no message in a queue carries one of this name. Priority,
/// persistence and expiry are told of each message in a form of their own.
pub fn is_reserved_header(name: &str) -> bool {
    is_frame_header(name) || matches!(name, "priority" | "persistent" | "expires")
}

/// Writes a name or a value with the escapes of STOMP 1.2.
pub fn escape(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b':' => out.extend_from_slice(b"\\c"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            byte => out.push(byte),
        }
    }
}

/// Takes the escapes of a block back; one that does not exist stays as it is.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let escaped = if char == '\\' { chars.clone().next() } else { None };
        let meant = match escaped {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('c') => ':',
            Some('\\') => '\\',
            _ => {
                plain.push(char);
                continue;
            }
        };
        chars.next();
        plain.push(meant);
    }
    Cow::Owned(plain)
}

/// A message that somebody sends.
#[derive(Clone, PartialEq, Debug)]
pub struct NewMessage {
    /// The queue.
    pub queue: Arc<str>,
    /// What consumers are given beside the body.
    pub headers: Headers,
    /// Any bytes.
    pub body: Bytes,
    /// 0 to 9.
    pub priority: u8,
    /// It outlives the process: whoever sends it is answered when it is on the disk.
    pub is_persistent: bool,
    /// When it is worth nothing any more.
    pub expiry: Option<Expiry>,
    /// How long nobody is given it.
    pub delay: Duration,
}

/// When a message is worth nothing any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// So long after it was sent.
    After(Duration),
    /// At this time, in milliseconds since 1970.
    At(u64),
}

/// How deliveries to a consumer are acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckMode {
    /// By being written to the socket.
    Auto,
    /// Each acknowledgement counts for all deliveries to the consumer up to that one.
    Cumulative,
    /// One by one.
    Individual,
}

/// What somebody who consumes a queue wants.
#[derive(Clone, PartialEq, Debug)]
pub struct Consume {
    /// The consumer's number within its connection.
    pub consumer: u32,
    /// The queue.
    pub queue: Arc<str>,
    /// How deliveries are acknowledged.
    pub ack: AckMode,
    /// Most deliveries that may wait for their acknowledgement; `None` for the server's default.
    pub prefetch: Option<u32>,
    /// Only messages for which this holds (see [`crate::selector`]).
    pub selector: Option<Arc<str>>,
    /// Nobody else gets anything while this consumer is there; others wait for its end.
    pub is_exclusive: bool,
    /// Look at what waits, take nothing, and be told when all was shown.
    pub is_browsing: bool,
    /// The queue holds what is published in a channel while nobody is there, too: the channel's name.
    pub durable_of: Option<Arc<str>>,
}

/// Which deliveries an acknowledgement means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meant {
    /// The delivery with this number.
    Delivery(u64),
    /// The delivery of the message with this id to this consumer, or, where none is named or it has none, the oldest one
    /// of it to any consumer of the connection.
    Message(Arc<str>, Option<u32>),
}

/// What is said about a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is done.
    Ack,
    /// It is not: somebody shall be given it again, up to the queue's `max_deliveries`.
    Requeue,
    /// It never will be: to the dead letters.
    Reject,
}

/// What a client wants of queues.
#[derive(Clone, PartialEq, Debug)]
pub enum QueueCommand {
    /// Put a message into a queue.
    Send(Box<NewMessage>),
    /// Say something about deliveries.
    Settle {
        /// Which.
        meant: Meant,
        /// What.
        verdict: Verdict,
    },
    /// Begin to consume.
    Consume(Box<Consume>),
    /// Consume no longer. What was delivered can still be acknowledged.
    Cancel {
        /// The consumer's number.
        consumer: u32,
        /// Give up the durable subscription, with what waits in it.
        is_forever: bool,
    },
    /// Do all of these, or none; only [`Send`](Self::Send) and [`Settle`](Self::Settle) are allowed in it.
    Transaction(Vec<QueueCommand>),
}

/// What a consumer is told of its queue.
#[derive(Clone, PartialEq, Debug)]
pub enum QueuePush {
    /// A message.
    Delivered(Delivered),
    /// Everything that waits was shown to this consumer, which only looks.
    Browsed {
        /// The consumer's number within its connection.
        consumer: u32,
    },
    /// The consumer is none any more: its queue was removed.
    Cancelled {
        /// The consumer's number within its connection.
        consumer: u32,
    },
}

/// A message on its way to a consumer.
#[derive(Clone, PartialEq, Debug)]
pub struct Delivered {
    /// The consumer's number within its connection.
    pub consumer: u32,
    /// The delivery's number, by which it is acknowledged; never given twice.
    pub delivery: u64,
    /// The message.
    pub message: Arc<Message>,
    /// How often it was delivered before.
    pub redeliveries: u32,
}

/// A message that is in a queue.
#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    /// Its id: the same at each delivery, and in no other queue or time.
    pub id: Arc<str>,
    /// The queue.
    pub queue: Arc<str>,
    /// What it carries beside the body.
    pub headers: Headers,
    /// Any bytes.
    pub body: Bytes,
    /// 0 to 9.
    pub priority: u8,
    /// It outlives the process.
    pub is_persistent: bool,
    /// When it is worth nothing any more, in milliseconds since 1970; 0 for never.
    pub expires: u64,
    /// When it was sent, in milliseconds since 1970.
    pub sent_at: u64,
}

macro_rules! queue_errors {
    ($($variant:ident $temporary:literal $text:literal $doc:literal;)+) => {
        /// Why something that was asked of a queue is not done.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum QueueErrorKind { $(#[doc = $doc] $variant,)+ }

        impl QueueErrorKind {
            /// All of them.
            pub const ALL: &[QueueErrorKind] = &[$(QueueErrorKind::$variant,)+];

            /// Whether the same may succeed later without a change.
            pub fn is_temporary(self) -> bool { match self { $(QueueErrorKind::$variant => $temporary,)+ } }

            /// The text on the wire.
            pub fn text(self) -> &'static str { match self { $(QueueErrorKind::$variant => $text,)+ } }
        }
    };
}

queue_errors! {
    BadName false "bad queue name" "The name is empty, too long, or has control characters.";
    NoSuchQueue false "no such queue" "There is no queue of this name.";
    PermissionDenied false "permission denied" "The client may not do this with this queue.";
    QueueFull true "queue full" "The queue holds as much as it may, and refuses more.";
    TooManyQueues true "too many queues" "There are as many queues as there may be.";
    MessageTooBig false "message too big" "The message is larger than a queue takes.";
    NotWritable true "not writable" "The disk is full or failed: what is there is still served.";
    BadSelector false "bad selector" "The selector cannot be read.";
    Exclusive true "queue is consumed exclusively" "Another consumer has the queue for itself.";
    ConsumerInUse false "subscription exists" "The connection has a consumer of this number.";
    NoSuchConsumer false "no such subscription" "The connection has no consumer of this number.";
    UnknownDelivery false "unknown delivery" "Nothing that waits for an acknowledgement has this id.";
    LimitExceeded false "limit exceeded" "More consumers, or more in one transaction, than there may be.";
    ShuttingDown true "shutting down" "The server ends.";
}

/// Why something that was asked of a queue is not done, and what exactly is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueError {
    /// What went wrong.
    pub kind: QueueErrorKind,
    /// In which queue, at which place, beyond which limit; may be empty.
    pub detail: String,
}

impl QueueError {
    /// An error with its detail.
    pub fn new(kind: QueueErrorKind, detail: impl Into<String>) -> QueueError {
        QueueError { kind, detail: detail.into() }
    }
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.detail {
            "" => f.write_str(self.kind.text()),
            detail => write!(f, "{}: {detail}", self.kind.text()),
        }
    }
}

impl std::error::Error for QueueError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_a_repeated_header_the_first_counts() {
        let headers = Headers::of([("a", "1"), ("b", ""), ("a", "2")]);
        assert_eq!(&headers.as_bytes()[..], b"a:1\nb:\n");
        assert_eq!(headers.get("b").as_deref(), Some(""));
        assert_eq!(headers.get("c"), None);
    }

    proptest! {
        #[test]
        fn any_headers_survive_their_block(pairs in proptest::collection::btree_map(".+", ".*", 0..8)) {
            let headers = Headers::of(pairs.iter().map(|(name, value)| (&**name, &**value)));
            let back: Vec<_> = headers.iter().map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
            prop_assert_eq!(back, pairs.into_iter().collect::<Vec<_>>());
        }
    }
}
