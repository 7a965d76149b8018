//! What a backend is told of plain connections: that one opens, what its client says, that it is closed.
//!
//! An `open` is asked once: its answer decides whether the connection comes to be. A `message` and a `close` are told
//! until the backend takes them or `plain.retry_for` is over; the pauses between the attempts double and are scattered
//! by whose call it is, so that those who failed together do not come back together. What the answer orders is
//! read here and carried out by the shard. It keeps no order among calls: the caller makes one at a time for each
//! session. What must stay true: everything runs beside the shards, nothing that the backend may have taken is told
//! under another number, and each attempt has its place among the webhook's calls only while it lasts.

use super::{Asker, Backend, Hook, Problem, Refusal, Shared, Trouble, WebhookKind, answers, headers};
use crate::config::DEFAULT_WEBHOOK;
use crate::telemetry::TellingCounters;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use longwire_protocol::Close;
use longwire_protocol::queue::NewMessage;
use serde::Serialize;
use serde_json::value::RawValue;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// The longest pause after the first attempt; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How many bytes of messages of sessions that ended may wait to be told, over all of the process.
const MAX_REST_BYTES: usize = 64 * 1024 * 1024;

/// Whom a call is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The connection, its user and what is handed on with its calls; its `meta` is the session data.
    pub asker: Asker,
    /// What the client calls itself; empty if it has no name.
    pub name: Arc<str>,
    /// The name of the session, by which the backend's own calls and `POST /send` find it.
    pub session: String,
    /// The name of the listener that the connection came by.
    pub listener: Arc<str>,
    /// Where the client is.
    pub address: IpAddr,
    /// How many calls about this session were made before, repetitions aside.
    pub seq: u64,
}

/// What an `open` says beside whom it is about.
#[derive(Clone, Copy, Default, Debug)]
pub struct Opening<'a> {
    /// The query of the request, as it came.
    pub query: &'a str,
    /// The channels that the client asks for.
    pub channels: &'a [String],
    /// What the client's first packet says for the backend: JSON; empty if nothing.
    pub data: &'a [u8],
}

/// What a `close` says beside whom it is about.
#[derive(Clone, Debug, Serialize)]
pub struct Ending {
    /// The name of the reason.
    pub reason: &'static str,
    /// Who or what ended it: `client`, `network`, `server` or `policy`.
    pub category: &'static str,
    /// The code that the client was sent, or would have been.
    pub code: u16,
    /// Which side began: `peer` or `server`.
    pub initiator: &'static str,
    /// The broken rule or the error; empty if there is nothing to add.
    pub detail: String,
    /// How long the session lasted.
    pub open_seconds: u64,
}

/// Data of the backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// The bytes.
    pub data: Bytes,
    /// They are JSON, on one line.
    pub is_json: bool,
}

/// What the backend wants done for a connection.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Orders {
    /// Sent to the client.
    pub data: Option<Content>,
    /// Channels that the connection is subscribed to.
    pub join: Vec<String>,
    /// Channels that it is taken out of.
    pub leave: Vec<String>,
    /// The user that it belongs to from here on; empty for nobody.
    pub user: Option<Arc<str>>,
    /// What is kept with the session, a JSON object; empty for nothing.
    pub session_data: Option<Bytes>,
    /// What is published, with the channel.
    pub publish: Vec<(String, Content)>,
    /// What is sent to queues.
    pub queue_publish: Vec<NewMessage>,
    /// The connection is closed.
    pub close: Option<Close>,
}

/// What an `open` came to.
#[derive(Debug)]
pub struct Opened {
    /// What the backend wants done, or why the connection does not come to be.
    pub answer: Result<Orders, Refusal>,
    /// The backend may have taken the connection for open, so that it must be told of the end.
    pub is_owed_close: bool,
}

/// What became of a message.
#[derive(Clone, PartialEq, Debug)]
pub enum Fate {
    /// The backend took it, and wants this done.
    Taken(Box<Orders>),
    /// It is lost alone: nobody is to be told, or the backend refused it or said what cannot be understood.
    Dropped,
    /// It was tried for as long as may be, in vain: what comes behind it must not overtake it.
    GivenUp,
}

