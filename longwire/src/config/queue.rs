//! Settings of queues: what one may hold and who may use it, and what all of them together may take.
//!
//! [`QueueOptions`] are one queue's; [`QueueStore`] are the process's; [`QueueSettings`] finds a queue's options by its
//! name. Nothing here keeps a queue. What must stay true: each bound has a named consequence, and a queue's options
//! follow from its name alone.

use super::pattern;
use super::section::section;
use super::words::WhenFull;
use std::collections::BTreeMap;
use std::time::Duration;

const MIB: usize = 1 << 20;

section! {
    /// What queues hold and who may use them. `[queue]` holds for all queues, `[queues."PATTERN"]` for those whose name
    /// fits, and says what is different there. In a pattern `*` stands for any text without a dot, `#` at the end for any
    /// text: `jobs.*`, `orders.#`. Of several patterns that fit the one with the most other characters holds. Users have
    /// further rights of their own (`[users.NAME]`).
    pub struct QueueOptions {
        /// Most messages, those that wait for an acknowledgement included; then `when_full` decides.
        pub max_messages: usize = LIMIT(10_000_000),
        /// Most bytes of headers and bodies, those that wait for an acknowledgement included; then `when_full` decides.
        pub max_bytes: u64 = LARGE_SIZE(16 << 30),
        /// How long a message may wait before it is a dead letter; 0 for ever.
        pub max_age: Duration = DURATION(Duration::ZERO),
        /// What becomes of a message for which there is no room: `refuse`, whoever sends it is told; `drop_oldest`, the
        /// oldest that wait are dropped; `dead_letter`, the oldest that wait become dead letters.
        pub when_full: WhenFull = WHEN_FULL(WhenFull::Refuse),
        /// How often a message is delivered before it is a dead letter; 0 for no limit.
        pub max_deliveries: u32 = COUNT_32(20),
        /// The queue of dead letters; `{queue}` in it stands for the queue's name. Empty drops them.
        pub dead_letter_queue: String = TEXT("dead.{queue}".to_owned()),
        /// How long nobody is given a message that was given back.
        pub redelivery_delay: Duration = DURATION(Duration::ZERO),
        /// Deliveries that may wait for their acknowledgement at a consumer that does not say how many.
        pub prefetch: usize = LIMIT(100),
        /// The largest message, headers and body together; above, it is refused.
        pub max_message_bytes: usize = SIZE(17 * MIB),
        /// Clients may send to it.
        pub allow_send_for_client: bool = FLAG(false),
        /// Clients may consume it and look at it.
        pub allow_consume_for_client: bool = FLAG(false),
        /// Anonymous clients may send to it, too, if the former holds.
        pub allow_send_for_anonymous: bool = FLAG(false),
        /// Anonymous clients may consume it and look at it, too, if the former holds.
        pub allow_consume_for_anonymous: bool = FLAG(false),
    }
}

section! {
    /// What all queues together may take. Their messages are in `server.data_dir`.
    pub struct QueueStore {
        /// Most queues, temporary ones and those of durable subscriptions included; above, a further one is refused.
        pub max_queues: usize = LIMIT(10_000),
        /// Consumers of one session; above, a further one is refused.
        pub max_consumers_per_session: usize = LIMIT(1000),
        /// Commands in one transaction; above, it is refused.
        pub max_transaction: usize = LIMIT(4096),
        /// Memory for messages that are on the disk, too; the others are read back when they are delivered.
        pub cache_bytes: usize = SIZE_OR_ZERO(32 * MIB),
        /// Memory for messages that do not outlive the process; above, they are refused.
        pub max_transient_bytes: usize = SIZE(1024 * MIB),
        /// Size of one file of the store; a file's room is given back as a whole. At least 4 KiB; a 64th of the disk's size
        /// at most counts.
        pub max_segment_bytes: u64 = LARGE_SIZE(16 << 20),
        /// Room that is left on the disk: with less, no persistent message is taken, and what is there is still served.
        /// At most a tenth of the disk's size counts.
        pub min_free_disk: u64 = LARGE_SIZE(256 << 20),
        /// How long a queue is remembered that is empty and that nobody consumes.
        pub max_idle: Duration = TIMEOUT(Duration::from_secs(3600)),
        /// Start although messages on the disk are damaged, or of another version of longwire, without those that are
        /// lost.
        pub past_damage: bool = FLAG(false),
    }
}

/// Everything that is configured of queues.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct QueueSettings {
    /// What holds for queues that no pattern fits.
    pub options: QueueOptions,
    /// What holds for the queues whose names fit these patterns.
    pub named: BTreeMap<String, QueueOptions>,
    /// What holds for all together.
    pub store: QueueStore,
}

