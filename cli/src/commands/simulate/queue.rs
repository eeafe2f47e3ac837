//! `platform simulate queue`.

use crate::failure::{Failure, exit, on_path};
use crate::output::{Paint, Printer, amounts, tables};
use coordinator_core::policy::Refusal;
use coordinator_core::scheduler::queue::Rules;
use coordinator_simulation::queue::{Cluster, Progress, Report, Trace, simulate, write_schedule};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

const SECOND_US: f64 = 1e6;

/// Files of one simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Runs to schedule.
    pub jobs: PathBuf,
    /// Nodes and quotas.
    pub cluster: PathBuf,
    /// The schedule.
    pub out: PathBuf,
    /// Runs that ended before.
    pub history: Option<PathBuf>,
}

/// Replays a trace, writes its schedule, prints its figures.
pub fn run(printer: &Printer, files: &Files, rules: &Rules) -> Result<u8, Failure> {
    let trace = Trace::read(open(&files.jobs)?, &name(&files.jobs)).map_err(refused)?;
    let cluster = Cluster::read(open(&files.cluster)?, &name(&files.cluster)).map_err(refused)?;
    let history = match &files.history {
        Some(path) => Trace::read_history(open(path)?, &name(path)).map_err(refused)?,
        None => Trace::default(),
    };
    // An output that cannot be written is said now, and not after the replay.
    let out = File::create(&files.out).map_err(on_path("write", &files.out))?;
    let bar = printer.bar(trace.runs.len() as u64, "{msg} {wide_bar} {pos}/{len} runs");
    let started = Instant::now();
    let outcome = simulate(&trace, &cluster, &history, rules, &mut |progress| {
        let Progress { ended, now_us } = progress;
        bar.set_position(ended as u64);
        bar.set_message(amounts::duration(now_us));
    });
    bar.finish_and_clear();
    let outcome = outcome.map_err(refused)?;
    let took_s = started.elapsed().as_secs_f64();
    let mut out = BufWriter::new(out);
    write_schedule(&mut out, &trace, &cluster, &outcome)
        .and_then(|()| out.flush())
        .map_err(on_path("write", &files.out))?;
    let report = Report::new(&trace, &cluster, &outcome);
    printer.result(&report, |paint| summary(&report, paint))?;
    printer.note(&format!(
        "{} simulated in {took_s:.1} s, {:.0} times as fast as they passed; schedule in {}",
        amounts::duration((report.makespan_s * SECOND_US) as u64),
        report.makespan_s / took_s.max(1e-6),
        files.out.display()
    ));
    Ok(exit::DONE)
}

fn open(path: &Path) -> Result<BufReader<File>, Failure> {
    File::open(path).map(BufReader::new).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            Failure::not_found(format!("no file {}", path.display()))
                .hint("the path counts from the folder that you are in")
        } else {
            on_path("read", path)(error)
        }
    })
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

fn refused(refusal: Refusal) -> Failure {
    let mut failure = Failure::usage(refusal.message);
    failure.body.allowed = refusal.allowed;
    failure.body.hint = refusal.hint;
    failure
}

