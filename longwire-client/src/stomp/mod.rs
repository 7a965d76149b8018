//! A client of STOMP brokers that keeps its connection: longwire, RabbitMQ, ActiveMQ and whoever else speaks 1.0, 1.1 or
//! 1.2, over TCP, TLS or WebSocket.
//!
//! ```no_run
//! # async fn work(_: &str) -> bool { true }
//! # async fn run() -> Result<(), longwire_client::Error> {
//! use longwire_client::stomp::{AckMode, Client};
//!
//! let client = Client::builder("stomp://guest:guest@127.0.0.1:61613").build()?;
//! let mut mails = client.subscribe("/queue/mails").ack(AckMode::ClientIndividual).prefetch(10).start()?;
//! while let Some(mail) = mails.message().await {
//!     let done = work(mail.text().unwrap_or_default()).await;
//!     if done { mail.ack().await? } else { mail.nack().await? }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What comes back after a break: the login, the subscriptions (a topic of longwire from where it stood), and what was
//! sent without a receipt having come. So a send that was confirmed is with the broker at least once. What does not come
//! back: an acknowledgement of a message from the connection before, which the broker delivers again. What must stay true:
//! `state` decides and waits for nothing; everything that is lost is either made good or told.

mod builder;
mod by_hand;
mod calls;
mod client;
mod doubles;
mod frame;
mod login;
mod message;
mod outbox;
mod state;
mod subscription;
mod subscriptions;
mod transaction;

#[cfg(test)]
mod tests;

pub use builder::Builder;
pub use by_hand::{Delivery, Told};
pub use client::{Client, Confirmation, Events, Sending, Server};
pub use login::told as cause_of_error;
pub use longwire_protocol::Position;
pub use longwire_protocol::stomp::Version;
pub use message::{AckMode, Event, Message, Settling};
pub use outbox::Confirmed;
pub use state::{DEDUPLICATION_HEADER, State};
pub use subscription::{Subscribe, Subscription};
pub use transaction::{Transaction, TransactionMessage};
