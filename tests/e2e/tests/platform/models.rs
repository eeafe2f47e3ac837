//! Quota of single GPU models, from the command line to real processes that are told to stop.

use crate::guardrails::refused;
use platform_e2e::Platform;
use serde_json::{Value, json};

fn start() -> Platform {
    let platform = Platform::with_devices(&["4xA100-80G", "4xT4-16G"]);
    for tenant in ["nlp", "guests"] {
        platform.cli(&["tenants", "create", tenant]).expect(0);
    }
    platform
        .cli(&["policy", "set", "--minimum-run", "1ms"])
        .expect(0);
    platform
}

fn submit(platform: &Platform, tenant: &str, model: Option<&str>, gpus: u32) -> String {
    let name = format!("{tenant}-{}", model.unwrap_or("any"));
    platform.submit(
        &format!("{name}-{gpus}"),
        &json!({
            "name": name,
            "command": ["sleep", "1000"],
            "gpus": gpus,
            "gpu_model": model,
            "tenant": tenant,
            "tags": {"team": tenant},
        }),
    )
}

/// The line of a tenant for one model.
fn line(platform: &Platform, tenant: &str, model: &str) -> Value {
    let list = platform.cli(&["quotas", "show", tenant, "--json"]).json();
    list["quotas"]
        .as_array()
        .expect("lines")
        .iter()
        .find(|line| line["model"] == model)
        .cloned()
        .unwrap_or_default()
}

#[test]
fn an_owner_takes_back_its_model_and_who_holds_another_goes_on() {
    let platform = start();
    let other = submit(&platform, "guests", Some("T4"), 4);
    let borrower = submit(&platform, "guests", Some("A100"), 4);
    for run in [&other, &borrower] {
        platform.wait_for(run, &["running"]);
    }
    let set = ["quotas", "set", "nlp", "--model", "A100-80G", "--gpus", "3"];
    let dry = platform.cli(&[&set[..], &["--dry-run"]].concat());
    let dry = dry.expect(0);
    assert!(dry.contains("A100-80G"), "{dry}");
    assert_eq!(line(&platform, "nlp", "A100-80G"), Value::Null, "{dry}");
    platform
        .cli(&[&set[..], &["--limit", "3", "--lend", "2"]].concat())
        .expect(0);
    let borrowed = line(&platform, "guests", "A100-80G");
    assert_eq!(
        (&borrowed["used_milli"], &borrowed["borrowed_milli"]),
        (&json!(4000), &json!(4000)),
        "{borrowed:#}"
    );
    assert_eq!(line(&platform, "nlp", "A100-80G")["lent_milli"], 3000);

    // A run that takes any model has the one that it is owed.
    let owner = submit(&platform, "nlp", None, 3);
    platform.wait_for(&owner, &["running"]);
    assert_eq!(platform.run(&borrower)["state"], "queued");
    assert_eq!(platform.run(&other)["state"], "running");
    let own = line(&platform, "nlp", "A100-80G");
    assert_eq!(
        (&own["used_milli"], &own["borrowed_milli"]),
        (&json!(3000), &json!(0)),
        "{own:#}"
    );

    let above = submit(&platform, "nlp", Some("A100"), 1);
    let explained = platform.cli(&["runs", "explain", &above]);
    let explained = explained.expect(0);
    for words in [
        "tenant nlp holds 3 of its limit of 3 GPUs of A100-80G in pool default",
        "quotas set nlp --pool default --model A100-80G",
    ] {
        assert!(explained.contains(words), "{words:?} not in: {explained}");
    }
    platform.cli(&["stop", &other, "--yes"]).expect(0);
    platform.wait_for_end(&other);
    let explained = platform.cli(&["runs", "explain", &above]);
    let explained = explained.expect(0);
    assert!(explained.contains("--gpu-model T4-16G"), "{explained}");

    platform
        .cli(&["quotas", "set", "nlp", "--model", "A100-80G", "--remove"])
        .expect(0);
    platform.wait_for(&above, &["running"]);
}

#[test]
fn a_line_for_a_model_that_the_pool_has_not_or_not_so_many_of_is_refused() {
    let platform = start();
    let set = |model: &str, gpus: &str| {
        platform.cli(&["quotas", "set", "nlp", "--model", model, "--gpus", gpus])
    };
    refused(
        &set("H100-80G", "1"),
        5,
        &["H100-80G", "A100-80G, T4-16G", "platform nodes list"],
    );
    refused(
        &set("A100-80G", "5"),
        5,
        &[
            "5 GPUs for nlp is more than A100-80G in pool default can guarantee: it has 4",
            "0 to 4 GPUs",
        ],
    );
    set("A100-80G", "4").expect(0);
}
