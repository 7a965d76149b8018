//! The names of sessions: by them a client's further requests, and the backend's calls, find a connection.
//!
//! A name says where the session is (shard, place, generation) and proves that the server gave it away: it ends
//! with a code that nobody else can make. So nothing is kept for it but how often it changed, and whoever knows the
//! latest may speak for the client, and take its session over. It says nothing about who the client is.

use aws_lc_rs::hmac;
use longwire_protocol::message::ClientId;

/// How much of the authentication code stands in a name: 128 bits cannot be guessed.
const CODE_BYTES: usize = 16;

/// The key that proves names.
pub struct SessionNames(hmac::Key);

/// Where a session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionPlace {
    /// The number of its shard.
    pub shard: u32,
    /// Its place there.
    pub index: u32,
    /// Which of those that had the place it is.
    pub generation: u32,
}

impl SessionNames {
    /// Makes a key of `random` bits.
    pub fn new(random: [u128; 2]) -> SessionNames {
        let bytes: Vec<u8> = random.iter().flat_map(|bits| bits.to_be_bytes()).collect();
        SessionNames(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
    }

    /// The name of the session of `client` after it changed `changes` times.
    pub fn name(&self, place: SessionPlace, client: ClientId, changes: u32) -> String {
        let SessionPlace { shard, index, generation } = place;
        let mut name = format!("{shard}-{index}-{generation}-");
        let code = hmac::sign(&self.0, format!("{name}{client}-{changes}").as_bytes());
        for byte in &code.as_ref()[..CODE_BYTES] {
            name.push_str(&format!("{byte:02x}"));
        }
        name
    }

    /// Whether `name` is that of the session of `client` after it changed `changes` times, compared in constant time.
    pub fn is_name(&self, name: &str, place: SessionPlace, client: ClientId, changes: u32) -> bool {
        let expected = self.name(place, client, changes);
        aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_bytes(), name.as_bytes()).is_ok()
    }
}

impl SessionPlace {
    /// Where a name says that its session is; `None` for what is no name. Whether it is there is for
    /// [`SessionNames::is_name`] to say.
    pub fn of_name(name: &str) -> Option<SessionPlace> {
        let mut parts = name.splitn(4, '-');
        let mut number = || parts.next()?.parse().ok();
        Some(SessionPlace { shard: number()?, index: number()?, generation: number()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_its_session_and_to_no_other() {
        let names = SessionNames::new([1, 2]);
        let place = SessionPlace { shard: 1, index: 20, generation: 300 };
        let name = names.name(place, ClientId(7), 2);
        assert_eq!(SessionPlace::of_name(&name), Some(place));
        assert!(names.is_name(&name, place, ClientId(7), 2));
        assert!(!names.is_name(&name, place, ClientId(7), 1), "an earlier one");
        assert!(!names.is_name(&name, place, ClientId(8), 2), "another client at the same place");
        assert!(!names.is_name(&name, SessionPlace { generation: 301, ..place }, ClientId(7), 2));
        assert!(!names.is_name(&name[..name.len() - 1], place, ClientId(7), 2));
        assert!(!SessionNames::new([1, 3]).is_name(&name, place, ClientId(7), 2), "another server's");
    }

    #[test]
    fn what_is_no_name_leads_nowhere() {
        for text in ["", "1", "1-2", "1-2-", "x-2-3-ff", "1-2--3", "-1-2-3", "99999999999-1-1-ff"] {
            assert_eq!(SessionPlace::of_name(text), None, "{text:?}");
        }
    }
}
