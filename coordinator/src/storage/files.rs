//! The files beneath raft-engine. They add three things to the library's own:
//!
//! - **A mark of what is surely synced.** The library cuts the newest log file at the first record it
//!   cannot read. That is right for a write torn by a crash and wrong for a sector gone bad, which would
//!   silently cost every acknowledged command behind it. After each fdatasync the file's name and length
//!   go to `synced` (not itself synced, so it costs a microsecond: it is a lower bound, exact after
//!   `kill -9`, up to half a minute old after a power cut). Recovery refuses to cut below it.
//! - **A full disk stays an error.** Space is allocated ahead; where that fails the write is refused
//!   before it begins, so fdatasync never meets ENOSPC.
//! - **The [`Disk`] seam** for fault tests.
//!
//! An fdatasync error panics with the reason; the driver ends the process by it.

use super::disk::Disk;
use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const MARK_NAME_BYTES: usize = 40;
const MARK_SUM_BYTES: usize = 8;
const MARK_BYTES: usize = MARK_NAME_BYTES + 8 + MARK_SUM_BYTES;
/// Zeros written ahead at a time.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// How far the append log and the rewrite log surely reach on disk.
pub(super) struct SyncedMark {
    file: File,
    marks: Mutex<[Option<(String, u64)>; 2]>,
}

fn queue_of(name: &str) -> usize {
    usize::from(name.ends_with(".rewrite"))
}

impl SyncedMark {
    /// Reads the marks, and checks that what they promise is there.
    pub(super) fn open(path: &Path, log_folder: &Path) -> std::result::Result<Self, String> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let mut marks = [None, None];
        for (queue, mark) in marks.iter_mut().enumerate() {
            let mut bytes = [0; MARK_BYTES];
            let offset = (queue * MARK_BYTES) as u64;
            if file.read_exact_at(&mut bytes, offset).is_err() {
                continue;
            }
            let (body, sum) = bytes.split_at(MARK_BYTES - MARK_SUM_BYTES);
            if blake3::hash(body).as_bytes()[..MARK_SUM_BYTES] != *sum {
                if bytes != [0; MARK_BYTES] {
                    tracing::warn!(path = %path.display(), "the mark of the synced log is torn, going on without it");
                }
                continue;
            }
            let (name, length) = body.split_at(MARK_NAME_BYTES);
            let name = String::from_utf8_lossy(name)
                .trim_end_matches('\0')
                .to_owned();
            let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
            match std::fs::metadata(log_folder.join(&name)) {
                Ok(metadata) if metadata.len() >= length => *mark = Some((name, length)),
                Ok(metadata) => {
                    return Err(format!(
                        "{name} has {} bytes, {length} were synced",
                        metadata.len()
                    ));
                }
                Err(error) => {
                    return Err(format!(
                        "{name}, of which {length} bytes were synced: {error}"
                    ));
                }
            }
        }
        Ok(Self {
            file,
            marks: Mutex::new(marks),
        })
    }

    fn of(&self, name: &str) -> Option<u64> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks[queue_of(name)]
            .as_ref()
            .filter(|(marked, _)| marked == name)
            .map(|(_, length)| *length)
    }

    fn set(&self, name: &str, length: u64) {
        let queue = queue_of(name);
        let mut bytes = [0; MARK_BYTES];
        let name_bytes = name.as_bytes();
        if name_bytes.len() > MARK_NAME_BYTES {
            return;
        }
        bytes[..name_bytes.len()].copy_from_slice(name_bytes);
        bytes[MARK_NAME_BYTES..MARK_NAME_BYTES + 8].copy_from_slice(&length.to_le_bytes());
        let sum = blake3::hash(&bytes[..MARK_BYTES - MARK_SUM_BYTES]);
        bytes[MARK_BYTES - MARK_SUM_BYTES..].copy_from_slice(&sum.as_bytes()[..MARK_SUM_BYTES]);
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        // A mark that cannot be written leaves an older, lower one: weaker, never wrong.
        if self
            .file
            .write_all_at(&bytes, (queue * MARK_BYTES) as u64)
            .is_ok()
        {
            marks[queue] = Some((name.to_owned(), length));
        }
    }
}

struct Shared {
    disk: Arc<dyn Disk>,
    mark: SyncedMark,
    recovering: AtomicBool,
}

/// The file system given to raft-engine.
pub(super) struct LogFiles {
    shared: Arc<Shared>,
}

impl LogFiles {
    pub(super) fn new(disk: Arc<dyn Disk>, mark: SyncedMark) -> Self {
        Self {
            shared: Arc::new(Shared {
                disk,
                mark,
                recovering: AtomicBool::new(true),
            }),
        }
    }

