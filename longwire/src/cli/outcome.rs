//! What happened to a connection, in words, in JSON and as an exit code.
//!
//! What must stay true: one cause always ends a command with the same code, whichever command it was; what a server said is shown
//! without control characters; nothing that is shown holds a password or a token.

use super::screen::Screen;
use super::{Failure, doctor, printable};
use crate::env::net::dial::Doubt;
use longwire_client::{Advice, Category, Cause, Error, Limit, Transition};
use serde_json::{Map, Value};

/// How a command ends whose connection ended for this. `was_connected` says whether there ever was one.
pub(super) fn failure(server: &str, cause: &Cause, limit: Option<Limit>, was_connected: bool) -> Failure {
    let mut text = printable(&in_words(cause).to_string());
    text.push_str(hint(cause, was_connected));
    if matches!(limit, Some(Limit::Attempts | Limit::Elapsed)) {
        text = format!("{text} (gave up: {})", limit.map(|limit| limit.to_string()).unwrap_or_default());
    }
    match kind(cause, was_connected) {
        Kind::Unreachable if was_connected => {
            Failure::Unreachable(format!("the connection to {server} is lost: {text}"))
        }
        Kind::Unreachable => Failure::Unreachable(format!("cannot reach {server}: {text}")),
        Kind::Refused => Failure::Refused(format!("{server}: {text}")),
        Kind::Failed => Failure::Failed(format!("{server}: {text}")),
    }
}

const TOKEN_HINT: &str = " (it may want a token, or another one: --token)";

const LOGIN_HINT: &str = " (it may want another user: --token, or over STOMP --login and --passcode, or LOGIN:PASSCODE@ in the URL)";

/// A cause as it is told: what the library says of certificates is not for people.
pub(super) fn in_words(cause: &Cause) -> Cause {
    match cause {
        Cause::Tls(text) => Cause::Tls(certificate(text).unwrap_or_else(|| text.clone())),
        cause => cause.clone(),
    }
}

/// What is wrong with a certificate that the library does not trust, as `doctor` says it, and how to trust it all the same.
pub(super) fn certificate(text: &str) -> Option<String> {
    const OWN: &str = " (`--ca FILE` trusts a certificate of your own)";
    let (_, what) = text.split_once("invalid peer certificate: ")?;
    let (doubt, way_out) = match what {
        what if what.contains("CaUsedAsEndEntity") => (Doubt::Authority, OWN),
        what if what.contains("UnknownIssuer") => (Doubt::Issuer, OWN),
        what if what.contains("not valid yet") || what.contains("NotValidYet") => (Doubt::NotYet, ""),
        what if what.contains("expired") || what.contains("Expired") => (Doubt::Expired, OWN),
        what if what.contains("not valid for name") || what.contains("NotValidForName") => (Doubt::Name, ""),
        what => (Doubt::Other(printable(what)), OWN),
    };
    Some(format!("the certificate is not trusted: {}{way_out}", doctor::doubt(&doubt)))
}

/// What to look at, where the cause does not say it.
fn hint(cause: &Cause, was_connected: bool) -> &'static str {
    match cause {
        // What TLS calls an answer that is none of its own.
        Cause::Tls(text) if text.contains("InvalidContentType") => {
            ": that port does not speak TLS; without it the scheme is ws, http, stomp, tcp"
        }
        // longwire calls a login without the token that it wants a bad request.
        Cause::Told { code: 3500 | 3501, .. } | Cause::Status { status: 401, .. } => TOKEN_HINT,
        Cause::Status { status: 400, text, .. } if text.contains("3501") => TOKEN_HINT,
        Cause::Told { code: 3507, .. } => LOGIN_HINT,
        Cause::Told { code: 0, text, .. } if is_about_login(text) => LOGIN_HINT,
        // Whoever was connected had the right ones.
        Cause::Ended | Cause::LoginTimeout | Cause::Protocol(_) if !was_connected => {
            " (is it the right port and scheme? `longwire doctor URL` looks)"
        }
        _ => "",
    }
}

/// Whether a broker's ERROR speaks of who connects: longwire's, RabbitMQ's and ActiveMQ's words.
fn is_about_login(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["passcode", "password", "access refused"].iter().any(|word| text.contains(word))
}

/// How a command ends whose only send was not confirmed: a server may say why and name no send.
pub(super) fn failed_send(server: &str, error: &Error, end: Option<Error>) -> Failure {
    match (error, end) {
        (Error::Unconfirmed, Some(Error::GaveUp { cause, .. })) => {
            let text = printable(&cause.to_string());
            Failure::Failed(format!("{server}: {text}; whether it was done is not known"))
        }
        _ => failed_call(server, error),
    }
}

/// How a command ends whose call failed.
pub(super) fn failed_call(server: &str, error: &Error) -> Failure {
    match error {
        Error::GaveUp { cause, limit } => failure(server, cause, Some(*limit), false),
        Error::Refused { code: 0, message, .. } => {
            Failure::Refused(format!("refused: {}", printable(message)))
        }
        Error::Refused { code, message, .. } => {
            Failure::Refused(format!("refused: {} ({code})", printable(message)))
        }
        Error::BadArgument { .. } | Error::Address(_) => Failure::Usage(printable(&error.to_string())),
        _ => Failure::Failed(format!("{server}: {}", printable(&error.to_string()))),
    }
}

