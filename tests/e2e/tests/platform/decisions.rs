//! Decisions kept, read by run and made again from the log.

use platform_e2e::{Platform, eventually};
use serde_json::{Value, json};

fn decisions(platform: &Platform, run: &str) -> Vec<Value> {
    let list = platform.cli(&["runs", "decisions", run, "--json"]).json();
    list["decisions"].as_array().cloned().unwrap_or_default()
}

fn of<'a>(decisions: &'a [Value], verdict: &str, run: &str) -> Option<&'a Value> {
    decisions
        .iter()
        .find(|made| made["verdict"] == verdict && made["run"] == run)
}

#[test]
fn who_waited_who_was_stopped_and_who_was_granted_is_kept_and_comes_out_alike_again() {
    let platform = Platform::with_devices(&["2xA100-80G"]);
    for tenant in ["nlp", "guests"] {
        platform.cli(&["tenants", "create", tenant]).expect(0);
    }
    platform
        .cli(&["quotas", "set", "nlp", "--gpus", "1"])
        .expect(0);
    // Long enough that the wait before the stop is told.
    platform
        .cli(&["policy", "set", "--minimum-run", "3s"])
        .expect(0);
    let run = |name: &str, tenant: &str, gpus: u32| {
        json!({
            "name": name,
            "command": ["sleep", "60"],
            "gpus": gpus,
            "tenant": tenant,
            "tags": {"team": tenant},
        })
    };
    let borrower = platform.submit("borrower", &run("borrower", "guests", 2));
    platform.wait_for(&borrower, &["running"]);
    let owner = platform.submit("owner", &run("owner", "nlp", 1));
    platform.wait_for(&owner, &["running"]);

    let made = eventually("every decision is in the books", || {
        let made = decisions(&platform, &owner);
        of(&made, "granted", &owner).is_some().then_some(made)
    });
    let waits = of(&made, "waits", &owner).expect("it waited");
    assert!(waits["summary"].is_string(), "{waits:#}");
    let stopped = of(&made, "preempted", &borrower).expect("it displaced the borrower");
    assert_eq!(stopped["claimant"], owner.as_str());
    let lost_us = stopped["lost_gpu_us"].as_u64().expect("what it lost");
    assert!(lost_us >= 2 * 3_000_000, "{stopped:#}");
    let granted = of(&made, "granted", &owner).expect("it was granted");
    assert_eq!(
        granted["members"][0]["devices"].as_array().map(Vec::len),
        Some(1)
    );

    // Each comes out alike again, also after the log was read anew.
    for made in [waits, stopped, granted] {
        let id = made["id"].to_string();
        let replay = platform.cli(&["decisions", "replay", &id, "--json"]).json();
        assert_eq!(replay["same"], true, "{replay:#}");
    }
    let id = granted["id"].to_string();
    let text = platform.cli(&["decisions", "replay", &id]);
    assert!(text.expect(0).contains("the same"));

    // A refused submit is kept too, once, and refused again.
    for key in ["a", "b"] {
        let refused = platform
            .http()
            .change(
                "POST",
                "/v1/runs",
                key,
                &json!({"spec": run("huge", "nlp", 64)}),
            )
            .expect("an answer");
        assert!(refused.status >= 400, "{}", refused.text());
    }
    let refusals = || -> Vec<Value> {
        let list = platform.cli(&["decisions", "list", "--json"]).json();
        let list = list["decisions"].as_array().cloned().unwrap_or_default();
        list.into_iter()
            .filter(|made| made["verdict"] == "refused")
            .collect()
    };
    let refused = eventually("the refusal is in the books", || {
        Some(refusals()).filter(|refused| !refused.is_empty())
    });
    assert_eq!(refused.len(), 1, "{refused:#?}");
    let id = refused[0]["id"].to_string();
    let replay = platform.cli(&["decisions", "replay", &id, "--json"]).json();
    assert_eq!(replay["same"], true, "{replay:#}");

    let unknown = platform.cli(&["decisions", "replay", "999999", "--json"]);
    assert_eq!(unknown.error(4)["code"], "not-found");
}
