//! What a person types, as what goes over the wire, and what comes, as what a person reads.
//!
//! A line is a short command of the dialect (`subscribe news`), or the very thing to send: JSON for the centrifuge dialect, `COMMAND
//! name:value | body` for STOMP, anything for the others. Frames are shown in the form in which they can be typed. It sends nothing itself;
//! `connect` does. What must stay true: what cannot be understood is never sent; each command that is answered is waited for by
//! the name under which its answer comes.

use super::super::address::destination;
use longwire_protocol::stomp::Version;
use longwire_protocol::stomp::decode::{Frame, unescape};
use longwire_protocol::stomp::encode::write_header;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// What a line means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Typed {
    /// Nothing was typed.
    Nothing,
    /// This is to be sent.
    Send(Vec<u8>),
    /// The commands are to be listed.
    Help,
    /// It cannot be understood: why.
    Wrong(String),
}

/// The commands of the centrifuge dialect.
pub(super) const CENTRIFUGE_HELP: &str = "\
subscribe CHANNEL      history CHANNEL [LIMIT]
unsubscribe CHANNEL    presence CHANNEL
publish CHANNEL DATA   presence_stats CHANNEL
rpc METHOD [DATA]      send DATA
ping                   quit
{...}  a command as it stands";

/// The commands of STOMP.
pub(super) const STOMP_HELP: &str = "\
subscribe DESTINATION [header:value ...]
unsubscribe DESTINATION
send DESTINATION BODY
ack ID, nack ID
begin TRANSACTION, commit, abort
SEND destination:/queue/x priority:9 | BODY
        a frame as it stands, blanks as name:\"a b\"
quit
A destination without a slash is a topic. Receipts are asked for
but by a frame as it stands.";

/// Where nothing but data is spoken.
pub(super) const PLAIN_HELP: &str = "\
Each line is a message for the backend, and sent as it stands.
Channels are named in the URL: ?channels=a,b
quit";

/// Reads and shows the centrifuge dialect in JSON.
#[derive(Debug, Default)]
pub(super) struct Centrifuge {
    last_id: u32,
    unanswered: BTreeSet<u32>,
}

impl Centrifuge {
    /// The command that logs in.
    pub(super) fn login(&mut self, token: Option<&str>) -> Vec<u8> {
        let mut connect = Map::new();
        if let Some(token) = token {
            connect.insert("token".to_owned(), token.into());
        }
        connect.insert("name".to_owned(), "longwire".into());
        self.command("connect", connect.into())
    }

    /// Forgets what an earlier connection had.
    pub(super) fn reset(&mut self) {
        self.unanswered.clear();
    }

    /// Whether everything was answered.
    pub(super) fn is_idle(&self) -> bool {
        self.unanswered.is_empty()
    }

    fn command(&mut self, method: &str, parameters: Value) -> Vec<u8> {
        self.last_id += 1;
        self.unanswered.insert(self.last_id);
        let mut command = Map::new();
        command.insert("id".to_owned(), self.last_id.into());
        command.insert(method.to_owned(), parameters);
        Value::Object(command).to_string().into_bytes()
    }

    /// Reads a line.
    pub(super) fn typed(&mut self, line: &str) -> Typed {
        let line = line.trim();
        if line.starts_with('{') {
            return self.raw(line);
        }
        let (word, rest) = split_word(line);
        let (first, second) = split_word(rest);
        let needs = |what: &str| Typed::Wrong(format!("`{word}` needs {what}"));
        let parameters = match word {
            "" => return Typed::Nothing,
            "help" | "?" => return Typed::Help,
            // A sign of life: the answer to the server's, or to show that one is there.
            "ping" => return Typed::Send(b"{}".to_vec()),
            "send" if rest.is_empty() => return needs("data"),
            "send" => {
                return Typed::Send(json!({"send": {"data": data(rest)}}).to_string().into_bytes());
            }
            "subscribe" | "unsubscribe" | "publish" | "presence" | "presence_stats" | "history"
                if first.is_empty() =>
            {
                return needs("a channel");
            }
            "rpc" if first.is_empty() => return needs("a method"),
            "publish" if second.is_empty() => return needs("data behind the channel"),
            "publish" => json!({"channel": first, "data": data(second)}),
            "rpc" if second.is_empty() => json!({"method": first}),
            "rpc" => json!({"method": first, "data": data(second)}),
            "history" => match second {
                "" => json!({"channel": first, "limit": 10}),
                limit => match limit.parse::<u32>() {
                    Ok(limit) => json!({"channel": first, "limit": limit}),
                    Err(_) => return needs("a number behind the channel"),
                },
            },
            "subscribe" | "unsubscribe" | "presence" | "presence_stats" => json!({"channel": first}),
            _ => return Typed::Wrong(unknown(word)),
        };
        Typed::Send(self.command(word, parameters))
    }

