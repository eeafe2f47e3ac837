//! Reads of what is tracked: runs, their newest metrics, series, models.

use crate::MAX_SERIES_POINTS;
use crate::error::TrackingError;
use crate::points::{Point, Thinner, unpack};
use crate::store::Tracking;
use crate::views::{
    Artifact, Latest, ModelVersion, Progress, RegisteredModel, RunSummary, Series, TrackedRun,
};
use futures::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection};
use std::collections::BTreeMap;

const RUN_COLUMNS: &str = "SELECT id, run, user_name, name, parent, status, started_us, ended_us, \
                           error, context, progress_done, progress_total FROM tracked_run";

impl Tracking {
    /// Everything tracked of a run but its points. `None`: nothing was ever recorded.
    pub async fn run(&self, run: &str) -> Result<Option<TrackedRun>, TrackingError> {
        let mut connection = self.readers.acquire().await?;
        let mut snapshot = connection.begin().await?;
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{RUN_COLUMNS} WHERE run = $1")))
            .bind(run)
            .fetch_optional(&mut *snapshot)
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let (id, summary) = summary(&mut snapshot, &row).await?;
        let params: Vec<(String, String)> =
            sqlx::query_as("SELECT name, value FROM run_param WHERE run_id = $1")
                .bind(id)
                .fetch_all(&mut *snapshot)
                .await?;
        let tracked = TrackedRun {
            params: params
                .into_iter()
                .map(|(name, value)| Ok((name, json(&value)?)))
                .collect::<Result<_, sqlx::Error>>()?,
            metrics: latest(&mut snapshot, id).await?,
            artifacts: artifacts(&mut snapshot, id).await?,
            models: versions(&mut snapshot, "WHERE m.run_id = $1", id).await?,
            summary,
        };
        snapshot.commit().await?;
        Ok(Some(tracked))
    }

    /// Runs, the newest first: at most `limit`, those recorded before the run `before`.
    pub async fn runs(
        &self,
        limit: u32,
        before: Option<&str>,
    ) -> Result<Vec<RunSummary>, TrackingError> {
        let mut connection = self.readers.acquire().await?;
        let mut snapshot = connection.begin().await?;
        let before: i64 = match before {
            None => i64::MAX,
            Some(run) => sqlx::query_scalar("SELECT id FROM tracked_run WHERE run = $1")
                .bind(run)
                .fetch_optional(&mut *snapshot)
                .await?
                .ok_or_else(|| {
                    TrackingError::Invalid(format!(
                        "before {:?} is not a tracked run",
                        run.chars().take(80).collect::<String>()
                    ))
                })?,
        };
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "{RUN_COLUMNS} WHERE id < $1 ORDER BY id DESC LIMIT $2"
        )))
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(&mut *snapshot)
        .await?;
        let mut runs = Vec::with_capacity(rows.len());
        for row in &rows {
            runs.push(summary(&mut snapshot, row).await?.1);
        }
        snapshot.commit().await?;
        Ok(runs)
    }

    /// Newest point of each series of a run, and its progress: what a watch shows. Empty for a run
    /// that nothing was recorded of.
    pub async fn latest(
        &self,
        run: &str,
    ) -> Result<(BTreeMap<String, Latest>, Option<Progress>), TrackingError> {
        let mut connection = self.readers.acquire().await?;
        let mut snapshot = connection.begin().await?;
        let row: Option<(i64, Option<i64>, Option<i64>)> = sqlx::query_as(
            "SELECT id, progress_done, progress_total FROM tracked_run WHERE run = $1",
        )
        .bind(run)
        .fetch_optional(&mut *snapshot)
        .await?;
        let Some((id, done, total)) = row else {
            return Ok(Default::default());
        };
        let metrics = latest(&mut snapshot, id).await?;
        snapshot.commit().await?;
        Ok((metrics, progress(done, total)))
    }

    /// Content address of one artifact of a run, by its path.
    pub async fn artifact(&self, run: &str, path: &str) -> Result<Option<String>, TrackingError> {
        Ok(sqlx::query_scalar(
            "SELECT a.sha256 FROM artifact a JOIN tracked_run r ON r.id = a.run_id \
             WHERE r.run = $1 AND a.path = $2",
        )
        .bind(run)
        .bind(path)
        .fetch_optional(&self.readers)
        .await?)
    }

    /// Points of one metric, at most `max_points` (and never above [`MAX_SERIES_POINTS`]). A longer
    /// series is thinned as it streams by, in memory that does not depend on its length. `None`: the
    /// run has no such metric.
    pub async fn series(
        &self,
        run: &str,
        key: &str,
        max_points: usize,
    ) -> Result<Option<Series>, TrackingError> {
        let mut connection = self.readers.acquire().await?;
        // One snapshot for the count and the chunks.
        let mut snapshot = connection.begin().await?;
        let row: Option<(i64, i64)> = sqlx::query_as(
            "SELECT s.id, s.points FROM series s JOIN tracked_run r ON r.id = s.run_id \
             WHERE r.run = $1 AND s.name = $2",
        )
        .bind(run)
        .bind(key)
        .fetch_optional(&mut *snapshot)
        .await?;
        let Some((id, count)) = row else {
            return Ok(None);
        };
        let count = count as u64;
        let mut thinner = Thinner::new(count, max_points.min(MAX_SERIES_POINTS));
        {
            let mut chunks = sqlx::query_scalar::<_, Vec<u8>>(
                "SELECT packed FROM chunk WHERE series_id = $1 ORDER BY first_point",
            )
            .bind(id)
            .fetch(&mut *snapshot);
            let mut points = Vec::new();
            while let Some(packed) = chunks.try_next().await? {
                points.clear();
                unpack(&packed, &mut points).map_err(|error| sqlx::Error::Decode(error.into()))?;
                points.iter().for_each(|&point| thinner.push(point));
            }
        }
        snapshot.commit().await?;
        Ok(Some(Series {
            count,
            points: thinner.finish(),
        }))
    }

    /// Every registered model, by name.
    pub async fn models(&self) -> Result<Vec<RegisteredModel>, TrackingError> {
        let mut connection = self.readers.acquire().await?;
        let mut models: Vec<RegisteredModel> = Vec::new();
        for version in versions(&mut connection, "WHERE m.version > $1", 0).await? {
            match models.last_mut() {
                Some(model) if model.name == version.name => model.versions.push(version),
                _ => models.push(RegisteredModel {
                    tenant: owner(&mut connection, &version.name).await?,
                    name: version.name.clone(),
                    versions: vec![version],
                }),
            }
        }
        Ok(models)
    }

    /// One registered model with its versions, oldest first.
    pub async fn model(&self, name: &str) -> Result<Option<RegisteredModel>, TrackingError> {
        let mut connection = self.readers.acquire().await?;
        let versions = versions(&mut connection, "WHERE m.name = $1", name.to_owned()).await?;
        if versions.is_empty() {
            return Ok(None);
        }
        Ok(Some(RegisteredModel {
            tenant: owner(&mut connection, name).await?,
            name: name.to_owned(),
            versions,
        }))
    }
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn progress(done: Option<i64>, total: Option<i64>) -> Option<Progress> {
    Some(Progress {
        done: done? as u64,
        total: total? as u64,
    })
}

