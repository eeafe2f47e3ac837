//! `platform run --dev`: here and now, without a platform, and the workload cannot tell the difference.

use platform_e2e::{Options, Platform};
use std::collections::BTreeMap;

const SHOW: &str = r#"
import json, os
names = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PYTHONUNBUFFERED", "CUDA_VISIBLE_DEVICES", "MINE"]
print(json.dumps({k: v for k, v in os.environ.items() if k.startswith("PLATFORM_") or k in names}))
import engineersofai_platform
"#;

/// Without GPUs, because the machine that this runs on has none to give to the dev run.
#[test]
fn a_dev_run_sees_the_same_variables_as_a_run_on_the_platform() {
    let platform = Platform::start();
    let folder = platform.code("work", &[("show.py", SHOW)]);
    let variables = |more: &[&str]| -> BTreeMap<String, String> {
        let flags = [
            "run", "--tag", "team=nlp", "--name", "same", "--model", "bert", "--env", "MINE=yes",
            "--gpus", "0",
        ];
        let run = platform.cli_in(&folder, &[&flags, more, &["show.py"]].concat());
        let line = run
            .expect(0)
            .lines()
            .find(|line| line.starts_with('{'))
            .unwrap_or_else(|| panic!("{run:?}"));
        serde_json::from_str(line).unwrap()
    };
    let there = variables(&[]);
    let here = variables(&["--dev"]);
    let sender = "PLATFORM_SENDER".to_owned();
    let mut names: Vec<&String> = there.keys().filter(|name| **name != sender).collect();
    // Where to find the server is the laptop's own business, and the binary that of the tests.
    let own = [
        "PLATFORM_HOME",
        "PLATFORM_URL",
        "PLATFORM_TOKEN",
        "PLATFORM_BINARY",
    ];
    names.retain(|name| !own.contains(&name.as_str()));
    let dev: Vec<&String> = here
        .keys()
        .filter(|name| !own.contains(&name.as_str()))
        .collect();
    assert_eq!(dev, names);
    assert!(!here.contains_key(&sender) && there[&sender] == "agent");
    for name in [
        "PLATFORM_RUN_NAME",
        "PLATFORM_TAGS",
        "PLATFORM_ATTEMPT",
        "PLATFORM_MODEL",
        "RANK",
        "WORLD_SIZE",
        "MINE",
        "PYTHONUNBUFFERED",
    ] {
        assert_eq!(here[name], there[name], "{name}");
    }
    assert!(here["PLATFORM_RUN_ID"].starts_with("dev-"), "{here:?}");
    assert_eq!(there["PLATFORM_RUN_ID"], "run-1");
}

#[test]
fn a_cap_that_was_asked_for_is_told_to_a_dev_run_also_where_no_gpu_is() {
    let platform = Platform::prepare(Options::default());
    let folder = platform.code("work", &[("show.py", SHOW)]);
    let cap = |flags: &[&str]| {
        let all = [&["run", "--dev", "--tag", "team=nlp"], flags, &["show.py"]].concat();
        let run = platform.cli_in(&folder, &all);
        let line = run.expect(0).lines().find(|line| line.starts_with('{'));
        let variables: BTreeMap<String, String> = serde_json::from_str(line.unwrap()).unwrap();
        variables.get("PLATFORM_GPU_MEMORY_MIB").cloned()
    };
    let asked = cap(&["--gpus", "1", "--gpu-memory", "2G"]);
    assert_eq!(asked.as_deref(), Some("2048"));
    assert_eq!(cap(&["--gpus", "1"]), None);
}

#[test]
fn a_dev_run_needs_no_platform_at_all_and_passes_the_exit_code_on() {
    let platform = Platform::prepare(Options::default());
    let script = r#"
import engineersofai_platform as platform
with platform.training_run() as run:
    run.log_metrics({"loss": 1.0})
raise SystemExit(7)
"#;
    let folder = platform.code("work", &[("train.py", script)]);
    let run = platform.cli_in(&folder, &["run", "--dev", "--tag", "team=nlp", "train.py"]);
    assert_eq!(run.code, 7, "{run:?}");
    let run = platform.cli_in(
        &folder,
        &[
            "run",
            "--dev",
            "--tag",
            "team=nlp",
            "--",
            "sh",
            "-c",
            "kill -9 $$",
        ],
    );
    assert_eq!(run.code, 137, "{run:?}");
}