/// Room for messages of a session that ended; given back when it is dropped.
pub struct RestRoom {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Drop for RestRoom {
    fn drop(&mut self) {
        self.shared.rest_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The body of a call.
#[derive(Serialize)]
struct Body<'a> {
    event: &'static str,
    client: String,
    name: &'a str,
    user: &'a str,
    session: &'a str,
    seq: u64,
    transport: &'a str,
    listener: &'a str,
    address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
    #[serde(flatten)]
    ending: Option<&'a Ending>,
}

/// The member `data` of a body.
#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Text(&'a str),
    Json(&'a RawValue),
}

impl<'a> Body<'a> {
    fn new(event: WebhookKind, subject: &'a Subject) -> Body<'a> {
        let Subject { asker, name, session, listener, address, seq } = subject;
        let meta = asker.baggage.as_ref().map(|baggage| &*baggage.meta).unwrap_or_default();
        Body {
            event: event.as_str(),
            client: asker.client.to_string(),
            name,
            user: &asker.user,
            session,
            seq: *seq,
            transport: asker.transport,
            listener,
            address: *address,
            session_data: serde_json::from_slice(meta).ok(),
            query: None,
            channels: None,
            data: None,
            b64data: None,
            ending: None,
        }
    }

    fn written(&self) -> Bytes {
        serde_json::to_vec(self).expect("strings, numbers and raw JSON can always be written").into()
    }
}

impl Backend {
    /// Whether the backend is told of this.
    pub fn is_told_of(&self, event: WebhookKind) -> bool {
        self.hook(event, DEFAULT_WEBHOOK).is_some()
    }

    /// What became of messages.
    pub fn message_counters(&self) -> &TellingCounters {
        &self.shared.messages
    }

    /// What became of the ends of connections.
    pub fn close_counters(&self) -> &TellingCounters {
        &self.shared.ends
    }

    /// Tells of a connection that is about to be, and gives what the backend wants for it. Without a webhook that is
    /// nothing.
    ///
    /// The call goes on if nobody waits for it any more, once its turn has come; before that it is not made if nobody
    /// does, which is when `gone` is ready.
    pub async fn open(
        &self,
        subject: &Subject,
        opening: Opening<'_>,
        gone: impl Future<Output = ()> + Send + 'static,
    ) -> Opened {
        let event = WebhookKind::Open;
        let Some(hook) = self.hook(event, DEFAULT_WEBHOOK) else {
            return Opened { answer: Ok(Orders::default()), is_owed_close: true };
        };
        let mut body = Body::new(event, subject);
        body.query = Some(opening.query);
        body.channels = Some(opening.channels);
        if hook.rules.binary_encoding && !opening.data.is_empty() {
            body.b64data = Some(STANDARD.encode(opening.data));
        } else {
            body.data = serde_json::from_slice(opening.data).ok().map(Data::Json);
        }
        let call = Outgoing::new(self, hook, event, subject, &body);
        let once = self.errands.run(async move { call.once(gone).await });
        match once.await {
            Some(Ok(answer)) => Opened { is_owed_close: answer.is_ok(), answer },
            Some(Err(problem)) => {
                let is_owed_close = matches!(problem.trouble, Trouble::Unanswered | Trouble::Garbled);
                Opened { answer: Err(Refusal::Failed), is_owed_close }
            }
            // The server is stopping.
            None => Opened { answer: Err(Refusal::Failed), is_owed_close: false },
        }
    }

    /// Tells what the client of a connection says, until the backend takes it.
    pub async fn message(&self, subject: &Subject, data: &[u8], is_text: bool) -> Fate {
        let event = WebhookKind::Message;
        let Some(hook) = self.hook(event, DEFAULT_WEBHOOK) else {
            self.shared.note_unheard();
            return Fate::Dropped;
        };
        let mut body = Body::new(event, subject);
        let text = std::str::from_utf8(data).ok().filter(|_| is_text && !hook.rules.binary_encoding);
        match text {
            Some(text) => body.data = Some(Data::Text(text)),
            None => body.b64data = Some(STANDARD.encode(data)),
        }
        let call = Outgoing::new(self, hook, event, subject, &body);
        let told = self.errands.run(async move { call.until_taken(&call.shared.messages).await });
        // Without an outcome the server is stopping.
        told.await.unwrap_or(Fate::Dropped)
    }

    /// Tells of the end of a connection, until the backend takes it; what it answers is of no consequence.
    pub async fn close(&self, subject: &Subject, ending: &Ending) {
        let event = WebhookKind::Close;
        let Some(hook) = self.hook(event, DEFAULT_WEBHOOK) else { return };
        let mut body = Body::new(event, subject);
        body.ending = Some(ending);
        let call = Outgoing::new(self, hook, event, subject, &body);
        // Without an outcome the server is stopping.
        let _ = self.errands.run(async move { call.until_taken(&call.shared.ends).await }).await;
    }

