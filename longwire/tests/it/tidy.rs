//! The architecture as a test: layers, absences and the small habits of every file.
//!
//! Layers, the arrows within a layer and the list of what is spawned stand here as tables and in
//! ARCHITECTURE.md for people; the two must say the same. A module names only modules of lower layers, itself
//! and its children. What a module must never do is a list of bans, each with what to use instead. Every
//! failure is a line `file:line: what, and what instead`. It reads source with [`scan`], whose first lines say
//! what it does not see. What must stay true: each rule has a snippet below that breaks it and fails.

mod scan;

use scan::{Named, Scanned, scan};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The modules of the server by layer, highest first.
const LAYERS: &[(u8, &[&str])] = &[
    (7, &["main", "cli"]),
    (6, &["server"]),
    (5, &["transport", "api"]),
    (4, &["session", "shard"]),
    (3, &["node"]),
    (2, &["broker", "presence", "queue", "auth", "backend", "events"]),
    (1, &["history", "delivery", "journal", "errands", "signature"]),
    (0, &["env", "config", "telemetry"]),
];

/// Who may name whom within one layer.
const ARROWS: &[(&str, &str)] =
    &[("main", "cli"), ("transport", "api"), ("shard", "session"), ("backend", "auth"), ("backend", "queue")];

/// The files of the server that start a thread or a task.
const SPAWNS: &[&str] =
    &["cli/bench/load.rs", "cli/input.rs", "server.rs", "shard/driver.rs", "shard/mod.rs"];

/// Source files that may be longer than [`MAX_LINES`].
const LONG_FILES: &[&str] = &[];

/// Beyond this a file holds more than one concept.
const MAX_LINES: usize = 900;

/// Something that a crate must not name, where it may after all, and what to use instead.
struct Ban {
    /// Paths that begin with one of these, or end so if it begins with `..`.
    paths: &'static [&'static str],
    /// Files, without `.rs`, and folders that are free to.
    except: &'static [&'static str],
    instead: &'static str,
}

const CLOCK: Ban = Ban {
    paths: &["..::Instant::now", "..::SystemTime::now", "tokio::time"],
    except: &["env/clock"],
    instead: "take `now` as an argument, or ask the clock of `env::clock`",
};
const NET: Ban = Ban {
    paths: &[
        "tokio::net",
        "std::net::TcpStream",
        "std::net::TcpListener",
        "std::net::UdpSocket",
        "std::os::unix::net",
    ],
    except: &["env/net"],
    instead: "open sockets with `env::net`",
};
const DISK: Ban = Ban {
    paths: &["std::fs", "tokio::fs"],
    except: &["env/disk"],
    instead: "read and write files with `env::disk`",
};
const CHANCE: Ban = Ban {
    paths: &["rand", "rand_core", "rand_chacha", "getrandom", "aws_lc_rs::rand", "std::hash::RandomState"],
    except: &["env/rng"],
    instead: "draw from the generator of `env::rng`",
};

/// What holds for the server.
const SERVER_BANS: &[Ban] = &[CLOCK, NET, DISK, CHANCE];

/// What holds for the protocol crate: the same without exceptions, and no IO of any kind.
///
/// An address is data, so `std::net::IpAddr` is free; what opens a socket or resolves a name is not.
const PROTOCOL_BANS: &[Ban] = &[
    Ban { except: &[], instead: "give and take bytes; the server and the client own the sockets", ..NET },
    Ban { except: &[], instead: "take `now` as an argument", ..CLOCK },
    Ban { except: &[], instead: "take bytes from the caller, who owns the disk", ..DISK },
    Ban { except: &[], instead: "take random numbers or bytes as an argument", ..CHANCE },
    Ban {
        paths: &["tokio", "std::net::ToSocketAddrs", "std::thread"],
        except: &[],
        instead: "give and take bytes; the server and the client own the sockets, tasks and threads",
    },
];

