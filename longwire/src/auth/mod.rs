//! Who a client is: connection and subscription tokens.
//!
//! A backend signs a JWT, the client shows it, [`Verifier`] says what it grants. It answers; what follows
//! (error 109, close 3500, ...) is the session's business, as is comparing a subscription token's user,
//! channel and client with those of the connection. Time is an argument: a token's times follow wall time,
//! which the caller has. What must stay true: an expired token is told apart from an invalid one only after
//! its signature held, and no error or log contains a token or a part of it.

mod jwt;

use crate::config::{self, ChannelOptions};
use base64::Engine;
use bytes::Bytes;
use jwt::{Claims, HmacKey};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// How far ahead of ours the clock of the backend may be (claim `nbf`).
const MAX_SKEW_SECONDS: i64 = 60;

/// Judges tokens.
pub struct Verifier {
    key: Option<HmacKey>,
    audience: Option<String>,
    issuer: Option<String>,
    require_exp: bool,
}

/// Why a token is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// Genuine, but past its time: a fresh one may succeed.
    Expired,
    /// Not genuine, malformed, or meant for something else. The reason is for logs; it holds no part of the token.
    Invalid(&'static str),
    /// No secret is configured, so no token can be judged.
    NotConfigured,
}

impl TokenError {
    /// What is wrong, for logs; it holds no part of the token.
    pub fn what(&self) -> &'static str {
        match self {
            TokenError::Expired => "the token is expired",
            TokenError::Invalid(reason) => reason,
            TokenError::NotConfigured => "a token was shown, but auth.hmac_secret is not set",
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::Expired => f.write_str("token expired"),
            TokenError::Invalid(reason) => write!(f, "invalid token: {reason}"),
            TokenError::NotConfigured => f.write_str("no secret for tokens is configured"),
        }
    }
}

impl std::error::Error for TokenError {}

/// The signing or checking of tokens does not work in this build or on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SigningError(String);

impl fmt::Display for SigningError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tokens cannot be signed: {}", self.0)
    }
}

impl std::error::Error for SigningError {}

/// What a connection token grants.
#[derive(Clone, PartialEq, Debug)]
pub struct ConnectionToken {
    /// Who the client is; empty for the anonymous user.
    pub user: Arc<str>,
    /// When the connection ends unless it is refreshed, in seconds since 1970.
    pub expires_at: Option<i64>,
    /// What other clients see of the user: raw JSON; empty if absent.
    pub info: Bytes,
    /// Subscriptions that the server makes, by channel, sorted.
    pub channels: Vec<(String, ServerSubscription)>,
    /// Raw JSON that stays on the server; empty if absent.
    pub meta: Bytes,
}

/// A subscription that a connection token asks the server to make.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ServerSubscription {
    /// What other clients see of the user in this channel: raw JSON; empty if absent.
    pub info: Bytes,
    /// What the client is told with the subscription: raw JSON; empty if absent.
    pub data: Bytes,
    /// Options of the channel that hold differently here.
    pub overrides: Overrides,
}

/// What a subscription token grants.
#[derive(Clone, PartialEq, Debug)]
pub struct SubscriptionToken {
    /// Who may use it; must be the connection's user.
    pub user: Arc<str>,
    /// The channel; must be the one that is subscribed.
    pub channel: String,
    /// The one connection that may use it, if the token names any.
    pub client: Option<String>,
    /// What other clients see of the user in this channel: raw JSON; empty if absent.
    pub info: Bytes,
    /// What the client is told with the subscription: raw JSON; empty if absent.
    pub data: Bytes,
    /// When the subscription ends unless it is refreshed, in seconds since 1970.
    pub expires_at: Option<i64>,
    /// Options of the channel that hold differently here.
    pub overrides: Overrides,
}

/// Options of a channel that a token changes for one subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Overrides {
    /// Keep who is there.
    pub presence: Option<bool>,
    /// Publish joins and leaves.
    pub join_leave: Option<bool>,
    /// The subscription is recoverable.
    pub force_recovery: Option<bool>,
    /// The subscription is positioned.
    pub force_positioning: Option<bool>,
    /// Joins and leaves are pushed, asked for or not.
    pub force_push_join_leave: Option<bool>,
}

