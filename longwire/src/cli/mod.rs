//! The command line: what each command is called and takes, and what its exit code means.
//!
//! One file a command; this one holds the definition, takes settings (`--section.key VALUE`) out of the
//! arguments and turns a command's end into an exit code. Called by `main` and by nobody else. What must stay
//! true: results go to standard output and remarks to standard error; text of a stranger is printed without
//! control characters; a command that fails says in its first line what failed and what to do.

mod address;
mod bench;
mod centrifugo;
mod check;
mod connect;
mod connecting;
mod docs;
mod doctor;
mod http;
mod input;
mod outcome;
mod passcode;
mod publish;
mod queue;
mod screen;
mod serve;
mod settings;
mod source;
mod subscribe;
mod token;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const EXIT_CODES: &str = "\
Exit codes:
  0  done; also `sub`, `queue receive`, `connect` and `bench` ended with Ctrl-C, and `connect` at the end of its input
  1  something failed, or `doctor` found something to change: the text says what
  2  wrong arguments
  3  the configuration is wrong, or Centrifugo's has options without a counterpart
  4  the server cannot be reached, or not again within the limits that were set
  5  refused: by the server, or because a token is not valid";

const URLS: &str = "\
URLs:
  http://   https://                      longwire's HTTP: the API to publish, SSE to listen
  ws://     wss://                        the centrifuge dialect: longwire, Centrifugo
  sse+http://  stream+http://  poll+http://     the plain dialect, and the same with https
  stomp://  stomps://  stomp+ws://  stomp+wss://    STOMP: longwire, RabbitMQ, ActiveMQ
  tcp://    tls://                        packets of the plain dialect

Exit codes:
  0  done; also `sub`, `queue receive`, `connect` and `bench` ended with Ctrl-C, and `connect` at the end of its input
  1  something failed: the text says what
  2  wrong arguments
  4  the server cannot be reached, or not again within the limits that were set
  5  refused: by the server";

const SETTINGS: &str = "\
Every setting of docs/config.md is also a flag, --section.key VALUE, and an environment variable:
  --websocket.max-message-bytes 128KiB
  LONGWIRE_WEBSOCKET__MAX_MESSAGE_BYTES=128KiB
A flag without a value means true.";

/// Holds the long connections an application cannot hold itself.
#[derive(Parser, Debug)]
#[command(name = "longwire", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Runs the server.
    #[command(after_help = SETTINGS)]
    Serve(ConfigFile),
    /// Runs the server open to everybody on this machine, with a page that shows what it does.
    #[command(after_help = SETTINGS)]
    Demo,
    /// Says what is wrong with a configuration, or prints the effective one and where each value came from.
    #[command(after_help = SETTINGS)]
    Check(check::Arguments),
    /// Makes and inspects tokens that say who a client is.
    #[command(subcommand, after_help = SETTINGS)]
    Token(token::Command),
    /// Prints the hash of a passcode, which standard input has, for `passcode` in `[users.NAME]`.
    Passcode,
    /// Publishes into a channel.
    #[command(after_help = URLS)]
    Pub(publish::Arguments),
    /// Prints what is published in channels, and comes back by itself when the connection breaks.
    #[command(after_help = URLS)]
    Sub(subscribe::Arguments),
    /// Looks after queues through the HTTP API; sends to them and receives, also over STOMP.
    #[command(subcommand, after_help = EXIT_CODES)]
    Queue(queue::Command),
    /// Says what the way to a server does to long connections, and what to change.
    #[command(after_help = EXIT_CODES)]
    Doctor(doctor::Arguments),
    /// Opens a connection: sends what is typed, shows what goes over it both ways.
    #[command(after_help = URLS)]
    Connect(connect::Arguments),
    /// Puts a load on a server and measures.
    #[command(subcommand, after_help = URLS)]
    Bench(bench::Command),
    /// Writes the generated documents.
    #[command(hide = true)]
    Docs {
        /// The folder that they are written to.
        #[arg(default_value = "docs")]
        directory: PathBuf,
    },
}

