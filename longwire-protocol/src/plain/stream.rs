//! An SSE response from its request to its end: which commands the request amounts to, when the head is
//! written, and what the first events say.
//!
//! The request's commands (connect, then one subscribe a channel) are answered one by one; the head waits
//! for the last answer, so that a refusal is an HTTP status and not a stream that dies. What must stay
//! true: the id of every event names the position up to which everything before it was written, so that a
//! break at any byte is recovered from.

use super::event_stream::{self, ChannelState};
use super::position_token;
use crate::close::{Advice, Close};
use crate::command::{Command, Connect, Numbered, Subscribe};
use crate::connection::{Answer, refusal};
use crate::message::{ClientId, Publication, Push, Reply, ReplyError, SubscribeResult};
use crate::position::Position;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// One SSE response.
#[derive(Debug)]
pub(crate) struct EventStream {
    /// Present until the head is written.
    opening: Option<Box<Opening>>,
    has_one_channel: bool,
    /// The server added a channel, before or after the head.
    has_gained: bool,
}

#[derive(Debug)]
struct Opening {
    commands: VecDeque<Numbered>,
    head: String,
    retry_milliseconds: u64,
    client: Option<ClientId>,
    asked: Vec<Asked>,
    answered: Vec<SubscribeResult>,
}

#[derive(Debug)]
struct Asked {
    channel: String,
    was_recovering: bool,
}

impl EventStream {
    pub(crate) fn new(
        connect: Connect,
        subscribes: Vec<Subscribe>,
        head: String,
        retry_milliseconds: u64,
    ) -> EventStream {
        let asked: Vec<Asked> = subscribes
            .iter()
            .map(|s| Asked { channel: s.channel.clone(), was_recovering: s.recover.is_some() })
            .collect();
        let mut commands = VecDeque::from([Command::Connect(Box::new(connect))]);
        commands.extend(subscribes.into_iter().map(|subscribe| Command::Subscribe(Box::new(subscribe))));
        let commands = commands.into_iter().zip(1..).map(|(command, id)| Numbered { id, command }).collect();
        EventStream {
            has_one_channel: asked.len() == 1,
            has_gained: false,
            opening: Some(Box::new(Opening {
                commands,
                head,
                retry_milliseconds,
                client: None,
                asked,
                answered: Vec::new(),
            })),
        }
    }

    pub(crate) fn has_one_channel(&self) -> bool {
        self.has_one_channel && !self.has_gained
    }

    /// Notes that the server added a channel: from then on each event names the position in all of them.
    pub(crate) fn gain_channel(&mut self) {
        self.has_gained = true;
    }

    /// Whether the head was written.
    pub(crate) fn is_open(&self) -> bool {
        self.opening.is_none()
    }

    pub(crate) fn next_command(&mut self) -> Option<Numbered> {
        self.opening.as_mut()?.commands.pop_front()
    }

    pub(crate) fn reply(&mut self, _id: u32, reply: &Reply) -> Answer {
        let silent = Answer { bytes: Bytes::new(), close: None, detail: String::new() };
        let Some(opening) = &mut self.opening else { return silent };
        match reply {
            Reply::Error(error) => {
                let reason = refusal(error);
                let channel = opening.asked.get(opening.answered.len()).filter(|_| opening.client.is_some());
                let channel =
                    channel.map_or(String::new(), |asked| format!("channel \"{}\": ", asked.channel));
                return Answer {
                    bytes: refusal_response(reason.http_status(), error),
                    close: Some(reason),
                    detail: format!("{channel}{} ({})", error.message, error.code),
                };
            }
            Reply::Connect(result) => {
                opening.client = Some(result.client);
                // Channels that the token brings are served like those that were asked for, and first; one
                // that was asked for too need not be subscribed again.
                for (channel, _) in &result.subs {
                    opening.asked.retain(|asked| asked.channel != *channel);
                    opening.commands.retain(
                        |numbered| !matches!(&numbered.command, Command::Subscribe(s) if s.channel == *channel),
                    );
                }
                let brought = result.subs.iter().map(|(channel, result)| Asked {
                    channel: channel.clone(),
                    was_recovering: result.was_recovering,
                });
                opening.asked.splice(0..0, brought);
                opening.answered.extend(result.subs.iter().map(|(_, result)| result.clone()));
                self.has_one_channel = opening.asked.len() == 1;
            }
            Reply::Subscribe(result) => opening.answered.push((**result).clone()),
            _ => return silent,
        }
        match self.opening.take_if(|opening| opening.is_answered()) {
            Some(opening) => Answer { bytes: opening.first_bytes(), close: None, detail: String::new() },
            None => silent,
        }
    }

