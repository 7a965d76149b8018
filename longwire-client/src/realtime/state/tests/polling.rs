//! The last rung: long-poll.

use super::*;
use crate::error::Error;
use crate::realtime::event::Position;
use std::collections::BTreeMap;

/// The server's end of long-polls.
struct Poller {
    state: State,
    now: Instant,
    line: Option<Line>,
    /// The target of the request that is not answered.
    asked: Option<String>,
}

impl Poller {
    fn new(settings: Settings) -> Poller {
        let now = Instant::now();
        let mut poller = Poller { state: State::new(settings).unwrap(), now, line: None, asked: None };
        poller.state.start(now);
        poller.pump();
        poller
    }

    fn pump(&mut self) {
        while let Some(output) = self.state.poll_output() {
            match output {
                Output::Dial { line, .. } => {
                    self.line = Some(line);
                    self.state.handle_dialled(self.now, line, Ok(()));
                }
                Output::Transmit { line, bytes } => {
                    let text = String::from_utf8(bytes.to_vec()).unwrap();
                    let target = text.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).unwrap();
                    assert!(self.asked.replace(target.to_owned()).is_none(), "one request at a time");
                    self.state.handle_unwritten(self.now, line, 0);
                }
                Output::Close { .. } => self.line = None,
            }
        }
    }

    /// What the request says, each parameter once but for the channels.
    fn request(&mut self) -> BTreeMap<String, String> {
        let target = self.asked.as_ref().expect("a request");
        let (path, query) = target.split_once('?').unwrap();
        assert_eq!(path, "/poll");
        let mut request = BTreeMap::new();
        for (name, value) in longwire_protocol::http::query_pairs(query) {
            let all: &mut String = request.entry(name.into_owned()).or_default();
            if !all.is_empty() {
                all.push(' ');
            }
            all.push_str(&value);
        }
        request
    }

    fn answer(&mut self, answer: Value) {
        self.asked.take().expect("a request");
        let text = answer.to_string();
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        self.state.handle_bytes(self.now, self.line.unwrap(), response.as_bytes());
        self.pump();
    }

    fn answer_nothing(&mut self) {
        self.asked.take().expect("a request");
        self.state.handle_bytes(self.now, self.line.unwrap(), b"HTTP/1.1 204 No Content\r\n\r\n");
        self.pump();
    }

    /// Does what is due until it asks.
    fn come_back(&mut self) {
        while self.asked.is_none() {
            self.now = self.state.poll_timeout().expect("it comes back");
            self.state.handle_timeout(self.now);
            self.pump();
        }
    }

    fn subscribe(&mut self, channel: &str, since: Option<Position>) -> Reader<Event> {
        let settings = SubscriptionSettings { since, ..Default::default() };
        let (_, reader) = self.state.subscribe(self.now, &Arc::from(channel), settings).unwrap();
        self.pump();
        reader
    }
}

fn poll_settings() -> Settings {
    let options = Options { seed: Some(7), ..Options::default() };
    Settings { token: "secret".to_owned(), options, ..Settings::new(&["poll+http://server"]).unwrap() }
}

fn publication(offset: u64) -> Value {
    json!({"channel": "news", "data": offset, "offset": offset, "id": format!("news={offset}.abcdefgh")})
}

#[test]
fn polls_go_on_from_where_the_last_answer_stood() {
    let mut poller = Poller::new(poll_settings());
    assert_eq!(poller.request()["token"], "secret");
    assert!(!poller.request().contains_key("channel"));
    poller.answer(
        json!({"client": "me", "session": "s1", "name": "p1", "since": "=1.kwmzqpfa", "publications": []}),
    );
    assert!(poller.state.is_connected());

    let mut reader = poller.subscribe("news", None);
    poller.answer_nothing();
    let request = poller.request();
    assert_eq!(
        (
            &*request["channel"],
            &*request["since"],
            &*request["session"],
            &*request["client"],
            &*request["wait"]
        ),
        ("news", "=1.kwmzqpfa", "s1", "p1", "1")
    );
    poller.answer(json!({"client": "me", "session": "s2", "resumed": true, "recovered": false, "name": "p1",
        "since": "news=5.abcdefgh,=2.kwmzqpfa", "publications": []}));
    assert_eq!(heard(&mut reader), ["subscribed again=false"]);
    let request = poller.request();
    assert_eq!(
        (&*request["since"], &*request["session"], &*request["wait"]),
        ("news=5.abcdefgh,=2.kwmzqpfa", "s2", "10")
    );
    poller.answer(json!({"client": "me", "session": "s3", "resumed": true, "recovered": true, "name": "p1",
        "since": "news=7.abcdefgh,=3.kwmzqpfa", "publications": [publication(6), publication(7)]}));
    assert_eq!(heard(&mut reader), ["6", "7"]);
    // The server lost the history: everybody is told.
    poller.answer(json!({"client": "me", "session": "s4", "recovered": false, "name": "p1",
        "since": "news=2.zzzzzzzz,=1.kwmzqpfa", "publications": []}));
    assert_eq!(heard(&mut reader), ["subscribed again=true", "lost 7.abcdefgh to 2.zzzzzzzz"]);
}

