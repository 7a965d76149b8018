//! The kinds of values that a setting can have: how each is read, and how it is shown.
//!
//! A [`Kind`] turns a TOML value into a Rust one and back; text from a flag or an environment variable
//! becomes a TOML value first, by the kind's [`Form`]. It knows no key and no origin: the caller puts them
//! in front of the problem. What must stay true: what `show` gives, `read` accepts and reads the same
//! (except a secret, which is never shown), and no problem's text contains a secret.

use super::event_type::EventType;
pub(super) use super::stomp::{DESTINATIONS, PASSCODE, VIRTUAL_HOSTS};
pub(super) use super::words::{
    ANONYMOUS, DATA_FORMAT, FIRST_PACKET, FRAMING, LENGTH_COUNTS, LENGTH_ORDER, PLAIN_FORMAT, PROTOCOL,
    SECOND_CONNECTION, WHEN_FULL,
};
use super::{DELTA_TYPE, RecoveryMode};
use longwire_protocol::{CloseReason, ErrorCode};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use toml::Value;

/// One kind of value.
pub(super) struct Kind<T: 'static> {
    /// The kind in words, for the documentation.
    pub(super) name: &'static str,
    /// How text becomes a TOML value.
    pub(super) form: Form,
    /// Reads a value; the error is what it must be.
    pub(super) read: fn(&Value) -> Result<T, String>,
    /// The value as TOML; `None` if it is not set.
    pub(super) show: fn(&T) -> Option<Value>,
}

/// How the text of a flag or an environment variable becomes a TOML value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// `true` or `false`.
    Boolean,
    /// A number, if it looks like one.
    Integer,
    /// The text as it is.
    Text,
    /// Separated by commas, or a TOML array.
    List,
    /// The text as it is; never repeated in a problem or an output.
    Secret,
}

impl Form {
    /// The TOML value that `text` means; text that does not fit stays text, for `read` to refuse.
    pub(super) fn value(self, text: &str) -> Value {
        let as_text = || Value::String(text.to_owned());
        match self {
            Form::Text | Form::Secret => as_text(),
            Form::Boolean if text.is_empty() => Value::Boolean(true),
            Form::Boolean => text.parse().map_or_else(|_| as_text(), Value::Boolean),
            Form::Integer => text.parse().map_or_else(|_| as_text(), Value::Integer),
            Form::List if text.trim_start().starts_with('[') => {
                toml::from_str::<toml::Table>(&format!("list = {text}"))
                    .ok()
                    .and_then(|mut table| table.remove("list"))
                    .unwrap_or_else(as_text)
            }
            Form::List => Value::Array(
                text.split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(|part| Value::String(part.to_owned()))
                    .collect(),
            ),
        }
    }
}

/// What a secret looks like in every output.
pub(super) const HIDDEN: &str = "(hidden)";

/// `true` or `false`.
pub(super) const FLAG: Kind<bool> = Kind {
    name: "true or false",
    form: Form::Boolean,
    read: |value| value.as_bool().ok_or_else(|| must_be("true or false", value)),
    show: |flag| Some(Value::Boolean(*flag)),
};

/// A number from 0.
pub(super) const COUNT: Kind<usize> =
    Kind { name: "number", form: Form::Integer, read: read_count, show: |count| Some(integer(*count)) };

/// A number from 1.
pub(super) const LIMIT: Kind<usize> = Kind {
    name: "number from 1",
    form: Form::Integer,
    read: |value| read_count(value).and_then(|count| not_zero(count, value)),
    show: |limit| Some(integer(*limit)),
};

/// A number from 0 that may be absent.
pub(super) const OPTIONAL_COUNT: Kind<Option<usize>> = Kind {
    name: "number",
    form: Form::Integer,
    read: |value| read_count(value).map(Some),
    show: |count| count.map(integer),
};

/// The size of a length field.
pub(super) const LENGTH_BYTES: Kind<usize> = Kind {
    name: "1, 2 or 4",
    form: Form::Integer,
    read: |value| match value.as_integer() {
        Some(1) => Ok(1),
        Some(2) => Ok(2),
        Some(4) => Ok(4),
        _ => Err(must_be("1, 2 or 4", value)),
    },
    show: |count| Some(integer(*count)),
};

