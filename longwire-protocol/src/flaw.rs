//! Deliberate flaws: how the simulator proves that it would notice them.
//!
//! Each stands at the one place whose rule it breaks, as `if flaw::is_on(Flaw::…)`. Without the feature `flaws`,
//! which only the simulator's self-check turns on, the answer is a constant and nothing of them is compiled. With
//! it, one flaw at most is on, for the calling thread alone.

/// A rule that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// The hub is joined after history was read.
    HubAfterHistory,
    /// Whoever joins a channel second does not wait until the broker hands it on.
    InterestNotAwaited,
    /// A publication after a gap counts as the next one.
    GapPasses,
    /// A publication that was seen counts as the next one.
    DuplicatePasses,
    /// What was delivered while a subscription began is dropped.
    BufferDropped,
    /// A recovery is called complete whatever history still had.
    RecoveryAssumed,
    /// A position of another epoch is recovered from.
    EpochIgnored,
    /// Nobody asks the broker whether something was lost.
    PositionsUnchecked,
    /// Only an answer to a beat is a sign of life.
    OnlyPongsCount,
    /// A silent peer is never called dead.
    SilenceForgiven,
    /// A peer that fell silent is reported as one that reset the connection.
    SilenceCalledReset,
    /// A shard that was paused looks at its timers before it reads.
    TimersBeforeSockets,
    /// What waits for a peer has no bound.
    OutboxUnbounded,
    /// A session that ends abruptly stays in presence.
    PresenceKept,
    /// A leave is announced twice.
    LeaveTwice,
    /// Movements are announced without waiting for those before.
    MovementsOvertake,
    /// A session's timer is armed again after its end.
    TimersKept,
    /// A record counts as durable before it is.
    AckBeforeDurable,
    /// A subscriber is sent a difference to a publication that it was not sent.
    DeltaAgainstUnsent,
    /// Subscribers are sent what their filters leave out.
    FilterLeaks,
    /// What a client says beside its stream is acknowledged and dropped.
    EmulationForgets,
    /// Whom the application cannot be asked about is let in.
    DoorLeftOpen,
    /// Events are delivered before they are on the disk.
    EventsBeforeDisk,
    /// What a lost process began is not ended by the next one.
    DisconnectForgotten,
    /// A client's events are delivered in another order than that in which they happened.
    EventsOvertake,
    /// Who returns by its name is taken to stand where its server stood, whatever it says.
    SinceIgnored,
    /// The backend is told that a client is gone whose session is kept.
    CloseAtBreak,
    /// What a client said is forgotten when its session goes on with another link.
    InboxForgotten,
    /// A session without a link is kept for ever.
    GraceUnending,
    /// What there is no room for while a client is away is dropped without a word.
    AwayLossHidden,
    /// A client whose session is kept leaves presence with its link.
    PresenceLeftAtBreak,
    /// What is acknowledged is not taken from its queue on the disk.
    DoneForgotten,
    /// The client takes what it wrote before a break for confirmed.
    ReceiptAssumed,
    /// The client says that a topic recovered whatever the server said.
    TopicRecoveryAssumed,
    /// A link that its client gave up takes the session from the one that was opened instead.
    OldLinkWins,
}

impl Flaw {
    /// All flaws.
    pub const ALL: [Flaw; 35] = [
        Flaw::HubAfterHistory,
        Flaw::InterestNotAwaited,
        Flaw::GapPasses,
        Flaw::DuplicatePasses,
        Flaw::BufferDropped,
        Flaw::RecoveryAssumed,
        Flaw::EpochIgnored,
        Flaw::PositionsUnchecked,
        Flaw::OnlyPongsCount,
        Flaw::SilenceForgiven,
        Flaw::SilenceCalledReset,
        Flaw::TimersBeforeSockets,
        Flaw::OutboxUnbounded,
        Flaw::PresenceKept,
        Flaw::LeaveTwice,
        Flaw::MovementsOvertake,
        Flaw::TimersKept,
        Flaw::AckBeforeDurable,
        Flaw::DeltaAgainstUnsent,
        Flaw::FilterLeaks,
        Flaw::EmulationForgets,
        Flaw::DoorLeftOpen,
        Flaw::EventsBeforeDisk,
        Flaw::DisconnectForgotten,
        Flaw::EventsOvertake,
        Flaw::SinceIgnored,
        Flaw::CloseAtBreak,
        Flaw::InboxForgotten,
        Flaw::GraceUnending,
        Flaw::AwayLossHidden,
        Flaw::PresenceLeftAtBreak,
        Flaw::DoneForgotten,
        Flaw::ReceiptAssumed,
        Flaw::TopicRecoveryAssumed,
        Flaw::OldLinkWins,
    ];
}

/// Whether a flaw is on in this thread.
#[cfg(not(feature = "flaws"))]
#[inline(always)]
pub const fn is_on(_flaw: Flaw) -> bool {
    false
}

#[cfg(feature = "flaws")]
mod switch {
    use super::Flaw;
    use std::cell::Cell;

    thread_local! {
        static ON: Cell<Option<Flaw>> = const { Cell::new(None) };
    }

    /// Whether a flaw is on in this thread.
    pub fn is_on(flaw: Flaw) -> bool {
        ON.get() == Some(flaw)
    }

    /// Turns one flaw on in this thread, and all others off.
    pub fn turn_on(flaw: Option<Flaw>) {
        ON.set(flaw);
    }
}
#[cfg(feature = "flaws")]
pub use switch::{is_on, turn_on};