    fn raw(&mut self, line: &str) -> Typed {
        match serde_json::from_str::<Map<String, Value>>(line) {
            Ok(command) => {
                if let Some(id) =
                    command.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok())
                {
                    self.last_id = self.last_id.max(id);
                    self.unanswered.insert(id);
                }
                Typed::Send(line.as_bytes().to_vec())
            }
            Err(error) => Typed::Wrong(format!("no JSON: {error}")),
        }
    }

    /// Notes what came; what is to be answered to it, if it is a sign of life.
    pub(super) fn received(&mut self, message: &str) -> Option<Vec<u8>> {
        let mut wants_pong = false;
        for line in message.lines().filter(|line| !line.is_empty()) {
            match serde_json::from_str::<Map<String, Value>>(line) {
                Ok(reply) if reply.is_empty() => wants_pong = true,
                Ok(reply) => {
                    let id = reply.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
                    if let Some(id) = id {
                        self.unanswered.remove(&id);
                    }
                }
                // Shown as it is; the dialect's own client would call it a breach.
                Err(_) => {}
            }
        }
        wants_pong.then(|| b"{}".to_vec())
    }
}

/// Reads and shows STOMP.
#[derive(Debug)]
pub(super) struct Stomp {
    version: Version,
    last_number: u32,
    unanswered: BTreeSet<String>,
    /// Ids of subscriptions by destination.
    subscriptions: Vec<(String, String)>,
    transaction: Option<String>,
}

impl Default for Stomp {
    fn default() -> Stomp {
        Stomp {
            version: Version::V12,
            last_number: 0,
            unanswered: BTreeSet::new(),
            subscriptions: Vec::new(),
            transaction: None,
        }
    }
}

/// Names and values of headers.
type Headers<'a> = Vec<(&'a str, String)>;

