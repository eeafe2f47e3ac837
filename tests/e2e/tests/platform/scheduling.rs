//! Quota, borrowing and taking back, from the command line to real processes that are told to stop.

use crate::guardrails::refused;
use platform_e2e::Platform;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Works until it is told to stop, then saves how far it came; goes on from there when it runs again.
const CHECKPOINTING: &str = r#"
import os, pathlib, signal, sys
place = pathlib.Path(os.environ["SAVED"])
if place.exists():
    print("goes on from", place.read_text(), flush=True)
    sys.exit(0)
def save(*_):
    place.write_text("step 41")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("works", flush=True)
while True:
    signal.pause()
"#;

fn quota_of(platform: &Platform, tenant: &str) -> Value {
    let list = platform.cli(&["quotas", "show", tenant, "--json"]).json();
    list["quotas"][0].clone()
}

/// Four GPUs, two of them guaranteed to nlp, and a run of guests that borrows three.
fn with_a_borrower() -> (Platform, String) {
    let platform = Platform::with_devices(&["4xA100-80G"]);
    for tenant in ["nlp", "guests"] {
        platform.cli(&["tenants", "create", tenant]).expect(0);
    }
    platform
        .cli(&["policy", "set", "--minimum-run", "1ms"])
        .expect(0);
    let saved = platform.folder().join("saved");
    let borrower = platform.submit(
        "borrower",
        &json!({
            "name": "borrower",
            "command": ["python3", "-c", CHECKPOINTING],
            "gpus": 3,
            "tenant": "guests",
            "tags": {"team": "guests"},
            "environment": {"SAVED": saved},
        }),
    );
    platform.wait_for(&borrower, &["running"]);
    // Its handler is set up once it says so: what is stopped before that saves nothing.
    let deadline = Instant::now() + Duration::from_secs(30);
    while !platform
        .cli(&["logs", &borrower])
        .expect(0)
        .contains("works")
    {
        assert!(Instant::now() < deadline, "it never began");
    }
    (platform, borrower)
}

#[test]
fn an_owner_takes_back_its_quota_and_the_borrower_saves_waits_and_goes_on() {
    let (platform, borrower) = with_a_borrower();
    platform
        .cli(&["quotas", "set", "nlp", "--gpus", "2"])
        .expect(0);
    let guests = quota_of(&platform, "guests");
    assert_eq!(
        (&guests["used_milli"], &guests["borrowed_milli"]),
        (&json!(3000), &json!(3000))
    );
    let nlp = quota_of(&platform, "nlp");
    assert_eq!(nlp["lent_milli"], 1000, "{nlp:#}");

    let owner = platform.submit(
        "owner",
        &json!({
            "name": "owner",
            "command": ["sleep", "1000"],
            "gpus": 2,
            "tenant": "nlp",
            "tags": {"team": "nlp"},
        }),
    );
    platform.wait_for(&owner, &["running"]);
    let waits = platform.run(&borrower);
    assert_eq!(waits["state"], "queued", "{waits:#}");
    let detail = waits["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains(&format!("the quota it borrowed went back to {owner}")),
        "{detail}"
    );
    let explained = platform
        .cli(&["runs", "explain", &borrower, "--json"])
        .json();
    assert_eq!(explained["tier"], "waiting-for-capacity", "{explained:#}");
    let nlp = quota_of(&platform, "nlp");
    assert_eq!(
        (
            &nlp["used_milli"],
            &nlp["borrowed_milli"],
            &nlp["lent_milli"]
        ),
        (&json!(2000), &json!(0), &json!(0))
    );

    platform.cli(&["stop", &owner, "--yes"]).expect(0);
    let ended = platform.wait_for_end(&borrower);
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    assert_eq!(ended["attempts"].as_array().map(Vec::len), Some(2));
    assert!(
        platform
            .cli(&["logs", &borrower])
            .expect(0)
            .contains("goes on from step 41")
    );
}

#[test]
fn a_dry_run_of_a_quota_says_who_would_give_back_and_changes_nothing() {
    let (platform, borrower) = with_a_borrower();
    let waiting = platform.submit(
        "waiting",
        &json!({
            "name": "waiting",
            "command": ["true"],
            "gpus": 2,
            "tenant": "nlp",
            "tags": {"team": "nlp"},
        }),
    );
    let set = ["quotas", "set", "nlp", "--gpus", "2", "--dry-run"];
    let would = platform.cli(&[&set[..], &["--json"]].concat()).json();
    assert_eq!(
        would["preempts"],
        json!([{
            "run": borrower,
            "name": "borrower",
            "tenant": "guests",
            "claimant": waiting,
            "claimant_tenant": "nlp",
        }])
    );
    let said = platform.cli(&set);
    said.expect(0);
    assert!(
        said.stderr.contains(&format!(
            "{borrower} (borrower) of guests would be stopped and queued again for {waiting} of nlp"
        )),
        "{}",
        said.stderr
    );
    assert_eq!(quota_of(&platform, "nlp").get("gpu_milli"), None);
    assert_eq!(platform.run(&borrower)["state"], "running");

    // The same for real: it takes effect on the queue at once.
    platform.cli(&set[..5]).expect(0);
    let ended = platform.wait_for_end(&waiting);
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
}

#[test]
fn quotas_that_could_never_be_kept_and_trees_that_are_none_are_refused_with_what_is_allowed() {
    let platform = Platform::with_devices(&["4xA100-80G"]);
    for tenant in ["research", "nlp"] {
        platform.cli(&["tenants", "create", tenant]).expect(0);
    }
    platform
        .cli(&["tenants", "set", "nlp", "--parent", "research"])
        .expect(0);
    let table: &[(&[&str], i32, &[&str])] = &[
        (
            &["quotas", "set", "nlp", "--gpus", "5"],
            5,
            &["5 GPUs", "it has 4", "0 to 4 GPUs"],
        ),
        (
            &["quotas", "set", "nlp", "--gpus", "3", "--limit", "2"],
            2,
            &["limit of 2", "quota of 3"],
        ),
        (
            &["quotas", "set", "nlp", "--gpus", "1", "--lend", "2"],
            2,
            &["2 GPUs to lend", "0 to 1 GPUs"],
        ),
        (
            &["tenants", "set", "research", "--parent", "nlp"],
            5,
            &["circle, research under nlp under research"],
        ),
        (
            &["tenants", "set", "nlp", "--weight", "0"],
            2,
            &["weight 0", "1 to 1000"],
        ),
        (
            &["tenants", "create", "ads", "--parent", "nobody"],
            4,
            &["\"nobody\"", "default, nlp, research"],
        ),
    ];
    for (arguments, code, words) in table {
        refused(&platform.cli(arguments), *code, words);
    }
    platform
        .cli(&["quotas", "set", "nlp", "--gpus", "1"])
        .expect(0);
    refused(
        &platform.cli(&[
            "run",
            "--gpus",
            "2",
            "--no-preempt",
            "--tenant",
            "nlp",
            "--tag",
            "team=nlp",
            "--",
            "true",
        ]),
        5,
        &["2 GPUs", "quota of 1", "may not be preempted"],
    );
}
