//! What the journal of histories holds, as bytes.
//!
//! All numbers are little-endian; a text or other bytes have their length before them, in 2 bytes, data in 4. Times
//! are in milliseconds since 1970.
//!
//! ```text
//! channel       name | epoch 8 | top 8 | first 8 | forgotten at 8 | has version 1 [ number 8 | epoch ]
//! publication   channel | offset 8 | expires at 8 | flags 1
//!               | [ user | client 16 | connection info | channel info ]      flag 2: somebody published it
//!               | [ client 16 ] [ user ]                                     flags 4, 8: who is left out
//!               | tags 2 | as many: key | value | data                       flag 1: the data is JSON
//! gone          name
//! opened        time 8 | is fresh 1 | epoch 8
//! stopped       time 8 | when the mark was made 8
//! ```
//!
//! Each record of a channel says how the channel stood, so that none needs the ones before it. What must stay true:
//! what cannot be read is refused as a whole, whatever its bytes are.

use super::super::channels::Note;
use super::Wall;
use crate::history::{State, Version};
use bytes::Bytes;
use longwire_protocol::message::{ClientId, ClientInfo, Except};
use longwire_protocol::{Epoch, Publication};
use std::sync::Arc;

pub(super) const CHANNEL: u8 = 1;
pub(super) const PUBLICATION: u8 = 2;
pub(super) const GONE: u8 = 3;
pub(super) const OPENED: u8 = 4;
pub(super) const STOPPED: u8 = 5;

const IS_JSON: u8 = 1;
const HAS_INFO: u8 = 2;
const EXCEPT_CLIENT: u8 = 4;
const EXCEPT_USER: u8 = 8;

/// A record that was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    /// How a channel stands, and what was published into it, with the time at which that expires.
    Channel(Arc<str>, Standing, Option<(i64, Publication)>),
    /// A channel whose history is not to be on the disk any more.
    Gone(Arc<str>),
    /// A process began; with a fresh epoch if what came before is not to be recovered from.
    Opened { time_ms: i64, fresh: Option<Epoch> },
    /// A process ended, and everything is there.
    Stopped { time_ms: i64, mark_born: u64 },
}

/// How a channel stands; [`State`] by the wall's clock.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Standing {
    pub(super) epoch: Epoch,
    pub(super) top: u64,
    pub(super) first: u64,
    pub(super) forgotten_ms: i64,
    pub(super) version: Option<Box<Version>>,
}

/// Writes a note; returns its kind.
pub(super) fn write_note(note: &Note, wall: &Wall, out: &mut Vec<u8>) -> u8 {
    let State { epoch, top, first, forgotten_at, version } = &note.state;
    out.clear();
    put_text(out, &note.channel);
    put_epoch(out, *epoch);
    for number in [*top, *first, wall.millis(*forgotten_at) as u64] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.push(u8::from(version.is_some()));
    if let Some(version) = version {
        out.extend_from_slice(&version.number.to_le_bytes());
        put_text(out, &version.epoch);
    }
    let Some((expiry, publication)) = &note.publication else { return CHANNEL };
    let Publication { offset, data, info, tags, except, is_json } = &**publication;
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&wall.millis(*expiry).to_le_bytes());
    let (client, user) = match except.as_deref() {
        Some(Except { client, user }) => (*client, user.as_deref()),
        None => (None, None),
    };
    let flags = [(*is_json, IS_JSON), (info.is_some(), HAS_INFO)];
    let flags = flags.into_iter().chain([(client.is_some(), EXCEPT_CLIENT), (user.is_some(), EXCEPT_USER)]);
    out.push(flags.filter(|(is_on, _)| *is_on).map(|(_, flag)| flag).sum());
    if let Some(info) = info.as_deref() {
        put_text(out, &info.user);
        out.extend_from_slice(&info.client.0.to_le_bytes());
        put_data(out, &info.conn_info);
        put_data(out, &info.chan_info);
    }
    if let Some(client) = client {
        out.extend_from_slice(&client.0.to_le_bytes());
    }
    if let Some(user) = user {
        put_text(out, user);
    }
    out.extend_from_slice(&(tags.len() as u16).to_le_bytes());
    for (key, value) in tags {
        put_text(out, key);
        put_text(out, value);
    }
    put_data(out, data);
    PUBLICATION
}

pub(super) fn write_gone(channel: &str, out: &mut Vec<u8>) -> u8 {
    out.clear();
    put_text(out, channel);
    GONE
}

