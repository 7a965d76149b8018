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

/// The head of a successful response, without its empty line.
pub(super) fn head(request: &RequestHead<'_>, content_type: &str, body: Body) -> String {
    let mut response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\
         Cache-Control: no-cache, no-store, no-transform, private\r\nX-Accel-Buffering: no\r\n\
         Connection: close\r\n",
    );
    if body == Body::Chunked {
        response.push_str("Transfer-Encoding: chunked\r\n");
    }
    if let Some(origin) = request.headers.first_str("origin") {
        // Only an origin that was allowed comes this far; it is a host and a port, nothing that ends a line.
        response.push_str("Access-Control-Allow-Origin: ");
        response.push_str(origin);
        response.push_str("\r\nAccess-Control-Allow-Credentials: true\r\nVary: Origin\r\n");
    }
    response
}
