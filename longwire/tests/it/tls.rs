//! Listeners of TLS: everything that is spoken in plain text, certificates that change, peers that do not do their
//! part, and readers that are slow.

use crate::harness::{
    Binary, End, Events, LIMIT, Link, Raw, Received, TestServer, handshake, longwire, post, until,
};
use crate::metrics::metric;
use longwire::config::{Listener, Protocol, Tls};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A directory with a certificate for `localhost` and its key.
pub(crate) struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    pub(crate) fn new() -> (Files, CertificateDer<'static>) {
        let files = Files { directory: tempfile::tempdir().expect("a directory") };
        let certificate = files.replace();
        (files, certificate)
    }

    /// Writes another certificate and key.
    fn replace(&self) -> CertificateDer<'static> {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let tls = self.tls();
        std::fs::write(tls.certificate, pair.cert.pem()).expect("a file");
        std::fs::write(tls.key, pair.signing_key.serialize_pem()).expect("a file");
        pair.cert.der().clone()
    }

    pub(crate) fn tls(&self) -> Tls {
        let path = |name: &str| self.directory.path().join(name);
        Tls { certificate: path("certificate.pem"), key: path("key.pem") }
    }
}

/// A server with a listener of TLS beside the usual one.
struct Secure {
    server: TestServer,
    files: Files,
    certificate: CertificateDer<'static>,
    address: SocketAddr,
}

impl Secure {
    fn start(protocol: Protocol) -> Secure {
        Secure::with(protocol, |_| {})
    }

    fn with(protocol: Protocol, change: impl FnOnce(&mut longwire::config::Config)) -> Secure {
        let (files, certificate) = Files::new();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener { tls: Some(files.tls()), ..Listener::new("secure", address, protocol) };
        let server = TestServer::with(|config| {
            config.listeners.push(listener);
            change(config);
        });
        let address = server.server().addresses()[1];
        Secure { server, files, certificate, address }
    }

    fn open(&self) -> Link {
        self.open_trusting(&self.certificate)
    }

    fn open_trusting(&self, certificate: &CertificateDer<'static>) -> Link {
        Link::open(self.address).with_tls(client(certificate, &[&TLS13, &TLS12]))
    }

