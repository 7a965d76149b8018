//! The methods of the API: what each does with the node.
//!
//! A call is read completely before anything is done, so a body with a mistake anywhere has no effect. A
//! backend needs no permission: whoever may call may do everything. What is asked for and does not exist
//! here (labels, `info` of a refresh) is refused with `not available`, never ignored.

use super::answer::{self, Answer};
use super::inspect;
use super::queues::{self, Refusal};
use super::requests::{
    Batch, Command, Cut, Disconnect, History, InvalidateUserTokens, Publish, Refresh, RevokeToken,
    StreamPosition, Subscribe, Unsubscribe, from_object, payload,
};
use super::sessions;
use crate::auth::ServerSubscription;
use crate::env::disk;
use crate::history::{Part, Version};
use crate::node::control::{Control, Pattern, ServerSubscribe, Target};
use crate::node::revocation::Revoked;
use crate::node::survey::{Reach, Sent};
use crate::node::{NewPublication, Node, json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use longwire_protocol::json::{write_number, write_string};
use longwire_protocol::message::{ClientId, Except};
use longwire_protocol::queue::Verdict;
use longwire_protocol::{Close, CloseReason, Epoch, ErrorCode, Since};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::Path;

/// Longest reason in a close frame: a control frame has 125 bytes, the code takes two (RFC 6455 section 5.5).
const MAX_CLOSE_REASON_BYTES: usize = 123;

/// What the replies of a batch may hold together before its remaining commands are refused.
const MAX_BATCH_REPLY_BYTES: usize = 64 * 1024 * 1024;

/// Calls `method` with `body`.
pub async fn call(node: &Node, method: &str, body: &Bytes) -> Answer {
    let is_batch = method == "batch";
    if !is_batch && !Command::METHODS.contains(&method) {
        return Answer::NoSuchMethod;
    }
    node.api_calls.add(1);
    let json = match checked(body) {
        Ok(json) => json,
        Err(what) => return Answer::Malformed(what),
    };
    if is_batch {
        return batch(node, body, json).await;
    }
    match Command::parse(method, json) {
        Some(Ok(command)) => match execute(node, body, command).await {
            Ok(result) => Answer::Result(result),
            Err(refusal) => refusal.into(),
        },
        Some(Err(error)) => Answer::Malformed(error.to_string()),
        None => Answer::NoSuchMethod,
    }
}

/// Cuts connections as a broken network would: the button of the demo page.
pub(super) async fn cut(node: &Node, body: &Bytes) -> Answer {
    let request: Cut = match checked(body).and_then(|json| from_object(json).map_err(|e| e.to_string())) {
        Ok(request) => request,
        Err(what) => return Answer::Malformed(what),
    };
    let target = match ClientId::parse(&request.client) {
        Some(client) => Target { client: Some(client), ..Target::default() },
        None if request.all => Target::default(),
        None => return Answer::Error(ErrorCode::BadRequest),
    };
    node.order(Control::Cut { target }).await;
    Answer::Result(b"{}".to_vec())
}

fn checked(body: &Bytes) -> Result<&str, String> {
    if !json::is_depth_allowed(body) {
        return Err("lists and objects are nested too deep".to_owned());
    }
    std::str::from_utf8(body).map_err(|error| error.to_string())
}

/// Runs commands one after another, also where `parallel` allows any order: none waits for another machine.
async fn batch(node: &Node, body: &Bytes, json: &str) -> Answer {
    let request: Batch<'_> = match from_object(json) {
        Ok(request) => request,
        Err(error) => return Answer::Malformed(error.to_string()),
    };
    if request.commands.len() > node.config.api.max_broadcast_channels {
        return Answer::Error(ErrorCode::BadRequest);
    }
    let mut commands = Vec::with_capacity(request.commands.len());
    for (i, raw) in request.commands.into_iter().enumerate() {
        match parse_in_batch(raw) {
            Ok(command) => commands.push(command),
            Err(error) => return Answer::Malformed(format!("command {i}: {error}")),
        }
    }
    let mut out = vec![b'['];
    for (i, command) in commands.into_iter().enumerate() {
        answer::separate(i, &mut out);
        let outcome = match command {
            Ok(_) if out.len() > MAX_BATCH_REPLY_BYTES => Err(ErrorCode::LimitExceeded.into()),
            Ok((name, command)) => execute(node, body, command).await.map(|result| (name, result)),
            Err(code) => Err(code.into()),
        };
        match outcome {
            Ok((name, result)) => answer::write_member(name, &result, &mut out),
            Err(refusal) => answer::write_error(&refusal, &mut out),
        }
    }
    out.push(b']');
    Answer::Replies(out)
}

