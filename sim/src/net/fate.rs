//! What truly became of a connection.
//!
//! The network writes down, in order and with virtual time, what it did to each connection and what each end
//! did to it. A checker reads it to decide which causes a server may honestly give for a close. It says
//! nothing of the bytes, only of how many arrived. A fate outlives its connection.

use std::fmt;
use std::net::SocketAddr;
use std::ops::{Index, IndexMut};
use std::time::Duration;
use tokio::time::Instant;

/// Names one connection for a whole run; they rise in the order of dialling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The end that dialled.
    Client,
    /// The end that listened.
    Server,
}

impl Side {
    /// Both, the client first.
    pub const BOTH: [Side; 2] = [Side::Client, Side::Server];

    /// The end at the other end.
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }

    /// The direction in which this end's bytes travel.
    pub fn outward(self) -> Direction {
        match self {
            Side::Client => Direction::ToServer,
            Side::Server => Direction::ToClient,
        }
    }
}

/// One of the two ways through a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// What the client writes.
    ToServer,
    /// What the server writes.
    ToClient,
}

impl Direction {
    /// The end that writes.
    pub fn writer(self) -> Side {
        match self {
            Direction::ToServer => Side::Client,
            Direction::ToClient => Side::Server,
        }
    }
}

/// What happens at the byte where a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A middlebox resets both ends.
    Reset,
    /// A middlebox forgets the connection: nothing passes in either direction, and nobody is told.
    Vanish,
    /// A middlebox ends both directions in order; what an end sends afterwards is answered with a reset.
    Fin,
}

/// Why an end sent a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was told to close abortively, or never accepted the connection.
    Aborted,
    /// It was closed while arrived bytes were unread.
    Unread,
    /// It answered something sent to a connection that its kernel does not have any more.
    Answer,
}

/// One thing that happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The client's kernel took the connection for established.
    Dialled,
    /// The connection reached the queue of the listener.
    Queued,
    /// The server's process took the connection.
    Accepted,
    /// The process of this side let go of its socket.
    Closed(Side),
    /// The process of this side was killed with the socket open.
    Killed(Side),
    /// This side ended its writing half, by shutting it down or by closing.
    Fin(Side),
    /// The other side's end arrived in this side's kernel.
    FinArrived(Side),
    /// This side sent a reset; whether it arrives is another matter.
    Reset(Side, Why),
    /// A reset of the other side arrived in this side's kernel.
    ResetArrived(Side),
    /// A middlebox's reset arrived in this side's kernel.
    ResetByNetwork(Side),
    /// This side's user timeout, or its patience as a client, ran out.
    TimedOut {
        /// The side that gave up.
        side: Side,
        /// Since when its oldest bytes had been unacknowledged or without room.
        since: Instant,
    },
    /// From here on nothing passes in this direction.
    Blocked(Direction),
    /// The block of this direction was lifted.
    Repaired(Direction),
    /// Nothing arrives in this direction for so long.
    Stalled(Direction, Duration),
    /// The host of this side lost power.
    Vanished(Side),
    /// The host of this side came back, without any memory of the connection.
    Revived(Side),
    /// The connection was cut at the byte that was asked for.
    Cut(Direction, Cut),
    /// A connection that a middlebox had forgotten passes again.
    CutRepaired,
}

/// The truth about one connection.
#[derive(Clone, Debug)]
pub struct Fate {
    /// The address of the end that dialled, as the server sees it.
    pub client: SocketAddr,
    /// The address that was dialled.
    pub server: SocketAddr,
    /// What happened, in order.
    pub happenings: Vec<(Instant, Happening)>,
    /// How many bytes of the client arrived in the server's kernel.
    pub arrived_at_server: u64,
    /// How many bytes of the server arrived in the client's kernel.
    pub arrived_at_client: u64,
    /// Since when the client's oldest bytes are unacknowledged or without room.
    pub client_unacked_since: Option<Instant>,
    /// Since when the server's oldest bytes are unacknowledged or without room.
    pub server_unacked_since: Option<Instant>,
    /// Whether both ends have closed and both kernels have forgotten the connection.
    pub over: bool,
}

impl Fate {
    pub(super) fn between(client: SocketAddr, server: SocketAddr) -> Fate {
        Fate {
            client,
            server,
            happenings: Vec::new(),
            arrived_at_server: 0,
            arrived_at_client: 0,
            client_unacked_since: None,
            server_unacked_since: None,
            over: false,
        }
    }

    /// When something of this kind first happened.
    pub fn first(&self, is: impl Fn(&Happening) -> bool) -> Option<Instant> {
        self.happenings.iter().find(|(_, happening)| is(happening)).map(|(at, _)| *at)
    }

    /// When exactly this first happened.
    pub fn when(&self, happening: Happening) -> Option<Instant> {
        self.first(|other| *other == happening)
    }

    /// Since when `direction` has been blocked, as seen at `at`; `None` if it was open.
    pub fn blocked_since(&self, direction: Direction, at: Instant) -> Option<Instant> {
        self.happenings.iter().take_while(|(when, _)| *when <= at).fold(None, |since, (when, happening)| {
            match happening {
                Happening::Blocked(other) if *other == direction => since.or(Some(*when)),
                Happening::Repaired(other) if *other == direction => None,
                _ => since,
            }
        })
    }
}

/// Something that each side has one of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Both<T>(pub(super) [T; 2]);

impl<T> Index<Side> for Both<T> {
    type Output = T;

    fn index(&self, side: Side) -> &T {
        &self.0[side as usize]
    }
}

impl<T> IndexMut<Side> for Both<T> {
    fn index_mut(&mut self, side: Side) -> &mut T {
        &mut self.0[side as usize]
    }
}
