//! Numbers of selectors: whole ones of 64 bits, and others.
//!
//! Used by the steps of a selector and by its reader. What must stay true: a number is finite; two numbers are compared
//! exactly, also a whole one with another; what has no value (a division by zero) is none.

use std::cmp::Ordering;

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Number {
    Whole(i64),
    /// Finite.
    Broken(f64),
}

impl Number {
    /// Reads what looks like a number: a sign, digits, a point, an exponent.
    pub(super) fn parse(text: &str) -> Option<Number> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let starts_well = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.');
        // `f64` would also take names such as `nan`.
        let looks_well = digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
        if !starts_well || !looks_well {
            return None;
        }
        match text.parse() {
            Ok(whole) => Some(Number::Whole(whole)),
            Err(_) => text.parse().ok().and_then(Number::broken),
        }
    }

    fn broken(value: f64) -> Option<Number> {
        value.is_finite().then_some(Number::Broken(value))
    }

    pub(super) fn cmp(self, other: Number) -> Ordering {
        match (self, other) {
            (Number::Whole(a), Number::Whole(b)) => a.cmp(&b),
            (Number::Whole(a), Number::Broken(b)) => compare(a, b),
            (Number::Broken(a), Number::Whole(b)) => compare(b, a).reverse(),
            // Both are finite, so they have an order.
            (Number::Broken(a), Number::Broken(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        }
    }

    pub(super) fn plus(self, other: Number) -> Option<Number> {
        self.apply(other, i64::checked_add, |a, b| a + b)
    }

    pub(super) fn minus(self, other: Number) -> Option<Number> {
        self.apply(other, i64::checked_sub, |a, b| a - b)
    }

    pub(super) fn times(self, other: Number) -> Option<Number> {
        self.apply(other, i64::checked_mul, |a, b| a * b)
    }

    /// Of two whole numbers the whole quotient, towards zero.
    pub(super) fn over(self, other: Number) -> Option<Number> {
        self.apply(other, i64::checked_div, |a, b| a / b)
    }

    fn apply(
        self,
        other: Number,
        whole: fn(i64, i64) -> Option<i64>,
        broken: fn(f64, f64) -> f64,
    ) -> Option<Number> {
        if let (Number::Whole(a), Number::Whole(b)) = (self, other)
            && let Some(result) = whole(a, b)
        {
            return Some(Number::Whole(result));
        }
        Number::broken(broken(self.as_f64(), other.as_f64()))
    }

    fn as_f64(self) -> f64 {
        match self {
            Number::Whole(whole) => whole as f64,
            Number::Broken(broken) => broken,
        }
    }
}

/// Compares a whole number with a finite other one, without rounding.
fn compare(whole: i64, broken: f64) -> Ordering {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if broken >= BEYOND {
        return Ordering::Less;
    }
    if broken < -BEYOND {
        return Ordering::Greater;
    }
    // Within these bounds the part before the point fits.
    let truncated = broken.trunc();
    let fraction = broken - truncated;
    whole.cmp(&(truncated as i64)).then(0.0_f64.partial_cmp(&fraction).unwrap_or(Ordering::Equal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_a_number_is_one() {
        let none = [
            "", "+", "-", ".", "1e", "nan", "inf", "-inf", "0x10", " 1", "1 ", "1_000", "--1", "1-", "e5",
            "1e999",
        ];
        for text in none {
            assert_eq!(Number::parse(text), None, "{text:?}");
        }
        for (text, number) in [("7", 7), ("-7", -7), ("+7", 7), ("007", 7), ("9223372036854775807", i64::MAX)]
        {
            assert_eq!(Number::parse(text), Some(Number::Whole(number)), "{text:?}");
        }
        for (text, number) in
            [("7.", 7.0), (".5", 0.5), ("-2.5e-1", -0.25), ("9223372036854775808", 2f64.powi(63))]
        {
            assert_eq!(Number::parse(text), Some(Number::Broken(number)), "{text:?}");
        }
    }

    #[test]
    fn a_whole_number_is_compared_with_another_without_rounding() {
        let big = 9_007_199_254_740_993; // 2^53 + 1, which no f64 is.
        assert_eq!(Number::Whole(big).cmp(Number::Broken(9_007_199_254_740_992.0)), Ordering::Greater);
        assert_eq!(Number::Whole(i64::MAX).cmp(Number::Broken(2f64.powi(63))), Ordering::Less);
        assert_eq!(Number::Whole(i64::MIN).cmp(Number::Broken(-(2f64.powi(63)))), Ordering::Equal);
        assert_eq!(Number::Whole(-1).cmp(Number::Broken(-1.5)), Ordering::Greater);
        assert_eq!(Number::Broken(1.5).cmp(Number::Whole(1)), Ordering::Greater);
    }

    #[test]
    fn arithmetic_never_overflows_and_has_no_value_where_there_is_none() {
        let (max, zero) = (Number::Whole(i64::MAX), Number::Whole(0));
        assert_eq!(max.plus(Number::Whole(1)), Some(Number::Broken(2f64.powi(63))));
        assert_eq!(Number::Whole(i64::MIN).over(Number::Whole(-1)), Some(Number::Broken(2f64.powi(63))));
        assert_eq!(max.over(zero), None);
        assert_eq!(Number::Broken(1.0).over(zero), None);
        assert_eq!(Number::Broken(f64::MAX).times(Number::Whole(2)), None);
        assert_eq!(Number::Whole(-5).over(Number::Whole(2)), Some(Number::Whole(-2)));
    }
}
