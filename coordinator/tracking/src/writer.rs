//! The one task that writes: takes what waits, stores it in one transaction, then answers.
//!
//! A call that is refused (a gap) has written nothing when that is found out, so it does not cost the
//! others in its transaction. A database error fails them all: none of them is acknowledged, and each
//! sender still has its lines.

use crate::MAX_KEYS_PER_RUN;
use crate::error::TrackingError;
use crate::export;
use crate::journal::{Body, Readings, Record};
use crate::points::Point;
use crate::series;
use crate::views::{Appended, Artifact, Author};
use coordinator_core::model::OutboxRecord;
use serde_json::json;
use sqlx::{Connection, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{broadcast, mpsc, oneshot};

/// Writes committed together at most: enough to share one sync between all that wait on a busy
/// platform, few enough that the first does not wait for long.
const GROUP: usize = 64;

pub(crate) enum Write {
    Append(Append),
    Export {
        records: Vec<OutboxRecord>,
        reply: oneshot::Sender<Result<u64, TrackingError>>,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
}

pub(crate) struct Append {
    pub run: String,
    pub author: Author,
    pub writer: String,
    pub records: Vec<Record>,
    pub reply: oneshot::Sender<Result<Appended, TrackingError>>,
}

/// What to tell whom once the transaction is on disk.
enum Answer {
    Append(
        oneshot::Sender<Result<Appended, TrackingError>>,
        Result<Appended, TrackingError>,
    ),
    Export(
        oneshot::Sender<Result<u64, TrackingError>>,
        Result<u64, TrackingError>,
    ),
}

impl Answer {
    fn fail(&mut self, error: &TrackingError) {
        match self {
            Self::Append(_, answer) => *answer = Err(error.clone()),
            Self::Export(_, answer) => *answer = Err(error.clone()),
        }
    }

    /// A caller that has gone away does not need its answer.
    fn send(self) {
        match self {
            Self::Append(reply, answer) => drop(reply.send(answer)),
            Self::Export(reply, answer) => drop(reply.send(answer)),
        }
    }
}

pub(crate) async fn run(
    mut connection: SqliteConnection,
    mut waiting: mpsc::Receiver<Write>,
    changed: broadcast::Sender<String>,
) {
    let mut group = Vec::with_capacity(GROUP);
    let mut closing = None;
    while closing.is_none() && waiting.recv_many(&mut group, GROUP).await > 0 {
        let mut answers = Vec::with_capacity(group.len());
        let mut runs = BTreeSet::new();
        let mut stored = Vec::with_capacity(group.len());
        for write in group.drain(..) {
            match write {
                Write::Append(append) => {
                    answers.push(Answer::Append(append.reply, Err(not_reached())));
                    stored.push(Stored::Append {
                        run: append.run,
                        author: append.author,
                        writer: append.writer,
                        records: append.records,
                    });
                }
                Write::Export { records, reply } => {
                    answers.push(Answer::Export(reply, Err(not_reached())));
                    stored.push(Stored::Export(records));
                }
                // What came behind it in the same group is still written.
                Write::Close { reply } => closing = Some(reply),
            }
        }
        if let Err(error) = commit(&mut connection, stored, &mut answers, &mut runs).await {
            let error = TrackingError::from(error);
            tracing::error!(calls = answers.len(), %error, "nothing of these calls was stored");
            answers.iter_mut().for_each(|answer| answer.fail(&error));
            runs.clear();
        }
        answers.into_iter().for_each(Answer::send);
        for run in runs {
            // Nobody listening is no error.
            let _ = changed.send(run);
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the tracking store did not close cleanly; nothing acknowledged is lost");
    }
    if let Some(reply) = closing {
        let _ = reply.send(());
    }
}

fn not_reached() -> TrackingError {
    TrackingError::Unavailable("the write was not reached".to_owned())
}

/// A write without its reply.
enum Stored {
    Append {
        run: String,
        author: Author,
        writer: String,
        records: Vec<Record>,
    },
    Export(Vec<OutboxRecord>),
}

async fn commit(
    connection: &mut SqliteConnection,
    writes: Vec<Stored>,
    answers: &mut [Answer],
    runs: &mut BTreeSet<String>,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    for (write, answer) in writes.into_iter().zip(answers.iter_mut()) {
        match (write, answer) {
            (
                Stored::Append {
                    run,
                    author,
                    writer,
                    records,
                },
                Answer::Append(_, answer),
            ) => {
                let mut target = Target {
                    connection: &mut transaction,
                    run_id: 0,
                    tenant: &author.tenant,
                    writer: &writer,
                    results: Vec::new(),
                };
                *answer = target.append(&run, &author, records).await?;
                if answer.is_ok() {
                    runs.insert(run);
                }
            }
            (Stored::Export(records), Answer::Export(_, answer)) => {
                *answer = export::store(&mut transaction, &records).await?;
            }
            // Built side by side above.
            _ => unreachable!("a write and its answer are of one kind"),
        }
    }
    transaction.commit().await
}

/// One call being stored: where to, and what its records answered.
struct Target<'a> {
    connection: &'a mut SqliteConnection,
    run_id: i64,
    tenant: &'a str,
    writer: &'a str,
    results: Vec<String>,
}

impl Target<'_> {
    async fn append(
        &mut self,
        run: &str,
        author: &Author,
        records: Vec<Record>,
    ) -> Result<Result<Appended, TrackingError>, sqlx::Error> {
        let known: Option<i64> = sqlx::query_scalar("SELECT id FROM tracked_run WHERE run = $1")
            .bind(run)
            .fetch_optional(&mut *self.connection)
            .await?;
        let stored: i64 = match known {
            Some(run_id) => sqlx::query_scalar(
                "SELECT watermark FROM journal_writer WHERE run_id = $1 AND writer = $2",
            )
            .bind(run_id)
            .bind(self.writer)
            .fetch_optional(&mut *self.connection)
            .await?
            .unwrap_or(0),
            None => 0,
        };
        let before = stored as u64;
        let watermark = match follow(before, &records) {
            Ok(watermark) => watermark,
            Err(given) => {
                return Ok(Err(TrackingError::Gap {
                    writer: self.writer.to_owned(),
                    given,
                    watermark: before,
                }));
            }
        };
        if let Some(run_id) = known {
            self.run_id = run_id;
            self.answer_again(before, &records).await?;
        }
        if watermark > before {
            if known.is_none() {
                self.run_id = sqlx::query_scalar(
                    "INSERT INTO tracked_run (run, user_name) VALUES ($1, $2) RETURNING id",
                )
                .bind(run)
                .bind(&author.user)
                .fetch_one(&mut *self.connection)
                .await?;
            }
            self.store(before, records).await?;
            sqlx::query(
                "INSERT INTO journal_writer (run_id, writer, watermark) VALUES ($1, $2, $3) \
                 ON CONFLICT (run_id, writer) DO UPDATE SET watermark = excluded.watermark",
            )
            .bind(self.run_id)
            .bind(self.writer)
            .bind(watermark as i64)
            .execute(&mut *self.connection)
            .await?;
        }
        Ok(Ok(Appended {
            watermark,
            results: std::mem::take(&mut self.results),
        }))
    }

    /// Answers that records at or below the watermark were given when they were stored.
    async fn answer_again(&mut self, before: u64, records: &[Record]) -> Result<(), sqlx::Error> {
        let again = records
            .iter()
            .map(|record| record.sequence)
            .filter(|&sequence| sequence <= before);
        let (Some(first), Some(last)) = (again.clone().min(), again.max()) else {
            return Ok(());
        };
        self.results = sqlx::query_scalar(
            "SELECT result FROM journal_result \
             WHERE run_id = $1 AND writer = $2 AND sequence BETWEEN $3 AND $4 ORDER BY sequence",
        )
        .bind(self.run_id)
        .bind(self.writer)
        .bind(first as i64)
        .bind(last as i64)
        .fetch_all(&mut *self.connection)
        .await?;
        Ok(())
    }

    async fn store(&mut self, before: u64, records: Vec<Record>) -> Result<(), sqlx::Error> {
        // Points of the whole call are gathered by metric, so that each series is touched once.
        let mut gathered = Gathered::default();
        let mut taken = before;
        for Record {
            sequence,
            through,
            body,
        } in records
        {
            if through <= taken {
                continue;
            }
            // Only what tells of lost records can begin below: the rest of it is new.
            let sequence = sequence.max(taken + 1);
            taken = through;
            match body {
                Err(error) => self.answer(sequence, json!({ "error": error })).await?,
                Ok(Body::Points(readings)) => {
                    if let Some(error) = self.gather(&mut gathered, readings).await? {
                        self.answer(sequence, json!({ "error": error })).await?;
                    }
                }
                Ok(body) => self.store_body(sequence, body).await?,
            }
        }
        for open in gathered.open {
            series::append(self.connection, self.run_id, open).await?;
        }
        Ok(())
    }

    /// Puts points beside others of their metric; a new metric past the limit is left out and told of.
    async fn gather(
        &mut self,
        gathered: &mut Gathered,
        readings: Readings,
    ) -> Result<Option<String>, sqlx::Error> {
        let mut error = readings.error;
        // For each name of the record, where its points go.
        let mut places: Vec<Option<usize>> = Vec::with_capacity(readings.keys.len());
        for key in readings.keys {
            let Some(key) = key else {
                places.push(None);
                continue;
            };
            if let Some(&place) = gathered.places.get(&key) {
                places.push(place);
                continue;
            }
            let stored = series::find(self.connection, self.run_id, &key).await?;
            let fits = stored.is_some() || self.take_name(gathered).await?;
            let place = fits.then_some(gathered.open.len());
            if fits {
                gathered.open.push(OpenSeries {
                    name: key.clone(),
                    stored,
                    points: Vec::new(),
                });
            }
            gathered.places.insert(key, place);
            places.push(place);
        }
        let mut left_out = 0_u64;
        for (key, point) in readings.points {
            match places.get(key as usize).copied().flatten() {
                Some(place) => gathered.open[place].points.push(point),
                None => left_out += 1,
            }
        }
        if left_out > 0 && error.is_none() {
            error = Some(format!(
                "{left_out} points are of metrics past the {MAX_KEYS_PER_RUN} names a run may have, and were not stored"
            ));
        }
        Ok(error)
    }

    /// Whether the run may have one more metric.
    async fn take_name(&mut self, gathered: &mut Gathered) -> Result<bool, sqlx::Error> {
        let held = match gathered.names_held {
            Some(held) => held,
            None => {
                let held: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM series WHERE run_id = $1")
                    .bind(self.run_id)
                    .fetch_one(&mut *self.connection)
                    .await?;
                held as usize
            }
        };
        let fits = held < MAX_KEYS_PER_RUN;
        gathered.names_held = Some(held + usize::from(fits));
        Ok(fits)
    }

    /// Remembers an answer, for this call and for the same record sent again.
    async fn answer(
        &mut self,
        sequence: u64,
        mut result: serde_json::Value,
    ) -> Result<(), sqlx::Error> {
        result["sequence"] = sequence.into();
        let result = result.to_string();
        sqlx::query(
            "INSERT INTO journal_result (run_id, writer, sequence, result) VALUES ($1, $2, $3, $4)",
        )
        .bind(self.run_id)
        .bind(self.writer)
        .bind(sequence as i64)
        .bind(&result)
        .execute(&mut *self.connection)
        .await?;
        self.results.push(result);
        Ok(())
    }

    async fn store_body(&mut self, sequence: u64, body: Body) -> Result<(), sqlx::Error> {
        match body {
            Body::Open {
                name,
                tags,
                parent,
                started_us,
                context,
            } => {
                // Opened again (another member, another attempt, resumed): it runs, and it began when
                // it first did.
                sqlx::query(
                    "UPDATE tracked_run SET \
                     name = CASE WHEN $2 = '' THEN name ELSE $2 END, \
                     parent = COALESCE($3, parent), \
                     started_us = CASE WHEN status = 'unknown' THEN $4 ELSE started_us END, \
                     context = $5, status = 'running', ended_us = NULL, error = NULL WHERE id = $1",
                )
                .bind(self.run_id)
                .bind(name)
                .bind(parent)
                .bind(column(started_us))
                .bind(context)
                .execute(&mut *self.connection)
                .await?;
                self.store_tags(tags).await
            }
            Body::Close {
                failed,
                error,
                ended_us,
            } => {
                // One member's good end does not hide that another failed.
                sqlx::query(
                    "UPDATE tracked_run SET \
                     status = CASE WHEN status = 'failed' THEN status ELSE $2 END, \
                     error = COALESCE(error, $3), ended_us = $4 WHERE id = $1",
                )
                .bind(self.run_id)
                .bind(if failed { "failed" } else { "finished" })
                .bind(error)
                .bind(column(ended_us))
                .execute(&mut *self.connection)
                .await?;
                Ok(())
            }
            Body::Params(params) => {
                for (name, value) in params {
                    sqlx::query(
                        "INSERT INTO run_param (run_id, name, value) VALUES ($1, $2, $3) \
                         ON CONFLICT (run_id, name) DO UPDATE SET value = excluded.value",
                    )
                    .bind(self.run_id)
                    .bind(name)
                    .bind(value)
                    .execute(&mut *self.connection)
                    .await?;
                }
                Ok(())
            }
            Body::Tags(tags) => self.store_tags(tags).await,
            Body::Progress { done, total } => {
                sqlx::query(
                    "UPDATE tracked_run SET progress_done = $2, progress_total = $3 WHERE id = $1",
                )
                .bind(self.run_id)
                .bind(column(done))
                .bind(column(total))
                .execute(&mut *self.connection)
                .await?;
                Ok(())
            }
            Body::Checkpoint => Ok(()),
            Body::Artifact(artifact) => {
                sqlx::query(
                    "INSERT INTO artifact (run_id, path, sha256, size_bytes) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (run_id, path) DO UPDATE SET \
                     sha256 = excluded.sha256, size_bytes = excluded.size_bytes",
                )
                .bind(self.run_id)
                .bind(artifact.path)
                .bind(artifact.sha256)
                .bind(column(artifact.size_bytes))
                .execute(&mut *self.connection)
                .await?;
                Ok(())
            }
            Body::Model {
                name,
                framework,
                manifest,
                files,
            } => {
                self.register(sequence, &name, framework, manifest, &files)
                    .await
            }
            // Gathered by the caller.
            Body::Points(_) => Ok(()),
        }
    }

    async fn store_tags(&mut self, tags: BTreeMap<String, String>) -> Result<(), sqlx::Error> {
        for (name, value) in tags {
            sqlx::query(
                "INSERT INTO run_tag (run_id, name, value) VALUES ($1, $2, $3) \
                 ON CONFLICT (run_id, name) DO UPDATE SET value = excluded.value",
            )
            .bind(self.run_id)
            .bind(name)
            .bind(value)
            .execute(&mut *self.connection)
            .await?;
        }
        Ok(())
    }

    /// Gives the model its next version. There is one writer, so nobody else can take the number.
    async fn register(
        &mut self,
        sequence: u64,
        name: &str,
        framework: String,
        manifest: String,
        files: &[Artifact],
    ) -> Result<(), sqlx::Error> {
        let owner: String = sqlx::query_scalar(
            "INSERT INTO model (name, tenant) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET \
             tenant = CASE WHEN model.tenant = '' THEN excluded.tenant ELSE model.tenant END \
             RETURNING tenant",
        )
        .bind(name)
        .bind(self.tenant)
        .fetch_one(&mut *self.connection)
        .await?;
        if owner != self.tenant {
            let error = format!(
                "model {name:?} belongs to tenant {owner}, and only its members add versions; register \
                 under another name, such as {name}-{}, or ask them",
                self.tenant
            );
            return self.answer(sequence, json!({ "error": error })).await;
        }
        let files =
            serde_json::to_string(files).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let created_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_micros() as u64);
        let version: i64 = sqlx::query_scalar(
            "INSERT INTO model_version (name, version, run_id, framework, manifest, files, created_us) \
             SELECT $1, COALESCE(MAX(version), 0) + 1, $2, $3, $4, $5, $6 \
             FROM model_version WHERE name = $1 RETURNING version",
        )
        .bind(name)
        .bind(self.run_id)
        .bind(framework)
        .bind(manifest)
        .bind(files)
        .bind(column(created_us))
        .fetch_one(&mut *self.connection)
        .await?;
        self.answer(sequence, json!({ "model": name, "version": version }))
            .await
    }
}

