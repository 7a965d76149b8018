//! `longwire sub`: prints what is published, over SSE, and comes back when the connection breaks.
//!
//! Publications go to standard output, one a line; everything that happens to the connection goes to
//! standard error. What must stay true: after a break it asks for what it missed, by the id of the last event
//! that it read whole; silence is a break too; it stops only when the user, the reader of its output, or the
//! server says so.

use super::backoff::Backoff;
use super::event_stream::{Event, Parser};
use super::{Failure, http, printable};
use crate::config::parse_duration;
use crate::env::{Clock, Rng};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::io::{self, Write};
use std::time::Duration;

/// The longest delay that a server may advise.
const MAX_ADVISED_DELAY: Duration = Duration::from_secs(300);

/// What `longwire sub` takes.
#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The channels.
    #[arg(required = true, value_name = "CHANNEL")]
    channels: Vec<String>,
    /// The server.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// A connection token.
    #[arg(long, env = "LONGWIRE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A position token: begin with what was published after it.
    #[arg(long, value_name = "POSITION")]
    since: Option<String>,
    /// Print each publication as one JSON object.
    #[arg(long)]
    json: bool,
    /// Silence of the server that counts as a broken connection; more than its `heartbeat.interval`.
    #[arg(long, default_value = "60s", value_parser = duration)]
    max_silence: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        None => Err("must be a duration such as 60s".to_owned()),
        Some(Duration::ZERO) => Err("must be longer than zero".to_owned()),
        Some(duration) => Ok(duration),
    }
}

/// Why one connection ended.
#[derive(PartialEq, Eq, Debug)]
enum End {
    /// It broke, or the server wants it to come back: try again.
    Retry(String),
    /// The server does not want it to come back.
    Stop(String),
    /// Nobody reads the output any more.
    NobodyReads,
}

/// Prints publications until Ctrl-C, or until the server says no.
pub(super) fn subscribe(arguments: &Arguments) -> Result<(), Failure> {
    let mut url = http::endpoint(&arguments.url, "/sse")?;
    if let Some(name) = arguments.channels.iter().find(|name| name.is_empty() || name.contains(',')) {
        return Err(Failure::Usage(format!("no channel can be named `{}`", printable(name))));
    }
    url.query_pairs_mut().append_pair("channels", &arguments.channels.join(","));
    let client = http::client(|builder| builder.read_timeout(arguments.max_silence))?;
    http::block_on(async {
        tokio::select! {
            biased;
            result = tokio::signal::ctrl_c() => Ok(result?),
            result = follow(&client, &url, arguments) => result,
        }
    })
}

async fn follow(client: &Client, url: &Url, arguments: &Arguments) -> Result<(), Failure> {
    let clock = Clock::system();
    let mut rng = Rng::system().fork("backoff");
    let mut backoff = Backoff::default();
    let mut reader = Reader {
        json: arguments.json,
        position: arguments.since.clone(),
        has_connected: false,
        was_read: false,
        advised_delay: Duration::ZERO,
    };
    loop {
        reader.was_read = false;
        let end = connect(client, url, arguments.token.as_deref(), &mut reader).await;
        let why = match end {
            End::NobodyReads => return Ok(()),
            End::Stop(why) => return Err(Failure::Refused(why)),
            End::Retry(why) => why,
        };
        if reader.was_read {
            backoff.reset();
        }
        let delay = backoff.next_delay(rng.fraction()).max(reader.advised_delay);
        eprintln!("longwire: {why}; trying again in {:.1} s", delay.as_secs_f64());
        clock.sleep(delay).await;
    }
}

/// Holds one connection for as long as it lasts.
async fn connect(client: &Client, url: &Url, token: Option<&str>, reader: &mut Reader) -> End {
    let server = http::server_of(url);
    let mut request = client.get(url.clone()).header(ACCEPT, "text/event-stream");
    if let Some(token) = token {
        // Not in the URL, which every proxy on the way may log.
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    if let Some(position) = &reader.position {
        request = request.header("Last-Event-ID", position);
    }
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_builder() => {
            return End::Stop(format!("cannot ask: {}", http::reason(&error)));
        }
        Err(error) => return End::Retry(format!("cannot reach {server}: {}", http::reason(&error))),
    };
    let status = response.status();
    if status != StatusCode::OK {
        let body = http::text(response).await.unwrap_or_default();
        return refusal(status, &body);
    }
    let content_type =
        response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !content_type.starts_with("text/event-stream") {
        return End::Stop(format!("{server} sends no event stream but \"{}\"", printable(content_type)));
    }
    eprintln!("longwire: {} to {server}", if reader.has_connected { "connected again" } else { "connected" });

    reader.has_connected = true;
    let mut parser = Parser::default();
    loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return End::Retry("the server ended the stream".to_owned()),
            Err(error) => return End::Retry(format!("the connection broke: {}", http::reason(&error))),
        };
        let fed = parser.handle_bytes(&chunk);
        let end = reader.handle_events(&mut parser, &mut io::stdout().lock());
        if let Some(end) = end {
            return end;
        }
        if fed.is_err() {
            return End::Retry("the server sent an event that is too long".to_owned());
        }
    }
}

