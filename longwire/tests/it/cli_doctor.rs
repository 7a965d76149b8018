//! `longwire doctor`, against longwire itself, nginx in front of it, and servers that have something wrong.
//!
//! nginx is Debian's, started by each test with files of its own on a free port; `./test` installs it. Its timeouts are
//! shortened here; docs/doctor.md has the output with the usual 60 s.

use crate::harness::{Binary, LIMIT, TestServer, longwire, until};
use crate::tls::Files;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use longwire::config::{Listener, Protocol};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What came of a run.
struct Run {
    code: i32,
    report: Value,
    stderr: String,
}

impl Run {
    /// The names of what was found, with a `!` at what has to be changed.
    fn found(&self) -> Vec<String> {
        let findings = self.report["findings"].as_array().expect("findings");
        let mark = |finding: &Value| if finding["weight"] == "note" { "" } else { "!" };
        findings
            .iter()
            .map(|finding| format!("{}{}", finding["name"].as_str().unwrap_or_default(), mark(finding)))
            .collect()
    }

    /// What a finding says, and what it wants changed.
    #[track_caller]
    fn text(&self, name: &str) -> String {
        let findings = self.report["findings"].as_array().expect("findings");
        let finding = findings.iter().find(|finding| finding["name"] == name);
        finding.unwrap_or_else(|| panic!("no {name} in {:#}", self.report)).to_string()
    }

    fn seen(&self, pointer: &str) -> &Value {
        self.report["seen"].pointer(pointer).unwrap_or(&Value::Null)
    }
}

#[track_caller]
fn doctor(url: &str, arguments: &[&str]) -> Run {
    doctor_with(url, arguments, &[])
}

#[track_caller]
fn doctor_with(url: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = longwire(&[&["doctor", url, "--json", "--timeout", "5s"], arguments].concat());
    let output = command.envs(variables.iter().copied()).output().expect("it was built");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let report = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("no JSON: {stdout}\n{stderr}"));
    Run { code: output.status.code().expect("it exits"), report, stderr }
}

/// A port on which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

