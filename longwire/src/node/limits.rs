//! How many connections there may be: in all, from one address, of one user.
//!
//! A place is taken before a connection is served and given back when its [`Place`] is dropped, so no path
//! can forget to. While memory is short, the number of connections may not grow. Loopback addresses are exempt (a
//! reverse proxy on the same host would look like one client), and so is the anonymous user. Whoever has one IPv6
//! address mostly has all of a /64, so these count as one.

use crate::config::Config;
use foldhash::quality::RandomState;
use hashbrown::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// From this share of the memory limit on, the number of connections may not grow.
const MEMORY_FULL_PERCENT: u32 = 80;

/// From this share of the memory limit on, the slowest readers are closed.
const MEMORY_SHED_PERCENT: u32 = 90;

/// The places that are taken.
pub struct Admissions {
    shared: Arc<Shared>,
}

struct Shared {
    serial: AtomicU32,
    total: AtomicUsize,
    max_total: usize,
    /// How many there may be while memory is short: as many as there were when it became so.
    ceiling: AtomicUsize,
    max_per_ip: usize,
    max_per_user: usize,
    by_ip: Mutex<HashMap<IpAddr, usize, RandomState>>,
    by_user: Mutex<HashMap<Arc<str>, usize, RandomState>>,
}

/// A place among all connections, and, once known, among those of an address and of a shard.
pub struct Place {
    shared: Arc<Shared>,
    /// When it was taken or renewed, in the order of all places. It turns over.
    serial: u32,
    ip: Option<IpAddr>,
    load: Option<Arc<AtomicUsize>>,
    /// By which of the listeners, by its number in `Config::listeners`, the connection came.
    pub listener: u16,
    /// Whether a proxy stands between that does not say, or is not believed, for whom it asks: the address is the proxy's.
    pub is_hidden: bool,
}

/// A place among the connections of a user.
pub struct UserPlace {
    shared: Arc<Shared>,
    user: Arc<str>,
}

/// Which limit stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The limit of the process.
    Total,
    /// The limit of the address.
    Address,
}

impl Admissions {
    /// The limits of `config`.
    pub fn new(config: &Config) -> Admissions {
        Admissions {
            shared: Arc::new(Shared {
                serial: AtomicU32::new(0),
                total: AtomicUsize::new(0),
                max_total: config.server.max_connections,
                ceiling: AtomicUsize::new(usize::MAX),
                max_per_ip: config.server.max_connections_per_ip,
                max_per_user: config.client.max_connections_per_user,
                by_ip: Mutex::default(),
                by_user: Mutex::default(),
            }),
        }
    }

    /// Takes a place for a connection.
    ///
    /// # Errors
    /// [`Full::Total`].
    pub fn admit(&self) -> Result<Place, Full> {
        let shared = &self.shared;
        let max = shared.max_total.min(shared.ceiling.load(Ordering::Relaxed));
        if shared.total.fetch_add(1, Ordering::Relaxed) >= max {
            shared.total.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Total);
        }
        Ok(Place {
            shared: shared.clone(),
            serial: shared.next_serial(),
            ip: None,
            load: None,
            listener: 0,
            is_hidden: false,
        })
    }

    /// Takes a place for a connection of `user`; `Ok(None)` for a user who is not counted.
    ///
    /// # Errors
    /// `()` if the user has as many as allowed.
    #[expect(clippy::result_unit_err, reason = "there is one limit, so there is nothing to tell")]
    pub fn admit_user(&self, user: &Arc<str>) -> Result<Option<UserPlace>, ()> {
        let shared = &self.shared;
        if user.is_empty() {
            return Ok(None);
        }
        let mut by_user = shared.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_user.entry(user.clone()).or_insert(0);
        if shared.max_per_user > 0 && *count >= shared.max_per_user {
            return Err(());
        }
        *count += 1;
        Ok(Some(UserPlace { shared: shared.clone(), user: user.clone() }))
    }

    /// How many connections a user has; none for a user who is not counted.
    pub fn connections_of(&self, user: &str) -> usize {
        let by_user = self.shared.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        by_user.get(user).copied().unwrap_or(0)
    }

    /// How many users have connections; the anonymous one is nobody.
    pub fn users(&self) -> usize {
        self.shared.by_user.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Notes how much of the memory is in use.
    ///
    /// Above the mark no more connections are let in than there are; those that leave make room, although an
    /// allocator seldom gives their memory back. True if memory is so short that slow readers have to go.
    pub fn note_memory(&self, used_percent: u32) -> bool {
        let (ceiling, open) = (&self.shared.ceiling, self.open());
        if used_percent < MEMORY_FULL_PERCENT {
            ceiling.store(usize::MAX, Ordering::Relaxed);
        } else if ceiling.fetch_min(open, Ordering::Relaxed) == usize::MAX {
            tracing::warn!(
                used_percent,
                connections = open,
                "memory is short: no more connections than there are"
            );
        }
        used_percent >= MEMORY_SHED_PERCENT
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.shared.total.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn next_serial(&self) -> u32 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }
}

