//! Somebody who signs tokens with a pair of keys that is made for the test.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair, RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A signer.
pub(super) struct Signer {
    key: EncodingKey,
    /// The public key.
    pub(super) pem: String,
    /// The public key as an entry of a JWKS, without a name.
    pub(super) jwk: Value,
}

/// Making an RSA key takes a while, so there are two for all tests.
pub(super) static RSA: LazyLock<Signer> = LazyLock::new(Signer::rsa);
pub(super) static OTHER_RSA: LazyLock<Signer> = LazyLock::new(Signer::rsa);

impl Signer {
    fn rsa() -> Signer {
        let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let components = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let secret: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let key = EncodingKey::from_rsa_pem(pem("PRIVATE KEY", secret.as_ref()).as_bytes()).unwrap();
        let jwk = json!({"kty": "RSA", "n": base64url(&components.n), "e": base64url(&components.e)});
        Signer { key, pem: pem("PUBLIC KEY", pair.public_key().as_der().unwrap().as_ref()), jwk }
    }

    fn ecdsa(on: &'static EcdsaSigningAlgorithm, curve: &str) -> Signer {
        let pair = EcdsaKeyPair::generate(on).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
        let jwk = json!({"kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y)});
        Signer {
            key: EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref()),
            pem: pem("PUBLIC KEY", pair.public_key().as_der().unwrap().as_ref()),
            jwk,
        }
    }

    pub(super) fn p256() -> Signer {
        Signer::ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")
    }

    pub(super) fn p384() -> Signer {
        Signer::ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")
    }

    pub(super) fn ed25519() -> Signer {
        let pair = Ed25519KeyPair::generate().unwrap();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key().as_ref())});
        Signer {
            key: EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref()),
            pem: pem("PUBLIC KEY", pair.public_key().as_der().unwrap().as_ref()),
            jwk,
        }
    }

    /// A token with any header, of which `alg` is how it is signed.
    pub(super) fn sign(&self, header: &Value, claims: &Value) -> String {
        let algorithm: Algorithm = header["alg"].as_str().unwrap().parse().unwrap();
        let message = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// The public key as an entry of a JWKS.
    pub(super) fn jwk(&self, kid: &str) -> Value {
        self.jwk_with(json!({"kid": kid, "use": "sig"}))
    }

    /// The public key as an entry of a JWKS with more members.
    pub(super) fn jwk_with(&self, more: Value) -> Value {
        let mut jwk = self.jwk.clone();
        jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        jwk
    }
}

pub(super) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn pem(label: &str, der: &[u8]) -> String {
    let lines: Vec<String> = STANDARD
        .encode(der)
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8(line.to_vec()).unwrap())
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
