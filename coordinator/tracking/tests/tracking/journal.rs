//! What a journal means: each record once, in order, and a bad one never blocks the good.

use crate::{ana, append, points_line, steps};
use bytes::Bytes;
use coordinator_tracking::{MAX_CALL_BYTES, Progress, Tracking, TrackingError};

const OPEN: &str = r#"{"s":1,"k":"open","name":"digits","tags":{"team":"nlp"},"parent":null,"started_us":5,"context":{"script":"train.py"}}"#;

fn model_line(sequence: u64, name: &str) -> String {
    format!(
        r#"{{"s":{sequence},"k":"model","name":"{name}","framework":"sklearn","manifest":{{"class":"SVC"}},"files":[{{"path":"model.bin","sha256":"{}","size_bytes":3}}]}}"#,
        "a".repeat(64)
    ) + "\n"
}

#[tokio::test]
async fn a_run_is_told_by_its_records() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let mut changed = tracking.changed();
    let lines = format!(
        "{OPEN}\n{}{}\n{}\n{}\n{}\n{}{}\n",
        points_line(2, "loss", 0, 3),
        r#"{"s":3,"k":"params","params":{"lr":0.1,"name":"x","flag":true,"none":null}}"#,
        r#"{"s":4,"k":"tags","tags":{"project":"p","team":"vision"}}"#,
        r#"{"s":5,"k":"progress","done":3,"total":9}"#,
        format_args!(
            r#"{{"s":6,"k":"artifact","path":"out/a.txt","sha256":"{}","size_bytes":7}}"#,
            "b".repeat(64)
        ),
        model_line(7, "digits"),
        r#"{"s":8,"k":"close","status":"failed","error":"Traceback","ended_us":50}"#,
    );
    let (watermark, results) = append(&tracking, "w-1", &lines).await.unwrap();
    assert_eq!(watermark, 8);
    assert_eq!(results, [r#"{"model":"digits","sequence":7,"version":1}"#]);
    assert_eq!(changed.recv().await.unwrap(), "run-1");

    let run = tracking.run("run-1").await.unwrap().unwrap();
    assert_eq!(run.summary.name, "digits");
    assert_eq!(run.summary.user, "ana");
    assert_eq!(run.summary.status, "failed");
    assert_eq!(run.summary.error.as_deref(), Some("Traceback"));
    assert_eq!(
        (run.summary.started_us, run.summary.ended_us),
        (5, Some(50))
    );
    assert_eq!(run.summary.tags["team"], "vision");
    assert_eq!(run.summary.context["script"], "train.py");
    assert_eq!(run.summary.progress, Some(Progress { done: 3, total: 9 }));
    assert_eq!(run.params["lr"], 0.1);
    assert!(run.params["none"].is_null());
    assert_eq!(run.metrics["loss"].count, 3);
    assert_eq!(run.metrics["loss"].point.value, 2.5);
    assert_eq!(run.artifacts[0].path, "out/a.txt");
    assert_eq!(run.models[0].version, 1);
    assert_eq!(run.models[0].manifest["class"], "SVC");
    let (metrics, progress) = tracking.latest("run-1").await.unwrap();
    assert_eq!(metrics, run.metrics);
    assert_eq!(progress, run.summary.progress);
    assert_eq!(tracking.run("run-2").await.unwrap(), None);
}

#[tokio::test]
async fn lines_sent_again_are_skipped_and_a_half_new_call_takes_its_new_half() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let one = points_line(1, "a", 0, 2);
    let two = points_line(2, "a", 2, 2);
    let three = points_line(3, "a", 4, 2);
    assert_eq!(
        append(&tracking, "w-1", &format!("{one}{two}"))
            .await
            .unwrap()
            .0,
        2
    );
    assert_eq!(
        append(&tracking, "w-1", &format!("{one}{two}"))
            .await
            .unwrap()
            .0,
        2
    );
    assert_eq!(
        append(&tracking, "w-1", &format!("{two}{three}"))
            .await
            .unwrap()
            .0,
        3
    );
    assert_eq!(append(&tracking, "w-1", "").await.unwrap().0, 3);
    assert_eq!(steps(&tracking, "a").await, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn records_that_a_sender_lost_are_answered_as_such_and_leave_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let lost = |first, through| {
        format!("{{\"s\":{first},\"through\":{through},\"k\":\"lost\",\"why\":\"the disk\"}}\n")
    };
    let lines = [
        points_line(1, "a", 0, 1),
        lost(2, 9),
        points_line(10, "a", 1, 1),
    ]
    .concat();
    let (watermark, results) = append(&tracking, "w-1", &lines).await.unwrap();
    assert_eq!(watermark, 10);
    assert_eq!(results, [r#"{"error":"the disk","sequence":2}"#]);
    // A sender that knew less of the store than it holds loses nothing of that.
    let lines = lost(5, 11) + &points_line(12, "a", 2, 1);
    let (watermark, results) = append(&tracking, "w-1", &lines).await.unwrap();
    assert_eq!(watermark, 12);
    assert_eq!(results, [r#"{"error":"the disk","sequence":11}"#]);
    assert_eq!(append(&tracking, "w-1", &lost(1, 3)).await.unwrap().0, 12);
    assert_eq!(steps(&tracking, "a").await, [0, 1, 2]);
    // No other kind stands for more than itself, and none for more than there can be.
    let other = "{\"s\":13,\"through\":99,\"k\":\"tags\",\"tags\":{}}\n";
    assert_eq!(append(&tracking, "w-1", other).await.unwrap().0, 13);
    let absurd = lost(14, u64::MAX);
    assert_eq!(append(&tracking, "w-1", &absurd).await.unwrap().0, 14);
}

#[tokio::test]
async fn a_gap_is_refused_whole_and_names_the_watermark() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let gap = |given, watermark| TrackingError::Gap {
        writer: "w-1".into(),
        given,
        watermark,
    };
    assert_eq!(
        append(&tracking, "w-1", &points_line(2, "a", 0, 1)).await,
        Err(gap(2, 0))
    );
    // A run that was only ever refused does not exist.
    assert_eq!(tracking.run("run-1").await.unwrap(), None);
    append(&tracking, "w-1", &points_line(1, "a", 0, 1))
        .await
        .unwrap();
    let hole = format!("{}{}", points_line(2, "a", 1, 1), points_line(4, "a", 3, 1));
    assert_eq!(append(&tracking, "w-1", &hole).await, Err(gap(4, 1)));
    assert_eq!(steps(&tracking, "a").await, [0]);
}

#[tokio::test]
async fn two_writers_count_each_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    append(&tracking, "w-1", &points_line(1, "a", 0, 2))
        .await
        .unwrap();
    append(&tracking, "agent-1-0", &points_line(1, "a", 10, 2))
        .await
        .unwrap();
    append(&tracking, "w-1", &points_line(2, "a", 2, 1))
        .await
        .unwrap();
    assert_eq!(steps(&tracking, "a").await, [0, 1, 10, 11, 2]);
}

#[tokio::test]
async fn a_bad_record_is_answered_taken_and_answered_again() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let lines = format!(
        "{}{}\n{}\n{}",
        points_line(1, "a", 0, 1),
        r#"{"s":2,"k":"from-the-future"}"#,
        r#"{"s":3,"k":"artifact","path":"../../etc/passwd","sha256":"x","size_bytes":1}"#,
        points_line(4, "a", 1, 1)
    );
    let first = append(&tracking, "w-1", &lines).await.unwrap();
    assert_eq!(first.0, 4);
    assert_eq!(first.1.len(), 2);
    assert!(first.1[0].contains("from-the-future") && first.1[0].contains("\"sequence\":2"));
    assert!(first.1[1].contains("relative path"));
    assert_eq!(steps(&tracking, "a").await, [0, 1]);
    assert_eq!(append(&tracking, "w-1", &lines).await.unwrap(), first);
}

#[tokio::test]
async fn garbage_refuses_the_call_names_the_line_and_stores_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let lines = format!("{}\u{1b}[31mgarbage\n", points_line(1, "a", 0, 1));
    let error = append(&tracking, "w-1", &lines).await.unwrap_err();
    assert!(matches!(&error, TrackingError::Invalid(why) if why.starts_with("line 2 ")));
    assert!(!error.to_string().contains('\u{1b}'));
    assert_eq!(tracking.run("run-1").await.unwrap(), None);
}

#[tokio::test]
async fn wrong_names_and_too_many_bytes_are_refused_at_the_door() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    for (run, writer) in [("../x", "w-1"), ("run-1", "../w"), ("", "w"), ("run-1", "")] {
        let error = tracking
            .append_journal(run, &ana("research"), writer, Bytes::new())
            .await;
        assert!(
            matches!(error, Err(TrackingError::Invalid(_))),
            "{run} {writer}"
        );
    }
    let large = Bytes::from(vec![b'\n'; MAX_CALL_BYTES + 1]);
    let error = tracking
        .append_journal("run-1", &ana("research"), "w-1", large)
        .await;
    assert!(matches!(error, Err(TrackingError::TooLarge { .. })));
}

