//! Settings of clients that speak STOMP, and of users who log in by name and passcode.
//!
//! What must stay true: a passcode is configured as a hash only, whose cost is bounded, and neither is ever shown.

use super::kind::{Form, Kind, SECRET, list, read_list};
use super::pattern;
use super::section::section;
use super::words::Anonymous;
use argon2::password_hash::phc::PasswordHash;
use longwire_protocol::stomp::Limits;
use std::time::Duration;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The hash of a passcode, which may be absent and which nobody may read.
pub(super) const PASSCODE: Kind<Option<String>> = Kind {
    name: "hash of a passcode",
    form: SECRET.form,
    read: |value| {
        let hash = (SECRET.read)(value)?;
        match hash.as_deref().map(check_hash) {
            Some(Err(problem)) => Err(problem.to_owned()),
            _ => Ok(hash),
        }
    },
    show: SECRET.show,
};

/// Patterns of STOMP's destinations.
pub(super) const DESTINATIONS: Kind<Vec<String>> = Kind {
    name: "list of destinations",
    form: Form::List,
    read: |value| {
        let what = "a destination such as \"/queue/orders.#\" or \"/topic/chat:*\", with `#` at its end alone, or \"#\"";
        read_list(value, what, |text| is_destination(text).then(|| text.to_owned()))
    },
    show: |destinations| Some(list(destinations.iter().cloned())),
};

/// Names of hosts, and what stands before the names of those who are there.
pub(super) const VIRTUAL_HOSTS: Kind<Vec<(String, String)>> = Kind {
    name: "list of hosts and prefixes",
    form: Form::List,
    read: |value| {
        read_list(value, "a host and a prefix of names, such as \"shop=shop.\"", |text| {
            let (host, prefix) = text.split_once('=')?;
            let is_fine = !host.is_empty() && !text.contains(char::is_control) && prefix.len() <= 100;
            is_fine.then(|| (host.to_owned(), prefix.to_owned()))
        })
    },
    show: |hosts| Some(list(hosts.iter().map(|(host, prefix)| format!("{host}={prefix}")))),
};

section! {
    /// Clients that speak STOMP, on listeners with the protocol `stomp` and over WebSocket; docs/stomp.md says what they
    /// find. Time until they must have connected, limits of channels and rates are those of `[client]`.
    pub struct Stomp {
        /// Who may connect without login and passcode, as the anonymous user: `loopback`, clients on this machine,
        /// by `server.trusted_proxies` where a proxy asks for them; `always`, everybody; `never`, nobody. What they may do there `allow_*_for_anonymous` says.
        pub anonymous: Anonymous = ANONYMOUS(Anonymous::Loopback),
        /// Virtual hosts, each `HOST=PREFIX`: whoever connects with that `host` header has the prefix before the names of
        /// all its channels and queues, such as `shop=shop.`. Any other host has no prefix.
        pub virtual_hosts: Vec<(String, String)> = VIRTUAL_HOSTS(Vec::new()),
        /// Size of the frame that connects.
        pub max_login_bytes: usize = SIZE(64 * KIB),
        /// Size of one header.
        pub max_line_bytes: usize = SIZE(16 * KIB),
        /// Headers of one frame.
        pub max_headers: usize = LIMIT(128),
        /// Size of a frame's command and headers together.
        pub max_head_bytes: usize = SIZE(64 * KIB),
        /// Size of a frame's body.
        pub max_body_bytes: usize = SIZE(16 * MIB),
        /// Subscriptions of one connection, to queues and to channels; of channels, `client.max_subscriptions` holds, too.
        pub max_subscriptions: usize = LIMIT(4096),
        /// Transactions of one connection that are open.
        pub max_transactions: usize = LIMIT(64),
        /// Frames in one transaction.
        pub max_transaction_actions: usize = LIMIT(4096),
        /// Size of all open transactions of one connection.
        pub max_transaction_bytes: usize = SIZE(64 * MIB),
        /// Frames of one connection a second, sustained; beyond, it is closed. 0 means no limit: who sends more than
        /// queues take is slowed down.
        pub commands_per_second: usize = COUNT(0),
        /// Frames of one connection at once, above the sustained rate.
        pub command_burst: usize = LIMIT(1000),
        /// The shortest interval of signs of life that is agreed upon (`heart-beat`): at least 1 s.
        pub shortest_heartbeat: Duration = INTERVAL(Duration::from_secs(1)),
        /// The longest interval of signs of life that clients are asked for.
        pub longest_heartbeat: Duration = INTERVAL(Duration::from_secs(300)),
    }
}

impl Stomp {
    /// What a client may make grow.
    pub fn limits(&self) -> Limits {
        Limits {
            max_login_bytes: self.max_login_bytes,
            max_line_bytes: self.max_line_bytes,
            max_headers: self.max_headers,
            max_head_bytes: self.max_head_bytes,
            max_body_bytes: self.max_body_bytes,
            max_subscriptions: self.max_subscriptions,
            max_transactions: self.max_transactions,
            max_transaction_actions: self.max_transaction_actions,
            max_transaction_bytes: self.max_transaction_bytes,
            shortest_heartbeat: self.shortest_heartbeat,
            longest_heartbeat: self.longest_heartbeat,
        }
    }
}

