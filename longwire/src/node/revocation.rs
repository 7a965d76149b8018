//! Tokens that count no more, although their signature holds.
//!
//! A backend revokes one token by its id (claim `jti`), or all tokens of a user that were issued before a time
//! (claim `iat`). Both are kept until nobody could use such a token any more: in memory, and by the [`Keeper`] in a
//! journal below `server.data_dir`, which is made with the first of them. The keeper has a thread of its own,
//! because a disk takes its time. What must stay true: what a call was told to have revoked stays revoked across
//! a crash; where there is no room for more, a call is refused, and nothing that was revoked is forgotten
//! before its time.

use crate::journal::{DataDir, Journal, JournalError, Options, Sequence};
use foldhash::quality::RandomState;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Revoked tokens, and users with revoked tokens, that are kept.
const MAX_ENTRIES: usize = 100_000;

/// Longest id of a token, and longest id of a user.
pub const MAX_ID_BYTES: usize = 1024;

/// Records beyond twice the entries, from which on the journal is written anew.
const SLACK: u64 = 1000;

/// The directory below `server.data_dir`.
const DIRECTORY: &str = "revocations";

/// Revocations that are made durable together.
const MAX_GROUP: usize = 32;

const KIND_TOKEN: u8 = 1;
const KIND_USER: u8 = 2;

/// Tokens that count no more.
pub struct Revocations {
    hasher: RandomState,
    table: Arc<Mutex<Table>>,
    to_keeper: mpsc::UnboundedSender<Letter>,
    max_entries: usize,
}

/// Keeps revocations on the disk.
pub struct Keeper {
    data_dir: DataDir,
    salt: u32,
    /// Opened with the first revocation there ever is.
    journal: Option<Journal>,
    table: Arc<Mutex<Table>>,
    letters: mpsc::UnboundedReceiver<Letter>,
}

/// A revocation on its way to the disk, and the way back.
struct Letter {
    kind: u8,
    payload: Vec<u8>,
    kept: oneshot::Sender<Result<(), String>>,
}

#[derive(Debug, Default)]
struct Table {
    /// Revoked tokens, and until when that matters.
    tokens: BTreeMap<Box<str>, i64>,
    users: BTreeMap<Box<str>, Invalidation>,
    /// The first time at which an entry is past its time.
    next_expiry: i64,
}

/// All tokens of a user that were issued before a time count no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Invalidation {
    issued_before: i64,
    expires_at: i64,
}

/// What a backend revokes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// The token with this id.
    Token(String),
    /// The tokens of a user that were issued before a time, in seconds since 1970.
    User {
        /// Whose.
        user: String,
        /// Those that do not say when they were issued, too.
        issued_before: i64,
    },
}

/// By which token a connection came: enough to know it again when it is revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// A hash of the token's id, if it has one.
    pub jti: Option<u64>,
    /// When it was issued, in seconds since 1970, if it says so.
    pub issued_at: Option<i64>,
}

/// Why something was not revoked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRevoked {
    /// There is no room for more.
    #[error("{MAX_ENTRIES} revocations are in force, and there may be no more")]
    Full,
    /// The revocation holds, but not beyond the life of this process.
    #[error("the revocation was not made durable: {0}")]
    NotDurable(String),
}

impl Revocations {
    /// What earlier runs kept below `data_dir`, if anything, and who keeps what comes; at the time `now`, in
    /// seconds since 1970.
    ///
    /// # Errors
    /// The disk's, and those of a journal that is damaged or in use: a server that forgot what is revoked must not
    /// start.
    pub fn load(data_dir: DataDir, salt: u32, now: i64) -> Result<(Revocations, Keeper), JournalError> {
        let mut table = Table::default();
        let journal = match data_dir.disk().list(&data_dir.of(DIRECTORY)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
            Ok(_) => {
                let journal = open(&data_dir, salt)?;
                for record in journal.replay(journal.first()) {
                    let record = record?;
                    // What another version wrote is that version's.
                    if let Some((revoked, expires_at)) = decode(record.kind, &record.payload)
                        && expires_at > now
                    {
                        table.put(revoked, expires_at);
                    }
                }
                Some(journal)
            }
        };
        let table = Arc::new(Mutex::new(table));
        let (to_keeper, letters) = mpsc::unbounded_channel();
        let keeper = Keeper { data_dir, salt, journal, table: table.clone(), letters };
        let hasher = RandomState::default();
        Ok((Revocations { hasher, table, to_keeper, max_entries: MAX_ENTRIES }, keeper))
    }

