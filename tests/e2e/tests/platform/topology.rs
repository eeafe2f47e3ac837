//! How devices are wired and which rack a node stands in, from the agent's flags to where runs land.

use platform_e2e::{Options, Platform};
use serde_json::{Value, json};

fn holds(platform: &Platform, key: &str, gpus: u32) -> Value {
    let run = platform.submit(
        key,
        &json!({
            "name": key,
            "command": ["sleep", "1000"],
            "gpus": gpus,
            "tags": {"team": "nlp"},
        }),
    );
    platform.wait_for(&run, &["running"])
}

fn indexes(platform: &Platform, run: &Value) -> Vec<u64> {
    let node = platform.cli(&["nodes", "list", "--json"]).json()["nodes"][0].clone();
    let devices = node["devices"].as_array().expect("devices");
    devices
        .iter()
        .filter(|device| {
            let runs = device["runs"].as_array().expect("runs");
            runs.contains(&run["id"])
        })
        .map(|device| device["index"].as_u64().expect("an index"))
        .collect()
}

#[test]
fn a_run_of_four_gpus_gets_one_nvlink_island_and_the_node_says_how_it_is_wired() {
    let platform = Platform::start_with(Options {
        devices: vec!["8xA100-80G/4".to_owned()],
        arguments: vec!["--rack".to_owned(), "r12".to_owned()],
        ..Options::default()
    });
    let one = holds(&platform, "one", 1);
    assert_eq!(indexes(&platform, &one), [0]);
    let four = holds(&platform, "four", 4);
    assert_eq!(indexes(&platform, &four), [4, 5, 6, 7], "the whole island");
    let two = holds(&platform, "two", 2);
    assert_eq!(indexes(&platform, &two), [1, 2], "the one that is begun");

    let node = four["attempts"][0]["members"][0]["node"].as_str();
    let name = node.expect("a node").to_owned();
    let shown = platform.cli(&["nodes", "show", &name]);
    let shown = shown.expect(0);
    assert!(shown.contains("rack") && shown.contains("r12"), "{shown}");
    assert!(shown.contains("NVLink 1"), "{shown}");
}