    /// Counts messages that are given up because one before them was.
    pub fn note_given_up(&self, messages: usize) {
        self.shared.messages.given_up.add(messages as u64);
    }

    /// Counts messages that there is no room for.
    pub fn note_dropped(&self, messages: usize) {
        self.shared.messages.dropped.add(messages as u64);
    }

    /// Takes room for so many bytes of messages that an ended session leaves behind; `None` if too many wait.
    pub fn room_for_rest(&self, bytes: usize) -> Option<RestRoom> {
        let room = RestRoom { shared: self.shared.clone(), bytes };
        let waiting = self.shared.rest_bytes.fetch_add(bytes, Ordering::Relaxed);
        (bytes == 0 || waiting + bytes <= MAX_REST_BYTES).then_some(room)
    }

    /// Counts what a session leaves behind where too many wait to be told already.
    pub fn note_left_behind(&self, messages: usize) {
        self.shared.messages.dropped.add(messages as u64);
        self.shared.ends.dropped.add(self.is_told_of(WebhookKind::Close).into());
    }
}

/// A call that is ready to be made, as often as is needed.
struct Outgoing {
    shared: Arc<Shared>,
    hook: Arc<Hook>,
    event: WebhookKind,
    headers: Vec<(String, String)>,
    body: Bytes,
    /// What scatters its repetitions.
    salt: u64,
}

impl Outgoing {
    fn new(
        backend: &Backend,
        hook: &Arc<Hook>,
        event: WebhookKind,
        subject: &Subject,
        body: &Body<'_>,
    ) -> Outgoing {
        Outgoing {
            shared: backend.shared.clone(),
            hook: hook.clone(),
            event,
            headers: headers(&hook.rules, subject.asker.baggage.as_deref()),
            body: body.written(),
            salt: (subject.asker.client.0 as u64).wrapping_add(subject.seq),
        }
    }

    /// Makes the call once; not at all if `gone` is ready before its turn.
    async fn once(&self, gone: impl Future<Output = ()>) -> Result<Result<Orders, Refusal>, Problem> {
        let place = self.shared.place(self.event, &self.hook)?;
        let max_session_data_bytes = self.shared.max_session_data_bytes;
        let read = |body: &[u8]| match self.event {
            WebhookKind::Close => Ok(Ok(Orders::default())),
            _ => answers::orders(body, max_session_data_bytes),
        };
        self.shared.attempt(self.event, &place.0, self.headers.clone(), self.body.clone(), read, gone).await
    }

    /// Makes the call until it is taken, or will never be.
    async fn until_taken(&self, counters: &TellingCounters) -> Fate {
        let clock = self.shared.clock;
        let deadline = clock.now() + self.shared.retry_for;
        for attempt in 0.. {
            match self.once(std::future::pending()).await {
                Ok(Ok(orders)) => {
                    counters.delivered.add(1);
                    return Fate::Taken(Box::new(orders));
                }
                // A status that was given this meaning.
                Ok(Err(Refusal::Close(close))) => {
                    counters.delivered.add(1);
                    return Fate::Taken(Box::new(Orders { close: Some(close), ..Orders::default() }));
                }
                Ok(Err(Refusal::Error(_) | Refusal::Failed)) => break,
                Err(problem) if !problem.trouble.may_pass() => break,
                Err(_) => {}
            }
            let next = clock.now() + pause(attempt, self.salt);
            if next >= deadline {
                counters.given_up.add(1);
                return Fate::GivenUp;
            }
            clock.sleep_until(next).await;
            counters.retried.add(1);
        }
        counters.dropped.add(1);
        Fate::Dropped
    }
}

impl Shared {
    /// Notes a message that there is no webhook for.
    fn note_unheard(&self) {
        self.messages.dropped.add(1);
        let line = self.unheard.lock().unwrap_or_else(PoisonError::into_inner).failed(self.clock.now());
        if let Some(messages) = line {
            tracing::warn!(
                messages,
                "messages of clients are dropped: `webhook.message.endpoint` is not set"
            );
        }
    }
}

/// How long to wait after an attempt that failed, the first being number 0: between half of the longest pause and all
/// of it.
fn pause(attempt: u32, salt: u64) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << attempt.min(16)).min(LONGEST_PAUSE);
    // The last step of splitmix64: salts that are neighbours fall far from each other.
    let mut mixed = salt.wrapping_add(u64::from(attempt + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let share = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
    longest.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests;
