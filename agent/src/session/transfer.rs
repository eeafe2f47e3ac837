//! Blobs and journals, on a connection of their own: a large upload never delays a heartbeat.

use super::convert::key_to_wire;
use super::{Client, connect};
use crate::AgentConfig;
use crate::AgentError;
use crate::blobs::{BlobSource, FetchError};
use agent_core::Key;
use futures::future::BoxFuture;
use platform_proto::agent as wire;
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
    /// The sequence has a gap as the store sees it: start over from what is on disk.
    #[error("{0}")]
    Conflict(String),
    /// Our own disk.
    #[error("{0}")]
    Disk(#[from] io::Error),
}

fn refused(status: &tonic::Status) -> TransferError {
    let text = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::FailedPrecondition => TransferError::Stale(text),
        Code::Aborted | Code::OutOfRange | Code::AlreadyExists => TransferError::Conflict(text),
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
            // Of a blob this can only mean that the file changed under us: try again.
            Err(status) => Err(TransferError::Unavailable(format!(
                "{:?}: {}",
                status.code(),
                status.message()
            ))),
        }
    }
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
