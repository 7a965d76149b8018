//! What the node counted, in the OpenMetrics text that Prometheus reads.
//!
//! All shards' counters are summed when somebody asks. What must stay true: every metric has a help text, and
//! no label has more values than the source code names (no channel, no user, no address).

use crate::backend::WebhookKind;
use crate::events::Events;
use crate::node::Node;
use crate::telemetry::{
    CALL_BOUNDS, Counter, HistoryCounters, QueueCounters, ShardCounters, TURN_BOUNDS, TellingCounters,
    WebhookCounters,
};
use longwire_protocol::CloseReason;
use longwire_protocol::connection::{Dialect, Transport};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The content type of [`text`].
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics as text.
pub(super) fn text(node: &Node) -> String {
    let mut registry = Registry::default();
    let webhooks = WEBHOOK_EVENTS.map(|event| Webhook::of(event, node.backend.counters(event)));
    let (shards, api_calls) = (node.counters.clone(), node.api_calls.get());
    let told = [
        Told::of(WebhookKind::Message, node.backend.message_counters()),
        Told::of(WebhookKind::Close, node.backend.close_counters()),
    ];
    registry.register_collector(Box::new(Sum { shards, api_calls, webhooks, told }));
    if node.events.counters().is_some() {
        let now_ms = node.env.clock.unix_millis();
        registry.register_collector(Box::new(EventSum { events: node.events.clone(), now_ms }));
    }
    if let Some(counters) = node.history_counters() {
        registry.register_collector(Box::new(HistorySum::of(counters)));
    }
    registry.register_collector(Box::new(QueueSum::of(node.queues.counters())));
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing into a string cannot fail");
    text
}

/// The counters of all shards together.
#[derive(Debug)]
struct Sum {
    shards: Vec<Arc<ShardCounters>>,
    api_calls: u64,
    webhooks: [Webhook; WEBHOOK_EVENTS.len()],
    told: [Told; 2],
}

