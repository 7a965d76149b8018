//! Every target as property tests, on any toolchain: the corpus, the corpus changed, and arbitrary bytes.
//!
//! A failing case is shrunk and printed as bytes. `PROPTEST_CASES` says how many cases each property gets;
//! `fuzz/run` sets it high where libFuzzer cannot be built.

use longwire_fuzz::TARGETS;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn run(target: &str, data: &[u8]) {
    let (_, run) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target of this name");
    run(data);
}

/// The corpus of a target, in the order of the files' names.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("a readable file"))).collect()
}

/// A seed of the corpus, changed: bytes replaced, a part cut out, a part of another seed put in.
fn changed(target: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let seeds: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, data)| data).collect();
    let seed = prop::sample::select(seeds);
    let replaced = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let places = any::<[prop::sample::Index; 4]>();
    (seed.clone(), seed, replaced, places, any::<[bool; 2]>()).prop_map(
        |(mut data, other, replaced, places, [cut, splice])| {
            for (place, byte) in replaced {
                if !data.is_empty() {
                    let at = place.index(data.len());
                    data[at] = byte;
                }
            }
            let part = |len: usize, a: &prop::sample::Index, b: &prop::sample::Index| {
                let (a, b) = (a.index(len + 1), b.index(len + 1));
                a.min(b)..a.max(b)
            };
            if cut {
                data.drain(part(data.len(), &places[0], &places[1]));
            }
            if splice {
                let at = places[0].index(data.len() + 1);
                let piece = other[part(other.len(), &places[2], &places[3])].to_vec();
                data.splice(at..at, piece);
            }
            data
        },
    )
}

macro_rules! targets {
    ($($target:ident)+) => {
        const NAMES: &[&str] = &[$(stringify!($target)),+];

        $(mod $target {
            use super::*;

            const NAME: &str = stringify!($target);

            #[test]
            fn keeps_its_promises_for_every_seed_of_the_corpus() {
                let seeds = corpus(NAME);
                assert!(!seeds.is_empty());
                for (path, data) in seeds {
                    println!("{}", path.display());
                    run(NAME, &data);
                }
            }

            proptest! {
                #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

                #[test]
                fn keeps_its_promises_for_changed_seeds(data in changed(NAME)) {
                    run(NAME, &data);
                }

                #[test]
                fn keeps_its_promises_for_arbitrary_bytes(data in prop::collection::vec(any::<u8>(), 0..600)) {
                    run(NAME, &data);
                }
            }
        })+
    };
}

targets! {
    websocket_codec handshake deflate http_head http_body event_stream centrifuge_json centrifuge_client
    centrifuge_protobuf fossil filter selector position_token packets plain jwt config session stomp_codec stomp
}

#[test]
fn every_target_is_tested_and_has_its_way_into_libfuzzer() {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, NAMES);
    for name in names {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz_targets/{name}.rs"));
        let text = std::fs::read_to_string(&path).expect("a target has its file");
        assert!(text.contains(&format!("longwire_fuzz::{name}::run(data)")), "{}", path.display());
    }
}
