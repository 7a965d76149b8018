//! `longwire queue send` and `receive`: a producer and a consumer for scripts, over HTTP or STOMP.
//!
//! Over HTTP a message is leased and acknowledged; over STOMP the client keeps its connection and comes back. A message is printed as
//! an object that `import` takes; over STOMP without its times, which brokers tell each in their own way. What must stay true: a message is acknowledged after it was printed and the output was
//! flushed, never before; so that a crash between the two prints it again, and loses nothing.

use super::super::address::{Server as Address, Spoken, api_base, queue_destination};
use super::super::connecting::{Connecting, duration, header};
use super::super::publish::{content_type, stomp_client};
use super::super::screen::Screen;
use super::super::{Failure, http, outcome, print, printable};
use super::Server;
use crate::env::Clock;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use longwire_client::stomp::{self, AckMode};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// How long one call for messages waits at the server.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// How many messages one call takes.
const BATCH: u64 = 100;

/// What `longwire queue send` takes.
#[derive(clap::Args, Debug)]
pub(in super::super) struct Send {
    /// The queue.
    queue: String,
    /// The body: JSON, or any text.
    data: String,
    /// A header of the message.
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = header)]
    message_headers: Vec<(String, String)>,
    /// 0 to 9: a higher one overtakes.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// Nobody is given it for so long. RabbitMQ has none, ActiveMQ with its schedulerSupport.
    #[arg(long, value_name = "SPAN", value_parser = duration)]
    delay: Option<Duration>,
    /// After so long it is worth nothing.
    #[arg(long, value_name = "SPAN", value_parser = duration)]
    ttl: Option<Duration>,
    /// Keep it in memory only.
    #[arg(long)]
    volatile: bool,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    connecting: Connecting,
}

/// What `longwire queue receive` takes.
#[derive(clap::Args, Debug)]
pub(in super::super) struct Receive {
    /// The queue.
    queue: String,
    /// End after so many messages.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// End when nothing came for so long, once there is a connection.
    #[arg(long, value_name = "SPAN", value_parser = duration)]
    wait: Option<Duration>,
    /// STOMP: only messages for which this holds.
    #[arg(long, value_name = "CONDITION")]
    selector: Option<String>,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    connecting: Connecting,
}

/// Sends a message, and says so once it is confirmed.
pub(super) async fn send(order: &Send) -> Result<(), Failure> {
    match api_base(&order.server.url)? {
        Some(base) => {
            let key = order.server.key.as_deref();
            let api = http::Api::of(&base, key, &order.connecting, Duration::from_secs(60))?;
            let sent = api.call("queue/publish", &as_call(order)).await?;
            print(&format!("sent {}\n", printable(sent["id"].as_str().unwrap_or_default())))
        }
        None => {
            let server = of_stomp(&order.server)?;
            let client = stomp_client(&server, &order.connecting, true)?;
            let failed = |error| outcome::failed_send(&server.shown(), &error, client.end());
            client.connected().await.map_err(failed)?;
            let broker = client.server().map(|server| server.name).unwrap_or_default();
            let mut send = client
                .send(&queue_destination(&order.queue), order.data.clone().into_bytes())
                .content_type(content_type(&order.data))
                .persistent(!order.volatile);
            for (name, value) in headers_of(order, &broker, Clock::system().unix_millis())? {
                send = send.header(&name, &value);
            }
            send.await.map_err(failed)?;
            client.close().await;
            print("sent\n")
        }
    }
}

