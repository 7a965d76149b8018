//! Patterns of `LIKE`: `_` is any character, `%` any number of them.
//!
//! All positions of the pattern that the text can have reached are one row of bits, moved on by one character at a
//! time: a pattern has no way to make the search go back. What must stay true: the time for a text is its characters
//! times the words of that row, of which a selector's longest pattern has 16.

use std::collections::BTreeMap;

const WORD: usize = u64::BITS as usize;

#[derive(Clone, PartialEq, Debug)]
pub(super) struct Pattern {
    /// Words in a row: one bit for each character of the pattern that is not `%`, and one for its end.
    words: usize,
    /// The position behind the last character.
    end: usize,
    /// Where the text may stay: positions before which `%` stands.
    loops: Box<[u64]>,
    /// Where any character leads to.
    any: Box<[u64]>,
    /// Where this character leads to; `any` included.
    by_char: BTreeMap<char, Box<[u64]>>,
}

impl Pattern {
    /// Makes a pattern; what stands behind `escape` means itself. `None` if nothing that can be escaped does.
    pub(super) fn new(text: &str, escape: Option<char>) -> Option<Pattern> {
        let words = text.chars().count() / WORD + 1;
        let mut pattern =
            Pattern { words, end: 0, loops: row(words), any: row(words), by_char: BTreeMap::new() };
        let mut named = Vec::new();
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            match char {
                _ if Some(char) == escape => {
                    let escaped =
                        chars.next().filter(|next| matches!(next, '%' | '_') || Some(*next) == escape)?;
                    pattern.end += 1;
                    named.push((escaped, pattern.end));
                }
                '%' => set(&mut pattern.loops, pattern.end),
                '_' => {
                    pattern.end += 1;
                    set(&mut pattern.any, pattern.end);
                }
                char => {
                    pattern.end += 1;
                    named.push((char, pattern.end));
                }
            }
        }
        for (char, position) in named {
            set(pattern.by_char.entry(char).or_insert_with(|| pattern.any.clone()), position);
        }
        Some(pattern)
    }

    /// Whether the whole text is of this form.
    pub(super) fn matches(&self, text: &str) -> bool {
        let mut reached = row(self.words);
        set(&mut reached, 0);
        for char in text.chars() {
            let leads_to = self.by_char.get(&char).unwrap_or(&self.any);
            let (mut carried, mut is_anywhere) = (0, 0);
            for at in 0..self.words {
                let before = reached[at];
                reached[at] = (before << 1 | carried) & leads_to[at] | before & self.loops[at];
                carried = before >> (WORD - 1);
                is_anywhere |= reached[at];
            }
            if is_anywhere == 0 {
                return false;
            }
        }
        reached[self.end / WORD] >> (self.end % WORD) & 1 == 1
    }
}

fn row(words: usize) -> Box<[u64]> {
    vec![0; words].into()
}

fn set(row: &mut [u64], position: usize) {
    row[position / WORD] |= 1 << (position % WORD);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_like(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], text) => text.is_empty(),
            (['%', rest @ ..], text) => (0..=text.len()).any(|taken| is_like(rest, &text[taken..])),
            (['_', rest @ ..], [_, text @ ..]) => is_like(rest, text),
            ([char, rest @ ..], [first, text @ ..]) => char == first && is_like(rest, text),
            (_, []) => false,
        }
    }

    fn chars(text: &str) -> Vec<char> {
        text.chars().collect()
    }

    #[test]
    fn an_escape_makes_wildcards_ordinary_and_nothing_else() {
        let pattern = Pattern::new("100!%!_!!%", Some('!')).unwrap();
        assert!(pattern.matches("100%_!") && pattern.matches("100%_!x") && !pattern.matches("100x_!"));
        for bad in ["!x", "a!"] {
            assert_eq!(Pattern::new(bad, Some('!')), None, "{bad}");
        }
    }

    #[test]
    fn a_pattern_of_many_words_is_matched_to_its_end() {
        for length in [62, 63, 64, 65, 127, 128, 129, 1000] {
            let text = "é".repeat(length);
            let pattern = Pattern::new(&text, None).unwrap();
            assert!(pattern.matches(&text) && !pattern.matches(&text[2..]), "{length}");
            assert!(!pattern.matches(&(text.clone() + "é")), "{length}");
            assert!(Pattern::new(&format!("{text}%"), None).unwrap().matches(&(text + "x")), "{length}");
        }
    }

    #[test]
    fn a_pattern_made_to_go_back_is_still_matched_in_one_pass() {
        let pattern = Pattern::new(&"%a_".repeat(300), None).unwrap();
        // Had it to go back, this would not end: 2^300 ways.
        assert!(!pattern.matches(&"a".repeat(599)) && pattern.matches(&"a".repeat(600)));
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_its_definition_says(pattern in "[ab%_]{0,8}", text in "[abc]{0,10}") {
            let expected = is_like(&chars(&pattern), &chars(&text));
            prop_assert_eq!(Pattern::new(&pattern, None).unwrap().matches(&text), expected);
        }
    }
}
