//! The small process that starts workloads, waits for them and outlives the agent.
//!
//! `platform launcher --socket PATH` execs itself fresh, so it is small and cheap to fork; it is one
//! thread with one epoll loop. It exists so that a `kill -9` or an upgrade of the agent costs no run: the
//! launcher keeps the process handles, the agent comes back and asks. What it lacks deliberately: any
//! idea of leases, retries, time limits or the network. If the launcher itself dies, its workloads are
//! killed by the kernel (PR_SET_PDEATHSIG), so none runs on unwatched.

mod protocol;
mod serve;
mod spawn;

pub use protocol::{Answer, Event, ExitRecord, Request, Running, StartRequest, decode, encode};
pub use serve::main;

use std::path::{Path, PathBuf};

/// The word that makes any binary with this crate a launcher, as `platform launcher --socket PATH`.
pub const SUBCOMMAND: &str = "launcher";

/// Written once, before the first fork for a name: whoever creates it may start that name, ever.
pub(crate) const STARTED: &str = "started.json";
/// Written by rename when it has ended.
pub(crate) const EXIT: &str = "exit.json";

/// Writes a file so that a reader sees all of it or nothing. No fsync: a crash of the machine ends
/// every workload anyway, and the boot id tells.
pub(crate) fn replace(folder: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    let temporary = folder.join(format!("{name}.new"));
    std::fs::write(&temporary, content)?;
    std::fs::rename(&temporary, folder.join(name))
}

/// How an attempt folder says its workload ended, if it has.
pub(crate) fn read_exit(folder: &Path) -> Option<ExitRecord> {
    serde_json::from_slice(&std::fs::read(folder.join(EXIT)).ok()?).ok()
}

/// A path to the socket that fits into the 108 bytes of a socket address, however deep the folder is.
/// The returned file keeps it valid.
pub(crate) fn short_path(socket: &Path) -> std::io::Result<(std::fs::File, PathBuf)> {
    use std::os::fd::AsRawFd;
    let name = socket
        .file_name()
        .ok_or_else(|| std::io::Error::other(format!("{} names no socket", socket.display())))?;
    let parent = match socket.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = std::fs::File::open(parent)?;
    let path = Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(name);
    Ok((folder, path))
}
