//! `longwire passcode`: the hash of a passcode, for `passcode` in `[users.NAME]`.
//!
//! What must stay true: the passcode comes from standard input alone, since arguments are seen by everybody on a machine.

use super::{Failure, print};
use crate::auth::hash_passcode;
use crate::env::Rng;
use std::io::Read;

/// The longest passcode: the frame that brings it has headers of 16 KiB at most.
const MAX_BYTES: u64 = 1024;

/// Reads a passcode and prints its hash.
pub(super) fn passcode() -> Result<(), Failure> {
    let mut input = String::new();
    let read = std::io::stdin().lock().take(MAX_BYTES + 2).read_to_string(&mut input);
    read.map_err(|error| Failure::Usage(format!("the passcode cannot be read: {error}")))?;
    let passcode = judge(&input)?;
    let hash = hash_passcode(passcode, &mut Rng::system()).map_err(Failure::Failed)?;
    print(&format!("{hash}\n"))
}

/// The passcode of an input: its one line.
fn judge(input: &str) -> Result<&str, Failure> {
    let passcode = input.strip_suffix('\n').unwrap_or(input);
    let passcode = passcode.strip_suffix('\r').unwrap_or(passcode);
    let wrong = |what: &str| Err(Failure::Usage(format!("{what}: `printf %s PASSCODE | longwire passcode`")));
    match passcode {
        "" => wrong("no passcode came by standard input"),
        _ if passcode.contains(['\n', '\r', '\0']) => wrong("a passcode is one line"),
        _ if passcode.len() as u64 > MAX_BYTES => wrong("a passcode has at most 1024 bytes"),
        _ => Ok(passcode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_end_is_no_part_of_a_passcode() {
        for input in ["a b", "a b\n", "a b\r\n"] {
            assert_eq!(judge(input), Ok("a b"));
        }
        for input in ["", "\n", "a\nb", "a\n\n", &"x".repeat(1025)] {
            assert!(matches!(judge(input), Err(Failure::Usage(_))), "{input:?}");
        }
    }
}
