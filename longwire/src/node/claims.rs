//! Which session has a client's name, and links on their way to a session of another shard.
//!
//! A client that gives itself a name (`?client=device-42`) claims it when it connects, as the user that it proves to
//! be then: whoever is the same user with the same name may take the session over. Where the backend makes the session
//! another user's, the claim follows: whoever was the user before finds none. All anonymous clients are one user here, so
//! whoever knows the name of an anonymous client may take its session over. What must stay true: a user's name has
//! one session at a time, for as long as its [`Claim`] lives and no other took it; no more sessions are away than there
//! may be connections, in all and of one address, so that nobody who comes and goes leaves no room for others.

use super::Arrival;
use super::limits::{Place, network_of};
use super::session_name::SessionPlace;
use crate::env::net::Accepted;
use bytes::Bytes;
use foldhash::quality::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use longwire_protocol::Connection;
use longwire_protocol::command::Connect;
use longwire_protocol::message::ClientId;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The names that are taken.
pub struct Claims(Arc<Shared>);

struct Shared {
    holders: Mutex<Holders>,
    away: AtomicUsize,
    max_away: usize,
    away_of: Mutex<HashMap<IpAddr, usize, RandomState>>,
    max_away_per_ip: usize,
}

#[derive(Default)]
struct Holders {
    by_key: HashMap<Key, Holder, RandomState>,
    /// How many users have a client of that name.
    names: HashMap<Arc<str>, usize, RandomState>,
}

/// A user and a client's name.
type Key = (Arc<str>, Arc<str>);

/// A session that has a name.
struct Holder {
    place: SessionPlace,
    is_away: Arc<AtomicBool>,
}

/// A name that a session has, unless another took it; dropped, it is free.
pub struct Claim {
    shared: Arc<Shared>,
    key: Key,
    place: SessionPlace,
    is_away: Arc<AtomicBool>,
}

/// Another session has the name, and its client is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InUse;

/// A place among the sessions that are away; given back when it is dropped.
pub struct AwayPlace {
    shared: Arc<Shared>,
    /// Whose, unless that is not counted.
    network: Option<IpAddr>,
}

/// A link whose client has a session already, on its way there.
pub struct Returning {
    /// Where the session is, or was.
    pub holder: SessionPlace,
    /// The id that the client gets if the session is gone.
    pub client: ClientId,
    /// The link's state; its connect command was taken out of it.
    pub connection: Connection,
    /// The socket, which belongs to no thread.
    pub socket: Accepted,
    /// The other end.
    pub peer: SocketAddr,
    /// The link's place among all connections.
    pub place: Place,
    /// Bytes that are not written yet.
    pub unsent: Vec<Bytes>,
    /// Bytes that came behind the connect command.
    pub held: Vec<u8>,
    /// Headers of its request that a backend is to get.
    pub headers: Box<[(String, String)]>,
    /// The number of the connect command.
    pub id: u32,
    /// The connect command.
    pub connect: Connect,
    /// Who the client is.
    pub arrival: Arrival,
    /// It named the session as only its client can.
    pub is_proven: bool,
}

/// What is sent in a letter that is copied, and taken out once.
pub struct Parcel<T>(Arc<Mutex<Option<T>>>);

impl Claims {
    /// No names; at most so many sessions may be away, in all and of clients of one address.
    pub fn new(max_away: usize, max_away_per_ip: usize) -> Claims {
        Claims(Arc::new(Shared {
            holders: Mutex::default(),
            away: AtomicUsize::new(0),
            max_away,
            away_of: Mutex::default(),
            max_away_per_ip,
        }))
    }

    /// Takes a user's name for the session at `place`.
    ///
    /// # Errors
    /// Where the session is that has the name.
    pub fn claim(&self, user: &Arc<str>, name: &str, place: SessionPlace) -> Result<Claim, SessionPlace> {
        let key: Key = (user.clone(), name.into());
        let mut holders = self.0.lock();
        if let Some(holder) = holders.by_key.get(&key) {
            return Err(holder.place);
        }
        let is_away = Arc::<AtomicBool>::default();
        holders.insert(key.clone(), Holder { place, is_away: is_away.clone() });
        drop(holders);
        Ok(Claim { shared: self.0.clone(), key, place, is_away })
    }

