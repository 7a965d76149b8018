//! What clients do with queues, and what channels do: the part of [`Node`] that stands between the two.
//!
//! Queues themselves are kept by `queue`; here it is judged who may, and a publication goes into the queues of those who
//! subscribed to its channel for good. What must stay true: a publisher is told that it published only when the queues of
//! all such subscribers have it, or refused it for good.

use super::{Denied, Identity, NewPublication, Node};
use crate::config::{DataFormat, Destination};
use bytes::Bytes;
use longwire_protocol::message::{ClientId, ReplyError};
use longwire_protocol::queue::{
    DEFAULT_PRIORITY, Headers, NewMessage, QueueCommand, QueueError, QueueErrorKind,
};
use longwire_protocol::{ErrorCode, Publication};
use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What the names of temporary queues begin with; the id of the connection that each belongs to follows, and `/`.
const TEMPORARY: &str = "~temp/";

/// What a client wants of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueAction {
    /// Send to it.
    Send,
    /// Consume it, or look at it.
    Consume,
}

impl Node {
    /// Says whether a client may do something with queues.
    ///
    /// # Errors
    /// [`QueueErrorKind::PermissionDenied`], with the queue's name.
    pub fn authorize_queue_command(
        &self,
        identity: &Identity,
        command: &QueueCommand,
    ) -> Result<(), QueueError> {
        match command {
            QueueCommand::Send(message) => self.authorize_queue(identity, &message.queue, QueueAction::Send),
            // Who may read a channel is judged as for any other subscription.
            QueueCommand::Consume(consume) if consume.durable_of.is_some() => Ok(()),
            QueueCommand::Consume(consume) => {
                self.authorize_queue(identity, &consume.queue, QueueAction::Consume)
            }
            QueueCommand::Transaction(commands) => {
                commands.iter().try_for_each(|command| self.authorize_queue_command(identity, command))
            }
            // About what the client was given.
            QueueCommand::Settle { .. } | QueueCommand::Cancel { .. } => Ok(()),
        }
    }

    /// Says whether a client may do something with one queue.
    ///
    /// Names that begin with `~` are the server's own: into a temporary queue everybody may send who knows its name, and
    /// nobody but its connection may consume it.
    ///
    /// # Errors
    /// [`QueueErrorKind::PermissionDenied`], with the queue's name.
    pub fn authorize_queue(
        &self,
        identity: &Identity,
        queue: &str,
        action: QueueAction,
    ) -> Result<(), QueueError> {
        let config = &self.config;
        let destination = Destination::Queue(queue);
        let user = config.users.get(&*identity.user);
        let is_allowed = if let Some(rest) = queue.strip_prefix(TEMPORARY) {
            let owner = rest.split('/').next().and_then(ClientId::parse);
            action == QueueAction::Send || owner == Some(identity.client)
        } else if queue.starts_with('~') {
            config.client.insecure || user.is_some_and(|user| user.may_administer(destination))
        } else {
            let options = || config.queue_options(queue);
            let is_named = !identity.user.is_empty();
            config.client.insecure
                || match action {
                    QueueAction::Send => {
                        user.is_some_and(|user| user.may_send(destination))
                            || options().allow_send_for_client
                                && (is_named || options().allow_send_for_anonymous)
                    }
                    QueueAction::Consume => {
                        user.is_some_and(|user| user.may_subscribe(destination))
                            || options().allow_consume_for_client
                                && (is_named || options().allow_consume_for_anonymous)
                    }
                }
        };
        if is_allowed { Ok(()) } else { Err(QueueError::new(QueueErrorKind::PermissionDenied, queue)) }
    }

