//! Webhooks: what this server asks a backend before a client may do something.
//!
//! One method for each: who a client is (connect, refresh), what it may have (subscribe, sub_refresh), what it may
//! say (publish), and what only the backend can answer (rpc). Names and forms are those of Centrifugo's proxies.
//! What a backend is told of plain connections is in [`calls`], which makes its requests by the same means.
//! [`Backend`] makes the request, signs it, bounds how many are under way, reads the answer and counts; what an
//! answer means for a session is the caller's business. What must stay true: no call runs on a shard's thread, each
//! attempt ends within twice its timeout, one webhook that is slow delays no other, and whatever a backend answers
//! ends as a [`Refusal`] at worst.

mod answers;
pub mod calls;
mod outage;

use crate::auth::ServerSubscription;
use crate::config::{Config, DEFAULT_WEBHOOK, WEBHOOKS, Webhook};
use crate::env::http::{Answer, Call, HttpError, Method};
use crate::env::{Clock, Http};
use crate::errands::Errands;
use crate::signature;
use crate::telemetry::{Counter, TellingCounters, WebhookCounters};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use longwire_protocol::command::Connect;
use longwire_protocol::message::{ClientId, ReplyError};
use longwire_protocol::{Close, CloseReason, ErrorCode};
use outage::Outage;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Longest id of a user that a backend may bind a connection to.
pub const MAX_USER_BYTES: usize = 1024;

/// What a webhook decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WebhookKind {
    /// Who a client without a token is.
    Connect,
    /// Whether a connection lives on.
    Refresh,
    /// Whether a client may subscribe.
    Subscribe,
    /// What a client may publish.
    Publish,
    /// Whether a subscription lives on.
    SubRefresh,
    /// What a method of the backend answers.
    Rpc,
    /// What a plain connection that begins is given.
    Open,
    /// What follows from a message of a plain connection.
    Message,
    /// Told that a plain connection has ended; nothing is decided.
    Close,
}

impl WebhookKind {
    /// The word in settings, logs and metrics.
    pub fn as_str(self) -> &'static str {
        WEBHOOKS[self as usize]
    }
}

/// The client on whose behalf a backend is asked.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The connection.
    pub client: ClientId,
    /// Its user; empty for the anonymous one, and before it is known.
    pub user: Arc<str>,
    /// The word for its transport.
    pub transport: &'static str,
    /// `json` or `protobuf`.
    pub protocol: &'static str,
    /// What is handed on with every request.
    pub baggage: Option<Arc<Baggage>>,
}

/// What a connection keeps for its webhooks.
#[derive(Clone, Default, PartialEq)]
pub struct Baggage {
    /// Headers of its HTTP request that some webhook is to get; names in lower case.
    pub headers: Box<[(String, String)]>,
    /// Headers of its connect command that some webhook is to get; names in lower case.
    pub emulated_headers: Box<[(String, String)]>,
    /// Raw JSON that stays on the server; empty if absent.
    pub meta: Bytes,
}

impl Baggage {
    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.emulated_headers.is_empty() && self.meta.is_empty()
    }
}

impl fmt::Debug for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Cookies and keys are among the values.
        let names = |headers: &[(String, String)]| -> Vec<String> {
            headers.iter().map(|(name, _)| name.clone()).collect()
        };
        f.debug_struct("Baggage")
            .field("headers", &names(&self.headers))
            .field("emulated_headers", &names(&self.emulated_headers))
            .field("meta_bytes", &self.meta.len())
            .finish()
    }
}

/// Who a client is, as the connect webhook says.
#[derive(Clone, Debug, PartialEq)]
pub struct Welcome {
    /// The user; empty for the anonymous one.
    pub user: Arc<str>,
    /// When the connection ends unless it is refreshed, in seconds since 1970.
    pub expires_at: Option<i64>,
    /// Raw JSON that others see; empty if absent.
    pub info: Bytes,
    /// Payload for the client; empty if absent.
    pub data: Bytes,
    /// Raw JSON that stays on the server; empty if absent.
    pub meta: Bytes,
    /// Subscriptions that the server makes, by channel, sorted.
    pub channels: Vec<(String, ServerSubscription)>,
}

