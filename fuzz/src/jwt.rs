//! Promises of `auth`: connection and subscription tokens, and the keys that an issuer publishes.
//!
//! A token that passes bears a signature that a second implementation computes from the same key, by one of
//! the three HMAC algorithms and none that the token made up; its times hold; what it carries is JSON on one
//! line. A token that was signed here and then changed passes only if the change is none. By public keys, whose
//! other halves nobody has, no token passes, whatever it is signed with; nor does one by whatever an issuer may
//! publish, unless it is signed by a key that is published as it is.

use crate::input::Input;
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, Engine as _};
use bytes::Bytes;
use longwire::auth::{TokenError, Verifier, sign};
use longwire::config::Auth;
use longwire::env::http::{Answer, Call, Caller, Calling};
use longwire::env::{Env, Http};
use longwire::errands::Errands;
use serde_json::{Value, json};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

const SECRET: &str = "a secret of more than 32 bytes for tokens";
const NOW: i64 = 1_700_000_000;

thread_local! {
    static VERIFIERS: [Verifier; 3] = {
        let with = |secret: &str, audience: Option<&str>, require_exp| {
            let auth = Auth {
                hmac_secret: Some(secret.to_owned()),
                audience: audience.map(str::to_owned),
                require_exp,
                ..Auth::default()
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

/// A public RSA key whose other half was thrown away.
const RSA: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAxbLx225OOzhONT27KpzU
6SqjkwUp74MhrI5JLWwbgMIPUHB0iK3BcIX0ivcX3MHjN4F+OgdQED7GPl8SYYKe
QNFphax+2c3YbkL8M452fj9dzHDlnupCVGI5Xfja7gBQUkWOYxsamQyar1qIe7QH
DpT6eG01D7tUZ1gkrF0G6F9Ohq1m3d1q8TOerNHWzGzcEBI80SNveO5UtXVO+uoM
A7tvhGUmFDkXzm5loIa0LPOO9lRZTiyQt3a0CAtYPtf1Kaa6GIJjnyww6xhneBph
gmHQp1GL0ntReOTauiuxXO4f7TuYJeG7R/n9wYhVeoOJX9mbDoxICGbqQ3/wmElE
QQIDAQAB
-----END PUBLIC KEY-----
";

thread_local! {
    /// By public keys alone.
    static PUBLIC: Verifier = {
        let pem = |der: &[u8]| {
            format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
        };
        let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a pair of keys");
        let ed25519 = Ed25519KeyPair::generate().expect("a pair of keys");
        let auth = Auth {
            rsa_public_key: Some(RSA.to_owned()),
            ecdsa_public_key: Some(pem(p256.public_key().as_der().expect("a key").as_ref())),
            ed25519_public_key: Some(pem(ed25519.public_key().as_der().expect("a key").as_ref())),
            require_exp: false,
            ..Auth::default()
        };
        Verifier::new(&auth).expect("the keys are good")
    };
    /// The issuer's own key: it is published under the name `k`.
    static ISSUER: Ed25519KeyPair = Ed25519KeyPair::generate().expect("a pair of keys");
}

/// Decides with its first byte what the rest is: a token, claims to sign, a header and claims to sign, or what an
/// issuer publishes.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 6 {
        0 => drop(judge(&String::from_utf8_lossy(input.rest()))),
        1 => signed(input),
        2 => changed(input),
        3 => header(input),
        4 => published(input),
        _ => beside(input),
    }
}

/// An issuer who answers the same to everybody, at once.
struct Issuer(Mutex<Answer>);

impl Caller for Issuer {
    fn call(&self, _: Call) -> Calling {
        let answer = self.0.lock().expect("nobody panics with it").clone();
        Box::pin(async move { Ok(answer) })
    }
}

/// Judges a token by what an issuer publishes: any bytes.
fn judge_by(published: &[u8], token: &str) -> Result<(), TokenError> {
    let answer = Answer { status: 200, body: Bytes::copy_from_slice(published) };
    let env = Env { http: Http::of(Arc::new(Issuer(Mutex::new(answer)))), ..Env::system() };
    let auth = Auth { jwks_url: Some("https://issuer.example/jwks".to_owned()), ..Auth::default() };
    let (errands, mut jobs) = Errands::new();
    let verifier = Verifier::new(&auth).expect("nothing is wrong with it").fetching(&env, &errands);
    let mut context = Context::from_waker(Waker::noop());
    let mut verdict = pin!(verifier.judge_connection(token, env.clock));
    if let Poll::Ready(verdict) = verdict.as_mut().poll(&mut context) {
        return verdict.map(drop);
    }
    let mut job = jobs.try_recv().expect("it waits for the issuer");
    assert!(job.as_mut().poll(&mut context).is_ready(), "the issuer answers at once");
    match verdict.as_mut().poll(&mut context) {
        Poll::Ready(verdict) => verdict.map(drop),
        Poll::Pending => panic!("the issuer answered, and nobody was told"),
    }
}

fn signed_by_issuer() -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({"alg": "EdDSA", "kid": "k"});
    let message = format!("{}.{}", part(header), part(json!({"sub": "42", "exp": i64::MAX})));
    let signature = ISSUER.with(|pair| pair.sign(message.as_bytes()));
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn issuers_key() -> Value {
    let x = ISSUER.with(|pair| URL_SAFE_NO_PAD.encode(pair.public_key()));
    json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x})
}

/// Whatever is published, what the issuer did not sign does not pass, and what it signed does only by its key.
fn published(input: Input<'_>) {
    let bytes = input.rest();
    let own = signed_by_issuer();
    let x = issuers_key()["x"].as_str().expect("text").to_owned();
    if !String::from_utf8_lossy(bytes).contains(&x) {
        assert!(judge_by(bytes, &own).is_err(), "a key that was not published");
    }
    let by_secret = sign(SECRET, &json!({"sub": "42", "exp": i64::MAX})).expect("an object can be signed");
    assert!(judge_by(bytes, &by_secret).is_err(), "a secret out of a JWKS");
}

/// Whatever stands beside the issuer's key, and whatever more is said of another key of that name, it serves.
fn beside(input: Input<'_>) {
    let Ok(other) = serde_json::from_slice::<Value>(input.rest()) else { return };
    let set = json!({ "keys": [issuers_key(), other] }).to_string();
    assert_eq!(judge_by(set.as_bytes(), &signed_by_issuer()), Ok(()), "{set}");
}

/// Shows a token to every verifier; tells whether the strict one accepts it.
fn judge(token: &str) -> bool {
    PUBLIC.with(|by_public_keys| {
        assert!(by_public_keys.verify_connection(token, NOW).is_err(), "nobody can sign this: {token}");
        assert!(by_public_keys.verify_subscription(token, NOW).is_err(), "nobody can sign this: {token}");
    });
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