impl Place {
    /// Whether it was taken, or renewed, later than another.
    pub fn is_later_than(&self, other: &Place) -> bool {
        // Of what is there together nothing is two thousand million connections older.
        (self.serial.wrapping_sub(other.serial) as i32) > 0
    }

    /// Notes that the connection begins something new, as if it had been opened at this moment.
    pub fn renew(&mut self) {
        self.serial = self.shared.next_serial();
    }

    /// Counts the connection among those of `ip`, the client's own address, and of no other any more.
    ///
    /// # Errors
    /// [`Full::Address`].
    pub fn count_address(&mut self, ip: IpAddr) -> Result<(), Full> {
        let ip = ip.to_canonical();
        if self.ip == Some(ip) {
            return Ok(());
        }
        if let Some(before) = self.ip.take() {
            give_back(&self.shared.by_ip, &network_of(before));
        }
        if ip.is_loopback() {
            return Ok(());
        }
        let mut by_ip = self.shared.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_ip.entry(network_of(ip)).or_insert(0);
        if *count >= self.shared.max_per_ip {
            return Err(Full::Address);
        }
        *count += 1;
        self.ip = Some(ip);
        Ok(())
    }

    /// The client's own address, where it is known and not a loopback one.
    pub fn address(&self) -> Option<IpAddr> {
        self.ip
    }

    /// Counts the connection in `load`, and in no other load any more.
    pub fn weigh_on(&mut self, load: Arc<AtomicUsize>) {
        load.fetch_add(1, Ordering::Relaxed);
        if let Some(before) = self.load.replace(load) {
            before.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(load) = &self.load {
            load.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(ip) = self.ip {
            give_back(&self.shared.by_ip, &network_of(ip));
        }
    }
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        give_back(&self.shared.by_user, &self.user);
    }
}

impl std::fmt::Debug for UserPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("UserPlace").field(&self.user).finish()
    }
}

/// What counts as one address: an IPv4 address, and of IPv6 the first 64 bits.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & !u128::from(u64::MAX)).into()),
        ip => ip,
    }
}

