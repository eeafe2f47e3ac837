//! A run in a container, end to end. The images are built by `tests/images/build`, never pulled.

use crate::retries::SAVES_WHEN_WARNED;
use platform_e2e::platform::finish;
use platform_e2e::{Platform, skip};
use std::process::Command;

const IMAGE: &str = "platform-test/python:1";

/// A platform whose node runs containers, and the image to run; otherwise the test is skipped by name.
fn with_engine(name: &str) -> Option<Platform> {
    let builder = concat!(env!("CARGO_MANIFEST_DIR"), "/../images/build");
    let built = finish(&mut Command::new(builder));
    if built.code != 0 {
        skip(name, built.stderr.lines().last().unwrap_or("no image"));
        return None;
    }
    let platform = Platform::start();
    let node = platform.http().get("/v1/nodes");
    let runtimes = node["nodes"][0]["runtimes"].as_array().unwrap().clone();
    if !runtimes.iter().any(|runtime| runtime == "docker") {
        skip(name, "the node offers no docker runtime");
        return None;
    }
    Some(platform)
}

#[test]
fn a_container_that_asked_for_it_is_warned_before_its_time_limit_and_saves() {
    let Some(platform) = with_engine("e2e a_container_that_asked_for_it_is_warned") else {
        return;
    };
    let folder = platform.code("warned", &[("train.py", SAVES_WHEN_WARNED)]);
    let run = platform.cli_in(
        &folder,
        &[
            "run",
            "--tag",
            "team=nlp",
            "--image",
            IMAGE,
            "--time-limit",
            "600s",
            "--warn-before",
            "597s:usr2",
            "train.py",
        ],
    );
    assert!(run.expect(0).contains("warned by SIGUSR2"), "{run:?}");
}

#[test]
fn a_run_with_an_image_is_logged_tracked_and_exits_as_a_process_does() {
    let Some(platform) = with_engine("e2e a_run_with_an_image") else {
        return;
    };
    let script = r#"
import os
import engineersofai_platform as platform
with platform.training_run() as run:
    run.log_metrics({"loss": 0.25})
print("inside", os.environ["PLATFORM_RUN_ID"], os.path.exists("/.dockerenv"))
raise SystemExit(9)
"#;
    let folder = platform.code("contained", &[("train.py", script)]);
    let run = platform.cli_in(
        &folder,
        &["run", "--tag", "team=nlp", "--image", IMAGE, "train.py"],
    );
    assert_eq!(run.code, 9, "{run:?}");
    assert!(run.stdout.contains("inside run-1 True"), "{run:?}");
    let tracked = platform_e2e::eventually("tracking is complete", || {
        let tracked = platform.http().get("/v1/tracking/run-1");
        (tracked["status"] != "running").then_some(tracked)
    });
    assert_eq!(tracked["metrics"]["loss"]["value"], 0.25, "{tracked:#}");
    let stopped = platform.cli(&[
        "run",
        "--tag",
        "team=nlp",
        "--image",
        IMAGE,
        "--time-limit",
        "2s",
        "--",
        "sleep",
        "100",
    ]);
    assert_eq!(stopped.code, 124, "{stopped:?}");
    let missing = platform.cli(&[
        "run",
        "--tag",
        "team=nlp",
        "--image",
        "platform-test/none:9",
        "--",
        "true",
    ]);
    assert_ne!(missing.code, 0, "{missing:?}");
    assert!(
        missing.stderr.contains("platform-test/none:9"),
        "{missing:?}"
    );
}