/// What a refused request means.
fn refusal(status: StatusCode, body: &str) -> End {
    let beginning: String = body.trim().chars().take(200).collect();
    let why = format!("the server answered HTTP {status} {}", printable(&beginning)).trim_end().to_owned();
    // 408 and 429 ask for patience; every other 4xx would fail again. 204 tells an EventSource to stop.
    let is_passing = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
    if is_passing { End::Retry(why) } else { End::Stop(why) }
}

/// What is remembered from one connection to the next.
struct Reader {
    json: bool,
    /// Where to go on: the id of the last event that was read.
    position: Option<String>,
    /// A connection was established before.
    has_connected: bool,
    /// This connection brought an event.
    was_read: bool,
    advised_delay: Duration,
}

/// The data of an event without a name.
#[derive(Deserialize)]
struct Publication<'a> {
    channel: String,
    #[serde(default)]
    offset: u64,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Disconnect {
    code: u32,
    #[serde(default)]
    reason: String,
    reconnect: bool,
}

#[derive(Deserialize)]
struct Recovered {
    recovered: bool,
}

impl Reader {
    /// Handles what the parser has complete; the end of the connection, if an event says so.
    fn handle_events(&mut self, parser: &mut Parser, output: &mut impl Write) -> Option<End> {
        let mut end = None;
        while let Some(event) = parser.poll_event() {
            self.was_read = true;
            match event.name.as_str() {
                "message" => {
                    if self.print(&event, output).is_err() {
                        return Some(End::NobodyReads);
                    }
                }
                _ => end = end.or_else(|| remark(&event)),
            }
        }
        // One flush for all that came together.
        if output.flush().is_err() {
            return Some(End::NobodyReads);
        }
        if let Some(id) = parser.last_event_id() {
            self.position = Some(id.to_owned()).filter(|id| !id.is_empty());
        }
        if let Some(retry_ms) = parser.retry_ms() {
            self.advised_delay = Duration::from_millis(retry_ms).min(MAX_ADVISED_DELAY);
        }
        end
    }

    fn print(&self, event: &Event, output: &mut impl Write) -> io::Result<()> {
        match serde_json::from_str::<Publication>(&event.data) {
            Ok(publication) if !self.json => {
                let offset = match publication.offset {
                    0 => "-".to_owned(),
                    offset => offset.to_string(),
                };
                let (channel, data) = (printable(&publication.channel), printable(publication.data.get()));
                writeln!(output, "{channel} {offset} {data}")
            }
            // Not in our form: another server, or a later one. It is shown rather than swallowed.
            _ => writeln!(output, "{}", printable(&event.data)),
        }
    }
}

