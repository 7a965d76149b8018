//! Revocations in memory and on the system's disk.

use super::*;
use crate::env::Disk;
use std::path::Path;

const NOW: i64 = 1_800_000_000;

fn token(jti: &str) -> Revoked {
    Revoked::Token(jti.to_owned())
}

/// Ends a process: its keeper sees that nothing more will come.
async fn end(revocations: Revocations) {
    drop(revocations);
    tokio::task::yield_now().await;
}

fn user(user: &str, issued_before: i64) -> Revoked {
    Revoked::User { user: user.to_owned(), issued_before }
}

async fn revoke(revocations: &Revocations, revoked: &Revoked, expires_at: i64) -> Result<(), NotRevoked> {
    revocations.revoke(revoked, expires_at)?.await
}

fn data_dir(path: &Path) -> DataDir {
    DataDir::new(Disk::system(), path)
}

fn load(path: &Path, now: i64) -> (Revocations, Keeper) {
    Revocations::load(data_dir(path), 7, now).expect("the journal is read")
}

/// What is revoked, with a keeper at work.
fn revocations(path: &Path) -> Revocations {
    let (revocations, keeper) = load(path, NOW);
    tokio::spawn(keeper.run());
    revocations
}

#[tokio::test]
async fn a_token_is_revoked_by_its_id_until_its_time_is_over() {
    let root = tempfile::tempdir().unwrap();
    let revocations = revocations(root.path());
    revoke(&revocations, &token("a"), NOW + 10).await.unwrap();
    revoke(&revocations, &token("b"), 0).await.unwrap();
    let is_revoked = |jti, at| revocations.is_revoked("42", Some(jti), None, at);
    assert_eq!(["a", "b", "c"].map(|jti| is_revoked(jti, NOW)), [true, true, false]);
    assert_eq!((is_revoked("a", NOW + 10), is_revoked("b", i64::MAX - 1)), (false, true));
    assert!(!revocations.is_revoked("42", None, None, NOW), "a token without an id");
    revocations.expire(NOW + 10);
    assert_eq!(lock(&revocations.table).len(), 1);
}

#[tokio::test]
async fn the_tokens_of_a_user_are_revoked_by_their_time_of_issue() {
    let root = tempfile::tempdir().unwrap();
    let revocations = revocations(root.path());
    revoke(&revocations, &user("42", NOW), NOW + 10).await.unwrap();
    let is_revoked = |user, issued_at| revocations.is_revoked(user, Some("x"), issued_at, NOW);
    assert!(is_revoked("42", Some(NOW - 1)));
    assert!(is_revoked("42", None), "one that does not say may be old");
    assert!(!is_revoked("42", Some(NOW)));
    assert!(!is_revoked("7", Some(NOW - 1)));
    // An earlier time and an earlier end change nothing.
    revoke(&revocations, &user("42", NOW - 5), NOW + 1).await.unwrap();
    assert!(is_revoked("42", Some(NOW - 1)) && revocations.is_revoked("42", None, None, NOW + 9));
}

#[tokio::test]
async fn a_connection_is_known_again_by_its_token() {
    let root = tempfile::tempdir().unwrap();
    let revocations = revocations(root.path());
    let proof = revocations.proof(Some("a"), Some(NOW));
    for (revoked, is_about) in [
        (token("a"), true),
        (token("b"), false),
        (user("42", NOW + 1), true),
        (user("42", NOW), false),
        (user("7", NOW + 1), false),
    ] {
        assert_eq!(revocations.is_about(&revoked, "42", &proof), is_about, "{revoked:?}");
    }
    assert!(!revocations.is_about(&token(""), "42", &Proof::default()));
}

#[tokio::test]
async fn what_was_revoked_stays_revoked_in_the_next_run() {
    let root = tempfile::tempdir().unwrap();
    let first = revocations(root.path());
    assert_eq!(Disk::system().list(root.path()).unwrap().len(), 0, "nothing is made before it is needed");
    revoke(&first, &token("a"), NOW + 10).await.unwrap();
    revoke(&first, &token("b"), NOW + 20).await.unwrap();
    revoke(&first, &user("42", NOW), 0).await.unwrap();
    end(first).await;
    let (later, _keeper) = load(root.path(), NOW + 15);
    assert_eq!(["a", "b"].map(|jti| later.is_revoked("7", Some(jti), None, NOW + 15)), [false, true]);
    assert!(later.is_revoked("42", None, Some(NOW - 1), NOW + 15));
    assert_eq!(lock(&later.table).len(), 2, "what is past its time is not read back");
}

#[tokio::test]
async fn the_journal_does_not_grow_with_what_is_past_its_time() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join(DIRECTORY);
    let mut journal = open(&data_dir(root.path()), 6).unwrap();
    let (kind, payload) = encode(&token("kept"), i64::MAX);
    journal.append(kind, &payload).unwrap();
    // What 40,000 calls would have written, in fewer syncs.
    for n in 0..40_000 {
        let (kind, payload) = encode(&token(&format!("gone {n}")), NOW - 1);
        if journal.append(kind, &payload).is_err() {
            journal.commit().unwrap();
            journal.append(kind, &payload).unwrap();
        }
    }
    journal.commit().unwrap();
    drop(journal);
    assert!(Disk::system().list(&directory).unwrap().len() > 1);
    let first = revocations(root.path());
    revoke(&first, &token("last"), 0).await.unwrap();
    assert_eq!(Disk::system().list(&directory).unwrap().len(), 1);
    end(first).await;
    let (later, _keeper) = load(root.path(), NOW);
    assert!(["kept", "last"].iter().all(|jti| later.is_revoked("", Some(jti), None, NOW)));
}