#[tokio::test]
async fn a_torn_last_line_waits_for_its_other_half() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let two = points_line(2, "a", 1, 1);
    let torn = format!("{}{}", points_line(1, "a", 0, 1), &two[..two.len() / 2]);
    assert_eq!(append(&tracking, "w-1", &torn).await.unwrap().0, 1);
    assert_eq!(append(&tracking, "w-1", &two).await.unwrap().0, 2);
    assert_eq!(steps(&tracking, "a").await, [0, 1]);
}

#[tokio::test]
async fn versions_count_up_within_a_name_and_a_record_sent_again_keeps_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let lines = format!("{}{}", model_line(1, "a"), model_line(2, "a"));
    let first = append(&tracking, "w-1", &lines).await.unwrap();
    append(&tracking, "w-2", &model_line(1, "a")).await.unwrap();
    append(&tracking, "w-2", &model_line(2, "b")).await.unwrap();
    assert_eq!(append(&tracking, "w-1", &lines).await.unwrap(), first);
    assert_eq!(
        first.1,
        [
            r#"{"model":"a","sequence":1,"version":1}"#,
            r#"{"model":"a","sequence":2,"version":2}"#
        ]
    );
    let models = tracking.models().await.unwrap();
    let found: Vec<_> = models
        .iter()
        .map(|model| (model.name.as_str(), model.versions.len()))
        .collect();
    assert_eq!(found, [("a", 3), ("b", 1)]);
    let model = tracking.model("a").await.unwrap().unwrap();
    assert_eq!(model.versions[2].version, 3);
    assert_eq!(model.versions[2].files[0].path, "model.bin");
    assert_eq!(tracking.model("c").await.unwrap(), None);
}

