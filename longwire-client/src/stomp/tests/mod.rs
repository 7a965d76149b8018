//! The client against a broker that is a script: no socket, invented time.

mod bench;
mod connection;
mod handles;
mod random;
mod sending;
mod subscribing;
