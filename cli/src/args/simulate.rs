//! Arguments of `platform simulate`: a platform's own history, and traces, replayed through the
//! coordinator's own core.

use crate::parse;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

const HISTORY_EXAMPLES: &str = "\
With --history, what happened is shown beside a replay with today's quotas and, with --quotas, one with
those proposed. The replay runs here, not on the coordinator. The file is TOML:
  [[quota]]                      # a line in place of the one that the tenant has in the pool
  tenant = \"nlp\"
  pool = \"default\"
  gpus = 64                      # and, as in `platform quotas set`: limit, lend
  [[tenant]]
  name = \"nlp\"
  weight = 2
  [[pool]]
  name = \"default\"
  order = \"shortest-predicted\"  # and: age_bound = \"24h\"
  [policy]
  minimum_run = \"30s\"            # and: reservation_after, fair_share_half_life

Examples:
  platform simulate --history 30d
  platform simulate --history 30d --quotas proposed.toml --json";

/// `platform simulate`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true, after_help = HISTORY_EXAMPLES)]
pub struct Simulate {
    /// A trace in place of the history
    #[command(subcommand)]
    pub trace: Option<Trace>,
    /// Replay what this platform has seen since then: 30d, 12h, 2026-11-01
    #[arg(long, value_name = "WHEN", value_parser = parse::moment_text)]
    pub history: Option<String>,
    /// Quotas and settings to replay it with, beside today's: TOML
    #[arg(long, value_name = "FILE", requires = "history")]
    pub quotas: Option<PathBuf>,
}

/// What `platform simulate` replays in place of a history.
#[derive(Debug, Subcommand)]
pub enum Trace {
    /// Fill a cluster with the pods of a trace, one arrival after another
    #[command(after_help = PLACEMENT_EXAMPLES)]
    Placement(Placement),
    /// Who would wait how long: replay a trace of runs through the scheduler's queueing policy
    #[command(after_help = QUEUE_EXAMPLES)]
    Queue(Queue),
}

const PLACEMENT_EXAMPLES: &str = "\
Without --order, each line `<index>,<pod name>` on standard input is answered at once with a line
`<node>,<gpu>:<thousandths>|...`; a lone comma is a refusal. With --order and --out, a whole order is
decided. Needs no server: the policy is the coordinator's own, and all it knows beforehand are the
nodes and the list of pods.

Examples:
  platform simulate placement --nodes nodes.csv --pods pods.csv --order order.txt --out decisions.csv
  echo 0,openb-pod-0017 | platform simulate placement --nodes nodes.csv --pods pods.csv";

/// `platform simulate placement`.
#[derive(Debug, Args)]
pub struct Placement {
    /// Nodes, as CSV with the columns sn, cpu_milli, memory_mib, gpu, model
    #[arg(long, value_name = "FILE")]
    pub nodes: PathBuf,
    /// Pods, as CSV with name, cpu_milli, memory_mib, num_gpu, gpu_milli and, if need be, gpu_spec
    #[arg(long, value_name = "FILE")]
    pub pods: PathBuf,
    /// Arrivals, one pod name on each line [default: standard input, one at a time]
    #[arg(long, value_name = "FILE", requires = "out")]
    pub order: Option<PathBuf>,
    /// Where the decisions of --order go, as CSV
    #[arg(long, value_name = "FILE", requires = "order")]
    pub out: Option<PathBuf>,
}

const QUEUE_EXAMPLES: &str = "\
The trace is CSV with the columns job_id,submit,tenant,gpus,duration and optionally user,name,pred;
times in seconds. Durations are known to the policy only once a run has ended. The cluster is JSON:
  {\"mode\": \"shared\", \"nodes\": [{\"prefix\": \"n\", \"count\": 176, \"gpus\": 8}],
   \"tenants\": {\"nlp\": {\"quota\": 256}}, \"preempt_overhead\": {\"1\": 7, \"8\": 30, \"inf\": 60}}
In the mode \"partition\" each entry of nodes names its tenant, and nobody borrows.

Examples:
  platform simulate queue --jobs jobs.csv.gz --cluster cluster.json --out schedule.csv
  platform simulate queue --jobs jobs.csv --cluster cluster.json --out schedule.csv --history before.csv --json";

/// `platform simulate queue`.
#[derive(Debug, Args)]
pub struct Queue {
    /// Runs to schedule: CSV, gzipped or not
    #[arg(long, value_name = "FILE")]
    pub jobs: PathBuf,
    /// Nodes, tenants' quotas and the cost of a preemption: JSON
    #[arg(long, value_name = "FILE")]
    pub cluster: PathBuf,
    /// Where to write the schedule: CSV, one row for each spell of a run on its nodes
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Runs that ended before, to predict durations from: CSV like the trace, gzipped or not
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// Which policy decides
    #[arg(long, value_name = "NAME", default_value = "standard")]
    pub policy: Policy,
}

/// Which policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// What this platform schedules by
    Standard,
    /// Two levels of least-attained service, to compare with
    LeastAttained,
}
