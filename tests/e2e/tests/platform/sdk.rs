//! The SDK outside the platform: against the server, without one, and the seed snippet as it stands.

use platform_e2e::platform::finish;
use platform_e2e::{Finished, Options, Platform, eventually};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn sdk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/python")
}

/// python3 with the SDK, as on a laptop.
fn python(
    platform: &Platform,
    folder: &Path,
    script: &str,
    environment: &[(&str, &str)],
) -> Finished {
    let mut command = Command::new("python3");
    command
        .arg(script)
        .current_dir(folder)
        .env("PYTHONPATH", sdk())
        .env("PLATFORM_HOME", platform.home());
    for name in [
        "PLATFORM_URL",
        "PLATFORM_TOKEN",
        "PLATFORM_SPOOL",
        "PLATFORM_RUN_ID",
    ] {
        command.env_remove(name);
    }
    finish(command.envs(environment.iter().copied()))
}

fn tracked(platform: &Platform) -> Vec<Value> {
    platform.http().get("/v1/tracking")["runs"]
        .as_array()
        .unwrap()
        .clone()
}

const LOGS: &str = r#"
import engineersofai_platform as platform
with platform.training_run(name="laptop", tags={"team": "nlp"}) as run:
    for step in range(50):
        run.log_metrics({"loss": 1.0 / (step + 1)}, step=step)
    version = run.register_model([1, 2, 3], "laptop-model", framework="pickle", wait_seconds=5)
print("version", version.version)
"#;

#[test]
fn a_script_on_a_laptop_logs_to_the_server_it_is_told_of() {
    let platform = Platform::start();
    let folder = platform.code("laptop", &[("train.py", LOGS)]);
    let created = platform
        .cli(&["tokens", "create", "--user", "ada", "--json"])
        .json();
    let token = created["secret"].as_str().unwrap();
    let url = platform.url();
    let elsewhere = platform.folder().join("elsewhere").display().to_string();
    let ran = python(
        &platform,
        &folder,
        "train.py",
        &[
            ("PLATFORM_URL", &url),
            ("PLATFORM_TOKEN", token),
            ("PLATFORM_HOME", &elsewhere),
        ],
    );
    assert!(ran.expect(0).contains("version 1"), "{ran:?}");
    let runs = tracked(&platform);
    assert_eq!(runs.len(), 1);
    assert_eq!(
        (runs[0]["name"].as_str(), runs[0]["user"].as_str()),
        (Some("laptop"), Some("ada"))
    );
    assert_eq!(runs[0]["status"], "finished");
    let shown = platform.http().get(&format!(
        "/v1/tracking/{}",
        runs[0]["run"].as_str().unwrap()
    ));
    assert_eq!(shown["metrics"]["loss"]["count"], 50);
    assert!(
        platform
            .cli(&["runs", "list", "--tracked"])
            .expect(0)
            .contains("laptop")
    );
}

