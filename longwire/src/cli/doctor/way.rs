//! The way to a server: name, TCP and TLS, measured once and then walked again for every further connection.
//!
//! What must stay true: every step has the user's limit of time; where the certificate is not trusted, no token and no
//! passcode goes out ([`Way::secret`]).

use super::line::Line;
use super::seen::{Dial, Dialling, Resolving, Seen, TlsError, TlsSeen};
use super::{certificate, milliseconds};
use crate::env::net::dial::{self, Dialled, Doubt, NoTls, Trust};
use crate::env::{Clock, Rng, net};
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 6;

/// What HTTP connections offer in TLS: what WebSockets and streams are asked for in.
pub(super) const HTTP_1: &[&str] = &["http/1.1"];

/// How to open one more connection.
pub(super) struct Way {
    pub(super) clock: Clock,
    /// How long each step may take.
    pub(super) limit: Duration,
    /// What a `Host` header says.
    pub(super) authority: String,
    /// The name, for TLS.
    host: String,
    address: SocketAddr,
    trust: Option<Trust>,
    /// What is offered by ALPN.
    protocols: &'static [&'static str],
    /// The certificate is not trusted.
    has_doubt: bool,
    rng: RefCell<Rng>,
}

/// Where to, and how patiently.
pub(super) struct Destination<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) authority: String,
    pub(super) is_encrypted: bool,
    pub(super) is_http: bool,
    pub(super) limit: Duration,
    /// Whom to trust besides those that this machine trusts.
    pub(super) trust: Option<&'a Trust>,
}

/// Walks the way once and notes what it met; none if it leads nowhere.
pub(super) async fn reach(to: &Destination<'_>, clock: Clock, rng: Rng, seen: &mut Seen) -> Option<Way> {
    let addresses = resolve(to, clock, seen).await;
    let mut connected = None;
    for address in addresses.into_iter().take(MAX_ADDRESSES) {
        let begun = clock.now();
        let dialled = clock.timeout(to.limit, dial::connect(address)).await;
        let ms = milliseconds(clock.now() - begun);
        let (outcome, stream) = match dialled {
            None => (Dialling::TimedOut, None),
            Some(Ok(stream)) => (Dialling::Connected, Some(stream)),
            Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => (Dialling::Refused, None),
            Some(Err(error)) => (Dialling::Failed(error.to_string()), None),
        };
        seen.tcp.push(Dial { address: address.to_string(), ms, outcome });
        if let Some(stream) = stream {
            connected = Some((address, stream));
            break;
        }
    }
    let (address, stream) = connected?;
    let mut way = Way {
        clock,
        limit: to.limit,
        authority: to.authority.clone(),
        host: to.host.to_owned(),
        address,
        trust: to.is_encrypted.then(|| to.trust.cloned().unwrap_or_else(Trust::system)),
        protocols: if to.is_http { HTTP_1 } else { &[] },
        has_doubt: false,
        rng: RefCell::new(rng),
    };
    if way.trust.is_some() {
        let tls = way.look_at_tls(stream).await;
        way.has_doubt = tls.doubt.is_some();
        let is_there = tls.error.is_none();
        seen.tls = Some(tls);
        return is_there.then_some(way);
    }
    Some(way)
}

async fn resolve(to: &Destination<'_>, clock: Clock, seen: &mut Seen) -> Vec<SocketAddr> {
    if let Ok(ip) = to.host.parse::<IpAddr>() {
        return vec![SocketAddr::new(ip, to.port)];
    }
    let begun = clock.now();
    let resolved = clock.timeout(to.limit, net::resolve(to.host)).await;
    let ms = milliseconds(clock.now() - begun);
    let (found, error) = match resolved {
        None => (Vec::new(), Some("the resolver did not answer in time".to_owned())),
        Some(Ok(found)) => (found, None),
        Some(Err(error)) => (Vec::new(), Some(error.to_string())),
    };
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found.into_iter().map(|found| SocketAddr::new(found.ip(), to.port)) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let shown = addresses.iter().map(|address| address.ip().to_string()).collect();
    seen.resolving = Some(Resolving { ms, addresses: shown, error });
    addresses
}

impl Way {
    /// When a step that begins here and is no longer than the limit has to be over.
    pub(super) fn deadline(&self) -> Instant {
        self.clock.now() + self.limit
    }

    /// 128 bits of chance.
    pub(super) fn draw(&self) -> u128 {
        self.rng.borrow_mut().bits_128()
    }

    /// What is secret, if it may be said here.
    pub(super) fn secret<'a>(&self, secret: Option<&'a str>) -> Option<&'a str> {
        secret.filter(|_| !self.has_doubt)
    }

    /// Opens one more connection.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) async fn open(&self) -> Result<Line, String> {
        self.open_offering(self.protocols).await.map(|(line, _)| line)
    }

    /// Opens one more that offers these protocols by ALPN; which one was taken.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) async fn open_offering(&self, protocols: &[&str]) -> Result<(Line, Option<String>), String> {
        let opening = async {
            let stream = dial::connect(self.address).await.map_err(|error| error.to_string())?;
            let Some(trust) = &self.trust else { return Ok((stream, None)) };
            let secured = trust.secure(stream, &self.host, protocols).await;
            let secured = secured.map_err(|error| format!("TLS failed: {}", tls_error(error).1))?;
            Ok((secured.stream, secured.protocol))
        };
        match self.clock.timeout(self.limit, opening).await {
            None => Err("no connection in time".to_owned()),
            Some(opened) => opened.map(|(stream, protocol)| (Line::new(stream, self.clock), protocol)),
        }
    }

    async fn look_at_tls(&self, stream: Dialled) -> TlsSeen {
        let mut tls = TlsSeen { ms: 0.0, version: None, error: None, doubt: None, days_left: None };
        let Some(trust) = &self.trust else { return tls };
        let begun = self.clock.now();
        let secured = self.clock.timeout(self.limit, trust.secure(stream, &self.host, self.protocols)).await;
        tls.ms = milliseconds(self.clock.now() - begun);
        match secured {
            None => tls.error = Some(TlsError::TimedOut),
            Some(Err(error)) => tls.error = Some(tls_error(error).0),
            Some(Ok(secured)) => {
                tls.version = Some(secured.version.to_owned());
                tls.doubt = secured.doubt.as_ref().map(doubt);
                let until = certificate::valid_until(&secured.certificate);
                tls.days_left = until.map(|until| (until - self.clock.unix_seconds()).div_euclid(86_400));
            }
        }
        tls
    }
}

fn tls_error(error: NoTls) -> (TlsError, String) {
    match error {
        NoTls::NotSpoken => (TlsError::NotSpoken, "it is not spoken there".to_owned()),
        NoTls::Ended => (TlsError::Ended, "the connection was ended".to_owned()),
        NoTls::Failed(text) => (TlsError::Failed(text.clone()), text),
    }
}

/// Why a certificate is not trusted, in words.
pub(in super::super) fn doubt(doubt: &Doubt) -> String {
    match doubt {
        Doubt::Issuer => "nobody whom this machine trusts has signed it".to_owned(),
        Doubt::Expired => "it has expired".to_owned(),
        Doubt::NotYet => "it is not valid yet, or this machine's clock is wrong".to_owned(),
        Doubt::Name => "it is for other names".to_owned(),
        Doubt::Authority => {
            "it is one that signs others (CA:TRUE), as self-made ones often are, and no server's".to_owned()
        }
        Doubt::NoRoots(text) => format!("this machine has no list of whom to trust ({text})"),
        Doubt::Other(text) => text.clone(),
    }
}
