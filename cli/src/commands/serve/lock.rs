//! One `platform up` for one data folder: a lock that the system drops with the process, and beside
//! it who holds it.

use crate::failure::{Failure, on_path};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Held as long as this lives.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// What the lock file says of its holder.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    #[serde(default)]
    url: String,
}

/// Takes the data folder, or says who has it.
pub fn take(folder: &Path) -> Result<Lock, Failure> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(on_path("create", folder))?;
    let path = folder.join("lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(on_path("open", &path))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut text = String::new();
        let _ = file.read_to_string(&mut text);
        let holder: Holder = serde_json::from_str(&text).unwrap_or_default();
        let message = format!(
            "{} is in use by another `platform up`, process {} at {}",
            folder.display(),
            holder.pid,
            holder.url
        );
        return Err(Failure::error(message).hint(format!(
            "use that one, stop it with `kill {}`, or give this one --data DIR",
            holder.pid
        )));
    }
    let mut lock = Lock { file };
    lock.say("starting").map_err(on_path("write", &path))?;
    Ok(lock)
}

impl Lock {
    /// Writes who holds it, for whoever comes second.
    pub fn say(&mut self, url: &str) -> std::io::Result<()> {
        let holder = Holder {
            pid: std::process::id(),
            url: url.to_owned(),
        };
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}", serde_json::to_string(&holder)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = take(folder.path()).unwrap();
        first.say("http://127.0.0.1:7477").unwrap();
        let refused = take(folder.path()).unwrap_err();
        assert!(
            refused.body.message.ends_with(&format!(
                "process {} at http://127.0.0.1:7477",
                std::process::id()
            )),
            "{refused}"
        );
        drop(first);
        assert!(take(folder.path()).is_ok());
    }
}
