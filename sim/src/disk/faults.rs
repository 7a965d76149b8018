//! What goes wrong on a disk from some moment on, and how that is drawn.
//!
//! What must stay true: most of the time all is well, or nothing would ever be written.

use super::SimDisk;
use longwire::env::rng::Rng;

/// What goes wrong from here on; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Bytes that all files together may have; more is `StorageFull`, after a part was written.
    pub capacity: Option<u64>,
    /// How likely a write, a resize or a change of a name fails, from 0.0 to 1.0.
    pub write_error: f64,
    /// How likely a sync of a file fails, from 0.0 to 1.0.
    pub sync_error: f64,
    /// How likely a sync of a directory fails, from 0.0 to 1.0.
    pub dir_sync_error: f64,
    /// A file whose sync failed never gets to the disk again, though its later syncs succeed.
    pub lost_after_sync_error: bool,
}

impl Faults {
    /// Draws what goes wrong next; a disk that is to be full has room for less than `most_room` further bytes.
    pub fn drawn(rng: &mut Rng, disk: &SimDisk, most_room: u64) -> Faults {
        let mut faults = Faults { lost_after_sync_error: rng.bits().is_multiple_of(2), ..Faults::default() };
        match rng.bits() % 10 {
            0 => faults.capacity = Some(disk.used() + rng.bits() % most_room),
            1 => faults.write_error = rng.fraction(),
            2 => faults.sync_error = rng.fraction(),
            3 => faults.dir_sync_error = rng.fraction(),
            4 => {
                faults.write_error = rng.fraction();
                faults.sync_error = rng.fraction();
                faults.dir_sync_error = rng.fraction();
            }
            _ => {}
        }
        faults
    }

    /// Whether anything can fail.
    pub fn are_any(&self) -> bool {
        let Faults { capacity, write_error, sync_error, dir_sync_error, .. } = self;
        capacity.is_some() || write_error + sync_error + dir_sync_error > 0.0
    }
}
