//! Points of one metric in chunks: the open end grows with each append, full chunks are left alone.
//!
//! Chunks of a series tile it: each begins where the one before ends. Everything below the last
//! multiple of [`CHUNK_POINTS`] lies in chunks that are never touched again. Above it lie chunks that
//! begin at multiples of [`SMALL_POINTS`], of which only the last, the open one, is rewritten. When the
//! series passes the next multiple of `CHUNK_POINTS`, the small ones become one full chunk.

use crate::points::{CHUNK_POINTS, Point, SMALL_POINTS, pack, unpack};
use crate::writer::OpenSeries;
use sqlx::SqliteConnection;

/// A series as it stands in the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    id: i64,
    points: u64,
}

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    run_id: i64,
    name: &str,
) -> Result<Option<Stored>, sqlx::Error> {
    let row: Option<(i64, i64)> =
        sqlx::query_as("SELECT id, points FROM series WHERE run_id = $1 AND name = $2")
            .bind(run_id)
            .bind(name)
            .fetch_optional(connection)
            .await?;
    Ok(row.map(|(id, points)| Stored {
        id,
        points: points as u64,
    }))
}

/// Stores points behind those that the series has.
pub(crate) async fn append(
    connection: &mut SqliteConnection,
    run_id: i64,
    open: OpenSeries,
) -> Result<(), sqlx::Error> {
    let Some(latest) = open.points.last().copied() else {
        return Ok(());
    };
    let before = open.stored.map_or(0, |stored| stored.points);
    let after = before + open.points.len() as u64;
    let id = match open.stored {
        Some(stored) => {
            sqlx::query(
                "UPDATE series SET points = $2, latest_step = $3, latest_time_us = $4, \
                 latest_bits = $5 WHERE id = $1",
            )
            .bind(stored.id)
            .bind(after as i64)
            .bind(latest.step)
            .bind(latest.time_us as i64)
            .bind(latest.value.to_bits() as i64)
            .execute(&mut *connection)
            .await?;
            stored.id
        }
        None => sqlx::query_scalar(
            "INSERT INTO series (run_id, name, points, latest_step, latest_time_us, latest_bits) \
                 VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
        )
        .bind(run_id)
        .bind(open.name)
        .bind(after as i64)
        .bind(latest.step)
        .bind(latest.time_us as i64)
        .bind(latest.value.to_bits() as i64)
        .fetch_one(&mut *connection)
        .await?,
    };
    // What is stored from here on is read, joined with the new points, and written again.
    let reopened = if before / CHUNK_POINTS == after / CHUNK_POINTS {
        before - before % SMALL_POINTS
    } else {
        before - before % CHUNK_POINTS
    };
    let mut points = Vec::with_capacity((after - reopened) as usize);
    if reopened < before {
        let rows: Vec<(Vec<u8>,)> = sqlx::query_as(
            "SELECT packed FROM chunk WHERE series_id = $1 AND first_point >= $2 ORDER BY first_point",
        )
        .bind(id)
        .bind(reopened as i64)
        .fetch_all(&mut *connection)
        .await?;
        for (packed,) in rows {
            unpack(&packed, &mut points).map_err(|error| sqlx::Error::Decode(error.into()))?;
        }
        if points.len() as u64 != before - reopened {
            return Err(sqlx::Error::Decode(
                format!(
                    "series {id} should hold {} points from {reopened} on, but holds {}",
                    before - reopened,
                    points.len()
                )
                .into(),
            ));
        }
        // The first is overwritten below; the others are within it from now on.
        if before - reopened > SMALL_POINTS {
            sqlx::query("DELETE FROM chunk WHERE series_id = $1 AND first_point > $2")
                .bind(id)
                .bind(reopened as i64)
                .execute(&mut *connection)
                .await?;
        }
    }
    points.extend_from_slice(&open.points);
    let mut first = reopened;
    let mut rest: &[Point] = &points;
    while !rest.is_empty() {
        let count = chunk_length(first, rest.len() as u64) as usize;
        let (chunk, behind) = rest.split_at(count);
        sqlx::query(
            "INSERT INTO chunk (series_id, first_point, packed) VALUES ($1, $2, $3) \
             ON CONFLICT (series_id, first_point) DO UPDATE SET packed = excluded.packed",
        )
        .bind(id)
        .bind(first as i64)
        .bind(pack(chunk))
        .execute(&mut *connection)
        .await?;
        first += count as u64;
        rest = behind;
    }
    Ok(())
}

/// Points of the chunk that begins at `first` when `left` points are there for it and those behind.
fn chunk_length(first: u64, left: u64) -> u64 {
    let room = CHUNK_POINTS - first % CHUNK_POINTS;
    if left >= room {
        return room;
    }
    // Not enough for a full one: whole small chunks' worth in one piece, then the open end.
    let sealed = left - left % SMALL_POINTS;
    if sealed > 0 { sealed } else { left }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_end_where_full_and_small_ones_must() {
        assert_eq!(chunk_length(0, 1), 1);
        assert_eq!(chunk_length(0, SMALL_POINTS), SMALL_POINTS);
        assert_eq!(chunk_length(0, 3000), 2816);
        assert_eq!(chunk_length(2816, 184), 184);
        assert_eq!(chunk_length(0, CHUNK_POINTS), CHUNK_POINTS);
        assert_eq!(chunk_length(0, 10 * CHUNK_POINTS), CHUNK_POINTS);
        assert_eq!(chunk_length(3840, 300), 256);
    }
}
