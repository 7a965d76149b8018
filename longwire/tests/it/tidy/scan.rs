//! Reads Rust source just well enough to tell which paths it names, and on which line.
//!
//! Not a parser: it cuts the source into tokens without comments, strings and characters, leaves out what is
//! compiled for tests only, and collects the paths, with `use` trees spread out and imported names replaced
//! by what they stand for. Known limits: a name is resolved for the whole file, not for its scope, and what a
//! macro makes up is not seen. `tidy.rs` calls it. What must stay true: the line is the one that a person
//! would point at, and code that is only mentioned in a comment or a string never counts.

use std::collections::BTreeMap;

/// A word, `::`, or one character of punctuation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// A path as it stands in a file, with its first segment resolved where an import says what it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Named {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    /// The inline modules around it, outermost first.
    pub(crate) inside: Vec<String>,
}

/// A file's code: the tokens that are compiled into the program.
pub(crate) struct Scanned {
    pub(crate) tokens: Vec<Token>,
    pub(crate) paths: Vec<Named>,
    /// Modules in files of their own that are compiled for tests only: `#[cfg(test)] mod tests;`.
    pub(crate) test_modules: Vec<String>,
}

/// Scans one file.
pub(crate) fn scan(source: &str) -> Scanned {
    let (tokens, test_modules) = without_test_items(&tokens(source));
    let paths = paths(&tokens);
    Scanned { tokens, paths, test_modules }
}

/// All tokens of a file, those of tests too.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let text = blank_comments_and_strings(source);
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut rest = line.chars().peekable();
        while let Some(c) = rest.next() {
            let mut word = String::from(c);
            if is_word(c) {
                while let Some(c) = rest.next_if(|c| is_word(*c)) {
                    word.push(c);
                }
            } else if c == ':' && rest.next_if_eq(&':').is_some() {
                word.push(':');
            } else if c.is_whitespace() {
                continue;
            }
            found.push(Token { text: word, line: index + 1 });
        }
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Replaces comments, strings and characters by spaces; the lines stay where they are.
fn blank_comments_and_strings(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(source.len());
    let mut i = 0;
    while i < chars.len() {
        let starts_word = is_word(at(i)) && (i == 0 || !is_word(at(i - 1)));
        let end = match (at(i), at(i + 1)) {
            ('/', '/') => find(&chars, i, |j| at(j) == '\n'),
            ('/', '*') => end_of_block_comment(&chars, i),
            ('"', _) => end_of_string(&chars, i),
            ('\'', '\\') => find(&chars, i + 3, |j| at(j) == '\'') + 1,
            ('\'', _) if at(i + 2) == '\'' => i + 3,
            _ if starts_word => end_of_raw_string(&chars, i).unwrap_or(i),
            _ => i,
        };
        if end == i {
            out.push(at(i));
            i += 1;
        }
        while i < end.min(chars.len()) {
            out.push(if at(i) == '\n' { '\n' } else { ' ' });
            i += 1;
        }
    }
    out
}

fn find(chars: &[char], from: usize, is_end: impl Fn(usize) -> bool) -> usize {
    (from..chars.len()).find(|j| is_end(*j)).unwrap_or(chars.len())
}

