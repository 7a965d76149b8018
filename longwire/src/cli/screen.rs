//! Where a command that goes on prints: results, remarks, and on a terminal a status line below them.
//!
//! Results go to standard output, a line each, remarks to standard error, and the status line is written over itself on
//! standard error, if that is a terminal: a script never sees it. What must stay true: the status line is wiped before anything else
//! is written, so that it never stands in the middle of a result; a reader of standard output who went away is told
//! apart from an error.

use super::Failure;
use std::io::{self, IsTerminal, Write};

/// A terminal whose width nobody says is as wide as terminals used to be.
const USUAL_WIDTH: usize = 80;

/// How wide a status line may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Width {
    /// As wide as the terminal is at the time.
    OfTerminal,
    /// So many columns.
    #[cfg(test)]
    Columns(usize),
}

impl Width {
    fn columns(self) -> usize {
        let columns = match self {
            #[cfg(test)]
            Width::Columns(columns) => columns,
            Width::OfTerminal => columns_of(io::stderr()).unwrap_or(USUAL_WIDTH),
        };
        columns.clamp(20, 500)
    }
}

/// How wide a terminal is, if it is one and says so.
pub(super) fn columns_of(terminal: impl std::os::fd::AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Standard output, standard error, and what stands on the last line.
pub(super) struct Screen {
    output: Box<dyn Write + Send>,
    remarks: Box<dyn Write + Send>,
    /// Where status lines are shown: their width.
    width: Option<Width>,
    status: String,
}

impl Screen {
    /// The screen of this process.
    pub(super) fn new() -> Screen {
        let is_shown =
            io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb");
        let width = is_shown.then_some(Width::OfTerminal);
        Screen::of(Box::new(io::BufWriter::new(io::stdout())), Box::new(io::stderr()), width)
    }

    /// A screen that writes where it is told.
    pub(super) fn of(
        output: Box<dyn Write + Send>,
        remarks: Box<dyn Write + Send>,
        width: Option<Width>,
    ) -> Screen {
        Screen { output, remarks, width, status: String::new() }
    }

    /// Whether a status line would be seen.
    pub(super) fn has_status(&self) -> bool {
        self.width.is_some()
    }

    /// Prints a result. It is seen after the next [`flush`](Self::flush).
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.wipe();
        judge(writeln!(self.output, "{text}"))
    }

    /// Has all results seen.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        judge(self.output.flush())
    }

    /// Says something about what happens, behind all results so far.
    pub(super) fn remark(&mut self, text: &str) {
        self.wipe();
        // Whoever does not read results does not end a command by it before the next result.
        let _ = self.output.flush();
        let _ = writeln!(self.remarks, "longwire: {text}");
    }

    /// Shows how things stand, where a terminal shows it.
    pub(super) fn status(&mut self, text: &str) {
        let Some(width) = self.width else { return };
        let text: String = super::printable(text).chars().take(width.columns() - 1).collect();
        if text != self.status {
            let _ = self.output.flush();
            let _ = write!(self.remarks, "\r\x1b[2K{text}");
            let _ = self.remarks.flush();
            self.status = text;
        }
    }

    /// Takes the status line away.
    pub(super) fn wipe(&mut self) {
        if !self.status.is_empty() {
            self.status.clear();
            let _ = write!(self.remarks, "\r\x1b[2K");
            let _ = self.remarks.flush();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.wipe();
        let _ = self.output.flush();
    }
}

/// Nobody reading any more ends the command well; anything else is an error.
fn judge(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::NobodyReads,
        _ => super::unwritten(&error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Keeps what is written, with what else is written to its copies.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Paper {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn screen(columns: Option<usize>) -> (Screen, Paper) {
        let paper = Paper::default();
        let width = columns.map(Width::Columns);
        (Screen::of(Box::new(paper.clone()), Box::new(paper.clone()), width), paper)
    }

    #[test]
    fn a_status_line_is_wiped_before_a_result() {
        let (mut screen, paper) = screen(Some(20));
        screen.status("connected \u{1b}[2J to something long");
        screen.status("connected \u{1b}[2J to something long");
        screen.line("one").unwrap();
        screen.remark("two");
        drop(screen);
        let wiped = "\r\u{1b}[2K";
        assert_eq!(paper.text(), format!("{wiped}connected \\u001b[2J{wiped}one\nlongwire: two\n"));
    }

    #[test]
    fn without_a_terminal_there_is_no_status_line() {
        let (mut screen, paper) = screen(None);
        screen.status("connected");
        screen.line("one").unwrap();
        drop(screen);
        assert_eq!(paper.text(), "one\n");
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut screen = Screen::of(Box::new(Closed), Box::new(Paper::default()), None);
        assert_eq!(screen.line("x"), Err(Failure::NobodyReads));
    }
}
