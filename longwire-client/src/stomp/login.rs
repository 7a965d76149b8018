//! How a connection begins, and what an ERROR says.
//!
//! [`connect_frame`] asks, [`Session::read`] reads the answer: version, heartbeats, and what kind of broker it is, where that
//! matters. [`told`] makes a cause of an ERROR. What must stay true: the values of CONNECT and CONNECTED are never escaped;
//! this end beats twice as often as it promised, and gives the broker more time than it promised; what a broker says is
//! kept in its own words.

use super::builder::Settings;
use super::frame::Writer;
use crate::address::Address;
use crate::cause::Cause;
use longwire_protocol::heartbeat::{Intervals, OFF};
use longwire_protocol::stomp::Version;
use longwire_protocol::stomp::decode::Frame;
use longwire_protocol::{Advice, Category, CloseReason};
use std::time::Duration;

/// How much of an ERROR's text is kept.
const MAX_TEXT_CHARS: usize = 400;

/// What a broker calls itself, as far as it makes a difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Broker {
    Longwire,
    RabbitMq,
    ActiveMq,
    Artemis,
    Other,
}

impl Broker {
    fn of(server: &str) -> Broker {
        let server = server.to_ascii_lowercase();
        match () {
            () if server.starts_with("longwire") => Broker::Longwire,
            () if server.contains("rabbitmq") => Broker::RabbitMq,
            () if server.contains("artemis") => Broker::Artemis,
            () if server.contains("activemq") => Broker::ActiveMq,
            () => Broker::Other,
        }
    }

    /// The headers of SUBSCRIBE that ask for this many deliveries ahead of their acknowledgements.
    pub(super) fn prefetch_headers(self) -> &'static [&'static str] {
        match self {
            Broker::Longwire | Broker::RabbitMq => &["prefetch-count"],
            Broker::ActiveMq => &["activemq.prefetchSize"],
            // It counts bytes under that name.
            Broker::Artemis => &[],
            Broker::Other => &["prefetch-count", "activemq.prefetchSize"],
        }
    }
}

/// What was agreed upon with CONNECTED.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Session {
    pub(super) version: Version,
    pub(super) broker: Broker,
    /// What the broker calls itself, as it says it.
    pub(super) server: String,
    /// The connection's name at the broker, if it gave one.
    pub(super) session: String,
    pub(super) intervals: Intervals,
}

/// The CONNECT frame for a server.
pub(super) fn connect_frame(settings: &Settings, server: &Address) -> Vec<u8> {
    let versions: Vec<&str> = settings.versions.iter().map(|version| version.as_str()).collect();
    let host = match &settings.host {
        Some(host) => host.clone(),
        None => server.virtual_host(),
    };
    let (login, passcode) = match &settings.login {
        Some((login, passcode)) => (&**login, &**passcode),
        None => (&*server.user, &*server.password),
    };
    let mut writer = Writer::new(Version::V12, "CONNECT", 256)
        .raw("accept-version", &versions.join(","))
        .raw("host", &host);
    if !login.is_empty() || !passcode.is_empty() {
        writer = writer.raw("login", login).raw("passcode", passcode);
    }
    if settings.versions.iter().any(|version| *version > Version::V10) {
        let (send, receive) = settings.heart_beat;
        let (send, receive) = (milliseconds(send), milliseconds(receive));
        writer = writer.raw("heart-beat", &format!("{send},{receive}"));
    }
    for (name, value) in &settings.headers {
        writer = writer.raw(name, value);
    }
    writer.end()
}

/// What stands in a header for an interval; one that is off is 0.
fn milliseconds(interval: Duration) -> u64 {
    if interval >= OFF { 0 } else { interval.as_millis() as u64 }
}

impl Session {
    /// Reads CONNECTED.
    ///
    /// # Errors
    /// The rule that the server broke.
    pub(super) fn read(frame: &Frame<'_>, settings: &Settings) -> Result<Session, String> {
        // CONNECTED is not escaped, so that it can be read before the version is known.
        let value = |name: &str| {
            frame.headers(Version::V12).find(|(its_name, _)| *its_name == name).map(|(_, value)| value.trim())
        };
        let version = match value("version") {
            None => Version::V10,
            Some(text) => Version::ALL
                .into_iter()
                .find(|version| version.as_str() == text)
                .ok_or_else(|| format!("CONNECTED names the version \"{text}\", which is none"))?,
        };
        if !settings.versions.contains(&version) {
            return Err(format!("CONNECTED names version {}, which was not asked for", version.as_str()));
        }
        let terms = value("heart-beat").filter(|_| version > Version::V10).unwrap_or("0,0");
        let intervals = agree(settings.heart_beat, terms)
            .ok_or_else(|| format!("the heart-beat \"{terms}\" is not two numbers of milliseconds"))?;
        let server = value("server").unwrap_or_default().to_owned();
        Ok(Session {
            version,
            broker: Broker::of(&server),
            server,
            session: value("session").unwrap_or_default().to_owned(),
            intervals,
        })
    }
}

