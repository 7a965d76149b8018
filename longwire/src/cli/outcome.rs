//! What happened to a connection, in words, in JSON and as an exit code.
//!
//! What must stay true: one cause always ends a command with the same code, whichever command it was; what a server said is shown
//! without control characters; nothing that is shown holds a password or a token.

use super::screen::Screen;
use super::{Failure, printable};
use longwire_client::{Advice, Category, Cause, Error, Limit, Transition};
use serde_json::{Map, Value};

/// How a command ends whose connection ended for this.
pub(super) fn failure(server: &str, cause: &Cause, limit: Option<Limit>) -> Failure {
    let mut text = printable(&cause.to_string());
    if matches!(limit, Some(Limit::Attempts | Limit::Elapsed)) {
        text = format!("{text} (gave up: {})", limit.map(|limit| limit.to_string()).unwrap_or_default());
    }
    match kind(cause) {
        Kind::Unreachable => Failure::Unreachable(format!("cannot reach {server}: {text}")),
        Kind::Refused => Failure::Refused(text),
        Kind::Failed => Failure::Failed(format!("{server}: {text}")),
    }
}

/// How a command ends whose call failed.
pub(super) fn failed_call(server: &str, error: &Error) -> Failure {
    match error {
        Error::GaveUp { cause, limit } => failure(server, cause, Some(*limit)),
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

fn kind(cause: &Cause) -> Kind {
    match cause {
        Cause::Told { .. } => Kind::Refused,
        // 408, 425, 429 and 5xx speak of the server's state; any other status is a no.
        Cause::Status { .. } if cause.advice() == Advice::Stop => Kind::Refused,
        Cause::Status { .. } | Cause::LoginTimeout | Cause::Ended => Kind::Unreachable,
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
    set("text", cause.to_string().into());
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

/// Says what happened to a connection; how the command ends, if nothing follows.
pub(super) fn tell(screen: &mut Screen, server: &str, transition: &Transition) -> Result<(), Failure> {
    match transition {
        Transition::GaveUp { cause, limit } => Err(failure(server, cause, Some(*limit))),
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
        let code = |cause: Cause| failure("ws://host", &cause, Some(Limit::Off)).code();
        for unreachable in [
            Cause::Refused,
            Cause::Unresolved("x".to_owned()),
            Cause::ConnectTimeout,
            Cause::Tls("x".to_owned()),
            Cause::Reset,
            Cause::Ended,
            Cause::Silent { silence: Duration::from_secs(60) },
            Cause::Status { status: 503, retry_after: None, text: String::new() },
        ] {
            assert_eq!(code(unreachable.clone()), 4, "{unreachable}");
        }
        assert_eq!(code(told(3500, "invalid token")), 5);
        assert_eq!(code(Cause::Status { status: 403, retry_after: None, text: String::new() }), 5);
        assert_eq!(code(Cause::Protocol("no JSON".to_owned())), 1);
    }

    #[test]
    fn what_failed_is_said_with_the_server_and_without_its_control_characters() {
        let text = |failure: Failure| failure.text().to_owned();
        assert_eq!(
            text(failure("ws://host:80", &Cause::Refused, Some(Limit::Attempts))),
            "cannot reach ws://host:80: connection refused: nobody listens there (gave up: too many attempts failed)"
        );
        assert_eq!(text(failure("x", &told(0, "no\u{1b}[2J"), None)), "the server said: no\\u001b[2J");
        let refused = Error::Refused { code: 103, message: "permission denied".to_owned(), temporary: false };
        assert_eq!(
            failed_call("x", &refused),
            Failure::Refused("refused: permission denied (103)".to_owned())
        );
        assert_eq!(failed_call("x", &Error::Unconfirmed).code(), 1);
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
