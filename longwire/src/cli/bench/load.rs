//! The four loads.
//!
//! Each connection is a task that reads its client for as long as the load lasts. What must stay true: measuring begins when every
//! connection stands or was given up; what was sent before the end is waited for, but not for ever.

use super::super::source::{Item, Publisher, Source};
use super::super::{Failure, outcome};
use super::{Load, Plan};
use longwire_client::{Cause, Transition};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, watch};

/// How long a connection may take before it is counted as failed.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// How long an echo may take.
const ECHO_LIMIT: Duration = Duration::from_secs(10);

/// For how long nothing may come before what is missing counts as lost.
const QUIET_LIMIT: Duration = Duration::from_secs(2);

/// Publications under way at a time.
const MAX_UNDER_WAY: usize = 256;

/// Publishing is looked after so often.
const PACE: Duration = Duration::from_millis(1);

/// Publications a second where nobody says.
const USUAL_RATE: u32 = 10;

/// Where a load stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Opening,
    Measuring,
    Over,
}

/// Runs it; for how long it was measured.
pub(super) async fn run(plan: &Arc<Plan>) -> Result<Duration, Failure> {
    let (phase, watching) = watch::channel(Phase::Opening);
    // One message from each connection: it stands, or it does not.
    let (ready, mut standing) = mpsc::channel(1024);
    let begun = plan.clock.now();
    for index in 0..plan.arguments.connections {
        let member =
            Member { plan: plan.clone(), index, phase: watching.clone(), ready: Some(ready.clone()) };
        let start =
            begun + Duration::from_secs_f64(f64::from(index) / f64::from(plan.arguments.connects_per_second));
        tokio::spawn(async move {
            member.plan.clock.sleep_until(start).await;
            member.live().await;
        });
    }
    drop((ready, watching));
    if plan.load != Load::Churn {
        while standing.recv().await.is_some() {}
        // Without any there is nothing to measure.
        if plan.tally.most_connected.load(Relaxed) == 0 {
            return Ok(Duration::ZERO);
        }
    }
    let measured_from = plan.clock.now();
    plan.tally.begin(measured_from);
    phase.send_replace(Phase::Measuring);
    match plan.load {
        Load::Fanout => publish_to_all(plan, measured_from).await?,
        Load::Idle | Load::Echo | Load::Churn => plan.clock.sleep(plan.arguments.duration).await,
    }
    let measured = plan.clock.now() - measured_from;
    if plan.load == Load::Fanout {
        await_rest(plan).await;
    }
    phase.send_replace(Phase::Over);
    if plan.load == Load::Echo {
        // Those that were under way come back, and are the last.
        await_rest(plan).await;
    }
    Ok(measured)
}

/// Publishes at the rate for the time, by a connection of its own.
async fn publish_to_all(plan: &Arc<Plan>, from: Instant) -> Result<(), Failure> {
    // The connection lives as long as its source.
    let source = match &plan.api {
        Some(_) => None,
        None => Some(publishing_source(plan).await?),
    };
    let publisher = source.as_ref().and_then(Source::publisher).map(Arc::new);
    let rate = f64::from(plan.arguments.rate.unwrap_or(USUAL_RATE));
    let under_way = Arc::new(Semaphore::new(MAX_UNDER_WAY));
    let mut begun = 0u64;
    loop {
        let since = plan.clock.now() - from;
        if since >= plan.arguments.duration {
            break;
        }
        while (begun as f64) < since.as_secs_f64() * rate {
            begun += 1;
            // A server that is slow to confirm is published to less, rather than buried.
            let Ok(permit) = under_way.clone().acquire_owned().await else { break };
            let (plan, publisher) = (plan.clone(), publisher.clone());
            tokio::spawn(async move {
                plan.publish(publisher.as_deref(), &plan.arguments.channel).await;
                drop(permit);
            });
        }
        plan.clock.sleep(PACE).await;
    }
    // All of them are back: every publication was confirmed, or failed.
    let _ = under_way.acquire_many(MAX_UNDER_WAY as u32).await;
    Ok(())
}

async fn publishing_source(plan: &Plan) -> Result<Source, Failure> {
    let source = plan.open(None).ok_or_else(|| Failure::Failed("no connection to publish by".to_owned()))?;
    match plan.clock.timeout(CONNECT_LIMIT, source.connected()).await {
        Some(Ok(())) => Ok(source),
        Some(Err(error)) => Err(outcome::failed_call(source.shown(), &error)),
        None => Err(Failure::Unreachable("the publisher could not connect in time".to_owned())),
    }
}