/// A number from 1, of events in a second.
pub(super) const RATE: Kind<u32> = Kind {
    name: "number from 1",
    form: Form::Integer,
    read: |value| {
        let count = read_count(value).and_then(|count| not_zero(count, value))?;
        u32::try_from(count).map_err(|_| must_be("at most 4294967295", value))
    },
    show: |rate| Some(Value::Integer((*rate).into())),
};

/// A number of bytes from 1.
pub(super) const SIZE: Kind<usize> = Kind {
    name: "size",
    form: Form::Integer,
    read: |value| read_size(value).and_then(|size| not_zero(size, value)),
    show: show_size,
};

/// A number of bytes from 0.
pub(super) const SIZE_OR_ZERO: Kind<usize> =
    Kind { name: "size", form: Form::Integer, read: read_size, show: show_size };

/// A number of bytes from 1, also of a disk larger than the memory.
pub(super) const LARGE_SIZE: Kind<u64> = Kind {
    name: SIZE.name,
    form: SIZE.form,
    read: |value| Ok((SIZE.read)(value)? as u64),
    show: |size| {
        usize::try_from(*size).map_or_else(|_| Some(Value::String(size.to_string())), |size| show_size(&size))
    },
};

/// A number from 0 that is small.
pub(super) const COUNT_32: Kind<u32> = Kind {
    name: COUNT.name,
    form: COUNT.form,
    read: |value| read_count(value)?.try_into().map_err(|_| must_be("at most 4294967295", value)),
    show: |count| Some(Value::Integer((*count).into())),
};

/// A span of time, possibly none.
pub(super) const DURATION: Kind<Duration> =
    Kind { name: "duration", form: Form::Text, read: read_duration, show: show_duration };

/// A span of time that is not zero.
pub(super) const TIMEOUT: Kind<Duration> = Kind {
    name: "duration",
    form: Form::Text,
    read: |value| match read_duration(value)? {
        Duration::ZERO => Err("must be longer than zero".to_owned()),
        timeout => Ok(timeout),
    },
    show: show_duration,
};

/// The time between repetitions: at least a second.
pub(super) const INTERVAL: Kind<Duration> = Kind {
    name: "duration from 1s",
    form: Form::Text,
    read: |value| {
        let interval = read_duration(value)?;
        if interval < Duration::from_secs(1) {
            return Err(must_be("at least 1s", value));
        }
        Ok(interval)
    },
    show: show_duration,
};

/// Any text.
pub(super) const TEXT: Kind<String> = Kind {
    name: "text",
    form: Form::Text,
    read: |value| value.as_str().map(str::to_owned).ok_or_else(|| must_be("text in quotes", value)),
    show: |text| Some(Value::String(text.clone())),
};

/// Text that may be absent.
pub(super) const OPTIONAL_TEXT: Kind<Option<String>> = Kind {
    name: "text",
    form: Form::Text,
    read: |value| match value.as_str() {
        None => Err(must_be("text in quotes", value)),
        Some("") => Err("must not be empty".to_owned()),
        Some(text) => Ok(Some(text.to_owned())),
    },
    show: |text| text.clone().map(Value::String),
};

/// The path of a file or directory.
pub(super) const PATH: Kind<PathBuf> = Kind {
    name: "path",
    form: Form::Text,
    read: |value| match value.as_str() {
        None => Err(must_be("a path in quotes", value)),
        Some("") => Err("must not be empty".to_owned()),
        Some(text) => Ok(PathBuf::from(text)),
    },
    show: |path| Some(Value::String(path.to_string_lossy().into_owned())),
};

/// The path of a file that may be absent.
pub(super) const OPTIONAL_PATH: Kind<Option<PathBuf>> = Kind {
    name: PATH.name,
    form: PATH.form,
    read: |value| (PATH.read)(value).map(Some),
    show: |path| path.as_ref().and_then(PATH.show),
};

