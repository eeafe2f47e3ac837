//! Raw peers: what the machine itself does in the same minute, without any platform.

use anyhow::Result;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LONG_ENOUGH: Duration = Duration::from_secs(2);

/// How often a second `/bin/true` can be started and waited for, by two threads that do nothing else.
pub fn spawn_per_second() -> Result<f64> {
    let started = Instant::now();
    let one = || -> std::io::Result<u64> {
        let mut count = 0;
        while started.elapsed() < LONG_ENOUGH {
            Command::new("/bin/true").stdin(Stdio::null()).status()?;
            count += 1;
        }
        Ok(count)
    };
    let counts = std::thread::scope(|scope| {
        let threads = [scope.spawn(one), scope.spawn(one)];
        threads.map(|thread| thread.join().unwrap_or(Ok(0)))
    });
    let mut sum = 0;
    for count in counts {
        sum += count?;
    }
    Ok(sum as f64 / started.elapsed().as_secs_f64())
}

/// How often a second 512 bytes can be appended to a file in this folder and forced to the disk.
pub fn fdatasync_per_second(folder: &Path) -> Result<f64> {
    let mut file = File::create(folder.join("fdatasync"))?;
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < LONG_ENOUGH {
        file.write_all(&[7; 512])?;
        rustix::fs::fdatasync(&file)?;
        count += 1;
    }
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}
