//! Patterns of names of queues and channels, in settings that hold for several of them.
//!
//! `*` stands for any text without a dot, `#` at the end for any text; behind a dot `#` stands for nothing, too, and the
//! dot with it: `orders.#` is also `orders`. Every other character stands for itself. What must stay true: the whole
//! name must fit, and deciding takes no more steps than pattern and name have characters, multiplied.

/// Whether a name may be a pattern: `#` stands at its end alone.
pub(super) fn is_pattern(text: &str) -> bool {
    let is_short = (1..=super::MAX_QUEUE_NAME_BYTES).contains(&text.len());
    let body = text.strip_suffix('#').unwrap_or(text);
    is_short && !body.contains('#') && !text.contains(char::is_control)
}

/// How many bytes of a pattern stand for themselves.
pub(super) fn precision(pattern: &str) -> usize {
    pattern.bytes().filter(|byte| !matches!(byte, b'*' | b'#')).count()
}

/// Whether a whole name fits a pattern.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    let Some(begin) = pattern.strip_suffix('#') else {
        return fits_glob(pattern, name, false);
    };
    begin.strip_suffix('.').is_some_and(|before| fits_glob(before, name, false))
        || fits_glob(begin, name, true)
}

/// Whether a name fits a pattern without `#`, as a whole or, if it `may_go_on`, with its beginning.
///
/// The latest `*` takes as little as it can, and one more character each time what follows it does not fit: an earlier
/// one never has to take more, because a later one could take that as well, up to a dot, and dots match dots only.
fn fits_glob(pattern: &str, name: &str, may_go_on: bool) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut taken) = (0, 0);
    // Behind the latest `*`, and where what it stands for ends.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if at == pattern.len() && (may_go_on || taken == name.len()) {
            return true;
        }
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            star = Some((at, taken));
        } else if at < pattern.len() && pattern.get(at) == name.get(taken) {
            if pattern[at] == b'.' {
                star = None;
            }
            (at, taken) = (at + 1, taken + 1);
        } else {
            let Some((behind, end)) =
                star.filter(|(_, end)| name.get(*end).is_some_and(|byte| *byte != b'.'))
            else {
                return false;
            };
            star = Some((behind, end + 1));
            (at, taken) = (behind, end + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_stays_within_its_part_and_a_hash_goes_to_the_end() {
        for (pattern, name) in [
            ("a", "a"),
            ("*", "a"),
            ("*", ""),
            ("a.*", "a.b"),
            ("a.*.c", "a.b.c"),
            ("a.*.c", "a..c"),
            ("job-*", "job-7"),
            ("*-*-x", "a-b-c-x"),
            ("*.eu", "mail.eu"),
            ("#", "a.b.c"),
            ("#", ""),
            ("a.#", "a"),
            ("a.#", "a.b"),
            ("a.#", "a.b.c"),
            ("a.*.#", "a.b"),
            ("a.*.#", "a.b.c.d"),
            ("chat:#", "chat:a.b"),
            ("a*#", "ab.c"),
            ("\u{e9}*", "\u{e9}\u{fc}"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("a", "b"),
            ("a", "ab"),
            ("ab", "a"),
            ("*", "a.b"),
            ("a.*", "a"),
            ("a.*", "a.b.c"),
            ("a.*.c", "a.b.b.c"),
            ("*.eu", "a.mail.eu"),
            ("a.#", "ab"),
            ("a.#", "ab.c"),
            ("a.*.#", "a"),
            ("chat:#", "chat"),
            ("*-x.b", "a-y.b"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_hash_stands_at_the_end_alone() {
        for text in ["a", "*", "#", "a.#", "a#", "*.*.#"] {
            assert!(is_pattern(text), "{text}");
        }
        for text in ["", "#.a", "##", "a\n", &"a".repeat(256)] {
            assert!(!is_pattern(text), "{text}");
        }
    }

    fn slowly(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], name) => name.is_empty(),
            ([b'#'], _) | ([b'.', b'#'], [] | [b'.', ..]) => true,
            ([b'*', rest @ ..], name) => {
                let part = name.iter().take_while(|byte| **byte != b'.').count();
                (0..=part).any(|taken| slowly(rest, &name[taken..]))
            }
            ([first, rest @ ..], [other, name @ ..]) => first == other && slowly(rest, name),
            (_, []) => false,
        }
    }

    proptest! {
        #[test]
        fn a_pattern_fits_as_its_definition_says(pattern in "[ab*.]{0,7}#?", name in "[ab.]{0,9}") {
            prop_assert_eq!(fits(&pattern, &name), slowly(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
