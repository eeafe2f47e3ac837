//! Finds and kills processes that outlived who started them: an attempt's, when its launcher has died,
//! and an installer's, when its agent has.
//!
//! The kernel kills the launcher's own children with it, but not what those started. Process numbers are
//! given out anew, so a number on disk proves nothing; a variable in the process's environment does.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// The variable that names the folder an installer writes into.
pub(super) const INSTALLS_INTO: &str = "PLATFORM_INSTALLS_INTO";
/// How long killed processes may take to be gone: one in the midst of a write to a slow disk is not
/// gone at once.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// Kills every process whose environment names this attempt's spool; how many there were.
pub(super) fn kill(spool: &Path) -> usize {
    kill_marked(&format!("PLATFORM_SPOOL={}", spool.display()))
}

/// Kills every installer that still writes into this folder, and waits until none does.
pub(super) fn kill_installers(folder: &Path) -> io::Result<()> {
    let mark = format!("{INSTALLS_INTO}={}", folder.display());
    let begun = Instant::now();
    while kill_marked(&mark) > 0 {
        if begun.elapsed() > GONE_WITHIN {
            return Err(io::Error::other(
                "an installer of an earlier agent still writes into it and cannot be killed",
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn kill_marked(mark: &str) -> usize {
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
