//! Flags of the commands that look at runs and at what they leave: log, metrics, models, files, cost.

use crate::parse;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Shown below the help of `logs`.
pub const LOGS_EXAMPLES: &str = "\
Examples:
  platform logs run-17             what it has written until now
  platform logs -f run-17          and what it writes from here on; exits with its exit code
  platform logs run-17 > run.log   exactly the bytes, less terminal escapes (--raw keeps those too)";

/// Shown below the help of `cost`.
pub const COST_EXAMPLES: &str = "\
Examples:
  platform cost                                 the last 30 days by team
  platform cost --by project --since 7d
  platform cost --by run --since 2026-11-01 --until 2026-12-01 --format csv > november.csv";

/// Shown below the help of `sync`.
pub const SYNC_EXAMPLES: &str = "\
A training run that could not reach its platform keeps its metrics, files and models under
$PLATFORM_HOME/spool. `platform sync` sends them. Sending twice stores nothing twice.";

/// `platform runs`.
#[derive(Debug, Subcommand)]
pub enum Runs {
    /// What runs, what waits and what has ended, newest first
    List(RunsList),
    /// All about one run: plan, devices, metrics, files, cost
    Show {
        /// Run or array: run-17, or 17, array-17
        #[arg(value_name = "RUN", value_parser = parse::run_or_array)]
        run: String,
    },
    /// Print or follow the log of a run
    #[command(after_help = LOGS_EXAMPLES)]
    Logs(RunsLogs),
    /// Stop runs; more than one wants --yes or a confirmation
    Cancel(RunsCancel),
    /// Say why the GPUs of a run may idle, so that it is not stopped for that
    Justify(RunsJustify),
    /// Why a run waits, for whom and until when, and what would start it now
    Explain {
        /// Run: run-17, or 17
        #[arg(value_name = "RUN", value_parser = parse::run_id)]
        run: String,
    },
    /// What was decided about a run, in order: what it waited for, what it was given, whom it displaced
    Decisions {
        /// Run: run-17, or 17
        #[arg(value_name = "RUN", value_parser = parse::run_id)]
        run: String,
    },
    /// Parameters, metrics and cost of several runs side by side
    Compare {
        /// Runs, at least two
        #[arg(value_name = "RUN", value_parser = parse::run_id, num_args = 2.., required = true)]
        runs: Vec<String>,
    },
    /// Wait until runs have ended; exits with the first exit code that is not 0
    Wait {
        /// Runs and arrays
        #[arg(value_name = "RUN", value_parser = parse::run_or_array, required = true)]
        runs: Vec<String>,
        /// Give up after so long, with exit code 6
        #[arg(long, value_name = "TIME", value_parser = parse::duration_ms)]
        timeout: Option<u64>,
    },
}

/// `platform runs list`.
#[derive(Debug, Args)]
pub struct RunsList {
    /// Only these states: queued, running, failed, …
    #[arg(long, value_name = "STATE", value_parser = RUN_STATES)]
    pub state: Option<String>,
    /// Only this user's
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Only this tenant's
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// Only with this tag
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::tag)]
    pub tag: Option<(String, String)>,
    /// The runs of this array, which is one line otherwise
    #[arg(long, value_name = "ARRAY", value_parser = parse::array_id)]
    pub array: Option<String>,
    /// How many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Only older than this run; the page before ends by naming it
    #[arg(long, value_name = "RUN")]
    pub before: Option<String>,
    /// What the SDK tracked, notebooks and laptops included
    #[arg(long, conflicts_with_all = ["state", "user", "tenant", "tag", "array"])]
    pub tracked: bool,
}

/// States that `runs list --state` takes.
const RUN_STATES: [&str; 9] = [
    "held",
    "queued",
    "assigned",
    "preparing",
    "running",
    "stopping",
    "succeeded",
    "failed",
    "cancelled",
];

