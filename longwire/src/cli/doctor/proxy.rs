//! Who is on the way, by what it writes into answers, and what its settings are called.
//!
//! Pure: headers and the beginning of a body go in, a name and the reason for it come out. Directives are those of the
//! products' own documentation. What must stay true: nobody is named without evidence, and of whom nothing is known
//! nothing is claimed.

use serde::Serialize;

/// A product that stands between clients and servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Proxy {
    Nginx,
    Haproxy,
    Apache,
    Caddy,
    Envoy,
    Traefik,
    Varnish,
    Iis,
    Cloudflare,
    CloudFront,
    AwsAlb,
    GoogleCloud,
    Heroku,
}

/// What is to be changed at a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// The connection to become a WebSocket.
    Upgrade,
    /// Responses to be handed on as they come.
    Unbuffered,
    /// Silent connections to be left alone for longer.
    Idle,
    /// Longer bodies of requests.
    Body,
    /// Responses that go on to be left uncompressed.
    Uncompressed,
    /// HTTP/2 towards clients.
    Http2,
}

/// Who wrote these headers and this body; by what that shows. `header` gives the value of the first of a name.
pub(super) fn recognise<'a>(header: impl Fn(&str) -> Option<&'a str>, body: &str) -> Option<(Proxy, String)> {
    let lower = |name: &str| header(name).unwrap_or_default().to_ascii_lowercase();
    let shown = |name: &str| header(name).map(|value| format!("{name}: {value}"));
    // The outermost first: those behind which others usually stand.
    for (name, proxy) in [
        ("CF-RAY", Proxy::Cloudflare),
        ("X-Amz-Cf-Id", Proxy::CloudFront),
        ("X-Varnish", Proxy::Varnish),
        ("X-Envoy-Upstream-Service-Time", Proxy::Envoy),
    ] {
        if let Some(evidence) = shown(name) {
            return Some((proxy, evidence));
        }
    }
    for (name, part, proxy) in [
        ("Server", "cloudflare", Proxy::Cloudflare),
        ("Server", "cloudfront", Proxy::CloudFront),
        ("Via", "cloudfront", Proxy::CloudFront),
        ("Server", "awselb", Proxy::AwsAlb),
        ("Via", "vegur", Proxy::Heroku),
        ("Via", "heroku", Proxy::Heroku),
        ("Via", "1.1 google", Proxy::GoogleCloud),
        ("Server", "nginx", Proxy::Nginx),
        ("Server", "openresty", Proxy::Nginx),
        ("Server", "tengine", Proxy::Nginx),
        ("Server", "apache", Proxy::Apache),
        ("Server", "caddy", Proxy::Caddy),
        ("Via", "caddy", Proxy::Caddy),
        ("Server", "envoy", Proxy::Envoy),
        ("Server", "varnish", Proxy::Varnish),
        ("Via", "varnish", Proxy::Varnish),
        ("Server", "traefik", Proxy::Traefik),
        ("Server", "microsoft-iis", Proxy::Iis),
        ("Server", "haproxy", Proxy::Haproxy),
    ] {
        if lower(name).contains(part) {
            return shown(name).map(|evidence| (proxy, evidence));
        }
    }
    // Some write no header, but pages of their own.
    for (part, proxy) in [
        ("No server is available to handle this request.", Proxy::Haproxy),
        ("<h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.", Proxy::Haproxy),
        ("<center>nginx", Proxy::Nginx),
        ("<center>openresty", Proxy::Nginx),
    ] {
        if body.contains(part) {
            return Some((proxy, "the page that it answers with".to_owned()));
        }
    }
    None
}

