//! What the server says: replies and pushes, each as one message behind its length.
//!
//! A message stands behind its length, so whatever writes one runs twice: once to count and once to write.
//! Nothing is copied but into the connection's bytes.

use crate::fossil;
use crate::message::{ClientId, ClientInfo, ConnectResult, Publication, Push, Reply, SubscribeResult};
use crate::position::Position;
use std::sync::Arc;

/// Appends the reply to the command `id`.
pub fn encode_reply(id: u32, reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Error(error) => write_reply(id, 2, out, |out| {
            out.number(1, error.code.into());
            out.text(2, &error.message);
            out.flag(3, error.temporary);
        }),
        Reply::Connect(result) => {
            let subs = prepared_subs(result);
            write_reply(id, 5, out, |out| {
                out.client(1, result.client);
                out.text(2, result.version);
                out.expiry(3, result.ttl_seconds);
                out.bytes(5, &result.data);
                out.subs(6, &subs);
                out.number(7, result.ping_seconds.into());
                out.flag(8, result.pong);
                out.text(9, &result.session);
                out.text(10, &result.node);
            });
        }
        Reply::Subscribe(result) => {
            let publications = recovered(result);
            write_reply(id, 6, out, |out| out.subscribe_result(result, &publications));
        }
        Reply::Unsubscribe => write_reply(id, 7, out, |_| ()),
        Reply::Publish => write_reply(id, 8, out, |_| ()),
        Reply::Presence(clients) => write_reply(id, 9, out, |out| {
            for info in clients {
                out.message(1, |out| {
                    out.client(1, info.client);
                    out.message(2, |out| out.client_info(info));
                });
            }
        }),
        Reply::PresenceStats { num_clients, num_users } => write_reply(id, 10, out, |out| {
            out.number(1, (*num_clients).into());
            out.number(2, (*num_users).into());
        }),
        Reply::History { publications, top } => write_reply(id, 11, out, |out| {
            for publication in publications {
                out.message(1, |out| out.publication(publication, None));
            }
            out.text(2, top.epoch.as_str());
            out.number(3, top.offset);
        }),
        Reply::Rpc { data } => write_reply(id, 13, out, |out| out.bytes(1, data)),
        Reply::Refresh { client, version, ttl_seconds } => write_reply(id, 14, out, |out| {
            out.client(1, *client);
            out.text(2, version);
            out.expiry(3, *ttl_seconds);
        }),
        // Only STOMP has queues.
        Reply::Queue(_) | Reply::Disconnect => {}
        Reply::SubRefresh { ttl_seconds } => write_reply(id, 15, out, |out| out.expiry(1, *ttl_seconds)),
    }
}

/// Appends a push about `channel`; one about the whole connection has an empty channel.
pub fn encode_push(channel: &str, push: &Push, out: &mut Vec<u8>) {
    write_push(push, |member, body| {
        delimited(out, |out| out.message(4, |out| out.push(channel, member, body)));
    });
}

/// Appends what [`encode_push`] writes without what is around it: all that transports without a way back send.
pub fn encode_bare_push(channel: &str, push: &Push, out: &mut Vec<u8>) {
    write_push(push, |member, body| delimited(out, |out| out.push(channel, member, body)));
}

/// What writes the fields of a message.
type Body<'a> = &'a dyn Fn(&mut Writer<'_>);

/// Calls `write` with the number of a push's member and with what writes the member's fields.
fn write_push(push: &Push, write: impl FnOnce(u32, Body<'_>)) {
    match push {
        Push::Publication(publication) => write(4, &|out| out.publication(publication, None)),
        Push::Delta { publication, base } => {
            let delta = fossil::shorter(base.as_deref(), &publication.data);
            write(4, &|out| out.publication(publication, delta.as_deref()));
        }
        Push::Join(info) => write(5, &|out| out.message(1, |out| out.client_info(info))),
        Push::Leave(info) => write(6, &|out| out.message(1, |out| out.client_info(info))),
        Push::Unsubscribe { code, reason } => write(7, &|out| {
            out.number(2, (*code).into());
            out.text(3, reason);
        }),
        Push::Subscribe(result) => write(9, &|out| {
            out.flag(1, result.recoverable);
            out.position(4, 5, result.position);
            out.flag(6, result.positioned);
            out.bytes(7, &result.data);
        }),
        Push::Message { data, .. } => write(8, &|out| out.bytes(1, data)),
        Push::Connect(result) => {
            let subs = prepared_subs(result);
            write(10, &|out| {
                out.client(1, result.client);
                out.text(2, result.version);
                out.bytes(3, &result.data);
                out.subs(4, &subs);
                out.expiry(5, result.ttl_seconds);
                out.number(7, result.ping_seconds.into());
                out.flag(8, result.pong);
                out.text(9, &result.session);
                out.text(10, &result.node);
            });
        }
        // Only STOMP has queues.
        Push::Queue(_) => {}
        Push::Disconnect(close) => write(11, &|out| {
            out.number(1, close.code.into());
            out.text(2, &close.text);
        }),
        Push::Refresh { ttl_seconds } => write(12, &|out| out.expiry(1, *ttl_seconds)),
    }
}

/// A publication, and its delta where that is what is sent.
type Form<'a> = (&'a Arc<Publication>, Option<Vec<u8>>);

/// What was missed, in the form in which the subscriber gets it. Made once, since a message is written twice.
fn recovered(result: &SubscribeResult) -> Vec<Form<'_>> {
    // Some clients deliver `publications` without looking at `recovered`: a partial recovery would be taken for
    // a whole one.
    match (result.recovered, result.delta) {
        (false, _) => Vec::new(),
        (true, false) => result.publications.iter().map(|publication| (publication, None)).collect(),
        (true, true) => {
            let series = fossil::series(&result.publications, |publication| publication.data.clone());
            series.map(|(publication, _, delta)| (publication, delta)).collect()
        }
    }
}