/// Breaches of the bans in one file, `file` being its path below `src/`.
fn banned(bans: &[Ban], file: &str, scanned: &Scanned) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for ban in bans.iter().filter(|ban| !is_within(file, ban.except)) {
        for path in &scanned.paths {
            if let Some(pattern) = ban.paths.iter().find(|pattern| matches(pattern, &path.segments)) {
                let name = pattern.trim_start_matches("..::");
                found.push((path.line, format!("`{name}` is banned here: {}", ban.instead)));
            }
        }
        if ban.paths.contains(&CLOCK.paths[0]) {
            let elapsed = scanned.tokens.windows(3).filter(|t| t[0].text == "." && t[1].text == "elapsed");
            found.extend(
                elapsed.map(|t| (t[1].line, format!("`.elapsed()` asks the clock: {}", ban.instead))),
            );
        }
    }
    found
}

/// Whether `file` is one of `places`, or lies within one.
fn is_within(file: &str, places: &[&str]) -> bool {
    let stem = file.trim_end_matches(".rs");
    let inside =
        |place: &str| stem.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    places.iter().any(|place| inside(place.trim_end_matches(".rs").trim_end_matches('/')))
}

/// Whether a path falls under a ban; a `*` at its end stands for whatever may follow.
fn matches(pattern: &str, path: &[String]) -> bool {
    let (is_suffix, pattern) = pattern.strip_prefix("..::").map_or((false, pattern), |rest| (true, rest));
    let pattern: Vec<&str> = pattern.split("::").collect();
    if is_suffix {
        return path.windows(pattern.len()).any(|part| part == pattern);
    }
    match path.iter().position(|segment| segment == "*") {
        Some(star) if star < pattern.len() => star > 0 && path[..star] == pattern[..star],
        _ => path.len() >= pattern.len() && path[..pattern.len()] == pattern[..],
    }
}

/// The lines that start a thread or a task.
fn spawns(scanned: &Scanned) -> Vec<usize> {
    const CALLS: [&str; 4] = ["spawn", "spawn_local", "spawn_blocking", "spawn_on"];
    let calls = scanned.tokens.windows(3).filter(|t| {
        matches!(t[0].text.as_str(), "." | "::")
            && CALLS.contains(&t[1].text.as_str())
            && matches!(t[2].text.as_str(), "(" | "::")
    });
    let named = scanned.paths.iter().filter(|path| {
        let last = path.segments.last().map_or("", String::as_str);
        CALLS.contains(&last)
            || ["std::thread::Builder", "std::thread::scope"].iter().any(|ban| matches(ban, &path.segments))
    });
    let lines: BTreeSet<usize> = calls.map(|t| t[1].line).chain(named.map(|path| path.line)).collect();
    lines.into_iter().collect()
}

/// Lines that print, which only a command does.
fn prints(scanned: &Scanned) -> Vec<usize> {
    let calls = scanned
        .tokens
        .windows(2)
        .filter(|t| matches!(t[0].text.as_str(), "println" | "print") && t[1].text == "!");
    calls.map(|t| t[0].line).collect()
}

/// The modules that a file is, from the crate's root: `shard/driver.rs` is `[shard, driver]`.
fn module_of(file: &str) -> Vec<String> {
    let stem = file.trim_end_matches(".rs").trim_end_matches("/mod");
    if matches!(stem, "lib") { Vec::new() } else { stem.split('/').map(str::to_string).collect() }
}

fn layer_of(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, modules)| modules.contains(&module)).map(|(layer, _)| *layer)
}

/// Breaches of the layers in one file of the server.
fn upward(file: &str, scanned: &Scanned) -> Vec<(usize, String)> {
    let module = module_of(file);
    let Some(from) = module.first().map(String::as_str) else { return Vec::new() };
    let Some(layer) = layer_of(from) else {
        return vec![(
            1,
            format!("`{from}` has no layer: put it into the table of tidy.rs and ARCHITECTURE.md"),
        )];
    };
    let mut found = Vec::new();
    for path in &scanned.paths {
        let Some(target) = target_of(&module, path) else { continue };
        let breach = match layer_of(&target) {
            _ if target == from => continue,
            Some(below) if below < layer || ARROWS.contains(&(from, target.as_str())) => continue,
            Some(other) => format!(
                "`{from}` (layer {layer}) names `{target}` (layer {other}); only lower layers may be named"
            ),
            None => format!(
                "`crate::{target}` is no module with a layer: name what is meant by its module's path"
            ),
        };
        found.push((path.line, breach));
    }
    found
}