/// What is to blame.
enum Kind {
    Unreachable,
    Refused,
    Failed,
}

fn kind(cause: &Cause, was_connected: bool) -> Kind {
    match cause {
        // A server that goes away, or has enough, says so and is no less away.
        Cause::Told { code: 1.., .. }
            if cause.advice() != Advice::Stop && cause.category() != Category::Policy =>
        {
            Kind::Unreachable
        }
        Cause::Told { .. } => Kind::Refused,
        // 408, 425, 429 and 5xx speak of the server's state; any other status is a no.
        Cause::Status { .. } if cause.advice() == Advice::Stop => Kind::Refused,
        Cause::Status { .. } | Cause::LoginTimeout | Cause::Ended => Kind::Unreachable,
        // What answers a login with something else is not what the URL says.
        Cause::Protocol(_) if !was_connected => Kind::Unreachable,
        _ if cause.category() == Category::Network => Kind::Unreachable,
        _ => Kind::Failed,
    }
}

/// A transition as scripts read it: an object without line breaks.
pub(super) fn as_json(transition: &Transition) -> Value {
    let mut object = Map::new();
    let mut set = |name: &str, value: Value| {
        object.insert(name.to_owned(), value);
    };
    set("event", name(transition).into());
    match transition {
        Transition::Connecting { server, transport, failures } => {
            set("server", server.as_str().into());
            set("transport", (*transport).into());
            set("failures", (*failures).into());
        }
        Transition::Connected { server, transport, again } => {
            set("server", server.as_str().into());
            set("transport", (*transport).into());
            set("again", (*again).into());
        }
        Transition::Disconnected { cause, was_connected, retry_in } => {
            describe(cause, &mut set);
            set("was_connected", (*was_connected).into());
            if let Some(delay) = retry_in {
                set("retry_in_ms", u64::try_from(delay.as_millis()).unwrap_or(u64::MAX).into());
            }
        }
        Transition::GaveUp { cause, limit } => {
            describe(cause, &mut set);
            set("limit", limit.to_string().into());
        }
        _ => {}
    }
    Value::Object(object)
}

fn describe(cause: &Cause, set: &mut impl FnMut(&str, Value)) {
    set("cause", cause.name().into());
    set("category", category(cause).into());
    set("text", in_words(cause).to_string().into());
    if let Cause::Told { code, .. } = cause
        && *code != 0
    {
        set("code", (*code).into());
    }
    if let Cause::Status { status, .. } = cause {
        set("status", (*status).into());
    }
}

/// A transition in one word.
fn name(transition: &Transition) -> &'static str {
    match transition {
        Transition::Connecting { .. } => "connecting",
        Transition::Connected { .. } => "connected",
        Transition::Disconnected { .. } => "disconnected",
        Transition::GaveUp { .. } => "gave_up",
        Transition::Closed => "closed",
        // The type may grow.
        _ => "other",
    }
}

fn category(cause: &Cause) -> &'static str {
    match cause.category() {
        Category::Client => "client",
        Category::Network => "network",
        Category::Server => "server",
        Category::Policy => "policy",
    }
}

