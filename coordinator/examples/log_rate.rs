//! How many commands a lone coordinator makes durable per second, with real fdatasync, at 1, 16 and 256
//! proposers, beside the disk's own rate. Prints one JSON line. An argument names the folder, which
//! must be on the disk to measure.

use coordinator::driver::{DriverConfig, start};
use coordinator_core::model::TenantName;
use coordinator_core::state::Command;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const MEASURED: Duration = Duration::from_secs(3);

fn main() {
    let root = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(root).expect("a folder to write to");
    let fdatasync = fdatasync_rate(folder.path());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut line = serde_json::json!({ "bench": "log_rate", "fdatasync_per_s": fdatasync as u64 });
    for proposers in [1, 16, 256] {
        let (rate, p50_us, p99_us) = runtime.block_on(measure(
            &folder.path().join(proposers.to_string()),
            proposers,
        ));
        line[format!("proposals_per_s_{proposers}")] = (rate as u64).into();
        line[format!("p50_us_{proposers}")] = p50_us.into();
        line[format!("p99_us_{proposers}")] = p99_us.into();
    }
    println!("{line}");
}

/// Overwrites 512 bytes and syncs, over and over: what one writer could do at best.
fn fdatasync_rate(folder: &std::path::Path) -> f64 {
    let mut file = std::fs::File::create(folder.join("probe")).expect("a file");
    file.write_all(&vec![0; 1 << 20])
        .and_then(|()| file.sync_all())
        .expect("writes");
    let (started, mut count) = (Instant::now(), 0u64);
    while started.elapsed() < Duration::from_secs(1) {
        file.seek(SeekFrom::Start(count * 512 % (1 << 20)))
            .expect("seeks");
        file.write_all(&[1; 512])
            .and_then(|()| file.sync_data())
            .expect("writes");
        count += 1;
    }
    count as f64 / started.elapsed().as_secs_f64()
}

async fn measure(folder: &std::path::Path, proposers: usize) -> (f64, u64, u64) {
    let (handle, _thread) = start(DriverConfig::new(folder)).expect("starts");
    let started = Instant::now();
    let mut running = Vec::new();
    for _ in 0..proposers {
        let handle = handle.clone();
        running.push(tokio::spawn(async move {
            let mut waits_us = Vec::new();
            while started.elapsed() < MEASURED {
                let asked = Instant::now();
                // Refused by the state after the first, so that it stays small: the log is what is measured.
                let command = Command::CreateTenant {
                    tenant: TenantName::default_tenant(),
                    parent: None,
                    weight: None,
                };
                handle
                    .propose("user:bench", None, command)
                    .await
                    .expect("acknowledged");
                waits_us.push(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
            waits_us
        }));
    }
    let mut waits_us = Vec::new();
    for proposer in running {
        waits_us.extend(proposer.await.expect("finishes"));
    }
    let rate = waits_us.len() as f64 / started.elapsed().as_secs_f64();
    waits_us.sort_unstable();
    (
        rate,
        waits_us[waits_us.len() / 2],
        waits_us[waits_us.len() * 99 / 100],
    )
}
