//! Runs that belong together, from the command line to real processes: one follows another.

use crate::guardrails::refused;
use platform_e2e::Platform;
use serde_json::{Value, json};
use std::path::Path;

/// Submits with `platform run --detach` and answers the run's id.
#[track_caller]
fn detach(platform: &Platform, folder: &Path, arguments: &[&str]) -> String {
    let arguments = [&["run", "--detach", "--tag", "team=nlp"], arguments].concat();
    platform
        .cli_in(folder, &arguments)
        .expect(0)
        .trim()
        .to_owned()
}

/// A run that holds until a file appears, and then exits with this code.
fn until_let_go(platform: &Platform, key: &str, code: i32) -> (String, std::path::PathBuf) {
    let gate = platform.folder().join(format!("let-go-{key}"));
    let script = format!(
        "while [ ! -e '{}' ]; do sleep 0.05; done; exit {code}",
        gate.display()
    );
    let run = platform.submit(
        key,
        &json!({"name": key, "command": ["sh", "-c", script], "gpus": 0, "tags": {"team": "nlp"}}),
    );
    (run, gate)
}

fn explained(platform: &Platform, run: &str) -> Value {
    platform.cli(&["runs", "explain", run, "--json"]).json()
}

#[test]
fn a_run_starts_only_after_the_run_that_it_follows() {
    let platform = Platform::start();
    let folder = platform.code("work", &[("train.py", "print('evaluated')\n")]);
    let (first, gate) = until_let_go(&platform, "first", 0);
    let second = detach(&platform, &folder, &["--after", &first, "train.py"]);
    let third = detach(
        &platform,
        &folder,
        &["--after", &format!("{second}:any"), "train.py"],
    );
    for run in [&second, &third] {
        assert_eq!(platform.run(run)["state"], "held");
    }
    let waits = explained(&platform, &second);
    assert_eq!(waits["tier"], "held", "{waits:#}");
    assert_eq!(
        waits["summary"],
        format!("held until {first} has succeeded")
    );
    let held = platform
        .cli(&["runs", "list", "--state", "held", "--json"])
        .json();
    assert_eq!(held["runs"].as_array().map(Vec::len), Some(2));

    std::fs::write(gate, "").expect("written");
    assert_eq!(platform.wait_for_end(&third)["state"], "succeeded");
    let starts = |run: &str| platform.run(run)["started_us"].as_u64().expect("started");
    let ends = |run: &str| platform.run(run)["ended_us"].as_u64().expect("ended");
    assert!(starts(&second) >= ends(&first) && starts(&third) >= ends(&second));
}

#[test]
fn what_follows_a_failure_is_cancelled_with_its_reason_or_refused_at_once() {
    let platform = Platform::start();
    let folder = platform.code("work", &[("train.py", "print('never')\n")]);
    let (first, gate) = until_let_go(&platform, "first", 3);
    let second = detach(&platform, &folder, &["--after", &first, "train.py"]);
    std::fs::write(gate, "").expect("written");
    let ended = platform.wait_for_end(&second);
    assert_eq!(ended["state"], "cancelled", "{ended:#}");
    let why =
        format!("cancelled by the platform: {first}, whose success it was to follow, has failed");
    assert_eq!(ended["detail"], why);
    assert_eq!(ended["attempts"], json!([]));

    let run = |after: &str| {
        platform.cli_in(
            &folder,
            &["run", "--tag", "team=nlp", "--after", after, "train.py"],
        )
    };
    refused(
        &run(&first),
        5,
        &[
            &format!("{first} has failed already"),
            &format!("{first}:any"),
        ],
    );
    refused(&run("run-9999"), 4, &["run-9999 does not exist"]);
    refused(&run("run-1:maybe"), 2, &["run-17, run-17:ok, run-17:any"]);
    platform.cli(&["tenants", "create", "vision"]).expect(0);
    let secret = platform.submit(
        "secret",
        &json!({"name": "secret", "command": ["true"], "gpus": 0, "tenant": "vision", "tags": {"team": "vision"}}),
    );
    refused(&run(&secret), 4, &[&format!("{secret} does not exist")]);
}
