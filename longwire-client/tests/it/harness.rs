//! What every test here needs: waiting with a limit, a free port, the server's binary.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take that should take no time: long, because the machine may be busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(5);

/// Waits for a condition.
#[track_caller]
pub(crate) fn until(what: &str, is_true: impl FnMut() -> bool) {
    assert!(comes_true(LIMIT, is_true), "waited in vain for {what}");
}

/// Whether a condition comes true within a limit.
pub(crate) fn comes_true(limit: Duration, mut is_true: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !is_true() {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(STEP);
    }
    true
}

/// A port that can be left and taken again: below those that the system gives to whoever dials, and not one that
/// another test of this run takes.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 16_000;
    const COUNT: u16 = 16_000;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    // Tests run in processes of their own: each begins somewhere else.
    let start = (std::process::id().wrapping_mul(61) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// The server: what `LONGWIRE_BIN` names, or what was built into the folder that holds this test's own folder.
pub(crate) fn longwire_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("LONGWIRE_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "LONGWIRE_BIN is {}, and there is no such file", path.display());
        return path;
    }
    let test = std::env::current_exe().expect("a test knows where it is");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("it lies in target/PROFILE/deps");
    let path = folder.join("longwire");
    assert!(
        path.is_file(),
        "there is no server at {}: build it with `cargo build -p longwire` in the same profile, or set LONGWIRE_BIN",
        path.display()
    );
    path
}
