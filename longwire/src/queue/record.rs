//! What the store's records say: their bytes, and back.
//!
//! All numbers are little-endian. A queue has a number, which its messages name; a message has its order, which is its
//! key for as long as it lives. The copy that compaction makes of a record replaces what was known of its message.
//!
//! ```text
//! 1 queue      number 4 | length of the name 2 | name | the channel that it is a durable subscription of
//! 2 dropped    number 4: the queue is gone with all that was in it
//! 3 message    queue 4 | order 8 | tag 4 | sent at 8 | expires 8 | visible at 8 | deliveries 2 | priority 1 |
//!              reserved 1 | length of the headers 4 | headers | body
//! 4 removed    as often as there are messages: queue 4 | order 8 | priority 1
//! 5 returned   as often: queue 4 | order 8 | priority 1 | deliveries 2 | visible at 8
//! 6 end        number of records 4: the records before it, whose kind has the highest bit set, are one transaction
//! ```
//!
//! What must stay true: a payload that cannot be read is told from one that can; nothing is read beyond it.

use longwire_protocol::queue::{Headers, Message};
use std::fmt::Write;
use std::sync::Arc;

pub(super) const QUEUE: u8 = 1;
pub(super) const DROPPED: u8 = 2;
pub(super) const MESSAGE: u8 = 3;
pub(super) const REMOVED: u8 = 4;
pub(super) const RETURNED: u8 = 5;
pub(super) const END: u8 = 6;
/// Set in the kind of each record of a transaction but its end.
pub(super) const IN_TRANSACTION: u8 = 0x80;

/// Bytes of a message's payload before its headers.
pub(super) const MESSAGE_HEAD: usize = 48;
const REMOVED_BYTES: usize = 13;
const RETURNED_BYTES: usize = 23;

/// What precedes headers and body of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MessageHead {
    pub(super) queue: u32,
    pub(super) order: u64,
    /// Drawn by the process that took the message, so that no id is given twice.
    pub(super) tag: u32,
    pub(super) sent_at: u64,
    pub(super) expires: u64,
    pub(super) visible_at: u64,
    pub(super) deliveries: u16,
    pub(super) priority: u8,
    pub(super) headers: u32,
}

/// A message that is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Removed {
    pub(super) queue: u32,
    pub(super) order: u64,
    pub(super) priority: u8,
}

/// A message that was given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Returned {
    pub(super) queue: u32,
    pub(super) order: u64,
    pub(super) priority: u8,
    pub(super) deliveries: u16,
    pub(super) visible_at: u64,
}

/// A payload that was read.
#[derive(Debug)]
pub(super) enum Record<'a> {
    Queue { number: u32, name: &'a str, durable_of: Option<&'a str> },
    Dropped { number: u32 },
    Message { head: MessageHead, headers: &'a [u8], body: &'a [u8] },
    Removed(Vec<Removed>),
    Returned(Vec<Returned>),
    End { records: u32 },
}

impl MessageHead {
    pub(super) fn encode(&self) -> [u8; MESSAGE_HEAD] {
        let mut bytes = [0; MESSAGE_HEAD];
        bytes[..4].copy_from_slice(&self.queue.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.order.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.tag.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sent_at.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.expires.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.visible_at.to_le_bytes());
        bytes[40..42].copy_from_slice(&self.deliveries.to_le_bytes());
        bytes[42] = self.priority;
        bytes[44..].copy_from_slice(&self.headers.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<MessageHead> {
        let head = MessageHead {
            queue: four(bytes, 0)?,
            order: eight(bytes, 4)?,
            tag: four(bytes, 12)?,
            sent_at: eight(bytes, 16)?,
            expires: eight(bytes, 24)?,
            visible_at: eight(bytes, 32)?,
            deliveries: u16::from_le_bytes(bytes.get(40..42)?.try_into().ok()?),
            priority: *bytes.get(42)?,
            headers: four(bytes, 44)?,
        };
        (head.priority <= 9).then_some(head)
    }

    /// The message itself.
    pub(super) fn message(&self, queue: &Arc<str>, headers: &[u8], body: &[u8]) -> Message {
        // One allocation for both.
        let block: bytes::Bytes = [headers, body].concat().into();
        Message {
            id: id_of(self.tag, self.order),
            queue: queue.clone(),
            headers: Headers::from_block(block.slice(..headers.len())),
            body: block.slice(headers.len()..),
            priority: self.priority,
            is_persistent: true,
            expires: self.expires,
            sent_at: self.sent_at,
        }
    }
}

/// The id of a message.
pub(super) fn id_of(tag: u32, order: u64) -> Arc<str> {
    struct Text([u8; 32], usize);
    impl Write for Text {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            let end = self.1 + text.len();
            self.0.get_mut(self.1..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
            self.1 = end;
            Ok(())
        }
    }
    let mut text = Text([0; 32], 0);
    write!(text, "{tag:08x}-{order:x}").expect("8 digits, a hyphen and at most 16 digits fit");
    std::str::from_utf8(&text.0[..text.1]).expect("hexadecimal digits are text").into()
}

/// The tag and the order in an id.
pub(super) fn parse_id(id: &str) -> Option<(u32, u64)> {
    let (tag, order) = id.split_once('-')?;
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if tag.len() != 8 || !is_hex(tag) || !is_hex(order) {
        return None;
    }
    Some((u32::from_str_radix(tag, 16).ok()?, u64::from_str_radix(order, 16).ok()?))
}

pub(super) fn encode_queue(number: u32, name: &str, durable_of: Option<&str>) -> Vec<u8> {
    let length = u16::try_from(name.len()).expect("a queue's name has at most 255 bytes");
    let channel = durable_of.unwrap_or_default();
    [&number.to_le_bytes()[..], &length.to_le_bytes(), name.as_bytes(), channel.as_bytes()].concat()
}

impl Removed {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.queue.to_le_bytes());
        out.extend_from_slice(&self.order.to_le_bytes());
        out.push(self.priority);
    }
}

