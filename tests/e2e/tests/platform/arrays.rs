//! Runs that belong together, from the command line to real processes: those that follow others, arrays
//! and sweeps.

use crate::guardrails::refused;
use platform_e2e::platform::finish;
use platform_e2e::{Platform, eventually};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Submits with `platform run --detach` and answers the run's id.
#[track_caller]
fn detach(platform: &Platform, folder: &Path, arguments: &[&str]) -> String {
    let arguments = [&["run", "--detach", "--tag", "team=nlp"], arguments].concat();
    platform
        .cli_in(folder, &arguments)
        .expect(0)
        .trim()
        .to_owned()
}

/// A run that holds until a file appears, and then exits with this code.
fn until_let_go(platform: &Platform, key: &str, code: i32) -> (String, std::path::PathBuf) {
    let gate = platform.folder().join(format!("let-go-{key}"));
    let script = format!(
        "while [ ! -e '{}' ]; do sleep 0.05; done; exit {code}",
        gate.display()
    );
    let run = platform.submit(
        key,
        &json!({"name": key, "command": ["sh", "-c", script], "gpus": 0, "tags": {"team": "nlp"}}),
    );
    (run, gate)
}

fn explained(platform: &Platform, run: &str) -> Value {
    platform.cli(&["runs", "explain", run, "--json"]).json()
}

#[test]
fn a_run_starts_only_after_the_run_that_it_follows() {
    let platform = Platform::start();
    let folder = platform.code("work", &[("train.py", "print('evaluated')\n")]);
    let (first, gate) = until_let_go(&platform, "first", 0);
    let second = detach(&platform, &folder, &["--after", &first, "train.py"]);
    let third = detach(
        &platform,
        &folder,
        &["--after", &format!("{second}:any"), "train.py"],
    );
    for run in [&second, &third] {
        assert_eq!(platform.run(run)["state"], "held");
    }
    let waits = explained(&platform, &second);
    assert_eq!(waits["tier"], "held", "{waits:#}");
    assert_eq!(
        waits["summary"],
        format!("starts once {first} has succeeded")
    );
    let held = platform
        .cli(&["runs", "list", "--state", "held", "--json"])
        .json();
    assert_eq!(held["runs"].as_array().map(Vec::len), Some(2));

    std::fs::write(gate, "").expect("written");
    assert_eq!(platform.wait_for_end(&third)["state"], "succeeded");
    let starts = |run: &str| platform.run(run)["started_us"].as_u64().expect("started");
    let ends = |run: &str| platform.run(run)["ended_us"].as_u64().expect("ended");
    assert!(starts(&second) >= ends(&first) && starts(&third) >= ends(&second));
}

#[test]
fn what_follows_a_failure_is_cancelled_with_its_reason_or_refused_at_once() {
    let platform = Platform::start();
    let folder = platform.code("work", &[("train.py", "print('never')\n")]);
    let (first, gate) = until_let_go(&platform, "first", 3);
    let second = detach(&platform, &folder, &["--after", &first, "train.py"]);
    std::fs::write(gate, "").expect("written");
    let ended = platform.wait_for_end(&second);
    assert_eq!(ended["state"], "cancelled", "{ended:#}");
    let why =
        format!("cancelled by the platform: {first}, whose success it was to follow, has failed");
    assert_eq!(ended["detail"], why);
    assert_eq!(ended["attempts"], json!([]));

    let run = |after: &str| {
        platform.cli_in(
            &folder,
            &["run", "--tag", "team=nlp", "--after", after, "train.py"],
        )
    };
    refused(
        &run(&first),
        5,
        &[
            &format!("{first} has failed already"),
            &format!("{first}:any"),
        ],
    );
    refused(&run("run-9999"), 4, &["run-9999 does not exist"]);
    refused(
        &run("run-1:maybe"),
        2,
        &["run-17, run-17:ok, run-17:any, array-17"],
    );
    platform.cli(&["tenants", "create", "vision"]).expect(0);
    let secret = platform.submit(
        "secret",
        &json!({"name": "secret", "command": ["true"], "gpus": 0, "tenant": "vision", "tags": {"team": "vision"}}),
    );
    refused(&run(&secret), 4, &[&format!("{secret} does not exist")]);
}

