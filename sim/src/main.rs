//! The command line of the simulator: replays a seed, or runs many.

use sim::shrink;
use sim::workload::{Fault, Options};
use sim::world::Outcome;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const USAGE: &str = "\
usage: sim SEED [OPTION...]          runs one seed
       sim FIRST..END [OPTION...]    runs many, END not included
       sim --fresh N [OPTION...]     runs so many seeds that nobody ran before
       sim --hours HOURS [OPTION...] runs fresh seeds for so long, and stops at a failure
       sim --flaws                   turns on each deliberate flaw, which must be caught (feature `flaws`)

options: --clients N      at most so many clients
         --until SECONDS  faults stop after so long
         --without FAULT  leaves a kind of fault out; may be repeated
         --twice          runs each seed twice, and fails if the runs differ
         --as-it-is       makes no failing seed small
         --loud           prints every event (one seed)
         --flaw FLAW      with a deliberate flaw (one seed; feature `flaws`)

A failing seed is made small: what is printed replays it with the fewest faults, clients and seconds.";

/// What the command line asks for.
#[derive(Default)]
struct Ask {
    what: Option<What>,
    options: Options,
    is_twice: bool,
    is_loud: bool,
    is_as_it_is: bool,
}

enum What {
    Seeds(Range<u64>),
    Fresh(u64),
    Hours(f64),
    Flaws,
}

fn main() -> ExitCode {
    let ask = match parse(std::env::args().skip(1)) {
        Ok(ask) => ask,
        Err(what) => return refuse(&what),
    };
    // Whatever the second, no two runs of a day begin with the same.
    let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64 * 1000;
    match &ask.what {
        Some(What::Seeds(seeds)) if seeds.end - seeds.start == 1 => run_one(&ask, seeds.start),
        Some(What::Seeds(seeds)) => run_many(&ask, seeds.clone(), None),
        Some(What::Fresh(count)) => {
            let first = fresh();
            run_many(&ask, first..first + count, None)
        }
        Some(What::Hours(hours)) => {
            run_many(&ask, fresh()..u64::MAX, Some(Duration::from_secs_f64(hours * 3600.0)))
        }
        Some(What::Flaws) => catch_flaws(),
        None => refuse("which seed?"),
    }
}

fn refuse(what: &str) -> ExitCode {
    eprintln!("{what}\n\n{USAGE}");
    ExitCode::from(2)
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Ask, String> {
    let mut ask = Ask::default();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--clients" => ask.options.clients = Some(number(&value()?)?),
            "--until" => ask.options.until = Some(seconds(&value()?)?),
            "--without" => drop(ask.options.without.insert(value()?.parse::<Fault>()?)),
            "--fresh" => ask.what = Some(What::Fresh(number(&value()?)?)),
            "--hours" => ask.what = Some(What::Hours(seconds(&value()?)?.as_secs_f64())),
            "--flaws" => ask.what = Some(What::Flaws),
            "--flaw" => turn_on(&value()?)?,
            "--twice" => ask.is_twice = true,
            "--loud" => ask.is_loud = true,
            "--as-it-is" => ask.is_as_it_is = true,
            seeds => {
                let seeds = match seeds.split_once("..") {
                    Some((first, end)) => number(first)?..number(end)?,
                    None => number(seeds)?..number::<u64>(seeds)?.saturating_add(1),
                };
                if seeds.is_empty() {
                    return Err(format!("{seeds:?} holds no seed"));
                }
                ask.what = Some(What::Seeds(seeds));
            }
        }
    }
    Ok(ask)
}

fn seconds(text: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(number(text)?).map_err(|error| format!("\"{text}\": {error}"))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("\"{text}\" is no number that fits here"))
}