impl Overrides {
    /// The options that hold for the subscription. A channel without history stays without recovery.
    pub fn apply(&self, options: &ChannelOptions) -> ChannelOptions {
        let has_history = options.has_history();
        ChannelOptions {
            presence: self.presence.unwrap_or(options.presence),
            join_leave: self.join_leave.unwrap_or(options.join_leave),
            force_recovery: self.force_recovery.unwrap_or(options.force_recovery) && has_history,
            force_positioning: self.force_positioning.unwrap_or(options.force_positioning) && has_history,
            force_push_join_leave: self.force_push_join_leave.unwrap_or(options.force_push_join_leave),
            ..options.clone()
        }
    }
}

impl Verifier {
    /// Makes a verifier and has it judge a token of its own.
    ///
    /// # Errors
    ///
    /// If the token that it signed itself does not verify: `jsonwebtoken` finds out about a build without
    /// a cryptographic backend only when it is used, and a start is the better moment than a client's connect.
    pub fn new(auth: &config::Auth) -> Result<Verifier, SigningError> {
        let verifier = Verifier {
            key: auth.hmac_secret.as_deref().map(HmacKey::new),
            audience: auth.audience.clone(),
            issuer: auth.issuer.clone(),
            require_exp: auth.require_exp,
        };
        if let (Some(key), Some(secret)) = (&verifier.key, &auth.hmac_secret) {
            let token = sign(secret, &serde_json::json!({ "sub": "self-test" }))?;
            key.verify(&token).map_err(|reason| SigningError(reason.to_owned()))?;
        }
        Ok(verifier)
    }

    /// Judges a connection token at the time `now_unix`, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// See [`TokenError`].
    pub fn verify_connection(&self, token: &str, now_unix: i64) -> Result<ConnectionToken, TokenError> {
        let claims = self.claims(token)?;
        if claims.channel.is_some() {
            return Err(TokenError::Invalid("a subscription token, used as a connection token"));
        }
        let expires_at = self.judge(&claims, now_unix)?;

        let mut channels = BTreeMap::new();
        for channel in claims.channels.unwrap_or_default() {
            channels.insert(channel, ServerSubscription::default());
        }
        for (channel, subscription) in claims.subs.unwrap_or_default() {
            let subscription = ServerSubscription {
                info: payload(subscription.info, subscription.b64info)?,
                data: payload(subscription.data, subscription.b64data)?,
                overrides: overrides(subscription.overrides),
            };
            channels.insert(channel, subscription);
        }
        Ok(ConnectionToken {
            user: claims.sub.into(),
            expires_at,
            info: payload(claims.info, claims.b64info)?,
            channels: channels.into_iter().collect(),
            meta: payload(claims.meta, None)?,
        })
    }

    /// Judges a subscription token at the time `now_unix`, in seconds since 1970.
    ///
    /// The caller compares user, channel and client with those of the connection.
    ///
    /// # Errors
    ///
    /// See [`TokenError`].
    pub fn verify_subscription(&self, token: &str, now_unix: i64) -> Result<SubscriptionToken, TokenError> {
        let mut claims = self.claims(token)?;
        let Some(channel) = claims.channel.take().filter(|channel| !channel.is_empty()) else {
            return Err(TokenError::Invalid("the claim \"channel\" is missing"));
        };
        let expires_at = self.judge(&claims, now_unix)?;
        Ok(SubscriptionToken {
            user: claims.sub.into(),
            channel,
            client: claims.client.filter(|client| !client.is_empty()),
            info: payload(claims.info, claims.b64info)?,
            data: payload(claims.data, claims.b64data)?,
            expires_at,
            overrides: overrides(claims.overrides),
        })
    }

    fn claims(&self, token: &str) -> Result<Claims, TokenError> {
        let key = self.key.as_ref().ok_or(TokenError::NotConfigured)?;
        key.verify(token).map_err(TokenError::Invalid)
    }