    /// Revokes until `expires_at` (0: for ever), in seconds since 1970. It holds at once; what is returned is ready
    /// when it will outlive the process, or says why it will not.
    ///
    /// # Errors
    /// [`NotRevoked::Full`].
    pub fn revoke(
        &self,
        revoked: &Revoked,
        expires_at: i64,
    ) -> Result<impl Future<Output = Result<(), NotRevoked>> + Send + use<>, NotRevoked> {
        let expires_at = if expires_at == 0 { i64::MAX } else { expires_at };
        let (kind, payload) = {
            let mut table = lock(&self.table);
            if !table.has_room(revoked, self.max_entries) {
                return Err(NotRevoked::Full);
            }
            let expires_at = table.put(revoked.clone(), expires_at);
            encode(revoked, expires_at)
        };
        let (kept, outcome) = oneshot::channel();
        // An error means that the server is stopping; so does an outcome that does not come.
        let _ = self.to_keeper.send(Letter { kind, payload, kept });
        Ok(async move {
            let outcome = outcome.await.unwrap_or_else(|_| Err("the server is stopping".to_owned()));
            outcome.map_err(NotRevoked::NotDurable)
        })
    }

    /// Whether a token counts no more.
    pub fn is_revoked(&self, user: &str, jti: Option<&str>, issued_at: Option<i64>, now: i64) -> bool {
        let table = lock(&self.table);
        let is_token = jti.and_then(|jti| table.tokens.get(jti)).is_some_and(|expires_at| now < *expires_at);
        is_token
            || table.users.get(user).is_some_and(|invalidation| {
                now < invalidation.expires_at && is_before(issued_at, invalidation.issued_before)
            })
    }

    /// What to keep of a token to know it again.
    pub fn proof(&self, jti: Option<&str>, issued_at: Option<i64>) -> Proof {
        Proof { jti: jti.map(|jti| self.hasher.hash_one(jti)), issued_at }
    }

    /// Whether a connection of `user` came by a token that this is about.
    pub fn is_about(&self, revoked: &Revoked, user: &str, proof: &Proof) -> bool {
        match revoked {
            Revoked::Token(jti) => proof.jti == Some(self.hasher.hash_one(jti.as_str())),
            Revoked::User { user: whose, issued_before } => {
                whose == user && is_before(proof.issued_at, *issued_before)
            }
        }
    }

    /// Drops what is past its time.
    pub fn expire(&self, now: i64) {
        lock(&self.table).expire(now);
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // A panic while the lock was held is a bug of ours; the maps themselves are still maps.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    /// Keeps what comes, in groups, for as long as something may come.
    pub async fn run(mut self) {
        while let Some(first) = self.letters.recv().await {
            let mut group = vec![first];
            while group.len() < MAX_GROUP
                && let Ok(letter) = self.letters.try_recv()
            {
                group.push(letter);
            }
            let outcome = self.keep(&group).map_err(|error| error.to_string());
            for letter in group {
                // Nobody may be waiting any more.
                let _ = letter.kept.send(outcome.clone());
            }
        }
    }

    fn keep(&mut self, group: &[Letter]) -> Result<(), JournalError> {
        let journal = match &mut self.journal {
            Some(journal) => journal,
            none => none.insert(open(&self.data_dir, self.salt)?),
        };
        for Letter { kind, payload, .. } in group {
            append(journal, *kind, payload)?;
        }
        journal.commit()?;
        let entries = lock(&self.table).len() as u64;
        if journal.last() + 1 - journal.first() > 2 * entries + SLACK {
            let records = lock(&self.table).records();
            if let Err(error) = write_anew(journal, &records) {
                // The call's own records are durable; the next one tries again.
                tracing::warn!(%error, "the journal of revocations could not be made shorter");
            }
        }
        Ok(())
    }
}

fn open(data_dir: &DataDir, salt: u32) -> Result<Journal, JournalError> {
    let options = Options {
        max_record_bytes: 4096,
        max_pending_bytes: 256 * 1024,
        max_segment_bytes: 1 << 20,
        ..Options::new(salt)
    };
    let (journal, recovery) = data_dir.open(DIRECTORY, options)?;
    if let Some(error) = recovery.unsaved {
        // Of what nobody was told to be durable; the next commit tries again, and says so if it fails.
        tracing::warn!(%error, "revocations of an earlier run are not durable yet");
    }
    Ok(journal)
}

/// A token that does not say when it was issued may have been issued at any time.
fn is_before(issued_at: Option<i64>, issued_before: i64) -> bool {
    issued_at.is_none_or(|issued_at| issued_at < issued_before)
}

/// Appends a record; if there is no room because the disk failed, after it took what waits.
fn append(journal: &mut Journal, kind: u8, payload: &[u8]) -> Result<(), JournalError> {
    match journal.append(kind, payload) {
        Err(JournalError::Backlog { .. }) => {
            journal.commit()?;
            journal.append(kind, payload).map(drop)
        }
        other => other.map(drop),
    }
}

/// Writes the entries that are in force behind everything else, which can go then.
fn write_anew(journal: &mut Journal, records: &[(u8, Vec<u8>)]) -> Result<(), JournalError> {
    let before: Sequence = journal.last();
    for (kind, payload) in records {
        append(journal, *kind, payload)?;
    }
    journal.commit()?;
    journal.release(before)
}

impl Table {
    fn len(&self) -> usize {
        self.tokens.len() + self.users.len()
    }

