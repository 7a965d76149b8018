//! longwire holds the long connections that an application cannot hold itself.
//!
//! The modules lie in layers; each names only those below it, and `tests/it/tidy.rs` says so. From the
//! bottom: [`mod@env`], [`config`], [`telemetry`]; [`history`], [`delivery`], [`journal`]; [`broker`],
//! [`presence`], [`auth`], [`backend`], [`events`], [`queue`]; [`node`]; [`session`], [`shard`]; [`transport`], [`api`];
//! [`server`]; [`cli`].
//! `ARCHITECTURE.md` tells the paths of a message, a heartbeat and a reconnect through them.

pub mod api;
pub mod auth;
pub mod backend;
pub mod broker;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod env;
pub mod errands;
pub mod events;
pub mod history;
pub mod journal;
pub mod node;
pub mod presence;
pub mod queue;
pub mod server;
pub mod session;
pub mod shard;
pub mod signature;
pub mod telemetry;
pub mod transport;
