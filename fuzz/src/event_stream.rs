//! Promises of `event_stream`.
//!
//! However a stream is cut, its events are those that a second, simple reading of the whole finds, each with the id that
//! belongs to it; none is longer than the limit; what is written as an event is read as what it was.

use crate::input::{Input, pieces};
use longwire_protocol::event_stream::{Parser, TooLong};

/// Name, data, and the last id as it stands then.
type Event = (String, String, Option<String>);

/// Decides the limit and the cuts with its first bytes; the rest is what the peer sends, then what is written.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let max = input.choose(&[1 << 20, 300, 40, 5]);
    let seed = u64::from(input.short());
    let bytes = input.rest();
    let whole = parsed(max, &[bytes]);
    for cuts in [seed, seed ^ 0xffff] {
        let cut = parsed(max, &pieces(bytes, cuts).collect::<Vec<_>>());
        assert_eq!(cut, whole, "cut with {cuts}");
    }
    let roomy = parsed(usize::MAX, &[bytes]);
    assert_eq!(roomy, (simple(bytes), false));
    let (events, is_refused) = whole;
    assert_eq!(events[..], roomy.0[..events.len()], "the limit changes what comes before it");
    assert!(events.len() == roomy.0.len() || is_refused);
    // A character that is not UTF-8 grows to three bytes.
    assert!(events.iter().all(|(_, data, _)| data.len() <= 3 * max.saturating_add(1)));
    written(&String::from_utf8_lossy(bytes), seed);
}

fn parsed(max: usize, pieces: &[&[u8]]) -> (Vec<Event>, bool) {
    let mut parser = Parser::new(max);
    let mut events = Vec::new();
    for mut piece in pieces.iter().copied() {
        loop {
            match parser.next_event(&mut piece) {
                Ok(Some(event)) => {
                    let id = parser.last_event_id().map(str::to_owned);
                    events.push((event.name.into_owned(), event.data, id));
                }
                Ok(None) => break assert!(piece.is_empty()),
                Err(TooLong) => return (events, true),
            }
        }
    }
    (events, false)
}

fn simple(bytes: &[u8]) -> Vec<Event> {
    // Every kind of line's end as a line feed; a byte that is not UTF-8 changes no line.
    let mut text = Vec::new();
    let mut rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    while let Some((byte, behind)) = rest.split_first() {
        rest = if *byte == b'\r' { behind.strip_prefix(b"\n").unwrap_or(behind) } else { behind };
        text.push(if *byte == b'\r' { b'\n' } else { *byte });
    }
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    // What has no end is no line.
    lines.pop();
    let (mut events, mut name, mut data, mut id, mut last) = (Vec::new(), None, Vec::new(), None, None);
    for line in lines {
        if line.is_empty() {
            last = id.take().or(last);
            let name: Option<String> = name.take().filter(|name: &String| !name.is_empty());
            let data: Vec<Vec<u8>> = std::mem::take(&mut data);
            if !data.is_empty() {
                let text = String::from_utf8_lossy(&data.join(&b'\n')).into_owned();
                events.push((name.unwrap_or_else(|| "message".into()), text, last.clone()));
            }
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => data.push(value.to_vec()),
            b"event" => name = Some(String::from_utf8_lossy(value).into_owned()),
            b"id" if !value.contains(&0) => id = Some(String::from_utf8_lossy(value).into_owned()),
            _ => {}
        }
    }
    events
}

/// Writes the data as one event, and reads it.
fn written(text: &str, seed: u64) {
    let text = text.replace('\r', "");
    let mut stream = String::from("event: made\nid: 7\n");
    for line in text.split('\n') {
        stream.push_str(&format!("data: {line}\n"));
    }
    stream.push('\n');
    let (events, _) = parsed(usize::MAX, &pieces(stream.as_bytes(), seed).collect::<Vec<_>>());
    assert_eq!(events, [("made".to_owned(), text, Some("7".to_owned()))], "written and read");
}