#[tokio::test]
async fn calls_at_the_same_time_are_made_durable_together() {
    let root = tempfile::tempdir().unwrap();
    let (revocations, mut keeper) = load(root.path(), NOW);
    let calls = (0..100).map(|n| {
        let jti = token(&n.to_string());
        Box::pin(revocations.revoke(&jti, 0).unwrap())
    });
    let mut calls: Vec<_> = calls.collect();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(calls.iter_mut().all(|call| call.as_mut().poll(&mut cx).is_pending()), "nothing is durable yet");
    let mut waiting = Vec::new();
    while let Ok(letter) = keeper.letters.try_recv() {
        waiting.push(letter);
    }
    assert_eq!((waiting.len(), keeper.keep(&waiting).is_ok()), (100, true));
    assert_eq!(keeper.journal.as_ref().map(Journal::durable), Some(100));
}

#[tokio::test]
async fn beyond_the_bound_a_call_is_refused_and_nothing_is_forgotten() {
    let root = tempfile::tempdir().unwrap();
    let revocations = Revocations { max_entries: 2, ..revocations(root.path()) };
    revoke(&revocations, &token("a"), NOW + 10).await.unwrap();
    revoke(&revocations, &user("42", NOW), NOW + 10).await.unwrap();
    assert_eq!(revoke(&revocations, &token("b"), 0).await, Err(NotRevoked::Full));
    revoke(&revocations, &token("a"), NOW + 20).await.unwrap();
    revocations.expire(NOW + 10);
    revoke(&revocations, &token("b"), 0).await.unwrap();
    assert!(revocations.is_revoked("", Some("a"), None, NOW + 10));
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_is_told_and_the_revocation_holds_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    let revocations = revocations(&path);
    // A file stands where the directory would be made.
    std::fs::write(&path, "").unwrap();
    assert!(matches!(revoke(&revocations, &token("a"), 0).await, Err(NotRevoked::NotDurable(_))));
    assert!(revocations.is_revoked("", Some("a"), None, NOW));
}

#[tokio::test]
async fn a_damaged_journal_is_not_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let first = revocations(root.path());
    for jti in ["a", "b"] {
        revoke(&first, &token(jti), 0).await.unwrap();
    }
    end(first).await;
    let directory = root.path().join(DIRECTORY);
    let segment = directory.join(&Disk::system().list(&directory).unwrap()[0]);
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(1).position(|byte| byte == b"a").unwrap();
    bytes[at] ^= 0xff;
    std::fs::write(&segment, bytes).unwrap();
    let opened = Revocations::load(data_dir(root.path()), 8, NOW);
    assert!(matches!(opened.err(), Some(JournalError::Damaged(_))));
}

#[tokio::test]
async fn another_process_is_refused_the_directory_and_told_whose_it_is() {
    let root = tempfile::tempdir().unwrap();
    let (first, keeper) = load(root.path(), NOW);
    let (second, second_keeper) = load(root.path(), NOW);
    let keeping = tokio::spawn(keeper.run());
    tokio::spawn(second_keeper.run());
    revoke(&first, &token("a"), 0).await.unwrap();
    let refused = revoke(&second, &token("b"), 0).await.unwrap_err().to_string();
    let third = Revocations::load(data_dir(root.path()), 8, NOW).err().expect("it is in use").to_string();
    for text in [refused, third] {
        for part in [&*root.path().display().to_string(), "another process", "server.data_dir"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }
    drop(first);
    keeping.await.unwrap();
    revoke(&second, &token("b"), 0).await.unwrap();
    end(second).await;
    let (later, _keeper) = load(root.path(), NOW);
    assert!(["a", "b"].iter().all(|jti| later.is_revoked("", Some(jti), None, NOW)));
}

#[tokio::test]
async fn after_an_outage_of_the_disk_calls_are_durable_again_and_those_of_the_outage_too() {
    let root = tempfile::tempdir().unwrap();
    let (directory, away) = (root.path().join(DIRECTORY), root.path().join("away"));
    std::fs::create_dir(&directory).unwrap();
    let first = revocations(root.path());
    std::fs::rename(&directory, &away).unwrap();
    let long = |n: usize| token(&format!("{n:0>MAX_ID_BYTES$}"));
    // More than the journal keeps in memory.
    for n in 0..300 {
        assert!(matches!(revoke(&first, &long(n), 0).await, Err(NotRevoked::NotDurable(_))));
    }
    std::fs::rename(&away, &directory).unwrap();
    revoke(&first, &long(300), 0).await.unwrap();
    end(first).await;
    let (later, _keeper) = load(root.path(), NOW);
    let count = lock(&later.table).len();
    assert!((200..=301).contains(&count), "{count}: what the journal could keep, and the last");
}