#[test]
fn what_is_logged_without_a_server_is_sent_later_by_sync() {
    let mut platform = Platform::prepare(Options::default());
    let folder = platform.code("laptop", &[("train.py", LOGS)]);
    let ran = python(&platform, &folder, "train.py", &[]);
    ran.expect(0);
    let before = platform.cli(&["sync", "--dry-run"]);
    assert_ne!(before.code, 101, "{before:?}");
    platform.launch();
    platform.ready();
    assert_eq!(tracked(&platform).len(), 0);
    let dry = platform.cli(&["sync", "--dry-run"]);
    dry.expect(0);
    assert_eq!(tracked(&platform).len(), 0, "a dry run sends nothing");
    platform.cli(&["sync"]).expect(0);
    let runs = tracked(&platform);
    assert_eq!(runs.len(), 1, "{runs:#?}");
    let path = format!("/v1/tracking/{}", runs[0]["run"].as_str().unwrap());
    assert_eq!(platform.http().get(&path)["metrics"]["loss"]["count"], 50);
    platform.cli(&["sync"]).expect(0);
    assert_eq!(
        platform.http().get(&path)["metrics"]["loss"]["count"],
        50,
        "sent twice is stored once"
    );
    assert_eq!(
        platform.http().get("/v1/models/laptop-model")["versions"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_server_that_dies_in_the_middle_loses_nothing_and_slows_nothing() {
    let mut platform = Platform::start();
    let go = platform.folder().join("go");
    let begun = platform.folder().join("begun");
    let script = format!(
        r#"
import os, time
import engineersofai_platform as platform
with platform.training_run(name="survivor") as run:
    for step in range(100):
        run.log_metrics({{"loss": step}}, step=step)
    open({begun:?}, "w").close()
    while not os.path.exists({go:?}):
        time.sleep(0.02)
    started = time.perf_counter()
    for step in range(100, 200):
        run.log_metrics({{"loss": step}}, step=step)
    print("took", time.perf_counter() - started < 0.5)
"#
    );
    let folder = platform.code("laptop", &[("train.py", &script)]);
    std::thread::scope(|scope| {
        let platform = &mut platform;
        let environment = [("PLATFORM_DRAIN_SECONDS", "1")];
        let running = {
            let home = platform.home();
            let folder = folder.clone();
            scope.spawn(move || {
                let mut command = Command::new("python3");
                command
                    .arg("train.py")
                    .current_dir(&folder)
                    .env("PYTHONPATH", sdk())
                    .env("PLATFORM_HOME", home);
                finish(command.envs(environment))
            })
        };
        eventually("the script has begun", || begun.exists().then_some(()));
        platform.kill();
        std::fs::write(&go, "").unwrap();
        let ran = running.join().unwrap();
        assert!(ran.expect(0).contains("took True"), "{ran:?}");
        platform.launch();
        platform.ready();
    });
    platform.cli(&["sync"]).expect(0);
    let runs = tracked(&platform);
    assert_eq!(runs.len(), 1);
    let path = format!(
        "/v1/tracking/{}/metrics?key=loss&max_points=1000",
        runs[0]["run"].as_str().unwrap()
    );
    let expected: Vec<(i64, f64)> = (0..200).map(|step| (step, step as f64)).collect();
    assert_eq!(
        crate::main_job::points(&platform.http().get(&path)),
        expected
    );
}

/// The snippet of the product's page, character for character; around it only what it takes as given.
const SEED: &str = r#"import engineersofai_platform as platform

with platform.training_run(
    name="bert-finetuning",
    tags={"team": "nlp", "project": "document-classifier"},
) as run:
    model = train_bert(config)
    run.log_metrics({"val_accuracy": 0.91})
    run.register_model(model, "document-classifier")
"#;

/// A stand-in `train_bert` that trains a real small model: a perceptron on a linearly separable set,
/// marked as picklable the way a user's own class is.
const BEFORE: &str = r#"
import random
import engineersofai_platform


@engineersofai_platform.model
class Perceptron:
    def __init__(self):
        self.weights = [0.0, 0.0, 0.0]

    def predict(self, x, y):
        return 1 if self.weights[0] * x + self.weights[1] * y + self.weights[2] > 0 else -1


def train_bert(config):
    rows = random.Random(config["seed"])
    data = [(x, y, 1 if x + 2 * y > 0.1 else -1) for x, y in ((rows.uniform(-1, 1), rows.uniform(-1, 1)) for _ in range(200))]
    model = Perceptron()
    for _ in range(config["epochs"]):
        for x, y, label in data:
            if model.predict(x, y) != label:
                model.weights = [w + label * v for w, v in zip(model.weights, (x, y, 1.0))]
    assert sum(model.predict(x, y) == label for x, y, label in data) > 180
    return model


config = {"seed": 7, "epochs": 50}
"#;

#[test]
fn the_seed_snippet_runs_verbatim_on_the_platform_and_on_a_laptop() {
    let platform = Platform::start();
    let script = format!("{BEFORE}\n{SEED}");
    let folder = platform.code("seed", &[("train.py", &script)]);
    platform
        .cli_in(&folder, &["run", "--tag", "team=nlp", "train.py"])
        .expect(0);
    let model = eventually("the model is registered", || {
        let reply = platform
            .http()
            .send("GET", "/v1/models/document-classifier", None, b"")
            .ok()?;
        (reply.status == 200).then(|| reply.json())
    });
    assert_eq!(model["versions"][0]["run"], "run-1", "{model:#}");
    let tracked = eventually("tracking is complete", || {
        let tracked = platform.http().get("/v1/tracking/run-1");
        (tracked["status"] == "finished").then_some(tracked)
    });
    assert_eq!(tracked["name"], "bert-finetuning");
    assert_eq!(tracked["metrics"]["val_accuracy"]["value"], 0.91);
    python(&platform, &folder, "train.py", &[]).expect(0);
    assert_eq!(
        platform.http().get("/v1/models/document-classifier")["versions"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}
