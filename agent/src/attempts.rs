//! Attempt folders: the agent's durable record and outbox.
//!
//! What is written here before an act is what a later agent knows. Nothing is synced to the disk: the
//! page cache survives the agent, and a crash of the machine ends every workload, which the boot id tells.

use crate::launcher::{STARTED, read_exit, replace};
use crate::relay::RETIRED;
use crate::runtime::Attempt;
use agent_core::{Assignment, Exit, Key, Observation, StopCause};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ASSIGNMENT: &str = "assignment.json";
const STOP: &str = "stop.json";
const WARNED: &str = "warned";
/// Version of `assignment.json`.
const VERSION: u32 = 1;

#[derive(serde::Serialize, serde::Deserialize)]
struct Record {
    version: u32,
    boot_id: String,
    assignment: Assignment,
}

/// What an agent before us left.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Of this boot: their runtime knows more.
    pub(crate) here: Vec<Arc<Attempt>>,
    /// Of a boot before, with what surely became of them.
    pub(crate) before: Vec<(Arc<Attempt>, Option<Observation>)>,
    /// Ended and let go; only their journals or logs are still to be stored.
    pub(crate) retired: Vec<Arc<Attempt>>,
}

/// Makes the folder and writes the assignment down. Safe to repeat.
pub(crate) fn record(attempt: &Attempt, boot_id: &str) -> io::Result<()> {
    fs::create_dir_all(attempt.spool())?;
    let record = Record {
        version: VERSION,
        boot_id: boot_id.to_owned(),
        assignment: attempt.assignment.clone(),
    };
    replace(&attempt.folder, ASSIGNMENT, &serde_json::to_vec(&record)?)
}

/// Writes down why it is being stopped, before it is signalled. The first cause stands.
pub(crate) fn record_stop(attempt: &Attempt, cause: &StopCause) -> io::Result<()> {
    if attempt.folder.join(STOP).exists() {
        return Ok(());
    }
    replace(&attempt.folder, STOP, &serde_json::to_vec(cause)?)
}

/// Writes down that it is warned of its time limit, before it is. False when it was before.
pub(crate) fn record_warning(attempt: &Attempt) -> io::Result<bool> {
    match fs::File::create_new(attempt.folder.join(WARNED)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Why it was being stopped, if it was.
pub(crate) fn stop_cause(attempt: &Attempt) -> Option<StopCause> {
    serde_json::from_slice(&fs::read(attempt.folder.join(STOP)).ok()?).ok()
}

/// Reads every folder. One that cannot be read is an error, never skipped: it may hold a live workload.
pub(crate) fn find(attempts: &Path, boot_id: &str) -> io::Result<Found> {
    let mut found = Found::default();
    for entry in fs::read_dir(attempts)? {
        let entry = entry?;
        let folder = entry.path();
        let Some(key) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<Key>().ok())
        else {
            continue;
        };
        let Some((assignment, boot)) = read(&folder, key)? else {
            // The agent died before it wrote the assignment, or in the midst of removing it: nothing
            // was started here, or all is over.
            if let Err(error) = remove(&folder) {
                // Only disk is lost by leaving it; the node must not stand still for it.
                tracing::warn!(folder = %folder.display(), %error, "cannot remove an attempt");
            }
            continue;
        };
        let container = !assignment.workload.image.is_empty();
        let attempt = Arc::new(Attempt { assignment, folder });
        if attempt.folder.join(RETIRED).exists() {
            found.retired.push(attempt);
        } else if boot == boot_id || read_exit(&attempt.folder).is_some() {
            found.here.push(attempt);
        } else if container || attempt.folder.join(STARTED).exists() {
            let gone = Observation::Ended {
                exit: Exit::Lost {
                    message: "the node was rebooted".to_owned(),
                },
                at_us: crate::clock::now().wall_us,
            };
            found.before.push((attempt, Some(gone)));
        } else {
            found.before.push((attempt, None));
        }
    }
    Ok(found)
}

/// Removes an attempt's folder, also where the workload took away its own right to change a folder
/// within, as caches of packages do.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock(folder)?;
            fs::remove_dir_all(folder)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes every folder beneath writable. Links are not followed.
fn unlock(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(())
}

fn read(folder: &Path, key: Key) -> io::Result<Option<(Assignment, String)>> {
    let path: PathBuf = folder.join(ASSIGNMENT);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // It is written whole and renamed, so only a crash of the machine leaves a name without bytes, and
    // that has ended whatever ran.
    if bytes.is_empty() {
        return Ok(None);
    }
    let unreadable = |why: String| io::Error::other(format!("{}: {why}", path.display()));
    let record: Record =
        serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
    if record.version != VERSION || record.assignment.key != key {
        return Err(unreadable(format!(
            "version {} of {}, this agent reads version {VERSION}",
            record.version, record.assignment.key
        )));
    }
    Ok(Some((record.assignment, record.boot_id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of version 1, as agents in the field have written them.
    const GOLDEN: &str = r#"{"version":1,"boot_id":"b","assignment":{"key":{"run":17,"attempt":1,"member":0},"epoch":3,"intent":"run","grace_ms":10000,"workload":{"name":"n","command":["true"]},"member_count":1,"fence":false}}"#;

    #[test]
    fn the_first_version_of_the_record_stays_readable_and_a_newer_one_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("run-17-1-0");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(ASSIGNMENT), GOLDEN).unwrap();
        let found = find(root.path(), "b").unwrap();
        assert_eq!(found.here.len(), 1);
        assert_eq!(found.here[0].assignment.epoch, 3);
        let newer = GOLDEN.replace("\"version\":1", "\"version\":2");
        fs::write(folder.join(ASSIGNMENT), newer).unwrap();
        assert!(find(root.path(), "b").is_err());
    }

    #[test]
    fn a_record_that_a_crash_of_the_machine_left_empty_does_not_stop_the_next_agent() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("run-17-1-0");
        fs::create_dir_all(folder.join("work")).unwrap();
        fs::write(folder.join(ASSIGNMENT), "").unwrap();
        let found = find(root.path(), "b").unwrap();
        assert!(found.here.is_empty() && found.before.is_empty());
        assert!(!folder.exists());
    }

    #[test]
    fn a_folder_whose_workload_made_it_read_only_is_removed_all_the_same() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("run-17-1-0");
        let cache = folder.join("work/cache");
        fs::create_dir_all(&cache).unwrap();
        fs::write(cache.join("package"), "x").unwrap();
        fs::set_permissions(&cache, fs::Permissions::from_mode(0o500)).unwrap();
        remove(&folder).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn after_a_reboot_what_had_started_is_lost_and_what_had_not_is_not() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("run-17-1-0");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(ASSIGNMENT), GOLDEN).unwrap();
        let found = find(root.path(), "another boot").unwrap();
        assert_eq!(found.before[0].1, None);
        fs::write(folder.join(STARTED), "").unwrap();
        let found = find(root.path(), "another boot").unwrap();
        assert!(matches!(
            found.before[0].1,
            Some(Observation::Ended {
                exit: Exit::Lost { .. },
                ..
            })
        ));
    }
}
