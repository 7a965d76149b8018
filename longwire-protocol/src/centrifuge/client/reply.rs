//! What the server says, read: one pass over each line, payloads passed over and never parsed.
//!
//! A member that is null counts as absent, except data that is published; one that is unknown is passed over. Of several
//! results or kinds the last counts: no server of the protocol sends two.

use super::{
    ClientInfo, ConnectResult, DecodeError, History, MAX_ENTRIES, Publication, Push, Refusal, Reply, Said,
    SubscribeResult,
};
use crate::text::Text;
use bytes::{Buf, Bytes};
use serde::de::{self, Deserialize, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

/// Takes the next line from the front of `message`, which is advanced past it; `None` if only white space is left.
///
/// # Errors
///
/// If what comes next is not a line of the protocol. Nothing that follows can be trusted, so `message` is then empty.
pub fn decode_next(message: &mut Bytes) -> Option<Result<Said, DecodeError>> {
    loop {
        if message.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', message);
        let line = message.slice(..end.unwrap_or(message.len()));
        message.advance(end.map_or(message.len(), |end| end + 1));
        if line.trim_ascii().is_empty() {
            continue;
        }
        let said = decode_line(&line);
        if said.is_err() {
            message.clear();
        }
        return Some(said);
    }
}

/// Reads one line.
///
/// # Errors
///
/// If it is not JSON, or a field has a wrong type; `at` counts from the line's first byte.
pub fn decode_line(line: &Bytes) -> Result<Said, DecodeError> {
    // What servers say when there is nothing to say: no parser need see it.
    if line.as_ref() == b"{}" {
        return Ok(Said::Ping);
    }
    let text = simdutf8::compat::from_utf8(line)
        .map_err(|error| DecodeError { what: "line is not UTF-8".into(), at: error.valid_up_to() })?;
    let reader = Reader { line, field: Cell::new("line"), entries: Cell::new(0) };
    let mut parser = serde_json::Deserializer::from_str(text);
    let parsed = ObjectSeed::<Line>::new(&reader).deserialize(&mut parser);
    let parsed = parsed.and_then(|parsed| parser.end().map(|()| parsed));
    let parsed = parsed.map_err(|error| {
        let what = match error.classify() {
            _ if reader.entries.get() > MAX_ENTRIES => "line has too many entries".to_owned(),
            serde_json::error::Category::Data => format!("{} is not of its type", reader.field.get()),
            serde_json::error::Category::Eof => "line is cut off".to_owned(),
            _ => "line is not valid JSON".to_owned(),
        };
        // A line has no line feeds, so the column says all.
        DecodeError { what: what.into(), at: error.column().saturating_sub(1).min(line.len()) }
    })?;
    let Some(Line { id, push, reply }) = parsed else {
        return Err(DecodeError { what: "line is not an object".into(), at: 0 });
    };
    Ok(match (push, reply) {
        (Some(PushLine { channel, push }), _) => Said::Push { channel, push: push.unwrap_or(Push::Unknown) },
        (None, Some(reply)) => Said::Reply { id, reply },
        (None, None) if id != 0 => Said::Reply { id, reply: Reply::Unknown },
        (None, None) => Said::Ping,
    })
}

/// What the parts of a line share while it is read.
struct Reader<'a> {
    line: &'a Bytes,
    /// The field that was begun last, for errors.
    field: Cell<&'static str>,
    /// How many entries lists and maps have had so far.
    entries: Cell<usize>,
}

impl Reader<'_> {
    fn count_entry<E: de::Error>(&self) -> Result<(), E> {
        self.entries.set(self.entries.get() + 1);
        if self.entries.get() > MAX_ENTRIES { Err(E::custom("too many entries")) } else { Ok(()) }
    }
}

macro_rules! keys {
    ($($variant:ident $name:literal)+) => {
        /// Every name of a field that is read.
        #[derive(Clone, Copy)]
        enum Key { $($variant,)+ Unknown }

        impl Key {
            fn of(name: &str) -> Key {
                match name { $($name => Key::$variant,)+ _ => Key::Unknown }
            }

            fn name(self) -> &'static str {
                match self { $(Key::$variant => $name,)+ Key::Unknown => "a field" }
            }
        }
    };
}

