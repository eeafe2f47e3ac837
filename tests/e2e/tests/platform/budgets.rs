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

fn budget(platform: &Platform, name: &str) -> Value {
    platform.cli(&["budgets", "show", name, "--json"]).json()
}

#[test]
fn a_spent_budget_starts_no_run_says_so_everywhere_and_lets_go_on_what_runs() {
    let platform = Platform::with_devices(&["2xA100-80G"]);
    // Two units of the currency for each second of a GPU: a budget is spent while one waits for it.
    platform
        .cli(&["policy", "set", "--price", "A100-80G=7200"])
        .expect(0);
    let nlp = json!({"team": "nlp"});
    let long = long_run(&platform, "long", &nlp);
    platform.wait_for(&long, &["running"]);
    let waits = platform.submit(
        "waits",
        &json!({"name": "waits", "command": ["true"], "gpus": 2, "tags": nlp}),
    );
    let set = ["budgets", "set", "nlp-month", "--tag", "team=nlp"];
    refused(&platform.cli(&set), 2, &["`nlp-month` is new", "--amount"]);
    let would = platform
        .cli(
            &[
                &set[..],
                &["--amount", "0.01", "--stop", "--dry-run", "--json"],
            ]
            .concat(),
        )
        .json();
    assert_eq!(would["holds_back"], json!([waits]), "{would:#}");
    assert_eq!(would["state"], "stopped", "what was spent before counts");
    let none = platform.cli(&["budgets", "list"]);
    assert!(none.expect(0).contains("no budgets"), "{none:?}");

    platform
        .cli(&[&set[..], &["--amount", "10", "--stop"]].concat())
        .expect(0);
    eventually("the budget is spent", || {
        (budget(&platform, "nlp-month")["state"] == "stopped").then_some(())
    });
    let run = |tag: &str, more: &[&str]| {
        platform.cli(&[&["run", "--tag", tag], more, &["--", "true"]].concat())
    };
    let words = [
        "budget nlp-month of tag team=nlp stops new runs",
        "of 10.00 USD, in the month from",
        "new runs from",
        "platform budgets set nlp-month --amount N",
    ];
    refused(&run("team=nlp", &[]), 5, &words);
    refused(&run("team=nlp", &["--dry-run"]), 5, &words);
    run("team=vision", &[]).expect(0);
    assert_eq!(platform.run(&long)["state"], "running");
    let explained = platform.cli(&["runs", "explain", &waits, "--json"]).json();
    assert_eq!(explained["tier"], "over-budget", "{explained:#}");
    platform.cli(&["stop", &long, "--yes"]).expect(0);
    platform.wait_for_end(&long);
    assert_eq!(platform.run(&waits)["state"], "queued", "room is not money");

    // The ledger says the same, to the last millionth.
    let spent = budget(&platform, "nlp-month");
    assert_eq!(spent["rate_micro_per_hour"], 0);
    let cost = platform.cli(&["cost", "--by", "team", "--json"]).json();
    let row = cost["rows"]
        .as_array()
        .and_then(|rows| rows.iter().find(|row| row["key"] == "nlp"))
        .expect("nlp has spent");
    assert_eq!(row["cost_micro"], spent["spent_micro"]);

    // What is not named stays: it still stops, only later.
    let raised = platform
        .cli(&[
            "budgets",
            "set",
            "nlp-month",
            "--amount",
            "100000",
            "--json",
        ])
        .json();
    assert_eq!(
        (&raised["stop"], &raised["state"]),
        (&json!(true), &json!("within"))
    );
    let ended = platform.wait_for_end(&waits);
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
}

#[test]
fn a_budget_warns_whoever_submits_and_shows_where_it_comes_to() {
    let platform = Platform::with_devices(&["2xA100-80G"]);
    platform.cli(&["tenants", "create", "lab"]).expect(0);
    platform
        .cli(&["tenants", "set", "default", "--parent", "lab"])
        .expect(0);
    platform
        .cli(&["policy", "set", "--price", "A100-80G=7200"])
        .expect(0);
    platform
        .cli(&[
            "budgets",
            "set",
            "lab",
            "--tenant",
            "lab",
            "--amount",
            "20000000",
            "--warn-at",
            "1",
            "--period",
            "quarter",
        ])
        .expect(0);
    let long = long_run(&platform, "long", &json!({"team": "nlp"}));
    platform.wait_for(&long, &["running"]);
    let quiet = platform.cli(&["run", "--dry-run", "--tag", "team=nlp", "--", "true"]);
    let text = format!("{}{}", quiet.stdout, quiet.stderr);
    assert!(text.contains("lab: "), "{quiet:?}");
    assert!(!text.contains("is spent"), "{quiet:?}");
    let forecast = budget(&platform, "lab");
    assert_eq!(forecast["rate_micro_per_hour"], 7_200_000_000_u64);
    assert!(
        forecast["projected_micro"].as_u64() >= forecast["spent_micro"].as_u64(),
        "{forecast:#}"
    );
    platform
        .cli(&["budgets", "set", "lab", "--amount", "100"])
        .expect(0);
    eventually("one percent is spent", || {
        (budget(&platform, "lab")["state"] == "warned").then_some(())
    });
    let warned = platform.cli(&["run", "--dry-run", "--tag", "team=nlp", "--", "true"]);
    let text = format!("{}{}", warned.stdout, warned.stderr);
    assert!(text.contains("budget lab of tenant lab: "), "{warned:?}");
    let removed = platform.cli(&["budgets", "remove", "lab"]);
    assert!(removed.expect(0).contains("removed lab"), "{removed:?}");
    refused(
        &platform.cli(&["budgets", "show", "lab"]),
        4,
        &["no budget `lab`"],
    );
}