/// nginx, in front of a server.
struct Nginx {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

/// What makes WebSockets pass.
const UPGRADE: &str = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; \
                       proxy_set_header Connection \"upgrade\";";

impl Nginx {
    /// Starts one that hands everything on to `server`, with more directives in its location.
    fn start(server: SocketAddr, directives: &str) -> Nginx {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().display();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {at}/{kind};"))
            .join(" ");
        let file = folder.path().join("nginx.conf");
        let text = format!(
            "daemon off; worker_processes 1; pid {at}/nginx.pid; error_log {at}/error.log;\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log off; {temporary}\n\
             server {{ listen {address}; location / {{ proxy_pass http://{server}; {directives} }} }} }}\n"
        );
        std::fs::write(&file, text).expect("written");
        let program = std::env::var_os("NGINX_BIN").map_or_else(
            || {
                // Debian keeps it where only root looks.
                let usual = PathBuf::from("/usr/sbin/nginx");
                if usual.exists() { usual } else { PathBuf::from("nginx") }
            },
            PathBuf::from,
        );
        let child = Command::new(program)
            .args(["-c", &file.display().to_string(), "-p", &at.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed: ./test sees to it");
        let nginx = Nginx { child, address, _folder: folder };
        until("nginx to listen", || TcpStream::connect(nginx.address).is_ok());
        nginx
    }

    fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its master ends its worker when told to; killed, it would leave it behind.
        let pid = self.child.id().to_string();
        let _ = Command::new("sh").args(["-c", "kill -s TERM \"$0\"", &pid]).status();
        let _ = self.child.wait();
    }
}

/// Serves each connection on a thread of its own, until the tests end.
fn serve(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Reads a request's head.
fn head_of(stream: &TcpStream) -> String {
    stream.set_read_timeout(Some(LIMIT)).expect("a socket");
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|count| count > 0) {}
    head
}

fn answer(mut stream: TcpStream, status: &str, body: &str) {
    let response =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    // Whoever asked may be gone.
    let _ = stream.write_all(response.as_bytes());
}

#[test]
fn a_way_without_anything_on_it_needs_no_change() {
    let (_server, address) = Binary::serve(&["--client.allow-anonymous", "--websocket.compression"]);
    let run = doctor(&format!("ws://{address}"), &["--max-idle", "3s"]);
    assert_eq!((run.found(), run.code), (vec![], 0), "{:#}", run.report);
    assert_eq!(run.report["ok"], true);
    assert_eq!(run.seen("/proxy"), &Value::Null);
    assert_eq!(run.seen("/upgrade/status"), 101);
    assert!(
        run.seen("/upgrade/compression").as_str().is_some_and(|text| text.contains("permessage-deflate"))
    );
    assert_eq!(run.seen("/login/beat_s"), 25.0);
    assert!(run.seen("/ping/ms").is_number());
    // The limit is found without a message: `websocket.max_message_bytes` is 64 KiB.
    let (passed, refused) = (run.seen("/message/passed_bytes"), run.seen("/message/refused_bytes"));
    assert!(passed.as_u64() == Some(65_536) && refused.as_u64().is_some_and(|refused| refused <= 66_560));
    for stream in ["/streams/0", "/streams/1"] {
        assert!(run.seen(&format!("{stream}/echo/ms")).is_number(), "{:#}", run.report);
        assert_eq!(run.seen(&format!("{stream}/has_accel")), true);
    }
    assert_eq!(run.report["idle"]["alive_after_s"], 3.0);
}

#[test]
fn nginx_in_front_is_recognised_and_does_no_harm_where_it_is_set_right() {
    let (_server, address) = Binary::serve(&["--client.allow-anonymous"]);
    let nginx = Nginx::start(address, UPGRADE);
    let run = doctor(&nginx.url(), &["--max-idle", "3s"]);
    // `proxy_buffering` is on, and longwire's X-Accel-Buffering turns it off for its streams.
    assert_eq!((run.found(), run.code), (vec![], 0), "{:#}", run.report);
    assert_eq!(run.seen("/proxy/name"), "nginx");
    assert_eq!(run.seen("/streams/0/has_accel"), false, "nginx keeps it to itself");
    assert!(run.seen("/streams/0/echo/ms").is_number());
}

#[test]
fn the_idle_limit_and_the_buffering_of_nginx_are_found_and_its_directives_named() {
    let (_server, address) = Binary::serve(&["--client.allow-anonymous"]);
    let directives = format!("{UPGRADE} proxy_read_timeout 4s; proxy_ignore_headers X-Accel-Buffering;");
    let nginx = Nginx::start(address, &directives);
    let run = doctor(&nginx.url(), &["--max-idle", "30s"]);
    assert_eq!(run.found(), ["buffered!", "idle-closed!"], "{:#}", run.report);
    assert_eq!(run.code, 1);
    let closed = run.report["idle"]["closed_after_s"].as_f64().expect("it was closed");
    assert!((3.9..6.0).contains(&closed), "{closed}");
    assert!(run.text("idle-closed").contains("proxy_read_timeout 3600s;"));
    assert!(run.text("idle-closed").contains("heartbeat.interval"));
    assert!(run.text("buffered").contains("proxy_buffering off;"));
    assert!(run.text("buffered").contains("nginx"));
    assert!(run.stderr.starts_with("longwire: "), "{}", run.stderr);
}

#[test]
fn beats_that_come_in_time_make_the_idle_limit_a_note() {
    let (_server, address) =
        Binary::serve(&["--client.allow-anonymous", "--heartbeat.interval=2s", "--heartbeat.timeout=1s"]);
    let nginx = Nginx::start(address, &format!("{UPGRADE} proxy_read_timeout 4s; client_max_body_size 20k;"));
    let run = doctor(&nginx.url(), &["--max-idle", "8s"]);
    assert_eq!(run.found(), ["idle-closed", "body-limit"], "{:#}", run.report);
    assert_eq!((run.code, &run.report["ok"]), (0, &Value::Bool(true)), "notes are no failure");
    assert!(run.text("body-limit").contains("client_max_body_size"));
    assert_eq!(run.seen("/kept/end"), &Value::Null, "what is kept as clients do, lasts");
    assert!(run.seen("/kept/beats_s/0").is_number());
}

#[test]
fn streams_that_nginx_compresses_are_noticed() {
    let (_server, address) = Binary::serve(&["--client.allow-anonymous"]);
    let gzip = "gzip on; gzip_proxied any; gzip_min_length 0; gzip_types text/event-stream;";
    let nginx = Nginx::start(address, &format!("{UPGRADE} {gzip}"));
    let run = doctor(&nginx.url(), &["--max-idle", "2s"]);
    assert_eq!((run.found(), run.code), (vec!["stream-compressed!".to_owned()], 1), "{:#}", run.report);
    assert!(run.text("stream-compressed").contains("gzip off;"));
}

#[test]
fn an_upgrade_that_nginx_does_not_hand_on_names_the_directives() {
    let (_server, address) = Binary::serve(&["--client.allow-anonymous"]);
    for directives in ["", "proxy_http_version 1.1;"] {
        let nginx = Nginx::start(address, directives);
        let run = doctor(&nginx.url(), &["--max-idle", "4s"]);
        assert_eq!(run.found(), ["upgrade-stripped!"], "{:#}", run.report);
        assert_eq!(run.code, 1);
        let text = run.text("upgrade-stripped");
        assert!(
            text.contains("proxy_set_header Upgrade $http_upgrade")
                && text.contains("proxy_http_version 1.1")
        );
        assert!(run.seen("/streams/0/echo/ms").is_number(), "streams need no upgrade");
    }
}

#[test]
fn events_of_a_foreign_server_that_nginx_holds_back_are_noticed() {
    let events = serve(|mut stream| {
        if !head_of(&stream).starts_with("GET /events ") {
            return answer(stream, "404 Not Found", "no");
        }
        let begun = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: first\n\n";
        stream.write_all(begun).expect("nginx reads");
        // It says nothing more, until nobody listens.
        let _ = stream.read(&mut [0]);
    });
    let direct = doctor(&format!("http://{events}/events"), &["--max-idle", "6s"]);
    assert_eq!(direct.found(), [""; 0], "{:#}", direct.report);
    let nginx = Nginx::start(events, "");
    let run = doctor(&format!("sse+http://{}/events", nginx.address), &["--max-idle", "6s"]);
    assert_eq!((run.found(), run.code), (vec!["buffered!".to_owned()], 1), "{:#}", run.report);
    let text = run.text("buffered");
    assert!(text.contains("proxy_buffering off;") && text.contains("X-Accel-Buffering: no"), "{text}");
}

#[test]
fn a_server_that_swallows_pings_is_told_from_one_that_is_gone() {
    let address = serve(|mut stream| {
        let head = head_of(&stream);
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
        let Some(key) = key else { return answer(stream, "404 Not Found", "no") };
        let salted = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        let accept = base64::engine::general_purpose::STANDARD
            .encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, salted.as_bytes()));
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(response.as_bytes()).expect("the doctor reads");
        // Frames of a client are short here: two bytes, a key, and the payload.
        let mut frame = [0; 6];
        while stream.read_exact(&mut frame).is_ok() {
            let mut payload = vec![0; usize::from(frame[1] & 0x7f)];
            if stream.read_exact(&mut payload).is_err() {
                return;
            }
            if frame[0] == 0x88 {
                let _ = stream.write_all(&[0x88, 0]);
                return;
            }
        }
    });
    let run = doctor(&format!("ws://{address}/echo"), &["--max-idle", "3s"]);
    assert_eq!((run.found(), run.code), (vec!["pings-swallowed!".to_owned()], 1), "{:#}", run.report);
    assert!(run.text("pings-swallowed").contains("answers a close"));
    // Whoever answers a close is asked by one, so that the silence is measured all the same.
    assert_eq!(run.seen("/quiet/asked_by"), "close");
    assert_eq!(run.report["idle"]["alive_after_s"], 3.0);
}