    /// Whether any user has a client of that name.
    pub fn is_taken(&self, name: &str) -> bool {
        self.0.lock().names.contains_key(name)
    }

    /// How many names are taken.
    pub fn len(&self) -> usize {
        self.0.lock().by_key.len()
    }

    /// Whether no name is taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a place for a session that goes away, whose client is at `ip`; `None` if there are as many as may be.
    /// Loopback is exempt from the limit of one address, as it is for connections.
    pub fn keep(&self, ip: IpAddr) -> Option<AwayPlace> {
        let shared = &self.0;
        let network = Some(network_of(ip)).filter(|_| !ip.to_canonical().is_loopback());
        if let Some(network) = network {
            let mut away_of = shared.away_of();
            let count = away_of.entry(network).or_insert(0);
            if *count >= shared.max_away_per_ip {
                return None;
            }
            *count += 1;
        }
        let is_full = shared.away.fetch_add(1, Ordering::Relaxed) >= shared.max_away;
        // If there is no room for it, it is given back at once.
        let place = AwayPlace { shared: shared.clone(), network };
        (!is_full).then_some(place)
    }
}

impl Holders {
    /// Gives a name to a session; the one that had it.
    fn insert(&mut self, key: Key, holder: Holder) -> Option<Holder> {
        let name = key.1.clone();
        let former = self.by_key.insert(key, holder);
        if former.is_none() {
            *self.names.entry(name).or_insert(0) += 1;
        }
        former
    }

