//! `kill -9` of `platform up` twenty times at random moments during a batch of fifty runs: every
//! acknowledged run ends exactly once, every point is stored once, and the cost adds up.

use crate::main_job::points;
use platform_e2e::random::Random;
use platform_e2e::wait::eventually_within;
use platform_e2e::{Http, Options, Platform};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const RUNS: u64 = 50;
const KILLS: u64 = 20;
const POINTS: i64 = 200;

/// Logs a series whose every value is known, slowly enough that crashes fall into it.
const LOGS: &str = r#"
import sys, time
import engineersofai_platform as platform
with platform.training_run() as run:
    for step in range(int(sys.argv[1])):
        run.log_metrics({"line": step * 0.125, "square": float(step * step)}, step=step)
        time.sleep(0.004)
    run.register_model({"step": step}, "crashed", framework="pickle", wait_seconds=0)
"#;

/// What one run does and how it must end.
struct Expected {
    key: String,
    spec: Value,
    exit_code: i64,
    logs_points: bool,
}

fn batch(random: &mut Random, marks: &Path, script: &Path) -> Vec<Expected> {
    (0..RUNS)
        .map(|number| {
            let logs_points = number % 4 == 0;
            let exit_code = if number % 7 == 3 { 3 } else { 0 };
            let seconds = random.between(50, 1500) as f64 / 1000.0;
            let work = if logs_points {
                format!("python3 {} {POINTS}", script.display())
            } else {
                format!("sleep {seconds}")
            };
            // The mark is made outside the platform, by the workload itself: one line a start.
            let command = format!(
                "echo $PLATFORM_RUN_ID $PLATFORM_ATTEMPT >> {}/$PLATFORM_RUN_ID; {work} && exit {exit_code}",
                marks.display()
            );
            let mut spec = json!({
                "name": format!("batch-{number}"),
                "command": ["sh", "-c", command],
                "tags": {"team": format!("team-{}", number % 3)},
            });
            match number % 3 {
                0 => spec["gpu_share_milli"] = json!(500),
                1 => spec["gpus"] = json!(1),
                _ => spec["gpus"] = json!(2),
            }
            Expected { key: format!("key-{number}"), spec, exit_code, logs_points }
        })
        .collect()
}

/// Submits until it is acknowledged: no answer means unknown, so the same key is asked again.
fn submit_until_acknowledged(http: &Http, expected: &Expected) -> String {
    eventually_within(Duration::from_secs(120), "a submit is acknowledged", || {
        let body = json!({ "spec": expected.spec });
        let reply = http.change("POST", "/v1/runs", &expected.key, &body).ok()?;
        match reply.status {
            200 => Some(reply.json()["run"]["id"].as_str()?.to_owned()),
            // Not yet elected, or its store not open yet.
            503 => None,
            other => panic!("{other}: {}", reply.text()),
        }
    })
}