#[test]
fn a_dead_port_and_an_unknown_name_end_with_4() {
    let run = doctor(&format!("ws://127.0.0.1:{}/", free_port()), &[]);
    assert_eq!((run.found(), run.code), (vec!["no-connection!".to_owned()], 4));
    assert!(run.text("no-connection").contains("nobody listens"));
    let run = doctor("wss://no-such-host.invalid/", &[]);
    assert_eq!((run.found(), run.code), (vec!["unresolved!".to_owned()], 4));
}

#[test]
fn a_server_that_refuses_is_quoted() {
    for (status, name, code) in [
        ("404 Not Found", "upgrade-not-found!", 5),
        ("403 Forbidden", "upgrade-refused!", 5),
        ("502 Bad Gateway", "upstream-away!", 1),
    ] {
        let address = serve(move |stream| {
            head_of(&stream);
            answer(stream, status, "nothing for you");
        });
        let run = doctor(&format!("ws://{address}/socket"), &["--max-idle", "1s"]);
        assert_eq!((run.found(), run.code), (vec![name.to_owned()], code), "{:#}", run.report);
        assert!(run.text(name.trim_end_matches('!')).contains("nothing for you"));
    }
}

#[test]
fn what_speaks_no_http_is_not_taken_for_a_server_of_websockets() {
    let silent = serve(|mut stream| {
        let _ = stream.read(&mut [0; 1000]);
        // The end of the connection ends the wait.
        while stream.read(&mut [0; 1000]).is_ok_and(|count| count > 0) {}
    });
    let run = doctor(&format!("ws://{silent}/"), &[]);
    assert_eq!((run.found(), run.code), (vec!["no-http!".to_owned()], 4), "{:#}", run.report);
}

