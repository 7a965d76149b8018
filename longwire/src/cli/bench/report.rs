//! The figures of a load: a live line, a table, an object.
//!
//! What must stay true: the table and the object say the same; a figure that does not belong to a load is not there.

use super::histogram::Snapshot as Durations;
use super::tally::Snapshot;
use super::{Load, Plan};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// What came of a load.
#[derive(Debug)]
pub(super) struct Report {
    load: Load,
    pub(super) url: String,
    wanted: u64,
    /// The most connections that stood at a time.
    pub(super) connected: u64,
    connects: u64,
    measured: Duration,
    /// Each message is for one of the connections.
    is_queue: bool,
    size: u32,
    sent: u64,
    received: u64,
    received_bytes: u64,
    connecting: Durations,
    latency: Durations,
    failures: BTreeMap<String, u64>,
}

impl Report {
    /// The figures of a load that was measured for so long.
    pub(super) fn new(plan: &Plan, tally: &Snapshot, measured: Duration) -> Report {
        Report {
            load: plan.load,
            url: plan.server.shown(),
            wanted: u64::from(plan.arguments.connections),
            connected: tally.most_connected,
            connects: tally.connects,
            measured,
            is_queue: plan.is_queue(),
            size: plan.arguments.size,
            sent: tally.sent,
            received: tally.received,
            received_bytes: tally.received_bytes,
            connecting: tally.connecting.clone(),
            latency: tally.latency.clone(),
            failures: tally.failures.clone(),
        }
    }

    /// How many publications should have come.
    fn expected(&self) -> Option<u64> {
        match self.load {
            Load::Fanout if self.is_queue => Some(self.sent),
            Load::Fanout => Some(self.sent.saturating_mul(self.connected)),
            Load::Echo => Some(self.sent),
            Load::Idle | Load::Churn => None,
        }
    }

    fn a_second(&self, count: u64) -> f64 {
        count as f64 / self.measured.as_secs_f64().max(1e-9)
    }

    /// As one object.
    pub(super) fn as_json(&self) -> Value {
        let mut object = Map::new();
        let mut set = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
        set("load", self.load.name().into());
        set("url", self.url.as_str().into());
        set("connections", self.wanted.into());
        set("connected", self.connected.into());
        set("connects", self.connects.into());
        set("seconds", rounded(self.measured.as_secs_f64()).into());
        set("connect_ms", durations_as_json(&self.connecting));
        if let Load::Churn = self.load {
            set("connects_per_second", rounded(self.a_second(self.connects)).into());
        }
        if let Some(expected) = self.expected() {
            set("size", self.size.into());
            set("sent", self.sent.into());
            set("received", self.received.into());
            set("missing", expected.saturating_sub(self.received).into());
            set("received_per_second", rounded(self.a_second(self.received)).into());
            set("received_bytes_per_second", rounded(self.a_second(self.received_bytes)).into());
            set("latency_ms", durations_as_json(&self.latency));
        }
        set("failures", json!(self.failures));
        object.into()
    }

    /// As a table.
    pub(super) fn table(&self) -> String {
        let mut rows = vec![
            ("load", format!("{} on {}", self.load.name(), self.url)),
            ("connections", format!("{} of {}", self.connected, self.wanted)),
            ("measured", format!("{:.1} s", self.measured.as_secs_f64())),
        ];
        if let Load::Churn = self.load {
            rows.push(("connects", format!("{}, {:.0}/s", self.connects, self.a_second(self.connects))));
        }
        if let Some(expected) = self.expected() {
            let missing = expected.saturating_sub(self.received);
            rows.push(("sent", format!("{} of {} bytes", self.sent, self.size)));
            rows.push(("received", format!("{}, {:.0}/s", self.received, self.a_second(self.received))));
            rows.push(("missing", missing.to_string()));
        }
        let mut text = String::new();
        for (name, value) in rows {
            let _ = writeln!(text, "{name:<12}{value}");
        }
        let _ = writeln!(
            text,
            "\n{:<12}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "ms", "mean", "p50", "p90", "p99", "p99.9", "max"
        );
        durations_as_row(&mut text, "connect", &self.connecting);
        if self.expected().is_some() {
            durations_as_row(
                &mut text,
                if let Load::Echo = self.load { "round trip" } else { "latency" },
                &self.latency,
            );
        }
        if self.failures.is_empty() {
            text.push_str("\nno failures\n");
        } else {
            text.push_str("\nfailures\n");
            for (cause, count) in &self.failures {
                // By its name alone it would read as a no of the server.
                let cause = if cause == "refused" { "refused: nobody listens there" } else { cause };
                let _ = writeln!(text, "{count:>8}  {}", super::super::printable(cause));
            }
        }
        text
    }
}