    /// From here on truncation is the library's own tidying, not recovery.
    pub(super) fn recovered(&self) {
        self.shared.recovering.store(false, Ordering::Release);
    }

    fn handle(&self, path: &Path, file: File) -> Result<LogFile> {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let end = file.metadata()?.len();
        Ok(LogFile {
            shared: Arc::clone(&self.shared),
            file,
            name,
            end: AtomicU64::new(end),
        })
    }
}

impl FileSystem for LogFiles {
    type Handle = LogFile;
    type Reader = Cursor;
    type Writer = Cursor;

    fn create<P: AsRef<Path>>(&self, path: P) -> Result<LogFile> {
        self.shared.disk.before_write(0)?;
        let path = path.as_ref();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        self.handle(path, file)
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> Result<LogFile> {
        let path = path.as_ref();
        let file = OpenOptions::new()
            .read(true)
            .write(permission == Permission::ReadWrite)
            .open(path)?;
        self.handle(path, file)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> Result<()> {
        std::fs::remove_file(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> Result<()> {
        std::fs::rename(from, to)
    }

    fn new_reader(&self, handle: Arc<LogFile>) -> Result<Cursor> {
        Ok(Cursor {
            file: handle,
            position: 0,
            refused: false,
        })
    }

    fn new_writer(&self, handle: Arc<LogFile>) -> Result<Cursor> {
        Ok(Cursor {
            file: handle,
            position: 0,
            refused: false,
        })
    }
}

/// One log file.
pub(super) struct LogFile {
    shared: Arc<Shared>,
    file: File,
    name: String,
    end: AtomicU64,
}

impl Handle for LogFile {
    fn truncate(&self, offset: usize) -> Result<()> {
        let offset = offset as u64;
        if self.shared.recovering.load(Ordering::Acquire)
            && let Some(synced) = self.shared.mark.of(&self.name)
            && offset < synced
        {
            return Err(Error::new(
                ErrorKind::InvalidData,
                format!(
                    "{} is unreadable at byte {offset}, and {synced} bytes of it were synced",
                    self.name
                ),
            ));
        }
        self.file.set_len(offset)?;
        self.end.fetch_min(offset, Ordering::AcqRel);
        Ok(())
    }

    fn file_size(&self) -> Result<usize> {
        Ok(usize::try_from(self.file.metadata()?.len()).unwrap_or(usize::MAX))
    }

    fn sync(&self) -> Result<()> {
        let end = self.end.load(Ordering::Acquire);
        if let Err(error) = self
            .shared
            .disk
            .before_sync()
            .and_then(|()| self.file.sync_data())
        {
            // After a failed fsync the kernel may have dropped the very pages: a second call would lie.
            panic!(
                "fsync of raft log file {} failed: {error}; what it holds now is unknown",
                self.name
            );
        }
        self.shared.mark.set(&self.name, end);
        Ok(())
    }
}

/// A position in a log file.
pub(super) struct Cursor {
    file: Arc<LogFile>,
    position: u64,
    refused: bool,
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = self.file.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Cursor {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if std::mem::take(&mut self.refused) {
            return Err(Error::new(
                ErrorKind::StorageFull,
                "no space could be allocated for the raft log",
            ));
        }
        self.file.shared.disk.before_write(bytes.len())?;
        let count = self.file.file.write_at(bytes, self.position)?;
        self.position += count as u64;
        self.file.end.store(self.position, Ordering::Release);
        Ok(count)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, from: SeekFrom) -> Result<u64> {
        let (base, offset) = match from {
            SeekFrom::Start(offset) => (offset, 0),
            SeekFrom::Current(offset) => (self.position, offset),
            SeekFrom::End(offset) => (self.file.file.metadata()?.len(), offset),
        };
        self.position = base.checked_add_signed(offset).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                "seek before the start of a log file",
            )
        })?;
        Ok(self.position)
    }
}

impl WriteExt for Cursor {
    fn truncate(&mut self, offset: usize) -> Result<()> {
        self.file.truncate(offset)?;
        self.position = offset as u64;
        Ok(())
    }

    fn allocate(&mut self, offset: usize, size: usize) -> Result<()> {
        // Zeros rather than fallocate: a write into unwritten extents makes each fdatasync commit the
        // file system's journal too.
        let mut position = offset as u64;
        let mut left = size;
        while left > 0 {
            let count = left.min(ZEROS.len());
            if let Err(error) = self.file.file.write_all_at(&ZEROS[..count], position) {
                self.refused = true;
                return Err(error);
            }
            position += count as u64;
            left -= count;
        }
        Ok(())
    }
}