    fn remove(&mut self, key: &Key) {
        if self.by_key.remove(key).is_none() {
            return;
        }
        if let Entry::Occupied(mut count) = self.names.entry(key.1.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Holders> {
        // Between the changes of both tables nothing panics.
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn away_of(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize, RandomState>> {
        self.away_of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The client's name.
    pub fn name(&self) -> &str {
        &self.key.1
    }

    /// Whose name it is.
    pub fn user(&self) -> &Arc<str> {
        &self.key.0
    }

    /// Notes whether the client is away.
    pub fn note_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }

    /// Takes the same name of another user in the place of this one, from whichever session has it: where that is, which
    /// is to be ended. Of a client that is there only if `may_replace`.
    ///
    /// # Errors
    /// [`InUse`]; nothing has changed then.
    pub fn move_to(&mut self, user: &Arc<str>, may_replace: bool) -> Result<Option<SessionPlace>, InUse> {
        if self.key.0 == *user {
            return Ok(None);
        }
        let key: Key = (user.clone(), self.key.1.clone());
        let mut holders = self.shared.lock();
        let is_there = |holder: &Holder| !holder.is_away.load(Ordering::Relaxed);
        if !may_replace && holders.by_key.get(&key).is_some_and(is_there) {
            return Err(InUse);
        }
        let holder = Holder { place: self.place, is_away: self.is_away.clone() };
        let former = holders.insert(key.clone(), holder);
        let before = std::mem::replace(&mut self.key, key);
        self.give_back(&mut holders, &before);
        Ok(former.map(|former| former.place))
    }

    fn give_back(&self, holders: &mut Holders, key: &Key) {
        if holders.by_key.get(key).is_some_and(|holder| holder.place == self.place) {
            holders.remove(key);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.give_back(&mut self.shared.lock(), &self.key);
    }
}

impl Drop for AwayPlace {
    fn drop(&mut self) {
        self.shared.away.fetch_sub(1, Ordering::Relaxed);
        let Some(network) = self.network else { return };
        if let Entry::Occupied(mut count) = self.shared.away_of().entry(network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claim").field(&self.key).finish()
    }
}

impl fmt::Debug for AwayPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwayPlace")
    }
}

impl<T> Parcel<T> {
    /// Packs something.
    pub fn new(content: T) -> Parcel<T> {
        Parcel(Arc::new(Mutex::new(Some(content))))
    }

    /// Takes it out; `None` if somebody did.
    pub fn open(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<T> Clone for Parcel<T> {
    fn clone(&self) -> Parcel<T> {
        Parcel(self.0.clone())
    }
}

impl<T> fmt::Debug for Parcel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parcel")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(index: u32) -> SessionPlace {
        SessionPlace { shard: 0, index, generation: 1 }
    }

    #[test]
    fn a_name_has_one_session_of_each_user_until_it_is_given_back() {
        let claims = Claims::new(1, 1);
        let (one, other): (Arc<str>, Arc<str>) = ("1".into(), "2".into());
        let claim = claims.claim(&one, "phone", place(1)).unwrap();
        assert_eq!(claims.claim(&one, "phone", place(2)).err(), Some(place(1)));
        let elsewhere =
            (claims.claim(&one, "tablet", place(3)).unwrap(), claims.claim(&other, "phone", place(4)));
        assert_eq!(claim.name(), "phone");
        drop(claim);
        assert!(claims.claim(&one, "phone", place(2)).is_ok());
        assert!(claims.is_taken("phone") && claims.is_taken("tablet") && !claims.is_taken("tv"));
        drop(elsewhere);
        assert!(!claims.is_taken("phone") && !claims.is_taken("tablet"));
    }

    #[test]
    fn a_claim_follows_its_user_and_takes_the_name_from_whoever_has_it() {
        let claims = Claims::new(1, 1);
        let (nobody, user): (Arc<str>, Arc<str>) = ("".into(), "42".into());
        let former = claims.claim(&user, "phone", place(1)).unwrap();
        let mut claim = claims.claim(&nobody, "phone", place(2)).unwrap();
        assert_eq!(claim.move_to(&user, false), Err(InUse));
        assert_eq!(claims.claim(&nobody, "phone", place(3)).err(), Some(place(2)), "nothing has changed");
        former.note_away(true);
        assert_eq!(claim.move_to(&user, false), Ok(Some(place(1))));
        assert_eq!((claim.move_to(&user, false), &**claim.user()), (Ok(None), "42"));
        // What it had before is free, and what it has is not given back by whoever had it.
        drop(former);
        assert_eq!(claims.claim(&user, "phone", place(3)).err(), Some(place(2)));
        let mut next = claims.claim(&nobody, "phone", place(4)).unwrap();
        assert_eq!(next.move_to(&user, true), Ok(Some(place(2))));
        drop((claim, next));
        assert!(claims.is_empty() && !claims.is_taken("phone"));
    }

    #[test]
    fn no_more_sessions_are_away_than_there_may_be() {
        let ip = IpAddr::from([192, 0, 2, 7]);
        let claims = Claims::new(1, 9);
        let first = claims.keep(ip);
        assert!(first.is_some() && claims.keep(ip).is_none());
        drop(first);
        assert!(claims.keep(ip).is_some());
    }

    #[test]
    fn clients_of_one_address_leave_room_for_others() {
        let claims = Claims::new(4, 2);
        let keep = |ip: &str| claims.keep(ip.parse().unwrap());
        let (first, _second) = (keep("192.0.2.7"), keep("::ffff:192.0.2.7"));
        assert!(keep("192.0.2.7").is_none() && first.is_some());
        let _network = (keep("2001:db8::1"), keep("2001:db8::2"));
        assert!(keep("2001:db8::3").is_none(), "a /64 is one");
        assert!(keep("192.0.2.8").is_none(), "four are away");
        drop(first);
        assert!(keep("192.0.2.7").is_some());
        assert_eq!(claims.0.away_of().len(), 2, "who has nothing away is not remembered");
        let _proxied = (keep("127.0.0.1"), claims.0.away_of().len());
        assert_eq!(claims.0.away.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn a_parcel_is_opened_once_however_often_its_letter_is_copied() {
        let parcel = Parcel::new(7);
        let copy = parcel.clone();
        assert_eq!((copy.open(), parcel.open()), (Some(7), None));
    }
}
