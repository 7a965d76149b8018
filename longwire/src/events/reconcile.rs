//! What began and did not end: who is connected, what is subscribed to, which channels are occupied.
//!
//! The [`Ledger`] follows the records of the journal in their order. While the server runs it says which records
//! must not be released: those that began what goes on. After a crash it has what the lost process left, and
//! [`endings`] makes the events that end it. What must stay true: for every prefix of a history, the history and
//! its endings have each beginning followed by one end, and a client's events are numbered without a gap.

use super::event::{Body, Draft, EventType, Kept};
use crate::journal::Sequence;
use longwire_protocol::message::ClientId;
use longwire_protocol::message::unsubscribe;
use std::collections::BTreeMap;

/// What an event begins or ends. In their order a client's subscriptions end before its connection, and a channel
/// is vacated at last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Subscription(ClientId, Box<str>),
    Client(ClientId),
    Channel(Box<str>),
}

impl Subject {
    fn of(kept: &Kept) -> Option<Subject> {
        Some(match kept.kind {
            EventType::Connected | EventType::Disconnected => Subject::Client(kept.client?),
            EventType::Subscribed | EventType::Unsubscribed => {
                Subject::Subscription(kept.client?, kept.channel.clone())
            }
            EventType::Occupied | EventType::Vacated => Subject::Channel(kept.channel.clone()),
        })
    }
}

/// Something that goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Open {
    /// The record that says so.
    at: Sequence,
    /// What the record takes of the disk.
    bytes: u64,
    /// The newest number among the client's events.
    seq: u32,
}

/// What began and did not end.
#[derive(Debug, Default)]
pub struct Ledger {
    open: BTreeMap<Subject, Open>,
    bytes: u64,
}

impl Ledger {
    /// Notes a record; records must come in their order.
    pub fn note(&mut self, kept: &Kept) {
        let newest = match kept.client.and_then(|client| self.open.get_mut(&Subject::Client(client))) {
            Some(open) => {
                open.seq = open.seq.max(kept.seq);
                open.seq
            }
            None => kept.seq,
        };
        let Some(subject) = Subject::of(kept) else { return };
        if kept.kind.end().is_some() {
            let open = Open { at: kept.sequence, bytes: kept.disk_bytes(), seq: newest };
            self.bytes += open.bytes;
            let before = self.open.insert(subject, open);
            self.bytes -= before.map_or(0, |open| open.bytes);
            return;
        }
        if let Subject::Client(client) = subject {
            let first = Subject::Subscription(client, "".into());
            let is_theirs =
                |subject: &Subject| matches!(subject, Subject::Subscription(of, _) if *of == client);
            while let Some((left, _)) = self.open.range(&first..).next().filter(|(left, _)| is_theirs(left)) {
                let left = left.clone();
                self.close(&left);
            }
        }
        self.close(&subject);
    }

    /// Forgets what a record began: it was dropped.
    pub fn forget(&mut self, kept: &Kept) {
        if self.stands_at(kept)
            && let Some(subject) = Subject::of(kept)
        {
            self.close(&subject);
        }
    }

    fn close(&mut self, subject: &Subject) {
        self.bytes -= self.open.remove(subject).map_or(0, |open| open.bytes);
    }

    /// Whether what this very record began goes on.
    pub fn stands_at(&self, kept: &Kept) -> bool {
        let open = Subject::of(kept).and_then(|subject| self.open.get(&subject));
        kept.kind.end().is_some() && open.is_some_and(|open| open.at == kept.sequence)
    }

    /// Whether what this event begins or ends goes on.
    pub fn is_open(&self, kept: &Kept) -> bool {
        Subject::of(kept).is_some_and(|subject| self.open.contains_key(&subject))
    }

    /// The newest number among the events of a client that is connected.
    pub fn newest_seq(&self, client: ClientId) -> Option<u32> {
        self.open.get(&Subject::Client(client)).map(|open| open.seq)
    }

    /// How many things go on.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether nothing goes on.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// About how many bytes of the disk the records have that must be kept.
    pub fn disk_bytes(&self) -> u64 {
        self.bytes
    }
}

