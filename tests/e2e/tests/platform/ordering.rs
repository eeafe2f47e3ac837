//! In what order a tenant's runs wait, from the command line to real processes.

use crate::guardrails::refused;
use platform_e2e::Platform;
use serde_json::{Value, json};

/// A run of one GPU that ends by itself after so many seconds.
fn takes(name: &str, seconds: &str) -> Value {
    json!({
        "name": name,
        "command": ["sleep", seconds],
        "gpus": 1,
        "tags": {"team": "nlp"},
    })
}

/// One GPU, whose user's runs called `long` and `short` have each ended three times, and a run that
/// holds it now.
fn with_a_history() -> (Platform, String) {
    let platform = Platform::with_devices(&["1xA100-80G"]);
    for (name, seconds) in [("long", "1"), ("short", "0")] {
        for number in 0..3 {
            let run = platform.submit(&format!("{name}-{number}"), &takes(name, seconds));
            let ended = platform.wait_for_end(&run);
            assert_eq!(ended["state"], "succeeded", "{ended:#}");
        }
    }
    let holder = platform.submit("holder", &takes("holder", "1000"));
    platform.wait_for(&holder, &["running"]);
    (platform, holder)
}

fn reasons(platform: &Platform, run: &str) -> String {
    platform.cli(&["runs", "explain", run]).expect(0).to_owned()
}

fn placed_us(run: &Value) -> u64 {
    run["attempts"][0]["placed_us"].as_u64().expect("a moment")
}

#[test]
fn the_order_of_a_pool_is_set_shown_audited_and_holds_for_those_that_wait() {
    let (platform, holder) = with_a_history();
    let long = platform.submit("long", &takes("long", "0"));
    let short = platform.submit("short", &takes("short", "0"));
    let before: Value = platform.cli(&["pools", "list", "--json"]).json();
    assert_eq!(before["pools"][0]["order"], "fifo");
    assert!(!reasons(&platform, &long).contains("shortest"));

    platform
        .cli(&[
            "pools",
            "set",
            "default",
            "--order",
            "shortest-predicted",
            "--age-bound",
            "12h",
        ])
        .expect(0);
    let after: Value = platform.cli(&["pools", "list", "--json"]).json();
    assert_eq!(after["pools"][0]["order"], "shortest-predicted");
    assert_eq!(after["pools"][0]["age_bound_ms"], 43_200_000);
    assert!(
        platform
            .cli(&["pools", "list"])
            .expect(0)
            .contains("shortest-predicted, 12h 00m at most")
    );
    let said = reasons(&platform, &long);
    assert!(
        said.contains("takes the shortest first: it is predicted to take")
            && said.contains("it goes first once it has waited for 12 h"),
        "{said}"
    );
    let waits = platform.cli(&["runs", "explain", &long, "--json"]).json();
    assert_eq!(waits["queue_ahead"], 1, "behind the short one: {waits:#}");

    platform.cli(&["stop", &holder, "--yes"]).expect(0);
    let (short, long) = (platform.wait_for_end(&short), platform.wait_for_end(&long));
    assert!(placed_us(&short) < placed_us(&long), "{short:#}{long:#}");
}

#[test]
fn orders_and_bounds_that_are_none_are_refused_with_those_there_are() {
    let platform = Platform::with_devices(&["1xA100-80G"]);
    refused(
        &platform.cli(&["pools", "set", "default", "--order", "random"]),
        2,
        &["random", "fifo", "shortest-predicted", "least-attained"],
    );
    refused(
        &platform.cli(&["pools", "set", "default", "--age-bound", "500d"]),
        2,
        &["43200000 s", "1 s to 365 d"],
    );
    refused(&platform.cli(&["pools", "set", "default"]), 2, &["--order"]);
    let answer = platform
        .http()
        .change(
            "PUT",
            "/v1/pools/default",
            "bad-order",
            &json!({"order": "random"}),
        )
        .expect("an answer");
    assert!(
        answer
            .text()
            .contains("fifo, shortest-predicted, least-attained"),
        "{}",
        answer.text()
    );
}
