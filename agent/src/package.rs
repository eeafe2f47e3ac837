//! Unpacks a packed folder (tar.zst) beneath a root and nowhere else.
//!
//! Every path is resolved by cap-std beneath the open root, never by string, so `..`, absolute paths
//! and links that leave the folder fail in the kernel or here, each with its own words. Bytes and
//! entries are bounded, because a small archive can hold a very large one.

use crate::runtime::LaunchFailure;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

/// Most bytes a package may unpack to. The packer refuses far smaller folders; this only bounds harm.
const LIMIT_BYTES: u64 = 20 << 30;
/// Most entries a package may hold.
const LIMIT_ENTRIES: u64 = 500_000;

/// Why a package was refused.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// Not absolute is allowed, this was.
    #[error("package entry {0:?} is an absolute path; entries must be relative")]
    Absolute(PathBuf),
    /// Climbs out.
    #[error("package entry {0:?} has a \"..\"; entries must stay in the folder")]
    Escapes(PathBuf),
    /// A link whose target is elsewhere.
    #[error("package entry {path:?} links to {target:?}, which leaves the folder")]
    LinkLeaves {
        /// The link.
        path: PathBuf,
        /// Where it points.
        target: PathBuf,
    },
    /// A device, a fifo, or something newer.
    #[error(
        "package entry {path:?} is of kind {kind:?}; only files, folders and links are unpacked"
    )]
    Kind {
        /// The entry.
        path: PathBuf,
        /// What it is.
        kind: EntryType,
    },
    /// Too much in all.
    #[error("the package unpacks to more than {limit} bytes")]
    TooManyBytes {
        /// Allowed.
        limit: u64,
    },
    /// Too many entries.
    #[error("the package holds more than {limit} entries")]
    TooManyEntries {
        /// Allowed.
        limit: u64,
    },
    /// The archive itself is broken.
    #[error("the package cannot be read as tar.zst: {0}")]
    Broken(io::Error),
    /// The disk said no.
    #[error("{path}: {error}")]
    Storage {
        /// Where.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

/// A failure of this node's disk, in words; a full disk says so.
pub fn storage_failure(path: &Path, error: &io::Error) -> LaunchFailure {
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; the node's disk is full: free some space under the agent's data folder"
        }
        _ => "",
    };
    LaunchFailure::node(format!("cannot write {}: {error}{hint}", path.display()))
}

/// Unpacks into `root`, replacing whatever an interrupted try left there.
pub fn unpack(archive: &Path, root: &Path) -> Result<(), LaunchFailure> {
    let outcome = clear(root).and_then(|()| {
        let file = fs::File::open(archive).map_err(|error| PackageError::Storage {
            path: archive.to_owned(),
            error,
        })?;
        unpack_from(file, root, LIMIT_BYTES, LIMIT_ENTRIES)
    });
    outcome.map_err(|error| match error {
        PackageError::Storage { path, error } => storage_failure(&path, &error),
        refused => LaunchFailure::user(refused.to_string()),
    })
}

fn clear(root: &Path) -> Result<(), PackageError> {
    let outcome = match fs::remove_dir_all(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    outcome
        .and_then(|()| fs::create_dir_all(root))
        .map_err(|error| PackageError::Storage {
            path: root.to_owned(),
            error,
        })
}

/// Unpacks a stream with the bounds given.
pub fn unpack_from(
    archive: impl Read,
    root: &Path,
    limit_bytes: u64,
    limit_entries: u64,
) -> Result<(), PackageError> {
    let storage = |path: &Path| {
        let path = root.join(path);
        move |error| PackageError::Storage { path, error }
    };
    let dir = Dir::open_ambient_dir(root, ambient_authority()).map_err(storage(Path::new("")))?;
    let decoder = zstd::stream::read::Decoder::new(archive).map_err(PackageError::Broken)?;
    let mut tar = tar::Archive::new(decoder);
    let mut bytes = 0_u64;
    let mut count = 0_u64;
    for entry in tar.entries().map_err(PackageError::Broken)? {
        let mut entry = entry.map_err(PackageError::Broken)?;
        count += 1;
        if count > limit_entries {
            return Err(PackageError::TooManyEntries {
                limit: limit_entries,
            });
        }
        let path = entry.path().map_err(PackageError::Broken)?.into_owned();
        let path = relative(&path)?;
        if path.as_os_str().is_empty() {
            continue;
        }
        match entry.header().entry_type() {
            EntryType::Directory => dir.create_dir_all(&path).map_err(storage(&path))?,
            EntryType::Regular | EntryType::Continuous => {
                bytes = bytes.saturating_add(entry.size());
                if bytes > limit_bytes {
                    return Err(PackageError::TooManyBytes { limit: limit_bytes });
                }
                parent(&dir, &path).map_err(storage(&path))?;
                let executable = entry.header().mode().unwrap_or(0o644) & 0o100 != 0;
                let mut options = OpenOptions::new();
                options
                    .write(true)
                    .create_new(true)
                    .mode(if executable { 0o755 } else { 0o644 });
                let mut file = dir.open_with(&path, &options).map_err(storage(&path))?;
                copy(&mut entry, &mut file).map_err(|error| match error {
                    Copy::Read(error) => PackageError::Broken(error),
                    Copy::Write(error) => storage(&path)(error),
                })?;
            }
            EntryType::Symlink => {
                let target = entry
                    .link_name()
                    .map_err(PackageError::Broken)?
                    .unwrap_or_default()
                    .into_owned();
                if !stays(&path, &target) {
                    return Err(PackageError::LinkLeaves { path, target });
                }
                parent(&dir, &path).map_err(storage(&path))?;
                dir.symlink(&target, &path).map_err(storage(&path))?;
            }
            kind => return Err(PackageError::Kind { path, kind }),
        }
    }
    Ok(())
}

fn parent(dir: &Dir, path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => dir.create_dir_all(parent),
        _ => Ok(()),
    }
}

fn relative(path: &Path) -> Result<PathBuf, PackageError> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err(PackageError::Escapes(path.to_owned())),
            Component::RootDir | Component::Prefix(_) => {
                return Err(PackageError::Absolute(path.to_owned()));
            }
        }
    }
    Ok(clean)
}

/// Whether a link's target, read from where the link stands, stays beneath the root.
fn stays(link: &Path, target: &Path) -> bool {
    let mut depth = link.components().count().saturating_sub(1);
    for component in target.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

enum Copy {
    Read(io::Error),
    Write(io::Error),
}

/// Copies and says which side failed: a broken archive is the user's, a full disk the node's.
fn copy(from: &mut impl Read, to: &mut impl io::Write) -> Result<(), Copy> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Copy::Read(error)),
        };
        to.write_all(&buffer[..read]).map_err(Copy::Write)?;
    }
}
