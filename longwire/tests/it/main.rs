//! The integration tests of the server, in one binary.
//!
//! One binary links the server once; a file here is a subject. What must stay true: no test sleeps to wait
//! for something, each waits for a condition with a limit, and each binds a port that the system chose.

#[path = "../../../longwire-protocol/tests/framing_suite/mod.rs"]
mod framing_suite;

mod api;
mod away;
mod bad_input;
mod calls;
mod centrifuge;
mod cli;
mod cli_centrifugo;
mod cli_doctor;
mod cli_queue;
mod cli_urls;
mod drain;
mod event_stream;
mod events;
mod harness;
mod heartbeat;
mod history_on_disk;
mod metrics;
mod names;
mod panic;
mod plain;
mod stomp;
mod takeover;
mod tidy;
mod tls;
mod webhooks;
