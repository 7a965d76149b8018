//! `longwire queue`, against a server whose queues are on the disk.

use crate::harness::{Binary, longwire};
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Output, Stdio};

struct World {
    server: Binary,
    url: String,
    folder: tempfile::TempDir,
}

impl World {
    fn start() -> World {
        World::on(tempfile::tempdir().expect("a folder"))
    }

    fn on(folder: tempfile::TempDir) -> World {
        let data = folder.path().to_str().expect("UTF-8").to_owned();
        let (server, address): (Binary, SocketAddr) = Binary::serve(&["--server.data-dir", &data]);
        World { server, url: format!("http://{address}"), folder }
    }

    /// Runs a command with this input.
    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut process = longwire(&[&["queue"][..], arguments, &["--url", &self.url]].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it was built");
        let mut stdin = process.stdin.take().expect("it is piped");
        // Whoever reads no input may have ended already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        process.wait_with_output().expect("it ends")
    }

    #[track_caller]
    fn prints(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], input: &str, code: i32) -> String {
        let output = self.run(arguments, input);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    }
}

const LINES: &str = r#"{"queue":"mails","data":{"n":1},"headers":{"kind":"a"}}
{"queue":"mails","text":"zwei","priority":9}

{"queue":"pictures","b64data":"/wA="}
"#;

#[test]
fn an_operator_looks_moves_and_removes() {
    let world = World::start();
    assert_eq!(world.prints(&["import"], LINES), "3 sent\n");
    let listed = world.prints(&["ls"], "");
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["QUEUE", "WAITING", "DELAYED", "IN", "FLIGHT", "BYTES", "CONSUMERS"]);
    assert_eq!(rows[1][..3], ["mails", "2", "0"]);
    assert_eq!(rows[2][..2], ["pictures", "1"]);

    let first = world.prints(&["peek", "mails", "--max", "1"], "");
    assert_eq!(first.lines().count(), 1);
    let first: serde_json::Value = serde_json::from_str(&first).expect("JSON");
    assert_eq!((&first["text"], &first["state"]), (&"zwei".into(), &"waiting".into()));

    assert_eq!(world.prints(&["move", "pictures", "mails"], ""), "1 moved\n");
    assert_eq!(world.prints(&["purge", "mails"], ""), "3 removed\n");
    assert_eq!(world.prints(&["rm", "pictures"], ""), "removed, with 0 messages\n");
    assert!(world.fails(&["peek", "pictures"], "", 5).contains("no such queue"));
}

#[test]
fn what_is_exported_is_imported_elsewhere_and_outlives_the_server() {
    let world = World::start();
    world.prints(&["import"], LINES);
    let export = world.prints(&["export", "mails"], "");
    assert_eq!(export.lines().count(), 2);
    let World { mut server, folder, .. } = world;
    server.kill();
    let world = World::on(folder);
    let again = world.prints(&["export", "mails"], "");
    assert_eq!(again, export, "the same messages, with their ids");
    assert_eq!(world.prints(&["import", "copy"], &export), "2 sent\n");
    let members = |text: &str| {
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        lines
            .map(|it| [&it["data"], &it["text"], &it["headers"], &it["priority"]].map(Clone::clone))
            .collect::<Vec<_>>()
    };
    assert_eq!(members(&world.prints(&["export", "copy"], "")), members(&export));
}

#[test]
fn an_import_that_fails_says_how_far_it_came() {
    let world = World::start();
    let text = world.fails(&["import"], "{\"queue\":\"a\",\"text\":\"1\"}\n{\"text\":\"2\"}\n", 1);
    assert!(text.contains("1 were sent before this") && text.contains("line 2 names no queue"), "{text}");
    let text = world.fails(&["import", "a"], "{\"text\":\"1\",\"priority\":50}\n", 5);
    assert!(text.contains("0 were sent") && text.contains("priority: is from 0 to 9"), "{text}");
    let stopped = World { url: "http://127.0.0.1:9".to_owned(), ..world };
    assert!(stopped.fails(&["ls"], "", 4).contains("cannot reach"));
}
