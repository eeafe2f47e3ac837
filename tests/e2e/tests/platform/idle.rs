//! Runs that leave their devices idle, with simulated devices whose readings a file says: warned with what
//! it costs, justified, and stopped with time to save.

use platform_e2e::Platform;
use platform_e2e::platform::Options;
use platform_e2e::wait::eventually;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// Two devices, and the file that says how much they are used.
fn start() -> (Platform, PathBuf) {
    let platform = Platform::start_with(Options {
        devices: vec!["2xA100-80G".to_owned()],
        arguments: vec![
            "--simulated-readings".to_owned(),
            "../readings.json".to_owned(),
        ],
        ..Options::default()
    });
    // Commands start in a folder within the test's own.
    let readings = platform.folder().join("readings.json");
    (platform, readings)
}

fn idle_run(platform: &Platform, name: &str, script: &str) -> String {
    let run = platform.submit(
        name,
        &json!({
            "name": name,
            "command": ["sh", "-c", script],
            "gpus": 1,
            "tags": {"team": "nlp"},
        }),
    );
    platform.wait_for(&run, &["running"]);
    run
}

fn warned(platform: &Platform, run: &str) -> Value {
    eventually("the run is warned", || {
        let run = platform.run(run);
        run["idle"]["warned_us"].is_u64().then_some(run)
    })
}

#[test]
fn an_idle_run_is_warned_with_its_cost_and_stopped_unless_it_is_used_or_justified() {
    let (platform, readings) = start();
    // Dear enough that a few seconds are seen in cents.
    platform
        .cli(&[
            "policy",
            "set",
            "--price",
            "A100-80G=9000",
            "--idle-warn-after",
            "1s",
            "--idle-stop-after",
            "12s",
            "--longest-justification",
            "1h",
        ])
        .expect(0);
    let saved = platform.folder().join("saved");
    let saves = format!(
        "trap 'touch {}; exit 9' TERM; while :; do sleep 0.1; done",
        saved.display()
    );
    let forgotten = idle_run(&platform, "forgotten", &saves);
    let shown = idle_run(&platform, "shown", "sleep 1000");

    // Nothing is read, so nothing idles; then all is idle.
    assert_eq!(platform.run(&shown)["idle"], Value::Null);
    fs::write(
        &readings,
        r#"{"*": {"used_percent": 0, "memory_used_mib": 450}}"#,
    )
    .expect("written");
    let warning = warned(&platform, &shown);
    let detail = warning["detail"].as_str().unwrap_or_default();
    assert!(
        detail.starts_with("its GPUs idle since ")
            && detail.contains(" USD until now; stopped at "),
        "{detail}"
    );
    assert!(warning["idle"]["cost_micro"].as_u64().unwrap_or(0) > 0);

    let justified = platform
        .cli(&[
            "runs",
            "justify",
            &shown,
            "--reason",
            "a customer looks at it",
            "--json",
        ])
        .json();
    let justification = &justified["justification"];
    assert_eq!(justification["reason"], "a customer looks at it");
    assert!(
        justification["by"]
            .as_str()
            .unwrap_or_default()
            .starts_with("user:")
    );
    let explained = platform.cli(&["runs", "explain", &shown]);
    assert!(
        explained.expect(0).contains(": a customer looks at it"),
        "{}",
        explained.expect(0)
    );
    let refused = platform
        .cli(&[
            "runs", "justify", &shown, "--reason", "for ever", "--for", "2h", "--json",
        ])
        .error(5);
    assert!(refused.to_string().contains("up to 60 min"), "{refused}");

    let ended = platform.wait_for_end(&forgotten);
    assert_eq!(ended["state"], "cancelled", "{ended:#}");
    let detail = ended["detail"].as_str().unwrap_or_default();
    assert!(
        detail.starts_with("cancelled by the policy of idle devices: its devices idled for ")
            && detail.contains(", which cost "),
        "{detail}"
    );
    assert!(
        saved.exists(),
        "it was given its signal and its time to save"
    );
    assert_eq!(
        ended["attempts"].as_array().map(Vec::len),
        Some(1),
        "not queued again"
    );

    let listed = platform.cli(&["runs", "list"]);
    assert!(
        listed.expect(0).contains(", idle: "),
        "{}",
        listed.expect(0)
    );
    assert_eq!(platform.run(&shown)["state"], "running", "justified");
    // Memory that is half full is use, whatever the compute does.
    fs::write(
        &readings,
        r#"{"*": {"used_percent": 0, "memory_used_mib": 41000}}"#,
    )
    .expect("written");
    eventually("the run is in use again", || {
        (platform.run(&shown)["idle"] == Value::Null).then_some(())
    });
}
