//! Histories on a disk against a model: whatever is done in whatever order, and however each process ends.

use super::*;
use longwire_protocol::Epoch;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tokio::runtime::Builder;

const CHANNELS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Step {
    Publish(usize, usize),
    Clear(usize),
    Wait(u64),
    Commit,
    Expire,
    Stop,
    /// So many bytes that were not synced are there.
    Kill(usize),
    /// A disk that takes nothing, for a step.
    Full,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let channel = || 0..CHANNELS.len();
    let step = prop_oneof![
        12 => (channel(), 1..1500usize).prop_map(|(channel, bytes)| Step::Publish(channel, bytes)),
        1 => channel().prop_map(Step::Clear),
        2 => (1..40u64).prop_map(Step::Wait),
        4 => Just(Step::Commit),
        1 => Just(Step::Expire),
        2 => Just(Step::Stop),
        2 => (0..3000usize).prop_map(Step::Kill),
        1 => Just(Step::Full),
    ];
    prop::collection::vec(step, 1..120)
}

/// What is true of a channel.
#[derive(Default)]
struct Truth {
    /// By number, in the line that leads to what is there.
    published: BTreeMap<u64, Vec<u8>>,
    /// The newest that the disk was seen to have.
    committed: u64,
    /// Everything up to here was cleared, as the disk knows, and as memory does.
    cleared: (u64, u64),
    epochs: BTreeSet<Epoch>,
}

async fn play(steps: Vec<Step>, history_size: usize) {
    let mut rig = Rig::new();
    rig.config.history.max_disk_bytes = 64 << 10;
    rig.config.channel.history_size = history_size;
    let mut truths: [Truth; CHANNELS.len()] = Default::default();
    let mut running = rig.start();
    let mut payloads = 0u64;
    for step in steps {
        match step {
            Step::Publish(channel, bytes) => {
                payloads += 1;
                let text = format!("{payloads} {}", "x".repeat(bytes));
                let position =
                    running.publish(&rig, CHANNELS[channel], &text).await.position.expect("a position");
                let truth = &mut truths[channel];
                // A channel that was forgotten begins anew.
                if position.offset == 1 {
                    let epochs = std::mem::take(&mut truth.epochs);
                    *truth = Truth { epochs, ..Truth::default() };
                }
                truth.epochs.insert(position.epoch);
                truth.published.insert(position.offset, format!("{text:?}").into_bytes());
            }
            Step::Clear(channel) => {
                running.broker.remove_history(&CHANNELS[channel].into()).await.expect("removed");
                let truth = &mut truths[channel];
                truth.cleared.1 = truth.published.keys().next_back().copied().unwrap_or(0);
            }
            Step::Wait(seconds) => running.clock.sleep(Duration::from_secs(seconds)).await,
            Step::Expire => running.broker.expire(running.clock.now()),
            Step::Commit => {
                running.clock.sleep(Duration::from_secs(2)).await;
                running.commit();
                assert_eq!(running.counters().pending_bytes.get(), 0);
                for truth in &mut truths {
                    truth.committed = truth.published.keys().next_back().copied().unwrap_or(0);
                    truth.cleared.0 = truth.cleared.1;
                }
            }
            Step::Full => {
                rig.disk.switches().is_full.store(true, Ordering::SeqCst);
                running.commit();
                rig.disk.switches().is_full.store(false, Ordering::SeqCst);
            }
            Step::Stop => {
                // A start looks at all of them.
                running.broker.expire(running.clock.now());
                let before = running.channels.survey();
                let has_given_up = running.counters().given_up.get() > 0;
                running.stop(&mut rig);
                running = rig.start();
                for (name, state, publications) in before {
                    let after = running.page(&rig, &name).await;
                    if publications.is_empty() && after.top.offset == 0 && after.top.epoch != state.epoch {
                        // Of a last use that was a mere look the disk may not know.
                        continue;
                    }
                    assert_eq!(
                        after.top,
                        longwire_protocol::Position { offset: state.top, epoch: state.epoch }
                    );
                    let missing = publications.len() - after.publications.len();
                    assert_eq!(after.publications[..], publications[missing..]);
                    assert!(
                        missing == 0 || has_given_up,
                        "{name}: {missing} of {} are missing",
                        publications.len()
                    );
                }
                for truth in &mut truths {
                    truth.committed = truth.published.keys().next_back().copied().unwrap_or(0);
                    truth.cleared.0 = truth.cleared.1;
                }
            }
            Step::Kill(kept) => {
                rig.unix_ms = running.clock.unix_millis() as u64;
                std::mem::forget(running.writer);
                rig.disk.crash(kept);
                running = rig.start();
                for (channel, truth) in CHANNELS.into_iter().zip(&mut truths) {
                    let page = running.page(&rig, channel).await;
                    judge_after_kill(channel, &page, truth);
                }
            }
        }
        assert!(rig.disk.bytes() <= 64 << 10, "{} bytes", rig.disk.bytes());
        assert_eq!(running.counters().failed.get(), 0);
    }
}

fn judge_after_kill(channel: &str, page: &Page, truth: &mut Truth) {
    assert!(!truth.epochs.contains(&page.top.epoch), "{channel}: an epoch came back after a kill");
    truth.epochs.insert(page.top.epoch);
    let offsets: Vec<u64> = page.publications.iter().map(|it| it.offset).collect();
    assert!(offsets.windows(2).all(|pair| pair[1] == pair[0] + 1), "{channel}: {offsets:?}");
    assert!(
        offsets.last().is_none_or(|newest| *newest == page.top.offset),
        "{channel}: {offsets:?} {:?}",
        page.top
    );
    for publication in &page.publications {
        let expected = truth.published.get(&publication.offset);
        assert_eq!(expected.map(Vec::as_slice), Some(&publication.data[..]), "{channel}");
        assert!(publication.offset > truth.cleared.0, "{channel}: what was cleared came back");
    }
    let is_forgotten = page.top.offset == 0;
    assert!(is_forgotten || page.top.offset >= truth.committed, "{channel}: what was committed is missing");
    truth.published.retain(|offset, _| *offset <= page.top.offset);
    truth.committed = page.top.offset;
    truth.cleared = (truth.cleared.0, truth.cleared.0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_told_that_is_not_so(steps in steps(), history_size in 1..24usize) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(play(steps, history_size));
    }
}
