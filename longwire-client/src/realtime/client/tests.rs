//! The handle over the loopback interface: what only shows with a task and real threads.

use super::*;
use crate::blocking::Wait;
use crate::options::Options;
use crate::realtime::ClientEvent;
use crate::realtime::token::TokenError;
use crate::transport::Transport;
use longwire_protocol::http::{AllowedOrigins, parse_request_head};
use longwire_protocol::websocket::{Kind, frame, handshake};
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Answers a WebSocket's handshake and the login.
async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
    }
    let (head, _) = parse_request_head(&request, 1 << 14, 100).unwrap().expect("whole");
    let allowed_origins = AllowedOrigins::default();
    let options =
        handshake::Options { allowed_origins: &allowed_origins, subprotocols: &[], allow_deflate: false };
    stream.write_all(&handshake::accept(&head, &options).unwrap().response).await.unwrap();
    // The login.
    assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
    say(&mut stream, "{\"id\":1,\"connect\":{\"client\":\"me\",\"ping\":60}}").await;
    stream
}

async fn say(stream: &mut TcpStream, line: &str) {
    stream.write_all(&frame::message(Kind::Text, line.as_bytes())).await.unwrap();
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    (listener, url)
}

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_listener_who_leaves_holds_nobody_up() {
    let (listener, url) = listener().await;
    let options = Options { max_buffered: 4, ..Options::default() };
    let client = Client::builder(&url).transports(&[Transport::WebSocket]).options(options).build().unwrap();
    let deaf = client.events();
    let mut stream = accept(&listener).await;
    client.connected().await.unwrap();
    for n in 0..4 {
        say(&mut stream, &format!("{{\"push\":{{\"message\":{{\"data\":{n}}}}}}}")).await;
    }
    // Until it is behind.
    tokio::time::timeout(PATIENCE, async {
        while client.handle.shared.with_nudge(|state, _| (state.is_reading(), false)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("a full mailbox stops the reading");
    drop(deaf);
    let mut events = client.events();
    say(&mut stream, "{\"push\":{\"message\":{\"data\":\"heard\"}}}").await;
    let heard = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            if let Some(ClientEvent::Message(data)) = events.next().await {
                return data;
            }
        }
    });
    assert_eq!(heard.await.expect("it is read on at once"), "\"heard\"");
}

#[tokio::test]
async fn a_source_of_tokens_that_panics_is_asked_again() {
    let (listener, url) = listener().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let client = Client::builder(&url.replace("ws", "stream+http"))
        .token_source(move || {
            let count = Arc::clone(&count);
            async move {
                assert_ne!(count.fetch_add(1, Ordering::SeqCst), 0, "the first time goes wrong");
                Ok::<_, TokenError>("token".to_owned())
            }
        })
        .build()
        .unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    let said = tokio::time::timeout(Duration::from_secs(5), async {
        while !request.ends_with(b"}}") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
    });
    said.await.expect("a login with the token");
    assert!(String::from_utf8(request).unwrap().contains("{\"id\":1,\"connect\":{\"token\":\"token\""));
    drop(client);
}

#[test]
fn what_waits_ends_when_the_runtime_is_shut_down() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(async {
        let (listener, url) = listener().await;
        let client = Client::builder(&url).transports(&[Transport::WebSocket]).build().unwrap();
        let stream = accept(&listener).await;
        client.connected().await.unwrap();
        // Held until the runtime goes.
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop((listener, stream));
        });
        client
    });
    let waiting = std::thread::spawn({
        let client = client.clone();
        move || client.publish("news", "1").wait_for(PATIENCE)
    });
    while client.unfinished().0 == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    runtime.shutdown_timeout(PATIENCE);
    assert_eq!(waiting.join().unwrap(), Some(Err(Error::Unconfirmed)));
    assert_eq!(client.publish("news", "1").wait_for(PATIENCE), Some(Err(Error::Closed)));
    assert!(client.close().wait_for(PATIENCE).is_some());
}

#[tokio::test]
async fn who_gives_up_waiting_for_the_connection_is_forgotten() {
    let (_listener, url) = listener().await;
    let client = Client::builder(&url).transports(&[Transport::WebSocket]).build().unwrap();
    for _ in 0..100 {
        let client = client.clone();
        let waits =
            tokio::spawn(
                async move { tokio::time::timeout(Duration::ZERO, client.connected()).await.is_err() },
            );
        assert!(waits.await.unwrap());
    }
    assert_eq!(client.handle.shared.with_nudge(|state, _| (state.watchers(), false)), 0);
}
