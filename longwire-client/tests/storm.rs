//! Ten thousand clients whose server is gone, in invented time: they come back spread as computed.
//!
//! Real machines, no sockets: every dial is refused at once, and the moment of the next one is noted. What must stay true:
//! nothing here depends on chance but the clients' seeds, which are numbered.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use longwire_client::machine::{Line, Machine, Output};
use longwire_client::realtime::{Settings, State};
use longwire_client::{Cause, Options};
use std::time::{Duration, Instant};

const CLIENTS: u64 = 10_000;

/// Attempts that are watched: the spans reach their longest.
const ATTEMPTS: usize = 8;

/// The line that the client wants dialled, if it does.
fn dialled(state: &mut State) -> Option<Line> {
    let mut dialled = None;
    while let Some(output) = state.poll_output() {
        if let Output::Dial { line, .. } = output {
            dialled = Some(line);
        }
    }
    dialled
}

/// The moments at which one client dials, from the first refusal on.
fn dials(seed: u64, start: Instant) -> Vec<Duration> {
    let options = Options { seed: Some(seed), ..Options::default() };
    let settings = Settings { options, ..Settings::new(&["ws://10.0.0.1:8000"]).unwrap() };
    let mut state = State::new(settings).unwrap();
    let mut now = start;
    state.start(now);
    let mut moments = Vec::new();
    let mut line = dialled(&mut state).unwrap();
    while moments.len() < ATTEMPTS {
        state.handle_dialled(now, line, Err(Cause::Refused));
        line = loop {
            if let Some(line) = dialled(&mut state) {
                break line;
            }
            // It waits for nothing but its next attempt.
            now = state.poll_timeout().unwrap().max(now);
            state.handle_timeout(now);
        };
        moments.push(now - start);
    }
    moments
}

#[test]
fn a_storm_of_ten_thousand_spreads_as_computed() {
    let start = Instant::now();
    let all: Vec<Vec<Duration>> = (0..CLIENTS).map(|client| dials(client, start)).collect();
    // The spans of full jitter: 0.5 s, doubled with each failure, 20 s at most.
    let spans = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0];
    for (attempt, span) in spans.into_iter().enumerate() {
        let mut tenths = [0u32; 10];
        let mut sum = 0.0;
        for moments in &all {
            let before = if attempt == 0 { Duration::ZERO } else { moments[attempt - 1] };
            let delay = (moments[attempt] - before).as_secs_f64();
            assert!(delay <= span, "{delay} s after {attempt} failures, at most {span} s");
            tenths[((delay / span * 10.0) as usize).min(9)] += 1;
            sum += delay;
        }
        // Five standard deviations of what even chance gives: 30 a tenth, and 0.29 % of the span in the mean.
        for (tenth, count) in tenths.iter().enumerate() {
            assert!(
                (850..=1150).contains(count),
                "{count} in tenth {tenth} after {attempt} failures: {tenths:?}"
            );
        }
        let mean = sum / CLIENTS as f64 / span;
        assert!((mean - 0.5).abs() < 0.015, "the mean is {mean} of the span after {attempt} failures");
    }
    // So the server that is back meets no more of them in a second than the computed share: each comes once in 8 to 10 s by
    // then, which is 1 000 to 1 250 in a second.
    let mut seconds = std::collections::BTreeMap::new();
    for moment in all.iter().flatten() {
        *seconds.entry(moment.as_secs()).or_insert(0u32) += 1;
    }
    let busiest = seconds.range(20..30).map(|(_, count)| *count).max().unwrap();
    assert!(busiest < 1_500, "{busiest} attempts in one second");
}

#[test]
fn the_same_seed_comes_back_at_the_same_moments_and_another_at_others() {
    let start = Instant::now();
    assert_eq!(dials(7, start), dials(7, start));
    assert_ne!(dials(7, start), dials(8, start));
}
