//! `longwire bench`: loads against any server that the client library speaks to.
//!
//! `idle` holds connections, `fanout` publishes to many, `echo` sends to itself, `churn` comes and goes. Each connection is a client of the
//! library, which beats, notices and comes back as any other; what is measured is therefore what an application would see, and the load
//! comes from one machine (docs/performance.md has the generators that come closer to the wire). What must stay true: nothing that failed is left
//! out of the figures; a latency is from before the call that sends to after the read that brings it, on one clock.

mod histogram;
mod load;
mod report;
mod tally;

use super::address::{Server, Spoken, api_base};
use super::connecting::{Connecting, check_channel, duration};
use super::screen::Screen;
use super::source::{Publisher, Source, Wanted, is_queue};
use super::subscribe::Packets;
use super::{Failure, URLS, http, print, settings};
use crate::env::Clock;
use report::Report;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tally::Tally;

/// How often the live line is written.
const LIVE_EVERY: Duration = Duration::from_millis(500);

/// Files that a process has open besides its connections.
const OTHER_FILES: u64 = 32;

/// What `longwire bench` does.
#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Holds connections that do nothing, and counts those that are lost.
    #[command(after_help = URLS)]
    Idle(Arguments),
    /// Publishes to one channel that all connections listen to, and measures until each has it.
    #[command(alias = "fan-out", after_help = URLS)]
    Fanout(Arguments),
    /// Each connection publishes to a channel of its own and waits until it has it back.
    #[command(after_help = URLS)]
    Echo(Arguments),
    /// Connections come, subscribe and go, as fast as they can.
    #[command(after_help = URLS)]
    Churn(Arguments),
}

/// What a load takes.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Arguments {
    /// The server: any URL that `sub` takes.
    #[arg(long, default_value = "ws://127.0.0.1:8000")]
    url: String,
    #[command(flatten)]
    connecting: Connecting,
    /// How many connections.
    #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// How many of them are opened in a second.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    connects_per_second: u32,
    /// For how long, once all are connected.
    #[arg(long, short = 'd', default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// fanout: publications a second. echo: round trips a second of each connection; without it, as many as it can.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Bytes of the data of a publication.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(32..=16 << 20))]
    size: u32,
    /// The channel; `echo` puts a number behind it. Over STOMP a destination, or the NAME of /topic/NAME.
    #[arg(long, default_value = "bench")]
    channel: String,
    /// Publish through the HTTP API of this server; where the URL cannot publish, its own HTTP API is taken.
    #[arg(long, value_name = "URL")]
    publish_url: Option<String>,
    /// The key of the HTTP API.
    #[arg(long, env = "LONGWIRE_API__KEY", hide_env_values = true)]
    key: Option<String>,
    /// Threads; without it, one for each core.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print the figures as one JSON object.
    #[arg(long)]
    json: bool,
    /// tcp://: what ends a packet, or how its length is written.
    #[arg(long, value_enum, default_value_t = Packets::Line)]
    packets: Packets,
}

/// Which load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Load {
    Idle,
    Fanout,
    Echo,
    Churn,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Load::Idle => "idle",
            Load::Fanout => "fanout",
            Load::Echo => "echo",
            Load::Churn => "churn",
        }
    }
}

/// What every task of a load knows.
struct Plan {
    load: Load,
    arguments: Arguments,
    server: Server,
    /// Where publications go, unless they go by the connection itself.
    api: Option<http::Api>,
    clock: Clock,
    tally: Tally,
}