/// The ends of what the lost process began: `opened` are the records at which the ledger's entries stand.
///
/// `known_until_ms` is the time of its newest event. Only types for which `is_sent` get a number of their client's.
pub fn endings(
    ledger: &Ledger,
    opened: Vec<Kept>,
    now_ms: i64,
    known_until_ms: i64,
    is_sent: impl Fn(EventType) -> bool,
) -> Vec<Draft> {
    let mut opened: Vec<(Subject, Kept)> =
        opened.into_iter().filter_map(|kept| Some((Subject::of(&kept)?, kept))).collect();
    opened.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut seqs: BTreeMap<ClientId, u32> = BTreeMap::new();
    let mut endings = Vec::with_capacity(opened.len());
    for (_, kept) in opened {
        let Some(kind) = kept.kind.end() else { continue };
        let begun: Body<'static> = serde_json::from_slice(&kept.json).unwrap_or_default();
        let mut body = Body {
            kind: kind.as_str().into(),
            time_ms: now_ms,
            // The node that told of the beginning: the channel is vacated there, not here.
            node: begun.node,
            client: begun.client,
            user: begun.user,
            transport: begun.transport,
            dialect: begun.dialect,
            protocol: begun.protocol,
            name: begun.name,
            version: begun.version,
            channel: begun.channel,
            reconciled: Some(true),
            known_until_ms: Some(known_until_ms),
            ..Body::default()
        };
        match kind {
            EventType::Disconnected => {
                body.reason = Some("ServerLost".into());
                body.category = Some("server".into());
                body.initiator = Some("server".into());
            }
            EventType::Unsubscribed => {
                let (code, reason) = unsubscribe::DISCONNECT;
                body.code = Some(code);
                body.reason = Some(reason.into());
            }
            _ => {}
        }
        let mut seq = 0;
        if let Some(client) = kept.client {
            let known = ledger.newest_seq(client).unwrap_or(kept.seq);
            let newest = seqs.entry(client).or_insert(known);
            if is_sent(kind) {
                *newest += 1;
                body.seq = Some(*newest);
            }
            seq = *newest;
        }
        endings.push(Draft { kind, client: kept.client, channel: kept.channel, seq, body });
    }
    endings
}

#[cfg(test)]
mod tests {
    use super::super::event::{Client, Details, Event};
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn event(kind: EventType, client: u128, seq: u32, channel: &str) -> Event {
        let client = Client {
            id: ClientId(client),
            seq,
            user: "ann".into(),
            transport: "websocket",
            dialect: "centrifuge",
            protocol: "json",
        };
        Event {
            kind,
            time_ms: 1,
            client: kind.has_client().then_some(client),
            channel: (!channel.is_empty()).then(|| channel.into()),
            details: Details::None,
        }
    }

    fn kept(kind: EventType, client: u128, seq: u32, channel: &str, sequence: Sequence) -> Kept {
        event(kind, client, seq, channel).draft("n").finish(sequence, format!("id-{sequence}"))
    }

    /// A history of a few clients and channels, as shards make them.
    fn histories() -> impl Strategy<Value = Vec<Kept>> {
        prop::collection::vec((0u128..4, 0usize..3, 0u8..4), 0..60).prop_map(|acts| {
            let (mut history, mut seqs) = (Vec::new(), BTreeMap::<u128, u32>::new());
            let mut subscriptions = BTreeSet::new();
            let mut next_client = 0;
            let mut clients: Vec<u128> = Vec::new();
            let mut say = |kind, client: u128, channel: &str, history: &mut Vec<Kept>| {
                let seq = seqs.entry(client).or_default();
                *seq += u32::from(EventType::has_client(kind));
                let sequence = history.len() as u64 + 1;
                history.push(kept(kind, client, *seq, channel, sequence));
            };
            for (who, which, act) in acts {
                let channel = ["a", "b", "c"][which];
                let client = clients.get(who as usize % clients.len().max(1)).copied();
                let occupied =
                    |subscriptions: &BTreeSet<(u128, &str)>| subscriptions.iter().any(|(_, c)| *c == channel);
                match (act, client) {
                    (0, _) | (_, None) => {
                        next_client += 1;
                        clients.push(next_client);
                        say(EventType::Connected, next_client, "", &mut history);
                    }
                    (1, Some(client)) => {
                        if !occupied(&subscriptions) {
                            say(EventType::Occupied, 0, channel, &mut history);
                        }
                        if subscriptions.insert((client, channel)) {
                            say(EventType::Subscribed, client, channel, &mut history);
                        }
                    }
                    (2, Some(client)) => {
                        if subscriptions.remove(&(client, channel)) {
                            say(EventType::Unsubscribed, client, channel, &mut history);
                            if !occupied(&subscriptions) {
                                say(EventType::Vacated, 0, channel, &mut history);
                            }
                        }
                    }
                    (_, Some(client)) => {
                        clients.retain(|other| *other != client);
                        let theirs: Vec<_> =
                            subscriptions.iter().filter(|(c, _)| *c == client).copied().collect();
                        for (client, channel) in theirs {
                            say(EventType::Unsubscribed, client, channel, &mut history);
                            subscriptions.remove(&(client, channel));
                            if !subscriptions.iter().any(|(_, c)| *c == channel) {
                                say(EventType::Vacated, 0, channel, &mut history);
                            }
                        }
                        say(EventType::Disconnected, client, "", &mut history);
                    }
                }
            }
            history
        })
    }

