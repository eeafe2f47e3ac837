//! Many points and strange numbers from one script, complete and in order.

use crate::main_job::points;
use platform_e2e::wait::eventually_within;
use platform_e2e::{Platform, eventually};
use serde_json::json;
use std::time::Duration;

/// `PLATFORM_E2E_POINTS=10000000` is the full size of the promise; the default keeps a test run short.
fn how_many() -> u64 {
    std::env::var("PLATFORM_E2E_POINTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(300_000)
}

#[test]
fn a_flood_of_points_arrives_complete_and_in_order() {
    let platform = Platform::start();
    let script = r#"
import sys
import engineersofai_platform as platform
with platform.training_run(system_metrics_seconds=0) as run:
    for step in range(int(sys.argv[1])):
        run.log_metrics({"loss": step * 0.5}, step=step)
print("logged")
"#;
    let count = how_many();
    let folder = platform.code("flood", &[("flood.py", script)]);
    let logged = platform.cli_in(
        &folder,
        &["run", "--tag", "team=nlp", "flood.py", &count.to_string()],
    );
    assert!(logged.expect(0).contains("logged"), "{logged:?}");
    let tracked = eventually_within(Duration::from_secs(600), "every point is stored", || {
        let tracked = platform.http().get("/v1/tracking/run-1");
        (tracked["status"] == "finished").then_some(tracked)
    });
    assert_eq!(
        tracked["metrics"]["loss"]["count"].as_u64(),
        Some(count),
        "{tracked:#}"
    );
    let series = platform
        .http()
        .get("/v1/tracking/run-1/metrics?key=loss&max_points=1000");
    assert_eq!(series["count"].as_u64(), Some(count));
    let shown = points(&series);
    assert!(shown.len() <= 1000 && shown.len() > 100, "{}", shown.len());
    assert!(
        shown.windows(2).all(|two| two[0].0 < two[1].0),
        "in the order logged"
    );
    assert!(
        shown
            .iter()
            .all(|(step, value)| *value == *step as f64 * 0.5),
        "each value is the one of its step"
    );
}

#[test]
fn nan_and_infinities_are_kept_and_bad_values_never_stop_training() {
    let platform = Platform::start();
    let script = r#"
import engineersofai_platform as platform
with platform.training_run() as run:
    for value in [1.0, float("nan"), float("inf"), float("-inf"), 2.5]:
        run.log_metrics({"loss": value})
    run.log_metrics({"loss": "not a number", "fine": 3})
    run.log_metrics("not a mapping")
    run.log_metrics({"": 1.0, "x" * 10000: 2.0})
print("trained")
"#;
    let folder = platform.code("strange", &[("strange.py", script)]);
    let run = platform.cli_in(&folder, &["run", "--tag", "team=nlp", "strange.py"]);
    assert!(run.expect(0).contains("trained"), "{run:?}");
    eventually("tracking is complete", || {
        (platform.http().get("/v1/tracking/run-1")["status"] == "finished").then_some(())
    });
    let series = platform.http().get("/v1/tracking/run-1/metrics?key=loss");
    let values: Vec<_> = series["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point["value"].clone())
        .collect();
    assert_eq!(
        values,
        [
            json!(1.0),
            json!("NaN"),
            json!("Infinity"),
            json!("-Infinity"),
            json!(2.5)
        ]
    );
    assert_eq!(
        platform.http().get("/v1/tracking/run-1")["metrics"]["fine"]["value"],
        3.0
    );
    platform.cli(&["runs", "show", "run-1"]).expect(0);
    platform.cli(&["runs", "show", "run-1", "--json"]).json();
}