    /// Says in words what is wrong with a publication of a client that is told in words, if something is that can be
    /// seen before it is published.
    ///
    /// # Errors
    /// `BadRequest` with what is wrong.
    pub fn check_publication(
        &self,
        channel: &str,
        data: &Bytes,
        tags: &[(String, String)],
    ) -> Result<(), Denied> {
        let (data, tags) = (data.clone(), tags.to_vec());
        let new = NewPublication { data, tags, is_bytes: true, ..NewPublication::default() };
        let format = self.channel_options(channel)?.publication_data_format;
        let wrong: Cow<'static, str> = if !new.is_within_limits() {
            format!(
                "a message to a topic may have {} headers of its own, of {} bytes together",
                super::MAX_TAGS,
                super::MAX_TAG_BYTES
            )
            .into()
        } else if new.judge(format).is_err() {
            match format {
                DataFormat::JsonObject => {
                    "the topic takes JSON objects only (publication_data_format)".into()
                }
                _ => "the topic takes JSON only (publication_data_format)".into(),
            }
        } else {
            return Ok(());
        };
        let code = ErrorCode::BadRequest.code();
        Err(Denied::Error(ReplyError { code, message: wrong, temporary: false }))
    }

    /// The queues of those who subscribed to a channel for good.
    pub(super) fn bound_queues(&self, channel: &str) -> Option<Arc<[Arc<str>]>> {
        self.queues.bound(channel).filter(|queues| !queues.is_empty())
    }

    /// Puts a publication into these queues.
    ///
    /// # Errors
    /// `NotKept` if the disk does not take it. A queue that is full refuses it: its reader does not come any more, and must
    /// not keep others from publishing. What a queue lost is counted and logged.
    pub(super) async fn feed(
        &self,
        channel: &str,
        queues: &[Arc<str>],
        tags: &[(String, String)],
        data: &Bytes,
    ) -> Result<(), ErrorCode> {
        let headers = Headers::of(tags.iter().map(|(name, value)| (&**name, &**value)));
        let message = |queue: &Arc<str>| NewMessage {
            queue: queue.clone(),
            headers: headers.clone(),
            body: data.clone(),
            priority: DEFAULT_PRIORITY,
            is_persistent: true,
            expiry: None,
            delay: Duration::ZERO,
        };
        let outcomes = self.queues.send_each(queues.iter().map(message).collect()).await;
        let outcomes = outcomes.map_err(|_| ErrorCode::NotKept)?;
        let mut result = Ok(());
        for (queue, outcome) in queues.iter().zip(outcomes) {
            let Err(error) = outcome else { continue };
            self.queues.counters().unkept.add(1);
            if let Some(lost) = self.unkept.note(self.running_for()) {
                tracing::warn!(
                    channel,
                    %queue,
                    %error,
                    lost,
                    "durable subscriptions lose publications: this queue did not take one, and `lost` were not taken since \
                     the last line like this"
                );
            }
            if matches!(error.kind, QueueErrorKind::NotWritable | QueueErrorKind::ShuttingDown) {
                result = Err(ErrorCode::NotKept);
            }
        }
        result
    }
}

/// How often it is said that durable subscriptions lose publications.
const UNKEPT_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Publications that durable subscriptions lost and of which no line was written.
#[derive(Debug, Default)]
pub(super) struct Unkept {
    since: Mutex<(u64, Option<Duration>)>,
}

impl Unkept {
    /// Counts one; how many there were since the last line, if it is time for one.
    fn note(&self, running_for: Duration) -> Option<u64> {
        // Numbers are numbers, whatever happened to who held them.
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.0 += 1;
        let is_time = since.1.is_none_or(|last| running_for.saturating_sub(last) >= UNKEPT_LOG_INTERVAL);
        if is_time {
            since.1 = Some(running_for);
        }
        is_time.then(|| std::mem::take(&mut since.0))
    }
}

/// What of a publication goes into queues, if there are any for its channel.
pub(super) struct ForQueues {
    pub(super) queues: Arc<[Arc<str>]>,
    pub(super) tags: Vec<(String, String)>,
    pub(super) data: Bytes,
}

impl ForQueues {
    pub(super) fn of(queues: Option<Arc<[Arc<str>]>>, publication: &Publication) -> Option<ForQueues> {
        let Publication { tags, data, .. } = publication;
        queues.map(|queues| ForQueues { queues, tags: tags.clone(), data: data.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_said_once_in_a_while_with_how_much_it_was() {
        let (unkept, at) = (Unkept::default(), Duration::from_secs);
        assert_eq!(unkept.note(at(1)), Some(1));
        assert!((1..=10).all(|second| unkept.note(at(second)).is_none()));
        assert_eq!(unkept.note(at(11)), Some(11));
        assert_eq!(unkept.note(at(12)), None);
    }
}
