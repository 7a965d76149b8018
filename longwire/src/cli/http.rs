//! What commands share as clients over HTTP: the runtime, the address, calls of the API, the reading of errors.
//!
//! What must stay true: a URL that is shown has no password in it, a body is read only up to a bound, and an
//! error says in words why a server could not be reached.

use super::connecting::Connecting;
use super::{Failure, outcome, printable};
use crate::env::{Clock, Rng};
use longwire_client::{Reconnect, Tls};
use longwire_protocol::backoff::{Backoff, Policy};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode, Url};
use rustls::ClientConfig;
use serde::Serialize;
use serde_json::Value;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

/// How much of an answer is read, where nobody expects more.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Runs `future` to its end on this thread.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// A client that follows no redirect, which would carry the key to another server, and asks no proxy that the environment
/// names: no other client of the command line does.
pub(super) fn client(change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client, Failure> {
    let builder = Client::builder()
        .user_agent(concat!("longwire/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(Duration::from_secs(5));
    change(builder).build().map_err(|error| Failure::Failed(format!("no HTTP client: {}", reason(&error))))
}

/// The address of `path` on the server at `base`.
pub(super) fn endpoint(base: &str, path: &str) -> Result<Url, Failure> {
    endpoint_as("--url ", base, path)
}

/// The same; `flag` stands before the address in an error.
pub(super) fn endpoint_as(flag: &str, base: &str, path: &str) -> Result<Url, Failure> {
    let wrong = |why: &str| Failure::Usage(format!("`{flag}{}`: {why}", printable(base)));
    let mut url = Url::parse(base).map_err(|_| wrong("is no URL such as http://127.0.0.1:8000"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("must begin with http:// or https://"));
    }
    let joined = format!("{}{path}", url.path().trim_end_matches('/'));
    url.set_path(&joined);
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

/// The server part of a URL, for people.
pub(super) fn server_of(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Why a request failed: the last cause says more than the first.
pub(super) fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn Error = error;
    loop {
        if let Some(what) = outcome::certificate(&cause.to_string()) {
            return format!("TLS failed: {what}");
        }
        let Some(source) = cause.source() else { break };
        cause = source;
    }
    let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    if kind == Some(std::io::ErrorKind::ConnectionRefused) {
        // In the client library's words.
        return longwire_client::Cause::Refused.to_string();
    }
    super::printable(&cause.to_string())
}

/// The HTTP API of a server.
#[derive(Clone, Debug)]
pub(super) struct Api {
    client: Client,
    base: String,
    headers: HeaderMap,
    reconnect: Reconnect,
    max_answer_bytes: usize,
}

impl Api {
    /// The API of the server at `base`, whose calls may take so long.
    pub(super) fn new(base: &str, key: Option<&str>, tls: &Tls, timeout: Duration) -> Result<Api, Failure> {
        let client = client(|builder| {
            let builder = builder.timeout(timeout);
            match tls {
                Tls::System => builder,
                Tls::Config(config) => builder.tls_backend_preconfigured(ClientConfig::clone(config)),
                Tls::Anybody => builder.tls_danger_accept_invalid_certs(true),
            }
        })?;
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let value = HeaderValue::from_str(key)
                .map_err(|_| Failure::Usage("`--key`: no header can have this value".to_owned()))?;
            headers.insert("X-API-Key", value);
        }
        let reconnect = Reconnect { is_on: false, ..Reconnect::default() };
        let base = base.to_owned();
        Ok(Api { client, base, headers, reconnect, max_answer_bytes: MAX_ANSWER_BYTES })
    }

    /// The same, as these flags say: with their headers, and with as many attempts to connect.
    pub(super) fn of(
        base: &str,
        key: Option<&str>,
        connecting: &Connecting,
        timeout: Duration,
    ) -> Result<Api, Failure> {
        let api = Api::new(base, key, &connecting.trusting.tls(), timeout)?;
        let reconnect = connecting.options_of_one_call().reconnect;
        Ok(Api { reconnect, ..api.with_headers(&connecting.headers)? })
    }

    /// Says these with each request.
    pub(super) fn with_headers(mut self, headers: &[(String, String)]) -> Result<Api, Failure> {
        for (name, value) in headers {
            let wrong = |what: &str| {
                Failure::Usage(format!(
                    "`--connect-header {}`: {what}",
                    printable(&format!("{name}:{value}"))
                ))
            };
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| wrong("no HTTP header can have this name"))?;
            let value = HeaderValue::from_str(value).map_err(|_| wrong("no header can have this value"))?;
            self.headers.append(header, value);
        }
        Ok(self)
    }

    /// Reads answers up to another bound than 1 MiB.
    pub(super) fn with_answers_up_to(self, max_answer_bytes: usize) -> Api {
        Api { max_answer_bytes, ..self }
    }

    /// Calls a method; its result.
    pub(super) async fn call(&self, method: &str, body: &impl Serialize) -> Result<Value, Failure> {
        let url = endpoint(&self.base, &format!("/api/{method}"))?;
        let name = server_of(&url);
        let unreachable = |error: reqwest::Error| match error.is_builder() {
            // No server is to blame.
            true => Failure::Usage(format!("cannot ask: {}", reason(&error))),
            false => Failure::Unreachable(format!("cannot reach {name}: {}", reason(&error))),
        };
        let call = self.client.post(url).json(body).headers(self.headers.clone());
        let response = self.send(call).await.map_err(unreachable)?;
        let status = response.status();
        let body = text_up_to(response, self.max_answer_bytes).await.map_err(unreachable)?;
        judge(status, &body)
    }

    /// Sends a call; again, where there was no connection on which it could have been done, as often as is wanted.
    async fn send(&self, call: RequestBuilder) -> Result<Response, reqwest::Error> {
        let Reconnect { is_on, first_delay, factor, max_delay, max_attempts, max_elapsed, .. } =
            self.reconnect;
        let clock = Clock::system();
        let begun = clock.now();
        let mut rng = Rng::system();
        let mut backoff = Backoff::new(Policy { first: first_delay, factor, max: max_delay });
        loop {
            // A body that is written from memory can be written again.
            let Some(attempt) = call.try_clone() else { return call.send().await };
            let error = match attempt.send().await {
                Err(error) if error.is_connect() && is_on => error,
                result => return result,
            };
            let delay = backoff.next_delay(rng.fraction());
            let is_late = max_elapsed.is_some_and(|most| clock.now() + delay - begun > most);
            if is_late || max_attempts.is_some_and(|most| backoff.failures() >= most) {
                return Err(error);
            }
            clock.sleep(delay).await;
        }
    }
}

/// The result that an answer has.
fn judge(status: StatusCode, body: &str) -> Result<Value, Failure> {
    if status == StatusCode::UNAUTHORIZED {
        return Err(Failure::Refused("refused: the API key is wrong or missing (--key)".to_owned()));
    }
    let answer: Option<Value> = serde_json::from_str(body).ok().filter(|_| status == StatusCode::OK);
    if let Some(error) = answer.as_ref().and_then(|answer| answer.get("error")) {
        let message = error["message"].as_str().unwrap_or_default();
        return Err(Failure::Refused(format!("refused: {} ({})", printable(message), error["code"])));
    }
    // They speak of the server's state, and of a proxy's before it; any other status is a no.
    if matches!(status.as_u16(), 408 | 425 | 429 | 500..=599) {
        return Err(Failure::Unreachable(format!("the server answered HTTP {status}{}", said(body))));
    }
    answer
        .and_then(|mut answer| Some(answer.get_mut("result")?.take()))
        .ok_or_else(|| Failure::Refused(format!("refused: HTTP {status}{}", said(body))))
}

/// The beginning of what an answer says.
fn said(body: &str) -> String {
    let beginning: String = body.trim().chars().take(200).collect();
    if beginning.is_empty() { beginning } else { format!(" {}", printable(&beginning)) }
}

/// As many bytes of an answer's body as there may be, as text.
async fn text_up_to(mut response: Response, max_bytes: usize) -> Result<String, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = max_bytes - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == max_bytes {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_lies_below_the_servers_address() {
        for (base, expected) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000/sse"),
            ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/sse"),
            ("https://example.com/live/?x=1#y", "https://example.com/live/sse"),
        ] {
            assert_eq!(endpoint(base, "/sse").unwrap().as_str(), expected);
        }
        for bad in ["", "localhost:8000", "127.0.0.1:8000", "ws://a", "http://"] {
            assert!(matches!(endpoint(bad, "/sse"), Err(Failure::Usage(_))), "{bad:?}");
        }
    }

    #[test]
    fn an_answer_is_a_result_or_says_why_not() {
        let judge = |status: u16, body| judge(StatusCode::from_u16(status).unwrap(), body);
        assert_eq!(judge(200, r#"{"result":{"moved":3}}"#).unwrap()["moved"], 3);
        for (status, body, expected) in [
            (200, r#"{"error":{"code":102,"message":"unknown channel"}}"#, "refused: unknown channel (102)"),
            (401, "", "refused: the API key is wrong or missing (--key)"),
            (404, "not\u{1b}[2J here", "refused: HTTP 404 Not Found not\\u001b[2J here"),
            (200, "<html>", "refused: HTTP 200 OK <html>"),
            (200, "{}", "refused: HTTP 200 OK {}"),
        ] {
            assert_eq!(judge(status, body), Err(Failure::Refused(expected.to_owned())));
        }
        for (status, body, expected) in [
            (503, "", "the server answered HTTP 503 Service Unavailable"),
            (429, "later", "the server answered HTTP 429 Too Many Requests later"),
        ] {
            assert_eq!(judge(status, body), Err(Failure::Unreachable(expected.to_owned())));
        }
    }

    #[test]
    fn what_no_header_can_have_is_named_after_its_flag() {
        let api = |key| Api::new("http://127.0.0.1", key, &Tls::Anybody, Duration::from_secs(1));
        let failure = api(Some("a\nb")).unwrap_err();
        assert!(matches!(&failure, Failure::Usage(text) if text.starts_with("`--key`")), "{failure:?}");
        for (name, value) in [("a b", "x"), ("x", "\u{1}")] {
            let failure =
                api(None).unwrap().with_headers(&[(name.to_owned(), value.to_owned())]).unwrap_err();
            assert!(
                matches!(&failure, Failure::Usage(text) if text.contains("`--connect-header")),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let url = endpoint("http://user:password@example.com:81/x", "/sse").unwrap();
        assert_eq!(server_of(&url), "http://example.com:81");
    }
}