/// What was counted of what a backend is told until it takes it.
#[derive(Debug)]
struct Told {
    name: &'static str,
    outcomes: [(&'static str, u64); 3],
    retries: u64,
}

impl Told {
    fn of(event: WebhookKind, counters: &TellingCounters) -> Told {
        Told {
            name: event.as_str(),
            outcomes: [
                ("delivered", counters.delivered.get()),
                ("dropped", counters.dropped.get()),
                ("given_up", counters.given_up.get()),
            ],
            retries: counters.retried.get(),
        }
    }
}

const WEBHOOK_EVENTS: [WebhookKind; 9] = [
    WebhookKind::Connect,
    WebhookKind::Refresh,
    WebhookKind::Subscribe,
    WebhookKind::Publish,
    WebhookKind::SubRefresh,
    WebhookKind::Rpc,
    WebhookKind::Open,
    WebhookKind::Message,
    WebhookKind::Close,
];

/// What was counted of one kind of webhook.
#[derive(Debug)]
struct Webhook {
    name: &'static str,
    calls: u64,
    failures: u64,
    in_flight: u64,
    /// By their upper bounds in seconds.
    durations: Vec<(f64, u64)>,
    seconds: f64,
}

impl Webhook {
    fn of(event: WebhookKind, counters: &WebhookCounters) -> Webhook {
        let bounds = CALL_BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        Webhook {
            name: event.as_str(),
            calls: counters.calls.get(),
            failures: counters.failures.get(),
            in_flight: counters.in_flight.get(),
            durations: bounds.zip(counters.durations.iter().map(Counter::get)).collect(),
            seconds: counters.micros.get() as f64 / 1e6,
        }
    }
}

impl Sum {
    fn of(&self, counter: impl Fn(&ShardCounters) -> &Counter) -> u64 {
        self.shards.iter().map(|shard| counter(shard).get()).fold(0, u64::wrapping_add)
    }

    fn connections(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Open connections";
        let mut metric = out.encode_descriptor("longwire_connections", help, None, MetricType::Gauge)?;
        for transport in Transport::ALL {
            for dialect in Dialect::ALL {
                let labels = [("transport", transport.as_str()), ("dialect", dialect.as_str())];
                let count = self.of(|shard| &shard.connections[transport as usize][dialect as usize]);
                metric.encode_family(&labels)?.encode_gauge(&count)?;
            }
        }
        Ok(())
    }

    fn closes(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Connections closed, by the reason in docs/close-codes.md";
        let mut metric = out.encode_descriptor("longwire_closes", help, None, MetricType::Counter)?;
        for (i, reason) in CloseReason::ALL.iter().enumerate() {
            let labels = [("reason", reason.name()), ("category", reason.category().as_str())];
            let count = self.of(|shard| &shard.closes[i]);
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn recoveries(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Recoveries, by whether everything that was missed was still there";
        let mut metric = out.encode_descriptor("longwire_recoveries", help, None, MetricType::Counter)?;
        let complete = self.of(|shard| &shard.recoveries_complete);
        let incomplete = self.of(|shard| &shard.recoveries_incomplete);
        for (outcome, count) in [("complete", complete), ("incomplete", incomplete)] {
            let labels = [("outcome", outcome)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn turns(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Length of the turns of the shards: how long other connections waited";
        let kind = MetricType::Histogram;
        let mut metric = out.encode_descriptor("longwire_shard_turn", help, Some(&Unit::Seconds), kind)?;
        let bounds = TURN_BOUNDS.iter().map(|bound| bound.as_secs_f64()).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> =
            bounds.enumerate().map(|(i, bound)| (bound, self.of(|shard| &shard.turns[i]))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.of(|shard| &shard.turn_micros) as f64 / 1e6;
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

impl Sum {
    fn webhooks(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, number) in [
            (
                "longwire_webhook_calls",
                "Requests of webhooks that were made",
                (|webhook: &Webhook| webhook.calls) as fn(&Webhook) -> u64,
            ),
            (
                "longwire_webhook_failures",
                "Requests of webhooks without a useful answer, or not made because too many waited",
                |webhook| webhook.failures,
            ),
        ] {
            let mut metric = out.encode_descriptor(name, help, None, MetricType::Counter)?;
            for webhook in &self.webhooks {
                let labels = [("webhook", webhook.name)];
                metric
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&number(webhook), None)?;
            }
        }
        let help = "Messages, and ends of connections, by what became of telling them";
        let mut metric = out.encode_descriptor("longwire_webhook_told", help, None, MetricType::Counter)?;
        for Told { name, outcomes, .. } in &self.told {
            for (outcome, number) in outcomes {
                let labels = [("webhook", *name), ("outcome", *outcome)];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(number, None)?;
            }
        }
        let help = "Requests of webhooks that were made again";
        let mut metric =
            out.encode_descriptor("longwire_webhook_retries", help, None, MetricType::Counter)?;
        for Told { name, retries, .. } in &self.told {
            let labels = [("webhook", *name)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(retries, None)?;
        }
        let (name, help) = ("longwire_webhook_in_flight", "Requests of webhooks under way");
        let mut metric = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for webhook in &self.webhooks {
            metric.encode_family(&[("webhook", webhook.name)])?.encode_gauge(&webhook.in_flight)?;
        }
        let (name, help) = ("longwire_webhook_duration", "How long requests of webhooks took");
        let unit = Some(&Unit::Seconds);
        let mut metric = out.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        for webhook in &self.webhooks {
            let count = webhook.durations.iter().map(|(_, count)| count).sum();
            let labels = [("webhook", webhook.name)];
            let mut metric = metric.encode_family(&labels)?;
            metric.encode_histogram::<NoLabelSet>(webhook.seconds, count, &webhook.durations, None)?;
        }
        Ok(())
    }
}

impl Collector for Sum {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut out;
        let kind = MetricType::Info;
        out.encode_descriptor("longwire_build", "Version of longwire", None, kind)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        self.connections(out)?;
        for (name, help, number) in [
            ("longwire_subscriptions", "Subscriptions in force", self.of(|shard| &shard.subscriptions)),
            ("longwire_outbox_bytes", "Bytes that wait to be written", self.of(|shard| &shard.outbox_bytes)),
            (
                "longwire_untold_sessions",
                "Sessions that ended and of which the backend does not know all yet",
                self.of(|shard| &shard.telling),
            ),
        ] {
            let gauge = ConstGauge::new(number);
            gauge.encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        for (name, help, number) in [
            ("longwire_connections_opened", "Connections opened", self.of(|shard| &shard.connections_opened)),
            ("longwire_tls_failures", "TLS handshakes that failed", self.of(|shard| &shard.tls_failures)),
            (
                "longwire_deliveries",
                "Publications, joins and leaves handed to sessions",
                self.of(|shard| &shard.deliveries),
            ),
            ("longwire_commands", "Commands received from clients", self.of(|shard| &shard.commands)),
            ("longwire_bytes_received", "Bytes read from clients", self.of(|shard| &shard.bytes_in)),
            ("longwire_bytes_sent", "Bytes written to clients", self.of(|shard| &shard.bytes_out)),
            (
                "longwire_heartbeats_missed",
                "Heartbeats that no sign of life answered in time",
                self.of(|shard| &shard.heartbeats_missed),
            ),
            ("longwire_api_calls", "Calls of the HTTP API", self.api_calls),
        ] {
            let counter = ConstCounter::new(number);
            counter.encode(out.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        self.closes(out)?;
        self.recoveries(out)?;
        self.turns(out)?;
        self.webhooks(out)
    }
}

/// What is counted of events to the backend, where they are on.
#[derive(Debug)]
struct EventSum {
    events: Events,
    now_ms: i64,
}

impl Collector for EventSum {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(counters) = self.events.counters() else { return Ok(()) };
        for (name, help, number) in [
            ("longwire_events_recorded", "Events recorded for the backend", &counters.recorded),
            ("longwire_events_delivered", "Events that the backend took", &counters.delivered),
            ("longwire_events_failures", "Attempts to deliver events that failed", &counters.failures),
            ("longwire_events_dropped", "Events lost because memory or disk was full", &counters.dropped),
            ("longwire_events_disk_errors", "Calls to the disk of events that failed", &counters.disk_errors),
        ] {
            let counter = ConstCounter::new(number.get());
            counter.encode(out.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let oldest_ms = i64::try_from(counters.oldest_ms.get()).unwrap_or(0);
        let age = if oldest_ms == 0 { 0 } else { (self.now_ms - oldest_ms).max(0) / 1000 };
        for (name, help, number) in [
            (
                "longwire_events_pending",
                "Events that wait for the disk or the backend",
                counters.pending.get(),
            ),
            ("longwire_events_oldest_age_seconds", "Age of the oldest event that waits", age as u64),
            ("longwire_events_disk_bytes", "Bytes that events take of the disk", counters.disk_bytes.get()),
        ] {
            let gauge = ConstGauge::new(number);
            gauge.encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

/// What is counted of histories on the disk, where they are kept there.
#[derive(Debug)]
struct HistorySum {
    pending_bytes: u64,
    disk_bytes: u64,
    commits: u64,
    disk_errors: u64,
    given_up: u64,
    failed: u64,
}

impl HistorySum {
    fn of(counters: &HistoryCounters) -> HistorySum {
        let HistoryCounters { pending_bytes, disk_bytes, commits, disk_errors, given_up, failed } = counters;
        HistorySum {
            pending_bytes: pending_bytes.get(),
            disk_bytes: disk_bytes.get(),
            commits: commits.get(),
            disk_errors: disk_errors.get(),
            given_up: given_up.get(),
            failed: failed.get(),
        }
    }
}

impl Collector for HistorySum {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, number) in [
            ("longwire_history_commits", "Groups of publications made durable", self.commits),
            ("longwire_history_disk_errors", "Calls to the disk of histories that failed", self.disk_errors),
            (
                "longwire_history_given_up",
                "Publications kept in memory only, for lack of room on the disk",
                self.given_up,
            ),
        ] {
            let counter = ConstCounter::new(number);
            counter.encode(out.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        for (name, help, number) in [
            (
                "longwire_history_pending_bytes",
                "Bytes of histories that wait for the disk",
                self.pending_bytes,
            ),
            ("longwire_history_disk_bytes", "Bytes that histories take of the disk", self.disk_bytes),
            (
                "longwire_history_failed",
                "1 if no history is kept on the disk until the next start",
                self.failed,
            ),
        ] {
            let gauge = ConstGauge::new(number);
            gauge.encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

/// What was counted of queues.
#[derive(Debug)]
struct QueueSum {
    /// Each with its help.
    counters: Vec<(&'static str, &'static str, u64)>,
    gauges: Vec<(&'static str, &'static str, u64)>,
}

impl QueueSum {
    fn of(counters: &QueueCounters) -> QueueSum {
        let QueueCounters {
            queues,
            consumers,
            messages,
            message_bytes,
            in_flight,
            sent,
            refused,
            delivered,
            redelivered,
            acknowledged,
            dead_lettered,
            dropped,
            unkept,
            expired,
            commits,
            disk_errors,
            disk_bytes,
            unreadable,
            not_writable,
        } = counters;
        QueueSum {
            counters: vec![
                ("longwire_queue_sent", "Messages taken into queues", sent.get()),
                ("longwire_queue_refused", "Messages that queues did not take", refused.get()),
                ("longwire_queue_delivered", "Deliveries of messages", delivered.get()),
                ("longwire_queue_redelivered", "Deliveries of messages delivered before", redelivered.get()),
                ("longwire_queue_acknowledged", "Messages acknowledged", acknowledged.get()),
                ("longwire_queue_dead_lettered", "Messages that became dead letters", dead_lettered.get()),
                (
                    "longwire_queue_dropped",
                    "Messages dropped: no room, or nowhere to go as dead letters",
                    dropped.get(),
                ),
                (
                    "longwire_queue_unkept",
                    "Publications that a durable subscription lost: its queue is full or cannot be written",
                    unkept.get(),
                ),
                ("longwire_queue_expired", "Messages that were too old", expired.get()),
                ("longwire_queue_commits", "Groups of messages made durable", commits.get()),
                ("longwire_queue_disk_errors", "Calls to the disk of queues that failed", disk_errors.get()),
                ("longwire_queue_unreadable", "Messages that cannot be read from the disk", unreadable.get()),
            ],
            gauges: vec![
                ("longwire_queues", "Queues", queues.get()),
                ("longwire_queue_consumers", "Consumers of queues", consumers.get()),
                ("longwire_queue_messages", "Messages in queues", messages.get()),
                ("longwire_queue_message_bytes", "Bytes of messages in queues", message_bytes.get()),
                ("longwire_queue_in_flight", "Messages that wait for their acknowledgement", in_flight.get()),
                ("longwire_queue_disk_bytes", "Bytes that queues take of the disk", disk_bytes.get()),
                (
                    "longwire_queue_not_writable",
                    "1 while persistent messages are refused because of the disk",
                    not_writable.get(),
                ),
            ],
        }
    }
}

impl Collector for QueueSum {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, number) in &self.counters {
            let counter = ConstCounter::new(*number);
            counter.encode(out.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        for (name, help, number) in &self.gauges {
            let gauge = ConstGauge::new(*number);
            gauge.encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::node_with;
    use super::*;

    #[tokio::test]
    async fn metrics_sum_the_shards_and_explain_themselves() {
        let node = node_with(|_| {});
        assert_eq!(node.counters.len(), 2);
        for shard in &node.counters {
            shard.connections[Transport::WebSocket as usize][Dialect::Centrifuge as usize].add(3);
            shard.deliveries.add(10);
            shard.recoveries_incomplete.add(1);
            shard.closes[CloseReason::ALL.iter().position(|r| *r == CloseReason::Slow).unwrap()].add(2);
            shard.turn(Duration::from_micros(400));
            shard.turn(Duration::from_secs(2));
        }
        node.api_calls.add(7);
        let queues = node.queues.counters();
        queues.sent.add(5);
        queues.unkept.add(3);
        queues.not_writable.set(1);
        queues.disk_bytes.set(77);
        let refresh = node.backend.counters(WebhookKind::Refresh);
        refresh.calls.add(3);
        refresh.failures.add(1);
        refresh.in_flight.add(1);
        refresh.took(Duration::from_millis(7));
        refresh.took(Duration::from_secs(6));
        node.backend.message_counters().retried.add(5);
        node.backend.message_counters().delivered.add(4);
        node.backend.close_counters().given_up.add(1);
        let text = text(&node);
        for line in [
            "longwire_webhook_told_total{webhook=\"message\",outcome=\"delivered\"} 4",
            "longwire_webhook_told_total{webhook=\"message\",outcome=\"dropped\"} 0",
            "longwire_webhook_told_total{webhook=\"close\",outcome=\"given_up\"} 1",
            "longwire_webhook_retries_total{webhook=\"message\"} 5",
            "longwire_untold_sessions 0",
            "longwire_connections{transport=\"websocket\",dialect=\"centrifuge\"} 6",
            "longwire_connections{transport=\"sse\",dialect=\"plain\"} 0",
            "longwire_deliveries_total 20",
            "longwire_recoveries_total{outcome=\"incomplete\"} 2",
            "longwire_closes_total{reason=\"Slow\",category=\"client\"} 4",
            "longwire_closes_total{reason=\"Drain\",category=\"server\"} 0",
            "longwire_shard_turn_seconds_bucket{le=\"0.0001\"} 0",
            "longwire_shard_turn_seconds_bucket{le=\"0.0005\"} 2",
            "longwire_shard_turn_seconds_bucket{le=\"+Inf\"} 4",
            "longwire_shard_turn_seconds_count 4",
            "longwire_shard_turn_seconds_sum 4.0008",
            "longwire_api_calls_total 7",
            "longwire_heartbeats_missed_total 0",
            "longwire_bytes_received_total 0",
            "longwire_bytes_sent_total 0",
            "longwire_commands_total 0",
            "longwire_connections_opened_total 0",
            "longwire_webhook_calls_total{webhook=\"refresh\"} 3",
            "longwire_webhook_calls_total{webhook=\"sub_refresh\"} 0",
            "longwire_webhook_failures_total{webhook=\"refresh\"} 1",
            "longwire_webhook_in_flight{webhook=\"refresh\"} 1",
            "longwire_webhook_duration_seconds_bucket{le=\"0.005\",webhook=\"refresh\"} 0",
            "longwire_webhook_duration_seconds_bucket{le=\"0.01\",webhook=\"refresh\"} 1",
            "longwire_webhook_duration_seconds_bucket{le=\"+Inf\",webhook=\"refresh\"} 2",
            "longwire_webhook_duration_seconds_sum{webhook=\"refresh\"} 6.007",
            "longwire_subscriptions 0",
            "longwire_queue_sent_total 5",
            "longwire_queue_unkept_total 3",
            "longwire_queue_acknowledged_total 0",
            "longwire_queue_not_writable 1",
            "longwire_queue_disk_bytes 77",
            "longwire_outbox_bytes 0",
            concat!("longwire_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        let count = |prefix: &str| text.lines().filter(|line| line.starts_with(prefix)).count();
        assert_eq!(count("# HELP "), count("# TYPE "));
        assert_eq!(count("# TYPE "), 41);
    }

    #[tokio::test]
    async fn where_events_are_on_their_fate_can_be_watched() {
        let node = node_with(|config| config.events.endpoint = Some("http://backend.test/".into()));
        let counters = node.events.counters().expect("events are on");
        counters.recorded.add(9);
        counters.delivered.add(4);
        counters.failures.add(3);
        counters.dropped.add(2);
        counters.disk_errors.add(1);
        counters.pending.add(3);
        counters.disk_bytes.set(4096);
        counters.oldest_ms.set(node.env.clock.unix_millis() as u64 - 60_500);
        let text = text(&node);
        for line in [
            "longwire_events_recorded_total 9",
            "longwire_events_delivered_total 4",
            "longwire_events_failures_total 3",
            "longwire_events_dropped_total 2",
            "longwire_events_disk_errors_total 1",
            "longwire_events_pending 3",
            "longwire_events_oldest_age_seconds 60",
            "longwire_events_disk_bytes 4096",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        counters.oldest_ms.set(0);
        assert!(super::text(&node).contains("longwire_events_oldest_age_seconds 0\n"));
    }
}
