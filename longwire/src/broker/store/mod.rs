//! Histories that outlive the process, in a journal below `server.data_dir`.
//!
//! Memory is where histories are; the journal is written behind it, in groups, and read at a start. [`open`] reads it
//! and makes the [`Channels`] that the broker goes on with; the [`Writer`], a thread of its own, takes away what they
//! noted. `record` has the bytes, `replay` what they mean, `mark` says whether the last process came to its end.
//! What must stay true: a channel goes on with its epoch only if everything that was ever published under it is
//! there: after a kill, a failed disk, damage, a step back of the clock or a copied directory, all channels get
//! an epoch that nobody has seen. Nothing here is waited for by whoever publishes.

mod mark;
mod record;
mod replay;
mod writer;

pub use writer::Writer;

use super::channels::{Backlog, Channels};
use crate::config::Config;
use crate::env::Env;
use crate::journal::{DataDir, JournalError, Options};
use longwire_protocol::Epoch;
use mark::Mark;
use replay::{Stop, Table};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use writer::Bounds;

/// The directory below `server.data_dir`.
const DIRECTORY: &str = "history";

/// The largest segment; only whole ones are released.
const MAX_SEGMENT_BYTES: u64 = 8 << 20;

/// Most of what waits for the disk.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// Times that are read are taken to be at most so far away: some ten years.
const FAR_AWAY: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Reads what an earlier process kept, if any channel is to be kept; who writes is then to be run.
///
/// # Errors
/// The directory is in use, or of another version; the disk cannot be read, or does not let the mark of the last
/// process be taken away: a server that went on might call incomplete what it gives later.
pub fn open(config: &Config, env: &Env, data_dir: &DataDir) -> io::Result<(Arc<Channels>, Option<Writer>)> {
    let mark = Mark::new(data_dir);
    let is_kept = |channel: &str| {
        config
            .channel_options(channel)
            .is_some_and(|options| options.has_history() && options.history_on_disk)
    };
    let mut all_options = config.namespaces.values().chain([&config.channel]);
    if !all_options.any(|options| options.has_history() && options.history_on_disk) {
        // What is published meanwhile is not in there, should the setting come back.
        mark.remove()?;
        let directory = data_dir.of(DIRECTORY);
        match data_dir.remove(DIRECTORY) {
            Ok(0) => {}
            Ok(bytes) => tracing::warn!(
                bytes,
                directory = %directory.display(),
                "no channel has `history_on_disk`: the histories on the disk were removed"
            ),
            Err(error) => tracing::error!(
                %error,
                directory = %directory.display(),
                "no channel has `history_on_disk`, but the histories on the disk cannot be removed"
            ),
        }
        return Ok((Arc::default(), None));
    }
    let mut rng = env.rng.fork("history");
    let bounds = Bounds::new(config.history.max_disk_bytes as u64);
    // Nobody shall be without service for what can be had again from where it was published.
    let options = Options { past_damage: true, ..bounds.options(rng.bits() as u32) };
    let failed = |error: JournalError| io::Error::other(format!("history: {error}"));
    let (journal, recovery) = data_dir.open(DIRECTORY, options).map_err(failed)?;
    let mut is_damaged = false;
    for damage in &recovery.damage {
        tracing::error!(%damage, "histories on the disk are damaged; nobody can recover across this start");
        is_damaged = true;
    }
    let mut table = Table::default();
    for record in journal.replay(journal.first()) {
        match record {
            Ok(read) => match record::read(read.kind, &read.payload) {
                Some(record) => table.take(record),
                None => table.skip(),
            },
            Err(error @ JournalError::Damaged(_)) => {
                tracing::error!(%error, "histories on the disk are damaged; nobody can recover across this start");
                is_damaged = true;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let unix_ms = env.clock.unix_millis();
    let mark_found = mark.read()?;
    let is_clean = !is_damaged
        && table.stopped().is_some_and(|Stop { time_ms, mark_born }| {
            time_ms <= unix_ms && mark_found == Some((mark_born, journal.last()))
        });
    // From here on what is on the disk may grow old.
    mark.remove()?;
    let fresh = (!is_clean).then(|| Epoch::from_random(rng.bits()));
    if let Some(epoch) = fresh {
        table.renew(epoch);
    }
    let behind_ms = table.latest_ms().saturating_sub(unix_ms);
    if behind_ms > 0 {
        tracing::warn!(
            behind_seconds = behind_ms / 1000,
            "the clock is behind the last start or stop that is on the disk: histories expire as if it were not"
        );
    }
    let wall = Wall { now: env.clock.now(), unix_ms: unix_ms.max(table.latest_ms()) };
    let backlog = Arc::new(Backlog::new(MAX_WAITING_BYTES.min(config.history.max_disk_bytes)));
    let channels = Arc::new(Channels::noting(Some(backlog)));
    let (mut gone, mut kept, mut publications) = (Vec::new(), 0, 0);
    let longest = |channel: &str| match config.channel_options(channel) {
        Some(options) => (options.history_ttl, options.history_meta_ttl),
        None => (FAR_AWAY, FAR_AWAY),
    };
    for (channel, history) in table.histories(&wall, Epoch::from_random(rng.bits()), longest) {
        if is_kept(&channel) {
            let state = history.state();
            (kept, publications) = (kept + 1, publications + (state.top + 1 - state.first));
            channels.put(channel, history);
        } else {
            gone.push(channel);
        }
    }
    if kept > 0 {
        tracing::info!(channels = kept, publications, is_clean, "histories were read from the disk");
    }
    let parts = writer::Parts { channels: channels.clone(), clock: env.clock, journal, mark, bounds };
    let writer = Writer::new(parts, config.history.max_delay, writer::Beginning { fresh, gone, is_clean });
    Ok((channels, Some(writer)))
}

/// What the time is, on both clocks: on the disk are times of the wall's, in memory those of the other.
#[derive(Clone, Copy, Debug)]
struct Wall {
    now: Instant,
    unix_ms: i64,
}

impl Wall {
    fn millis(&self, moment: Instant) -> i64 {
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        match moment.checked_duration_since(self.now) {
            Some(ahead) => self.unix_ms.saturating_add(millis(ahead)),
            None => self.unix_ms.saturating_sub(millis(self.now - moment)),
        }
    }

    fn instant(&self, unix_ms: i64) -> Instant {
        let ahead = u64::try_from(unix_ms.saturating_sub(self.unix_ms)).unwrap_or(0);
        self.now + Duration::from_millis(ahead).min(FAR_AWAY)
    }
}

#[cfg(test)]
mod tests;
