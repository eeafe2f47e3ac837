//! The main job as a data scientist does it: three lines, `platform run`, watch, register, cost; and
//! every way in which a run can end.

use platform_e2e::{Platform, eventually};
use serde_json::{Value, json};

/// Plain Python with the SDK's three lines; no requirements, so the node's own python3.
const TRAIN: &str = r#"
import engineersofai_platform as platform

with platform.training_run(name="toy", tags={"project": "e2e"}) as run:
    run.log_params({"learning_rate": 0.5, "layers": 2})
    weight = 8.0
    for step in range(20):
        weight -= 0.5 * weight
        run.log_metrics({"loss": weight * weight}, step=step)
        run.log_progress(step + 1, 20)
        print(f"step {step} loss {weight * weight:.6f}")
    version = run.register_model({"weight": weight}, "toy-model", framework="pickle")
    print(f"registered {version.name} version {version.version}")
"#;

#[test]
fn three_lines_are_run_watched_tracked_registered_and_charged() {
    let platform = Platform::start();
    let folder = platform.code("toy", &[("train.py", TRAIN)]);
    let run = platform.cli_in(&folder, &["run", "--tag", "team=nlp", "train.py"]);
    let log = run.expect(0);
    assert!(log.contains("step 0 loss 16.000000"), "{log}");
    assert!(log.contains("step 19 loss"), "{log}");
    assert!(log.contains("registered toy-model version 1"), "{log}");
    assert!(run.stderr.contains("run-"), "{}", run.stderr);
    assert!(run.stderr.contains("simulated"), "{}", run.stderr);

    let list = platform.cli(&["runs", "list", "--json"]).json();
    let id = list["runs"][0]["id"].as_str().unwrap().to_owned();
    let shown = platform.http().get(&format!("/v1/runs/{id}"));
    assert_eq!(shown["state"], "succeeded", "{shown:#}");
    assert_eq!(shown["exit_code"], 0);
    assert_eq!(shown["simulated"], true);
    assert!(shown["gpu_us"].as_u64().unwrap() > 0);

    let tracked = eventually("everything logged is tracked", || {
        let tracked = platform
            .http()
            .send("GET", &format!("/v1/tracking/{id}"), None, b"")
            .ok()?
            .json();
        (tracked["status"] == "finished").then_some(tracked)
    });
    assert_eq!(tracked["params"]["learning_rate"], 0.5);
    assert_eq!(tracked["metrics"]["loss"]["count"], 20, "{tracked:#}");
    assert_eq!(tracked["tags"]["project"], "e2e");
    assert_eq!(
        tracked["tags"]["team"], "nlp",
        "the run's cost tags are the tracked run's tags"
    );
    assert_eq!(tracked["progress"], json!({"done": 20, "total": 20}));
    let series = platform.http().get(&format!(
        "/v1/tracking/{id}/metrics?key=loss&max_points=100"
    ));
    let losses: Vec<f64> = points(&series).iter().map(|point| point.1).collect();
    let mut weight = 8.0_f64;
    let expected: Vec<f64> = (0..20)
        .map(|_| {
            weight -= 0.5 * weight;
            weight * weight
        })
        .collect();
    assert_eq!(losses, expected, "bit for bit");

    let models = platform
        .cli(&["models", "show", "toy-model", "--json"])
        .json();
    assert_eq!(models["versions"][0]["version"], 1);
    assert_eq!(models["versions"][0]["run"], id.as_str());
    assert_eq!(models["versions"][0]["framework"], "pickle");

    let cost = platform.cli(&["cost", "--by", "team", "--json"]).json();
    let nlp = cost["rows"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["key"] == "nlp")
        .unwrap()
        .clone();
    assert_eq!(nlp["runs"], 1);
    assert_eq!(
        nlp["gpu_us"], shown["gpu_us"],
        "the report and the run agree to the microsecond"
    );
    assert_eq!(nlp["cost_micro"], shown["cost_micro"]);
    assert_eq!(cost["simulated"], true);
    let csv = platform.cli(&["cost", "--by", "team", "--format", "csv"]);
    assert!(csv.expect(0).contains("nlp"), "{}", csv.stdout);
    assert!(platform.cli(&["cost"]).expect(0).contains("nlp"));
}

/// Step and value of every point of a series.
pub fn points(series: &Value) -> Vec<(i64, f64)> {
    series["points"]
        .as_array()
        .unwrap_or_else(|| panic!("no points in {series}"))
        .iter()
        .map(|point| {
            (
                point["step"].as_i64().unwrap(),
                point["value"].as_f64().unwrap_or(f64::NAN),
            )
        })
        .collect()
}

