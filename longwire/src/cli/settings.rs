//! Settings on the command line, and the one way in which commands obtain their configuration.
//!
//! Settings are taken out of the arguments before clap sees them: clap would need a flag for each, and
//! `config` is the one place that declares them. An argument is a setting if it begins with `--` and its name
//! has a dot in it, which no other flag of longwire has.

use super::Failure;
use crate::config::{self, Config, Sources};
use crate::env::disk;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Files that a process may open where the system does not tell.
const USUAL_FILE_LIMIT: u64 = 1024;

/// Divides arguments into those for clap and settings, the latter as name and value.
///
/// The value is behind `=` or is the next argument; where neither is, it is empty, which switches a setting
/// on that is true or false and is no value of any other. Nothing after `--` is a
/// setting.
pub(super) fn split(arguments: impl Iterator<Item = OsString>) -> (Vec<OsString>, Vec<(String, String)>) {
    let mut arguments = arguments.peekable();
    let (mut others, mut settings) = (Vec::new(), Vec::new());
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            others.push(argument);
            others.extend(arguments);
            break;
        }
        let Some((name, value)) = argument.to_str().and_then(setting) else {
            others.push(argument);
            continue;
        };
        let value = value.unwrap_or_else(|| {
            arguments
                .next_if(|next| next.to_str().is_some_and(|next| !next.starts_with("--")))
                .and_then(|next| next.into_string().ok())
                .unwrap_or_default()
        });
        settings.push((name, value));
    }
    (others, settings)
}

/// The name of a setting, and its value if that is part of the same argument.
fn setting(argument: &str) -> Option<(String, Option<String>)> {
    let (name, value) = match argument.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (argument, None),
    };
    let is_setting = name.strip_prefix("--").is_some_and(|key| key.contains('.'));
    is_setting.then(|| (name.to_owned(), value))
}

/// The configuration of a file, the environment and the command line.
pub(super) fn load(
    path: Option<PathBuf>,
    settings: &[(String, String)],
) -> Result<(Config, Sources), Failure> {
    let file = match path {
        Some(path) => {
            let contents = disk::read_to_string(&path).map_err(|error| Failure::Config(error.to_string()))?;
            Some((path, contents))
        }
        None => None,
    };
    config::load(file, environment(), settings, file_limit(), cores()).map_err(|error| wrong(&error))
}

/// The configuration of the demo, changed by the command line.
pub(super) fn load_demo(settings: &[(String, String)]) -> Result<(Config, Sources), Failure> {
    config::demo(environment(), settings, file_limit(), cores()).map_err(|error| wrong(&error))
}

/// The variables of this process; one that is no text cannot be a setting of ours.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn wrong(error: &config::ConfigError) -> Failure {
    let lines: Vec<String> =
        error.problems().iter().map(|problem| format!("  {}", super::printable(problem))).collect();
    Failure::Config(format!("the configuration is wrong:\n{}", lines.join("\n")))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How many files this process may open.
pub(super) fn file_limit() -> u64 {
    disk::read_to_string(Path::new("/proc/self/limits"))
        .ok()
        .and_then(|limits| parse_file_limit(&limits))
        .unwrap_or(USUAL_FILE_LIMIT)
}

fn parse_file_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        soft => soft.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_texts(arguments: &[&str]) -> (Vec<String>, Vec<(String, String)>) {
        let (others, settings) = split(arguments.iter().map(OsString::from));
        (others.into_iter().map(|other| other.into_string().unwrap()).collect(), settings)
    }

    #[test]
    fn settings_may_stand_anywhere_and_in_three_forms() {
        let (others, settings) = split_texts(&[
            "longwire",
            "--server.listen",
            "127.0.0.1:1",
            "serve",
            "--api.key=a=b",
            "--client.insecure",
            "--config",
            "a.toml",
            "--log.json",
        ]);
        assert_eq!(others, ["longwire", "serve", "--config", "a.toml"]);
        let settings: Vec<(&str, &str)> = settings.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(
            settings,
            [
                ("--server.listen", "127.0.0.1:1"),
                ("--api.key", "a=b"),
                ("--client.insecure", ""),
                ("--log.json", "")
            ]
        );
    }

    #[test]
    fn what_is_no_setting_is_left_alone() {
        let arguments = ["longwire", "sub", "a.b", "--url=http://127.0.0.1:8000", "--json", "--", "--a.b"];
        assert_eq!(split_texts(&arguments), (arguments.map(str::to_owned).to_vec(), vec![]));
    }

    #[test]
    fn the_soft_limit_of_files_is_read() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(parse_file_limit(limits), Some(1024));
        assert_eq!(parse_file_limit("Max open files  unlimited unlimited files"), Some(u64::MAX));
        assert_eq!(parse_file_limit("Max processes 3"), None);
    }
}