/// Says what happened to a connection; how the command ends, if nothing follows. `was_connected` is what it remembers.
pub(super) fn tell(
    screen: &mut Screen,
    server: &str,
    transition: &Transition,
    was_connected: &mut bool,
) -> Result<(), Failure> {
    *was_connected |= matches!(transition, Transition::Connected { .. });
    match transition {
        Transition::GaveUp { cause, limit } => Err(failure(server, cause, Some(*limit), *was_connected)),
        // What follows says it again, and how the command ends.
        Transition::Disconnected { retry_in: None, .. } => Ok(()),
        Transition::Disconnected { cause, was_connected, retry_in } => {
            let (cause, was_connected, retry_in) = (in_words(cause), *was_connected, *retry_in);
            let told = Transition::Disconnected { cause, was_connected, retry_in };
            screen.remark(&printable(&told.to_string()));
            Ok(())
        }
        transition => {
            screen.remark(&printable(&transition.to_string()));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    fn told(code: u16, text: &str) -> Cause {
        Cause::Told { code, text: text.to_owned(), advice: Advice::Stop, after: None }
    }

    #[test]
    fn each_cause_has_its_exit_code() {
        let code = |cause: Cause| failure("ws://host", &cause, Some(Limit::Off), false).code();
        for unreachable in [
            Cause::Refused,
            Cause::Unresolved("x".to_owned()),
            Cause::ConnectTimeout,
            Cause::Tls("x".to_owned()),
            Cause::Reset,
            Cause::Ended,
            Cause::Silent { silence: Duration::from_secs(60) },
            Cause::Status { status: 503, retry_after: None, text: String::new() },
            // Nothing that the URL speaks of answers there.
            Cause::Protocol("no JSON".to_owned()),
            Cause::told(3001, "shutdown"),
            Cause::told(3012, "no pong"),
            Cause::told(1012, "restart"),
        ] {
            assert_eq!(code(unreachable.clone()), 4, "{unreachable}");
        }
        for refused in [told(0, "no"), Cause::told(3005, "connection expired"), Cause::told(4500, "go")] {
            assert_eq!(code(refused.clone()), 5, "{refused}");
        }
        assert_eq!(code(told(3500, "invalid token")), 5);
        assert_eq!(code(Cause::Status { status: 403, retry_after: None, text: String::new() }), 5);
        let broken = failure("ws://host", &Cause::Protocol("no JSON".to_owned()), Some(Limit::Off), true);
        assert_eq!(broken.code(), 1);
    }

    #[test]
    fn whoever_was_connected_is_not_asked_for_port_and_scheme() {
        let text = |was_connected| failure("x", &Cause::Ended, None, was_connected).text().to_owned();
        assert!(text(false).contains("is it the right port and scheme?"), "{}", text(false));
        assert_eq!(text(true), "the connection to x is lost: the server ended the connection without a word");
    }

    #[test]
    fn a_certificate_is_doubted_in_words_and_with_a_way_out() {
        for (text, says, has_way_out) in [
            ("invalid peer certificate: UnknownIssuer", "nobody whom this machine trusts", true),
            ("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", "signs others", true),
            ("invalid peer certificate: certificate expired: verified at time 1", "has expired", true),
            ("invalid peer certificate: certificate not valid for name \"a\"", "other names", false),
            ("invalid peer certificate: BadEncoding", "BadEncoding", true),
        ] {
            let failure = failure("x", &Cause::Tls(text.to_owned()), None, false);
            let shown = failure.text();
            assert!(shown.contains("TLS failed: the certificate is not trusted: "), "{shown}");
            assert!(shown.contains(says) && shown.contains("--ca") == has_way_out, "{shown}");
        }
    }

    #[test]
    fn what_failed_is_said_with_the_server_and_without_its_control_characters() {
        let text = |failure: Failure| failure.text().to_owned();
        assert_eq!(
            text(failure("ws://host:80", &Cause::Refused, Some(Limit::Attempts), false)),
            "cannot reach ws://host:80: connection refused: nobody listens there (gave up: too many attempts failed)"
        );
        assert_eq!(
            text(failure("x", &told(0, "no\u{1b}[2J"), None, false)),
            "x: the server said: no\\u001b[2J"
        );
        let tls = Cause::Tls("received corrupt message of type InvalidContentType".to_owned());
        assert!(text(failure("x", &tls, None, false)).contains("does not speak TLS"));
        let body = "{\"error\":{\"code\":3501,\"message\":\"bad request\"}}".to_owned();
        for cause in [told(3501, "bad request"), Cause::Status { status: 400, retry_after: None, text: body }]
        {
            assert!(text(failure("x", &cause, None, false)).ends_with("--token)"), "{cause}");
        }
        for cause in [
            told(3507, "permission denied"),
            told(0, "wrong login or passcode"),
            told(0, "Bad CONNECT: Access refused for user 'x'"),
            told(0, "User name [x] or password is invalid."),
        ] {
            assert!(text(failure("x", &cause, None, false)).contains("--login and --passcode"), "{cause}");
        }
        let refused = Error::Refused { code: 103, message: "permission denied".to_owned(), temporary: false };
        assert_eq!(
            failed_call("x", &refused),
            Failure::Refused("refused: permission denied (103)".to_owned())
        );
        assert_eq!(failed_call("x", &Error::Unconfirmed).code(), 1);
    }

    #[test]
    fn a_send_that_nobody_named_is_told_with_what_the_server_said_last() {
        let end = Error::GaveUp { cause: told(0, "unknown destination"), limit: Limit::Off };
        let failure = failed_send("x", &Error::Unconfirmed, Some(end));
        assert_eq!(
            failure,
            Failure::Failed(
                "x: the server said: unknown destination; whether it was done is not known".to_owned()
            )
        );
        let closed = failed_send("x", &Error::Unconfirmed, Some(Error::Closed));
        assert!(closed.text().contains("may have been done"), "{closed:?}");
    }

    #[test]
    fn a_script_reads_cause_and_category_of_a_transition() {
        let lost = Transition::Disconnected {
            cause: told(3001, "shutdown"),
            was_connected: true,
            retry_in: Some(Duration::from_millis(512)),
        };
        let expected = json!({
            "event": "disconnected", "cause": "told", "code": 3001, "category": "server", "text": "the server said 3001: shutdown",
            "was_connected": true, "retry_in_ms": 512,
        });
        assert_eq!(as_json(&lost), expected);
        let up =
            Transition::Connected { server: "ws://host".to_owned(), transport: "websocket", again: true };
        assert_eq!(as_json(&up)["again"], true);
    }
}
