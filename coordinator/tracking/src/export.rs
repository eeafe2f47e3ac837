//! The books: outbox records of the replicated state stored once and in order, and read again.

use crate::cost::{CostBy, CostReport};
use crate::decisions;
use crate::error::TrackingError;
use crate::store::Tracking;
use crate::writer::column;
use coordinator_core::model::{
    AuditEntry, DeviceId, LedgerRow, NodeName, OutboxBody, OutboxRecord, PoolName, RunId,
    TenantName, UserName,
};
use futures::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection};
use std::error::Error;

/// Stores what lies above the watermark, and moves it.
pub(crate) async fn store(
    connection: &mut SqliteConnection,
    records: &[OutboxRecord],
) -> Result<Result<u64, TrackingError>, sqlx::Error> {
    let before = watermark(connection).await?;
    // Found out before anything is written, so that a refusal costs nobody else in the transaction.
    let mut stored = before;
    for record in records {
        if record.sequence > stored + 1 {
            return Ok(Err(TrackingError::Invalid(format!(
                "outbox record {} does not follow {stored}; the outbox has no gaps",
                record.sequence
            ))));
        }
        stored = stored.max(record.sequence);
    }
    let mut stored = before;
    let mut decided_us = None;
    for record in records {
        if record.sequence <= stored {
            continue;
        }
        match &record.body {
            OutboxBody::Ledger(row) => store_ledger(connection, record, row).await?,
            OutboxBody::Audit(entry) => store_audit(connection, record, entry).await?,
            OutboxBody::Decision(decision) => {
                decisions::store(connection, record, decision).await?;
                decided_us = Some(record.at_us);
            }
        }
        stored = record.sequence;
    }
    if let Some(now_us) = decided_us {
        decisions::forget_old(connection, now_us).await?;
    }
    if stored > before {
        sqlx::query("UPDATE outbox_watermark SET sequence = $1 WHERE id = 1")
            .bind(column(stored))
            .execute(connection)
            .await?;
    }
    Ok(Ok(stored))
}

async fn watermark(connection: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let sequence: i64 = sqlx::query_scalar("SELECT sequence FROM outbox_watermark WHERE id = 1")
        .fetch_one(connection)
        .await?;
    Ok(sequence as u64)
}

async fn store_ledger(
    connection: &mut SqliteConnection,
    record: &OutboxRecord,
    row: &LedgerRow,
) -> Result<(), sqlx::Error> {
    let tags =
        serde_json::to_string(&row.tags).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(
        "INSERT INTO ledger (sequence, at_us, run, run_name, attempt, member, tenant, user_name, \
         pool, node, device, device_model, simulated, share_milli, memory_mib, tags, model, \
         start_us, end_us, price_per_gpu_hour_micro) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
         $19, $20)",
    )
    .bind(column(record.sequence))
    .bind(column(record.at_us))
    .bind(row.run.0 as i64)
    .bind(&row.run_name)
    .bind(i64::from(row.attempt))
    .bind(i64::from(row.member))
    .bind(row.tenant.as_str())
    .bind(row.user.as_str())
    .bind(row.pool.as_str())
    .bind(row.node.as_str())
    .bind(row.device.as_ref().map(|device| device.0.to_string()))
    .bind(&row.device_model)
    .bind(row.simulated)
    .bind(i64::from(row.share_milli))
    .bind(row.memory_mib as i64)
    .bind(tags)
    .bind(&row.model)
    .bind(column(row.start_us))
    .bind(column(row.end_us))
    .bind(row.price_per_gpu_hour_micro as i64)
    .execute(connection)
    .await?;
    Ok(())
}

