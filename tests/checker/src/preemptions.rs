//! Who is stopped for whom: by what right, not too early, and never in vain.

use crate::books::Books;
use crate::completeness::reserved_from;
use crate::placements::why_not;
use crate::room::Ask;
use crate::tree::Tree;
use crate::{Claims, Violation};
use coordinator_core::model::{NodeName, Run, RunId, RunPhase, TenantName};
use coordinator_core::scheduler::Plan;
use coordinator_core::state::{Preemption, State};
use std::collections::{BTreeMap, BTreeSet};

/// One waiting run and those that the plan stops for it.
struct Group<'a> {
    claimant: &'a Run,
    victims: BTreeSet<RunId>,
}

/// Judges each preemption in order, then what each claimant's amount to.
pub fn judge(
    state: &State,
    books: &Books<'_>,
    plan: &Plan,
    claims: &Claims<'_>,
    now_us: u64,
    violations: &mut Vec<Violation>,
) {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for preemption in &plan.preemptions {
        let Some((victim, claimant)) = judge_form(state, plan, preemption, now_us, violations)
        else {
            continue;
        };
        let stopped: BTreeSet<RunId> = groups
            .iter()
            .flat_map(|group| group.victims.iter().copied())
            .collect();
        if stopped.contains(&victim.id) {
            violations.push(Violation::NotStoppable { run: victim.id });
            continue;
        }
        let others = groups
            .iter()
            .map(|group| group.claimant)
            .chain(claims.awaited.values().map(|(run, _)| *run))
            .filter(|other| other.id != claimant.id);
        if let Some(why) = why_no_right(state, books, claimant, victim, others, &stopped) {
            violations.push(Violation::NoRight {
                run: victim.id,
                claimant: claimant.id,
                why,
            });
        }
        match groups
            .iter_mut()
            .find(|group| group.claimant.id == claimant.id)
        {
            Some(group) => drop(group.victims.insert(victim.id)),
            None => groups.push(Group {
                claimant,
                victims: BTreeSet::from([victim.id]),
            }),
        }
    }
    for position in 0..groups.len() {
        let claimant = groups[position].claimant;
        // Where it might be tried on several models, one is enough.
        let mut found = Ask::ways(state, claimant)
            .into_iter()
            .map(|ask| judge_need(state, books, plan, (&groups, position), &ask, claims));
        let first = found.next().unwrap_or_default();
        if !first.is_empty() && found.all(|found| !found.is_empty()) {
            violations.extend(first);
        }
    }
    judge_together(state, books, &groups, claims, violations);
}

fn judge_form<'a>(
    state: &'a State,
    plan: &Plan,
    preemption: &Preemption,
    now_us: u64,
    violations: &mut Vec<Violation>,
) -> Option<(&'a Run, &'a Run)> {
    let claimant = state.runs().get(&preemption.claimant).filter(|run| {
        let is_placed = plan
            .placements
            .iter()
            .any(|placement| placement.run == run.id);
        run.phase == RunPhase::Queued && !is_placed
    });
    let Some(claimant) = claimant else {
        violations.push(Violation::NoClaimant {
            run: preemption.run,
            claimant: preemption.claimant,
        });
        return None;
    };
    let victim = state.runs().get(&preemption.run).filter(|run| {
        run.phase == RunPhase::Active
            && run.attempts.last().is_some_and(|attempt| {
                attempt.number == preemption.attempt && attempt.stopping.is_none()
            })
    });
    let Some(victim) = victim else {
        violations.push(Violation::NotStoppable {
            run: preemption.run,
        });
        return None;
    };
    if victim.spec.pool != claimant.spec.pool {
        violations.push(Violation::OtherPool {
            run: victim.id,
            pool: victim.spec.pool.clone(),
            claimant: claimant.id,
        });
        return None;
    }
    if !victim.spec.preemptible {
        violations.push(Violation::Unpreemptible { run: victim.id });
    }
    let placed_us = victim
        .attempts
        .last()
        .map_or(0, |attempt| attempt.placed_us);
    let exempt_until_us =
        placed_us.saturating_add(state.policy().minimum_run_ms.saturating_mul(1000));
    if exempt_until_us > now_us {
        violations.push(Violation::TooYoung {
            run: victim.id,
            exempt_until_us,
        });
    }
    Some((victim, claimant))
}