/// The top-level module that a path leads to, if it leads through this crate's root.
fn target_of(module: &[String], path: &Named) -> Option<String> {
    let mut base: Vec<&String> = module.iter().chain(&path.inside).collect();
    let mut rest = path.segments.as_slice();
    match rest.first()?.as_str() {
        "crate" => base.clear(),
        "self" => return None,
        "super" => {
            let ups = rest.iter().take_while(|segment| *segment == "super").count();
            base.truncate(base.len().saturating_sub(ups));
            rest = &rest[ups - 1..];
        }
        // Within main.rs the library goes by its name.
        _ => return None,
    }
    base.into_iter().chain(&rest[1..]).next().cloned()
}

/// Words that mark something unfinished, in code.
fn leftovers(source: &str) -> Vec<(usize, String)> {
    // Put together here, so that this file does not contain them.
    let marks = [concat!("FIX", "ME"), concat!("X", "XX")];
    let tokens = scan::tokens(source);
    let macros = tokens
        .windows(2)
        .filter(|t| matches!(t[0].text.as_str(), "todo" | "unimplemented") && t[1].text == "!");
    let ignored = tokens.windows(3).filter(|t| t[0].text == "#" && t[1].text == "[" && t[2].text == "ignore");
    let macros = macros.map(|t| (t[0].line, format!("`{}!` is unfinished work", t[0].text)));
    let mut found: Vec<_> = macros.collect();
    found.extend(
        ignored.map(|t| (t[0].line, "a test that does not run proves nothing: mend or remove it".into())),
    );
    for (index, line) in source.lines().enumerate() {
        let mark = marks.iter().find(|mark| has_word(line, mark));
        found.extend(mark.map(|mark| (index + 1, format!("`{mark}`: finish it, or open an issue"))));
    }
    found
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

/// Paths of one person's machine.
fn machine_paths(text: &str) -> Vec<(usize, String)> {
    let roots = ["work", "root", "home", "Users"].map(|root| format!("/{root}/"));
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for root in &roots {
            // Behind a letter it is a part of a longer path or address, not a root.
            let begins =
                |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-/*}~".contains(c));
            if line.match_indices(root.as_str()).any(|(at, _)| begins(at)) {
                found.push((
                    index + 1,
                    format!("`{root}` is a path of one machine: use a relative path or an argument"),
                ));
            }
        }
    }
    found
}

/// Places of packages other than the public registries, in the files that name such places.
fn foreign_registries(file: &str, text: &str) -> Vec<(usize, String)> {
    let name = file.rsplit('/').next().unwrap_or(file);
    let foreign = |line: &str| match name {
        "Cargo.lock" => {
            line.starts_with("source = ")
                && !line.contains("\"registry+https://github.com/rust-lang/crates.io-index\"")
        }
        "package-lock.json" | "npm-shrinkwrap.json" => {
            line.trim_start().starts_with("\"resolved\":") && !line.contains("\"https://registry.npmjs.org/")
        }
        _ => {
            [["replace", "with"], ["index", "url"], ["registry", "url"]]
                .iter()
                .any(|[a, b]| line.contains(&format!("{a}-{b}")))
                || (name == ".npmrc"
                    && line.split('=').next().is_some_and(|key| key.trim().ends_with("registry")))
        }
    };
    let lines = text.lines().enumerate().filter(|(_, line)| foreign(line));
    lines
        .map(|(index, _)| (index + 1, "packages come from the public registries: name no other".to_string()))
        .collect()
}

/// The lines of a fenced block of ARCHITECTURE.md that follows the comment `<!-- tidy: NAME -->`.
fn listed(document: &str, name: &str) -> Vec<String> {
    let marker = format!("<!-- tidy: {name} -->");
    let block = document.split_once(&marker).and_then(|(_, rest)| rest.split("```").nth(1));
    let block = block.unwrap_or_else(|| panic!("ARCHITECTURE.md has no block `{marker}`"));
    block
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty())
        .collect()
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_path_buf()
}

/// The files of the repository, tracked or about to be; without git, all that lies there but build output.
fn repository_files() -> Vec<String> {
    let listing = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(top())
        .output();
    let mut files: Vec<String> = match listing {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .split('\0')
            .filter(|file| top().join(file).is_file())
            .map(str::to_string)
            .collect(),
        _ => walk(&top()),
    };
    files.sort();
    files.dedup();
    assert!(
        files.iter().any(|file| file == "longwire/tests/it/tidy.rs"),
        "the listing of the repository is wrong"
    );
    files
}

/// Every file below `root`, by its path from there.
fn walk(root: &Path) -> Vec<String> {
    const SKIPPED: [&str; 6] = [".git", "target", "node_modules", "__pycache__", ".venv", "out"];
    let (mut found, mut folders) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository can be read") {
            let entry = entry.expect("an entry of a folder can be read");
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                if !SKIPPED.contains(&name.as_str()) {
                    folders.push(entry.path());
                }
            } else if let Ok(path) = entry.path().strip_prefix(root) {
                found.push(path.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    found.sort();
    found
}

fn read(file: &str) -> String {
    // Pictures and fonts have no lines to judge.
    String::from_utf8(fs::read(top().join(file)).expect("a listed file can be read")).unwrap_or_default()
}

/// The sources of a crate that are compiled into it, by their path below `src/`.
fn sources(member: &str) -> Vec<(String, Scanned)> {
    let folder = format!("{member}/src");
    let files: Vec<_> = walk(&top().join(&folder)).into_iter().filter(|file| file.ends_with(".rs")).collect();
    let scanned: Vec<_> =
        files.into_iter().map(|file| (file.clone(), scan(&read(&format!("{folder}/{file}"))))).collect();
    let mut for_tests = BTreeSet::new();
    for (file, scanned) in &scanned {
        for name in &scanned.test_modules {
            let module: Vec<_> = module_of(file).into_iter().chain([name.clone()]).collect();
            for_tests.insert(module.join("/"));
        }
    }
    let for_tests: Vec<&str> = for_tests.iter().map(String::as_str).collect();
    scanned.into_iter().filter(|(file, _)| !is_within(file.trim_end_matches("/mod.rs"), &for_tests)).collect()
}

fn fail_if_any(what: &str, mut found: Vec<String>) {
    found.dedup();
    assert!(found.is_empty(), "{what}:\n  {}\n", found.join("\n  "));
}

fn at(file: &str, found: Vec<(usize, String)>) -> impl Iterator<Item = String> {
    found.into_iter().map(move |(line, what)| format!("{file}:{line}: {what}"))
}

#[test]
fn modules_name_only_lower_layers() {
    let mut found = Vec::new();
    for (file, scanned) in sources("longwire") {
        found.extend(at(&format!("longwire/src/{file}"), upward(&file, &scanned)));
    }
    fail_if_any("an arrow between modules points the wrong way", found);
}

#[test]
fn every_module_of_the_table_exists() {
    let files = walk(&top().join("longwire/src"));
    let is_there =
        |module: &str| files.iter().any(|file| module_of(file).first().is_some_and(|first| first == module));
    let modules = LAYERS.iter().flat_map(|(_, modules)| *modules);
    let missing = modules
        .filter(|module| !is_there(module))
        .map(|module| format!("`{module}` has a layer, but no file"));
    fail_if_any("the table of layers lists what is not there", missing.collect());
}

#[test]
fn architecture_md_lists_the_same_layers_arrows_and_spawns() {
    let document = read("ARCHITECTURE.md");
    let layers: Vec<_> =
        LAYERS.iter().map(|(layer, modules)| format!("{layer} {}", modules.join(" "))).collect();
    let arrows: Vec<_> = ARROWS.iter().map(|(from, to)| format!("{from} -> {to}")).collect();
    assert_eq!(listed(&document, "layers"), layers);
    assert_eq!(listed(&document, "arrows"), arrows);
    assert_eq!(listed(&document, "spawns"), SPAWNS);
}

#[test]
fn the_outside_is_reached_only_through_env() {
    let mut found = Vec::new();
    for (file, scanned) in sources("longwire") {
        found.extend(at(&format!("longwire/src/{file}"), banned(SERVER_BANS, &file, &scanned)));
    }
    fail_if_any("time, network, disk and chance come from `env`", found);
}

#[test]
fn the_protocol_does_no_io() {
    let mut found = Vec::new();
    for (file, scanned) in sources("longwire-protocol") {
        let mut breaches = banned(PROTOCOL_BANS, &file, &scanned);
        breaches
            .extend(prints(&scanned).into_iter().map(|line| (line, "a library does not print".to_string())));
        found.extend(at(&format!("longwire-protocol/src/{file}"), breaches));
    }
    let manifest: toml::Table = read("longwire-protocol/Cargo.toml").parse().expect("the manifest is TOML");
    let dependencies = manifest["dependencies"].as_table().expect("the manifest has dependencies");
    for name in ["tokio", "hyper", "reqwest", "socket2", "rand", "rand_chacha", "getrandom"] {
        if dependencies.contains_key(name) {
            found.push(format!(
                "longwire-protocol/Cargo.toml: `{name}` may be a dependency of the tests only"
            ));
        }
    }
    fail_if_any("the protocol crate is bytes in, bytes out", found);
}

#[test]
fn what_is_spawned_is_a_closed_list() {
    let mut found = Vec::new();
    let mut stale: BTreeSet<&str> = SPAWNS.iter().copied().collect();
    for (file, scanned) in sources("longwire") {
        let lines = spawns(&scanned);
        if lines.is_empty() {
            continue;
        }
        if is_within(&file, SPAWNS) {
            stale.retain(|place| !is_within(&file, &[*place]));
            continue;
        }
        let what = "starts a thread or a task: do it in a file of the list in ARCHITECTURE.md, or extend the list with the reason";
        found.extend(lines.iter().map(|line| format!("longwire/src/{file}:{line}: {what}")));
    }
    found.extend(
        stale.iter().map(|place| format!("longwire/src/{place}: is on the list, but starts nothing")),
    );
    fail_if_any("the list of what is spawned is not true", found);
}

#[test]
fn only_commands_print() {
    let mut found = Vec::new();
    for (file, scanned) in sources("longwire") {
        if !is_within(&file, &["cli"]) {
            let lines = prints(&scanned);
            found.extend(
                lines
                    .iter()
                    .map(|line| format!("longwire/src/{file}:{line}: prints: log with `tracing` instead")),
            );
        }
    }
    fail_if_any("printing belongs to cli", found);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut found = Vec::new();
    for file in repository_files().iter().filter(|file| file.ends_with(".rs")) {
        found.extend(at(file, leftovers(&read(file))));
    }
    fail_if_any("unfinished work in the tree", found);
}

#[test]
fn every_rust_file_begins_by_saying_what_it_is() {
    let silent =
        repository_files().into_iter().filter(|file| file.ends_with(".rs") && !read(file).starts_with("//!"));
    fail_if_any("a file does not begin with `//!`", silent.map(|file| format!("{file}:1")).collect());
}

#[test]
fn no_source_file_is_too_long() {
    const KINDS: [&str; 7] = [".rs", ".js", ".mjs", ".ts", ".py", ".css", ".html"];
    let mut found = Vec::new();
    for file in repository_files() {
        let lines = read(&file).lines().count();
        if KINDS.iter().any(|kind| file.ends_with(kind))
            && lines > MAX_LINES
            && !LONG_FILES.contains(&file.as_str())
        {
            found.push(format!(
                "{file}:{lines}: longer than {MAX_LINES} lines: move a concept into a file of its own"
            ));
        }
    }
    fail_if_any("a file holds too much", found);
}

#[test]
fn nothing_depends_on_one_machine() {
    let mut found = Vec::new();
    for file in repository_files() {
        let text = read(&file);
        found.extend(at(&file, machine_paths(&text)));
        found.extend(at(&file, foreign_registries(&file, &text)));
    }
    fail_if_any("a path or a registry of one machine", found);
}

/// Proof that each rule can fail.
mod rules {
    use super::*;

    fn lines(found: Vec<(usize, String)>) -> Vec<usize> {
        found.into_iter().map(|(line, _)| line).collect()
    }

    fn breaks(bans: &[Ban], file: &str, source: &str) -> bool {
        !banned(bans, file, &scan(source)).is_empty()
    }

    #[test]
    fn a_lower_layer_may_be_named_and_a_higher_one_not() {
        let up =
            scan("use crate::{\n    history,\n    session::Session,\n};\nfn f() { crate::server::run() }");
        assert_eq!(lines(upward("node.rs", &up)), [3, 5]);
        assert_eq!(lines(upward("server.rs", &scan("use crate::session::Session;"))), [0; 0]);
        assert_eq!(lines(upward("server.rs", &scan("use crate::server::Run;"))), [0; 0]);
    }

    #[test]
    fn a_relative_path_is_followed_to_the_root() {
        assert_eq!(lines(upward("session/mod.rs", &scan("use super::shard::Shard;"))), [1]);
        assert_eq!(lines(upward("session/outbox.rs", &scan("use super::super::server;"))), [1]);
        assert_eq!(lines(upward("session/outbox.rs", &scan("use super::subscription;"))), [0; 0]);
        assert_eq!(
            lines(upward("session/outbox.rs", &scan("mod a { use super::super::super::server; }"))),
            [1]
        );
    }

    #[test]
    fn within_a_layer_only_the_listed_arrows_hold() {
        assert_eq!(lines(upward("shard/mod.rs", &scan("use crate::session::Session;"))), [0; 0]);
        assert_eq!(lines(upward("session/mod.rs", &scan("use crate::shard::Shard;"))), [1]);
    }

    #[test]
    fn a_module_without_a_layer_and_a_name_at_the_root_are_refused() {
        assert_eq!(lines(upward("helpers.rs", &scan(""))), [1]);
        assert_eq!(lines(upward("node.rs", &scan("\nuse crate::Helper;"))), [2]);
        assert_eq!(lines(upward("node.rs", &scan("use crate::*;"))), [1]);
    }

    #[test]
    fn code_of_tests_may_name_higher_layers() {
        assert_eq!(lines(upward("node.rs", &scan("#[cfg(test)]\nmod tests { use crate::server; }"))), [0; 0]);
    }

    #[test]
    fn every_ban_catches_each_way_to_write_it() {
        for source in [
            "fn f() { std::time::Instant::now(); }",
            "use std::time::Instant; fn f() { Instant::now(); }",
            "use std::time; fn f() { time::SystemTime::now(); }",
            "use std::time::SystemTime as Wall; fn f() { Wall::now(); }",
            "use tokio::{net::TcpStream, sync};",
            "use tokio::time::sleep;",
            "fn f() { tokio::time::sleep(d).await }",
            "fn f(t: T) { t.elapsed(); }",
            "use std::net::{SocketAddr, TcpListener};",
            "use std::net; fn f() { net::TcpStream::connect(a); }",
            "use std::net::*;",
            "use std::fs;",
            "use std::{fs::File, io};",
            "fn f() { tokio::fs::read(p) }",
            "fn f() { rand::random() }",
            "use rand_chacha::ChaCha8Rng;",
            "use aws_lc_rs::{digest, rand};",
            "fn f() { getrandom::fill(&mut b) }",
        ] {
            assert!(breaks(SERVER_BANS, "session/mod.rs", source), "not caught: {source}");
            assert!(
                breaks(PROTOCOL_BANS, "websocket/mod.rs", source),
                "not caught in the protocol: {source}"
            );
        }
        assert!(breaks(PROTOCOL_BANS, "lib.rs", "use tokio::sync::mpsc;"));
        assert!(breaks(PROTOCOL_BANS, "lib.rs", "use std::net::ToSocketAddrs;"));
        assert!(!breaks(PROTOCOL_BANS, "lib.rs", "use std::net::IpAddr;"));
    }

    #[test]
    fn a_ban_spares_its_own_file_and_what_only_looks_like_it() {
        assert!(!breaks(SERVER_BANS, "env/clock.rs", "fn f() { tokio::time::Instant::now(); }"));
        assert!(!breaks(SERVER_BANS, "env/disk.rs", "use std::fs;"));
        assert!(breaks(SERVER_BANS, "env/disk.rs", "fn f() { Instant::now(); }"));
        assert!(!breaks(
            SERVER_BANS,
            "shard/mod.rs",
            "use crate::env::net::TcpStream; use std::net::SocketAddr;"
        ));
        assert!(!breaks(
            SERVER_BANS,
            "shard/mod.rs",
            "// Instant::now()\nlet s = \"std::fs\"; let now: Instant = clock.now();"
        ));
        assert!(!breaks(SERVER_BANS, "shard/mod.rs", "use crate::env::rng::Rng; fn f(rand: u8) {}"));
    }

    #[test]
    fn every_way_to_start_a_task_is_seen() {
        for source in [
            "fn f() { std::thread::spawn(g); }",
            "use std::thread; fn f() { thread::Builder::new(); }",
            "use tokio::task::spawn_local;",
            "fn f() { tokio::spawn(g()); }",
            "fn f(set: &mut JoinSet<()>) { set.spawn_local(g()); }",
            "fn f(h: Handle) { h.spawn_blocking(g); }",
        ] {
            assert_eq!(spawns(&scan(source)), [1], "not seen: {source}");
        }
        assert_eq!(
            spawns(&scan(
                "fn spawn() {} let spawned = 1; #[cfg(test)] mod t { fn f() { tokio::spawn(g); } }"
            )),
            [0; 0]
        );
    }

    #[test]
    fn prints_leftovers_and_machine_paths_are_seen() {
        assert_eq!(prints(&scan("fn f() {\n    println!(\"a\");\n}")), [2]);
        assert_eq!(prints(&scan("// println!(\"a\")\nfn f() { writeln!(o, \"println!\"); }")), [0; 0]);
        let unfinished = [
            "todo!()",
            "unimplemented!(\"x\")",
            "#[ignore = \"slow\"] fn f() {}",
            concat!("// FIX", "ME later"),
        ];
        for source in unfinished {
            assert_eq!(lines(leftovers(source)), [1], "not seen: {source}");
        }
        assert_eq!(lines(leftovers("// a todo list\nlet ignore = 1;")), [0; 0]);
        assert_eq!(lines(machine_paths(concat!("a\nsee `/ho", "me/me/x`"))), [2]);
        assert_eq!(lines(machine_paths("https://example.org/home/x, a/work/b")), [0; 0]);
    }

    #[test]
    fn a_foreign_registry_is_seen() {
        let lock = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\nsource = \"registry+https://mirror.example/index\"";
        assert_eq!(lines(foreign_registries("Cargo.lock", lock)), [2]);
        let npm =
            "  \"resolved\": \"https://registry.npmjs.org/a\",\n  \"resolved\": \"http://mirror.example/a\",";
        assert_eq!(lines(foreign_registries("interop/package-lock.json", npm)), [2]);
        assert_eq!(
            lines(foreign_registries(".cargo/config.toml", concat!("replace", "-with = \"mirror\""))),
            [1]
        );
    }

    #[test]
    fn a_file_is_the_module_that_its_path_says() {
        assert_eq!(module_of("shard/driver.rs"), ["shard", "driver"]);
        assert_eq!(module_of("shard/mod.rs"), ["shard"]);
        assert_eq!(module_of("lib.rs"), [""; 0]);
        assert!(is_within("shard/mod.rs", SPAWNS) && !is_within("server_list.rs", SPAWNS));
        assert!(is_within("cli/sub.rs", &["cli/"]) && !is_within("client.rs", &["cli/"]));
    }

    #[test]
    fn a_list_in_a_document_is_found() {
        let document = "text\n<!-- tidy: spawns -->\n```text\na.rs\n\nb/   c\n```\nmore";
        assert_eq!(listed(document, "spawns"), ["a.rs", "b/ c"]);
    }
}
