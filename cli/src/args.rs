//! The command line, as clap types only: no behaviour, no I/O. One file for each noun with much to
//! say. Commands take plain values, never these types.

pub mod admin;
pub mod budgets;
pub mod look;
pub mod run;
pub mod serve;
pub mod simulate;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Heading of the flags that every command has.
const EVERYWHERE: &str = "Everywhere";

const AFTER: &str = "\
Start here:
  platform up                               everything on this machine, no GPU needed: add --devices 2xA100-80G
  platform run --tag team=nlp train.py      run a script on a GPU, watch it, get its exit code
  platform ps                               what runs and what waits
  platform cost --by team                   what it cost

`platform COMMAND --help` has examples. Every command takes --json.";

/// Run machine learning on your own GPUs: submit, watch, register, and see what it cost.
#[derive(Debug, Parser)]
#[command(
    name = "platform",
    version,
    after_help = AFTER,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Where the platform answers [default: what `platform up` or `login` wrote]
    #[arg(long, global = true, env = "PLATFORM_URL", hide_env_values = true, value_name = "URL", help_heading = EVERYWHERE)]
    pub url: Option<String>,
    /// Bearer token [default: what `platform up` or `login` wrote]
    #[arg(long, global = true, env = "PLATFORM_TOKEN", hide_env_values = true, value_name = "TOKEN", help_heading = EVERYWHERE)]
    pub token: Option<String>,
    /// Print JSON for programs: one document, or one line for each event of a stream
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,
    /// Print only what was asked for: no notes, no progress
    #[arg(long, short, global = true, help_heading = EVERYWHERE)]
    pub quiet: bool,
    /// When to use colour; `auto` also respects NO_COLOR
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true, help_heading = EVERYWHERE)]
    pub color: Colour,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Also into a pipe.
    Always,
    /// Not even on a terminal.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a script, a notebook or a command on the platform, and watch it
    #[command(after_help = run::EXAMPLES)]
    Run(Box<run::RunArgs>),
    /// List, show, follow, cancel, explain, compare or wait for runs
    #[command(subcommand)]
    Runs(look::Runs),
    /// What runs and what waits (short for `runs list`)
    Ps(look::RunsList),
    /// Print or follow the log of a run (short for `runs logs`)
    #[command(after_help = look::LOGS_EXAMPLES)]
    Logs(look::RunsLogs),
    /// Stop runs (short for `runs cancel`)
    Stop(look::RunsCancel),
    /// Registered models and their versions
    #[command(subcommand)]
    Models(look::Models),
    /// Files that runs have kept
    #[command(subcommand)]
    Artifacts(look::Artifacts),
    /// What was spent, by team, project, user, model, tenant or run
    #[command(after_help = look::COST_EXAMPLES)]
    Cost(look::Cost),
    /// Send what was tracked while no server was there
    #[command(after_help = look::SYNC_EXAMPLES)]
    Sync(look::Sync),

    /// Start everything on this machine: coordinator, agent and store in one process
    #[command(after_help = serve::UP_EXAMPLES)]
    Up(serve::Up),
    /// Start a coordinator alone
    Coordinator(serve::Coordinator),
    /// Start the agent of this node alone
    #[command(after_help = serve::AGENT_EXAMPLES)]
    Agent(serve::Agent),
    /// The small process that holds workloads while an agent restarts
    #[command(hide = true)]
    Launcher(serve::Launcher),

    /// The machines, their devices, and taking them out of use
    #[command(subcommand)]
    Nodes(admin::Nodes),
    /// Sets of like nodes
    #[command(subcommand)]
    Pools(admin::Pools),
    /// Owners of quota
    #[command(subcommand)]
    Tenants(admin::Tenants),
    /// How many GPUs each tenant is guaranteed in each pool
    #[command(subcommand)]
    Quotas(admin::Quotas),
    /// What tenants and projects may spend, and when that stops new runs
    #[command(subcommand)]
    Budgets(budgets::Budgets),
    /// Required cost tags, GPU-memory caps and prices
    #[command(subcommand)]
    Policy(admin::Policy),

    /// What the scheduler and admission decided, and whether they would again
    #[command(subcommand)]
    Decisions(look::Decisions),
    /// Replay this platform's history, or traces, through its own scheduler
    Simulate(simulate::Simulate),

    /// Who the token belongs to and which platform answers
    Whoami,
    /// Remember a platform and a token, after trying them
    #[command(after_help = admin::LOGIN_EXAMPLES)]
    Login,
    /// Forget the platform and the token
    Logout,
    /// Create, list and revoke tokens
    #[command(subcommand)]
    Tokens(admin::Tokens),

    /// Print the completion script of a shell
    #[command(after_help = admin::COMPLETION_EXAMPLES)]
    Completion(admin::Completion),
    /// Print docs/reference/cli.md
    #[command(hide = true)]
    Reference,
}