    pub(crate) fn farewell(&self, close: &Close) -> Bytes {
        if self.is_open() {
            let mut event = Vec::new();
            event_stream::encode_disconnect(close, &mut event);
            return event.into();
        }
        let error = ReplyError {
            code: close.code.into(),
            message: close.text.clone(),
            temporary: close.advice() != Advice::Stop,
        };
        refusal_response(close.reason.http_status(), &error)
    }
}

impl Opening {
    fn is_answered(&self) -> bool {
        self.client.is_some() && self.answered.len() == self.asked.len()
    }

    /// Head, advice, what was recovered, and the recovered publications.
    fn first_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(b"\r\n");
        event_stream::encode_retry(self.retry_milliseconds, &mut out);
        let channels: Vec<ChannelState<'_>> = self
            .asked
            .iter()
            .zip(&self.answered)
            .map(|(asked, result)| ChannelState {
                channel: &asked.channel,
                recovered: asked.was_recovering.then_some(result.recovered),
                publications: result.publications.len(),
                position: result.position.map(|position| before(position, &result.publications)),
            })
            .collect();
        // A recovered channel's position is the asked-for one: it advances with each event that follows.
        let mut positions: Vec<(&str, Option<Position>)> =
            channels.iter().map(|state| (state.channel, state.position)).collect();
        let client = self.client.expect("the first bytes are made after the connect was answered");
        event_stream::encode_subscribed(&client, &channels, &token(&positions), &mut out);
        for (index, result) in self.answered.iter().enumerate() {
            for publication in &result.publications {
                if let Some(position) = &mut positions[index].1 {
                    position.offset = publication.offset;
                }
                event_stream::write_id(&token(&positions), &mut out);
                let push = Push::Publication(publication.clone());
                event_stream::encode_push(positions[index].0, &push, &mut out);
            }
        }
        out.into()
    }
}

/// Where the reader of a subscription stands before its first publication, which may be the newest alone: an id
/// must not name what was not sent, or a break right behind it would lose that.
fn before(position: Position, publications: &[Arc<Publication>]) -> Position {
    let first = publications.first().map(|publication| publication.offset.saturating_sub(1));
    Position { offset: first.map_or(position.offset, |offset| offset.min(position.offset)), ..position }
}

fn token(positions: &[(&str, Option<Position>)]) -> Vec<u8> {
    let mut token = Vec::new();
    for (channel, position) in positions {
        if let Some(position) = position {
            position_token::write_position(channel, position, &mut token);
        }
    }
    token
}

/// An HTTP response that refuses the stream, with the error as JSON.
fn refusal_response(status: u16, error: &ReplyError) -> Bytes {
    let message = serde_json::Value::from(error.message.as_ref());
    let body = format!("{{\"error\":{{\"code\":{},\"message\":{message}}}}}\n", error.code);
    format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
        crate::http::reason_phrase(status),
        body.len(),
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ClientId, ConnectResult, SubscribeResult};
    use crate::position::{Epoch, Since};

    #[test]
    fn the_first_id_does_not_name_the_newest_publication_before_it_is_sent() {
        let at = |offset| Position { offset, epoch: Epoch::parse("abcdefgh") };
        let since = Since { offset: 3, epoch: Some(at(3).epoch) };
        let ask = Subscribe { channel: "a".into(), recover: Some(since), ..Subscribe::default() };
        let mut stream = EventStream::new(Connect::default(), vec![ask], "head".into(), 1);
        let connected = ConnectResult {
            client: ClientId(1),
            version: "",
            ttl_seconds: None,
            data: Bytes::new(),
            subs: Vec::new(),
            ping_seconds: 0,
            pong: false,
            session: String::new(),
            node: String::new(),
        };
        stream.reply(1, &Reply::Connect(Box::new(connected)));
        let newest = Publication {
            offset: 7,
            data: "1".into(),
            info: None,
            tags: Vec::new(),
            except: None,
            is_json: true,
        };
        let result = SubscribeResult {
            recoverable: true,
            was_recovering: true,
            recovered: true,
            position: Some(at(7)),
            publications: vec![Arc::new(newest)],
            ..SubscribeResult::default()
        };
        let answer = stream.reply(2, &Reply::Subscribe(Box::new(result)));
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        let ids: Vec<&str> = text.lines().filter(|line| line.starts_with("id: ")).collect();
        assert_eq!(ids, ["id: a=6.abcdefgh", "id: a=7.abcdefgh"]);
    }
}
