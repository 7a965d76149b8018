//! The subscriptions of one client: those that the program began, and those of the server.
//!
//! Data, and what follows from one answer for one subscription; what is written to the server is the business of
//! [`State`](super::State). What must stay true: of a channel there is at most one subscription of the program; one that is over
//! has told its reader so.

use super::track::Track;
use crate::realtime::event::Event;
use crate::realtime::mailbox::Mailbox;
use crate::realtime::settings::SubscriptionSettings;
use longwire_protocol::Text;
use longwire_protocol::backoff::{Backoff, Policy};
use longwire_protocol::centrifuge::client::{Command, Subscribe, encode_command};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

/// How a subscription stands with the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// To be asked for as soon as there is a connection, a token, and no unsubscribe on its way.
    Wanted,
    /// Asked for.
    Asked,
    /// Confirmed at that time.
    Live(Instant),
    /// To be asked for again when its time has come.
    Paused,
}

/// One subscription that the program began.
#[derive(Debug)]
pub(super) struct Subscription {
    /// Which of all subscriptions of this client.
    pub(super) key: u32,
    pub(super) mailbox: Arc<Mailbox<Event>>,
    pub(super) stage: Stage,
    pub(super) track: Track,
    pub(super) token: String,
    pub(super) settings: SubscriptionSettings,
    /// A token was asked for and has not come.
    pub(super) awaits_token: bool,
    /// When the token is to be refreshed.
    pub(super) refresh_at: Option<Instant>,
    backoff: Backoff,
}

impl Subscription {
    pub(super) fn new(
        key: u32,
        mut settings: SubscriptionSettings,
        bound: usize,
        policy: Policy,
    ) -> Subscription {
        let track = Track::new(settings.since.take(), settings.tags_filter.is_some());
        Subscription {
            key,
            mailbox: Arc::new(Mailbox::new(bound)),
            stage: Stage::Wanted,
            track,
            token: std::mem::take(&mut settings.token),
            settings,
            awaits_token: false,
            refresh_at: None,
            backoff: Backoff::new(policy),
        }
    }

    /// A token has to be fetched before the server can be asked.
    pub(super) fn lacks_token(&self) -> bool {
        self.token.is_empty() && self.settings.token_source.is_some()
    }

    /// Forgets a token that the server does not take; false if there is nowhere to get another from.
    pub(super) fn drop_token(&mut self) -> bool {
        let has_source = self.settings.token_source.is_some();
        if has_source {
            self.token = String::new();
        }
        has_source
    }

    pub(super) fn encode(&self, id: u32, channel: &str, out: &mut Vec<u8>) {
        let SubscriptionSettings { data, join_leave, delta, tags_filter, .. } = &self.settings;
        let subscribe = Subscribe {
            channel,
            token: &self.token,
            data,
            recover: self.track.since(),
            positioned: true,
            recoverable: true,
            join_leave: *join_leave,
            delta: *delta,
            tags_filter: tags_filter.as_deref(),
            reject_unrecovered: false,
        };
        encode_command(id, &Command::Subscribe(&subscribe), out);
    }

    /// The subscription failed, or was ended by the server for the time being: after what delay it is asked for again.
    pub(super) fn next_delay(&mut self, now: Instant, stable_after: Duration, chance: f64) -> Duration {
        self.note_end(now, stable_after);
        self.backoff.next_delay(chance)
    }

    /// What was confirmed is not any more: if it lasted, delays begin anew.
    pub(super) fn note_end(&mut self, now: Instant, stable_after: Duration) {
        if matches!(self.stage, Stage::Live(since) if now.saturating_duration_since(since) >= stable_after) {
            self.backoff.reset();
        }
    }

    /// Tells the reader that nothing follows.
    pub(super) fn end(&self, code: u32, reason: Text, wakes: &mut Vec<Waker>) {
        wakes.extend(self.mailbox.push(Event::Unsubscribed { code, reason, is_final: true }).wakes);
        wakes.extend(self.mailbox.close());
    }
}

/// When a token of so many seconds is refreshed: early enough for a slow source, and for a few attempts.
pub(super) fn refresh_after(ttl_seconds: u32) -> Duration {
    let ttl = Duration::from_secs(ttl_seconds.into());
    let early = (ttl / 5).clamp(Duration::from_millis(500), Duration::from_secs(30));
    ttl.saturating_sub(early).max(Duration::from_millis(200))
}

/// One subscription of the server.
#[derive(Debug, Default)]
pub(super) struct ServerSide {
    pub(super) track: Track,
    /// Its position can be used to recover.
    pub(super) recoverable: bool,
}

/// Codes of the ends that this side makes (centrifuge protocol, section 9.4).
pub(super) mod ended {
    /// The program asked for it.
    pub(crate) const BY_PROGRAM: (u32, &str) = (0, "unsubscribed");
    /// There is no token.
    pub(crate) const UNAUTHORIZED: u32 = 1;
    /// The client is closed, or gave up.
    pub(crate) const CLIENT_OVER: u32 = 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_refreshed_before_it_expires() {
        let seconds = |ttl| refresh_after(ttl).as_secs_f64();
        assert_eq!((seconds(60), seconds(3600), seconds(10)), (48.0, 3570.0, 8.0));
        assert_eq!((seconds(1), seconds(0)), (0.5, 0.2));
    }

    #[test]
    fn delays_begin_anew_only_behind_a_subscription_that_lasted() {
        let now = Instant::now();
        let mut subscription = Subscription::new(1, SubscriptionSettings::default(), 1, Policy::default());
        let stable = Duration::from_secs(10);
        let mut next = |stage, at| {
            subscription.stage = stage;
            subscription.next_delay(at, stable, 1.0).as_secs_f64()
        };
        assert_eq!((next(Stage::Asked, now), next(Stage::Asked, now)), (0.5, 1.0));
        assert_eq!(next(Stage::Live(now), now + stable / 2), 2.0);
        assert_eq!(next(Stage::Live(now), now + stable), 0.5);
    }
}
