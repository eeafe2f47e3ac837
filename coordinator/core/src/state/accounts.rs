//! The outbox: audit entries and ledger rows leave the state in order, each once.

use super::{Command, Entry, Event, State};
use crate::model::{
    Attempt, AuditEntry, Decision, LedgerRow, Member, OutboxBody, OutboxRecord, Role, Run,
    TenantName, UserName, WorkloadSpec,
};
use std::fmt::Write as _;

/// Longest detail of an audit entry: a batch of reports names its members until here.
const LONGEST_DETAIL: usize = 2_000;

impl State {
    pub(super) fn audit(&mut self, entry: &Entry, events: &[Event]) {
        self.push_audit(
            &entry.actor,
            entry.command.action(),
            subject(&entry.command, events),
            detail(&entry.command),
        );
    }

    /// One more entry of the chain.
    pub(super) fn push_audit(
        &mut self,
        actor: &str,
        action: &str,
        subject: String,
        detail: String,
    ) {
        self.audit_sequence += 1;
        let mut audit = AuditEntry {
            sequence: self.audit_sequence,
            at_us: self.time_us,
            actor: actor.to_owned(),
            action: action.to_owned(),
            subject,
            detail,
            previous: std::mem::take(&mut self.audit_head),
            hash: String::new(),
        };
        audit.hash = audit.expected_hash();
        self.audit_head = audit.hash.clone();
        self.push_outbox(OutboxBody::Audit(audit));
    }

    pub(super) fn push_outbox(&mut self, body: OutboxBody) {
        self.outbox_sequence += 1;
        self.outbox.push_back(OutboxRecord {
            sequence: self.outbox_sequence,
            at_us: self.time_us,
            body,
        });
    }

    /// Decisions change nothing: they go to the books and leave no trace here.
    pub(super) fn keep_decisions(&mut self, decisions: &[Decision]) -> Vec<Event> {
        for decision in decisions {
            self.push_outbox(OutboxBody::Decision(Box::new(decision.clone())));
        }
        Vec::new()
    }

    pub(super) fn acknowledge_outbox(&mut self, through: u64) -> Vec<Event> {
        while self
            .outbox
            .front()
            .is_some_and(|record| record.sequence <= through)
        {
            self.outbox.pop_front();
        }
        vec![Event::OutboxAcknowledged { through }]
    }

    /// Ledger rows of everything that is held now, as if it were released at `now_us`.
    pub fn open_ledger_rows(&self, now_us: u64) -> Vec<LedgerRow> {
        self.live
            .iter()
            .filter_map(|id| self.runs.get(id))
            .flat_map(|run| run_open_rows(run, now_us))
            .collect()
    }
}

/// Ledger rows of what one run holds now, as if it were released at `now_us`.
fn run_open_rows(run: &Run, now_us: u64) -> Vec<LedgerRow> {
    run.last_attempt().map_or_else(Vec::new, |attempt| {
        rows_where(run, attempt, |member| member.released_us.is_none(), now_us)
    })
}

/// What the last attempt of a run was charged between two moments, in millionths of the currency.
pub(super) fn last_attempt_cost_micro(run: &Run, since_us: u64, until_us: u64) -> u64 {
    run.last_attempt()
        .map_or_else(Vec::new, |attempt| {
            rows_where(run, attempt, |_| true, until_us)
        })
        .iter()
        .filter_map(|row| row.clipped(since_us, until_us))
        .map(|row| row.cost_micro())
        .sum()
}

/// Every ledger row of one run: of what it held, and of what it holds, as if released at `now_us`.
pub fn run_ledger_rows(run: &Run, now_us: u64) -> Vec<LedgerRow> {
    run.attempts
        .iter()
        .flat_map(|attempt| rows_where(run, attempt, |_| true, now_us))
        .collect()
}

/// Ledger rows of what one run held and has given back.
pub(super) fn closed_ledger_rows(run: &Run) -> Vec<LedgerRow> {
    run.attempts
        .iter()
        .flat_map(|attempt| rows_where(run, attempt, |member| member.released_us.is_some(), 0))
        .collect()
}

fn rows_where(
    run: &Run,
    attempt: &Attempt,
    keep: impl Fn(&Member) -> bool,
    now_us: u64,
) -> Vec<LedgerRow> {
    (0_u32..)
        .zip(&attempt.members)
        .filter(|(_, member)| keep(member))
        .flat_map(|(rank, member)| {
            ledger_rows(
                run,
                attempt,
                rank,
                member,
                member.released_us.unwrap_or(now_us),
            )
        })
        .collect()
}

