//! One thing on its way to subscribers, and the mailbox through which it reaches a shard.
//!
//! A [`Delivery`] is made once by the broker and shared by all shards and sessions; its wire form is made
//! on first use, once for each encoding. A [`Mailbox`] is how anything reaches a shard's thread: a batch at
//! a time, bounded. What must stay true: a broker that pushes while it holds the channel's lock gives every
//! shard the same order; waiting for room happens before that lock is taken.

use bytes::Bytes;
use longwire_protocol::encoding::{Encoding, encode_push};
use longwire_protocol::message::ClientInfo;
use longwire_protocol::websocket::Compressor;
use longwire_protocol::{Position, Publication, Push};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::Notify;

/// What is delivered.
#[derive(Clone, PartialEq, Debug)]
pub enum What {
    /// A publication.
    Publication(Arc<Publication>),
    /// A client came.
    Join(Arc<ClientInfo>),
    /// A client went.
    Leave(Arc<ClientInfo>),
    /// Something for these clients themselves, outside of any channel.
    Message {
        /// Raw JSON, unless `is_json` says otherwise.
        data: Bytes,
        /// Whether the data is JSON.
        is_json: bool,
    },
}

/// Something on its way to all subscribers of a channel.
#[derive(Debug)]
pub struct Delivery {
    /// The channel.
    pub channel: Arc<str>,
    /// What is delivered.
    pub what: What,
    /// Position of a publication in a channel with history.
    pub position: Option<Position>,
    /// The publication before, where subscribers may be sent the difference to it.
    pub previous: Option<Arc<Publication>>,
    made: Slot,
}

/// What a subscriber is sent: how its connection wants pushes, and how it wants the data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// The form of the push.
    pub encoding: Encoding,
    /// The form of the data in it.
    pub data: DataForm,
}

/// In which form a subscriber is sent the data of a publication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataForm {
    /// As it is.
    Plain,
    /// In the form that was agreed upon for differences, but whole.
    Whole,
    /// As the difference to the publication before, where that is shorter.
    Difference,
}

/// A wire form, once somebody wanted it, and those that others wanted later.
type Slot = OnceLock<Box<Made>>;

#[derive(Debug)]
struct Made {
    shape: Shape,
    bytes: Bytes,
    next: Slot,
}

impl Delivery {
    /// Wraps `what` for its journey.
    pub fn new(channel: Arc<str>, what: What, position: Option<Position>) -> Delivery {
        Delivery { channel, what, position, previous: None, made: Slot::new() }
    }

    /// The same with the publication before, to which differences are made.
    #[must_use]
    pub fn after(self, previous: Option<Arc<Publication>>) -> Delivery {
        Delivery { previous, ..self }
    }

    /// The wire form of this shape, made on first use.
    pub fn encoded(&self, shape: Shape, compressor: &mut Option<Box<Compressor>>) -> &Bytes {
        let mut slot = &self.made;
        loop {
            let made = slot.get_or_init(|| {
                Box::new(Made { shape, bytes: self.encode(shape, compressor), next: Slot::new() })
            });
            if made.shape == shape {
                return &made.bytes;
            }
            slot = &made.next;
        }
    }

    fn encode(&self, shape: Shape, compressor: &mut Option<Box<Compressor>>) -> Bytes {
        let push = match (&self.what, shape.data) {
            (What::Publication(publication), DataForm::Plain) => Push::Publication(publication.clone()),
            (What::Publication(publication), form) => {
                let base = self.previous.as_ref().filter(|_| form == DataForm::Difference);
                let base = base.map(|previous| match shape.encoding.needs_json() {
                    true => previous.json(),
                    false => previous.data.clone(),
                });
                Push::Delta { publication: publication.clone(), base }
            }
            (What::Join(info), _) => Push::Join(info.clone()),
            (What::Leave(info), _) => Push::Leave(info.clone()),
            (What::Message { data, is_json }, _) => Push::Message { data: data.clone(), is_json: *is_json },
        };
        encode_push(shape.encoding, &self.channel, &push, self.position, compressor)
    }
}