/// Puts a load on a server and prints what came of it.
pub(super) fn bench(command: Command) -> Result<(), Failure> {
    let (load, arguments) = match command {
        Command::Idle(arguments) => (Load::Idle, arguments),
        Command::Fanout(arguments) => (Load::Fanout, arguments),
        Command::Echo(arguments) => (Load::Echo, arguments),
        Command::Churn(arguments) => (Load::Churn, arguments),
    };
    check_channel(&arguments.channel)?;
    let server = Server::parse(&arguments.url)?;
    let limit = settings::file_limit();
    if u64::from(arguments.connections) + OTHER_FILES > limit {
        return Err(Failure::Usage(format!(
            "{} connections need more than the {limit} open files that there may be: raise it (ulimit -n)",
            arguments.connections
        )));
    }
    let api = match (&arguments.publish_url, server.spoken) {
        (Some(url), _) => Some(api_base(url)?.ok_or_else(|| {
            Failure::Usage("`--publish-url` must begin with http:// or https://".to_owned())
        })?),
        (None, Spoken::Plain) => api_base(&arguments.url)?,
        (None, Spoken::Packets) if matches!(load, Load::Fanout | Load::Echo) => {
            return Err(Failure::Usage(
                "packets do not publish: say where the HTTP API is (--publish-url http://HOST:PORT)"
                    .to_owned(),
            ));
        }
        (None, _) => None,
    };
    let tls = arguments.connecting.trusting.tls();
    let api = api
        .map(|base| {
            http::Api::new(&base, arguments.key.as_deref(), &tls, Duration::from_secs(10))?
                .with_headers(&arguments.connecting.headers)
        })
        .transpose()?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = arguments.threads {
        runtime.worker_threads(usize::from(threads));
    }
    let runtime = runtime.enable_all().build()?;
    let as_json = arguments.json;
    let report = runtime.block_on(async {
        let clock = Clock::system();
        let plan = Arc::new(Plan { load, arguments, server, api, clock, tally: Tally::new() });
        Ok::<_, Failure>((measure(&plan).await?, plan.tally.take_last()))
    });
    // Nobody waits for clients that are still being closed.
    runtime.shutdown_background();
    let (report, last) = report?;
    print(&if as_json { format!("{}\n", report.as_json()) } else { report.table() })?;
    match report.connected {
        // Whoever was refused is not told that nobody is there.
        0 => {
            Err(last
                .unwrap_or_else(|| Failure::Unreachable(format!("nobody could connect to {}", report.url))))
        }
        _ => Ok(()),
    }
}

/// Runs a load with its live line; Ctrl-C ends it early, with the figures so far.
async fn measure(plan: &Arc<Plan>) -> Result<Report, Failure> {
    let mut screen = Screen::new();
    let begun = plan.clock.now();
    let mut running = std::pin::pin!(load::run(plan));
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut last = plan.tally.snapshot();
    let mut last_at = begun;
    let outcome = loop {
        tokio::select! {
            biased;
            result = &mut interrupted => {
                result?;
                screen.remark("ended early");
                break None;
            }
            outcome = &mut running => break Some(outcome?),
            () = plan.clock.sleep(LIVE_EVERY) => {
                let (now, tally) = (plan.clock.now(), plan.tally.snapshot());
                screen.status(&report::live(now - begun, &tally, &last, now - last_at));
                (last, last_at) = (tally, now);
            }
        }
    };
    screen.wipe();
    let measured = outcome.unwrap_or_else(|| plan.tally.measured_so_far(plan.clock.now()));
    Ok(Report::new(plan, &plan.tally.snapshot(), measured))
}

impl Plan {
    /// Whether each message is for one of the connections.
    fn is_queue(&self) -> bool {
        self.server.spoken == Spoken::Stomp && is_queue(&self.arguments.channel)
    }

    /// Opens one connection that listens to this channel, if to any; `None` if it was in vain, which was counted.
    fn open(&self, channel: Option<&str>) -> Option<Source> {
        let channels: Vec<String> = channel.map(str::to_owned).into_iter().collect();
        let mut options = self.arguments.connecting.options();
        // A server that refuses is to be seen, and not to be waited for.
        options.reconnect.max_attempts = Some(self.arguments.connecting.attempts.unwrap_or(3));
        let wanted = Wanted {
            servers: std::slice::from_ref(&self.server),
            channels: &channels,
            connecting: &self.arguments.connecting,
            options,
            since: None,
            framing: self.arguments.packets.framing(),
        };
        match Source::open(&wanted) {
            Ok(source) => Some(source),
            Err(failure) => {
                self.tally.fail_to_connect(None, failure);
                None
            }
        }
    }

    /// Publishes this moment.
    async fn publish(&self, by: Option<&Publisher>, channel: &str) -> bool {
        let now = self.clock.now() - self.clock.start();
        let data = load::payload(now, self.arguments.size as usize);
        self.tally.sent.fetch_add(1, Relaxed);
        let result = match (&self.api, by) {
            (None, Some(publisher)) => {
                publisher.publish(channel, data.into()).await.map_err(|error| error.to_string())
            }
            (Some(api), _) => {
                let data: Box<serde_json::value::RawValue> =
                    serde_json::from_slice(&data).expect("a payload is JSON, as `load` tests");
                let body = serde_json::json!({"channel": channel, "data": data});
                api.call("publish", &body).await.map(drop).map_err(|failure| failure.text().to_owned())
            }
            (None, None) => Err("nothing to publish by".to_owned()),
        };
        match result {
            Ok(()) => true,
            Err(why) => {
                self.tally.fail(&format!("publish: {why}"));
                false
            }
        }
    }
}