keys! {
    Channel "channel" ChanInfo "chan_info" Client "client" Code "code" Connect "connect" ConnInfo "conn_info"
    Data "data" Delta "delta" Disconnect "disconnect" Epoch "epoch" Error "error" Expires "expires" History "history"
    Id "id" Info "info" Join "join" Leave "leave" Message "message" Node "node" NumClients "num_clients"
    NumUsers "num_users" Offset "offset" Ping "ping" Pong "pong" Positioned "positioned" Presence "presence"
    PresenceStats "presence_stats" Pub "pub" Publications "publications" Publish "publish" Push "push"
    Reason "reason" Recoverable "recoverable" Recovered "recovered" Refresh "refresh" Rpc "rpc" Session "session"
    SubRefresh "sub_refresh" Subs "subs" Subscribe "subscribe" Tags "tags" Temporary "temporary" Ttl "ttl"
    Unsubscribe "unsubscribe" User "user" Version "version" WasRecovering "was_recovering"
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, name: &str) -> Result<Key, E> {
                Ok(Key::of(name))
            }
        }
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

/// What is read from an object.
trait Object: Default {
    /// Takes the value of one member, whose key was read.
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        key: Key,
        from: &mut Values<'_, '_, M>,
    ) -> Result<(), M::Error>;
}

/// The value of a member that comes next, in each form in which it may be wanted; null gives nothing.
struct Values<'r, 'm, M> {
    reader: &'r Reader<'r>,
    map: &'m mut M,
}

impl<'de, M: MapAccess<'de>> Values<'_, '_, M> {
    fn skip(&mut self) -> Result<(), M::Error> {
        self.map.next_value::<IgnoredAny>().map(|_| ())
    }

    fn plain<T: Deserialize<'de> + Default>(&mut self) -> Result<T, M::Error> {
        self.map.next_value::<Option<T>>().map(Option::unwrap_or_default)
    }

    fn text(&mut self) -> Result<Text, M::Error> {
        self.map.next_value_seed(TextSeed(self.reader)).map(Option::unwrap_or_default)
    }

    /// The value as it stands, null included.
    fn payload(&mut self) -> Result<Bytes, M::Error> {
        let raw = self.map.next_value::<&'de RawValue>()?;
        Ok(self.reader.line.slice_ref(raw.get().as_bytes()))
    }

    fn object<T: Object>(&mut self) -> Result<Option<T>, M::Error> {
        self.map.next_value_seed(ObjectSeed::new(self.reader))
    }

    fn list<T: Object>(&mut self) -> Result<Vec<T>, M::Error> {
        self.map.next_value_seed(ListSeed(self.reader, PhantomData))
    }

    fn entries<T>(&mut self, value: impl EntryValue<T>) -> Result<Vec<(Text, T)>, M::Error> {
        self.map.next_value_seed(EntriesSeed(self.reader, value, PhantomData))
    }
}

/// A line.
#[derive(Default)]
struct Line {
    id: u32,
    push: Option<PushLine>,
    reply: Option<Reply>,
}

impl Object for Line {
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        key: Key,
        from: &mut Values<'_, '_, M>,
    ) -> Result<(), M::Error> {
        let reply = match key {
            Key::Push => {
                self.push = from.object()?;
                return Ok(());
            }
            Key::Id => {
                self.id = from.plain()?;
                return Ok(());
            }
            Key::Error => from.object().map(|error| error.map(Reply::Error)),
            Key::Connect => from.object::<ConnectFields>().map(|it| it.map(|it| Reply::Connect(it.finish()))),
            Key::Subscribe => {
                from.object::<SubscribeFields>().map(|it| it.map(|it| Reply::Subscribe(it.finish().into())))
            }
            Key::Unsubscribe => from.object::<Nothing>().map(|it| it.map(|Nothing| Reply::Unsubscribe)),
            Key::Publish => from.object::<Nothing>().map(|it| it.map(|Nothing| Reply::Publish)),
            Key::Presence => from.object::<Presence>().map(|it| it.map(|it| Reply::Presence(it.clients))),
            Key::PresenceStats => from.object::<Stats>().map(|it| {
                it.map(|it| Reply::PresenceStats { num_clients: it.num_clients, num_users: it.num_users })
            }),
            Key::History => from.object().map(|it| it.map(Reply::History)),
            Key::Rpc => from.object::<Data>().map(|it| it.map(|it| Reply::Rpc { data: it.data })),
            Key::Refresh => from
                .object::<Expiry>()
                .map(|it| it.map(|it| Reply::Refresh { ttl_seconds: it.ttl_seconds() })),
            Key::SubRefresh => from
                .object::<Expiry>()
                .map(|it| it.map(|it| Reply::SubRefresh { ttl_seconds: it.ttl_seconds() })),
            _ => return from.skip(),
        }?;
        if reply.is_some() {
            self.reply = reply;
        }
        Ok(())
    }
}