/// The figures for people: the whole, then the tenants.
fn summary(report: &Report, paint: Paint) -> String {
    let time = |seconds: f64| amounts::duration((seconds * SECOND_US) as u64);
    let per_cent = |share: f64| format!("{:.2} %", share * 100.0);
    let whole = tables::pairs(&[
        ("runs", report.runs.to_string()),
        (
            "completion",
            format!(
                "{} on average ({:.0} s)",
                time(report.average_completion_s),
                report.average_completion_s
            ),
        ),
        (
            "waiting",
            format!(
                "{} on average ({:.0} s), p99.9 {}, longest {}",
                time(report.average_queue_s),
                report.average_queue_s,
                time(report.p999_queue_s),
                time(report.longest_queue_s)
            ),
        ),
        (
            "preemptions",
            format!(
                "{}: {} reclaimed, {} displaced, {} moved",
                report.preemptions, report.reclaimed, report.displaced, report.moved
            ),
        ),
        (
            "utilisation",
            format!(
                "{} of {} GPUs while runs were submitted",
                per_cent(report.utilisation_of_submit_window),
                report.gpus
            ),
        ),
        (
            "quotas",
            format!(
                "satisfied at least to {}, violated at most {} of the time",
                per_cent(report.least_quota_satisfaction),
                per_cent(report.worst_quota_violation_share)
            ),
        ),
    ]);
    let rows = report
        .tenants
        .iter()
        .map(|tenant| {
            vec![
                tenant.tenant.clone(),
                tenant.runs.to_string(),
                tenant.quota_gpus.to_string(),
                format!("{:.0}", tenant.gpu_hours),
                time(tenant.average_queue_s),
                time(tenant.p99_queue_s),
                time(tenant.longest_queue_s),
                per_cent(tenant.quota_satisfaction),
                per_cent(tenant.quota_violation_share),
            ]
        })
        .collect();
    let tenants = tables::table(
        &[
            "TENANT",
            "RUNS",
            "QUOTA",
            "GPU HOURS",
            "WAITS",
            "P99",
            "LONGEST",
            "SATISFIED",
            "VIOLATED",
        ],
        rows,
        paint,
    );
    format!("{}\n\n{}", whole.trim_end(), tenants)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = r#"{"mode": "shared", "nodes": [{"id": "a", "gpus": 8}],
        "tenants": {"nlp": {"quota": 8}}, "preempt_overhead": {"inf": 1}}"#;

    fn replay(jobs: &str, cluster: &str) -> (Result<u8, Failure>, Option<String>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("jobs.csv"), jobs).expect("a file");
        std::fs::write(path("cluster.json"), cluster).expect("a file");
        let printer = Printer::new(true, true, crate::args::Colour::Never);
        let files = Files {
            jobs: path("jobs.csv"),
            cluster: path("cluster.json"),
            out: path("schedule.csv"),
            history: None,
        };
        let outcome = run(&printer, &files, &Rules::standard());
        let schedule = std::fs::read_to_string(path("schedule.csv")).ok();
        (outcome, schedule)
    }

    #[test]
    fn a_trace_is_replayed_into_a_schedule() {
        let jobs = "job_id,submit,tenant,gpus,duration\nx,0,nlp,8,100\ny,5,nlp,2,10\n";
        let (outcome, schedule) = replay(jobs, CLUSTER);
        assert_eq!(outcome, Ok(exit::DONE));
        insta::assert_snapshot!(schedule.unwrap_or_default(), @r"
        job_id,segment,start,end,nodes
        x,0,0,100,a:8
        y,0,100,110,a:2
        ");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_what_is_allowed() {
        let said = |jobs: &str, cluster: &str| {
            let failure = replay(jobs, cluster).0.expect_err("a refusal");
            assert_eq!(failure.exit, exit::USAGE);
            // The folder differs from one test to the next.
            let text = failure.to_string();
            let start = text
                .find("jobs.csv")
                .or(text.find("cluster.json"))
                .unwrap_or(0);
            text[start..].to_owned()
        };
        let header = "job_id,submit,tenant,gpus,duration\n";
        let all: Vec<String> = [
            said("", CLUSTER),
            said("job_id,submit\n", CLUSTER),
            said(&format!("{header}x,-1,nlp,1,1\n"), CLUSTER),
            said(&format!("{header}x,0,cv,1,1\n"), CLUSTER),
            said(&format!("{header}x,0,nlp,9,1\n"), CLUSTER),
            said(&format!("{header}x,0,nlp,1,1\n"), "{"),
        ]
        .into();
        insta::assert_snapshot!(all.join("\n\n"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let failure = open(Path::new("no-such-trace.csv")).expect_err("no such file");
        assert_eq!(failure.exit, exit::NOT_FOUND);
        insta::assert_snapshot!(failure, @r"
        no file no-such-trace.csv
          hint: the path counts from the folder that you are in
        ");
    }
}