/// The rows that one member owes when released at `end_us`.
pub(super) fn ledger_rows(
    run: &Run,
    attempt: &Attempt,
    rank: u32,
    member: &Member,
    end_us: u64,
) -> Vec<LedgerRow> {
    let blank = LedgerRow {
        run: run.id,
        run_name: run.spec.name.clone(),
        attempt: attempt.number,
        member: rank,
        tenant: run.tenant.clone(),
        user: run.user.clone(),
        pool: run
            .spec
            .pool
            .clone()
            .unwrap_or_else(crate::model::PoolName::default_pool),
        node: member.node.clone(),
        device: None,
        device_model: None,
        simulated: false,
        share_milli: 0,
        memory_mib: 0,
        tags: run.spec.tags.clone(),
        model: run.spec.model.clone(),
        start_us: attempt.placed_us,
        end_us,
        price_per_gpu_hour_micro: 0,
    };
    if member.devices.is_empty() {
        return vec![blank];
    }
    member
        .devices
        .iter()
        .flat_map(|grant| {
            grant
                .stretches(attempt.placed_us, end_us)
                .map(|stretch| LedgerRow {
                    device: Some(grant.device.clone()),
                    device_model: Some(grant.model.clone()),
                    simulated: grant.simulated,
                    share_milli: grant.share_milli,
                    memory_mib: grant.memory_mib,
                    start_us: stretch.start_us,
                    end_us: stretch.end_us,
                    price_per_gpu_hour_micro: stretch.price_per_gpu_hour_micro,
                    ..blank.clone()
                })
        })
        .collect()
}

fn subject(command: &Command, events: &[Event]) -> String {
    match command {
        Command::Submit { .. } => events
            .iter()
            .find_map(|event| match event {
                Event::RunQueued { run, .. } | Event::RunHeld { run, .. } => Some(run.to_string()),
                _ => None,
            })
            .unwrap_or_default(),
        Command::SubmitArray { .. } => events
            .iter()
            .find_map(|event| match event {
                Event::ArraySubmitted { array, .. } => Some(array.to_string()),
                _ => None,
            })
            .unwrap_or_default(),
        Command::CancelArray { array, .. } => array.to_string(),
        Command::Cancel { run, .. } | Command::Justify { run, .. } => run.to_string(),
        Command::NoteUse { .. } => events
            .iter()
            .filter_map(|event| match event {
                Event::IdlenessChanged { run } | Event::RunStopping { run } => {
                    Some(run.to_string())
                }
                _ => None,
            })
            .collect::<Vec<_>>()
            .join("+"),
        Command::Place { .. } | Command::Preempt { .. } => "plan".to_owned(),
        Command::Report { node, .. }
        | Command::LoseNode { node }
        | Command::Cordon { node, .. }
        | Command::Uncordon { node }
        | Command::Drain { node, .. }
        | Command::Evict { node } => node.to_string(),
        Command::RegisterNode { description } => description.name.to_string(),
        Command::SetPool { pool, .. } => pool.to_string(),
        Command::CreateTenant { tenant, .. } => tenant.to_string(),
        Command::SetTenant { tenant, .. } => tenant.to_string(),
        Command::SetQuota(change) => match &change.model {
            Some(model) => format!("{}/{}/{model}", change.tenant, change.pool),
            None => format!("{}/{}", change.tenant, change.pool),
        },
        Command::SetPolicy { .. } => "policy".to_owned(),
        Command::SetBudget { budget } => budget.name.clone(),
        Command::RemoveBudget { name } => name.clone(),
        Command::CreateToken { token, .. } => token.id.clone(),
        Command::RevokeToken { id } => id.clone(),
        Command::Tick => events
            .iter()
            .filter_map(|event| match event {
                Event::RunEnded { run } => Some(run.to_string()),
                _ => None,
            })
            .collect::<Vec<_>>()
            .join("+"),
        Command::KeepDecisions { .. } => "decisions".to_owned(),
        Command::AcknowledgeOutbox { .. } => "outbox".to_owned(),
    }
}

fn submit_detail(
    text: &mut String,
    spec: &WorkloadSpec,
    tenant: &TenantName,
    user: &UserName,
    role: Option<Role>,
) -> std::fmt::Result {
    write!(
            text,
            "name={:?} tenant={tenant} user={user} gpus={:?} share_milli={:?} nodes={} tags={:?} environment={:?}",
            spec.name,
            spec.gpus,
            spec.gpu_share_milli,
            spec.nodes,
            spec.tags,
            spec.environment.keys().collect::<Vec<_>>()
        )
        .and_then(|()| {
            spec.after
                .iter()
                .try_for_each(|dependency| write!(text, " after={dependency}"))
        })
        .and_then(|()| match (&spec.priority_class, role) {
            // Entries from before there were classes keep the words that they were chained with.
            (None, None) => Ok(()),
            (class, role) => write!(
                text,
                " priority={} class={} role={}",
                spec.priority,
                class.as_deref().unwrap_or_default(),
                role.map_or("", Role::as_str)
            ),
        })
}

