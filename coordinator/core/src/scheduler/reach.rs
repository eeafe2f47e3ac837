//! Which nodes a claim has to ask: those that have room as they are, those that somebody is leaving, and
//! those with runs that it might take from. On a full cluster these are few, whatever its size.

use crate::model::{MemberDemand, NodeName, PoolName, Run, TenantName};
use crate::state::State;
use std::collections::BTreeSet;

/// Every node that could come to hold one more member of this demand, if none but runs of these tenants
/// were stopped for it. Some of them will not.
pub fn nodes_to_ask<'a>(
    state: &'a State,
    pool: &'a PoolName,
    demand: &MemberDemand,
    may_take_from: impl Fn(&TenantName) -> bool,
) -> BTreeSet<&'a NodeName> {
    let mut nodes: BTreeSet<&NodeName> = state
        .nodes_with_idle(pool, demand.gpu_milli())
        .map(|node| &node.description.name)
        .collect();
    let takeable = state
        .stoppable(pool)
        .into_iter()
        .flatten()
        .filter(|(tenant, _)| may_take_from(tenant))
        .flat_map(|(_, runs)| runs)
        .filter_map(|(_, run)| state.runs().get(run));
    for run in takeable.chain(state.stopping_runs()) {
        nodes.extend(nodes_of(run));
    }
    nodes
}

fn nodes_of(run: &Run) -> impl Iterator<Item = &NodeName> {
    run.last_attempt()
        .into_iter()
        .flat_map(|attempt| &attempt.members)
        .map(|member| &member.node)
}
