//! When users were here last who left.
//!
//! Who is here is known to the shards; here is only what they cannot know any more. The anonymous user is nobody.
//! What must stay true: at most so many users are remembered; where more left, who left longest ago is
//! forgotten and counts as never seen.

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Users that are remembered.
const MAX_USERS: usize = 100_000;

/// When users left.
pub(super) struct Departures {
    table: Mutex<Table>,
    max_users: usize,
}

#[derive(Default)]
struct Table {
    users: HashMap<Arc<str>, Departure, RandomState>,
    /// All of them by age.
    ages: BTreeMap<u64, Arc<str>>,
    /// The age of the next; grows.
    next: u64,
}

struct Departure {
    age: u64,
    last_seen: i64,
}

impl Default for Departures {
    fn default() -> Departures {
        Departures { table: Mutex::default(), max_users: MAX_USERS }
    }
}

impl Departures {
    /// Notes that a connection of a user ended, who was heard last at a time in seconds since 1970.
    pub(super) fn note(&self, user: &Arc<str>, last_seen: i64) {
        if user.is_empty() {
            return;
        }
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let table = &mut *table;
        let age = table.next;
        table.next += 1;
        let before = table.users.insert(user.clone(), Departure { age, last_seen });
        if let Some(before) = before {
            table.ages.remove(&before.age);
            if before.last_seen > last_seen {
                table.users.insert(user.clone(), Departure { age, last_seen: before.last_seen });
            }
        } else if table.users.len() > self.max_users
            && let Some((_, oldest)) = table.ages.pop_first()
        {
            table.users.remove(&oldest);
        }
        table.ages.insert(age, user.clone());
    }

    /// When a user was heard last on a connection that ended, in seconds since 1970; `None` if nobody knows.
    pub(super) fn last_seen(&self, user: &str) -> Option<i64> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.users.get(user).map(|departure| departure.last_seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_left_longest_ago_is_forgotten_first() {
        let departures = Departures { max_users: 2, ..Departures::default() };
        let leave = |user: &str, at| departures.note(&user.into(), at);
        leave("a", 1);
        leave("b", 2);
        leave("a", 3);
        leave("", 4);
        assert_eq!((departures.last_seen("a"), departures.last_seen("")), (Some(3), None));
        leave("c", 5);
        let seen = ["a", "b", "c"].map(|user| departures.last_seen(user));
        assert_eq!(seen, [Some(3), None, Some(5)]);
        // Of two connections, the one that was heard last counts, whichever ended last.
        leave("c", 4);
        assert_eq!(departures.last_seen("c"), Some(5));
        assert_eq!(departures.table.lock().unwrap().ages.len(), 2);
    }
}