/// What becomes of a connection or a subscription whose time has come.
#[derive(Clone, Debug, PartialEq)]
pub enum Renewal {
    /// It ends.
    Expired,
    /// It lives on.
    Until {
        /// The time in seconds since 1970; `None` for ever.
        expires_at: Option<i64>,
        /// Raw JSON that others see from this moment on, if it changed.
        info: Option<Bytes>,
        /// Raw JSON that stays on the server, if it changed; only of a connection.
        meta: Option<Bytes>,
    },
}

/// What a subscription that the backend allows comes with.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// What it comes with.
    pub terms: ServerSubscription,
    /// When it ends unless it is refreshed, in seconds since 1970.
    pub expires_at: Option<i64>,
}

/// How a publication that the backend allows is published.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Published {
    /// The payload instead of the client's.
    pub data: Option<Bytes>,
    /// Do not keep it.
    pub skip_history: bool,
    /// Tags for filters, sorted by key.
    pub tags: Vec<(String, String)>,
    /// What makes a repetition have no effect; empty if nothing does.
    pub idempotency_key: String,
    /// Send it as a difference where that is agreed upon.
    pub delta: bool,
    /// Number of what is published; 0 for none. One that is not above the last has no effect.
    pub version: u64,
    /// What the numbers count within.
    pub version_epoch: String,
}

/// Why the backend does not let a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// The backend could not be asked, or what it answered cannot be understood.
    Failed,
    /// The command is answered by this error.
    Error(ReplyError),
    /// The connection is closed.
    Close(Close),
}

/// What longwire asks of backends.
pub struct Backend {
    /// By [`WebhookKind`].
    defaults: [Option<Arc<Hook>>; WEBHOOKS.len()],
    named: BTreeMap<String, Arc<Hook>>,
    rpc_namespaces: BTreeMap<String, String>,
    errands: Errands,
    shared: Arc<Shared>,
}

/// What the calls need where they are made.
struct Shared {
    http: Http,
    clock: Clock,
    secret: Option<String>,
    max_pending: usize,
    counters: [WebhookCounters; WEBHOOKS.len()],
    /// What became of messages.
    messages: TellingCounters,
    /// What became of the ends of connections.
    ends: TellingCounters,
    /// Messages that there is no webhook for.
    unheard: Mutex<Outage>,
    /// How many bytes of messages wait whose sessions ended.
    rest_bytes: AtomicUsize,
    /// How long messages and ends are tried.
    retry_for: Duration,
    max_session_data_bytes: usize,
}

/// One configured webhook.
struct Hook {
    /// Its section in the settings.
    section: String,
    url: Arc<str>,
    rules: Webhook,
    /// Calls that may be made at once.
    permits: Semaphore,
    /// Calls that are made or wait.
    pending: AtomicUsize,
    outage: Mutex<Outage>,
}

/// A call among those that are made or wait.
struct Pending(Arc<Hook>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call among those that are made.
struct InFlight<'a>(&'a Counter);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

/// What a request says beside who the client is.
#[derive(Default)]
struct Request<'a> {
    channel: Option<&'a str>,
    method: Option<&'a str>,
    data: &'a [u8],
    name: &'a str,
    version: &'a str,
    channels: Vec<&'a str>,
    login: &'a str,
    passcode: &'a str,
    host: &'a str,
}

/// The body of a request.
#[derive(Serialize)]
struct Body<'a> {
    client: String,
    transport: &'a str,
    protocol: &'a str,
    encoding: &'a str,
    // Also for the anonymous user, whose name is empty: a backend may rely on the member.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "String::is_empty")]
    b64data: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    channels: Vec<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    login: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    passcode: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
}

