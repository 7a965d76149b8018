//! Answers as backends write them, right and wrong.

use super::*;

fn raw<T>(body: &str, decode: impl FnOnce(Option<&RawValue>) -> Result<T, String>) -> Result<T, String> {
    match read(body.as_bytes(), decode) {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(refusal)) => Err(format!("{refusal:?}")),
        Err(problem) => Err(problem),
    }
}

fn refused(body: &str) -> Refusal {
    match read(body.as_bytes(), |_| Ok(())) {
        Ok(Err(refusal)) => refusal,
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn a_welcome_has_all_that_a_token_could_have() {
    let body = r#"{"result": {
        "user": "42", "expire_at": 1800000000, "info": {"name":
        "A"}, "b64data": "eyJhIjoxfQ==", "data": 7, "meta": {"tenant": 1},
        "channels": ["news", "chat:1"],
        "subs": {"chat:1": {"b64info": "MQ==", "data": {"d": 1}, "override": {"presence": {"value": true}}}},
        "caps": [], "labels": {}
    }}"#;
    let welcome = raw(body, |result| welcome(result, false)).unwrap().expect("credentials");
    assert_eq!((&*welcome.user, welcome.expires_at), ("42", Some(1_800_000_000)));
    assert_eq!((&welcome.data[..], &welcome.meta[..]), (&b"{\"a\":1}"[..], &b"{\"tenant\": 1}"[..]));
    assert!(
        !welcome.info.contains(&b'\n') && serde_json::from_slice::<serde_json::Value>(&welcome.info).is_ok()
    );
    let overrides = Overrides { presence: Some(true), ..Overrides::default() };
    let chat = ServerSubscription { info: "1".into(), data: r#"{"d": 1}"#.into(), overrides };
    let news = ServerSubscription::default();
    assert_eq!(welcome.channels, [("chat:1".to_owned(), chat), ("news".to_owned(), news)]);
}

#[test]
fn without_a_result_there_are_no_credentials_but_an_empty_one_is_the_anonymous_user() {
    for none in ["{}", r#"{"result":null}"#, r#"{"other":1}"#, "[]"] {
        assert_eq!(raw(none, |result| welcome(result, false)), Ok(None), "{none}");
    }
    for anonymous in
        [r#"{"result":{}}"#, r#"{"result":[]}"#, r#"{"result":{"user":null,"subs":[],"expire_at":0}}"#]
    {
        let welcome = raw(anonymous, |result| welcome(result, false)).unwrap().expect("credentials");
        assert_eq!((&*welcome.user, welcome.expires_at), ("", None), "{anonymous}");
    }
}

#[test]
fn a_disconnect_comes_before_an_error_and_an_error_before_a_result() {
    let error = r#""error":{"code":1000,"message":"no","temporary":true}"#;
    let disconnect = r#""disconnect":{"code":4501,"reason":"unauthorized"}"#;
    let expected = ReplyError { code: 1000, message: "no".into(), temporary: true };
    assert_eq!(refused(&format!("{{{error},\"result\":{{}}}}")), Refusal::Error(expected));
    let close = Close::custom(CloseReason::ForceDisconnect, 4501, "unauthorized".to_owned());
    assert_eq!(refused(&format!("{{\"result\":{{}},{error},{disconnect}}}")), Refusal::Close(close));
}

#[test]
fn codes_that_clients_know_or_that_are_free_pass_and_others_are_refused() {
    for code in [100, 103, 109, 400, 1999] {
        let Refusal::Error(error) = refused(&format!(r#"{{"error":{{"code":{code}}}}}"#)) else {
            panic!("{code}")
        };
        assert_eq!(error.code, code);
        assert_eq!(error.message.is_empty(), code >= 400, "{code}: what is known has a text");
    }
    for code in [3000, 3014, 3500, 3507, 4000, 4999] {
        let Refusal::Close(close) = refused(&format!(r#"{{"disconnect":{{"code":{code}}}}}"#)) else {
            panic!()
        };
        assert_eq!(close.code, code);
    }
    for body in [
        r#"{"error":{"code":0}}"#,
        r#"{"error":{}}"#,
        r#"{"error":{"code":99}}"#,
        r#"{"error":{"code":399}}"#,
        r#"{"error":{"code":2000}}"#,
        r#"{"error":{"code":-1}}"#,
        r#"{"error":{"code":4294967696}}"#,
        r#"{"disconnect":{"code":1000}}"#,
        r#"{"disconnect":{"code":2999}}"#,
        r#"{"disconnect":{"code":3999}}"#,
        r#"{"disconnect":{"code":5000}}"#,
        r#"{"disconnect":{"code":69536}}"#,
        r#"{"disconnect":{"code":4000,"reason":"{\"reconnect\":true}"}}"#,
    ] {
        assert!(read(body.as_bytes(), |_| Ok(())).is_err(), "{body}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let decode = |result: Option<&RawValue>| welcome(result, false).map(drop);
    for (body, parts) in [
        ("", &["no JSON", "EOF"][..]),
        ("<br />\n<b>Warning</b>: x", &["no JSON", "column 1", "it begins \"<br />\\n<b>Warning</b>"]),
        ("{\"result\":{\"user\":\"42\"}", &["no JSON", "line 1 column"]),
        ("42", &["the answer", "integer"]),
        ("[1]", &["the answer", "is a list"]),
        (r#"{"result":["42"]}"#, &["result", "is a list"]),
        (r#"{"result":{"user":42}}"#, &["result", "invalid type: integer `42`, expected a string", "column"]),
        (r#"{"result":{"subs":{"a":{"override":["x"]}}}}"#, &["result.subs[\"a\"]", "override", "is a list"]),
        (r#"{"result":{"subs":["a"]}}"#, &["result.subs", "is a list"]),
        (r#"{"result":{"b64info":"?"}}"#, &["b64info", "no base64"]),
        (r#"{"result":{"b64data":"/w=="}}"#, &["b64data", "no JSON"]),
        (r#"{"error":"no"}"#, &["error", "invalid type: string"]),
    ] {
        let problem = raw(body, decode).expect_err(body);
        assert!(parts.iter().all(|part| problem.contains(part)), "{body}: {problem}");
    }
    let problem = raw(&"x".repeat(10_000), decode).expect_err("no JSON");
    assert!(problem.len() < 300, "{problem}");
    assert!(read(b"{\"result\":\xff}", |_| Ok(())).expect_err("no UTF-8").contains("UTF-8"));
}

#[test]
fn only_who_speaks_protobuf_is_given_what_is_no_json() {
    let body = r#"{"result":{"b64data":"/w=="}}"#;
    assert!(raw(body, |result| rpc(result, false)).is_err());
    assert_eq!(raw(body, |result| rpc(result, true)), Ok(Bytes::from_static(b"\xff")));
}

#[test]
fn a_renewal_says_until_when_and_what_changed() {
    for expired in ["{}", r#"{"result":null}"#, r#"{"result":{"expired":true,"expire_at":1800000000}}"#] {
        assert_eq!(raw(expired, renewal), Ok(Renewal::Expired), "{expired}");
    }
    let changed = raw(r#"{"result":{"expire_at":1800000000,"info":1,"meta":{}}}"#, renewal);
    let until = |expires_at, info: Option<&'static str>, meta: Option<&'static str>| {
        Ok(Renewal::Until { expires_at, info: info.map(Bytes::from), meta: meta.map(Bytes::from) })
    };
    assert_eq!(changed, until(Some(1_800_000_000), Some("1"), Some("{}")));
    assert_eq!(raw(r#"{"result":{}}"#, renewal), until(None, None, None));
}

#[test]
fn a_publication_may_be_changed_in_every_way() {
    assert_eq!(raw("{}", |result| published(result, false)), Ok(Published::default()));
    let body = r#"{"result":{"data":{"a":1},"skip_history":true,"tags":{"b":"2","a":"1"},"idempotency_key":"k",
        "delta":true,"version":7,"version_epoch":"e"}}"#;
    let expected = Published {
        data: Some(r#"{"a":1}"#.into()),
        skip_history: true,
        tags: vec![("a".into(), "1".into()), ("b".into(), "2".into())],
        idempotency_key: "k".into(),
        delta: true,
        version: 7,
        version_epoch: "e".into(),
    };
    assert_eq!(raw(body, |result| published(result, false)), Ok(expected));
}

proptest::proptest! {
    #[test]
    fn no_answer_makes_a_reader_panic_or_break_a_frame(
        start in proptest::sample::select(vec!["", "{\"result\":", "{\"error\":", "{\"disconnect\":", "[", "{"]),
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60),
        text in "[{}\\[\\]\":,a-z0-9\n ]{0,60}",
    ) {
        for body in [[start.as_bytes(), &bytes].concat(), format!("{start}{text}}}").into_bytes()] {
            for may_be_binary in [false, true] {
                let _ = read(&body, |result| welcome(result, may_be_binary));
                let _ = read(&body, |result| admission(result, may_be_binary));
                let _ = read(&body, |result| published(result, may_be_binary));
                if let Ok(Ok(data)) = read(&body, |result| rpc(result, false)) {
                    proptest::prop_assert!(!data.contains(&b'\n'));
                }
            }
            let _ = read(&body, renewal);
        }
    }
}
