//! An echo server made of the codec and nothing else: a thread for each connection.
//!
//! Test binaries include it; it answers compressed messages in plain frames, which is always allowed.

#![allow(dead_code, reason = "not every binary that includes this uses all of it")]

use longwire_protocol::http::{AllowedOrigins, parse_request_head};
use longwire_protocol::websocket::{Connection, Event, Role, frame, handshake};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

/// Starts the server on a free port of loopback; it lives as long as the test binary.
pub(crate) fn start(max_message_bytes: u32) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("accepted");
            std::thread::spawn(move || {
                serve(stream, max_message_bytes).expect("the client reads what it is sent")
            });
        }
    });
    server
}

/// Reads a handshake and accepts it. Says whether compression is on, and returns what came after the head.
pub(crate) fn shake_hands(stream: &mut TcpStream) -> std::io::Result<(bool, Vec<u8>)> {
    let (mut head, mut buffer) = (Vec::new(), vec![0; 4096]);
    loop {
        let len = stream.read(&mut buffer)?;
        assert_ne!(len, 0, "the client left before its handshake ended");
        head.extend_from_slice(&buffer[..len]);
        if let Some((request, consumed)) = parse_request_head(&head, 16 * 1024, 100).expect("a valid head") {
            let allowed_origins = AllowedOrigins::default();
            let options = handshake::Options {
                allowed_origins: &allowed_origins,
                subprotocols: &[],
                allow_deflate: true,
            };
            let accepted = handshake::accept(&request, &options).expect("a valid handshake");
            stream.write_all(&accepted.response)?;
            let deflate = accepted.deflate;
            return Ok((deflate, head.split_off(consumed)));
        }
    }
}

/// Echoes until the client closes or breaks a rule.
fn serve(mut stream: TcpStream, max_message_bytes: u32) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (deflate, mut received) = shake_hands(&mut stream)?;
    let mut buffer = vec![0; 16 * 1024];
    let mut connection = Connection::new(Role::Server, deflate, max_message_bytes);
    loop {
        let mut input = &received[..];
        loop {
            match connection.decode(&mut input) {
                Ok(None) => break,
                Ok(Some(Event::Message { kind, data })) => stream.write_all(&frame::message(kind, &data))?,
                Ok(Some(Event::Ping(payload))) => stream.write_all(&frame::pong(&payload))?,
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Close { code, .. })) => {
                    let answer = code.map_or_else(frame::close_without_code, |code| frame::close(code, ""));
                    return finish(stream, &answer);
                }
                Err(violation) => {
                    return finish(stream, &frame::close(violation.reason.code(), violation.reason.text()));
                }
            }
        }
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        received.clear();
        received.extend_from_slice(&buffer[..len]);
    }
}

/// Sends the last frame and reads until the client has seen it: bytes left unread would reset the connection
/// and could destroy the frame on its way.
fn finish(mut stream: TcpStream, last: &[u8]) -> std::io::Result<()> {
    stream.write_all(last)?;
    stream.shutdown(Shutdown::Write)?;
    while stream.read(&mut [0; 16 * 1024]).is_ok_and(|len| len > 0) {}
    Ok(())
}
