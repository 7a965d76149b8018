//! One thing on its way to subscribers, and the mailbox through which it reaches a shard.
//!
//! A [`Delivery`] is made once by the broker and shared by all shards and sessions; its wire form is made
//! on first use, once for each encoding. A [`Mailbox`] is how anything reaches a shard's thread: a batch at
//! a time, bounded. What must stay true: a broker that pushes while it holds the channel's lock gives every
//! shard the same order; waiting for room happens before that lock is taken.

use bytes::Bytes;
use longwire_protocol::connection::{Encoding, encode_push};
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
    encoded: [OnceLock<Bytes>; Encoding::COUNT],
}

impl Delivery {
    /// Wraps `what` for its journey.
    pub fn new(channel: Arc<str>, what: What, position: Option<Position>) -> Delivery {
        Delivery { channel, what, position, encoded: Default::default() }
    }

    /// The wire form in `encoding`, made on first use.
    pub fn encoded(&self, encoding: Encoding, compressor: &mut Option<Box<Compressor>>) -> &Bytes {
        self.encoded[encoding as usize].get_or_init(|| {
            let push = match &self.what {
                What::Publication(publication) => Push::Publication(publication.clone()),
                What::Join(info) => Push::Join(info.clone()),
                What::Leave(info) => Push::Leave(info.clone()),
            };
            encode_push(encoding, &self.channel, &push, self.position, compressor)
        })
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

    #[test]
    fn a_publication_is_encoded_and_compressed_once_for_all_its_readers() {
        let data = Bytes::from(format!("{:?}", "compressible ".repeat(100)));
        let publication = Publication { offset: 1, data, info: None, tags: Vec::new() };
        let delivery = Delivery::new("news".into(), What::Publication(Arc::new(publication)), None);
        let mut compressor = None;
        for encoding in [Encoding::CentrifugeJson, Encoding::CentrifugeJsonDeflated, Encoding::EventStream] {
            let first = delivery.encoded(encoding, &mut compressor).clone();
            let second = delivery.encoded(encoding, &mut compressor).clone();
            assert_eq!(first.as_ptr(), second.as_ptr(), "{encoding:?} was made twice");
        }
        let plain = delivery.encoded(Encoding::CentrifugeJson, &mut compressor).len();
        assert!(delivery.encoded(Encoding::CentrifugeJsonDeflated, &mut compressor).len() < plain / 5);
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
