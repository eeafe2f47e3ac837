//! Decisions of the replicated state, kept for a month and read by run.

use crate::error::TrackingError;
use crate::store::Tracking;
use crate::writer::column;
use coordinator_core::model::{Decision, OutboxRecord, RunId, TenantName, Verdict};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

/// How long a decision is kept: the period of a bill, within which people ask why. At a grant each
/// second, some ten million rows of half a kilobyte at most.
const KEPT_US: u64 = 31 * 24 * 3_600 * 1_000_000;

/// A decision and the name that it is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptDecision {
    /// Its outbox record.
    pub sequence: u64,
    /// When it was recorded.
    pub at_us: u64,
    /// What was decided.
    pub decision: Decision,
}

pub(crate) async fn store(
    connection: &mut SqliteConnection,
    record: &OutboxRecord,
    decision: &Decision,
) -> Result<(), sqlx::Error> {
    let body =
        serde_json::to_string(decision).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let claimant = match &decision.verdict {
        Verdict::Preempted { claimant, .. } => Some(claimant.0 as i64),
        Verdict::Granted { .. } | Verdict::Waits { .. } | Verdict::Refused { .. } => None,
    };
    sqlx::query(
        "INSERT INTO decision (sequence, at_us, run, claimant, tenant, body) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(column(record.sequence))
    .bind(column(record.at_us))
    .bind(decision.run.map(|run| run.0 as i64))
    .bind(claimant)
    .bind(decision.tenant.as_str())
    .bind(body)
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// Forgets what is older than a month, as seen from `now_us`.
pub(crate) async fn forget_old(
    connection: &mut SqliteConnection,
    now_us: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM decision WHERE at_us < $1")
        .bind(column(now_us.saturating_sub(KEPT_US)))
        .execute(connection)
        .await?;
    Ok(())
}

fn kept(row: &SqliteRow) -> Result<KeptDecision, sqlx::Error> {
    Ok(KeptDecision {
        sequence: row.try_get::<i64, _>("sequence")? as u64,
        at_us: row.try_get::<i64, _>("at_us")? as u64,
        decision: serde_json::from_str(row.try_get("body")?)
            .map_err(|error| sqlx::Error::Decode(error.into()))?,
    })
}

impl Tracking {
    /// What was decided about a run, and whom it displaced, in order of time; the newest `limit`.
    pub async fn decisions_of(
        &self,
        run: RunId,
        limit: u32,
    ) -> Result<Vec<KeptDecision>, TrackingError> {
        let rows = sqlx::query(
            "SELECT sequence, at_us, body FROM decision WHERE run = $1 OR claimant = $1 \
             ORDER BY sequence DESC LIMIT $2",
        )
        .bind(run.0 as i64)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        in_order(&rows)
    }

    /// The newest decisions, of one tenant or of all, in order of time.
    pub async fn decisions(
        &self,
        tenant: Option<&TenantName>,
        limit: u32,
    ) -> Result<Vec<KeptDecision>, TrackingError> {
        let rows = sqlx::query(
            "SELECT sequence, at_us, body FROM decision WHERE tenant = COALESCE($1, tenant) \
             ORDER BY sequence DESC LIMIT $2",
        )
        .bind(tenant.map(TenantName::as_str))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        in_order(&rows)
    }

    /// One decision.
    pub async fn decision(&self, sequence: u64) -> Result<Option<KeptDecision>, TrackingError> {
        let row = sqlx::query("SELECT sequence, at_us, body FROM decision WHERE sequence = $1")
            .bind(column(sequence))
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.as_ref().map(kept).transpose()?)
    }
}

/// Rows newest first, told oldest first.
fn in_order(rows: &[SqliteRow]) -> Result<Vec<KeptDecision>, TrackingError> {
    let decisions: Result<Vec<KeptDecision>, sqlx::Error> = rows.iter().rev().map(kept).collect();
    Ok(decisions?)
}