pub(super) fn write_opened(time_ms: i64, fresh: Option<Epoch>, out: &mut Vec<u8>) -> u8 {
    out.clear();
    out.extend_from_slice(&time_ms.to_le_bytes());
    out.push(u8::from(fresh.is_some()));
    put_epoch(out, fresh.unwrap_or(Epoch::FOREIGN));
    OPENED
}

pub(super) fn write_stopped(time_ms: i64, mark_born: u64, out: &mut Vec<u8>) -> u8 {
    out.clear();
    out.extend_from_slice(&time_ms.to_le_bytes());
    out.extend_from_slice(&mark_born.to_le_bytes());
    STOPPED
}

/// Lengths are those of channels, users, tags and versions, which other limits keep far below this one; what is longer
/// all the same is cut where nothing else is harmed.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let cut = (0..=usize::from(length)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    out.extend_from_slice(&(cut as u16).to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..cut]);
}

fn put_data(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    out.extend_from_slice(data);
}

fn put_epoch(out: &mut Vec<u8>, epoch: Epoch) {
    let mut bytes = [0; 8];
    // The foreign epoch's text is shorter.
    let text = epoch.as_str().as_bytes();
    bytes[..text.len()].copy_from_slice(text);
    out.extend_from_slice(&bytes);
}

/// Reads a record; `None` if it is none of this version's.
pub(super) fn read(kind: u8, payload: &[u8]) -> Option<Record> {
    let mut rest = Reader(payload);
    let record = match kind {
        CHANNEL | PUBLICATION => {
            let channel = rest.text()?.into();
            let standing = rest.standing()?;
            let publication = if kind == PUBLICATION { Some(rest.publication()?) } else { None };
            Record::Channel(channel, standing, publication)
        }
        GONE => Record::Gone(rest.text()?.into()),
        OPENED => {
            let (time_ms, is_fresh, epoch) = (rest.millis()?, rest.byte()? != 0, rest.epoch()?);
            Record::Opened { time_ms, fresh: is_fresh.then_some(epoch) }
        }
        STOPPED => Record::Stopped { time_ms: rest.millis()?, mark_born: rest.number()? },
        _ => return None,
    };
    rest.0.is_empty().then_some(record)
}

