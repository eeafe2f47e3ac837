//! The state as it was at a log index, from the newest snapshot and the log behind it: what a decision
//! was made on, without a copy of it kept. What lies before the snapshot is gone, and that is said.

use super::{REPLAY_CHUNK_ENTRIES, Snapshotter, StoreError, fetch, snapshots};
use coordinator_core::state::{Entry, State};
use coordinator_replica::decode_entry;
use raft::eraftpb::EntryType;

/// A state of before.
pub enum Past {
    /// As it was, and the command that came next.
    Known {
        /// The state at the index.
        state: Box<State>,
        /// The next entry of the log, if it is a command.
        next: Option<Box<Entry>>,
    },
    /// It lies before what is kept.
    Forgotten {
        /// The first index that is kept.
        kept_from: u64,
    },
}

impl Snapshotter {
    /// The state at `index`, which must have been applied.
    ///
    /// # Errors
    ///
    /// What the disk says, also when a new snapshot has taken the old one's place meanwhile.
    pub fn past(&self, index: u64) -> Result<Past, StoreError> {
        let folder = self.directory.join("snapshots");
        let Some((kept_from, path)) = snapshots::newest(&folder)? else {
            return Ok(Past::Forgotten { kept_from: 0 });
        };
        if index < kept_from {
            return Ok(Past::Forgotten { kept_from });
        }
        let (_, mut state) = snapshots::load(&path)?;
        let last = self.engine.last_index(super::GROUP).unwrap_or(index);
        let mut begin = kept_from + 1;
        let mut entries = Vec::new();
        // One more than asked for, where there is one.
        while begin <= (index + 1).min(last) {
            let end = (begin + REPLAY_CHUNK_ENTRIES).min((index + 1).min(last) + 1);
            entries.clear();
            fetch(&self.engine, &self.directory, begin, end, &mut entries)?;
            for entry in &entries {
                if entry.get_entry_type() != EntryType::EntryNormal || entry.data.is_empty() {
                    continue;
                }
                let command = decode_entry(&entry.data).map_err(|source| StoreError::Codec {
                    path: format!("log index {}", entry.index),
                    source,
                })?;
                if entry.index > index {
                    let state = Box::new(state);
                    let next = Some(Box::new(command));
                    return Ok(Past::Known { state, next });
                }
                state.apply(entry.index, &command);
            }
            begin = end;
        }
        Ok(Past::Known {
            state: Box::new(state),
            next: None,
        })
    }
}
