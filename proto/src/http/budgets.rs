//! Budgets: what may be spent, what has been, and what it comes to.

use serde::{Deserialize, Serialize};

/// PUT /v1/budgets/{name}: the budget as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetRequest {
    /// Tenant whose spending counts, with all below it; exclusive with `tag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Cost tag whose runs' spending counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<BudgetTag>,
    /// What may be spent in a period, in millionths of the currency.
    pub amount_micro: u64,
    /// `week`, `month`, `quarter` (of the UTC calendar) or `once`.
    pub period: String,
    /// From this much of the amount on it warns, in percent.
    pub warn_at_percent: u32,
    /// Whether no run starts once it is spent.
    pub stop: bool,
    /// Say what would happen, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A cost tag with its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetTag {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

/// A budget and where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetView {
    /// Name.
    pub name: String,
    /// Tenant whose spending counts, with all below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Cost tag whose runs' spending counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<BudgetTag>,
    /// What may be spent in a period, in millionths of the currency.
    pub amount_micro: u64,
    /// Currency code.
    pub currency: String,
    /// `week`, `month`, `quarter` or `once`.
    pub period: String,
    /// From this much of the amount on it warns, in percent.
    pub warn_at_percent: u32,
    /// Whether no run starts once it is spent.
    pub stop: bool,
    /// `within`, `warned`, `spent` (and runs start), `stopped` (and none does).
    pub state: String,
    /// When the period began.
    pub period_start_us: u64,
    /// When it ends; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_end_us: Option<u64>,
    /// Spent in the period so far, what is held now included.
    pub spent_micro: u64,
    /// What is held now costs so much for each hour.
    pub rate_micro_per_hour: u64,
    /// Spent at the end of the period if nothing starts or ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projected_micro: Option<u64>,
    /// When the amount will be spent at this rate, if that is in the period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached_us: Option<u64>,
    /// On a dry run: runs that wait and would be kept waiting by it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds_back: Vec<String>,
}

/// GET /v1/budgets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetList {
    /// By name.
    pub budgets: Vec<BudgetView>,
}
