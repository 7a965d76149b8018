//! The realtime client: publications of channels from longwire or Centrifugo, over whatever way is open.
//!
//! A [`Client`] keeps one connection, a [`Subscription`] its interest in one channel. Both survive breaks: the client
//! comes back, logs in, subscribes from the last position, and the reader is told by an [`Event`] whether anything is
//! missing. What is asked meanwhile (publish, rpc, history) waits in the outbox.
//!
//! ```no_run
//! # async fn example() -> Result<(), longwire_client::Error> {
//! use longwire_client::realtime::{Client, Event};
//!
//! let client = Client::builder("ws://127.0.0.1:8000").build()?;
//! let mut news = client.subscribe("news")?;
//! client.publish("news", "{\"hello\":\"world\"}").await?;
//! while let Some(event) = news.next().await {
//!     match event {
//!         Event::Publication(publication) => println!("{:?}", publication.data),
//!         Event::NotRecovered { .. } => println!("something may be missing: load the state anew"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What it is not: it decides nothing itself. [`State`] does, without IO; a task moves it. What must stay true: a client
//! ends when it is closed or its last handle is dropped, and then nothing of it stays.

mod builder;
mod client;
pub mod event;
mod mailbox;
mod settings;
pub mod state;
mod subscription;
pub mod token;

pub use crate::core::Stats;
pub use builder::Builder;
pub use client::{Calling, Client, Events};
pub use event::{
    ClientEvent, ClientInfo, Event, History, HistoryQuery, Position, PresenceStats, Publication, Subscribed,
};
pub use mailbox::Reader;
pub use settings::{Settings, SubscriptionSettings};
pub use state::State;
pub use subscription::{Subscription, SubscriptionBuilder};
pub use token::{TokenError, TokenSource};