type InBatch<'a> = Result<(&'static str, Command<'a>), ErrorCode>;

/// Reads `{"publish":{...}}`; of several methods the first in the order of the table counts.
fn parse_in_batch(raw: Option<&RawValue>) -> Result<InBatch<'_>, serde_json::Error> {
    let Some(raw) = raw else { return Ok(Err(ErrorCode::BadRequest)) };
    let members: BTreeMap<String, Option<&RawValue>> = from_object(raw.get())?;
    for name in Command::METHODS {
        if let Some(Some(fields)) = members.get(*name)
            && let Some(command) = Command::parse(name, fields.get())
        {
            return Ok(Ok((*name, command?)));
        }
    }
    Ok(Err(ErrorCode::MethodNotFound))
}

/// Carries out one command; the JSON of its result.
async fn execute(node: &Node, body: &Bytes, command: Command<'_>) -> Result<Vec<u8>, Refusal> {
    match command {
        Command::QueuePublish(request) => queues::publish(node, *request).await,
        Command::QueueReceive(request) => queues::receive(node, request).await,
        Command::QueueAck(request) => queues::settle(node, request, Verdict::Ack).await,
        Command::QueueNack(request) => {
            let verdict = queues::nack_verdict(&request);
            queues::settle(node, request, verdict).await
        }
        Command::QueueStats(request) => queues::stats(node, request).await,
        Command::QueueList(request) => queues::list(node, request).await,
        Command::QueuePeek(request) => queues::peek(node, request).await,
        Command::QueuePurge(request) => queues::purge(node, request).await,
        Command::QueueRemove(request) => queues::remove(node, request).await,
        Command::QueueMove(request) => queues::move_messages(node, request).await,
        others => execute_other(node, body, others).await.map_err(Refusal::from),
    }
}

/// Carries out one command that is about no queue.
async fn execute_other(node: &Node, body: &Bytes, command: Command<'_>) -> Result<Vec<u8>, ErrorCode> {
    match command {
        Command::Publish(request) => publish(node, body, request).await,
        Command::Broadcast(request) => broadcast(node, body, request).await,
        Command::Subscribe(request) => subscribe(node, body, *request).await,
        Command::Unsubscribe(request) => unsubscribe(node, request).await,
        Command::Disconnect(request) => disconnect(node, request).await,
        Command::Refresh(request) => refresh(node, body, request).await,
        Command::Presence(request) => Ok(answer::presence(&node.presence(&request.channel)?)),
        Command::PresenceStats(request) => {
            let (clients, users) = node.presence_stats(&request.channel)?;
            Ok(format!("{{\"num_clients\":{clients},\"num_users\":{users}}}").into_bytes())
        }
        Command::History(request) => history(node, request).await,
        Command::HistoryRemove(request) => {
            node.remove_history(&request.channel).await?;
            done()
        }
        Command::Channels(request) => {
            let channels = node.channels(Pattern(request.pattern)).await;
            Ok(answer::channels(channels.iter().map(|(channel, count)| (&**channel, *count))))
        }
        Command::Info(_) => Ok(info(node).await),
        Command::Rpc(request) if request.method.is_empty() => Err(ErrorCode::BadRequest),
        Command::Rpc(_) => Err(ErrorCode::MethodNotFound),
        Command::Connections(request) => inspect::connections(node, request).await,
        Command::Connection(request) => inspect::connection(node, &request.client).await,
        Command::UserStatus(request) | Command::GetUserStatus(request) => {
            inspect::user_status(node, &request.users)
        }
        Command::Send(request) => sessions::send(node, body, *request).await,
        Command::Bind(request) => sessions::bind(node, request).await,
        Command::Unbind(request) => sessions::unbind(node, request).await,
        Command::IsOnline(request) => sessions::is_online(node, request).await,
        Command::UserList(request) => sessions::users(node, request).await,
        Command::SessionGet(request) => sessions::session_get(node, request).await,
        Command::SessionSet(request) => sessions::session_set(node, request).await,
        Command::SessionUpdate(request) => sessions::session_update(node, request).await,
        Command::RevokeToken(request) => revoke_token(node, request).await,
        Command::InvalidateUserTokens(request) => invalidate_user_tokens(node, request).await,
        Command::QueuePublish(_)
        | Command::QueueReceive(_)
        | Command::QueueAck(_)
        | Command::QueueNack(_)
        | Command::QueueStats(_)
        | Command::QueueList(_)
        | Command::QueuePeek(_)
        | Command::QueuePurge(_)
        | Command::QueueRemove(_)
        | Command::QueueMove(_) => Err(ErrorCode::MethodNotFound),
    }
}