impl Backend {
    /// The webhooks of a configuration.
    pub fn new(config: &Config, http: Http, errands: Errands, clock: Clock) -> Backend {
        let hook = |section: String, rules: &Webhook| {
            let url = rules.endpoint.as_deref()?.into();
            Some(Arc::new(Hook {
                section,
                url,
                rules: rules.clone(),
                permits: Semaphore::new(config.webhook.max_in_flight.min(Semaphore::MAX_PERMITS)),
                pending: AtomicUsize::new(0),
                outage: Mutex::default(),
            }))
        };
        let named = config.webhooks.iter();
        let namespaces = config.rpc_namespaces.iter();
        Backend {
            defaults: std::array::from_fn(|i| {
                hook(format!("webhook.{}", WEBHOOKS[i]), &config.default_webhooks[i])
            }),
            named: named
                .filter_map(|(name, rules)| Some((name.clone(), hook(format!("webhooks.{name}"), rules)?)))
                .collect(),
            rpc_namespaces: namespaces.map(|(name, rules)| (name.clone(), rules.webhook.clone())).collect(),
            errands,
            shared: Arc::new(Shared {
                http,
                clock,
                secret: config.webhook.secret.clone(),
                max_pending: config.webhook.max_in_flight.saturating_add(config.webhook.max_waiting),
                counters: Default::default(),
                messages: TellingCounters::default(),
                ends: TellingCounters::default(),
                unheard: Mutex::default(),
                rest_bytes: AtomicUsize::new(0),
                retry_for: config.plain.retry_for,
                max_session_data_bytes: config.plain.max_session_data_bytes,
            }),
        }
    }

    /// Whether a webhook says who clients without a token are.
    pub fn identifies(&self) -> bool {
        self.hook(WebhookKind::Connect, DEFAULT_WEBHOOK).is_some()
    }

    /// Whether a webhook prolongs connections.
    pub fn refreshes(&self) -> bool {
        self.hook(WebhookKind::Refresh, DEFAULT_WEBHOOK).is_some()
    }

    /// What the calls of an event came to.
    pub fn counters(&self, event: WebhookKind) -> &WebhookCounters {
        &self.shared.counters[event as usize]
    }