/// The channel of a record, and the number of its publication if it has one; `None` if it is of no channel.
pub(super) fn key(kind: u8, payload: &[u8]) -> Option<(&str, Option<u64>)> {
    let mut rest = Reader(payload);
    match kind {
        CHANNEL => Some((rest.text()?, None)),
        PUBLICATION => {
            let channel = rest.text()?;
            rest.standing()?;
            Some((channel, Some(rest.number()?)))
        }
        _ => None,
    }
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn millis(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = u16::from_le_bytes(self.array()?);
        std::str::from_utf8(self.bytes(length.into())?).ok()
    }

    fn data(&mut self) -> Option<Bytes> {
        let length = u32::from_le_bytes(self.array()?);
        self.bytes(length as usize).map(Bytes::copy_from_slice)
    }

    fn client(&mut self) -> Option<ClientId> {
        self.array().map(|bytes| ClientId(u128::from_le_bytes(bytes)))
    }

    fn epoch(&mut self) -> Option<Epoch> {
        let bytes: [u8; 8] = self.array()?;
        Some(Epoch::parse(std::str::from_utf8(&bytes).unwrap_or("")))
    }

    fn standing(&mut self) -> Option<Standing> {
        let (epoch, top, first) = (self.epoch()?, self.number()?, self.number()?);
        let forgotten_ms = self.millis()?;
        let version = match self.byte()? {
            0 => None,
            _ => Some(Box::new(Version { number: self.number()?, epoch: self.text()?.into() })),
        };
        Some(Standing { epoch, top, first, forgotten_ms, version })
    }

    fn publication(&mut self) -> Option<(i64, Publication)> {
        let (offset, expires_ms, flags) = (self.number()?, self.millis()?, self.byte()?);
        let mut info = None;
        if flags & HAS_INFO != 0 {
            let (user, client) = (self.text()?.into(), self.client()?);
            let (conn_info, chan_info) = (self.data()?, self.data()?);
            info = Some(Arc::new(ClientInfo { user, client, conn_info, chan_info }));
        }
        let mut except = Except::default();
        if flags & EXCEPT_CLIENT != 0 {
            except.client = Some(self.client()?);
        }
        if flags & EXCEPT_USER != 0 {
            except.user = Some(self.text()?.into());
        }
        let except = Some(except).filter(|except| *except != Except::default()).map(Box::new);
        let mut tags = Vec::new();
        for _ in 0..u16::from_le_bytes(self.array()?) {
            tags.push((self.text()?.to_owned(), self.text()?.to_owned()));
        }
        let data = self.data()?;
        let is_json = flags & IS_JSON != 0;
        Some((expires_ms, Publication { offset, data, info, tags, except, is_json }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    fn notes() -> impl Strategy<Value = (Note, u64, u64)> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let client = || any::<u128>().prop_map(ClientId);
        let info = (".{0,8}", client(), bytes(), bytes()).prop_map(|(user, client, conn_info, chan_info)| {
            Arc::new(ClientInfo { user: user.into(), client, conn_info, chan_info })
        });
        let except = (prop::option::of(client()), prop::option::of(".{0,8}")).prop_map(|(client, user)| {
            let except = Except { client, user: user.map(Into::into) };
            Some(except).filter(|except| *except != Except::default()).map(Box::new)
        });
        let tags = prop::collection::vec((".{0,8}", ".{0,8}"), 0..4);
        let publication = (1..u64::MAX, bytes(), prop::option::of(info), tags, except, any::<bool>());
        let publication = publication.prop_map(|(offset, data, info, tags, except, is_json)| {
            Arc::new(Publication { offset, data, info, tags, except, is_json })
        });
        let version = (any::<u64>(), ".{0,8}")
            .prop_map(|(number, epoch)| Box::new(Version { number, epoch: epoch.into() }));
        let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), 0..1_000_000u64, 0..1_000_000u64);
        (".{0,12}", numbers, prop::option::of(version), prop::option::of(publication)).prop_map(
            |(channel, (epoch, top, first, forgotten, expiry), version, publication)| {
                let now = Instant::now();
                let epoch = Epoch::from_random(epoch);
                let forgotten_at = now + Duration::from_millis(forgotten);
                let expiry_at = now + Duration::from_millis(expiry);
                let state = State { epoch, top, first, forgotten_at, version };
                let publication = publication.map(|publication| (expiry_at, publication));
                (Note { channel: channel.into(), state, publication }, forgotten, expiry)
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again((note, forgotten, expiry) in notes(), cut in any::<prop::sample::Index>()) {
            let now = note.state.forgotten_at - Duration::from_millis(forgotten);
            let wall = Wall { now, unix_ms: 5_000 };
            let mut payload = vec![1, 2, 3];
            let kind = write_note(&note, &wall, &mut payload);
            let offset = note.publication.as_ref().map(|(_, publication)| publication.offset);
            prop_assert_eq!(key(kind, &payload), Some((&*note.channel, offset)));
            let State { epoch, top, first, version, .. } = note.state;
            let forgotten_ms = 5_000 + forgotten as i64;
            let standing = Standing { epoch, top, first, forgotten_ms, version };
            let publication = note.publication.map(|(_, it)| (5_000 + expiry as i64, (*it).clone()));
            let expected = Record::Channel(note.channel, standing, publication);
            prop_assert_eq!(read(kind, &payload), Some(expected));
            prop_assert_eq!(read(kind, &payload[..cut.index(payload.len())]), None, "half a record is none");
            payload.push(0);
            prop_assert_eq!(read(kind, &payload), None, "nor is one and a half");
        }

        #[test]
        fn no_bytes_make_it_fall_over(kind in 0..7u8, payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let record = read(kind, &payload);
            prop_assert!(record.is_none() || (CHANNEL..=STOPPED).contains(&kind));
            key(kind, &payload);
        }
    }

    #[test]
    fn marks_are_read_again() {
        let mut payload = Vec::new();
        let fresh = Some(Epoch::parse("abcdefgh"));
        for fresh in [fresh, None] {
            let kind = write_opened(7, fresh, &mut payload);
            assert_eq!(read(kind, &payload), Some(Record::Opened { time_ms: 7, fresh }));
        }
        let kind = write_stopped(8, 9, &mut payload);
        assert_eq!(read(kind, &payload), Some(Record::Stopped { time_ms: 8, mark_born: 9 }));
        let kind = write_gone("news", &mut payload);
        assert_eq!(read(kind, &payload), Some(Record::Gone("news".into())));
    }

    #[test]
    fn a_text_that_is_too_long_harms_nothing_else() {
        let mut out = Vec::new();
        put_text(&mut out, &"é".repeat(40_000));
        assert_eq!(Reader(&out).text().map(str::len), Some(65_534));
    }
}