#[test]
fn a_broken_poll_is_gone_on_with_by_another() {
    let mut poller = Poller::new(poll_settings());
    poller.answer(
        json!({"client": "me", "session": "s1", "name": "p1", "since": "=1.kwmzqpfa", "publications": []}),
    );
    let since = Position { offset: 3, epoch: "abcdefgh".into() };
    let mut reader = poller.subscribe("news", Some(since));
    poller.answer(json!({"client": "me", "session": "s1", "recovered": true, "name": "p1",
        "since": "=2.kwmzqpfa", "publications": []}));
    poller.answer(json!({"client": "me", "session": "s1", "recovered": true, "name": "p1",
        "since": "news=4.abcdefgh,=3.kwmzqpfa", "publications": [publication(4)]}));
    assert_eq!(heard(&mut reader), ["subscribed again=false", "recovered 1", "4"]);
    let line = poller.line.take().unwrap();
    poller.asked = None;
    poller.state.handle_end(poller.now, line, End::Reset);
    // The line was used: the request is repeated on another before anything counts as lost.
    poller.pump();
    assert_eq!(poller.request()["since"], "news=4.abcdefgh,=3.kwmzqpfa");
    let line = poller.line.take().unwrap();
    poller.asked = None;
    poller.state.handle_end(poller.now, line, End::Reset);
    poller.come_back();
    assert_eq!(poller.request()["since"], "news=4.abcdefgh,=3.kwmzqpfa");
    poller.answer(json!({"client": "me", "session": "s2", "resumed": true, "recovered": true, "name": "p1",
        "since": "news=6.abcdefgh,=4.kwmzqpfa", "publications": [publication(5), publication(6)]}));
    assert_eq!(heard(&mut reader), ["subscribed again=true", "recovered 2", "5", "6"]);
}

#[test]
fn calls_are_refused_and_a_reader_who_is_behind_is_not_asked_for() {
    let mut few = poll_settings();
    few.options.max_buffered = 2;
    let mut poller = Poller::new(few);
    let mut tickets = [poller.state.publish("news", b"1", false).unwrap(), poller.state.send(b"{}").unwrap()];
    let mut cx = Context::from_waker(Waker::noop());
    for ticket in &mut tickets {
        assert!(poller.state.poll_call(poller.now, ticket, &mut cx).is_pending());
    }
    let mut reader = poller.subscribe("news", None);
    poller.answer(
        json!({"client": "me", "session": "s1", "name": "p1", "since": "=1.kwmzqpfa", "publications": []}),
    );
    for ticket in &mut tickets {
        let refused = Err(Error::NotAvailable { transport: "poll" });
        assert_eq!(poller.state.poll_call(poller.now, ticket, &mut cx), Poll::Ready(refused));
    }
    poller.answer(json!({"client": "me", "session": "s1", "recovered": true, "name": "p1",
        "since": "news=1.abcdefgh,=2.kwmzqpfa", "publications": [publication(1)]}));
    assert_eq!(poller.asked, None);
    assert_eq!(heard(&mut reader), ["subscribed again=false", "1"]);
    assert!(reader.take_resumes());
    poller.state.resume(poller.now);
    poller.pump();
    assert_eq!(poller.request()["since"], "news=1.abcdefgh,=2.kwmzqpfa");
}

#[test]
fn a_poll_that_is_refused_for_its_token_asks_the_source_for_another() {
    let settings = Settings { token_source: source(), ..poll_settings() };
    let mut poller = Poller::new(settings);
    poller.answer(
        json!({"client": "me", "session": "s1", "name": "p1", "since": "=1.kwmzqpfa", "publications": []}),
    );
    poller.asked.take().expect("a request");
    let refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
    poller.state.handle_bytes(poller.now, poller.line.unwrap(), refusal);
    poller.pump();
    let mut cx = Context::from_waker(Waker::noop());
    let request = loop {
        if let Poll::Ready(request) = poller.state.poll_token_request(&mut cx) {
            break request.expect("the client goes on");
        }
        poller.now = poller.state.poll_timeout().expect("it comes back");
        poller.state.handle_timeout(poller.now);
        poller.pump();
    };
    poller.state.handle_token(poller.now, &request.subject, Ok("another".to_owned()));
    poller.pump();
    poller.come_back();
    assert_eq!(poller.request()["token"], "another");
}

#[test]
fn a_reader_who_is_behind_keeps_nobody_from_coming_back() {
    let mut few = poll_settings();
    few.options.max_buffered = 2;
    let mut poller = Poller::new(few);
    let mut reader = poller.subscribe("news", None);
    poller.answer(
        json!({"client": "me", "session": "s1", "name": "p1", "since": "=1.kwmzqpfa", "publications": []}),
    );
    let goodbye = json!({"type": "disconnect", "code": 3001, "reason": "shutdown", "reconnect": true});
    poller.answer(json!({"client": "me", "session": "s1", "recovered": true, "name": "p1",
        "since": "news=1.abcdefgh,=2.kwmzqpfa", "publications": [publication(1), goodbye]}));
    assert!(!poller.state.is_connected());
    poller.come_back();
    assert_eq!(poller.request()["wait"], "1");
    poller.answer_nothing();
    assert!(poller.state.is_connected());
    assert_eq!(poller.asked, None, "the reader is behind");
    assert_eq!(heard(&mut reader)[..2], ["subscribed again=false", "1"]);
}
