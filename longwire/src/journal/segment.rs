//! One file of a journal: its bytes, and what is found in a file that a crash or a bad disk left behind.
//!
//! All numbers are little-endian. The name is `FIRST-SALT.journal`: 20 digits and 8 hex digits. It repeats what
//! the file's header says, so that a damaged header costs no record.
//!
//! ```text
//! header   magic 8 | version 4 | first 8 | salt 4 | last sequence of the first group 8 | CRC 4
//! record   head, payload
//! head     length 4 | sequence 8 | durable 8 | kind 1 | CRC of the payload 4 | CRC of salt and head 4
//! proof    a head of length 0 whose sequence is its `durable`
//! ```
//!
//! CRCs are CRC-32C. `durable` is the newest sequence that was safe on the disk when the head was written: a
//! record that is spoiled although a later head calls it durable is damage, any other spoiled record is what a
//! crash left of a group that nobody was told about. The salt is a random number; without it, whoever chooses
//! payloads could put something into one that looks like a record when the bytes around it are spoiled.

use super::{Damage, Sequence};
use crate::env::disk::File;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes of a segment's header.
pub(super) const HEADER: usize = 36;
/// Bytes of a record beside its payload.
pub(super) const HEAD: usize = 29;
/// The largest payload that the format has, whatever the options are.
pub(super) const MAX_PAYLOAD: usize = 17 << 20;
/// The version that is written and read.
const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"lwjournl";
/// Beyond this a name is not one of ours; it keeps sums of sequences from overflowing.
const MAX_SEQUENCE: Sequence = 1 << 62;
/// What is read at once.
const CHUNK: usize = 64 << 10;

/// What a segment's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// The sequence of its first record; the records before it are safe since before the file had its name.
    pub(super) first: Sequence,
    /// Goes into each head's CRC.
    pub(super) salt: u32,
}

impl Name {
    /// Reads a file's name; `None` if it is not that of a segment.
    pub(super) fn parse(name: &OsStr) -> Option<Name> {
        let (first, salt) = name.to_str()?.strip_suffix(".journal")?.split_once('-')?;
        let parsed = Name { first: first.parse().ok()?, salt: u32::from_str_radix(salt, 16).ok()? };
        let fits = (1..=MAX_SEQUENCE).contains(&parsed.first);
        (fits && parsed.file_name().as_str() == name).then_some(parsed)
    }

    pub(super) fn file_name(&self) -> String {
        format!("{:020}-{:08x}.journal", self.first, self.salt)
    }

    /// The header of a file with this name, whose first group ends with the record `whole`.
    pub(super) fn header(&self, whole: Sequence) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.first.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.salt.to_le_bytes());
        bytes[24..32].copy_from_slice(&whole.to_le_bytes());
        let crc = crc32c(0, &bytes[..32]);
        bytes[32..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// What precedes a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: u32,
    pub(super) sequence: Sequence,
    pub(super) durable: Sequence,
    pub(super) kind: u8,
    pub(super) payload_crc: u32,
}

impl Head {
    pub(super) fn of(sequence: Sequence, durable: Sequence, kind: u8, payload: &[u8]) -> Head {
        Head::of_parts(sequence, durable, kind, &[payload])
    }

    /// The head of a payload that lies in parts.
    pub(super) fn of_parts(sequence: Sequence, durable: Sequence, kind: u8, parts: &[&[u8]]) -> Head {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let length = u32::try_from(length).expect("a payload has at most MAX_PAYLOAD bytes");
        let payload_crc = parts.iter().fold(0, |crc, part| crc32c(crc, part));
        Head { length, sequence, durable, kind, payload_crc }
    }

    /// The head that only says what is durable.
    pub(super) fn proof(durable: Sequence) -> Head {
        Head::of(durable, durable, 0, &[])
    }

    pub(super) fn is_proof(&self) -> bool {
        self.sequence == self.durable
    }

    /// Bytes of head and payload.
    pub(super) fn size(&self) -> u64 {
        HEAD as u64 + u64::from(self.length)
    }

    pub(super) fn encode(&self, salt: u32) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.durable.to_le_bytes());
        bytes[20] = self.kind;
        bytes[21..25].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c(crc32c(0, &salt.to_le_bytes()), &bytes[..25]);
        bytes[25..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(salt: u32, bytes: &[u8]) -> Option<Head> {
        let head = Head {
            length: four(bytes, 0),
            sequence: eight(bytes, 4),
            durable: eight(bytes, 12),
            kind: bytes[20],
            payload_crc: four(bytes, 21),
        };
        let fits = head.length as usize <= MAX_PAYLOAD && head.durable <= head.sequence;
        let is_whole = || crc32c(crc32c(0, &salt.to_le_bytes()), &bytes[..25]) == four(bytes, 25);
        (fits && head.sequence <= MAX_SEQUENCE && is_whole()).then_some(head)
    }
}

/// Records that follow each other without a hole, in sequence and in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) from: Sequence,
    pub(super) to: Sequence,
    /// Where the first begins.
    pub(super) offset: u64,
    /// Where the last ends.
    pub(super) end: u64,
}

/// A file read through a buffer.
#[derive(Debug)]
pub(super) struct Window {
    file: File,
    len: u64,
    salt: u32,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(super) fn new(file: File, salt: u32) -> io::Result<Window> {
        let len = file.len()?;
        Ok(Window { file, len, salt, start: 0, bytes: Vec::new() })
    }