/// Says what it is, waits until it is let go, and keeps its parameters.
const ELEMENT: &str = r#"
import os, pathlib, sys, time
import engineersofai_platform as platform
gate = pathlib.Path(sys.argv[1])
with platform.training_run() as run:
    print("index", os.environ.get("PLATFORM_ARRAY_INDEX"), "of", os.environ.get("PLATFORM_ARRAY_SIZE"),
          "in", os.environ.get("PLATFORM_ARRAY_ID"), sys.argv[2:], platform.sweep_parameters(), flush=True)
    while not gate.exists():
        time.sleep(0.05)
    if os.environ["PLATFORM_ARRAY_INDEX"] == os.environ.get("FAILS"):
        sys.exit(3)
"#;

fn element_folder(platform: &Platform) -> (std::path::PathBuf, String) {
    let folder = platform.code("array", &[("train.py", ELEMENT)]);
    let gate = platform.folder().join("gate").display().to_string();
    (folder, gate)
}

/// Waits until an array is as wanted, by the counts that its view shows.
#[track_caller]
fn wait_for_array(platform: &Platform, array: &str, wanted: &Value) -> Value {
    let path = format!("/v1/arrays/{array}");
    eventually(&format!("{array} has {wanted}"), || {
        let view = platform.http().get(&path);
        let fields = wanted.as_object()?;
        let all = fields.iter().all(|(key, value)| view[key] == *value);
        all.then_some(view)
    })
}

#[test]
fn an_array_runs_so_many_at_once_and_is_shown_and_cancelled_as_one() {
    let platform = Platform::start();
    let (folder, gate) = element_folder(&platform);
    let run = |arguments: &[&str]| {
        let fixed = ["run", "--tag", "team=nlp", "--gpus", "1"];
        platform.cli_in(&folder, &[&fixed, arguments].concat())
    };
    let planned = run(&["--dry-run", "--array", "0-19%3", "train.py", &gate]);
    let plan = planned.expect(0);
    assert!(plan.contains("20 runs, 3 at once"), "{plan}");
    assert!(plan.contains("with 3 at once"), "{plan}");
    for (array, words) in [
        ("0-99%0", "with 0 elements at once"),
        ("5-3", "the range 5-3 is empty"),
        ("0-999999", "1000000 elements are asked for"),
        ("x", "0-99, 0-99%8, 1,3,7 or 0-10:2"),
    ] {
        let refusal = run(&["--array", array, "train.py", &gate]);
        refused(&refusal, 2, &[words]);
    }

    let detached = run(&["--detach", "--array", "0-19%3", "train.py", &gate]);
    let array = detached.expect(0).trim().to_owned();
    let view = wait_for_array(&platform, &array, &json!({"alive": 3, "held": 17}));
    assert_eq!(
        (&view["state"], &view["queued"]),
        (&json!("running"), &json!(0))
    );
    let elements = platform
        .cli(&["runs", "list", "--array", &array, "--json"])
        .json();
    let elements = elements["runs"].as_array().expect("runs").clone();
    assert_eq!(elements.len(), 20);
    // Newest first: the last is the first element.
    let first = elements[19]["id"].as_str().expect("an id");
    let last = elements[0]["id"].as_str().expect("an id");
    assert_eq!(elements[0]["element"]["index"], 19);
    let held = explained(&platform, last);
    assert_eq!(
        (&held["tier"], &held["summary"]),
        (&json!("held"), &json!("3 of 3 of its array run"))
    );
    let listed = platform.cli(&["runs", "list"]);
    let lines: Vec<&str> = listed.expect(0).lines().collect();
    assert!(
        lines[1].starts_with(&array) && lines[1].contains("3 run, 17 held"),
        "{lines:#?}"
    );
    platform.wait_for(first, &["running"]);
    let said = format!("index 0 of 20 in {array} [] {{}}");
    eventually("its log says its index", || {
        platform
            .cli(&["logs", first])
            .stdout
            .contains(&said)
            .then_some(())
    });

    refused(&platform.cli(&["stop", &array]), 2, &["--yes"]);
    platform.cli(&["stop", &array, "--yes"]).expect(0);
    let waited = platform.cli(&["runs", "wait", &array]);
    assert_eq!(waited.code, 143, "{waited:?}");
    let view = platform.http().get(&format!("/v1/arrays/{array}"));
    assert_eq!(
        (&view["state"], &view["cancelled"]),
        (&json!("cancelled"), &json!(20))
    );
    let shown = platform.cli(&["runs", "show", &array]);
    assert!(shown.expect(0).contains("20 of 20 ended, 20 cancelled"));
    refused(
        &platform.cli(&["stop", &array, "--yes"]),
        1,
        &["has already ended"],
    );
}

