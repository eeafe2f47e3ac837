//! Bytes by their content: artifacts, models, packed folders, logs.
//!
//! A blob is written under a temporary name, checked against its address, synced, and renamed into
//! place: one that can be seen is whole and is what its name says. Nothing is ever overwritten with
//! other bytes, so there is nothing to lock. What this deliberately lacks: deletion (no one knows yet
//! who still refers to a blob).

use crate::names::is_sha256;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Bytes gathered before they are written: large enough for few system calls, small enough for many
/// uploads at a time.
const PART_BYTES: usize = 1 << 20;

/// Why a blob was refused or could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Not a content address.
    #[error("{0:?} is not 64 lower-case hexadecimal digits")]
    Name(String),
    /// The bytes are not what the address says. Nothing was stored.
    #[error("the bytes have the SHA-256 {found}, not {expected}; send them again")]
    Mismatch {
        /// The address given.
        expected: String,
        /// What the bytes have.
        found: String,
    },
    /// Longer than allowed. Nothing was stored.
    #[error("the blob has more than the {limit_bytes} bytes allowed")]
    TooLarge {
        /// What is allowed.
        limit_bytes: u64,
    },
    /// The disk is full. Nothing was stored.
    #[error("the disk of the artifact store is full; free some space and send it again")]
    DiskFull,
    /// There is no such blob.
    #[error("no blob {0}")]
    NotFound(String),
    /// The sender's stream broke off. Nothing was stored.
    #[error("the upload broke off: {0}")]
    Source(String),
    /// The store could not answer.
    #[error("the artifact store is unavailable: {0}")]
    Unavailable(String),
}

impl From<object_store::Error> for BlobError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { path, .. } => Self::NotFound(path.replacen('/', "", 1)),
            error if is_full(&error) => Self::DiskFull,
            error => Self::Unavailable(error.to_string()),
        }
    }
}

fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && matches!(
                io.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// What a put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Size of the blob.
    pub size_bytes: u64,
    /// Whether it was there already.
    pub existed: bool,
}

/// The artifact store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlobStore {
    store: Arc<dyn ObjectStore>,
}

impl BlobStore {
    /// Opens a store in a local folder, creating it. Uploads that a kill cut short are removed, so only
    /// one process may have the folder open.
    pub async fn open(folder: &Path) -> Result<Self, BlobError> {
        let folder = folder.to_owned();
        tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&folder)?;
            remove_unfinished(&folder)?;
            let store = LocalFileSystem::new_with_prefix(&folder)
                .map_err(io::Error::other)?
                // A blob's sender deletes its own copy once the blob is acknowledged.
                .with_fsync(true);
            Ok(Self {
                store: Arc::new(store),
            })
        })
        .await
        .map_err(|error| BlobError::Unavailable(error.to_string()))?
        .map_err(|error: io::Error| {
            if is_full(&error) {
                BlobError::DiskFull
            } else {
                BlobError::Unavailable(error.to_string())
            }
        })
    }

    /// Stores the bytes of a stream under their SHA-256, in bounded memory. Bytes that do not have it,
    /// or are more than `limit_bytes`, leave nothing behind. A blob that is there already is not
    /// written again; its stream is still read and checked.
    pub async fn put<S, E>(
        &self,
        sha256: &str,
        bytes: S,
        limit_bytes: u64,
    ) -> Result<Stored, BlobError>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: std::fmt::Display,
    {
        let location = location(sha256)?;
        let existed = self.exists(sha256).await?;
        let mut upload = if existed {
            None
        } else {
            Some(self.store.put_multipart(&location).await?)
        };
        let received = receive(sha256, bytes, limit_bytes, upload.as_deref_mut()).await;
        if let Some(mut upload) = upload {
            // Its temporary file goes with it when it is dropped; aborting is the orderly way.
            if received.is_err() {
                let _ = upload.abort().await;
            } else {
                upload.complete().await?;
            }
        }
        Ok(Stored {
            size_bytes: received?,
            existed,
        })
    }

    /// The bytes of a blob, as they are read.
    pub async fn get(
        &self,
        sha256: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, BlobError>>, BlobError> {
        let found = self.store.get(&location(sha256)?).await?;
        Ok(found.into_stream().map_err(BlobError::from).boxed())
    }

    /// Whether the blob is there.
    pub async fn exists(&self, sha256: &str) -> Result<bool, BlobError> {
        Ok(self.size(sha256).await?.is_some())
    }

    /// Size of the blob in bytes; `None` when it is not there.
    pub async fn size(&self, sha256: &str) -> Result<Option<u64>, BlobError> {
        match self.store.head(&location(sha256)?).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// `ab/cdef...`: 256 folders keep each of them short.
fn location(sha256: &str) -> Result<ObjectPath, BlobError> {
    if is_sha256(sha256) {
        Ok(ObjectPath::from(format!(
            "{}/{}",
            &sha256[..2],
            &sha256[2..]
        )))
    } else {
        Err(BlobError::Name(sha256.chars().take(80).collect()))
    }
}

async fn receive<S, E>(
    sha256: &str,
    bytes: S,
    limit_bytes: u64,
    mut upload: Option<&mut (dyn MultipartUpload + 'static)>,
) -> Result<u64, BlobError>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: std::fmt::Display,
{
    let mut bytes = std::pin::pin!(bytes);
    let mut hasher = Sha256::new();
    let mut size_bytes = 0_u64;
    let mut part: Vec<Bytes> = Vec::new();
    let mut part_bytes = 0;
    loop {
        let next = bytes.next().await.transpose();
        let next = next.map_err(|error| BlobError::Source(error.to_string()))?;
        let end = next.is_none();
        if let Some(piece) = next {
            size_bytes += piece.len() as u64;
            if size_bytes > limit_bytes {
                return Err(BlobError::TooLarge { limit_bytes });
            }
            hasher.update(&piece);
            if upload.is_some() {
                part_bytes += piece.len();
                part.push(piece);
            }
        }
        if (end && part_bytes > 0) || part_bytes >= PART_BYTES {
            part_bytes = 0;
            if let Some(upload) = upload.as_deref_mut() {
                upload
                    .put_part(PutPayload::from_iter(part.drain(..)))
                    .await?;
            }
        }
        if end {
            break;
        }
    }
    let found = hex(&hasher.finalize());
    if found == sha256 {
        Ok(size_bytes)
    } else {
        Err(BlobError::Mismatch {
            expected: sha256.to_owned(),
            found,
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Removes temporary files, which have a `#` in their names.
fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        for blob in std::fs::read_dir(entry.path())? {
            let blob = blob?;
            if blob.file_name().as_encoded_bytes().contains(&b'#') {
                std::fs::remove_file(blob.path())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures_however_deep_it_hides() {
        let full = |kind| object_store::Error::Generic {
            store: "local",
            source: Box::new(object_store::Error::Generic {
                store: "local",
                source: Box::new(io::Error::from(kind)),
            }),
        };
        assert!(matches!(
            BlobError::from(full(io::ErrorKind::StorageFull)),
            BlobError::DiskFull
        ));
        assert!(matches!(
            BlobError::from(full(io::ErrorKind::QuotaExceeded)),
            BlobError::DiskFull
        ));
        assert!(matches!(
            BlobError::from(full(io::ErrorKind::PermissionDenied)),
            BlobError::Unavailable(_)
        ));
    }
}