impl Returned {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.queue.to_le_bytes());
        out.extend_from_slice(&self.order.to_le_bytes());
        out.push(self.priority);
        out.extend_from_slice(&self.deliveries.to_le_bytes());
        out.extend_from_slice(&self.visible_at.to_le_bytes());
    }
}

/// Reads a payload, of whose kind the mark of a transaction is taken away; `None` if it is of another version.
pub(super) fn decode(kind: u8, payload: &[u8]) -> Option<Record<'_>> {
    Some(match kind {
        QUEUE => {
            let length = usize::from(u16::from_le_bytes(payload.get(4..6)?.try_into().ok()?));
            let name = std::str::from_utf8(payload.get(6..6 + length)?).ok()?;
            let channel = std::str::from_utf8(&payload[6 + length..]).ok()?;
            let durable_of = (!channel.is_empty()).then_some(channel);
            Record::Queue { number: four(payload, 0)?, name, durable_of }
        }
        DROPPED => Record::Dropped { number: four(payload, 0)? },
        MESSAGE => {
            let head = MessageHead::decode(payload)?;
            let (headers, body) = payload[MESSAGE_HEAD..].split_at_checked(head.headers as usize)?;
            Record::Message { head, headers, body }
        }
        REMOVED => {
            let items = payload.chunks(REMOVED_BYTES).map(|item| {
                let priority = *item.get(12).filter(|priority| **priority <= 9)?;
                Some(Removed { queue: four(item, 0)?, order: eight(item, 4)?, priority })
            });
            Record::Removed(items.collect::<Option<_>>()?)
        }
        RETURNED => {
            let items = payload.chunks(RETURNED_BYTES).map(|item| {
                Some(Returned {
                    queue: four(item, 0)?,
                    order: eight(item, 4)?,
                    priority: *item.get(12).filter(|priority| **priority <= 9)?,
                    deliveries: u16::from_le_bytes(item.get(13..15)?.try_into().ok()?),
                    visible_at: eight(item, 15)?,
                })
            });
            Record::Returned(items.collect::<Option<_>>()?)
        }
        END => Record::End { records: four(payload, 0)? },
        _ => return None,
    })
}

fn four(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn eight(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_payload_is_read_or_refused(kind: u8, payload in proptest::collection::vec(any::<u8>(), 0..100)) {
            // It must not panic; what it makes of random bytes is one of the two.
            if let Some(Record::Message { head, headers, body }) = decode(kind, &payload) {
                prop_assert_eq!(MESSAGE_HEAD + headers.len() + body.len(), payload.len());
                prop_assert_eq!(head.headers as usize, headers.len());
            }
        }

        #[test]
        fn a_message_survives_its_record(
            numbers: (u32, u64, u32, u64, u64, u64, u16), priority in 0..10u8, headers: Vec<u8>, body: Vec<u8>,
        ) {
            let (queue, order, tag, sent_at, expires, visible_at, deliveries) = numbers;
            let length = headers.len() as u32;
            let head = MessageHead {
                queue, order, tag, sent_at, expires, visible_at, deliveries, priority, headers: length,
            };
            let payload = [&head.encode()[..], &headers, &body].concat();
            match decode(MESSAGE, &payload) {
                Some(Record::Message { head: read, headers: h, body: b }) => {
                    prop_assert_eq!((read, h, b), (head, &headers[..], &body[..]));
                }
                other => prop_assert!(false, "not a message: {:?}", other),
            }
            prop_assert_eq!(parse_id(&id_of(tag, order)), Some((tag, order)));
        }
    }

    #[test]
    fn lists_and_queues_survive_their_records() {
        let removed = Removed { queue: 7, order: 1 << 40, priority: 9 };
        let returned = Returned { queue: 7, order: 3, priority: 0, deliveries: 2, visible_at: 99 };
        let (mut one, mut other) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            removed.encode(&mut one);
            returned.encode(&mut other);
        }
        assert!(matches!(decode(REMOVED, &one), Some(Record::Removed(list)) if list == [removed; 3]));
        assert!(matches!(decode(RETURNED, &other), Some(Record::Returned(list)) if list == [returned; 3]));
        assert!(decode(REMOVED, &one[1..]).is_none() && decode(RETURNED, &other[..40]).is_none());
        for channel in [None, Some("news")] {
            let payload = encode_queue(5, "a.b", channel);
            let Some(Record::Queue { number, name, durable_of }) = decode(QUEUE, &payload) else {
                panic!("a queue is read")
            };
            assert_eq!((number, name, durable_of), (5, "a.b", channel));
        }
        for id in
            ["", "1-2", "0123456-1", "01234567-", "+1234567-1", "01234567-x", "01234567-11111111111111111"]
        {
            assert_eq!(parse_id(id), None, "{id}");
        }
    }
}