/// A push, and what it is about.
#[derive(Default)]
struct PushLine {
    channel: Text,
    push: Option<Push>,
}

impl Object for PushLine {
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        key: Key,
        from: &mut Values<'_, '_, M>,
    ) -> Result<(), M::Error> {
        let push = match key {
            Key::Pub => from.object().map(|it| it.map(Push::Publication)),
            Key::Channel => {
                self.channel = from.text()?;
                return Ok(());
            }
            Key::Join => from.object::<Movement>().map(|it| it.map(|it| Push::Join(it.info))),
            Key::Leave => from.object::<Movement>().map(|it| it.map(|it| Push::Leave(it.info))),
            Key::Unsubscribe => from
                .object::<Ending>()
                .map(|it| it.map(|Ending { code, reason }| Push::Unsubscribe { code, reason })),
            Key::Disconnect => from
                .object::<Ending>()
                .map(|it| it.map(|Ending { code, reason }| Push::Disconnect { code, reason })),
            Key::Message => from.object::<Data>().map(|it| it.map(|it| Push::Message { data: it.data })),
            Key::Subscribe => {
                from.object::<SubscribeFields>().map(|it| it.map(|it| Push::Subscribe(it.finish().into())))
            }
            Key::Connect => from.object::<ConnectFields>().map(|it| it.map(|it| Push::Connect(it.finish()))),
            Key::Refresh => {
                from.object::<Expiry>().map(|it| it.map(|it| Push::Refresh { ttl_seconds: it.ttl_seconds() }))
            }
            _ => return from.skip(),
        }?;
        if push.is_some() {
            self.push = push;
        }
        Ok(())
    }
}

impl Object for Publication {
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        key: Key,
        from: &mut Values<'_, '_, M>,
    ) -> Result<(), M::Error> {
        match key {
            Key::Data => self.data = from.payload()?,
            Key::Offset => self.offset = from.plain()?,
            Key::Info => self.info = from.object()?.map(Box::new),
            Key::Tags => self.tags = from.entries(TextValue)?,
            Key::Delta => self.delta = from.plain()?,
            _ => from.skip()?,
        }
        Ok(())
    }
}

impl Object for ClientInfo {
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        key: Key,
        from: &mut Values<'_, '_, M>,
    ) -> Result<(), M::Error> {
        match key {
            Key::User => self.user = from.text()?,
            Key::Client => self.client = from.text()?,
            Key::ConnInfo => self.conn_info = from.payload()?,
            Key::ChanInfo => self.chan_info = from.payload()?,
            _ => from.skip()?,
        }
        Ok(())
    }
}

impl Object for Refusal {
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        key: Key,
        from: &mut Values<'_, '_, M>,
    ) -> Result<(), M::Error> {
        match key {
            Key::Code => self.code = from.plain()?,
            Key::Message => self.message = from.text()?,
            Key::Temporary => self.temporary = from.plain()?,
            _ => from.skip()?,
        }
        Ok(())
    }
}

impl Object for History {
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        key: Key,
        from: &mut Values<'_, '_, M>,
    ) -> Result<(), M::Error> {
        match key {
            Key::Publications => self.publications = from.list()?,
            Key::Offset => self.offset = from.plain()?,
            Key::Epoch => self.epoch = from.text()?,
            _ => from.skip()?,
        }
        Ok(())
    }
}

/// The two fields that say when to refresh.
#[derive(Default)]
struct Expiry {
    expires: bool,
    ttl: u32,
}

impl Expiry {
    fn ttl_seconds(&self) -> Option<u32> {
        self.expires.then_some(self.ttl)
    }
}

