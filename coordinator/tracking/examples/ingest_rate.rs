//! Points ingested per second through [`Tracking::append_journal`], JSON parse and commit to disk
//! included. Prints one JSON line.
//!
//! Sixteen metrics of four runs, 250 points a record and some 1 MiB a call: what agents send on a busy
//! platform. The lines are made beforehand, so that only the store is measured.

use bytes::Bytes;
use coordinator_tracking::{Author, Tracking};
use std::fmt::Write;
use std::time::Instant;

const RUNS: u64 = 4;
const CALLS: u64 = 10;
const RECORDS_A_CALL: u64 = 100;
const POINTS_A_RECORD: u64 = 250;
const KEYS: u64 = 16;

fn call(number: u64) -> Bytes {
    let keys: Vec<String> = (0..KEYS).map(|key| format!("\"metric/{key}\"")).collect();
    let mut lines = String::new();
    for record in 0..RECORDS_A_CALL {
        let sequence = number * RECORDS_A_CALL + record + 1;
        let _ = write!(
            lines,
            r#"{{"s":{sequence},"k":"points","keys":[{}],"points":["#,
            keys.join(",")
        );
        for point in 0..POINTS_A_RECORD {
            let step = sequence * POINTS_A_RECORD + point;
            let comma = if point == 0 { "" } else { "," };
            let time_us = 1_790_000_000_000_000 + step * 1_037;
            let value = (step as f64 * 0.001).sin();
            let _ = write!(lines, "{comma}[{},{step},{time_us},{value}]", point % KEYS);
        }
        lines.push_str("]}\n");
    }
    Bytes::from(lines)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir_in(std::env::current_dir()?)?;
    let tracking = Tracking::open(folder.path()).await?;
    let calls: Vec<Bytes> = (0..CALLS).map(call).collect();
    let began = Instant::now();
    let mut senders = tokio::task::JoinSet::new();
    for run in 1..=RUNS {
        let (tracking, calls) = (tracking.clone(), calls.clone());
        let author = Author {
            user: "bench".to_owned(),
            tenant: "default".to_owned(),
        };
        senders.spawn(async move {
            for lines in calls {
                tracking
                    .append_journal(&format!("run-{run}"), &author, "w-0000000000000001", lines)
                    .await?;
            }
            Ok::<_, coordinator_tracking::TrackingError>(())
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent??;
    }
    let elapsed = began.elapsed();
    let points = RUNS * CALLS * RECORDS_A_CALL * POINTS_A_RECORD;
    let rate = points as f64 / elapsed.as_secs_f64();
    println!(
        r#"{{"bench":"points_ingested","value":{rate:.0},"unit":"points/s","aim":">=200000","points":{points},"seconds":{:.3}}}"#,
        elapsed.as_secs_f64()
    );
    tracking.close().await;
    Ok(())
}
