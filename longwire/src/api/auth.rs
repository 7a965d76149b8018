//! Who may call the API: the key, or, where none is configured, programs on this machine.
//!
//! Without a key there is nothing that a web page in somebody's browser could not send, too, so a request
//! from a page of another origin is refused, and on loopback a foreign `Host` (a name that somebody pointed
//! at 127.0.0.1). What must stay true: keys are compared in constant time and appear in no log.

use super::Respond;
use crate::node::Node;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use hyper::http::request::Parts;
use longwire_protocol::http::{is_loopback_host, query_pairs};
use std::borrow::Cow;
use std::net::IpAddr;

/// Headers by which a proxy says that it asks for somebody else.
const FORWARDED: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];

/// Checks that the caller may use the API.
///
/// # Errors
/// The response: 401 without a body, or 403 with the reason.
pub(super) fn check(node: &Node, head: &Parts, peer: IpAddr) -> Result<(), Respond> {
    let api = &node.config.api;
    if api.insecure {
        check_host(node, head)?;
        return check_origin(node, head);
    }
    if let Some(key) = api.key.as_deref().filter(|key| !key.is_empty()) {
        let is_right = presented_key(head).is_some_and(|presented| is_equal(&presented, key.as_bytes()));
        return if is_right { Ok(()) } else { Err(Respond::empty(401)) };
    }
    // A proxy on this machine speaks for others, who are not on this machine.
    let is_forwarded = FORWARDED.iter().any(|header| head.headers.contains_key(*header));
    if !peer.to_canonical().is_loopback() || is_forwarded {
        return Err(Respond::empty(401));
    }
    if !is_loopback_host(host(head)) {
        return Err(Respond::text(
            403,
            "without an API key, the host must be localhost or a loopback address",
        ));
    }
    check_origin(node, head)
}

/// Compares without telling by its time where the difference is. The length of the key is no secret.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// The key that the caller shows, from the first place that has one.
fn presented_key(head: &Parts) -> Option<Cow<'_, [u8]>> {
    let from_headers = header_key(&head.headers).filter(|key| !key.is_empty());
    from_headers.map(Cow::Borrowed).or_else(|| {
        let query = head.uri.query()?;
        let (_, key) = query_pairs(query).find(|(name, _)| name == "api_key")?;
        Some(Cow::Owned(key.into_owned().into_bytes()))
    })
}

fn header_key(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get("x-api-key") {
        return Some(key.as_bytes());
    }
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at(value.iter().position(|byte| *byte == b' ')?);
    scheme.eq_ignore_ascii_case(b"apikey").then(|| key.trim_ascii())
}

/// A name that somebody pointed at 127.0.0.1 makes a foreign page's requests look like same-origin ones.
pub(super) fn check_host(node: &Node, head: &Parts) -> Result<(), Respond> {
    if node.config.is_open_on_loopback_only() && !is_loopback_host(host(head)) {
        let what = "in insecure mode the host must be localhost or a loopback address";
        return Err(Respond::text(403, what));
    }
    Ok(())
}

pub(super) fn check_origin(node: &Node, head: &Parts) -> Result<(), Respond> {
    let mut origins = head.headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(()) };
    if origins.next().is_none() && node.allowed_origins.allow_origin(origin.as_bytes(), host(head)) {
        return Ok(());
    }
    Err(Respond::text(403, "pages of this origin may not do this: it is not in server.allowed_origins"))
}