    fn has_room(&self, revoked: &Revoked, max_entries: usize) -> bool {
        self.len() < max_entries
            || match revoked {
                Revoked::Token(jti) => self.tokens.contains_key(jti.as_str()),
                Revoked::User { user, .. } => self.users.contains_key(user.as_str()),
            }
    }

    /// Puts an entry in, or makes the one that is there stricter; until when it holds.
    fn put(&mut self, revoked: Revoked, expires_at: i64) -> i64 {
        let expires_at = match revoked {
            Revoked::Token(jti) => {
                let entry = self.tokens.entry(jti.into()).or_insert(expires_at);
                *entry = (*entry).max(expires_at);
                *entry
            }
            Revoked::User { user, issued_before } => {
                let fresh = Invalidation { issued_before, expires_at };
                let entry = self.users.entry(user.into()).or_insert(fresh);
                entry.issued_before = entry.issued_before.max(issued_before);
                entry.expires_at = entry.expires_at.max(expires_at);
                entry.expires_at
            }
        };
        // An entry that was prolonged is looked at once too often.
        self.next_expiry = self.next_expiry.min(expires_at);
        expires_at
    }

    fn expire(&mut self, now: i64) {
        if now < self.next_expiry {
            return;
        }
        self.tokens.retain(|_, expires_at| now < *expires_at);
        self.users.retain(|_, invalidation| now < invalidation.expires_at);
        let users = self.users.values().map(|invalidation| invalidation.expires_at);
        self.next_expiry = self.tokens.values().copied().chain(users).min().unwrap_or(i64::MAX);
    }

    /// All entries as the journal has them.
    fn records(&self) -> Vec<(u8, Vec<u8>)> {
        let tokens = self.tokens.iter().map(|(jti, at)| encode(&Revoked::Token(jti.to_string()), *at));
        let users = self.users.iter().map(|(user, Invalidation { issued_before, expires_at })| {
            let revoked = Revoked::User { user: user.to_string(), issued_before: *issued_before };
            encode(&revoked, *expires_at)
        });
        tokens.chain(users).collect()
    }
}

/// Kind and payload of a record: the numbers, eight bytes each, and then the text.
fn encode(revoked: &Revoked, expires_at: i64) -> (u8, Vec<u8>) {
    let mut payload = expires_at.to_le_bytes().to_vec();
    match revoked {
        Revoked::Token(jti) => {
            payload.extend_from_slice(jti.as_bytes());
            (KIND_TOKEN, payload)
        }
        Revoked::User { user, issued_before } => {
            payload.extend_from_slice(&issued_before.to_le_bytes());
            payload.extend_from_slice(user.as_bytes());
            (KIND_USER, payload)
        }
    }
}

fn decode(kind: u8, payload: &[u8]) -> Option<(Revoked, i64)> {
    let (expires_at, rest) = payload.split_first_chunk()?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let revoked = match kind {
        KIND_TOKEN => Revoked::Token(text(rest)?),
        KIND_USER => {
            let (issued_before, user) = rest.split_first_chunk()?;
            Revoked::User { user: text(user)?, issued_before: i64::from_le_bytes(*issued_before) }
        }
        _ => return None,
    };
    Some((revoked, i64::from_le_bytes(*expires_at)))
}

#[cfg(test)]
mod tests;
