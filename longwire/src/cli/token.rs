//! `longwire token make` and `longwire token inspect`.
//!
//! Made with the secret, audience and issuer of the configuration, and judged by the same verifier that the
//! server uses, which fetches the keys of the issuer if it must. What must stay true: no secret is ever printed,
//! and what a token claims is shown as a claim until the verdict says that it is genuine.

use super::{Failure, print, printable, settings};
use crate::auth::{self, ConnectionToken, SubscriptionToken, TokenError, Verifier};
use crate::config::{Config, format_duration, parse_duration};
use crate::env::{Clock, Env};
use crate::errands::Errands;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::Duration;

/// What `longwire token` does.
#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Makes a token and prints it.
    Make(Make),
    /// Shows what a token says, which key accepts it and what it grants, or why it is refused.
    #[command(visible_alias = "check")]
    Inspect {
        /// The token.
        token: String,
        /// The configuration file with the keys.
        #[arg(long, value_name = "FILE", env = "LONGWIRE_CONFIG")]
        config: Option<PathBuf>,
    },
}

/// What `longwire token make` takes.
#[derive(clap::Args, Debug)]
pub(super) struct Make {
    /// Who the client is; without it the anonymous user.
    #[arg(long, default_value = "", hide_default_value = true)]
    user: String,
    /// Make a subscription token for this channel rather than a connection token.
    #[arg(long)]
    channel: Option<String>,
    /// How long the token is good, such as 90s, 15m or 1h, or `never`.
    #[arg(long, default_value = "1h")]
    expires: String,
    /// What other clients see of the user: JSON.
    #[arg(long, value_name = "JSON")]
    info: Option<String>,
    /// The configuration file with `auth.hmac_secret`.
    #[arg(long, value_name = "FILE", env = "LONGWIRE_CONFIG")]
    config: Option<PathBuf>,
}

/// Makes or inspects a token.
pub(super) fn token(command: Command, flags: &[(String, String)]) -> Result<(), Failure> {
    let now_unix = Clock::system().unix_seconds();
    match command {
        Command::Make(make) => {
            let (config, _) = settings::load(make.config.clone(), flags)?;
            print(&format!("{}\n", self::make(&make, &config, now_unix)?))
        }
        Command::Inspect { token, config } => {
            let (config, _) = settings::load(config, flags)?;
            let (page, verdict) = inspect(token.trim(), &config, now_unix)?;
            print(&format!("{page}\n"))?;
            verdict
        }
    }
}

fn make(make: &Make, config: &Config, now_unix: i64) -> Result<String, Failure> {
    // Subscription tokens may have rules of their own.
    let separate = make.channel.as_ref().and_then(|_| config.subscription_auth.settings());
    let rules = separate.as_ref().unwrap_or(&config.auth);
    let Some(secret) = &rules.hmac_secret else {
        return Err(Failure::Config(
            "no secret is configured: set LONGWIRE_AUTH__HMAC_SECRET, or `hmac_secret` under `[auth]` in a file given with --config"
                .to_owned(),
        ));
    };
    let mut claims = Map::new();
    let user_claim = rules.user_claim.as_deref().unwrap_or("sub");
    claims.insert(user_claim.to_owned(), make.user.clone().into());
    claims.insert("iat".to_owned(), now_unix.into());
    match (make.expires.as_str(), parse_duration(&make.expires)) {
        ("never", _) if rules.require_exp => {
            return Err(Failure::Usage(
                "`--expires never`: the server would refuse it (`auth.require_exp`)".to_owned(),
            ));
        }
        ("never", _) => {}
        (_, Some(expires)) if !expires.is_zero() => {
            let seconds = i64::try_from(expires.as_secs()).unwrap_or(i64::MAX);
            claims.insert("exp".to_owned(), now_unix.saturating_add(seconds.max(1)).into());
        }
        _ => {
            return Err(Failure::Usage(format!(
                "`--expires {}`: must be a duration such as 90s, 15m or 1h, or never",
                printable(&make.expires)
            )));
        }
    }
    if let Some(info) = &make.info {
        let info: Value = serde_json::from_str(info)
            .map_err(|error| Failure::Usage(format!("`--info` is no JSON: {error}")))?;
        claims.insert("info".to_owned(), info);
    }
    let texts = [("channel", &make.channel), ("aud", &rules.audience), ("iss", &rules.issuer)];
    for (claim, text) in texts {
        if let Some(text) = text {
            claims.insert(claim.to_owned(), text.clone().into());
        }
    }
    let token =
        auth::sign(secret, &Value::Object(claims)).map_err(|error| Failure::Failed(error.to_string()))?;
    // An audience that is only a pattern, for instance, cannot be made up here.
    let verifier = Verifier::from_config(config).map_err(|error| Failure::Config(error.to_string()))?;
    match judge(&verifier, &token, make.channel.is_some(), now_unix) {
        Ok(_) => Ok(token),
        Err(error) => Err(Failure::Config(format!("the server would refuse the token: {}", error.what()))),
    }
}

