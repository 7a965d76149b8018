//! The only door to the outside: clock, network, disk, memory, chance.
//!
//! Everything that longwire learns from or does to the machine passes through one of these modules,
//! so that a simulator can stand in for them; `tests/it/tidy.rs` refuses the calls anywhere else. Nothing
//! here decides anything about clients, channels or protocols.

pub mod clock;
pub mod disk;
pub mod http;
pub mod memory;
pub mod net;
pub mod rng;

pub use clock::Clock;
pub use disk::Disk;
pub use http::Http;
pub use memory::Memory;
pub use net::Net;
pub use rng::Rng;

/// The outside world, passed down from `main`.
#[derive(Clone)]
pub struct Env {
    /// Time.
    pub clock: Clock,
    /// Sockets.
    pub net: Net,
    /// Files.
    pub disk: Disk,
    /// Calls to other servers.
    pub http: Http,
    /// How much memory is left.
    pub memory: Memory,
    /// Chance.
    pub rng: Rng,
}

impl Env {
    /// What the system has, and real chance.
    pub fn system() -> Env {
        Env {
            clock: Clock::system(),
            net: Net::system(),
            disk: Disk::system(),
            http: Http::system(),
            memory: Memory::system(),
            rng: Rng::system(),
        }
    }
}
