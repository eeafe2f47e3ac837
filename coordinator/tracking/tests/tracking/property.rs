//! However a journal is cut into calls, sent again or sent out of turn: the same points, once, in order.

use crate::{ana, points_line};
use bytes::Bytes;
use coordinator_tracking::{Tracking, TrackingError};
use proptest::prelude::*;

/// One call of a careless sender: lines from `first` (which may lie behind or past the watermark).
#[derive(Debug, Clone)]
struct Call {
    offset: i64,
    lines: u64,
    torn: bool,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    proptest::collection::vec(
        (-4..3_i64, 0..5_u64, any::<bool>()).prop_map(|(offset, lines, torn)| Call {
            offset,
            lines,
            torn,
        }),
        1..25,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_way_of_sending_stores_each_point_once_and_in_order(
        calls in calls(),
        sizes in proptest::collection::vec(1..900_u64, 12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut tracking = Tracking::open(folder.path()).await.unwrap();
            // Record n has sizes[n % 12] points, numbered on from those before it.
            let size = |sequence: u64| sizes[(sequence % 12) as usize];
            let first_point = |sequence: u64| (1..sequence).map(size).sum::<u64>();
            let line = |sequence: u64| {
                points_line(sequence, "a", first_point(sequence), size(sequence))
            };
            let mut watermark = 0_u64;
            for (number, call) in calls.iter().enumerate() {
                let first = (watermark as i64 + 1 + call.offset).max(1) as u64;
                let mut lines: String = (first..first + call.lines).map(line).collect();
                if call.torn {
                    let next = line(first + call.lines);
                    lines.push_str(&next[..next.len() / 2]);
                }
                let answer = tracking
                    .append_journal("run-1", &ana("research"), "w-1", Bytes::from(lines))
                    .await;
                if call.lines > 0 && first > watermark + 1 {
                    let Err(TrackingError::Gap { watermark: told, .. }) = answer else {
                        return Err(TestCaseError::fail(format!("not a gap: {answer:?}")));
                    };
                    prop_assert_eq!(told, watermark);
                } else {
                    watermark = watermark.max(if call.lines > 0 { first + call.lines - 1 } else { 0 });
                    prop_assert_eq!(answer.unwrap().watermark, watermark);
                }
                if number % 7 == 6 {
                    tracking.close().await;
                    tracking = Tracking::open(folder.path()).await.unwrap();
                }
            }
            let stored = tracking.series("run-1", "a", usize::MAX).await.unwrap();
            let steps: Vec<i64> = stored
                .map(|series| series.points.iter().map(|point| point.step).collect())
                .unwrap_or_default();
            prop_assert_eq!(steps, (0..first_point(watermark + 1) as i64).collect::<Vec<_>>());
            Ok(())
        })?;
    }
}
