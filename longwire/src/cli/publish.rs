//! `longwire pub`: one publication, through the HTTP API, a WebSocket or STOMP.
//!
//! What must stay true: what it prints was said by the server; it ends well only when the server has confirmed the publication.

use super::address::{Server, Spoken, api_base, destination};
use super::connecting::{Connecting, check_channel};
use super::{Failure, http, outcome, print, printable};
use longwire_client::{realtime, stomp};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::time::Duration;

/// What `longwire pub` takes.
#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The channel; over STOMP a destination, or the NAME of /topic/NAME.
    channel: String,
    /// The data: JSON, or anything else, which is sent as a JSON string (over STOMP as it is).
    data: String,
    /// The server: http(s)://, ws(s)://, stomp(s)://, stomp+ws(s)://.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// The key of the HTTP API.
    #[arg(long, env = "LONGWIRE_API__KEY", hide_env_values = true)]
    key: Option<String>,
    #[command(flatten)]
    connecting: Connecting,
}

#[derive(Serialize)]
struct Request<'a> {
    channel: &'a str,
    data: Box<RawValue>,
}

/// Publishes, and prints what was confirmed.
pub(super) fn publish(arguments: &Arguments) -> Result<(), Failure> {
    check_channel(&arguments.channel)?;
    let confirmed = match api_base(&arguments.url)? {
        Some(base) => over_http(&base, arguments)?,
        None => {
            let server = Server::parse(&arguments.url)?;
            http::block_on(async {
                match server.spoken {
                    Spoken::Centrifuge => over_websocket(&server, arguments).await,
                    Spoken::Stomp => over_stomp(&server, arguments).await,
                    Spoken::Plain | Spoken::Packets => Err(Failure::Usage(format!(
                        "`--url {}`: what is said there is for the backend and is no publication: take http://, ws:// or stomp://",
                        server.shown()
                    ))),
                }
            })?
        }
    };
    print(&format!("{confirmed}\n"))
}

fn over_http(base: &str, arguments: &Arguments) -> Result<String, Failure> {
    let request = Request { channel: &arguments.channel, data: as_json(&arguments.data)? };
    let api = http::Api::of(base, arguments.key.as_deref(), &arguments.connecting, Duration::from_secs(10))?;
    let published = http::block_on(async { api.call("publish", &request).await })?;
    Ok(position(&published))
}

async fn over_websocket(server: &Server, arguments: &Arguments) -> Result<String, Failure> {
    let failed = |error| outcome::failed_call(&server.shown(), &error);
    let data = as_json(&arguments.data)?.get().as_bytes().to_vec();
    let mut builder =
        realtime::Client::builder(&server.url).options(arguments.connecting.options_of_one_call());
    if let Some(token) = &arguments.connecting.token {
        builder = builder.token(token);
    }
    let client = builder.build().map_err(failed)?;
    client.publish(&arguments.channel, data).await.map_err(failed)?;
    client.close().await;
    Ok("published".to_owned())
}

async fn over_stomp(server: &Server, arguments: &Arguments) -> Result<String, Failure> {
    let client = stomp_client(server, &arguments.connecting, true)?;
    let data = arguments.data.clone().into_bytes();
    let content_type = content_type(&arguments.data);
    let sent = client.send(&destination(&arguments.channel), data).content_type(content_type).await;
    sent.map_err(|error| outcome::failed_send(&server.shown(), &error, client.end()))?;
    client.close().await;
    Ok("published".to_owned())
}

/// A STOMP client of the user that the flags or the URL name.
pub(super) fn stomp_client(
    server: &Server,
    connecting: &Connecting,
    is_one_call: bool,
) -> Result<stomp::Client, Failure> {
    let options = if is_one_call { connecting.options_of_one_call() } else { connecting.options() };
    let mut builder = stomp::Client::builder(&server.url).options(options);
    if let Some((login, passcode)) = connecting.credentials(&server.address) {
        builder = builder.login(&login, &passcode);
    }
    for (name, value) in &connecting.headers {
        builder = builder.header(name, value);
    }
    builder.build().map_err(|error| outcome::failed_call(&server.shown(), &error))
}

/// What a body is, by its looks.
pub(super) fn content_type(data: &str) -> &'static str {
    match serde_json::from_str::<&RawValue>(data).is_ok() {
        true => "application/json",
        false => "text/plain",
    }
}

/// The data as JSON: itself if it is JSON, otherwise a JSON string.
fn as_json(data: &str) -> Result<Box<RawValue>, Failure> {
    serde_json::from_str::<Box<RawValue>>(data)
        .or_else(|_| serde_json::value::to_raw_value(data))
        .map_err(|error| Failure::Failed(format!("the data cannot be written as JSON: {error}")))
}

/// Where the publication stands in its channel.
fn position(published: &Value) -> String {
    match (published["offset"].as_u64(), published["epoch"].as_str()) {
        (Some(offset @ 1..), epoch) => {
            format!("offset {offset} epoch {}", printable(epoch.unwrap_or_default()))
        }
        _ => "published (the channel keeps no history)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_sent_as_it_is_and_anything_else_as_a_string() {
        for (data, expected) in [
            ("{\"a\": 1}", "{\"a\": 1}"),
            ("42", "42"),
            ("hello", "\"hello\""),
            ("", "\"\""),
            ("{a}", "\"{a}\""),
            ("say \"hi\"", "\"say \\\"hi\\\"\""),
        ] {
            assert_eq!(as_json(data).unwrap().get(), expected, "{data}");
        }
        assert_eq!((content_type("[1]"), content_type("one")), ("application/json", "text/plain"));
    }

    #[test]
    fn the_answer_is_told_in_words() {
        assert_eq!(position(&json!({"offset": 7, "epoch": "abcdefgh"})), "offset 7 epoch abcdefgh");
        assert!(position(&json!({})).contains("no history"));
    }
}
