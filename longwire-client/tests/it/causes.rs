//! Faults beyond the scenario, each with the one cause that a client must name for it: the table of `docs/client.md`.
//!
//! A fault here is a way to fail to connect, or something that a server says. Both clients are asked where both can meet
//! it. The last test compares the table of the document with what was tried here and in the scenario.

use crate::harness::{LIMIT, free_port};
use crate::options;
use crate::proxy::{Fault, Proxy};
use crate::servers::{Kind, Server};
use longwire_client::{Advice, Category, Cause, Limit, Options, Timeouts, Tls, Transition, realtime, stomp};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

/// What the first attempt of a client of this URL fails with, or its connection.
async fn first_end(url: &str, options: Options) -> (Cause, Transition) {
    let wanted = |transition: &Transition| matches!(transition, Transition::Disconnected { .. });
    let transition = if url.starts_with("stomp") {
        let builder = stomp::Client::builder(url).options(options);
        let client =
            builder.heart_beat(Duration::from_secs(1), Duration::from_secs(1)).build().expect("a client");
        let mut events = client.events();
        next(async || events.next().await, wanted).await
    } else {
        let client = realtime::Client::builder(url).options(options).build().expect("a client");
        let mut events = client.events();
        let next_transition = async || loop {
            if let realtime::ClientEvent::Transition(transition) = events.next().await? {
                return Some(transition);
            }
        };
        next(next_transition, wanted).await
    };
    let Transition::Disconnected { cause, .. } = &transition else { unreachable!() };
    (cause.clone(), transition)
}

async fn next(
    mut step: impl AsyncFnMut() -> Option<Transition>,
    is_wanted: impl Fn(&Transition) -> bool,
) -> Transition {
    let found = async {
        loop {
            let transition = step().await.expect("events go on");
            if is_wanted(&transition) {
                return transition;
            }
        }
    };
    tokio::time::timeout(LIMIT, found).await.expect("it ends in time")
}

fn quick() -> Options {
    Options {
        timeouts: Timeouts {
            connect: Duration::from_millis(500),
            login: Duration::from_millis(500),
            ..options().timeouts
        },
        ..options()
    }
}

/// Somebody who answers the first thing that is said with `answer` and stays; where.
fn answering(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                // Errors mean that the client has gone, which is its right.
                let _ = socket.read(&mut [0; 4096]);
                let _ = socket.write_all(answer);
                while let Ok(1..) = socket.read(&mut [0; 4096]) {}
            });
        }
    });
    address
}

const SCHEMES: [&str; 4] = ["ws", "stream+http", "sse+http", "stomp"];

#[tokio::test]
async fn a_dead_port_refuses() {
    for scheme in SCHEMES {
        let (cause, _) = first_end(&format!("{scheme}://127.0.0.1:{}", free_port()), quick()).await;
        assert_eq!((cause.name(), cause.category()), ("refused", Category::Network), "{scheme}: {cause}");
    }
}

#[tokio::test]
async fn a_name_that_nobody_has_is_not_resolved() {
    for scheme in SCHEMES {
        // RFC 6761 section 6.4: no such name exists.
        let options = Options { timeouts: Timeouts::default(), ..quick() };
        let (cause, _) = first_end(&format!("{scheme}://nobody.invalid:8000"), options).await;
        assert_eq!((cause.name(), cause.category()), ("unresolved", Category::Network), "{scheme}: {cause}");
    }
}

