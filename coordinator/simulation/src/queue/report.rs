//! The figures of a simulation, by the definitions of the traces' own scorer.

use super::{Cluster, Outcome, Replayed, Trace, TraceRun};
use coordinator_core::scheduler::queue::Reason;
use serde::Serialize;

const SECOND_US: f64 = 1e6;
const GPU_HOUR: f64 = 3.6e12;

/// What came of all runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Runs.
    pub runs: usize,
    /// Mean time from submission to end.
    pub average_completion_s: f64,
    /// Mean waiting, in all.
    pub average_queue_s: f64,
    /// Waiting of the median run.
    pub p50_queue_s: f64,
    /// Waiting that one run in a hundred exceeds.
    pub p99_queue_s: f64,
    /// Waiting that one run in a thousand exceeds.
    pub p999_queue_s: f64,
    /// Longest waiting.
    pub longest_queue_s: f64,
    /// Stops for other runs, those that moved included.
    pub preemptions: u64,
    /// Of these, borrowed room that its owner took back.
    pub reclaimed: u64,
    /// Of these, runs that a run of an earlier level replaced.
    pub displaced: u64,
    /// Of these, runs that went on elsewhere at once.
    pub moved: u64,
    /// GPUs of the cluster.
    pub gpus: u64,
    /// Simulated time from the first submission to the last end.
    pub makespan_s: f64,
    /// Share of the GPUs in use while runs were still submitted.
    pub utilisation_of_submit_window: f64,
    /// The least of the tenants' quota satisfactions.
    pub least_quota_satisfaction: f64,
    /// The largest of the tenants' shares of time in which their quota was violated.
    pub worst_quota_violation_share: f64,
    /// By name.
    pub tenants: Vec<TenantReport>,
}

/// What came of one tenant's runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TenantReport {
    /// Which.
    pub tenant: String,
    /// Its runs.
    pub runs: usize,
    /// Its quota in GPUs.
    pub quota_gpus: f64,
    /// What it used.
    pub gpu_hours: f64,
    /// Mean waiting.
    pub average_queue_s: f64,
    /// Waiting that one of its runs in a hundred exceeds.
    pub p99_queue_s: f64,
    /// Longest waiting.
    pub longest_queue_s: f64,
    /// Use within quota and demand, over the lesser of quota and demand.
    pub quota_satisfaction: f64,
    /// Share of its active time in which a run within its quota waited while another tenant borrowed.
    pub quota_violation_share: f64,
}

impl Report {
    /// The figures of a trace that was replayed to its end.
    pub fn new(trace: &Trace, cluster: &Cluster, outcome: &Outcome) -> Self {
        let replayed: Vec<(&TraceRun, &Replayed)> = trace.runs.iter().zip(&outcome.runs).collect();
        let waits = sorted_waits(replayed.iter().copied());
        let completion_us: f64 = replayed
            .iter()
            .map(|(run, replayed)| (replayed.ended_us() - submitted_us(run)) as f64)
            .sum();
        let first_us = trace.runs.iter().map(submitted_us).min().unwrap_or(0);
        let last_us = trace.runs.iter().map(submitted_us).max().unwrap_or(0);
        let ended_us = outcome
            .runs
            .iter()
            .map(Replayed::ended_us)
            .max()
            .unwrap_or(0);
        let gpus: u64 = cluster.nodes.iter().map(|node| u64::from(node.gpus)).sum();
        let busy_gpu_us: u128 = outcome
            .runs
            .iter()
            .flat_map(|run| &run.segments)
            .map(|segment| {
                let held: u128 = segment
                    .nodes
                    .iter()
                    .map(|(_, gpus)| u128::from(*gpus))
                    .sum();
                held * u128::from(segment.end_us.min(last_us).saturating_sub(segment.start_us))
            })
            .sum();
        let stops = |reason| outcome.stops.get(&reason).copied().unwrap_or(0);
        let tenants: Vec<TenantReport> = cluster
            .quota_milli
            .iter()
            .zip(&outcome.fairness.accounts)
            .map(|((tenant, quota_milli), account)| {
                let own = replayed.iter().filter(|(run, _)| run.tenant == *tenant);
                let waits = sorted_waits(own.copied());
                TenantReport {
                    tenant: tenant.clone(),
                    runs: waits.len(),
                    quota_gpus: *quota_milli as f64 / 1e3,
                    gpu_hours: rounded(account.used_gpu_milli_us as f64 / GPU_HOUR, 1),
                    average_queue_s: mean_s(&waits),
                    p99_queue_s: percentile_s(&waits, 99.0),
                    longest_queue_s: percentile_s(&waits, 100.0),
                    quota_satisfaction: rounded(account.satisfaction(), 5),
                    quota_violation_share: rounded(account.violation_share(), 5),
                }
            })
            .collect();
        let asking = || tenants.iter().filter(|tenant| tenant.runs > 0);
        Self {
            runs: trace.runs.len(),
            average_completion_s: rounded(
                completion_us / SECOND_US / replayed.len().max(1) as f64,
                3,
            ),
            average_queue_s: mean_s(&waits),
            p50_queue_s: percentile_s(&waits, 50.0),
            p99_queue_s: percentile_s(&waits, 99.0),
            p999_queue_s: percentile_s(&waits, 99.9),
            longest_queue_s: percentile_s(&waits, 100.0),
            preemptions: outcome.stops.values().sum(),
            reclaimed: stops(Reason::Reclaimed),
            displaced: stops(Reason::Displaced),
            moved: stops(Reason::Moved),
            gpus,
            makespan_s: rounded(ended_us.saturating_sub(first_us) as f64 / SECOND_US, 3),
            utilisation_of_submit_window: rounded(
                busy_gpu_us as f64 / (gpus as f64 * (last_us - first_us).max(1) as f64),
                5,
            ),
            least_quota_satisfaction: asking()
                .map(|tenant| tenant.quota_satisfaction)
                .fold(1.0, f64::min),
            worst_quota_violation_share: asking()
                .map(|tenant| tenant.quota_violation_share)
                .fold(0.0, f64::max),
            tenants,
        }
    }
}

fn submitted_us(run: &TraceRun) -> u64 {
    u64::try_from(run.submitted_us).unwrap_or(0)
}

fn sorted_waits<'a>(runs: impl Iterator<Item = (&'a TraceRun, &'a Replayed)>) -> Vec<u64> {
    let mut waits: Vec<u64> = runs
        .map(|(run, replayed)| {
            replayed
                .ended_us()
                .saturating_sub(submitted_us(run) + run.duration_us + replayed.overhead_us)
        })
        .collect();
    waits.sort_unstable();
    waits
}

fn mean_s(waits: &[u64]) -> f64 {
    let sum: f64 = waits.iter().map(|wait| *wait as f64).sum();
    rounded(sum / SECOND_US / waits.len().max(1) as f64, 3)
}

/// The nearest rank, as the scorer takes it.
fn percentile_s(sorted: &[u64], percent: f64) -> f64 {
    let rank = (percent * sorted.len() as f64 / 100.0).ceil() as usize;
    let wait = sorted.get(rank.max(1) - 1).copied().unwrap_or(0);
    rounded(wait as f64 / SECOND_US, 3)
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}
