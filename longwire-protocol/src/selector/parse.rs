//! Reads the text of a selector into its steps.
//!
//! One pass without a tree: operands first, then what joins them. `AND`, `OR`, sums and products go in loops, so that
//! only parentheses, `NOT` and signs nest. What must stay true: nesting is counted before it happens, and every step
//! that joins finds its operands on the stack.

use super::like::Pattern;
use super::number::Number;
use super::{
    Comparison, Field, Literal, MAX_DEPTH, MAX_TEXT_BYTES, Selector, SelectorError, Step, header_name,
};
use std::collections::BTreeMap;

/// Before a selector: names may have `-` in them, so that a difference needs blanks. ActiveMQ's clients write it.
const HYPHENATED: &str = "hyphenated_props:";

/// Before a selector: text may stand for numbers, which it may anyway. ActiveMQ's clients write it.
const CONVERTED: &str = "convert_string_expressions:";

pub(super) fn selector(text: &str) -> Result<Selector, SelectorError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(SelectorError {
            at: MAX_TEXT_BYTES,
            what: "a selector has at most 1024 bytes, and goes on",
        });
    }
    let mut scanner = Scanner { text, at: 0, is_hyphenated: false };
    loop {
        let rest = &text[scanner.at..];
        if rest.starts_with(HYPHENATED) {
            (scanner.at, scanner.is_hyphenated) = (scanner.at + HYPHENATED.len(), true);
        } else if rest.starts_with(CONVERTED) {
            scanner.at += CONVERTED.len();
        } else {
            break;
        }
    }
    let (at, token) = scanner.next()?;
    let mut parser = Parser { scanner, token, at, depth: 0, steps: Vec::new(), headers: BTreeMap::new() };
    let kind = parser.any()?;
    if parser.token != Token::End {
        return Err(parser.error("there is more than one condition, or a comparison that is none"));
    }
    if !kind.may_be(Kind::Truth) {
        return Err(SelectorError { at, what: "the whole is a value and no condition, beginning" });
    }
    Ok(Selector { steps: parser.steps.into(), headers: parser.headers })
}

/// What a part of a selector is, as far as its text says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Truth,
    Number,
    Text,
    /// A header's value, which is known with each message only.
    Any,
}

impl Kind {
    fn may_be(self, wanted: Kind) -> bool {
        self == wanted || self == Kind::Any
    }
}

#[derive(Clone, PartialEq, Debug)]
enum Token<'a> {
    /// A keyword in upper case, which a name is never compared as.
    Word(&'static str),
    Name(&'a str),
    /// Between quotation marks, which are doubled within.
    Quoted(String),
    Text(String),
    Number(Number),
    Sign(&'static str),
    End,
}

const KEYWORDS: [&str; 11] =
    ["AND", "OR", "NOT", "BETWEEN", "IN", "LIKE", "ESCAPE", "IS", "NULL", "TRUE", "FALSE"];

/// The longer ones first.
const SIGNS: [&str; 12] = ["<>", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "(", ")"];

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    is_hyphenated: bool,
}

impl<'a> Scanner<'a> {
    /// The next token and its place.
    fn next(&mut self) -> Result<(usize, Token<'a>), SelectorError> {
        let rest = self.text[self.at..].trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
        self.at = self.text.len() - rest.len();
        let at = self.at;
        let error = |what| Err(SelectorError { at, what });
        let Some(first) = rest.chars().next() else {
            return Ok((at, Token::End));
        };
        if first == '\'' || first == '"' {
            let Some((text, length)) = quoted(rest, first) else {
                return error("a quotation begins and does not end");
            };
            self.at += length;
            let token = if first == '\'' { Token::Text(text) } else { Token::Quoted(text) };
            return Ok((at, token));
        }
        if first.is_ascii_digit() || first == '.' {
            let length = number_length(rest);
            let (digits, behind) = rest.split_at(length);
            let Some(number) = Number::parse(digits).filter(|_| !behind.starts_with(is_in_name)) else {
                return error("this begins like a number and is none");
            };
            self.at += length;
            return Ok((at, Token::Number(number)));
        }
        if first.is_alphabetic() || matches!(first, '_' | '$') {
            let is_inside = |c: char| is_in_name(c) || c == '.' || c == '-' && self.is_hyphenated;
            let length = rest.find(|c| !is_inside(c)).unwrap_or(rest.len());
            self.at += length;
            let name = &rest[..length];
            let keyword = KEYWORDS.into_iter().find(|keyword| keyword.eq_ignore_ascii_case(name));
            return Ok((at, keyword.map_or(Token::Name(name), Token::Word)));
        }
        if first == ',' {
            self.at += 1;
            return Ok((at, Token::Sign(",")));
        }
        match SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            Some(sign) => {
                self.at += sign.len();
                Ok((at, Token::Sign(sign)))
            }
            None => error("nothing in a selector begins so"),
        }
    }
}

