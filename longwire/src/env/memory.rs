//! How much of the memory that this process may use is in use, as its control group counts it.
//!
//! Only cgroup v2 is read, which is what containers and systemd units have; without a limit there is no
//! answer, because nothing says how much is too much. The page cache that the kernel would give back is not
//! counted as used; sockets' buffers are, which no allocator could tell.

use super::disk;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Who knows how much memory is in use.
#[derive(Clone, Default)]
pub struct Memory(Option<Arc<Gauge>>);

/// A gauge that stands in for the system's.
type Gauge = dyn Fn() -> Option<u32> + Send + Sync;

impl Memory {
    /// What the system says of this process.
    pub fn system() -> Memory {
        Memory(None)
    }

    /// A gauge that stands in for the system's.
    pub fn of(gauge: impl Fn() -> Option<u32> + Send + Sync + 'static) -> Memory {
        Memory(Some(Arc::new(gauge)))
    }

    /// The share that is in use, in percent; `None` if no limit is set.
    pub fn used_percent(&self) -> Option<u32> {
        match &self.0 {
            None => used_percent_of_system(),
            Some(gauge) => gauge(),
        }
    }
}

fn used_percent_of_system() -> Option<u32> {
    let membership = disk::read_to_string(Path::new("/proc/self/cgroup")).ok()?;
    let group = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = PathBuf::from("/sys/fs/cgroup");
    // A limit may be set on any group above; inside a container the path may not be visible at all.
    let groups = root.join(group).ancestors().map(Path::to_path_buf).collect::<Vec<_>>();
    groups.into_iter().filter(|group| group.starts_with(&root)).find_map(|group| {
        let read = |name: &str| disk::read_to_string(&group.join(name)).ok();
        percent(&read("memory.max")?, &read("memory.current")?, &read("memory.stat")?)
    })
}

/// The share from the contents of `memory.max`, `memory.current` and `memory.stat`.
fn percent(max: &str, current: &str, stat: &str) -> Option<u32> {
    let max: u64 = max.trim().parse().ok()?;
    let current: u64 = current.trim().parse().ok()?;
    let cache = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
    let cache: u64 = cache.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0);
    Some((current.saturating_sub(cache).saturating_mul(100) / max.max(1)).min(100) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_leaves_out_what_the_kernel_would_give_back() {
        assert_eq!(percent("1000\n", "900\n", "anon 5\ninactive_file 100\n"), Some(80));
        assert_eq!(percent("1000\n", "900\n", ""), Some(90));
        assert_eq!(percent("max\n", "900\n", ""), None);
        assert_eq!(percent("", "900\n", ""), None);
    }
}
