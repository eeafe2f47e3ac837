//! Time in the life of a run: the wait before it is tried again, the deadline for its start, and the
//! warning before its time limit, with real processes.

use crate::guardrails::refused;
use platform_e2e::Platform;
use platform_e2e::wait::eventually;
use serde_json::json;

/// A script that waits for its warning, says which it was, and ends well.
pub const SAVES_WHEN_WARNED: &str = "\
import signal, sys
def save(number, _):
    print('warned by', signal.Signals(number).name, flush=True)
    sys.exit(0)
signal.signal(signal.SIGUSR2, save)
while True:
    signal.pause()
";

#[test]
fn a_failed_run_is_held_says_why_and_is_tried_again_after_its_wait() {
    let platform = Platform::start();
    platform
        .cli(&["policy", "set", "--retry-wait", "4s"])
        .expect(0);
    let marker = platform.folder().join("tried");
    let script = format!("test -e {0} || {{ touch {0}; exit 7; }}", marker.display());
    let run = platform.submit(
        "retried",
        &json!({
            "name": "retried",
            "command": ["sh", "-c", script],
            "retries": 3,
            "tags": {"team": "nlp"},
        }),
    );
    let explained = eventually("the first attempt fails and the run is held", || {
        let explained = platform.cli(&["runs", "explain", &run, "--json"]).json();
        (explained["tier"] == "held").then_some(explained)
    });
    let summary = explained["summary"].as_str().unwrap_or_default();
    assert!(
        summary.starts_with("held: tries again in ")
            && summary.ends_with(" s, attempt 2 of 4, because attempt 1 exited with 7"),
        "{summary}"
    );
    let ended = platform.wait_for_end(&run);
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    let attempts = ended["attempts"].as_array().expect("attempts");
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0]["end"], "exited with 7");
    let (failed, again) = (
        attempts[0]["ended_us"].as_u64().expect("a time"),
        attempts[1]["placed_us"].as_u64().expect("a time"),
    );
    assert!(again - failed >= 4_000_000, "{ended:#}");
    let shown = platform.cli(&["runs", "show", &run]);
    assert!(shown.expect(0).contains("attempt 1  ended: exited with 7"));
}

#[test]
fn a_run_that_does_not_start_in_time_is_given_up_while_what_holds_the_device_goes_on() {
    let platform = Platform::with_devices(&["1xA100-80G"]);
    let holder = platform.submit(
        "holder",
        &json!({"name": "holder", "command": ["sleep", "1000"], "gpus": 1, "tags": {"team": "nlp"}}),
    );
    platform.wait_for(&holder, &["running"]);
    let late = platform.submit(
        "late",
        &json!({
            "name": "late",
            "command": ["true"],
            "gpus": 1,
            "tags": {"team": "nlp"},
            "start_deadline_ms": 1000,
        }),
    );
    let ended = platform.wait_for_end(&late);
    assert_eq!(ended["state"], "cancelled", "{ended:#}");
    assert_eq!(
        ended["detail"],
        "cancelled by its start deadline: it did not start within 1 s of its submission"
    );
    assert_eq!(platform.run(&holder)["state"], "running");
}

#[test]
fn a_run_that_asked_for_it_is_warned_once_before_its_time_limit_and_saves() {
    let platform = Platform::start();
    let folder = platform.code("warned", &[("train.py", SAVES_WHEN_WARNED)]);
    let run = platform.cli_in(
        &folder,
        &[
            "run",
            "--tag",
            "team=nlp",
            "--time-limit",
            "600s",
            "--warn-before",
            "597s:usr2",
            "train.py",
        ],
    );
    assert!(
        run.expect(0).contains("warned by SIGUSR2"),
        "{}\n{}",
        run.stdout,
        run.stderr
    );
    refused(
        &platform.cli_in(
            &folder,
            &[
                "run",
                "--tag",
                "team=nlp",
                "--warn-before",
                "5m",
                "train.py",
            ],
        ),
        2,
        &["no time limit", "--time-limit"],
    );
    refused(
        &platform.cli_in(
            &folder,
            &[
                "run",
                "--tag",
                "team=nlp",
                "--time-limit",
                "1h",
                "--warn-before",
                "5m:KILL",
                "train.py",
            ],
        ),
        2,
        &["SIGKILL", "SIGUSR1, SIGUSR2, SIGHUP, SIGINT"],
    );
}