impl QueueSettings {
    /// The options of a queue.
    pub fn options_of(&self, queue: &str) -> &QueueOptions {
        if let Some(options) = self.named.get(queue) {
            return options;
        }
        let fitting = self.named.iter().filter(|(pattern, _)| pattern::fits(pattern, queue));
        // Of two with as many characters that stand for themselves the first by its text.
        let best = fitting.rev().max_by_key(|(pattern, _)| pattern::precision(pattern));
        best.map_or(&self.options, |(_, options)| options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources, load};
    use std::path::PathBuf;

    fn loaded(file: &str, flags: &[(&str, &str)]) -> Result<(Config, Sources), Vec<String>> {
        let file = Some((PathBuf::from("longwire.toml"), file.to_owned()));
        let flags: Vec<_> =
            flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        load(file, std::iter::empty(), &flags, 1_000_000, 1).map_err(|error| error.problems().to_vec())
    }

    const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$c29tZWhhc2hzb21laGFzaHNvbWVoYXNo";

    #[test]
    fn what_holds_for_all_queues_holds_for_those_that_are_named() {
        let file = "[queues.\"orders.#\"]\nmax_messages = 5\n[queue]\nwhen_full = \"drop_oldest\"\nprefetch = 7\n\
                    [queues.\"a \\\"b'\"]\nprefetch = 8\n[queues.plain]\n";
        let flags = [("queue.max-messages", "9"), ("queues.by.flag.max-age", "1h")];
        let (config, sources) = loaded(file, &flags).unwrap();
        let of = |queue: &str| {
            let options = config.queue_options(queue);
            (options.max_messages, options.when_full, options.prefetch, options.max_age.as_secs())
        };
        assert_eq!(of("orders.eu"), (5, WhenFull::DropOldest, 7, 0));
        assert_eq!(of("by.flag"), (9, WhenFull::DropOldest, 7, 3600));
        assert_eq!(of("a \"b'"), (9, WhenFull::DropOldest, 8, 0));
        assert_eq!(of("other"), (9, WhenFull::DropOldest, 7, 0));
        assert_eq!(loaded(&sources.to_string(), &[]).unwrap().0.queues, config.queues, "{sources}");
    }

    #[test]
    fn users_have_rights_and_no_passcode_that_anybody_sees() {
        let file = format!(
            "[users.ann]\npasscode = \"{HASH}\"\nsend = [\"/queue/a.*\"]\nadmin = [\"#\"]\n\
             [users.\"b@example.org\"]\nsubscribe = [\"/topic/news\"]\n\
             [stomp]\nvirtual_hosts = [\"shop=shop.\", \"/=\"]\nanonymous = \"never\""
        );
        let (config, sources) = loaded(&file, &[]).unwrap();
        assert_eq!(config.users["ann"].passcode.as_deref(), Some(HASH));
        assert_eq!(config.users["b@example.org"].passcode, None);
        assert_eq!(
            config.stomp.virtual_hosts,
            [("shop".into(), "shop.".into()), ("/".into(), String::new())]
        );
        let printed = sources.to_string();
        assert!(!printed.contains("argon2id") && !format!("{config:?}").contains("argon2id"), "{printed}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_place() {
        for (file, line, problem) in [
            ("[queues.\"a.#.b\"]\n", 1, "`#` at its end alone"),
            (
                "[queue]\nwhen_full = \"drop\"",
                2,
                "must be one of \"refuse\", \"drop_oldest\", \"dead_letter\"",
            ),
            ("[queue]\ndead_letter_queue = \"~x\"", 2, "cannot be the name of a queue"),
            (
                "[queue]\nallow_send_for_anonymous = true",
                2,
                "has no effect without `queue.allow_send_for_client`",
            ),
            ("[queues.ab]\nmax_mesages = 1", 2, "did you mean `queues.ab.max_messages`?"),
            ("[queue_store]\nmax_segment_bytes = 100", 2, "must be at least 4KiB"),
            ("[users.ann]\npasscode = \"secret\"", 2, "must be a hash that `longwire passcode` made"),
            ("[users.ann]\nsend = [\"orders\"]", 2, "each must be a destination such as"),
            ("[users.\"\"]\n", 1, "a user's name has 1 to 255 bytes"),
            ("[stomp]\nvirtual_hosts = [\"shop\"]", 2, "a host and a prefix"),
            ("[stomp]\nshortest_heartbeat = \"10m\"", 2, "must not be longer than `stomp.longest_heartbeat`"),
            ("[stomp]\nanonymous = true", 2, "must be one of \"loopback\", \"always\", \"never\""),
        ] {
            let problems = loaded(file, &[]).expect_err(file);
            let place = format!("in longwire.toml line {line}: ");
            assert!(
                problems.iter().any(|it| it.starts_with(&place) && it.contains(problem)),
                "{file}: {problems:?}"
            );
            assert!(!problems.iter().any(|it| it.contains("secret\"")), "{problems:?}");
        }
    }

    #[test]
    fn of_several_patterns_the_most_precise_one_holds() {
        let of = |max_messages: usize| QueueOptions { max_messages, ..QueueOptions::default() };
        let names = ["#", "orders.#", "orders.*", "orders.eu", "*.eu", "o*"];
        let named = names.iter().enumerate().map(|(at, name)| ((*name).to_owned(), of(at + 1)));
        let settings =
            QueueSettings { options: of(99), named: named.collect(), store: QueueStore::default() };
        for (queue, pattern) in [
            ("orders.eu", "orders.eu"),
            ("orders.us", "orders.#"),
            ("orders.us.x", "orders.#"),
            ("mail.eu", "*.eu"),
            ("orders", "orders.#"),
            ("o", "o*"),
            ("mail", "#"),
        ] {
            let at = names.iter().position(|name| *name == pattern).unwrap();
            assert_eq!(settings.options_of(queue).max_messages, at + 1, "{queue}");
        }
        let alone =
            QueueSettings { named: BTreeMap::from([("a".to_owned(), of(1))]), ..QueueSettings::default() };
        assert_eq!(alone.options_of("b"), &QueueOptions::default());
    }
}
