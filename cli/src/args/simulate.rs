//! Arguments of `platform simulate`: traces replayed through the coordinator's own core.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `platform simulate`.
#[derive(Debug, Subcommand)]
pub enum Simulate {
    /// Fill a cluster with the pods of a trace, one arrival after another
    #[command(after_help = PLACEMENT_EXAMPLES)]
    Placement(Placement),
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
