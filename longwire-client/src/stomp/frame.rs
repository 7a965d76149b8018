//! The frames that a client writes, and the headers of those that it keeps.
//!
//! A [`Writer`] makes one frame by the rules of the version that is spoken; [`Head`] is what is kept of a frame that
//! came: its lines as they were, read when somebody asks. Bytes become frames in the protocol crate. What must stay
//! true: no value of a caller becomes a header that the caller did not write; of several headers of a name the first
//! counts.

use bytes::Bytes;
use longwire_protocol::stomp::Version;
use longwire_protocol::stomp::decode::{Frame, unescape};
use longwire_protocol::stomp::encode::write_header;
use std::borrow::Cow;

/// One frame on its way into bytes.
pub(super) struct Writer {
    version: Version,
    bytes: Vec<u8>,
}

impl Writer {
    /// Begins a frame.
    pub(super) fn new(version: Version, command: &str, capacity: usize) -> Writer {
        let mut bytes = Vec::with_capacity(command.len() + capacity + 64);
        bytes.extend_from_slice(command.as_bytes());
        bytes.push(b'\n');
        Writer { version, bytes }
    }

    /// Adds a header.
    pub(super) fn header(mut self, name: &str, value: &str) -> Writer {
        write_header(self.version, name, value, &mut self.bytes);
        self
    }

    /// Adds a header with a number.
    pub(super) fn number(mut self, name: &str, value: u64) -> Writer {
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(b':');
        self.bytes.extend_from_slice(value.to_string().as_bytes());
        self.bytes.push(b'\n');
        self
    }

    /// Adds headers.
    pub(super) fn headers<'a>(mut self, headers: impl IntoIterator<Item = &'a (String, String)>) -> Writer {
        for (name, value) in headers {
            write_header(self.version, name, value, &mut self.bytes);
        }
        self
    }

    /// Adds a header as it is: CONNECT has no escapes in any version.
    pub(super) fn raw(mut self, name: &str, value: &str) -> Writer {
        for part in [name, ":", value, "\n"] {
            self.bytes.extend_from_slice(part.as_bytes());
        }
        self
    }

    /// Adds lines as they are, each with its end.
    pub(super) fn lines(mut self, lines: &str) -> Writer {
        self.bytes.extend_from_slice(lines.as_bytes());
        self
    }

    /// Ends a frame that has no body.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(b"\n\0");
        self.bytes
    }

    /// Ends a frame with its body.
    pub(super) fn body(self, body: &[u8], has_length: bool) -> Vec<u8> {
        // What has a NUL ends there for whoever does not count.
        let mut whole = match has_length || body.contains(&0) {
            true => self.number("content-length", body.len() as u64),
            false => self,
        };
        whole.bytes.push(b'\n');
        whole.bytes.extend_from_slice(body);
        whole.bytes.push(0);
        whole.bytes
    }
}

/// The head of a frame that came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Head {
    /// Command and headers, a line each, as they came.
    lines: Box<str>,
    version: Version,
}

impl Head {
    /// Keeps the head of a frame.
    pub(super) fn of(frame: &Frame<'_>, version: Version) -> Head {
        Head { lines: frame.head().into(), version }
    }

    /// How many bytes it keeps.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Names and values with their escapes, in their order.
    pub(super) fn raw(&self) -> impl Iterator<Item = (&str, &str)> {
        let is_old = self.version == Version::V10;
        self.lines.split('\n').skip(1).filter_map(move |line| {
            let (name, value) = line.strip_suffix('\r').unwrap_or(line).split_once(':')?;
            // In 1.0 there is a blank before values, by its examples.
            Some((name, if is_old { value.trim_start_matches([' ', '\t']) } else { value }))
        })
    }

    /// A header's value.
    pub(super) fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        let (_, value) = self.raw().find(|(its_name, _)| *self.plain(its_name) == *name)?;
        Some(self.plain(value))
    }

    /// Names and values, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        self.raw().map(|(name, value)| (self.plain(name), self.plain(value)))
    }

    fn plain<'a>(&self, text: &'a str) -> Cow<'a, str> {
        plain(self.version, text)
    }
}

/// A name or value of a frame that was checked, without its escapes.
pub(super) fn plain(version: Version, text: &str) -> Cow<'_, str> {
    unescape(version, text).unwrap_or(Cow::Borrowed(text))
}

/// What a caller sends: where to, what is said about it, and the body.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Outgoing {
    pub(super) destination: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    /// `content-length` is left out: ActiveMQ then takes the body for text.
    pub(super) is_text: bool,
}

impl Outgoing {
    pub(super) fn new(destination: &str, body: Bytes) -> Outgoing {
        Outgoing { destination: destination.to_owned(), headers: Vec::new(), body, is_text: false }
    }

