//! Flags of `platform budgets`.

use crate::parse;
use clap::{Args, Subcommand};

/// `platform budgets`.
#[derive(Debug, Subcommand)]
pub enum Budgets {
    /// Every budget: what is spent, what it comes to, when it will be reached
    List,
    /// One budget in full
    Show {
        /// Budget
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Make a budget, or change one; what is not named stays
    #[command(after_help = "\
Examples:
  platform budgets set nlp-month --tenant nlp --amount 5000 --stop
  platform budgets set atlas --tag project=atlas --amount 20000 --period quarter --warn-at 70
  platform budgets set nlp-month --amount 6000 --dry-run      which waiting runs it would hold back")]
    Set(Box<BudgetSet>),
    /// Remove a budget: nothing is counted and nobody is stopped by it any more
    Remove {
        /// Budget
        #[arg(value_name = "NAME")]
        name: String,
        /// Say what would be removed, change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// `platform budgets set`.
#[derive(Debug, Args)]
pub struct BudgetSet {
    /// Budget
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Tenant whose spending counts, with all below it
    #[arg(long, value_name = "TENANT", conflicts_with = "tag")]
    pub tenant: Option<String>,
    /// Cost tag whose runs' spending counts: project=atlas
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::tag)]
    pub tag: Option<(String, String)>,
    /// What may be spent in a period, in the policy's currency
    #[arg(long, value_name = "MONEY", value_parser = parse::money_micro)]
    pub amount: Option<u64>,
    /// Period of the UTC calendar; once: from now on, without end [default: month]
    #[arg(long, value_name = "PERIOD", value_parser = ["week", "month", "quarter", "once"])]
    pub period: Option<String>,
    /// Warn from this much of the amount on, in percent [default: 80]
    #[arg(long, value_name = "PERCENT")]
    pub warn_at: Option<u32>,
    /// Start no run once it is spent; what runs goes on
    #[arg(long, overrides_with = "no_stop")]
    pub stop: bool,
    /// Warn, and start runs all the same
    #[arg(long)]
    pub no_stop: bool,
    /// Say what is spent and which waiting runs it would hold back, change nothing
    #[arg(long)]
    pub dry_run: bool,
}
