//! Caps of GPU memory in sum: what all live runs of a model, or of models that begin alike, may hold
//! together.

use super::Refusal;
use crate::model::{MemberDemand, NodeDescription, Policy, WorkloadSpec};

/// The caps in sum that bind a run: that of its model and those of every `prefix*` it begins with.
pub fn gpu_memory_sums<'a>(
    policy: &'a Policy,
    spec: &'a WorkloadSpec,
) -> impl Iterator<Item = (&'a str, u64)> {
    let model = spec.model.as_deref();
    model.into_iter().flat_map(|model| {
        policy
            .gpu_memory_cap_sums_mib
            .iter()
            .filter(move |(pattern, _)| match pattern.strip_suffix('*') {
                Some(prefix) => model.starts_with(prefix),
                None => model == pattern.as_str(),
            })
            .map(|(pattern, cap_mib)| (pattern.as_str(), *cap_mib))
    })
}

/// The least memory that the whole run can take of devices like these; nothing without devices.
pub fn least_memory_mib<'a>(
    makes: impl Iterator<Item = &'a NodeDescription>,
    spec: &WorkloadSpec,
    demand: &MemberDemand,
) -> u64 {
    let of_one = makes
        .flat_map(|make| &make.devices)
        .filter(|device| demand.accepts(&device.model))
        .map(|device| demand.memory_on(device.memory_mib))
        .min()
        .unwrap_or(0);
    of_one
        .saturating_mul(demand.devices.into())
        .saturating_mul(spec.nodes.into())
}

/// Refuses a run that alone would pass a cap in sum: it could never start.
pub fn check<'a>(
    policy: &Policy,
    makes: impl Iterator<Item = &'a NodeDescription>,
    spec: &WorkloadSpec,
    demand: &MemberDemand,
) -> Result<(), Refusal> {
    if policy.gpu_memory_cap_sums_mib.is_empty() {
        return Ok(());
    }
    let least_mib = least_memory_mib(makes, spec, demand);
    let Some((pattern, cap_mib)) =
        gpu_memory_sums(policy, spec).find(|(_, cap_mib)| least_mib > *cap_mib)
    else {
        return Ok(());
    };
    let devices = u64::from(demand.devices).saturating_mul(spec.nodes.into());
    let each_mib = cap_mib / devices.max(1);
    Err(Refusal::refused(format!(
        "models {pattern} may hold {cap_mib} MiB of GPU memory in sum, and this run alone takes at least {least_mib} MiB"
    ))
    .allowed(format!("up to {cap_mib} MiB for the whole run"))
    .hint(format!(
        "ask for fewer GPUs, or for less of each, as in: --gpu-memory {each_mib}M"
    )))
}
