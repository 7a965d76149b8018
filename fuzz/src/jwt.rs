//! Promises of `auth`: connection and subscription tokens.
//!
//! A token that passes bears a signature that a second implementation computes from the same key, by one of
//! the three HMAC algorithms and none that the token made up; its times hold; what it carries is JSON on one
//! line. A token that was signed here and then changed passes only if the change is none.

use crate::input::Input;
use aws_lc_rs::hmac;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, Engine as _};
use bytes::Bytes;
use longwire::auth::{TokenError, Verifier, sign};
use longwire::config::Auth;
use serde_json::Value;

const SECRET: &str = "a secret of more than 32 bytes for tokens";
const NOW: i64 = 1_700_000_000;

thread_local! {
    static VERIFIERS: [Verifier; 3] = {
        let with = |secret: &str, audience: Option<&str>, require_exp| {
            let auth = Auth {
                hmac_secret: Some(secret.to_owned()),
                audience: audience.map(str::to_owned),
                issuer: None,
                require_exp,
            };
            Verifier::new(&auth).expect("HMAC works on this machine")
        };
        [
            with(SECRET, None, true),
            with(SECRET, Some("longwire"), false),
            with("another secret of more than 32 bytes, too", None, false),
        ]
    };
}

/// Decides with its first byte what the rest is: a token, claims to sign, or a header and claims to sign.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => drop(judge(&String::from_utf8_lossy(input.rest()))),
        1 => signed(input),
        2 => changed(input),
        _ => header(input),
    }
}

/// Shows a token to every verifier; tells whether the strict one accepts it.
fn judge(token: &str) -> bool {
    VERIFIERS.with(|[strict, lenient, other]| {
        let is_genuine = is_genuine(token);
        for (verifier, require_exp) in [(strict, true), (lenient, false)] {
            let connection = verifier.verify_connection(token, NOW);
            let subscription = verifier.verify_subscription(token, NOW);
            assert!(connection.is_err() || subscription.is_err(), "a token of both kinds");
            if let Ok(granted) = &connection {
                assert!(is_genuine, "a token without our signature: {token}");
                lasts(granted.expires_at);
                [&granted.info, &granted.meta].into_iter().for_each(is_json_line);
                for (_, subscription) in &granted.channels {
                    [&subscription.info, &subscription.data].into_iter().for_each(is_json_line);
                }
                assert!(granted.channels.is_sorted_by(|a, b| a.0 < b.0), "a channel twice");
            }
            if let Ok(granted) = &subscription {
                assert!(is_genuine, "a token without our signature: {token}");
                assert!(!granted.channel.is_empty() && granted.client.as_deref() != Some(""));
                lasts(granted.expires_at);
                [&granted.info, &granted.data].into_iter().for_each(is_json_line);
            }
            for error in [connection.err(), subscription.err()].into_iter().flatten() {
                assert!(error != TokenError::Expired || is_genuine, "expiry of a token that is not ours");
                assert_ne!(error, TokenError::NotConfigured);
            }
            if require_exp && verifier.verify_connection(token, NOW).is_ok() {
                let at_the_end = verifier.verify_connection(token, i64::MAX);
                assert_eq!(at_the_end, Err(TokenError::Expired), "a token for ever");
            }
        }
        assert!(other.verify_connection(token, NOW).is_err() || !is_genuine, "another key's token");
        strict.verify_connection(token, NOW).is_ok() || strict.verify_subscription(token, NOW).is_ok()
    })
}

fn lasts(expires_at: Option<i64>) {
    assert!(expires_at.is_none_or(|at| at > NOW), "granted until a time that is past");
}

fn is_json_line(data: &Bytes) {
    if !data.is_empty() {
        assert!(!data.contains(&b'\n') && !data.contains(&b'\r'), "a line break in {data:?}");
        assert!(serde_json::from_slice::<Value>(data).is_ok() || is_beyond_value(data), "{data:?}");
    }
}

/// Valid JSON that `Value` cannot hold: a number past `f64`, or very deep nesting.
fn is_beyond_value(data: &[u8]) -> bool {
    serde_json::from_slice::<&serde_json::value::RawValue>(data).is_ok()
}

fn signed(input: Input<'_>) {
    let Ok(claims) = serde_json::from_slice::<Value>(input.rest()) else { return };
    let Ok(token) = sign(SECRET, &claims) else {
        assert!(!claims.is_object(), "an object cannot be signed");
        return;
    };
    assert!(is_genuine(&token));
    judge(&token);
}

/// A good token, and one byte of it replaced.
fn changed(mut input: Input<'_>) {
    let at = usize::from(input.short());
    let byte = input.byte();
    let user = input.text(100);
    let claims = serde_json::json!({ "sub": user, "exp": NOW + 60 });
    let token = sign(SECRET, &claims).expect("an object can be signed");
    assert!(judge(&token), "a genuine token is refused");
    let mut changed = token.clone().into_bytes();
    let at = at % changed.len();
    changed[at] = byte;
    let changed = String::from_utf8_lossy(&changed).into_owned();
    assert!(!judge(&changed) || is_genuine(&changed));
    assert!(!judge(&token[..at]), "a part of a token passes");
    assert!(!judge(&format!("{token}{}", byte as char)), "a token with a tail passes");
}

/// Arbitrary header and claims, signed with our key by a chosen algorithm.
fn header(mut input: Input<'_>) {
    let algorithm = input.choose(&ALGORITHMS).1;
    let header = input.bytes(400);
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(input.rest()));
    let signature = hmac::sign(&hmac::Key::new(algorithm, SECRET.as_bytes()), signed.as_bytes());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    if judge(&token) {
        let header: Value = serde_json::from_slice(header).expect("the header of a good token is JSON");
        assert!(header.get("crit").is_none_or(Value::is_null), "a critical extension was not understood");
    }
}

const ALGORITHMS: [(&str, hmac::Algorithm); 3] =
    [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)];

/// Whether the token's last part is the HMAC of the other two under our key.
fn is_genuine(token: &str) -> bool {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::URL_SAFE,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let Some((signed, signature)) = token.rsplit_once('.') else { return false };
    let Some((header, _)) = signed.split_once('.') else { return false };
    let (Ok(signature), Ok(header)) = (LENIENT.decode(signature), LENIENT.decode(header)) else {
        return false;
    };
    let Ok(header) = serde_json::from_slice::<Value>(&header) else { return false };
    ALGORITHMS.iter().any(|(name, algorithm)| {
        let key = hmac::Key::new(*algorithm, SECRET.as_bytes());
        header["alg"] == *name && hmac::verify(&key, signed.as_bytes(), &signature).is_ok()
    })
}
