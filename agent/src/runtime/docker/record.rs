//! `container.json` in the attempt's folder: written before a container is started, so that a start is
//! never repeated for a container that someone has removed, and a time limit counts from the true start.

use crate::clock;
use crate::package::storage_failure;
use crate::runtime::LaunchFailure;
use agent_core::Observation;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;

const FILE: &str = "container.json";

/// A start that was about to be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) container: String,
    pub(super) started_boottime_us: u64,
    pub(super) started_at_us: u64,
}

impl Record {
    /// Of a start that is about to be asked for, or of a container found without its record.
    pub(super) fn now(container: &str) -> Self {
        let now = clock::now();
        Self {
            container: container.to_owned(),
            started_boottime_us: now.boottime_us,
            started_at_us: now.wall_us,
        }
    }

    /// As an observation.
    pub(super) fn running(&self) -> Observation {
        Observation::Running {
            started_boottime_us: self.started_boottime_us,
            at_us: self.started_at_us,
        }
    }

    pub(super) fn read(folder: &Path) -> Result<Option<Self>, LaunchFailure> {
        let path = folder.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(storage_failure(&path, &error)),
        };
        // Replaced by rename only, so a file that cannot be read was not written by us.
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            LaunchFailure::node(format!("{} cannot be read: {error}", path.display()))
        })
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), LaunchFailure> {
        let path = folder.join(FILE);
        let temporary = folder.join("container.json.part");
        serde_json::to_vec(self)
            .map_err(io::Error::from)
            .and_then(|text| fs::write(&temporary, text))
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|error| storage_failure(&path, &error))
    }

    pub(super) fn remove(folder: &Path) {
        // Left behind, it turns a later start into "lost", which is safe.
        let _ = fs::remove_file(folder.join(FILE));
    }
}
