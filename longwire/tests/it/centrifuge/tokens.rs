//! Tokens: who a client is, what it brings along, and what happens when its time is over.

use crate::harness::{Raw, TestServer, in_seconds, longwire, token, until};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use longwire::auth::sign;
use longwire_protocol::CloseReason;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn connect_command(token: &str) -> String {
    json!({"id": 1, "connect": {"token": token}}).to_string()
}

#[test]
fn a_valid_token_connects_its_user_and_tells_how_long_it_is_good() {
    let server = TestServer::start();
    let mut raw = server.open();
    let reply = raw.connect(&token(&json!({"sub": "42", "exp": in_seconds(600)})));
    assert_eq!(reply["connect"]["expires"], true, "{reply}");
    let ttl = reply["connect"]["ttl"].as_u64().expect("seconds");
    assert!((540..=600).contains(&ttl), "{reply}");
    // Who it is shows in what it publishes.
    raw.subscribe("news");
    raw.ask(r#"{"id":3,"publish":{"channel":"news","data":1}}"#);
    assert_eq!(raw.value()["push"]["pub"]["info"], json!({"user": "42", "client": raw.client}));

    let for_ever = token(&json!({"sub": "42", "exp": in_seconds(600), "expire_at": 0}));
    let reply = server.open().connect(&for_ever);
    assert_eq!((reply["connect"].get("expires"), reply["connect"].get("ttl")), (None, None), "{reply}");
}

#[test]
fn an_expired_token_is_an_error_after_which_the_connection_is_of_no_use() {
    let server = TestServer::with(|config| config.client.connect_timeout = Duration::from_secs(1));
    let expired = connect_command(&token(&json!({"sub": "42", "exp": in_seconds(-1)})));
    const EXPIRED: &str = r#"{"id":1,"error":{"code":109,"message":"token expired"}}"#;
    let mut raw = server.open();
    assert_eq!(raw.ask(&expired), EXPIRED);
    raw.send(r#"{"id":2,"subscribe":{"channel":"news"}}"#);
    raw.expect_close(CloseReason::BadRequest);
    // One that does nothing more is not kept.
    let mut raw = server.open();
    assert_eq!(raw.ask(&expired), EXPIRED);
    raw.expect_close(CloseReason::BadRequest);
}

#[test]
fn a_wrong_token_closes_the_connection() {
    let server = TestServer::start();
    let good = json!({"sub": "42", "exp": in_seconds(600)});
    for wrong in [
        "x".to_owned(),
        sign("another secret than the server's!!", &good).expect("signed"),
        token(&json!({"sub": "42"})),
        token(&json!({"sub": 42, "exp": in_seconds(600)})),
        token(&json!({"sub": "42", "exp": in_seconds(600), "channel": "news"})),
        token(&json!({"sub": "42", "exp": in_seconds(600), "nbf": in_seconds(600)})),
        format!("{}x", token(&good)),
    ] {
        let mut raw = server.open();
        raw.send(&connect_command(&wrong));
        raw.expect_close(CloseReason::InvalidToken);
    }
    assert_eq!(server.closes(CloseReason::InvalidToken), 7);
}

#[test]
fn without_a_token_only_the_anonymous_are_let_in_where_they_are_allowed() {
    let server = TestServer::with(|config| config.client.allow_anonymous = false);
    let mut raw = server.open();
    raw.send(r#"{"id":1,"connect":{}}"#);
    raw.expect_close(CloseReason::BadRequest);
    server.connect_as("42");
    // A token of the anonymous user is a token.
    server.connect_as("");
}

#[test]
fn a_token_without_a_user_is_refused_where_it_is_not_wanted() {
    let server = TestServer::with(|config| config.client.allow_anonymous_tokens = false);
    let mut raw = server.open();
    raw.send(&connect_command(&token(&json!({"sub": "", "exp": in_seconds(600)}))));
    raw.expect_close(CloseReason::PermissionDenied);
    server.connect_as("42");
}

#[test]
fn a_token_may_bring_subscriptions_which_recover_like_others() {
    let server = TestServer::start();
    for n in 1..=3 {
        server.publish("kept:a", n);
    }
    let epoch = server.publish("kept:a", 4)["epoch"].clone();
    let claims = json!({
        "sub": "42", "exp": in_seconds(600), "expire_at": 0, "channels": ["news"],
        "subs": {
            "kept:a": {"data": {"x": 1}, "override": {"force_recovery": {"value": true}}},
            "seen:a": {"info": {"role": "host"}, "override": {"force_push_join_leave": {"value": true}}},
        },
    });
    let mut raw = server.open();
    let reply = raw.ask_value(&json!({"id": 1, "connect": {"token": token(&claims), "subs": {
        "kept:a": {"recover": true, "offset": 2, "epoch": epoch},
        "unknown": {"recover": true, "offset": 2, "epoch": epoch},
    }}}));
    let client = reply["connect"]["client"].clone();
    assert_eq!(
        reply["connect"]["subs"],
        json!({
            "kept:a": {
                "recoverable": true, "epoch": epoch, "recovered": true, "offset": 2, "positioned": true,
                "publications": [{"data": 3, "offset": 3}, {"data": 4, "offset": 4}], "data": {"x": 1},
                "was_recovering": true,
            },
            "news": {},
            "seen:a": {},
        }),
        "{reply}"
    );
    let info = json!({"user": "42", "client": client, "chan_info": {"role": "host"}});
    assert_eq!(raw.value(), json!({"push": {"channel": "seen:a", "join": {"info": info}}}));
    server.publish("kept:a", 5);
    assert_eq!(raw.value(), json!({"push": {"channel": "kept:a", "pub": {"data": 5, "offset": 5}}}));
    server.publish("news", "n");
    assert_eq!(raw.value(), json!({"push": {"channel": "news", "pub": {"data": "n"}}}));
    let again = raw.ask(r#"{"id":2,"subscribe":{"channel":"news"}}"#);
    assert_eq!(again, r#"{"id":2,"error":{"code":105,"message":"already subscribed"}}"#);
}

#[test]
fn a_token_with_an_unknown_channel_connects_nobody() {
    let server = TestServer::start();
    let claims = json!({"sub": "42", "exp": in_seconds(600), "channels": ["news", "nowhere:a"]});
    let mut raw = server.open();
    let reply = raw.ask(&connect_command(&token(&claims)));
    assert_eq!(reply, r#"{"id":1,"error":{"code":102,"message":"unknown channel"}}"#);
    assert_eq!(server.api("channels", &json!({})), json!({"result": {"channels": {}}}));
    raw.send(r#"{"id":2,"subscribe":{"channel":"news"}}"#);
    raw.expect_close(CloseReason::BadRequest);
}

#[test]
fn a_private_channel_needs_a_token_for_it() {
    let server = TestServer::start();
    let mut raw = server.connect_as("42");
    let claims = |change: &[(&str, Value)]| {
        let mut claims = json!({"sub": "42", "channel": "$kept:a", "exp": in_seconds(600), "data": "hi"});
        for (name, value) in change {
            claims[name] = value.clone();
        }
        token(&claims)
    };
    let subscribe = |token: &str| {
        json!({"id": 2, "subscribe": {"channel": "$kept:a", "token": token, "recoverable": true}}).to_string()
    };
    const DENIED: &str = r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#;
    assert_eq!(raw.ask(&subscribe("")), DENIED);
    assert_eq!(raw.ask(&subscribe("nonsense")), DENIED);
    assert_eq!(raw.ask(&subscribe(&crate::harness::user_token("42"))), DENIED, "a connection token");
    let expired = raw.ask(&subscribe(&claims(&[("exp", in_seconds(-1).into())])));
    assert_eq!(expired, r#"{"id":2,"error":{"code":109,"message":"token expired"}}"#);

    let reply: Value = serde_json::from_str(&raw.ask(&subscribe(&claims(&[])))).expect("JSON");
    let result = &reply["subscribe"];
    assert_eq!(
        (&result["expires"], &result["data"], &result["recoverable"]),
        (&json!(true), &json!("hi"), &json!(true))
    );
    assert!(result["ttl"].as_u64().is_some_and(|ttl| (540..=600).contains(&ttl)), "{reply}");
    server.publish("$kept:a", 1);
    assert_eq!(raw.value()["push"]["pub"], json!({"data": 1, "offset": 1}));
}

#[test]
fn a_subscription_token_of_somebody_else_closes_the_connection() {
    let server = TestServer::start();
    for (name, value) in [
        ("sub", json!("7")),
        ("sub", json!("")),
        ("channel", json!("$kept:b")),
        ("client", json!("00000000-0000-4000-8000-000000000000")),
    ] {
        let mut raw = server.connect_as("42");
        let mut claims = json!({"sub": "42", "channel": "$kept:a", "exp": in_seconds(600)});
        claims[name] = value;
        raw.send(&json!({"id": 2, "subscribe": {"channel": "$kept:a", "token": token(&claims)}}).to_string());
        raw.expect_close(CloseReason::InvalidToken);
    }
    // The client's own id is right.
    let mut raw = server.connect_as("42");
    let claims = json!({"sub": "42", "channel": "$news", "exp": in_seconds(600), "client": raw.client});
    let reply = raw.ask_value(&json!({"id": 2, "subscribe": {"channel": "$news", "token": token(&claims)}}));
    assert_eq!(reply["subscribe"]["expires"], true, "{reply}");
}

#[test]
fn a_refresh_prolongs_a_connection_and_without_one_it_ends() {
    let server = TestServer::with(|config| config.client.expired_close_delay = Duration::from_secs(1));
    let short = token(&json!({"sub": "42", "exp": in_seconds(2)}));
    let (mut forgetful, mut careful) = (server.connect_with(&short), server.connect_with(&short));
    let fresh = token(&json!({"sub": "42", "exp": in_seconds(600)}));
    let reply = careful.ask_value(&json!({"id": 2, "refresh": {"token": fresh}}));
    let result = &reply["refresh"];
    assert_eq!((&result["client"], &result["expires"]), (&json!(careful.client), &json!(true)), "{reply}");
    assert_eq!(result["version"], concat!("longwire ", env!("CARGO_PKG_VERSION")));
    assert!(result["ttl"].as_u64().is_some_and(|ttl| (540..=600).contains(&ttl)), "{reply}");
    forgetful.expect_close(CloseReason::Expired);
    assert!(in_seconds(0) > expiry_of(&short), "closed within the delay");
    careful.expect_silence();
}

/// The `exp` of a token of ours.
fn expiry_of(token: &str) -> i64 {
    use base64::Engine;
    let claims = token.split('.').nth(1).expect("claims");
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).expect("base64url");
    serde_json::from_slice::<Value>(&claims).expect("JSON")["exp"].as_i64().expect("seconds")
}

#[test]
fn a_refresh_with_a_token_that_is_no_good_closes_the_connection() {
    let server = TestServer::start();
    for (fresh, reason) in [
        (token(&json!({"sub": "42", "exp": in_seconds(-1)})), CloseReason::Expired),
        (token(&json!({"sub": "7", "exp": in_seconds(600)})), CloseReason::InvalidToken),
        ("nonsense".to_owned(), CloseReason::InvalidToken),
        (String::new(), CloseReason::BadRequest),
    ] {
        let mut raw = server.connect_as("42");
        raw.send(&json!({"id": 2, "refresh": {"token": fresh}}).to_string());
        raw.expect_close(reason);
    }
}

#[test]
fn a_refresh_that_brings_other_channels_makes_the_client_come_back_for_them() {
    let server = TestServer::start();
    let with = |more: Value| {
        let mut claims = json!({"sub": "42", "exp": in_seconds(600)});
        claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        token(&claims)
    };
    let none = json!({});
    let two = json!({"channels": ["kept:a"], "subs": {"news": {"data": 1}}});
    // What comes with the channels may change.
    let same_two = json!({"channels": ["news", "kept:a"]});
    for (first, fresh, is_same) in [
        (&none, &none, true),
        (&two, &same_two, true),
        (&two, &none, false),
        (&none, &two, false),
        (&two, &json!({"channels": ["news"]}), false),
    ] {
        let mut raw = server.connect_with(&with(first.clone()));
        raw.send(&json!({"id": 2, "refresh": {"token": with(fresh.clone())}}).to_string());
        if is_same {
            assert_eq!(raw.value()["refresh"]["expires"], true, "{first} {fresh}");
        } else {
            raw.expect_close(CloseReason::InsufficientState);
        }
    }
}

#[test]
fn the_secret_before_is_good_for_the_tokens_that_it_signed() {
    const NEW: &str = "a newer secret, of more than 32 bytes";
    let server = TestServer::with(|config| {
        config.auth.hmac_previous_secret = config.auth.hmac_secret.replace(NEW.to_owned());
    });
    server.connect_as("42");
    let claims = json!({"sub": "42", "exp": in_seconds(600)});
    server.connect_with(&sign(NEW, &claims).expect("signed"));
}

#[test]
fn subscription_tokens_may_have_a_secret_of_their_own() {
    const OTHER: &str = "the secret of subscriptions alone";
    let server = TestServer::with(|config| {
        config.subscription_auth.enabled = true;
        config.subscription_auth.hmac_secret = Some(OTHER.to_owned());
    });
    let mut raw = server.connect_as("42");
    let claims = json!({"sub": "42", "channel": "$news", "exp": in_seconds(600)});
    let subscribe =
        |token: &str| json!({"id": 2, "subscribe": {"channel": "$news", "token": token}}).to_string();
    let denied = raw.ask(&subscribe(&token(&claims)));
    assert_eq!(denied, r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#);
    let reply = raw.ask(&subscribe(&sign(OTHER, &claims).expect("signed")));
    assert!(reply.starts_with(r#"{"id":2,"subscribe":{"#), "{reply}");
    // Its secret signs no connection token.
    let mut raw = server.open();
    let connection = json!({"sub": "42", "exp": in_seconds(600)});
    raw.send(&connect_command(&sign(OTHER, &connection).expect("signed")));
    raw.expect_close(CloseReason::InvalidToken);
}

/// Somebody who signs tokens and publishes the key.
struct Issuer {
    pair: EcdsaKeyPair,
    kid: &'static str,
}

impl Issuer {
    fn new(kid: &'static str) -> Issuer {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a pair of keys");
        Issuer { pair, kid }
    }

    fn jwks(&self) -> String {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let key = json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.kid, "x": x, "y": y});
        json!({ "keys": [key] }).to_string()
    }

    fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.kid}).to_string();
        let part = |text: String| URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", part(header), part(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// An HTTP server that gives one answer to all, and counts; it ends with the process.
struct Website {
    address: SocketAddr,
    answer: Arc<Mutex<Option<String>>>,
    calls: Arc<AtomicUsize>,
}

impl Website {
    /// Serves `answer`; `None` is a status 500.
    fn start(answer: Option<String>) -> Website {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let website = Website {
            address: listener.local_addr().expect("it listens"),
            answer: Arc::new(Mutex::new(answer)),
            calls: Arc::default(),
        };
        let (answer, calls) = (website.answer.clone(), website.calls.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut request = Vec::new();
                let mut buffer = [0; 1024];
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(len) if len > 0 => request.extend_from_slice(&buffer[..len]),
                        _ => break,
                    }
                }
                calls.fetch_add(1, Ordering::SeqCst);
                let answer = answer.lock().expect("nobody panics with it").clone();
                let (status, body) = answer.map_or(("500 Broken", String::new()), |body| ("200 OK", body));
                let len = body.len();
                // Whoever asked may have gone.
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
                );
            }
        });
        website
    }

    fn url(&self) -> Option<String> {
        Some(format!("http://{}/jwks.json", self.address))
    }
}

#[test]
fn the_keys_of_an_issuer_are_fetched_once_for_all_who_come() {
    let issuer = Issuer::new("k1");
    let website = Website::start(Some(issuer.jwks()));
    let server = TestServer::with(|config| {
        config.auth.hmac_secret = None;
        config.auth.jwks_url = website.url();
    });
    let connection = issuer.token(&json!({"sub": "42", "exp": in_seconds(600)}));
    let mut waiting: Vec<Raw> = (0..10).map(|_| server.open()).collect();
    for raw in &mut waiting {
        raw.send(&connect_command(&connection));
    }
    for raw in &mut waiting {
        assert_eq!(raw.value()["connect"]["expires"], true);
    }
    let raw = &mut waiting[0];
    let claims = json!({"sub": "42", "channel": "$news", "exp": in_seconds(600)});
    let subscribe = json!({"id": 2, "subscribe": {"channel": "$news", "token": issuer.token(&claims)}});
    assert_eq!(raw.ask_value(&subscribe)["subscribe"]["expires"], true);
    let fresh = issuer.token(&json!({"sub": "42", "exp": in_seconds(900)}));
    assert_eq!(raw.ask_value(&json!({"id": 3, "refresh": {"token": fresh}}))["refresh"]["expires"], true);
    let fresh = issuer.token(&claims);
    let refreshed = raw.ask_value(&json!({"id": 4, "sub_refresh": {"channel": "$news", "token": fresh}}));
    assert_eq!(refreshed["sub_refresh"]["expires"], true);
    assert_eq!(website.calls.load(Ordering::SeqCst), 1);

    // Its key does not vouch for what somebody else signed, and the table of outcomes holds for it too.
    let expired = issuer.token(&json!({"sub": "42", "exp": in_seconds(-1)}));
    let reply = server.open().ask(&connect_command(&expired));
    assert_eq!(reply, r#"{"id":1,"error":{"code":109,"message":"token expired"}}"#);
    for forged in [
        Issuer::new("k1").token(&json!({"sub": "42", "exp": in_seconds(600)})),
        crate::harness::user_token("42"),
    ] {
        let mut raw = server.open();
        raw.send(&connect_command(&forged));
        raw.expect_close(CloseReason::InvalidToken);
    }
}

#[test]
fn the_command_line_asks_the_issuer_too() {
    let issuer = Issuer::new("k1");
    let website = Website::start(Some(issuer.jwks()));
    let token = issuer.token(&json!({"sub": "42", "exp": in_seconds(600), "channels": ["news"]}));
    let inspect = |token: &str| {
        let url = website.url().expect("an address");
        let arguments = ["token", "check", token, "--auth.jwks-url", &url];
        let output = longwire(&arguments).output().expect("it was built");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, page) = inspect(&token);
    assert_eq!(code, Some(0), "{page}");
    let granted = "key:     auth.jwks_url\ngrants:  to connect as the user 42, with the channels news\n";
    assert!(page.contains(granted), "{page}");
    let (code, page) = inspect(&Issuer::new("k2").token(&json!({"sub": "42", "exp": in_seconds(600)})));
    assert_eq!(code, Some(5), "{page}");
    assert!(page.contains("verdict: not valid: the issuer has no key of the name"), "{page}");
    *website.answer.lock().expect("nobody panics with it") = None;
    let (code, page) = inspect(&token);
    assert_eq!(code, Some(4), "{page}");
    assert!(page.contains("verdict: unknown: the issuer's keys cannot be fetched"), "{page}");
}

#[test]
fn while_the_issuer_is_away_a_client_is_told_to_try_again() {
    let issuer = Issuer::new("k1");
    let website = Website::start(None);
    let server = TestServer::with(|config| {
        config.auth.jwks_url = website.url();
        config.auth.jwks_refresh = Duration::from_secs(10);
    });
    const TEMPORARY: &str =
        r#"{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}"#;
    let connect = connect_command(&issuer.token(&json!({"sub": "42", "exp": in_seconds(600)})));
    assert_eq!(server.open().ask(&connect), TEMPORARY);
    // A refresh is no reason to lose the connection, and a subscription none to be denied for good.
    let mut raw = server.connect_as("42");
    let fresh = issuer.token(&json!({"sub": "42", "exp": in_seconds(600)}));
    assert_eq!(raw.ask(&json!({"id": 1, "refresh": {"token": fresh}}).to_string()), TEMPORARY);
    let claims = json!({"sub": "42", "channel": "$news", "exp": in_seconds(600)});
    let subscribe = json!({"id": 1, "subscribe": {"channel": "$news", "token": issuer.token(&claims)}});
    assert_eq!(raw.ask(&subscribe.to_string()), TEMPORARY);
    // It comes back, and the next fetch, ten seconds after the first, finds it.
    *website.answer.lock().expect("nobody panics with it") = Some(issuer.jwks());
    until("the issuer's key", || server.open().ask(&connect) != TEMPORARY);
    assert!(server.open().ask(&connect).starts_with(r#"{"id":1,"connect":{"#));
    // On a slow machine it may have been refreshed, too.
    assert!((2..=4).contains(&website.calls.load(Ordering::SeqCst)));
    assert_eq!(server.closes(CloseReason::InvalidToken), 0);
}

#[test]
fn a_subscription_ends_with_its_token_unless_it_is_refreshed() {
    let server = TestServer::with(|config| config.client.expired_close_delay = Duration::ZERO);
    let subscribe = |raw: &mut Raw, channel: &str, seconds: i64| {
        let claims = json!({"sub": "42", "channel": channel, "exp": in_seconds(seconds)});
        let reply =
            raw.ask_value(&json!({"id": 2, "subscribe": {"channel": channel, "token": token(&claims)}}));
        assert_eq!(reply["subscribe"]["expires"], true, "{reply}");
    };
    let mut raw = server.connect_as("42");
    subscribe(&mut raw, "$short", 2);
    subscribe(&mut raw, "$long", 2);
    let fresh = token(&json!({"sub": "42", "channel": "$long", "exp": in_seconds(600)}));
    let reply = raw.ask_value(&json!({"id": 3, "sub_refresh": {"channel": "$long", "token": fresh}}));
    assert_eq!(reply["sub_refresh"]["expires"], true, "{reply}");
    assert!(reply["sub_refresh"]["ttl"].as_u64().is_some_and(|ttl| (540..=600).contains(&ttl)), "{reply}");

    let expected =
        r#"{"push":{"channel":"$short","unsubscribe":{"code":2501,"reason":"subscription expired"}}}"#;
    assert_eq!(raw.line(), expected);
    server.publish("$short", 1);
    server.publish("$long", 2);
    assert_eq!(raw.line(), r#"{"push":{"channel":"$long","pub":{"data":2}}}"#);

    let expired = token(&json!({"sub": "42", "channel": "$long", "exp": in_seconds(-1)}));
    let reply = raw.ask(&json!({"id": 4, "sub_refresh": {"channel": "$long", "token": expired}}).to_string());
    assert_eq!(reply, r#"{"id":4,"error":{"code":109,"message":"token expired"}}"#);
    let other = token(&json!({"sub": "7", "channel": "$long", "exp": in_seconds(600)}));
    raw.send(&json!({"id": 5, "sub_refresh": {"channel": "$long", "token": other}}).to_string());
    raw.expect_close(CloseReason::InvalidToken);
}

#[test]
fn a_server_side_subscription_that_expires_takes_the_connection_with_it() {
    let server = TestServer::with(|config| config.client.expired_close_delay = Duration::ZERO);
    let mut raw = server.connect_as("42");
    let order = json!({"user": "42", "channel": "news", "expire_at": in_seconds(1)});
    assert_eq!(server.api("subscribe", &order), json!({"result": {}}));
    assert_eq!(raw.value(), json!({"push": {"channel": "news", "subscribe": {}}}));
    raw.expect_close(CloseReason::SubscriptionExpired);
}