/// Texts, none of them empty.
pub(super) const TEXTS: Kind<Vec<String>> = Kind {
    name: "list of texts",
    form: Form::List,
    read: |value| {
        read_list(value, "a text that is not empty", |text| (!text.is_empty()).then(|| text.to_owned()))
    },
    show: |texts| Some(list(texts.iter().cloned())),
};

/// Text that may be absent and that nobody may read.
pub(super) const SECRET: Kind<Option<String>> = Kind {
    name: "secret text",
    form: Form::Secret,
    read: |value| match value.as_str() {
        None => Err("must be text in quotes".to_owned()),
        Some("") => Err("must not be empty".to_owned()),
        // Somebody saved the output of `longwire check` as a configuration.
        Some(HIDDEN) => Err(format!("is \"{HIDDEN}\", which only stands for a secret")),
        Some(text) => Ok(Some(text.to_owned())),
    },
    show: |secret| secret.as_ref().map(|_| Value::String(HIDDEN.to_owned())),
};

/// Types of events.
pub(super) const EVENT_TYPES: Kind<Vec<EventType>> = Kind {
    name: "list of event types",
    form: Form::List,
    read: |value| read_list(value, "a type of events such as \"connected\"", EventType::parse),
    show: |types| Some(list(types.iter().map(|kind| kind.as_str().to_owned()))),
};

/// A public key, or the file that has it; may be absent.
pub(super) const PUBLIC_KEY: Kind<Option<String>> = Kind {
    name: "PEM text, or `file:PATH`",
    form: Form::Text,
    read: |value| match value.as_str() {
        // Neither a problem nor an output may repeat it.
        Some(text) if text.contains("PRIVATE KEY") => {
            Err("is a private key: longwire needs the public one, and only the issuer may have this one"
                .to_owned())
        }
        _ => (OPTIONAL_TEXT.read)(value),
    },
    show: OPTIONAL_TEXT.show,
};

/// An address with a port; may be absent.
pub(super) const ADDRESS: Kind<Option<SocketAddr>> = Kind {
    name: "address with port",
    form: Form::Text,
    read: |value| {
        let address = value.as_str().and_then(|text| text.parse().ok());
        let what = "an address with a port such as \"127.0.0.1:8000\" or \"[::]:8000\"";
        address.map(Some).ok_or_else(|| must_be(what, value))
    },
    show: |address| address.map(|address| Value::String(address.to_string())),
};

/// Addresses with ports.
pub(super) const ADDRESSES: Kind<Vec<SocketAddr>> = Kind {
    name: "list of addresses with ports",
    form: Form::List,
    read: |value| {
        read_list(value, "an address with a port such as \"127.0.0.1:8000\" or \"[::]:8000\"", |text| {
            text.parse().ok()
        })
    },
    show: |addresses| Some(list(addresses.iter().map(ToString::to_string))),
};

/// Addresses without ports.
pub(super) const HOSTS: Kind<Vec<IpAddr>> = Kind {
    name: "list of addresses",
    form: Form::List,
    read: |value| read_list(value, "an address such as \"10.0.0.7\"", |text| text.parse().ok()),
    show: |hosts| Some(list(hosts.iter().map(ToString::to_string))),
};

/// Web origins.
pub(super) const ORIGINS: Kind<Vec<String>> = Kind {
    name: "list of origins",
    form: Form::List,
    read: |value| read_list(value, "an origin such as \"https://example.com\" (no path, no `*`)", origin),
    show: |origins| Some(list(origins.iter().cloned())),
};

/// What a recovery brings.
pub(super) const RECOVERY_MODE: Kind<RecoveryMode> = Kind {
    name: "`stream` or `cache`",
    form: Form::Text,
    read: |value| match value.as_str() {
        // What an empty text means in Centrifugo.
        Some("stream" | "") => Ok(RecoveryMode::Stream),
        Some("cache") => Ok(RecoveryMode::Cache),
        _ => Err(must_be("\"stream\" or \"cache\"", value)),
    },
    show: |mode| {
        let name = match mode {
            RecoveryMode::Stream => "stream",
            RecoveryMode::Cache => "cache",
        };
        Some(Value::String(name.to_owned()))
    },
};

