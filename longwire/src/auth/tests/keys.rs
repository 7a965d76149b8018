//! Tests of the keys of the configuration: which algorithms each serves, and which keys are no good.

use super::signer::{OTHER_RSA, RSA, Signer, base64url};
use super::*;

const SHORT_RSA: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCzEULO+CoT8t6bZ1xJ6ldpLNnk
jiOTez1R7hL59kahJG8k6KFG8Q0cUJf1F3W4eMmEn5Sj4U1YoIAuH99I4RPFroEd
7APlmYj7LPb22DjARDGsUQE4uDqx7F7lQl1GYA7p0MXkO31XG4kGDuSMSl3Cx9ZN
vBfY9c/6jD3t6qncJQIDAQAB
-----END PUBLIC KEY-----
";

const P521: &str = "-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQB6P+lcE1h7SimoMceQfziJJM2+aiY
/QlEAAGyVGQg0T5BkqnG7p5pHFgbPxvzEPzCqfNoXZsYipEpneVyWgWR2K4AacAd
ofxYhIPUpfUJLC4Qk6tqdC+Om8FapNzjT+UFXT3QZoVTJ3VD0j13UQk0pfpEXsaY
cAgMFOg8FEHjlz6cKA8=
-----END PUBLIC KEY-----
";

fn auth(change: impl FnOnce(&mut config::Auth)) -> config::Auth {
    let mut auth = config::Auth::default();
    change(&mut auth);
    auth
}

fn good() -> Value {
    json!({"sub": "42", "exp": NOW + 60})
}

fn refusal(verifier: &Verifier, token: &str) -> String {
    verifier.verify_connection(token, NOW).unwrap_err().what().into_owned()
}

#[test]
fn each_key_accepts_its_own_algorithms_and_no_others() {
    let (p256, p384, ed25519) = (Signer::p256(), Signer::p384(), Signer::ed25519());
    let signers: [(&Signer, &[&str], config::Auth); 4] = [
        (&RSA, &["RS256", "RS384", "RS512"], auth(|auth| auth.rsa_public_key = Some(RSA.pem.clone()))),
        (&p256, &["ES256"], auth(|auth| auth.ecdsa_public_key = Some(p256.pem.clone()))),
        (&p384, &["ES384"], auth(|auth| auth.ecdsa_public_key = Some(p384.pem.clone()))),
        (&ed25519, &["EdDSA"], auth(|auth| auth.ed25519_public_key = Some(ed25519.pem.clone()))),
    ];
    for (index, (_, _, auth)) in signers.iter().enumerate() {
        let verifier = Verifier::new(auth).unwrap();
        for (other, (signer, algorithms, _)) in signers.iter().enumerate() {
            for alg in *algorithms {
                let token = signer.sign(&json!({"alg": alg, "kid": "ignored"}), &good());
                let verdict = verifier.verify_connection(&token, NOW);
                assert_eq!(verdict.is_ok(), index == other, "{alg} by key {index}: {verdict:?}");
                // One more byte under the same signature.
                assert!(verifier.verify_connection(&token.replacen('.', "A.", 1), NOW).is_err());
            }
        }
        assert!(verifier.verify_connection(&sign(SECRET, &good()).unwrap(), NOW).is_err());
    }
    let verifier = Verifier::new(&signers[0].2).unwrap();
    let token = verifier.verify_connection(&RSA.sign(&json!({"alg": "RS384"}), &good()), NOW).unwrap();
    assert_eq!((&*token.user, token.key), ("42", "auth.rsa_public_key"));
    assert!(refusal(&verifier, &OTHER_RSA.sign(&json!({"alg": "RS256"}), &good())).contains("signature"));
}

#[test]
fn a_public_key_is_no_secret_of_hmac() {
    let by_key = Verifier::new(&auth(|auth| auth.rsa_public_key = Some(RSA.pem.clone()))).unwrap();
    let by_both = Verifier::new(&auth(|auth| {
        auth.rsa_public_key = Some(RSA.pem.clone());
        auth.hmac_secret = Some(SECRET.to_owned());
    }))
    .unwrap();
    let n = RSA.jwk["n"].as_str().unwrap();
    for secret in [&RSA.pem, RSA.pem.trim_end(), n] {
        let token = sign(secret, &good()).unwrap();
        assert_eq!(refusal(&by_key, &token), "the algorithm HS256 needs auth.hmac_secret");
        assert_eq!(refusal(&by_both, &token), "the signature does not match");
    }
    // The other way round: what a secret signed is called RS256.
    let header = json!({"alg": "RS256"}).to_string();
    let token = forge(&header, good().to_string(), aws_lc_rs::hmac::HMAC_SHA256);
    assert_eq!(refusal(&by_both, &token), "the signature does not match");
    let by_secret = verifier();
    assert_eq!(refusal(&by_secret, &token), "the algorithm RS256 needs auth.rsa_public_key or auth.jwks_url");
}