/// `platform runs logs`.
#[derive(Debug, Args)]
pub struct RunsLogs {
    /// Run: run-17, or 17
    #[arg(value_name = "RUN", value_parser = parse::run_id)]
    pub run: String,
    /// Go on until the run ends; exits with its exit code
    #[arg(long, short)]
    pub follow: bool,
    /// Which try [default: the last]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: Option<u32>,
    /// Which member of the gang
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    pub member: u32,
    /// Keep terminal escapes as the workload wrote them
    #[arg(long)]
    pub raw: bool,
}

/// `platform runs cancel`.
#[derive(Debug, Args)]
pub struct RunsCancel {
    /// Runs and arrays
    #[arg(value_name = "RUN", value_parser = parse::run_or_array, required = true)]
    pub runs: Vec<String>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// Say what would be stopped, stop nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `platform decisions`.
#[derive(Debug, Subcommand)]
pub enum Decisions {
    /// The newest decisions about the tenant's runs; for a platform administrator, about all
    List {
        /// How many
        #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
        limit: u32,
    },
    /// Decide again what was decided, from the log, and say whether it comes out alike
    Replay {
        /// Decision, as `platform runs decisions` numbers it
        #[arg(value_name = "ID")]
        id: u64,
    },
}

/// `platform runs justify`.
#[derive(Debug, Args)]
pub struct RunsJustify {
    /// Run: run-17, or 17
    #[arg(value_name = "RUN", value_parser = parse::run_id)]
    pub run: String,
    /// Why, for its owner, the tenant and the audit
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// For how long from now [default: as long as the policy lets one]
    #[arg(long = "for", value_name = "TIME", value_parser = parse::duration_ms)]
    pub for_ms: Option<u64>,
    /// Say until when it would hold, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `platform models`.
#[derive(Debug, Subcommand)]
pub enum Models {
    /// Registered models with their newest version
    List,
    /// Every version of a model, its framework, run and files
    Show {
        /// Model
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// `platform artifacts`.
#[derive(Debug, Subcommand)]
pub enum Artifacts {
    /// Files that a run kept
    List {
        /// Run: run-17, or 17
        #[arg(value_name = "RUN", value_parser = parse::run_id)]
        run: String,
    },
    /// Fetch one file, or all of a run's
    #[command(after_help = "\
Examples:
  platform artifacts download run-17                       all of them, into ./run-17
  platform artifacts download run-17 plots/loss.png        one, into ./run-17/plots/loss.png
  platform artifacts download run-17 plots --to figures    a folder of them, into ./figures/plots")]
    Download {
        /// Run: run-17, or 17
        #[arg(value_name = "RUN", value_parser = parse::run_id)]
        run: String,
        /// File or folder [default: all]
        #[arg(value_name = "PATH")]
        path: Option<String>,
        /// Where to put them [default: a folder named after the run]
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
}

/// `platform cost`.
#[derive(Debug, Args)]
pub struct Cost {
    /// tenant, team, project, user, model, run, or any tag key
    #[arg(long, value_name = "KEY", default_value = "team")]
    pub by: String,
    /// From when: 7d, 12h, 2026-11-01
    #[arg(long, value_name = "WHEN", default_value = "30d", value_parser = parse::moment_text)]
    pub since: String,
    /// Until when [default: now]
    #[arg(long, value_name = "WHEN", value_parser = parse::moment_text)]
    pub until: Option<String>,
    /// How to print it
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: CostFormat,
}

/// How to print a cost report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CostFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For spreadsheets.
    Csv,
}

/// `platform sync`.
#[derive(Debug, Args)]
pub struct Sync {
    /// Spool to send [default: $PLATFORM_SPOOL, else $PLATFORM_HOME/spool]
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// Only this run's
    #[arg(long, value_name = "RUN", value_parser = parse::run_id)]
    pub run: Option<String>,
    /// Say what is left to send, send nothing
    #[arg(long)]
    pub dry_run: bool,
}
