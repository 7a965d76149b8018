//! The methods of queues: a backend sends messages, takes work, and looks after what waits.
//!
//! A backend has no connection that could end, so what it takes it has for a time, the lease, and names by a token; what
//! is not settled by then goes back to its place. What must stay true: a message that is not in the answer was not taken;
//! what is wrong is said in words, with the member's name; nothing is sent of a body with a mistake anywhere.

use super::answer::{Answer, separate, write_refusal};
use super::requests::{
    OneQueue, QueueList, QueueMove, QueuePeek, QueuePublish, QueueReceive, QueueSettle, from_object,
};
use crate::node::Node;
use crate::queue::json::{Sent, write_message};
use crate::queue::{Peeked, QueueStats, Received, State};
use longwire_protocol::ErrorCode;
use longwire_protocol::json::write_string;
use longwire_protocol::queue::{QueueError, QueueErrorKind, Verdict};
use std::sync::Arc;
use std::time::Duration;

/// Messages in one call, sent, received or settled.
const MAX_MESSAGES: usize = 1000;

/// How long a received message is one's own, where nobody says.
const USUAL_LEASE: Duration = Duration::from_secs(60);

/// And at most.
const MAX_LEASE: Duration = Duration::from_secs(12 * 3600);

/// How long a call waits for a message at most.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How often it is looked whether a queue has come to be.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Queues on a page, and messages that are looked at, where nobody says how many; and at most.
const USUAL_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// Why a call is refused, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The code that callers may act upon.
    pub code: ErrorCode,
    /// What is wrong.
    pub message: String,
}