    /// Sets a header in the place of what it was.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        match self.headers.iter_mut().find(|(its_name, _)| its_name == name) {
            Some((_, its_value)) => *its_value = value.to_owned(),
            None => self.headers.push((name.to_owned(), value.to_owned())),
        }
    }

    /// What it keeps in memory, roughly.
    pub(super) fn weight(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        self.destination.len() + headers + self.body.len() + 128
    }

    /// What of it cannot be sent.
    pub(super) fn fault(&self) -> Option<String> {
        if self.destination.is_empty() {
            return Some("a message has no destination".to_owned());
        }
        let own = ["destination", "receipt", "transaction", "content-length"];
        self.headers.iter().find_map(|(name, value)| {
            if name.is_empty() {
                return Some("a header has no name".to_owned());
            }
            if own.contains(&&**name) {
                return Some(format!("the header \"{name}\" is written by the client itself"));
            }
            (name.contains('\0') || value.contains('\0')).then(|| format!("the header \"{name}\" has a NUL"))
        })
    }

    /// The frame; `extra` are headers that differ from one writing to the next.
    pub(super) fn frame(&self, version: Version, extra: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = Writer::new(version, "SEND", self.weight()).header("destination", &self.destination);
        for (name, value) in extra {
            writer = writer.header(name, value);
        }
        writer.headers(&self.headers).body(&self.body, !self.is_text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire_protocol::stomp::Limits;
    use longwire_protocol::stomp::decode::{Bounds, Decoder};
    use proptest::prelude::*;

    fn read(bytes: &[u8], version: Version) -> (String, Head, Bytes) {
        let mut input = bytes;
        let bounds = Bounds::of(&Limits::default());
        let frame = Decoder::default().decode(&mut input, &bounds).expect("allowed").expect("whole");
        frame.check(version).expect("a rule is broken");
        assert!(input.is_empty(), "something follows the frame");
        (frame.command().to_owned(), Head::of(&frame, version), frame.body.clone())
    }

    #[test]
    fn a_text_message_has_no_length_unless_it_needs_one() {
        let mut message = Outgoing::new("/queue/a", Bytes::from_static(b"text"));
        message.is_text = true;
        assert_eq!(message.frame(Version::V12, &[]), b"SEND\ndestination:/queue/a\n\ntext\0");
        message.body = Bytes::from_static(b"te\0xt");
        let bytes = message.frame(Version::V12, &[("receipt", "7")]);
        assert_eq!(bytes, b"SEND\ndestination:/queue/a\nreceipt:7\ncontent-length:5\n\nte\0xt\0");
    }

    #[test]
    fn what_the_client_writes_itself_is_not_the_callers() {
        let fault = |name: &str, value: &str| {
            let mut message = Outgoing::new("/queue/a", Bytes::new());
            message.set(name, value);
            message.fault()
        };
        for name in ["receipt", "transaction", "content-length", "destination", ""] {
            assert!(fault(name, "x").is_some(), "{name}");
        }
        assert!(fault("x", "a\0b").is_some());
        assert_eq!(fault("x", "a\nb:c\\d\re"), None);
        assert!(Outgoing::new("", Bytes::new()).fault().is_some());
    }

    #[test]
    fn a_header_that_is_set_twice_has_the_second_value() {
        let mut message = Outgoing::new("/queue/a", Bytes::new());
        message.set("persistent", "true");
        message.set("persistent", "false");
        assert_eq!(message.headers, [("persistent".to_owned(), "false".to_owned())]);
    }

    #[test]
    fn of_several_headers_of_a_name_the_first_counts() {
        let (_, head, _) = read(b"MESSAGE\r\nfoo:one\r\nfoo:two\r\n\r\n\0", Version::V12);
        assert_eq!(head.get("foo").as_deref(), Some("one"));
        assert_eq!(head.iter().count(), 2);
        let (_, head, _) = read(b"MESSAGE\nfoo: one\n\n\0", Version::V10);
        assert_eq!(head.get("foo").as_deref(), Some("one"));
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_arrives(
            destination in "[^\0]{1,20}",
            headers in prop::collection::btree_map("[^\0]{1,8}", "[^\0]{0,12}", 0..6),
            body in prop::collection::vec(any::<u8>(), 0..64),
            is_text in any::<bool>(),
        ) {
            for version in [Version::V11, Version::V12] {
                // In 1.1 a line cannot end in a carriage return for readers that take CRLF.
                let is_hard = |text: &str| version == Version::V11 && text.ends_with('\r');
                let mut message = Outgoing::new(&destination, body.clone().into());
                message.is_text = is_text;
                for (name, value) in &headers {
                    message.set(name, value);
                }
                if message.fault().is_some() || is_hard(&destination) || headers.values().any(|v| is_hard(v)) {
                    continue;
                }
                let (command, head, its_body) = read(&message.frame(version, &[("receipt", "1")]), version);
                prop_assert_eq!(&command, "SEND");
                let get = |name: &str| head.get(name).map(|value| value.into_owned());
                prop_assert_eq!(get("destination"), Some(destination.clone()));
                prop_assert_eq!(get("receipt"), Some("1".to_owned()));
                for (name, value) in &headers {
                    prop_assert_eq!(get(name), Some(value.clone()));
                }
                prop_assert_eq!(&its_body[..], &body[..]);
            }
        }

        #[test]
        fn nobody_injects_a_header_in_the_first_version(value in "[^\0]{0,20}", body in "[^\0]{0,10}") {
            let mut message = Outgoing::new("/queue/a", body.clone().into());
            message.set("x", &value);
            let (_, head, its_body) = read(&message.frame(Version::V10, &[]), Version::V10);
            prop_assert_eq!(head.iter().count(), 3);
            prop_assert_eq!(&its_body[..], body.as_bytes());
        }
    }
}
