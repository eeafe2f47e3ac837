//! Snapshots in files: the replica's bytes, then their BLAKE3. Written beside, synced, renamed, and the
//! folder synced; read twice, first to verify.

use super::StoreError;
use super::disk::Disk;
use coordinator_core::state::State;
use coordinator_replica::{CodecError, read_snapshot, write_snapshot};
use raft::eraftpb::SnapshotMetadata;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SUM_BYTES: u64 = 32;
const BUFFER_BYTES: usize = 256 * 1024;

/// The snapshot with the highest index.
pub(super) fn newest(folder: &Path) -> Result<Option<(u64, PathBuf)>, StoreError> {
    Ok(list(folder)?.into_iter().max())
}

fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| StoreError::io(folder, error))? {
        let path = entry.map_err(|error| StoreError::io(folder, error))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "snap")
            && let Some(index) = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.parse().ok())
        {
            found.push((index, path));
        }
    }
    Ok(found)
}

/// Removes snapshots before `index`, and what an interrupted save left.
pub(super) fn remove_older(folder: &Path, index: u64) -> Result<(), StoreError> {
    for (older, path) in list(folder)? {
        if older < index {
            std::fs::remove_file(&path).map_err(|error| StoreError::io(&path, error))?;
        }
    }
    for entry in std::fs::read_dir(folder)
        .map_err(|error| StoreError::io(folder, error))?
        .flatten()
    {
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "new")
        {
            std::fs::remove_file(entry.path())
                .map_err(|error| StoreError::io(&entry.path(), error))?;
        }
    }
    Ok(())
}

struct Hashed<W> {
    inner: W,
    hasher: blake3::Hasher,
    disk: Arc<dyn Disk>,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.disk.before_write(bytes.len())?;
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Saves a snapshot; answers its size.
pub(super) fn save(
    folder: &Path,
    metadata: &SnapshotMetadata,
    state: &State,
    disk: &Arc<dyn Disk>,
) -> Result<u64, StoreError> {
    save_with(folder, metadata.index, disk, |writer| {
        write_snapshot(writer, metadata, state)
    })
}

/// Saves a snapshot that a peer sent; answers its size.
pub(super) fn save_encoded(
    folder: &Path,
    index: u64,
    bytes: &[u8],
    disk: &Arc<dyn Disk>,
) -> Result<u64, StoreError> {
    save_with(folder, index, disk, |writer| Ok(writer.write_all(bytes)?))
}

fn save_with(
    folder: &Path,
    index: u64,
    disk: &Arc<dyn Disk>,
    write: impl FnOnce(&mut dyn Write) -> Result<(), CodecError>,
) -> Result<u64, StoreError> {
    let path = folder.join(format!("{index:020}.snap"));
    let beside = folder.join(format!("{index:020}.new"));
    let result = (|| {
        let io = |error| StoreError::io(&beside, error);
        let file = File::create(&beside).map_err(io)?;
        let hashed = Hashed {
            inner: file,
            hasher: blake3::Hasher::new(),
            disk: Arc::clone(disk),
        };
        let mut writer = BufWriter::with_capacity(BUFFER_BYTES, hashed);
        write(&mut writer).map_err(|source| match source {
            CodecError::Io(error) => StoreError::io(&beside, error),
            source => StoreError::Codec {
                path: beside.display().to_string(),
                source,
            },
        })?;
        let mut hashed = writer
            .into_inner()
            .map_err(|error| io(error.into_error()))?;
        let sum = hashed.hasher.finalize();
        hashed.inner.write_all(sum.as_bytes()).map_err(io)?;
        disk.before_sync()
            .and_then(|()| hashed.inner.sync_all())
            .map_err(io)?;
        let bytes = hashed.inner.metadata().map_err(io)?.len();
        std::fs::rename(&beside, &path).map_err(io)?;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(io)?;
        Ok(bytes)
    })();
    if result.is_err() {
        // Best effort: the next start removes it otherwise.
        let _ = std::fs::remove_file(&beside);
    }
    result
}

/// Reads a snapshot, refusing one whose bytes are not what was written.
pub(super) fn load(path: &Path) -> Result<(SnapshotMetadata, State), StoreError> {
    let io = |error| StoreError::io(path, error);
    let damaged = |reason: &str| StoreError::Damaged {
        path: path.display().to_string(),
        reason: reason.to_owned(),
    };
    let length = std::fs::metadata(path).map_err(io)?.len();
    let body = length
        .checked_sub(SUM_BYTES)
        .ok_or_else(|| damaged("the snapshot is cut short"))?;
    let mut file = File::open(path).map_err(io)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader((&mut file).take(body)).map_err(io)?;
    let mut sum = [0; SUM_BYTES as usize];
    file.read_exact(&mut sum).map_err(io)?;
    if hasher.finalize() != sum {
        return Err(damaged("the snapshot's checksum does not match its bytes"));
    }
    let reader = BufReader::with_capacity(BUFFER_BYTES, File::open(path).map_err(io)?.take(body));
    read_snapshot(reader).map_err(|source| StoreError::Codec {
        path: path.display().to_string(),
        source,
    })
}
