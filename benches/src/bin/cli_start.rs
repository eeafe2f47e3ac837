//! How long `platform --version` takes, from fork to wait; beside it `/bin/true`.

use anyhow::{Result, ensure};
use platform_benches::{percentile_ms, print};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 101;

fn main() -> Result<()> {
    let platform = times(&platform_e2e::binary(), &["--version"])?;
    let peer = times(Path::new("/bin/true"), &[])?;
    let size = std::fs::metadata(platform_e2e::binary())?.len();
    print(
        "cli_start",
        percentile_ms(&platform, 0.5),
        "ms p50",
        "below 10",
        json!({"p99": percentile_ms(&platform, 0.99), "peer_true_ms": percentile_ms(&peer, 0.5), "binary_mib": size >> 20}),
    );
    Ok(())
}

fn times(program: &Path, arguments: &[&str]) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let status = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        times.push(started.elapsed());
        ensure!(status.success(), "{}: {status}", program.display());
    }
    times.sort();
    Ok(times)
}