/// The line that is written over itself.
pub(super) fn live(since_start: Duration, tally: &Snapshot, last: &Snapshot, span: Duration) -> String {
    let a_second = |count: u64| count as f64 / span.as_secs_f64().max(1e-9);
    let failures: u64 = tally.failures.values().sum();
    let mut line = format!("{:.0} s | {} connected", since_start.as_secs_f64(), tally.connected);
    let recent = tally.latency.since(&last.latency);
    if tally.received > 0 {
        let _ = write!(
            line,
            " | {:.0}/s | p50 {:.2} p99 {:.2} ms",
            a_second(tally.received - last.received),
            milliseconds(recent.percentile(0.5)),
            milliseconds(recent.percentile(0.99))
        );
    } else {
        let _ = write!(line, " | {:.0} connects/s", a_second(tally.connects - last.connects));
    }
    let _ = write!(line, " | {failures} failures");
    line
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// The percentiles that are shown.
fn percentiles(durations: &Durations) -> [(&'static str, f64); 6] {
    let at = |part| milliseconds(durations.percentile(part));
    [
        ("mean", milliseconds(durations.mean())),
        ("p50", at(0.5)),
        ("p90", at(0.9)),
        ("p99", at(0.99)),
        ("p999", at(0.999)),
        ("max", milliseconds(durations.max())),
    ]
}

fn durations_as_json(durations: &Durations) -> Value {
    let mut object = Map::new();
    object.insert("count".to_owned(), durations.count.into());
    for (name, ms) in percentiles(durations) {
        object.insert(name.to_owned(), rounded(ms).into());
    }
    object.into()
}

fn durations_as_row(text: &mut String, name: &str, durations: &Durations) {
    let _ = write!(text, "{name:<12}");
    for (_, ms) in percentiles(durations) {
        match durations.count {
            0 => drop(write!(text, "{:>10}", "-")),
            _ => drop(write!(text, "{ms:>10.3}")),
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::histogram::Histogram;
    use super::*;

    fn report(load: Load) -> Report {
        let latency = Histogram::new();
        for ms in 1..=100 {
            latency.record(Duration::from_millis(ms));
        }
        Report {
            load,
            url: "ws://host:80".to_owned(),
            wanted: 10,
            connected: 9,
            connects: 12,
            measured: Duration::from_secs(2),
            is_queue: false,
            size: 128,
            sent: 20,
            received: 170,
            received_bytes: 170 * 128,
            connecting: latency.snapshot(),
            latency: latency.snapshot(),
            failures: [("reset".to_owned(), 3)].into(),
        }
    }

    #[test]
    fn the_object_says_what_is_missing() {
        let object = report(Load::Fanout).as_json();
        assert_eq!(object["missing"], 10);
        assert_eq!(object["received_per_second"], 85.0);
        assert_eq!(object["failures"]["reset"], 3);
        assert_eq!(object["latency_ms"]["count"], 100);
        let p99 = object["latency_ms"]["p99"].as_f64().unwrap();
        assert!((99.0..=101.0).contains(&p99), "{p99}");
    }

    #[test]
    fn the_table_has_a_row_for_what_was_measured_and_no_other() {
        let text = report(Load::Echo).table();
        for part in ["echo on ws://host:80", "9 of 10", "round trip", "p99.9", "       3  reset"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let text = report(Load::Idle).table();
        assert!(!text.contains("latency") && !text.contains("sent"), "{text}");
        assert!(report(Load::Churn).table().contains("12, 6/s"));
        assert_eq!(report(Load::Idle).as_json().get("missing"), None);
    }

    #[test]
    fn the_live_line_speaks_of_the_last_moment() {
        let last = Snapshot { received: 1000, ..Snapshot::default() };
        let tally = Snapshot { connected: 5, received: 1500, ..Snapshot::default() };
        let line = live(Duration::from_secs(12), &tally, &last, Duration::from_millis(500));
        assert!(line.starts_with("12 s | 5 connected | 1000/s | p50"), "{line}");
        let line =
            live(Duration::from_secs(1), &Snapshot::default(), &Snapshot::default(), Duration::from_secs(1));
        assert!(line.ends_with("| 0 connects/s | 0 failures"), "{line}");
    }
}
