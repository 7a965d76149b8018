//! The centrifuge dialect: the commands, replies and pushes of the Centrifugo client protocol, version 2.
//!
//! This module turns bytes into [`Command`](crate::Command)s and [`Reply`](crate::Reply)s and
//! [`Push`](crate::Push)es into bytes. It keeps no state: which command is allowed when, what a subscription
//! may do and when a heartbeat is due are the business of the session.

pub mod json;