#[test]
fn every_end_of_a_workload_has_its_exit_code_and_its_words() {
    let platform = Platform::start();
    let folder = platform.code("empty", &[("note.txt", "x")]);
    let run = |arguments: &[&str]| {
        let mut all = vec!["run", "--tag", "team=nlp"];
        all.extend_from_slice(arguments);
        platform.cli_in(&folder, &all)
    };
    run(&["--", "true"]).expect(0);
    run(&["--", "sh", "-c", "exit 7"]).expect(7);
    run(&["--", "sh", "-c", "kill -9 $$"]).expect(137);
    run(&["--", "sh", "-c", "kill -SEGV $$"]).expect(139);
    run(&["--time-limit", "1s", "--", "sleep", "100"]).expect(124);
    // A program that is not there is the user's error, said in words, never a lost run.
    let missing = run(&["--", "no-such-program-anywhere"]);
    assert!(missing.code != 0, "{missing:?}");
    assert!(
        missing.stderr.contains("no-such-program-anywhere"),
        "{missing:?}"
    );

    let states: Vec<(String, i64)> = platform.http().get("/v1/runs?limit=10")["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| {
            (
                run["state"].as_str().unwrap().to_owned(),
                run["client_exit_code"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(states.len(), 6);
    assert_eq!(
        states[1..],
        [
            ("failed", 124),
            ("failed", 139),
            ("failed", 137),
            ("failed", 7),
            ("succeeded", 0)
        ]
        .map(|(state, code)| (state.to_owned(), code))
    );
}

#[test]
fn retries_are_for_failures_and_every_attempt_is_kept() {
    let platform = Platform::start();
    platform
        .cli(&["policy", "set", "--retry-wait", "10ms"])
        .expect(0);
    let counter = platform.folder().join("tries");
    let script = format!(
        "echo x >> {0}; test $(wc -l < {0}) -ge 3",
        counter.display()
    );
    let run = platform.cli(&[
        "run",
        "--tag",
        "team=nlp",
        "--retries",
        "5",
        "--json",
        "-C",
        ".",
        "--detach",
        "--",
        "sh",
        "-c",
        &script,
    ]);
    let id = run.json()["run"]["id"].as_str().unwrap().to_owned();
    platform.cli(&["runs", "wait", &id]).expect(0);
    let shown = platform.run(&id);
    let attempts = shown["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 3, "{shown:#}");
    assert!(attempts.iter().all(|attempt| attempt["ended_us"].is_u64()));
}

#[test]
fn a_detached_run_is_waited_for_cancelled_and_looked_at_by_json() {
    let platform = Platform::start();
    let folder = platform.code(
        "work",
        &[("loop.sh", "echo started; while :; do sleep 1; done\n")],
    );
    let submit = |name: &str| {
        let run = platform.cli_in(
            &folder,
            &[
                "run", "--detach", "--json", "--tag", "team=nlp", "--name", name, "loop.sh",
            ],
        );
        run.json()["run"]["id"].as_str().unwrap().to_owned()
    };
    let id = submit("loops");
    platform.wait_for(&id, &["running"]);
    platform
        .cli(&["runs", "wait", "--timeout", "300ms", &id])
        .expect(6);
    let refused = platform.cli(&["stop", &id, "--dry-run", "--json"]);
    assert!(refused.expect(0).contains(&id), "{refused:?}");
    assert_eq!(platform.run(&id)["state"], "running");

    let follow = platform
        .command(&["logs", "-f", &id])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    platform
        .cli(&["stop", &id, "--yes", "--reason", "seen enough"])
        .expect(0);
    let followed = follow.wait_with_output().unwrap();
    assert_eq!(followed.status.code(), Some(143), "cancelled");
    assert_eq!(String::from_utf8_lossy(&followed.stdout), "started\n");
    let shown = platform.wait_for_end(&id);
    assert_eq!(
        (shown["state"].as_str(), shown["client_exit_code"].as_i64()),
        (Some("cancelled"), Some(143))
    );
    platform.cli(&["runs", "wait", &id]).expect(143);

    // A queued run is cancelled before it starts: no attempt, no cost.
    let big = |name: &str| {
        platform.submit(
            name,
            &json!({"name": name, "command": ["sleep", "1000"], "gpus": 8, "tags": {"team": "nlp"}}),
        )
    };
    let (first, second) = (big("first"), big("second"));
    platform.wait_for(&first, &["running"]);
    let explained = platform.cli(&["runs", "explain", &second, "--json"]).json();
    assert_eq!(explained["tier"], "waiting-for-capacity", "{explained:#}");
    assert!(platform.cli(&["runs", "explain", &second]).expect(0).len() > 10);
    platform.cli(&["stop", &second, "--yes"]).expect(0);
    let shown = platform.wait_for_end(&second);
    assert_eq!(shown["attempts"], json!([]));
    assert_eq!(shown["gpu_us"], 0);
    platform.cli(&["stop", &first, "--yes"]).expect(0);
    platform.wait_for_end(&first);

    for arguments in [
        vec!["runs", "list"],
        vec!["ps"],
        vec!["runs", "show", &id],
        vec!["runs", "explain", &id],
        vec!["runs", "compare", &id, &first],
        vec!["nodes", "list"],
        vec!["pools", "list"],
        vec!["pools", "show", "default"],
        vec!["tenants", "list"],
        vec!["quotas", "list"],
        vec!["policy", "show"],
        vec!["tokens", "list"],
        vec!["models", "list"],
        vec!["artifacts", "list", &id],
        vec!["cost"],
        vec!["whoami"],
    ] {
        let plain = platform.cli(&arguments);
        plain.expect(0);
        let mut with_json = arguments.clone();
        with_json.push("--json");
        platform.cli(&with_json).json();
    }
    let node = platform.cli(&["nodes", "list", "--json"]).json();
    let node = node["nodes"][0]["name"].as_str().unwrap().to_owned();
    assert!(
        platform
            .cli(&["nodes", "show", &node])
            .expect(0)
            .contains("simulated")
    );
}

#[test]
fn an_attached_run_with_json_prints_one_document_a_line() {
    let platform = Platform::start();
    let folder = platform.code("toy", &[("train.py", TRAIN)]);
    let run = platform.cli_in(&folder, &["run", "--json", "--tag", "team=nlp", "train.py"]);
    let lines: Vec<Value> = run
        .expect(0)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(lines.len() >= 2, "{lines:?}");
    assert!(lines[0]["run"]["id"].is_string(), "the submit comes first");
}

#[test]
fn a_dry_run_shows_the_plan_and_submits_nothing() {
    let platform = Platform::start();
    let folder = platform.code("toy", &[("train.py", TRAIN)]);
    let plan = platform
        .cli_in(
            &folder,
            &[
                "run",
                "--dry-run",
                "--json",
                "--gpus",
                "2",
                "--tag",
                "team=nlp",
                "train.py",
            ],
        )
        .json();
    assert!(plan.get("run").is_none_or(Value::is_null), "{plan:#}");
    assert_eq!(plan["starts_now"], true);
    assert_eq!(plan["simulated"], true);
    assert_eq!(plan["price_per_hour_micro"], 5_000_000);
    let text = platform.cli_in(
        &folder,
        &["run", "--dry-run", "--tag", "team=nlp", "train.py"],
    );
    text.expect(0);
    assert!(text.stderr.contains("nothing was submitted"), "{text:?}");
    assert_eq!(platform.http().get("/v1/runs")["runs"], json!([]));
}

#[test]
fn runs_are_compared_and_their_artifacts_come_back_as_they_were() {
    let platform = Platform::start();
    let script = r#"
import os, sys
import engineersofai_platform as platform
with platform.training_run() as run:
    run.log_params({"rate": float(sys.argv[1])})
    run.log_metrics({"score": float(sys.argv[1]) * 2})
    os.makedirs("plots", exist_ok=True)
    open("plots/loss.bin", "wb").write(bytes(range(256)) * 1000)
    run.log_artifact("plots")
"#;
    let folder = platform.code("compared", &[("train.py", script)]);
    let ids: Vec<String> = ["0.25", "0.75"]
        .map(|rate| {
            let run = platform.cli_in(
                &folder,
                &[
                    "run", "--detach", "--json", "--tag", "team=nlp", "train.py", rate,
                ],
            );
            run.json()["run"]["id"].as_str().unwrap().to_owned()
        })
        .into();
    platform.cli(&["runs", "wait", &ids[0], &ids[1]]).expect(0);
    for id in &ids {
        eventually("tracking is complete", || {
            let tracked = platform
                .http()
                .send("GET", &format!("/v1/tracking/{id}"), None, b"")
                .ok()?
                .json();
            (tracked["status"] == "finished").then_some(())
        });
    }
    let compared = platform.cli(&["runs", "compare", &ids[0], &ids[1]]);
    let text = compared.expect(0);
    assert!(
        text.contains("0.25") && text.contains("0.75") && text.contains("1.5"),
        "{text}"
    );
    let to = platform.folder().join("fetched");
    platform
        .cli(&[
            "artifacts",
            "download",
            &ids[0],
            "--to",
            &to.display().to_string(),
        ])
        .expect(0);
    assert_eq!(
        std::fs::read(to.join("plots/loss.bin")).unwrap(),
        (0..=255).collect::<Vec<u8>>().repeat(1000)
    );
}

#[test]
fn a_second_run_of_an_unchanged_folder_sends_nothing_and_starts_within_two_seconds() {
    let platform = Platform::start();
    let folder = platform.code("toy", &[("train.py", "print('hello')\n")]);
    let arguments = ["run", "--quiet", "--tag", "team=nlp", "train.py"];
    platform.cli_in(&folder, &arguments).expect(0);
    let started = std::time::Instant::now();
    assert_eq!(platform.cli_in(&folder, &arguments).expect(0), "hello\n");
    let took = started.elapsed();
    assert!(took.as_secs_f64() < 2.0, "{took:?}");
    let runs = platform.http().get("/v1/runs");
    assert_eq!(
        runs["runs"][0]["spec"]["source_sha256"],
        runs["runs"][1]["spec"]["source_sha256"]
    );
}