    fn end_all(history: &[Kept]) -> Vec<Kept> {
        let mut ledger = Ledger::default();
        history.iter().for_each(|kept| ledger.note(kept));
        let opened = history.iter().filter(|kept| ledger.stands_at(kept)).cloned().collect();
        let endings = endings(&ledger, opened, 2, 1, |_| true);
        let numbered = endings.into_iter().enumerate();
        let kept =
            numbered.map(|(i, draft)| draft.finish((history.len() + i + 1) as u64, String::new())).collect();
        let mut after: Vec<Kept> = history.to_vec();
        after.append(&mut { kept });
        after
    }

    proptest! {
        #[test]
        fn every_prefix_of_a_history_ends_in_balanced_pairs(history in histories(), cut in 0usize..80) {
            let prefix = &history[..cut.min(history.len())];
            let whole = end_all(prefix);
            let mut open = BTreeSet::new();
            let mut seqs = BTreeMap::<ClientId, u32>::new();
            for kept in &whole {
                let subject = Subject::of(kept).unwrap();
                if kept.kind.end().is_some() {
                    prop_assert!(open.insert(subject), "begun twice: {kept:?}");
                } else {
                    prop_assert!(open.remove(&subject), "ended without a beginning: {kept:?}");
                }
                if let Some(client) = kept.client {
                    let is_connected = open.contains(&Subject::Client(client));
                    prop_assert!(is_connected || kept.kind == EventType::Disconnected, "outside: {kept:?}");
                    let seq = seqs.entry(client).or_default();
                    *seq += 1;
                    prop_assert_eq!(kept.seq, *seq);
                    let body: Body<'_> = serde_json::from_slice(&kept.json).unwrap();
                    prop_assert_eq!(body.seq, Some(*seq));
                }
            }
            prop_assert!(open.is_empty(), "left open: {open:?}");
            // What was reconciled is whole: at the next start nothing is left to do.
            prop_assert_eq!(end_all(&whole).len(), whole.len());
        }

        #[test]
        fn the_bytes_of_what_must_be_kept_are_those_of_what_stands(history in histories()) {
            let mut ledger = Ledger::default();
            history.iter().for_each(|kept| ledger.note(kept));
            let standing = history.iter().filter(|kept| ledger.stands_at(kept));
            prop_assert_eq!(standing.clone().map(Kept::disk_bytes).sum::<u64>(), ledger.disk_bytes());
            prop_assert_eq!(standing.count(), ledger.len());
        }
    }

    #[test]
    fn a_lost_client_is_ended_by_the_node_that_had_it_and_says_so() {
        let connected = kept(EventType::Connected, 1, 4, "", 10);
        let whole = end_all(&[connected]);
        let body: Body<'_> = serde_json::from_slice(&whole[1].json).unwrap();
        assert_eq!((&*body.kind, &*body.node, body.seq), ("disconnected", "n", Some(5)));
        assert_eq!((body.reason.as_deref(), body.category.as_deref()), (Some("ServerLost"), Some("server")));
        assert_eq!((body.reconciled, body.known_until_ms), (Some(true), Some(1)));
        assert_eq!((body.user.as_deref(), body.transport.as_deref()), (Some("ann"), Some("websocket")));
        assert_eq!(body.duration_ms, None, "nobody knows how long it lived");
    }

    #[test]
    fn types_that_are_not_sent_take_no_number() {
        let history = [kept(EventType::Connected, 1, 1, "", 1), kept(EventType::Subscribed, 1, 2, "a", 2)];
        let mut ledger = Ledger::default();
        history.iter().for_each(|kept| ledger.note(kept));
        let drafts = endings(&ledger, history.to_vec(), 2, 1, |kind| kind == EventType::Disconnected);
        let seqs: Vec<_> = drafts.iter().map(|draft| (draft.kind, draft.body.seq)).collect();
        assert_eq!(seqs, [(EventType::Unsubscribed, None), (EventType::Disconnected, Some(3))]);
    }

    #[test]
    fn a_record_that_was_carried_on_stands_in_place_of_the_first() {
        let first = kept(EventType::Connected, 1, 1, "", 1);
        let carried = Kept { sequence: 9, ..first.clone() };
        let mut ledger = Ledger::default();
        [&first, &kept(EventType::Subscribed, 1, 5, "a", 2), &carried]
            .into_iter()
            .for_each(|k| ledger.note(k));
        assert!(!ledger.stands_at(&first) && ledger.stands_at(&carried));
        assert_eq!(ledger.newest_seq(ClientId(1)), Some(5));
        ledger.forget(&carried);
        assert_eq!((ledger.is_open(&first), ledger.len()), (false, 1));
    }
}
