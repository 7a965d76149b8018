//! The bodies of the methods of queues.
//!
//! Times are milliseconds, and say so in their names; where `max` is absent or 0 there are as many as is usual.

use super::{from_object, or_default};
use crate::queue::json::Sent;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// One message, or several in `messages`: then all are sent or none, and `queue` is that of those which name none.
#[derive(Default)]
pub(in crate::api) struct QueuePublish<'a> {
    pub(in crate::api) message: Sent<'a>,
    pub(in crate::api) queue: String,
    pub(in crate::api) messages: Option<Vec<&'a RawValue>>,
}

/// What of a call is not one message's.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Several<'a> {
    #[serde(deserialize_with = "or_default")]
    queue: String,
    #[serde(borrow)]
    messages: Option<Vec<&'a RawValue>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for QueuePublish<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<QueuePublish<'a>, D::Error> {
        // Read twice: what is borrowed as it came cannot be a part of two structs.
        let text = <&'de RawValue>::deserialize(from)?.get();
        let Several { queue, messages } = from_object(text).map_err(D::Error::custom)?;
        let message = from_object(text).map_err(D::Error::custom)?;
        Ok(QueuePublish { message, queue, messages })
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(in crate::api) struct QueueReceive {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::api) queue: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::api) max: usize,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::api) wait_ms: u64,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::api) lease_ms: u64,
}

/// Received messages, by the tokens that they came with.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(in crate::api) struct QueueSettle {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::api) token: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::api) tokens: Vec<String>,
    /// Of a nack: somebody shall be given it again; true if absent.
    pub(in crate::api) requeue: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(in crate::api) struct OneQueue {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::api) queue: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(in crate::api) struct QueueList {
    /// The name that the page before ended with.
    #[serde(deserialize_with = "or_default")]
    pub(in crate::api) after: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::api) max: usize,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(in crate::api) struct QueuePeek {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::api) queue: String,
    /// Where an earlier answer stopped.
    #[serde(deserialize_with = "or_default")]
    pub(in crate::api) after: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::api) max: usize,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(in crate::api) struct QueueMove {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::api) from: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::api) to: String,
    /// 0: all.
    #[serde(deserialize_with = "or_default")]
    pub(in crate::api) max: usize,
}