/// Waits until everything that was published came, or nothing comes any more.
async fn await_rest(plan: &Plan) {
    let tally = &plan.tally;
    let is_complete = |received: u64| match plan.load {
        // Each leaves when its last one is back.
        Load::Echo => false,
        _ if plan.is_queue() => received >= tally.sent.load(Relaxed),
        _ => received >= tally.sent.load(Relaxed).saturating_mul(tally.most_connected.load(Relaxed)),
    };
    let (mut received, mut since) = (tally.received.load(Relaxed), plan.clock.now());
    while !is_complete(received)
        && tally.connected.load(Relaxed) > 0
        && plan.clock.now() - since < QUIET_LIMIT
    {
        plan.clock.sleep(PACE * 20).await;
        let latest = tally.received.load(Relaxed);
        if latest > received {
            (received, since) = (latest, plan.clock.now());
        }
    }
}

/// A cause as it is counted: what the server said belongs to it.
fn named(cause: &Cause) -> String {
    match cause {
        Cause::Told { .. } | Cause::Status { .. } => cause.to_string(),
        cause => cause.name().to_owned(),
    }
}

/// How an echo ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trip {
    Done,
    Refused,
    /// There will be no connection.
    Ended,
}

/// One of the connections.
struct Member {
    plan: Arc<Plan>,
    index: u32,
    phase: watch::Receiver<Phase>,
    /// To be dropped when it stands, or when it was in vain.
    ready: Option<mpsc::Sender<()>>,
}

impl Member {
    async fn live(mut self) {
        match self.plan.load {
            Load::Idle | Load::Fanout => self.listen().await,
            Load::Echo => self.echo().await,
            Load::Churn => self.churn().await,
        }
    }

    /// The channel that this one listens to.
    fn channel(&self) -> Option<String> {
        let channel = &self.plan.arguments.channel;
        match self.plan.load {
            Load::Idle => None,
            Load::Fanout | Load::Churn => Some(channel.clone()),
            Load::Echo => Some(format!("{channel}.{}", self.index)),
        }
    }

    /// Connects, and waits until it can be used.
    async fn open(&self) -> Option<Source> {
        let plan = &self.plan;
        let from = plan.clock.now();
        let channel = self.channel();
        let mut source = plan.open(channel.as_deref())?;
        let stands = async {
            // A feed is welcomed, whatever it listens to.
            if channel.is_none() && source.publisher().is_some() {
                return source.connected().await.is_ok();
            }
            loop {
                match source.next().await {
                    Item::Subscribed(_) => return true,
                    Item::Transition(Transition::Disconnected { cause, .. }) => self.in_vain(&cause),
                    Item::Transition(Transition::GaveUp { .. }) | Item::Over => return false,
                    Item::Refused(failure) => {
                        plan.tally.fail_to_connect(None, failure);
                        return false;
                    }
                    _ => {}
                }
            }
        };
        match plan.clock.timeout(CONNECT_LIMIT, stands).await {
            Some(true) => {
                plan.tally.connecting.record(plan.clock.now() - from);
                plan.tally.connected();
                Some(source)
            }
            Some(false) => {
                // What failed is among what was not read, where nothing but the connection was waited for.
                while let Some(Item::Transition(transition)) = source.next_if_ready().await {
                    if let Transition::Disconnected { cause, .. } = transition {
                        self.in_vain(&cause);
                    }
                }
                None
            }
            None => {
                let what = format!("cannot reach {}: not connected in time", plan.server.shown());
                plan.tally.fail_to_connect(Some("not connected in time"), Failure::Unreachable(what));
                None
            }
        }
    }

    /// Counts an attempt that failed.
    fn in_vain(&self, cause: &Cause) {
        let failure = outcome::failure(&self.plan.server.shown(), cause, None, false);
        self.plan.tally.fail_to_connect(Some(&named(cause)), failure);
    }

    /// Holds a connection, and counts what comes.
    async fn listen(&mut self) {
        let source = self.open().await;
        self.ready = None;
        let Some(mut source) = source else { return };
        let mut stands = true;
        let is_over = loop {
            let item = tokio::select! {
                biased;
                _ = self.phase.wait_for(|phase| *phase == Phase::Over) => break true,
                item = source.next() => item,
            };
            if !self.count(&item, &mut stands) {
                break false;
            }
            self.acknowledge(item).await;
        };
        if stands {
            self.plan.tally.gone();
        }
        if is_over {
            source.close().await;
        }
    }

    /// Counts an item; whether more can come.
    fn count(&self, item: &Item, stands: &mut bool) -> bool {
        let tally = &self.plan.tally;
        match item {
            Item::Publication(publication) => self.count_data(&publication.data),
            Item::Message(message) => self.count_data(message.body()),
            Item::NotRecovered(_) => tally.fail("something was missed"),
            Item::Transition(Transition::Connected { .. }) if !*stands => {
                *stands = true;
                tally.connected();
            }
            Item::Transition(Transition::Disconnected { cause, .. }) => {
                tally.fail(&named(cause));
                if std::mem::take(stands) {
                    tally.gone();
                }
            }
            Item::Transition(Transition::GaveUp { .. }) | Item::Over => return false,
            Item::Refused(failure) => {
                tally.fail(failure.text());
                return false;
            }
            _ => {}
        }
        true
    }

