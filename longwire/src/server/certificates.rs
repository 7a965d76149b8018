//! The certificates of all listeners that are of TLS: read at the start, and again while the server runs.
//!
//! Listeners that name the same two files have one identity in common. What must stay true: files that are broken, or
//! half written, change nothing that is served; and the disk is waited for by the thread that runs
//! [`Certificates::watch`] alone.

use crate::config::{Listener, Protocol, Tls};
use crate::env::Clock;
use crate::env::net::tls::{Acceptor, Identity};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::sync::Notify;

/// How often the files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);

/// The certificates and keys by their files.
#[derive(Default)]
pub struct Certificates {
    identities: BTreeMap<Tls, Identity>,
    /// Somebody asked for a look.
    asked: Notify,
}

impl Certificates {
    /// Reads those of `listeners`.
    ///
    /// # Errors
    /// A file that cannot be read or is not what it should be; the text names the listener and the file.
    pub fn load(listeners: &[Listener]) -> io::Result<Certificates> {
        let mut identities = BTreeMap::new();
        for listener in listeners {
            let Some(tls) = listener.tls.as_ref().filter(|tls| !identities.contains_key(*tls)) else {
                continue;
            };
            let identity = Identity::load(&tls.certificate, &tls.key).map_err(|error| {
                io::Error::new(error.kind(), format!("`listeners.{}`: {error}", listener.name))
            })?;
            identities.insert(tls.clone(), identity);
        }
        Ok(Certificates { identities, asked: Notify::new() })
    }

    /// What makes the listener's connections those of TLS; `None` if they are not.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn acceptor(&self, listener: &Listener) -> io::Result<Option<Acceptor>> {
        let protocols: &[&str] = match listener.protocol {
            Protocol::Http => &["http/1.1"],
            // Whoever dials such a listener knows what is spoken there.
            Protocol::Tcp | Protocol::Stomp => &[],
        };
        let identity = listener.tls.as_ref().and_then(|tls| self.identities.get(tls));
        identity.map(|identity| identity.acceptor(protocols)).transpose()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty()
    }

    /// Has the files looked at soon.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Looks at the files once a minute and whenever somebody asks; never ready.
    pub async fn watch(&self, clock: Clock) {
        if self.is_empty() {
            return std::future::pending().await;
        }
        loop {
            tokio::select! {
                biased;
                () = self.asked.notified() => {}
                () = clock.sleep(RELOAD_INTERVAL) => {}
            }
            self.reload();
        }
    }

    fn reload(&self) {
        for (tls, identity) in &self.identities {
            let certificate = tls.certificate.display();
            match identity.reload() {
                Ok(true) => tracing::info!(%certificate, "another certificate is in use"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "a certificate cannot be read again; the one before stays in use");
                }
            }
        }
    }
}
