//! The outbox with invented records and invented time.

use super::super::event::{Client, Details, Event};
use super::*;

fn kept(kind: EventType, client: u128, seq: u32, sequence: Sequence) -> Kept {
    let about = Client {
        id: ClientId(client),
        seq,
        user: "ann".into(),
        transport: "websocket",
        dialect: "plain",
        protocol: "json",
    };
    let event = Event {
        kind,
        time_ms: sequence as i64,
        client: kind.has_client().then_some(about),
        channel: (!matches!(kind, EventType::Connected | EventType::Disconnected)).then(|| "news".into()),
        details: Details::None,
    };
    event.draft("node").finish(sequence, format!("id{sequence}"))
}

fn connected(client: u128, sequence: Sequence) -> Kept {
    kept(EventType::Connected, client, 1, sequence)
}

fn rules() -> Rules {
    Rules {
        types: EventType::ALL.to_vec(),
        max_batch: 3,
        max_batch_bytes: 4096,
        max_backoff: Duration::from_secs(20),
    }
}

/// Counts and offers, as the courier does with what it commits.
fn commit(outbox: &mut Outbox, ledger: &mut Ledger, kept: Kept) {
    outbox.count(&kept);
    ledger.note(&kept);
    outbox.offer(kept);
}

fn ids(batch: &Batch) -> Vec<String> {
    let body: serde_json::Value = serde_json::from_slice(&batch.body).unwrap();
    let events = body["events"].as_array().unwrap();
    events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn events_go_out_in_order_and_in_batches_one_at_a_time() {
    let now = Instant::now();
    let (mut outbox, mut ledger) = (Outbox::new(rules(), 0), Ledger::default());
    assert_eq!((outbox.poll_batch(now), outbox.poll_timeout(now)), (None, None));
    (1..=5).for_each(|i| commit(&mut outbox, &mut ledger, connected(i.into(), i)));
    assert_eq!(outbox.poll_timeout(now), Some(now));
    let first = outbox.poll_batch(now).unwrap();
    assert_eq!((ids(&first), &*first.id), (vec!["id1".into(), "id2".into(), "id3".into()], "id1.3"));
    assert_eq!((outbox.poll_batch(now), outbox.position(), outbox.waiting()), (None, 0, 5));
    assert_eq!((outbox.handle_delivered(), outbox.position(), outbox.oldest_ms()), (3, 3, Some(4)));
    assert_eq!(ids(&outbox.poll_batch(now).unwrap()), ["id4", "id5"]);
    assert_eq!((outbox.handle_delivered(), outbox.position()), (2, 5));
    assert_eq!((outbox.waiting(), outbox.waiting_bytes(), outbox.oldest_ms()), (0, 0, None));
    assert_eq!((outbox.handle_delivered(), outbox.poll_batch(now)), (0, None));
}

#[test]
fn a_batch_is_bounded_in_bytes_but_a_large_event_goes_alone() {
    let now = Instant::now();
    let size = connected(1, 1).json.len();
    let max_batch_bytes = OPENING.len() + 2 * size + 1 + CLOSING.len();
    let (mut outbox, mut ledger) = (Outbox::new(Rules { max_batch_bytes, ..rules() }, 0), Ledger::default());
    (1..=3).for_each(|i| commit(&mut outbox, &mut ledger, connected(i.into(), i)));
    let batch = outbox.poll_batch(now).unwrap();
    assert_eq!((batch.events, batch.body.len()), (2, max_batch_bytes));
    let (mut outbox, mut ledger) =
        (Outbox::new(Rules { max_batch_bytes: 5, ..rules() }, 0), Ledger::default());
    commit(&mut outbox, &mut ledger, connected(1, 1));
    assert_eq!(outbox.poll_batch(now).unwrap().events, 1);
}

#[test]
fn a_failed_batch_is_tried_again_for_ever_unchanged_and_later_each_time() {
    let start = Instant::now();
    let (mut outbox, mut ledger) = (Outbox::new(rules(), 0), Ledger::default());
    commit(&mut outbox, &mut ledger, connected(1, 1));
    let first = outbox.poll_batch(start).unwrap();
    let mut now = start;
    let mut pauses = Vec::new();
    for attempt in 2..=40 {
        let pause = outbox.handle_failed(now, 1.0);
        pauses.push(pause.as_millis());
        // What comes meanwhile waits behind it.
        commit(&mut outbox, &mut ledger, kept(EventType::Subscribed, 1, attempt, attempt.into()));
        assert_eq!(outbox.poll_timeout(now), Some(now + pause));
        assert_eq!(outbox.poll_batch(now + pause - Duration::from_millis(1)), None);
        now += pause;
        let again = outbox.poll_batch(now).unwrap();
        assert_eq!((&again.body, &again.id, again.attempts), (&first.body, &first.id, attempt));
    }
    assert_eq!(pauses[..9], [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 20_000]);
    assert!(pauses[9..].iter().all(|pause| *pause == 20_000));
    assert_eq!(outbox.handle_failed(now, 0.0), FIRST_BACKOFF, "even a lucky draw is no busy loop");
    assert_eq!(outbox.handle_delivered(), 1);
    outbox.retry_at = None;
    assert_eq!(ids(&outbox.poll_batch(now).unwrap()), ["id2", "id3", "id4"]);
}

#[test]
fn a_success_forgets_the_backoff() {
    let now = Instant::now();
    let (mut outbox, mut ledger) = (Outbox::new(rules(), 0), Ledger::default());
    (1..=6).for_each(|i| commit(&mut outbox, &mut ledger, connected(i.into(), i)));
    outbox.poll_batch(now).unwrap();
    let pause = outbox.handle_failed(now, 1.0);
    outbox.poll_batch(now + pause).unwrap();
    outbox.handle_delivered();
    assert_eq!(outbox.poll_batch(now + pause).unwrap().attempts, 1, "the next goes out at once");
}

#[test]
fn what_does_not_fit_in_memory_is_read_from_the_disk_in_its_turn() {
    let now = Instant::now();
    let (mut outbox, mut ledger) =
        (Outbox::new(Rules { max_batch_bytes: 300, ..rules() }, 0), Ledger::default());
    let history: Vec<Kept> = (1..=50).map(|i| connected(i.into(), i)).collect();
    history.iter().for_each(|kept| commit(&mut outbox, &mut ledger, kept.clone()));
    assert!(outbox.ready.len() < 10, "a window only");
    let mut sent = Vec::new();
    loop {
        if let Some(from) = outbox.wants_from() {
            for kept in &history[from as usize - 1..] {
                if outbox.is_full() {
                    break;
                }
                outbox.take(kept.clone());
            }
            outbox.caught_up(50);
        }
        let Some(batch) = outbox.poll_batch(now) else { break };
        sent.extend(ids(&batch));
        outbox.handle_delivered();
    }
    assert_eq!(sent, history.iter().map(|kept| format!("id{}", kept.sequence)).collect::<Vec<_>>());
    assert_eq!((outbox.wants_from(), outbox.position(), outbox.waiting_bytes()), (None, 50, 0));
}

#[test]
fn types_that_nobody_wants_are_passed_by() {
    let now = Instant::now();
    let rules = Rules { types: vec![EventType::Disconnected], ..rules() };
    let (mut outbox, mut ledger) = (Outbox::new(rules, 0), Ledger::default());
    commit(&mut outbox, &mut ledger, connected(1, 1));
    assert_eq!((outbox.poll_batch(now), outbox.position(), outbox.waiting()), (None, 1, 0));
    commit(&mut outbox, &mut ledger, kept(EventType::Disconnected, 1, 1, 2));
    assert_eq!(ids(&outbox.poll_batch(now).unwrap()), ["id2"]);
    assert_eq!(outbox.fate(&connected(1, 1), &mut ledger, true), Fate::Done);
}

#[test]
fn a_delivered_beginning_is_carried_on_while_it_lasts() {
    let now = Instant::now();
    let (mut outbox, mut ledger) = (Outbox::new(rules(), 0), Ledger::default());
    let (open, closed) = (connected(1, 1), connected(2, 2));
    commit(&mut outbox, &mut ledger, open.clone());
    commit(&mut outbox, &mut ledger, closed.clone());
    commit(&mut outbox, &mut ledger, kept(EventType::Disconnected, 2, 2, 3));
    outbox.poll_batch(now).unwrap();
    outbox.handle_delivered();
    assert_eq!(outbox.fate(&open, &mut ledger, true), Fate::Carry);
    assert_eq!(outbox.fate(&closed, &mut ledger, true), Fate::Done);
    let carried = Kept { sequence: 4, standing: Standing::Carried, ..open.clone() };
    commit(&mut outbox, &mut ledger, carried.clone());
    assert_eq!(outbox.poll_batch(now), None, "it is not sent again");
    assert_eq!(outbox.fate(&open, &mut ledger, true), Fate::Done);
    assert_eq!(outbox.fate(&carried, &mut ledger, true), Fate::Carry);
}

/// Drops everything up to `end` as on a full disk; returns what was moved, with its sequence from `next` on.
fn overflow(
    outbox: &mut Outbox,
    ledger: &mut Ledger,
    history: &[Kept],
    end: Sequence,
    next: Sequence,
) -> Vec<Kept> {
    let mut moved = Vec::new();
    for old in history.iter().filter(|kept| kept.sequence <= end) {
        let standing = match outbox.fate(old, ledger, true) {
            Fate::Done | Fate::Drop => continue,
            Fate::Carry => Standing::Carried,
            Fate::Move => Standing::Moved,
        };
        let again = Kept { sequence: next + moved.len() as u64, standing, ..old.clone() };
        outbox.count(&again);
        ledger.note(&again);
        moved.push(again);
    }
    outbox.cut(end);
    moved
}

fn drain(outbox: &mut Outbox) -> Vec<String> {
    let mut sent = Vec::new();
    while let Some(batch) = outbox.poll_batch(Instant::now()) {
        sent.extend(ids(&batch));
        outbox.handle_delivered();
    }
    sent
}

#[test]
fn what_a_full_disk_loses_is_never_half_of_a_pair() {
    for is_in_memory in [true, false] {
        lose(is_in_memory);
    }
}

fn lose(is_in_memory: bool) {
    use EventType::{Connected, Disconnected, Subscribed};
    let (mut outbox, mut ledger) = (Outbox::new(rules(), 0), Ledger::default());
    let told = kept(Connected, 9, 1, 1);
    commit(&mut outbox, &mut ledger, told.clone());
    assert_eq!(drain(&mut outbox), ["id1"]);
    let history = vec![
        told,
        kept(Connected, 1, 1, 2),    // and gone before the end
        kept(Connected, 2, 1, 3),    // stays
        kept(Disconnected, 9, 2, 4), // was told of
        kept(Subscribed, 2, 2, 5),
        kept(Connected, 3, 1, 6), // gone later
        kept(Disconnected, 1, 2, 7),
        kept(Subscribed, 2, 3, 8), // beyond the cut
        kept(Disconnected, 3, 2, 9),
        kept(Connected, 4, 1, 10),
    ];
    if !is_in_memory {
        outbox.set_behind();
    }
    history[1..].iter().for_each(|kept| commit(&mut outbox, &mut ledger, kept.clone()));
    let moved = overflow(&mut outbox, &mut ledger, &history, 7, 11);
    let whom: Vec<_> = moved.iter().map(|kept| (kept.kind, kept.client.unwrap().0)).collect();
    assert_eq!(whom, [(Connected, 2), (Disconnected, 9)]);
    // What is in memory is judged by the same rules as what is read later.
    let beyond = history.into_iter().filter(|kept| !is_in_memory && kept.sequence > 7);
    beyond.chain(moved).for_each(|kept| outbox.take(kept));
    assert_eq!(drain(&mut outbox), ["id10", "id3", "id4"]);
    assert_eq!(outbox.take_passed_over(), 2, "a subscription of 2 and the end of 3");
    assert_eq!((outbox.waiting(), outbox.waiting_bytes(), outbox.muted.len()), (0, 0, 0));
}

#[test]
fn a_channel_that_is_occupied_again_is_not_called_vacated_late() {
    use EventType::{Occupied, Vacated};
    let (mut outbox, mut ledger) = (Outbox::new(rules(), 0), Ledger::default());
    let history = vec![kept(Occupied, 0, 0, 1), kept(Vacated, 0, 0, 2), kept(Occupied, 0, 0, 3)];
    history.iter().for_each(|kept| commit(&mut outbox, &mut ledger, kept.clone()));
    let moved = overflow(&mut outbox, &mut ledger, &history, 2, 4);
    assert_eq!(moved, []);
    assert_eq!(drain(&mut outbox), ["id3"]);
}

#[test]
fn a_batch_that_is_on_its_way_is_waited_for_and_one_that_failed_is_dropped_as_the_rest() {
    use EventType::{Connected, Disconnected, Subscribed};
    let now = Instant::now();
    let (mut outbox, mut ledger) = (Outbox::new(rules(), 0), Ledger::default());
    let history = [
        kept(Connected, 1, 1, 1), // stays
        kept(Connected, 2, 1, 2),
        kept(Subscribed, 1, 2, 3),
        kept(Disconnected, 2, 2, 4),
    ];
    history.iter().for_each(|kept| commit(&mut outbox, &mut ledger, kept.clone()));
    assert_eq!(outbox.poll_batch(now).unwrap().events, 3);
    assert!(outbox.is_sending_before(1) && !outbox.is_sending_before(0));
    let pause = outbox.handle_failed(now, 0.0);
    assert!(!outbox.is_sending_before(4));
    // The cut goes through the batch.
    let moved = overflow(&mut outbox, &mut ledger, &history, 2, 5);
    assert_eq!(
        moved.iter().map(|kept| (kept.kind, kept.client)).collect::<Vec<_>>(),
        [(Connected, history[0].client)]
    );
    assert_eq!((outbox.position(), outbox.wants_from(), outbox.waiting()), (3, None, 2));
    moved.iter().for_each(|kept| outbox.offer(kept.clone()));
    outbox.retry_at = None;
    assert_eq!(
        ids(&outbox.poll_batch(now + pause).unwrap()),
        ["id4", "id1"],
        "an end that may be owed, and who is there"
    );
    assert_eq!((outbox.take_passed_over(), outbox.handle_delivered(), outbox.waiting()), (1, 2, 0));
}

#[test]
fn what_was_passed_over_is_counted_once_however_often_a_cut_goes_through_a_batch() {
    use EventType::{Connected, Disconnected, Subscribed};
    let now = Instant::now();
    let (mut outbox, mut ledger) = (Outbox::new(rules(), 0), Ledger::default());
    let mut history: Vec<Kept> = [
        kept(Connected, 1, 1, 1), // stays
        kept(Connected, 2, 1, 2), // gone later
        kept(Connected, 3, 1, 3), // stays
        kept(Connected, 4, 1, 4), // stays
        kept(Subscribed, 1, 2, 5),
        kept(Disconnected, 2, 2, 6),
    ]
    .to_vec();
    history.iter().for_each(|kept| commit(&mut outbox, &mut ledger, kept.clone()));
    let mut passed_over = 0;
    for (end, next) in [(2, 7), (3, 8), (4, 9)] {
        outbox.retry_at = None;
        assert!(outbox.poll_batch(now).is_some());
        outbox.handle_failed(now, 0.0);
        let moved = overflow(&mut outbox, &mut ledger, &history, end, next);
        moved.iter().for_each(|kept| outbox.offer(kept.clone()));
        history.retain(|kept| kept.sequence > end);
        history.extend(moved);
        passed_over += outbox.take_passed_over();
    }
    outbox.retry_at = None;
    assert_eq!(drain(&mut outbox), ["id6", "id1", "id3", "id4"], "the backend may know of 2");
    assert_eq!((passed_over, outbox.take_passed_over()), (1, 0), "the subscription of 1");
    assert_eq!((outbox.waiting(), outbox.waiting_bytes(), outbox.muted.len()), (0, 0, 0));
}
