//! How connections come in: the front door, and what each transport does with a request for it.

pub mod forwarded;
pub mod front_door;
pub mod listening;
pub mod plain;
mod response;
pub mod stomp;
pub mod stream;
mod tcp;
pub mod websocket;
