//! The framing cases, over TCP, against an echo server made of the codec and nothing else.

mod echo;
mod framing_suite;

use framing_suite::{Case, End, cases, run, run_violation, violations};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const MAX_MESSAGE_BYTES: u32 = 256 * 1024;

#[test]
fn an_echo_server_passes_every_framing_case() {
    let cases = cases(MAX_MESSAGE_BYTES as usize);
    assert!(cases.len() >= 150, "{}", cases.len());
    run_all(&cases, run);
}

#[test]
fn every_violation_ends_in_its_code_whatever_is_done_with_messages() {
    let cases = violations(MAX_MESSAGE_BYTES as usize);
    assert!(cases.len() >= 150, "{}", cases.len());
    run_all(&cases, run_violation);
}

#[test]
fn case_names_are_unique() {
    let mut names: Vec<String> = cases(65_536).into_iter().map(|case| case.name).collect();
    names.sort();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

fn run_all(cases: &[Case], run: impl Fn(&Case, SocketAddr, &str) -> Result<(), String> + Sync) {
    let server = echo::start(MAX_MESSAGE_BYTES);
    let violations = cases.iter().filter(|case| matches!(case.end, End::Violation(_))).count();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = run(case, server, "/echo") {
                        failures.lock().expect("no panic").push(format!("{}: {error}", case.name));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    println!("{} framing cases, {violations} of them violations, {} failed", cases.len(), failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
