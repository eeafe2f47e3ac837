//! Every placement beside what is held and what the plan gave before it.

use crate::books::Books;
use crate::room::Ask;
use crate::tree::{Standing, Tree};
use crate::{Claims, Violation, topology};
use coordinator_core::model::{DeviceDescription, Run, RunId, RunPhase, TenantName};
use coordinator_core::scheduler::Plan;
use coordinator_core::state::{Placement, State};
use std::collections::{BTreeMap, BTreeSet};

/// What is held once the placements are made.
pub struct Placed<'a> {
    pub books: Books<'a>,
    /// Runs that were given devices, and whether they borrow.
    pub runs: BTreeMap<RunId, bool>,
}

/// Judges placements one after another.
pub fn judge<'a>(
    state: &'a State,
    before: &Books<'a>,
    plan: &Plan,
    claims: &Claims<'_>,
    violations: &mut Vec<Violation>,
) -> Placed<'a> {
    // Whether nothing is kept for anybody, so that each could have had any room.
    let is_free_choice = plan.reservations.is_empty() && claims.awaited.is_empty();
    let mut placed = Placed {
        books: before.clone(),
        runs: BTreeMap::new(),
    };
    for placement in &plan.placements {
        let run = state.runs().get(&placement.run);
        let Some(run) = run.filter(|run| run.phase == RunPhase::Queued) else {
            violations.push(Violation::NotWaiting { run: placement.run });
            continue;
        };
        if placed.runs.contains_key(&run.id) {
            violations.push(Violation::PlacedTwice { run: run.id });
            continue;
        }
        if crate::is_held(state, run) {
            violations.push(Violation::Held { run: run.id });
        }
        judge_form(run, placement, violations);
        let ways = Ask::ways(state, run);
        let Some(ask) = as_planned(state, &ways, placement) else {
            violations.push(Violation::MixedModels { run: run.id });
            continue;
        };
        let borrows = judge_standing(state, run, ask, &placed.books, violations);
        topology::judge(
            state,
            (run, ask),
            placement,
            &placed.books,
            &plan.reservations,
            is_free_choice,
            violations,
        );
        judge_members(state, run, placement, &mut placed.books, violations);
        placed.runs.insert(run.id, borrows);
    }
    placed
}

fn judge_form(run: &Run, placement: &Placement, violations: &mut Vec<Violation>) {
    let next = run.attempts.len() as u64 + 1;
    if u64::from(placement.attempt) != next {
        violations.push(Violation::WrongAttempt {
            run: run.id,
            planned: placement.attempt,
            next,
        });
    }
    if placement.members.len() as u64 != u64::from(run.spec.nodes) {
        violations.push(Violation::IncompleteGang {
            run: run.id,
            planned: placement.members.len(),
            asked: run.spec.nodes,
        });
    }
    let mut seen = BTreeSet::new();
    for member in &placement.members {
        if !seen.insert(&member.node) {
            violations.push(Violation::SharedNode {
                run: run.id,
                node: member.node.clone(),
            });
        }
    }
}

/// The way in which it was tried: where it may be on one of several models, all of its devices are of one.
fn as_planned<'w, 'a>(
    state: &State,
    ways: &'w [Ask<'a>],
    placement: &Placement,
) -> Option<&'w Ask<'a>> {
    let planned: Vec<&DeviceDescription> = placement
        .members
        .iter()
        .filter_map(|member| Some((member, state.nodes().get(&member.node)?)))
        .flat_map(|(member, node)| {
            let devices = node.description.devices.iter();
            devices.filter(|device| member.devices.contains(&device.id))
        })
        .collect();
    match ways {
        // Whether a single way accepts them is judged by itself.
        [only] => Some(only),
        _ => ways
            .iter()
            .find(|ask| planned.iter().all(|device| ask.accepts(device))),
    }
}

/// Whether it borrows; and whether it may hold so much more at all.
fn judge_standing(
    state: &State,
    run: &Run,
    ask: &Ask<'_>,
    books: &Books<'_>,
    violations: &mut Vec<Violation>,
) -> bool {
    let used = |model: Option<&str>, name: &TenantName| match &run.spec.pool {
        Some(pool) => books.used_milli(name, pool, model),
        None => 0,
    };
    match why_not(state, run, ask, books, &used, &used) {
        Ok(borrows) => borrows,
        Err(violation) => {
            violations.push(violation);
            true
        }
    }
}