fn done() -> Result<Vec<u8>, ErrorCode> {
    Ok(b"{}".to_vec())
}

fn publication(body: &Bytes, request: &mut Publish<'_>) -> Result<NewPublication, ErrorCode> {
    let data = match &*request.b64data {
        "" => request.data.map(|raw| payload(body, raw)).unwrap_or_default(),
        base64 => STANDARD.decode(base64).map_err(|_| ErrorCode::BadRequest)?.into(),
    };
    let client = match &*request.exclude_client {
        "" => None,
        // Text that is no id of ours would leave nobody out, which is not what was asked for.
        text => Some(ClientId::parse(text).ok_or(ErrorCode::BadRequest)?),
    };
    let user = Some(&*request.exclude_user).filter(|user| !user.is_empty()).map(Into::into);
    Ok(NewPublication {
        data,
        is_bytes: false,
        is_known_json: request.b64data.is_empty(),
        info: None,
        tags: std::mem::take(&mut request.tags).into_iter().collect(),
        skip_history: request.skip_history,
        use_delta: request.delta,
        idempotency_key: Some(&*request.idempotency_key).filter(|key| !key.is_empty()).map(Into::into),
        version: (request.version != 0)
            .then(|| Version { number: request.version, epoch: request.version_epoch.as_str().into() }),
        except: Except { client, user },
    })
}

/// Publishes, and asks how far it came if that is wanted; the JSON of the result.
async fn publish_one(
    node: &Node,
    channel: &str,
    new: NewPublication,
    is_reporting: bool,
) -> Result<Vec<u8>, ErrorCode> {
    let (except, tags) = (new.except.clone(), if is_reporting { new.tags.clone() } else { Vec::new() });
    let published = node.publish(channel, new).await?;
    let report = match is_reporting {
        false => None,
        true => {
            let sent = Sent { channel: channel.into(), position: published.position, except, tags };
            let reach = node.reach(sent).await;
            // An old version went to nobody. A call that is repeated is told how far the first one came.
            let is_sent = !published.is_suppressed || published.is_repeat;
            Some((node.id, Reach { reached: if is_sent { reach.reached } else { 0 }, ..reach }))
        }
    };
    Ok(answer::published(published.position, report))
}

async fn publish(node: &Node, body: &Bytes, mut request: Publish<'_>) -> Result<Vec<u8>, ErrorCode> {
    node.channel_options(&request.channel)?;
    let publication = publication(body, &mut request)?;
    publish_one(node, &request.channel, publication, request.report).await
}