#[tokio::test]
async fn a_run_that_no_sdk_opened_is_unknown_but_there() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let log = format!(
        r#"{{"s":1,"k":"artifact","path":"log","sha256":"{}","size_bytes":1}}"#,
        "c".repeat(64)
    );
    append(&tracking, "agent-1-0", &format!("{log}\n"))
        .await
        .unwrap();
    let run = tracking.run("run-1").await.unwrap().unwrap();
    assert_eq!(run.summary.status, "unknown");
    assert_eq!(run.artifacts.len(), 1);
}

#[tokio::test]
async fn opened_again_it_runs_and_one_good_end_does_not_hide_a_bad_one() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let open = format!("{OPEN}\n");
    let status = async || tracking.run("run-1").await.unwrap().unwrap().summary.status;
    append(&tracking, "w-1", &open).await.unwrap();
    append(&tracking, "w-2", &open).await.unwrap();
    let failed =
        "{\"s\":2,\"k\":\"close\",\"status\":\"failed\",\"error\":\"boom\",\"ended_us\":9}\n";
    let finished =
        "{\"s\":2,\"k\":\"close\",\"status\":\"finished\",\"error\":null,\"ended_us\":9}\n";
    append(&tracking, "w-1", failed).await.unwrap();
    append(&tracking, "w-2", finished).await.unwrap();
    assert_eq!(status().await, "failed");
    append(&tracking, "w-3", &open).await.unwrap();
    assert_eq!(status().await, "running");
    append(&tracking, "w-3", finished).await.unwrap();
    assert_eq!(status().await, "finished");
}

#[tokio::test]
async fn not_a_number_and_a_clock_that_jumps_back_are_kept_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let line = "{\"s\":1,\"k\":\"points\",\"keys\":[\"a\"],\"points\":[[0,5,100,\"-Infinity\"],[0,3,50,0.1],[0,4,60,\"NaN\"]]}\n";
    append(&tracking, "w-1", line).await.unwrap();
    let series = tracking.series("run-1", "a", 10).await.unwrap().unwrap();
    assert_eq!(series.points[0].value, f64::NEG_INFINITY);
    assert_eq!(series.points[1].value, 0.1);
    assert_eq!(series.points[1].time_us, 50);
    let (metrics, _) = tracking.latest("run-1").await.unwrap();
    assert!(metrics["a"].point.value.is_nan());
}

