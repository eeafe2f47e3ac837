//! What an owner is owed comes within its bound, whatever short runs would come in between.

use platform_e2e::Platform;
use serde_json::json;

#[test]
fn devices_that_come_free_are_kept_for_an_owner_until_those_who_borrow_the_rest_give_way() {
    let platform = Platform::with_devices(&["4xA100-80G"]);
    for tenant in ["nlp", "guests"] {
        platform.cli(&["tenants", "create", tenant]).expect(0);
    }
    platform
        .cli(&["quotas", "set", "nlp", "--gpus", "4"])
        .expect(0);
    platform
        .cli(&["policy", "set", "--minimum-run", "20s"])
        .expect(0);
    let submit = |name: &str, tenant: &str, gpus: u32| {
        platform.submit(
            name,
            &json!({
                "name": name,
                "command": ["sleep", "1000"],
                "gpus": gpus,
                "tenant": tenant,
                "tags": {"team": tenant},
            }),
        )
    };
    let (long, short) = (submit("long", "guests", 3), submit("short", "guests", 1));
    platform.wait_for(&long, &["running"]);
    platform.wait_for(&short, &["running"]);
    let owner = submit("owner", "nlp", 4);
    let late = submit("late", "guests", 1);
    platform.cli(&["stop", &short]).expect(0);
    platform.wait_for(&short, &["cancelled"]);
    let explained = platform.cli(&["runs", "explain", &late, "--json"]).json();
    assert_eq!(explained["tier"], "waiting-for-reserved", "{explained:#}");
    let reasons = explained["reasons"].to_string();
    assert!(
        reasons.contains("to which others give back what they borrow"),
        "{reasons}"
    );
    let explained = platform
        .cli(&["runs", "explain", &owner])
        .expect(0)
        .to_owned();
    assert!(
        explained.contains("as those who borrow there give way"),
        "{explained}"
    );
    platform.wait_for(&owner, &["running"]);
    assert_eq!(platform.run(&late)["state"], "queued");
    assert_eq!(platform.run(&long)["state"], "queued");
}