/// The way to a shard's thread.
pub struct Mailbox<T> {
    letters: Mutex<VecDeque<T>>,
    arrived: Notify,
    emptied: Notify,
    capacity: usize,
}

impl<T> Mailbox<T> {
    /// A mailbox that senders are asked to wait for while it holds `capacity` letters.
    pub fn new(capacity: usize) -> Mailbox<T> {
        Mailbox {
            letters: Mutex::new(VecDeque::new()),
            arrived: Notify::new(),
            emptied: Notify::new(),
            capacity,
        }
    }

    /// Waits until there is room.
    ///
    /// Room is not reserved: senders that were let in together may exceed the capacity by their number.
    pub async fn room(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().len() < self.capacity {
                return;
            }
            emptied.await;
        }
    }

    /// Puts a letter in, without waiting.
    pub fn push(&self, letter: T) {
        let was_empty = {
            let mut letters = self.lock();
            letters.push_back(letter);
            letters.len() == 1
        };
        if was_empty {
            self.arrived.notify_one();
        }
    }

    /// Waits until there is a letter.
    pub async fn arrived(&self) {
        loop {
            let arrived = self.arrived.notified();
            if !self.lock().is_empty() {
                return;
            }
            arrived.await;
        }
    }

    /// Takes all letters by exchanging the queue for `batch`, which must be empty.
    pub fn take(&self, batch: &mut VecDeque<T>) {
        debug_assert!(batch.is_empty(), "letters would be lost");
        let was_full = {
            let mut letters = self.lock();
            std::mem::swap(&mut *letters, batch);
            batch.len() >= self.capacity
        };
        if was_full {
            self.emptied.notify_waiters();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<T>> {
        // A panic while the lock is held leaves a queue that is still a queue.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire_protocol::centrifuge::Format;
    use longwire_protocol::encoding::{Framing, Style};

    fn shape(framing: Framing, data: DataForm) -> Shape {
        let style = Style { format: Format::Json, framing, is_bare: false };
        Shape { encoding: Encoding::Centrifuge(style), data }
    }

    #[test]
    fn a_publication_is_encoded_and_compressed_once_for_all_its_readers() {
        let data = Bytes::from(format!("{:?}", "compressible ".repeat(100)));
        let publication =
            Publication { offset: 1, data, info: None, tags: Vec::new(), except: None, is_json: true };
        let publication = Arc::new(publication);
        let what = What::Publication(publication.clone());
        let delivery = Delivery::new("news".into(), what, None).after(Some(publication));
        let mut compressor = None;
        let shapes = [
            shape(Framing::WebSocket, DataForm::Plain),
            shape(Framing::Deflated, DataForm::Plain),
            shape(Framing::WebSocket, DataForm::Whole),
            shape(Framing::WebSocket, DataForm::Difference),
            Shape { encoding: Encoding::EventStream, data: DataForm::Plain },
        ];
        let all: Vec<Bytes> =
            shapes.iter().map(|shape| delivery.encoded(*shape, &mut compressor).clone()).collect();
        for (shape, first) in shapes.iter().zip(&all) {
            let second = delivery.encoded(*shape, &mut compressor);
            assert_eq!(first.as_ptr(), second.as_ptr(), "{shape:?} was made twice");
        }
        assert!(all[1].len() < all[0].len() / 5, "compressed");
        assert!(all[3].len() < all[2].len() / 5, "nothing changed, so the difference is small");
    }

    #[tokio::test]
    async fn a_full_mailbox_lets_senders_wait_until_it_is_emptied() {
        let mailbox = Arc::new(Mailbox::new(2));
        mailbox.push(1);
        mailbox.push(2);
        let waiting = tokio::spawn({
            let mailbox = mailbox.clone();
            async move { mailbox.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        mailbox.arrived().await;
        let mut batch = VecDeque::new();
        mailbox.take(&mut batch);
        assert_eq!(batch, [1, 2]);
        waiting.await.expect("room was announced");
    }
}