/// Names of delta encodings.
pub(super) const DELTA_TYPES: Kind<Vec<String>> = Kind {
    name: "list of delta types",
    form: Form::List,
    read: |value| read_list(value, "\"fossil\"", |text| (text == DELTA_TYPE).then(|| text.to_owned())),
    show: |types| Some(list(types.iter().cloned())),
};

/// The address of another server's page, if any.
pub(super) const ENDPOINT: Kind<Option<String>> = Kind {
    name: "address",
    form: Form::Text,
    read: |value| match value.as_str() {
        Some(text) if is_endpoint(text) => Ok(Some(text.to_owned())),
        _ => Err(must_be(
            "an address such as \"https://example.com/hook\", without a user or a fragment",
            value,
        )),
    },
    show: |endpoint| endpoint.clone().map(Value::String),
};

/// Names of headers, in lower case.
pub(super) const HEADER_NAMES: Kind<Vec<String>> = Kind {
    name: "list of headers' names",
    form: Form::List,
    read: |value| {
        read_list(value, "the name of a header that may be handed on, such as \"cookie\"", header_name)
    },
    show: |names| Some(list(names.iter().cloned())),
};

/// Headers, their names in lower case, whose values nobody may read.
pub(super) const HEADERS: Kind<Vec<(String, String)>> = Kind {
    name: "list of headers",
    form: Form::List,
    read: |value| {
        // The values are secret, so no problem repeats one.
        let problem = || "must be a list of headers such as \"x-key: value\"".to_owned();
        let texts = value.as_array().ok_or_else(problem)?;
        let headers = texts.iter().map(|text| text.as_str().and_then(header).ok_or_else(problem));
        let headers = headers.collect::<Result<Vec<_>, _>>()?;
        match headers.iter().find(|(_, value)| value == HIDDEN) {
            Some((name, _)) => {
                Err(format!("the value of {name} is \"{HIDDEN}\", which only stands for a secret"))
            }
            None => Ok(headers),
        }
    },
    show: |headers| Some(list(headers.iter().map(|(name, _)| format!("{name}: {HIDDEN}")))),
};

/// What statuses of a backend mean.
pub(super) const STATUS_TRANSFORMS: Kind<Vec<StatusTransform>> = Kind {
    name: "list of statuses and what they mean",
    form: Form::List,
    read: |value| {
        let what = "a status and its meaning, such as \"402 disconnect 4500 no credit\" or \"503 error 1000 \
                    temporary busy\", with a code that clients know or that is free for backends";
        read_list(value, what, StatusTransform::parse)
    },
    show: |transforms| Some(list(transforms.iter().map(ToString::to_string))),
};

/// What one status of a backend means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatusTransform {
    /// The status.
    pub status: u16,
    /// What it is taken for.
    pub answer: Answered,
}

/// A refusal that a backend may answer, or that stands for a status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answered {
    /// The command is answered by this error.
    Error {
        /// The number.
        code: u32,
        /// The text.
        message: String,
        /// Whether trying again may help.
        temporary: bool,
    },
    /// The connection is closed.
    Disconnect {
        /// The number.
        code: u16,
        /// The text.
        reason: String,
    },
}

impl Answered {
    /// Whether clients understand its code and get its text as it is: an error of the table or from 400 to 1999, a
    /// close of the table or from 4000 to 4999.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        match self {
            Answered::Error { code, .. } => {
                let is_known = ErrorCode::ALL.iter().any(|known| known.code() == *code);
                let is_fine = is_known || matches!(code, 400..=1999);
                is_fine.then_some(()).ok_or("the error's code is not from 400 to 1999")
            }
            Answered::Disconnect { code, reason } => {
                let is_known = *code >= 3000 && CloseReason::ALL.iter().any(|known| known.code() == *code);
                if !is_known && !matches!(code, 4000..=4999) {
                    return Err("the disconnect's code is not from 4000 to 4999");
                }
                // centrifuge-js would take JSON apart.
                let is_text = reason.len() <= MAX_REASON_BYTES
                    && serde_json::from_str::<serde::de::IgnoredAny>(reason).is_err();
                is_text.then_some(()).ok_or("the disconnect's reason is longer than 123 bytes, or JSON")
            }
        }
    }
}