/// Whether a run may hold what it asks, by `used` for guarantees and ceilings and by `granted` for
/// what is kept; and if it may, whether it borrows.
pub fn why_not(
    state: &State,
    run: &Run,
    ask: &Ask<'_>,
    books: &Books<'_>,
    used: UsedOf<'_>,
    granted: UsedOf<'_>,
) -> Result<bool, Violation> {
    let Some(pool) = &run.spec.pool else {
        return Ok(false);
    };
    let mut borrows = false;
    for model in ask.meters(state) {
        let tree = Tree::new(state.tenants(), pool, model);
        let used = |name: &TenantName| used(model, name);
        let granted = |name: &TenantName| granted(model, name);
        let idle_milli = books.idle_milli(pool, model);
        borrows |= why_not_by(&tree, run, ask.total_milli(), idle_milli, &used, &granted)?;
    }
    Ok(borrows)
}

/// What tenants hold, of one model or of all.
pub type UsedOf<'u> = &'u dyn Fn(Option<&str>, &TenantName) -> u64;

fn why_not_by(
    tree: &Tree<'_>,
    run: &Run,
    asked_milli: u64,
    idle_milli: u64,
    used: &dyn Fn(&TenantName) -> u64,
    granted: &dyn Fn(&TenantName) -> u64,
) -> Result<bool, Violation> {
    match tree.standing(&run.tenant, asked_milli, used) {
        Standing::Guaranteed => Ok(false),
        Standing::OverLimit {
            tenant,
            used_milli,
            limit_milli,
        } => Err(Violation::OverLimit {
            run: run.id,
            tenant,
            used_milli,
            asked_milli,
            limit_milli,
        }),
        Standing::Borrows(borrowed_milli) if !run.spec.preemptible => {
            Err(Violation::BorrowsForGood {
                run: run.id,
                borrowed_milli,
            })
        }
        Standing::Borrows(_) => {
            let kept_milli = tree.kept_from_milli(&run.tenant, granted);
            if kept_milli > 0 && asked_milli + kept_milli > idle_milli {
                return Err(Violation::NotLent {
                    run: run.id,
                    asked_milli,
                    idle_milli,
                    kept_milli,
                });
            }
            Ok(true)
        }
    }
}

fn judge_members(
    state: &State,
    run: &Run,
    placement: &Placement,
    books: &mut Books<'_>,
    violations: &mut Vec<Violation>,
) {
    let ask = Ask::of(run, state.policy());
    for member in &placement.members {
        let name = &member.node;
        let Some(node) = state.nodes().get(name) else {
            violations.push(Violation::WrongNode {
                run: run.id,
                node: name.clone(),
                why: "it does not exist",
            });
            continue;
        };
        if let Some(why) = ask.why_never_on(node) {
            violations.push(Violation::WrongNode {
                run: run.id,
                node: name.clone(),
                why,
            });
        }
        let devices: Vec<&DeviceDescription> = node
            .description
            .devices
            .iter()
            .filter(|device| member.devices.contains(&device.id))
            .collect();
        let (found, planned) = (devices.len() as u64, member.devices.len() as u64);
        if found != ask.devices() || planned != ask.devices() {
            violations.push(Violation::WrongDevices {
                run: run.id,
                node: name.clone(),
                found,
                planned,
                asked: ask.devices(),
            });
        }
        for device in &devices {
            if !ask.accepts(device) {
                violations.push(Violation::WrongModel {
                    run: run.id,
                    device: device.id.clone(),
                    model: device.model.clone(),
                });
            } else if !ask.fits_device(name, device, books) {
                let (share, memory) = books.of_device(name, &device.id);
                violations.push(Violation::DeviceOverfull {
                    run: run.id,
                    device: device.id.clone(),
                    share_milli: share + ask.share_milli(),
                    memory_mib: memory.saturating_add(ask.memory_mib(device)),
                    device_memory_mib: device.memory_mib,
                });
            }
        }
        if !ask.fits_host(node, books) {
            let (cpu, memory) = books.of_node(name);
            violations.push(Violation::NodeOverfull {
                run: run.id,
                node: name.clone(),
                cpu_milli: cpu.saturating_add(ask.cpu_milli()),
                memory_mib: memory.saturating_add(ask.node_memory_mib()),
            });
        }
        books.add(name.clone(), ask.holding(run, devices));
    }
}