impl Object for Expiry {
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        key: Key,
        from: &mut Values<'_, '_, M>,
    ) -> Result<(), M::Error> {
        match key {
            Key::Expires => self.expires = from.plain()?,
            Key::Ttl => self.ttl = from.plain()?,
            _ => from.skip()?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct ConnectFields {
    result: Box<ConnectResult>,
    expiry: Expiry,
}

impl ConnectFields {
    fn finish(mut self) -> Box<ConnectResult> {
        self.result.ttl_seconds = self.expiry.ttl_seconds();
        self.result
    }
}

impl Object for ConnectFields {
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        key: Key,
        from: &mut Values<'_, '_, M>,
    ) -> Result<(), M::Error> {
        let result = &mut self.result;
        match key {
            Key::Client => result.client = from.text()?,
            Key::Version => result.version = from.text()?,
            Key::Data => result.data = from.payload()?,
            Key::Subs => result.subs = from.entries(SubscribeValue)?,
            Key::Ping => result.ping_seconds = from.plain()?,
            Key::Pong => result.pong = from.plain()?,
            Key::Session => result.session = from.text()?,
            Key::Node => result.node = from.text()?,
            _ => self.expiry.member(key, from)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct SubscribeFields {
    result: SubscribeResult,
    expiry: Expiry,
}

impl SubscribeFields {
    fn finish(mut self) -> SubscribeResult {
        self.result.ttl_seconds = self.expiry.ttl_seconds();
        self.result
    }
}

impl Object for SubscribeFields {
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        key: Key,
        from: &mut Values<'_, '_, M>,
    ) -> Result<(), M::Error> {
        let result = &mut self.result;
        match key {
            Key::Recoverable => result.recoverable = from.plain()?,
            Key::Positioned => result.positioned = from.plain()?,
            Key::Offset => result.offset = from.plain()?,
            Key::Epoch => result.epoch = from.text()?,
            Key::WasRecovering => result.was_recovering = from.plain()?,
            Key::Recovered => result.recovered = from.plain()?,
            Key::Publications => result.publications = from.list()?,
            Key::Data => result.data = from.payload()?,
            Key::Delta => result.delta = from.plain()?,
            _ => self.expiry.member(key, from)?,
        }
        Ok(())
    }
}

/// An object whose only field is a payload.
#[derive(Default)]
struct Data {
    data: Bytes,
}

impl Object for Data {
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        key: Key,
        from: &mut Values<'_, '_, M>,
    ) -> Result<(), M::Error> {
        match key {
            Key::Data => self.data = from.payload()?,
            _ => from.skip()?,
        }
        Ok(())
    }
}

/// An object that says all by being there.
#[derive(Default)]
struct Nothing;

impl Object for Nothing {
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        _: Key,
        from: &mut Values<'_, '_, M>,
    ) -> Result<(), M::Error> {
        from.skip()
    }
}

/// Who came or went.
#[derive(Default)]
struct Movement {
    info: ClientInfo,
}

impl Object for Movement {
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        key: Key,
        from: &mut Values<'_, '_, M>,
    ) -> Result<(), M::Error> {
        match key {
            Key::Info => self.info = from.object()?.unwrap_or_default(),
            _ => from.skip()?,
        }
        Ok(())
    }
}

/// Why a subscription or the connection ends.
#[derive(Default)]
struct Ending {
    code: u32,
    reason: Text,
}

impl Object for Ending {
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        key: Key,
        from: &mut Values<'_, '_, M>,
    ) -> Result<(), M::Error> {
        match key {
            Key::Code => self.code = from.plain()?,
            Key::Reason => self.reason = from.text()?,
            _ => from.skip()?,
        }
        Ok(())
    }
}

/// Who is there.
#[derive(Default)]
struct Presence {
    clients: Vec<ClientInfo>,
}

impl Object for Presence {
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        key: Key,
        from: &mut Values<'_, '_, M>,
    ) -> Result<(), M::Error> {
        match key {
            // The keys are the clients' names once more.
            Key::Presence => {
                self.clients = from.entries(ClientValue)?.into_iter().map(|(_, info)| info).collect()
            }
            _ => from.skip()?,
        }
        Ok(())
    }
}

/// How many are there.
#[derive(Default)]
struct Stats {
    num_clients: u32,
    num_users: u32,
}