/// Longest reason in a close frame: a control frame has 125 bytes, the code takes two (RFC 6455 section 5.5).
const MAX_REASON_BYTES: usize = 123;

impl StatusTransform {
    fn parse(text: &str) -> Option<StatusTransform> {
        let (status, rest) = text.trim().split_once(' ')?;
        let (what, rest) = rest.trim_start().split_once(' ')?;
        let (code, words) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
        let words = words.trim();
        let answer = match what {
            "error" => {
                let rest =
                    words.strip_prefix("temporary").filter(|rest| rest.is_empty() || rest.starts_with(' '));
                let message = rest.unwrap_or(words).trim().to_owned();
                Answered::Error { code: code.parse().ok()?, message, temporary: rest.is_some() }
            }
            "disconnect" => Answered::Disconnect { code: code.parse().ok()?, reason: words.to_owned() },
            _ => return None,
        };
        let status = status.parse().ok().filter(|status| matches!(status, 100..=999))?;
        answer.check().ok().map(|()| StatusTransform { status, answer })
    }
}

impl std::fmt::Display for StatusTransform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.status)?;
        match &self.answer {
            Answered::Error { code, message, temporary } => {
                write!(f, "error {code}{} {message}", if *temporary { " temporary" } else { "" })
            }
            Answered::Disconnect { code, reason } => write!(f, "disconnect {code} {reason}"),
        }
    }
}

/// Whether a text is the address of a page that can be asked.
///
/// A user and password in it would end up in logs: they belong into `static_headers`.
fn is_endpoint(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some_and(|host| !host.is_empty())
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
    })
}

/// Headers that belong to one connection or to the body, or that longwire itself sets.
const OWN_HEADERS: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-longwire-signature",
];

fn header_name(text: &str) -> Option<String> {
    let name = text.trim().to_ascii_lowercase();
    let is_allowed = longwire_protocol::http::is_token(name.as_bytes())
        && !OWN_HEADERS.contains(&&*name)
        && !name.starts_with("proxy-");
    is_allowed.then_some(name)
}

fn header(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once(':')?;
    let value = value.trim();
    let is_value = longwire_protocol::http::is_header_value(value.as_bytes());
    Some((header_name(name)?, is_value.then(|| value.to_owned())?))
}

pub(super) fn must_be(what: &str, value: &Value) -> String {
    // A value may be as long as somebody's environment: a problem repeats only its beginning.
    let mut shown = value.to_string();
    if let Some((end, _)) = shown.char_indices().nth(60) {
        shown.truncate(end);
        shown.push_str("...");
    }
    format!("must be {what}, not {shown}")
}

fn integer(count: usize) -> Value {
    Value::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

pub(super) fn list(texts: impl Iterator<Item = String>) -> Value {
    Value::Array(texts.map(Value::String).collect())
}

fn not_zero(count: usize, value: &Value) -> Result<usize, String> {
    if count == 0 { Err(must_be("at least 1", value)) } else { Ok(count) }
}

fn read_count(value: &Value) -> Result<usize, String> {
    value
        .as_integer()
        .and_then(|number| usize::try_from(number).ok())
        .ok_or_else(|| must_be("a number from 0", value))
}

fn read_size(value: &Value) -> Result<usize, String> {
    if value.is_integer() {
        return read_count(value);
    }
    value.as_str().and_then(parse_size).ok_or_else(|| must_be("a size such as \"64KiB\" or 65536", value))
}

fn parse_size(text: &str) -> Option<usize> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let unit: usize = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    let size = text[..digits].parse::<usize>().ok()?.checked_mul(unit)?;
    // What cannot be shown as a TOML integer cannot be meant.
    i64::try_from(size).ok().map(|_| size)
}

fn show_size(size: &usize) -> Option<Value> {
    let size = *size;
    let text = |count: usize, unit: &str| Some(Value::String(format!("{count}{unit}")));
    match size {
        0 => Some(Value::Integer(0)),
        _ if size.is_multiple_of(1 << 30) => text(size >> 30, "GiB"),
        _ if size.is_multiple_of(1 << 20) => text(size >> 20, "MiB"),
        _ if size.is_multiple_of(1 << 10) => text(size >> 10, "KiB"),
        _ => Some(integer(size)),
    }
}