impl Proxy {
    /// Its name, for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Proxy::Nginx => "nginx",
            Proxy::Haproxy => "HAProxy",
            Proxy::Apache => "Apache httpd",
            Proxy::Caddy => "Caddy",
            Proxy::Envoy => "Envoy",
            Proxy::Traefik => "Traefik",
            Proxy::Varnish => "Varnish",
            Proxy::Iis => "IIS",
            Proxy::Cloudflare => "Cloudflare",
            Proxy::CloudFront => "Amazon CloudFront",
            Proxy::AwsAlb => "AWS load balancer",
            Proxy::GoogleCloud => "Google Cloud load balancer",
            Proxy::Heroku => "Heroku's router",
        }
    }

    /// What to set, and where; none if it has no such setting, or needs none.
    pub(super) fn directive(self, need: Need) -> Option<&'static str> {
        Some(match (self, need) {
            (Proxy::Nginx, Need::Upgrade) => {
                "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\"; in the location"
            }
            (Proxy::Nginx, Need::Unbuffered) => {
                "proxy_buffering off; in the location, and no proxy_ignore_headers X-Accel-Buffering;"
            }
            (Proxy::Nginx, Need::Idle) => {
                "proxy_read_timeout 3600s; proxy_send_timeout 3600s; in the location (both are 60s unless set)"
            }
            (Proxy::Nginx, Need::Body) => "client_max_body_size 16m; in the location (it is 1m unless set)",
            (Proxy::Nginx, Need::Uncompressed) => {
                "gzip off; in the location, or text/event-stream out of gzip_types"
            }
            (Proxy::Nginx, Need::Http2) => "listen 443 ssl http2; (from 1.25.1 on: http2 on;)",
            (Proxy::Haproxy, Need::Uncompressed) => "compression type without text/event-stream",
            (Proxy::Haproxy, Need::Idle) => {
                "timeout tunnel 1h for WebSockets, timeout server 1h and timeout client 1h for streams"
            }
            (Proxy::Haproxy, Need::Http2) => "bind :443 ssl crt ... alpn h2,http/1.1",
            (Proxy::Apache, Need::Upgrade) => {
                "ProxyPass ... upgrade=websocket (2.4.47 and later), before that mod_proxy_wstunnel and ProxyPass ws://..."
            }
            (Proxy::Apache, Need::Unbuffered) => {
                "ProxyPass ... flushpackets=on, and SetEnv no-gzip 1 for the streams' path"
            }
            (Proxy::Apache, Need::Idle) => "ProxyTimeout 3600 (it is Timeout's value, 60 or 300, unless set)",
            (Proxy::Apache, Need::Body) => "LimitRequestBody 16777216",
            (Proxy::Apache, Need::Uncompressed) => "SetEnv no-gzip 1 for the streams' path",
            (Proxy::Apache, Need::Http2) => "Protocols h2 http/1.1",
            (Proxy::Caddy, Need::Unbuffered) => "flush_interval -1 in reverse_proxy",
            (Proxy::Caddy, Need::Body) => "request_body { max_size 16MB }",
            (Proxy::Caddy, Need::Uncompressed) => "encode with a match that leaves text/event-stream out",
            (Proxy::Envoy, Need::Upgrade) => {
                "upgrade_configs: [{upgrade_type: websocket}] in the HTTP filter"
            }
            (Proxy::Envoy, Need::Unbuffered) => "no buffer filter on the route",
            (Proxy::Envoy, Need::Idle) => {
                "route timeout: 0s and idle_timeout: 3600s, stream_idle_timeout: 3600s (5 min unless set)"
            }
            (Proxy::Envoy, Need::Body) => "max_request_bytes of the buffer filter",
            (Proxy::Traefik, Need::Unbuffered) => "no buffering middleware; flushInterval of the service",
            (Proxy::Traefik, Need::Idle) => {
                "entryPoints.NAME.transport.respondingTimeouts: readTimeout and writeTimeout 0, idleTimeout 3600s"
            }
            (Proxy::Traefik, Need::Body) => "maxRequestBodyBytes of the buffering middleware",
            (Proxy::Varnish, Need::Upgrade) => {
                "return (pipe) for requests with Upgrade, and set bereq.http.upgrade in vcl_pipe"
            }
            (Proxy::Varnish, Need::Unbuffered) => "set beresp.do_stream = true; or return (pipe) for streams",
            (Proxy::Varnish, Need::Idle) => {
                "the parameters pipe_timeout (60 s) and between_bytes_timeout (60 s)"
            }
            (Proxy::Iis, Need::Upgrade) => {
                "the WebSocket Protocol feature, and Application Request Routing 3"
            }
            (Proxy::Iis, Need::Unbuffered) => "responseBufferLimit=\"0\" of Application Request Routing",
            (Proxy::Iis, Need::Idle) => {
                "Time-out of the ARR proxy, and connectionTimeout of the site (120 s)"
            }
            (Proxy::Iis, Need::Body) => "maxAllowedContentLength in requestFiltering",
            (Proxy::Cloudflare, Need::Upgrade) => "Network > WebSockets: on",
            (Proxy::Cloudflare, Need::Unbuffered) => {
                "Content-Type: text/event-stream from the server, and no Response Buffering (Enterprise)"
            }
            (Proxy::Cloudflare, Need::Idle) => {
                "nothing can be set below Enterprise: it ends what is silent for about 100 s"
            }
            (Proxy::Cloudflare, Need::Body) => "nothing but the plan: 100 MB and more",
            (Proxy::CloudFront, Need::Upgrade) => {
                "an origin request policy that forwards Sec-WebSocket-*, such as AllViewer"
            }
            (Proxy::CloudFront, Need::Idle) => {
                "Response timeout of the origin (30 s unless set); WebSockets: 10 minutes"
            }
            (Proxy::AwsAlb, Need::Idle) => {
                "idle_timeout.timeout_seconds = 3600 of the load balancer (60 unless set)"
            }
            (Proxy::GoogleCloud, Need::Idle) => {
                "timeoutSec of the backend service: 3600 (30 unless set; it is the whole life of a WebSocket)"
            }
            (Proxy::Heroku, Need::Idle) => "nothing can be set: it ends what is silent for 55 s",
            _ => return None,
        })
    }
}

