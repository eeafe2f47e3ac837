//! What a member keeps on disk: the raft log and hard state (raft-engine), and snapshots in files.
//!
//! Layout of the folder: `log/` is raft-engine's, `synced` says how far it surely reaches (see
//! [`files`]), `snapshots/<index>.snap` holds the newest snapshot. What this module deliberately
//! lacks: any retry of a failed fsync (that ends the process), and any repair of a corrupt middle
//! (that refuses to start; the other members, or a backup, hold the truth).

mod disk;
mod files;
mod past;
mod snapshots;

pub use disk::{Disk, RealDisk};
pub use past::Past;

use coordinator_core::state::State;
use coordinator_replica::{CodecError, Effects, Restored, bootstrap_metadata, decode_entry};
use files::{LogFiles, SyncedMark};
use raft::eraftpb::{Entry as RaftEntry, EntryType, HardState, SnapshotMetadata};
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// raft-engine keeps many groups; we have one.
const GROUP: u64 = 1;
const HARD_STATE_KEY: &[u8] = b"hard_state";
/// Small files let the space behind a snapshot return soon.
const LOG_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Entries read at a time when a snapshot is made.
const REPLAY_CHUNK_ENTRIES: u64 = 1024;

/// Why the disk could not serve.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space left; nothing of the write remains, and it may be tried again when space returns.
    #[error("disk full: {0}")]
    Full(String),
    /// What was once durable is not there any more, or not readable.
    #[error(
        "the raft log at {path} is damaged: {reason}; this member stops rather than forget acknowledged commands: \
         restore its folder from a backup, or rebuild it from the other members"
    )]
    Damaged {
        /// Folder.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A record of another version, or undecodable.
    #[error("{path}: {source}")]
    Codec {
        /// File or folder.
        path: String,
        /// Why.
        source: CodecError,
    },
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The log library's own refusal.
    #[error("raft log at {path}: {reason}")]
    Log {
        /// Folder.
        path: String,
        /// Why.
        reason: String,
    },
}

impl StoreError {
    fn io(path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::StorageFull {
            return Self::Full(format!("{}: {source}", path.display()));
        }
        Self::Io {
            path: path.display().to_string(),
            source,
        }
    }
}

struct RaftEntries;

impl MessageExt for RaftEntries {
    type Entry = RaftEntry;

    fn index(entry: &Self::Entry) -> u64 {
        entry.index
    }
}

/// The open store. One thread writes; [`Store::snapshotter`] may read beside it.
pub struct Store {
    directory: PathBuf,
    engine: Arc<Engine<LogFiles>>,
    disk: Arc<dyn Disk>,
    unsaved_hard_state: Option<HardState>,
    last_snapshot_bytes: u64,
}

impl Store {
    /// Opens the folder, making a new group with `member` as its only voter where there is none.
    pub fn open(
        directory: &Path,
        member: u64,
        disk: Arc<dyn Disk>,
    ) -> Result<(Self, Restored), StoreError> {
        let log_folder = directory.join("log");
        let snapshot_folder = directory.join("snapshots");
        for folder in [&log_folder, &snapshot_folder] {
            std::fs::create_dir_all(folder).map_err(|error| StoreError::io(folder, error))?;
        }
        let damaged = |reason: String| StoreError::Damaged {
            path: directory.display().to_string(),
            reason,
        };
        if snapshots::newest(&snapshot_folder)?.is_none() {
            let holds_log = std::fs::read_dir(&log_folder)
                .map_err(|error| StoreError::io(&log_folder, error))?
                .flatten()
                .any(|entry| entry.file_name() != "LOCK");
            if holds_log {
                return Err(damaged(
                    "there is a log but no snapshot to begin from".to_owned(),
                ));
            }
            snapshots::save(
                &snapshot_folder,
                &bootstrap_metadata(&[member]),
                &State::default(),
                &disk,
            )?;
        }
        let Some((snapshot_index, path)) = snapshots::newest(&snapshot_folder)? else {
            return Err(damaged("the first snapshot has vanished".to_owned()));
        };
        let (snapshot, state) = snapshots::load(&path)?;
        if snapshot.index != snapshot_index {
            return Err(damaged(format!(
                "{} says index {}",
                path.display(),
                snapshot.index
            )));
        }
        let last_snapshot_bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());

