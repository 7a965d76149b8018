//! Reads an event stream (WHATWG HTML section 9.2.6): bytes in, events out.
//!
//! No sockets and no clock; `subscribe` feeds it. What must stay true: the same bytes give the same events
//! however they are cut, and a server cannot make it keep more than [`MAX_EVENT_BYTES`].

use std::collections::VecDeque;

/// A longer event, or line, ends the stream.
pub(super) const MAX_EVENT_BYTES: usize = 4 << 20;

/// One event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Event {
    /// Its name; `message` if the stream gave none.
    pub(super) name: String,
    /// Its data lines, joined by newlines.
    pub(super) data: String,
}

/// An event was too long to be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooLong;

/// The state of one stream.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    is_after_carriage_return: bool,
    has_begun: bool,
    name: String,
    data: Vec<u8>,
    has_data: bool,
    /// The id of the event that is being read; counts only once the event is whole.
    id: Option<String>,
    last_event_id: Option<String>,
    retry_ms: Option<u64>,
    events: VecDeque<Event>,
}

impl Parser {
    /// Takes the bytes that came next.
    pub(super) fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        for &byte in bytes {
            let ends_line = match byte {
                // The second half of a line's end.
                b'\n' if std::mem::take(&mut self.is_after_carriage_return) => continue,
                b'\n' => true,
                b'\r' => {
                    self.is_after_carriage_return = true;
                    true
                }
                _ => {
                    self.is_after_carriage_return = false;
                    if self.line.len() + self.data.len() >= MAX_EVENT_BYTES {
                        return Err(TooLong);
                    }
                    self.line.push(byte);
                    false
                }
            };
            if ends_line {
                let line = std::mem::take(&mut self.line);
                self.handle_line(&line);
                // Its memory serves the next line.
                self.line = line;
                self.line.clear();
            }
        }
        Ok(())
    }

    /// The next complete event.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The id that the stream gave last; with it a returning reader says where it stopped.
    pub(super) fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// The delay before a reconnect that the stream asked for last, in milliseconds.
    pub(super) fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    fn handle_line(&mut self, line: &[u8]) {
        // A byte order mark may precede the first line.
        let line = match line.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) if !self.has_begun => rest,
            _ => line,
        };
        self.has_begun = true;
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        match field {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            }
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            b"id" if !value.contains(&0) => {
                self.id = Some(String::from_utf8_lossy(value).into_owned());
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                self.retry_ms = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            }
            // A comment (no field name before the colon), or a field of a later standard.
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        // Not before: an event that was cut off behind its id has not been seen.
        if let Some(id) = self.id.take() {
            self.last_event_id = Some(id);
        }
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        if std::mem::take(&mut self.has_data) {
            let name = if name.is_empty() { "message".to_owned() } else { name };
            self.events.push_back(Event { name, data: String::from_utf8_lossy(&data).into_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pieces: &[&[u8]]) -> (Vec<(String, String)>, Parser) {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for piece in pieces {
            parser.handle_bytes(piece).unwrap();
            while let Some(event) = parser.poll_event() {
                events.push((event.name, event.data));
            }
        }
        (events, parser)
    }

    const STREAM: &[u8] = b"\xef\xbb\xbfretry: 1500\n\n:\n\nid: a=1.abcdefgh\r\nevent: recovered\r\ndata: {}\r\n\r\n\
        data: one\rdata: two\r\rdata\n\ndata:no space\ndata:  two spaces\nfuture: x\n\nid: a=2\n\nevent: empty\n\ndata: cut";

    #[test]
    fn events_are_what_the_standard_says_however_the_bytes_are_cut() {
        let expected = [
            ("recovered", "{}"),
            ("message", "one\ntwo"),
            ("message", ""),
            ("message", "no space\n two spaces"),
        ]
        .map(|(name, data)| (name.to_owned(), data.to_owned()));
        let (whole, parser) = parse(&[STREAM]);
        assert_eq!(whole, expected);
        assert_eq!((parser.last_event_id(), parser.retry_ms()), (Some("a=2"), Some(1500)));
        for cut in 0..STREAM.len() {
            let (events, parser) = parse(&[&STREAM[..cut], &STREAM[cut..]]);
            assert_eq!(events, expected, "cut at {cut}");
            assert_eq!((parser.last_event_id(), parser.retry_ms()), (Some("a=2"), Some(1500)));
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(parse(&bytes).0, expected);
    }

    #[test]
    fn an_event_that_was_cut_off_behind_its_id_was_not_seen() {
        let (events, parser) = parse(&[b"id: a=1\ndata: one\n\nid: a=2\ndata: two\n"]);
        assert_eq!(events.len(), 1);
        assert_eq!(parser.last_event_id(), Some("a=1"));
    }

    #[test]
    fn an_id_with_a_zero_byte_and_a_retry_that_is_no_number_are_ignored() {
        let (_, parser) = parse(&[b"id: good\nid: a\0b\nretry: 1s\nretry: -1\nretry:\n\n"]);
        assert_eq!((parser.last_event_id(), parser.retry_ms()), (Some("good"), None));
    }

    #[test]
    fn a_stream_without_line_ends_is_given_up() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 1 << 20];
        let results: Vec<bool> = (0..6).map(|_| parser.handle_bytes(&piece).is_ok()).collect();
        assert_eq!(results, [true, true, true, true, false, false]);
        let mut parser = Parser::default();
        let line = [b"data: ", &vec![b'x'; 1000][..], b"\n"].concat();
        let mut fed = 0;
        while parser.handle_bytes(&line).is_ok() {
            fed += line.len();
            assert!(fed < 2 * MAX_EVENT_BYTES);
        }
    }
}
