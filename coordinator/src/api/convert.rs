//! Between the core's types and the HTTP types. Nothing else in the coordinator knows both.

use super::error::ApiError;
use super::{convert_arrays, convert_idle, convert_priorities};
use crate::sessions::NodeSeen;
use coordinator_core::model::{
    Attempt, DeviceGrant, EndKind, IdlePolicy, LedgerRow, MemberEnd, MemberPhase, Meter, Node,
    NodeCondition, Policy, PoolName, PoolOrder, RetryPolicy, Run, RunOutcome, RunPhase,
    ScheduledPrice, TagMode, TenantName, Token, Warning, WarningSignal, WorkloadSpec,
};
use coordinator_core::policy::quotas;
use coordinator_core::state::{Preemption, State, run_ledger_rows};
use platform_proto::http::{
    AttemptView, DeviceView, GrantView, MemberView, NodeView, PolicyView, PreemptedView, QuotaView,
    RunSpec, RunView, ScheduledPriceView, TagRule, TokenView, WarningSpec,
};
use std::collections::BTreeSet;

/// What a client submitted, in the core's words.
pub fn spec_from_http(spec: RunSpec) -> Result<WorkloadSpec, ApiError> {
    Ok(WorkloadSpec {
        name: spec.name,
        command: spec.command,
        source_sha256: spec.source_sha256,
        requirements_path: spec.requirements_path,
        working_folder: spec.working_folder,
        environment: spec.environment,
        image: spec.image,
        gpus: spec.gpus,
        gpu_share_milli: spec.gpu_share_milli,
        gpu_memory_mib: spec.gpu_memory_mib,
        gpu_model: spec.gpu_model,
        nodes: spec.nodes,
        cpu_milli: spec.cpu_milli,
        memory_mib: spec.memory_mib,
        pool: spec.pool.map(|pool| PoolName::new(&pool)).transpose()?,
        tags: spec.tags,
        model: spec.model,
        priority: spec.priority,
        priority_class: spec.priority_class,
        never_preempts: spec.never_preempts,
        time_limit_ms: spec.time_limit_ms,
        retries: spec.retries,
        tenant: spec
            .tenant
            .map(|tenant| TenantName::new(&tenant))
            .transpose()?,
        preemptible: spec.preemptible.unwrap_or(true),
        start_deadline_ms: spec.start_deadline_ms,
        warning: spec.warning.map(warning_from_http).transpose()?,
        after: spec
            .after
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, coordinator_core::model::InvalidName>>()?,
        spread: spec.spread,
    })
}

fn warning_from_http(warning: WarningSpec) -> Result<Warning, ApiError> {
    let signal = WarningSignal::parse(&warning.signal).ok_or_else(|| {
        ApiError::invalid(format!("warning signal {:?} is not known", warning.signal))
            .allowed(WarningSignal::ALL.map(WarningSignal::as_str).join(", "))
    })?;
    Ok(Warning {
        before_ms: warning.before_ms,
        signal,
    })
}

/// A spec as clients read it.
pub fn spec_to_http(spec: &WorkloadSpec) -> RunSpec {
    RunSpec {
        name: spec.name.clone(),
        command: spec.command.clone(),
        source_sha256: spec.source_sha256.clone(),
        requirements_path: spec.requirements_path.clone(),
        working_folder: spec.working_folder.clone(),
        environment: spec.environment.clone(),
        image: spec.image.clone(),
        gpus: spec.gpus,
        gpu_share_milli: spec.gpu_share_milli,
        gpu_memory_mib: spec.gpu_memory_mib,
        gpu_model: spec.gpu_model.clone(),
        nodes: spec.nodes,
        cpu_milli: spec.cpu_milli,
        memory_mib: spec.memory_mib,
        pool: spec.pool.as_ref().map(ToString::to_string),
        tags: spec.tags.clone(),
        model: spec.model.clone(),
        priority: spec.priority,
        priority_class: spec.priority_class.clone(),
        never_preempts: spec.never_preempts,
        time_limit_ms: spec.time_limit_ms,
        retries: spec.retries,
        tenant: spec.tenant.as_ref().map(ToString::to_string),
        preemptible: Some(spec.preemptible),
        start_deadline_ms: spec.start_deadline_ms,
        warning: spec.warning.map(|warning| WarningSpec {
            before_ms: warning.before_ms,
            signal: warning.signal.as_str().to_owned(),
        }),
        after: spec.after.iter().map(ToString::to_string).collect(),
        spread: spec.spread,
    }
}

