//! The open store: one writing connection behind its task, a few that only read.

use crate::MAX_CALL_BYTES;
use crate::error::TrackingError;
use crate::journal;
use crate::names::is_tracked_run;
use crate::views::{Appended, Author};
use crate::writer::{self, Append, Write};
use bytes::Bytes;
use coordinator_core::model::OutboxRecord;
use sqlx::ConnectOptions;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

/// Journal bytes that may be in memory at once, over all callers: what a few calls of the largest size
/// need. More callers wait, and their senders keep what they have on disk.
const PENDING_BYTES: usize = 4 * MAX_CALL_BYTES;
/// Writes that may wait for the writer; the bytes above bound them before this does.
const PENDING_WRITES: usize = 256;
/// Calls above this are parsed off the async threads: some 10 ms of JSON.
const INLINE_PARSE_BYTES: usize = 128 << 10;
/// Run ids that a slow listener of [`Tracking::changed`] may lag behind before it is told that it
/// missed some.
const CHANGED_BACKLOG: usize = 1024;
/// Connections that read. SQLite reads do not block each other, nor the writer.
const READERS: u32 = 4;

/// The tracking store. Cheap to clone; the last clone dropped closes it once what waits is written.
#[derive(Clone)]
pub struct Tracking {
    pub(crate) readers: SqlitePool,
    writes: mpsc::Sender<Write>,
    pending: Arc<Semaphore>,
    changed: broadcast::Sender<String>,
}

impl Tracking {
    /// Opens the store in a folder, creating it or bringing its schema up to date.
    ///
    /// Durability: the write-ahead log is synced at each commit (`synchronous=FULL`), so what was
    /// acknowledged survives power loss as well as a kill. `NORMAL` would lose the newest
    /// transactions on power loss after the sender had deleted its own copy. Commits are shared by
    /// all that wait, so the sync is paid once for many calls.
    pub async fn open(folder: &Path) -> Result<Self, TrackingError> {
        tokio::fs::create_dir_all(folder).await.map_err(|error| {
            TrackingError::Unavailable(format!("cannot create {}: {error}", folder.display()))
        })?;
        let options = SqliteConnectOptions::new()
            .filename(folder.join("tracking.sqlite"))
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            // The log is cut back to this after a checkpoint; a burst does not keep its disk for ever.
            .pragma("journal_size_limit", "67108864")
            .disable_statement_logging();
        let mut connection = options
            .clone()
            .create_if_missing(true)
            .page_size(8192)
            .connect()
            .await?;
        sqlx::migrate!("migrations/sqlite")
            .run(&mut connection)
            .await?;
        let readers = SqlitePoolOptions::new()
            .min_connections(0)
            .max_connections(READERS)
            .idle_timeout(Duration::from_secs(60))
            .connect_lazy_with(options.read_only(true));
        let (writes, waiting) = mpsc::channel(PENDING_WRITES);
        let (changed, _) = broadcast::channel(CHANGED_BACKLOG);
        tokio::spawn(writer::run(connection, waiting, changed.clone()));
        Ok(Self {
            readers,
            writes,
            pending: Arc::new(Semaphore::new(PENDING_BYTES >> 10)),
            changed,
        })
    }

    /// Stores journal lines of one writer of one run, each record once; see `docs/reference/journal.md`.
    ///
    /// Lines at or below the writer's watermark are skipped (their answers are given again), lines
    /// that do not follow it are refused whole as [`TrackingError::Gap`]. The answer comes after the
    /// commit.
    pub async fn append_journal(
        &self,
        run: &str,
        author: &Author,
        writer: &str,
        lines: Bytes,
    ) -> Result<Appended, TrackingError> {
        if !is_tracked_run(run) {
            return Err(TrackingError::Invalid(format!(
                "run {:?} is not the id of a run, as in run-17",
                run.chars().take(80).collect::<String>()
            )));
        }
        if !coordinator_core::model::is_name(writer) {
            return Err(TrackingError::Invalid(format!(
                "writer {:?} is not valid: allowed are 1 to 63 lower-case letters, digits, '-', '_' or '.'",
                writer.chars().take(80).collect::<String>()
            )));
        }
        if lines.len() > MAX_CALL_BYTES {
            return Err(TrackingError::TooLarge {
                given: lines.len(),
                limit: MAX_CALL_BYTES,
            });
        }
        let permits = u32::try_from(lines.len() >> 10).unwrap_or(u32::MAX).max(1);
        let _pending = self
            .pending
            .acquire_many(permits)
            .await
            .map_err(|_| closed())?;
        let records = if lines.len() > INLINE_PARSE_BYTES {
            tokio::task::spawn_blocking(move || journal::parse(&lines))
                .await
                .map_err(|error| TrackingError::Unavailable(error.to_string()))??
        } else {
            journal::parse(&lines)?
        };
        let (reply, answer) = oneshot::channel();
        self.write(Write::Append(Append {
            run: run.to_owned(),
            author: author.clone(),
            writer: writer.to_owned(),
            records,
            reply,
        }))
        .await?;
        answer.await.map_err(|_| closed())?
    }

    /// Stores outbox records, each once by its sequence, and answers with the highest stored. Records
    /// at or below the watermark are skipped; records that do not follow it are refused, for the
    /// outbox has no gaps.
    pub async fn export(&self, records: &[OutboxRecord]) -> Result<u64, TrackingError> {
        let (reply, answer) = oneshot::channel();
        self.write(Write::Export {
            records: records.to_vec(),
            reply,
        })
        .await?;
        answer.await.map_err(|_| closed())?
    }

    /// Run ids whose tracking changed, told after the commit.
    pub fn changed(&self) -> broadcast::Receiver<String> {
        self.changed.subscribe()
    }

    /// Closes the store: what was handed over is written, then the files are let go.
    pub async fn close(self) {
        let (reply, done) = oneshot::channel();
        if self.write(Write::Close { reply }).await.is_ok() {
            // An error means that the writer is gone already.
            let _ = done.await;
        }
        self.readers.close().await;
    }

    async fn write(&self, write: Write) -> Result<(), TrackingError> {
        self.writes.send(write).await.map_err(|_| closed())
    }
}

fn closed() -> TrackingError {
    TrackingError::Unavailable("it is closed".to_owned())
}
