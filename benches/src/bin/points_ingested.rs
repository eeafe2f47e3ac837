//! Metric points stored a second: journals of four writers, posted as the SDK's flusher posts them.

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Method;
use platform_benches::{Connection, fdatasync_per_second, print};
use platform_e2e::Platform;
use serde_json::json;
use std::fmt::Write as _;
use std::time::Instant;

const WRITERS: usize = 4;
const CALLS: usize = 20;
const RECORDS: usize = 50;
const POINTS: usize = 1_000;

#[tokio::main]
async fn main() -> Result<()> {
    let platform = Platform::start();
    let journals: Vec<Vec<Bytes>> = (0..WRITERS)
        .map(|_| (0..CALLS).map(journal).collect())
        .collect();
    let largest = journals.iter().flatten().map(Bytes::len).max().unwrap_or(0);
    ensure!(
        largest < 4 << 20,
        "a call of {largest} bytes is larger than a sender's"
    );
    let started = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for (writer, calls) in journals.into_iter().enumerate() {
        let connection = Connection::open(&platform).await?;
        writers.spawn(async move {
            let path = format!("/v1/tracking/local-{writer:026}/journal?writer=w-{writer:016x}");
            let mut watermark = 0;
            for call in calls {
                let answer = connection.ask(Method::POST, &path, None, call).await?;
                watermark = answer["watermark"].as_u64().unwrap_or(0);
            }
            ensure!(
                watermark as usize == CALLS * RECORDS,
                "watermark {watermark}"
            );
            Ok(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    let points = WRITERS * CALLS * RECORDS * POINTS;
    let rate = points as f64 / started.elapsed().as_secs_f64();
    let connection = Connection::open(&platform).await?;
    let path = format!("/v1/tracking/local-{:026}/metrics?key=loss&max_points=2", 0);
    let stored = connection
        .ask(Method::GET, &path, None, Bytes::new())
        .await?;
    let expected = (CALLS * RECORDS * POINTS) as u64;
    ensure!(
        stored["count"].as_u64() == Some(expected),
        "{} of {expected} stored",
        stored["count"]
    );
    let syncs = fdatasync_per_second(platform.folder())?;
    print(
        "points_ingested",
        rate,
        "points/s",
        "above 200000",
        json!({"writers": WRITERS, "points": points, "peer_fdatasync_per_second": syncs}),
    );
    Ok(())
}

/// One call's lines: `points` records as the SDK writes them.
fn journal(call: usize) -> Bytes {
    let mut lines = String::new();
    for record in 0..RECORDS {
        let sequence = call * RECORDS + record + 1;
        let _ = write!(
            lines,
            r#"{{"s":{sequence},"k":"points","keys":["loss"],"points":["#
        );
        for point in 0..POINTS {
            let step = (sequence - 1) * POINTS + point;
            let comma = if point == 0 { "" } else { "," };
            let value = 1.0 / (step as f64 + 1.5);
            let _ = write!(
                lines,
                "{comma}[0,{step},{},{value}]",
                1_700_000_000_000_000 + step as u64
            );
        }
        lines.push_str("]}\n");
    }
    lines.into()
}