        let mark = SyncedMark::open(&directory.join("synced"), &log_folder).map_err(damaged)?;
        let log_files = Arc::new(LogFiles::new(Arc::clone(&disk), mark));
        let engine =
            Engine::open_with_file_system(engine_config(&log_folder), Arc::clone(&log_files))
                .map_err(|error| damaged(error.to_string()))?;
        log_files.recovered();
        let store = Self {
            directory: directory.to_owned(),
            engine: Arc::new(engine),
            disk,
            unsaved_hard_state: None,
            last_snapshot_bytes,
        };
        let hard_state: HardState = store
            .engine
            .get_message(GROUP, HARD_STATE_KEY)
            .map_err(|error| damaged(format!("hard state: {error}")))?
            .unwrap_or_default();
        let mut entries = Vec::new();
        if let Some(last) = store
            .engine
            .last_index(GROUP)
            .filter(|last| *last > snapshot.index)
        {
            let first = store.engine.first_index(GROUP).unwrap_or(0);
            if first > snapshot.index + 1 {
                return Err(damaged(format!(
                    "the snapshot ends at index {}, the log begins at {first}",
                    snapshot.index
                )));
            }
            store.read_entries(snapshot.index + 1, last + 1, &mut entries)?;
        }
        snapshots::remove_older(&snapshot_folder, snapshot.index)?;
        Ok((
            store,
            Restored {
                hard_state,
                snapshot,
                state,
                entries,
            },
        ))
    }

    fn read_entries(
        &self,
        begin: u64,
        end: u64,
        entries: &mut Vec<RaftEntry>,
    ) -> Result<(), StoreError> {
        fetch(&self.engine, &self.directory, begin, end, entries)
    }

    /// Makes effects durable: at most one fdatasync for however many entries. After
    /// [`StoreError::Full`] nothing of them remains and the same call may be made again.
    pub fn persist(&mut self, effects: &Effects) -> Result<(), StoreError> {
        let mut batch = LogBatch::default();
        let hard_state = effects
            .hard_state
            .clone()
            .or_else(|| self.unsaved_hard_state.clone());
        if !effects.must_sync && effects.entries.is_empty() && effects.snapshot.is_none() {
            // Only the commit index moved on, which raft finds again by itself: the next write takes it along.
            self.unsaved_hard_state = hard_state;
            return Ok(());
        }
        let log_error = |error: raft_engine::Error| self.log_error(error);
        if let Some(snapshot) = &effects.snapshot {
            let folder = self.directory.join("snapshots");
            snapshots::save_encoded(
                &folder,
                snapshot.get_metadata().index,
                snapshot.get_data(),
                &self.disk,
            )?;
            batch.add_command(
                GROUP,
                Command::Compact {
                    index: snapshot.get_metadata().index + 1,
                },
            );
        }
        if !effects.entries.is_empty() {
            batch
                .add_entries::<RaftEntries>(GROUP, &effects.entries)
                .map_err(log_error)?;
        }
        if let Some(hard_state) = &hard_state {
            batch
                .put_message(GROUP, HARD_STATE_KEY.to_vec(), hard_state)
                .map_err(log_error)?;
        }
        self.engine.write(&mut batch, true).map_err(log_error)?;
        self.unsaved_hard_state = None;
        Ok(())
    }

    fn log_error(&self, error: raft_engine::Error) -> StoreError {
        let path = self.directory.join("log");
        match error {
            raft_engine::Error::Io(source) => StoreError::io(&path, source),
            other => StoreError::Log {
                path: path.display().to_string(),
                reason: other.to_string(),
            },
        }
    }

    /// What can make a snapshot on another thread while this one goes on writing.
    pub fn snapshotter(&self) -> Snapshotter {
        Snapshotter {
            directory: self.directory.clone(),
            engine: Arc::clone(&self.engine),
            disk: Arc::clone(&self.disk),
        }
    }

    /// Size of the newest snapshot.
    pub fn last_snapshot_bytes(&self) -> u64 {
        self.last_snapshot_bytes
    }

    /// Takes note of a finished snapshot, for [`Store::last_snapshot_bytes`].
    pub fn note_snapshot(&mut self, bytes: u64) {
        self.last_snapshot_bytes = bytes;
    }

    /// Free bytes where the log is.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        self.disk
            .free_bytes(&self.directory)
            .map_err(|error| StoreError::io(&self.directory, error))
    }
}

