//! Tests of what tokens grant and why they are refused, with the secret of the configuration.

mod issuer;
mod keys;
mod signer;

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: i64 = 1_800_000_000;

fn verifier() -> Verifier {
    verifier_with(|_| {})
}

fn verifier_with(change: impl FnOnce(&mut config::Auth)) -> Verifier {
    let mut auth = config::Auth { hmac_secret: Some(SECRET.to_owned()), ..config::Auth::default() };
    change(&mut auth);
    Verifier::new(&auth).unwrap()
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token with any header and any payload, with a genuine signature of the algorithm `alg`.
fn forge(header: &str, payload: impl AsRef<[u8]>, alg: aws_lc_rs::hmac::Algorithm) -> String {
    let message = format!("{}.{}", base64url(header), base64url(payload));
    let key = aws_lc_rs::hmac::Key::new(alg, SECRET.as_bytes());
    format!("{message}.{}", base64url(aws_lc_rs::hmac::sign(&key, message.as_bytes())))
}

fn connect(claims: &Value) -> Result<ConnectionToken, TokenError> {
    verifier().verify_connection(&sign(SECRET, claims).unwrap(), NOW)
}

fn subscribe(claims: &Value) -> Result<SubscriptionToken, TokenError> {
    verifier().verify_subscription(&sign(SECRET, claims).unwrap(), NOW)
}

#[test]
fn a_connection_token_grants_what_its_claims_say() {
    let token = connect(&json!({
        "sub": "42", "exp": NOW + 60, "iat": NOW, "info": {"name": "Ada"}, "meta": [1],
        "channels": ["b", "a"],
        "subs": {"a": {"data": {"x": 1}, "b64info": "eyJ5IjoyfQ==", "override": {"presence": {"value": true}}}},
        "unknown": {"claims": "are ignored"},
    }))
    .unwrap();
    assert_eq!((&*token.user, token.expires_at), ("42", Some(NOW + 60)));
    assert_eq!((&token.info[..], &token.meta[..]), (&br#"{"name":"Ada"}"#[..], &b"[1]"[..]));
    let names: Vec<&str> = token.channels.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let a = &token.channels[0].1;
    assert_eq!((&a.data[..], &a.info[..]), (&br#"{"x":1}"#[..], &br#"{"y":2}"#[..]));
    assert_eq!(a.overrides.presence, Some(true));
    assert_eq!(token.channels[1].1, ServerSubscription::default());
}

#[test]
fn a_subscription_token_grants_what_its_claims_say() {
    let token = subscribe(&json!({
        "sub": "42", "channel": "$news", "client": "", "exp": NOW + 60, "info": 1, "data": "x",
    }))
    .unwrap();
    assert_eq!((&*token.user, &*token.channel, token.client), ("42", "$news", None));
    assert_eq!((&token.info[..], &token.data[..]), (&b"1"[..], &b"\"x\""[..]));
    assert_eq!(token.expires_at, Some(NOW + 60));
}

#[test]
fn every_algorithm_of_the_family_is_accepted() {
    let claims = json!({"sub": "42", "exp": NOW + 60}).to_string();
    for (name, alg) in [
        ("HS256", aws_lc_rs::hmac::HMAC_SHA256),
        ("HS384", aws_lc_rs::hmac::HMAC_SHA384),
        ("HS512", aws_lc_rs::hmac::HMAC_SHA512),
    ] {
        let token = forge(&json!({"alg": name, "typ": "JWT"}).to_string(), &claims, alg);
        assert_eq!(&*verifier().verify_connection(&token, NOW).unwrap().user, "42", "{name}");
    }
}

#[test]
fn a_token_expires_at_its_second_and_not_before() {
    let at = |exp: Value| connect(&json!({"sub": "42", "exp": exp}));
    assert_eq!(at(json!(NOW + 1)).unwrap().expires_at, Some(NOW + 1));
    for expired in [json!(NOW), json!(NOW - 1), json!(0), json!(-5), json!(NOW as f64 + 0.5)] {
        assert_eq!(at(expired.clone()), Err(TokenError::Expired), "{expired}");
    }
    assert_eq!(at(json!(1e300)).unwrap().expires_at, Some(i64::MAX));
}

#[test]
fn a_connection_may_outlive_its_token_or_end_before_it() {
    let at = |expire_at: i64| connect(&json!({"sub": "42", "exp": NOW + 60, "expire_at": expire_at}));
    assert_eq!(at(0).unwrap().expires_at, None);
    assert_eq!(at(NOW + 9999).unwrap().expires_at, Some(NOW + 9999));
    assert_eq!(at(NOW).unwrap_err(), TokenError::Expired);
}

#[test]
fn a_token_without_exp_is_refused_unless_configured_otherwise() {
    assert!(matches!(connect(&json!({"sub": "42"})), Err(TokenError::Invalid(_))));
    let lenient = verifier_with(|auth| auth.require_exp = false);
    let token = lenient.verify_connection(&sign(SECRET, &json!({"sub": "42"})).unwrap(), NOW).unwrap();
    assert_eq!(token.expires_at, None);
}

#[test]
fn a_clock_that_is_a_minute_ahead_is_forgiven() {
    let at = |nbf: i64| connect(&json!({"sub": "42", "exp": NOW + 999, "nbf": nbf}));
    assert!(at(NOW + 60).is_ok());
    assert!(matches!(at(NOW + 61), Err(TokenError::Invalid(_))));
}

#[test]
fn audience_and_issuer_must_be_those_configured() {
    let strict = verifier_with(|auth| {
        auth.audience = Some("longwire".to_owned());
        auth.issuer = Some("shop".to_owned());
    });
    let judge = |aud: Value, iss: Value| {
        let claims = json!({"sub": "42", "exp": NOW + 60, "aud": aud, "iss": iss});
        strict.verify_connection(&sign(SECRET, &claims).unwrap(), NOW).is_ok()
    };
    assert!(judge(json!("longwire"), json!("shop")));
    assert!(judge(json!(["other", "longwire"]), json!("shop")));
    for (aud, iss) in [
        (json!("other"), json!("shop")),
        (json!(null), json!("shop")),
        (json!([]), json!("shop")),
        (json!({"a": 1}), json!("shop")),
        (json!("longwire"), json!("shop2")),
        (json!("longwire"), json!(null)),
        (json!("longwire"), json!(["shop"])),
    ] {
        assert!(!judge(aud.clone(), iss.clone()), "{aud} {iss}");
    }
}

#[test]
fn audience_and_issuer_may_be_patterns() {
    let strict = verifier_with(|auth| {
        auth.audience_pattern = Some("https://*.example.com".to_owned());
        auth.issuer_pattern = Some("shop-*".to_owned());
    });
    let judge = |aud: Value, iss: Value| {
        let claims = json!({"sub": "42", "exp": NOW + 60, "aud": aud, "iss": iss});
        strict.verify_connection(&sign(SECRET, &claims).unwrap(), NOW).is_ok()
    };
    assert!(judge(json!("https://eu.example.com"), json!("shop-1")));
    assert!(judge(json!(["x", "https://eu.example.com"]), json!("shop-")));
    assert!(!judge(json!("https://example.com"), json!("shop-1")));
    assert!(!judge(json!("https://eu.example.com.evil.org"), json!("shop-1")));
    assert!(!judge(json!("https://eu.example.com"), json!("my-shop-1")));
    assert!(!judge(json!(null), json!("shop-1")));
    assert!(!judge(json!("https://eu.example.com"), json!(null)));
}

#[test]
fn another_claim_may_say_who_the_user_is() {
    let by_uid = verifier_with(|auth| auth.user_claim = Some("uid".to_owned()));
    let judge = |claims: &str| {
        let token = forge(r#"{"alg":"HS256"}"#, claims, aws_lc_rs::hmac::HMAC_SHA256);
        by_uid.verify_connection(&token, NOW).map(|token| token.user.to_string())
    };
    assert_eq!(judge(r#"{"sub":"7","uid":"42","exp":1900000000}"#), Ok("42".to_owned()));
    assert_eq!(judge(r#"{"u\u0069d":"4\u00322","x":{"uid":"1"},"exp":1900000000}"#), Ok("422".to_owned()));
    for bad in [
        r#"{"sub":"7","exp":1900000000}"#,
        r#"{"uid":42,"exp":1900000000}"#,
        r#"{"uid":null,"exp":1900000000}"#,
        r#"{"uid":"1","uid":"2","exp":1900000000}"#,
        r#"{"x":{"uid":"42"},"exp":1900000000}"#,
    ] {
        assert!(matches!(judge(bad), Err(TokenError::Invalid(_))), "{bad}");
    }
    let claims = json!({"sub": "7", "uid": "42", "channel": "news", "exp": NOW + 60});
    let token = by_uid.verify_subscription(&sign(SECRET, &claims).unwrap(), NOW).unwrap();
    assert_eq!(&*token.user, "42");
}

#[test]
fn the_name_of_a_token_and_its_age_are_told() {
    let claims = json!({"sub": "42", "exp": NOW + 60, "jti": "t-1", "iat": NOW - 5});
    let token = connect(&claims).unwrap();
    assert_eq!((token.jti.as_deref(), token.issued_at), (Some("t-1"), Some(NOW - 5)));
    let mut claims = claims;
    claims["channel"] = json!("news");
    let token = subscribe(&claims).unwrap();
    assert_eq!((token.jti.as_deref(), token.issued_at), (Some("t-1"), Some(NOW - 5)));
    let token = connect(&json!({"sub": "42", "exp": NOW + 60})).unwrap();
    assert_eq!((token.jti, token.issued_at, token.key), (None, None, "auth.hmac_secret"));
}

#[test]
fn the_fingerprint_of_a_tokens_channels_tells_other_channels_apart() {
    let of = |claims: Value| {
        let mut all = json!({"sub": "42", "exp": NOW + 60});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        connect(&all).unwrap().channels_fingerprint()
    };
    assert_eq!(of(json!({})), 0);
    let two = of(json!({"channels": ["a", "b"]}));
    assert_ne!(two, 0);
    assert_eq!(
        of(json!({"channels": ["b"], "subs": {"a": {"data": 1}}})),
        two,
        "what comes with them may change"
    );
    for other in
        [json!({"channels": ["a"]}), json!({"channels": ["ab"]}), json!({"channels": ["a", "b", "c"]})]
    {
        assert_ne!(of(other.clone()), two, "{other}");
    }
    assert_ne!(of(json!({"channels": ["a", "bc"]})), of(json!({"channels": ["ab", "c"]})));
}

#[test]
fn subscription_tokens_may_have_a_secret_of_their_own() {
    let mut config = Config::default();
    config.auth.hmac_secret = Some(SECRET.to_owned());
    let other = "the secret of subscriptions alone";
    config.subscription_auth.hmac_secret = Some(other.to_owned());
    let claims = json!({"sub": "42", "exp": NOW + 60, "channel": "news"});
    let (ours, theirs) = (sign(SECRET, &claims).unwrap(), sign(other, &claims).unwrap());
    let judge = |config: &Config, token: &str| {
        Verifier::from_config(config).unwrap().verify_subscription(token, NOW).is_ok()
    };
    assert!(judge(&config, &ours) && !judge(&config, &theirs), "[auth] serves both until the section is on");
    config.subscription_auth.enabled = true;
    assert!(!judge(&config, &ours) && judge(&config, &theirs));
    let connection = sign(other, &json!({"sub": "42", "exp": NOW + 60})).unwrap();
    assert!(Verifier::from_config(&config).unwrap().verify_connection(&connection, NOW).is_err());
}

#[test]
fn the_two_kinds_of_token_are_not_interchangeable() {
    assert!(matches!(
        connect(&json!({"sub": "42", "exp": NOW + 60, "channel": "news"})),
        Err(TokenError::Invalid(_))
    ));
    assert!(matches!(subscribe(&json!({"sub": "42", "exp": NOW + 60})), Err(TokenError::Invalid(_))));
    assert!(matches!(
        subscribe(&json!({"sub": "42", "exp": NOW + 60, "channel": ""})),
        Err(TokenError::Invalid(_))
    ));
}

#[test]
fn without_a_secret_no_token_is_judged() {
    let verifier = Verifier::new(&config::Auth::default()).unwrap();
    let token = sign(SECRET, &json!({"sub": "42", "exp": NOW + 60})).unwrap();
    assert_eq!(verifier.verify_connection(&token, NOW), Err(TokenError::NotConfigured));
    assert_eq!(verifier.verify_subscription("", NOW), Err(TokenError::NotConfigured));
}

#[test]
fn a_forged_or_malformed_token_is_invalid_whatever_is_wrong_with_it() {
    use aws_lc_rs::hmac::{HMAC_SHA256, HMAC_SHA512};
    const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
    let good_claims = json!({"sub": "42", "exp": NOW + 60}).to_string();
    let good = forge(HS256, &good_claims, HMAC_SHA256);
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    assert!(verifier().verify_connection(&good, NOW).is_ok());

    let mut bad: Vec<String> = [
        "",
        ".",
        "..",
        "...",
        "a",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        " ",
        "null",
        "{}",
        "\u{0}.\u{0}.\u{0}",
        "\u{1f512}.\u{1f512}.\u{1f512}",
        "eyJhbGciOiJIUzI1NiJ9",
        "eyJhbGciOiJIUzI1NiJ9.",
        "eyJhbGciOiJIUzI1NiJ9..",
        "Bearer x.y.z",
    ]
    .map(str::to_owned)
    .to_vec();
    // Parts missing, doubled, swapped, cut or decorated.
    bad.extend([
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{good}.{signature}"),
        format!("{payload}.{header}.{signature}"),
        format!("{good} "),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{good}="),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}.{payload}.{}", &signature[1..]),
        format!("{header}.{payload}.{}", &signature[..signature.len() - 1]),
        format!("{header}.{payload}.{}", signature.to_ascii_uppercase()),
        format!("{header}.{payload}.{}", "A".repeat(signature.len())),
        format!("{header}.{payload}.!!!!"),
    ]);
    // Genuine signature, other claims; other header.
    bad.push(format!("{header}.{}.{signature}", base64url(good_claims.replace("42", "43"))));
    bad.push(format!("{}.{payload}.{signature}", base64url(r#"{"alg":"HS256"}"#)));
    // Another secret.
    bad.push(sign("another secret of more than 32 bytes", &json!({"sub": "42", "exp": NOW + 60})).unwrap());
    // Algorithms that are none of ours, or not the one that signed.
    for alg in
        ["none", "None", "NONE", "nOnE", "", "HS1", "hs256", "RS256", "ES256", "PS256", "EdDSA", "HS512"]
    {
        let header = json!({"alg": alg, "typ": "JWT"}).to_string();
        bad.push(forge(&header, &good_claims, HMAC_SHA256));
        bad.push(format!("{}.{payload}.", base64url(&header)));
    }
    bad.push(forge(HS256, &good_claims, HMAC_SHA512));
    // Headers that are not what a header is, or that offer keys of their own.
    for header in [
        "",
        "{",
        "[]",
        "null",
        "\"HS256\"",
        r#"{"typ":"JWT"}"#,
        r#"{"alg":null}"#,
        r#"{"alg":1}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"HS256","crit":["b64"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256"} x"#,
    ] {
        bad.push(forge(header, &good_claims, HMAC_SHA256));
    }
    // Claims that are not what claims are.
    for claims in [
        &b""[..],
        b"{",
        b"[]",
        b"null",
        b"42",
        b"\"sub\"",
        b"{\"sub\":42}",
        b"{\"sub\":null}",
        b"{\"sub\":{}}",
        b"{\"sub\":\"42\"} x",
        b"{\"sub\":\"\xff\xfe\",\"exp\":1900000000}",
        b"\xff\xff\xff",
        b"{\"sub\":\"42\",\"exp\":\"soon\"}",
        b"{\"sub\":\"42\",\"exp\":\"1900000000\"}",
        b"{\"sub\":\"42\",\"exp\":true}",
        b"{\"sub\":\"42\",\"exp\":null}",
        b"{\"sub\":\"42\",\"exp\":NaN}",
        b"{\"sub\":\"42\",\"exp\":1e999}",
        b"{\"sub\":\"42\",\"exp\":1900000000,\"exp\":1900000001}",
        b"{\"sub\":\"42\",\"sub\":\"43\",\"exp\":1900000000}",
        b"{\"sub\":\"42\",\"exp\":1900000000,\"nbf\":\"x\"}",
        b"{\"sub\":\"42\",\"exp\":1900000000,\"channels\":\"a\"}",
        b"{\"sub\":\"42\",\"exp\":1900000000,\"channels\":[1]}",
        b"{\"sub\":\"42\",\"exp\":1900000000,\"subs\":[]}",
        b"{\"sub\":\"42\",\"exp\":1900000000,\"subs\":{\"a\":1}}",
        b"{\"sub\":\"42\",\"exp\":1900000000,\"info\":}",
        b"{\"sub\":\"42\",\"exp\":1900000000,\"b64info\":\"*\"}",
        b"{\"sub\":\"42\",\"exp\":1900000000,\"b64info\":\"bm90IGpzb24=\"}",
        b"{\"sub\":\"42\",\"exp\":1900000000,\"b64info\":\"//8=\"}",
        b"{\"sub\":\"42\",\"exp\":1900000000,\"channel\":\"a\"}",
        b"{\"sub\":\"42\",\"exp\":1900000000,\"channel\":1}",
    ] {
        bad.push(forge(HS256, claims, HMAC_SHA256));
    }
    // Too long, although genuine.
    bad.push(sign(SECRET, &json!({"sub": "42", "exp": NOW + 60, "info": "x".repeat(16 * 1024)})).unwrap());
    bad.push("x".repeat(100 * 1024 * 1024));
    // Nested deeper than any parser should follow.
    let deep =
        format!("{{\"sub\":\"42\",\"exp\":1900000000,\"aud\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    bad.push(forge(HS256, deep, HMAC_SHA256));

    assert!(bad.len() > 90, "{}", bad.len());
    for token in &bad {
        let shown: String = token.chars().take(200).collect();
        match verifier().verify_connection(token, NOW) {
            Err(TokenError::Invalid(_) | TokenError::NoKey { .. }) => {}
            other => panic!("{shown:?}: {other:?}"),
        }
        assert!(
            verifier().verify_subscription(token, NOW).is_err()
                || token
                    == &forge(HS256, b"{\"sub\":\"42\",\"exp\":1900000000,\"channel\":\"a\"}", HMAC_SHA256)
        );
    }
}

#[test]
fn a_newline_between_json_tokens_does_not_reach_a_frame() {
    let claims = format!("{{\"sub\":\"42\",\"exp\":{},\"info\":{{\n\"a\":\r\n\"b\\n\"}}}}", NOW + 60);
    let token = forge(r#"{"alg":"HS256"}"#, claims, aws_lc_rs::hmac::HMAC_SHA256);
    let info = verifier().verify_connection(&token, NOW).unwrap().info;
    assert!(!info.contains(&b'\n') && !info.contains(&b'\r'));
    assert_eq!(serde_json::from_slice::<Value>(&info).unwrap(), json!({"a": "b\n"}));
}

#[test]
fn an_override_cannot_promise_recovery_where_nothing_is_kept() {
    let overrides = Overrides { force_recovery: Some(true), presence: Some(true), ..Overrides::default() };
    let options = overrides.apply(&ChannelOptions::default());
    assert!(options.presence && !options.force_recovery);
    let kept = ChannelOptions {
        history_size: 1,
        history_ttl: std::time::Duration::from_secs(1),
        ..ChannelOptions::default()
    };
    assert!(overrides.apply(&kept).force_recovery);
    assert_eq!(Overrides::default().apply(&kept), kept);
}