/// One run as clients read it; what it holds is charged until `now_us`.
pub fn run_view(state: &State, run: &Run, now_us: u64) -> RunView {
    let rows = run_ledger_rows(run, now_us.max(state.time_us()));
    let end = run.last_attempt().and_then(|attempt| attempt.end.as_ref());
    let (mut exit_code, mut client_exit_code, mut ended_us) = (None, None, None);
    if let RunPhase::Ended { outcome, at_us } = &run.phase {
        ended_us = Some(*at_us);
        if let Some(MemberEnd {
            kind: EndKind::Exited { code },
            ..
        }) = end
        {
            exit_code = Some(*code);
        }
        client_exit_code = Some(client_code(outcome, end));
    }
    RunView {
        id: run.id.to_string(),
        spec: RunSpec {
            command: run.command(),
            ..spec_to_http(&run.spec)
        },
        tenant: run.tenant.to_string(),
        user: run.user.to_string(),
        state: run_state(run).to_owned(),
        detail: run_detail(state, run, now_us),
        submitted_us: run.submitted_us,
        started_us: run.last_attempt().and_then(|attempt| attempt.started_us),
        ended_us,
        exit_code,
        client_exit_code,
        element: convert_arrays::element_view(state, run),
        attempts: run.attempts.iter().map(attempt_view).collect(),
        cost_micro: rows.iter().map(LedgerRow::cost_micro).sum(),
        gpu_us: whole_gpu_us(rows.iter().map(LedgerRow::gpu_milli_us).sum()),
        currency: state.policy().currency.clone(),
        simulated: rows.iter().any(|row| row.simulated),
        idle: convert_idle::idle_view(state, run, now_us),
        justification: convert_idle::justification_view(run),
    }
}

/// GPU-microseconds from thousandths of them.
pub fn whole_gpu_us(gpu_milli_us: u128) -> u64 {
    u64::try_from(gpu_milli_us / 1000).unwrap_or(u64::MAX)
}

/// The state of a run, in one word.
pub fn run_state(run: &Run) -> &'static str {
    match &run.phase {
        RunPhase::Held => "held",
        RunPhase::Queued => "queued",
        RunPhase::Active => run.last_attempt().map_or("queued", attempt_state),
        RunPhase::Ended { outcome, .. } => match outcome {
            RunOutcome::Succeeded => "succeeded",
            RunOutcome::Failed => "failed",
            RunOutcome::Cancelled => "cancelled",
        },
    }
}

fn attempt_state(attempt: &Attempt) -> &'static str {
    if attempt.is_over() {
        return "ended";
    }
    if attempt.stopping.is_some() {
        return "stopping";
    }
    match attempt.members.iter().map(|member| member.phase).min() {
        Some(MemberPhase::Assigned) => "assigned",
        Some(MemberPhase::Preparing) => "preparing",
        _ => "running",
    }
}

fn run_detail(state: &State, run: &Run, now_us: u64) -> Option<String> {
    match &run.phase {
        RunPhase::Queued if state.is_held(run) => run.held_words(now_us),
        RunPhase::Held => Some(match (&run.element, run.spec.after.as_slice()) {
            (Some(element), []) => format!("waits for its turn in {}", element.array),
            (_, after) => {
                let after: Vec<String> = after.iter().map(ToString::to_string).collect();
                format!("follows {}", after.join(", "))
            }
        }),
        RunPhase::Queued => run
            .last_attempt()
            .and_then(|attempt| attempt.end.as_ref())
            .map(|end| format!("waits again: {}", end.words())),
        RunPhase::Active => run
            .last_attempt()?
            .members
            .iter()
            .find_map(|member| member.detail.clone())
            .or_else(|| convert_idle::idle_words(state, run, now_us)),
        RunPhase::Ended { outcome, .. } => match (outcome, &run.cancelled) {
            (RunOutcome::Cancelled, Some(cancelled)) => Some(match &cancelled.reason {
                Some(reason) => format!("cancelled by {}: {reason}", cancelled.by),
                None => format!("cancelled by {}", cancelled.by),
            }),
            _ => run
                .last_attempt()
                .and_then(|attempt| attempt.end.as_ref())
                .map(MemberEnd::words),
        },
    }
}

