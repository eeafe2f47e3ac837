//! Finds and kills processes of an attempt whose launcher has died.
//!
//! The kernel kills the launcher's own children with it, but not what those started. Process numbers are
//! given out anew, so a number on disk proves nothing; the attempt's spool path in the environment does.

use std::fs;
use std::path::Path;

/// Kills every process whose environment names this attempt's spool; how many there were.
pub(super) fn kill(spool: &Path) -> usize {
    let mark = format!("PLATFORM_SPOOL={}", spool.display());
    let Ok(processes) = fs::read_dir("/proc") else {
        return 0;
    };
    let mut killed = 0;
    for entry in processes.flatten() {
        let Some(process) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let Some(process) = rustix::process::Pid::from_raw(process) else {
            continue;
        };
        // The handle first, then the look: what is killed is what was looked at.
        let Ok(handle) = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())
        else {
            continue;
        };
        let Ok(environment) = fs::read(entry.path().join("environ")) else {
            continue;
        };
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark.as_bytes())
            && rustix::process::pidfd_send_signal(&handle, rustix::process::Signal::KILL).is_ok()
        {
            killed += 1;
        }
    }
    killed
}
