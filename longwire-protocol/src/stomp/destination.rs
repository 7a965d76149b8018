//! Destinations: the one word of STOMP for channels and queues.
//!
//! `/topic/x` is the channel `x`, `/queue/x` the queue `x`, `/temp-queue/x` a queue of one connection alone. The other
//! brokers' forms that mean the same are taken, too; anything else is refused by name, never guessed. Whether a name is
//! allowed, and to whom, is the server's business.

use crate::message::ClientId;

/// What stands before the names of queues that belong to one connection.
pub const TEMPORARY: &str = "~temp/";

/// What stands before the names of queues that hold what is published while a durable subscriber is not there.
pub const DURABLE: &str = "~durable/";

/// What a destination names, without the part that says what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination<'a> {
    /// A channel.
    Channel(&'a str),
    /// A queue.
    Queue(&'a str),
    /// A queue of the connection that says so.
    Temporary(&'a str),
}

const PREFIXES: &str = "/topic/, /queue/, /temp-queue/";

impl<'a> Destination<'a> {
    /// Reads a destination.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &'a str) -> Result<Destination<'a>, String> {
        let destination = if let Some(name) = text.strip_prefix("/topic/") {
            Destination::Channel(name)
        } else if let Some(name) = text.strip_prefix("/queue/").or_else(|| text.strip_prefix("/amq/queue/")) {
            Destination::Queue(name)
        } else if let Some(name) = text.strip_prefix("/temp-queue/") {
            Destination::Temporary(name)
        } else if let Some(name) = text.strip_prefix("/exchange/amq.topic/") {
            Destination::Channel(name)
        } else {
            return Err(format!(
                "unknown destination \"{}\": it begins with none of {PREFIXES}",
                shown(text)
            ));
        };
        let (Destination::Channel(name) | Destination::Queue(name) | Destination::Temporary(name)) =
            destination;
        if name.is_empty() {
            return Err(format!("destination \"{text}\" has no name"));
        }
        if name.split('.').any(|part| matches!(part, "*" | "#" | ">")) {
            return Err(format!("wildcards are not supported: \"{}\"", shown(text)));
        }
        Ok(destination)
    }
}

/// As much of a text as an error repeats.
pub(crate) fn shown(text: &str) -> &str {
    let mut end = text.len().min(200);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The name of a connection's own queue.
pub(crate) fn temporary_queue(client: ClientId, name: &str) -> String {
    format!("{TEMPORARY}{client}/{name}")
}

/// The name of the queue of a durable subscription. Whose it is comes first, so that nobody names somebody else's.
pub(crate) fn durable_queue(user: &str, client_id: Option<&str>, id: &str) -> String {
    let mut name = String::from(DURABLE);
    push_part(user, &mut name);
    if let Some(client_id) = client_id {
        name.push(':');
        push_part(client_id, &mut name);
    }
    name.push('/');
    push_part(id, &mut name);
    name
}

/// Writes a part of a name such that it has none of the signs that separate parts, and no control character.
fn push_part(part: &str, name: &mut String) {
    for char in part.chars() {
        match char {
            '/' | ':' | '%' => name.push_str(&format!("%{:02X}", char as u32)),
            char if char.is_control() => name.push_str(&format!("%{:02X}", char as u32)),
            char => name.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_names_what_it_means() {
        for (text, destination) in [
            ("/topic/news", Destination::Channel("news")),
            ("/topic/chat:room#7,8", Destination::Channel("chat:room#7,8")),
            ("/exchange/amq.topic/a.b", Destination::Channel("a.b")),
            ("/queue/test/ruby/stomp/x", Destination::Queue("test/ruby/stomp/x")),
            ("/amq/queue/jobs", Destination::Queue("jobs")),
            ("/temp-queue/answers", Destination::Temporary("answers")),
            ("/queue/5*3", Destination::Queue("5*3")),
        ] {
            assert_eq!(Destination::parse(text), Ok(destination), "{text}");
        }
    }

    #[test]
    fn what_is_no_destination_is_refused_with_what_would_be_one() {
        for (text, why) in [
            ("jobs", "unknown destination \"jobs\": it begins with none of /topic/, /queue/, /temp-queue/"),
            (
                "/queues/jobs",
                "unknown destination \"/queues/jobs\": it begins with none of /topic/, /queue/, /temp-queue/",
            ),
            (
                "/exchange/amq.direct/x",
                "unknown destination \"/exchange/amq.direct/x\": it begins with none of /topic/, /queue/, /temp-queue/",
            ),
            ("/queue/", "destination \"/queue/\" has no name"),
            ("/topic/a.*", "wildcards are not supported: \"/topic/a.*\""),
            ("/topic/#", "wildcards are not supported: \"/topic/#\""),
            ("/queue/a.>", "wildcards are not supported: \"/queue/a.>\""),
        ] {
            assert_eq!(Destination::parse(text), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn no_two_durable_subscribers_have_one_queue() {
        let names = [
            durable_queue("a", None, "b"),
            durable_queue("a/b", None, ""),
            durable_queue("a", Some("b"), ""),
            durable_queue("a:b", None, ""),
            durable_queue("", Some("a:b"), ""),
            durable_queue("", None, "a/b"),
            durable_queue("", Some("a"), "b"),
            durable_queue("a%2Fb", None, ""),
        ];
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
        assert_eq!(durable_queue("alice", Some("phone"), "news"), "~durable/alice:phone/news");
    }
}
