//! Flags of the commands for those who look after the platform: nodes, pools, tenants, quotas,
//! policy, tokens.

use crate::{parse, priorities};
use clap::{Args, Subcommand};
use platform_proto::http::PriorityClassView;

/// Shown below the help of `login`.
pub const LOGIN_EXAMPLES: &str = "\
Example:
  platform login --url http://127.0.0.1:7477 --token TOKEN
  platform login --url http://127.0.0.1:7477 < token.txt     keeps it out of the shell's history";

/// Shown below the help of `completion`.
pub const COMPLETION_EXAMPLES: &str = "\
Examples:
  platform completion bash > ~/.local/share/bash-completion/completions/platform
  platform completion zsh > ~/.zfunc/_platform
  platform completion fish > ~/.config/fish/completions/platform.fish";

/// `platform nodes`.
#[derive(Debug, Subcommand)]
pub enum Nodes {
    /// Every node, its devices and their use
    List,
    /// One node in full
    Show {
        /// Node
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Start nothing new there; what runs goes on
    Cordon(NodeChange),
    /// Use it again
    Uncordon(NodeChange),
    /// Start nothing new there, and stop what still runs at the deadline
    #[command(after_help = "\
Examples:
  platform nodes drain node-7 --dry-run                     which runs it would stop
  platform nodes drain node-7 --deadline 2h --reason \"new driver\"")]
    Drain {
        /// The change.
        #[command(flatten)]
        change: NodeChange,
        /// How long runs may still finish
        #[arg(long, value_name = "TIME", value_parser = parse::duration_ms, default_value = "1h")]
        deadline: u64,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// What each change of a node takes.
#[derive(Debug, Args)]
pub struct NodeChange {
    /// Node
    #[arg(value_name = "NODE")]
    pub node: String,
    /// Why, for the audit and whoever comes next
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Say what would happen, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `platform pools`.
#[derive(Debug, Subcommand)]
pub enum Pools {
    /// Every pool, its devices and their use
    List,
    /// One pool in full
    Show {
        /// Pool
        #[arg(value_name = "POOL")]
        pool: String,
    },
    /// Make a pool; nodes join it with `platform agent --pool`
    Create {
        /// Pool
        #[arg(value_name = "POOL")]
        pool: String,
        /// Its settings.
        #[command(flatten)]
        settings: PoolSettings,
    },
    /// Change a pool; what is not named stays
    #[command(
        group = clap::ArgGroup::new("settings").args(["description", "order", "age_bound"]).required(true).multiple(true),
        after_help = "\
Examples:
  platform pools set a100 --description \"eight nodes in hall 2\"
  platform pools set a100 --order shortest-predicted --age-bound 12h
  platform pools set a100 --order fifo"
    )]
    Set {
        /// Pool
        #[arg(value_name = "POOL")]
        pool: String,
        /// Its settings.
        #[command(flatten)]
        settings: PoolSettings,
    },
}

/// What a pool is given.
#[derive(Debug, Args)]
pub struct PoolSettings {
    /// For people
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Which of a tenant's waiting runs of one priority goes first [default: fifo]
    #[arg(long, value_name = "ORDER", value_parser = ["fifo", "shortest-predicted", "least-attained"])]
    pub order: Option<String>,
    /// How long a run may wait before it goes first whatever the order [default: 1d]
    #[arg(long, value_name = "TIME", value_parser = parse::duration_ms)]
    pub age_bound: Option<u64>,
}

