//! How connections come in: the front door, and what each transport does with a request for it.

pub mod event_stream;
pub mod forwarded;
pub mod front_door;
mod response;
pub mod stream;
pub mod websocket;