impl Refusal {
    fn bad(message: impl Into<String>) -> Refusal {
        Refusal { code: ErrorCode::BadRequest, message: message.into() }
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        Refusal { code, message: code.text().to_owned() }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Answer {
        match refusal.message == refusal.code.text() {
            true => Answer::Error(refusal.code),
            false => Answer::Refused(refusal),
        }
    }
}

impl From<QueueError> for Refusal {
    fn from(error: QueueError) -> Refusal {
        let code = match error.kind {
            QueueErrorKind::BadName | QueueErrorKind::BadSelector | QueueErrorKind::MessageTooBig => {
                ErrorCode::BadRequest
            }
            QueueErrorKind::NoSuchQueue
            | QueueErrorKind::NoSuchConsumer
            | QueueErrorKind::UnknownDelivery => ErrorCode::NotFound,
            QueueErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
            QueueErrorKind::QueueFull
            | QueueErrorKind::TooManyQueues
            | QueueErrorKind::LimitExceeded
            | QueueErrorKind::ConsumerInUse
            | QueueErrorKind::Exclusive => ErrorCode::LimitExceeded,
            QueueErrorKind::NotWritable | QueueErrorKind::ShuttingDown => ErrorCode::Internal,
        };
        Refusal { code, message: error.to_string() }
    }
}

type Outcome = Result<Vec<u8>, Refusal>;

/// Sends messages.
pub(super) async fn publish(node: &Node, request: QueuePublish<'_>) -> Outcome {
    let Some(raw) = request.messages else {
        let message = request.message.into_message("").map_err(Refusal::bad)?;
        let ids = node.queues.send(vec![message]).await?;
        let mut out = b"{\"id\":".to_vec();
        write_string(ids.first().map_or("", |id| id), &mut out);
        out.push(b'}');
        return Ok(out);
    };
    if raw.len() > MAX_MESSAGES {
        return Err(Refusal::bad(format!("messages: there may be {MAX_MESSAGES}")));
    }
    let mut messages = Vec::with_capacity(raw.len());
    for (at, raw) in raw.into_iter().enumerate() {
        let sent = from_object::<Sent<'_>>(raw.get()).map_err(|error| error.to_string());
        let message = sent.and_then(|sent| sent.into_message(&request.queue));
        messages.push(message.map_err(|problem| Refusal::bad(format!("messages[{at}]: {problem}")))?);
    }
    let ids = match messages.is_empty() {
        true => Vec::new(),
        false => node.queues.send(messages).await?,
    };
    let mut out = b"{\"ids\":[".to_vec();
    for (at, id) in ids.iter().enumerate() {
        separate(at, &mut out);
        write_string(id, &mut out);
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// Takes messages.
pub(super) async fn receive(node: &Node, request: QueueReceive) -> Outcome {
    let QueueReceive { queue, max, wait_ms, lease_ms } = request;
    let (wait, lease) = (Duration::from_millis(wait_ms), Duration::from_millis(lease_ms));
    if wait > MAX_WAIT {
        return Err(Refusal::bad(format!("wait_ms: is at most {}", MAX_WAIT.as_millis())));
    }
    if lease > MAX_LEASE {
        return Err(Refusal::bad(format!("lease_ms: is at most {}", MAX_LEASE.as_millis())));
    }
    let lease = if lease.is_zero() { USUAL_LEASE } else { lease };
    let max = at_most(max, 1, MAX_MESSAGES)?;
    let received = wait_for_messages(node, &named(&queue)?, max, wait, lease).await?;
    let mut out = b"{\"messages\":[".to_vec();
    for (at, received) in received.iter().enumerate() {
        separate(at, &mut out);
        out.extend_from_slice(b"{\"token\":");
        write_string(&received.token, &mut out);
        out.push(b',');
        write_message(&received.message, received.redeliveries, &mut out);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// Takes messages. A queue that is not there is an empty one, for a worker may be started before there is work.
async fn wait_for_messages(
    node: &Node,
    queue: &Arc<str>,
    max: usize,
    wait: Duration,
    lease: Duration,
) -> Result<Vec<Received>, QueueError> {
    let clock = node.env.clock;
    let deadline = clock.now() + wait;
    loop {
        let left = deadline.saturating_duration_since(clock.now());
        match node.queues.receive(queue.clone(), max, left, lease).await {
            Err(error) if error.kind == QueueErrorKind::NoSuchQueue => {
                if left.is_zero() {
                    return Ok(Vec::new());
                }
                clock.sleep(left.min(LOOK_AGAIN)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Says what came of received messages.
pub(super) async fn settle(node: &Node, request: QueueSettle, verdict: Verdict) -> Outcome {
    let mut tokens = request.tokens;
    if !request.token.is_empty() {
        tokens.push(request.token);
    }
    if tokens.is_empty() {
        return Err(Refusal::bad("token, tokens: one of them is needed"));
    }
    if tokens.len() > MAX_MESSAGES {
        return Err(Refusal::bad(format!("tokens: there may be {MAX_MESSAGES}")));
    }
    let outcomes = node.queues.settle(tokens.clone(), verdict).await?;
    let settled = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let mut out = format!("{{\"settled\":{settled},\"failed\":[").into_bytes();
    let failed = tokens.iter().zip(outcomes).filter_map(|(token, outcome)| Some((token, outcome.err()?)));
    for (at, (token, error)) in failed.enumerate() {
        separate(at, &mut out);
        out.extend_from_slice(b"{\"token\":");
        write_string(token, &mut out);
        out.extend_from_slice(b",\"error\":");
        write_refusal(&error.into(), &mut out);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// What a nack says.
pub(super) fn nack_verdict(request: &QueueSettle) -> Verdict {
    if request.requeue.unwrap_or(true) { Verdict::Requeue } else { Verdict::Reject }
}

pub(super) async fn stats(node: &Node, request: OneQueue) -> Outcome {
    let mut out = Vec::new();
    write_stats(&node.queues.stats(named(&request.queue)?).await?, &mut out);
    Ok(out)
}

pub(super) async fn list(node: &Node, request: QueueList) -> Outcome {
    let max = at_most(request.max, USUAL_PAGE, MAX_PAGE)?;
    let after = Some(&*request.after).filter(|after| !after.is_empty()).map(Into::into);
    let queues = node.queues.list(after, max).await?;
    let mut out = b"{\"queues\":[".to_vec();
    for (at, stats) in queues.iter().enumerate() {
        separate(at, &mut out);
        write_stats(stats, &mut out);
    }
    out.push(b']');
    if let Some(last) = queues.last().filter(|_| queues.len() == max) {
        out.extend_from_slice(b",\"next\":");
        write_string(&last.name, &mut out);
    }
    out.push(b'}');
    Ok(out)
}

pub(super) async fn peek(node: &Node, request: QueuePeek) -> Outcome {
    let max = at_most(request.max, USUAL_PAGE, MAX_PAGE)?;
    let after = Some(request.after).filter(|after| !after.is_empty());
    let page = node.queues.peek(named(&request.queue)?, after, max).await?;
    let mut out = b"{\"messages\":[".to_vec();
    for (at, Peeked { message, redeliveries, state }) in page.messages.iter().enumerate() {
        separate(at, &mut out);
        out.extend_from_slice(b"{\"state\":");
        let state = match state {
            State::Waiting => "waiting",
            State::Delayed => "delayed",
            State::InFlight => "in_flight",
        };
        write_string(state, &mut out);
        out.push(b',');
        write_message(message, *redeliveries, &mut out);
        out.push(b'}');
    }
    out.push(b']');
    if let Some(next) = &page.next {
        out.extend_from_slice(b",\"next\":");
        write_string(next, &mut out);
    }
    out.push(b'}');
    Ok(out)
}

pub(super) async fn purge(node: &Node, request: OneQueue) -> Outcome {
    let removed = node.queues.purge(named(&request.queue)?).await?;
    Ok(format!("{{\"removed\":{removed}}}").into_bytes())
}

pub(super) async fn remove(node: &Node, request: OneQueue) -> Outcome {
    let removed = node.queues.remove(named(&request.queue)?).await?;
    Ok(format!("{{\"removed\":{removed}}}").into_bytes())
}

pub(super) async fn move_messages(node: &Node, request: QueueMove) -> Outcome {
    let QueueMove { from, to, max } = request;
    if from == to {
        return Err(Refusal::bad("to: is the same queue as from"));
    }
    let from = if from.is_empty() { Err(Refusal::bad("from: is missing")) } else { Ok(from.into()) };
    let to = if to.is_empty() { Err(Refusal::bad("to: is missing")) } else { Ok(to.into()) };
    let max = if max == 0 { usize::MAX } else { max };
    let moved = node.queues.move_messages(from?, to?, max).await?;
    Ok(format!("{{\"moved\":{moved}}}").into_bytes())
}

fn named(queue: &str) -> Result<Arc<str>, Refusal> {
    if queue.is_empty() { Err(Refusal::bad("queue: is missing")) } else { Ok(queue.into()) }
}

/// How many are meant by a number, of which 0 is the usual one.
fn at_most(max: usize, usual: usize, most: usize) -> Result<usize, Refusal> {
    match max {
        0 => Ok(usual),
        max if max <= most => Ok(max),
        _ => Err(Refusal::bad(format!("max: is at most {most}"))),
    }
}

fn write_stats(stats: &QueueStats, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"queue\":");
    write_string(&stats.name, out);
    if let Some(channel) = &stats.durable_of {
        out.extend_from_slice(b",\"channel\":");
        write_string(channel, out);
    }
    for (name, number) in [
        ("waiting", stats.waiting),
        ("delayed", stats.delayed),
        ("in_flight", stats.in_flight),
        ("bytes", stats.bytes),
        ("consumers", stats.consumers),
        ("sent", stats.sent),
        ("acknowledged", stats.acknowledged),
        ("dead_lettered", stats.dead_lettered),
        ("oldest_ms", stats.oldest_ms),
    ] {
        out.extend_from_slice(format!(",\"{name}\":{number}").as_bytes());
    }
    out.push(b'}');
}
