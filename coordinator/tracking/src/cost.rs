//! What was held and what it cost, grouped: exact sums of ledger rows, clipped to a window.
//!
//! Pure. Rows of the store and rows that only the replicated state knows (allocations still open,
//! records not exported yet) are folded by the same code, so that a report is one number, not two.

use coordinator_core::model::LedgerRow;
use std::collections::{BTreeMap, BTreeSet};

/// What a cost report groups by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CostBy {
    /// Who is charged.
    Tenant,
    /// Who submitted.
    User,
    /// Model the run is for.
    Model,
    /// The run.
    Run,
    /// Value of a cost tag.
    Tag(String),
}

impl CostBy {
    /// `tenant`, `user`, `model`, `run`, else the key of a cost tag.
    pub fn new(by: &str) -> Self {
        match by {
            "tenant" => Self::Tenant,
            "user" => Self::User,
            "model" => Self::Model,
            "run" => Self::Run,
            tag => Self::Tag(tag.to_owned()),
        }
    }

    fn key(&self, row: &LedgerRow) -> String {
        match self {
            Self::Tenant => row.tenant.to_string(),
            Self::User => row.user.to_string(),
            Self::Model => row.model.clone().unwrap_or_default(),
            Self::Run => row.run.to_string(),
            Self::Tag(tag) => row.tags.get(tag).cloned().unwrap_or_default(),
        }
    }
}

/// One group, or the whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CostTotal {
    /// Value of what is grouped by; empty: none given.
    pub key: String,
    /// Different runs that held something.
    pub runs: u64,
    /// Thousandths of a GPU times microseconds. Exact.
    pub gpu_milli_us: u128,
    /// Millionths of the currency: each row rounded down, then summed.
    pub cost_micro: u128,
}

#[derive(Debug, Clone, Default)]
struct Group {
    runs: BTreeSet<u64>,
    gpu_milli_us: u128,
    cost_micro: u128,
}

impl Group {
    fn add(&mut self, row: &LedgerRow) {
        self.runs.insert(row.run.0);
        // A u128 of milli-microseconds holds the whole life of 10^15 devices.
        self.gpu_milli_us = self.gpu_milli_us.saturating_add(row.gpu_milli_us());
        self.cost_micro = self.cost_micro.saturating_add(u128::from(row.cost_micro()));
    }

    fn total(&self, key: &str) -> CostTotal {
        CostTotal {
            key: key.to_owned(),
            runs: self.runs.len() as u64,
            gpu_milli_us: self.gpu_milli_us,
            cost_micro: self.cost_micro,
        }
    }
}

/// A cost report under way: rows are added, then it is read.
#[derive(Debug, Clone)]
pub struct CostReport {
    by: CostBy,
    since_us: u64,
    until_us: u64,
    through: u64,
    simulated: bool,
    groups: BTreeMap<String, Group>,
    /// By device model and the price charged.
    rates: BTreeMap<(String, u64), Group>,
    whole: Group,
}

impl CostReport {
    /// An empty report on the window from `since_us` until `until_us`.
    pub fn new(by: CostBy, since_us: u64, until_us: u64) -> Self {
        Self {
            by,
            since_us,
            until_us,
            through: 0,
            simulated: false,
            groups: BTreeMap::new(),
            rates: BTreeMap::new(),
            whole: Group::default(),
        }
    }

    /// Adds the part of a row that lies within the window.
    ///
    /// The store's rows are in already. A caller adds what the store cannot know: the rows of outbox
    /// records above [`Self::through`], and one row for each allocation still open, ended now.
    pub fn add(&mut self, row: &LedgerRow) {
        let Some(clipped) = row.clipped(self.since_us, self.until_us) else {
            return;
        };
        self.simulated |= clipped.simulated;
        self.groups
            .entry(self.by.key(&clipped))
            .or_default()
            .add(&clipped);
        self.whole.add(&clipped);
        if let Some(model) = &clipped.device_model {
            self.rates
                .entry((model.clone(), clipped.price_per_gpu_hour_micro))
                .or_default()
                .add(&clipped);
        }
    }

    pub(crate) fn set_through(&mut self, through: u64) {
        self.through = through;
    }

    /// Highest outbox record that the report has seen: what is above it is the caller's to add.
    pub fn through(&self) -> u64 {
        self.through
    }

    /// Whether some of it was on simulated devices.
    pub fn simulated(&self) -> bool {
        self.simulated
    }

    /// The groups, largest cost first, then longest held, then by key.
    pub fn rows(&self) -> Vec<CostTotal> {
        let mut rows: Vec<CostTotal> = self
            .groups
            .iter()
            .map(|(key, group)| group.total(key))
            .collect();
        rows.sort_by(|one, other| {
            (other.cost_micro, other.gpu_milli_us)
                .cmp(&(one.cost_micro, one.gpu_milli_us))
                .then_with(|| one.key.cmp(&other.key))
        });
        rows
    }

    /// What was charged at each price of each device model, in their order.
    pub fn rates(&self) -> impl Iterator<Item = (&str, u64, CostTotal)> {
        self.rates
            .iter()
            .map(|((model, price), group)| (model.as_str(), *price, group.total(model)))
    }

    /// All groups together; a run in several groups counts once.
    pub fn total(&self) -> CostTotal {
        self.whole.total("")
    }
}