fn give_back<K: Eq + std::hash::Hash>(counts: &Mutex<HashMap<K, usize, RandomState>>, key: &K) {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admissions(total: usize, per_ip: usize, per_user: usize) -> Admissions {
        let mut config = Config::demo();
        config.server.max_connections = total;
        config.server.max_connections_per_ip = per_ip;
        config.client.max_connections_per_user = per_user;
        Admissions::new(&config)
    }

    #[test]
    fn a_dropped_place_is_free_again() {
        let admissions = admissions(2, 9, 9);
        let (a, _b) = (admissions.admit().ok(), admissions.admit().ok());
        assert_eq!(admissions.admit().err(), Some(Full::Total));
        drop(a);
        assert!(admissions.admit().is_ok());
    }

    #[test]
    fn the_later_of_two_places_is_known_until_the_other_is_renewed() {
        let admissions = admissions(9, 9, 9);
        admissions.shared.serial.store(u32::MAX, Ordering::Relaxed);
        let (mut first, second) = (admissions.admit().ok().unwrap(), admissions.admit().ok().unwrap());
        assert!(second.is_later_than(&first) && !first.is_later_than(&second));
        assert!(!first.is_later_than(&first));
        first.renew();
        assert!(first.is_later_than(&second) && !second.is_later_than(&first));
    }

    #[test]
    fn while_memory_is_short_only_those_who_leave_make_room() {
        let admissions = admissions(100, 9, 9);
        let mut places: Vec<_> = (0..3).map(|_| admissions.admit().ok()).collect();
        assert!(!admissions.note_memory(80));
        assert_eq!(admissions.admit().err(), Some(Full::Total));
        places.pop();
        places.push(admissions.admit().ok());
        assert!(places.iter().all(Option::is_some));
        assert!(admissions.note_memory(90), "above 90 % slow readers have to go");
        assert!(!admissions.note_memory(79));
        assert!(admissions.admit().is_ok());
    }

    #[test]
    fn one_address_cannot_take_every_place_but_loopback_may() {
        let admissions = admissions(100, 1, 9);
        let from = |ip: &str| {
            let mut place = admissions.admit().unwrap_or_else(|full| panic!("{full:?}"));
            place.count_address(ip.parse().unwrap()).map(|()| place)
        };
        let place = from("192.0.2.1");
        assert_eq!(from("192.0.2.1").err(), Some(Full::Address));
        assert!(from("192.0.2.2").is_ok());
        let _many: Vec<_> = (0..5).map(|_| from("127.0.0.1").ok().unwrap()).collect();
        drop(place);
        assert!(from("192.0.2.1").is_ok());
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_count_as_one() {
        let admissions = admissions(100, 1, 9);
        let from = |ip: &str| {
            let mut place = admissions.admit().unwrap_or_else(|full| panic!("{full:?}"));
            place.count_address(ip.parse().unwrap()).map(|()| place)
        };
        let place = from("2001:db8:0:1::1").ok().unwrap();
        assert_eq!(place.address(), Some("2001:db8:0:1::1".parse().unwrap()), "it is still known by its own");
        assert_eq!(from("2001:db8:0:1:ffff::2").err(), Some(Full::Address));
        assert!(from("2001:db8:0:2::1").is_ok());
        // An IPv4 address is one, however it is written.
        let _four = from("::ffff:192.0.2.1").ok().unwrap();
        assert_eq!(from("192.0.2.1").err(), Some(Full::Address));
        drop(place);
        assert!(from("2001:db8:0:1:ffff::2").is_ok());
    }

    #[test]
    fn a_moved_connection_weighs_on_one_shard_only() {
        let admissions = admissions(100, 1, 9);
        let (a, b): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let mut place = admissions.admit().ok().unwrap();
        place.weigh_on(a.clone());
        place.weigh_on(b.clone());
        assert_eq!((a.load(Ordering::Relaxed), b.load(Ordering::Relaxed)), (0, 1));
        drop(place);
        assert_eq!(b.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_user_has_so_many_connections_and_the_anonymous_one_any_number() {
        let admissions = admissions(100, 1, 1);
        let (user, anonymous): (Arc<str>, Arc<str>) = ("42".into(), "".into());
        let place = admissions.admit_user(&user).unwrap();
        assert!(admissions.admit_user(&user).is_err());
        assert_eq!((admissions.connections_of("42"), admissions.connections_of("7")), (1, 0));
        drop(place);
        assert_eq!(admissions.connections_of("42"), 0);
        assert!(admissions.admit_user(&user).is_ok());
        assert!(matches!(admissions.admit_user(&anonymous), Ok(None)));
    }
}