impl Stomp {
    /// The frame that logs in.
    pub(super) fn login(
        &mut self,
        host: &str,
        user: &str,
        passcode: &str,
        more: &[(String, String)],
    ) -> Vec<u8> {
        let mut headers: Headers<'_> = vec![
            ("accept-version", "1.0,1.1,1.2".to_owned()),
            ("host", host.to_owned()),
            // A person types seldom: nobody is to be called dead for it.
            ("heart-beat", "0,0".to_owned()),
        ];
        if !user.is_empty() || !passcode.is_empty() {
            headers.push(("login", user.to_owned()));
            headers.push(("passcode", passcode.to_owned()));
        }
        headers.extend(more.iter().map(|(name, value)| (name.as_str(), value.clone())));
        // CONNECT has no escapes in any version.
        encode(Version::V10, "CONNECT", &headers, "")
    }

    /// What is spoken.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Forgets what an earlier connection had.
    pub(super) fn reset(&mut self) {
        *self = Stomp { last_number: self.last_number, ..Stomp::default() };
    }

    /// Whether everything was answered.
    pub(super) fn is_idle(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// The frame that says goodbye.
    pub(super) fn goodbye(&mut self) -> Vec<u8> {
        self.frame("DISCONNECT", Vec::new(), "")
    }

    fn frame(&mut self, command: &str, mut headers: Headers<'_>, body: &str) -> Vec<u8> {
        self.last_number += 1;
        let receipt = format!("{}-{}", command.to_ascii_lowercase(), self.last_number);
        headers.push(("receipt", receipt.clone()));
        self.unanswered.insert(receipt);
        encode(self.version, command, &headers, body)
    }

    /// Reads a line.
    pub(super) fn typed(&mut self, line: &str) -> Typed {
        let line = line.trim();
        let (word, rest) = split_word(line);
        if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return self.raw(word, rest);
        }
        let (first, second) = split_word(rest);
        let needs = |what: &str| Typed::Wrong(format!("`{word}` needs {what}"));
        match word {
            "" => Typed::Nothing,
            "help" | "?" => Typed::Help,
            "subscribe" | "unsubscribe" | "send" | "publish" if first.is_empty() => needs("a destination"),
            "subscribe" => {
                let more = match headers(second) {
                    Ok(more) => more,
                    Err(wrong) => return Typed::Wrong(wrong),
                };
                let id = match more.iter().find(|(name, _)| *name == "id") {
                    Some((_, id)) => id.clone(),
                    None => format!("{}", self.last_number + 1),
                };
                let destination = destination(first);
                self.subscriptions.push((destination.clone(), id.clone()));
                let mut headers: Headers<'_> = vec![("id", id), ("destination", destination)];
                headers.extend(more.into_iter().filter(|(name, _)| *name != "id"));
                Typed::Send(self.frame("SUBSCRIBE", headers, ""))
            }
            "unsubscribe" => {
                let wanted = destination(first);
                match self.subscriptions.iter().position(|(to, _)| *to == wanted) {
                    Some(at) => {
                        let (_, id) = self.subscriptions.remove(at);
                        Typed::Send(self.frame("UNSUBSCRIBE", vec![("id", id)], ""))
                    }
                    None => Typed::Wrong(format!("not subscribed to {wanted}")),
                }
            }
            "send" | "publish" => {
                let mut headers: Headers<'_> = vec![("destination", destination(first))];
                headers.extend(self.transaction.clone().map(|name| ("transaction", name)));
                let is_json = serde_json::from_str::<&RawValue>(second).is_ok();
                let kind = if is_json { "application/json" } else { "text/plain" };
                headers.push(("content-type", kind.to_owned()));
                Typed::Send(self.frame("SEND", headers, second))
            }
            "ack" | "nack" if first.is_empty() => needs("the `ack` header of a MESSAGE"),
            "ack" | "nack" => {
                let mut headers: Headers<'_> = match self.version {
                    Version::V12 => vec![("id", first.to_owned())],
                    _ => vec![("message-id", first.to_owned())],
                };
                if self.version == Version::V11 {
                    let subscription = match (second, self.subscriptions.last()) {
                        ("", Some((_, id))) => id.clone(),
                        (said, _) => said.to_owned(),
                    };
                    headers.push(("subscription", subscription));
                }
                headers.extend(self.transaction.clone().map(|name| ("transaction", name)));
                Typed::Send(self.frame(&word.to_ascii_uppercase(), headers, ""))
            }
            "begin" if first.is_empty() => needs("a name"),
            "begin" => {
                self.transaction = Some(first.to_owned());
                Typed::Send(self.frame("BEGIN", vec![("transaction", first.to_owned())], ""))
            }
            "commit" | "abort" => match self.transaction.take() {
                Some(name) => {
                    Typed::Send(self.frame(&word.to_ascii_uppercase(), vec![("transaction", name)], ""))
                }
                None => Typed::Wrong("no transaction has begun".to_owned()),
            },
            _ => Typed::Wrong(unknown(word)),
        }
    }

    /// A frame that was typed as it stands.
    fn raw(&mut self, command: &str, rest: &str) -> Typed {
        let (head, body) = match rest.strip_prefix("| ").map(|body| ("", body)) {
            Some(parted) => parted,
            None => rest.split_once(" | ").unwrap_or((rest, "")),
        };
        match headers(head) {
            Ok(headers) => {
                if let Some((_, receipt)) = headers.iter().find(|(name, _)| *name == "receipt") {
                    self.unanswered.insert(receipt.clone());
                }
                let version = match command {
                    "CONNECT" => Version::V10,
                    _ => self.version,
                };
                Typed::Send(encode(version, command, &headers, body))
            }
            Err(wrong) => Typed::Wrong(wrong),
        }
    }

    /// Notes a frame that came; how it is shown.
    pub(super) fn received(&mut self, frame: &Frame<'_>) -> String {
        let version = match frame.command() {
            "CONNECTED" => Version::V10,
            _ => self.version,
        };
        let plain =
            |text: &str| unescape(version, text).map_or_else(|_| text.to_owned(), |text| text.into_owned());
        let mut shown = frame.command().to_owned();
        for (name, value) in frame.headers(version) {
            let (name, value) = (plain(name), plain(value));
            match (frame.command(), name.as_str()) {
                ("RECEIPT", "receipt-id") | ("ERROR", "receipt-id") => {
                    self.unanswered.remove(&value);
                }
                ("CONNECTED", "version") => {
                    self.version = match value.as_str() {
                        "1.0" => Version::V10,
                        "1.1" => Version::V11,
                        _ => Version::V12,
                    };
                }
                _ => {}
            }
            shown.push_str(&format!(" {name}:{}", quoted(&value)));
        }
        if frame.command() == "CONNECTED" && !frame.headers(version).any(|(name, _)| name == "version") {
            self.version = Version::V10;
        }
        if !frame.body.is_empty() {
            shown.push_str(" | ");
            shown.push_str(&String::from_utf8_lossy(&frame.body));
        }
        shown
    }
}

