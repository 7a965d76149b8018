//! Recording: what is taken, what is refused, and what is settled.

use super::event::Client;
use super::*;
use longwire_protocol::message::ClientId;

fn config(types: &[EventType]) -> config::Events {
    config::Events {
        endpoint: Some("http://backend.test/events".into()),
        types: types.to_vec(),
        max_queue_bytes: 1000,
        ..config::Events::default()
    }
}

fn event(kind: EventType) -> Event {
    let client = Client {
        id: ClientId(1),
        seq: 1,
        user: "".into(),
        transport: "websocket",
        dialect: "plain",
        protocol: "json",
    };
    Event { kind, time_ms: 1, client: Some(client), channel: None, details: Details::None }
}

#[test]
fn nothing_is_recorded_where_events_are_off() {
    let without_endpoint = config::Events { endpoint: None, ..config(&EventType::ALL) };
    for events in [Events::off(), Events::new(&without_endpoint), Events::new(&config(&[]))] {
        assert!(EventType::ALL.into_iter().all(|kind| !events.is_recorded(kind) && !events.is_sent(kind)));
        assert!(!events.record(event(EventType::Connected)));
        events.enter(&"news".into(), 1);
        events.drain();
        assert!(events.is_settled() && events.counters().is_none());
    }
}

#[test]
fn a_type_that_is_sent_has_its_pair_recorded() {
    use EventType::{Connected, Disconnected, Occupied, Subscribed, Unsubscribed, Vacated};
    let recorded = |types: &[EventType]| -> Vec<EventType> {
        let events = Events::new(&config(types));
        EventType::ALL.into_iter().filter(|kind| events.is_recorded(*kind)).collect()
    };
    assert_eq!(recorded(&[Disconnected]), [Connected, Disconnected]);
    assert_eq!(recorded(&[Subscribed]), [Connected, Disconnected, Subscribed, Unsubscribed]);
    assert_eq!(recorded(&[Vacated]), [Occupied, Vacated]);
    assert!(!Events::new(&config(&[Disconnected])).is_sent(Connected));
}

#[test]
fn while_the_disk_does_not_follow_beginnings_are_refused_before_ends() {
    let events = Events::new(&config(&EventType::ALL));
    let size = event(EventType::Connected).memory_bytes();
    let taken = |kind| std::iter::from_fn(|| events.record(event(kind)).then_some(())).count();
    assert_eq!(taken(EventType::Connected), 1000 / size);
    assert_eq!(taken(EventType::Subscribed), 0);
    assert!(events.record(event(EventType::Unsubscribed)), "its beginning was recorded");
    assert_eq!(taken(EventType::Disconnected), 2000 / size - 1000 / size - 1);
    let counters = events.counters().unwrap();
    let count = (2000 / size) as u64;
    assert_eq!((counters.recorded.get(), counters.pending.get(), counters.dropped.get()), (count, count, 3));
}

#[test]
fn an_empty_channel_is_not_settled_until_somebody_asked() {
    let events = Events::new(&config(&EventType::ALL));
    let (news, now): (Arc<str>, _) = ("news".into(), Instant::now());
    events.enter(&news, 1);
    let shared = events.0.as_ref().unwrap();
    shared.counters.pending.sub(1);
    assert!(!events.is_settled(), "an earlier process may have left something");
    shared.has_stock.store(true, Ordering::SeqCst);
    assert!(events.is_settled());
    events.leave(&news, now);
    assert!(!events.is_settled());
    let delay = shared.vacated_delay;
    assert_eq!(shared.ask(&news, now, 2), Verdict::AskAt(now + delay));
    events.drain();
    assert_eq!(shared.ask(&news, now, 2), Verdict::Vacated);
    assert!(!events.is_settled(), "it is to be delivered");
    let kinds: Vec<EventType> = lock(&shared.queue).iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventType::Occupied, EventType::Vacated]);
}
