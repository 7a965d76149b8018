//! The form of a token: what its header and its claims can be, not what they mean.
//!
//! Called by `judge`, which knows the keys and what the claims mean, and by `key`, which checks the signature.
//! What must stay true: no claim is looked at before the signature held, nothing of a header but the names of
//! algorithm and key is used, and no error repeats a part of the token.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeSliceError, Engine};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

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
    pub(super) iat: Option<i64>,
    pub(super) jti: Option<String>,
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
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Audience::One(one) => std::slice::from_ref(one),
            Audience::Several(several) => several,
        }
        .iter()
        .map(String::as_str)
    }
}

/// Seconds since 1970, possibly with a fraction (RFC 7519 section 2, NumericDate).
fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let number = Option::<serde_json::Number>::deserialize(deserializer)?;
    // The cast of a float saturates: a date beyond all time stays beyond all time.
    Ok(number
        .map(|number| number.as_i64().unwrap_or_else(|| number.as_f64().unwrap_or(f64::MAX).floor() as i64)))
}

/// What a token's header says about its key, before anybody vouches for it: it only chooses among keys that were
/// configured.
#[derive(Deserialize)]
pub(super) struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    /// The name of the key (RFC 7515 section 4.1.4).
    pub(super) kid: Option<String>,
}

/// Room for the header of a usual token.
pub(super) type Scratch = [u8; 512];

impl<'a> Header<'a> {
    /// Reads the header of a token, into `scratch` if it has the room.
    ///
    /// # Errors
    /// What is wrong, without any part of the token.
    pub(super) fn read(
        token: &str,
        scratch: &'a mut Scratch,
        more: &'a mut Vec<u8>,
    ) -> Result<Header<'a>, &'static str> {
        let mut parts = token.split('.');
        let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("not three parts separated by dots");
        };
        let json = match URL_SAFE_NO_PAD.decode_slice(header, scratch) {
            Ok(len) => &scratch[..len],
            Err(DecodeSliceError::OutputSliceTooSmall) => {
                *more = URL_SAFE_NO_PAD.decode(header).map_err(|_| "a part is not base64url")?;
                more
            }
            Err(DecodeSliceError::DecodeError(_)) => return Err("a part is not base64url"),
        };
        serde_json::from_slice(json).map_err(|_| "header or claims are malformed or of a wrong type")
    }

    /// The algorithm that the token claims to be signed with.
    ///
    /// # Errors
    /// Why no key of ours could check it.
    pub(super) fn algorithm(&self) -> Result<Algorithm, &'static str> {
        match self.alg.parse() {
            Ok(Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512) => {
                Err("the algorithms PS256, PS384 and PS512 are not supported")
            }
            Ok(algorithm) => Ok(algorithm),
            Err(_) if self.alg == "ES512" => Err("the algorithm ES512 is not supported: use ES256 or ES384"),
            Err(_) if self.alg.eq_ignore_ascii_case("none") => Err("the token is not signed"),
            Err(_) => Err("the algorithm is unknown"),
        }
    }
}

/// The text of one claim of a token whose signature held.
///
/// # Errors
/// What is wrong, without any part of the token.
pub(super) fn text_claim(token: &str, name: &str) -> Result<String, &'static str> {
    const WRONG: &str = "the claim that `user_claim` names is missing or no text";
    let claims = token.split('.').nth(1).unwrap_or_default();
    let json = URL_SAFE_NO_PAD.decode(claims).map_err(|_| "a part is not base64url")?;
    let mut reader = serde_json::Deserializer::from_slice(&json);
    OneClaim(name).deserialize(&mut reader).map_err(|_| WRONG)
}

/// Finds one claim among all.
struct OneClaim<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for OneClaim<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneClaim<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("claims")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut claims: A) -> Result<String, A::Error> {
        let mut found = None;
        while let Some(name) = claims.next_key::<Cow<'de, str>>()? {
            if name != self.0 {
                claims.next_value::<IgnoredAny>()?;
            } else if found.replace(claims.next_value()?).is_some() {
                // Another reader of the token may take the other one.
                return Err(A::Error::custom("a claim twice"));
            }
        }
        found.ok_or_else(|| A::Error::custom("no such claim"))
    }
}

/// Signs `claims` with HS256.
pub(super) fn sign(secret: &str, claims: &impl Serialize) -> Result<String, jsonwebtoken::errors::Error> {
    jsonwebtoken::encode(
        &jsonwebtoken::Header::new(Algorithm::HS256),
        claims,
        &EncodingKey::from_secret(secret.as_bytes()),
    )
}