/// The host that the request names; the target's, if it has one (RFC 9112 section 3.2.2).
fn host(head: &Parts) -> &str {
    match head.uri.authority() {
        Some(authority) => authority.as_str(),
        None => head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::node_with;
    use super::*;
    use hyper::Request;

    const LOOPBACK: &str = "127.0.0.1";
    const OUTSIDE: &str = "192.0.2.1";

    fn status(node: &Node, peer: &str, target: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::post(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        check(node, &head, peer.parse().unwrap()).err().map_or(200, |response| response.status)
    }

    #[test]
    fn a_configured_key_is_asked_of_everybody() {
        let node = node_with(|config| {
            config.api.insecure = false;
            config.api.key = Some("secret".into());
        });
        for (expected, target, headers) in [
            (401, "/api/info", vec![]),
            (200, "/api/info", vec![("x-api-key", "secret")]),
            (401, "/api/info", vec![("x-api-key", "Secret")]),
            (401, "/api/info", vec![("x-api-key", "secret2")]),
            (401, "/api/info", vec![("x-api-key", "")]),
            (200, "/api/info", vec![("authorization", "apikey secret")]),
            (200, "/api/info", vec![("authorization", "APIKEY secret")]),
            (401, "/api/info", vec![("authorization", "Bearer secret")]),
            (401, "/api/info", vec![("authorization", "secret")]),
            (401, "/api/info", vec![("x-api-key", "wrong"), ("authorization", "apikey secret")]),
            (200, "/api/info?api_key=secret", vec![]),
            (200, "/api/info?x=1&api_key=%73ecret", vec![]),
            (401, "/api/info?api_key=wrong", vec![]),
            (401, "/api/info?api_key=", vec![]),
            // Whoever has the key may come from anywhere.
            (200, "/api/info", vec![("x-api-key", "secret"), ("origin", "https://evil.example")]),
        ] {
            for peer in [LOOPBACK, OUTSIDE] {
                assert_eq!(status(&node, peer, target, &headers), expected, "{peer} {target} {headers:?}");
            }
        }
    }

    #[test]
    fn without_a_key_only_programs_on_this_machine_are_served() {
        let node = node_with(|config| {
            config.api.insecure = false;
            config.api.key = None;
        });
        for (expected, peer, headers) in [
            (200, LOOPBACK, vec![("host", "localhost:8000")]),
            (200, LOOPBACK, vec![("host", "127.0.0.1:8000")]),
            (200, "::1", vec![("host", "[::1]:8000")]),
            (200, "::ffff:127.0.0.1", vec![("host", "LOCALHOST")]),
            (401, OUTSIDE, vec![("host", "localhost:8000")]),
            (401, LOOPBACK, vec![("host", "localhost"), ("x-forwarded-for", OUTSIDE)]),
            (403, LOOPBACK, vec![("host", "rebound.example:8000")]),
            (403, LOOPBACK, vec![("host", "127.0.0.1.evil.example")]),
            (403, LOOPBACK, vec![]),
            (403, LOOPBACK, vec![("host", "localhost:8000"), ("origin", "https://evil.example")]),
            (403, LOOPBACK, vec![("host", "localhost:8000"), ("origin", "null")]),
            (403, LOOPBACK, vec![("host", "localhost:8000"), ("origin", "http://localhost:3000")]),
            (200, LOOPBACK, vec![("host", "localhost:8000"), ("origin", "http://localhost:8000")]),
        ] {
            assert_eq!(status(&node, peer, "/api/info", &headers), expected, "{peer} {headers:?}");
        }
    }

    #[test]
    fn an_empty_key_is_no_key() {
        let node = node_with(|config| {
            config.api.insecure = false;
            config.api.key = Some(String::new());
        });
        assert_eq!(status(&node, OUTSIDE, "/api/info", &[("x-api-key", "")]), 401);
    }

    #[test]
    fn the_insecure_mode_serves_everybody_but_foreign_pages() {
        let node = node_with(|config| {
            config.api.insecure = true;
            config.listen_on(vec!["0.0.0.0:8000".parse().unwrap()]);
        });
        for (expected, headers) in [
            (200, vec![("host", "demo.example")]),
            (200, vec![("host", "demo.example"), ("origin", "https://demo.example")]),
            (403, vec![("host", "demo.example"), ("origin", "https://evil.example")]),
        ] {
            assert_eq!(status(&node, OUTSIDE, "/api/info", &headers), expected, "{headers:?}");
        }
        let node = node_with(|config| {
            config.api.insecure = true;
            config.listen_on(vec!["0.0.0.0:8000".parse().unwrap()]);
            config.server.allowed_origins = vec!["https://app.example".into()];
        });
        let headers = [("host", "demo.example"), ("origin", "https://app.example")];
        assert_eq!(status(&node, OUTSIDE, "/api/info", &headers), 200);
    }

    #[test]
    fn a_name_pointed_at_this_machine_does_not_open_the_demo_to_its_page() {
        let node = node_with(|config| config.api.insecure = true);
        for (expected, host) in [(403, "evil.example:8000"), (200, "localhost:8000"), (200, "[::1]:8000")] {
            let origin = format!("http://{host}");
            let headers = [("host", host), ("origin", origin.as_str())];
            assert_eq!(status(&node, LOOPBACK, "/api/info", &headers), expected, "{host}");
        }
    }
}
