//! What is refused, where, with which exit code, and whether the message says the value, what is
//! allowed and what to do next.

use platform_e2e::{Finished, Platform};
use serde_json::json;
use std::path::Path;

/// Exit code, and every word that the message must hold.
#[track_caller]
pub fn refused(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.code, code, "{finished:?}");
    for word in words {
        assert!(
            finished.stderr.contains(word),
            "{word:?} is not in: {}",
            finished.stderr
        );
    }
}

#[test]
fn a_run_without_its_cost_tags_is_refused_on_the_server_with_the_flag_to_add() {
    let platform = Platform::start();
    let folder = platform.code("work", &[("train.py", "print(1)\n")]);
    let run = |arguments: &[&str]| {
        platform.cli_in(&folder, &[&["run"], arguments, &["train.py"]].concat())
    };
    refused(
        &run(&[]),
        5,
        &["missing: team", "any value", "--tag team=VALUE"],
    );
    refused(&run(&["--dry-run"]), 5, &["--tag team=VALUE"]);

    platform
        .cli(&[
            "policy",
            "set",
            "--require-tag",
            "team=nlp,vision",
            "--require-tag",
            "project",
        ])
        .expect(0);
    refused(
        &run(&[]),
        5,
        &[
            "missing: project, team",
            "team=nlp|vision",
            "--tag project=VALUE --tag team=nlp",
        ],
    );
    refused(
        &run(&["--tag", "team=sales", "--tag", "project=x"]),
        5,
        &["team=sales", "nlp|vision", "--tag team=nlp"],
    );
    run(&["--tag", "team=vision", "--tag", "project=x"]).expect(0);

    // No client can pass it by: the wire itself is refused, and nothing is recorded.
    let reply = platform
        .http()
        .change(
            "POST",
            "/v1/runs",
            "bypass",
            &json!({"spec": {"name": "x", "command": ["true"]}}),
        )
        .unwrap();
    assert_eq!(
        (reply.status, reply.json()["code"].as_str()),
        (422, Some("refused"))
    );
    assert_eq!(
        platform.http().get("/v1/runs")["runs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    platform
        .cli(&["policy", "set", "--tag-mode", "warn"])
        .expect(0);
    let warned = run(&[]);
    warned.expect(0);
    assert!(
        warned.stderr.contains("missing: project, team"),
        "{warned:?}"
    );
    platform
        .cli(&["policy", "set", "--tag-mode", "off"])
        .expect(0);
    let silent = run(&[]);
    silent.expect(0);
    assert!(!silent.stderr.contains("missing"), "{silent:?}");
}

#[test]
fn quotas_and_caps_are_checked_at_admission_and_at_placement() {
    let platform = Platform::with_devices(&["4xA100-80G"]);
    let run = |arguments: &[&str]| {
        platform.cli(&[&["run", "--tag", "team=nlp"], arguments, &["--", "true"]].concat())
    };
    platform
        .cli(&["quotas", "set", "default", "--gpus", "2", "--limit", "2"])
        .expect(0);
    refused(
        &run(&["--gpus", "3"]),
        5,
        &["3 GPUs", "limit of 2", "platform quotas set default"],
    );
    let hold = |key: &str| {
        let spec =
            json!({"name": key, "command": ["sleep", "1000"], "gpus": 1, "tags": {"team": "nlp"}});
        platform.submit(key, &spec)
    };
    let held = [hold("a"), hold("b")];
    for id in &held {
        platform.wait_for(id, &["running"]);
    }
    let third = hold("c");
    let explained = platform.cli(&["runs", "explain", &third, "--json"]).json();
    assert_eq!(explained["tier"], "over-limit", "{explained:#}");
    platform
        .cli(&["quotas", "set", "default", "--remove"])
        .expect(0);
    platform.wait_for(&third, &["running"]);
    for id in held.iter().chain([&third]) {
        platform.cli(&["stop", id, "--yes"]).expect(0);
    }

    platform
        .cli(&["policy", "set", "--gpu-memory-cap", "bert*=20G"])
        .expect(0);
    refused(
        &run(&["--model", "bert-large", "--gpu-memory", "40G"]),
        5,
        &["bert-large", "20480 MiB", "--gpu-memory 20480M"],
    );
    // Asked for nothing: the cap is what it gets, and what the workload is told.
    let shown = platform.cli(&[
        "run",
        "--quiet",
        "--tag",
        "team=nlp",
        "--model",
        "bert-base",
        "--",
        "sh",
        "-c",
        "echo cap $PLATFORM_GPU_MEMORY_MIB",
    ]);
    assert_eq!(shown.expect(0), "cap 20480\n");
}

#[test]
fn what_is_not_there_or_malformed_is_named_with_what_is() {
    let platform = Platform::with_devices(&["2xA100-80G", "2xT4-16G"]);
    let run = |arguments: &[&str]| {
        platform.cli(&[&["run", "--tag", "team=nlp"], arguments, &["--", "true"]].concat())
    };
    refused(
        &run(&["--pool", "gold"]),
        4,
        &["\"gold\"", "default", "platform pools list"],
    );
    refused(
        &run(&["--gpu-model", "H900"]),
        5,
        &["H900", "A100-80G, T4-16G", "platform nodes list"],
    );
    refused(
        &run(&["--gpu-memory", "20"]),
        2,
        &["20", "512M, 20G", "20G"],
    );
    refused(&run(&["--gpu-memory", "20X"]), 2, &["20X"]);
    refused(&run(&["--time-limit", "5"]), 2, &["5", "30s, 90m, 2h"]);
    refused(
        &run(&["--gpu-fraction", "1.5"]),
        2,
        &["1.5", "0.01 to 0.99", "--gpus"],
    );
    refused(&run(&["--cpus", "-1"]), 2, &["-1"]);
    refused(
        &run(&["--gpus", "1", "--gpu-fraction", "0.5"]),
        2,
        &["--gpu-fraction"],
    );
    refused(&run(&["--tag", "Team=x"]), 2, &["Team"]);
    refused(
        &run(&["--env", "PLATFORM_RUN_ID=run-1"]),
        2,
        &["PLATFORM_RUN_ID"],
    );
    refused(
        &platform.cli(&["run", "--gpsu", "1", "--", "true"]),
        2,
        &["--gpsu", "--gpus"],
    );
    refused(&platform.cli(&["frobnicate"]), 2, &["frobnicate"]);
    refused(
        &platform.cli(&["runs", "show", "run-99"]),
        4,
        &["run-99", "platform runs list"],
    );
    refused(&platform.cli(&["runs", "show", "walk-1"]), 2, &["walk-1"]);
    refused(
        &platform.cli(&["nodes", "show", "nowhere"]),
        4,
        &["nowhere"],
    );
    refused(
        &platform.cli(&["models", "show", "nothing"]),
        4,
        &["nothing"],
    );
    // The spec itself refuses a field it does not know: a misspelt override is never ignored.
    let reply = platform
        .http()
        .change(
            "POST",
            "/v1/runs",
            "k",
            &json!({"spec": {"name": "x", "command": ["true"], "gpu": 1}}),
        )
        .unwrap();
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert_eq!(reply.json()["code"], "invalid", "{}", reply.text());
    assert!(reply.text().contains("gpu_share_milli"), "{}", reply.text());
    // Whatever is wrong with a call, the error has one shape.
    for (method, path, body) in [
        ("POST", "/v1/runs", &b"{"[..]),
        ("POST", "/v1/runs", b"\xff"),
        ("GET", "/v1/runs?limit=many", b""),
        ("GET", "/v1/runs?limit=0", b""),
        ("GET", "/v1/runs?colour=red", b""),
        ("GET", "/v1/runs/run-x", b""),
        ("GET", "/v1/tracking/run-1/metrics", b""),
        ("PATCH", "/v1/runs", b""),
        ("GET", "/v1/nothing", b""),
        ("PUT", "/v1/blobs/../../etc/passwd", b"x"),
        ("GET", "/v1/blobs/%2e%2e%2f%2e%2e%2fetc%2fpasswd", b""),
    ] {
        let reply = platform
            .http()
            .send(method, path, Some("shape"), body)
            .unwrap();
        assert!(
            (400..500).contains(&reply.status),
            "{method} {path}: {}",
            reply.status
        );
        let error = reply.json();
        assert!(
            error["code"].is_string() && error["message"].is_string(),
            "{method} {path}: {}",
            reply.text()
        );
    }
}

#[test]
fn what_no_node_could_ever_hold_is_refused_with_the_largest_that_would_fit() {
    let platform = Platform::with_devices(&["2xA100-80G", "2xT4-16G"]);
    let run = |arguments: &[&str]| {
        platform.cli(&[&["run", "--tag", "team=nlp"], arguments, &["--", "true"]].concat())
    };
    refused(&run(&["--gpus", "9"]), 5, &["9", "4"]);
    refused(
        &run(&["--gpus", "3", "--gpu-model", "A100-80G"]),
        5,
        &["3", "2"],
    );
    refused(&run(&["--gpu-memory", "500G"]), 5, &["512000", "81920"]);
    refused(&run(&["--memory", "900T"]), 5, &["MiB"]);
    refused(&run(&["--cpus", "100000"]), 5, &["100000"]);
    refused(&run(&["--nodes", "2"]), 5, &["2 nodes", "--nodes 1"]);
    assert_eq!(
        platform.http().get("/v1/runs")["runs"],
        json!([]),
        "nothing waits for ever"
    );
}

#[test]
fn the_folder_is_checked_before_anything_is_sent() {
    let platform = Platform::start();
    let folder = platform.code(
        "work",
        &[
            ("train.py", "print(1)\n"),
            ("data/a.bin", &"x".repeat(3 << 20)),
            ("data/b.bin", &"y".repeat(2 << 20)),
        ],
    );
    let run = |folder: &Path, arguments: &[&str]| {
        platform.cli_in(folder, &[&["run", "--tag", "team=nlp"], arguments].concat())
    };
    refused(
        &run(&folder, &["--max-upload", "1M", "train.py"]),
        1,
        &["data/", "5", "1", ".platformignore", "--max-upload"],
    );
    std::fs::write(folder.join(".platformignore"), "data/\n").unwrap();
    run(&folder, &["--max-upload", "1M", "train.py"]).expect(0);

    refused(
        &run(&folder, &["trian.py"]),
        2,
        &["trian.py", "did you mean train.py?"],
    );
    refused(
        &run(&folder, &["../other.py"]),
        2,
        &["../other.py", "outside the folder"],
    );
    refused(
        &run(&folder, &["--requirements", "../r.txt", "train.py"]),
        2,
        &["../r.txt"],
    );
    std::os::unix::fs::symlink("/etc/passwd", folder.join("leak")).unwrap();
    refused(
        &run(&folder, &["train.py"]),
        1,
        &["leak -> /etc/passwd", "leave the folder"],
    );
    std::fs::remove_file(folder.join("leak")).unwrap();

    std::fs::write(folder.join("requirements.txt"), b"PK\x03\x04\0\xff").unwrap();
    refused(
        &run(&folder, &["train.py"]),
        2,
        &["requirements.txt is not a text file", "pip freeze"],
    );
    run(&folder, &["--no-requirements", "train.py"]).expect(0);

    // The same path by the wire, past the client: the server refuses it too.
    let spec = json!({"name": "x", "command": ["true"], "working_folder": "../..", "tags": {"team": "nlp"}});
    let reply = platform
        .http()
        .change("POST", "/v1/runs", "out", &json!({ "spec": spec }))
        .unwrap();
    assert_eq!(reply.status, 400, "{}", reply.text());
}

#[test]
fn runs_of_a_model_hold_no_more_memory_than_its_sum_and_the_next_waits_and_says_so() {
    let platform = Platform::with_devices(&["2xA100-80G"]);
    platform
        .cli(&["policy", "set", "--gpu-memory-cap-sum", "bert*=30G"])
        .expect(0);
    let submit = |key: &str, command: &[&str]| {
        platform.submit(
            key,
            &json!({
                "name": key,
                "command": command,
                "gpu_share_milli": 100,
                "gpu_memory_mib": 20 * 1024,
                "model": key,
                "tags": {"team": "nlp"},
            }),
        )
    };
    let first = submit("bert-base", &["sleep", "1000"]);
    platform.wait_for(&first, &["running"]);
    let second = submit("bert-large", &["true"]);
    let other = submit("gpt", &["true"]);
    platform.wait_for_end(&other);
    let explained = platform.cli(&["runs", "explain", &second, "--json"]).json();
    assert_eq!(explained["tier"], "over-cap", "{explained:#}");
    let summary = explained["summary"].as_str().unwrap_or_default();
    assert!(
        summary.contains("models bert* hold 20480 of the 30720 MiB"),
        "{summary}"
    );
    refused(
        &platform.cli(&[
            "run",
            "--model",
            "bert-base",
            "--gpus",
            "1",
            "--tag",
            "team=nlp",
            "--",
            "true",
        ]),
        5,
        &[
            "this run alone takes at least 81920 MiB",
            "--gpu-memory 30720M",
        ],
    );
    platform.cli(&["stop", &first, "--yes"]).expect(0);
    let ended = platform.wait_for_end(&second);
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
}
