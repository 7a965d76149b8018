//! What an operator sees from outside: health and metrics after some traffic.

use crate::harness::{Events, TestServer, get, until};
use longwire_protocol::CloseReason;
use serde_json::json;

/// The value of a metric with its labels.
#[track_caller]
pub(crate) fn metric(server: &TestServer, name: &str) -> f64 {
    let text = get(server.address, "/metrics", "").text();
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("{name} is not in\n{text}"));
    line[name.len() + 1..].parse().unwrap_or_else(|_| panic!("{line}"))
}

#[test]
fn a_server_that_serves_is_healthy() {
    let server = TestServer::start();
    let response = get(server.address, "/health", "");
    assert_eq!((response.status, response.text().as_str()), (200, "{}"));
    let response = get(server.address, "/", "");
    assert_eq!(response.status, 200);
    assert!(response.text().contains("/connection/websocket"));
}

#[test]
fn metrics_say_what_happened() {
    let server = TestServer::start();
    let websockets = r#"longwire_connections{transport="websocket",dialect="centrifuge"}"#;
    let streams = r#"longwire_connections{transport="sse",dialect="plain"}"#;
    let closes = |reason: CloseReason| {
        format!(
            r#"longwire_closes_total{{reason="{}",category="{}"}}"#,
            reason.name(),
            reason.category().as_str()
        )
    };
    for name in [websockets, streams, "longwire_subscriptions", "longwire_deliveries_total"] {
        assert_eq!(metric(&server, name), 0.0, "{name}");
    }
    let (mut one, mut two) = (server.connect_as("42"), server.connect());
    let mut events = Events::open(server.address, "/sse?channels=kept:a", "");
    events.next();
    one.subscribe("kept:a");
    two.subscribe("news");
    assert_eq!((metric(&server, websockets), metric(&server, streams)), (2.0, 1.0));
    assert_eq!(metric(&server, "longwire_subscriptions"), 3.0);
    assert_eq!(metric(&server, "longwire_connections_opened_total"), 3.0);
    server.publish("kept:a", 1);
    let (id, _) = (events.next().id.expect("an id"), one.line());
    assert_eq!(metric(&server, "longwire_deliveries_total"), 2.0);
    assert_eq!(metric(&server, "longwire_api_calls_total"), 1.0);
    assert!(metric(&server, "longwire_bytes_received_total") > 100.0);
    assert!(metric(&server, "longwire_bytes_sent_total") > 500.0);
    assert!(metric(&server, "longwire_shard_turn_seconds_count") > 0.0);

    drop(events);
    for (id, complete, incomplete) in [(id.as_str(), 1.0, 0.0), ("kept:a=1.otherone", 1.0, 1.0)] {
        Events::open(server.address, "/sse?channels=kept:a", &format!("Last-Event-ID: {id}\r\n")).next();
        assert_eq!(metric(&server, r#"longwire_recoveries_total{outcome="complete"}"#), complete);
        assert_eq!(metric(&server, r#"longwire_recoveries_total{outcome="incomplete"}"#), incomplete);
    }
    one.send("nonsense");
    one.expect_close(CloseReason::BadRequest);
    server.api("disconnect", &json!({"user": ""}));
    two.expect_close(CloseReason::ForceDisconnect);
    until("every connection to be counted out", || {
        metric(&server, websockets) + metric(&server, streams) + metric(&server, "longwire_subscriptions")
            == 0.0
    });
    assert_eq!(metric(&server, &closes(CloseReason::BadRequest)), 1.0);
    assert_eq!(metric(&server, &closes(CloseReason::ForceDisconnect)), 1.0);
    let sum: f64 = CloseReason::ALL.iter().map(|reason| metric(&server, &closes(*reason))).sum();
    assert_eq!(sum, 5.0, "every connection was closed for one reason");
    assert_eq!(metric(&server, "longwire_connections_opened_total"), 5.0);
    assert_eq!(metric(&server, "longwire_outbox_bytes"), 0.0);
    let response = get(server.address, "/metrics", "");
    assert!(response.text().ends_with("# EOF\n"));
    assert!(
        response.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text"))
    );
}

#[test]
fn metrics_are_kept_from_strangers_where_the_api_is() {
    let server = TestServer::with(|config| config.api.key = Some("the key of the backend".to_owned()));
    assert_eq!(get(server.address, "/metrics", "").status, 401);
    assert_eq!(get(server.address, "/metrics", "X-API-Key: the key of the backend\r\n").status, 200);
    // A load balancer has no key.
    assert_eq!(get(server.address, "/health", "").status, 200);
}