#[test]
fn an_attached_array_says_how_far_it_is_and_fails_with_its_elements() {
    let platform = Platform::start();
    let (folder, gate) = element_folder(&platform);
    std::fs::write(&gate, "").expect("written");
    let run = |fails: &str| {
        platform.cli_in(
            &folder,
            &[
                "run", "--tag", "team=nlp", "--gpus", "1", "--env", fails, "--array", "1-4%2",
                "train.py", &gate,
            ],
        )
    };
    let good = run("FAILS=none");
    assert_eq!(good.code, 0, "{good:?}");
    assert!(good.stdout.contains("4 of 4 ended"), "{good:?}");
    let bad = run("FAILS=2");
    assert_eq!(bad.code, 1, "{bad:?}");
    assert!(bad.stdout.contains("4 of 4 ended, 1 failed"), "{bad:?}");
}

#[test]
fn what_follows_an_array_starts_after_its_last_element() {
    let platform = Platform::start();
    let (folder, gate) = element_folder(&platform);
    let array = detach(&platform, &folder, &["--array", "0-1", "train.py", &gate]);
    let next = detach(
        &platform,
        &folder,
        &["--after", &array, "--array", "7", "train.py", &gate],
    );
    let waits = wait_for_array(&platform, &next, &json!({"state": "held"}));
    assert_eq!(waits["spec"]["after"], json!([format!("{array}:ok")]));
    std::fs::write(&gate, "").expect("written");
    wait_for_array(&platform, &next, &json!({"state": "succeeded"}));
    let before = platform.http().get(&format!("/v1/arrays/{array}"));
    assert_eq!(before["succeeded"], 2);
}

#[test]
fn a_sweep_gives_each_run_its_parameters_and_they_can_be_compared() {
    let platform = Platform::start();
    let (folder, gate) = element_folder(&platform);
    std::fs::write(&gate, "").expect("written");
    let sweep = ["--sweep", "lr=0.1,0.01", "--sweep", "depth=2..3"];
    let command = ["train.py", &gate, "--lr={lr}", "{depth}"];
    let dry = [
        &["run", "--dry-run", "--tag", "team=nlp", "--at-most", "2"],
        &sweep[..],
        &command[..],
    ];
    let plan = platform.cli_in(&folder, &dry.concat());
    for words in ["4 runs, 2 at once", "depth=2 lr=0.1", "and 1 more"] {
        assert!(plan.expect(0).contains(words), "{words}: {plan:?}");
    }
    let array = detach(&platform, &folder, &[&sweep[..], &command[..]].concat());
    wait_for_array(&platform, &array, &json!({"state": "succeeded", "size": 4}));
    let last = platform
        .cli(&["runs", "list", "--array", &array, "--json"])
        .json();
    let last = last["runs"][0].clone();
    assert_eq!(
        last["element"]["parameters"],
        json!({"lr": 0.01, "depth": 3})
    );
    let id = last["id"].as_str().expect("an id");
    assert!(
        platform
            .cli(&["logs", id])
            .expect(0)
            .contains("['--lr=0.01', '3'] {'depth': 3, 'lr': 0.01}")
    );
    let params = eventually("its parameters are tracked", || {
        let tracked = platform.http().get(&format!("/v1/tracking/{id}"));
        (!tracked["params"]["lr"].is_null()).then(|| tracked["params"].clone())
    });
    assert_eq!(params, json!({"lr": 0.01, "depth": 3}));

    let random = [
        "--sweep-mode",
        "random",
        "--samples",
        "3",
        "--seed",
        "5",
        "--sweep",
        "lr=0.0001..0.1:log",
    ];
    let draw = || {
        detach(
            &platform,
            &folder,
            &[&random[..], &["train.py", &gate]].concat(),
        )
    };
    let drawn = |array: &str| {
        let list = platform
            .cli(&["runs", "list", "--array", array, "--json"])
            .json();
        let runs = list["runs"].as_array().expect("runs").clone();
        runs.into_iter()
            .map(|run| run["element"]["parameters"].clone())
            .collect::<Vec<_>>()
    };
    let (one, other) = (draw(), draw());
    assert_eq!(drawn(&one), drawn(&other));
    assert_eq!(drawn(&one).len(), 3);
    refused(
        &platform.cli_in(&folder, &["run", "--sweep", "a=1..1000000", "train.py"]),
        2,
        &["the grid has 1000000 combinations", "at most 10000"],
    );
}

