//! Tests of the keys that an issuer publishes: when they are fetched, which are used, and what happens without.

use super::signer::{OTHER_RSA, RSA, Signer};
use super::*;
use crate::env::Http;
use crate::env::http::{Answer, Call, Caller, Calling, HttpError};
use std::sync::Mutex;
use std::time::Duration;

const URL: &str = "https://issuer.example/jwks.json";

/// How long an issuer takes to answer.
const LATENCY: Duration = Duration::from_millis(200);

/// An issuer who answers what it is told to.
struct Issuer {
    answer: Mutex<Result<Answer, HttpError>>,
    calls: Mutex<Vec<Call>>,
    clock: Clock,
}

struct Caught(Arc<Issuer>);

impl Caller for Caught {
    fn call(&self, call: Call) -> Calling {
        self.0.calls.lock().unwrap().push(call);
        let issuer = self.0.clone();
        Box::pin(async move {
            issuer.clock.sleep(LATENCY).await;
            issuer.answer.lock().unwrap().clone()
        })
    }
}

/// A verifier, its issuer, and a clock.
struct World {
    verifier: Verifier,
    issuer: Arc<Issuer>,
    clock: Clock,
}

impl World {
    fn new(keys: &[Value]) -> World {
        World::with(keys, |_| {})
    }

    fn with(keys: &[Value], change: impl FnOnce(&mut config::Auth)) -> World {
        let clock = Clock::starting_at(Duration::from_secs(NOW as u64));
        let answer = Mutex::new(Err(HttpError::Unreachable("nobody".to_owned())));
        let issuer = Arc::new(Issuer { answer, calls: Mutex::default(), clock });
        issuer.publish(keys);
        let env = Env { clock, http: Http::of(Arc::new(Caught(issuer.clone()))), ..Env::system() };
        let (errands, mut jobs) = Errands::new();
        tokio::spawn(async move {
            while let Some(job) = jobs.recv().await {
                tokio::spawn(job);
            }
        });
        let mut auth = config::Auth { jwks_url: Some(URL.to_owned()), ..config::Auth::default() };
        change(&mut auth);
        let verifier = Verifier::new(&auth).unwrap().fetching(&env, &errands);
        World { verifier, issuer, clock }
    }

    async fn judge(&self, token: &str) -> Result<&'static str, TokenError> {
        self.verifier.judge_connection(token, self.clock).await.map(|token| token.key)
    }

    async fn tend_after(&self, span: Duration) -> usize {
        self.clock.sleep(span).await;
        self.verifier.tend();
        self.clock.sleep(LATENCY * 2).await;
        self.issuer.calls()
    }
}

impl Issuer {
    fn publish(&self, keys: &[Value]) {
        self.answer(200, &json!({ "keys": keys }).to_string());
    }

    fn answer(&self, status: u16, body: &str) {
        *self.answer.lock().unwrap() = Ok(Answer { status, body: Bytes::copy_from_slice(body.as_bytes()) });
    }

    fn vanish(&self) {
        *self.answer.lock().unwrap() = Err(HttpError::TimedOut(Duration::from_secs(5)));
    }

    fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }
}

fn token(signer: &Signer, alg: &str, kid: &str) -> String {
    signer.sign(&json!({"alg": alg, "kid": kid}), &json!({"sub": "42", "exp": NOW + 999_999}))
}

const JWKS: Result<&str, TokenError> = Ok("auth.jwks_url");

