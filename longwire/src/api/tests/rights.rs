//! Who a client of STOMP is, and what it may do with queues: judged by the node, without a connection.

use super::World;
use crate::auth::{hash_passcode, sign};
use crate::backend::Asker;
use crate::config::{Anonymous, Config, QueueOptions, User};
use crate::env::Rng;
use crate::node::{Arrival, Denied, Identity, QueueAction, Whence};
use bytes::Bytes;
use longwire_protocol::command::Connect;
use longwire_protocol::message::ClientId;
use longwire_protocol::queue::{
    AckMode, Consume, Headers, Meant, NewMessage, QueueCommand, QueueErrorKind, Verdict,
};
use std::time::Duration;

const SECRET: &str = "a secret of at least 32 bytes, all in all";

/// Nothing is open to everybody; `ann` has a passcode and rights.
fn strict(config: &mut Config) {
    config.client.insecure = false;
    config.auth.hmac_secret = Some(SECRET.into());
    let ann = User {
        passcode: Some(hash_passcode("right", &mut Rng::from_seed(7)).unwrap()),
        send: vec!["/queue/work.#".into(), "/topic/chat".into()],
        subscribe: vec!["/queue/work.ann".into(), "/topic/$secret".into()],
        admin: vec!["/queue/~durable/#".into()],
    };
    config.users.insert("ann".into(), ann);
    config
        .queues
        .named
        .insert("open.*".into(), QueueOptions { allow_send_for_client: true, ..QueueOptions::default() });
    let free = QueueOptions {
        allow_send_for_client: true,
        allow_send_for_anonymous: true,
        allow_consume_for_client: true,
        allow_consume_for_anonymous: true,
        ..QueueOptions::default()
    };
    config.queues.named.insert("free".into(), free);
}

fn asker() -> Asker {
    Asker {
        client: ClientId::from_random(5),
        user: "".into(),
        transport: "tcp",
        protocol: "stomp",
        baggage: None,
    }
}

async fn log_in(
    world: &World,
    login: &str,
    passcode: &str,
    address: &str,
) -> Result<(Arrival, Connect), Denied> {
    let mut connect = Connect { login: login.into(), passcode: passcode.into(), ..Connect::default() };
    let whence = Whence { address: address.parse().unwrap(), is_hidden: false };
    let arrival = world.node.log_in(&asker(), &mut connect, whence).await?;
    Ok((arrival, connect))
}

async fn user(world: &World, login: &str, passcode: &str, address: &str) -> Result<String, String> {
    match log_in(world, login, passcode, address).await {
        Ok((arrival, _)) => Ok(arrival.token.user.to_string()),
        Err(Denied::Error(error)) => Err(error.message.into_owned()),
        Err(denied) => panic!("{denied:?}"),
    }
}

const REMOTE: &str = "192.0.2.1";

