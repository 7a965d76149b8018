//! `longwire queue`: a look at queues, and what an operator does with them, through the HTTP API; sending and receiving, also
//! over STOMP (`work`).
//!
//! An export is lines of JSON, one a message, which an import sends again as they stand: to the queue that each names, or
//! to another. What must stay true: an export takes nothing out of a queue; an import that fails says how many lines were
//! sent, and a line is sent once or the import ends.

mod work;

use super::address::{Server as Address, api_base};
use super::connecting::Trusting;
use super::{EXIT_CODES, Failure, URLS, http, print, printable};
use http::Api;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::BufRead;
use std::time::Duration;

/// Messages that are looked at in one call.
const PAGE: usize = 100;

/// Messages that are sent in one call, and their bytes: within the usual `http.max_body_bytes`.
const MAX_BATCH: usize = 100;
const MAX_BATCH_BYTES: usize = 512 << 10;

/// The most of an answer that is read: a page of the largest messages that there usually are.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// What `longwire queue` does.
#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Lists the queues: messages that wait, are delayed, are in flight; bytes; consumers.
    #[command(after_help = EXIT_CODES)]
    Ls {
        #[command(flatten)]
        server: OfApi,
    },
    /// Shows messages of a queue, those that will be delivered first, as lines of JSON. Takes nothing.
    #[command(after_help = EXIT_CODES)]
    Peek {
        /// The queue.
        queue: String,
        /// How many.
        #[arg(long, default_value_t = 10)]
        max: usize,
        #[command(flatten)]
        server: OfApi,
    },
    /// Puts the waiting messages of a queue behind those of another.
    #[command(after_help = EXIT_CODES)]
    Move {
        /// The queue that they leave.
        from: String,
        /// The queue that they go to.
        to: String,
        /// How many; all if not said.
        #[arg(long, default_value_t = 0)]
        max: usize,
        #[command(flatten)]
        server: OfApi,
    },
    /// Drops all messages of a queue that wait.
    #[command(after_help = EXIT_CODES)]
    Purge {
        /// The queue.
        queue: String,
        #[command(flatten)]
        server: OfApi,
    },
    /// Sends one message; done when the server has it safe. Also over STOMP.
    #[command(after_help = URLS)]
    Send(work::Send),
    /// Takes messages, prints each as a line of JSON and acknowledges it, until Ctrl-C. Also over STOMP.
    #[command(after_help = URLS)]
    Receive(work::Receive),
    /// Removes a queue with its messages.
    #[command(after_help = EXIT_CODES)]
    Rm {
        /// The queue.
        queue: String,
        #[command(flatten)]
        server: OfApi,
    },
    /// Prints all messages of a queue as lines of JSON. Takes nothing.
    #[command(after_help = EXIT_CODES)]
    Export {
        /// The queue.
        queue: String,
        #[command(flatten)]
        server: OfApi,
    },
    /// Sends the messages that standard input has, as `export` prints them.
    #[command(after_help = EXIT_CODES)]
    Import {
        /// The queue that all of them go to; if not said, each goes to the one that it names.
        queue: Option<String>,
        #[command(flatten)]
        server: OfApi,
    },
}

/// Which server is asked.
#[derive(clap::Args, Debug)]
pub(super) struct Server {
    /// The server: http(s)://; `send` and `receive` take stomp(s):// and stomp+ws(s)://, too.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// The key of the HTTP API.
    #[arg(long, env = "LONGWIRE_API__KEY", hide_env_values = true)]
    key: Option<String>,
}

/// Which server is asked through the HTTP API alone.
#[derive(clap::Args, Debug)]
pub(super) struct OfApi {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    trusting: Trusting,
}