/// What a reader of the audit wants beside who, what and when. Never a secret: of the environment
/// only the names are kept.
fn detail(command: &Command) -> String {
    let mut text = String::new();
    let written = match command {
        Command::Submit {
            spec,
            tenant,
            user,
            role,
        } => submit_detail(&mut text, spec, tenant, user, *role),
        Command::SubmitArray {
            spec,
            request,
            tenant,
            user,
            role,
        } => submit_detail(&mut text, spec, tenant, user, *role).and_then(|()| {
            let indexes: Vec<String> = request.indexes.iter().map(ToString::to_string).collect();
            write!(
                text,
                " indexes={} most_alive={:?} parameters={}",
                indexes.join(","),
                request.most_alive,
                request.parameters.len()
            )
        }),
        Command::Cancel { reason, .. } | Command::CancelArray { reason, .. } => {
            write!(text, "reason={:?}", reason.as_deref().unwrap_or(""))
        }
        Command::Justify { reason, for_ms, .. } => {
            write!(text, "reason={reason:?} for_ms={for_ms:?}")
        }
        Command::NoteUse { uses } => uses.iter().try_for_each(|seen| match seen.idle {
            Some(stretch) => write!(
                text,
                "{}/{} idle from {} until {}; ",
                seen.run, seen.attempt, stretch.since_us, stretch.until_us
            ),
            None => write!(text, "{}/{} not known to idle; ", seen.run, seen.attempt),
        }),
        Command::Place { placements } => placements.iter().try_for_each(|placement| {
            let nodes: Vec<&str> = placement
                .members
                .iter()
                .map(|member| member.node.as_str())
                .collect();
            write!(
                text,
                "{}/{} on {}; ",
                placement.run,
                placement.attempt,
                nodes.join("+")
            )
        }),
        Command::Preempt { preemptions } => preemptions.iter().try_for_each(|preemption| {
            write!(
                text,
                "{}/{} for {}; ",
                preemption.run, preemption.attempt, preemption.claimant
            )
        }),
        Command::Report { members, .. } => members.iter().try_for_each(|member| {
            write!(
                text,
                "{}/{}/{} {:?}; ",
                member.key.run, member.key.attempt, member.key.member, member.phase
            )
        }),
        Command::RegisterNode { description } => write!(
            text,
            "pool={} devices={} boot={}",
            description.pool,
            description.devices.len(),
            description.boot_id
        ),
        Command::Cordon { reason, .. } => write!(text, "reason={reason:?}"),
        Command::Drain {
            reason, grace_ms, ..
        } => write!(text, "reason={reason:?} grace_ms={grace_ms}"),
        Command::SetPool {
            description,
            order,
            age_bound_ms,
            ..
        } => write!(text, "description={description:?}").and_then(|()| {
            if let Some(order) = order {
                write!(text, " order={}", order.as_str())?;
            }
            if let Some(age_bound_ms) = age_bound_ms {
                write!(text, " age_bound_ms={age_bound_ms}")?;
            }
            Ok(())
        }),
        Command::CreateTenant { parent, weight, .. } => write!(
            text,
            "parent={:?} weight={weight:?}",
            parent.as_ref().map(TenantName::as_str)
        ),
        Command::SetTenant { parent, weight, .. } => {
            write!(text, "parent={parent:?} weight={weight:?}")
        }
        Command::SetQuota(change) => write!(
            text,
            "gpu_milli={:?} limit_milli={:?} lend_milli={:?}",
            change.gpu_milli, change.limit_milli, change.lend_milli
        ),
        Command::SetPolicy { policy } => write!(text, "{policy:?}"),
        Command::SetBudget { budget } => write!(
            text,
            "scope={} amount_micro={} period={} warn_at_percent={} stop={}",
            budget.scope,
            budget.amount_micro,
            budget.period.as_str(),
            budget.warn_at_percent,
            budget.stop
        ),
        Command::CreateToken { token, .. } => {
            write!(
                text,
                "user={} tenant={} role={}",
                token.user,
                token.tenant,
                token.role.as_str()
            )
        }
        Command::LoseNode { .. }
        | Command::Uncordon { .. }
        | Command::Evict { .. }
        | Command::RevokeToken { .. }
        | Command::RemoveBudget { .. }
        | Command::Tick
        | Command::KeepDecisions { .. }
        | Command::AcknowledgeOutbox { .. } => Ok(()),
    };
    debug_assert!(written.is_ok(), "writing to a string does not fail");
    if text.len() > LONGEST_DETAIL {
        let mut end = LONGEST_DETAIL;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}
