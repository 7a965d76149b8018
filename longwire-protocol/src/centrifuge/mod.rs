//! The centrifuge dialect: the commands, replies and pushes of the Centrifugo client protocol, version 2.
//!
//! [`json`] and [`protobuf`] turn bytes into [`Command`](crate::Command)s and [`Reply`]s and [`Push`]es into
//! bytes; [`Format`] says which. [`client`] is the other half: what a client writes and reads. [`link`] is one
//! connection of the dialect on any of its transports. None of them keeps state about the client: which command is
//! allowed when, what a subscription may do and when a heartbeat is due are the business of the session.

pub mod client;
pub mod json;
pub mod link;
pub mod protobuf;

use crate::command::{Connect, Numbered, Subscribe};
use crate::message::{Push, Reply};
use crate::position::{Epoch, Since};
use bytes::Bytes;
use std::borrow::Cow;

/// How deeply the objects and arrays of one command may be nested, the command itself included.
pub const MAX_DEPTH: usize = 64;

/// How many server-side subscriptions a connect command may name.
pub const MAX_SUBS: usize = 1024;

/// Why a message is not a command.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct DecodeError {
    /// What is wrong, naming the field; never text of the client's.
    pub what: Cow<'static, str>,
    /// Where, counted from the first byte of the message as it was given to `decode_next`.
    pub at: usize,
}

/// What a client that listens to a stream sends beside it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EmulationRequest {
    /// The session that the commands are for, as its connect result named it; empty if absent.
    pub session: String,
    /// The node that has it; empty if absent.
    pub node: String,
    /// Commands, as they would stand in a message.
    pub data: Bytes,
}

/// The members of a command that say what is asked, in the order of the protocol's definition: of several,
/// the first in this order counts.
const MEMBERS: [&str; 12] = [
    "connect",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_stats",
    "history",
    "ping",
    "send",
    "rpc",
    "refresh",
    "sub_refresh",
];

/// What messages are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Protobuf messages, each behind its length.
    Protobuf,
}

impl Format {
    /// The word in logs and webhooks.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Protobuf => "protobuf",
        }
    }

    /// As [`json::decode_next`].
    pub(crate) fn decode_next(self, message: &mut Bytes) -> Option<Result<Numbered, DecodeError>> {
        match self {
            Format::Json => json::decode_next(message),
            Format::Protobuf => protobuf::decode_next(message),
        }
    }

    /// As [`json::decode_connect`].
    pub(crate) fn decode_connect(self, message: &Bytes) -> Result<Connect, DecodeError> {
        match self {
            Format::Json => json::decode_connect(message),
            Format::Protobuf => protobuf::decode_connect(message),
        }
    }

    /// As [`json::encode_reply`].
    pub(crate) fn encode_reply(self, id: u32, reply: &Reply, out: &mut Vec<u8>) {
        match self {
            Format::Json => json::encode_reply(id, reply, out),
            Format::Protobuf => protobuf::encode_reply(id, reply, out),
        }
    }

    /// As [`json::encode_push`], or [`json::encode_bare_push`] where nothing but pushes is said.
    pub(crate) fn encode_push(self, is_bare: bool, channel: &str, push: &Push, out: &mut Vec<u8>) {
        match (self, is_bare) {
            (Format::Json, false) => json::encode_push(channel, push, out),
            (Format::Json, true) => json::encode_bare_push(channel, push, out),
            (Format::Protobuf, false) => protobuf::encode_push(channel, push, out),
            (Format::Protobuf, true) => protobuf::encode_bare_push(channel, push, out),
        }
    }
}

/// The bit of a subscribe command's `flag` that asks for an error rather than `recovered: false`.
const REJECT_UNRECOVERED: i64 = 2;

/// Judges whether a command of this id may ask for `member`; without one it is the answer to a heartbeat.
fn check_id(id: u32, member: Option<&str>) -> Result<(), &'static str> {
    match member {
        None if id != 0 => Err("command asks for nothing that is known"),
        Some(member) if id == 0 && member != "send" => Err("command without id"),
        _ => Ok(()),
    }
}

/// Where a reader says it stopped; an empty epoch is none.
fn since(offset: u64, epoch: &str) -> Since {
    Since { offset, epoch: (!epoch.is_empty()).then(|| Epoch::parse(epoch)) }
}

/// Adds a server-side subscription; of two for one channel, the last counts.
fn put_sub(subs: &mut Vec<Subscribe>, sub: Subscribe) {
    match subs.iter_mut().find(|earlier| earlier.channel == sub.channel) {
        Some(earlier) => *earlier = sub,
        None => subs.push(sub),
    }
}