/// Within a tenant a higher priority of a class that may takes; from another tenant only the owner of what it borrows.
/// Whoever stops is counted as gone, and whoever that is for as being there.
fn why_no_right<'a>(
    state: &State,
    books: &Books<'_>,
    claimant: &Run,
    victim: &Run,
    others: impl Iterator<Item = &'a Run>,
    stopped: &BTreeSet<RunId>,
) -> Option<String> {
    if claimant.tenant == victim.tenant {
        if claimant.spec.never_preempts {
            return Some("its class stops nobody of its tenant".to_owned());
        }
        let (asks, holds) = (claimant.spec.priority, victim.spec.priority);
        return (asks <= holds).then(|| format!("priority {asks} against {holds}"));
    }
    let pool = claimant.spec.pool.as_ref()?;
    let tree = Tree::new(state.tenants(), pool, None);
    // One that awaits others' end may be given more victims by this plan, and asks for no more by that.
    let claimed: BTreeMap<RunId, &Run> = others
        .filter(|run| run.spec.pool.as_ref() == Some(pool))
        .map(|run| (run.id, run))
        .collect();
    let leaving: BTreeSet<RunId> = state
        .runs()
        .values()
        .filter(|run| {
            run.phase == RunPhase::Active
                && run
                    .attempts
                    .last()
                    .is_some_and(|attempt| attempt.stopping.is_some())
        })
        .map(|run| run.id)
        .chain(stopped.iter().copied())
        .collect();
    let rest = books.without(&leaving);
    let staying = |model: Option<&str>, name: &TenantName| rest.used_milli(name, pool, model);
    // Which of the models that others accept they will hold nobody knows: what could be is left out.
    let with_claims = |model: Option<&str>, name: &TenantName| {
        let more = claimed
            .values()
            .filter(|run| model.is_none() && tree.is_below(&run.tenant, name))
            .map(|run| Ask::of(run, state.policy()).total_milli());
        staying(model, name) + more.sum::<u64>()
    };
    let (owner, borrower) = (&claimant.tenant, &victim.tenant);
    let mut why = None;
    for ask in Ask::ways(state, claimant) {
        let meters = ask.meters(state);
        for by in &meters {
            if by.is_some_and(|model| !books.holds_model(victim.id, model)) {
                continue;
            }
            let asked = ask.total_milli();
            let tree = Tree::new(state.tenants(), pool, *by);
            let denied = tree.why_not_reclaim(
                owner,
                asked,
                borrower,
                &|name| with_claims(*by, name),
                &|name| staying(*by, name),
            );
            let is_within = meters.iter().filter(|other| *other != by).all(|other| {
                let tree = Tree::new(state.tenants(), pool, *other);
                tree.is_within_beside(owner, asked, borrower, &|name| with_claims(*other, name))
            });
            match denied {
                None if is_within => return None,
                None => why = Some(format!("{owner} is not within its own beside {by:?}")),
                denied => why = why.or(denied),
            }
        }
    }
    why.or(Some("no model will do".to_owned()))
}

