//! `platform simulate placement`: the clock and the files around the replay.

use crate::commands::Outcome;
use crate::failure::{Failure, exit, on_path};
use crate::output::Printer;
use coordinator_simulation::placement::{Fault, Replay, Tally, read_nodes, read_pods};
use serde::Serialize;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::time::{Duration, Instant};

/// Answers arrivals on standard input, each before the next is read.
pub fn answer(nodes: &Path, pods: &Path) -> Outcome {
    let (mut replay, _) = prepared(nodes, pods)?;
    // The protocol of the checker owns standard output: neither notes nor a summary beside it.
    replay
        .answer(std::io::stdin().lock(), std::io::stdout().lock())
        .map_err(|fault| failure(&fault, Path::new("standard input")))?;
    Ok(exit::DONE)
}

/// Decides a whole order into a file.
pub fn replay(printer: &Printer, nodes: &Path, pods: &Path, order: &Path, out: &Path) -> Outcome {
    let (mut replay, settled) = prepared(nodes, pods)?;
    let arrivals = BufReader::new(open(order)?);
    let decisions = File::create(out).map_err(on_path("write", out))?;
    let started = Instant::now();
    replay
        .replay(arrivals, BufWriter::new(decisions))
        .map_err(|fault| failure(&fault, order))?;
    let summary = Summary::of(replay.tally(), settled, started.elapsed());
    printer.result(&summary, |_| summary.text())?;
    Ok(exit::DONE)
}

/// What a replay came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Summary {
    arrivals: u64,
    refused: u64,
    gpus: f64,
    arrived_pct: f64,
    allocated_pct: f64,
    /// Reading the trace and settling prices on its mix, once.
    prepared_ms: f64,
    decision_us: f64,
}

impl Summary {
    fn of(tally: Tally, prepared: Duration, deciding: Duration) -> Self {
        Self {
            arrivals: tally.arrivals,
            refused: tally.refused,
            gpus: tally.capacity_milli as f64 / 1_000.0,
            arrived_pct: hundredths(tally.arrived_percent()),
            allocated_pct: hundredths(tally.allocated_percent()),
            prepared_ms: hundredths(prepared.as_secs_f64() * 1e3),
            decision_us: hundredths(deciding.as_secs_f64() * 1e6 / tally.arrivals.max(1) as f64),
        }
    }

    fn text(&self) -> String {
        format!(
            "{} pods asked for {} % of {} GPUs, and {} % are allocated; {} pods fitted nowhere.\n\
             Prepared in {} ms, then {} µs a decision.",
            self.arrivals,
            self.arrived_pct,
            self.gpus,
            self.allocated_pct,
            self.refused,
            self.prepared_ms,
            self.decision_us
        )
    }
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn prepared(nodes: &Path, pods: &Path) -> Result<(Replay, Duration), Failure> {
    let started = Instant::now();
    let known = read_nodes(BufReader::new(open(nodes)?)).map_err(|fault| failure(&fault, nodes))?;
    let listed =
        read_pods(BufReader::new(open(pods)?), &known).map_err(|fault| failure(&fault, pods))?;
    Ok((Replay::new(known, listed), started.elapsed()))
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::not_found(format!("no file {}", path.display())),
        _ => on_path("read", path)(error),
    })
}

fn failure(fault: &Fault, path: &Path) -> Failure {
    let failure = Failure::usage(format!("{}: {fault}", path.display()));
    match fault.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const NODES: &str = "sn,cpu_milli,memory_mib,gpu,model\nn1,8000,1024,1,T4\n";
    const PODS: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\np1,1000,1,1,600\n";

    fn files(nodes: &str, pods: &str, order: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, content) in [("nodes", nodes), ("pods", pods), ("order", order)] {
            fs::write(folder.path().join(name), content).expect("written");
        }
        folder
    }

    fn run(folder: &tempfile::TempDir) -> Outcome {
        let printer = Printer::new(true, true, crate::args::Colour::Never);
        let path = |name: &str| folder.path().join(name);
        replay(
            &printer,
            &path("nodes"),
            &path("pods"),
            &path("order"),
            &path("out"),
        )
    }

    #[test]
    fn a_whole_order_is_decided_into_a_file() {
        let folder = files(NODES, PODS, "p1\np1\n");
        assert_eq!(run(&folder), Ok(exit::DONE));
        let written = fs::read_to_string(folder.path().join("out")).expect("decisions");
        assert_eq!(written, "arrival_index,node,gpus\n0,n1,0:600\n1,,\n");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file_and_what_to_do() {
        let folder = files("sn,cpu_milli\n", PODS, "");
        let failed = run(&folder).expect_err("a column is missing");
        assert!(failed.body.message.contains("nodes has no column"));
        assert_eq!(
            failed.body.hint.as_deref(),
            Some("its columns are sn, cpu_milli")
        );
        let folder = files(NODES, PODS, "p2\n");
        let failed = run(&folder).expect_err("an unknown pod");
        assert!(
            failed
                .body
                .message
                .ends_with("no pod \"p2\" is in the list of pods")
        );
        fs::remove_file(folder.path().join("order")).expect("there");
        let failed = run(&folder).expect_err("a missing file");
        assert_eq!(failed.exit, exit::NOT_FOUND);
    }

    #[test]
    fn a_summary_reads_as_a_sentence() {
        let tally = Tally {
            arrivals: 4,
            refused: 1,
            capacity_milli: 8_000,
            arrived_milli: 8_800,
            allocated_milli: 7_810,
        };
        let millis = Duration::from_millis;
        let summary = Summary::of(tally, millis(120), Duration::from_micros(50));
        assert_eq!(
            summary.text(),
            "4 pods asked for 110 % of 8 GPUs, and 97.63 % are allocated; 1 pods fitted nowhere.\n\
             Prepared in 120 ms, then 12.5 µs a decision."
        );
    }
}
