//! Flags of `platform run`.

use crate::commands::run::sweep;
use crate::{parse, priorities};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Shown below the help.
pub const EXAMPLES: &str = "\
Examples:
  platform run --tag team=nlp train.py --epochs 3         a script; what follows it is its own
  platform run --tag team=nlp notebook.ipynb              a notebook, executed as it is
  platform run --gpus 2 --tag team=nlp -- torchrun --nproc-per-node 2 train.py
  platform run --gpu-fraction 0.5 --gpu-memory 20G --tag team=nlp train.py
  platform run --after run-17 --tag team=nlp evaluate.py  starts once run-17 has succeeded
  platform run --array 0-99%8 --tag team=nlp train.py     a hundred runs, eight at once
  platform run --sweep lr=0.1,0.01 --sweep depth=2..6 --tag team=nlp train.py --lr {lr} --depth {depth}
  platform run --dry-run train.py                         the plan and the price, nothing submitted
  platform run --dev train.py                             here and now, without the platform

Defaults can stand in platform.toml beside the script, under the same names (gpu_fraction = 0.5) and
the tables [tags] and [env]; flags win. .gitignore and .platformignore say what is not uploaded.
Exits with the workload's own exit code. Ctrl-C detaches: the run goes on.";

const DEVICES: &str = "Devices";
const PLACE: &str = "Place and order";
const COST: &str = "Cost";
const WORKLOAD: &str = "Workload";
const MANY: &str = "Many at once";
const FOLDER: &str = "Folder";
const HOW: &str = "How to run";

/// How the values of several sweeps are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SweepMode {
    /// Every combination.
    Grid,
    /// Some, drawn.
    Random,
}

