//! Decisions in the books: once each, by run, and gone after a month.

use coordinator_core::model::{Decision, OutboxBody, OutboxRecord, RunId, TenantName, Verdict};
use coordinator_tracking::Tracking;

const DAY_US: u64 = 24 * 3_600 * 1_000_000;

fn record(
    sequence: u64,
    at_us: u64,
    run: Option<u64>,
    tenant: &str,
    verdict: Verdict,
) -> OutboxRecord {
    OutboxRecord {
        sequence,
        at_us,
        body: OutboxBody::Decision(Box::new(Decision {
            index: sequence + 10,
            now_us: at_us,
            version: "1.0.0".to_owned(),
            run: run.map(RunId),
            tenant: TenantName::new(tenant).unwrap(),
            verdict,
        })),
    }
}

fn waits() -> Verdict {
    Verdict::Waits {
        tier: "over-quota".to_owned(),
        summary: "it would borrow".to_owned(),
        reasons: vec!["4 of 4 nodes: full".to_owned()],
    }
}

fn preempted(claimant: u64) -> Verdict {
    Verdict::Preempted {
        attempt: 1,
        claimant: RunId(claimant),
        lost_gpu_us: 5,
        plan: "ab".to_owned(),
    }
}

fn refused() -> Verdict {
    Verdict::Refused {
        actor: "user:ana".to_owned(),
        message: "too much".to_owned(),
    }
}

#[tokio::test]
async fn decisions_are_read_by_run_by_whom_it_displaced_and_by_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let records = [
        record(1, 1, Some(7), "nlp", waits()),
        record(2, 2, Some(3), "guests", preempted(7)),
        record(3, 3, None, "nlp", refused()),
        record(4, 4, Some(8), "nlp", waits()),
    ];
    tracking.export(&records).await.unwrap();
    tracking.export(&records).await.unwrap();
    let sequences = |decisions: Vec<coordinator_tracking::KeptDecision>| -> Vec<u64> {
        decisions.iter().map(|kept| kept.sequence).collect()
    };
    assert_eq!(
        sequences(tracking.decisions_of(RunId(7), 10).await.unwrap()),
        [1, 2]
    );
    assert_eq!(
        sequences(tracking.decisions_of(RunId(7), 1).await.unwrap()),
        [2]
    );
    let nlp = TenantName::new("nlp").unwrap();
    assert_eq!(
        sequences(tracking.decisions(Some(&nlp), 10).await.unwrap()),
        [1, 3, 4]
    );
    assert_eq!(
        sequences(tracking.decisions(None, 2).await.unwrap()),
        [3, 4]
    );
    let one = tracking.decision(2).await.unwrap().unwrap();
    assert_eq!(
        OutboxBody::Decision(Box::new(one.decision)),
        records[1].body
    );
    assert_eq!(tracking.decision(5).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_older_than_a_month_is_forgotten_when_something_new_comes() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let kept = |sequence, day| record(sequence, day * DAY_US, Some(1), "nlp", waits());
    tracking.export(&[kept(1, 1), kept(2, 20)]).await.unwrap();
    assert_eq!(tracking.decisions_of(RunId(1), 10).await.unwrap().len(), 2);
    tracking.export(&[kept(3, 40)]).await.unwrap();
    let left = tracking.decisions_of(RunId(1), 10).await.unwrap();
    assert_eq!(
        left.iter().map(|kept| kept.sequence).collect::<Vec<_>>(),
        [2, 3]
    );
}