fn run_one(ask: &Ask, seed: u64) -> ExitCode {
    let outcome = sim::run(seed, &ask.options, ask.is_loud);
    for event in outcome.recent.iter().filter(|_| outcome.failure.is_some() && !ask.is_loud) {
        println!("{event}");
    }
    let is_good = report(ask, seed, &outcome);
    println!("{:?}", outcome.counts);
    println!("digest {:016x}", outcome.digest);
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs seeds on all cores until they or the time are used up.
fn run_many(ask: &Ask, seeds: Range<u64>, time: Option<Duration>) -> ExitCode {
    let (next, failed, started) = (AtomicU64::new(seeds.start), AtomicU64::new(0), Instant::now());
    let invented = Mutex::new(Duration::ZERO);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        loop {
            let is_over =
                time.is_some_and(|time| started.elapsed() > time || failed.load(Ordering::Relaxed) > 0);
            if is_over {
                return;
            }
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = sim::run(seed, &ask.options, false);
            *invented.lock().expect("no run panics") += outcome.span;
            failed.fetch_add(u64::from(!report(ask, seed, &outcome)), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let runs = next.load(Ordering::Relaxed).min(seeds.end) - seeds.start;
    let failed = failed.load(Ordering::Relaxed);
    let (real, invented) =
        (started.elapsed().as_secs_f64() / 60.0, invented.into_inner().expect("no run panics"));
    let hours = invented.as_secs_f64() / 3600.0;
    println!(
        "{hours:.1} invented hours in {real:.1} minutes: {:.0} a minute, on {threads} cores",
        hours / real
    );
    println!("{} passed, {failed} failed", runs - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says in one write what came of a run; true if all was well.
fn report(ask: &Ask, seed: u64, outcome: &Outcome) -> bool {
    let span = outcome.span.as_secs_f64();
    let Some(failure) = &outcome.failure else {
        let mut line =
            format!("seed {seed}: {} events in {span:.0} s, digest {:016x}", outcome.events, outcome.digest);
        let again = ask.is_twice.then(|| sim::run(seed, &ask.options, false).digest);
        let differs = again.filter(|again| *again != outcome.digest);
        if let Some(again) = differs {
            line.push_str(&format!("\nseed {seed} FAILED: run again it differs, digest {again:016x}"));
        }
        println!("{line}");
        return differs.is_none();
    };
    if ask.is_as_it_is {
        println!("seed {seed} FAILED: {failure}");
        return false;
    }
    let (small, at_last) =
        shrink::shrink(&ask.options, failure, |options| sim::run(seed, options, false).failure);
    println!(
        "seed {seed} FAILED: {failure}\n  at its smallest: {at_last}\n  replay: {}",
        shrink::command(seed, &small)
    );
    false
}

#[cfg(not(feature = "flaws"))]
fn turn_on(flaw: &str) -> Result<(), String> {
    Err(format!("{flaw} is not compiled in: --features flaws"))
}

/// Turns a flaw on in this thread, which is the one that runs a single seed.
#[cfg(feature = "flaws")]
fn turn_on(name: &str) -> Result<(), String> {
    use longwire_protocol::flaw::{self, Flaw};
    let flaw = Flaw::ALL.into_iter().find(|flaw| format!("{flaw:?}").eq_ignore_ascii_case(name));
    flaw::turn_on(Some(flaw.ok_or_else(|| format!("no flaw is called \"{name}\": {:?}", Flaw::ALL))?));
    Ok(())
}

#[cfg(not(feature = "flaws"))]
fn catch_flaws() -> ExitCode {
    refuse("this needs the flaws: cargo run --release -p sim --features flaws -- --flaws")
}

#[cfg(feature = "flaws")]
fn catch_flaws() -> ExitCode {
    use longwire_protocol::flaw::Flaw;
    let (next, missed) = (AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut asked = Flaw::ALL.to_vec();
    asked.retain(|flaw| {
        let test = sim::flaws::shown_elsewhere(*flaw);
        test.iter().for_each(|test| println!("{flaw:?}: not asked of seeds, {test} shows it"));
        test.is_none()
    });
    let work = || {
        while let Some(flaw) = asked.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            match sim::flaws::catch(*flaw) {
                Some((seed, failure)) => {
                    println!("{flaw:?}: caught by seed {seed}, {:?} broken", failure.promise)
                }
                None => {
                    missed.fetch_add(1, Ordering::Relaxed);
                    println!("{flaw:?} FAILED: not caught by seeds 1 to {}", sim::flaws::SEEDS);
                }
            }
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let missed = missed.load(Ordering::Relaxed);
    println!("{} passed, {missed} failed", asked.len() as u64 - missed);
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
