//! A golden trace in small, the future kept from the policy, and inputs that are refused.

use super::*;
use coordinator_core::scheduler::queue::Rules;
use std::fmt::Write as _;

const JOBS: &str = include_str!("tests/philly/jobs.csv");
const CLUSTER: &str = include_str!("tests/philly/cluster.json");
const HEADER: &str = "job_id,submit,tenant,gpus,duration\n";

fn cluster(json: &str) -> Cluster {
    Cluster::read(json.as_bytes(), "cluster.json").expect("a cluster")
}

fn trace(csv: &str) -> Trace {
    Trace::read(csv.as_bytes(), "jobs.csv").expect("a trace")
}

fn replay(trace: &Trace, cluster: &Cluster) -> Outcome {
    let history = Trace::default();
    simulate(trace, cluster, &history, &Rules::standard(), &mut |_| {}).expect("a replay")
}

fn schedule(trace: &Trace, cluster: &Cluster) -> String {
    let mut written = Vec::new();
    let outcome = replay(trace, cluster);
    write_schedule(&mut written, trace, cluster, &outcome).expect("memory takes all");
    String::from_utf8(written).expect("names are text")
}

#[test]
fn four_days_of_philly_come_to_these_figures() {
    let (trace, cluster) = (trace(JOBS), cluster(CLUSTER));
    let report = Report::new(&trace, &cluster, &replay(&trace, &cluster));
    insta::assert_json_snapshot!("philly", report);
}

#[test]
fn every_run_gets_its_time_on_consolidated_nodes_and_no_gpu_is_given_twice() {
    let (trace, cluster) = (trace(JOBS), cluster(CLUSTER));
    let outcome = replay(&trace, &cluster);
    // At equal moments what is freed comes before what is taken.
    let mut changes: Vec<(u64, bool, u32, u32)> = Vec::new();
    for (run, replayed) in trace.runs.iter().zip(&outcome.runs) {
        let mut before_us = run.submitted_us as u64;
        let mut ran_us = 0;
        for segment in &replayed.segments {
            assert!(segment.start_us >= before_us && segment.end_us > segment.start_us);
            before_us = segment.end_us;
            ran_us += segment.end_us - segment.start_us;
            let gpus: u32 = segment.nodes.iter().map(|(_, gpus)| gpus).sum();
            assert_eq!(gpus, run.gpus);
            assert_eq!(segment.nodes.len(), run.gpus.div_ceil(8) as usize);
            for (node, gpus) in &segment.nodes {
                changes.push((segment.start_us, true, *node, *gpus));
                changes.push((segment.end_us, false, *node, *gpus));
            }
        }
        assert_eq!(
            ran_us,
            run.duration_us + replayed.overhead_us,
            "{}",
            run.name
        );
    }
    changes.sort_unstable();
    let mut used = vec![0_u32; cluster.nodes.len()];
    for (_, takes, node, gpus) in changes {
        let used = &mut used[node as usize];
        *used = if takes { *used + gpus } else { *used - gpus };
        assert!(*used <= 8);
    }
}

#[test]
fn what_is_decided_before_a_moment_does_not_depend_on_what_comes_after() {
    let (trace, cluster) = (trace(JOBS), cluster(CLUSTER));
    let known = replay(&trace, &cluster);
    for at_us in [40_000_000_000_u64, 170_000_000_000, 400_000_000_000] {
        let mut other = trace.clone();
        let mut changed = 0;
        for (position, (run, replayed)) in other.runs.iter_mut().zip(&known.runs).enumerate() {
            if replayed.ended_us() <= at_us {
                continue;
            }
            let ran_us: u64 = replayed
                .segments
                .iter()
                .map(|segment| {
                    segment
                        .end_us
                        .min(at_us)
                        .saturating_sub(segment.start_us.min(at_us))
                })
                .sum();
            let left_us = run.duration_us.saturating_sub(ran_us);
            let factor = [0, 1, 5, 40][position % 4];
            run.duration_us = ran_us + 61_000_000 + left_us * factor / 2;
            changed += 1;
        }
        assert!(changed > 0, "nothing is left to change at {at_us}");
        let after = replay(&other, &cluster);
        for (position, run) in trace.runs.iter().enumerate() {
            if run.submitted_us as u64 > at_us {
                continue;
            }
            let seen = |outcome: &Outcome| -> Vec<Segment> {
                outcome.runs[position]
                    .segments
                    .iter()
                    .filter(|segment| segment.start_us < at_us)
                    .map(|segment| {
                        // An end to come may differ.
                        let end_us = match segment.end_us {
                            end_us if end_us <= at_us => end_us,
                            _ => u64::MAX,
                        };
                        Segment {
                            end_us,
                            ..segment.clone()
                        }
                    })
                    .collect()
            };
            assert_eq!(seen(&known), seen(&after), "{} at {at_us}", run.name);
        }
    }
}

