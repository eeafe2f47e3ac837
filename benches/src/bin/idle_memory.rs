//! Memory of an idle `platform up`: coordinator, agent and store in one process, as the kernel counts.

use anyhow::{Context, Result};
use platform_benches::print;
use platform_e2e::Platform;
use serde_json::json;
use std::time::Duration;

fn main() -> Result<()> {
    let platform = Platform::start();
    // Until what starting took has been given back or is known to stay.
    std::thread::sleep(Duration::from_secs(3));
    let process = platform.process().context("it does not run")?;
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
    };
    print(
        "idle_memory",
        mib("VmRSS:").context("no VmRSS")?,
        "MiB",
        "below 80",
        json!({"anonymous": mib("RssAnon:"), "peak": mib("VmHWM:")}),
    );
    Ok(())
}
