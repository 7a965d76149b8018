//! What a client is told before it connects.

use super::client::Client;
use super::state::State;
use crate::address::{Address, Scheme};
use crate::error::Error;
use crate::options::Options;
use longwire_protocol::stomp::Version;
use std::sync::Arc;
use std::time::Duration;

/// What a connection is asked for.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) versions: Vec<Version>,
    /// `None`: those of the URL.
    pub(super) login: Option<(String, String)>,
    /// `None`: the path of the URL.
    pub(super) host: Option<String>,
    /// What this end can send, and what it wants.
    pub(super) heart_beat: (Duration, Duration),
    pub(super) headers: Vec<(String, String)>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            versions: Version::ALL.to_vec(),
            login: None,
            host: None,
            heart_beat: (Duration::from_secs(10), Duration::from_secs(10)),
            headers: Vec::new(),
        }
    }
}

/// What a client is told before it connects; made by [`Client::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing connects before it is built"]
pub struct Builder {
    servers: Vec<String>,
    settings: Settings,
    options: Options,
}

impl Builder {
    pub(super) fn new(server: &str) -> Builder {
        Builder {
            servers: vec![server.to_owned()],
            settings: Settings::default(),
            options: Options::default(),
        }
    }

    /// Adds a server, to be tried when those before it fail.
    pub fn server(mut self, url: &str) -> Builder {
        self.servers.push(url.to_owned());
        self
    }

    /// Logs in with these instead of the user and password of the URL.
    pub fn login(mut self, login: &str, passcode: &str) -> Builder {
        self.settings.login = Some((login.to_owned(), passcode.to_owned()));
        self
    }

    /// The virtual host; otherwise the path of the URL, or `/` if it has none.
    pub fn host(mut self, host: &str) -> Builder {
        self.settings.host = Some(host.to_owned());
        self
    }

    /// The versions that may be spoken; all of them unless it is said. The broker chooses the highest that it knows.
    pub fn versions(mut self, versions: &[Version]) -> Builder {
        self.settings.versions = versions.to_vec();
        self
    }

    /// How often this end can give a sign of life, and how often it wants one; 10 s each unless it is said, zero for
    /// none. What follows is agreed upon with the broker. This end beats twice as often as it promised, and calls a broker
    /// dead that said nothing for two and a half of its intervals.
    pub fn heart_beat(mut self, send: Duration, receive: Duration) -> Builder {
        self.settings.heart_beat = (send, receive);
        self
    }

    /// Adds a header to CONNECT.
    pub fn header(mut self, name: &str, value: &str) -> Builder {
        self.settings.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// By what name the broker knows this client's durable subscriptions.
    pub fn client_id(self, id: &str) -> Builder {
        self.header("client-id", id)
    }

    /// How to connect, wait and come back.
    pub fn options(mut self, options: Options) -> Builder {
        self.options = options;
        self
    }

    /// Begins to connect. It needs the runtime of tokio around it.
    ///
    /// # Errors
    /// A URL is wrong, or something that it was told cannot be.
    pub fn build(self) -> Result<Client, Error> {
        let tls = self.options.tls.clone();
        Ok(Client::spawn(self.state()?, tls))
    }

    /// The state machine of the client, for whoever moves it by other means than tokio.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn state(self) -> Result<State, Error> {
        let servers: Vec<Arc<Address>> =
            self.servers.iter().map(|url| Address::parse(url).map(Arc::new)).collect::<Result<_, _>>()?;
        let first = servers.first().ok_or_else(|| Error::bad_argument("there is no server"))?.scheme;
        if !matches!(first, Scheme::Stomp | Scheme::StompWebSocket) {
            let what = "STOMP is spoken at stomp, stomps, stomp+ws and stomp+wss addresses";
            return Err(Error::bad_argument(what));
        }
        if servers.iter().any(|server| server.scheme != first) {
            return Err(Error::bad_argument("the servers of one client are all TCP or all WebSocket"));
        }
        let Settings { versions, login, host, headers, .. } = &self.settings;
        if versions.is_empty() {
            return Err(Error::bad_argument("there is no version to speak"));
        }
        // CONNECT has no escapes.
        let is_line = |text: &str| !text.contains(['\n', '\r', '\0']);
        let (login, passcode) = login.as_ref().map_or(("", ""), |(login, passcode)| (login, passcode));
        let are_lines = [login, passcode, host.as_deref().unwrap_or_default()].into_iter().all(is_line);
        let is_fit = |server: &Arc<Address>| {
            is_line(&server.user) && is_line(&server.password) && is_line(&server.virtual_host())
        };
        if !are_lines || !servers.iter().all(is_fit) {
            return Err(Error::bad_argument("login, passcode and host are one line each"));
        }
        for (name, value) in headers {
            let is_own = ["accept-version", "host", "login", "passcode", "heart-beat"].contains(&&**name);
            if is_own || name.is_empty() || name.contains(':') || !is_line(name) || !is_line(value) {
                return Err(Error::bad_argument(format!(
                    "CONNECT can have no header \"{name}\" of this value"
                )));
            }
        }
        Ok(State::new(servers, self.settings, self.options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_said_before_anything_connects() {
        let builder = || Builder::new("stomp://a");
        for (builder, says) in [
            (Builder::new("ws://a"), "stomp+ws"),
            (builder().server("stomp+ws://b"), "all TCP or all WebSocket"),
            (builder().server("stomp:"), "names no host"),
            (builder().versions(&[]), "no version"),
            (builder().login("a\nb", "c"), "one line"),
            (Builder::new("stomp://a%0Ab@c"), "one line"),
            (Builder::new("stomp://a/%0Alogin:x"), "one line"),
            (builder().header("login", "x"), "\"login\""),
            (builder().header("a:b", "x"), "\"a:b\""),
            (builder().client_id("x\n"), "\"client-id\""),
        ] {
            let error = builder.state().map(drop).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(builder().server("stomps://b").client_id("c").state().is_ok());
    }
}