/// What `platform run` exits with.
fn client_code(outcome: &RunOutcome, end: Option<&MemberEnd>) -> i32 {
    match (outcome, end.map(|end| &end.kind)) {
        (RunOutcome::Succeeded, _) => 0,
        (RunOutcome::Cancelled, _) | (RunOutcome::Failed, Some(EndKind::Stopped)) => 143,
        (RunOutcome::Failed, Some(EndKind::Exited { code })) => *code,
        (RunOutcome::Failed, Some(EndKind::Signaled { signal })) => 128 + signal,
        (RunOutcome::Failed, Some(EndKind::TimeLimit)) => 124,
        (RunOutcome::Failed, Some(EndKind::OutOfMemory)) => 137,
        (RunOutcome::Failed, _) => 125,
    }
}

fn attempt_view(attempt: &Attempt) -> AttemptView {
    AttemptView {
        number: attempt.number,
        epoch: attempt.epoch.0,
        state: attempt_state(attempt).to_owned(),
        placed_us: attempt.placed_us,
        started_us: attempt.started_us,
        ended_us: attempt.ended_us,
        checkpointed_us: attempt.checkpointed_us,
        end: attempt.end.as_ref().map(MemberEnd::words),
        members: attempt
            .members
            .iter()
            .map(|member| MemberView {
                node: member.node.to_string(),
                state: match member.phase {
                    MemberPhase::Assigned => "assigned",
                    MemberPhase::Preparing => "preparing",
                    MemberPhase::Running => "running",
                    MemberPhase::Ended => "ended",
                }
                .to_owned(),
                devices: member.devices.iter().map(grant_view).collect(),
                enforcement: member.enforcement.clone(),
            })
            .collect(),
    }
}

fn grant_view(grant: &DeviceGrant) -> GrantView {
    GrantView {
        device: grant.device.to_string(),
        index: grant.index,
        model: grant.model.clone(),
        share_milli: grant.share_milli,
        memory_mib: grant.memory_mib,
        simulated: grant.simulated,
    }
}

/// One node as clients read it, with what was last heard of it.
pub fn node_view(node: &Node, seen: Option<&NodeSeen>) -> NodeView {
    let description = &node.description;
    let (state, reason) = match &node.condition {
        NodeCondition::Ready => ("ready", None),
        NodeCondition::Cordoned { reason } => ("cordoned", Some(reason.clone())),
        NodeCondition::Draining { reason, .. } => ("draining", Some(reason.clone())),
        NodeCondition::Lost => ("lost", Some("not heard past its lease".to_owned())),
    };
    let runs =
        |keys: &mut dyn Iterator<Item = &coordinator_core::model::MemberKey>| -> Vec<String> {
            keys.map(|key| key.run)
                .collect::<BTreeSet<_>>()
                .iter()
                .map(ToString::to_string)
                .collect()
        };
    NodeView {
        name: description.name.to_string(),
        pool: description.pool.to_string(),
        rack: description.rack.clone(),
        state: state.to_owned(),
        reason,
        devices: description
            .devices
            .iter()
            .zip(&node.devices)
            .map(|(device, grants)| {
                let sample = seen.and_then(|seen| seen.samples.get(&*device.id.0));
                DeviceView {
                    id: device.id.to_string(),
                    index: device.index,
                    model: device.model.clone(),
                    memory_mib: device.memory_mib,
                    memory_allocated_mib: grants.memory_mib,
                    share_allocated_milli: grants.share_milli,
                    simulated: device.simulated,
                    nvlink_island: device.wiring.nvlink_island,
                    pcie_switch: device.wiring.pcie_switch,
                    numa_node: device.wiring.numa_node,
                    runs: runs(&mut grants.holders.keys()),
                    utilization_percent: sample.and_then(|sample| sample.utilization_percent),
                    memory_used_mib: sample.and_then(|sample| sample.memory_used_mib),
                }
            })
            .collect(),
        cpu_milli: description.cpu_milli,
        cpu_reserved_milli: node.cpu_reserved_milli,
        memory_mib: description.memory_mib,
        memory_reserved_mib: node.memory_reserved_mib,
        runs: runs(&mut node.members.iter()),
        agent_version: description.agent_version.clone(),
        runtimes: description.runtimes.iter().cloned().collect(),
        heard_ago_ms: seen
            .map(|seen| u64::try_from(seen.heard.elapsed().as_millis()).unwrap_or(u64::MAX)),
        off_platform: seen.map(|seen| seen.foreign.clone()).unwrap_or_default(),
        simulated: node.is_simulated(),
    }
}