/// Tells the user about an event that is no publication; the end of the connection, if it means that.
fn remark(event: &Event) -> Option<End> {
    match event.name.as_str() {
        "disconnect" => {
            let Ok(close) = serde_json::from_str::<Disconnect>(&event.data) else {
                return Some(End::Retry("the server disconnected".to_owned()));
            };
            let why = format!("the server disconnected: {} ({})", printable(&close.reason), close.code);
            return Some(if close.reconnect { End::Retry(why) } else { End::Stop(why) });
        }
        "recovered" => match serde_json::from_str::<Recovered>(&event.data) {
            Ok(Recovered { recovered: true }) => eprintln!("longwire: nothing was missed"),
            _ => eprintln!("longwire: something was missed and is lost: {}", printable(&event.data)),
        },
        "subscribed" => {}
        name => eprintln!("longwire: {}: {}", printable(name), printable(&event.data)),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(json: bool) -> Reader {
        Reader { json, position: None, has_connected: false, was_read: false, advised_delay: Duration::ZERO }
    }

    fn feed(reader: &mut Reader, stream: &str) -> (String, Option<End>) {
        let mut parser = Parser::default();
        parser.handle_bytes(stream.as_bytes()).unwrap();
        let mut output = Vec::new();
        let end = reader.handle_events(&mut parser, &mut output);
        (String::from_utf8(output).unwrap(), end)
    }

    #[test]
    fn a_publication_is_one_line_and_its_id_is_where_to_go_on() {
        let stream = "retry: 1500\n\nid: news=7.abcdefgh\ndata: {\"channel\":\"news\",\"data\":{\"a\":1},\"offset\":7}\n\n\
                      data: {\"channel\":\"live\",\"data\":\"x\u{9b}\"}\n\ndata: other\n\n";
        let mut text = reader(false);
        assert_eq!(feed(&mut text, stream).0, "news 7 {\"a\":1}\nlive - \"x\\u009b\"\nother\n");
        assert_eq!(text.position.as_deref(), Some("news=7.abcdefgh"));
        assert!(text.was_read);
        assert_eq!(text.advised_delay, Duration::from_millis(1500));
        let (lines, _) = feed(&mut reader(true), stream);
        assert_eq!(lines.lines().next(), Some("{\"channel\":\"news\",\"data\":{\"a\":1},\"offset\":7}"));
    }

    #[test]
    fn a_heartbeat_alone_is_no_event() {
        let mut quiet = reader(false);
        assert_eq!(feed(&mut quiet, "retry: 999999999999\n\n:\n\n:\n\n"), (String::new(), None));
        assert!(!quiet.was_read);
        assert_eq!(quiet.advised_delay, MAX_ADVISED_DELAY);
    }

    #[test]
    fn a_disconnect_says_whether_to_come_back() {
        let end = |data: &str| feed(&mut reader(false), &format!("event: disconnect\ndata: {data}\n\n")).1;
        assert_eq!(
            end(r#"{"code":3001,"reason":"shutdown","reconnect":true}"#),
            Some(End::Retry("the server disconnected: shutdown (3001)".to_owned()))
        );
        assert_eq!(
            end(r#"{"code":3500,"reason":"invalid token","reconnect":false}"#),
            Some(End::Stop("the server disconnected: invalid token (3500)".to_owned()))
        );
        assert!(matches!(end("nonsense"), Some(End::Retry(_))));
    }

    #[test]
    fn publications_before_a_disconnect_in_the_same_bytes_are_printed() {
        let stream = "data: {\"channel\":\"a\",\"data\":1,\"offset\":1}\n\nevent: disconnect\ndata: {\"code\":3503,\"reconnect\":false}\n\n";
        let (lines, end) = feed(&mut reader(false), stream);
        assert_eq!(lines, "a 1 1\n");
        assert!(matches!(end, Some(End::Stop(_))));
    }

    /// Answers one request with each of `answers` in turn; gives the requests.
    fn serve(answers: &'static [&'static str]) -> (Url, std::thread::JoinHandle<Vec<String>>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/sse", listener.local_addr().unwrap())).unwrap();
        let thread = std::thread::spawn(move || {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut socket, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    io::Read::read_exact(&mut socket, &mut byte).unwrap();
                    request.push(byte[0]);
                }
                requests.push(String::from_utf8(request).unwrap().to_ascii_lowercase());
                socket.write_all(answer.as_bytes()).unwrap();
            }
            requests
        });
        (url, thread)
    }

    #[test]
    fn a_broken_stream_is_resumed_behind_the_last_whole_event() {
        let (url, server) = serve(&[
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nid: a=1.x\nevent: subscribed\ndata: {}\n\nid: a=2.x\ndata: cut",
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: disconnect\ndata: {\"code\":3503,\"reconnect\":false}\n\n",
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n",
        ]);
        let client = http::client(|builder| builder.read_timeout(Duration::from_secs(20))).unwrap();
        let mut reader = reader(false);
        let mut connect = |token| {
            http::block_on(async { Ok(super::connect(&client, &url, token, &mut reader).await) }).unwrap()
        };
        assert!(matches!(connect(None), End::Retry(_)));
        assert!(matches!(connect(Some("T")), End::Stop(_)));
        assert_eq!(connect(None), End::Stop("the server answered HTTP 403 Forbidden no".to_owned()));
        assert!(matches!(connect(None), End::Stop(_)));
        assert!(matches!(connect(Some("no\nheader")), End::Stop(_)));
        let requests = server.join().unwrap();
        assert!(!requests[0].contains("last-event-id") && !requests[0].contains("authorization"));
        assert!(
            requests[1].contains("last-event-id: a=1.x\r\n")
                && requests[1].contains("authorization: bearer t\r\n")
        );
        assert!(matches!(connect(None), End::Retry(_)), "nobody listens any more");
    }

    #[test]
    fn a_refusal_is_final_unless_it_asks_for_patience() {
        for (status, is_final) in
            [(400, true), (401, true), (403, true), (404, true), (204, true), (302, true)]
        {
            let end = refusal(StatusCode::from_u16(status).unwrap(), "");
            assert_eq!(matches!(end, End::Stop(_)), is_final, "{status}");
        }
        for status in [408, 429, 500, 502, 503] {
            assert!(matches!(refusal(StatusCode::from_u16(status).unwrap(), ""), End::Retry(_)), "{status}");
        }
    }

    #[test]
    fn a_reader_that_went_away_ends_the_command() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut parser = Parser::default();
        parser.handle_bytes(b"data: 1\n\n").unwrap();
        assert_eq!(reader(false).handle_events(&mut parser, &mut Closed), Some(End::NobodyReads));
    }
}
