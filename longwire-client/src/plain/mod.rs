//! Feeds of longwire's plain dialect: publications over SSE, an HTTP stream, long-poll or raw TCP.
//!
//! A [`Feed`] names its channels once and keeps them: it comes back with its session and its last positions, and tells
//! by an [`Event`] whether anything is missing. What it says ([`Feed::send`]) is a message for the backend.
//!
//! ```no_run
//! # async fn example() -> Result<(), longwire_client::Error> {
//! use longwire_client::plain::{Event, Feed};
//!
//! let mut feed = Feed::builder("sse+http://127.0.0.1:8000").channels(["news"]).build()?;
//! while let Some(event) = feed.next().await {
//!     match event {
//!         Event::Publication(publication) => println!("{}: {:?}", publication.channel, publication.data),
//!         Event::NotRecovered { .. } => println!("something may be missing: load the state anew"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What it is not: it has no commands and asks for nothing after its beginning; [`realtime`](crate::realtime) does.
//! [`State`] decides, without IO; a task moves it. What must stay true: events of a channel never go back; whatever was
//! missed is told before anything newer than the loss.

pub(crate) mod event;
mod feed;
mod settings;
mod state;

pub use event::{Content, Event, Publication};
pub use feed::{Builder, Feed};
pub use longwire_protocol::plain::{
    ByteOrder, Counts, FirstPacket, Format, Framing, LengthField, Terminator,
};
pub use settings::{Beat, Settings};
pub use state::State;

#[cfg(test)]
mod tests;