#[tokio::test(start_paused = true)]
async fn a_login_is_right_or_refused_after_the_same_time() {
    let mut world = World::new(strict);
    let clerk = world.clerk.take().expect("there is a passcode");
    let judged = async {
        assert_eq!(user(&world, "ann", "right", REMOTE).await, Ok("ann".into()));
        for (login, passcode) in [("ann", "wrong"), ("ann", ""), ("bob", "right"), ("", "right"), ("bob", "")]
        {
            let begun = world.node.env.clock.now();
            let refused = user(&world, login, passcode, "127.0.0.1").await;
            assert_eq!(refused, Err("wrong login or passcode".into()), "{login} {passcode}");
            assert_eq!(world.node.env.clock.now() - begun, Duration::from_secs(1), "{login} {passcode}");
        }
    };
    tokio::select! {
        () = judged => {}
        () = clerk.run() => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_may_stand_in_the_passcodes_place() {
    let world = World::new(strict);
    let claims = |exp: i64| serde_json::json!({"sub": "42", "exp": exp});
    let good = sign(SECRET, &claims(1_900_000_000)).unwrap();
    let Ok((arrival, connect)) = log_in(&world, "anything", &good, REMOTE).await else {
        panic!("the token is good");
    };
    assert_eq!((&*arrival.token.user, &*connect.token, &*connect.passcode), ("42", &*good, ""));
    let expired = sign(SECRET, &claims(1_700_000_000)).unwrap();
    let foreign = sign("another secret of at least 32 bytes, is it", &claims(1_900_000_000)).unwrap();
    for token in [expired, foreign] {
        assert_eq!(user(&world, "x", &token, REMOTE).await, Err("wrong login or passcode".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn who_shows_nothing_is_anonymous_where_that_is_allowed() {
    for (anonymous, address, is_let_in) in [
        (Anonymous::Loopback, "127.0.0.1", true),
        (Anonymous::Loopback, "::1", true),
        (Anonymous::Loopback, "::ffff:127.0.0.1", true),
        (Anonymous::Loopback, REMOTE, false),
        (Anonymous::Loopback, "10.0.0.1", false),
        (Anonymous::Always, REMOTE, true),
        (Anonymous::Never, "127.0.0.1", false),
    ] {
        let world = World::new(|config| {
            strict(config);
            config.stomp.anonymous = anonymous;
        });
        let expected = if is_let_in { Ok("".into()) } else { Err("login and passcode are needed".into()) };
        assert_eq!(user(&world, "", "", address).await, expected, "{anonymous:?} {address}");
    }
    let insecure = World::new(|config| config.stomp.anonymous = Anonymous::Never);
    assert_eq!(user(&insecure, "", "", REMOTE).await, Ok("".into()));
    assert_eq!(user(&insecure, "guest", "guest", REMOTE).await, Ok("".into()));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_on_this_machine_for_coming_by_its_proxy() {
    let hidden = Whence { address: "127.0.0.1".parse().unwrap(), is_hidden: true };
    for (anonymous, is_let_in) in
        [(Anonymous::Loopback, false), (Anonymous::Always, true), (Anonymous::Never, false)]
    {
        let world = World::new(|config| {
            strict(config);
            config.stomp.anonymous = anonymous;
        });
        let arrival = world.node.log_in(&asker(), &mut Connect::default(), hidden).await;
        assert_eq!(arrival.is_ok(), is_let_in, "{anonymous:?}");
        if let Err(Denied::Error(error)) = arrival {
            let is_named = error.message.contains("server.trusted_proxies");
            assert_eq!(is_named, anonymous == Anonymous::Loopback, "{}", error.message);
        }
    }
}

fn identity(user: &str) -> Identity {
    Identity { user: user.into(), client: ClientId::from_random(5), info: Bytes::new() }
}

#[tokio::test]
async fn a_queue_is_used_by_those_who_have_a_right() {
    use QueueAction::{Consume, Send};
    let own = format!("~temp/{}/x", ClientId::from_random(5));
    let foreign = format!("~temp/{}/x", ClientId::from_random(6));
    let world = World::new(strict);
    for (user, queue, action, expected) in [
        ("ann", "work", Send, true),
        ("ann", "work.bob", Send, true),
        ("ann", "work.bob", Consume, false),
        ("ann", "work.ann", Consume, true),
        ("ann", "workshop", Send, false),
        ("bob", "work.bob", Send, false),
        ("", "work", Send, false),
        ("bob", "open.a", Send, true),
        ("bob", "open.a", Consume, false),
        ("bob", "open.a.b", Send, false),
        ("", "open.a", Send, false),
        ("", "free", Send, true),
        ("", "free", Consume, true),
        ("bob", &own, Send, true),
        ("bob", &own, Consume, true),
        ("bob", &foreign, Send, true),
        ("bob", &foreign, Consume, false),
        ("bob", "~temp/", Consume, false),
        ("bob", "~durable/ann/x", Consume, false),
        ("ann", "~durable/ann/x", Consume, true),
        ("ann", "~other", Send, false),
    ] {
        let found = world.node.authorize_queue(&identity(user), queue, action);
        assert_eq!(found.is_ok(), expected, "{user} {queue} {action:?}");
        let kind = found.err().map(|error| (error.kind, error.detail));
        assert_eq!(kind, (!expected).then(|| (QueueErrorKind::PermissionDenied, queue.to_owned())));
    }
    let insecure = World::new(|_| {});
    assert!(insecure.node.authorize_queue(&identity(""), "any", Consume).is_ok());
    assert!(insecure.node.authorize_queue(&identity(""), &foreign, Consume).is_err());
}

#[tokio::test]
async fn a_transaction_needs_the_rights_of_all_that_is_in_it() {
    let world = World::new(strict);
    let send = |queue: &str| {
        QueueCommand::Send(Box::new(NewMessage {
            queue: queue.into(),
            headers: Headers::default(),
            body: Bytes::new(),
            priority: 4,
            is_persistent: true,
            expiry: None,
            delay: Duration::ZERO,
        }))
    };
    let settle = || QueueCommand::Settle { meant: Meant::Delivery(1), verdict: Verdict::Ack };
    let may = |command: QueueCommand| world.node.authorize_queue_command(&identity("ann"), &command);
    assert!(may(QueueCommand::Transaction(vec![send("work.a"), settle()])).is_ok());
    let denied = may(QueueCommand::Transaction(vec![send("work.a"), send("other")])).unwrap_err();
    assert_eq!(denied.detail, "other");
    let consume = |queue: &str| {
        QueueCommand::Consume(Box::new(Consume {
            consumer: 1,
            queue: queue.into(),
            ack: AckMode::Auto,
            prefetch: None,
            selector: None,
            is_exclusive: false,
            is_browsing: true,
            durable_of: None,
        }))
    };
    assert!(may(consume("work.ann")).is_ok() && may(consume("work.bob")).is_err());
}

#[tokio::test]
async fn a_user_has_rights_on_channels_beside_what_all_have() {
    let world = World::new(|config| {
        strict(config);
        (config.channel.allow_publish_for_client, config.channel.allow_publish_for_subscriber) =
            (false, false);
        config.channel.allow_subscribe_for_client = false;
    });
    let node = &world.node;
    assert!(node.authorize_publish("ann", "chat", false).is_ok());
    assert!(node.authorize_publish("ann", "news", false).is_err());
    assert!(node.authorize_publish("bob", "chat", false).is_err());
    assert!(node.authorize_subscribe(&identity("ann"), "$secret", "").await.is_ok());
    assert!(node.authorize_subscribe(&identity("ann"), "chat", "").await.is_err());
    assert!(node.authorize_subscribe(&identity("bob"), "$secret", "").await.is_err());
}
