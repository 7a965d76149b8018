//! `longwire check --centrifugo` as a user runs it, with configurations as users have them.
//!
//! The files beside this one, in `centrifugo/`, are the configurations and what becomes of them: `NAME.json`,
//! `NAME.toml` and, in `NAME.txt`, what is said on standard error. After a change to the mapping, run the test
//! with `LONGWIRE_WRITE_EXPECTED=1` and read the difference. What must stay true: longwire accepts each file that
//! is printed, and nothing secret is on standard error.

use crate::harness::longwire;
use std::path::{Path, PathBuf};
use std::process::Output;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/centrifugo")
}

fn check(file: &Path, more: &[&str]) -> (i32, String, String) {
    let arguments = [&["check", "--centrifugo", file.to_str().expect("UTF-8")], more].concat();
    let Output { status, stdout, stderr } = longwire(&arguments).output().expect("it was built");
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    (status.code().expect("it ended by itself"), text(stdout), text(stderr))
}

fn given(text: &str, name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(name);
    std::fs::write(&file, text).expect("written");
    (folder, file)
}

#[track_caller]
fn is_as_expected(name: &str, code: i32) -> (String, String) {
    let file = folder().join(name).with_extension("json");
    let (ended, stdout, stderr) = check(&file, &[]);
    // Messages name the file as it was given.
    let stderr = stderr.replace(file.to_str().expect("UTF-8"), &format!("{name}.json"));
    for (extension, text) in [("toml", &stdout), ("txt", &stderr)] {
        let expected = folder().join(name).with_extension(extension);
        if std::env::var_os("LONGWIRE_WRITE_EXPECTED").is_some() {
            std::fs::write(&expected, text).expect("written");
        }
        let expected = std::fs::read_to_string(expected).expect("it is there");
        assert!(*text == expected, "{name}.{extension} differs: {text}");
    }
    assert_eq!(ended, code, "{stderr}");
    (stdout, stderr)
}

