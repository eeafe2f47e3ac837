//! Priority classes, from the command line to real processes: who may use which, who is stopped for whom,
//! and that a change of the policy reaches nobody who was admitted before it.

use crate::guardrails::refused;
use platform_e2e::Platform;
use serde_json::json;

/// One GPU, and runs that may be stopped at once.
fn one_device() -> Platform {
    let platform = Platform::with_devices(&["1xA100-80G"]);
    platform
        .cli(&["policy", "set", "--minimum-run", "1ms"])
        .expect(0);
    platform
}

/// Submits from the command line and gives the run's id.
fn submitted(platform: &Platform, priority: &[&str], seconds: &str) -> String {
    let run = ["run", "--detach", "--json", "--tag", "team=nlp"];
    let command = ["--", "sleep", seconds];
    let reply = platform
        .cli(&[&run[..], priority, &command[..]].concat())
        .json();
    reply["run"]["id"].as_str().expect("a run's id").to_owned()
}

#[test]
fn a_higher_class_stops_the_cheapest_lower_run_of_its_tenant_which_goes_on_afterwards() {
    let platform = one_device();
    let low = submitted(&platform, &["--priority", "low"], "1000");
    platform.wait_for(&low, &["running"]);
    let equal = submitted(&platform, &["--priority", "-50"], "1000");
    let high = submitted(&platform, &["--priority", "high"], "1000");
    let running = platform.wait_for(&high, &["running"]);
    assert_eq!(
        (
            &running["spec"]["priority"],
            &running["spec"]["priority_class"]
        ),
        (&json!(50), &json!("high"))
    );
    let stopped = platform.run(&low);
    assert_eq!(stopped["state"], "queued", "{stopped:#}");
    let detail = stopped["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains(&format!("preempted by {high} of higher priority")),
        "{detail}"
    );
    // A number is of the class that it lies in, and an equal stops nobody.
    let waits = platform.run(&equal);
    assert_eq!(
        (&waits["state"], &waits["spec"]["priority_class"]),
        (&json!("queued"), &json!("low"))
    );
    let shown = platform.cli(&["runs", "show", &high]);
    assert!(shown.expect(0).contains("high (50)"), "{shown:?}");
    let listed = platform.cli(&["ps"]);
    assert!(
        listed.expect(0).contains("PRIORITY") && listed.stdout.contains("low (-50)"),
        "{listed:?}"
    );
    let explained = platform.cli(&["runs", "explain", &low]);
    assert!(
        explained
            .expect(0)
            .contains("its priority is -50 (low): it goes before lower ones"),
        "{explained:?}"
    );
    platform.cli(&["stop", &high, "--yes"]).expect(0);
    let again = platform.wait_for(&low, &["running"]);
    assert_eq!(again["attempts"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_class_is_closed_by_name_and_by_number_and_opened_by_the_policy() {
    let platform = one_device();
    let token = platform
        .cli(&["tokens", "create", "--user", "ada", "--quiet"])
        .expect(0)
        .trim()
        .to_owned();
    let as_member = |arguments: &[&str]| {
        let run = ["run", "--tag", "team=nlp"];
        let all = [&run[..], arguments, &["--", "true"]].concat();
        let mut command = platform.command(&all);
        command
            .env("PLATFORM_URL", platform.url())
            .env("PLATFORM_TOKEN", &token);
        platform_e2e::finish(&mut command)
    };
    refused(
        &as_member(&["--priority", "urgent"]),
        5,
        &[
            "priority class urgent is for a tenant-admin and above, and you are a member",
            "low (-50), normal (0), high (50), or a number up to 50",
            "--priority high",
        ],
    );
    refused(
        &as_member(&["--priority", "51"]),
        5,
        &["priority 51 is above high (50), the highest class open to you"],
    );
    // An array and a dry run are bound alike, and so is whoever speaks to the server without us.
    refused(
        &as_member(&["--priority", "urgent", "--array", "0-3"]),
        5,
        &["for a tenant-admin"],
    );
    refused(
        &as_member(&["--priority", "51", "--dry-run"]),
        5,
        &["above high"],
    );
    let reply = platform
        .http()
        .with_token(Some(&token))
        .change(
            "POST",
            "/v1/runs",
            "bypass",
            &json!({"spec": {"name": "x", "command": ["true"], "priority": 100, "tags": {"team": "nlp"}}}),
        )
        .expect("a reply");
    assert_eq!(
        (reply.status, reply.json()["code"].as_str()),
        (422, Some("refused"))
    );
    refused(
        &as_member(&["--priority", "hihg"]),
        2,
        &["priority class \"hihg\" does not exist"],
    );

    let set = platform.cli(&[
        "policy",
        "set",
        "--priority-class",
        "urgent=100:preempts=no",
    ]);
    assert!(
        set.expect(0).contains("urgent  100, stops nobody")
            && set.stderr.contains("keep the class, the priority"),
        "{set:?}"
    );
    let opened = as_member(&["--priority", "urgent", "--detach", "--json"]).json();
    assert_eq!(opened["run"]["spec"]["priority"], 100, "{opened:#}");
    let audited = platform.cli(&["policy", "show", "--json"]).json();
    assert_eq!(
        audited["priority_classes"]["urgent"],
        json!({"priority": 100, "preempts": false})
    );
    refused(
        &platform.cli(&[
            "policy",
            "set",
            "--priority-class",
            "high=50:tenants=nobody",
        ]),
        2,
        &["tenant nobody, which does not exist", "default"],
    );
}

#[test]
fn a_class_that_is_taken_away_leaves_what_waits_and_runs_as_it_is() {
    let platform = one_device();
    let low = submitted(&platform, &["--priority", "low"], "1000");
    platform.wait_for(&low, &["running"]);
    platform
        .cli(&[
            "policy",
            "set",
            "--priority-class",
            "patient=90:preempts=no",
            "--no-priority-class",
            "low",
        ])
        .expect(0);
    let kept = platform.run(&low);
    assert_eq!(
        (&kept["state"], &kept["spec"]["priority_class"]),
        (&json!("running"), &json!("low"))
    );
    // It goes before what is below it, and waits for the room that it does not take.
    let equal = submitted(&platform, &["--priority", "-50"], "1000");
    let patient = submitted(&platform, &["--priority", "patient"], "1000");
    platform.cli(&["stop", &low, "--yes"]).expect(0);
    platform.wait_for(&patient, &["running"]);
    assert_eq!(platform.run(&equal)["state"], "queued");
    let stopped = platform.run(&low);
    assert_eq!(
        (
            &stopped["state"],
            stopped["attempts"].as_array().map(Vec::len)
        ),
        (&json!("cancelled"), Some(1))
    );
}
