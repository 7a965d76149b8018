//! A response without end: a message for each line, or for each event.
//!
//! What goes up takes another line, which `core` keeps. What must stay true: the pieces in which the body came, its
//! chunks, are not seen in the messages; empty lines and comments are signs of life and no messages.

use super::http::{Answer, HeadReader};
use super::{Inbound, Step};
use crate::cause::Cause;
use bytes::Bytes;
use longwire_protocol::event_stream::Parser;
use longwire_protocol::http::body::BodyDecoder;
use longwire_protocol::websocket::Kind;

/// The state of one stream.
#[derive(Debug)]
pub(crate) struct Stream {
    head: HeadReader,
    body: Option<BodyDecoder>,
    units: Units,
    max_message_bytes: usize,
}

/// What the body consists of.
#[derive(Debug)]
enum Units {
    /// Lines; the beginning of one is kept.
    Lines(Vec<u8>),
    /// Events; what stood behind an event in the same piece is kept.
    Events(Box<(Parser, Vec<u8>)>),
}

impl Stream {
    /// A stream of lines whose request is about to be written.
    pub(crate) fn of_lines(max_message_bytes: usize) -> Stream {
        Stream::new(Units::Lines(Vec::new()), max_message_bytes)
    }

    /// A stream of events whose request is about to be written.
    pub(crate) fn of_events(max_message_bytes: usize) -> Stream {
        Stream::new(Units::Events(Box::new((Parser::new(max_message_bytes), Vec::new()))), max_message_bytes)
    }

    fn new(units: Units, max_message_bytes: usize) -> Stream {
        Stream { head: HeadReader::default(), body: None, units, max_message_bytes }
    }

    /// The id that server-sent events gave last.
    pub(crate) fn last_event_id(&self) -> Option<&str> {
        match &self.units {
            Units::Lines(_) => None,
            Units::Events(events) => events.0.last_event_id(),
        }
    }

    pub(super) fn decode<'a>(&mut self, input: &mut &[u8]) -> Result<Option<Step<'a>>, Cause> {
        if self.body.is_none() {
            let Some(answer) = self.head.take(input, Answer::granted)? else { return Ok(None) };
            self.begin(&answer)?;
        }
        let Stream { body: Some(body), units, max_message_bytes, .. } = self else { return Ok(None) };
        if let Some(inbound) = units.take_kept()? {
            return Ok(Some(Step::Inbound(inbound)));
        }
        while !input.is_empty() {
            if body.is_complete() {
                *input = &[];
                break;
            }
            // No further than the next line's end, so that nothing has to be kept behind a message.
            let end = input.iter().position(|byte| *byte == b'\n').map_or(input.len(), |end| end + 1);
            let mut window = &input[..end];
            let piece = body.decode(&mut window).map_err(|error| Cause::Protocol(error.to_string()))?;
            *input = &input[end - window.len()..];
            if let Some(piece) = piece
                && let Some(inbound) = units.take(piece, *max_message_bytes)?
            {
                return Ok(Some(Step::Inbound(inbound)));
            }
        }
        Ok(body.is_complete().then_some(Step::Ended(Cause::Ended)))
    }

    fn begin(&mut self, answer: &Answer) -> Result<(), Cause> {
        // A page of somebody in between, a login for one, is no stream of events.
        if matches!(self.units, Units::Events(..)) && answer.content_type != "text/event-stream" {
            return Err(Cause::Protocol(format!(
                "the answer is \"{}\" and not text/event-stream",
                answer.content_type
            )));
        }
        let body =
            BodyDecoder::new(answer.body, u64::MAX).map_err(|error| Cause::Protocol(error.to_string()))?;
        self.body = Some(body);
        Ok(())
    }
}

impl Units {
    /// Takes a piece that goes no further than one line's end.
    fn take<'a>(&mut self, piece: &[u8], max_message_bytes: usize) -> Result<Option<Inbound<'a>>, Cause> {
        match self {
            Units::Lines(kept) => {
                let ends = piece.last() == Some(&b'\n');
                if kept.len() + piece.len() > max_message_bytes.saturating_add(2) {
                    return Err(too_long());
                }
                if !ends {
                    kept.extend_from_slice(piece);
                    return Ok(None);
                }
                let line = if kept.is_empty() {
                    Bytes::copy_from_slice(piece.trim_ascii())
                } else {
                    kept.extend_from_slice(piece);
                    Bytes::copy_from_slice(std::mem::take(kept).trim_ascii())
                };
                Ok((!line.is_empty()).then_some(Inbound::Message(Kind::Text, line)))
            }
            Units::Events(events) => {
                let (parser, kept) = &mut **events;
                let mut rest = piece;
                let event = parser.next_event(&mut rest).map_err(|_| too_long())?;
                kept.extend_from_slice(rest);
                Ok(event.map(inbound))
            }
        }
    }