async fn summary(
    connection: &mut SqliteConnection,
    row: &SqliteRow,
) -> Result<(i64, RunSummary), sqlx::Error> {
    let id: i64 = row.try_get("id")?;
    let tags: Vec<(String, String)> =
        sqlx::query_as("SELECT name, value FROM run_tag WHERE run_id = $1")
            .bind(id)
            .fetch_all(connection)
            .await?;
    Ok((
        id,
        RunSummary {
            run: row.try_get("run")?,
            name: row.try_get("name")?,
            parent: row.try_get("parent")?,
            status: row.try_get("status")?,
            user: row.try_get("user_name")?,
            started_us: row.try_get::<i64, _>("started_us")? as u64,
            ended_us: row
                .try_get::<Option<i64>, _>("ended_us")?
                .map(|ended| ended as u64),
            error: row.try_get("error")?,
            context: json(row.try_get("context")?)?,
            tags: tags.into_iter().collect(),
            progress: progress(
                row.try_get("progress_done")?,
                row.try_get("progress_total")?,
            ),
        },
    ))
}

async fn latest(
    connection: &mut SqliteConnection,
    run_id: i64,
) -> Result<BTreeMap<String, Latest>, sqlx::Error> {
    let rows: Vec<(String, i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT name, points, latest_step, latest_time_us, latest_bits FROM series \
         WHERE run_id = $1",
    )
    .bind(run_id)
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(name, count, step, time_us, bits)| {
            let point = Point {
                step,
                time_us: time_us as u64,
                value: f64::from_bits(bits as u64),
            };
            (
                name,
                Latest {
                    point,
                    count: count as u64,
                },
            )
        })
        .collect())
}

async fn artifacts(
    connection: &mut SqliteConnection,
    run_id: i64,
) -> Result<Vec<Artifact>, sqlx::Error> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT path, sha256, size_bytes FROM artifact WHERE run_id = $1 ORDER BY path",
    )
    .bind(run_id)
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(path, sha256, size_bytes)| Artifact {
            path,
            sha256,
            size_bytes: size_bytes as u64,
        })
        .collect())
}

/// The tenant that owns a model's name; empty when not known.
async fn owner(connection: &mut SqliteConnection, model: &str) -> Result<String, sqlx::Error> {
    let owner = sqlx::query_scalar("SELECT tenant FROM model WHERE name = $1")
        .bind(model)
        .fetch_optional(connection)
        .await?;
    Ok(owner.unwrap_or_default())
}

/// Model versions that `filter`, one of the few written above, lets through; by name, oldest first.
async fn versions<'v, V>(
    connection: &mut SqliteConnection,
    filter: &'static str,
    value: V,
) -> Result<Vec<ModelVersion>, sqlx::Error>
where
    V: sqlx::Encode<'v, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + 'v,
{
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT m.name, m.version, r.run, m.framework, m.manifest, m.files, m.created_us \
         FROM model_version m JOIN tracked_run r ON r.id = m.run_id {filter} \
         ORDER BY m.name, m.version"
    )))
    .bind(value)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(ModelVersion {
                name: row.try_get("name")?,
                version: row.try_get::<i64, _>("version")? as u64,
                run: row.try_get("run")?,
                framework: row.try_get("framework")?,
                created_us: row.try_get::<i64, _>("created_us")? as u64,
                manifest: json(row.try_get("manifest")?)?,
                files: json(row.try_get("files")?)?,
            })
        })
        .collect()
}
