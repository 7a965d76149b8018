//! Says what a client needs, and begins it.

use super::client::Client;
use super::settings::Settings;
use super::token::{TokenError, TokenSource};
use crate::error::Error;
use crate::options::Options;
use crate::transport::Transport;
use bytes::Bytes;
use std::fmt;
use std::future::Future;

/// What a client is told before it begins.
#[derive(Clone)]
#[must_use = "nothing begins before `build`"]
pub struct Builder {
    urls: Vec<String>,
    transports: Vec<Transport>,
    token: String,
    token_source: Option<TokenSource>,
    data: Bytes,
    name: String,
    version: String,
    headers: Vec<(String, String)>,
    options: Options,
}

impl Builder {
    pub(super) fn new(url: &str) -> Builder {
        Builder {
            urls: vec![url.to_owned()],
            transports: Vec::new(),
            token: String::new(),
            token_source: None,
            data: Bytes::new(),
            name: "longwire".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            headers: Vec::new(),
            options: Options::default(),
        }
    }

    /// Names a further server, which is tried when those before it fail.
    pub fn server(mut self, url: &str) -> Builder {
        self.urls.push(url.to_owned());
        self
    }

    /// The transports that are tried at each server, the best first. Without this, `ws` and `wss` fall back to an HTTP
    /// stream and then to server-sent events; other URLs mean what they say. Long-poll may be the last one: subscriptions
    /// work there as well, and calls end as [`Error::NotAvailable`].
    pub fn transports(mut self, transports: &[Transport]) -> Builder {
        self.transports = transports.to_vec();
        self
    }

    /// The connection's token.
    pub fn token(mut self, token: impl Into<String>) -> Builder {
        self.token = token.into();
        self
    }

    /// Where tokens come from: asked when there is none, when the server calls the one there is expired, and before it
    /// expires. A source must not hold the client: neither would ever be dropped.
    pub fn token_source<F, Fut>(mut self, source: F) -> Builder
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        self.token_source = Some(TokenSource::new(source));
        self
    }

    /// Raw JSON for the backend, which is asked when the client connects.
    pub fn data(mut self, json: impl Into<Bytes>) -> Builder {
        self.data = json.into();
        self
    }

    /// The program's name, as the server logs it; `longwire` if none is given. Servers expect at most 16 characters.
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = name.into();
        self
    }

    /// The program's version.
    pub fn version(mut self, version: impl Into<String>) -> Builder {
        self.version = version.into();
        self
    }

    /// A header that is given to the backend with the login. Those of the HTTP requests themselves are in [`Options`].
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Builder {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// How the connection is made, kept and made again.
    pub fn options(mut self, options: Options) -> Builder {
        self.options = options;
        self
    }

    /// Reads everything into [`Settings`].
    ///
    /// # Errors
    /// What of it makes no sense.
    pub fn settings(self) -> Result<Settings, Error> {
        let Builder { urls, transports, token, token_source, data, name, version, headers, options } = self;
        let Settings { servers, .. } = Settings::new(&urls)?;
        let settings =
            Settings { servers, transports, token, token_source, data, name, version, headers, options };
        settings.check()?;
        Ok(settings)
    }

    /// Begins to connect.
    ///
    /// # Errors
    /// What of the settings makes no sense.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build(self) -> Result<Client, Error> {
        Client::start(self.settings()?)
    }
}

/// Without what may be secret: URLs with passwords, token, data, headers.
impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("name", &self.name).finish_non_exhaustive()
    }
}
