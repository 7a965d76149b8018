//! What a feed hears: the objects of the plain dialect, read.
//!
//! Reading is lenient: members and types that are not known are passed over, as the dialect asks. What must stay true:
//! nothing that a server sends makes it panic, and an object that cannot be read is handed on as it came.

use crate::transition::Transition;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What a program hears from a feed.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Something happened to the connection.
    Transition(Transition),
    /// The server welcomed the feed, for the first time or again.
    Opened {
        /// The connection, as others see it.
        client: String,
        /// The session of before goes on.
        resumed: bool,
    },
    /// Data of a channel.
    Publication(Publication),
    /// Data for this client alone, or a packet that is no object.
    Message(Content),
    /// Nothing is missing since the break: so many publications that were missed follow.
    Recovered {
        /// In this channel; `None` where the server speaks of all together, as over long-poll.
        channel: Option<String>,
        /// How many.
        publications: u64,
    },
    /// Publications may be missing, and nobody can bring them: load the state anew.
    NotRecovered {
        /// In this channel; `None` for what belongs to none (messages for this client), or where the server speaks of
        /// all together.
        channel: Option<String>,
    },
    /// A client came.
    Join {
        /// The channel.
        channel: String,
        /// Who: an object with `user` and `client`.
        info: Bytes,
    },
    /// A client went.
    Leave {
        /// The channel.
        channel: String,
        /// Who: an object with `user` and `client`.
        info: Bytes,
    },
    /// The backend joined this client to a channel.
    Subscribed {
        /// The channel.
        channel: String,
    },
    /// This client is out of a channel.
    Unsubscribed {
        /// The channel.
        channel: String,
        /// Why.
        code: u32,
        /// The same in words.
        reason: String,
    },
    /// Something was refused, and the connection goes on.
    Refused {
        /// Why.
        code: u32,
        /// The same in words.
        reason: String,
    },
    /// The reader was too slow to hear of this many transitions.
    Missed {
        /// How many.
        events: u64,
    },
}

/// Data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// Raw JSON.
    Json(Bytes),
    /// Anything else.
    Bytes(Bytes),
}

impl Content {
    /// The bytes, of either kind.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Content::Json(bytes) | Content::Bytes(bytes) => bytes,
        }
    }
}

impl Event {
    /// How long the data in it is.
    pub(super) fn data_bytes(&self) -> usize {
        match self {
            Event::Publication(Publication { data, .. }) | Event::Message(data) => data.bytes().len(),
            _ => 0,
        }
    }
}

/// Data published to a channel.
#[derive(Clone, PartialEq, Debug)]
pub struct Publication {
    /// The channel.
    pub channel: String,
    /// Number within the channel's history; 0 in a channel without one.
    pub offset: u64,
    /// The data.
    pub data: Content,
    /// Tags, by their keys.
    pub tags: BTreeMap<String, String>,
    /// Who published, an object with `user` and `client`; empty if no client did.
    pub info: Bytes,
}

/// An object, or the data of an event, as it was read.
#[derive(Debug)]
pub(crate) enum Object {
    Welcome(Box<Welcome>),
    Publication {
        publication: Publication,
        id: String,
    },
    Message(Content),
    Join {
        channel: String,
        info: Bytes,
    },
    Leave {
        channel: String,
        info: Bytes,
    },
    Subscribed {
        channel: String,
        id: String,
    },
    Unsubscribed {
        channel: String,
        code: u32,
        reason: String,
    },
    Disconnect {
        code: u16,
        reason: String,
        reconnect: bool,
    },
    Refused {
        code: u32,
        reason: String,
    },
    /// Of a kind that is not known.
    Other,
}

/// How a connection stands.
#[derive(Debug, Default)]
pub(crate) struct Welcome {
    pub(crate) client: String,
    pub(crate) session: String,
    pub(crate) name: String,
    pub(crate) resumed: bool,
    pub(crate) recovered: Option<bool>,
    pub(crate) channels: BTreeMap<String, Standing>,
    pub(crate) id: String,
}

/// How a channel stands.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(crate) struct Standing {
    pub(crate) recovered: Option<bool>,
    pub(crate) publications: u64,
}

/// The answer to a poll.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) welcome: Welcome,
    pub(crate) since: String,
    pub(crate) objects: Vec<Result<Object, String>>,
}

/// Every member of every object.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Raw<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Option<Cow<'a, str>>,
    offset: u64,
    #[serde(borrow)]
    id: Cow<'a, str>,
    tags: BTreeMap<String, String>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(borrow)]
    client: Cow<'a, str>,
    #[serde(borrow)]
    session: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    resumed: bool,
    recovered: Option<bool>,
    channels: BTreeMap<String, Standing>,
    code: u32,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    reconnect: Option<bool>,
    #[serde(borrow)]
    since: Cow<'a, str>,
    #[serde(borrow)]
    publications: Option<Vec<&'a RawValue>>,
}

