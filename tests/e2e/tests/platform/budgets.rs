//! Money, from the command line to the books: prices that begin at their moment, and budgets.

use crate::guardrails::refused;
use platform_e2e::{Platform, eventually};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.expect("after 1970").as_micros()).expect("before 500000")
}

fn long_run(platform: &Platform, key: &str, tags: &Value) -> String {
    platform.submit(
        key,
        &json!({"name": key, "command": ["sleep", "1000"], "gpus": 1, "tags": tags}),
    )
}

#[test]
fn a_price_to_come_is_charged_from_its_moment_on_and_the_past_stays_as_it_was() {
    let platform = Platform::with_devices(&["1xA100-80G"]);
    let run = long_run(&platform, "long", &json!({"team": "nlp"}));
    platform.wait_for(&run, &["running"]);
    let mut policy = platform.http().get("/v1/policy");
    policy["scheduled_prices"] = json!([{
        "from_us": now_us() + 5_000_000,
        "gpu_model": "A100-80G",
        "price_micro": 7_200_000_000_u64,
    }]);
    platform
        .http()
        .change("PUT", "/v1/policy", "price", &policy)
        .expect("an answer")
        .expect_ok();
    // Nobody does anything: the moment comes by itself, under the run that goes on.
    let rates = eventually("two prices were charged", || {
        let report = platform.cli(&["cost", "--by", "run", "--json"]).json();
        let rates = report["rates"].as_array()?.clone();
        (rates.len() == 2).then_some(rates)
    });
    assert_eq!(rates[0]["price_micro"], 2_500_000);
    assert_eq!(rates[1]["price_micro"], 7_200_000_000_u64);
    let policy = platform.cli(&["policy", "show", "--json"]).json();
    assert_eq!(policy.get("scheduled_prices"), None, "{policy:#}");
    assert_eq!(
        policy["gpu_hour_price_micro"]["A100-80G"],
        7_200_000_000_u64
    );
    refused(
        &platform.cli(&[
            "policy",
            "set",
            "--price",
            "A100-80G=1",
            "--from",
            "2020-01-01",
        ]),
        5,
        &[
            "A100-80G",
            "2020-01-01 UTC",
            "has passed",
            "leave out --from",
        ],
    );
    let set = ["policy", "set", "--price", "T4-16G=0.5", "--from"];
    let shown = platform.cli(&[&set[..], &["2099-01-01"]].concat());
    assert!(
        shown
            .expect(0)
            .contains("T4-16G  0.50 USD from 2099-01-01 UTC"),
        "{shown:?}"
    );
    refused(
        &platform.cli(&["policy", "set", "--currency", "EUR", "--from", "2099-01-01"]),
        2,
        &["--from", "--price"],
    );
}
