//! The demo page and what it loads, from within the binary.
//!
//! Everything comes from this server and nothing is written into the page itself, so the content security
//! policy can forbid everything else. A browser asks again each time and is mostly told that nothing changed.

use super::Respond;
use hyper::header::HeaderMap;
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "../web/demo"]
struct Demo;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The file at `path` below `/demo/`; `None` if there is none.
pub(super) fn demo(path: &str, headers: &HeaderMap) -> Option<Respond> {
    // What is embedded is a table of names; where a build reads the folder instead, a path must not leave it.
    if path.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        return None;
    }
    let file = Demo::get(path)?;
    let hash: String = file.metadata.sha256_hash()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let etag = format!("\"{hash}\"");
    let is_known = headers.get_all("if-none-match").iter().any(|value| names_etag(value.as_bytes(), &etag));
    let response = match is_known {
        true => Respond::empty(304),
        false => Respond::bytes(200, content_type(path), file.data.into_owned().into()),
    };
    Some(
        response
            .with("etag", etag)
            .with("cache-control", "no-cache")
            .with("content-security-policy", POLICY)
            .with("referrer-policy", "no-referrer"),
    )
}

fn names_etag(list: &[u8], etag: &str) -> bool {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|entry| {
        // RFC 9110 section 13.1.2: compared weakly.
        entry == b"*" || entry.strip_prefix(b"W/").unwrap_or(entry) == etag.as_bytes()
    })
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_comes_with_its_type_and_a_policy_and_is_not_sent_twice() {
        let page = demo("index.html", &HeaderMap::new()).expect("the page is embedded");
        assert_eq!(page.status, 200);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
        let etag = page.header("etag").unwrap().to_owned();
        let mut headers = HeaderMap::new();
        headers.insert("if-none-match", format!("\"other\", W/{etag}").parse().unwrap());
        let again = demo("index.html", &headers).unwrap();
        assert_eq!((again.status, again.body.len()), (304, 0));
    }

    #[test]
    fn every_file_of_the_page_has_a_known_type() {
        for path in Demo::iter() {
            assert_ne!(content_type(&path), "application/octet-stream", "{path}");
        }
    }

    #[test]
    fn no_path_leaves_the_folder() {
        for path in ["../Cargo.toml", "./index.html", "a/../../b", "/etc/passwd", "", ".hidden", "missing.js"]
        {
            assert!(demo(path, &HeaderMap::new()).is_none(), "{path}");
        }
    }
}
