//! `longwire pub`: one publication through the HTTP API.

use super::{Failure, http, print};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::time::Duration;

/// What `longwire pub` takes.
#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The channel.
    channel: String,
    /// The data: JSON, or anything else, which is sent as a JSON string.
    data: String,
    /// The server.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// The key of the HTTP API.
    #[arg(long, env = "LONGWIRE_API__KEY", hide_env_values = true)]
    key: Option<String>,
}

#[derive(Serialize)]
struct Request<'a> {
    channel: &'a str,
    data: Box<RawValue>,
}

/// The API's answer: a result or an error.
#[derive(Deserialize)]
struct Answer {
    error: Option<ApiError>,
    result: Option<Published>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Published {
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    epoch: String,
}

/// Publishes, and prints the position.
pub(super) fn publish(arguments: &Arguments) -> Result<(), Failure> {
    let url = http::endpoint(&arguments.url, "/api/publish")?;
    let server = http::server_of(&url);
    let request = Request { channel: &arguments.channel, data: as_json(&arguments.data)? };
    let client = http::client(|builder| builder.timeout(Duration::from_secs(10)))?;
    let mut call = client.post(url).json(&request);
    if let Some(key) = &arguments.key {
        call = call.header("X-API-Key", key);
    }
    let unreachable = |error: &reqwest::Error| {
        Failure::Unreachable(format!("cannot reach {server}: {}", http::reason(error)))
    };
    let (status, body) = http::block_on(async {
        let response = call.send().await.map_err(|error| {
            // A key that is no header's value fails here too, and no server is to blame.
            if error.is_builder() {
                Failure::Usage(format!("cannot ask: {}", http::reason(&error)))
            } else {
                unreachable(&error)
            }
        })?;
        Ok((response.status(), http::text(response).await.map_err(|error| unreachable(&error))?))
    })?;
    print(&format!("{}\n", judge(status, &body)?))
}

/// The data as JSON: itself if it is JSON, otherwise a JSON string.
fn as_json(data: &str) -> Result<Box<RawValue>, Failure> {
    serde_json::from_str::<Box<RawValue>>(data)
        .or_else(|_| serde_json::value::to_raw_value(data))
        .map_err(|error| Failure::Failed(format!("the data cannot be written as JSON: {error}")))
}

/// What the answer says.
fn judge(status: StatusCode, body: &str) -> Result<String, Failure> {
    if status == StatusCode::UNAUTHORIZED {
        return Err(Failure::Refused("refused: the API key is wrong or missing (--key)".to_owned()));
    }
    let no_answer = || {
        let beginning: String = body.trim().chars().take(200).collect();
        Failure::Refused(format!("refused: HTTP {status} {}", super::printable(&beginning)))
    };
    if status != StatusCode::OK {
        return Err(no_answer());
    }
    let answer: Answer = serde_json::from_str(body).map_err(|_| no_answer())?;
    match (answer.error, answer.result) {
        (Some(error), _) => {
            Err(Failure::Refused(format!("refused: {} ({})", super::printable(&error.message), error.code)))
        }
        (None, Some(published)) if published.offset > 0 => {
            Ok(format!("offset {} epoch {}", published.offset, super::printable(&published.epoch)))
        }
        (None, Some(_)) => Ok("published (the channel keeps no history)".to_owned()),
        (None, None) => Err(no_answer()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }

    #[test]
    fn the_answer_is_told_in_words() {
        let judge = |status: u16, body| judge(StatusCode::from_u16(status).unwrap(), body);
        assert_eq!(
            judge(200, r#"{"result":{"offset":7,"epoch":"abcdefgh"}}"#).unwrap(),
            "offset 7 epoch abcdefgh"
        );
        assert!(judge(200, r#"{"result":{}}"#).unwrap().contains("no history"));
        for (status, body, expected) in [
            (200, r#"{"error":{"code":102,"message":"unknown channel"}}"#, "refused: unknown channel (102)"),
            (401, "", "refused: the API key is wrong or missing (--key)"),
            (404, "not\u{1b}[2J here", "refused: HTTP 404 Not Found not\\u001b[2J here"),
            (200, "<html>", "refused: HTTP 200 OK <html>"),
            (200, "{}", "refused: HTTP 200 OK {}"),
        ] {
            assert_eq!(judge(status, body), Err(Failure::Refused(expected.to_owned())));
        }
    }
}
