//! The keys that an issuer publishes (JWKS, RFC 7517): one address, and its keys by their names.
//!
//! `judge` looks a key up by the name that a token gives; a name that is not there is what [`Jwks::fetch`] is
//! for. Fetching is done beside the shards (`errands`), which only wait for it. What must stay true: at most one
//! fetch is in progress and at most one begins in [`PAUSE`], whatever tokens name; keys are kept until the
//! issuer itself answers without them; nothing of a token is put into the address, so that a key is always
//! one of this issuer's; the answer and the number of its keys are bounded.

use super::key::{Jwk, Key};
use crate::env::http::{Call, Method};
use crate::env::{Clock, Http};
use crate::errands::Errands;
use arc_swap::ArcSwap;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The least time between the beginnings of two fetches.
pub(super) const PAUSE: Duration = Duration::from_secs(10);

/// The time after which a refresh that failed is tried again, unless a token asks for it before.
const SECOND_TRY: Duration = Duration::from_secs(60);

/// The time for one fetch.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most that an issuer may answer.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Keys that are kept at most, and the length of their names.
const MAX_KEYS: usize = 100;
const MAX_NAME_BYTES: usize = 256;

/// The keys of an issuer.
pub(super) struct Jwks(Arc<Shared>);

/// What tokens may be checked with, as the issuer's keys stand.
pub(super) enum Lookup {
    /// A key of this name for another algorithm.
    OtherAlgorithm,
    /// No key of this name.
    Unknown,
}

/// Why keys were not fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotFetched {
    /// The issuer did not answer, or with nonsense.
    Failed,
    /// It answered a moment ago.
    TooSoon,
}

struct Shared {
    /// The setting that has the address.
    name: &'static str,
    url: Arc<str>,
    refresh: Duration,
    keys: ArcSwap<Vec<Named>>,
    outside: Option<Outside>,
    flight: Mutex<Flight>,
    landed: watch::Sender<Landed>,
}

struct Named {
    kid: String,
    key: Key,
}

/// What fetching needs.
struct Outside {
    http: Http,
    clock: Clock,
    errands: Errands,
}

#[derive(Default)]
struct Flight {
    /// When the last fetch began.
    begun: Option<Instant>,
    number: u64,
    is_in_progress: bool,
    /// Whether the last fetch that ended succeeded.
    is_good: bool,
}

/// The last fetch that ended.
#[derive(Clone, Copy, Default)]
struct Landed {
    number: u64,
    is_good: bool,
}

impl Jwks {
    /// The keys at the address `url`; none before the first fetch.
    pub(super) fn new(name: &'static str, url: &str, refresh: Duration) -> Jwks {
        Jwks(Arc::new(Shared {
            name,
            url: url.into(),
            refresh,
            keys: ArcSwap::default(),
            outside: None,
            flight: Mutex::default(),
            landed: watch::Sender::default(),
        }))
    }

    /// Lets it fetch; without, it has no keys.
    pub(super) fn fetch_with(&mut self, http: Http, clock: Clock, errands: Errands) {
        // Nobody else has it before it can fetch.
        if let Some(shared) = Arc::get_mut(&mut self.0) {
            shared.outside = Some(Outside { http, clock, errands });
        }
    }

    /// Has `check` check a token with the key of this name.
    pub(super) fn with<T>(
        &self,
        kid: &str,
        algorithm: Algorithm,
        check: impl FnOnce(&Key) -> T,
    ) -> Result<T, Lookup> {
        let keys = self.0.keys.load();
        // RFC 7517 section 4.5: keys of different kinds may have the same name.
        match keys.iter().find(|named| named.kid == kid && named.key.serves(algorithm)) {
            Some(named) => Ok(check(&named.key)),
            None if keys.iter().any(|named| named.kid == kid) => Err(Lookup::OtherAlgorithm),
            None => Err(Lookup::Unknown),
        }
    }

    /// Waits until the issuer has answered: this time, if somebody asked it already.
    ///
    /// # Errors
    /// Why it has not.
    pub(super) async fn fetch(&self) -> Result<(), NotFetched> {
        let mut landed = self.0.landed.subscribe();
        let number = self.0.begin(PAUSE)?;
        match landed.wait_for(|landed| landed.number >= number).await {
            Ok(landed) if landed.is_good => Ok(()),
            _ => Err(NotFetched::Failed),
        }
    }