fn is_in_name(char: char) -> bool {
    char.is_alphanumeric() || matches!(char, '_' | '$')
}

/// What stands between quotation marks at the beginning of `text`, doubled ones as one, and its length with them.
fn quoted(text: &str, mark: char) -> Option<(String, usize)> {
    let mut inside = String::new();
    let mut at = 1;
    loop {
        let end = at + text[at..].find(mark)?;
        inside.push_str(&text[at..end]);
        at = end + 1;
        if !text[at..].starts_with(mark) {
            return Some((inside, at));
        }
        inside.push(mark);
        at += 1;
    }
}

/// How many bytes of `text` are digits, a point and more digits, and an exponent.
fn number_length(text: &str) -> usize {
    let digits = |from: usize| {
        let count = text[from..].bytes().take_while(u8::is_ascii_digit).count();
        from + count
    };
    let mut length = digits(0);
    if text[length..].starts_with('.') {
        length = digits(length + 1);
    }
    if text[length..].starts_with(['e', 'E']) {
        let sign = usize::from(text[length + 1..].starts_with(['+', '-']));
        let end = digits(length + 1 + sign);
        if end > length + 1 + sign {
            length = end;
        }
    }
    length
}

struct Parser<'a> {
    scanner: Scanner<'a>,
    token: Token<'a>,
    /// Where the token begins.
    at: usize,
    depth: usize,
    steps: Vec<Step>,
    headers: BTreeMap<Box<str>, usize>,
}

impl<'a> Parser<'a> {
    fn error(&self, what: &'static str) -> SelectorError {
        SelectorError { at: self.at, what }
    }

