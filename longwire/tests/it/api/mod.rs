//! What a backend does through the HTTP API, with clients on sockets that see it.
//!
//! One file a subject. Centrifugo's methods as its own clients call them are in `centrifuge/orders`; here is
//! what longwire has beyond them.

mod binding;
mod connections;
mod messages;
mod personal;
mod publishing;
mod rates;
mod revocation;