/// With all of its victims gone a claimant fits and stands, and without any one of them it does not.
fn judge_need(
    state: &State,
    books: &Books<'_>,
    plan: &Plan,
    (groups, position): (&[Group<'_>], usize),
    ask: &Ask<'_>,
    claims: &Claims<'_>,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    let group = &groups[position];
    let claimant = group.claimant;
    let members = claimant.spec.nodes;
    let gone: BTreeSet<RunId> = claims.leaving.union(&group.victims).copied().collect();
    let fitting = ask.fitting(state, &books.without(&gone)).len();
    if fitting < members as usize {
        violations.push(Violation::StoppedInVain {
            claimant: claimant.id,
            fitting,
            members,
        });
        return violations;
    }
    let before: BTreeSet<RunId> = groups[..position]
        .iter()
        .flat_map(|earlier| earlier.victims.iter().copied())
        .collect();
    let all_gone: BTreeSet<RunId> = gone.union(&before).copied().collect();
    let earlier: Vec<&Run> = groups[..position]
        .iter()
        .map(|group| group.claimant)
        .collect();
    if let Some(why) = why_not_standing(state, books, (claimant, ask), &earlier, &all_gone, claims)
    {
        violations.push(Violation::WouldNotStand {
            claimant: claimant.id,
            why,
        });
        return violations;
    }
    // However the others' members are laid out, they take no more nodes than they have members.
    let of_others: usize = groups
        .iter()
        .map(|group| group.claimant)
        .chain(claims.awaited.values().map(|(run, _)| *run))
        .filter(|run| run.id != claimant.id && run.spec.pool == claimant.spec.pool)
        .map(|run| run.spec.nodes as usize)
        .sum();
    let reserved = reserved_from(claimant, plan);
    for victim in &group.victims {
        let others_gone: BTreeSet<RunId> =
            gone.iter().copied().filter(|run| run != victim).collect();
        let mut fitting = ask.fitting(state, &books.without(&others_gone));
        fitting.retain(|node| !reserved.contains(node));
        let fitting = fitting.len();
        if fitting < of_others + members as usize {
            continue;
        }
        let mut all_gone = all_gone.clone();
        all_gone.remove(victim);
        if why_not_standing(state, books, (claimant, ask), &earlier, &all_gone, claims).is_none() {
            violations.push(Violation::NeedlessVictim {
                run: *victim,
                claimant: claimant.id,
                fitting,
                members,
            });
        }
    }
    violations
}

/// What would hold a claimant up once these have gone, and those that go before it have started.
fn why_not_standing(
    state: &State,
    books: &Books<'_>,
    (claimant, ask): (&Run, &Ask<'_>),
    earlier: &[&Run],
    gone: &BTreeSet<RunId>,
    claims: &Claims<'_>,
) -> Option<String> {
    let pool = claimant.spec.pool.as_ref()?;
    let tree = Tree::new(state.tenants(), pool, None);
    let awaited = claims
        .awaited
        .values()
        .filter(|(run, _)| run.id != claimant.id);
    let mut gone = gone.clone();
    gone.extend(
        awaited
            .clone()
            .flat_map(|(_, victims)| victims.iter().copied()),
    );
    let mut first: BTreeMap<RunId, &Run> = awaited.map(|(run, _)| (run.id, *run)).collect();
    first.extend(earlier.iter().map(|run| (run.id, *run)));
    let rest = books.without(&gone);
    let asked = |run: &Run| Ask::of(run, state.policy()).total_milli();
    let accepts = |run: &Run, model: &str| {
        let mut ways = Ask::ways(state, run).into_iter();
        // Of several it will be on one, and which is not known: only what is certain counts.
        let first = ways.next();
        ways.next().is_none() && first.is_some_and(|ask| ask.accepts_model(model))
    };
    let granted = |model: Option<&str>, name: &TenantName| rest.used_milli(name, pool, model);
    let used = |model: Option<&str>, name: &TenantName| {
        let started = first
            .values()
            .filter(|run| run.spec.pool.as_ref() == Some(pool) && tree.is_below(&run.tenant, name))
            .filter(|run| model.is_none_or(|model| accepts(run, model)))
            .map(|run| asked(run));
        granted(model, name) + started.sum::<u64>()
    };
    why_not(state, claimant, ask, &rest, &used, &granted)
        .err()
        .map(|violation| format!("{violation:?}"))
}

/// All claimants of the plan find nodes of their own, none of which two of them have to share.
fn judge_together(
    state: &State,
    books: &Books<'_>,
    groups: &[Group<'_>],
    claims: &Claims<'_>,
    violations: &mut Vec<Violation>,
) {
    // One seat for each member: an augmenting path finds it a node, moving others along.
    let mut seats: Vec<(RunId, Vec<&NodeName>)> = Vec::new();
    let mut taken: BTreeMap<&NodeName, usize> = BTreeMap::new();
    for group in groups {
        let gone: BTreeSet<RunId> = claims.leaving.union(&group.victims).copied().collect();
        let ask = Ask::of(group.claimant, state.policy());
        let fitting = ask.fitting(state, &books.without(&gone));
        if fitting.len() < group.claimant.spec.nodes as usize {
            continue;
        }
        for _ in 0..group.claimant.spec.nodes {
            seats.push((group.claimant.id, fitting.clone()));
            let seat = seats.len() - 1;
            if !seat_one(seat, &seats, &mut taken, &mut BTreeSet::new()) {
                violations.push(Violation::ClaimsCollide {
                    claimant: group.claimant.id,
                });
                return;
            }
        }
    }
}

fn seat_one<'a>(
    seat: usize,
    seats: &[(RunId, Vec<&'a NodeName>)],
    taken: &mut BTreeMap<&'a NodeName, usize>,
    tried: &mut BTreeSet<&'a NodeName>,
) -> bool {
    for node in &seats[seat].1 {
        if !tried.insert(node) {
            continue;
        }
        let moves = match taken.get(node).copied() {
            None => true,
            Some(other) => seat_one(other, seats, taken, tried),
        };
        if moves {
            taken.insert(node, seat);
            return true;
        }
    }
    false
}
