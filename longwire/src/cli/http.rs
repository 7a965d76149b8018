//! What `pub`, `sub` and `queue` share as clients over HTTP: the runtime, the address, the reading of errors.
//!
//! What must stay true: a URL that is shown has no password in it, a body is read only up to a bound, and an
//! error says in words why a server could not be reached.

use super::Failure;
use reqwest::{Client, ClientBuilder, Response, Url};
use std::error::Error;
use std::future::Future;
use std::time::Duration;

/// How much of an answer is read, where nobody expects more.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Runs `future` to its end on this thread.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// A client that follows no redirect: it would carry the key to another server.
pub(super) fn client(change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client, Failure> {
    let builder = Client::builder()
        .user_agent(concat!("longwire/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5));
    change(builder).build().map_err(|error| Failure::Failed(format!("no HTTP client: {}", reason(&error))))
}

/// The address of `path` on the server at `base`.
pub(super) fn endpoint(base: &str, path: &str) -> Result<Url, Failure> {
    let wrong = |why: &str| Failure::Usage(format!("`--url {}`: {why}", super::printable(base)));
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
    while let Some(source) = cause.source() {
        cause = source;
    }
    super::printable(&cause.to_string())
}

/// The beginning of an answer's body, as text.
pub(super) async fn text(response: Response) -> Result<String, reqwest::Error> {
    text_up_to(response, MAX_ANSWER_BYTES).await
}

/// As many bytes of an answer's body as there may be, as text.
pub(super) async fn text_up_to(mut response: Response, max_bytes: usize) -> Result<String, reqwest::Error> {
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
    fn a_password_is_not_shown() {
        let url = endpoint("http://user:password@example.com:81/x", "/sse").unwrap();
        assert_eq!(server_of(&url), "http://example.com:81");
    }
}
