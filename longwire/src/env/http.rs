//! Calls to other HTTP servers: backends and the keys of token issuers.
//!
//! A [`Call`] goes out, an [`Answer`] comes back or an [`HttpError`] says why not. Redirects are answers like any
//! other, and are not followed; proxies that the environment names are not used. Another [`Caller`] than the
//! system's may stand behind it, which is what a simulator needs. Nothing here knows what is asked, retries, or
//! signs. What must stay true: a call that must not leave the public network connects to no other address,
//! whatever its URL is made of and whatever a name resolves to when the connection is made.

use super::net;
use bytes::Bytes;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A call in progress.
pub type Calling = Pin<Box<dyn Future<Output = Result<Answer, HttpError>> + Send>>;

/// What makes calls.
pub trait Caller: Send + Sync {
    /// Makes one call, which ends within its timeout.
    fn call(&self, call: Call) -> Calling;
}

/// What is asked of a server.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is done.
    pub method: Method,
    /// `http://` or `https://`, in full.
    pub url: Arc<str>,
    /// Names, in lower case, and values. The content's type is one of them, its length is not.
    pub headers: Vec<(String, String)>,
    /// The body; empty for none.
    pub body: Bytes,
    /// The time for everything, connecting and reading included.
    pub timeout: Duration,
    /// The most that the answer's body may have.
    pub max_answer_bytes: usize,
    /// Connect to public addresses only, whatever the name resolves to.
    pub must_be_public: bool,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Tells or asks.
    Post,
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// No connection was made.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// The answer did not come in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The answer's body is larger than the call allows.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The name leads to an address that is not public, and the call must not go there.
    #[error("the address is not public")]
    NotPublic,
    /// The connection broke, or what came is no HTTP.
    #[error("the call failed: {0}")]
    Broken(String),
}

/// The HTTP client of a process.
#[derive(Clone)]
pub struct Http(Arc<dyn Caller>);

impl Http {
    /// The system's client.
    pub fn system() -> Http {
        Http(Arc::new(System::default()))
    }

    /// Another client than the system's.
    pub fn of(caller: Arc<dyn Caller>) -> Http {
        Http(caller)
    }

    /// Makes one call.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn call(&self, call: Call) -> Result<Answer, HttpError> {
        self.0.call(call).await
    }
}

/// How long a connection may take, the handshake of TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection is kept for the next call: less than the 5 s after which common servers close theirs, so
/// that no call is written into a connection that is just being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Connections to one host that are kept for the next call.
const MAX_IDLE: usize = 256;

/// Calls over the system's sockets, which stay open for the next call.
#[derive(Default)]
struct System {
    anywhere: OnceLock<Result<reqwest::Client, String>>,
    public: OnceLock<Result<reqwest::Client, String>>,
}

impl System {
    fn client(&self, must_be_public: bool) -> Result<reqwest::Client, HttpError> {
        let place = if must_be_public { &self.public } else { &self.anywhere };
        let made = place.get_or_init(|| {
            let builder = reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .user_agent(concat!("longwire/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(MAX_IDLE);
            // Looked at where the connection is made: a name that was public at a check before may not be then.
            let builder = if must_be_public { builder.dns_resolver(PublicOnly) } else { builder };
            builder.build().map_err(|error| error.to_string())
        });
        made.clone().map_err(HttpError::Unreachable)
    }
}

impl Caller for System {
    fn call(&self, call: Call) -> Calling {
        let client = self.client(call.must_be_public);
        Box::pin(async move {
            let client = client?;
            if call.must_be_public && literal_address(&call.url).is_some_and(|address| !is_public(address)) {
                return Err(HttpError::NotPublic);
            }
            let method = match call.method {
                Method::Get => reqwest::Method::GET,
                Method::Post => reqwest::Method::POST,
            };
            let mut request = client.request(method, &*call.url).timeout(call.timeout).body(call.body);
            for (name, value) in call.headers {
                request = request.header(name, value);
            }
            let failed = |error: reqwest::Error| http_error(error, call.timeout);
            let mut response = request.send().await.map_err(failed)?;
            let status = response.status().as_u16();
            let too_large = HttpError::TooLarge(call.max_answer_bytes);
            if response.content_length().is_some_and(|length| length > call.max_answer_bytes as u64) {
                return Err(too_large);
            }
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(failed)? {
                if body.len() + chunk.len() > call.max_answer_bytes {
                    return Err(too_large);
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Answer { status, body: body.into() })
        })
    }
}

fn http_error(error: reqwest::Error, timeout: Duration) -> HttpError {
    let mut innermost: &dyn std::error::Error = &error;
    loop {
        if innermost.is::<NotPublicName>() {
            return HttpError::NotPublic;
        }
        match innermost.source() {
            Some(source) => innermost = source,
            None => break,
        }
    }
    // What reqwest itself says tells little: "error sending request".
    let what = innermost.to_string();
    match error {
        error if error.is_connect() => HttpError::Unreachable(what),
        error if error.is_timeout() => HttpError::TimedOut(timeout),
        _ => HttpError::Broken(what),
    }
}

/// The address that a URL names by its digits. In whatever form they are written, the URL's parser reads them as
/// the one that connects does.
fn literal_address(url: &str) -> Option<IpAddr> {
    let url = reqwest::Url::parse(url).ok()?;
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// A name has no public address.
#[derive(Debug, thiserror::Error)]
#[error("the name has no public address")]
struct NotPublicName;

/// Resolves names to public addresses only.
struct PublicOnly;

impl reqwest::dns::Resolve for PublicOnly {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let addresses = net::resolve(name.as_str()).await?;
            let public: Vec<SocketAddr> =
                addresses.into_iter().filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(NotPublicName.into());
            }
            let public: reqwest::dns::Addrs = Box::new(public.into_iter());
            Ok(public)
        })
    }
}

