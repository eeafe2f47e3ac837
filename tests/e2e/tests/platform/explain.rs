//! Every wait explained: who holds what a run needs and until when, its position, when it starts, and
//! changes that do start it, told before and after a submit.

use platform_e2e::Platform;
use serde_json::{Value, json};

/// A run that sleeps until it is stopped.
fn sleeper(name: &str, more: &Value) -> Value {
    let mut spec = json!({
        "name": name,
        "command": ["sleep", "1000"],
        "tags": {"team": "nlp"},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

fn explained(platform: &Platform, run: &str) -> Value {
    platform.cli(&["runs", "explain", run, "--json"]).json()
}

fn flags(outlook: &Value) -> Vec<&str> {
    outlook["changes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|change| change["flags"].as_str())
        .collect()
}

#[test]
fn a_wait_names_its_holders_its_position_and_a_change_that_does_start_it() {
    let platform = Platform::with_devices(&["4xA100-80G", "2xT4-16G"]);
    let holder = platform.submit(
        "holder",
        &sleeper(
            "holder",
            &json!({"gpus": 3, "gpu_model": "A100-80G", "time_limit_ms": 3_600_000}),
        ),
    );
    let holder_view = platform.wait_for(&holder, &["running"]);
    let asked = json!({"gpus": 2, "gpu_model": "A100-80G"});
    let waits = platform.submit("waits", &sleeper("waits", &asked));
    let behind = platform.submit("behind", &sleeper("behind", &asked));

    let told = explained(&platform, &waits);
    assert_eq!(told["tier"], "waiting-for-capacity", "{told:#}");
    let outlook = &told["outlook"];
    let started_us = holder_view["started_us"].as_u64().unwrap_or_default();
    assert_eq!(
        outlook["holders"],
        json!([{
            "run": holder,
            "tenant": "default",
            "held_milli": 3000,
            "stopping": false,
            "until_us": started_us + 3_600_000_000,
        }])
    );
    assert_eq!(
        outlook["start"]["latest_us"],
        started_us + 3_600_000_000,
        "the time limit is all that is known"
    );
    assert_eq!(
        outlook["position"],
        json!({"ahead": 0, "waiting": 2, "turn": 1, "turns": 1})
    );
    assert_eq!(
        explained(&platform, &behind)["outlook"]["position"]["ahead"],
        1
    );
    assert_eq!(flags(outlook), ["--gpu-model T4-16G", "--gpus 1"]);

    let told = platform.cli(&["runs", "explain", &waits]);
    let text = told.expect(0);
    assert!(
        text.contains(&format!("{holder} of default holds 3 GPUs until ")),
        "{text}"
    );
    assert!(text.contains("would start now with"), "{text}");

    // What it says holds.
    let other = platform.submit(
        "other",
        &sleeper("other", &json!({"gpus": 2, "gpu_model": "T4-16G"})),
    );
    platform.wait_for(&other, &["running"]);
    let less = platform.submit(
        "less",
        &sleeper("less", &json!({"gpus": 1, "gpu_model": "A100-80G"})),
    );
    platform.wait_for(&less, &["running"]);
}

#[test]
fn a_dry_run_says_the_same_before_anything_is_submitted() {
    let platform = Platform::with_devices(&["2xA100-80G"]);
    let holder = platform.submit("holder", &sleeper("holder", &json!({"gpus": 1})));
    platform.wait_for(&holder, &["running"]);
    let dry = |gpus: &str| {
        platform
            .cli(&[
                "run",
                "--dry-run",
                "--gpus",
                gpus,
                "--tag",
                "team=nlp",
                "--json",
                "--",
                "true",
            ])
            .json()
    };
    let told = dry("2");
    assert_eq!(told["starts_now"], false, "{told:#}");
    let outlook = &told["outlook"];
    assert_eq!(outlook["holders"][0]["run"], holder);
    assert_eq!(outlook["holders"][0].get("until_us"), None, "no time limit");
    assert_eq!(
        outlook.get("start"),
        None,
        "nothing is known, nothing is made up"
    );
    assert_eq!(flags(outlook), ["--gpus 1"], "{outlook:#}");
    assert_eq!(outlook["position"]["ahead"], 0);
    let starts = dry("1");
    assert_eq!(starts["starts_now"], true);
    assert_eq!(starts.get("outlook"), None);
    let runs = platform.cli(&["runs", "list", "--json"]).json();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1));
}

#[test]
fn who_is_to_give_way_and_when_is_told_to_the_owner_who_waits() {
    let platform = Platform::with_devices(&["2xA100-80G"]);
    for tenant in ["nlp", "guests"] {
        platform.cli(&["tenants", "create", tenant]).expect(0);
    }
    let guest = platform.submit(
        "guest",
        &sleeper("guest", &json!({"gpus": 2, "tenant": "guests"})),
    );
    let placed_us = platform.wait_for(&guest, &["running"])["attempts"][0]["placed_us"].clone();
    platform
        .cli(&["policy", "set", "--minimum-run", "1h"])
        .expect(0);
    platform
        .cli(&["quotas", "set", "nlp", "--gpus", "1"])
        .expect(0);
    let owner = platform.submit(
        "owner",
        &sleeper("owner", &json!({"gpus": 1, "tenant": "nlp"})),
    );
    let outlook = explained(&platform, &owner)["outlook"].clone();
    let at_us = placed_us.as_u64().unwrap_or_default() + 3_600_000_000;
    assert_eq!(
        outlook["gives_way"],
        json!({"runs": [guest], "at_us": at_us}),
        "{outlook:#}"
    );
}