#[test]
fn twenty_kills_during_fifty_runs_lose_nothing_and_double_nothing() {
    let mut random = Random::seeded("crash");
    let mut platform = Platform::start_with(Options {
        devices: vec!["2xA100-80G".to_owned(), "2xT4-16G".to_owned()],
        ..Options::default()
    });
    let marks = platform.folder().join("marks");
    std::fs::create_dir_all(&marks).unwrap();
    let script = platform.code("logs", &[("logs.py", LOGS)]).join("logs.py");
    let batch = batch(&mut random, &marks, &script);
    let http = platform.http();
    let acknowledged: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
    let submitted = AtomicBool::new(false);
    let started = Instant::now();

    let mut kills = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (at, expected) in batch.iter().enumerate() {
                let id = submit_until_acknowledged(&http, expected);
                let before = acknowledged.lock().unwrap().insert(id.clone(), at);
                assert_eq!(before, None, "{id} was given to two submits");
                // Spread over the crashes; the moments themselves are the kills'.
                std::thread::sleep(Duration::from_millis(150));
            }
            submitted.store(true, Ordering::Release);
        });
        while kills < KILLS {
            std::thread::sleep(Duration::from_millis(random.between(5, 900)));
            platform.kill();
            kills += 1;
            platform.launch();
            // Two in three times it may become ready first; else the next kill hits its start.
            if random.between(0, 3) > 0 {
                platform.ready();
            }
        }
    });
    assert!(submitted.load(Ordering::Acquire));
    platform.ready();
    let acknowledged = acknowledged.into_inner().unwrap();
    assert_eq!(acknowledged.len() as u64, RUNS);
    println!(
        "crash: {kills} kills, all acknowledged after {:?}",
        started.elapsed()
    );

    for (id, &at) in &acknowledged {
        let expected = &batch[at];
        let run = platform.wait_for_end(id);
        assert_eq!(
            run["spec"]["name"], expected.spec["name"],
            "{id} is the run that was submitted"
        );
        assert_eq!(
            run["exit_code"].as_i64(),
            Some(expected.exit_code),
            "{run:#}"
        );
        assert_eq!(run["attempts"].as_array().unwrap().len(), 1, "{run:#}");
        let mark = std::fs::read_to_string(marks.join(id)).unwrap();
        assert_eq!(mark, format!("{id} 1\n"), "{id} ran exactly once");
    }
    let runs = platform.http().get("/v1/runs?limit=1000");
    let runs = runs["runs"].as_array().unwrap();
    assert_eq!(runs.len() as u64, RUNS, "no submit made two runs");
    assert_eq!(
        std::fs::read_dir(&marks).unwrap().count() as u64,
        RUNS,
        "nothing else ran"
    );

    let mut versions = Vec::new();
    for (id, &at) in &acknowledged {
        if !batch[at].logs_points {
            continue;
        }
        let tracked = eventually_within(Duration::from_secs(30), "the journal has arrived", || {
            let tracked = platform
                .http()
                .send("GET", &format!("/v1/tracking/{id}"), None, b"")
                .ok()?
                .json();
            (tracked["status"] == "finished").then_some(tracked)
        });
        for (key, value) in [("line", 0.125), ("square", 0.0)] {
            let series = platform.http().get(&format!(
                "/v1/tracking/{id}/metrics?key={key}&max_points=1000"
            ));
            let expected: Vec<(i64, f64)> = (0..POINTS)
                .map(|step| {
                    (
                        step,
                        if key == "line" {
                            step as f64 * value
                        } else {
                            (step * step) as f64
                        },
                    )
                })
                .collect();
            assert_eq!(points(&series), expected, "{id} {key}");
        }
        assert_eq!(
            tracked["models"].as_array().unwrap().len(),
            1,
            "{tracked:#}"
        );
        versions.push(tracked["models"][0]["version"].as_u64().unwrap());
    }
    versions.sort_unstable();
    let expected: Vec<u64> = (1..=versions.len() as u64).collect();
    assert_eq!(versions, expected, "every version was given once");

    the_books_balance(&platform, runs);
    println!(
        "crash: everything accounted for after {:?}",
        started.elapsed()
    );
}

/// The cost report, the run views and the attempts' own times tell the same microseconds.
fn the_books_balance(platform: &Platform, runs: &[Value]) {
    let report = platform.http().get("/v1/cost?by=run");
    let rows: BTreeMap<&str, &Value> = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["key"].as_str().unwrap(), row))
        .collect();
    let (mut gpu_us, mut cost_micro) = (0, 0);
    let mut by_team: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for run in runs {
        let id = run["id"].as_str().unwrap();
        let mut milli_us = 0;
        for attempt in run["attempts"].as_array().unwrap() {
            let held_us =
                attempt["ended_us"].as_u64().unwrap() - attempt["placed_us"].as_u64().unwrap();
            for device in attempt["members"][0]["devices"].as_array().unwrap() {
                milli_us += held_us * device["share_milli"].as_u64().unwrap();
            }
        }
        let row = rows[id];
        assert_eq!(
            row["gpu_us"].as_u64(),
            Some(milli_us / 1000),
            "{id}: {row} {run:#}"
        );
        assert_eq!(row["gpu_us"], run["gpu_us"], "{id}");
        assert_eq!(row["cost_micro"], run["cost_micro"], "{id}");
        assert_eq!(row["runs"], 1, "{id}");
        gpu_us += milli_us;
        cost_micro += row["cost_micro"].as_u64().unwrap();
        let team = by_team
            .entry(run["spec"]["tags"]["team"].as_str().unwrap().to_owned())
            .or_default();
        team.0 += milli_us;
        team.1 += row["cost_micro"].as_u64().unwrap();
    }
    assert_eq!(rows.len(), runs.len());
    assert_eq!(report["total"]["gpu_us"].as_u64(), Some(gpu_us / 1000));
    assert_eq!(report["total"]["cost_micro"].as_u64(), Some(cost_micro));
    let report = platform.http().get("/v1/cost?by=team");
    for row in report["rows"].as_array().unwrap() {
        let (gpu_us, cost_micro) = by_team[row["key"].as_str().unwrap()];
        assert_eq!(row["gpu_us"].as_u64(), Some(gpu_us / 1000), "{row}");
        assert_eq!(row["cost_micro"].as_u64(), Some(cost_micro), "{row}");
    }
}