/// What longwire itself says about a file that was made.
#[track_caller]
fn loads(toml: &str) {
    let (_folder, file) = given(toml, "longwire.toml");
    let output =
        longwire(&["check", "--config", file.to_str().expect("UTF-8")]).output().expect("it was built");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_small_configuration_has_a_counterpart_in_everything() {
    let (stdout, stderr) = is_as_expected("minimal", 0);
    loads(&stdout);
    assert!(stdout.contains("hmac_secret = \"bbe7d157-a253-4094-9759-06a8236543f9\""), "{stdout}");
    assert!(!stderr.contains("bbe7d157") && !stderr.contains("d7627bb6"), "{stderr}");
}

#[test]
fn a_configuration_beside_laravel_keeps_its_namespaces_and_names_what_is_missing() {
    let (stdout, stderr) = is_as_expected("laravel", 3);
    loads(&stdout);
    for option in ["engine.type", "admin", "client.allowed_origins", "proxies[prices].endpoint", "chanel"] {
        assert!(stderr.contains(&format!("`{option}`")), "{option} is not in\n{stderr}");
    }
    // Its backend, which is asked over gRPC, cannot decide any more: then nobody may.
    let rates = stdout.split("[namespaces.rates]").nth(1).expect("the namespace is there");
    assert!(!rates.contains("allow_subscribe_for_client"), "{rates}");
    for secret in ["password", "Laravel", "what the backend expects"] {
        assert!(!stderr.contains(secret), "{stderr}");
    }
}

#[test]
fn every_section_of_centrifugo_is_known() {
    let (stdout, stderr) = is_as_expected("everything", 3);
    loads(&stdout);
    assert!(!stderr.contains("is no option of Centrifugo"), "{stderr}");
    assert!(!stderr.contains("hidden"), "{stderr}");
}

#[test]
fn what_was_closed_stays_closed() {
    // What is left out, and what stays as it is.
    for (name, code, without, with) in [
        ("internal_port", 3, &["api.insecure"][..], &["api.key"][..]),
        ("client_certificates", 3, &["api.insecure", "client.allow_anonymous"], &["api.enabled"]),
        ("api_off", 0, &[], &["api.enabled", "api.key"]),
        (
            "previous_secret",
            3,
            &["auth.hmac_previous_secret"],
            &["auth.hmac_secret", "subscription_auth.hmac_previous_secret"],
        ),
        (
            "channel_signs",
            3,
            &[
                "channel.allow_subscribe_for_client",
                "namespaces.dialog.allow_user_limited_channels",
                "namespaces.dialog.allow_publish_for_subscriber",
                "namespaces.asked.subscribe_webhook",
                "namespaces.asked.allow_history_for_client",
            ],
            &["channel.presence", "webhook.subscribe.endpoint"],
        ),
        (
            "channel_regex",
            3,
            &[
                "namespaces.narrow.allow_subscribe_for_client",
                "namespaces.narrow.allow_publish_for_subscriber",
                "namespaces.narrow.allow_presence_for_client",
                "namespaces.board.allow_subscribe_for_client",
            ],
            &["channel.allow_subscribe_for_client", "namespaces.narrow.presence"],
        ),
        ("connect_over_grpc", 3, &["client.allow_anonymous", "client.insecure", "webhook"], &[]),
        (
            "endpoints_with_passwords",
            3,
            &[
                "client.allow_anonymous",
                "webhook.connect.endpoint",
                "webhooks.rooms.endpoint",
                "namespaces.room.subscribe_webhook",
                "namespaces.room.allow_subscribe_for_client",
            ],
            &["namespaces.room.allow_publish_for_subscriber"],
        ),
        ("anonymous_tokens", 0, &[], &["client.allow_anonymous_tokens", "auth.hmac_secret"]),
        ("subscription_keys", 3, &["subscription_auth.enabled", "auth.hmac_secret"], &[]),
        ("method_sign", 3, &["webhook", "rpc_namespaces"], &[]),
    ] {
        let (stdout, stderr) = is_as_expected(&format!("closed/{name}"), code);
        loads(&stdout);
        assert!(!stderr.contains("hidden") && !stderr.contains("secret of"), "{stderr}");
        let made = toml::Value::Table(stdout.parse().expect("TOML"));
        let is_there = |path: &str| path.split('.').try_fold(&made, |value, key| value.get(key)).is_some();
        for (paths, expected) in [(without, false), (with, true)] {
            for path in paths {
                assert_eq!(is_there(path), expected, "{name}: {path}\n{stdout}");
            }
        }
    }
}

#[test]
fn pages_that_centrifugo_did_not_serve_are_not_served() {
    for (origins, expected) in [
        ("[]", Some("https://no-page.invalid")),
        (r#"["https://*.example.com"]"#, Some("https://no-page.invalid")),
        (r#"["https://app.example.com", "https://*.example.com"]"#, Some("https://app.example.com")),
        (r#"["*"]"#, None),
    ] {
        let text = format!("{{\"client\": {{\"allowed_origins\": {origins}}}}}");
        let (_folder, file) = given(&text, "config.json");
        let (_, stdout, _) = check(&file, &[]);
        loads(&stdout);
        let made: toml::Table = stdout.parse().expect("TOML");
        let origins = made["server"].get("allowed_origins").and_then(toml::Value::as_array);
        let origins: Option<Vec<_>> =
            origins.map(|list| list.iter().filter_map(toml::Value::as_str).collect());
        assert_eq!(origins, expected.map(|origin| vec![origin]), "{text}");
    }
}

#[test]
fn toml_means_what_json_means() {
    let json = std::fs::read_to_string(folder().join("minimal.json")).expect("it is there");
    let value: toml::Table = serde_json::from_str(&json).expect("a table");
    let (_folder, file) = given(&value.to_string(), "minimal.toml");
    let (code, stdout, _) = check(&file, &[]);
    assert_eq!(code, 0);
    let expected = std::fs::read_to_string(folder().join("minimal.toml")).expect("it is there");
    let settings = |text: &str| text.parse::<toml::Table>().expect("TOML");
    assert_eq!(settings(&stdout), settings(&expected));
}

#[test]
fn what_was_made_is_written_where_it_is_wanted() {
    let (folder_of_it, _) = given("", "x");
    let out = folder_of_it.path().join("longwire.toml");
    let (code, stdout, stderr) =
        check(&folder().join("minimal.json"), &["--out", out.to_str().expect("UTF-8")]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    let written = std::fs::read_to_string(&out).expect("it was written");
    assert_eq!(written, std::fs::read_to_string(folder().join("minimal.toml")).expect("it is there"));
}

#[test]
fn a_typo_is_named_with_its_full_path_and_what_is_nearest() {
    let (_folder, file) = given(
        "{\"client\": {\n\"chanel_limit\": 1},\n\"channel\": {\"namespaces\": [\n{\"name\": \"chat\", \"precense\": true}]}}",
        "config.json",
    );
    let (code, _, stderr) = check(&file, &[]);
    assert_eq!(code, 3);
    for line in [
        "line 2: `client.chanel_limit` is no option of Centrifugo v6; did you mean `channel_limit`?",
        "line 4: `channel.namespaces[chat].precense` is no option of Centrifugo v6; did you mean `presence`?",
    ] {
        assert!(stderr.contains(line), "{line} is not in\n{stderr}");
    }
    let (_folder, file) = given("{\"token_hmac_secret_key\": \"x\", \"api_key\": \"y\"}", "config.json");
    assert!(
        check(&file, &[]).2.contains("`api_key` is no option of Centrifugo v6; it is one of Centrifugo v5")
    );
}

#[test]
fn what_cannot_be_read_is_named_with_line_and_column() {
    for (name, text, code, expected) in [
        ("config.json", "{\n  \"client\": {,}\n}", 1, "config.json line 2 column 14: this is not JSON"),
        (
            "config.json",
            "{\n  \"client\": {\"channel_limit\": \"many\"}\n}",
            1,
            "config.json line 2 column 31: `client.channel_limit` must be a number from 0",
        ),
        (
            "config.json",
            "{\"channel\": {\"namespaces\": [{}]}}",
            1,
            "line 1 column 29: `channel.namespaces` has an item without a `name`",
        ),
        (
            "config.json",
            "{\"channel\": {\"without_namespace\": {\"subscribe_proxy_enabled\": true}}}",
            1,
            "asks a proxy that has no endpoint",
        ),
        (
            "config.json",
            "{\"client\": {\"proxy\": {\"connect\": {\"enabled\": true}}}}",
            1,
            "`client.proxy.connect` is enabled and has no endpoint",
        ),
        ("config.toml", "[client]\nx = \n", 1, "config.toml line 2 column"),
        ("config.yaml", "client: {}\n", 2, "YAML is not read: convert it to JSON first"),
    ] {
        let (_folder, file) = given(text, name);
        let (ended, stdout, stderr) = check(&file, &[]);
        assert_eq!((ended, stdout.as_str()), (code, ""), "{text}: {stderr}");
        assert!(stderr.contains(expected), "{expected} is not in\n{stderr}");
    }
    assert_eq!(check(Path::new("/no/such/config.json"), &[]).0, 1);
    assert_eq!(check(&folder().join("minimal.json"), &["--server.shards=1"]).0, 2);
}

#[test]
fn a_secret_that_longwire_refuses_is_not_repeated() {
    let (_folder, file) =
        given("{\"client\": {\"token\": {\"hmac_secret_key\": \"hunter2\"}}}", "config.json");
    let (code, stdout, stderr) = check(&file, &[]);
    assert_eq!(code, 3);
    assert!(stderr.contains("line 1: `client.token.hmac_secret_key`: longwire refuses what it would be: `auth.hmac_secret`: must have at least 32 bytes"), "{stderr}");
    assert!(!stderr.contains("hunter2") && !stdout.contains("hunter2"), "{stdout}{stderr}");
}

#[test]
fn a_key_that_cannot_be_read_is_left_out() {
    let text = "{\"client\": {\"token\": {\n\"rsa_public_key\": \"-----BEGIN PUBLIC KEY-----\\nnonsense\\n-----END PUBLIC KEY-----\"}}}";
    let (_folder, file) = given(text, "config.json");
    let (code, stdout, stderr) = check(&file, &[]);
    assert_eq!(code, 3);
    assert!(stderr.contains("line 2: `client.token.rsa_public_key`: longwire refuses"), "{stderr}");
    loads(&stdout);
}