/// What is longer is a mistake, and would overflow when added to a point in time.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 3600);

fn read_duration(value: &Value) -> Result<Duration, String> {
    let duration = value
        .as_str()
        .and_then(parse_duration)
        .ok_or_else(|| must_be("a duration such as \"25s\", \"500ms\" or \"1m30s\"", value))?;
    if duration > LONGEST { Err(must_be("at most 3650d", value)) } else { Ok(duration) }
}

/// Reads `25s`, `500ms`, `5m`, `720h`, `30d` and combinations such as `1m30s`; nothing else.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number = rest[..digits].parse::<u64>().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit_ms = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        rest = &rest[letters..];
        total = total.checked_add(Duration::from_millis(number.checked_mul(unit_ms)?))?;
    }
    if text.is_empty() { None } else { Some(total) }
}

/// Writes a duration as [`parse_duration`] reads it, in hours, minutes, seconds and milliseconds.
pub(crate) fn format_duration(duration: Duration) -> String {
    let total_ms = duration.as_millis();
    let parts = [
        (total_ms / 3_600_000, "h"),
        (total_ms / 60_000 % 60, "m"),
        (total_ms / 1_000 % 60, "s"),
        (total_ms % 1_000, "ms"),
    ];
    let text: String =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

fn show_duration(duration: &Duration) -> Option<Value> {
    Some(Value::String(format_duration(*duration)))
}

pub(super) fn read_list<T>(
    value: &Value,
    what: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, String> {
    let Some(values) = value.as_array() else {
        return Err(must_be("a list", value));
    };
    values
        .iter()
        .map(|value| value.as_str().and_then(&parse).ok_or_else(|| format!("each {}", must_be(what, value))))
        .collect()
}

/// An origin as a browser sends it (RFC 6454 section 6.1): lower case, without the scheme's usual port.
fn origin(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c));
    let (host, port) = match authority.rsplit_once(':') {
        // The last colon of a bare IPv6 address is inside its brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse::<u16>().ok()?)),
        _ => (authority, None),
    };
    let is_host = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    if !is_scheme || !is_host {
        return None;
    }
    match (scheme, port) {
        (_, None) | ("http", Some(80)) | ("https", Some(443)) => Some(format!("{scheme}://{host}")),
        (_, Some(port)) => Some(format!("{scheme}://{host}:{port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_numbers_with_units() {
        for (text, ms) in [
            ("25s", 25_000),
            ("500ms", 500),
            ("5m", 300_000),
            ("720h", 2_592_000_000),
            ("1d", 86_400_000),
            ("1m30s", 90_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for bad in [
            "",
            "25",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "1s ",
            "1S",
            "1w",
            "1us",
            "99999999999999999999s",
            "1é",
            "5sm",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
        assert!((DURATION.read)(&Value::String("3651d".into())).is_err());
        assert!((DURATION.read)(&Value::Integer(25)).is_err());
    }

    #[test]
    fn a_duration_survives_being_shown() {
        for ms in [0, 1, 999, 1_000, 61_000, 90_500, 3_600_000, 2_592_000_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&format_duration(duration)), Some(duration), "{ms}");
        }
        assert_eq!(format_duration(Duration::from_secs(90)), "1m30s");
    }

    #[test]
    fn a_size_is_a_number_of_bytes_or_has_a_binary_unit() {
        for (text, size) in
            [("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 2 << 30), ("17", 17), ("5B", 5), ("1 KiB", 1024)]
        {
            assert_eq!(parse_size(text), Some(size), "{text}");
        }
        for bad in ["", "KiB", "64KB", "64kib", "1.5MiB", "-1", "99999999999GiB", "1é"] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
        for size in [0, 1, 1023, 1024, 65_536, 1 << 20, 3 << 30] {
            assert_eq!(read_size(&show_size(&size).expect("a size is always set")), Ok(size));
        }
        assert!((SIZE.read)(&Value::Integer(0)).is_err());
        assert!((SIZE.read)(&Value::Integer(-1)).is_err());
    }

    #[test]
    fn an_origin_is_normalised_to_what_browsers_send() {
        for (text, expected) in [
            ("https://example.com", "https://example.com"),
            ("HTTPS://Example.com:443", "https://example.com"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://[::1]", "http://[::1]"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert_eq!(origin(text).as_deref(), Some(expected), "{text}");
        }
        for bad in [
            "*",
            "null",
            "",
            "example.com",
            "https://",
            "https://*.example.com",
            "https://a.b/",
            "https://a.b/path",
            "https://a.b:x",
            "https://a.b:99999",
            "https://u@a.b",
            "://a.b",
            "https://a b",
            "https://[::1",
        ] {
            assert_eq!(origin(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_status_is_given_a_meaning_that_clients_understand() {
        for text in [
            "402 disconnect 4500 no credit",
            "503 error 1000 temporary try later",
            "500 error 400 ",
            "401 error 101 no",
        ] {
            let read = StatusTransform::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(read.to_string(), text);
        }
        let temporary = StatusTransform::parse("503 error 1000 temporary").expect("a message may be empty");
        let answer = Answered::Error { code: 1000, message: String::new(), temporary: true };
        assert_eq!(temporary, StatusTransform { status: 503, answer });
        for bad in [
            "",
            "402",
            "402 disconnect",
            "402 close 4500 x",
            "x error 400 x",
            "42 error 400 x",
            "402 error 399 x",
            "402 error 2000 x",
            "402 disconnect 3999 x",
            "402 disconnect 1000 x",
            "402 disconnect 5000 x",
            "402 disconnect 4500 {}",
        ] {
            assert_eq!(StatusTransform::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_endpoint_is_an_address_without_secrets() {
        for good in ["http://127.0.0.1:9000/hook?x=1", "https://example.com", "http://[::1]/"] {
            assert!(is_endpoint(good), "{good}");
        }
        for bad in
            ["", "example.com", "ftp://example.com", "http://", "http://u@h/", "http://u:p@h/", "http://h/#x"]
        {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }

    #[test]
    fn headers_that_would_change_the_request_are_not_handed_on_and_no_value_is_shown() {
        assert_eq!(header_name("Cookie").as_deref(), Some("cookie"));
        for bad in ["", "a b", "Host", "content-length", "Transfer-Encoding", "proxy-authorization", "a:b"] {
            assert_eq!(header_name(bad), None, "{bad:?}");
        }
        let value = Value::Array(vec![Value::String("X-Key: 4711".into())]);
        let headers = (HEADERS.read)(&value).expect("a header");
        assert_eq!(headers, [("x-key".to_owned(), "4711".to_owned())]);
        let shown = (HEADERS.show)(&headers).expect("a list");
        assert!(!shown.to_string().contains("4711") && (HEADERS.read)(&shown).is_err());
        for bad in ["x", ": x", "x: a\nb", "host: x"] {
            let problem = (HEADERS.read)(&Value::Array(vec![Value::String(bad.into())])).expect_err(bad);
            assert!(!problem.contains("a\nb"));
        }
    }

    #[test]
    fn text_becomes_the_value_that_the_kind_wants() {
        assert_eq!(Form::Boolean.value("true"), Value::Boolean(true));
        assert_eq!(Form::Integer.value("12"), Value::Integer(12));
        assert_eq!(Form::Integer.value("64KiB"), Value::String("64KiB".into()));
        let two = Value::Array(vec![Value::String("a".into()), Value::String("b".into())]);
        assert_eq!(Form::List.value("a, b"), two);
        assert_eq!(Form::List.value("[\"a\", \"b\"]"), two);
        assert_eq!(Form::List.value(""), Value::Array(vec![]));
        assert_eq!(Form::Text.value("true"), Value::String("true".into()));
    }

    #[test]
    fn a_problem_repeats_no_secret_and_only_the_beginning_of_a_long_value() {
        assert!(!(SECRET.read)(&Value::Integer(4711)).unwrap_err().contains("4711"));
        let long = Value::String("x".repeat(10_000));
        assert!((DURATION.read)(&long).unwrap_err().len() < 200);
    }
}
