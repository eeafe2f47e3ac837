//! The seam between the store and the disk, so that tests and simulations can make a disk full, slow
//! or failing without root.

use std::io;
use std::path::Path;

/// Asked before the store touches the disk; an error is as if the disk had given it.
pub trait Disk: Send + Sync {
    /// Free bytes for us on the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Before `bytes` are written.
    fn before_write(&self, bytes: usize) -> io::Result<()> {
        let _ = bytes;
        Ok(())
    }

    /// Before data is made durable.
    fn before_sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The disk as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {}