    /// Says who a client is; `None` if the backend says that it gives no credentials.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn connect(&self, asker: &Asker, connect: &Connect) -> Result<Option<Welcome>, Refusal> {
        let may_be_binary = may_be_binary(asker);
        let request = Request {
            data: &connect.data,
            name: &connect.name,
            version: &connect.version,
            channels: connect.subs.iter().map(|sub| &*sub.channel).collect(),
            login: &connect.login,
            passcode: &connect.passcode,
            host: &connect.host,
            ..Request::default()
        };
        let hook = self.hook(WebhookKind::Connect, DEFAULT_WEBHOOK);
        let decode = move |result: Option<&RawValue>| answers::welcome(result, may_be_binary);
        self.ask(WebhookKind::Connect, hook, asker, request, decode).await
    }

    /// Says what becomes of a connection whose time has come.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn refresh(&self, asker: &Asker) -> Result<Renewal, Refusal> {
        let hook = self.hook(WebhookKind::Refresh, DEFAULT_WEBHOOK);
        self.ask(WebhookKind::Refresh, hook, asker, Request::default(), answers::renewal).await
    }

    /// Says whether a client may subscribe, and with what. `name` is that of the webhook.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn subscribe(
        &self,
        name: &str,
        asker: &Asker,
        channel: &str,
        data: &Bytes,
    ) -> Result<Admission, Refusal> {
        let may_be_binary = may_be_binary(asker);
        let request = Request { channel: Some(channel), data, ..Request::default() };
        let hook = self.hook(WebhookKind::Subscribe, name);
        let decode = move |result: Option<&RawValue>| answers::admission(result, may_be_binary);
        self.ask(WebhookKind::Subscribe, hook, asker, request, decode).await
    }

    /// Says whether and how a client's publication is published. `name` is that of the webhook.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn publish(
        &self,
        name: &str,
        asker: &Asker,
        channel: &str,
        data: &Bytes,
    ) -> Result<Published, Refusal> {
        let may_be_binary = may_be_binary(asker);
        let request = Request { channel: Some(channel), data, ..Request::default() };
        let hook = self.hook(WebhookKind::Publish, name);
        let decode = move |result: Option<&RawValue>| answers::published(result, may_be_binary);
        self.ask(WebhookKind::Publish, hook, asker, request, decode).await
    }

    /// Says what becomes of a subscription whose time has come. `name` is that of the webhook.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn sub_refresh(&self, name: &str, asker: &Asker, channel: &str) -> Result<Renewal, Refusal> {
        let request = Request { channel: Some(channel), ..Request::default() };
        let hook = self.hook(WebhookKind::SubRefresh, name);
        self.ask(WebhookKind::SubRefresh, hook, asker, request, answers::renewal).await
    }

    /// What a method of the backend answers.
    ///
    /// # Errors
    /// `MethodNotFound` for a namespace that is not configured, `NotAvailable` where nobody is to be asked; else see
    /// [`Refusal`].
    pub async fn rpc(&self, asker: &Asker, method: &str, data: &Bytes) -> Result<Bytes, Refusal> {
        let name = match method.split_once(':') {
            None => DEFAULT_WEBHOOK,
            Some((namespace, _)) => match self.rpc_namespaces.get(namespace) {
                Some(name) => name,
                None => return Err(Refusal::Error(ErrorCode::MethodNotFound.into())),
            },
        };
        let may_be_binary = may_be_binary(asker);
        let request = Request { method: Some(method), data, ..Request::default() };
        let decode = move |result: Option<&RawValue>| answers::rpc(result, may_be_binary);
        self.ask(WebhookKind::Rpc, self.hook(WebhookKind::Rpc, name), asker, request, decode).await
    }

    fn hook(&self, event: WebhookKind, name: &str) -> Option<&Arc<Hook>> {
        match name {
            DEFAULT_WEBHOOK => self.defaults[event as usize].as_ref(),
            _ => self.named.get(name),
        }
    }

    /// Makes a request and reads its answer.
    async fn ask<T: Send + 'static>(
        &self,
        event: WebhookKind,
        hook: Option<&Arc<Hook>>,
        asker: &Asker,
        request: Request<'_>,
        decode: impl FnOnce(Option<&RawValue>) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Refusal> {
        let Some(hook) = hook else { return Err(Refusal::Error(ErrorCode::NotAvailable.into())) };
        let body = body(event, &hook.rules, asker, &request)?;
        let headers = headers(&hook.rules, asker.baggage.as_deref());
        let Ok(place) = self.shared.place(event, hook) else { return Err(Refusal::Failed) };
        let shared = self.shared.clone();
        let job = async move {
            let read = |body: &[u8]| answers::read(body, decode);
            let outcome = shared.attempt(event, &place.0, headers, body, read, std::future::pending()).await;
            outcome.unwrap_or(Err(Refusal::Failed))
        };
        // Without an outcome the server is stopping.
        self.errands.run_while_wanted(job).await.unwrap_or(Err(Refusal::Failed))
    }
}

/// What is wrong with a call.
#[derive(Debug)]
struct Problem {
    what: String,
    trouble: Trouble,
}

/// How far a call came that went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trouble {
    /// It did not come to the backend.
    Unmade,
    /// It came to no answer; what the backend made of it is not known.
    Unanswered,
    /// The backend says that it fails at the moment.
    PutOff,
    /// The backend will have none of it, or must not be asked.
    Refused,
    /// The backend took it, and what it said cannot be understood.
    Garbled,
}

impl Trouble {
    /// Whether the same call may be taken a moment later.
    fn may_pass(self) -> bool {
        matches!(self, Trouble::Unmade | Trouble::Unanswered | Trouble::PutOff)
    }

    fn of(error: &HttpError) -> Trouble {
        match error {
            HttpError::Unreachable(_) => Trouble::Unmade,
            HttpError::TimedOut(_) | HttpError::Broken(_) => Trouble::Unanswered,
            HttpError::TooLarge(_) => Trouble::Garbled,
            HttpError::NotPublic => Trouble::Refused,
        }
    }
}