/// Who accepts a token, and what it grants, for people.
struct Granted {
    key: &'static str,
    grants: String,
}

/// Judges a token with the keys at hand.
fn judge(
    verifier: &Verifier,
    token: &str,
    is_subscription: bool,
    now_unix: i64,
) -> Result<Granted, TokenError> {
    match is_subscription {
        true => verifier.verify_subscription(token, now_unix).map(Granted::from),
        false => verifier.verify_connection(token, now_unix).map(Granted::from),
    }
}

/// Judges a token whose issuer must be asked for its key.
fn judge_by_issuer(verifier: Verifier, token: &str, is_subscription: bool) -> Result<Granted, TokenError> {
    let env = Env::system();
    let (errands, mut jobs) = Errands::new();
    let verifier = verifier.fetching(&env, &errands);
    let verdict = async {
        match is_subscription {
            true => verifier.judge_subscription(token, env.clock).await.map(Granted::from),
            false => verifier.judge_connection(token, env.clock).await.map(Granted::from),
        }
    };
    let work = async {
        while let Some(job) = jobs.recv().await {
            job.await;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return Err(TokenError::Unavailable("the system refuses a runtime")) };
    runtime.block_on(async {
        let mut verdict = std::pin::pin!(verdict);
        tokio::select! {
            biased;
            verdict = &mut verdict => verdict,
            () = work => verdict.await,
        }
    })
}

impl From<ConnectionToken> for Granted {
    fn from(token: ConnectionToken) -> Granted {
        let mut grants = format!("to connect as {}", user(&token.user));
        let channels: Vec<&str> = token.channels.iter().map(|(channel, _)| channel.as_str()).collect();
        if !channels.is_empty() {
            grants.push_str(&format!(", with the channels {}", channels.join(", ")));
        }
        Granted { key: token.key, grants }
    }
}

impl From<SubscriptionToken> for Granted {
    fn from(token: SubscriptionToken) -> Granted {
        let mut grants = format!("to {} to subscribe to {}", user(&token.user), token.channel);
        if let Some(client) = &token.client {
            grants.push_str(&format!(" on the connection {client}"));
        }
        Granted { key: token.key, grants }
    }
}

fn user(user: &str) -> String {
    if user.is_empty() { "the anonymous user".to_owned() } else { format!("the user {user}") }
}

/// What a token says, for people, and the verdict.
fn inspect(token: &str, config: &Config, now_unix: i64) -> Result<(String, Result<(), Failure>), Failure> {
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Failure::Refused("no token: it has not three parts separated by dots".to_owned()));
    };
    let (header, claims) = (part("header", header)?, part("claims", claims)?);
    let verifier = Verifier::from_config(config).map_err(|error| Failure::Config(error.to_string()))?;
    let is_subscription = claims.get("channel").is_some();
    let verdict = match judge(&verifier, token, is_subscription, now_unix) {
        Err(TokenError::MissingKey) => judge_by_issuer(verifier, token, is_subscription),
        verdict => verdict,
    };
    let kind = if is_subscription { "subscription" } else { "connection" };
    let mut accepted = String::new();
    let (verdict, result) = match verdict {
        Ok(granted) => {
            accepted = format!("\nkey:     {}\ngrants:  {}", granted.key, printable(&granted.grants));
            (format!("a valid {kind} token"), Ok(()))
        }
        Err(TokenError::NotConfigured) => {
            ("unknown: no key is configured (such as LONGWIRE_AUTH__HMAC_SECRET)".to_owned(), Ok(()))
        }
        Err(TokenError::Unavailable(what)) => {
            (format!("unknown: {what}"), Err(Failure::Unreachable(what.to_owned())))
        }
        Err(TokenError::Expired) => {
            (format!("an expired {kind} token"), Err(Failure::Refused("the token has expired".to_owned())))
        }
        Err(error @ (TokenError::Invalid(_) | TokenError::NoKey { .. } | TokenError::MissingKey)) => (
            format!("not valid: {}", error.what()),
            Err(Failure::Refused("the token is not valid".to_owned())),
        ),
    };
    let page = format!(
        "header:  {}\nclaims:  {}\nexpires: {}{accepted}\nverdict: {verdict}",
        printable(&header.to_string()),
        printable(&claims.to_string()),
        expiry(&claims, now_unix),
    );
    Ok((page, result))
}