    /// Goes on to the next token, and gives this one.
    fn advance(&mut self) -> Result<Token<'a>, SelectorError> {
        let (at, token) = self.scanner.next()?;
        self.at = at;
        Ok(std::mem::replace(&mut self.token, token))
    }

    /// Goes on if the token is this one.
    fn take(&mut self, token: &Token<'_>) -> Result<bool, SelectorError> {
        let is_it = self.token == *token;
        if is_it {
            self.advance()?;
        }
        Ok(is_it)
    }

    fn take_word(&mut self, word: &'static str) -> Result<bool, SelectorError> {
        self.take(&Token::Word(word))
    }

    fn take_sign(&mut self, sign: &'static str) -> Result<bool, SelectorError> {
        self.take(&Token::Sign(sign))
    }

    /// Reads something that nests.
    fn deeper(
        &mut self,
        read: fn(&mut Parser<'a>) -> Result<Kind, SelectorError>,
    ) -> Result<Kind, SelectorError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error("a selector is nested at most 32 deep"));
        }
        self.depth += 1;
        let kind = read(self)?;
        self.depth -= 1;
        Ok(kind)
    }

    fn require(&self, kind: Kind, wanted: Kind, at: usize) -> Result<(), SelectorError> {
        match (kind.may_be(wanted), wanted) {
            (true, _) => Ok(()),
            (false, Kind::Truth) => {
                Err(SelectorError { at, what: "this is a value where a condition is needed" })
            }
            (false, _) => Err(SelectorError { at, what: "this is no number where one is needed" }),
        }
    }

    /// Operands of one kind with something of equal rank between them.
    fn chain(
        &mut self,
        operand: fn(&mut Parser<'a>) -> Result<Kind, SelectorError>,
        joints: &[(Token<'static>, Step)],
        kind: Kind,
    ) -> Result<Kind, SelectorError> {
        let at = self.at;
        let first = operand(self)?;
        let mut is_chain = false;
        while let Some((_, step)) = joints.iter().find(|(token, _)| *token == self.token) {
            self.require(first, kind, at)?;
            self.advance()?;
            let at = self.at;
            let next = operand(self)?;
            self.require(next, kind, at)?;
            self.steps.push(step.clone());
            is_chain = true;
        }
        Ok(if is_chain { kind } else { first })
    }

    fn any(&mut self) -> Result<Kind, SelectorError> {
        self.chain(Parser::conjunction, &[(Token::Word("OR"), Step::Or)], Kind::Truth)
    }

    fn conjunction(&mut self) -> Result<Kind, SelectorError> {
        self.chain(Parser::negation, &[(Token::Word("AND"), Step::And)], Kind::Truth)
    }

    fn negation(&mut self) -> Result<Kind, SelectorError> {
        if !self.take_word("NOT")? {
            return self.predicate();
        }
        let at = self.at;
        let kind = self.deeper(Parser::negation)?;
        self.require(kind, Kind::Truth, at)?;
        self.steps.push(Step::Not);
        Ok(Kind::Truth)
    }

    fn predicate(&mut self) -> Result<Kind, SelectorError> {
        let at = self.at;
        let kind = self.sum()?;
        let comparison = match &self.token {
            Token::Sign("=") => Some(Comparison::Is),
            Token::Sign("<>") => Some(Comparison::IsNot),
            Token::Sign("<") => Some(Comparison::IsLess),
            Token::Sign("<=") => Some(Comparison::IsAtMost),
            Token::Sign(">") => Some(Comparison::IsGreater),
            Token::Sign(">=") => Some(Comparison::IsAtLeast),
            _ => None,
        };
        if let Some(comparison) = comparison {
            self.advance()?;
            self.sum()?;
            self.steps.push(Step::Compare(comparison));
            return Ok(Kind::Truth);
        }
        if self.take_word("IS")? {
            let is_negative = self.take_word("NOT")?;
            if !self.take_word("NULL")? {
                return Err(self.error("only NULL or NOT NULL follows IS, not this"));
            }
            self.steps.push(Step::IsNull);
            if is_negative {
                self.steps.push(Step::Not);
            }
            return Ok(Kind::Truth);
        }
        let is_negative = self.take_word("NOT")?;
        if self.take_word("BETWEEN")? {
            self.sum()?;
            if !self.take_word("AND")? {
                return Err(self.error("BETWEEN needs AND and a second bound"));
            }
            self.sum()?;
            self.steps.push(Step::IsBetween);
        } else if self.take_word("IN")? {
            self.require_text(kind, at)?;
            let list = self.list()?;
            self.steps.push(Step::IsOneOf(list.into()));
        } else if self.take_word("LIKE")? {
            self.require_text(kind, at)?;
            let pattern = self.pattern()?;
            self.steps.push(Step::IsLike(Box::new(pattern)));
        } else if is_negative {
            return Err(self.error("only BETWEEN, IN or LIKE follows NOT behind a value, not this"));
        } else {
            return Ok(kind);
        }
        if is_negative {
            self.steps.push(Step::Not);
        }
        Ok(Kind::Truth)
    }

    /// IN and LIKE are for headers and fields.
    fn require_text(&self, kind: Kind, at: usize) -> Result<(), SelectorError> {
        match kind {
            Kind::Truth => Err(SelectorError { at, what: "a condition has no IN or LIKE" }),
            _ => Ok(()),
        }
    }

    /// What follows IN.
    fn list(&mut self) -> Result<Vec<Literal>, SelectorError> {
        if !self.take_sign("(")? {
            return Err(self.error("IN needs a list in parentheses"));
        }
        let mut list = Vec::new();
        loop {
            let is_negative = self.take_sign("-")?;
            let is_signed = is_negative || self.take_sign("+")?;
            list.push(match &self.token {
                Token::Text(text) if !is_signed => Literal::Text(text.as_str().into()),
                Token::Number(number) => {
                    let negated = is_negative.then(|| Number::Whole(0).minus(*number)).flatten();
                    Literal::Number(negated.unwrap_or(*number))
                }
                _ => return Err(self.error("a list has text and numbers only, not this")),
            });
            self.advance()?;
            if self.take_sign(")")? {
                return Ok(list);
            }
            if !self.take_sign(",")? {
                return Err(self.error("a list needs a comma or its end"));
            }
        }
    }

    /// What follows LIKE.
    fn pattern(&mut self) -> Result<Pattern, SelectorError> {
        let at = self.at;
        let Token::Text(text) = self.advance()? else {
            return Err(SelectorError { at, what: "LIKE needs a text" });
        };
        let mut escape = None;
        if self.take_word("ESCAPE")? {
            let at = self.at;
            let error = || SelectorError { at, what: "ESCAPE needs a text of one character" };
            let Token::Text(text) = self.advance()? else {
                return Err(error());
            };
            let mut chars = text.chars();
            escape = chars.next().filter(|_| chars.next().is_none());
            escape.ok_or_else(error)?;
        }
        let error =
            SelectorError { at, what: "only % and _ and itself can stand behind the escape in a pattern" };
        Pattern::new(&text, escape).ok_or(error)
    }

    fn sum(&mut self) -> Result<Kind, SelectorError> {
        let joints = [(Token::Sign("+"), Step::Add), (Token::Sign("-"), Step::Subtract)];
        self.chain(Parser::product, &joints, Kind::Number)
    }

    fn product(&mut self) -> Result<Kind, SelectorError> {
        let joints = [(Token::Sign("*"), Step::Multiply), (Token::Sign("/"), Step::Divide)];
        self.chain(Parser::factor, &joints, Kind::Number)
    }

    fn factor(&mut self) -> Result<Kind, SelectorError> {
        let step = match &self.token {
            Token::Sign("-") => Step::Negate,
            Token::Sign("+") => Step::Affirm,
            _ => return self.operand(),
        };
        self.advance()?;
        let at = self.at;
        let kind = self.deeper(Parser::factor)?;
        self.require(kind, Kind::Number, at)?;
        self.steps.push(step);
        Ok(Kind::Number)
    }

    fn operand(&mut self) -> Result<Kind, SelectorError> {
        let at = self.at;
        let (step, kind) = match self.advance()? {
            Token::Text(text) => (Step::Text(text.into()), Kind::Text),
            Token::Number(number) => (Step::Number(number), Kind::Number),
            Token::Word("TRUE") => (Step::Truth(true), Kind::Truth),
            Token::Word("FALSE") => (Step::Truth(false), Kind::Truth),
            Token::Name(name) => self.named(name),
            Token::Quoted(name) => self.named(&name),
            Token::Sign("(") => {
                let kind = self.deeper(Parser::any)?;
                if !self.take_sign(")")? {
                    return Err(self.error("a parenthesis is not closed"));
                }
                return Ok(kind);
            }
            Token::End => return Err(SelectorError { at, what: "something is missing" }),
            _ => return Err(SelectorError { at, what: "a name, text, number or parenthesis is needed" }),
        };
        self.steps.push(step);
        Ok(kind)
    }

    fn named(&mut self, name: &str) -> (Step, Kind) {
        if let Some(field) = Field::named(name) {
            return (Step::Field(field), Kind::Any);
        }
        let places = self.headers.len();
        (Step::Header(*self.headers.entry(header_name(name).into()).or_insert(places)), Kind::Any)
    }
}