impl Shared {
    /// Finds a place for a call among those that are made or wait.
    fn place(&self, event: WebhookKind, hook: &Arc<Hook>) -> Result<Pending, Problem> {
        let pending = hook.pending.fetch_add(1, Ordering::Relaxed);
        let place = Pending(hook.clone());
        if pending < self.max_pending {
            return Ok(place);
        }
        let what = "webhook.max_waiting requests wait already".to_owned();
        let problem = Problem { what, trouble: Trouble::Unmade };
        self.note_failure(event, hook, &problem);
        Err(problem)
    }

    /// Makes a call that has its place and notes how it went; one that `gone` comes before is not made.
    async fn attempt<T>(
        &self,
        event: WebhookKind,
        hook: &Hook,
        headers: Vec<(String, String)>,
        body: Bytes,
        read: impl FnOnce(&[u8]) -> Result<Result<T, Refusal>, String>,
        gone: impl Future<Output = ()>,
    ) -> Result<Result<T, Refusal>, Problem> {
        let turn = tokio::select! {
            biased;
            () = gone => {
                let what = "nobody waits for it any more".to_owned();
                return Err(Problem { what, trouble: Trouble::Unmade });
            }
            turn = self.turn(hook) => turn,
        };
        let answer = match turn {
            Ok(_turn) => self.call(event, hook, headers, body).await,
            Err(problem) => Err(problem),
        };
        let outcome = answer.and_then(|answer| judge(event, &hook.rules, &answer, read));
        match &outcome {
            Ok(_) => self.note_answer(event, hook),
            Err(problem) => self.note_failure(event, hook, problem),
        }
        outcome
    }

    /// Waits for a call's turn.
    async fn turn<'h>(&self, hook: &'h Hook) -> Result<SemaphorePermit<'h>, Problem> {
        let timeout = hook.rules.timeout;
        let turn = self.clock.timeout(timeout, hook.permits.acquire()).await;
        turn.and_then(Result::ok).ok_or_else(|| {
            let what = format!("no turn within {timeout:?}: webhook.max_in_flight requests are under way");
            Problem { what, trouble: Trouble::Unmade }
        })
    }

    /// Makes a call whose turn it is.
    async fn call(
        &self,
        event: WebhookKind,
        hook: &Hook,
        mut headers: Vec<(String, String)>,
        body: Bytes,
    ) -> Result<Answer, Problem> {
        let (clock, timeout) = (self.clock, hook.rules.timeout);
        if let Some(secret) = &self.secret {
            let signature = signature::sign(secret, clock.unix_seconds(), &body);
            headers.push((signature::HEADER.to_owned(), signature));
        }
        let counters = &self.counters[event as usize];
        counters.calls.add(1);
        counters.in_flight.add(1);
        let _in_flight = InFlight(&counters.in_flight);
        let began = clock.now();
        let answer = self.http.call(Call {
            method: Method::Post,
            url: hook.url.clone(),
            headers,
            body,
            timeout,
            max_answer_bytes: MAX_ANSWER_BYTES,
            must_be_public: hook.rules.public_addresses_only,
        });
        let answer = answer.await;
        counters.took(clock.now() - began);
        answer.map_err(|error| Problem { what: error.to_string(), trouble: Trouble::of(&error) })
    }

    fn note_failure(&self, event: WebhookKind, hook: &Hook, problem: &Problem) {
        self.counters[event as usize].failures.add(1);
        let line = hook.outage.lock().unwrap_or_else(PoisonError::into_inner).failed(self.clock.now());
        let Some(failures) = line else { return };
        let consequence = match event {
            WebhookKind::Message | WebhookKind::Close if problem.trouble.may_pass() => {
                "what it is told waits and is tried again"
            }
            WebhookKind::Message | WebhookKind::Close => "what it was told is dropped",
            _ => "its clients are told to try again",
        };
        let (webhook, event, problem) = (&hook.section, event.as_str(), &problem.what);
        tracing::warn!(webhook, event, failures, problem, "a webhook fails: {consequence}");
    }

    fn note_answer(&self, event: WebhookKind, hook: &Hook) {
        let line = hook.outage.lock().unwrap_or_else(PoisonError::into_inner).answered(self.clock.now());
        if let Some(length) = line {
            let (webhook, event) = (&hook.section, event.as_str());
            tracing::info!(webhook, event, ?length, "a webhook answers again");
        }
    }
}

