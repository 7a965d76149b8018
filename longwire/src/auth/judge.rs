//! One set of keys and rules: the section `[auth]`, or `[subscription_auth]`.
//!
//! Called by `auth`. It chooses the configured key that a token must fit, has it check the signature, and then
//! judges times, audience and issuer and says what the claims grant. What must stay true: a secret checks only
//! HMAC, a public key never does; a token's header only chooses among the keys that are configured; the keys of
//! an issuer are asked only when no configured key of the kind accepts the token.

use super::jwks::{Jwks, Lookup, NotFetched};
use super::jwt::{self, Claims, Header};
use super::key::{Key, MISMATCH};
use super::pattern::Expected;
use super::{ConnectionToken, KeyError, Overrides, ServerSubscription, SubscriptionToken, TokenError};
use crate::config::Auth;
use crate::env::{Env, disk};
use crate::errands::Errands;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// How far ahead of ours the clock of the backend may be (claim `nbf`).
const MAX_SKEW_SECONDS: i64 = 60;

/// A longer token is refused before anything is decoded.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Keys and rules.
pub(super) struct Judge {
    settings: Settings,
    /// The secret and the one before it.
    hmac: Vec<Key>,
    rsa: Option<Key>,
    ecdsa: Option<Key>,
    ed25519: Option<Key>,
    jwks: Option<Jwks>,
    audience: Expected,
    issuer: Expected,
    user_claim: Option<String>,
    require_exp: bool,
}

/// What the settings of a section are called.
struct Settings {
    hmac: &'static str,
    previous: &'static str,
    rsa: &'static str,
    ecdsa: &'static str,
    ed25519: &'static str,
    jwks: &'static str,
    /// Those of which one is needed for the algorithms of a kind.
    for_rsa: &'static str,
    for_ecdsa: &'static str,
    for_ed25519: &'static str,
}

macro_rules! settings {
    ($section:literal) => {
        Settings {
            hmac: concat!($section, ".hmac_secret"),
            previous: concat!($section, ".hmac_previous_secret"),
            rsa: concat!($section, ".rsa_public_key"),
            ecdsa: concat!($section, ".ecdsa_public_key"),
            ed25519: concat!($section, ".ed25519_public_key"),
            jwks: concat!($section, ".jwks_url"),
            for_rsa: concat!($section, ".rsa_public_key or ", $section, ".jwks_url"),
            for_ecdsa: concat!($section, ".ecdsa_public_key or ", $section, ".jwks_url"),
            for_ed25519: concat!($section, ".ed25519_public_key or ", $section, ".jwks_url"),
        }
    };
}

impl Judge {
    /// Reads the keys of a section and tries each.
    pub(super) fn new(auth: &Auth, is_of_subscriptions: bool) -> Result<Judge, KeyError> {
        let settings = if is_of_subscriptions { settings!("subscription_auth") } else { settings!("auth") };
        let secrets = [(settings.hmac, &auth.hmac_secret), (settings.previous, &auth.hmac_previous_secret)];
        let mut hmac = Vec::new();
        for (name, secret) in secrets {
            let Some(secret) = secret else { continue };
            let key = Key::hmac(name, secret);
            let signed = jwt::sign(secret, &serde_json::json!({ "sub": "self-test" }));
            let accepted = signed.is_ok_and(|token| key.verify(&token).is_ok());
            if !accepted {
                return Err(KeyError(format!("`{name}`: a token that was just signed is not accepted")));
            }
            hmac.push(key);
        }
        let jwks = auth.jwks_url.as_ref().map(|url| Jwks::new(settings.jwks, url, auth.jwks_refresh));
        Ok(Judge {
            hmac,
            rsa: public_key(settings.rsa, &auth.rsa_public_key, Key::rsa)?,
            ecdsa: public_key(settings.ecdsa, &auth.ecdsa_public_key, Key::ecdsa)?,
            ed25519: public_key(settings.ed25519, &auth.ed25519_public_key, Key::ed25519)?,
            jwks,
            audience: Expected::of(auth.audience.as_ref(), auth.audience_pattern.as_ref()),
            issuer: Expected::of(auth.issuer.as_ref(), auth.issuer_pattern.as_ref()),
            user_claim: auth.user_claim.clone(),
            require_exp: auth.require_exp,
            settings,
        })
    }