    /// Takes an event that stood behind another in the same piece, as it can where lines end with carriage returns alone.
    fn take_kept<'a>(&mut self) -> Result<Option<Inbound<'a>>, Cause> {
        let Units::Events(events) = self else { return Ok(None) };
        let (parser, kept) = &mut **events;
        if kept.is_empty() {
            return Ok(None);
        }
        let behind = std::mem::take(kept);
        let mut rest = &behind[..];
        let event = parser.next_event(&mut rest).map_err(|_| too_long())?;
        kept.extend_from_slice(rest);
        Ok(event.map(inbound))
    }
}

fn inbound<'a>(event: longwire_protocol::event_stream::Event) -> Inbound<'a> {
    let data = Bytes::from(event.data);
    match event.name.as_ref() {
        "message" => Inbound::Message(Kind::Text, data),
        _ => Inbound::Event { name: event.name.into_owned(), data },
    }
}

fn too_long() -> Cause {
    Cause::Protocol("a message is larger than the limit".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a stream says, in words, of `bytes` in pieces of `step`.
    fn run(mut stream: Stream, bytes: &[u8], step: usize) -> Vec<String> {
        let mut said = Vec::new();
        for mut piece in bytes.chunks(step) {
            loop {
                match stream.decode(&mut piece) {
                    Ok(None) => break,
                    Ok(Some(Step::Inbound(Inbound::Message(_, data)))) => {
                        said.push(String::from_utf8_lossy(&data).into_owned())
                    }
                    Ok(Some(Step::Inbound(Inbound::Event { name, data }))) => {
                        said.push(format!("{name}={}", String::from_utf8_lossy(&data)));
                    }
                    Ok(Some(Step::Ended(cause))) | Err(cause) => {
                        said.push(cause.name().to_owned());
                        return said;
                    }
                    Ok(Some(other)) => panic!("{other:?}"),
                }
            }
            assert!(piece.is_empty());
        }
        said
    }

    fn chunked(content_type: &str, chunks: &[&str]) -> Vec<u8> {
        let mut text =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n");
        for chunk in chunks {
            text.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
        }
        text.push_str("0\r\n\r\n");
        text.into_bytes()
    }

    #[test]
    fn lines_are_messages_whatever_the_chunks_and_the_pieces() {
        let bytes = chunked("application/json", &["{\"a\":1}\n{\"b\"", ":2}\n", "\r\n\n", "{}\n"]);
        for step in 1..=bytes.len() {
            assert_eq!(
                run(Stream::of_lines(100), &bytes, step),
                ["{\"a\":1}", "{\"b\":2}", "{}", "ended"],
                "{step}"
            );
        }
    }

    #[test]
    fn events_are_messages_and_those_with_names_say_them() {
        let bytes = chunked(
            "text/event-stream; charset=utf-8",
            &["\r\n", "data: one\n", "\n:\n\nevent: gone\ndata: x\r\rdata: two\r\r", "id: 7\ndata: 3\n\n"],
        );
        for step in 1..=bytes.len() {
            assert_eq!(
                run(Stream::of_events(100), &bytes, step),
                ["one", "gone=x", "two", "3", "ended"],
                "{step}"
            );
        }
    }

    #[test]
    fn a_refusal_and_a_page_are_no_stream() {
        let refused = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(run(Stream::of_lines(100), refused, 7), ["status"]);
        let page = chunked("text/html", &["<html>"]);
        assert_eq!(run(Stream::of_events(100), &page, page.len()), ["protocol"]);
    }

    #[test]
    fn a_line_or_an_event_without_end_is_given_up_at_the_bound() {
        let long = "x".repeat(300);
        let lines = chunked("application/json", &[&long]);
        assert_eq!(run(Stream::of_lines(200), &lines, 50), ["protocol"]);
        let events = chunked("text/event-stream", &["data: ", &long]);
        assert_eq!(run(Stream::of_events(200), &events, 50), ["protocol"]);
    }
}
