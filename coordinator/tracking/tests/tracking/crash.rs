//! kill -9 in the middle of ingesting: what was acknowledged is there, nothing is there twice.

use crate::{append, numbered, points_line};
use coordinator_tracking::Tracking;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const FOLDER: &str = "TRACKING_CRASH_FOLDER";
const POINTS_A_RECORD: u64 = 37;

/// Not a test of its own: the process that the test below kills.
#[tokio::test]
#[ignore = "run by the test that kills it"]
async fn ingest_until_killed() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let tracking = Tracking::open(folder.as_ref()).await.unwrap();
    let mut next = append(&tracking, "w-1", "").await.unwrap().0 + 1;
    loop {
        // A sender that lost the answer sends the last record again.
        let from = next.saturating_sub(1).max(1);
        let lines: String = (from..next + 3)
            .map(|at| points_line(at, "a", (at - 1) * POINTS_A_RECORD, POINTS_A_RECORD))
            .collect();
        let (watermark, _) = append(&tracking, "w-1", &lines).await.unwrap();
        println!("acknowledged {watermark}");
        next = watermark + 1;
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_and_nothing_is_doubled() {
    let folder = tempfile::tempdir().unwrap();
    for kill_after in [1, 3, 40, 9, 75] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crash::ingest_until_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acknowledged = 0_u64;
        let mut seen = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            // The first may share its line with what the test harness prints.
            if let Some((_, number)) = line.unwrap().split_once("acknowledged ") {
                acknowledged = number.parse().unwrap();
                seen += 1;
                if seen == kill_after {
                    // SIGKILL; what it prints before it dies is read on until the pipe ends.
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(seen >= kill_after, "the child ended by itself after {seen}");

        let tracking = Tracking::open(folder.path()).await.unwrap();
        let watermark = append(&tracking, "w-1", "").await.unwrap().0;
        assert!(watermark >= acknowledged, "{watermark} < {acknowledged}");
        let series = tracking
            .series("run-1", "a", usize::MAX)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(series.count, watermark * POINTS_A_RECORD);
        assert_eq!(series.points.len() as u64, series.count);
        assert!(
            (0..)
                .zip(&series.points)
                .all(|(at, point)| *point == numbered(at))
        );
        tracking.close().await;
    }
}
