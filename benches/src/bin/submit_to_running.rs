//! From sending a submit until the run is seen running, one run at a time on an idle platform.

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use platform_benches::{Connection, fdatasync_per_second, percentile_ms, print};
use platform_e2e::Platform;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const RUNS: usize = 200;

#[tokio::main]
async fn main() -> Result<()> {
    let platform = Platform::start();
    let connection = Connection::open(&platform).await?;
    let (mut observed, mut stamped) = (Vec::new(), Vec::new());
    for number in 0..RUNS {
        let spec =
            json!({"name": "bench", "command": ["sleep", "0.05"], "tags": {"team": "bench"}});
        let started = Instant::now();
        let id = connection.submit(&format!("key-{number}"), &spec).await?;
        let (seen, ended) = watch(&connection, &id, started).await?;
        // The first runs find cold caches; they are part of the day, and of p99.
        observed.push(seen);
        let stamp = |name: &str| {
            ended[name]
                .as_u64()
                .with_context(|| format!("no {name} in {ended}"))
        };
        stamped.push(Duration::from_micros(
            stamp("started_us")? - stamp("submitted_us")?,
        ));
    }
    observed.sort();
    stamped.sort();
    let syncs = fdatasync_per_second(platform.folder())?;
    print(
        "submit_to_running",
        percentile_ms(&observed, 0.5),
        "ms p50",
        "p50 below 15 ms, p99 below 50 ms",
        json!({
            "p99": percentile_ms(&observed, 0.99),
            "max": percentile_ms(&observed, 1.0),
            "server_p50": percentile_ms(&stamped, 0.5),
            "server_p99": percentile_ms(&stamped, 0.99),
            "runs": RUNS,
            "peer_fdatasync_ms": 1000.0 / syncs,
        }),
    );
    Ok(())
}

/// When the run was first seen running or past it, and how it ended.
async fn watch(connection: &Connection, id: &str, started: Instant) -> Result<(Duration, Value)> {
    let path = format!("/v1/runs/{id}/watch");
    let mut body = connection
        .start(Method::GET, &path, None, Bytes::new())
        .await?;
    let (mut pending, mut seen, mut last) = (Vec::new(), None, Value::Null);
    while let Some(frame) = body.frame().await {
        let Ok(content) = frame?.into_data() else {
            continue;
        };
        pending.extend_from_slice(&content);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let line: Value = serde_json::from_slice(&line)?;
            let state = line["run"]["state"].as_str().unwrap_or_default();
            if seen.is_none() && !["queued", "assigned", "preparing"].contains(&state) {
                seen = Some(started.elapsed());
            }
            last = line["run"].clone();
        }
    }
    Ok((
        seen.context("the watch ended before the run was seen running")?,
        last,
    ))
}