/// Flags of `platform run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// script.py [ARGS], notebook.ipynb, or -- PROGRAM [ARGS] [default: train.py, or the only script]
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub command: Vec<String>,

    /// Whole GPUs for each node [default: 1 where the pool has GPUs]
    #[arg(long, value_name = "N", conflicts_with = "gpu_fraction", help_heading = DEVICES)]
    pub gpus: Option<u32>,
    /// A part of one GPU, 0.01 to 0.99
    #[arg(long, value_name = "PART", value_parser = parse::gpu_fraction_milli, help_heading = DEVICES)]
    pub gpu_fraction: Option<u32>,
    /// Cap on GPU memory for each device: 20G, 512M
    #[arg(long, value_name = "SIZE", value_parser = parse::size_mib, help_heading = DEVICES)]
    pub gpu_memory: Option<u64>,
    /// GPU model, as `platform nodes list` shows it
    #[arg(long, value_name = "MODEL", help_heading = DEVICES)]
    pub gpu_model: Option<String>,
    /// Nodes that start together or not at all [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = DEVICES)]
    pub nodes: Option<u32>,
    /// CPUs to reserve on each node: 4, 0.5
    #[arg(long, value_name = "N", value_parser = parse::cpus_milli, help_heading = DEVICES)]
    pub cpus: Option<u64>,
    /// Memory to reserve on each node: 16G
    #[arg(long, value_name = "SIZE", value_parser = parse::size_mib, help_heading = DEVICES)]
    pub memory: Option<u64>,

    /// Pool [default: the server's default pool]
    #[arg(long, value_name = "POOL", help_heading = PLACE)]
    pub pool: Option<String>,
    /// Higher starts first: low, normal, high or another class of the policy, or -100 to 100
    #[arg(long, value_name = "CLASS|N", allow_negative_numbers = true, value_parser = priorities::priority, help_heading = PLACE)]
    pub priority: Option<priorities::Priority>,
    /// Never stop it for another run; then it borrows no idle quota either
    #[arg(long, help_heading = PLACE)]
    pub no_preempt: bool,
    /// Give it up when it has not started by then, from now: 2h
    #[arg(long, value_name = "TIME", value_parser = parse::duration_ms, help_heading = PLACE)]
    pub start_within: Option<u64>,
    /// Start once RUN has succeeded, or with RUN:any once it has ended; repeatable
    #[arg(long = "after", value_name = "RUN[:ok|:any]", value_parser = parse::dependency, conflicts_with = "dev", help_heading = PLACE)]
    pub after: Vec<String>,
    /// Put the nodes of a gang into as many racks as there are, instead of into as few
    #[arg(long, help_heading = PLACE)]
    pub spread: bool,
    /// Tenant to charge [default: yours]
    #[arg(long, value_name = "TENANT", help_heading = PLACE)]
    pub tenant: Option<String>,

    /// Cost tag, repeatable: --tag team=nlp --tag project=search
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag, help_heading = COST)]
    pub tags: Vec<(String, String)>,
    /// Name of the model this run is for: caps and cost by model
    #[arg(long, value_name = "NAME", help_heading = COST)]
    pub model: Option<String>,

    /// Name for people [default: the script and its folder]
    #[arg(long, value_name = "NAME", help_heading = WORKLOAD)]
    pub name: Option<String>,
    /// Environment variable, repeatable
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = parse::environment, help_heading = WORKLOAD)]
    pub environment: Vec<(String, String)>,
    /// Longest time to run: 2h, 90m
    #[arg(long, value_name = "TIME", value_parser = parse::duration_ms, help_heading = WORKLOAD)]
    pub time_limit: Option<u64>,
    /// Signal to send that long before the time limit, so that it can save: 5m, 5m:SIGUSR2
    #[arg(long, value_name = "TIME[:SIGNAL]", value_parser = parse::warning, help_heading = WORKLOAD)]
    pub warn_before: Option<(u64, String)>,
    /// How often to try again when it fails
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100), help_heading = WORKLOAD)]
    pub retries: Option<u32>,
    /// Container image to run in [default: none, the node's own Python]
    #[arg(long, value_name = "IMAGE", help_heading = WORKLOAD)]
    pub image: Option<String>,
    /// Requirements file within the folder [default: requirements.txt where there is one]
    #[arg(long, value_name = "FILE", conflicts_with = "no_requirements", help_heading = WORKLOAD)]
    pub requirements: Option<String>,
    /// Install nothing, even where there is a requirements.txt
    #[arg(long, help_heading = WORKLOAD)]
    pub no_requirements: bool,

    /// Many runs of it: 0-99, 0-99%8 (8 at once), 1,3,7 or 0-10:2
    #[arg(long, value_name = "INDEXES[%N]", conflicts_with_all = ["sweeps", "dev"], help_heading = MANY)]
    pub array: Option<String>,
    /// A run for each value, repeatable: lr=0.1,0.01 or depth=2..6; {lr} in the command is filled in
    #[arg(long = "sweep", value_name = "NAME=VALUES", value_parser = sweep::parse, conflicts_with = "dev", help_heading = MANY)]
    pub sweeps: Vec<(String, sweep::Values)>,
    /// Every combination of the values, or some drawn [default: grid]
    #[arg(long, value_name = "MODE", requires = "sweeps", help_heading = MANY)]
    pub sweep_mode: Option<SweepMode>,
    /// How many a random sweep draws
    #[arg(long, value_name = "N", requires = "sweeps", help_heading = MANY)]
    pub samples: Option<u32>,
    /// Draw the same ones again [default: fresh, and told]
    #[arg(long, value_name = "N", requires = "sweeps", help_heading = MANY)]
    pub seed: Option<u64>,
    /// How many of a sweep run at once [default: all]
    #[arg(long, value_name = "N", requires = "sweeps", help_heading = MANY)]
    pub at_most: Option<u32>,

    /// Folder to pack and run in
    #[arg(long, short = 'C', value_name = "DIR", default_value = ".", help_heading = FOLDER)]
    pub folder: PathBuf,
    /// Largest folder to upload, before compression [default: 500M]
    #[arg(long, value_name = "SIZE", value_parser = parse::size_bytes, help_heading = FOLDER)]
    pub max_upload: Option<u64>,

    /// Print the run's id and return; come back with `platform logs -f RUN`
    #[arg(long, short, help_heading = HOW)]
    pub detach: bool,
    /// Print the plan, submit nothing
    #[arg(long, conflicts_with_all = ["detach", "dev"], help_heading = HOW)]
    pub dry_run: bool,
    /// Run here and now without the platform, with the same environment variables
    #[arg(long, conflicts_with = "detach", help_heading = HOW)]
    pub dev: bool,
}
