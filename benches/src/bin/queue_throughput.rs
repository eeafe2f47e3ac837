//! Runs started and ended a second from a queue of 2,000 short ones on 64 simulated devices.

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Method;
use platform_benches::{Connection, print, spawn_per_second};
use platform_e2e::{Options, Platform};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const RUNS: usize = 2_000;

#[tokio::main]
async fn main() -> Result<()> {
    let platform = Platform::start_with(Options {
        devices: vec!["64xA100-80G".to_owned()],
        ..Options::default()
    });
    let connection = Connection::open(&platform).await?;
    connection.every_node("cordon").await?;
    let spec =
        json!({"name": "short", "command": ["/bin/true"], "gpus": 1, "tags": {"team": "bench"}});
    let submits = (0..RUNS).map(|number| {
        let (connection, spec) = (connection.clone(), spec.clone());
        async move { connection.submit(&format!("key-{number}"), &spec).await }
    });
    futures::future::try_join_all(submits).await?;
    let started = Instant::now();
    connection.every_node("uncordon").await?;
    loop {
        let pools = connection
            .ask(Method::GET, "/v1/pools", None, Bytes::new())
            .await?;
        let pool = &pools["pools"][0];
        if pool["waiting"] == 0 && pool["used_milli"] == 0 {
            break;
        }
        ensure!(
            started.elapsed() < Duration::from_secs(300),
            "still not done: {pool}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = started.elapsed();
    let rate = RUNS as f64 / took.as_secs_f64();
    let ended = ended(&connection).await?;
    ensure!(ended == RUNS, "{ended} of {RUNS} succeeded");
    drop(platform);
    let spawns = spawn_per_second()?;
    print(
        "queue_throughput",
        rate,
        "runs/s",
        "above 500",
        json!({"runs": RUNS, "devices": 64, "seconds": took.as_secs_f64(), "peer_spawn_per_second": spawns, "ratio": rate / spawns}),
    );
    Ok(())
}

/// How many runs succeeded.
async fn ended(connection: &Connection) -> Result<usize> {
    let (mut count, mut before) = (0, String::new());
    loop {
        let path = format!("/v1/runs?state=succeeded&limit=1000{before}");
        let page = connection
            .ask(Method::GET, &path, None, Bytes::new())
            .await?;
        count += page["runs"].as_array().map_or(0, Vec::len);
        match &page["next"] {
            Value::String(next) => before = format!("&before={next}"),
            _ => return Ok(count),
        }
    }
}