fn part(name: &str, text: &str) -> Result<Value, Failure> {
    let wrong = |why: &str| Failure::Refused(format!("no token: its {name} is {why}"));
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong("not base64url"))?;
    serde_json::from_slice(&bytes).map_err(|_| wrong("not JSON"))
}

fn expiry(claims: &Value, now_unix: i64) -> String {
    let Some(exp) = claims.get("exp") else { return "never (no claim \"exp\")".to_owned() };
    let Some(exp) = exp.as_i64().or_else(|| exp.as_f64().map(|exp| exp as i64)) else {
        return "unknown (the claim \"exp\" is no number)".to_owned();
    };
    let distance = format_duration(Duration::from_secs(exp.abs_diff(now_unix)));
    if exp > now_unix { format!("in {distance}") } else { format!("{distance} ago") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn config() -> Config {
        let mut config = Config::default();
        config.auth.hmac_secret = Some("0123456789abcdef0123456789abcdef".to_owned());
        config.auth.audience = Some("longwire".to_owned());
        config.auth.issuer = Some("shop".to_owned());
        config
    }

    fn arguments() -> Make {
        Make { user: "42".to_owned(), channel: None, expires: "1h".to_owned(), info: None, config: None }
    }

    #[test]
    fn a_made_token_is_one_that_the_server_accepts() {
        let verifier = Verifier::new(&config().auth).unwrap();
        let info = Some("{\"name\": \"Ada\"}".to_owned());
        let token = make(&Make { info, ..arguments() }, &config(), NOW).unwrap();
        let granted = verifier.verify_connection(&token, NOW).unwrap();
        assert_eq!((&*granted.user, granted.expires_at), ("42", Some(NOW + 3600)));
        assert_eq!(&granted.info[..], b"{\"name\":\"Ada\"}");
        let token = make(&Make { channel: Some("$news".to_owned()), ..arguments() }, &config(), NOW).unwrap();
        assert_eq!(verifier.verify_subscription(&token, NOW).unwrap().channel, "$news");
    }

    #[test]
    fn what_cannot_be_made_is_said_before_it_is_made() {
        assert!(matches!(make(&arguments(), &Config::default(), NOW), Err(Failure::Config(_))));
        for bad in ["never", "0s", "soon", "-1h", "3600"] {
            let made = make(&Make { expires: bad.to_owned(), ..arguments() }, &config(), NOW);
            assert!(matches!(made, Err(Failure::Usage(_))), "{bad}");
        }
        let info = Some("{".to_owned());
        assert!(matches!(make(&Make { info, ..arguments() }, &config(), NOW), Err(Failure::Usage(_))));
        let mut lenient = config();
        lenient.auth.require_exp = false;
        assert!(make(&Make { expires: "never".to_owned(), ..arguments() }, &lenient, NOW).is_ok());
    }

    #[test]
    fn an_inspected_token_is_shown_with_its_expiry_and_a_verdict() {
        let token = make(&arguments(), &config(), NOW).unwrap();
        let (page, verdict) = inspect(&token, &config(), NOW + 60).unwrap();
        assert!(page.contains("\"alg\":\"HS256\"") && page.contains("\"sub\":\"42\""), "{page}");
        assert!(page.contains("key:     auth.hmac_secret\ngrants:  to connect as the user 42\n"), "{page}");
        assert!(
            page.contains("expires: in 59m\n") && page.ends_with("verdict: a valid connection token"),
            "{page}"
        );
        assert_eq!(verdict, Ok(()));

        let (page, verdict) = inspect(&token, &config(), NOW + 3660).unwrap();
        assert!(page.contains("expires: 1m ago") && page.contains("an expired connection token"), "{page}");
        assert!(matches!(verdict, Err(Failure::Refused(_))));

        let (page, verdict) = inspect(&token, &Config::default(), NOW).unwrap();
        assert!(page.contains("verdict: unknown: no key"), "{page}");
        assert_eq!(verdict, Ok(()));

        let (page, verdict) = inspect(&token[..token.len() - 2], &config(), NOW).unwrap();
        assert!(page.contains("verdict: not valid"), "{page}");
        assert!(matches!(verdict, Err(Failure::Refused(_))));
    }

    #[test]
    fn the_verdict_names_the_setting_that_is_missing_and_the_one_that_accepts() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#);
        let (page, verdict) = inspect(&format!("{header}.e30.AAAA"), &config(), NOW).unwrap();
        assert!(page.contains("the algorithm RS256 needs auth.rsa_public_key or auth.jwks_url"), "{page}");
        assert!(matches!(verdict, Err(Failure::Refused(_))));

        let token = make(&arguments(), &config(), NOW).unwrap();
        let mut rotated = config();
        rotated.auth.hmac_previous_secret =
            rotated.auth.hmac_secret.replace("a newer secret, of more than 32 bytes".to_owned());
        let (page, _) = inspect(&token, &rotated, NOW).unwrap();
        assert!(page.contains("key:     auth.hmac_previous_secret"), "{page}");
        assert!(!page.contains("newer secret") && !page.contains("0123456789"), "{page}");
    }

    #[test]
    fn subscription_tokens_are_made_and_judged_by_their_own_section() {
        let mut config = config();
        config.subscription_auth.enabled = true;
        config.subscription_auth.hmac_secret = Some("the secret of subscriptions alone".to_owned());
        config.subscription_auth.user_claim = Some("uid".to_owned());
        let make_one = Make { channel: Some("$news".to_owned()), ..arguments() };
        let token = make(&make_one, &config, NOW).unwrap();
        let (page, verdict) = inspect(&token, &config, NOW).unwrap();
        assert!(
            page.contains("\"uid\":\"42\"") && page.contains("key:     subscription_auth.hmac_secret"),
            "{page}"
        );
        assert!(page.contains("grants:  to the user 42 to subscribe to $news"), "{page}");
        assert_eq!(verdict, Ok(()));
        config.subscription_auth.audience_pattern = Some("https://*".to_owned());
        assert!(matches!(make(&make_one, &config, NOW), Err(Failure::Config(_))));
    }

    #[test]
    fn what_is_no_token_is_refused_in_words() {
        for bad in ["", "a", "a.b", "a.b.c", "a.b.c.d", "e30.e30", "e30.bm8.x", "e30.\u{e9}.x"] {
            assert!(matches!(inspect(bad, &config(), NOW), Err(Failure::Refused(_))), "{bad:?}");
        }
    }

    #[test]
    fn an_expiry_beyond_all_time_is_told_without_overflow() {
        for exp in ["9223372036854775807", "-9223372036854775808", "1e300", "-1e300", "\"x\"", "null"] {
            let claims: Value = serde_json::from_str(&format!("{{\"exp\":{exp}}}")).unwrap();
            assert!(!expiry(&claims, NOW).is_empty());
        }
    }
}