/// What an answer comes to.
fn judge<T>(
    event: WebhookKind,
    rules: &Webhook,
    answer: &Answer,
    read: impl FnOnce(&[u8]) -> Result<Result<T, Refusal>, String>,
) -> Result<Result<T, Refusal>, Problem> {
    let Answer { status, body } = answer;
    if let Some(transform) = rules.status_transforms.iter().find(|transform| transform.status == *status) {
        return Ok(Err(answers::refusal(&transform.answer)));
    }
    let trouble = match status {
        200..=299 => return read(body).map_err(|what| Problem { what, trouble: Trouble::Garbled }),
        // The backend knows the client and does not want it: coming back at once would change nothing.
        401 | 403 if matches!(event, WebhookKind::Connect | WebhookKind::Open) => {
            return Ok(Err(Refusal::Close(CloseReason::PermissionDenied.into())));
        }
        429 | 500..=599 => Trouble::PutOff,
        _ => Trouble::Refused,
    };
    Err(Problem { what: format!("the backend answered with status {status}"), trouble })
}

/// The body of a request.
fn body(event: WebhookKind, rules: &Webhook, asker: &Asker, request: &Request<'_>) -> Result<Bytes, Refusal> {
    let (mut data, mut b64data) = (None, String::new());
    if rules.binary_encoding {
        b64data = STANDARD.encode(request.data);
    } else if !request.data.is_empty() {
        // Who speaks Protobuf may send anything; put into the body it would be a part of it.
        let raw = serde_json::from_slice::<&RawValue>(request.data);
        data = Some(raw.map_err(|_| Refusal::Error(ErrorCode::BadRequest.into()))?);
    }
    let meta = asker.baggage.as_ref().filter(|_| rules.include_connection_meta);
    let meta = meta.and_then(|baggage| serde_json::from_slice::<&RawValue>(&baggage.meta).ok());
    let body = Body {
        client: asker.client.to_string(),
        transport: asker.transport,
        protocol: asker.protocol,
        encoding: if rules.binary_encoding { "binary" } else { "json" },
        user: (event != WebhookKind::Connect).then_some(&*asker.user),
        channel: request.channel,
        method: request.method,
        data,
        b64data,
        name: request.name,
        version: request.version,
        channels: request.channels.clone(),
        login: request.login,
        passcode: request.passcode,
        host: request.host,
        meta,
    };
    let text = serde_json::to_vec(&body).expect("strings and raw JSON can always be written");
    Ok(text.into())
}

/// The headers of a request. What the client's own request said is stronger than what its connect command says, and
/// both are stronger than the settings; none may change how the body is read.
fn headers(rules: &Webhook, baggage: Option<&Baggage>) -> Vec<(String, String)> {
    let mut headers = rules.static_headers.clone();
    if let Some(baggage) = baggage {
        for (kept, allowed) in
            [(&baggage.emulated_headers, &rules.emulated_headers), (&baggage.headers, &rules.http_headers)]
        {
            let handed_on: Vec<_> = kept.iter().filter(|(name, _)| allowed.contains(name)).cloned().collect();
            headers.retain(|(name, _)| handed_on.iter().all(|(stronger, _)| stronger != name));
            headers.extend(handed_on);
        }
    }
    headers.push(("content-type".to_owned(), "application/json".to_owned()));
    headers
}

fn may_be_binary(asker: &Asker) -> bool {
    asker.protocol == "protobuf"
}

#[cfg(test)]
mod tests;