    /// Fetches again what is older than it should be; called every few seconds, waits for nothing.
    pub(super) fn tend(&self) {
        let pause = match self.0.flight().is_good {
            true => self.0.refresh,
            false => self.0.refresh.min(SECOND_TRY),
        };
        // That one is in progress or not due is as well.
        let _ = self.0.begin(pause.max(PAUSE));
    }
}

impl Shared {
    fn flight(&self) -> MutexGuard<'_, Flight> {
        // Every change is complete when it can panic.
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a fetch, unless one is in progress or the last began less than `pause` ago; the number of the one in
    /// progress.
    fn begin(self: &Arc<Shared>, pause: Duration) -> Result<u64, NotFetched> {
        let Some(Outside { http, clock, errands }) = &self.outside else { return Err(NotFetched::Failed) };
        let landing = {
            let now = clock.now();
            let mut flight = self.flight();
            if flight.is_in_progress {
                return Ok(flight.number);
            }
            if flight.begun.is_some_and(|begun| now < begun + pause) {
                return Err(if flight.is_good { NotFetched::TooSoon } else { NotFetched::Failed });
            }
            flight.begun = Some(now);
            flight.number += 1;
            flight.is_in_progress = true;
            Landing { shared: self.clone(), number: flight.number, is_good: false }
        };
        let number = landing.number;
        // It is done whether or not somebody waits; that it ended is told by `landed`.
        drop(errands.run(fetch(landing, http.clone())));
        Ok(number)
    }
}

/// Tells that a fetch ended, also if it was dropped or panicked.
struct Landing {
    shared: Arc<Shared>,
    number: u64,
    is_good: bool,
}

impl Drop for Landing {
    fn drop(&mut self) {
        {
            let mut flight = self.shared.flight();
            flight.is_in_progress = false;
            flight.is_good = self.is_good;
        }
        self.shared.landed.send_replace(Landed { number: self.number, is_good: self.is_good });
    }
}

/// Fetches the keys once.
async fn fetch(mut landing: Landing, http: Http) {
    let shared = landing.shared.clone();
    let (setting, url) = (shared.name, &*shared.url);
    match ask(&http, &shared).await {
        Ok(keys) => {
            tracing::debug!(setting, url, keys = keys.len(), "the issuer's keys were fetched");
            shared.keys.store(Arc::new(keys));
            landing.is_good = true;
        }
        Err(error) => {
            let kept = shared.keys.load().len();
            tracing::warn!(setting, url, error, kept, "the issuer's keys could not be fetched");
        }
    }
}

async fn ask(http: &Http, shared: &Shared) -> Result<Vec<Named>, String> {
    let call = Call {
        method: Method::Get,
        url: shared.url.clone(),
        headers: vec![("accept".to_owned(), "application/json".to_owned())],
        body: bytes::Bytes::new(),
        timeout: TIMEOUT,
        max_answer_bytes: MAX_ANSWER_BYTES,
        must_be_public: false,
    };
    let answer = http.call(call).await.map_err(|error| error.to_string())?;
    // A redirect is no answer: the operator said where the keys are.
    if answer.status != 200 {
        return Err(format!("the answer has the status {}", answer.status));
    }
    // Another client than the system's may have passed over the bound.
    if answer.body.len() > MAX_ANSWER_BYTES {
        return Err(format!("the answer is larger than {MAX_ANSWER_BYTES} bytes"));
    }
    read(shared.name, &answer.body)
}

#[derive(Deserialize)]
struct Set<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// The keys of a JWKS that can check tokens. Others are passed over (RFC 7517 section 5).
fn read(setting: &'static str, json: &[u8]) -> Result<Vec<Named>, String> {
    let set: Set<'_> =
        serde_json::from_slice(json).map_err(|_| "the answer is no JWKS (RFC 7517)".to_owned())?;
    let mut keys = Vec::new();
    for (index, raw) in set.keys.iter().enumerate() {
        if keys.len() == MAX_KEYS {
            tracing::warn!(setting, all = set.keys.len(), MAX_KEYS, "not all keys of the issuer are used");
            break;
        }
        let named = serde_json::from_str::<Jwk>(raw.get())
            .map_err(|_| "it is malformed".to_owned())
            .and_then(|jwk| {
                let kid = jwk.kid.clone().filter(|kid| !kid.is_empty() && kid.len() <= MAX_NAME_BYTES);
                let kid = kid.ok_or("it has no name (`kid`), or a very long one")?;
                Ok(Named { kid, key: Key::of_jwk(setting, &jwk)? })
            });
        match named {
            Ok(named) => keys.push(named),
            Err(why) => tracing::info!(setting, index, why, "a key of the issuer is not used"),
        }
    }
    Ok(keys)
}