/// A server that speaks STOMP.
fn of_stomp(server: &Server) -> Result<Address, Failure> {
    let address = Address::parse(&server.url)?;
    match address.spoken {
        Spoken::Stomp => Ok(address),
        _ => Err(Failure::Usage(format!(
            "`--url {}`: queues are reached by http(s)://, stomp(s):// and stomp+ws(s)://",
            address.shown()
        ))),
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A message as the HTTP API takes it.
fn as_call(order: &Send) -> Value {
    let mut call = Map::new();
    call.insert("queue".to_owned(), order.queue.as_str().into());
    match serde_json::from_str::<Value>(&order.data) {
        Ok(data) => call.insert("data".to_owned(), data),
        Err(_) => call.insert("text".to_owned(), order.data.as_str().into()),
    };
    if !order.message_headers.is_empty() {
        let headers: Map<String, Value> =
            order.message_headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        call.insert("headers".to_owned(), headers.into());
    }
    if order.volatile {
        call.insert("persistent".to_owned(), false.into());
    }
    call.extend(order.priority.map(|priority| ("priority".to_owned(), priority.into())));
    call.extend(order.delay.map(|delay| ("delay_ms".to_owned(), milliseconds(delay).into())));
    call.extend(order.ttl.map(|ttl| ("ttl_ms".to_owned(), milliseconds(ttl).into())));
    call.into()
}

/// The headers of a SEND, in the words of the broker that calls itself so: what it does not know it would leave out and say
/// nothing.
fn headers_of(order: &Send, broker: &str, now_ms: i64) -> Result<Vec<(String, String)>, Failure> {
    let is_longwire = broker.starts_with("longwire");
    let is_rabbitmq = broker.starts_with("RabbitMQ");
    let mut headers = order.message_headers.clone();
    headers.extend(order.priority.map(|priority| ("priority".to_owned(), priority.to_string())));
    if let Some(delay) = order.delay {
        let name = match is_longwire {
            true => "x-delay",
            // An exchange may have the plugin that does.
            false if is_rabbitmq && order.queue.starts_with("/exchange/") => "x-delay",
            false if is_rabbitmq => {
                return Err(Failure::Usage(
                    "`--delay`: RabbitMQ does not delay what is sent to a queue".to_owned(),
                ));
            }
            false => "AMQ_SCHEDULED_DELAY",
        };
        headers.push((name.to_owned(), milliseconds(delay).to_string()));
    }
    if let Some(ttl) = order.ttl {
        let ttl = milliseconds(ttl);
        headers.push(match is_longwire || is_rabbitmq {
            true => ("expiration".to_owned(), ttl.to_string()),
            // The others want the time of day.
            false => {
                let now = u64::try_from(now_ms).unwrap_or_default();
                ("expires".to_owned(), now.saturating_add(ttl).to_string())
            }
        });
    }
    Ok(headers)
}

/// Takes messages until there are enough of them, none came for long enough, or Ctrl-C.
pub(super) async fn receive(order: &Receive) -> Result<(), Failure> {
    let taken = async {
        match api_base(&order.server.url)? {
            Some(base) => over_http(&base, order).await,
            None => over_stomp(&of_stomp(&order.server)?, order).await,
        }
    };
    tokio::select! {
        biased;
        result = tokio::signal::ctrl_c() => Ok(result?),
        result = taken => result,
    }
}

/// Until when the next message is waited for.
fn deadline(clock: &Clock, order: &Receive) -> Option<Instant> {
    order.wait.map(|wait| clock.now() + wait)
}

async fn over_http(base: &str, order: &Receive) -> Result<(), Failure> {
    if order.selector.is_some() {
        return Err(Failure::Usage("`--selector` is for STOMP".to_owned()));
    }
    let clock = Clock::system();
    let api = http::Api::of(base, order.server.key.as_deref(), &order.connecting, Duration::from_secs(60))?
        .with_answers_up_to(super::MAX_ANSWER_BYTES);
    let mut screen = Screen::new();
    let (mut left, mut until) = (order.max.unwrap_or(u64::MAX), deadline(&clock, order));
    loop {
        let wait = until
            .map_or(LONGEST_WAIT, |until| LONGEST_WAIT.min(until.saturating_duration_since(clock.now())));
        let call = json!({"queue": order.queue, "max": left.min(BATCH), "wait_ms": milliseconds(wait)});
        let answer = api.call("queue/receive", &call).await?;
        let messages = answer["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut tokens = Vec::new();
        for message in messages {
            let mut message = message.clone();
            if let Some(token) = message.as_object_mut().and_then(|message| message.remove("token")) {
                tokens.push(token);
            }
            screen.line(&printable(&message.to_string()))?;
        }
        screen.flush()?;
        if !tokens.is_empty() {
            let answer = api.call("queue/ack", &json!({"tokens": tokens})).await?;
            let late = answer["failed"].as_array().map_or(0, Vec::len);
            if late > 0 {
                screen.remark(&format!("{late} were acknowledged too late and come again"));
            }
            until = deadline(&clock, order);
        }
        left -= messages.len() as u64;
        if left == 0 || (messages.is_empty() && until.is_some_and(|until| until <= clock.now())) {
            return Ok(());
        }
    }
}

async fn over_stomp(server: &Address, order: &Receive) -> Result<(), Failure> {
    let clock = Clock::system();
    let failed = |error| outcome::failed_call(&server.shown(), &error);
    let client = stomp_client(server, &order.connecting, false)?;
    let mut subscription = client
        .subscribe(&queue_destination(&order.queue))
        .ack(AckMode::ClientIndividual)
        .prefetch(u32::try_from(order.max.unwrap_or(BATCH).min(BATCH)).unwrap_or(u32::MAX));
    if let Some(selector) = &order.selector {
        subscription = subscription.selector(selector);
    }
    let mut messages = subscription.start().map_err(failed)?;
    let mut events = client.events();
    let (mut screen, mut was_connected) = (Screen::new(), false);
    // Connecting is no part of the wait: a message can come from the subscription on.
    let (mut left, mut until) = (order.max.unwrap_or(u64::MAX), None);
    while left > 0 {
        let idle = async {
            match until {
                Some(until) => clock.sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            transition = events.next() => match transition {
                Some(transition) => outcome::tell(&mut screen, &server.shown(), &transition, &mut was_connected)?,
                None => return Ok(()),
            },
            event = messages.next() => match event {
                Some(stomp::Event::Message(message)) => {
                    screen.line(&printable(&as_line(&message).to_string()))?;
                    screen.flush()?;
                    // One that got stale meanwhile is delivered, and printed, once more.
                    match message.ack().await {
                        Ok(()) => left -= 1,
                        Err(longwire_client::Error::StaleMessage) => {}
                        Err(error) => return Err(failed(error)),
                    }
                    until = deadline(&clock, order);
                }
                Some(stomp::Event::Subscribed { .. }) => until = deadline(&clock, order),
                Some(stomp::Event::Ended(error)) => return Err(failed(error)),
                Some(_) => {}
                None => return Err(Failure::Failed("the subscription ended".to_owned())),
            },
            () = idle => break,
        }
    }
    drop(messages);
    client.close().await;
    Ok(())
}

/// A message over STOMP as an object that `import` takes.
fn as_line(message: &stomp::Message) -> Value {
    let mut line = Map::new();
    let mut others = Map::new();
    let mut content_type = String::new();
    for (name, value) in message.headers() {
        let (name, value) = (name.as_ref(), value.as_ref());
        match name {
            // RabbitMQ hands on what the sender wanted of RabbitMQ.
            "receipt" => continue,
            "subscription" | "ack" | "content-length" | "timestamp" | "expires" => continue,
            "message-id" => drop(line.insert("id".to_owned(), value.into())),
            "destination" => {
                let queue = value.strip_prefix("/queue/").unwrap_or(value);
                line.insert("queue".to_owned(), queue.into());
            }
            "redelivered" => drop(line.insert("redelivered".to_owned(), (value == "true").into())),
            "persistent" => drop(line.insert("persistent".to_owned(), (value == "true").into())),
            "priority" => {
                let priority = value.parse::<u8>().map_or_else(|_| value.into(), Value::from);
                line.insert("priority".to_owned(), priority);
            }
            _ => {
                if name == "content-type" {
                    content_type = value.to_owned();
                }
                others.entry(name.to_owned()).or_insert_with(|| value.into());
            }
        }
    }
    let (name, body) = body_of(&content_type, message.body());
    line.insert(name.to_owned(), body);
    if !others.is_empty() {
        line.insert("headers".to_owned(), others.into());
    }
    line.into()
}

/// A body under the name that says how it is written.
fn body_of(content_type: &str, body: &[u8]) -> (&'static str, Value) {
    let is_json = content_type.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
    match (serde_json::from_slice::<Value>(body), std::str::from_utf8(body)) {
        (Ok(data), _) if is_json => ("data", data),
        (_, Ok(text)) => ("text", text.into()),
        _ => ("b64data", STANDARD.encode(body).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Parsed {
        #[command(flatten)]
        send: Send,
    }

    fn parse(arguments: &[&str]) -> Send {
        Parsed::parse_from([&["send", "mails"], arguments].concat()).send
    }

    #[test]
    fn a_message_is_the_same_over_http_and_over_stomp() {
        let order = parse(&[
            "{\"n\":1}",
            "--header",
            "kind:a",
            "--priority",
            "9",
            "--delay",
            "1s",
            "--ttl",
            "1m",
            "--volatile",
        ]);
        let expected = json!({
            "queue": "mails", "data": {"n": 1}, "headers": {"kind": "a"}, "priority": 9, "persistent": false,
            "delay_ms": 1000, "ttl_ms": 60_000,
        });
        assert_eq!(as_call(&order), expected);
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (broker, delay, ttl) in [
            ("longwire/0.1.0", ("x-delay", "1000"), ("expiration", "60000")),
            ("ActiveMQ/5.17.2", ("AMQ_SCHEDULED_DELAY", "1000"), ("expires", "60005")),
        ] {
            let expected = [
                header("kind", "a"),
                header("priority", "9"),
                header(delay.0, delay.1),
                header(ttl.0, ttl.1),
            ];
            assert_eq!(headers_of(&order, broker, 5), Ok(expected.to_vec()), "{broker}");
        }
        // What RabbitMQ would leave out is not sent there.
        let failure = headers_of(&order, "RabbitMQ/3.10.8", 5).unwrap_err();
        assert!(matches!(&failure, Failure::Usage(text) if text.contains("--delay")), "{failure:?}");
        let short = parse(&["x", "--ttl", "1m"]);
        assert_eq!(headers_of(&short, "RabbitMQ/3.10.8", 5), Ok(vec![header("expiration", "60000")]));
        assert_eq!(as_call(&parse(&["two words"])), json!({"queue": "mails", "text": "two words"}));
    }

    #[test]
    fn a_body_is_named_after_how_it_is_written() {
        assert_eq!(body_of("application/json; charset=utf-8", b"{\"n\":1}"), ("data", json!({"n": 1})));
        assert_eq!(body_of("application/json", b"{"), ("text", json!("{")));
        assert_eq!(body_of("text/plain", b"1"), ("text", json!("1")));
        assert_eq!(body_of("", &[0xff, 0]), ("b64data", json!("/wA=")));
    }
}
