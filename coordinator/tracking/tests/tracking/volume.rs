//! A million points: stored in few rows, read in bounded memory, thinned without losing a spike.

use crate::{append, points_line};
use coordinator_tracking::Tracking;

/// Peak resident memory of this process, from the kernel.
fn peak_kib() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .unwrap()
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap()
}

#[tokio::test]
async fn a_million_points_are_read_thinned_in_memory_that_does_not_grow_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let (records, each) = (25_u64, 40_000_u64);
    for at in 0..records {
        let mut line = points_line(at + 1, "loss", at * each, each);
        if at == 13 {
            // One spike among a million.
            line = line.replacen("520000.5]", "9e9]", 1);
        }
        append(&tracking, "w-1", &line).await.unwrap();
    }
    let before = peak_kib();
    let series = tracking
        .series("run-1", "loss", 1_000)
        .await
        .unwrap()
        .unwrap();
    let grown = peak_kib() - before;
    // All of them would be 24 MB.
    assert!(grown < 8 << 10, "reading grew the process by {grown} KiB");
    assert_eq!(series.count, records * each);
    assert!(series.points.len() <= 1_000 && series.points.len() > 500);
    assert_eq!(series.points[0].step, 0);
    assert_eq!(series.points[series.points.len() - 1].step, 999_999);
    assert!(series.points.iter().any(|point| point.value == 9e9));
    let size: u64 = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name() == "tracking.sqlite")
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(
        size < 20_000_000,
        "a point costs {} bytes",
        size / 1_000_000
    );
}

#[tokio::test]
async fn a_point_at_a_time_does_not_leave_a_row_a_point() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    for at in 0..1_100 {
        append(&tracking, "w-1", &points_line(at + 1, "a", at, 1))
            .await
            .unwrap();
    }
    for at in 1_100..1_104 {
        append(
            &tracking,
            "w-1",
            &points_line(at + 1, "a", 1_100 + (at - 1_100) * 1_000, 1_000),
        )
        .await
        .unwrap();
    }
    assert_eq!(
        crate::steps(&tracking, "a").await,
        (0..5_100).collect::<Vec<_>>()
    );
    tracking.close().await;
    use sqlx::Connection;
    let path = format!("sqlite://{}/tracking.sqlite", folder.path().display());
    let mut connection = sqlx::SqliteConnection::connect(&path).await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM chunk")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(rows <= 3, "{rows} rows for 5,100 points");
}