/// A frame that is sent, as it is shown.
pub(super) fn shown_frame(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches('\0');
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let mut shown = lines.next().unwrap_or_default().to_owned();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        // A login that is shown is a login that is read over somebody's shoulder.
        let value = if name == "passcode" { "***" } else { value };
        let value =
            unescape(Version::V12, value).map_or_else(|_| value.to_owned(), |value| value.into_owned());
        shown.push_str(&format!(" {name}:{}", quoted(&value)));
    }
    if !body.is_empty() {
        shown.push_str(" | ");
        shown.push_str(body);
    }
    shown
}

/// A command of the centrifuge dialect that is sent, as it is shown: without its token.
pub(super) fn shown_command(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let Ok(mut command) = serde_json::from_str::<Map<String, Value>>(&text) else { return text };
    let token = ["connect", "subscribe", "refresh", "sub_refresh"]
        .into_iter()
        .find(|method| command.get(*method).is_some_and(|parameters| parameters.get("token").is_some()));
    match token.and_then(|method| command.get_mut(method)?.as_object_mut()) {
        Some(parameters) => {
            parameters.insert("token".to_owned(), "***".into());
            Value::Object(command).to_string()
        }
        None => text,
    }
}

fn encode(version: Version, command: &str, headers: &[(&str, String)], body: &str) -> Vec<u8> {
    let mut frame = command.as_bytes().to_vec();
    frame.push(b'\n');
    for (name, value) in headers {
        write_header(version, name, value, &mut frame);
    }
    let says_length = headers.iter().any(|(name, _)| *name == "content-length");
    if !body.is_empty() && !says_length {
        write_header(version, "content-length", &body.len().to_string(), &mut frame);
    }
    frame.push(b'\n');
    frame.extend_from_slice(body.as_bytes());
    frame.push(0);
    frame
}

/// Reads `name:value name:"value with blanks"`.
fn headers(text: &str) -> Result<Headers<'_>, String> {
    let (mut found, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() {
        let wrong = || format!("`{rest}` is no name:value");
        let (name, behind) = rest.split_once(':').ok_or_else(wrong)?;
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or_else(wrong)?,
            None => split_word(behind),
        };
        found.push((name, value.to_owned()));
        rest = behind.trim_start();
    }
    Ok(found)
}

fn quoted(value: &str) -> String {
    match value.is_empty() || value.contains(char::is_whitespace) {
        true => format!("\"{value}\""),
        false => value.to_owned(),
    }
}

