//! Passcodes of configured users: verified beside the shards, since each takes as long as thousands of messages.
//!
//! [`Passcodes`] is the way to the [`Clerk`], whose thread does nothing else; so many wait for it at most, then clients
//! are told to come again. A passcode that was right is remembered by a hash of it and of what it was compared with: a
//! thousand clients of one user that come back at once cost one verification. What must stay true: no passcode is kept,
//! logged or compared byte by byte.

use crate::config::Config;
use crate::env::Rng;
use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{self, Digest};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Verifications that may wait: some seconds of work.
const MAX_WAITING: usize = 128;

/// Judges logins.
pub struct Passcodes {
    hashes: BTreeMap<String, Arc<str>>,
    asks: mpsc::Sender<Ask>,
    /// What each user's right passcode comes to, once it was shown.
    known: Mutex<BTreeMap<String, Digest>>,
}

/// Verifies passcodes, one after another.
pub struct Clerk(mpsc::Receiver<Ask>);

struct Ask {
    hash: Arc<str>,
    passcode: String,
    verdict: oneshot::Sender<bool>,
}

/// What a login is judged to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Login {
    /// A configured user with its passcode.
    Right,
    /// A configured user without it.
    Wrong,
    /// No configured user has this name and a passcode.
    Unknown,
    /// Too many are judged at present.
    Busy,
}

impl Passcodes {
    /// Those of a configuration, and who verifies them: nobody, if there are none.
    pub(super) fn new(config: &Config) -> (Passcodes, Option<Clerk>) {
        let (asks, receiver) = mpsc::channel(MAX_WAITING);
        let hash = |user: &crate::config::User| user.passcode.as_deref().map(Into::into);
        let hashes = config.users.iter().filter_map(|(name, user)| Some((name.clone(), hash(user)?)));
        let passcodes = Passcodes { hashes: hashes.collect(), asks, known: Mutex::default() };
        let clerk = (!passcodes.hashes.is_empty()).then_some(Clerk(receiver));
        (passcodes, clerk)
    }

    /// Judges a login.
    pub async fn judge(&self, login: &str, passcode: &str) -> Login {
        let Some(hash) = self.hashes.get(login) else { return Login::Unknown };
        let mut context = digest::Context::new(&digest::SHA256);
        // No hash has a line feed in it, so that it is clear where the passcode begins.
        for part in [hash, "\n", passcode] {
            context.update(part.as_bytes());
        }
        let shown = context.finish();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let is_equal = |known: &Digest| verify_slices_are_equal(known.as_ref(), shown.as_ref()).is_ok();
            if known.get(login).is_some_and(is_equal) {
                return Login::Right;
            }
        }
        let (verdict, outcome) = oneshot::channel();
        let ask = Ask { hash: hash.clone(), passcode: passcode.to_owned(), verdict };
        if self.asks.try_send(ask).is_err() {
            return Login::Busy;
        }
        match outcome.await {
            Ok(true) => {
                self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(login.to_owned(), shown);
                Login::Right
            }
            Ok(false) => Login::Wrong,
            // The server is stopping.
            Err(_) => Login::Busy,
        }
    }
}

impl Clerk {
    /// Verifies what comes, for as long as anybody can ask.
    pub async fn run(mut self) {
        while let Some(Ask { hash, passcode, verdict }) = self.0.recv().await {
            // Whoever asked may have gone meanwhile.
            if !verdict.is_closed() {
                let _ = verdict.send(is_right(&hash, &passcode));
            }
        }
    }
}

fn is_right(hash: &str, passcode: &str) -> bool {
    Argon2::default().verify_password(passcode.as_bytes(), hash).is_ok()
}

/// The hash of a passcode, as the configuration has it.
///
/// # Errors
/// The passcode is longer than argon2 takes, or there is no memory for it.
pub fn hash_passcode(passcode: &str, rng: &mut Rng) -> Result<String, String> {
    let salt = rng.bits_128().to_be_bytes();
    let hash = Argon2::default().hash_password_with_salt(passcode.as_bytes(), &salt);
    hash.map(|hash| hash.to_string()).map_err(|error| format!("the passcode cannot be hashed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::User;

    fn passcodes() -> (Passcodes, Clerk) {
        let mut config = Config::default();
        let hash = hash_passcode("right", &mut Rng::from_seed(7)).unwrap();
        config.users.insert("ann".to_owned(), User { passcode: Some(hash), ..User::default() });
        config.users.insert("token".to_owned(), User::default());
        let (passcodes, clerk) = Passcodes::new(&config);
        (passcodes, clerk.expect("there is a passcode"))
    }

    #[tokio::test]
    async fn a_passcode_is_right_for_its_user_alone() {
        let (passcodes, clerk) = passcodes();
        let judged = async {
            for (login, passcode, expected) in [
                ("ann", "wrong", Login::Wrong),
                ("ann", "right", Login::Right),
                ("ann", "", Login::Wrong),
                ("Ann", "right", Login::Unknown),
                ("token", "right", Login::Unknown),
                ("", "", Login::Unknown),
            ] {
                assert_eq!(passcodes.judge(login, passcode).await, expected, "{login} {passcode}");
            }
        };
        tokio::select! {
            () = judged => {}
            () = clerk.run() => panic!("it ends when nobody can ask"),
        }
        // The right one is known without being verified, and nothing else is.
        assert_eq!(passcodes.judge("ann", "right").await, Login::Right);
        assert_eq!(passcodes.judge("ann", "wrong").await, Login::Busy, "the clerk is gone");
    }

    #[tokio::test]
    async fn so_many_logins_wait_and_no_more() {
        use std::future::Future;
        let (passcodes, _clerk) = passcodes();
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(passcodes.judge("ann", "x"))).collect();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for one in &mut waiting {
            assert!(one.as_mut().poll(&mut context).is_pending());
        }
        assert_eq!(passcodes.judge("ann", "x").await, Login::Busy);
    }

    #[test]
    fn nobody_verifies_where_there_are_no_passcodes() {
        assert!(Passcodes::new(&Config::default()).1.is_none());
    }
}