/// Whether an address is reachable for everybody in the internet and stands for a single machine.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// See the IANA registry of special-purpose IPv4 addresses.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match (a, b, c) {
        // "This network", private use, shared by carriers, loopback, link-local (the cloud's metadata).
        (0 | 10 | 127, ..) | (100, 64..=127, _) | (169, 254, _) | (172, 16..=31, _) | (192, 168, _) => true,
        // Protocol assignments, documentation, the relays of 6to4, benchmarks.
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => true,
        // Multicast, reserved, broadcast.
        (224.., ..) => true,
        _ => false,
    };
    !is_special
}

/// See the IANA registry of special-purpose IPv6 addresses. IPv4 addresses in a wrapping are refused with the
/// wrapping, but for those that a translator makes (RFC 6052): on a network without IPv4 every address is one.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let [.., a, b, c, d] = address.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    let is_special = match (segments[0], segments[1]) {
        // Outside of 2000::/3: loopback, mapped IPv4, unique local, link-local, multicast and what is not assigned.
        (..=0x1fff | 0x4000.., _) => true,
        // Protocol assignments with Teredo, documentation, 6to4, documentation again.
        (0x2001, ..=0x1ff | 0xdb8) | (0x2002, _) | (0x3fff, ..=0xfff) => true,
        _ => false,
    };
    !is_special
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that gives the same bytes to every request, and counts its connections.
    struct Backend {
        address: SocketAddr,
        connections: Arc<AtomicUsize>,
    }

    /// Serves `responses` in turn, the last of them for ever; an empty one is no answer at all.
    async fn backend(responses: &'static [&'static str]) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let counted = connections.clone();
        tokio::spawn(async move {
            let served = Arc::<AtomicUsize>::default();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let served = served.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 65_536];
                    while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                        let turn = served.fetch_add(1, Ordering::SeqCst).min(responses.len() - 1);
                        let _ = stream.write_all(responses[turn].as_bytes()).await;
                    }
                });
            }
        });
        Backend { address, connections }
    }

    fn call(url: String) -> Call {
        Call {
            method: Method::Post,
            url: url.into(),
            headers: vec![("content-type".into(), "application/json".into())],
            body: Bytes::from_static(b"{}"),
            timeout: Duration::from_secs(5),
            max_answer_bytes: 100,
            must_be_public: false,
        }
    }

    fn to(backend: &Backend) -> Call {
        call(format!("http://{}/hook", backend.address))
    }

    #[tokio::test]
    async fn an_answer_comes_back_and_the_connection_is_used_again() {
        let backend = backend(&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]).await;
        let http = Http::system();
        for _ in 0..5 {
            let answer = http.call(to(&backend)).await.unwrap();
            assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
        }
        assert_eq!(backend.connections.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let backend =
            backend(&["HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"]).await;
        let answer = Http::system().call(to(&backend)).await.unwrap();
        assert_eq!(answer.status, 302);
        assert_eq!(backend.connections.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_is_refused_announced_or_not() {
        let announced = backend(&["HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n"]).await;
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                       33\r\n...................................................\r\n\
                       33\r\n...................................................\r\n";
        let growing = backend(Box::leak(Box::new([chunked]))).await;
        for backend in [announced, growing] {
            assert_eq!(Http::system().call(to(&backend)).await, Err(HttpError::TooLarge(100)));
        }
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_given_up_in_time() {
        let backend = backend(&[""]).await;
        let timeout = Duration::from_millis(50);
        let answer = Http::system().call(Call { timeout, ..to(&backend) }).await;
        assert_eq!(answer, Err(HttpError::TimedOut(timeout)));
    }

    #[tokio::test]
    async fn what_is_wrong_is_told_apart() {
        let garbage = backend(&["this is no HTTP\r\n\r\n"]).await;
        let answer = Http::system().call(to(&garbage)).await;
        assert!(matches!(answer, Err(HttpError::Broken(_))), "{answer:?}");
        // Nobody listens on a port that was free a moment ago.
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let answer = Http::system().call(call(format!("http://{free}/"))).await;
        assert!(matches!(answer, Err(HttpError::Unreachable(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn a_call_that_must_be_public_reaches_no_private_address_however_it_is_written() {
        let backend = backend(&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]).await;
        let port = backend.address.port();
        let http = Http::system();
        for host in ["127.0.0.1", "127.1", "2130706433", "0x7f.0.0.1", "[::ffff:127.0.0.1]", "0", "localhost"]
        {
            let call = Call { must_be_public: true, ..call(format!("http://{host}:{port}/")) };
            assert_eq!(http.call(call).await, Err(HttpError::NotPublic), "{host}");
        }
        assert_eq!(backend.connections.load(Ordering::SeqCst), 0);
        // The same client still goes anywhere for calls that may.
        assert!(http.call(to(&backend)).await.is_ok());
    }

    #[test]
    fn only_addresses_of_the_open_internet_are_public() {
        for public in ["1.1.1.1", "93.184.216.34", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for public in ["2606:4700::1111", "2001:4860::8888", "2a00::1", "64:ff9b::1.1.1.1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.53",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:1.1.1.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:0a00:0001::1",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }
}
