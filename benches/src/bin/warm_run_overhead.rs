//! What `platform run` adds to a script the second time: everything but the script itself.

use anyhow::{Context, Result};
use platform_benches::print;
use platform_e2e::Platform;
use serde_json::json;
use std::time::Instant;

const ROUNDS: usize = 11;

/// Tells its own time, interpreter's start excluded, as a training script would take it.
const SCRIPT: &str = r#"
import time
start = time.perf_counter()
import engineersofai_platform as platform
with platform.training_run() as run:
    for step in range(100):
        run.log_metrics({"loss": 1.0 / (step + 1)}, step=step)
print(time.perf_counter() - start)
"#;

fn main() -> Result<()> {
    let platform = Platform::start();
    let folder = platform.code("warm", &[("train.py", SCRIPT)]);
    let arguments = ["run", "--quiet", "--tag", "team=bench", "train.py"];
    platform.cli_in(&folder, &arguments).expect(0);
    let mut overheads = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let run = platform.cli_in(&folder, &arguments);
        let wall = started.elapsed().as_secs_f64();
        let own: f64 = run
            .expect(0)
            .trim()
            .parse()
            .context("the script's own time")?;
        overheads.push(wall - own);
    }
    overheads.sort_by(f64::total_cmp);
    print(
        "warm_run_overhead",
        overheads[ROUNDS / 2],
        "s p50",
        "below 2",
        json!({"max": overheads[ROUNDS - 1], "rounds": ROUNDS}),
    );
    Ok(())
}
