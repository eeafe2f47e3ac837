//! The ledger and the audit: exported once, clipped exactly, summed to the microsecond.

use coordinator_core::model::{
    AuditEntry, LedgerRow, NodeName, OutboxBody, OutboxRecord, PoolName, RunId, TenantName,
    UserName,
};
use coordinator_tracking::{CostBy, CostReport, Tracking, TrackingError};
use proptest::prelude::*;

const HOUR_US: u64 = 3_600_000_000;

fn row(
    run: u64,
    team: &str,
    share_milli: u32,
    start_us: u64,
    end_us: u64,
    price: u64,
) -> LedgerRow {
    LedgerRow {
        run: RunId(run),
        run_name: format!("name-{run}"),
        attempt: 1,
        member: 0,
        tenant: TenantName::new("nlp").unwrap(),
        user: UserName::new(if run.is_multiple_of(2) { "ana" } else { "bo" }).unwrap(),
        pool: PoolName::new("default").unwrap(),
        node: NodeName::new("node-1").unwrap(),
        device: None,
        device_model: Some("A100-80G".into()),
        simulated: true,
        share_milli,
        memory_mib: 81_920,
        tags: [("team".to_owned(), team.to_owned())].into(),
        model: None,
        start_us,
        end_us,
        price_per_gpu_hour_micro: price,
    }
}

fn ledger(sequence: u64, row: LedgerRow) -> OutboxRecord {
    OutboxRecord {
        sequence,
        at_us: row.end_us,
        body: OutboxBody::Ledger(row),
    }
}

fn audit(sequence: u64, entry_sequence: u64) -> OutboxRecord {
    OutboxRecord {
        sequence,
        at_us: 7,
        body: OutboxBody::Audit(AuditEntry {
            sequence: entry_sequence,
            at_us: 7,
            actor: "user:ana".into(),
            action: "run.submit".into(),
            subject: "run-1".into(),
            detail: "{}".into(),
            previous: "00".into(),
            hash: "ff".into(),
        }),
    }
}

#[tokio::test]
async fn exporting_again_stores_nothing_twice_and_a_gap_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let records = [
        audit(1, 1),
        ledger(2, row(1, "a", 1000, 0, HOUR_US, 3_000_000)),
        audit(3, 2),
        ledger(4, row(2, "b", 500, 0, HOUR_US, 3_000_000)),
    ];
    assert_eq!(tracking.export_watermark().await.unwrap(), 0);
    assert_eq!(tracking.export(&records[..2]).await.unwrap(), 2);
    assert_eq!(tracking.export(&records[..2]).await.unwrap(), 2);
    assert!(matches!(
        tracking.export(&records[3..]).await,
        Err(TrackingError::Invalid(_))
    ));
    assert_eq!(tracking.export(&records).await.unwrap(), 4);
    assert_eq!(tracking.export(&[]).await.unwrap(), 4);
    tracking.close().await;
    let tracking = Tracking::open(folder.path()).await.unwrap();
    assert_eq!(tracking.export(&records).await.unwrap(), 4);
    assert_eq!(tracking.export_watermark().await.unwrap(), 4);
    let total = tracking
        .cost(CostBy::Tenant, 0, u64::MAX, u64::MAX, None)
        .await
        .unwrap()
        .total();
    assert_eq!(total.cost_micro, 4_500_000);
    let entries = tracking.audit(0, 10).await.unwrap();
    assert_eq!(
        entries
            .iter()
            .map(|entry| entry.sequence)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(tracking.audit(1, 10).await.unwrap()[0].sequence, 2);
}

#[tokio::test]
async fn cost_is_clipped_to_the_window_and_grouped_by_anything() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let mut with_model = row(3, "a", 1000, 2 * HOUR_US, 4 * HOUR_US, 2_000_000);
    with_model.model = Some("bert".into());
    let records = [
        ledger(1, row(1, "a", 1000, 0, 2 * HOUR_US, 3_000_000)),
        ledger(2, row(2, "b", 250, 0, 4 * HOUR_US, 4_000_000)),
        ledger(3, with_model),
    ];
    tracking.export(&records).await.unwrap();
    let report = tracking
        .cost(CostBy::new("team"), HOUR_US, 3 * HOUR_US, u64::MAX, None)
        .await
        .unwrap();
    let found: Vec<_> = report
        .rows()
        .into_iter()
        .map(|row| (row.key, row.runs, row.gpu_milli_us, row.cost_micro))
        .collect();
    let hour = u128::from(HOUR_US) * 1000;
    assert_eq!(
        found,
        [
            ("a".into(), 2, 2 * hour, 5_000_000),
            ("b".to_owned(), 1, hour / 2, 2_000_000)
        ]
    );
    assert_eq!(report.through(), 3);
    assert!(report.simulated());
    for (by, keys) in [
        ("tenant", vec!["nlp"]),
        ("user", vec!["bo", "ana"]),
        ("model", vec!["", "bert"]),
        ("run", vec!["run-1", "run-2", "run-3"]),
        ("nobody-set-this", vec![""]),
    ] {
        let report = tracking
            .cost(CostBy::new(by), HOUR_US, 3 * HOUR_US, u64::MAX, None)
            .await
            .unwrap();
        let mut found: Vec<String> = report.rows().into_iter().map(|row| row.key).collect();
        found.sort();
        let mut keys = keys;
        keys.sort_unstable();
        assert_eq!(found, keys, "{by}");
        assert_eq!(report.total().runs, 3, "{by}");
    }
}

