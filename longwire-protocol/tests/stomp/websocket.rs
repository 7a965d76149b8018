//! Frames within WebSocket messages, and what is different there.

use super::*;

const KEY: [u8; 4] = [1, 2, 3, 4];

fn message(kind: frame::Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(kind, false, Some(KEY), payload, &mut out);
    out
}

fn peer() -> Peer {
    let carrier = Carrier::WebSocket { is_deflated: false, max_message_bytes: 1 << 20 };
    let connection = Connection::stomp(opening(carrier, Limits::default()), Instant::now(), 0.5);
    Peer { connection, said: Vec::new(), unanswered: Vec::new() }
}

fn connected(kind: frame::Opcode) -> Peer {
    let mut peer = peer();
    let commands = peer.try_hear(&message(kind, b"CONNECT\naccept-version:1.2\n\n\0")).expect("good");
    let answer = peer.reply(commands[0].id, &welcome());
    assert_eq!(answer.bytes[0], 0x80 | kind.bits());
    assert!(answer.bytes[2..].starts_with(b"CONNECTED\n") || answer.bytes[4..].starts_with(b"CONNECTED\n"));
    peer
}

#[test]
fn a_frame_may_be_cut_by_messages_and_a_message_may_have_many() {
    let mut peer = connected(frame::Opcode::Text);
    assert_eq!(peer.connection.transport(), Transport::WebSocket);
    let frames = b"SEND\ndestination:/queue/a\n\n1\0\nSEND\ndestination:/queue/a\n\n2\0";
    assert_eq!(peer.try_hear(&message(frame::Opcode::Text, frames)).map(|it| it.len()), Ok(2));
    let pieces: Vec<u8> = frames.iter().flat_map(|byte| message(frame::Opcode::Binary, &[*byte])).collect();
    let commands = peer.try_hear(&pieces).expect("good");
    assert_eq!(commands.len(), 2);
    assert_eq!(sent(commands[1].command.clone()).body, "2");
    assert_eq!(peer.try_hear(&message(frame::Opcode::Ping, b"?")), Ok(vec![]));
    assert_eq!(std::mem::take(&mut peer.said), b"\x8a\x01?");
}

#[test]
fn frames_go_out_one_a_message_in_the_clients_own_kind() {
    let mut text = connected(frame::Opcode::Text);
    assert_eq!(text.connection.beat(), &b"\x81\x01\n"[..]);
    let mut binary = connected(frame::Opcode::Binary);
    assert_eq!(binary.connection.beat(), &b"\x82\x01\n"[..]);
    let subscribe = b"SUBSCRIBE\nid:0\ndestination:/topic/x\n\n\0SUBSCRIBE\nid:1\ndestination:/topic/x\n\n\0";
    for (peer, kind) in [(&mut text, 0x81), (&mut binary, 0x82)] {
        peer.try_hear(&message(frame::Opcode::Text, subscribe)).expect("good");
        let push = Push::Publication(publication(3, &[]));
        let shared = encode_push(peer.connection.encoding(), "x", &push, Some(at(3)), &mut None);
        let mut copies = Vec::new();
        peer.connection.copies("x", &shared, &mut copies).expect("room");
        for parts in copies.chunks(2) {
            let whole = parts.concat();
            assert_eq!((whole[0], usize::from(whole[1])), (kind, whole.len() - 2));
            assert!(whole[2..].starts_with(b"MESSAGE\n") && whole.ends_with(b"{}\0"));
        }
    }
    // What is no text cannot go as text.
    let shared = encode_push(
        text.connection.encoding(),
        "x",
        &Push::Message { data: Bytes::from_static(b"\xff"), is_json: false },
        None,
        &mut None,
    );
    let mut copies = Vec::new();
    text.connection.copies("x", &shared, &mut copies).expect("room");
    assert_eq!(copies[0][0], 0x82);
}

#[test]
fn the_end_is_an_error_and_a_close_frame_with_its_code() {
    let ends = |bytes: &[u8], code: u16| {
        let close = &code.to_be_bytes()[..];
        bytes.windows(4).any(|end| end[0] == 0x88 && &end[2..] == close)
    };
    for (reason, code) in [
        (CloseReason::BadRequest, 1002),
        (CloseReason::MessageTooBig, 1009),
        (CloseReason::Drain, 1001),
        (CloseReason::PermissionDenied, 3507),
    ] {
        let bytes = connected(frame::Opcode::Text).connection.farewell(&reason.into());
        assert!(ends(&bytes, code) && bytes[2..6].contains(&b'E'), "{reason}: {bytes:?}");
    }
    let mut peer = connected(frame::Opcode::Text);
    let commands =
        peer.try_hear(&message(frame::Opcode::Text, b"DISCONNECT\nreceipt:b\n\n\0")).expect("good");
    let answer = peer.reply(commands[0].id, &Reply::Disconnect);
    assert!(answer.bytes[2..].starts_with(b"RECEIPT\nreceipt-id:b\n\n\0\x88"), "{answer:?}");
    assert!(ends(&answer.bytes, 1000) && answer.close == Some(CloseReason::PeerClosed));
    // A close of the peer's is answered by its own code, without a word.
    let mut peer = connected(frame::Opcode::Text);
    assert!(peer.try_hear(&message(frame::Opcode::Close, &1001u16.to_be_bytes())).is_err());
    let mut close = Close::from(CloseReason::PeerClosed);
    (close.code, close.text) = (1001, "".into());
    assert_eq!(peer.connection.farewell(&close), &b"\x88\x02\x03\xe9"[..]);
}