impl Object {
    /// Reads an object; `name` is that of its event, where it is one, and takes the place of its `type`.
    ///
    /// # Errors
    /// What makes it none.
    pub(crate) fn read(text: &Bytes, name: Option<&str>) -> Result<Object, String> {
        let raw: Raw<'_> = serde_json::from_slice(text).map_err(|error| format!("an object: {error}"))?;
        let part = |raw: &RawValue| text.slice_ref(raw.get().as_bytes());
        let channel = raw.channel.as_deref().unwrap_or_default().to_owned();
        let info = raw.info.map(part).unwrap_or_default();
        let id = raw.id.clone().into_owned();
        Ok(match name.unwrap_or(&raw.kind) {
            "" | "message" => {
                let data = match (raw.data, &raw.b64data) {
                    (Some(data), _) => Content::Json(part(data)),
                    (None, Some(encoded)) => Content::Bytes(
                        STANDARD.decode(&**encoded).map_err(|error| format!("b64data: {error}"))?.into(),
                    ),
                    // Somebody's answer to a sign of life may be any object.
                    (None, None) => return Ok(Object::Message(Content::Json(text.clone()))),
                };
                match raw.channel {
                    None => Object::Message(data),
                    Some(_) => {
                        let publication =
                            Publication { channel, offset: raw.offset, data, tags: raw.tags, info };
                        Object::Publication { publication, id }
                    }
                }
            }
            // A channel that the backend adds to an event stream is one more `subscribed`.
            "subscribed" if raw.client.is_empty() => match raw.channels.into_keys().next() {
                Some(channel) => Object::Subscribed { channel, id },
                None => Object::Other,
            },
            "subscribed" | "recovered" => Object::Welcome(Box::new(raw.welcome())),
            "join" => Object::Join { channel, info },
            "leave" => Object::Leave { channel, info },
            "subscribe" => Object::Subscribed { channel, id },
            "unsubscribe" => {
                Object::Unsubscribed { channel, code: raw.code, reason: raw.reason.into_owned() }
            }
            "disconnect" => Object::Disconnect {
                code: u16::try_from(raw.code).unwrap_or(0),
                reason: raw.reason.into_owned(),
                reconnect: raw.reconnect.unwrap_or(true),
            },
            "error" => Object::Refused { code: raw.code, reason: raw.reason.into_owned() },
            _ => Object::Other,
        })
    }
}

impl Answer {
    /// Reads the answer to a poll.
    ///
    /// # Errors
    /// What makes it none.
    pub(crate) fn read(text: &Bytes) -> Result<Answer, String> {
        let mut raw: Raw<'_> =
            serde_json::from_slice(text).map_err(|error| format!("the answer to a poll: {error}"))?;
        let read = |raw: &RawValue| Object::read(&text.slice_ref(raw.get().as_bytes()), None);
        let objects = raw.publications.take().unwrap_or_default().into_iter().map(read).collect();
        let since = raw.since.clone().into_owned();
        Ok(Answer { welcome: raw.welcome(), since, objects })
    }
}

impl Raw<'_> {
    fn welcome(self) -> Welcome {
        Welcome {
            client: self.client.into_owned(),
            session: self.session.into_owned(),
            name: self.name.into_owned(),
            resumed: self.resumed,
            recovered: self.recovered,
            channels: self.channels,
            id: self.id.into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str, name: Option<&str>) -> Object {
        Object::read(&Bytes::from_static(text.as_bytes()), name).unwrap()
    }

    #[test]
    fn a_publication_says_channel_place_and_data() {
        let text = r#"{"channel":"news","data":{"a":1},"offset":7,"id":"news=7.abcdefgh","tags":{"k":"v"}}"#;
        let Object::Publication { publication, id } = read(text, None) else { panic!("no publication") };
        assert_eq!((&*publication.channel, publication.offset, &*id), ("news", 7, "news=7.abcdefgh"));
        assert_eq!(publication.data, Content::Json(Bytes::from_static(b"{\"a\":1}")));
        assert_eq!(publication.tags.get("k").map(String::as_str), Some("v"));
    }

    #[test]
    fn data_that_is_no_json_is_its_bytes() {
        let Object::Message(content) = read(r#"{"b64data":"/wA="}"#, Some("message")) else {
            panic!("no message")
        };
        assert_eq!(content, Content::Bytes(Bytes::from_static(b"\xff\0")));
        assert!(Object::read(&Bytes::from_static(br#"{"b64data":"%"}"#), None).is_err());
    }

    #[test]
    fn an_events_name_takes_the_place_of_the_type() {
        let welcome = r#"{"client":"c","session":"s","recovered":true,"channels":{"a":{"recovered":true,"publications":3}}}"#;
        let Object::Welcome(welcome) = read(welcome, Some("recovered")) else { panic!("no welcome") };
        assert_eq!((&*welcome.client, welcome.recovered), ("c", Some(true)));
        assert_eq!(welcome.channels["a"].publications, 3);
        assert!(matches!(
            read(r#"{"channels":{"b":{}}}"#, Some("subscribed")),
            Object::Subscribed { channel, .. } if channel == "b"
        ));
        assert!(matches!(read(r#"{"type":"later","channel":"x"}"#, None), Object::Other));
    }

    #[test]
    fn the_answer_to_a_poll_has_everything_at_once() {
        let text = r#"{"client":"c","session":"s","resumed":true,"recovered":true,"name":"p1","since":"a=1.abcdefgh,=2.kwmzqpfa","publications":[{"channel":"a","data":1,"offset":1,"id":"a=1.abcdefgh"},{"data":"x"}]}"#;
        let answer = Answer::read(&Bytes::from_static(text.as_bytes())).unwrap();
        assert_eq!((&*answer.since, &*answer.welcome.name), ("a=1.abcdefgh,=2.kwmzqpfa", "p1"));
        assert_eq!(answer.objects.len(), 2);
        assert!(Answer::read(&Bytes::from_static(b"[]x")).is_err());
    }
}
