//! The Python SDK that this binary carries, unpacked once for each content.

use crate::blobs::hex;
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/sdk_files.rs"));
}

/// The embedded files: path within the SDK, content.
pub fn files() -> &'static [(&'static str, &'static [u8])] {
    embedded::FILES
}

/// Unpacks the SDK beneath `folder` unless it is there; the folder to put on PYTHONPATH.
pub fn unpack(folder: &Path) -> io::Result<PathBuf> {
    let mut hasher = Sha256::new();
    for (name, content) in files() {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update((content.len() as u64).to_le_bytes());
        hasher.update(content);
    }
    let hash = hex(&hasher.finalize());
    let target = folder.join(&hash[..16]);
    if target.is_dir() {
        return Ok(target);
    }
    // By rename, so that a folder with the final name is always whole.
    let temporary = folder.join(format!("{}.{}", &hash[..16], std::process::id()));
    for (name, content) in files() {
        let path = temporary.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content)?;
    }
    fs::create_dir_all(&temporary)?;
    match fs::rename(&temporary, &target) {
        Ok(()) => Ok(target),
        // Another process of this machine was faster.
        Err(_) if target.is_dir() => {
            fs::remove_dir_all(&temporary)?;
            Ok(target)
        }
        Err(error) => Err(error),
    }
}
