//! Reads an event stream (WHATWG HTML section 9.2.6): bytes in, events out.
//!
//! No sockets and no clock; whoever reads a stream feeds it. What must stay true: the same bytes give the same events
//! however they are cut, and a server cannot make it keep more than the bound that it was made with.

use std::borrow::Cow;

/// The bound of [`Parser::default`]: a longer event, or line, ends the stream.
pub const MAX_EVENT_BYTES: usize = 4 << 20;

/// One event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Its name; `message` if the stream gave none.
    pub name: Cow<'static, str>,
    /// Its data lines, joined by line feeds.
    pub data: String,
}

/// An event was too long to be kept. What follows cannot be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an event is longer than the limit")]
pub struct TooLong;

/// The state of one stream.
#[derive(Debug)]
pub struct Parser {
    max_event_bytes: usize,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    is_after_carriage_return: bool,
    has_begun: bool,
    name: Option<Box<str>>,
    data: Vec<u8>,
    has_data: bool,
    /// The id of the event that is being read; counts only once the event is whole.
    id: Option<Box<str>>,
    last_event_id: Option<Box<str>>,
    retry_ms: Option<u64>,
}

impl Default for Parser {
    fn default() -> Parser {
        Parser::new(MAX_EVENT_BYTES)
    }
}

impl Parser {
    /// Makes the state of a stream that begins.
    pub fn new(max_event_bytes: usize) -> Parser {
        Parser {
            max_event_bytes,
            line: Vec::new(),
            is_after_carriage_return: false,
            has_begun: false,
            name: None,
            data: Vec::new(),
            has_data: false,
            id: None,
            last_event_id: None,
            retry_ms: None,
        }
    }

    /// Reads `input` up to the end of the next event, and advances it so far; `None` once all of it is read and no
    /// event has ended.
    ///
    /// # Errors
    ///
    /// If an event is longer than the bound.
    pub fn next_event(&mut self, input: &mut &[u8]) -> Result<Option<Event>, TooLong> {
        while let Some(&first) = input.first() {
            // The second half of a line's end.
            if std::mem::take(&mut self.is_after_carriage_return) && first == b'\n' {
                *input = &input[1..];
                continue;
            }
            let end = memchr::memchr2(b'\n', b'\r', input);
            let (piece, rest) = input.split_at(end.unwrap_or(input.len()));
            let named = [&self.name, &self.id].into_iter().flatten().map(|text| text.len()).sum::<usize>();
            let kept = self.line.len() + self.data.len() + named;
            if piece.len() > self.max_event_bytes.saturating_sub(kept) {
                return Err(TooLong);
            }
            let Some(terminator) = rest.first() else {
                self.line.extend_from_slice(piece);
                *input = rest;
                return Ok(None);
            };
            self.is_after_carriage_return = *terminator == b'\r';
            *input = &rest[1..];
            let event = if self.line.is_empty() {
                self.handle_line(piece)
            } else {
                self.line.extend_from_slice(piece);
                let line = std::mem::take(&mut self.line);
                self.handle_line(&line)
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// The id that the stream gave last, up to the event that was given last; with it a returning reader says where it
    /// stopped.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// The delay before a reconnect that the stream asked for last, in milliseconds.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    fn handle_line(&mut self, line: &[u8]) -> Option<Event> {
        // A byte order mark may precede the first line.
        let line = match line.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) if !self.has_begun => rest,
            _ => line,
        };
        self.has_begun = true;
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = match memchr::memchr(b':', line) {
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
            b"event" => self.name = (!value.is_empty()).then(|| String::from_utf8_lossy(value).into()),
            b"id" if !value.contains(&0) => {
                self.id = Some(String::from_utf8_lossy(value).into());
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                self.retry_ms = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            }
            // A comment (no field name before the colon), or a field of a later standard.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        // Not before: an event that was cut off behind its id has not been seen.
        if let Some(id) = self.id.take() {
            self.last_event_id = Some(id);
        }
        let name = self.name.take();
        let data = std::mem::take(&mut self.data);
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        let name = name.map_or(Cow::Borrowed("message"), |name| Cow::Owned(name.into()));
        let data = String::from_utf8(data)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Some(Event { name, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pieces: &[&[u8]]) -> (Vec<(String, String)>, Parser) {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for mut piece in pieces.iter().copied() {
            while let Some(event) = parser.next_event(&mut piece).unwrap() {
                events.push((event.name.into_owned(), event.data));
            }
            assert!(piece.is_empty());
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
    fn the_last_id_is_that_of_the_event_that_was_given_last() {
        let mut parser = Parser::default();
        let mut input = &b"id: 1\ndata: one\n\nid: 2\ndata: two\n\n"[..];
        for id in ["1", "2"] {
            assert!(parser.next_event(&mut input).unwrap().is_some());
            assert_eq!(parser.last_event_id(), Some(id));
        }
        assert_eq!(parser.next_event(&mut input), Ok(None));
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
    fn data_that_is_not_utf_8_is_repaired() {
        assert_eq!(parse(&[b"data: a\xffb\n\n"]).0[0].1, "a\u{fffd}b");
    }

    #[test]
    fn a_stream_without_line_ends_is_given_up() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 1 << 20];
        let results: Vec<bool> = (0..6).map(|_| parser.next_event(&mut &piece[..]).is_ok()).collect();
        assert_eq!(results, [true, true, true, true, false, false]);
        let mut parser = Parser::new(1 << 16);
        let line = [b"data: ", &vec![b'x'; 1000][..], b"\n"].concat();
        let mut fed = 0;
        while parser.next_event(&mut &line[..]).is_ok() {
            fed += line.len();
            assert!(fed < 2 << 16);
        }
    }
}