    /// Lets it fetch the keys of the issuer.
    pub(super) fn fetch_with(&mut self, env: &Env, errands: &Errands) {
        if let Some(jwks) = &mut self.jwks {
            jwks.fetch_with(env.http.clone(), env.clock, errands.clone());
        }
    }

    /// Fetches again what is older than it should be; waits for nothing.
    pub(super) fn tend(&self) {
        self.jwks.iter().for_each(Jwks::tend);
    }

    /// Waits until the issuer has given its keys.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(super) async fn fetch(&self) -> Result<(), TokenError> {
        let Some(jwks) = &self.jwks else { return Err(TokenError::NotConfigured) };
        jwks.fetch().await.map_err(|why| {
            TokenError::Unavailable(match why {
                NotFetched::Failed => "the issuer's keys cannot be fetched",
                NotFetched::TooSoon => {
                    "the issuer's keys were fetched a moment ago and have none of the name that the token gives"
                }
            })
        })
    }

    /// What a connection token grants.
    pub(super) fn connection(&self, token: &str, now_unix: i64) -> Result<ConnectionToken, TokenError> {
        let (claims, key) = self.claims(token)?;
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
            user: self.user(token, claims.sub)?,
            expires_at,
            info: payload(claims.info, claims.b64info)?,
            channels: channels.into_iter().collect(),
            meta: payload(claims.meta, None)?,
            jti: claims.jti.map(Arc::from),
            issued_at: claims.iat,
            key,
        })
    }

    /// What a subscription token grants.
    pub(super) fn subscription(&self, token: &str, now_unix: i64) -> Result<SubscriptionToken, TokenError> {
        let (mut claims, key) = self.claims(token)?;
        let Some(channel) = claims.channel.take().filter(|channel| !channel.is_empty()) else {
            return Err(TokenError::Invalid("the claim \"channel\" is missing"));
        };
        let expires_at = self.judge(&claims, now_unix)?;
        Ok(SubscriptionToken {
            user: self.user(token, claims.sub)?,
            channel,
            client: claims.client.filter(|client| !client.is_empty()),
            info: payload(claims.info, claims.b64info)?,
            data: payload(claims.data, claims.b64data)?,
            expires_at,
            overrides: overrides(claims.overrides),
            jti: claims.jti.map(Arc::from),
            issued_at: claims.iat,
            key,
        })
    }

    /// The claims of a token whose signature holds, and the setting whose key says so.
    fn claims(&self, token: &str) -> Result<(Claims, &'static str), TokenError> {
        let Judge { hmac, rsa, ecdsa, ed25519, jwks, settings, .. } = self;
        if hmac.is_empty() && rsa.is_none() && ecdsa.is_none() && ed25519.is_none() && jwks.is_none() {
            return Err(TokenError::NotConfigured);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Invalid("longer than 16 KiB"));
        }
        let (mut scratch, mut more) = ([0; size_of::<jwt::Scratch>()], Vec::new());
        let header = Header::read(token, &mut scratch, &mut more).map_err(TokenError::Invalid)?;
        let algorithm = header.algorithm().map_err(TokenError::Invalid)?;
        let (key, needed) = match algorithm.family() {
            AlgorithmFamily::Hmac => return self.claims_by_secret(token, algorithm),
            AlgorithmFamily::Rsa => (rsa, settings.for_rsa),
            AlgorithmFamily::Ec => (ecdsa, settings.for_ecdsa),
            AlgorithmFamily::Ed => (ed25519, settings.for_ed25519),
        };
        let fitting = key.as_ref().filter(|key| key.serves(algorithm));
        let verdict = fitting.map(|key| (key.verify(token), key.name));
        let Some(jwks) = jwks else {
            let Some((claims, name)) = verdict else {
                return Err(match key {
                    Some(_) => TokenError::Invalid("the algorithm is not that of the key's curve"),
                    None => TokenError::NoKey { algorithm: name_of(algorithm), settings: needed },
                });
            };
            return claims.map(|claims| (claims, name)).map_err(TokenError::Invalid);
        };
        match verdict {
            Some((Ok(claims), name)) => return Ok((claims, name)),
            Some((Err(reason), _)) if reason != MISMATCH || header.kid.is_none() => {
                return Err(TokenError::Invalid(reason));
            }
            _ => {}
        }
        let Some(kid) = &header.kid else {
            return Err(TokenError::Invalid(
                "the token names no key (`kid`), which chooses among the issuer's",
            ));
        };
        match jwks.with(kid, algorithm, |key| (key.verify(token), key.name)) {
            Ok((claims, name)) => claims.map(|claims| (claims, name)).map_err(TokenError::Invalid),
            Err(Lookup::OtherAlgorithm) => {
                Err(TokenError::Invalid("the key that the token names is for another algorithm"))
            }
            Err(Lookup::Unknown) => Err(TokenError::MissingKey),
        }
    }

    fn claims_by_secret(
        &self,
        token: &str,
        algorithm: Algorithm,
    ) -> Result<(Claims, &'static str), TokenError> {
        let mut refusal = TokenError::NoKey { algorithm: name_of(algorithm), settings: self.settings.hmac };
        for key in &self.hmac {
            match key.verify(token) {
                Ok(claims) => return Ok((claims, key.name)),
                Err(MISMATCH) => refusal = TokenError::Invalid(MISMATCH),
                Err(reason) => return Err(TokenError::Invalid(reason)),
            }
        }
        Err(refusal)
    }

    /// Who the user is, by a token whose signature held.
    fn user(&self, token: &str, sub: String) -> Result<Arc<str>, TokenError> {
        match &self.user_claim {
            None => Ok(sub.into()),
            Some(name) => jwt::text_claim(token, name).map(Arc::from).map_err(TokenError::Invalid),
        }
    }

    /// Judges what both kinds of token have in common; gives the time at which what it grants ends.
    fn judge(&self, claims: &Claims, now_unix: i64) -> Result<Option<i64>, TokenError> {
        if !self.audience.is_met_by(claims.aud.iter().flat_map(jwt::Audience::iter)) {
            return Err(TokenError::Invalid("the claim \"aud\" is not the configured audience"));
        }
        if !self.issuer.is_met_by(claims.iss.as_deref().into_iter()) {
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

/// Reads a public key, has it refuse a token, and says what is wrong if it cannot.
fn public_key(
    name: &'static str,
    text: &Option<String>,
    read: impl Fn(&'static str, &str) -> Result<Key, String>,
) -> Result<Option<Key>, KeyError> {
    let wrong = |why: String| KeyError(format!("`{name}`: {why}"));
    let Some(text) = text else { return Ok(None) };
    let pem = match text.strip_prefix("file:") {
        Some(path) => disk::read_to_string(Path::new(path)).map_err(|error| wrong(error.to_string()))?,
        // Environment files have no lines within a value.
        None => text.replace("\\n", "\n"),
    };
    if pem.contains("PRIVATE KEY") {
        return Err(wrong("is a private key, and the public one is needed".to_owned()));
    }
    let key = read(name, &pem).map_err(wrong)?;
    let header = format!("{{\"alg\":\"{}\"}}", name_of(key.any_algorithm()));
    let forged = format!("{}.e30.AAAA", URL_SAFE_NO_PAD.encode(header));
    match key.verify(&forged) {
        Err(MISMATCH) => Ok(Some(key)),
        Err(reason) => Err(wrong(format!("it does not work: {reason}"))),
        Ok(_) => Err(wrong("it accepts what nobody signed".to_owned())),
    }
}

/// The name of an algorithm, as tokens have it.
fn name_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::HS256 => "HS256",
        Algorithm::HS384 => "HS384",
        Algorithm::HS512 => "HS512",
        Algorithm::RS256 => "RS256",
        Algorithm::RS384 => "RS384",
        Algorithm::RS512 => "RS512",
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        Algorithm::EdDSA => "EdDSA",
        _ => "of the token",
    }
}

/// Raw JSON out of a claim or its base64 twin, which wins where it is not empty.
fn payload(raw: Option<Box<RawValue>>, b64: Option<String>) -> Result<Bytes, TokenError> {
    let text = match b64.filter(|b64| !b64.is_empty()) {
        None => match raw {
            None => return Ok(Bytes::new()),
            Some(raw) => Box::<str>::from(raw).into_string(),
        },
        Some(b64) => {
            let bytes = STANDARD.decode(b64).map_err(|_| TokenError::Invalid("a b64 claim is not base64"))?;
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