#[test]
fn a_script_starts_a_sweep_with_the_sdk() {
    let platform = Platform::start();
    let (folder, gate) = element_folder(&platform);
    std::fs::write(&gate, "").expect("written");
    let script = format!(
        "import engineersofai_platform as platform\n\
         print(platform.sweep(['train.py', {gate:?}, '{{lr}}'], {{'lr': [0.5, True, 'a b']}}, at_most=1, priority='low', \
         tags={{'team': 'nlp'}}, folder={folder:?}, options=['--gpus', '0']))\n\
         try:\n    platform.sweep(['train.py'], {{'lr': [1]}}, folder={folder:?})\n\
         except platform.PlatformError as error:\n    print(error)\n"
    );
    let started = finish(
        Command::new("python3")
            .args(["-c", &script])
            .env(
                "PYTHONPATH",
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/python"),
            )
            .env("PLATFORM_HOME", platform.home())
            .env("PLATFORM_BINARY", platform_e2e::binary()),
    );
    let told: Vec<&str> = started.expect(0).lines().collect();
    assert!(
        told[1].contains("the sweep was not started")
            && started.stdout.contains("--tag team=VALUE"),
        "{told:#?}"
    );
    let view = wait_for_array(&platform, told[0], &json!({"state": "succeeded"}));
    assert_eq!((&view["size"], &view["most_alive"]), (&json!(3), &json!(1)));
    assert_eq!(view["spec"]["priority_class"], "low");
}

#[test]
fn an_array_of_another_tenant_is_not_told_from_none() {
    let platform = Platform::start();
    let (folder, gate) = element_folder(&platform);
    let array = detach(&platform, &folder, &["--array", "0-1", "train.py", &gate]);
    platform.cli(&["tenants", "create", "vision"]).expect(0);
    let token = platform
        .cli(&[
            "tokens",
            "create",
            "--user",
            "eve",
            "--tenant",
            "vision",
            "--role",
            "tenant-admin",
            "--json",
        ])
        .json();
    let secret = token["secret"].as_str().expect("a secret");
    let eve = platform.http().with_token(Some(secret));
    for (method, path) in [
        ("GET", format!("/v1/arrays/{array}")),
        ("GET", format!("/v1/arrays/{array}/watch")),
        ("POST", format!("/v1/arrays/{array}/cancel")),
        ("GET", format!("/v1/runs?array={array}")),
    ] {
        let reply = eve.send(method, &path, None, b"{}").expect("an answer");
        assert_eq!(reply.status, 404, "{method} {path}");
    }
    let list = eve.get("/v1/runs?collapse=true");
    assert_eq!(list, json!({"runs": []}));
}