/// Does it.
pub(super) fn queue(command: Command) -> Result<(), Failure> {
    http::block_on(async {
        match command {
            Command::Ls { server } => list(&api(&server)?).await,
            Command::Peek { queue, max, server } => {
                let api = api(&server)?;
                let mut left = max;
                show(&api, &queue, |_| {
                    left = left.saturating_sub(1);
                    left > 0
                })
                .await
            }
            Command::Move { from, to, max, server } => {
                let order = json!({"from": from, "to": to, "max": max});
                let answer = api(&server)?.call("queue/move", &order).await?;
                print(&format!("{} moved\n", answer["moved"]))
            }
            Command::Purge { queue, server } => {
                let answer = api(&server)?.call("queue/purge", &json!({"queue": queue})).await?;
                print(&format!("{} removed\n", answer["removed"]))
            }
            Command::Send(send) => work::send(&send).await,
            Command::Receive(receive) => work::receive(&receive).await,
            Command::Rm { queue, server } => {
                let answer = api(&server)?.call("queue/remove", &json!({"queue": queue})).await?;
                print(&format!("removed, with {} messages\n", answer["removed"]))
            }
            Command::Export { queue, server } => show(&api(&server)?, &queue, |_| true).await,
            Command::Import { queue, server } => {
                import(&api(&server)?, queue.as_deref(), std::io::stdin().lock()).await
            }
        }
    })
}

/// The API of a server, for what is done through it alone.
fn api(OfApi { server, trusting }: &OfApi) -> Result<Api, Failure> {
    let Some(base) = api_base(&server.url)? else {
        let shown = Address::parse(&server.url)?.shown();
        return Err(Failure::Usage(format!(
            "`--url {shown}`: that is done through the HTTP API, http://HOST:PORT; `send` and `receive` take STOMP"
        )));
    };
    let api = Api::new(&base, server.key.as_deref(), &trusting.tls(), Duration::from_secs(60))?;
    Ok(api.with_answers_up_to(MAX_ANSWER_BYTES))
}

async fn list(api: &Api) -> Result<(), Failure> {
    let mut rows =
        vec![["QUEUE", "WAITING", "DELAYED", "IN FLIGHT", "BYTES", "CONSUMERS"].map(str::to_owned)];
    let mut after = Value::from("");
    loop {
        let page = api.call("queue/list", &json!({"after": after, "max": 1000})).await?;
        for queue in page["queues"].as_array().into_iter().flatten() {
            let number = |member: &str| queue[member].as_u64().unwrap_or_default().to_string();
            rows.push([
                printable(queue["queue"].as_str().unwrap_or_default()),
                number("waiting"),
                number("delayed"),
                number("in_flight"),
                number("bytes"),
                number("consumers"),
            ]);
        }
        match page.get("next") {
            Some(next) => after = next.clone(),
            None => return print(&table(&rows)),
        }
    }
}

