//! Fuzzers at every door: whatever a peer, a token or a file can say.
//!
//! One module a door, each with a `run` that takes arbitrary bytes and asserts what that part of longwire
//! promises of them: not only that nothing panics, but that a cut changes nothing, that what is written is
//! read as what it was, that limits hold. `fuzz_targets/` runs them under libFuzzer, `tests/` as property
//! tests; nothing else knows them. What must stay true: `run` depends on its bytes alone, so that what
//! failed once fails again.

pub mod centrifuge_client;
pub mod centrifuge_json;
pub mod centrifuge_protobuf;
pub mod config;
pub mod deflate;
pub mod event_stream;
pub mod filter;
pub mod fossil;
pub mod handshake;
pub mod http_body;
pub mod http_head;
pub mod input;
pub mod jwt;
pub mod packets;
pub mod plain;
pub mod position_token;
pub mod selector;
pub mod session;
pub mod stomp;
pub mod stomp_codec;
pub mod websocket_codec;

/// One door, by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them; the names are those of the folders in `corpus/`.
pub const TARGETS: [Target; 20] = [
    ("websocket_codec", websocket_codec::run),
    ("handshake", handshake::run),
    ("deflate", deflate::run),
    ("http_head", http_head::run),
    ("http_body", http_body::run),
    ("event_stream", event_stream::run),
    ("centrifuge_json", centrifuge_json::run),
    ("centrifuge_client", centrifuge_client::run),
    ("centrifuge_protobuf", centrifuge_protobuf::run),
    ("fossil", fossil::run),
    ("filter", filter::run),
    ("selector", selector::run),
    ("position_token", position_token::run),
    ("packets", packets::run),
    ("plain", plain::run),
    ("jwt", jwt::run),
    ("config", config::run),
    ("session", session::run),
    ("stomp_codec", stomp_codec::run),
    ("stomp", stomp::run),
];
