//! What the claims `aud` and `iss` must be: nothing in particular, one text, or a pattern.
//!
//! A pattern is text in which `*` stands for any text, also none. It is not a regular expression, and every
//! other character stands for itself. What must stay true: the whole claim must fit, not a part of it, and
//! matching takes no more steps than pattern and claim have characters, multiplied.

/// What a claim must be.
pub(super) enum Expected {
    /// Anything, also absent.
    Anything,
    /// This text.
    Exactly(String),
    /// What fits a pattern.
    Like(String),
}

impl Expected {
    /// What two settings, of which at most one is set, expect.
    pub(super) fn of(exact: Option<&String>, pattern: Option<&String>) -> Expected {
        match (exact, pattern) {
            (Some(exact), _) => Expected::Exactly(exact.clone()),
            (None, Some(pattern)) => Expected::Like(pattern.clone()),
            (None, None) => Expected::Anything,
        }
    }

    /// Whether one of these is what is expected.
    pub(super) fn is_met_by<'a>(&self, mut claims: impl Iterator<Item = &'a str>) -> bool {
        match self {
            Expected::Anything => true,
            Expected::Exactly(text) => claims.any(|claim| claim == text),
            Expected::Like(pattern) => claims.any(|claim| fits(pattern, claim)),
        }
    }
}

/// Whether a whole text fits a pattern.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    // The earliest place for each part in the middle leaves the most for those that follow.
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text_and_the_rest_for_itself() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "anything"),
            ("a", "a"),
            ("a*", "a"),
            ("https://*.example.com", "https://eu.example.com"),
            ("https://*.example.com/*/", "https://a.b.example.com/x/y/"),
            ("a*b*c", "abbbcc"),
            ("*ab*ab", "abab"),
            ("**", ""),
            ("\u{e9}*", "\u{e9}\u{fc}"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", ""),
            ("a", "ab"),
            ("a", "ba"),
            ("a*a", "a"),
            ("*ab*ab", "ab"),
            ("https://*.example.com", "https://example.com"),
            ("https://*.example.com", "https://eu.example.com.evil.org"),
            ("a.c", "abc"),
            ("a*b*c", "acb"),
        ] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn an_absent_claim_fits_no_pattern() {
        assert!(!Expected::Like("*".to_owned()).is_met_by(std::iter::empty()));
        assert!(Expected::Anything.is_met_by(std::iter::empty()));
        assert!(Expected::Exactly("b".to_owned()).is_met_by(["a", "b"].into_iter()));
    }
}