impl Object for Stats {
    fn member<'de, M: MapAccess<'de>>(
        &mut self,
        key: Key,
        from: &mut Values<'_, '_, M>,
    ) -> Result<(), M::Error> {
        match key {
            Key::NumClients => self.num_clients = from.plain()?,
            Key::NumUsers => self.num_users = from.plain()?,
            _ => from.skip()?,
        }
        Ok(())
    }
}

/// Reads an object; null gives nothing.
struct ObjectSeed<'r, T>(&'r Reader<'r>, PhantomData<T>);

impl<'r, T> ObjectSeed<'r, T> {
    fn new(reader: &'r Reader<'r>) -> ObjectSeed<'r, T> {
        ObjectSeed(reader, PhantomData)
    }
}

impl<'de, T: Object> DeserializeSeed<'de> for ObjectSeed<'_, T> {
    type Value = Option<T>;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Object> Visitor<'de> for ObjectSeed<'_, T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Option<T>, M::Error> {
        let mut object = T::default();
        while let Some(key) = map.next_key::<Key>()? {
            self.0.field.set(key.name());
            object.member(key, &mut Values { reader: self.0, map: &mut map })?;
        }
        Ok(Some(object))
    }
}

/// Reads a list of objects; null gives an empty one.
struct ListSeed<'r, T>(&'r Reader<'r>, PhantomData<T>);

impl<'de, T: Object> DeserializeSeed<'de> for ListSeed<'_, T> {
    type Value = Vec<T>;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Object> Visitor<'de> for ListSeed<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_unit<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Vec<T>, S::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element_seed(ObjectSeed::new(self.0))? {
            self.0.count_entry()?;
            entries.extend(entry);
        }
        Ok(entries)
    }
}

/// What stands behind the keys of a map whose keys are data.
trait EntryValue<T>: Copy {
    /// Reads one; null gives nothing.
    fn read<'de, M: MapAccess<'de>>(self, from: &mut Values<'_, '_, M>) -> Result<Option<T>, M::Error>;
}

#[derive(Clone, Copy)]
struct TextValue;

impl EntryValue<Text> for TextValue {
    fn read<'de, M: MapAccess<'de>>(self, from: &mut Values<'_, '_, M>) -> Result<Option<Text>, M::Error> {
        from.text().map(Some)
    }
}

#[derive(Clone, Copy)]
struct ClientValue;

impl EntryValue<ClientInfo> for ClientValue {
    fn read<'de, M: MapAccess<'de>>(
        self,
        from: &mut Values<'_, '_, M>,
    ) -> Result<Option<ClientInfo>, M::Error> {
        from.object()
    }
}

#[derive(Clone, Copy)]
struct SubscribeValue;

impl EntryValue<SubscribeResult> for SubscribeValue {
    fn read<'de, M: MapAccess<'de>>(
        self,
        from: &mut Values<'_, '_, M>,
    ) -> Result<Option<SubscribeResult>, M::Error> {
        Ok(from.object::<SubscribeFields>()?.map(SubscribeFields::finish))
    }
}

/// Reads a map whose keys are data; null gives an empty one.
struct EntriesSeed<'r, V, T>(&'r Reader<'r>, V, PhantomData<T>);

impl<'de, T, V: EntryValue<T>> DeserializeSeed<'de> for EntriesSeed<'_, V, T> {
    type Value = Vec<(Text, T)>;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T, V: EntryValue<T>> Visitor<'de> for EntriesSeed<'_, V, T> {
    type Value = Vec<(Text, T)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(TextSeed(self.0))? {
            self.0.count_entry()?;
            if let Some(value) = self.1.read(&mut Values { reader: self.0, map: &mut map })? {
                entries.push((key.unwrap_or_default(), value));
            }
        }
        Ok(entries)
    }
}

/// Reads a string; null gives nothing. One without escapes is a part of the line.
struct TextSeed<'r>(&'r Reader<'r>);

impl<'de> DeserializeSeed<'de> for TextSeed<'_> {
    type Value = Option<Text>;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Option<Text>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TextSeed<'_> {
    type Value = Option<Text>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_unit<E>(self) -> Result<Option<Text>, E> {
        Ok(None)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Option<Text>, E> {
        Ok(Some(Text::slice_of(self.0.line, text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<Text>, E> {
        Ok(Some(text.into()))
    }
}
