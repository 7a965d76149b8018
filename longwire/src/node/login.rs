//! Who a client of STOMP is: what its login and passcode say, and who it is without any.
//!
//! In this order: a configured user with its passcode, a token in the passcode's place, the connect webhook, the
//! anonymous user. What must stay true: whoever is refused is told neither which half was wrong nor, by the time that
//! takes, whether there is such a user; a login that is configured is decided here and by nobody else.

use super::webhooks::arrival;
use super::{Arrival, Denied, Node};
use crate::auth::{ConnectionToken, Login};
use crate::backend::Asker;
use crate::config::Anonymous;
use longwire_protocol::ErrorCode;
use longwire_protocol::command::Connect;
use longwire_protocol::message::ReplyError;
use std::net::IpAddr;
use std::time::Duration;

/// When a wrong login is answered.
const WRONG_AFTER: Duration = Duration::from_secs(1);

/// What is wrong with a proxy of this machine.
const UNKNOWN_WHENCE: &str = "login and passcode are needed: a proxy asks for a client whose address is not known; \
                              server.trusted_proxies names the proxies that are believed";

/// How much of a login is repeated in the log.
const SHOWN_CHARS: usize = 64;

/// Where a client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Whence {
    /// Its address.
    pub address: IpAddr,
    /// That is a proxy's, and nobody knows for whom it asks.
    pub is_hidden: bool,
}

impl Node {
    /// Says who a client there is, by its login and passcode. A token in the passcode's place is moved to where
    /// tokens are.
    ///
    /// # Errors
    /// `PermissionDenied` with a text, after a while if something was shown; those of the backend; a temporary error if
    /// too many are judged at present.
    pub async fn log_in(
        &self,
        asker: &Asker,
        connect: &mut Connect,
        whence: Whence,
    ) -> Result<Arrival, Denied> {
        let begun = self.env.clock.now();
        let is_anonymous = connect.login.is_empty() && connect.passcode.is_empty();
        let judged = match is_anonymous {
            true => Login::Unknown,
            false => self.verifier.passcodes().judge(&connect.login, &connect.passcode).await,
        };
        match judged {
            Login::Right => {
                let token =
                    ConnectionToken { user: connect.login.as_str().into(), ..ConnectionToken::default() };
                return Ok(arrival(token));
            }
            Login::Busy => return Err(ErrorCode::Internal.into()),
            Login::Wrong | Login::Unknown => {}
        }
        if is_token(&connect.passcode) {
            if let Ok(token) = self.authenticate(&connect.passcode).await {
                connect.token = std::mem::take(&mut connect.passcode);
                return Ok(arrival(token));
            }
        } else if judged == Login::Unknown
            && self.backend.identifies()
            && let Some(arrival) = self.ask_who(asker, connect).await?
        {
            return Ok(arrival);
        }
        let rules = &self.config;
        if rules.client.insecure {
            return Ok(arrival(ConnectionToken::default()));
        }
        if is_anonymous {
            let may = match rules.stomp.anonymous {
                Anonymous::Always => true,
                // A proxy on this machine speaks for others, who are not on this machine.
                Anonymous::Loopback if whence.address.to_canonical().is_loopback() && whence.is_hidden => {
                    tracing::info!(client = %asker.client, UNKNOWN_WHENCE);
                    return Err(refused(UNKNOWN_WHENCE));
                }
                Anonymous::Loopback => whence.address.to_canonical().is_loopback(),
                Anonymous::Never => false,
            };
            return match may {
                true => Ok(arrival(ConnectionToken::default())),
                false => Err(refused("login and passcode are needed")),
            };
        }
        let login: String = connect.login.chars().take(SHOWN_CHARS).collect();
        tracing::info!(login, address = %whence.address, client = %asker.client, "a login was refused");
        self.env.clock.sleep_until(begun + WRONG_AFTER).await;
        Err(refused("wrong login or passcode"))
    }
}

/// Whether it has the form of a token: three parts, the first of which is the head of one (`{"` in base64).
fn is_token(passcode: &str) -> bool {
    passcode.starts_with("ey") && passcode.split('.').count() == 3
}

fn refused(message: &'static str) -> Denied {
    let code = ErrorCode::PermissionDenied.code();
    Denied::Error(ReplyError { code, message: message.into(), temporary: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_the_form_of_a_token_is_judged_as_one() {
        assert!(is_token("eyJhbGciOiJIUzI1NiJ9.e30.c2ln"));
        for text in ["", "guest", "a.b.c", "eyJ9", "eyJ9.e30", "eyJ9.e30.x.y"] {
            assert!(!is_token(text), "{text}");
        }
    }
}