/// A tenant's lines in a pool as clients read them: that over all models, and of each model for which
/// it has a line or holds devices that others have one for.
pub fn quota_views(state: &State, tenant: &TenantName, pool: &PoolName) -> Vec<QuotaView> {
    let of_models = state
        .tenants()
        .metered_models(pool)
        .map(|model| Meter::of_model(pool, model))
        .filter(|meter| {
            quotas::line(state.tenants(), tenant, *meter).is_some()
                || state.used_on(tenant, *meter) > 0
        });
    std::iter::once(Meter::from(pool))
        .chain(of_models)
        .map(|meter| quota_view(state, tenant, meter))
        .collect()
}

/// One such line, with what its tenant holds, borrows and lends now.
pub fn quota_view(state: &State, tenant: &TenantName, meter: Meter<'_>) -> QuotaView {
    let pool = meter.pool;
    let waiting_milli = state
        .queues()
        .of_tenant(pool, tenant)
        .into_iter()
        .filter_map(|run| state.runs().get(&run))
        .filter(|run| meter.is_open_to(run.spec.gpu_model.as_deref()))
        .map(|run| run.spec.gpu_milli())
        .sum();
    let use_of_line = state.use_of_line(tenant, meter);
    let line = quotas::line(state.tenants(), tenant, meter);
    QuotaView {
        tenant: tenant.to_string(),
        pool: pool.to_string(),
        model: meter.model.map(str::to_owned),
        gpu_milli: line.map(|line| line.quota_milli),
        limit_milli: line.and_then(|line| line.limit_milli),
        lend_milli: line.and_then(|line| line.lend_milli),
        used_milli: state.used_on(tenant, meter),
        // What was held of late is remembered of a pool, for the turns, and of no model.
        recent_milli: meter
            .model
            .map_or_else(|| state.recent_milli(tenant, pool), |_| 0),
        borrowed_milli: use_of_line.borrowed_milli,
        lent_milli: use_of_line.lent_milli,
        waiting_milli,
        preempts: Vec::new(),
    }
}

/// A run that gives way, as clients read it.
pub fn preempted_view(state: &State, preemption: Preemption) -> PreemptedView {
    let find = |id| state.runs().get(&id);
    let tenant = |id| find(id).map_or_else(String::new, |run| run.tenant.to_string());
    PreemptedView {
        run: preemption.run.to_string(),
        name: find(preemption.run).map_or_else(String::new, |run| run.spec.name.clone()),
        tenant: tenant(preemption.run),
        claimant: preemption.claimant.to_string(),
        claimant_tenant: tenant(preemption.claimant),
    }
}

/// The policy as clients read it.
pub fn policy_view(policy: &Policy) -> PolicyView {
    PolicyView {
        version: policy.version,
        required_tags: policy
            .required_tags
            .iter()
            .map(|(key, allowed)| {
                (
                    key.clone(),
                    TagRule {
                        allowed: allowed.clone(),
                    },
                )
            })
            .collect(),
        tag_mode: match policy.tag_mode {
            TagMode::Off => "off",
            TagMode::Warn => "warn",
            TagMode::Enforce => "enforce",
        }
        .to_owned(),
        gpu_memory_caps_mib: policy.gpu_memory_caps_mib.clone(),
        gpu_memory_cap_sums_mib: policy.gpu_memory_cap_sums_mib.clone(),
        gpu_hour_price_micro: policy.gpu_hour_price_micro.clone(),
        default_gpu_hour_price_micro: policy.default_gpu_hour_price_micro,
        scheduled_prices: policy
            .scheduled_prices
            .iter()
            .map(|price| ScheduledPriceView {
                from_us: price.from_us,
                gpu_model: price.gpu_model.clone(),
                price_micro: price.price_per_gpu_hour_micro,
            })
            .collect(),
        currency: policy.currency.clone(),
        minimum_run_ms: policy.minimum_run_ms,
        fair_share_half_life_ms: policy.fair_share_half_life_ms,
        reservation_after_ms: policy.reservation_after_ms,
        retry_wait_ms: policy.retry.first_wait_ms,
        retry_wait_longest_ms: policy.retry.longest_wait_ms,
        priority_classes: Some(convert_priorities::classes_view(&policy.priority_classes)),
        idle_below_percent: policy.idle.below_percent,
        idle_warn_after_ms: policy.idle.warn_after_ms,
        idle_stop_after_ms: policy.idle.stop_after_ms,
        longest_justification_ms: policy.idle.longest_justification_ms,
    }
}

