//! The signed form of a token: signature and claims, not what they mean.
//!
//! A thin layer over `jsonwebtoken`, called by `auth`. It judges the signature and the types of the claims;
//! times, audience and issuer are judged above, where time is an argument. What must stay true: the algorithm
//! comes from the key that was configured and never from the token, no key is taken from a token's header, no
//! claim is looked at before the signature held, and no error repeats a part of the token.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A longer token is refused before anything is decoded.
pub(super) const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The claims of both kinds of token (centrifuge protocol, section 12). Unknown claims are ignored.
///
/// No part may be flattened: serde would buffer it, and raw JSON does not survive that.
#[derive(Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    pub(super) sub: String,
    #[serde(default, deserialize_with = "numeric_date")]
    pub(super) exp: Option<i64>,
    #[serde(default, deserialize_with = "numeric_date")]
    pub(super) nbf: Option<i64>,
    #[serde(default, deserialize_with = "numeric_date")]
    pub(super) expire_at: Option<i64>,
    pub(super) aud: Option<Audience>,
    pub(super) iss: Option<String>,
    pub(super) channel: Option<String>,
    pub(super) client: Option<String>,
    pub(super) info: Option<Box<RawValue>>,
    pub(super) b64info: Option<String>,
    pub(super) data: Option<Box<RawValue>>,
    pub(super) b64data: Option<String>,
    #[serde(rename = "override")]
    pub(super) overrides: Option<Overrides>,
    pub(super) channels: Option<Vec<String>>,
    pub(super) subs: Option<BTreeMap<String, Subscription>>,
    pub(super) meta: Option<Box<RawValue>>,
}

/// One entry of the claim `subs`.
#[derive(Deserialize)]
pub(super) struct Subscription {
    pub(super) info: Option<Box<RawValue>>,
    pub(super) b64info: Option<String>,
    pub(super) data: Option<Box<RawValue>>,
    pub(super) b64data: Option<String>,
    #[serde(rename = "override")]
    pub(super) overrides: Option<Overrides>,
}

/// The claim `override`: options of the channel that hold differently for one subscription.
#[derive(Deserialize, Default)]
pub(super) struct Overrides {
    pub(super) presence: Option<Flag>,
    pub(super) join_leave: Option<Flag>,
    pub(super) force_recovery: Option<Flag>,
    pub(super) force_positioning: Option<Flag>,
    pub(super) force_push_join_leave: Option<Flag>,
}

/// A boolean as protobuf's JSON form wraps it.
#[derive(Deserialize)]
pub(super) struct Flag {
    #[serde(default)]
    pub(super) value: bool,
}

/// The claim `aud` (RFC 7519 section 4.1.3): one text or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    pub(super) fn contains(&self, audience: &str) -> bool {
        match self {
            Audience::One(one) => one == audience,
            Audience::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}

/// Seconds since 1970, possibly with a fraction (RFC 7519 section 2, NumericDate).
fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let number = Option::<serde_json::Number>::deserialize(deserializer)?;
    // The cast of a float saturates: a date beyond all time stays beyond all time.
    Ok(number
        .map(|number| number.as_i64().unwrap_or_else(|| number.as_f64().unwrap_or(f64::MAX).floor() as i64)))
}

/// The key that checks tokens.
pub(super) struct HmacKey {
    key: DecodingKey,
    validation: Validation,
}

impl HmacKey {
    pub(super) fn new(secret: &str) -> HmacKey {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.algorithms = vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        // The library would ask the clock; the caller judges these claims with the time it is given.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        HmacKey { key: DecodingKey::from_secret(secret.as_bytes()), validation }
    }

    /// The claims of a token whose signature holds; otherwise what is wrong, without any part of the token.
    pub(super) fn verify(&self, token: &str) -> Result<Claims, &'static str> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err("longer than 16 KiB");
        }
        let data = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation).map_err(|error| {
            match error.kind() {
                ErrorKind::InvalidToken => "not three parts separated by dots",
                ErrorKind::InvalidSignature => "the signature does not match",
                ErrorKind::InvalidAlgorithm
                | ErrorKind::InvalidAlgorithmName
                | ErrorKind::UnsupportedAlgorithm
                | ErrorKind::InvalidKeyFormat => "the algorithm is not HS256, HS384 or HS512",
                ErrorKind::Base64(_) => "a part is not base64url",
                // The library's text would repeat values out of the token.
                ErrorKind::Json(_) | ErrorKind::Utf8(_) => {
                    "header or claims are malformed or of a wrong type"
                }
                _ => "the token cannot be read",
            }
        })?;
        // RFC 7515 section 4.1.11: what the signer calls critical must be understood, and we know none.
        if data.header.crit.is_some() {
            return Err("the header names critical extensions");
        }
        Ok(data.claims)
    }
}

/// Signs `claims` with HS256.
pub(super) fn sign(secret: &str, claims: &impl Serialize) -> Result<String, jsonwebtoken::errors::Error> {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes()))
}
