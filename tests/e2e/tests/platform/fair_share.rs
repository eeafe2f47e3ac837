//! Turns by what tenants held of late, from the policy to who starts next.

use platform_e2e::{Platform, eventually};
use serde_json::json;

#[test]
fn who_held_the_device_of_late_goes_second_and_is_told_why() {
    let platform = Platform::with_devices(&["1xA100-80G"]);
    for tenant in ["ads", "nlp"] {
        platform.cli(&["tenants", "create", tenant]).expect(0);
    }
    platform
        .cli(&["policy", "set", "--fair-share-half-life", "10s"])
        .expect(2);
    platform
        .cli(&["policy", "set", "--fair-share-half-life", "1m"])
        .expect(0);
    let policy = platform.cli(&["policy", "show", "--json"]).json();
    assert_eq!(policy["fair_share_half_life_ms"], 60_000, "{policy:#}");
    let submit = |name: &str, tenant: &str| {
        platform.submit(
            name,
            &json!({
                "name": name,
                "command": ["sh", "-c", "sleep 1; echo held for a second; sleep 1000"],
                "gpus": 1,
                "tenant": tenant,
                "tags": {"team": tenant},
            }),
        )
    };
    let holder = submit("holder", "ads");
    platform.wait_for(&holder, &["running"]);
    let (first, second) = (submit("first", "ads"), submit("second", "nlp"));
    let explained = platform.cli(&["runs", "explain", &first, "--json"]).json();
    let position = &explained["outlook"]["position"];
    assert_eq!(position["turn"], 2, "{explained:#}");
    let why = position["why"].as_str().unwrap_or_default();
    assert!(
        why.starts_with(
            "nlp goes first: nlp holds 0 and held 0 of late, and ads holds 1 and held "
        ),
        "{why}"
    );
    assert!(
        platform
            .cli(&["runs", "explain", &first])
            .expect(0)
            .contains("nlp goes first: ")
    );
    // A past is counted in thousandths of devices: what was held for less than that is none.
    eventually("the holder has a past", || {
        let log = platform.cli(&["runs", "logs", &holder]);
        log.stdout.contains("held for a second").then_some(())
    });
    // Once it has given it back neither holds anything, and the one that was submitted first has a past.
    platform.cli(&["stop", &holder]).expect(0);
    platform.wait_for(&second, &["running"]);
    assert_eq!(platform.run(&first)["state"], "queued");
    let quotas = platform.cli(&["quotas", "show", "ads", "--json"]).json();
    let ads = &quotas["quotas"][0];
    assert_eq!(ads["used_milli"], 0, "{ads:#}");
    assert!(ads["recent_milli"].as_u64() > Some(0), "{ads:#}");
    assert!(
        platform
            .cli(&["quotas", "show"])
            .expect(0)
            .contains("OF LATE")
    );
}
