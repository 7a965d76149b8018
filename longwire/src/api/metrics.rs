//! What the node counted, in the OpenMetrics text that Prometheus reads.
//!
//! All shards' counters are summed when somebody asks. What must stay true: every metric has a help text, and
//! no label has more values than the source code names (no channel, no user, no address).

use crate::node::Node;
use crate::telemetry::{Counter, ShardCounters, TURN_BOUNDS};
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

/// The content type of [`text`].
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics as text.
pub(super) fn text(node: &Node) -> String {
    let mut registry = Registry::default();
    registry
        .register_collector(Box::new(Sum { shards: node.counters.clone(), api_calls: node.api_calls.get() }));
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing into a string cannot fail");
    text
}

/// The counters of all shards together.
#[derive(Debug)]
struct Sum {
    shards: Vec<Arc<ShardCounters>>,
    api_calls: u64,
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
        ] {
            let gauge = ConstGauge::new(number);
            gauge.encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        for (name, help, number) in [
            ("longwire_connections_opened", "Connections opened", self.of(|shard| &shard.connections_opened)),
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
        self.turns(out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::node_with;
    use super::*;
    use std::time::Duration;

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
        let text = text(&node);
        for line in [
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
            "longwire_subscriptions 0",
            "longwire_outbox_bytes 0",
            concat!("longwire_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        let count = |prefix: &str| text.lines().filter(|line| line.starts_with(prefix)).count();
        assert_eq!(count("# HELP "), count("# TYPE "));
        assert_eq!(count("# TYPE "), 14);
    }
}
