//! The plain dialect: what a client without any SDK reads and writes.
//!
//! It exists for `EventSource`, the browser's own `WebSocket`, curl and raw TCP. A client names its channels
//! when it opens the connection and reads publications as JSON. Where it stopped travels as a
//! [position token](position_token), the same text on every transport.

pub mod event_stream;
pub mod position_token;
pub(crate) mod stream;