/// An unsigned amount as a signed column holds it; one past the range is as good as its end.
pub(crate) fn column(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// The watermark after these records, or the first sequence that does not follow.
fn follow(before: u64, records: &[Record]) -> Result<u64, u64> {
    let mut watermark = before;
    for record in records {
        if record.sequence > watermark + 1 {
            return Err(record.sequence);
        }
        watermark = watermark.max(record.through);
    }
    Ok(watermark)
}

/// A metric with points of the call being stored.
pub(crate) struct OpenSeries {
    pub name: String,
    /// As it was before the call.
    pub stored: Option<series::Stored>,
    pub points: Vec<Point>,
}

/// Points of one call, by metric.
#[derive(Default)]
struct Gathered {
    open: Vec<OpenSeries>,
    /// Where each name's points go; `None` for one past the limit.
    places: HashMap<String, Option<usize>>,
    /// Names the run has, those of this call included; asked for at the first new one.
    names_held: Option<usize>,
}

#[cfg(test)]
mod tests {
    use crate::{Tracking, TrackingError};
    use bytes::Bytes;
    use sqlx::ConnectOptions;
    use sqlx::sqlite::SqliteConnectOptions;
    use tokio::sync::{broadcast, mpsc, oneshot};

    use super::{Append, Appended, Author, Write, run};

    fn ana() -> Author {
        Author {
            user: "ana".to_owned(),
            tenant: "research".to_owned(),
        }
    }

    async fn append(writes: &mpsc::Sender<Write>, lines: &str) -> Result<Appended, TrackingError> {
        let (reply, answer) = oneshot::channel();
        let append = Append {
            run: "run-1".into(),
            author: ana(),
            writer: "w-1".into(),
            records: crate::journal::parse(lines.as_bytes()).unwrap(),
            reply,
        };
        assert!(writes.send(Write::Append(append)).await.is_ok());
        answer.await.unwrap()
    }

    #[tokio::test]
    async fn a_full_disk_stores_nothing_of_the_call_and_the_same_lines_fit_later() {
        let folder = tempfile::tempdir().unwrap();
        let first = "{\"s\":1,\"k\":\"params\",\"params\":{\"a\":1}}\n";
        let tracking = Tracking::open(folder.path()).await.unwrap();
        tracking
            .append_journal("run-1", &ana(), "w-1", Bytes::from(first))
            .await
            .unwrap();
        tracking.close().await;

        // A database that may not grow answers as one on a full disk does.
        let options = SqliteConnectOptions::new().filename(folder.path().join("tracking.sqlite"));
        let connection = options
            .pragma("max_page_count", "1")
            .connect()
            .await
            .unwrap();
        let (writes, waiting) = mpsc::channel(1);
        tokio::spawn(run(connection, waiting, broadcast::channel(1).0));
        let large = format!(
            "{{\"s\":2,\"k\":\"params\",\"params\":{{\"small\":1}}}}\n{{\"s\":3,\"k\":\"params\",\"params\":{{\"large\":\"{}\"}}}}\n",
            "x".repeat(200_000)
        );
        assert_eq!(append(&writes, &large).await, Err(TrackingError::DiskFull));
        // It answers on: what it holds is still what it held.
        assert_eq!(append(&writes, first).await.unwrap().watermark, 1);
        drop(writes);

        let tracking = Tracking::open(folder.path()).await.unwrap();
        let run = tracking.run("run-1").await.unwrap().unwrap();
        assert_eq!(run.params.into_keys().collect::<Vec<_>>(), ["a"]);
        let appended = tracking
            .append_journal("run-1", &ana(), "w-1", Bytes::from(large))
            .await
            .unwrap();
        assert_eq!(appended.watermark, 3);
    }
}