#[tokio::test]
async fn metrics_past_the_limit_are_left_out_and_known_ones_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let keys: Vec<String> = (0..9_999).map(|at| format!("\"k{at}\"")).collect();
    let points: Vec<String> = (0..9_999).map(|at| format!("[{at},0,0,1]")).collect();
    let full = format!(
        "{{\"s\":1,\"k\":\"points\",\"keys\":[{}],\"points\":[{}]}}\n",
        keys.join(","),
        points.join(",")
    );
    assert_eq!(append(&tracking, "w-1", &full).await.unwrap(), (1, vec![]));
    let line = "{\"s\":2,\"k\":\"points\",\"keys\":[\"k0\",\"new-1\",\"new-2\",\"k1\"],\"points\":[[0,1,0,1],[1,1,0,1],[2,1,0,1],[3,1,0,1]]}\n";
    let (watermark, results) = append(&tracking, "w-1", line).await.unwrap();
    assert_eq!(watermark, 2);
    assert!(results[0].contains("10000 names"), "{results:?}");
    for (key, count) in [("k0", 2), ("new-1", 1), ("new-2", 0), ("k1", 2)] {
        assert_eq!(steps(&tracking, key).await.len(), count, "{key}");
    }
}

#[tokio::test]
async fn runs_come_newest_first_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    for run in [
        "run-1",
        "run-2",
        "run-2.0a0b0c0d",
        "local-01ARZ3NDEKTSV4RRFFQ69G5FAV",
    ] {
        let lines = Bytes::from(format!("{OPEN}\n"));
        tracking
            .append_journal(run, &ana("research"), "w-1", lines)
            .await
            .unwrap();
    }
    let names = |runs: Vec<coordinator_tracking::RunSummary>| -> Vec<String> {
        runs.into_iter().map(|run| run.run).collect()
    };
    let page = names(tracking.runs(2, None).await.unwrap());
    assert_eq!(page, ["local-01ARZ3NDEKTSV4RRFFQ69G5FAV", "run-2.0a0b0c0d"]);
    let page = names(tracking.runs(9, Some(&page[1])).await.unwrap());
    assert_eq!(page, ["run-2", "run-1"]);
    assert!(matches!(
        tracking.runs(1, Some("run-9")).await,
        Err(TrackingError::Invalid(_))
    ));
}

#[tokio::test]
async fn many_calls_at_once_share_commits_and_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let calls = (0..100).map(|at| {
        let tracking = tracking.clone();
        tokio::spawn(async move {
            append(&tracking, &format!("w-{at}"), &points_line(1, "a", at, 1)).await
        })
    });
    for call in futures::future::join_all(calls).await {
        assert_eq!(call.unwrap().unwrap().0, 1);
    }
    let mut steps = steps(&tracking, "a").await;
    steps.sort_unstable();
    assert_eq!(steps, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_closed_store_opens_again_with_everything_in_it_and_a_dropped_one_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    append(&tracking, "w-1", &points_line(1, "a", 0, 5))
        .await
        .unwrap();
    let other = tracking.clone();
    tracking.close().await;
    let refused = append(&other, "w-1", &points_line(2, "a", 5, 1)).await;
    assert!(matches!(refused, Err(TrackingError::Unavailable(_))));
    let tracking = Tracking::open(folder.path()).await.unwrap();
    assert_eq!(
        append(&tracking, "w-1", &points_line(2, "a", 5, 1))
            .await
            .unwrap()
            .0,
        2
    );
    assert_eq!(steps(&tracking, "a").await, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn the_first_to_register_a_model_owns_its_name_and_another_tenant_is_told_whose_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let tracking = Tracking::open(folder.path()).await.unwrap();
    let mut answers = Vec::new();
    for (run, tenant) in [("run-1", "blue"), ("run-2", "red"), ("run-3", "blue")] {
        let line = Bytes::from(model_line(1, "churn"));
        let appended = tracking
            .append_journal(run, &ana(tenant), "w-1", line)
            .await
            .unwrap();
        // A refusal is an answer: what is behind the record is not held up.
        assert_eq!(appended.watermark, 1);
        answers.push(appended.results.concat());
    }
    assert!(answers[0].contains(r#""version":1"#), "{answers:?}");
    assert!(answers[1].contains("belongs to tenant blue"), "{answers:?}");
    assert!(answers[2].contains(r#""version":2"#), "{answers:?}");
    let model = tracking.model("churn").await.unwrap().unwrap();
    assert_eq!((model.tenant.as_str(), model.versions.len()), ("blue", 2));
    assert_eq!(tracking.models().await.unwrap(), [model]);
}
