//! STOMP 1.0, 1.1 and 1.2 as any client speaks it: raw bytes against the whole server.
//!
//! A file is a subject; the name of a test says what must hold. The facts that decide in doubt are the three
//! specifications, and what docs/stomp.md promises beyond them. [`Broker`] is a server with its queues in a directory of
//! its own, configured as a file would, so that the settings of queues are read here, too; `client` is the client. What must
//! stay true: no test relies on a pause to be long enough, except where the time itself is what is looked at.

mod client;
mod connect;
mod consumers;
mod errors;
mod framing;
mod headers;
mod heartbeat;
mod kill;
mod limits;
mod login;
mod options;
mod queues;
mod receipts;
mod rights;
mod topics;
mod transactions;
mod websocket;

use crate::harness::TestServer;
use client::Client;
use longwire::config::Config;
use std::net::SocketAddr;
use std::path::PathBuf;
use tempfile::TempDir;

/// What every server here begins with; whoever comes over loopback may do everything.
const BASE: &str = r#"
[listeners.stomp]
address = "127.0.0.1:0"
protocol = "stomp"
[client]
allow_anonymous = true
commands_per_second = 1000000
command_burst = 1000000
[api]
insecure = true
[channel]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
[namespaces.kept]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
history_size = 10
history_ttl = "5m"
allow_recovery = true
allow_positioning = true
[namespaces.closed]
[queue]
allow_send_for_client = true
allow_send_for_anonymous = true
allow_consume_for_client = true
allow_consume_for_anonymous = true
"#;

/// A server that speaks STOMP.
struct Broker {
    server: TestServer,
    /// Where it speaks STOMP over TCP.
    stomp: SocketAddr,
    directory: TempDir,
    settings: String,
}

impl Broker {
    /// Starts one.
    fn start() -> Broker {
        Broker::with("")
    }

    /// Starts one with more settings: first of `[queue]`, then sections.
    fn with(settings: &str) -> Broker {
        Broker::on(tempfile::tempdir().expect("a directory"), settings.to_owned())
    }

    /// Starts one with other settings.
    fn changed(change: impl FnOnce(&mut Config)) -> Broker {
        Broker::of(tempfile::tempdir().expect("a directory"), String::new(), change)
    }

    fn on(directory: TempDir, settings: String) -> Broker {
        Broker::of(directory, settings, |_| {})
    }

    fn of(directory: TempDir, settings: String, change: impl FnOnce(&mut Config)) -> Broker {
        let data = directory.path().display();
        let server = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nshards = 2\ndrain_over = \"0s\"\ndata_dir = \"{data}\"\n"
        );
        let file = (PathBuf::from("it.toml"), format!("{server}{BASE}{settings}"));
        let (mut config, _) = longwire::config::load(Some(file), std::iter::empty(), &[], 4096, 2)
            .unwrap_or_else(|error| panic!("{error}"));
        config.auth.hmac_secret = Some(crate::harness::SECRET.to_owned());
        change(&mut config);
        let server = TestServer::of(config);
        let stomp = server.server().addresses()[1];
        Broker { server, stomp, directory, settings }
    }

    /// Ends it as an operator would, and starts another on what it left.
    fn restart(self) -> Broker {
        self.server.drain();
        Broker::on(self.directory, self.settings)
    }

    /// Opens a TCP connection, and says nothing.
    #[track_caller]
    fn open(&self) -> Client {
        Client::open(self.stomp)
    }

    /// Connects with STOMP 1.2.
    #[track_caller]
    fn connect(&self) -> Client {
        self.speak("1.2")
    }

    /// Connects with a version.
    #[track_caller]
    fn speak(&self, version: &str) -> Client {
        let mut client = self.open();
        client.connect(version, &[]);
        client
    }
}
