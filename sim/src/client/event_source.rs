//! The parser of an event stream as browsers have it (WHATWG HTML section 9.2.6): bytes in, items out.
//!
//! It knows nothing of longwire's events. It differs from the letter of the standard where browsers do: the
//! last event id of the connection before stands until the stream names another, while the standard would
//! forget it at the first empty line. What must stay true: the same bytes give the same items however they
//! are cut, and a server cannot make it keep more than [`MAX_EVENT_BYTES`].

/// A longer event, or line, ends the stream.
pub(super) const MAX_EVENT_BYTES: usize = 16 << 20;

/// What a stream says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Item {
    /// A line that means nothing, which proves life.
    Comment,
    /// How long to wait before connecting again, in milliseconds.
    Retry(u64),
    /// An event.
    Event {
        /// Its name; `message` if the stream gave none.
        name: String,
        /// Its data lines, joined by line feeds.
        data: String,
        /// The event itself brought an id.
        has_id: bool,
    },
}

/// The state of one stream.
pub(super) struct Parser {
    line: Vec<u8>,
    is_after_carriage_return: bool,
    has_begun: bool,
    name: String,
    data: String,
    has_data: bool,
    has_id: bool,
    /// The id as the lines say it; it counts once the event is whole.
    id: String,
    last_event_id: String,
}

impl Parser {
    /// Begins a stream; `last_event_id` is that of the connection before.
    pub(super) fn new(last_event_id: String) -> Parser {
        Parser {
            line: Vec::new(),
            is_after_carriage_return: false,
            has_begun: false,
            name: String::new(),
            data: String::new(),
            has_data: false,
            has_id: false,
            id: last_event_id.clone(),
            last_event_id,
        }
    }

    /// The id that a returning client sends as `Last-Event-ID`.
    pub(super) fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// Takes bytes from the front of `input` up to the next item; `None` once all of it was taken.
    ///
    /// # Errors
    /// An event is too long to be kept.
    pub(super) fn poll(&mut self, input: &mut &[u8]) -> Result<Option<Item>, String> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            let is_line_feed_of_pair = byte == b'\n' && self.is_after_carriage_return;
            self.is_after_carriage_return = byte == b'\r';
            if is_line_feed_of_pair {
                continue;
            }
            if byte != b'\n' && byte != b'\r' {
                self.line.push(byte);
                if self.line.len() + self.data.len() > MAX_EVENT_BYTES {
                    return Err("event stream: an event is longer than any client would keep".to_owned());
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            if let Some(item) = self.handle_line(&String::from_utf8_lossy(&line)) {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    fn handle_line(&mut self, line: &str) -> Option<Item> {
        // A byte order mark may precede the first line.
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let line = line.strip_prefix('\u{feff}').filter(|_| is_first).unwrap_or(line);
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => return Some(Item::Comment),
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "id" if !value.contains('\0') => {
                value.clone_into(&mut self.id);
                self.has_id = true;
            }
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                return value.parse().ok().map(Item::Retry);
            }
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Item> {
        // Not before: an event that was cut off behind its id has not been seen.
        self.id.clone_into(&mut self.last_event_id);
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        let has_id = std::mem::take(&mut self.has_id);
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        let name = if name.is_empty() { "message".to_owned() } else { name };
        Some(Item::Event { name, data, has_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str, has_id: bool) -> Item {
        Item::Event { name: name.to_owned(), data: data.to_owned(), has_id }
    }

    /// Reads pieces; gives the items and the last event id.
    fn read(pieces: &[&[u8]]) -> (Vec<Item>, String) {
        let mut parser = Parser::new("before".to_owned());
        let mut items = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            while let Some(item) = parser.poll(&mut input).unwrap() {
                items.push(item);
            }
            assert!(input.is_empty());
        }
        (items, parser.last_event_id().to_owned())
    }

    #[test]
    fn every_field_and_every_end_of_line_is_read_however_it_is_cut() {
        let stream = "\u{feff}retry: 15\r\r\n: beat\nid: 1\revent: a\r\ndata: x\ndata:  y\u{e9}\r\r\
                      data\n\nid: bad\0\ndata: z\n\nevent: lost\n\nretry: 1x\nother: 1\n:\nid\ndata:w\n\nid: 9\ndata: cut";
        let expected = [
            Item::Retry(15),
            Item::Comment,
            event("a", "x\n y\u{e9}", true),
            event("message", "", false),
            event("message", "z", false),
            Item::Comment,
            event("message", "w", true),
        ];
        let stream = stream.as_bytes();
        for cut in 0..=stream.len() {
            let (items, id) = read(&[&stream[..cut], &stream[cut..]]);
            assert_eq!(items, expected, "cut at {cut}");
            assert_eq!(id, "", "an empty id forgets");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&bytes).0, expected);
    }

    #[test]
    fn the_id_of_an_event_that_was_cut_off_does_not_count() {
        assert_eq!(read(&[b"id: 1\ndata: a\n\nid: 2\ndata: b\n"]).1, "1");
        assert_eq!(read(&[b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n"]).1, "2");
        assert_eq!(read(&[b"retry: 1\n\n:\n\n"]).1, "before", "nothing named another");
        assert_eq!(read(&[b"id: a\0b\ndata: a\n\n"]).1, "before");
    }

    #[test]
    fn an_event_without_end_is_not_kept_for_ever() {
        let mut parser = Parser::new(String::new());
        let chunk = vec![b'x'; 1 << 20];
        let refused = (0..20).any(|_| parser.poll(&mut &chunk[..]).is_err());
        assert!(refused && parser.line.len() <= MAX_EVENT_BYTES + 1);
    }
}