#[test]
fn a_partitioned_cluster_keeps_every_run_on_its_tenants_nodes() {
    let cluster = cluster(
        r#"{"mode": "partition", "nodes": [{"id": "a", "gpus": 8, "tenant": "x"},
            {"prefix": "b", "count": 1, "gpus": 4, "tenant": "y"}],
            "tenants": {"x": {"quota": 4}, "y": {"quota": 4}}}"#,
    );
    let trace = trace(&format!(
        "{HEADER}1,0,x,8,10\n2,0,y,4,10\n3,1,y,1,5\n4,0,x,1,5\n"
    ));
    insta::assert_snapshot!(schedule(&trace, &cluster), @r"
    job_id,segment,start,end,nodes
    1,0,5,15,a:8
    2,0,0,10,b0000:4
    3,0,10,15,b0000:1
    4,0,0,5,a:1
    ");
}

#[test]
fn a_preempted_run_pays_for_it_and_times_stay_exact() {
    let cluster = cluster(
        r#"{"mode": "shared", "nodes": [{"id": "a", "gpus": 8}],
            "tenants": {"x": {"quota": 0}, "y": {"quota": 8}}}"#,
    );
    let trace = trace(&format!("{HEADER}1,0.25,x,8,100\n2,50.5,y,8,10\n"));
    insta::assert_snapshot!(schedule(&trace, &cluster), @r"
    job_id,segment,start,end,nodes
    1,0,0.25,50.5,a:8
    1,1,60.5,140.25,a:8
    2,0,50.5,60.5,a:8
    ");
}

#[test]
fn a_history_that_proved_itself_orders_equal_runs() {
    let cluster = cluster(
        r#"{"mode": "shared", "nodes": [{"id": "a", "gpus": 1}], "tenants": {"x": {"quota": 1}}}"#,
    );
    let mut history = "job_id,submit,tenant,gpus,duration,name\n".to_owned();
    for number in 0..80 {
        let (name, duration) = if number % 2 == 0 {
            ("long", 900)
        } else {
            ("short", 60)
        };
        let submit = number * 1_000 - 100_000;
        writeln!(history, "h{number},{submit},x,1,{duration},{name}").expect("a string takes all");
    }
    let jobs = "job_id,submit,tenant,gpus,duration,name\n\
                first,0,x,1,10,other\na,1,x,1,900,long\nb,2,x,1,60,short\n";
    let (trace, history) = (
        trace(jobs),
        Trace::read_history(history.as_bytes(), "before.csv").expect("a history"),
    );
    let ends = |history: &Trace| -> Vec<u64> {
        simulate(&trace, &cluster, history, &Rules::standard(), &mut |_| {})
            .expect("a replay")
            .runs
            .iter()
            .map(|run| run.ended_us() / 1_000_000)
            .collect()
    };
    assert_eq!(ends(&Trace::default()), [10, 910, 970]);
    assert_eq!(ends(&history), [10, 970, 70]);
}