/// `platform tenants`.
#[derive(Debug, Subcommand)]
pub enum Tenants {
    /// Every tenant and its live runs
    List,
    /// One tenant and its quotas
    Show {
        /// Tenant
        #[arg(value_name = "TENANT")]
        tenant: String,
    },
    /// Make a tenant
    Create {
        /// Lower-case letters, digits, `-`, `_`, `.`
        #[arg(value_name = "TENANT")]
        tenant: String,
        /// Tenant above it: what this one holds counts for that one too
        #[arg(long, value_name = "TENANT")]
        parent: Option<String>,
        /// Its part of what nobody is guaranteed, beside its siblings [default: 1]
        #[arg(long, value_name = "N")]
        weight: Option<u32>,
    },
    /// Move a tenant in the tree, or weigh it anew
    #[command(after_help = "\
Examples:
  platform tenants set nlp --parent research
  platform tenants set nlp --weight 3 --dry-run
  platform tenants set nlp --top")]
    Set {
        /// Tenant
        #[arg(value_name = "TENANT")]
        tenant: String,
        /// Tenant above it
        #[arg(long, value_name = "TENANT", required_unless_present_any = ["top", "weight"])]
        parent: Option<String>,
        /// To the top of the tree
        #[arg(long, conflicts_with = "parent")]
        top: bool,
        /// Its part of what nobody is guaranteed, beside its siblings
        #[arg(long, value_name = "N")]
        weight: Option<u32>,
        /// Say what would happen, change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// `platform quotas`.
#[derive(Debug, Subcommand)]
pub enum Quotas {
    /// Every quota, what is used of it and what waits for it
    List,
    /// What is guaranteed, used, borrowed, lent and waited for; of one tenant or all
    Show {
        /// Tenant
        #[arg(value_name = "TENANT")]
        tenant: Option<String>,
    },
    /// Guarantee GPUs to a tenant, say how far it may borrow and what it lends
    #[command(after_help = "\
Examples:
  platform quotas set nlp --gpus 8                        8 guaranteed, more while others leave it idle
  platform quotas set nlp --pool a100 --gpus 64 --limit 96 --lend 32
  platform quotas set nlp --model A100-80G --gpus 32      of these 64, and of this model
  platform quotas set nlp --gpus 2.5 --dry-run            who would have to give back
  platform quotas set nlp --remove")]
    Set {
        /// Tenant
        #[arg(value_name = "TENANT")]
        tenant: String,
        /// Pool
        #[arg(long, value_name = "POOL", default_value = "default")]
        pool: String,
        /// GPU model, by its full name: a line beside the one over all models [default: over all]
        #[arg(long, value_name = "MODEL")]
        model: Option<String>,
        /// Guaranteed GPUs, in parts where need be: 8, 2.5
        #[arg(long, value_name = "N", value_parser = parse::gpus_milli, required_unless_present = "remove", conflicts_with = "remove")]
        gpus: Option<u64>,
        /// Most GPUs with what it borrows [default: whatever is idle]
        #[arg(long, value_name = "N", value_parser = parse::gpus_milli, conflicts_with = "remove")]
        limit: Option<u64>,
        /// Most of its idle GPUs that others may use [default: all of them]
        #[arg(long, value_name = "N", value_parser = parse::gpus_milli, conflicts_with = "remove")]
        lend: Option<u64>,
        /// Take the line away: nothing is guaranteed and nothing limits it
        #[arg(long)]
        remove: bool,
        /// Say what would happen, change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// `platform policy`.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// The policy in force
    Show,
    /// Change the policy; what is not named stays
    #[command(after_help = "\
Examples:
  platform policy set --require-tag team=nlp,vision --tag-mode enforce
  platform policy set --gpu-memory-cap 'bert*=20G' --price A100-80G=2.50 --currency EUR
  platform policy set --price A100-80G=2.75 --from 2027-01-01
  platform policy set --priority-class urgent=100:role=tenant-admin --no-priority-class low
  platform policy set --no-price A100-80G --dry-run")]
    Set(Box<PolicySet>),
}

/// `platform policy set`.
#[derive(Debug, Args)]
pub struct PolicySet {
    /// Require a cost tag, with the values it may have: team, team=nlp,vision
    #[arg(long = "require-tag", value_name = "KEY[=VALUES]", value_parser = parse::tag_rule)]
    pub require_tags: Vec<(String, Vec<String>)>,
    /// Require a cost tag no longer
    #[arg(long = "no-require-tag", value_name = "KEY")]
    pub no_require_tags: Vec<String>,
    /// What a missing tag does
    #[arg(long, value_name = "MODE", value_parser = ["off", "warn", "enforce"])]
    pub tag_mode: Option<String>,
    /// Most GPU memory on a device for a model: bert=20G, 'bert*=20G'
    #[arg(long = "gpu-memory-cap", value_name = "MODEL=SIZE", value_parser = parse::model_size)]
    pub caps: Vec<(String, u64)>,
    /// Take a cap away
    #[arg(long = "no-gpu-memory-cap", value_name = "MODEL")]
    pub no_caps: Vec<String>,
    /// Most GPU memory that all runs of a model hold together: 'bert*=160G'
    #[arg(long = "gpu-memory-cap-sum", value_name = "MODEL=SIZE", value_parser = parse::model_size)]
    pub cap_sums: Vec<(String, u64)>,
    /// Take a cap in sum away
    #[arg(long = "no-gpu-memory-cap-sum", value_name = "MODEL")]
    pub no_cap_sums: Vec<String>,
    /// Price of a GPU-hour by GPU model: A100-80G=2.50
    #[arg(long = "price", value_name = "GPU=MONEY", value_parser = parse::model_money)]
    pub prices: Vec<(String, u64)>,
    /// Take a price away: the default price is used
    #[arg(long = "no-price", value_name = "GPU")]
    pub no_prices: Vec<String>,
    /// When --price comes into effect, or which one --no-price takes back: 2027-01-01 is that day's
    /// beginning in UTC [default: now]
    #[arg(long, value_name = "WHEN", value_parser = parse::utc_moment_us, conflicts_with = "default_price")]
    pub from: Option<u64>,
    /// Price of a GPU-hour of every other GPU model
    #[arg(long, value_name = "MONEY", value_parser = parse::money_micro)]
    pub default_price: Option<u64>,
    /// Currency of every price
    #[arg(long, value_name = "CODE")]
    pub currency: Option<String>,
    /// How long a run is left alone before it may be stopped for another: 30s
    #[arg(long, value_name = "TIME", value_parser = parse::duration_ms)]
    pub minimum_run: Option<u64>,
    /// After how long what a tenant held counts half as much in its turns: 24h; 0s: only what it
    /// holds now counts
    #[arg(long, value_name = "TIME", value_parser = parse::duration_ms)]
    pub fair_share_half_life: Option<u64>,
    /// How long a run may find no room in its turn before devices are kept for it: 5m
    #[arg(long, value_name = "TIME", value_parser = parse::duration_ms)]
    pub reservation_after: Option<u64>,
    /// GPUs are idle while they are used less than this, in percent, on average: 5
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=50))]
    pub idle_below: Option<u32>,
    /// How long all GPUs of a run idle until it is warned: 30m, or off
    #[arg(long, value_name = "TIME", value_parser = parse::wait)]
    pub idle_warn_after: Option<parse::Wait>,
    /// How long they idle until it is stopped: 2h, or off
    #[arg(long, value_name = "TIME", value_parser = parse::wait)]
    pub idle_stop_after: Option<parse::Wait>,
    /// The longest that one `platform runs justify` holds: 24h
    #[arg(long, value_name = "TIME", value_parser = parse::duration_ms)]
    pub longest_justification: Option<u64>,
    /// How long a run waits after a failure before it is tried again, doubled with each: 5s
    #[arg(long, value_name = "TIME", value_parser = parse::duration_ms)]
    pub retry_wait: Option<u64>,
    /// The longest that a run waits before it is tried again: 5m
    #[arg(long, value_name = "TIME", value_parser = parse::duration_ms)]
    pub retry_wait_longest: Option<u64>,
    /// Name a priority, and say who may use it and every number down to the next class: high=50,
    /// urgent=100:role=tenant-admin, burst=80:tenants=nlp,vision, patient=20:preempts=no
    #[arg(long = "priority-class", value_name = "NAME=N[:...]", value_parser = priorities::class)]
    pub priority_classes: Vec<(String, PriorityClassView)>,
    /// Take a priority class away; its runs keep the priority that they have
    #[arg(long = "no-priority-class", value_name = "NAME")]
    pub no_priority_classes: Vec<String>,
    /// Refuse when the policy is no longer at this version
    #[arg(long, value_name = "N")]
    pub version: Option<u64>,
    /// Print the policy as it would be, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `platform tokens`.
#[derive(Debug, Subcommand)]
pub enum Tokens {
    /// Every token, without its secret
    List,
    /// Make a token; its secret is shown this once
    #[command(after_help = "\
Examples:
  platform tokens create --user ada --tenant nlp
  platform tokens create --user ci --tenant nlp --role member --ttl 365d --quiet > token.txt")]
    Create {
        /// User it speaks for
        #[arg(long, value_name = "USER")]
        user: String,
        /// Tenant whose quota it uses
        #[arg(long, value_name = "TENANT", default_value = "default")]
        tenant: String,
        /// What it may do
        #[arg(long, value_name = "ROLE", default_value = "member", value_parser = ["viewer", "member", "tenant-admin", "platform-admin", "agent"])]
        role: String,
        /// How long it holds [default: 90d]
        #[arg(long, value_name = "TIME", value_parser = parse::duration_ms)]
        ttl: Option<u64>,
    },
    /// End a token now
    Revoke {
        /// Id, as `platform tokens list` shows it
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// `platform completion`.
#[derive(Debug, Args)]
pub struct Completion {
    /// Shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}