#[tokio::test]
async fn a_server_that_takes_no_connection_is_a_connect_timeout() {
    // Its queue is full, so what dials further gets no answer.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let _queued: Vec<_> =
        (0..3).map(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200))).collect();
    for scheme in SCHEMES {
        let (cause, _) = first_end(&format!("{scheme}://{address}"), quick()).await;
        let said = (cause.name(), cause.category());
        assert_eq!(said, ("connect_timeout", Category::Network), "{scheme}: {cause}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_a_login_timeout() {
    let server = Server::start(Kind::Longwire);
    for (scheme, address) in SCHEMES.map(|scheme| match scheme {
        "stomp" => (scheme, server.stomp()),
        _ => (scheme, server.http()),
    }) {
        let proxy = Proxy::start(address);
        proxy.inflict_on_new(Fault::Vanish);
        let (cause, _) = first_end(&format!("{scheme}://{}", proxy.address()), quick()).await;
        let said = (cause.name(), cause.category());
        assert_eq!(said, ("login_timeout", Category::Server), "{scheme}: {cause}");
    }
}

#[tokio::test]
async fn a_status_is_named_with_the_time_that_the_server_wants() {
    let busy = answering(
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    for scheme in ["ws", "stream+http", "sse+http", "stomp+ws"] {
        let (cause, transition) = first_end(&format!("{scheme}://{busy}"), quick()).await;
        assert_eq!(
            cause,
            Cause::Status { status: 503, retry_after: Some(Duration::from_secs(7)), text: String::new() },
            "{scheme}"
        );
        let Transition::Disconnected { retry_in: Some(delay), .. } = transition else {
            panic!("{scheme}: {transition:?}");
        };
        assert!(delay >= Duration::from_secs(7), "{scheme}: {delay:?}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_a_breach_of_the_protocol() {
    let nonsense = answering(b"220 mail.example.org ESMTP ready\r\n250 and waiting\r\n\r\n\0\0");
    for scheme in SCHEMES {
        let (cause, _) = first_end(&format!("{scheme}://{nonsense}"), quick()).await;
        assert_eq!((cause.name(), cause.category()), ("protocol", Category::Server), "{scheme}: {cause}");
    }
}

#[tokio::test]
async fn a_server_without_tls_fails_as_tls() {
    let nonsense = answering(b"220 mail.example.org ESMTP ready\r\n");
    for scheme in ["wss", "stream+https", "sse+https", "stomps", "stomp+wss"] {
        let options = Options { tls: Tls::Anybody, timeouts: Timeouts::default(), ..quick() };
        let (cause, _) = first_end(&format!("{scheme}://{nonsense}"), options).await;
        assert_eq!((cause.name(), cause.category()), ("tls", Category::Network), "{scheme}: {cause}");
    }
}

#[tokio::test]
async fn a_refused_login_is_told_and_final() {
    let server = Server::start(Kind::Longwire);
    let client = realtime::Client::builder(&format!("ws://{}", server.http()))
        .token("this.is.nothing")
        .options(quick())
        .build()
        .unwrap();
    let mut events = client.events();
    let next_transition = async || loop {
        if let realtime::ClientEvent::Transition(transition) = events.next().await? {
            return Some(transition);
        }
    };
    let transition =
        next(next_transition, |transition| matches!(transition, Transition::GaveUp { .. })).await;
    let Transition::GaveUp { cause: Cause::Told { code, advice, .. }, limit } = transition else {
        panic!("{transition:?}");
    };
    assert_eq!((code, advice, limit), (3500, Advice::Stop, Limit::Advice));
}

#[tokio::test]
async fn a_wrong_password_is_told_in_the_words_of_rabbitmq() {
    let server = Server::start(Kind::RabbitMq);
    let (cause, _) = first_end(&format!("stomp://guest:wrong@{}", server.stomp()), quick()).await;
    assert_eq!(cause.name(), "told", "{cause}");
    assert!(cause.to_string().contains("Bad CONNECT"), "{cause}");
}

#[tokio::test]
async fn a_server_that_takes_nothing_stalls_a_write() {
    let server = Server::start(Kind::Longwire);
    let proxy = Proxy::start(server.stomp());
    let mut options = options();
    options.timeouts.write = Duration::from_secs(1);
    options.outbox.max_bytes = 64 << 20;
    // No heartbeat, so that nothing else ends the connection.
    let client = stomp::Client::builder(&format!("stomp://{}", proxy.address()))
        .heart_beat(Duration::ZERO, Duration::ZERO)
        .options(options)
        .build()
        .unwrap();
    let mut events = client.events();
    client.send("/queue/large", "begin").await.unwrap();
    proxy.inflict(Fault::Vanish);
    // More than what the system's buffers on the way can take.
    let _sends: Vec<_> = (0..600).map(|_| client.send("/queue/large", vec![b'x'; 60_000]).start()).collect();
    let transition = next(
        async || events.next().await,
        |transition| matches!(transition, Transition::Disconnected { .. }),
    )
    .await;
    let Transition::Disconnected { cause, was_connected: true, .. } = &transition else {
        panic!("{transition:?}");
    };
    assert_eq!((cause.name(), cause.category()), ("write_stalled", Category::Network), "{cause}");
}

#[tokio::test]
async fn a_client_that_is_closed_says_so_and_nothing_more() {
    let server = Server::start(Kind::Longwire);
    let client =
        realtime::Client::builder(&format!("ws://{}", server.http())).options(quick()).build().unwrap();
    let mut events = client.events();
    client.connected().await.unwrap();
    client.close().await;
    let mut told = Vec::new();
    while let Some(event) = tokio::time::timeout(LIMIT, events.next()).await.expect("events end") {
        if let realtime::ClientEvent::Transition(transition) = event {
            told.push(transition);
        }
    }
    assert_eq!(told.last(), Some(&Transition::Closed), "{told:?}");
    assert!(!told.iter().any(|t| matches!(t, Transition::GaveUp { .. })), "{told:?}");
}

#[test]
fn the_document_has_every_cause() {
    let document = include_str!("../../../docs/client.md");
    let (_, document) = document.split_once("## Why a connection ended").expect("the section");
    let rows: BTreeSet<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(name, _)| name)
        .collect();
    let told = Cause::Told { code: 0, text: String::new(), advice: Advice::Reconnect, after: None };
    let causes = [
        Cause::Unresolved(String::new()),
        Cause::Refused,
        Cause::ConnectTimeout,
        Cause::Unreachable(String::new()),
        Cause::Tls(String::new()),
        Cause::Status { status: 503, retry_after: None, text: String::new() },
        Cause::LoginTimeout,
        told,
        Cause::Ended,
        Cause::Reset,
        Cause::Broken(String::new()),
        Cause::Silent { silence: Duration::ZERO },
        Cause::WriteStalled,
        Cause::CommandTimeout("subscribe"),
        Cause::Protocol(String::new()),
        Cause::NoToken { what: String::new(), is_final: true },
        Cause::Closed,
    ];
    for cause in causes {
        assert!(rows.contains(cause.name()), "docs/client.md has no row for `{}`", cause.name());
        let category = format!("{:?}", cause.category()).to_lowercase();
        let row = document.lines().find(|line| line.starts_with(&format!("| `{}` |", cause.name())));
        let row = row.expect("it was found above");
        // Where the category depends on what the server said, the row says more than one.
        assert!(row.contains(&category), "docs/client.md has another category for `{}`: {row}", cause.name());
    }
}
