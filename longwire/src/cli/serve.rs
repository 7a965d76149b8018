//! `longwire serve` and `longwire demo`: settings, log, first lines; then the server has the thread.

use super::{Failure, print, settings};
use crate::config::{Config, Framing, Listener, Log, Protocol, Server};
use crate::env::disk::Scratch;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use tracing::{info, warn};

/// Runs the server until it is told to end.
pub(super) fn serve(path: Option<PathBuf>, flags: &[(String, String)]) -> Result<(), Failure> {
    let (config, _) = settings::load(path, flags)?;
    start_log(&config.log)?;
    announce(&config);
    crate::server::run(config, false, |_| {}).map_err(ended)
}

/// Runs the server open to everybody on this machine.
pub(super) fn demo(flags: &[(String, String)]) -> Result<(), Failure> {
    let (mut config, _) = settings::load_demo(flags)?;
    start_log(&config.log)?;
    announce(&config);
    // What a demo keeps is gone with it, unless somebody says where.
    let scratch = match config.server.data_dir == Server::default().data_dir {
        true => Some(Scratch::new("longwire-demo")?),
        false => None,
    };
    if let Some(scratch) = &scratch {
        config.server.data_dir = scratch.path().to_path_buf();
    }
    crate::server::run(config, true, greet).map_err(ended)
}

/// How a server ends that the system does not let run; of an address that somebody has, with the flag for another.
fn ended(error: io::Error) -> Failure {
    let text = error.to_string();
    if error.kind() != io::ErrorKind::AddrInUse {
        return Failure::Failed(text);
    }
    let listener = text.strip_prefix("listener \"").and_then(|rest| Some(rest.split_once('"')?.0));
    let flag = match listener {
        None | Some("http") => "server.listen".to_owned(),
        Some(name) => format!("listeners.{name}.address"),
    };
    Failure::Failed(format!("{text}; `--{flag} ADDRESS:PORT` takes another one"))
}

/// Tells what to do next, once it can be done.
fn greet(listeners: &[Listener]) {
    // Nobody reads it, if it cannot be written.
    let _ = print(&greeting(listeners));
}

fn greeting(listeners: &[Listener]) -> String {
    let mut text = String::new();
    let of = |protocol| listeners.iter().filter(move |listener| listener.protocol == protocol);
    if let Some(http) = of(Protocol::Http).next() {
        let (address, secure) = (http.address, if http.tls.is_some() { "s" } else { "" });
        let _ = writeln!(
            text,
            "The demo page:   http{secure}://{address}/\n\
             Publish:         curl http{secure}://{address}/api/publish -d '{{\"channel\":\"demo\",\"data\":\"hello\"}}'\n\
             Listen:          longwire sub demo --url http{secure}://{address}\n\
             WebSocket:       ws{secure}://{address}/ws?channels=demo\n\
             SSE:             http{secure}://{address}/sse?channels=demo\n\
             HTTP stream:     http{secure}://{address}/stream?channels=demo\n\
             Long-poll:       http{secure}://{address}/poll?channels=demo\n\
             STOMP:           ws{secure}://{address}/stomp"
        );
    }
    for stomp in of(Protocol::Stomp) {
        let title = if stomp.tls.is_some() { "STOMP with TLS:" } else { "STOMP:" };
        let address = stomp.address;
        let _ =
            writeln!(text, "{title:<17}{address}, the queue jobs is /queue/jobs, this channel /topic/demo");
    }
    for tcp in of(Protocol::Tcp) {
        let _ = writeln!(
            text,
            "{:<17}{}, {}",
            if tcp.tls.is_some() { "TCP with TLS:" } else { "TCP:" },
            tcp.address,
            match tcp.framing {
                Framing::Terminator if tcp.terminator == "\n" => "packets that end with a newline",
                Framing::Terminator => "packets with a terminator",
                Framing::Length => "packets with a length field",
            }
        );
    }
    text
}

/// Says what an operator would otherwise find out too late.
fn announce(config: &Config) {
    let addresses: Vec<String> =
        config.listeners.iter().map(|listener| listener.address.to_string()).collect();
    info!(
        addresses = addresses.join(", "),
        shards = config.server.shards,
        max_connections = config.server.max_connections,
        "starting longwire {}",
        env!("CARGO_PKG_VERSION")
    );
    if config.api.insecure {
        warn!("api.insecure is on: everybody who reaches the API may use it without a key");
    } else if config.api.key.is_none() {
        info!("no api.key is configured: the API answers only on loopback");
    }
    if config.client.insecure {
        warn!("client.insecure is on: any client may subscribe and publish everywhere");
    } else if !config.auth.has_key() && !config.client.allow_anonymous && !config.has_connect_webhook() {
        warn!(
            "neither a key under [auth] (such as auth.hmac_secret) nor webhook.connect nor client.allow_anonymous is \
             configured: no client can connect"
        );
    }
    let is_remote = config.listeners.iter().any(|listener| !listener.address.ip().is_loopback());
    if is_remote && (config.api.insecure || config.client.insecure) {
        warn!("an insecure setting is on and longwire listens beyond loopback: the network can use it");
    }
}

fn start_log(log: &Log) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::builder()
        .parse(&log.level)
        .map_err(|error| Failure::Config(format!("`log.level`: {error}")))?;
    // A file or a collector wants no colours.
    let is_terminal = std::io::stderr().is_terminal();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(is_terminal);
    let started = if log.json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_target(false).try_init()
    };
    started.map_err(|error| Failure::Failed(format!("the log cannot be started: {error}")))
}
