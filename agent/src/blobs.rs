//! The node's cache of content-addressed blobs: fetched once, checked, kept up to a size.
//!
//! A blob in use is never evicted: [`Blob`] holds it. Two who want the same blob wait for one fetch.

use crate::runtime::LaunchFailure;
use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;

/// Why a blob could not be read from its source.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The store lacks it.
    #[error("the store has no blob {0}")]
    Missing(String),
    /// The store cannot be reached or broke off.
    #[error("{0}")]
    Unavailable(String),
}

/// Where blobs come from: the coordinator, or a test.
pub trait BlobSource: Send + Sync + std::fmt::Debug + 'static {
    /// Streams one blob into `sink`, chunk by chunk; an error of the sink ends it.
    fn read<'a>(
        &'a self,
        sha256: &'a str,
        sink: &'a mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
    ) -> BoxFuture<'a, Result<io::Result<()>, FetchError>>;
}

/// A cached blob; it stays while this lives.
#[derive(Debug)]
pub struct Blob {
    path: PathBuf,
}

impl Blob {
    /// Where its bytes lie.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

type Gate = Arc<tokio::sync::Mutex<()>>;

#[derive(Debug, Default)]
struct Inside {
    /// One gate for each hash being fetched.
    fetching: HashMap<String, Gate>,
    /// Blobs somebody holds.
    held: HashMap<String, Weak<Blob>>,
}

/// The cache: a folder of files named by their hash.
#[derive(Debug)]
pub struct BlobCache {
    folder: PathBuf,
    limit_bytes: u64,
    source: Arc<dyn BlobSource>,
    inside: Mutex<Inside>,
}

impl BlobCache {
    /// Opens the cache; leftovers of an interrupted fetch are removed.
    pub fn open(
        folder: PathBuf,
        limit_bytes: u64,
        source: Arc<dyn BlobSource>,
    ) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)?.flatten() {
            if !is_sha256(&entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self {
            folder,
            limit_bytes,
            source,
            inside: Mutex::new(Inside::default()),
        })
    }

    /// The blob of this hash, from the cache or the source.
    pub async fn fetch(&self, sha256: &str) -> Result<Arc<Blob>, LaunchFailure> {
        if !is_sha256(sha256) {
            return Err(LaunchFailure::user(format!(
                "package address {sha256:?} is not a lower-case SHA-256"
            )));
        }
        if let Some(blob) = self.cached(sha256) {
            return Ok(blob);
        }
        let gate = {
            let mut inside = self.lock();
            Arc::clone(inside.fetching.entry(sha256.to_owned()).or_default())
        };
        let _turn = gate.lock().await;
        if let Some(blob) = self.cached(sha256) {
            return Ok(blob);
        }
        let outcome = self.download(sha256).await;
        {
            let mut inside = self.lock();
            // Who still waits keeps the gate: a newcomer with another would write the same file.
            if Arc::strong_count(&gate) <= 2 {
                inside.fetching.remove(sha256);
            }
        }
        outcome?;
        let blob = self.cached(sha256).ok_or_else(|| {
            LaunchFailure::node(format!("blob {sha256} left the cache while it was fetched"))
        })?;
        self.evict();
        Ok(blob)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn cached(&self, sha256: &str) -> Option<Arc<Blob>> {
        let mut inside = self.lock();
        if let Some(blob) = inside.held.get(sha256).and_then(Weak::upgrade) {
            return Some(blob);
        }
        let path = self.folder.join(sha256);
        // Its modification time says when it was last asked for: eviction takes the oldest.
        let file = fs::File::open(&path).ok()?;
        let _ = file.set_modified(SystemTime::now());
        let blob = Arc::new(Blob { path });
        inside.held.insert(sha256.to_owned(), Arc::downgrade(&blob));
        Some(blob)
    }

    async fn download(&self, sha256: &str) -> Result<(), LaunchFailure> {
        let temporary = self.folder.join(format!("{sha256}.part"));
        let mut file = fs::File::create(&temporary)
            .map_err(|error| crate::package::storage_failure(&temporary, &error))?;
        let mut hasher = Sha256::new();
        let outcome = {
            let mut sink = |chunk: &[u8]| {
                hasher.update(chunk);
                file.write_all(chunk)
            };
            self.source.read(sha256, &mut sink).await
        };
        let failed = match outcome {
            Ok(Ok(())) => {
                let found = hex(&hasher.finalize());
                if found == sha256 {
                    // Its name is taken as proof of its bytes from here on, also after a power loss.
                    file.sync_all()
                        .map_err(|error| crate::package::storage_failure(&temporary, &error))?;
                    return fs::rename(&temporary, self.folder.join(sha256))
                        .map_err(|error| crate::package::storage_failure(&temporary, &error));
                }
                LaunchFailure::node(format!(
                    "the store answered with {found} when asked for {sha256}"
                ))
            }
            Ok(Err(error)) => crate::package::storage_failure(&temporary, &error),
            Err(FetchError::Missing(hash)) => LaunchFailure::user(format!(
                "the package {hash} is not in the store; submit the run again to upload it"
            )),
            Err(error) => LaunchFailure::node(format!("package {sha256}: {error}")),
        };
        let _ = fs::remove_file(&temporary);
        Err(failed)
    }

    /// Removes the least recently used blobs that nobody holds, until the cache fits.
    fn evict(&self) {
        let mut inside = self.lock();
        inside.held.retain(|_, held| held.strong_count() > 0);
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        let mut files: Vec<(SystemTime, u64, String)> = entries
            .flatten()
            .filter_map(|entry| {
                let about = entry.metadata().ok()?;
                let name = entry.file_name().into_string().ok()?;
                is_sha256(&name).then_some((about.modified().ok()?, about.len(), name))
            })
            .collect();
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        files.sort();
        for (_, size, name) in files {
            if total <= self.limit_bytes {
                break;
            }
            if !inside.held.contains_key(&name) && fs::remove_file(self.folder.join(&name)).is_ok()
            {
                total -= size;
            }
        }
    }
}

/// Whether a text is a lower-case SHA-256.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}