/// A server of this process with a listener of TLS; its address and the certificate's files.
fn secure() -> (TestServer, SocketAddr, Files) {
    let (files, _) = Files::new();
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener { tls: Some(files.tls()), ..Listener::new("secure", address, Protocol::Http) };
    let server = TestServer::with(|config| config.listeners.push(listener));
    let address = server.server().addresses()[1];
    (server, address, files)
}

#[test]
fn a_certificate_that_nobody_signed_is_a_fault_and_what_is_behind_it_is_looked_at() {
    let (_server, address, files) = secure();
    let url = format!("wss://localhost:{}/", address.port());
    let run = doctor(&url, &["--max-idle", "1s"]);
    assert_eq!(run.found(), ["certificate!", "no-http2"], "{:#}", run.report);
    assert_eq!(run.code, 1);
    assert_eq!(run.seen("/upgrade/status"), 101);
    assert_eq!(run.seen("/tls/version"), "TLS 1.3");

    // Trusted, it is none.
    let certificate = files.tls().certificate;
    let trusted = [("SSL_CERT_FILE", certificate.to_str().expect("UTF-8"))];
    let run = doctor_with(&url, &["--max-idle", "1s"], &trusted);
    assert_eq!((run.found(), run.code), (vec!["no-http2".to_owned()], 0), "{:#}", run.report);
    let ca = ["--max-idle", "1s", "--ca", certificate.to_str().expect("UTF-8")];
    let run = doctor(&format!("wss://localhost:{}/", address.port()), &ca);
    assert_eq!((run.found(), run.code), (vec!["no-http2".to_owned()], 0), "{:#}", run.report);
    let elsewhere = doctor_with(&format!("wss://{address}/"), &["--max-idle", "1s"], &trusted);
    assert!(elsewhere.text("certificate").contains("other names"), "{:#}", elsewhere.report);
}

#[test]
fn tls_where_there_is_none_and_none_where_there_is_are_told_apart() {
    let (server, secure, _files) = secure();
    let run = doctor(&format!("ws://localhost:{}/", secure.port()), &[]);
    assert_eq!((run.found(), run.code), (vec!["tls-wanted!".to_owned()], 4), "{:#}", run.report);
    let run = doctor(&format!("wss://localhost:{}/", server.address.port()), &[]);
    assert_eq!((run.found(), run.code), (vec!["no-tls!".to_owned()], 4), "{:#}", run.report);
    assert!(run.text("no-tls").contains("does not speak TLS"));
}

#[test]
fn a_token_stays_at_home_where_the_certificate_is_not_trusted() {
    let (server, secure, _files) = secure();
    let token = crate::harness::user_token("ada");
    let run =
        doctor(&format!("wss://localhost:{}/", secure.port()), &["--max-idle", "1s", "--token", &token]);
    assert!(run.found().contains(&"certificate!".to_owned()));
    assert!(!run.report.to_string().contains(&token));
    // With it the user would have been known.
    let run = doctor(&format!("ws://{}/", server.address), &["--max-idle", "1s", "--token", "not.a.token"]);
    assert!(run.found().contains(&"login-refused!".to_owned()), "{:#}", run.report);
    assert_eq!(run.code, 5);
}

