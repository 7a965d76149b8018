//! The centrifuge dialect over WebSocket, in raw bytes against a running server.
//!
//! One file a subject: what each command is answered, what is allowed, what returning clients get, what
//! tokens do, where limits bite, and what a backend can do to clients through the HTTP API. Codes and shapes
//! are those of the published protocol.

mod commands;
mod joins;
mod limits;
mod orders;
mod permissions;
mod recovery;
mod streams;
mod tokens;
