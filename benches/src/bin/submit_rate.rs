//! Submits acknowledged (durable on disk) a second, through one connection and through eight, with
//! many requests in flight on each. The nodes are cordoned, so that nothing else is measured.

use anyhow::Result;
use platform_benches::{Connection, fdatasync_per_second, percentile_ms, print};
use platform_e2e::Platform;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SUBMITS: usize = 20_000;
const IN_FLIGHT: usize = 256;

#[tokio::main]
async fn main() -> Result<()> {
    let mut rates = Vec::new();
    for connections in [1, 8] {
        rates.push(measure(connections).await?);
    }
    let folder = tempfile::tempdir()?;
    let syncs = fdatasync_per_second(folder.path())?;
    for (connections, rate, times) in rates {
        print(
            "submit_rate",
            rate,
            "submits/s",
            "above 5000",
            json!({
                "connections": connections,
                "in_flight": IN_FLIGHT,
                "submits": SUBMITS,
                "p50_ms": percentile_ms(&times, 0.5),
                "p99_ms": percentile_ms(&times, 0.99),
                "peer_fdatasync_per_second": syncs,
                "ratio": rate / syncs,
            }),
        );
    }
    Ok(())
}

async fn measure(connections: usize) -> Result<(usize, f64, Vec<Duration>)> {
    let platform = Platform::start();
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(&platform).await?);
    }
    opened[0].every_node("cordon").await?;
    let next = Arc::new(AtomicUsize::new(0));
    let spec =
        Arc::new(json!({"name": "bench", "command": ["/bin/true"], "tags": {"team": "bench"}}));
    let started = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..IN_FLIGHT {
        let (connection, next, spec) = (
            opened[caller % connections].clone(),
            Arc::clone(&next),
            Arc::clone(&spec),
        );
        callers.spawn(async move {
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= SUBMITS {
                    return anyhow::Ok(times);
                }
                let asked = Instant::now();
                connection.submit(&format!("key-{number}"), &spec).await?;
                times.push(asked.elapsed());
            }
        });
    }
    let mut times = Vec::new();
    while let Some(done) = callers.join_next().await {
        times.extend(done??);
    }
    let rate = SUBMITS as f64 / started.elapsed().as_secs_f64();
    times.sort();
    Ok((connections, rate, times))
}
