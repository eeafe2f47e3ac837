//! The binary against a scripted server: what is retried, what is sent, and what it exits with.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// One request as the server saw it.
struct Seen {
    head: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Answers each connection with the next of `answers`; `None` cuts the connection after the request.
fn server(answers: Vec<Option<(u16, &'static str)>>) -> (String, mpsc::Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, seen) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            sender.send(read(&stream)).unwrap();
            if let Some((status, body)) = answer {
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                );
                (&stream)
                    .write_all(format!("{head}{body}").as_bytes())
                    .unwrap();
            }
        }
    });
    (url, seen)
}

fn read(stream: &TcpStream) -> Seen {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head).unwrap();
    }
    let seen = Seen { head };
    let length = seen
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    reader.read_exact(&mut vec![0; length]).unwrap();
    seen
}

fn platform(home: &std::path::Path, url: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_platform"))
        .args(arguments)
        .env_clear()
        .env("PLATFORM_HOME", home)
        .env("PLATFORM_URL", url)
        .env("PLATFORM_TOKEN", "secret")
        .current_dir(home)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

const TENANT: &str = r#"{"name":"nlp","created_us":1,"live_runs":0,"quotas":[]}"#;

#[test]
fn a_change_keeps_its_key_over_a_cut_connection_and_is_asked_again() {
    let home = tempfile::tempdir().unwrap();
    let (url, seen) = server(vec![None, Some((200, TENANT))]);
    let output = platform(home.path(), &url, &["tenants", "create", "nlp", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let (first, second) = (seen.recv().unwrap(), seen.recv().unwrap());
    assert!(
        first.head.starts_with("POST /v1/tenants "),
        "{}",
        first.head
    );
    assert_eq!(first.header("authorization"), Some("Bearer secret"));
    let key = first.header("idempotency-key").unwrap();
    assert_eq!(key.len(), 32);
    assert_eq!(second.header("idempotency-key"), Some(key));
}

#[test]
fn an_unavailable_server_is_asked_again_and_a_refusal_is_not() {
    let home = tempfile::tempdir().unwrap();
    let busy = r#"{"code":"unavailable","message":"no leader yet"}"#;
    let refused = r#"{"code":"refused","message":"required cost tag missing: team","allowed":"nlp","hint":"add --tag team=nlp"}"#;
    let (url, seen) = server(vec![Some((503, busy)), Some((422, refused))]);
    let output = platform(home.path(), &url, &["tenants", "create", "nlp"]);
    assert_eq!(output.status.code(), Some(5));
    insta::assert_snapshot!(stderr(&output), @r"
    error: required cost tag missing: team
      allowed: nlp
      hint: add --tag team=nlp
    ");
    assert_eq!(seen.try_iter().count(), 2);
}

#[test]
fn each_kind_of_refusal_has_its_exit_code() {
    let home = tempfile::tempdir().unwrap();
    let bodies = [
        (
            401,
            r#"{"code":"unauthenticated","message":"unknown token"}"#,
            3,
        ),
        (404, r#"{"code":"not-found","message":"no run run-9"}"#, 4),
        (400, r#"{"code":"invalid","message":"no"}"#, 2),
        (500, r#"{"code":"internal","message":"broken"}"#, 1),
        (500, "not even JSON", 1),
    ];
    for (status, body, exit) in bodies {
        let (url, _seen) = server(vec![Some((status, body))]);
        let output = platform(home.path(), &url, &["runs", "explain", "9"]);
        assert_eq!(
            output.status.code(),
            Some(exit),
            "{body}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn with_json_an_error_is_one_json_object() {
    let home = tempfile::tempdir().unwrap();
    let (url, _seen) = server(vec![Some((
        404,
        r#"{"code":"not-found","message":"no run run-9"}"#,
    ))]);
    let output = platform(home.path(), &url, &["runs", "explain", "9", "--json"]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["code"], "not-found");
    assert!(output.stdout.is_empty());
}

#[test]
fn nobody_there_is_said_soon_and_is_no_failure_of_the_run() {
    let home = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let started = Instant::now();
    let output = platform(home.path(), &format!("http://{port}"), &["whoami"]);
    assert_eq!(output.status.code(), Some(6));
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(
        stderr(&output).contains("start it with `platform up`"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn what_is_wrong_with_the_command_line_needs_no_server() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("train.py"), "").unwrap();
    let wrong: [&[&str]; 6] = [
        &["run", "trian.py"],
        &["run", "--gpu", "1", "train.py"],
        &["run", "--gpu-memory", "20", "train.py"],
        &["run", "--gpus", "1", "--gpu-fraction", "0.5", "train.py"],
        &["up", "--listen", "0.0.0.0:1"],
        &["runs", "show", "../x"],
    ];
    for arguments in wrong {
        let output = platform(home.path(), "http://127.0.0.1:1", arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_port_in_use_is_named() {
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let output = platform(
        home.path(),
        "http://127.0.0.1:1",
        &["up", "--listen", &listen],
    );
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains(&listen) && said.contains("--listen"),
        "{said}"
    );
}

#[test]
fn the_token_is_kept_only_when_it_works() {
    let home = tempfile::tempdir().unwrap();
    let (url, _seen) = server(vec![Some((
        401,
        r#"{"code":"unauthenticated","message":"unknown token"}"#,
    ))]);
    assert_eq!(
        platform(home.path(), &url, &["login"]).status.code(),
        Some(3)
    );
    assert!(!home.path().join("client.json").exists());
    let whoami = r#"{"user":"ada","tenant":"nlp","role":"member","token":"t","server_version":"1","simulated":false,"currency":"EUR"}"#;
    let (url, _seen) = server(vec![Some((200, whoami))]);
    assert_eq!(
        platform(home.path(), &url, &["login"]).status.code(),
        Some(0)
    );
    assert!(home.path().join("client.json").exists());
    assert_eq!(
        platform(home.path(), &url, &["logout"]).status.code(),
        Some(0)
    );
    assert!(!home.path().join("client.json").exists());
}
