//! Lines of standard input, as they come, whoever waits for something else meanwhile.
//!
//! A terminal or a pipe cannot be waited for together with sockets, so a thread of its own reads; it ends with the process. What must
//! stay true: whoever reads slowly stops that thread, not the connection; a line has a bound; the end of the input comes behind
//! its last line.

use std::io::{self, BufRead};
use tokio::sync::mpsc;

/// The longest line; what is longer ends the input.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// Lines that were read and not taken yet.
const MAX_WAITING: usize = 64;

/// The lines of an input.
pub(super) struct Lines(mpsc::Receiver<io::Result<String>>);

impl Lines {
    /// Begins to read standard input.
    pub(super) fn of_stdin() -> Lines {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        std::thread::spawn(move || {
            forward(io::stdin().lock(), |line| sender.blocking_send(line).is_ok());
        });
        Lines(receiver)
    }

    /// The next line without its end; `None` behind the last one.
    pub(super) async fn next(&mut self) -> Option<io::Result<String>> {
        self.0.recv().await
    }
}

/// Gives each line to `take`, for as long as that wants more.
fn forward(mut input: impl BufRead, mut take: impl FnMut(io::Result<String>) -> bool) {
    loop {
        let mut line = Vec::new();
        let read = io::Read::take(&mut input, MAX_LINE_BYTES).read_until(b'\n', &mut line);
        let line = match read {
            Ok(0) => return,
            Ok(_) if line.len() as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n') => {
                Err(io::Error::other("a line of the input is longer than 16 MiB"))
            }
            Ok(_) => {
                let text = line.strip_suffix(b"\n").unwrap_or(&line);
                let text = text.strip_suffix(b"\r").unwrap_or(text);
                String::from_utf8(text.to_vec())
                    .map_err(|_| io::Error::other("a line of the input is no UTF-8"))
            }
            Err(error) => Err(error),
        };
        let is_last = line.is_err();
        if !take(line) || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<Result<String, String>> {
        let mut lines = Vec::new();
        forward(input, |line| {
            lines.push(line.map_err(|error| error.to_string()));
            lines.len() < 4
        });
        lines
    }

    #[test]
    fn lines_come_without_their_ends_and_the_last_needs_none() {
        let text = |text: &str| Ok(text.to_owned());
        assert_eq!(lines(b"one\r\n\ntwo"), [text("one"), text(""), text("two")]);
        assert_eq!(lines(b""), [] as [Result<String, String>; 0]);
        assert_eq!(lines(b"1\n2\n3\n4\n5\n").len(), 4);
    }

    #[test]
    fn what_is_no_text_or_too_long_ends_the_input() {
        assert_eq!(lines(b"a\n\xff\nb\n").len(), 2);
        let long = vec![b'x'; MAX_LINE_BYTES as usize + 1];
        assert!(lines(&long)[0].as_ref().is_err_and(|error| error.contains("16 MiB")));
        let fits = [&vec![b'x'; MAX_LINE_BYTES as usize - 1][..], b"\n"].concat();
        assert!(lines(&fits)[0].is_ok());
    }
}