#[test]
fn stomp_is_looked_at_over_tcp_and_websocket() {
    let stomp = Listener::new("stomp", SocketAddr::from(([127, 0, 0, 1], 0)), Protocol::Stomp);
    let server = TestServer::with(|config| config.listeners.push(stomp));
    for url in [
        format!("stomp://{}", server.server().addresses()[1]),
        format!("stomp+ws://{}/stomp", server.address),
    ] {
        let run = doctor(&url, &["--max-idle", "2s"]);
        assert_eq!((run.found(), run.code), (vec![], 0), "{url}: {:#}", run.report);
        assert_eq!(run.seen("/login/dialect"), "stomp");
        assert!(run.seen("/login/server").as_str().is_some_and(|name| name.starts_with("longwire/")));
        assert!(run.seen("/ping/ms").is_number(), "{:#}", run.report);
        assert_eq!(run.report["idle"]["alive_after_s"], 2.0);
        let run = doctor(&url.replace("://", "://nobody:wrong@"), &["--max-idle", "2s"]);
        assert_eq!((run.found(), run.code), (vec!["login-refused!".to_owned()], 5), "{:#}", run.report);
    }
}

/// A way that forgets a connection on which nothing passed for so long, and tells nobody.
fn forgetful(server: SocketAddr, after: Duration) -> SocketAddr {
    serve(move |near| {
        let far = TcpStream::connect(server).expect("the server accepts");
        let passed = Passed { begun: Instant::now(), last_ms: Arc::new(AtomicU64::new(0)), after };
        let clone = |stream: &TcpStream| stream.try_clone().expect("a socket");
        let (from, to, beside) = (clone(&near), clone(&far), passed.clone());
        std::thread::spawn(move || beside.pump(from, to));
        passed.pump(far, near);
    })
}

/// When something passed, either way.
#[derive(Clone)]
struct Passed {
    begun: Instant,
    last_ms: Arc<AtomicU64>,
    after: Duration,
}

impl Passed {
    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let now = self.begun.elapsed().as_millis() as u64;
            if now - self.last_ms.load(Ordering::SeqCst).min(now) >= self.after.as_millis() as u64 {
                // As long as the other end may wait for an answer.
                std::thread::sleep(LIMIT);
                return;
            }
            self.last_ms.store(now, Ordering::SeqCst);
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }
}

#[test]
fn a_way_that_forgets_connections_in_silence_is_found_between_two_lengths() {
    let (_server, address) = Binary::serve(&["--client.allow-anonymous"]);
    let way = forgetful(address, Duration::from_secs(7));
    let run = doctor(&format!("ws://{way}/"), &["--max-idle", "10s"]);
    assert_eq!(run.report["idle"], serde_json::json!({"alive_after_s": 5.0, "lost_after_s": 10.0}));
    assert_eq!((run.found(), run.code), (vec!["idle-dropped!".to_owned()], 1), "{:#}", run.report);
    assert!(run.text("idle-dropped").contains("heartbeat.interval = \\\"2s\\\""), "{:#}", run.report);
}

#[test]
fn ctrl_c_brings_the_verdict_on_what_is_known() {
    let (_server, address) = Binary::serve(&["--client.allow-anonymous"]);
    let mut run = Binary::start(&["doctor", &format!("ws://{address}/"), "--max-idle", "10m"]);
    run.stdout().await_line("requests");
    run.signal("INT");
    assert_eq!(run.wait().code(), Some(0));
    let lines = run.stdout().lines();
    for part in
        ["Stopped after", "Verdict: nothing has to be changed.", "  silence       no end within", "  SSE  "]
    {
        assert!(lines.iter().any(|line| line.contains(part)), "{part} is not in {lines:#?}");
    }
}

#[test]
fn wrong_urls_end_with_2() {
    for url in ["ftp://a", "poll+http://a/other", "poll+http://a", "tcp://a"] {
        let output = longwire(&["doctor", url]).output().expect("it was built");
        assert_eq!(output.status.code(), Some(2), "{url}");
    }
}
