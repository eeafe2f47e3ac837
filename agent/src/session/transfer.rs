//! Blobs and journals, on a connection of their own: a large upload never delays a heartbeat.

use super::convert::key_to_wire;
use super::{Client, connect};
use crate::AgentConfig;
use crate::AgentError;
use crate::blobs::{BlobSource, FetchError, hex};
use agent_core::Key;
use futures::future::BoxFuture;
use platform_proto::agent as wire;
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;
use tokio::io::AsyncReadExt;
use tonic::Code;

const CHUNK_BYTES: usize = 256 << 10;

/// Why the coordinator did not take something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    /// Try again later.
    #[error("{0}")]
    Unavailable(String),
    /// The allocation's epoch is over: it may write nothing more, ever.
    #[error("the epoch is stale: {0}")]
    Stale(String),
    /// It can never be taken, however often it is sent.
    #[error("{0}")]
    Refused(String),
    /// A file does not have the hash that it was sent under. One that is never written again never will;
    /// one that may grow only has to be hashed anew.
    #[error("{0}")]
    Changed(String),
    /// The store holds the writer's records up to `watermark`: start over behind it.
    #[error("{why}")]
    Conflict {
        /// In the store's words.
        why: String,
        /// Highest sequence it holds.
        watermark: u64,
    },
    /// Our own disk.
    #[error("{0}")]
    Disk(#[from] io::Error),
}

fn refused(status: &tonic::Status) -> TransferError {
    let text = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::FailedPrecondition => TransferError::Stale(text),
        Code::Aborted => TransferError::Conflict {
            why: text,
            watermark: status
                .metadata()
                .get("watermark")
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .unwrap_or(0),
        },
        // What was sent is itself wrong, or too long for any call.
        Code::InvalidArgument | Code::OutOfRange => TransferError::Refused(text),
        // Also a token that is refused: an operator may mend that.
        _ => TransferError::Unavailable(text),
    }
}

/// The answer to an append.
#[derive(Debug, Default)]
pub(crate) struct Appended {
    pub(crate) watermark: u64,
    pub(crate) results: Vec<String>,
}

/// The bulk side of the coordinator.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    client: Client,
}

impl Transfer {
    pub(crate) fn new(config: &AgentConfig) -> Result<Self, AgentError> {
        Ok(Self {
            client: connect(config)?,
        })
    }

    pub(crate) async fn append(
        &self,
        key: Key,
        epoch: u64,
        tracked_run: String,
        writer: String,
        lines: Vec<u8>,
    ) -> Result<Appended, TransferError> {
        let request = wire::AppendJournalRequest {
            key: Some(key_to_wire(key)),
            epoch,
            writer,
            lines,
            tracked_run,
        };
        let answer = self
            .client
            .clone()
            .append_journal(request)
            .await
            .map_err(|status| refused(&status))?
            .into_inner();
        Ok(Appended {
            watermark: answer.watermark,
            results: answer.results,
        })
    }

    pub(crate) async fn put(&self, sha256: String, path: &Path) -> Result<(), TransferError> {
        let mut file = tokio::fs::File::open(path).await?;
        let named = sha256.clone();
        // One chunk ahead is enough to keep the line busy.
        let (chunks, stream) = tokio::sync::mpsc::channel(2);
        let read = async move {
            let mut sha256 = Some(sha256);
            loop {
                let mut content = Vec::with_capacity(CHUNK_BYTES);
                let read = (&mut file)
                    .take(CHUNK_BYTES as u64)
                    .read_to_end(&mut content)
                    .await?;
                // The hash goes first, also of a file without bytes.
                if read == 0 && sha256.is_none() {
                    return Ok::<(), io::Error>(());
                }
                let chunk = wire::PutBlobChunk {
                    sha256: sha256.take().unwrap_or_default(),
                    content,
                };
                if chunks.send(chunk).await.is_err() {
                    return Ok(());
                }
            }
        };
        let mut client = self.client.clone();
        let send = client.put_blob(tokio_stream::wrappers::ReceiverStream::new(stream));
        let (read, sent) = tokio::join!(read, send);
        read?;
        match sent {
            Ok(_) => Ok(()),
            Err(status) => {
                let error = refused(&status);
                if status.code() != Code::InvalidArgument {
                    return Err(match error {
                        TransferError::Refused(why) => TransferError::Refused(why),
                        other => TransferError::Unavailable(other.to_string()),
                    });
                }
                // Right on the disk, so it was damaged on its way: try again.
                Err(if has_hash(path, &named).await? {
                    TransferError::Unavailable(error.to_string())
                } else {
                    TransferError::Changed(error.to_string())
                })
            }
        }
    }
}

/// Whether the bytes of a file have this SHA-256.
async fn has_hash(path: &Path, sha256: &str) -> io::Result<bool> {
    let path = path.to_owned();
    let hash = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::open(path)?;
        let mut hasher = Sha256::new();
        let mut part = vec![0; CHUNK_BYTES];
        loop {
            match std::io::Read::read(&mut file, &mut part)? {
                0 => return Ok::<_, io::Error>(hex(&hasher.finalize())),
                read => hasher.update(&part[..read]),
            }
        }
    });
    Ok(hash.await.map_err(io::Error::other)?? == sha256)
}

impl BlobSource for Transfer {
    fn read<'a>(
        &'a self,
        sha256: &'a str,
        sink: &'a mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
    ) -> BoxFuture<'a, Result<io::Result<()>, FetchError>> {
        Box::pin(async move {
            let failed = |status: tonic::Status| match status.code() {
                Code::NotFound => FetchError::Missing(sha256.to_owned()),
                _ => FetchError::Unavailable(format!(
                    "cannot be fetched: {:?}: {}",
                    status.code(),
                    status.message()
                )),
            };
            let request = wire::GetBlobRequest {
                sha256: sha256.to_owned(),
            };
            let mut stream = self
                .client
                .clone()
                .get_blob(request)
                .await
                .map_err(failed)?
                .into_inner();
            while let Some(chunk) = stream.message().await.map_err(failed)? {
                if let Err(error) = sink(&chunk.content) {
                    return Ok(Err(error));
                }
            }
            Ok(Ok(()))
        })
    }
}