    /// Some bytes, or `None` if the file is too short. Memory never grows beyond what the file has.
    pub(super) fn at(&mut self, offset: u64, length: usize) -> io::Result<Option<&[u8]>> {
        if offset.saturating_add(length as u64) > self.len {
            return Ok(None);
        }
        let inside = offset.checked_sub(self.start).map_or(usize::MAX, |at| at as usize);
        if inside.saturating_add(length) <= self.bytes.len() {
            return Ok(Some(&self.bytes[inside..inside + length]));
        }
        let wanted = (length.max(CHUNK) as u64).min(self.len - offset) as usize;
        self.bytes.resize(wanted, 0);
        let count = self.file.read_at(offset, &mut self.bytes)?;
        self.bytes.truncate(count);
        self.start = offset;
        Ok(self.bytes.get(..length))
    }

    /// The head at a place, if there is one.
    pub(super) fn head(&mut self, offset: u64) -> io::Result<Option<Head>> {
        let salt = self.salt;
        Ok(self.at(offset, HEAD)?.and_then(|bytes| Head::decode(salt, bytes)))
    }

    /// The payload that belongs to a head, if it is whole.
    pub(super) fn payload(&mut self, offset: u64, head: &Head) -> io::Result<Option<&[u8]>> {
        let bytes = self.at(offset + HEAD as u64, head.length as usize)?;
        Ok(bytes.filter(|bytes| crc32c(0, bytes) == head.payload_crc))
    }
}

/// What is in a segment that nobody writes to.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) runs: Vec<Run>,
    /// The newest record that must be there.
    pub(super) proven: Sequence,
    /// The newest record that counts: those after `proven` are whole, but nobody was told about them.
    pub(super) last: Sequence,
    /// Bytes at the end that are no record that counts.
    pub(super) cut_bytes: u64,
    pub(super) damage: Vec<Damage>,
    /// The header is whole and of this version.
    pub(super) version: Result<(), u32>,
}

/// Reads a whole segment. `limit` is the last sequence that belongs to it; `None` for the newest segment.
pub(super) fn find(path: &Path, file: File, name: &Name, limit: Option<Sequence>) -> io::Result<Found> {
    let mut window = Window::new(file, name.salt)?;
    let mut found = Found {
        runs: Vec::new(),
        // A file has its name since its first group, which is not empty, was synced.
        proven: limit.unwrap_or(name.first),
        last: 0,
        cut_bytes: 0,
        damage: Vec::new(),
        version: Ok(()),
    };
    match window.at(0, HEADER)?.and_then(version_of) {
        Some(VERSION) => {
            let header = window.at(0, HEADER)?.unwrap_or_default();
            let whole = eight(header, 24);
            if header != name.header(whole) {
                found.damage.push(Damage { file: path.to_path_buf(), offset: 0, lost: None });
            } else if limit.is_none() {
                found.proven = whole;
            }
        }
        Some(version) => found.version = Err(version),
        None => found.damage.push(Damage { file: path.to_path_buf(), offset: 0, lost: None }),
    }
    // A file has no more records than heads fit into it: a sequence beyond that is not one of its.
    let most = limit.unwrap_or(name.first + window.len / HEAD as u64);
    let (mut offset, mut expected, mut follows) = (HEADER as u64, name.first, false);
    while offset < window.len && expected <= most {
        let head = window.head(offset)?.filter(|head| (name.first - 1..=most).contains(&head.sequence));
        let Some(head) = head else {
            // A record of which not even the length is known: what follows it may begin anywhere.
            (offset, follows) = (offset + 1, false);
            continue;
        };
        if limit.is_none() {
            found.proven = found.proven.max(head.durable);
        }
        let is_record =
            !head.is_proof() && head.sequence >= expected && window.payload(offset, &head)?.is_some();
        let end = offset + head.size();
        match found.runs.last_mut() {
            Some(run) if is_record && follows && head.sequence == expected => {
                (run.to, run.end) = (head.sequence, end);
            }
            _ if is_record => {
                found.runs.push(Run { from: head.sequence, to: head.sequence, offset, end });
            }
            _ => {}
        }
        if is_record {
            expected = head.sequence + 1;
        }
        follows = is_record;
        offset = end;
    }
    judge(&mut found, path, name, &mut window, limit.is_none())?;
    Ok(found)
}

/// Tells what a crash left from what a bad disk did.
fn judge(found: &mut Found, path: &Path, name: &Name, window: &mut Window, newest: bool) -> io::Result<()> {
    let proven = found.proven;
    let after = found.runs.iter().find(|run| (run.from..=run.to).contains(&(proven + 1)));
    found.last = after.map_or(proven, |run| run.to);
    found.runs.retain(|run| run.from <= found.last);
    let (mut next, mut end) = (name.first, HEADER as u64);
    for run in &found.runs {
        if run.from > next {
            found.damage.push(lost(path, end, next, run.from - 1));
        }
        (next, end) = (run.to + 1, run.end);
    }
    if next <= proven {
        found.damage.push(lost(path, end, next, proven));
    } else if newest {
        let has_proof = window.head(end)?.is_some_and(|head| head.is_proof());
        found.cut_bytes = window.len.saturating_sub(end + if has_proof { HEAD as u64 } else { 0 });
    }
    Ok(())
}

fn lost(path: &Path, offset: u64, from: Sequence, to: Sequence) -> Damage {
    Damage { file: PathBuf::from(path), offset, lost: Some(from..=to) }
}

/// The version in a header that is whole.
fn version_of(header: &[u8]) -> Option<u32> {
    (&header[..8] == MAGIC && crc32c(0, &header[..32]) == four(header, 32)).then(|| four(header, 8))
}

fn four(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the slice has four bytes"))
}

fn eight(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the slice has eight bytes"))
}

/// CRC-32C (Castagnoli, RFC 3720, appendix B.4) of `bytes`, going on from the CRC of what came before them.
pub(super) fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(before, bytes)
}