    fn open_websocket(&self, versions: &[&'static SupportedProtocolVersion]) -> Raw {
        let mut link = Link::open(self.address).with_tls(client(&self.certificate, versions));
        link.send(handshake(self.address, "").as_bytes());
        Raw::on(link)
    }
}

/// A client that trusts one certificate alone.
pub(crate) fn client(
    certificate: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let mut config = config.expect("versions that exist").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").expect("a name"))
        .expect("a configuration that works")
}

fn post_request(address: SocketAddr, path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn the_api_answers_over_tls_on_a_connection_that_is_kept() {
    let secure = Secure::start(Protocol::Http);
    let mut link = secure.open();
    for _ in 0..3 {
        link.send(post_request(secure.address, "/api/publish", r#"{"channel":"a","data":1}"#).as_bytes());
        let response = link.response();
        assert_eq!((response.status, &*response.text()), (200, r#"{"result":{}}"#));
    }
    let tls = link.tls.as_ref().expect("it is TLS");
    assert_eq!(tls.alpn_protocol(), Some(&b"http/1.1"[..]), "HTTP/2 is not spoken");
    // A connection that the API had becomes a stream.
    link.send(handshake(secure.address, "").as_bytes());
    let mut raw = Raw::on(link);
    raw.connect("");
    assert_eq!(raw.subscribe("news"), json!({}));
}

#[test]
fn websockets_and_event_streams_run_over_tls() {
    let secure = Secure::start(Protocol::Http);
    for version in [&TLS12, &TLS13] {
        let mut raw = secure.open_websocket(&[version]);
        raw.connect("");
        raw.subscribe("news");
        let mut link = secure.open();
        let request = format!("GET /sse?channels=news HTTP/1.1\r\nHost: {}\r\n\r\n", secure.address);
        link.send(request.as_bytes());
        let mut events = Events::on(link);
        assert_eq!(events.try_next().expect("an event").name, "subscribed");
        post(secure.server.address, "/api/publish", r#"{"channel":"news","data":{"a":1}}"#);
        assert_eq!(raw.value()["push"]["pub"]["data"], json!({"a": 1}), "{version:?}");
        assert_eq!(events.try_next().expect("an event").value()["data"], json!({"a": 1}));
        // Each side ends with a word of TLS, which tells an end from a cut.
        raw.link.finish();
        assert_eq!(raw.next(), Received::End(End::Closed));
    }
}

#[test]
fn packets_run_over_tls() {
    let secure = Secure::start(Protocol::Tcp);
    let mut link = secure.open();
    let welcome = link.take_up_to(b"\n").expect("a packet");
    let welcome: serde_json::Value = serde_json::from_slice(&welcome).expect("JSON");
    assert_eq!(welcome["type"], "subscribed");
    assert_eq!(link.tls.as_ref().expect("it is TLS").alpn_protocol(), None);
}

#[test]
fn each_half_ends_by_itself_and_says_so() {
    let secure = Secure::start(Protocol::Http);
    let mut raw = secure.open_websocket(&[&TLS13]);
    raw.connect("");
    let body = json!({"user": "", "client": raw.client}).to_string();
    assert_eq!(post(secure.server.address, "/api/disconnect", &body).status, 200);
    assert!(matches!(raw.next(), Received::Close(Some(_), _)));
    // The server has ended its half, not cut it, and waits for the other one.
    assert_eq!(raw.next(), Received::End(End::Closed));
    assert!(secure.server.server().node().admissions.open() > 0);
    raw.link.finish();
    until("the end of the other half", || secure.server.server().node().admissions.open() == 0);
}

#[test]
fn another_certificate_is_served_to_who_comes_later_and_a_broken_one_to_nobody() {
    let secure = Secure::start(Protocol::Http);
    let serves = |certificate: &CertificateDer<'static>| {
        let mut link = secure.open_trusting(certificate);
        link.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        link.try_response().is_ok_and(|response| response.status == 200)
    };
    let mut kept = secure.open_websocket(&[&TLS13]);
    assert!(serves(&secure.certificate));
    let second = secure.files.replace();
    assert!(serves(&secure.certificate), "nobody looked at the files");
    secure.server.server().reload_certificates();
    until("the second certificate", || serves(&second));
    assert!(!serves(&secure.certificate));
    // Half of a pair.
    let third = secure.files.replace();
    let key = std::fs::read(secure.files.tls().key).expect("a file");
    std::fs::write(secure.files.tls().key, "no key").expect("a file");
    secure.server.server().reload_certificates();
    assert!(serves(&second));
    std::fs::write(secure.files.tls().key, key).expect("a file");
    secure.server.server().reload_certificates();
    until("the third certificate", || serves(&third));
    kept.connect("");
}

#[test]
fn a_hangup_has_certificates_read_again_and_wrong_ones_are_named() {
    let (files, first) = Files::new();
    let Tls { certificate, key } = files.tls();
    let (certificate, key) = (certificate.to_str().expect("a path"), key.to_str().expect("a path"));
    let settings = [
        "--client.allow-anonymous",
        "true",
        "--listeners.secure.address",
        "127.0.0.1:0",
        "--listeners.secure.tls-certificate",
        certificate,
        "--listeners.secure.tls-key",
        key,
    ];
    let (server, _) = Binary::serve(&settings);
    let line = server.stderr().await_line("\"listener\":\"secure\"");
    let line: serde_json::Value = serde_json::from_str(&line).expect("the log is JSON");
    assert_eq!((line["tls"].as_bool(), line["protocol"].as_str()), (Some(true), Some("http")));
    let address: SocketAddr =
        line["address"].as_str().and_then(|text| text.parse().ok()).expect("an address");
    let serves = |certificate: &CertificateDer<'static>| {
        let mut link = Link::open(address).with_tls(client(certificate, &[&TLS13]));
        link.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        link.try_response().is_ok()
    };
    assert!(serves(&first));
    let second = files.replace();
    server.signal("HUP");
    until("the second certificate", || serves(&second));
    server.stderr().await_line("another certificate is in use");
    std::fs::write(key, "no key").expect("a file");
    server.signal("HUP");
    let line = server.stderr().await_line("cannot be read again");
    assert!(line.contains("key.pem: has no private key in it"), "{line}");
    assert!(serves(&second));
    for command in ["check", "serve"] {
        let output = longwire(&[&[command], &settings[..]].concat()).output().expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(
            errors.contains("`listeners.secure`: ") && errors.contains("key.pem: has no private key"),
            "{errors}"
        );
    }
}

#[test]
fn plain_text_on_a_port_of_tls_is_refused_and_counted() {
    let secure = Secure::start(Protocol::Http);
    let mut link = Link::open(secure.address);
    link.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // An alert (RFC 8446 section 6) and no answer.
    assert!(matches!(link.take_up_to(b"HTTP"), Err(End::Closed | End::Reset)));
    until("a failure", || metric(&secure.server, "longwire_tls_failures_total") == 1.0);
    let mut link = secure.open();
    link.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(link.response().status, 200);
    assert_eq!(metric(&secure.server, "longwire_tls_failures_total"), 1.0);
}

#[test]
fn a_handshake_that_dribbles_or_never_comes_is_cut() {
    let limit = Duration::from_millis(300);
    let secure = Secure::with(Protocol::Http, |config| config.http.head_timeout = limit);
    let mut hello = Vec::new();
    client(&secure.certificate, &[&TLS13]).write_tls(&mut hello).expect("a vector takes it");
    let start = Instant::now();
    let (mut silent, mut dribbling) = (Link::open(secure.address), Link::open(secure.address));
    for byte in &hello[..8] {
        dribbling.send(&[*byte]);
    }
    assert_eq!(silent.await_end(), End::Closed);
    assert!(matches!(dribbling.await_end(), End::Closed | End::Reset));
    assert!(start.elapsed() >= limit && start.elapsed() < LIMIT);
    until("both failures", || metric(&secure.server, "longwire_tls_failures_total") == 2.0);
}

#[test]
fn a_drain_waits_for_no_handshake() {
    let secure = Secure::with(Protocol::Http, |config| {
        config.http.head_timeout = LIMIT * 4;
        config.server.drain_deadline = LIMIT * 4;
    });
    let mut link = Link::open(secure.address);
    link.send(&[22]);
    until("a place", || secure.server.server().node().admissions.open() > 0);
    let start = Instant::now();
    secure.server.drain();
    assert!(start.elapsed() < LIMIT);
    assert_ne!(link.await_end(), End::Nothing);
}

#[test]
fn large_publications_reach_a_slow_reader_whole() {
    const MIB: usize = 1 << 20;
    let secure = Secure::with(Protocol::Http, |config| {
        config.client.max_outbox_bytes = 64 * MIB;
        config.http.max_body_bytes = 2 * MIB;
        // The reader begins when all is published, however busy the machine.
        config.client.write_timeout = LIMIT;
    });
    let mut raw = secure.open_websocket(&[&TLS13]);
    raw.connect("");
    raw.subscribe("news");
    let data =
        |round: u8| -> String { (0..MIB).map(|at| char::from(b'a' + (at as u8 ^ round) % 26)).collect() };
    let mut publisher = secure.open();
    for round in 0..16 {
        let body = json!({"channel": "news", "data": data(round)}).to_string();
        publisher.send(post_request(secure.address, "/api/publish", &body).as_bytes());
        assert_eq!(publisher.response().status, 200);
    }
    assert!(metric(&secure.server, "longwire_outbox_bytes") > 0.0, "the reader was to be slow");
    for round in 0..16 {
        assert!(raw.value()["push"]["pub"]["data"] == data(round).as_str(), "round {round}");
    }
    raw.expect_silence();
}

#[test]
fn a_reader_that_takes_nothing_more_is_closed_as_stalled() {
    const MIB: usize = 1 << 20;
    let secure = Secure::with(Protocol::Http, |config| {
        config.client.max_outbox_bytes = 64 * MIB;
        config.http.max_body_bytes = 2 * MIB;
        config.client.write_timeout = Duration::from_millis(200);
    });
    let mut raw = secure.open_websocket(&[&TLS13]);
    raw.connect("");
    raw.subscribe("news");
    let body = json!({"channel": "news", "data": "x".repeat(MIB)}).to_string();
    let closes = r#"longwire_closes_total{reason="WriteStalled",category="network"}"#;
    until("the close", || {
        post(secure.server.address, "/api/publish", &body);
        metric(&secure.server, closes) == 1.0
    });
}