#[tokio::test]
async fn one_tenant_is_shown_its_own_and_a_view_of_before_sees_no_later_row() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let other = TenantName::new("vision").unwrap();
    let mut of_other = row(2, "a", 1000, 0, HOUR_US, 1_000_000);
    of_other.tenant = other.clone();
    tracking
        .export(&[
            ledger(1, row(1, "a", 1000, 0, HOUR_US, 1_000_000)),
            ledger(2, of_other),
        ])
        .await
        .unwrap();
    let report = tracking
        .cost(CostBy::Run, 0, u64::MAX, u64::MAX, Some(&other))
        .await
        .unwrap();
    assert_eq!(report.rows().len(), 1);
    assert_eq!(report.rows()[0].key, "run-2");
    let report = tracking
        .cost(CostBy::Run, 0, u64::MAX, 1, None)
        .await
        .unwrap();
    assert_eq!(report.rows()[0].key, "run-1");
    assert_eq!((report.rows().len(), report.through()), (1, 1));
}

#[tokio::test]
async fn open_allocations_are_folded_into_the_same_report() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    tracking
        .export(&[ledger(1, row(1, "a", 1000, 0, HOUR_US, 1_000_000))])
        .await
        .unwrap();
    let mut report = tracking
        .cost(CostBy::Run, 0, 2 * HOUR_US, u64::MAX, None)
        .await
        .unwrap();
    report.add(&row(1, "a", 1000, HOUR_US, 9 * HOUR_US, 1_000_000));
    assert_eq!(report.total().cost_micro, 2_000_000);
    assert_eq!(report.rows()[0].runs, 1);
}

#[tokio::test]
async fn the_largest_amounts_come_back_as_they_went() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let largest = row(u64::MAX, "a", u32::MAX, 0, i64::MAX as u64, u64::MAX);
    tracking
        .export(&[ledger(1, largest.clone()), ledger(2, largest.clone())])
        .await
        .unwrap();
    let total = tracking
        .cost(CostBy::Run, 0, u64::MAX, u64::MAX, None)
        .await
        .unwrap()
        .total();
    assert_eq!(total.gpu_milli_us, 2 * largest.gpu_milli_us());
    assert_eq!(total.cost_micro, 2 * u128::from(largest.cost_micro()));
}

#[tokio::test]
async fn a_database_of_an_older_binary_opens_and_a_newer_one_is_refused() {
    use sqlx::Connection;
    let folder = tempfile::tempdir().unwrap();
    let path = format!(
        "sqlite://{}/tracking.sqlite?mode=rwc",
        folder.path().display()
    );
    // As the first released binary leaves it: its first migration, nothing behind it.
    let mut first = sqlx::migrate!("migrations/sqlite");
    first.migrations.to_mut().truncate(1);
    let mut connection = sqlx::SqliteConnection::connect(&path).await.unwrap();
    first.run(&mut connection).await.unwrap();
    sqlx::query("INSERT INTO tracked_run (run, user_name) VALUES ('run-5', 'ana')")
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO ledger VALUES (1, 1, 5, 'n', 1, 0, 'blue', 'ana', 'p', 'm', NULL, NULL, FALSE, \
         0, 0, '{}', NULL, 1, 2, 0)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    sqlx::query("INSERT INTO model_version VALUES ('churn', 1, 1, 'sklearn', '{}', '[]', 1)")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let model = tracking.model("churn").await.unwrap().unwrap();
    assert_eq!(model.tenant, "blue", "who was charged for it owns it");
    assert_eq!(
        tracking.run("run-5").await.unwrap().unwrap().summary.user,
        "ana"
    );
    tracking.close().await;

    let mut connection = sqlx::SqliteConnection::connect(&path).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', TRUE, x'00', 0)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    let refused = Tracking::open(folder.path()).await;
    assert!(matches!(refused, Err(TrackingError::Unavailable(why)) if why.contains("9999")));
}

proptest! {
    #[test]
    fn held_time_over_any_cuts_of_the_window_adds_up_to_the_whole(
        rows in proptest::collection::vec((0..1000_u64, 0..1000_u64, 1..1000_u32), 1..20),
        cuts in proptest::collection::btree_set(1..1999_u64, 0..6),
    ) {
        let rows: Vec<LedgerRow> = rows.into_iter()
            .map(|(start, length, share)| row(start, "a", share, start, start + length, 1))
            .collect();
        let mut edges = vec![0];
        edges.extend(cuts);
        edges.push(2000);
        let pieces: u128 = edges.windows(2).map(|edge| {
            let mut report = CostReport::new(CostBy::Tenant, edge[0], edge[1]);
            rows.iter().for_each(|row| report.add(row));
            report.total().gpu_milli_us
        }).sum();
        let whole: u128 = rows.iter().map(LedgerRow::gpu_milli_us).sum();
        prop_assert_eq!(pieces, whole);
    }
}