/// Makes snapshots beside the driver: it replays the log onto the previous snapshot. The state that
/// serves is neither copied nor locked, so applies never wait, at the price of a second state in memory
/// meanwhile and of applying each command twice; and every snapshot is a rehearsal of recovery.
pub struct Snapshotter {
    directory: PathBuf,
    engine: Arc<Engine<LogFiles>>,
    disk: Arc<dyn Disk>,
}

impl Snapshotter {
    /// Saves a snapshot as of `metadata`, drops older ones, and lets the log go up to `compact_to`.
    /// Answers its size.
    pub fn make(&self, metadata: &SnapshotMetadata, compact_to: u64) -> Result<u64, StoreError> {
        let folder = self.directory.join("snapshots");
        let Some((from, path)) = snapshots::newest(&folder)? else {
            return Err(StoreError::Damaged {
                path: self.directory.display().to_string(),
                reason: "no snapshot to build on".to_owned(),
            });
        };
        let (_, mut state) = snapshots::load(&path)?;
        let mut next = from + 1;
        let mut entries = Vec::new();
        while next <= metadata.index {
            let end = (next + REPLAY_CHUNK_ENTRIES).min(metadata.index + 1);
            entries.clear();
            fetch(&self.engine, &self.directory, next, end, &mut entries)?;
            for entry in &entries {
                if entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty() {
                    let command =
                        decode_entry(&entry.data).map_err(|source| StoreError::Codec {
                            path: format!("log index {}", entry.index),
                            source,
                        })?;
                    state.apply(entry.index, &command);
                }
            }
            next = end;
        }
        let bytes = snapshots::save(&folder, metadata, &state, &self.disk)?;
        drop(state);
        self.engine
            .compact_to(GROUP, compact_to.min(metadata.index) + 1);
        snapshots::remove_older(&folder, metadata.index)?;
        self.engine
            .purge_expired_files()
            .map_err(|error| StoreError::Log {
                path: self.directory.display().to_string(),
                reason: error.to_string(),
            })?;
        Ok(bytes)
    }
}

fn fetch(
    engine: &Engine<LogFiles>,
    directory: &Path,
    begin: u64,
    end: u64,
    entries: &mut Vec<RaftEntry>,
) -> Result<(), StoreError> {
    engine
        .fetch_entries_to::<RaftEntries>(GROUP, begin, end, None, entries)
        .map_err(|error| StoreError::Damaged {
            path: directory.display().to_string(),
            reason: format!("entries {begin} to {}: {error}", end - 1),
        })?;
    Ok(())
}

fn engine_config(log_folder: &Path) -> Config {
    Config {
        dir: log_folder.display().to_string(),
        // A torn tail goes; LogFiles refuses the truncation when it would cost anything once synced.
        recovery_mode: RecoveryMode::TolerateTailCorruption,
        recovery_threads: 2,
        target_file_size: ReadableSize(LOG_FILE_BYTES),
        purge_threshold: ReadableSize(2 * LOG_FILE_BYTES),
        // Recycled files would hold old records behind the new ones, where a tail should be zeros.
        enable_log_recycle: false,
        ..Config::default()
    }
}