    /// Judges what both kinds of token have in common; gives the time at which what it grants ends.
    fn judge(&self, claims: &Claims, now_unix: i64) -> Result<Option<i64>, TokenError> {
        if let Some(audience) = &self.audience
            && !claims.aud.as_ref().is_some_and(|aud| aud.contains(audience))
        {
            return Err(TokenError::Invalid("the claim \"aud\" is not the configured audience"));
        }
        if let Some(issuer) = &self.issuer
            && claims.iss.as_ref() != Some(issuer)
        {
            return Err(TokenError::Invalid("the claim \"iss\" is not the configured issuer"));
        }
        if claims.nbf.is_some_and(|nbf| nbf > now_unix.saturating_add(MAX_SKEW_SECONDS)) {
            return Err(TokenError::Invalid("not valid yet (claim \"nbf\")"));
        }
        match claims.exp {
            // RFC 7519 section 4.1.4: not accepted on or after that time.
            Some(exp) if exp <= now_unix => return Err(TokenError::Expired),
            None if self.require_exp => return Err(TokenError::Invalid("the claim \"exp\" is missing")),
            _ => {}
        }
        match claims.expire_at {
            None => Ok(claims.exp),
            // The token's own time bounds only when it may be shown; 0 lets the connection last.
            Some(0) => Ok(None),
            Some(expire_at) if expire_at <= now_unix => Err(TokenError::Expired),
            Some(expire_at) => Ok(Some(expire_at)),
        }
    }
}

/// Signs `claims` with HS256 and `secret`.
///
/// # Errors
///
/// If the claims are no JSON object, or the cryptographic library fails.
pub fn sign(secret: &str, claims: &serde_json::Value) -> Result<String, SigningError> {
    if !claims.is_object() {
        return Err(SigningError("claims must be an object".to_owned()));
    }
    jwt::sign(secret, claims).map_err(|error| SigningError(error.to_string()))
}

/// Raw JSON out of a claim or its base64 twin, which wins where it is not empty.
fn payload(raw: Option<Box<RawValue>>, b64: Option<String>) -> Result<Bytes, TokenError> {
    let text = match b64.filter(|b64| !b64.is_empty()) {
        None => match raw {
            None => return Ok(Bytes::new()),
            Some(raw) => Box::<str>::from(raw).into_string(),
        },
        Some(b64) => {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(b64)
                .map_err(|_| TokenError::Invalid("a b64 claim is not base64"))?;
            let text = String::from_utf8(bytes)
                .map_err(|_| TokenError::Invalid("a b64 claim does not hold JSON"))?;
            // Not JSON would break every frame that it is put into.
            serde_json::from_str::<&RawValue>(&text)
                .map_err(|_| TokenError::Invalid("a b64 claim does not hold JSON"))?;
            text
        }
    };
    // A frame ends at a newline. Inside JSON text it is escaped, so a raw one is between tokens, where a
    // space means the same.
    Ok(Bytes::from(text.replace(['\n', '\r'], " ")))
}

fn overrides(claim: Option<jwt::Overrides>) -> Overrides {
    let claim = claim.unwrap_or_default();
    let value = |flag: Option<jwt::Flag>| flag.map(|flag| flag.value);
    Overrides {
        presence: value(claim.presence),
        join_leave: value(claim.join_leave),
        force_recovery: value(claim.force_recovery),
        force_positioning: value(claim.force_positioning),
        force_push_join_leave: value(claim.force_push_join_leave),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        bad.push(
            sign("another secret of more than 32 bytes", &json!({"sub": "42", "exp": NOW + 60})).unwrap(),
        );
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
        bad.push(
            sign(SECRET, &json!({"sub": "42", "exp": NOW + 60, "info": "x".repeat(16 * 1024)})).unwrap(),
        );
        bad.push("x".repeat(100 * 1024 * 1024));
        // Nested deeper than any parser should follow.
        let deep =
            format!("{{\"sub\":\"42\",\"exp\":1900000000,\"aud\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
        bad.push(forge(HS256, deep, HMAC_SHA256));

        assert!(bad.len() > 90, "{}", bad.len());
        for token in &bad {
            let shown: String = token.chars().take(200).collect();
            match verifier().verify_connection(token, NOW) {
                Err(TokenError::Invalid(_)) => {}
                other => panic!("{shown:?}: {other:?}"),
            }
            assert!(
                verifier().verify_subscription(token, NOW).is_err()
                    || token
                        == &forge(
                            HS256,
                            b"{\"sub\":\"42\",\"exp\":1900000000,\"channel\":\"a\"}",
                            HMAC_SHA256
                        )
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
        let overrides =
            Overrides { force_recovery: Some(true), presence: Some(true), ..Overrides::default() };
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
}
