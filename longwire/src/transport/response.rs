//! The head of a response that goes on: what all streams over HTTP say to browsers and proxies.
//!
//! It writes a head and knows nothing of what follows it. What must stay true: no cache keeps and no proxy
//! holds back or changes what follows, and only a page whose origin was allowed can read it.

use longwire_protocol::http::RequestHead;

/// How the end of the body is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Body {
    /// By the end of the connection, which is what HTTP/1.0 and proxies that speak it understand.
    UntilEnd,
    /// By the last chunk.
    Chunked,
}

/// The header lines by which a browser runs nothing as a script that is none, and shows it to no other site.
pub(super) const NOT_FOR_OTHER_SITES: &str =
    "X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n";

/// The head of a successful response, without its empty line.
pub(super) fn head(request: &RequestHead<'_>, content_type: &str, body: Body) -> String {
    begin(content_type, body) + &cors(request)
}

/// The same for no page of another origin.
pub(super) fn begin(content_type: &str, body: Body) -> String {
    let mut response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\
         Cache-Control: no-cache, no-store, no-transform, private\r\nX-Accel-Buffering: no\r\n\
         Connection: close\r\n{NOT_FOR_OTHER_SITES}",
    );
    if body == Body::Chunked {
        response.push_str("Transfer-Encoding: chunked\r\n");
    }
    response
}

/// The header lines that say which pages may do what with the answer. A page that was allowed asks with CORS, for
/// which only those lines count (the fetch standard, section 3.7).
pub(super) fn for_pages(request: &RequestHead<'_>) -> String {
    NOT_FOR_OTHER_SITES.to_owned() + &cors(request)
}

/// The header lines that let the page that asked read the answer; none for who is no page of another origin.
///
/// Only for an origin that was allowed: it is a host and a port, nothing that ends a line.
pub(super) fn cors(request: &RequestHead<'_>) -> String {
    match request.headers.first_str("origin") {
        Some(origin) => format!(
            "Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\n\
             Access-Control-Expose-Headers: Retry-After\r\nVary: Origin\r\n"
        ),
        None => String::new(),
    }
}