/// The heartbeat that follows from what both ends say of it; `None` if the server's words are no numbers.
fn agree((sends, wants): (Duration, Duration), server: &str) -> Option<Intervals> {
    let (server_sends, server_wants) = server.split_once(',')?;
    let between = |one: u64, other: u64| match (one, other) {
        (0, _) | (_, 0) => OFF,
        (one, other) => Duration::from_millis(one.max(other)).min(OFF),
    };
    let to_server = between(milliseconds(sends), number(server_wants)?);
    let to_client = between(number(server_sends)?, milliseconds(wants));
    let half_as_much_more = if to_client == OFF { OFF } else { (to_client * 5 / 2).min(OFF) };
    Some(Intervals {
        // Networks take their time, and timers come late.
        interval: if to_server == OFF { OFF } else { to_server / 2 },
        timeout: OFF,
        // ActiveMQ beats when nothing else was written within an interval: that leaves gaps of two.
        max_silence: half_as_much_more,
    })
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// What an ERROR says, as a cause.
///
/// `version` is what is spoken, `None` before CONNECTED: a login that is refused will be refused again.
pub fn told(frame: &Frame<'_>, version: Option<Version>) -> Cause {
    let spoken = version.unwrap_or(Version::V10);
    let message = frame.headers(spoken).find(|(name, _)| *name == "message").map(|(_, value)| value);
    let message = message.map(|text| super::frame::plain(spoken, text).trim().to_owned()).unwrap_or_default();
    let body = String::from_utf8_lossy(&frame.body[..frame.body.len().min(4096)]);
    let first = body.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    // ActiveMQ says there where in its program that was.
    let is_trace = first.contains("Exception") || first.starts_with("java.");
    let is_more = !first.is_empty() && !is_trace && !message.contains(first) && !first.contains(&*message);
    let mut text = match (message.is_empty(), is_more) {
        (true, _) if first.is_empty() => "ERROR".to_owned(),
        (true, _) => first.to_owned(),
        (false, true) => format!("{message}: {first}"),
        (false, false) => message,
    };
    if text.chars().nth(MAX_TEXT_CHARS).is_some() {
        text = text.chars().take(MAX_TEXT_CHARS).collect();
    }
    // longwire says there which row of the table it is.
    let row = CloseReason::ALL
        .iter()
        .copied()
        .find(|reason| body.contains(&format!("({} {})", reason.code(), reason.text())));
    let advice = match (row, version) {
        (None, None) => Advice::Stop,
        (None, Some(_)) => Advice::Reconnect,
        (Some(row), None) => row.advice(),
        // A frame of this end was wrong: the next connection does not begin with it.
        (Some(row), Some(_)) if row.category() == Category::Client => Advice::Reconnect,
        (Some(row), Some(_)) => row.advice(),
    };
    Cause::Told { code: row.map_or(0, CloseReason::code), text, advice, after: None }
}

/// Whether the same may succeed later, by what an ERROR says.
pub(super) fn is_temporary(cause: &Cause) -> bool {
    let Cause::Told { code, .. } = cause else { return false };
    CloseReason::ALL.iter().any(|reason| reason.code() == *code && reason.category() == Category::Server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire_protocol::stomp::Limits;
    use longwire_protocol::stomp::decode::{Bounds, Decoder};

    fn with_frame<T>(text: &str, read: impl FnOnce(&Frame<'_>) -> T) -> T {
        let mut input = text.as_bytes();
        let bounds = Bounds::of(&Limits::default());
        read(&Decoder::default().decode(&mut input, &bounds).expect("allowed").expect("whole"))
    }

    fn session(text: &str) -> Result<Session, String> {
        with_frame(text, |frame| Session::read(frame, &Settings::default()))
    }

    fn connect(url: &str, settings: &Settings) -> String {
        let frame = connect_frame(settings, &Address::parse(url).unwrap());
        String::from_utf8(frame).unwrap()
    }

    #[test]
    fn a_login_has_no_escapes_and_takes_its_parts_from_the_url() {
        let settings = Settings::default();
        assert_eq!(
            connect("stomp://ada:a%3Ab%5Cc@mq/prod%2Feu?x=y", &settings),
            "CONNECT\naccept-version:1.0,1.1,1.2\nhost:prod/eu\nlogin:ada\npasscode:a:b\\c\n\
             heart-beat:10000,10000\n\n\0"
        );
        let settings = Settings {
            versions: vec![Version::V10],
            login: Some(("bob".to_owned(), String::new())),
            host: Some("own".to_owned()),
            headers: vec![("client-id".to_owned(), "c1".to_owned())],
            ..Settings::default()
        };
        assert_eq!(
            connect("stomp+ws://ada:pw@mq/path", &settings),
            "CONNECT\naccept-version:1.0\nhost:own\nlogin:bob\npasscode:\nclient-id:c1\n\n\0"
        );
        assert!(connect("stomp+ws://mq/path", &Settings::default()).contains("\nhost:/\n"));
    }

    #[test]
    fn each_end_beats_more_often_than_it_promised_and_waits_longer() {
        let (secs, millis) = (Duration::from_secs, Duration::from_millis);
        let intervals =
            |offer, server: &str| agree(offer, server).map(|it: Intervals| (it.interval, it.max_silence));
        for (offer, server, expected) in [
            ((secs(10), secs(10)), "10000,10000", Some((secs(5), secs(25)))),
            ((secs(10), secs(10)), "0,0", Some((OFF, OFF))),
            ((secs(10), secs(10)), "1000,60000", Some((secs(30), secs(25)))),
            ((secs(0), secs(4)), "1000,1000", Some((OFF, secs(10)))),
            ((OFF, secs(4)), " 8000 , 1000", Some((OFF, secs(20)))),
            ((millis(1), secs(0)), "500,1", Some((Duration::from_micros(500), OFF))),
            ((secs(10), secs(10)), "99999999999999999999999,1", Some((secs(5), OFF))),
            ((secs(10), secs(10)), "10000", None),
            ((secs(10), secs(10)), "a,b", None),
            ((secs(10), secs(10)), "-1,0", None),
        ] {
            assert_eq!(intervals(offer, server), expected, "{offer:?} and {server}");
        }
    }

    #[test]
    fn the_broker_is_known_by_its_name() {
        for (server, broker) in [
            ("longwire/0.1.0", Broker::Longwire),
            ("RabbitMQ/3.10.8", Broker::RabbitMq),
            ("ActiveMQ/5.17.2", Broker::ActiveMq),
            ("ActiveMQ-Artemis/2.30.0 ActiveMQ Artemis Messaging Engine", Broker::Artemis),
            ("", Broker::Other),
        ] {
            let session = session(&format!("CONNECTED\nversion:1.2\nserver:{server}\nsession:a\\b\n\n\0"));
            let session = session.unwrap();
            assert_eq!((session.broker, &*session.session), (broker, "a\\b"), "{server}");
        }
    }

    #[test]
    fn who_names_no_version_speaks_the_first() {
        assert_eq!(
            session("CONNECTED\nsession:x\nheart-beat:1,1\n\n\0").map(|it| it.version),
            Ok(Version::V10)
        );
        assert_eq!(session("CONNECTED\nversion:1.1\n\n\0").map(|it| it.version), Ok(Version::V11));
        for wrong in ["CONNECTED\nversion:1.3\n\n\0", "CONNECTED\nversion:1.2\nheart-beat:x\n\n\0"] {
            assert!(session(wrong).is_err(), "{wrong}");
        }
        let only_new = Settings { versions: vec![Version::V12], ..Settings::default() };
        let old = with_frame("CONNECTED\nsession:x\n\n\0", |frame| Session::read(frame, &only_new));
        assert!(old.unwrap_err().contains("1.0"));
    }

    #[test]
    fn a_refused_login_is_final_and_says_why_in_the_brokers_words() {
        for (frame, text) in [
            (
                "ERROR\nmessage:Bad CONNECT\ncontent-type:text/plain\nversion:1.0,1.1,1.2\ncontent-length:32\n\n\
                 Access refused for user 'guest'\n\0",
                "Bad CONNECT: Access refused for user 'guest'",
            ),
            (
                "ERROR\ncontent-type:text/plain\nmessage:User name [x] or password is invalid.\n\n\
                 java.lang.SecurityException: User name [x] or password is invalid.\n\tat org.apache\0",
                "User name [x] or password is invalid.",
            ),
            ("ERROR\n\n\0", "ERROR"),
            ("ERROR\n\nno\0", "no"),
        ] {
            let cause = with_frame(frame, |frame| told(frame, None));
            let expected = Cause::Told { code: 0, text: text.to_owned(), advice: Advice::Stop, after: None };
            assert_eq!(cause, expected);
        }
    }

    #[test]
    fn what_longwire_says_has_its_row_of_the_table() {
        let error = |reason: CloseReason, version| {
            let body = format!("what\n\n{} ({} {})\n", reason.explanation(), reason.code(), reason.text());
            with_frame(&format!("ERROR\nmessage:what\n\n{body}\0"), |frame| told(frame, version))
        };
        let (login, later) = (None, Some(Version::V12));
        for (reason, version, advice) in [
            (CloseReason::InvalidToken, login, Advice::Stop),
            (CloseReason::BackendUnavailable, login, Advice::ReconnectAfter),
            (CloseReason::Drain, later, Advice::ReconnectAfter),
            (CloseReason::ForceDisconnect, later, Advice::Stop),
            (CloseReason::BadRequest, later, Advice::Reconnect),
        ] {
            let cause = error(reason, version);
            assert_eq!(cause.advice(), advice, "{reason}");
            assert!(matches!(cause, Cause::Told { code, .. } if code == reason.code()), "{reason}");
            assert_eq!(cause.category(), reason.category(), "{reason}");
        }
        assert!(is_temporary(&error(CloseReason::QueueUnavailable, later)));
        assert!(!is_temporary(&error(CloseReason::PermissionDenied, later)));
        let other = with_frame("ERROR\nmessage:x\n\n\0", |frame| told(frame, later));
        assert_eq!((other.advice(), is_temporary(&other)), (Advice::Reconnect, false));
    }
}