async fn broadcast(node: &Node, body: &Bytes, mut request: Publish<'_>) -> Result<Vec<u8>, ErrorCode> {
    if request.channels.is_empty() || request.channels.len() > node.config.api.max_broadcast_channels {
        return Err(ErrorCode::BadRequest);
    }
    let publication = publication(body, &mut request)?;
    if publication.data.is_empty() {
        return Err(ErrorCode::BadRequest);
    }
    let mut out = b"{\"responses\":[".to_vec();
    for (i, channel) in request.channels.iter().enumerate() {
        answer::separate(i, &mut out);
        match publish_one(node, channel, publication.clone(), request.report).await {
            Ok(result) => answer::write_member("result", &result, &mut out),
            Err(code) => answer::write_error(&code.into(), &mut out),
        }
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

async fn subscribe(node: &Node, body: &Bytes, request: Subscribe<'_>) -> Result<Vec<u8>, ErrorCode> {
    node.channel_options(&request.channel)?;
    if request.needs_what_is_not_there() {
        return Err(ErrorCode::NotAvailable);
    }
    let subscribe = ServerSubscribe {
        terms: ServerSubscription {
            info: either(body, request.info, &request.b64info)?,
            data: either(body, request.data, &request.b64data)?,
            overrides: request.r#override.map(|options| options.overrides()).unwrap_or_default(),
        },
        expires_at: Some(request.expire_at).filter(|at| *at != 0),
        recover_since: request.recover_since.map(since),
        channel: request.channel,
    };
    if let Some(target) = target(request.user, &request.client, request.session) {
        node.order_subscribe(target, subscribe).await?;
    }
    done()
}

async fn unsubscribe(node: &Node, request: Unsubscribe) -> Result<Vec<u8>, ErrorCode> {
    // Nobody is subscribed to the channel without a name, and asking for it is no error.
    if request.channel.is_empty() {
        return done();
    }
    node.channel_options(&request.channel)?;
    let target = match request.all {
        true => everybody(&[&request.user, &request.client, &request.session])?,
        false => target(request.user, &request.client, request.session),
    };
    if let Some(target) = target {
        node.order(Control::Unsubscribe { target, channel: request.channel.into() }).await;
    }
    done()
}

async fn disconnect(node: &Node, request: Disconnect) -> Result<Vec<u8>, ErrorCode> {
    let close = match request.disconnect {
        None => CloseReason::ForceDisconnect.into(),
        Some(custom) => {
            let code = match custom.code {
                0 => CloseReason::ForceDisconnect.code(),
                code @ 3000..=4999 => code as u16,
                _ => return Err(ErrorCode::BadRequest),
            };
            if !is_close_reason(&custom.reason) {
                return Err(ErrorCode::BadRequest);
            }
            Close::custom(CloseReason::ForceDisconnect, code, custom.reason)
        }
    };
    let target = match request.all {
        true => everybody(&[&request.user, &request.client, &request.session])?,
        false => target(request.user, &request.client, request.session),
    };
    if let Some(mut target) = target {
        target.except = request.whitelist.iter().filter_map(|id| ClientId::parse(id)).collect();
        node.order(Control::Disconnect { target, close }).await;
    }
    done()
}

async fn refresh(node: &Node, body: &Bytes, request: Refresh<'_>) -> Result<Vec<u8>, ErrorCode> {
    let info = request.info.map(|info| payload(body, info));
    let expires_at = (!request.expired).then_some(request.expire_at);
    if let Some(target) = target(request.user, &request.client, request.session) {
        node.order(Control::Refresh { target, expires_at, info }).await;
    }
    done()
}

async fn revoke_token(node: &Node, request: RevokeToken) -> Result<Vec<u8>, ErrorCode> {
    let is_closing = request.disconnect.unwrap_or(true);
    node.revoke(Revoked::Token(request.uid), not_negative(request.expire_at)?, is_closing).await?;
    done()
}

async fn invalidate_user_tokens(node: &Node, request: InvalidateUserTokens) -> Result<Vec<u8>, ErrorCode> {
    if !request.channel.is_empty() {
        return Err(ErrorCode::NotAvailable);
    }
    let issued_before = match not_negative(request.issued_before)? {
        0 => node.env.clock.unix_seconds(),
        time => time,
    };
    let revoked = Revoked::User { user: request.user, issued_before };
    let is_closing = request.disconnect.unwrap_or(true);
    node.revoke(revoked, not_negative(request.expire_at)?, is_closing).await?;
    done()
}

fn not_negative(time: i64) -> Result<i64, ErrorCode> {
    if time < 0 { Err(ErrorCode::BadRequest) } else { Ok(time) }
}

async fn history(node: &Node, request: History) -> Result<Vec<u8>, ErrorCode> {
    let part = Part {
        since: request.since.map(since),
        limit: usize::try_from(request.limit).unwrap_or(usize::MAX),
        reverse: request.reverse,
    };
    let page = node.history(&request.channel, part).await?;
    Ok(answer::history(&page.publications, page.top))
}

async fn info(node: &Node) -> Vec<u8> {
    let census = node.census().await;
    let name = disk::read_to_string(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
    let name = if name.trim().is_empty() { "longwire" } else { name.trim() };
    let uptime = node.env.clock.now().saturating_duration_since(node.env.clock.start());
    let mut out = b"{\"nodes\":[{\"uid\":".to_vec();
    write_string(&node.id.to_string(), &mut out);
    out.extend_from_slice(b",\"name\":");
    write_string(name, &mut out);
    out.extend_from_slice(b",\"version\":");
    write_string(env!("CARGO_PKG_VERSION"), &mut out);
    for (member, number) in [
        ("num_clients", census.clients as u64),
        ("num_users", census.users.len() as u64),
        ("num_channels", census.channels.len() as u64),
        ("num_subs", census.subscriptions as u64),
        ("uptime", uptime.as_secs()),
    ] {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(member.as_bytes());
        out.extend_from_slice(b"\":");
        write_number(number, &mut out);
    }
    out.extend_from_slice(b"}]}");
    out
}

/// Whose connections a call is about; `None` if it can only be nobody's.
///
/// Nothing at all means the anonymous user, as in the API that this one follows. With a client or a session
/// and no user, whoever has it is meant.
fn target(user: String, client: &str, session: String) -> Option<Target> {
    let session = Some(session).filter(|session| !session.is_empty());
    let client = match client {
        "" => None,
        // Text that is no id of ours names no connection; taking it for "any" would hit everybody.
        text => Some(ClientId::parse(text)?),
    };
    let is_user_open = user.is_empty() && (client.is_some() || session.is_some());
    Some(Target { user: (!is_user_open).then_some(user), client, session, except: Vec::new() })
}

/// Every connection there is; nobody in particular may be named beside.
fn everybody(named: &[&String]) -> Result<Option<Target>, ErrorCode> {
    if named.iter().all(|name| name.is_empty()) {
        Ok(Some(Target::default()))
    } else {
        Err(ErrorCode::BadRequest)
    }
}

fn since(position: StreamPosition) -> Since {
    let epoch = Some(position.epoch).filter(|epoch| !epoch.is_empty());
    Since { offset: position.offset, epoch: epoch.map(|epoch| Epoch::parse(&epoch)) }
}

/// The payload of a field and its base64 twin, which wins unless it is empty.
fn either(body: &Bytes, raw: Option<&RawValue>, base64: &str) -> Result<Bytes, ErrorCode> {
    if base64.is_empty() {
        return Ok(raw.map(|raw| payload(body, raw)).unwrap_or_default());
    }
    let decoded = STANDARD.decode(base64).map_err(|_| ErrorCode::BadRequest)?;
    // What clients are told beside publications is JSON in every protocol.
    if json::is_valid(&decoded) { Ok(decoded.into()) } else { Err(ErrorCode::NotAvailable) }
}

/// Whether a text may stand in a close frame: short, and no JSON, which centrifuge-js would take apart.
fn is_close_reason(text: &str) -> bool {
    text.len() <= MAX_CLOSE_REASON_BYTES && serde_json::from_str::<serde::de::IgnoredAny>(text).is_err()
}