/// Whose usual limit a silence of this length is.
pub(super) fn usual_limits(seconds: f64) -> Vec<&'static str> {
    let known: [(f64, &str); 9] = [
        (30.0, "Google Cloud's backend timeout, CloudFront's response timeout"),
        (50.0, "HAProxy's timeout client and timeout server in Debian's file"),
        (55.0, "Heroku's router"),
        (60.0, "nginx's proxy_read_timeout, AWS's idle_timeout, Apache's Timeout, Varnish's pipe_timeout"),
        (100.0, "Cloudflare"),
        (120.0, "IIS's connectionTimeout"),
        (180.0, "Traefik's idleTimeout"),
        (240.0, "Azure's load balancer"),
        (350.0, "AWS's network load balancer and NAT gateway"),
    ];
    known.iter().filter(|(usual, _)| (seconds - usual).abs() <= 1.5).map(|(_, whose)| *whose).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, &'static str)], body: &str) -> Option<Proxy> {
        let find = |name: &str| {
            headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
        };
        recognise(find, body).map(|(proxy, _)| proxy)
    }

    #[test]
    fn a_proxy_is_known_by_what_it_writes() {
        for (headers, body, proxy) in [
            (&[("Server", "nginx/1.22.1")][..], "", Some(Proxy::Nginx)),
            (&[("server", "openresty")], "", Some(Proxy::Nginx)),
            (&[], "<hr><center>nginx</center>", Some(Proxy::Nginx)),
            (&[("Server", "Apache/2.4.62 (Debian)")], "", Some(Proxy::Apache)),
            (&[("Server", "cloudflare"), ("CF-RAY", "8a")], "", Some(Proxy::Cloudflare)),
            (&[("Server", "awselb/2.0")], "", Some(Proxy::AwsAlb)),
            (&[("Via", "1.1 Caddy")], "", Some(Proxy::Caddy)),
            (&[("Via", "1.1 x.cloudfront.net (CloudFront)")], "", Some(Proxy::CloudFront)),
            // Cloudflare before an nginx: what the client meets is Cloudflare.
            (&[("Server", "nginx"), ("CF-RAY", "8a")], "", Some(Proxy::Cloudflare)),
            (
                &[],
                "<html><body><h1>503 Service Unavailable</h1>\nNo server is available to handle this request.\n</body></html>",
                Some(Proxy::Haproxy),
            ),
            (&[("Server", "gunicorn")], "hello", None),
            (&[], "", None),
        ] {
            assert_eq!(of(headers, body), proxy, "{headers:?} {body}");
        }
    }

    #[test]
    fn the_evidence_is_the_line_that_was_seen() {
        let (_, evidence) = recognise(|name| (name == "Server").then_some("nginx/1.22.1"), "").unwrap();
        assert_eq!(evidence, "Server: nginx/1.22.1");
    }

    #[test]
    fn a_usual_limit_is_known_by_its_length() {
        assert!(usual_limits(60.07)[0].contains("proxy_read_timeout"));
        assert!(usual_limits(100.4)[0].contains("Cloudflare"));
        assert!(usual_limits(42.0).is_empty());
    }
}