/// Rows in columns, the first to the left and numbers to the right.
fn table(rows: &[[String; 6]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let _ = write!(text, "{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
    text
}

/// Prints messages of a queue, a page at a time, for as long as the one that was printed lets it go on.
async fn show(api: &Api, queue: &str, mut goes_on: impl FnMut(&Value) -> bool) -> Result<(), Failure> {
    let mut after = Value::from("");
    loop {
        let page = api.call("queue/peek", &json!({"queue": queue, "after": after, "max": PAGE})).await?;
        for message in page["messages"].as_array().into_iter().flatten() {
            print(&format!("{}\n", printable(&message.to_string())))?;
            if !goes_on(message) {
                return Ok(());
            }
        }
        match page.get("next") {
            Some(next) => after = next.clone(),
            None => return Ok(()),
        }
    }
}

async fn import(api: &Api, queue: Option<&str>, input: impl BufRead) -> Result<(), Failure> {
    let (mut sent, mut batch, mut bytes) = (0, Vec::new(), 0);
    let mut outcome = Ok(());
    for (number, line) in (1..).zip(input.lines()) {
        let message = line
            .map_err(|error| Failure::Failed(format!("line {number} cannot be read: {error}")))
            .and_then(|line| Ok((line.len(), as_sent(&line, queue, number)?)));
        match message {
            Ok((_, None)) => continue,
            Ok((length, Some(message))) => {
                if !batch.is_empty() && (batch.len() == MAX_BATCH || bytes + length > MAX_BATCH_BYTES) {
                    outcome = send(api, &mut batch, &mut sent).await;
                    bytes = 0;
                }
                bytes += length;
                batch.push(message);
            }
            // What stands before it is as good as it was.
            Err(failure) => {
                outcome = send(api, &mut batch, &mut sent).await.and(Err(failure));
            }
        }
        if outcome.is_err() {
            break;
        }
    }
    let outcome = match outcome {
        Ok(()) => send(api, &mut batch, &mut sent).await,
        failed => failed,
    };
    match outcome {
        Ok(()) => print(&format!("{sent} sent\n")),
        Err(failure) => {
            eprintln!("longwire: {sent} were sent before this:");
            Err(failure)
        }
    }
}

async fn send(api: &Api, batch: &mut Vec<Value>, sent: &mut usize) -> Result<(), Failure> {
    if !batch.is_empty() {
        let messages = std::mem::take(batch);
        let count = messages.len();
        api.call("queue/publish", &json!({"messages": messages})).await?;
        *sent += count;
    }
    Ok(())
}

/// What is sent of a line of an export; nothing of an empty line.
fn as_sent(line: &str, queue: Option<&str>, number: usize) -> Result<Option<Value>, Failure> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    let wrong = |what: &str| Failure::Failed(format!("line {number} {what}"));
    let mut line: Map<String, Value> =
        serde_json::from_str(line).map_err(|_| wrong("is no object of JSON"))?;
    let mut message = Map::new();
    for member in ["data", "text", "b64data", "headers", "priority", "persistent"] {
        if let Some(value) = line.remove(member) {
            message.insert(member.to_owned(), value);
        }
    }
    let queue = queue.map(Value::from).or_else(|| line.remove("queue"));
    message.insert("queue".to_owned(), queue.ok_or_else(|| wrong("names no queue"))?);
    // Whoever still had time when it was exported has as much again, less what went by.
    if let (Some(expires), Some(sent)) = (line.get("expires_at_ms"), line.get("sent_at_ms"))
        && let (Some(expires), Some(sent)) = (expires.as_u64(), sent.as_u64())
    {
        message.insert("ttl_ms".to_owned(), expires.saturating_sub(sent).max(1).into());
    }
    Ok(Some(message.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_imported_as_what_it_was() {
        let line = r#"{"state":"waiting","id":"1-7","queue":"mails","data":{"a":1},"headers":{"x":"y"},
            "priority":9,"persistent":false,"redeliveries":3,"sent_at_ms":1000,"expires_at_ms":61000}"#;
        let expected = json!({
            "queue": "mails", "data": {"a": 1}, "headers": {"x": "y"}, "priority": 9, "persistent": false,
            "ttl_ms": 60_000,
        });
        assert_eq!(as_sent(line, None, 1), Ok(Some(expected)));
        let elsewhere = as_sent(line, Some("again"), 1).unwrap().unwrap();
        assert_eq!(elsewhere["queue"], "again");
        assert_eq!(as_sent(" ", None, 1), Ok(None));
        for (line, what) in
            [("[]", "line 7 is no object of JSON"), (r#"{"text":"x"}"#, "line 7 names no queue")]
        {
            assert_eq!(as_sent(line, None, 7), Err(Failure::Failed(what.to_owned())));
        }
    }

    #[test]
    fn queues_stand_in_columns() {
        let row = |cells: [&str; 6]| cells.map(str::to_owned);
        let text =
            table(&[row(["QUEUE", "A", "B", "C", "D", "E"]), row(["long.name", "1", "22", "3", "4", "5"])]);
        assert_eq!(text, "QUEUE      A   B  C  D  E\nlong.name  1  22  3  4  5\n");
    }
}