fn end_of_block_comment(chars: &[char], from: usize) -> usize {
    let (mut depth, mut i) = (0, from);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

fn end_of_string(chars: &[char], from: usize) -> usize {
    let mut i = from + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// The end of `r"…"`, `r#"…"#`, `br"…"` or `cr"…"`, if one begins here.
fn end_of_raw_string(chars: &[char], from: usize) -> Option<usize> {
    let quote = find(chars, from, |j| !is_word(chars[j]));
    if !matches!(chars[from..quote].iter().collect::<String>().as_str(), "r" | "br" | "cr") {
        return None;
    }
    let open = find(chars, quote, |j| chars[j] != '#');
    let hashes = open - quote;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closes =
        |j: usize| chars[j] == '"' && chars[j + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    Some(find(chars, open + 1, closes) + 1 + hashes)
}

/// Leaves out every item under `#[cfg(test)]` or `#[cfg(all(test, …))]`.
fn without_test_items(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    let (mut kept, mut modules, mut i) = (Vec::new(), Vec::new(), 0);
    while i < tokens.len() {
        let is_test = starts_with(&tokens[i..], &["#", "[", "cfg", "(", "test", ")"])
            || starts_with(&tokens[i..], &["#", "[", "cfg", "(", "all", "(", "test"]);
        if !is_test {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        }
        while starts_with(&tokens[i..], &["#", "["]) {
            i = end_of_group(tokens, i + 1);
        }
        let end = end_of_item(tokens, i);
        let item = &tokens[i..end];
        if let Some(at) = item.iter().position(|token| token.text == "mod")
            && item.len() == at + 3
            && item[at + 2].text == ";"
        {
            modules.push(item[at + 1].text.clone());
        }
        i = end;
    }
    (kept, modules)
}

fn starts_with(tokens: &[Token], words: &[&str]) -> bool {
    tokens.len() >= words.len() && tokens.iter().zip(words).all(|(token, word)| token.text == *word)
}

/// The index behind the group that opens at `open`.
fn end_of_group(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

/// The index behind the item, field or statement that begins at `from`.
fn end_of_item(tokens: &[Token], from: usize) -> usize {
    const ITEMS: [&str; 16] = [
        "pub",
        "fn",
        "mod",
        "use",
        "impl",
        "struct",
        "enum",
        "const",
        "static",
        "type",
        "trait",
        "async",
        "unsafe",
        "extern",
        "macro_rules",
        "let",
    ];
    let first = tokens.get(from).map_or("", |token| token.text.as_str());
    let ends_at_semicolon = matches!(first, "use" | "let" | "const" | "static" | "type")
        && tokens.get(from + 1).is_none_or(|token| token.text != "fn");
    let mut i = from;
    while i < tokens.len() {
        match tokens[i].text.as_str() {
            ";" => return i + 1,
            "," if !ITEMS.contains(&first) => return i + 1,
            "}" | ")" | "]" => return i,
            "{" if !ends_at_semicolon => return end_of_group(tokens, i),
            "(" | "[" | "{" => i = end_of_group(tokens, i),
            _ => i += 1,
        }
    }
    i
}

/// Every path, in the order of the file.
fn paths(tokens: &[Token]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut imports: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    let mut inside: Vec<(String, usize)> = Vec::new();
    let (mut depth, mut i) = (0, 0);
    while i < tokens.len() {
        let before = if i == 0 { ";" } else { tokens[i - 1].text.as_str() };
        let names =
            |inside: &[(String, usize)]| inside.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        match tokens[i].text.as_str() {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inside.retain(|(_, opened)| *opened <= depth);
            }
            "mod" if tokens.get(i + 2).is_some_and(|token| token.text == "{") => {
                inside.push((tokens[i + 1].text.clone(), depth + 1));
            }
            "use" if matches!(before, ";" | "{" | "}" | "]" | ")" | "pub") => {
                let mut leaves = Vec::new();
                i = use_tree(tokens, i + 1, &[], &mut leaves);
                for leaf in leaves {
                    imports.entry(leaf.name).or_default().push(leaf.segments.clone());
                    found.push(Named { segments: leaf.segments, line: leaf.line, inside: names(&inside) });
                }
                continue;
            }
            word if (word.starts_with(is_word) && before != "::") || (word == "::" && !ends_path(before)) => {
                let line = tokens[i].line;
                let mut segments = Vec::new();
                i += usize::from(word == "::");
                while tokens.get(i).is_some_and(|token| token.text.starts_with(is_word)) {
                    segments.push(tokens[i].text.clone());
                    i += 1;
                    if tokens.get(i).is_none_or(|token| token.text != "::") {
                        break;
                    }
                    i += 1;
                }
                if segments.len() > 1 {
                    found.push(Named { segments, line, inside: names(&inside) });
                }
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    resolve(found, &imports)
}

fn ends_path(before: &str) -> bool {
    before == ">" || before.starts_with(is_word)
}

struct Leaf {
    name: String,
    segments: Vec<String>,
    line: usize,
}

/// Spreads out one `use` tree; returns the index behind it.
fn use_tree(tokens: &[Token], from: usize, prefix: &[String], leaves: &mut Vec<Leaf>) -> usize {
    let mut segments = prefix.to_vec();
    let mut i = from;
    while i < tokens.len() {
        let Token { text, line } = &tokens[i];
        match text.as_str() {
            "::" => i += 1,
            "{" => {
                i += 1;
                while i < tokens.len() && tokens[i].text != "}" {
                    i = use_tree(tokens, i, &segments, leaves);
                    i += usize::from(tokens.get(i).is_some_and(|token| token.text == ","));
                }
                return i + 1;
            }
            "," | ";" | "}" => return i,
            word => {
                if word != "self" || segments.is_empty() {
                    segments.push(word.to_string());
                }
                i += 1;
                let next = tokens.get(i).map_or(";", |token| token.text.as_str());
                if next == "::" {
                    continue;
                }
                let mut name = segments.last().cloned().unwrap_or_default();
                if next == "as" {
                    name = tokens.get(i + 1).map_or(name, |token| token.text.clone());
                    i += 2;
                }
                leaves.push(Leaf { name, segments, line: *line });
                return i;
            }
        }
    }
    i
}

/// Replaces a first segment that an import names by what it stands for.
fn resolve(found: Vec<Named>, imports: &BTreeMap<String, Vec<Vec<String>>>) -> Vec<Named> {
    let mut resolved = Vec::new();
    for named in found {
        for import in imports.get(&named.segments[0]).into_iter().flatten() {
            if *import != named.segments && import.first() != named.segments.first() {
                let segments = import.iter().chain(&named.segments[1..]).cloned().collect();
                resolved.push(Named { segments, ..named.clone() });
            }
        }
        resolved.push(named);
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(source: &str) -> Vec<(String, usize)> {
        scan(source).paths.into_iter().map(|path| (path.segments.join("::"), path.line)).collect()
    }

    #[test]
    fn comments_strings_and_characters_are_no_code() {
        let source = "// a::b\n/* c::d /* e::f */ g::h */\nlet s = \"i::j \\\" k::l\";\n\
            let r = r#\"m::n \" o::p\"#; let c = '\"'; let b = b\"q::r\"; let e = '\\''; s::t();";
        assert_eq!(named(source), [("s::t".into(), 4)]);
    }

    #[test]
    fn a_lifetime_does_not_open_a_character() {
        assert_eq!(named("fn f<'a>(x: &'a str) { b::c(x) }"), [("b::c".into(), 1)]);
    }

    #[test]
    fn a_string_over_several_lines_keeps_the_count() {
        assert_eq!(named("let x = \"one\n\ntwo\";\na::b();"), [("a::b".into(), 4)]);
    }

    #[test]
    fn a_use_tree_is_spread_out_with_the_line_of_each_leaf() {
        let found = named("use crate::{\n    a::{self, B},\n    c as d,\n    e::*,\n};\n");
        let expected = [("crate::a", 2), ("crate::a::B", 2), ("crate::c", 3), ("crate::e::*", 4)];
        assert_eq!(found, expected.map(|(path, line)| (path.to_string(), line)));
    }

    #[test]
    fn an_imported_name_is_replaced_by_what_it_stands_for() {
        let found = named("use std::time::Instant as Moment;\nfn f() { Moment::now(); }");
        assert!(found.contains(&("std::time::Instant::now".into(), 2)), "{found:?}");
    }

    #[test]
    fn what_is_compiled_for_tests_only_is_left_out() {
        let source = "#[cfg(test)]\nuse a::b;\n#[cfg(test)]\n#[allow(x)]\nmod tests { fn f() { c::d(); } }\n\
            #[cfg(all(test, unix))]\nfn g<A, B>() -> [u8; 3] { e::f() }\nstruct S { #[cfg(test)] x: g::H, y: i::J }\n\
            #[cfg(test)]\npub(crate) mod conformance;\n#[cfg(not(test))] fn k() { l::m() }";
        let scanned = scan(source);
        let found: Vec<_> = scanned.paths.iter().map(|path| path.segments.join("::")).collect();
        assert_eq!(found, ["i::J", "l::m"]);
        assert_eq!(scanned.test_modules, ["conformance"]);
    }

    #[test]
    fn an_inline_module_is_remembered() {
        let found = scan("mod a { mod b { fn f() { super::c::d() } } }\nfn g() { super::e::f() }").paths;
        assert_eq!(found[0].inside, ["a", "b"]);
        assert!(found[1].inside.is_empty());
    }

    #[test]
    fn a_path_from_the_root_of_all_crates_counts() {
        assert_eq!(named("fn f() { ::std::fs::read(x); <T as A>::b(); }"), [("std::fs::read".into(), 1)]);
    }
}