async fn store_audit(
    connection: &mut SqliteConnection,
    record: &OutboxRecord,
    entry: &AuditEntry,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO audit (sequence, entry_sequence, at_us, actor, action, subject, detail, \
         previous, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(column(record.sequence))
    .bind(column(entry.sequence))
    .bind(column(entry.at_us))
    .bind(&entry.actor)
    .bind(&entry.action)
    .bind(&entry.subject)
    .bind(&entry.detail)
    .bind(&entry.previous)
    .bind(&entry.hash)
    .execute(connection)
    .await?;
    Ok(())
}

fn ledger_row(row: &SqliteRow) -> Result<LedgerRow, sqlx::Error> {
    fn decode<E: Error + Send + Sync + 'static>(error: E) -> sqlx::Error {
        sqlx::Error::Decode(error.into())
    }
    let small = |name: &str| -> Result<u32, sqlx::Error> {
        u32::try_from(row.try_get::<i64, _>(name)?).map_err(decode)
    };
    let amount =
        |name: &str| -> Result<u64, sqlx::Error> { Ok(row.try_get::<i64, _>(name)? as u64) };
    Ok(LedgerRow {
        run: RunId(amount("run")?),
        run_name: row.try_get("run_name")?,
        attempt: small("attempt")?,
        member: small("member")?,
        tenant: TenantName::new(row.try_get("tenant")?).map_err(decode)?,
        user: UserName::new(row.try_get("user_name")?).map_err(decode)?,
        pool: PoolName::new(row.try_get("pool")?).map_err(decode)?,
        node: NodeName::new(row.try_get("node")?).map_err(decode)?,
        device: row
            .try_get::<Option<String>, _>("device")?
            .map(|device| DeviceId(device.into())),
        device_model: row.try_get("device_model")?,
        simulated: row.try_get("simulated")?,
        share_milli: small("share_milli")?,
        memory_mib: amount("memory_mib")?,
        tags: serde_json::from_str(row.try_get("tags")?).map_err(decode)?,
        model: row.try_get("model")?,
        start_us: amount("start_us")?,
        end_us: amount("end_us")?,
        price_per_gpu_hour_micro: amount("price_per_gpu_hour_micro")?,
    })
}

fn audit_entry(row: &SqliteRow) -> Result<AuditEntry, sqlx::Error> {
    Ok(AuditEntry {
        sequence: row.try_get::<i64, _>("entry_sequence")? as u64,
        at_us: row.try_get::<i64, _>("at_us")? as u64,
        actor: row.try_get("actor")?,
        action: row.try_get("action")?,
        subject: row.try_get("subject")?,
        detail: row.try_get("detail")?,
        previous: row.try_get("previous")?,
        hash: row.try_get("hash")?,
    })
}

impl Tracking {
    /// Highest outbox record stored: export goes on from the next.
    pub async fn export_watermark(&self) -> Result<u64, TrackingError> {
        let mut connection = self.readers.acquire().await?;
        Ok(watermark(&mut connection).await?)
    }

    /// What was held and what it cost within a window, grouped; of one tenant, or of all. Rows stream
    /// by, so memory depends on the number of groups and runs alone.
    ///
    /// Reads records no further than `through`, the newest that the caller's view of the state had
    /// made: a share released after that view is still open in it, and is the caller's to add.
    pub async fn cost(
        &self,
        by: CostBy,
        since_us: u64,
        until_us: u64,
        through: u64,
        tenant: Option<&TenantName>,
    ) -> Result<CostReport, TrackingError> {
        let mut report = CostReport::new(by, since_us, until_us);
        let mut connection = self.readers.acquire().await?;
        // One snapshot for the watermark and the rows, else a row could be missed or counted twice.
        let mut snapshot = connection.begin().await?;
        report.set_through(watermark(&mut snapshot).await?.min(through));
        {
            let mut rows = sqlx::query(
                "SELECT * FROM ledger WHERE end_us >= $1 AND start_us <= $2 AND sequence <= $3 \
                 AND tenant = COALESCE($4, tenant) ORDER BY sequence",
            )
            .bind(column(since_us))
            .bind(column(until_us))
            .bind(column(through))
            .bind(tenant.map(TenantName::as_str))
            .fetch(&mut *snapshot);
            while let Some(row) = rows.try_next().await? {
                report.add(&ledger_row(&row)?);
            }
        }
        snapshot.commit().await?;
        Ok(report)
    }

    /// Audit entries in order, those above `after` (an [`AuditEntry::sequence`]; 0: from the first).
    pub async fn audit(&self, after: u64, limit: u32) -> Result<Vec<AuditEntry>, TrackingError> {
        let rows = sqlx::query(
            "SELECT entry_sequence, at_us, actor, action, subject, detail, previous, hash \
             FROM audit WHERE entry_sequence > $1 ORDER BY sequence LIMIT $2",
        )
        .bind(column(after))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        let entries: Result<Vec<AuditEntry>, sqlx::Error> = rows.iter().map(audit_entry).collect();
        Ok(entries?)
    }
}
