//! A platform's own history, replayed with its quotas and with others.

use platform_e2e::Platform;
use serde_json::{Value, json};

/// Two devices; a run of guests that borrows both, and one of nlp that takes one back once it has a
/// quota: what a week of quarrels is made of, in seconds.
fn with_a_quarrel() -> Platform {
    let platform = Platform::with_devices(&["2xA100-80G"]);
    for tenant in ["nlp", "guests"] {
        platform.cli(&["tenants", "create", tenant]).expect(0);
    }
    platform
        .cli(&["policy", "set", "--minimum-run", "1ms"])
        .expect(0);
    platform
        .cli(&["quotas", "set", "nlp", "--gpus", "2"])
        .expect(0);
    let run = |name: &str, tenant: &str, seconds: &str| {
        json!({
            "name": name,
            "command": ["sleep", seconds],
            "gpus": 2,
            "tenant": tenant,
            "tags": {"team": tenant},
        })
    };
    let borrower = platform.submit("borrower", &run("borrower", "guests", "4"));
    platform.wait_for(&borrower, &["running"]);
    let owner = platform.submit("owner", &run("owner", "nlp", "1"));
    for id in [&owner, &borrower] {
        platform.wait_for_end(id);
    }
    assert_eq!(
        platform.run(&borrower)["attempts"].as_array().map(Vec::len),
        Some(2),
        "it gave way and ran again"
    );
    platform
}

fn simulated(platform: &Platform, arguments: &[&str]) -> Value {
    let mut all = vec!["simulate", "--history", "1h"];
    all.extend(arguments);
    all.push("--json");
    platform.cli(&all).json()
}

fn of<'a>(report: &'a Value, tenant: &str) -> &'a Value {
    report["tenants"]
        .as_array()
        .and_then(|tenants| tenants.iter().find(|other| other["tenant"] == tenant))
        .unwrap_or_else(|| panic!("no {tenant} in {report:#}"))
}

#[test]
fn a_replayed_history_is_as_it_was_and_other_quotas_would_have_changed_it() {
    let platform = with_a_quarrel();
    let proposed = platform.folder().join("proposed.toml");
    std::fs::write(
        &proposed,
        "[[quota]]\ntenant = \"nlp\"\npool = \"default\"\ngpus = 0\n\
         [[quota]]\ntenant = \"guests\"\npool = \"default\"\ngpus = 2\n",
    )
    .expect("a file");
    let path = proposed.display().to_string();
    let report = simulated(&platform, &["--quotas", &path]);

    let guests = of(&report, "guests");
    for told in ["happened", "replayed"] {
        assert_eq!(guests[told]["preemptions"], 1, "{told}: {report:#}");
        assert_eq!(guests[told]["runs"], 1);
    }
    assert_eq!(guests["proposed"]["preemptions"], 0, "{report:#}");
    let nlp = of(&report, "nlp");
    let wait_us = |told: &str| nlp[told]["wait_mean_us"].as_u64().expect("a wait");
    // It waits for the whole of the other run, and no longer for its stop alone.
    assert!(
        wait_us("proposed") > wait_us("replayed") + 1_000_000,
        "{report:#}"
    );
    let total = &report["total"];
    for told in ["happened", "replayed", "proposed"] {
        let held_us = total[told]["gpu_us"].as_u64().expect("devices held");
        assert!(held_us > 2 * 5_000_000 - 1_000_000, "{told}: {report:#}");
        assert!(total[told]["cost_micro"].as_u64() > Some(0));
    }

    // For people, the same in one table, with the replay's speed.
    let printed = platform.cli(&["simulate", "--history", "1h", "--quotas", &path]);
    let text = printed.expect(0);
    for words in ["happened", "today's", "proposed", "guests", "all"] {
        assert!(text.contains(words), "no {words} in\n{text}");
    }
    assert!(
        printed.stderr.contains("times as fast as they passed"),
        "{}",
        printed.stderr
    );
}

#[test]
fn a_proposal_that_the_platform_would_refuse_is_refused() {
    let platform = Platform::with_devices(&["2xA100-80G"]);
    let id = platform.submit(
        "only",
        &json!({"name": "only", "command": ["true"], "tags": {"team": "a"}}),
    );
    platform.wait_for_end(&id);
    let proposed = platform.folder().join("proposed.toml");
    let path = proposed.display().to_string();
    for (text, said) in [
        (
            "[[quota]]\ntenant = \"default\"\npool = \"default\"\ngpus = 3\n",
            "more than pool default can guarantee",
        ),
        (
            "[[quota]]\ntenant = \"nobody\"\npool = \"default\"\ngpus = 1\n",
            "does not exist",
        ),
        ("[[quotas]]\n", "unknown field"),
    ] {
        std::fs::write(&proposed, text).expect("a file");
        let refused = platform.cli(&["simulate", "--history", "1h", "--quotas", &path]);
        refused.expect(2);
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
    }
}
