//! Who may do what where: the options of channels, names that name users, private channels.

use crate::harness::{Raw, TestServer, open_channel, remembering_channel};
use longwire::config::ChannelOptions;
use serde_json::{Value, json};

const DENIED: &str = r#"{"id":9,"error":{"code":103,"message":"permission denied"}}"#;

/// Whether a command is answered with its result, rather than with 103; anything else is a failure.
#[track_caller]
fn may(raw: &mut Raw, command: &str, channel: &str) -> bool {
    let mut body = json!({"channel": channel});
    if command == "publish" {
        body["data"] = 1.into();
    }
    raw.send(&json!({"id": 9, command: body}).to_string());
    loop {
        let line = raw.line();
        // What was published is heard by a subscriber, too.
        if line.starts_with(r#"{"push""#) {
            continue;
        }
        let reply: Value = serde_json::from_str(&line).expect("JSON");
        if reply.get(command).is_some() {
            return true;
        }
        assert_eq!(line, DENIED, "{command} {channel}");
        return false;
    }
}

#[test]
fn the_options_of_a_channel_decide_who_may_do_what() {
    const FLAGS: [(bool, bool, bool); 8] = [
        (false, false, false),
        (false, false, true),
        (false, true, false),
        (false, true, true),
        (true, false, false),
        (true, false, true),
        (true, true, false),
        (true, true, true),
    ];
    let name = |(client, subscriber, anonymous): (bool, bool, bool)| {
        format!("r{}{}{}", u8::from(client), u8::from(subscriber), u8::from(anonymous))
    };
    let server = TestServer::with(|config| {
        for flags @ (client, subscriber, anonymous) in FLAGS {
            let options = ChannelOptions {
                presence: true,
                allow_subscribe_for_client: true,
                allow_subscribe_for_anonymous: true,
                allow_publish_for_client: client,
                allow_publish_for_subscriber: subscriber,
                allow_publish_for_anonymous: anonymous,
                allow_presence_for_client: client,
                allow_presence_for_subscriber: subscriber,
                allow_presence_for_anonymous: anonymous,
                allow_history_for_client: client,
                allow_history_for_subscriber: subscriber,
                allow_history_for_anonymous: anonymous,
                ..remembering_channel(10)
            };
            config.namespaces.insert(name(flags), options);
            let options = ChannelOptions {
                allow_subscribe_for_client: client,
                allow_subscribe_for_anonymous: anonymous,
                ..ChannelOptions::default()
            };
            config.namespaces.insert(format!("s{}", name(flags)), options);
        }
    });
    for user in ["", "42"] {
        let mut raw = if user.is_empty() { server.connect() } else { server.connect_as(user) };
        for flags @ (client, subscriber, anonymous) in FLAGS {
            let is_right_person = anonymous || !user.is_empty();
            let channel = format!("s{}:a", name(flags));
            assert_eq!(may(&mut raw, "subscribe", &channel), client && is_right_person, "{channel} {user:?}");
            let channel = format!("{}:a", name(flags));
            for is_subscriber in [false, true] {
                if is_subscriber {
                    assert!(may(&mut raw, "subscribe", &channel));
                }
                let expected = (client || subscriber && is_subscriber) && is_right_person;
                for command in ["publish", "presence", "presence_stats", "history"] {
                    assert_eq!(
                        may(&mut raw, command, &channel),
                        expected,
                        "{command} {channel} {user:?}, subscribed: {is_subscriber}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_namespace_inherits_nothing() {
    let server = TestServer::with(|config| {
        config.namespaces.insert("bare".to_owned(), ChannelOptions::default());
    });
    let mut raw = server.connect_as("42");
    for command in ["publish", "subscribe"] {
        assert!(!may(&mut raw, command, "bare:a"), "{command}");
        assert!(may(&mut raw, command, "a"), "{command}");
    }
    for command in ["presence", "history"] {
        let reply = raw.ask(&json!({"id": 9, command: {"channel": "bare:a"}}).to_string());
        assert_eq!(reply, r#"{"id":9,"error":{"code":108,"message":"not available"}}"#, "{command}");
    }
}

#[test]
fn the_users_in_a_channels_name_and_nobody_else_may_subscribe() {
    let server = TestServer::with(|config| {
        let rooms = ChannelOptions { allow_user_limited_channels: true, ..ChannelOptions::default() };
        config.namespaces.insert("rooms".to_owned(), rooms);
        config.namespaces.insert("bare".to_owned(), ChannelOptions::default());
        let open = ChannelOptions { allow_user_limited_channels: true, ..open_channel() };
        config.namespaces.insert("open".to_owned(), open);
    });
    for (channel, user, expected) in [
        ("rooms:a#42", "42", true),
        ("rooms:a#7,42", "42", true),
        ("rooms:a#42,7", "42", true),
        ("rooms:a#7,8#42", "42", true),
        ("rooms:a#42#7", "42", false),
        ("rooms:a#7", "42", false),
        ("rooms:a#4", "42", false),
        ("rooms:a#421", "42", false),
        ("rooms:a#", "42", false),
        ("rooms:a#", "", false),
        ("rooms:a#,", "", false),
        ("rooms:a#42", "", false),
        ("rooms:a", "42", false),
        // Everybody else stays out even where everybody may subscribe.
        ("open:a#7", "42", false),
        ("open:a#42", "42", true),
        // Without the option the sign means nothing.
        ("bare:a#42", "42", false),
        ("a#7", "42", true),
    ] {
        let mut raw = if user.is_empty() { server.connect() } else { server.connect_as(user) };
        assert_eq!(may(&mut raw, "subscribe", channel), expected, "{channel} {user:?}");
    }
}

#[test]
fn the_insecure_mode_allows_everything_and_takes_any_token() {
    let server = TestServer::with(|config| {
        config.client.allow_anonymous = false;
        config.client.insecure = true;
        let closed = ChannelOptions {
            presence: true,
            history_size: 1,
            history_ttl: std::time::Duration::from_secs(60),
            ..ChannelOptions::default()
        };
        config.namespaces.insert("closed".to_owned(), closed);
    });
    let mut raw = server.connect_with("nonsense");
    for channel in ["closed:a", "$closed:b", "closed:c#7"] {
        for command in ["subscribe", "publish", "presence", "presence_stats", "history"] {
            assert!(may(&mut raw, command, channel), "{command} {channel}");
        }
    }
    let reply = raw.ask_value(&json!({"id": 9, "subscribe": {"channel": "closed:d", "token": "nonsense"}}));
    assert_eq!(reply, json!({"id": 9, "subscribe": {}}));
}