    fn count_data(&self, data: &[u8]) {
        let tally = &self.plan.tally;
        tally.received.fetch_add(1, Relaxed);
        tally.received_bytes.fetch_add(data.len() as u64, Relaxed);
        if let Some(sent_at) = sent_at(data) {
            let now = self.plan.clock.now() - self.plan.clock.start();
            tally.latency.record(now.saturating_sub(sent_at));
        }
    }

    /// Says of a queue's message that it is done; one of an earlier connection comes again, and counts again.
    async fn acknowledge(&self, item: Item) {
        if let Item::Message(message) = item
            && message.ack().await.is_err()
        {
            self.plan.tally.fail("acknowledged too late");
        }
    }

    /// Sends to itself, one publication at a time.
    async fn echo(&mut self) {
        let source = self.open().await;
        self.ready = None;
        let (Some(mut source), Some(channel)) = (source, self.channel()) else { return };
        let plan = self.plan.clone();
        let mut stands = true;
        let pause = plan.arguments.rate.map(|rate| Duration::from_secs(1) / rate);
        if self.phase.wait_for(|phase| *phase != Phase::Opening).await.is_err() {
            return;
        }
        let publisher = source.publisher();
        let mut next = plan.clock.now();
        while *self.phase.borrow() == Phase::Measuring {
            if let Some(pause) = pause {
                plan.clock.sleep_until(next).await;
                next += pause;
            }
            match plan
                .clock
                .timeout(ECHO_LIMIT, self.round_trip(&mut source, publisher.as_ref(), &channel, &mut stands))
                .await
            {
                Some(Trip::Done) => {}
                // Whoever is refused, or has no connection, does not ask a thousand times a second.
                Some(Trip::Refused) => plan.clock.sleep(PACE * 100).await,
                Some(Trip::Ended) => return self.leave(stands),
                None => plan.tally.fail("no echo in time"),
            }
        }
        self.leave(stands);
        source.close().await;
    }

    /// Publishes and waits until it is back, whichever of confirmation and publication comes first.
    async fn round_trip(
        &self,
        source: &mut Source,
        publisher: Option<&Publisher>,
        channel: &str,
        stands: &mut bool,
    ) -> Trip {
        let mut publishing = std::pin::pin!(self.plan.publish(publisher, channel));
        let (mut is_confirmed, mut is_back) = (false, false);
        while !(is_confirmed && is_back) {
            tokio::select! {
                biased;
                item = source.next() => {
                    if !self.count(&item, stands) {
                        return Trip::Ended;
                    }
                    is_back |= matches!(item, Item::Publication(_) | Item::Message(_));
                    self.acknowledge(item).await;
                }
                is_taken = &mut publishing, if !is_confirmed => match is_taken {
                    true => is_confirmed = true,
                    false => return Trip::Refused,
                },
            }
        }
        Trip::Done
    }

    fn leave(&self, stands: bool) {
        if stands {
            self.plan.tally.gone();
        }
    }

    /// Comes and goes.
    async fn churn(&mut self) {
        self.ready = None;
        while *self.phase.borrow() != Phase::Over {
            match self.open().await {
                Some(source) => {
                    source.close().await;
                    self.plan.tally.gone();
                }
                // Whoever is refused does not ask a thousand times a second.
                None => self.plan.clock.sleep(PACE * 100).await,
            }
        }
    }
}

/// Data of this length that says when it was sent.
pub(super) fn payload(at: Duration, size: usize) -> Vec<u8> {
    let mut data = format!("{{\"at\":{},\"pad\":\"", at.as_nanos()).into_bytes();
    data.resize(size.saturating_sub(2).max(data.len()), b'x');
    data.extend_from_slice(b"\"}");
    data
}

/// When data was sent.
fn sent_at(data: &[u8]) -> Option<Duration> {
    let rest = data.strip_prefix(b"{\"at\":")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let nanos: u64 = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_its_length_and_says_when_it_was_sent() {
        for (ns, size) in [(0, 32), (1_234_567_890_123, 128), (u64::MAX, 65_536)] {
            let data = payload(Duration::from_nanos(ns), size);
            assert!(data.len() == size || size == 32, "{}", data.len());
            assert!(serde_json::from_slice::<serde_json::Value>(&data).is_ok());
            assert_eq!(sent_at(&data), Some(Duration::from_nanos(ns)));
        }
        assert_eq!(sent_at(b"{\"n\":1}"), None);
        assert_eq!(sent_at(b"{\"at\":99999999999999999999999}"), None);
    }
}