#[test]
fn a_header_brings_no_key_along() {
    let verifier = Verifier::new(&auth(|auth| auth.rsa_public_key = Some(RSA.pem.clone()))).unwrap();
    for more in [
        json!({"jwk": OTHER_RSA.jwk("x")}),
        json!({"jku": "https://evil.example/jwks.json"}),
        json!({"x5u": "https://evil.example/cert.pem"}),
        json!({"x5c": ["MIIB"]}),
        json!({"kid": "../../../dev/null"}),
        json!({"kid": "'; drop table keys; --"}),
        json!({"kid": "x".repeat(5000)}),
    ] {
        let mut header = json!({"alg": "RS256"});
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(
            refusal(&verifier, &OTHER_RSA.sign(&header, &good())),
            "the signature does not match",
            "{more}"
        );
        assert!(verifier.verify_connection(&RSA.sign(&header, &good()), NOW).is_ok(), "{more}");
    }
}

#[test]
fn a_refusal_says_which_setting_is_missing_or_that_there_is_none() {
    let verifier = verifier();
    let refused = |header: &str| {
        refusal(&verifier, &format!("{}.{}.AAAA", base64url(header), base64url(good().to_string())))
    };
    for (alg, expected) in [
        ("RS512", "the algorithm RS512 needs auth.rsa_public_key or auth.jwks_url"),
        ("ES256", "the algorithm ES256 needs auth.ecdsa_public_key or auth.jwks_url"),
        ("EdDSA", "the algorithm EdDSA needs auth.ed25519_public_key or auth.jwks_url"),
        ("ES512", "the algorithm ES512 is not supported: use ES256 or ES384"),
        ("PS256", "the algorithms PS256, PS384 and PS512 are not supported"),
        ("none", "the token is not signed"),
        ("nOnE", "the token is not signed"),
        ("hs256", "the algorithm is unknown"),
    ] {
        assert_eq!(refused(&json!({"alg": alg}).to_string()), expected, "{alg}");
    }
    let curve = Verifier::new(&auth(|auth| auth.ecdsa_public_key = Some(Signer::p384().pem))).unwrap();
    let token = Signer::p256().sign(&json!({"alg": "ES256"}), &good());
    assert_eq!(refusal(&curve, &token), "the algorithm is not that of the key's curve");
}

#[test]
fn the_previous_secret_is_good_until_it_is_taken_away() {
    let new = "a newer secret, of more than 32 bytes";
    let rotated = Verifier::new(&auth(|auth| {
        auth.hmac_secret = Some(new.to_owned());
        auth.hmac_previous_secret = Some(SECRET.to_owned());
    }))
    .unwrap();
    let by =
        |secret: &str| rotated.verify_connection(&sign(secret, &good()).unwrap(), NOW).map(|token| token.key);
    assert_eq!(by(new), Ok("auth.hmac_secret"));
    assert_eq!(by(SECRET), Ok("auth.hmac_previous_secret"));
    assert_eq!(
        by("quite another secret of 32 bytes!"),
        Err(TokenError::Invalid("the signature does not match"))
    );
    let expired = sign(SECRET, &json!({"sub": "42", "exp": NOW - 1})).unwrap();
    assert_eq!(rotated.verify_connection(&expired, NOW), Err(TokenError::Expired));
}

#[test]
fn a_key_that_is_weak_or_of_another_kind_is_refused_at_the_start() {
    let private = RSA.pem.replace("PUBLIC KEY", "PRIVATE KEY");
    let p256 = Signer::p256().pem;
    let ed25519 = Signer::ed25519().pem;
    let cases = [
        ("rsa", SHORT_RSA, "must have from 2048 to 8192 bits, not 1024"),
        ("rsa", &p256, "is not an RSA public key in PEM"),
        ("rsa", "nonsense", "is not an RSA"),
        ("rsa", &private, "is a private key"),
        ("rsa", "file:no-such-file.pem", "cannot read \"no-such-file.pem\""),
        ("rsa", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "is not an RSA"),
        ("ecdsa", P521, "is on the curve P-521, and its algorithm ES512 is not supported"),
        ("ecdsa", &RSA.pem, "is not an ECDSA"),
        ("ecdsa", &ed25519, "is not an ECDSA"),
        ("ed25519", &p256, "is not an Ed25519"),
        ("ed25519", "", "is not an Ed25519"),
    ];
    for (kind, pem, problem) in cases {
        let auth = auth(|auth| {
            let setting = match kind {
                "rsa" => &mut auth.rsa_public_key,
                "ecdsa" => &mut auth.ecdsa_public_key,
                _ => &mut auth.ed25519_public_key,
            };
            *setting = Some(pem.to_owned());
        });
        let text = Verifier::new(&auth).err().unwrap_or_else(|| panic!("accepted: {problem}")).to_string();
        let expected = format!("`auth.{kind}_public_key`: {problem}");
        assert!(text.starts_with(&expected), "{text}, not {expected}");
        assert!(!text.contains("MI"), "a key in a text: {text}");
    }
}

#[test]
fn a_key_may_be_in_a_file_or_on_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    std::fs::write(&path, &RSA.pem).unwrap();
    for text in [format!("file:{}", path.display()), RSA.pem.replace('\n', "\\n")] {
        let verifier = Verifier::new(&auth(|auth| auth.rsa_public_key = Some(text))).unwrap();
        assert!(verifier.verify_connection(&RSA.sign(&json!({"alg": "RS256"}), &good()), NOW).is_ok());
    }
}
