//! A key that checks signatures, and which algorithms it is good for.
//!
//! Made of a secret, a PEM text or an entry of a JWKS; `judge` and `jwks` hold them. It decides which
//! algorithms a key serves and whether it is strong enough, and leaves the arithmetic to `jsonwebtoken`. What
//! must stay true: a key serves the algorithms of its own kind alone, whatever a token's header says; an entry
//! of a JWKS is never a secret; no error repeats a part of a token or of a key.

use super::jwt::Claims;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

/// What is wrong with a token that another key may still accept.
pub(super) const MISMATCH: &str = "the signature does not match";

/// The bits that an RSA key has (RFC 7518 section 3.3: at least 2048; more than 8192 would cost a server too much).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: &[Algorithm] = &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512];

/// A key that checks tokens.
pub(super) struct Key {
    /// The setting that it comes from.
    pub(super) name: &'static str,
    key: DecodingKey,
    validation: Validation,
}

/// An entry of a JWKS (RFC 7517 section 4), as far as it matters here.
#[derive(Deserialize)]
pub(super) struct Jwk {
    kty: String,
    pub(super) kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Key {
    /// A secret.
    pub(super) fn hmac(name: &'static str, secret: &str) -> Key {
        Key::new(name, DecodingKey::from_secret(secret.as_bytes()), HMAC)
    }

    /// An RSA key in PEM.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn rsa(name: &'static str, pem: &str) -> Result<Key, String> {
        let key = DecodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| not_pem("an RSA"))?;
        let der = key.try_get_as_bytes().map_err(|_| not_pem("an RSA"))?;
        let public = rsa::PublicKey::from_der(der).map_err(|_| not_pem("an RSA"))?;
        let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(&public);
        require_strong(&n, &e)?;
        Ok(Key::new(name, key, RSA))
    }

    /// An ECDSA key in PEM; its curve decides the algorithm.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn ecdsa(name: &'static str, pem: &str) -> Result<Key, String> {
        let key = DecodingKey::from_ec_pem(pem.as_bytes()).map_err(|_| not_pem("an ECDSA"))?;
        let point = key.try_get_as_bytes().map_err(|_| not_pem("an ECDSA"))?;
        let algorithms = curve(point)?;
        Ok(Key::new(name, key, algorithms))
    }

    /// An Ed25519 key in PEM.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn ed25519(name: &'static str, pem: &str) -> Result<Key, String> {
        let key = DecodingKey::from_ed_pem(pem.as_bytes()).map_err(|_| not_pem("an Ed25519"))?;
        let point = key.try_get_as_bytes().map_err(|_| not_pem("an Ed25519"))?;
        if !is_ed25519(point) {
            return Err(not_pem("an Ed25519"));
        }
        Ok(Key::new(name, key, &[Algorithm::EdDSA]))
    }

    /// An entry of a JWKS.
    ///
    /// # Errors
    /// Why it checks no tokens.
    pub(super) fn of_jwk(name: &'static str, jwk: &Jwk) -> Result<Key, String> {
        // RFC 7517 section 4.2 and 4.3.
        if jwk.usage.as_deref().is_some_and(|usage| usage != "sig")
            || jwk.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify"))
        {
            return Err("it is not for signatures".to_owned());
        }
        let (key, algorithms) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (number(&jwk.n)?, number(&jwk.e)?);
                require_strong(&n, &e)?;
                RsaPublicKeyComponents { n: &n, e: &e }
                    .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
                    .map_err(|_| "it is no RSA key".to_owned())?;
                (DecodingKey::from_rsa_raw_components(&n, &e), RSA)
            }
            ("EC", Some("P-256" | "P-384")) => {
                let point = [&[4][..], &bytes(&jwk.x)?, &bytes(&jwk.y)?].concat();
                let algorithms = curve(&point)?;
                (DecodingKey::from_ec_der(&point), algorithms)
            }
            ("OKP", Some("Ed25519")) => {
                let point = bytes(&jwk.x)?;
                if !is_ed25519(&point) {
                    return Err("it is no point of its curve".to_owned());
                }
                (DecodingKey::from_ed_der(&point), &[Algorithm::EdDSA][..])
            }
            // What everybody may read cannot be a secret.
            ("oct", _) => return Err("it is a secret, and secrets are never taken from a JWKS".to_owned()),
            _ => return Err("its kind or curve is not supported".to_owned()),
        };
        let Some(alg) = &jwk.alg else { return Ok(Key::new(name, key, algorithms)) };
        // RFC 9864 names EdDSA by its curve.
        let alg = if alg == "Ed25519" { "EdDSA" } else { alg };
        let named: Vec<Algorithm> =
            algorithms.iter().copied().filter(|algorithm| alg.parse() == Ok(*algorithm)).collect();
        if named.is_empty() {
            Err("its algorithm does not fit it".to_owned())
        } else {
            Ok(Key::new(name, key, &named))
        }
    }

    fn new(name: &'static str, key: DecodingKey, algorithms: &[Algorithm]) -> Key {
        let mut validation = Validation::new(algorithms[0]);
        validation.algorithms = algorithms.to_vec();
        // The library would ask the clock; the caller judges these claims with the time it is given.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Key { name, key, validation }
    }

    /// Whether the key checks tokens of this algorithm.
    pub(super) fn serves(&self, algorithm: Algorithm) -> bool {
        self.validation.algorithms.contains(&algorithm)
    }

    /// Any algorithm that the key serves.
    pub(super) fn any_algorithm(&self) -> Algorithm {
        self.validation.algorithms[0]
    }

    /// The claims of a token whose signature holds; otherwise what is wrong, without any part of the token.
    ///
    /// # Errors
    /// [`MISMATCH`] if another key may accept it.
    pub(super) fn verify(&self, token: &str) -> Result<Claims, &'static str> {
        let data = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation).map_err(|error| {
            match error.kind() {
                ErrorKind::InvalidToken => "not three parts separated by dots",
                ErrorKind::InvalidSignature => MISMATCH,
                ErrorKind::InvalidAlgorithm
                | ErrorKind::InvalidAlgorithmName
                | ErrorKind::UnsupportedAlgorithm
                | ErrorKind::InvalidKeyFormat => "the algorithm is not the key's",
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

fn not_pem(kind: &str) -> String {
    format!("is not {kind} public key in PEM (\"-----BEGIN PUBLIC KEY-----\")")
}

/// The algorithm of the curve that an uncompressed point is on (RFC 7518 section 3.4).
fn curve(point: &[u8]) -> Result<&'static [Algorithm], String> {
    let (on, algorithms): (&'static dyn VerificationAlgorithm, &[Algorithm]) = match point.len() {
        65 => (&ECDSA_P256_SHA256_FIXED, &[Algorithm::ES256]),
        97 => (&ECDSA_P384_SHA384_FIXED, &[Algorithm::ES384]),
        133 => return Err("is on the curve P-521, and its algorithm ES512 is not supported".to_owned()),
        _ => return Err("is neither on the curve P-256 nor on P-384".to_owned()),
    };
    if is_point(on, point) {
        Ok(algorithms)
    } else {
        Err("is neither on the curve P-256 nor on P-384".to_owned())
    }
}

fn is_point(on: &'static dyn VerificationAlgorithm, point: &[u8]) -> bool {
    ParsedPublicKey::new(on, point).is_ok()
}

fn is_ed25519(point: &[u8]) -> bool {
    point.len() == 32 && is_point(&ED25519, point)
}

/// Refuses an RSA key, given by its numbers without leading zeros, that is too short or too long or of a kind that
/// lets anybody sign.
fn require_strong(modulus: &[u8], exponent: &[u8]) -> Result<(), String> {
    // RFC 8017 section 3.1. Raised to the power of 1, every message is its own signature.
    let is_odd = exponent.last().is_some_and(|last| last % 2 == 1);
    if !is_odd || exponent == [1] {
        return Err("has an exponent that is no odd number from 3".to_owned());
    }
    let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
    if RSA_BITS.contains(&bits) {
        return Ok(());
    }
    Err(format!("must have from {} to {} bits, not {bits}", RSA_BITS.start(), RSA_BITS.end()))
}

fn bytes(member: &Option<String>) -> Result<Vec<u8>, String> {
    let text = member.as_deref().ok_or("a part of it is missing")?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "a part of it is not base64url".to_owned())
}

/// A big-endian number without the leading zeros that some issuers write.
fn number(member: &Option<String>) -> Result<Vec<u8>, String> {
    let bytes = bytes(member)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes[zeros..].to_vec())
}