section! {
    /// What one user may do, beside what every client may, and how it logs in by name and passcode (STOMP's `login` and
    /// `passcode`). Whoever a token or the connect webhook says is this user has the same rights.
    ///
    /// Destinations are patterns as those of `[queues."PATTERN"]` behind `/queue/` or `/topic/`, such as
    /// `/queue/orders.#` and `/topic/chat:*`; `#` alone is everything.
    pub struct User {
        /// The hash of the passcode, which `longwire passcode` makes (argon2). Without it nobody logs in as this user.
        pub passcode: Option<String> = PASSCODE(None),
        /// Destinations that it may send to.
        pub send: Vec<String> = DESTINATIONS(Vec::new()),
        /// Destinations that it may subscribe to: consume queues, and get what is published in channels.
        pub subscribe: Vec<String> = DESTINATIONS(Vec::new()),
        /// Destinations with which it may do everything, such as to give up a durable subscription of others.
        pub admin: Vec<String> = DESTINATIONS(Vec::new()),
    }
}

/// What [`User`]'s patterns are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination<'a> {
    /// A queue.
    Queue(&'a str),
    /// A channel.
    Channel(&'a str),
}

impl Destination<'_> {
    fn is_one_of(self, patterns: &[String]) -> bool {
        let (prefix, name) = match self {
            Destination::Queue(name) => ("/queue/", name),
            Destination::Channel(name) => ("/topic/", name),
        };
        let fits = |text: &String| match text.strip_prefix(prefix) {
            Some(pattern) => pattern::fits(pattern, name),
            None => text == "#",
        };
        patterns.iter().any(fits)
    }
}

impl User {
    /// Whether it may send there.
    pub fn may_send(&self, destination: Destination<'_>) -> bool {
        destination.is_one_of(&self.send) || destination.is_one_of(&self.admin)
    }

    /// Whether it may subscribe to it.
    pub fn may_subscribe(&self, destination: Destination<'_>) -> bool {
        destination.is_one_of(&self.subscribe) || destination.is_one_of(&self.admin)
    }

    /// Whether it may do everything with it.
    pub fn may_administer(&self, destination: Destination<'_>) -> bool {
        destination.is_one_of(&self.admin)
    }
}

/// Whether a text may stand in a list of a user's destinations.
pub(super) fn is_destination(text: &str) -> bool {
    let pattern = text.strip_prefix("/queue/").or_else(|| text.strip_prefix("/topic/"));
    text == "#" || pattern.is_some_and(pattern::is_pattern)
}

/// The most memory that verifying a passcode may take, in KiB, and the most passes over it: above, logins would be what
/// the server does.
const MAX_COST: (u32, u32) = (256 << 10, 16);

/// Looks whether a text is a hash that passcodes can be verified with.
///
/// # Errors
/// What it must be.
pub(super) fn check_hash(text: &str) -> Result<(), &'static str> {
    let hash = PasswordHash::new(text).map_err(|_| "must be a hash that `longwire passcode` made")?;
    let is_argon2 = argon2::Algorithm::try_from(hash.algorithm.as_str()).is_ok();
    let params = argon2::Params::try_from(&hash);
    match params {
        Ok(params) if is_argon2 && hash.hash.is_some() && hash.salt.is_some() => {
            let (memory, passes) = MAX_COST;
            let is_cheap = params.m_cost() <= memory && params.t_cost() <= passes;
            is_cheap.then_some(()).ok_or("must cost at most 256 MiB and 16 passes")
        }
        _ => Err("must be a hash of argon2 with its salt, such as `longwire passcode` makes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_for_the_kind_of_destination_that_they_name() {
        let user = User {
            send: vec!["/queue/a.*".to_owned()],
            subscribe: vec!["/topic/chat:#".to_owned()],
            admin: vec!["/queue/mine".to_owned()],
            ..User::default()
        };
        assert!(user.may_send(Destination::Queue("a.b")) && !user.may_send(Destination::Channel("a.b")));
        assert!(!user.may_subscribe(Destination::Queue("a.b")));
        assert!(user.may_subscribe(Destination::Channel("chat:x.y")));
        assert!(!user.may_subscribe(Destination::Queue("chat:x.y")));
        let mine = Destination::Queue("mine");
        assert!(user.may_send(mine) && user.may_subscribe(mine) && user.may_administer(mine));
        let all = User { admin: vec!["#".to_owned()], ..User::default() };
        assert!(
            all.may_send(Destination::Channel("any.thing")) && all.may_administer(Destination::Queue("x"))
        );
        assert!(!User::default().may_send(mine));
    }

    #[test]
    fn what_is_not_configured_is_what_the_protocol_says() {
        assert_eq!(Stomp::default().limits(), Limits::default());
    }

    #[test]
    fn only_a_hash_of_argon2_that_is_cheap_enough_verifies_passcodes() {
        let hash = |params: &str| {
            format!("$argon2id$v=19${params}$c2FsdHNhbHRzYWx0$c29tZWhhc2hzb21laGFzaHNvbWVoYXNo")
        };
        assert_eq!(check_hash(&hash("m=19456,t=2,p=1")), Ok(()));
        for bad in [
            "",
            "secret",
            "$argon2id$v=19$m=19456,t=2,p=1",
            "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0",
            "$2b$12$abcdefghijklmnopqrstuvABCDEFGHIJKLMNOPQRSTUV0123456789abc",
            "$scrypt$ln=16,r=8,p=1$c2FsdHNhbHRzYWx0$c29tZWhhc2hzb21laGFzaHNvbWVoYXNo",
            &hash("m=4194304,t=2,p=1"),
            &hash("m=19456,t=1000,p=1"),
        ] {
            assert!(check_hash(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_destination_names_its_kind() {
        for text in ["#", "/queue/a", "/topic/#", "/queue/a/b.*"] {
            assert!(is_destination(text), "{text}");
        }
        for text in ["", "a", "*", "/queue/", "/exchange/a", "/queue/#.a", "queue/a"] {
            assert!(!is_destination(text), "{text}");
        }
    }
}
