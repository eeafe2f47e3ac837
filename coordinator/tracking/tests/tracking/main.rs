//! The tracking crate from outside: journals, books, blobs, and what a kill leaves behind.

mod blobs;
mod books;
mod crash;
mod decisions;
mod journal;
mod property;
mod volume;

use bytes::Bytes;
use coordinator_tracking::{Author, Point, Tracking, TrackingError};
use std::fmt::Write;

/// One `points` record of one metric, its points numbered on from `first`.
fn points_line(sequence: u64, key: &str, first: u64, count: u64) -> String {
    let mut line = format!(r#"{{"s":{sequence},"k":"points","keys":["{key}"],"points":["#);
    for at in first..first + count {
        let comma = if at == first { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(
            line,
            "{comma}[0,{at},{},{}.5]",
            1_700_000_000_000_000 + at,
            at
        );
    }
    line.push_str("]}\n");
    line
}

fn ana(tenant: &str) -> Author {
    Author {
        user: "ana".to_owned(),
        tenant: tenant.to_owned(),
    }
}

async fn append(
    tracking: &Tracking,
    writer: &str,
    lines: &str,
) -> Result<(u64, Vec<String>), TrackingError> {
    tracking
        .append_journal(
            "run-1",
            &ana("research"),
            writer,
            Bytes::copy_from_slice(lines.as_bytes()),
        )
        .await
        .map(|appended| (appended.watermark, appended.results))
}

async fn steps(tracking: &Tracking, key: &str) -> Vec<i64> {
    tracking
        .series("run-1", key, usize::MAX)
        .await
        .unwrap()
        .map(|series| series.points.iter().map(|point| point.step).collect())
        .unwrap_or_default()
}

fn numbered(at: u64) -> Point {
    Point {
        step: at as i64,
        time_us: 1_700_000_000_000_000 + at,
        value: at as f64 + 0.5,
    }
}