#[derive(clap::Args, Debug)]
struct ConfigFile {
    /// The configuration file. longwire needs none.
    #[arg(long, value_name = "FILE", env = "LONGWIRE_CONFIG")]
    config: Option<PathBuf>,
}

/// How a command failed: its exit code, and what the user is told.
#[derive(PartialEq, Eq, Debug)]
enum Failure {
    /// Something failed.
    Failed(String),
    /// The arguments are wrong.
    Usage(String),
    /// The configuration is wrong.
    Config(String),
    /// The server cannot be reached.
    Unreachable(String),
    /// The server, or the verifier of tokens, said no.
    Refused(String),
    /// Whoever read the output is gone, as in `longwire sub news | head -1`: no failure.
    NobodyReads,
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Failure::Failed(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Config(_) => 3,
            Failure::Unreachable(_) => 4,
            Failure::Refused(_) => 5,
            Failure::NobodyReads => 0,
        }
    }

    fn text(&self) -> &str {
        match self {
            Failure::Failed(text)
            | Failure::Usage(text)
            | Failure::Config(text)
            | Failure::Unreachable(text)
            | Failure::Refused(text) => text,
            Failure::NobodyReads => "nobody reads the output",
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Failed(error.to_string())
    }
}

/// Runs the command that this process was started with.
pub fn run() -> ExitCode {
    let (arguments, settings) = settings::split(std::env::args_os());
    // Prints help, or what is wrong with the arguments (exit code 2), and ends the process.
    let cli = Cli::parse_from(arguments);
    match dispatch(cli.command, &settings) {
        Ok(()) | Err(Failure::NobodyReads) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("longwire: {}", failure.text());
            ExitCode::from(failure.code())
        }
    }
}

fn dispatch(command: Command, settings: &[(String, String)]) -> Result<(), Failure> {
    let takes_settings =
        matches!(command, Command::Serve(_) | Command::Demo | Command::Check(_) | Command::Token(_));
    if !takes_settings && let Some((name, _)) = settings.first() {
        return Err(Failure::Usage(format!("this command takes no settings: `{name}`")));
    }
    match command {
        Command::Serve(file) => serve::serve(file.config, settings),
        Command::Demo => serve::demo(settings),
        Command::Check(arguments) => check::check(arguments, settings),
        Command::Token(command) => token::token(command, settings),
        Command::Pub(arguments) => publish::publish(&arguments),
        Command::Sub(arguments) => subscribe::subscribe(&arguments),
        Command::Passcode => passcode::passcode(),
        Command::Queue(command) => queue::queue(command),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::Connect(arguments) => connect::connect(&arguments),
        Command::Bench(command) => bench::bench(command),
        Command::Docs { directory } => docs::docs(&directory),
    }
}

/// Prints a result. Nobody reading it any more (`longwire check | head -1`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(unwritten(&error)),
        _ => Ok(()),
    }
}

/// How a command ends whose results cannot be written, as on a full disk.
fn unwritten(error: &std::io::Error) -> Failure {
    Failure::Failed(format!("standard output cannot be written: {error}"))
}

/// Text of a stranger as a terminal may see it: control characters become JSON escapes.
///
/// Within JSON they can only stand inside strings, or be whitespace, so that JSON stays the same JSON.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => shown.push(' '),
            // Besides controls: marks that reverse the order in which text is shown.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                shown.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_terminal_sees_no_control_characters() {
        assert_eq!(printable("a\u{1b}[31m\u{9b}2J\u{7f}"), "a\\u001b[31m\\u009b2J\\u007f");
        assert_eq!(printable("{\"a\":\n \"\u{202e}x\"}"), "{\"a\":  \"\\u202ex\"}");
        let json = printable("{\"a\": \"\u{7f}\u{85}\"}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["a"], "\u{7f}\u{85}");
    }

    #[test]
    fn a_command_without_settings_refuses_them() {
        let command = Command::Docs { directory: PathBuf::new() };
        let settings = [("--server.listen".to_owned(), "x".to_owned())];
        assert!(matches!(dispatch(command, &settings), Err(Failure::Usage(_))));
    }
}