/// Data as JSON: itself if it is JSON, otherwise a JSON string.
fn data(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

fn unknown(word: &str) -> String {
    format!("no command `{word}`: `help` lists them")
}

/// The first word, and what follows it without the blanks between.
fn split_word(text: &str) -> (&str, &str) {
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire_protocol::stomp::Limits;
    use longwire_protocol::stomp::decode::{Bounds, Decoder};

    fn sent(typed: Typed) -> String {
        match typed {
            Typed::Send(bytes) => String::from_utf8(bytes).unwrap(),
            other => panic!("nothing is sent but {other:?}"),
        }
    }

    #[test]
    fn words_become_commands_of_the_centrifuge_dialect() {
        let mut dialect = Centrifuge::default();
        for (line, command) in [
            ("subscribe news", r#"{"id":1,"subscribe":{"channel":"news"}}"#),
            ("publish news {\"a\": 1}", r#"{"id":2,"publish":{"channel":"news","data":{"a":1}}}"#),
            ("publish news  two words ", r#"{"id":3,"publish":{"channel":"news","data":"two words"}}"#),
            ("history news 3", r#"{"history":{"channel":"news","limit":3},"id":4}"#),
            ("rpc sum [1,2]", r#"{"id":5,"rpc":{"data":[1,2],"method":"sum"}}"#),
            ("rpc sum", r#"{"id":6,"rpc":{"method":"sum"}}"#),
            ("send hello", r#"{"send":{"data":"hello"}}"#),
            ("ping", "{}"),
            ("{\"id\":40,\"presence\":{\"channel\":\"news\"}}", r#"{"id":40,"presence":{"channel":"news"}}"#),
            ("unsubscribe news", r#"{"id":41,"unsubscribe":{"channel":"news"}}"#),
        ] {
            let sent: Value = serde_json::from_str(&sent(dialect.typed(line))).unwrap();
            assert_eq!(sent, serde_json::from_str::<Value>(command).unwrap(), "{line}");
        }
        for line in ["publish", "publish news", "history news many", "dance", "{nonsense", "rpc"] {
            assert!(matches!(dialect.typed(line), Typed::Wrong(_)), "{line}");
        }
        assert_eq!(dialect.typed("  "), Typed::Nothing);
        assert_eq!(dialect.typed("help"), Typed::Help);
    }

    #[test]
    fn an_answer_is_waited_for_and_a_sign_of_life_is_answered() {
        let mut dialect = Centrifuge::default();
        assert!(dialect.is_idle());
        dialect.login(Some("T"));
        sent(dialect.typed("subscribe news"));
        assert_eq!(dialect.received("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{}}"), None);
        assert!(dialect.is_idle());
        sent(dialect.typed("ping"));
        assert!(dialect.is_idle(), "nothing answers a sign of life");
        assert_eq!(dialect.received("{}"), Some(b"{}".to_vec()));
        assert_eq!(dialect.received("not JSON"), None);
    }

    fn decoded(bytes: &[u8]) -> Frame<'_> {
        let mut input = bytes;
        Decoder::default().decode(&mut input, &Bounds::of(&Limits::default())).unwrap().unwrap()
    }

    #[test]
    fn words_become_frames_and_frames_are_shown_as_they_can_be_typed() {
        let mut dialect = Stomp::default();
        for (line, shown) in [
            ("subscribe news", "SUBSCRIBE id:1 destination:/topic/news receipt:subscribe-1"),
            (
                "subscribe /queue/x ack:client-individual selector:\"a > 1\"",
                "SUBSCRIBE id:2 destination:/queue/x ack:client-individual selector:\"a > 1\" receipt:subscribe-2",
            ),
            (
                "send /queue/x hello you",
                "SEND destination:/queue/x content-type:text/plain receipt:send-3 content-length:9 | hello you",
            ),
            ("begin t", "BEGIN transaction:t receipt:begin-4"),
            ("ack 7-1", "ACK id:7-1 transaction:t receipt:ack-5"),
            ("commit", "COMMIT transaction:t receipt:commit-6"),
            ("unsubscribe /queue/x", "UNSUBSCRIBE id:2 receipt:unsubscribe-7"),
            ("SEND destination:/topic/a:b | x | y", "SEND destination:/topic/a:b content-length:5 | x | y"),
            ("BEGIN transaction:a receipt:mine", "BEGIN transaction:a receipt:mine"),
        ] {
            let bytes = sent(dialect.typed(line)).into_bytes();
            assert_eq!(shown_frame(&bytes), shown, "{line}");
            let shown_as_received = Stomp::default().received(&decoded(&bytes));
            assert_eq!(shown_as_received, shown, "{line}");
        }
        for line in ["send", "ack", "commit", "unsubscribe /queue/x", "dance", "SEND destination"] {
            assert!(matches!(dialect.typed(line), Typed::Wrong(_)), "{line}");
        }
        assert!(!dialect.is_idle());
        dialect.reset();
        assert!(dialect.is_idle());
    }

    #[test]
    fn a_receipt_is_waited_for_and_the_version_is_the_servers() {
        let mut dialect = Stomp::default();
        let login = dialect.login("host", "ada", "secret", &[]);
        assert!(!shown_frame(&login).contains("secret"));
        assert!(String::from_utf8(login).unwrap().contains("\npasscode:secret\n"));
        dialect.received(&decoded(b"CONNECTED\nversion:1.1\n\n\0"));
        sent(dialect.typed("subscribe news"));
        let nack = sent(dialect.typed("nack 5"));
        assert!(nack.contains("message-id:5\nsubscription:1\n"), "{nack}");
        dialect.received(&decoded(b"RECEIPT\nreceipt-id:subscribe-1\n\n\0"));
        assert!(!dialect.is_idle());
        dialect.received(&decoded(b"RECEIPT\nreceipt-id:nack-2\n\n\0"));
        assert!(dialect.is_idle());
    }

    #[test]
    fn a_token_is_not_shown() {
        let mut dialect = Centrifuge::default();
        let login = dialect.login(Some("secret"));
        assert!(String::from_utf8(login.clone()).unwrap().contains("secret"));
        assert!(!shown_command(&login).contains("secret"));
        assert_eq!(shown_command(b"{\"id\": 2}"), "{\"id\": 2}");
    }
}
