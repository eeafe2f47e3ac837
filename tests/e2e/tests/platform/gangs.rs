//! Devices kept for what is large, from the command line to real processes on two nodes.

use platform_e2e::{Platform, eventually};
use serde_json::{Value, json};
use std::process::{Child, Stdio};

/// A second node of the same platform, ended with the test.
struct SecondNode(Child);

impl SecondNode {
    fn join(platform: &Platform, devices: &str) -> SecondNode {
        let created = platform
            .cli(&[
                "tokens", "create", "--user", "node-2", "--role", "agent", "--json",
            ])
            .json();
        let kept = platform.folder().join("node-2");
        let mut command = platform.command(&["agent", "--node", "node-2", "--devices", devices]);
        command
            .arg("--data")
            .arg(kept)
            .env("PLATFORM_URL", platform.url())
            .env("PLATFORM_TOKEN", created["secret"].as_str().unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let joined = SecondNode(command.spawn().unwrap());
        eventually("the second node is there", || {
            let nodes = platform.cli(&["nodes", "list", "--json"]).json();
            (nodes["nodes"].as_array()?.len() == 2).then_some(())
        });
        joined
    }
}

impl Drop for SecondNode {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn submit(platform: &Platform, name: &str, gpus: u32, nodes: u32, limit_ms: Option<u64>) -> String {
    platform.submit(
        name,
        &json!({
            "name": name,
            "command": ["sleep", "1000"],
            "gpus": gpus,
            "nodes": nodes,
            "time_limit_ms": limit_ms,
            "tags": {"team": "nlp"},
        }),
    )
}

/// Works, and saves all its work once a file says so.
const SAVES: &str = r#"
import os, pathlib, time
import engineersofai_platform as platform
with platform.training_run() as run:
    print("works", flush=True)
    while not pathlib.Path(os.environ["SAVE_NOW"]).exists():
        time.sleep(0.02)
    run.log_checkpoint(step=41)
    time.sleep(1000)
"#;

#[test]
fn of_two_borrowers_that_are_equally_old_the_one_that_has_just_saved_its_work_gives_way() {
    let platform = Platform::with_devices(&["2xA100-80G"]);
    for tenant in ["nlp", "guests"] {
        platform.cli(&["tenants", "create", tenant]).expect(0);
    }
    platform
        .cli(&["policy", "set", "--minimum-run", "1ms"])
        .expect(0);
    let sdk = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/python");
    let borrower = |name: &str, tenant: &str, save_now: &std::path::Path| {
        platform.submit(
            name,
            &json!({
                "name": name,
                "command": ["python3", "-c", SAVES],
                "gpus": 1,
                "tenant": tenant,
                "tags": {"team": tenant},
                "environment": {"PYTHONPATH": sdk, "SAVE_NOW": save_now},
            }),
        )
    };
    let (early, late) = (
        platform.folder().join("early"),
        platform.folder().join("late"),
    );
    // The younger would have less to lose, had the elder not saved its work after the younger began.
    let elder = borrower("elder", "guests", &late);
    platform.wait_for(&elder, &["running"]);
    let younger = borrower("younger", "guests", &early);
    platform.wait_for(&younger, &["running"]);
    std::fs::write(&late, "").unwrap();
    let attempt = eventually("the checkpoint is known", || {
        let attempt = platform.run(&elder)["attempts"][0].clone();
        attempt["checkpointed_us"].is_u64().then_some(attempt)
    });
    let younger_began = platform.run(&younger)["attempts"][0]["placed_us"].clone();
    assert!(
        attempt["checkpointed_us"].as_u64() > younger_began.as_u64(),
        "{attempt:#}"
    );
    let shown = platform.cli(&["runs", "show", &elder]).expect(0).to_owned();
    assert!(shown.contains("checkpoint "), "{shown}");

    platform
        .cli(&["quotas", "set", "nlp", "--gpus", "1"])
        .expect(0);
    let owner = platform.submit(
        "owner",
        &json!({
            "name": "owner",
            "command": ["sleep", "1000"],
            "gpus": 1,
            "tenant": "nlp",
            "tags": {"team": "nlp"},
        }),
    );
    platform.wait_for(&owner, &["running"]);
    assert_eq!(platform.run(&elder)["state"], "queued");
    assert_eq!(platform.run(&younger)["state"], "running");
    for run in [&elder, &younger, &owner] {
        platform.cli(&["stop", run, "--yes"]).expect(0);
    }
}

fn explain(platform: &Platform, run: &str) -> Value {
    platform.cli(&["runs", "explain", run, "--json"]).json()
}

#[test]
fn a_gang_that_waits_too_long_has_its_nodes_kept_and_what_ends_in_time_uses_them_meanwhile() {
    let platform = Platform::with_devices(&["2xA100-80G"]);
    let _second = SecondNode::join(&platform, "2xA100-80G");
    let holder = submit(&platform, "holder", 1, 1, Some(3_600_000));
    platform.wait_for(&holder, &["running"]);
    let gang = submit(&platform, "gang", 2, 2, None);
    assert_eq!(explain(&platform, &gang)["tier"], "waiting-for-gang");
    let passes = submit(&platform, "passes", 1, 1, None);
    platform.wait_for(&passes, &["running"]);
    platform.cli(&["stop", &passes, "--yes"]).expect(0);
    platform.wait_for_end(&passes);

    platform
        .cli(&["policy", "set", "--reservation-after", "1ms"])
        .expect(0);
    let waits = submit(&platform, "waits", 1, 1, None);
    let short = submit(&platform, "short", 1, 1, Some(600_000));
    platform.wait_for(&short, &["running"]);
    let waiting = explain(&platform, &waits);
    assert_eq!(waiting["tier"], "waiting-for-reserved", "{waiting:#}");
    assert_eq!(
        waiting["summary"],
        format!("the room that is free is kept for {gang}")
    );
    let reasons = explain(&platform, &gang)["reasons"].to_string();
    assert!(
        reasons.contains("are kept for it: it starts in 3"),
        "within the hour and what ending takes: {reasons}"
    );

    platform.cli(&["stop", &holder, "--yes"]).expect(0);
    platform.wait_for_end(&holder);
    platform.cli(&["stop", &short, "--yes"]).expect(0);
    platform.wait_for(&gang, &["running"]);
    assert_eq!(platform.run(&waits)["state"], "queued");
    platform.cli(&["stop", &waits, "--yes"]).expect(0);
    platform.cli(&["stop", &gang, "--yes"]).expect(0);
    platform.wait_for_end(&gang);
}