#[test]
fn a_wrong_trace_is_refused_with_what_is_allowed() {
    let mut said = String::new();
    for rows in [
        "",
        "job_id,submit,tenant\n",
        HEADER,
        "job_id,submit,tenant,gpus,duration\nx,-1,a,1,1\n",
        "job_id,submit,tenant,gpus,duration\nx,soon,a,1,1\n",
        "job_id,submit,tenant,gpus,duration\nx,0,a,0,1\n",
        "job_id,submit,tenant,gpus,duration\nx,0,a,1.5,1\n",
        "job_id,submit,tenant,gpus,duration\nx,0,a,1,-3\n",
        "job_id,submit,tenant,gpus,duration\nx,0,,1,1\n",
        "job_id,submit,tenant,gpus,duration\nx,0,a,1,1\nx,2,a,1,1\n",
        "job_id,submit,tenant,gpus,duration\nx,0,a\n",
    ] {
        let refusal = Trace::read(rows.as_bytes(), "jobs.csv").expect_err("a wrong trace");
        writeln!(
            said,
            "{} | {}",
            refusal.message,
            refusal.allowed.unwrap_or_default()
        )
        .expect("a string takes all");
    }
    insta::assert_snapshot!(said);
}

#[test]
fn a_wrong_cluster_is_refused_with_what_is_allowed() {
    let mut said = String::new();
    let nodes = r#""nodes": [{"id": "a", "gpus": 1}]"#;
    for json in [
        "{".to_owned(),
        r#"{"mode": "other", "nodes": [], "tenants": {}}"#.to_owned(),
        r#"{"mode": "shared", "nodes": [], "tenants": {"x": {"quota": 1}}}"#.to_owned(),
        r#"{"mode": "shared", "nodes": [{"gpus": 1}], "tenants": {"x": {"quota": 1}}}"#.to_owned(),
        r#"{"mode": "shared", "nodes": [{"id": "a", "gpus": 1}, {"id": "a", "gpus": 1}],
            "tenants": {"x": {"quota": 1}}}"#
            .to_owned(),
        r#"{"mode": "shared", "nodes": [{"count": 4000000000, "gpus": 1}],
            "tenants": {"x": {"quota": 1}}}"#
            .to_owned(),
        r#"{"mode": "shared", "nodes": [{"id": "a", "gpus": 4000000000}],
            "tenants": {"x": {"quota": 1}}}"#
            .to_owned(),
        format!(r#"{{"mode": "shared", {nodes}, "tenants": {{}}}}"#),
        format!(r#"{{"mode": "shared", {nodes}, "tenants": {{"x": {{"quota": -1}}}}}}"#),
        format!(
            r#"{{"mode": "shared", {nodes}, "tenants": {{"x": {{"quota": 1}}}},
                "preempt_overhead": {{"many": 1}}}}"#
        ),
    ] {
        let refusal = Cluster::read(json.as_bytes(), "cluster.json").expect_err("a wrong cluster");
        writeln!(
            said,
            "{} | {}",
            refusal.message,
            refusal.allowed.unwrap_or_default()
        )
        .expect("a string takes all");
    }
    insta::assert_snapshot!(said);
}

#[test]
fn runs_that_the_cluster_cannot_serve_are_refused_before_anything_is_replayed() {
    let cluster = cluster(
        r#"{"mode": "shared", "nodes": [{"prefix": "n", "count": 2, "gpus": 8}],
            "tenants": {"x": {"quota": 16}}}"#,
    );
    let mut said = String::new();
    for row in ["1,0,y,1,1", "1,0,x,17,1"] {
        let history = Trace::default();
        let refusal = simulate(
            &trace(&format!("{HEADER}{row}\n")),
            &cluster,
            &history,
            &Rules::standard(),
            &mut |_| {},
        )
        .expect_err("no room");
        writeln!(
            said,
            "{} | {}",
            refusal.message,
            refusal.allowed.unwrap_or_default()
        )
        .expect("a string takes all");
    }
    insta::assert_snapshot!(said, @r#"
    run "1" is of tenant "y", which the cluster does not have | x
    run "1" asks for 17 GPUs at once, which no set of nodes of the cluster can hold | up to 16 GPUs, on whole nodes and part of one
    "#);
}

#[test]
fn a_gzipped_trace_reads_like_a_plain_one() {
    use std::io::Write as _;
    let mut gzipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzipped
        .write_all(JOBS.as_bytes())
        .expect("memory takes all");
    let gzipped = gzipped.finish().expect("memory takes all");
    assert_eq!(
        Trace::read(gzipped.as_slice(), "jobs.csv.gz").expect("a trace"),
        trace(JOBS)
    );
    assert!(Trace::read(&gzipped[..gzipped.len() / 2], "jobs.csv.gz").is_err());
}
