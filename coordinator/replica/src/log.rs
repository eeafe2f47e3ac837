//! The part of the log that raft may still ask for, in memory: from the last compaction on. The shell
//! keeps the same entries on disk; raft itself never waits for a disk to read.

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};
use std::cell::Cell;
use std::collections::VecDeque;

/// Entries after `compacted`, and what raft asks at its start.
pub(crate) struct MemoryLog {
    initial: RaftState,
    compacted_index: u64,
    compacted_term: u64,
    entries: VecDeque<Entry>,
    staged: Option<Snapshot>,
    wanted: Cell<bool>,
}

impl MemoryLog {
    pub(crate) fn new(
        hard_state: HardState,
        snapshot: &SnapshotMetadata,
        entries: Vec<Entry>,
    ) -> Self {
        Self {
            initial: RaftState::new(hard_state, snapshot.get_conf_state().clone()),
            compacted_index: snapshot.index,
            compacted_term: snapshot.term,
            entries: entries.into(),
            staged: None,
            wanted: Cell::new(false),
        }
    }

    fn last(&self) -> u64 {
        self.entries
            .back()
            .map_or(self.compacted_index, |entry| entry.index)
    }

    /// Appends, replacing a suffix that a new leader has overruled.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        while self
            .entries
            .back()
            .is_some_and(|entry| entry.index >= first.index)
        {
            self.entries.pop_back();
        }
        debug_assert_eq!(self.last() + 1, first.index, "the log has no gap");
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets entries up to and including `index`.
    pub(crate) fn compact(&mut self, index: u64) {
        while let Some(entry) = self.entries.front() {
            if entry.index > index {
                break;
            }
            self.compacted_index = entry.index;
            self.compacted_term = entry.term;
            self.entries.pop_front();
        }
        if self
            .staged
            .as_ref()
            .is_some_and(|staged| staged.get_metadata().index < self.compacted_index)
        {
            self.staged = None;
        }
    }

    /// Replaces everything by a snapshot from the leader.
    pub(crate) fn restore(&mut self, metadata: &SnapshotMetadata) {
        self.entries.clear();
        self.staged = None;
        self.compacted_index = metadata.index;
        self.compacted_term = metadata.term;
        self.initial.conf_state = metadata.get_conf_state().clone();
    }

    /// Offers a snapshot for members that need one.
    pub(crate) fn stage(&mut self, snapshot: Snapshot) {
        self.staged = Some(snapshot);
    }

    /// Whether a member asked for a snapshot that was not there, since last asked.
    pub(crate) fn take_wanted(&self) -> bool {
        self.wanted.replace(false)
    }

    pub(crate) fn conf_state(&self) -> &ConfState {
        &self.initial.conf_state
    }
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.compacted_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let from = usize::try_from(low - self.compacted_index - 1).unwrap_or(usize::MAX);
        let count = usize::try_from(high - low).unwrap_or(usize::MAX);
        let mut entries: Vec<Entry> = self
            .entries
            .iter()
            .skip(from)
            .take(count)
            .cloned()
            .collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.compacted_index {
            return Ok(self.compacted_term);
        }
        if index < self.compacted_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        usize::try_from(index - self.compacted_index - 1)
            .ok()
            .and_then(|position| self.entries.get(position))
            .map(|entry| entry.term)
            .ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.compacted_index + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> Result<Snapshot> {
        match &self.staged {
            Some(snapshot) if snapshot.get_metadata().index >= request_index => {
                Ok(snapshot.clone())
            }
            _ => {
                self.wanted.set(true);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}