/// A server-side subscription: channel, result, what was missed.
type PreparedSub<'a> = (&'a str, &'a SubscribeResult, Vec<Form<'a>>);

fn prepared_subs(result: &ConnectResult) -> Vec<PreparedSub<'_>> {
    result.subs.iter().map(|(channel, result)| (channel.as_str(), result, recovered(result))).collect()
}

fn write_reply(id: u32, member: u32, out: &mut Vec<u8>, body: impl Fn(&mut Writer<'_>)) {
    delimited(out, |out| {
        out.number(1, id.into());
        out.message(member, &body);
    });
}

/// Appends a message behind its length.
fn delimited(out: &mut Vec<u8>, body: impl Fn(&mut Writer<'_>)) {
    let len = length(&body);
    out.reserve(len + MAX_VARINT);
    let mut writer = Writer { out: Some(out), len: 0 };
    writer.varint(len as u64);
    body(&mut writer);
    debug_assert_eq!(writer.len, len + varint_length(len as u64), "counted and written differ");
}

fn length(body: impl Fn(&mut Writer<'_>)) -> usize {
    let mut counter = Writer { out: None, len: 0 };
    body(&mut counter);
    counter.len
}

/// Bytes of the longest number.
const MAX_VARINT: usize = 10;

fn varint_length(number: u64) -> usize {
    (u64::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
}

/// Writes fields, or counts their bytes. A field whose value is zero or empty is left out, except a message.
struct Writer<'a> {
    /// `None` to count.
    out: Option<&'a mut Vec<u8>>,
    len: usize,
}

impl Writer<'_> {
    fn raw(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        if let Some(out) = &mut self.out {
            out.extend_from_slice(bytes);
        }
    }

    fn varint(&mut self, mut number: u64) {
        let len = varint_length(number);
        let mut bytes = [0; MAX_VARINT];
        for byte in &mut bytes[..len] {
            *byte = number as u8 | 0x80;
            number >>= 7;
        }
        bytes[len - 1] &= 0x7f;
        self.raw(&bytes[..len]);
    }

    fn number(&mut self, field: u32, number: u64) {
        if number != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(number);
        }
    }

    fn flag(&mut self, field: u32, flag: bool) {
        self.number(field, flag.into());
    }

    fn header(&mut self, field: u32, len: usize) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(len as u64);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.header(field, bytes.len());
            self.raw(bytes);
        }
    }

    fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u32, body: impl Fn(&mut Writer<'_>)) {
        let len = length(&body);
        self.header(field, len);
        match self.out {
            Some(_) => body(self),
            None => self.len += len,
        }
    }

    fn push(&mut self, channel: &str, member: u32, body: Body<'_>) {
        self.text(2, channel);
        self.message(member, body);
    }

    fn client(&mut self, field: u32, client: ClientId) {
        /// Characters of a UUID (RFC 9562 section 4).
        const LEN: usize = 36;
        match self.out {
            Some(_) => self.text(field, &client.to_string()),
            None => {
                self.header(field, LEN);
                self.len += LEN;
            }
        }
    }

    fn client_info(&mut self, info: &ClientInfo) {
        self.text(1, &info.user);
        self.client(2, info.client);
        self.bytes(3, &info.conn_info);
        self.bytes(4, &info.chan_info);
    }

    fn publication(&mut self, publication: &Publication, delta: Option<&[u8]>) {
        self.bytes(4, delta.unwrap_or(&publication.data));
        if let Some(info) = &publication.info {
            self.message(5, |out| out.client_info(info));
        }
        self.number(6, publication.offset);
        for (key, value) in &publication.tags {
            self.message(7, |out| {
                out.text(1, key);
                out.text(2, value);
            });
        }
        self.flag(8, delta.is_some());
    }

    fn subs(&mut self, field: u32, subs: &[PreparedSub<'_>]) {
        for (channel, result, publications) in subs {
            self.message(field, |out| {
                out.text(1, channel);
                out.message(2, |out| out.subscribe_result(result, publications));
            });
        }
    }

    fn subscribe_result(&mut self, result: &SubscribeResult, publications: &[Form<'_>]) {
        self.expiry(1, result.ttl_seconds);
        self.flag(3, result.recoverable);
        self.position(6, 9, result.position);
        for (publication, delta) in publications {
            self.message(7, |out| out.publication(publication, delta.as_deref()));
        }
        self.flag(8, result.recovered);
        self.flag(10, result.positioned);
        self.bytes(11, &result.data);
        self.flag(12, result.was_recovering);
        self.flag(13, result.delta);
    }

    fn position(&mut self, epoch_field: u32, offset_field: u32, position: Option<Position>) {
        if let Some(position) = position {
            self.text(epoch_field, position.epoch.as_str());
            self.number(offset_field, position.offset);
        }
    }

    /// Writes `expires` as `field` and `ttl` as the one after it.
    fn expiry(&mut self, field: u32, ttl_seconds: Option<u32>) {
        if let Some(seconds) = ttl_seconds {
            self.flag(field, true);
            self.number(field + 1, seconds.into());
        }
    }
}