/// A policy that a client sent; what an older client does not know of stays as it was before.
pub fn policy_from_http(view: PolicyView, before: &Policy) -> Result<Policy, ApiError> {
    let tag_mode = match view.tag_mode.as_str() {
        "off" => TagMode::Off,
        "warn" => TagMode::Warn,
        "enforce" => TagMode::Enforce,
        other => {
            return Err(
                ApiError::invalid(format!("tag mode {other:?} is not known"))
                    .allowed("off, warn, enforce"),
            );
        }
    };
    Ok(Policy {
        version: view.version,
        required_tags: view
            .required_tags
            .into_iter()
            .map(|(key, rule)| (key, rule.allowed))
            .collect(),
        tag_mode,
        gpu_memory_caps_mib: view.gpu_memory_caps_mib,
        gpu_memory_cap_sums_mib: view.gpu_memory_cap_sums_mib,
        gpu_hour_price_micro: view.gpu_hour_price_micro,
        default_gpu_hour_price_micro: view.default_gpu_hour_price_micro,
        scheduled_prices: view
            .scheduled_prices
            .into_iter()
            .map(|price| ScheduledPrice {
                from_us: price.from_us,
                gpu_model: price.gpu_model,
                price_per_gpu_hour_micro: price.price_micro,
            })
            .collect(),
        currency: view.currency,
        minimum_run_ms: view.minimum_run_ms,
        fair_share_half_life_ms: view.fair_share_half_life_ms,
        reservation_after_ms: view.reservation_after_ms,
        retry: RetryPolicy {
            first_wait_ms: view.retry_wait_ms,
            longest_wait_ms: view.retry_wait_longest_ms,
        },
        priority_classes: match view.priority_classes {
            Some(classes) => convert_priorities::classes_from_http(classes)?,
            None => before.priority_classes.clone(),
        },
        idle: IdlePolicy {
            below_percent: view.idle_below_percent,
            warn_after_ms: view.idle_warn_after_ms,
            stop_after_ms: view.idle_stop_after_ms,
            longest_justification_ms: view.longest_justification_ms,
        },
    })
}

/// A token as clients read it.
pub fn token_view(token: &Token) -> TokenView {
    TokenView {
        id: token.id.clone(),
        user: token.user.to_string(),
        tenant: token.tenant.to_string(),
        role: token.role.as_str().to_owned(),
        created_us: token.created_us,
        expires_us: token.expires_us,
        revoked: token.revoked,
    }
}

/// The price of an hour of a whole run.
pub struct HourPrice {
    /// In millionths of the currency: of the dearest device that fits.
    pub micro: u64,
    /// Cheaper devices fit too.
    pub at_most: bool,
}

/// What an hour of the whole run costs.
pub fn price_per_hour(state: &State, spec: &WorkloadSpec) -> HourPrice {
    let demand = state.policy().demand(spec);
    let prices: BTreeSet<u64> = state
        .nodes()
        .values()
        .filter(|node| Some(&node.description.pool) == spec.pool.as_ref())
        .flat_map(|node| &node.description.devices)
        .filter(|device| {
            demand.accepts(&device.model)
                && demand.memory_on(device.memory_mib) <= device.memory_mib
        })
        .map(|device| state.policy().price_per_gpu_hour_micro(&device.model))
        .collect();
    let dearest = prices.last().copied().unwrap_or(0);
    let exact = u128::from(dearest) * u128::from(spec.gpu_milli()) / 1000;
    HourPrice {
        micro: u64::try_from(exact).unwrap_or(u64::MAX),
        at_most: prices.len() > 1 && exact > 0,
    }
}

/// The order of a pool, as clients write it.
pub fn pool_order(text: &str) -> Result<PoolOrder, ApiError> {
    PoolOrder::parse(text).ok_or_else(|| {
        ApiError::invalid(format!("order {text:?} is not one of a pool"))
            .allowed(PoolOrder::ALL.map(|(_, name)| name).join(", "))
    })
}