#[tokio::test(start_paused = true)]
async fn all_who_wait_for_a_key_share_one_call() {
    let (p256, p384, ed25519) = (Signer::p256(), Signer::p384(), Signer::ed25519());
    let world = World::new(&[RSA.jwk("r"), p256.jwk("p256"), p384.jwk("p384"), ed25519.jwk("ed")]);
    let rsa = token(&RSA, "RS256", "r");
    assert_eq!(world.verifier.verify_connection(&rsa, NOW), Err(TokenError::MissingKey));
    let (p256, p384) = (token(&p256, "ES256", "p256"), token(&p384, "ES384", "p384"));
    let ed25519 = token(&ed25519, "EdDSA", "ed");
    let verdicts =
        tokio::join!(world.judge(&rsa), world.judge(&p256), world.judge(&p384), world.judge(&ed25519),);
    assert_eq!(verdicts, (JWKS, JWKS, JWKS, JWKS));
    assert_eq!(world.judge(&token(&RSA, "RS512", "r")).await, JWKS);
    assert_eq!(world.issuer.calls(), 1);
    let call = world.issuer.calls.lock().unwrap()[0].clone();
    assert_eq!((&*call.url, call.max_answer_bytes), (URL, 256 * 1024));
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_fetched_when_a_token_names_it_and_the_old_one_goes() {
    let world = World::new(&[RSA.jwk("old")]);
    let (old, new) = (token(&RSA, "RS256", "old"), token(&OTHER_RSA, "RS256", "new"));
    assert_eq!(world.judge(&old).await, JWKS);
    world.issuer.publish(&[OTHER_RSA.jwk("new")]);
    // The issuer answered a moment ago: whoever is early is told to try again, not that the token is wrong.
    assert!(matches!(world.judge(&new).await, Err(TokenError::Unavailable(_))));
    assert_eq!((world.judge(&old).await, world.issuer.calls()), (JWKS, 1));
    world.clock.sleep(Duration::from_secs(10)).await;
    assert_eq!((world.judge(&new).await, world.issuer.calls()), (JWKS, 2));
    world.clock.sleep(Duration::from_secs(10)).await;
    assert!(matches!(world.judge(&old).await, Err(TokenError::Invalid(_))));
}

#[tokio::test(start_paused = true)]
async fn names_that_nobody_has_cost_one_call_in_ten_seconds() {
    let world = World::new(&[RSA.jwk("r")]);
    assert_eq!(
        world.judge(&token(&OTHER_RSA, "RS256", "x")).await,
        Err(TokenError::Invalid("the issuer has no key of the name that the token gives (`kid`)"))
    );
    for second in 0..30 {
        for n in 0..10 {
            let _ = world.judge(&token(&OTHER_RSA, "RS256", &format!("{second}-{n}"))).await;
        }
        world.clock.sleep(Duration::from_secs(1)).await;
    }
    assert!((3..=5).contains(&world.issuer.calls()), "{}", world.issuer.calls());
    assert_eq!(world.judge(&token(&RSA, "RS256", "r")).await, JWKS);
}

#[tokio::test(start_paused = true)]
async fn without_the_issuer_a_token_is_not_called_invalid() {
    let world = World::new(&[]);
    let good = token(&RSA, "RS256", "r");
    let unreachable = Err(TokenError::Unavailable("the issuer's keys cannot be fetched"));
    world.issuer.vanish();
    assert_eq!(world.judge(&good).await, unreachable);
    assert_eq!((world.judge(&good).await, world.issuer.calls()), (unreachable, 1));
    for (status, body) in [
        (500, "{\"keys\":[]}"),
        (302, "{\"keys\":[]}"),
        (404, ""),
        (200, ""),
        (200, "[]"),
        (200, "{\"keys\":{}}"),
        (200, "<html>"),
        (200, &format!("{{\"keys\":[]}}{}", " ".repeat(256 * 1024))),
    ] {
        world.clock.sleep(Duration::from_secs(10)).await;
        world.issuer.answer(status, body);
        assert_eq!(world.judge(&good).await, unreachable, "{status} {}", body.len());
    }
    world.clock.sleep(Duration::from_secs(10)).await;
    world.issuer.publish(&[RSA.jwk("r")]);
    assert_eq!(world.judge(&good).await, JWKS);
}

#[tokio::test(start_paused = true)]
async fn keys_are_renewed_and_kept_while_the_issuer_is_away() {
    let world = World::with(&[RSA.jwk("r")], |auth| auth.jwks_refresh = Duration::from_secs(600));
    let good = token(&RSA, "RS256", "r");
    assert_eq!(world.tend_after(Duration::ZERO).await, 1, "before the first token");
    assert_eq!(world.judge(&good).await, JWKS);
    assert_eq!(world.tend_after(Duration::from_secs(590)).await, 1);
    assert_eq!(world.tend_after(Duration::from_secs(10)).await, 2);
    world.issuer.vanish();
    assert_eq!(world.tend_after(Duration::from_secs(600)).await, 3);
    // It is tried again sooner, but not all the time.
    assert_eq!(world.tend_after(Duration::from_secs(50)).await, 3);
    assert_eq!(world.tend_after(Duration::from_secs(10)).await, 4);
    world.clock.sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(world.judge(&good).await, JWKS, "the key is kept");
    // What the issuer itself takes away is gone.
    world.issuer.publish(&[]);
    world.tend_after(Duration::from_secs(60)).await;
    world.clock.sleep(Duration::from_secs(10)).await;
    assert!(matches!(world.judge(&good).await, Err(TokenError::Invalid(_))));
}

#[tokio::test(start_paused = true)]
async fn only_keys_that_are_for_signatures_and_strong_are_used() {
    let secret = "0123456789abcdef0123456789abcdef";
    let oct = json!({"kty": "oct", "kid": "oct", "alg": "HS256", "k": super::base64url(secret)});
    let p256 = Signer::p256();
    let mut off_curve = p256.jwk("off");
    off_curve["y"] = off_curve["x"].clone();
    let mut padded = RSA.jwk("padded");
    padded["n"] = format!("{}=", RSA.jwk["n"].as_str().unwrap()).into();
    let weak = json!({"kty": "RSA", "kid": "weak", "e": "AQAB", "n": super::base64url([0xff; 128])});
    let world = World::new(&[
        json!(null),
        json!({"kty": 1, "kid": "r"}),
        oct,
        weak,
        off_curve,
        padded,
        RSA.jwk_with(json!({"kid": "enc", "use": "enc"})),
        RSA.jwk_with(json!({"kid": "wrap", "key_ops": ["wrapKey"]})),
        RSA.jwk_with(json!({"kid": "384", "alg": "RS384"})),
        RSA.jwk_with(json!({"kid": "es", "alg": "ES256"})),
        RSA.jwk_with(json!({"kid": "hs", "alg": "HS256"})),
        RSA.jwk_with(json!({"kid": "ps", "alg": "PS256"})),
        RSA.jwk_with(json!({"kid": "e1", "e": "AQ"})),
        RSA.jwk_with(json!({"kid": "e2", "e": "Ag"})),
        RSA.jwk_with(json!({"kid": "e0", "e": ""})),
        RSA.jwk_with(json!({"kid": ""})),
        p256.jwk_with(json!({"kid": "p521", "crv": "P-521"})),
        RSA.jwk("both"),
        p256.jwk("both"),
        RSA.jwk_with(json!({"kid": "bare"})),
        RSA.jwk_with(json!({"kid": "ops", "key_ops": ["verify"]})),
    ]);
    for kid in ["both", "bare", "ops"] {
        assert_eq!(world.judge(&token(&RSA, "RS256", kid)).await, JWKS, "{kid}");
    }
    assert_eq!(world.judge(&token(&RSA, "RS384", "384")).await, JWKS);
    assert_eq!(world.judge(&token(&p256, "ES256", "both")).await, JWKS);
    let other = Err(TokenError::Invalid("the key that the token names is for another algorithm"));
    assert_eq!(world.judge(&token(&RSA, "RS256", "384")).await, other);
    assert_eq!(world.judge(&token(&p256, "ES256", "bare")).await, other);
    for kid in ["padded", "enc", "wrap", "es", "hs", "ps", "e0", "e1", "e2", "", "weak", "oct"] {
        assert_eq!(
            world.verifier.verify_connection(&token(&RSA, "RS256", kid), NOW),
            Err(TokenError::MissingKey),
            "{kid}"
        );
    }
    for kid in ["off", "p521"] {
        let verdict = world.verifier.verify_connection(&token(&p256, "ES256", kid), NOW);
        assert_eq!(verdict, Err(TokenError::MissingKey), "{kid}");
    }
    // A secret out of a JWKS, and a public key as one.
    for secret in [secret, RSA.pem.as_str()] {
        let message = format!(
            "{}.{}",
            super::base64url(json!({"alg": "HS256", "kid": "oct"}).to_string()),
            super::base64url(json!({"sub": "42", "exp": NOW + 60}).to_string())
        );
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
        let signature = aws_lc_rs::hmac::sign(&key, message.as_bytes());
        let verdict = world.judge(&format!("{message}.{}", super::base64url(signature))).await;
        assert!(matches!(verdict, Err(TokenError::NoKey { algorithm: "HS256", .. })), "{verdict:?}");
    }
    // The issuer's name for a key, and somebody else's signature.
    let forged = world.judge(&token(&OTHER_RSA, "RS256", "bare")).await;
    assert_eq!(forged, Err(TokenError::Invalid("the signature does not match")));
    assert_eq!(world.issuer.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_with_very_many_keys_has_a_hundred_of_them_used() {
    let p256 = Signer::p256();
    let keys: Vec<Value> = (0..150).map(|n| p256.jwk(&n.to_string())).collect();
    let world = World::new(&keys);
    assert_eq!(world.judge(&token(&p256, "ES256", "99")).await, JWKS);
    assert!(world.judge(&token(&p256, "ES256", "100")).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_key_of_the_configuration_comes_before_those_of_the_issuer() {
    let world = World::with(&[OTHER_RSA.jwk("r")], |auth| auth.rsa_public_key = Some(RSA.pem.clone()));
    let ours = RSA.sign(&json!({"alg": "RS256"}), &json!({"sub": "42", "exp": NOW + 60}));
    assert_eq!((world.judge(&ours).await, world.issuer.calls()), (Ok("auth.rsa_public_key"), 0));
    assert_eq!(world.judge(&token(&OTHER_RSA, "RS256", "r")).await, JWKS);
    let unnamed = OTHER_RSA.sign(&json!({"alg": "RS256"}), &json!({"sub": "42", "exp": NOW + 60}));
    assert_eq!(world.judge(&unnamed).await, Err(TokenError::Invalid("the signature does not match")));
    let p256 = Signer::p256().sign(&json!({"alg": "ES256"}), &json!({"sub": "42", "exp": NOW + 60}));
    assert!(world.judge(&p256).await.is_err_and(|error| error.what().contains("names no key")));
    assert_eq!(world.issuer.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_issuers_keys_of_one_name_are_not_mistaken_for_each_other() {
    let (ours, theirs) = (World::new(&[RSA.jwk("k")]), World::new(&[OTHER_RSA.jwk("k")]));
    let (a, b) = (token(&RSA, "RS256", "k"), token(&OTHER_RSA, "RS256", "k"));
    assert_eq!((ours.judge(&a).await, theirs.judge(&b).await), (JWKS, JWKS));
    assert!(ours.judge(&b).await.is_err() && theirs.judge(&a).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_leaves_no_token_waiting() {
    let auth = config::Auth { jwks_url: Some(URL.to_owned()), ..config::Auth::default() };
    let (errands, jobs) = Errands::new();
    drop(jobs);
    let clock = Clock::starting_at(Duration::from_secs(NOW as u64));
    let verifier = Verifier::new(&auth).unwrap().fetching(&Env { clock, ..Env::system() }, &errands);
    let verdict = verifier.judge_connection(&token(&RSA, "RS256", "r"), clock).await;
    assert_eq!(verdict, Err(TokenError::Unavailable("the issuer's keys cannot be fetched")));
    // One that was not told how to fetch does not wait either.
    let verifier = Verifier::new(&auth).unwrap();
    assert!(verifier.judge_connection(&token(&RSA, "RS256", "r"), clock).await.is_err());
}
