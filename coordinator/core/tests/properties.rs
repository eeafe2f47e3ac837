//! Random histories, valid and not: whatever is asked in whatever order, the invariants hold, the
//! ledger is the integral of allocation, replay gives the same state, and everything comes to an end.

#[path = "../src/fixtures.rs"]
#[allow(dead_code, reason = "the table tests use the rest")]
mod fixtures;

use coordinator_core::model::*;
use coordinator_core::scheduler::{Plan, Planner, plan};
use coordinator_core::state::{Command, Entry, Event, ParentChange, QuotaChange, State};
use fixtures::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NODES: [(&str, &str, &str); 4] = [
    ("node-1", "default", "2xA100-80G"),
    ("node-2", "default", "2xA100-80G,T4-16G"),
    ("node-3", "default", "T4-16G"),
    ("node-4", "gold", "2xH100-80G"),
];
/// What those nodes have, as they report it.
const MODELS: [&str; 2] = ["A100-80G", "T4-16G"];
const TENANTS: [&str; 3] = ["default", "nlp", "vision"];

/// One step of a history. Numbers choose among what is there when the step is taken.
#[derive(Debug, Clone)]
enum Step {
    Submit(Box<WorkloadSpec>, Option<u8>),
    /// So many elements, so many at once; one may say none.
    Array(Box<WorkloadSpec>, u8, Option<u8>, Vec<(u8, bool)>),
    CancelArray(u8),
    /// Each is to follow some runs, with success or however they end.
    Follow(Box<WorkloadSpec>, Vec<(u8, bool)>),
    Plan,
    PlaceAnywhere(u8, u8, u8),
    Progress(u8, MemberPhase),
    End(u8, EndKind),
    Stale(u8),
    Cancel(u8),
    Lose(u8),
    Register(u8, Change),
    Cordon(u8),
    Uncordon(u8),
    Drain(u8, u16),
    Evict(u8),
    /// For which model, if for one; guarantee, limit and what is lent.
    Quota(u8, Option<bool>, Option<(u16, Option<u16>, Option<u16>)>),
    /// A tenant goes under another, or to the top.
    Parent(u8, Option<u8>),
    Cap(Option<u32>),
    /// Which model, what it costs, and in how many microseconds; absent: from now on.
    Price(bool, u32, Option<u16>),
    /// Which budget: its amount, and whether it stops; absent: removed.
    Budget(u8, Option<(u16, bool)>),
    Acknowledge(u8),
    PassTime,
}

/// What is different when a node registers again.
#[derive(Debug, Clone)]
enum Change {
    Nothing,
    Reboot,
    OneDeviceLess,
    SmallerDevice,
    LessMemory,
}

fn specs() -> impl Strategy<Value = WorkloadSpec> {
    let devices = prop_oneof![
        3 => (0_u32..4).prop_map(gpus),
        2 => (1_u32..1_001).prop_map(share),
        1 => Just(spec()),
    ];
    (
        devices,
        prop_oneof![4 => Just(1_u32), 2 => Just(2), 1 => Just(3)],
        proptest::option::weighted(0.2, 1_u64..90_000),
        proptest::option::weighted(0.3, prop_oneof![Just("A100-80G"), Just("T4-16G")]),
        proptest::option::weighted(
            0.3,
            prop_oneof![Just("default"), Just("gold"), Just("none")],
        ),
        proptest::option::weighted(0.3, 0_u64..80_000),
        (
            -2_i32..3,
            0_u32..3,
            any::<bool>(),
            0_usize..4,
            prop::bool::weighted(0.8),
            proptest::option::weighted(0.2, 1_u64..40),
        ),
    )
        .prop_map(
            |(
                spec,
                nodes,
                memory,
                model,
                pool,
                cpu,
                (priority, retries, for_model, tenant, preemptible, start_deadline_ms),
            )| {
                WorkloadSpec {
                    nodes,
                    gpu_memory_mib: memory,
                    gpu_model: model.map(str::to_owned),
                    pool: pool.map(pool_name),
                    cpu_milli: cpu,
                    memory_mib: cpu,
                    priority,
                    retries,
                    start_deadline_ms,
                    preemptible,
                    model: for_model.then(|| "bert".to_owned()),
                    tenant: TENANTS.get(tenant).copied().map(tenant_name),
                    ..spec
                }
            },
        )
}

fn ends() -> impl Strategy<Value = EndKind> {
    prop_oneof![
        4 => Just(EndKind::Exited { code: 0 }),
        2 => Just(EndKind::Exited { code: 1 }),
        1 => Just(EndKind::Signaled { signal: 9 }),
        2 => Just(EndKind::Stopped),
        1 => Just(EndKind::TimeLimit),
        1 => any::<bool>().prop_map(|node_fault| EndKind::LaunchFailed { node_fault }),
        1 => Just(EndKind::Fenced),
        1 => Just(EndKind::Lost),
        1 => Just(EndKind::OutOfMemory),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let any_u8 = any::<u8>;
    prop_oneof![
        8 => (specs(), proptest::option::weighted(0.2, 0_u8..4))
            .prop_map(|(spec, key)| Step::Submit(Box::new(spec), key)),
        2 => (
            specs(),
            0_u8..6,
            proptest::option::weighted(0.8, 0_u8..4),
            proptest::collection::vec((any_u8(), any::<bool>()), 0..2),
        )
            .prop_map(|(spec, size, most, after)| {
                Step::Array(Box::new(spec), size, most, after)
            }),
        1 => any_u8().prop_map(Step::CancelArray),
        2 => (specs(), proptest::collection::vec((any_u8(), any::<bool>()), 1..3))
            .prop_map(|(spec, after)| Step::Follow(Box::new(spec), after)),
        6 => Just(Step::Plan),
        2 => (any_u8(), any_u8(), any_u8()).prop_map(|(a, b, c)| Step::PlaceAnywhere(a, b, c)),
        4 => (any_u8(), prop_oneof![
            Just(MemberPhase::Assigned),
            Just(MemberPhase::Preparing),
            Just(MemberPhase::Running)
        ])
        .prop_map(|(which, phase)| Step::Progress(which, phase)),
        6 => (any_u8(), ends()).prop_map(|(which, kind)| Step::End(which, kind)),
        1 => any_u8().prop_map(Step::Stale),
        2 => any_u8().prop_map(Step::Cancel),
        1 => any_u8().prop_map(Step::Lose),
        2 => (any_u8(), prop_oneof![
            Just(Change::Nothing),
            Just(Change::Reboot),
            Just(Change::OneDeviceLess),
            Just(Change::SmallerDevice),
            Just(Change::LessMemory)
        ])
        .prop_map(|(node, change)| Step::Register(node, change)),
        1 => any_u8().prop_map(Step::Cordon),
        1 => any_u8().prop_map(Step::Uncordon),
        1 => (any_u8(), any::<u16>()).prop_map(|(node, grace)| Step::Drain(node, grace)),
        1 => any_u8().prop_map(Step::Evict),
        5 => (any_u8(), proptest::option::weighted(0.4, any::<bool>()), proptest::option::weighted(0.8, (
            0_u16..5_000,
            proptest::option::of(0_u16..6_000),
            proptest::option::of(0_u16..3_000),
        )))
        .prop_map(|(tenant, of_t4, line)| Step::Quota(tenant, of_t4, line)),
        1 => (any_u8(), proptest::option::of(any_u8()))
            .prop_map(|(tenant, parent)| Step::Parent(tenant, parent)),
        1 => proptest::option::of(1_000_u32..90_000).prop_map(Step::Cap),
        2 => (any::<bool>(), any::<u32>(), proptest::option::of(1_u16..20_000))
            .prop_map(|(model, price, later)| Step::Price(model, price, later)),
        2 => (any_u8(), proptest::option::weighted(0.8, (1_u16..20_000, prop::bool::weighted(0.3))))
            .prop_map(|(which, budget)| Step::Budget(which, budget)),
        1 => any_u8().prop_map(Step::Acknowledge),
        2 => Just(Step::PassTime),
    ]
}

/// A history under way: the world, its members seen so far, and the test's own books.
struct History {
    world: World,
    /// Integral of allocation in thousandths times microseconds, kept by the test alone.
    integral: u128,
    /// The same, each moment at its price.
    charged: u128,
    /// Ledger rows that have left by the outbox.
    booked: u128,
    /// The same at their prices.
    booked_charge: u128,
    next_sequence: u64,
    /// Kept from the first step to the last, while the world plans with a new one each time.
    planner: Planner,
}

impl History {
    fn new() -> Self {
        let mut world = World::new();
        // A fifth of a second before the first week of 1970 ends: periods end while runs run.
        world.now_us = 4 * DAY_US - 200_000;
        for (name, pool, devices) in NODES {
            world.join(describe(name, pool, devices));
        }
        for tenant in &TENANTS[1..] {
            world.accept(Command::CreateTenant {
                tenant: tenant_name(tenant),
                parent: None,
                weight: None,
            });
        }
        // Steps are milliseconds apart: some attempts are old enough to be preempted, some are not, and
        // some runs have waited for long enough to have devices kept.
        world.set_policy(|policy| {
            policy.minimum_run_ms = 5;
            policy.reservation_after_ms = 20;
            policy.retry = RetryPolicy {
                first_wait_ms: 3,
                longest_wait_ms: 10,
            };
        });
        Self {
            world,
            integral: 0,
            charged: 0,
            booked: 0,
            booked_charge: 0,
            next_sequence: 1,
            planner: Planner::default(),
        }
    }

    /// Lets time pass, and counts what every device has granted meanwhile.
    fn pass(&mut self, elapsed_us: u64) {
        let granted: u128 = self
            .world
            .state
            .nodes()
            .values()
            .flat_map(|node| &node.devices)
            .map(|grants| u128::from(grants.share_milli))
            .sum();
        self.integral += granted * u128::from(elapsed_us);
        let until_us = self.world.now_us + elapsed_us;
        let to_come = self.world.state.policy().scheduled_prices.clone();
        for due in to_come.iter().filter(|price| price.from_us <= until_us) {
            self.charge_until(due.from_us);
            if self.world.state.is_due(due.from_us) {
                self.apply(Command::Tick);
            }
        }
        self.charge_until(until_us);
        // As the leader does where nothing else happens.
        if self.world.state.is_due(until_us) {
            self.apply(Command::Tick);
        }
    }

    /// What everything granted costs until then, by the prices of the policy as the state has it.
    fn charge_until(&mut self, until_us: u64) {
        let state = &self.world.state;
        let rate: u128 = state
            .nodes()
            .values()
            .flat_map(|node| node.description.devices.iter().zip(&node.devices))
            .map(|(device, grants)| {
                u128::from(grants.share_milli)
                    * u128::from(state.policy().price_per_gpu_hour_micro(&device.model))
            })
            .sum();
        self.charged += rate * u128::from(until_us - self.world.now_us);
        self.world.now_us = until_us;
    }

    fn apply(&mut self, command: Command) -> Vec<Event> {
        self.apply_keyed(command, None)
    }

    fn apply_keyed(&mut self, command: Command, key: Option<String>) -> Vec<Event> {
        let entry = Entry {
            stamp_us: self.world.now_us,
            actor: "user:ana".to_owned(),
            idempotency_key: key,
            command,
        };
        let events = self.world.apply_entry(entry);
        self.book();
        events
    }

    /// Reads the outbox like the exporter does, and checks that it has no gap.
    fn book(&mut self) {
        for record in self.world.state.outbox() {
            if record.sequence < self.next_sequence {
                continue;
            }
            assert_eq!(record.sequence, self.next_sequence, "the outbox has a gap");
            self.next_sequence += 1;
            if let OutboxBody::Ledger(row) = &record.body {
                self.booked += row.gpu_milli_us();
                self.booked_charge += charge(row);
            }
        }
    }

    fn ledger_matches(&self) {
        let rows = self.world.state.open_ledger_rows(self.world.now_us);
        let open: u128 = rows.iter().map(LedgerRow::gpu_milli_us).sum();
        assert_eq!(
            self.booked + open,
            self.integral,
            "the ledger is not the integral of allocation"
        );
        assert_eq!(
            self.booked_charge + rows.iter().map(charge).sum::<u128>(),
            self.charged,
            "a moment was not charged at its price"
        );
        let by_run: u128 = self
            .world
            .state
            .runs()
            .values()
            .flat_map(|run| coordinator_core::state::run_ledger_rows(run, self.world.now_us))
            .map(|row| row.gpu_milli_us())
            .sum();
        assert_eq!(by_run, self.integral, "the runs' own rows do not add up");
    }

    fn some_run(&self, which: u8) -> Option<RunId> {
        let count = self.world.state.runs().len();
        let position = usize::from(which).checked_rem(count)?;
        self.world.state.runs().keys().nth(position).copied()
    }

    /// A run, or the array that it is an element of.
    fn some_submission(&self, which: u8) -> Option<Submission> {
        let run = self.world.run(self.some_run(which)?);
        Some(match &run.element {
            Some(element) if which.is_multiple_of(2) => Submission::Array(element.array),
            _ => Submission::Run(run.id),
        })
    }

    /// A member of a last attempt, ended or not.
    fn some_member(&self, which: u8) -> Option<(RunId, u32)> {
        let members: Vec<(RunId, u32)> = self
            .world
            .state
            .runs()
            .values()
            .rev()
            .take(12)
            .filter_map(|run| Some((run.id, run.last_attempt()?)))
            .flat_map(|(run, attempt)| {
                (0_u32..)
                    .zip(&attempt.members)
                    .map(move |(member, _)| (run, member))
            })
            .collect();
        let position = usize::from(which).checked_rem(members.len())?;
        members.get(position).copied()
    }

    /// A planner that was kept proposes what a new one does, whether or not what it proposed before
    /// came to be.
    fn plan(&mut self) -> Plan {
        let kept = self.planner.plan(&self.world.state, self.world.now_us);
        let fresh = plan(&self.world.state, self.world.now_us);
        assert_eq!(kept, fresh, "a kept planner and a new one disagree");
        kept
    }

    fn some_dependencies(&self, after: Vec<(u8, bool)>) -> Vec<Dependency> {
        after
            .into_iter()
            .filter_map(|(which, any)| {
                Some(Dependency {
                    before: self.some_submission(which)?,
                    condition: if any { Condition::Any } else { Condition::Ok },
                })
            })
            .collect()
    }

    /// Nothing of a fresh plan may be refused, and no plan both gives a run devices and stops it.
    fn place_planned(&mut self) {
        let Plan {
            placements,
            preemptions,
            ..
        } = self.plan();
        for event in self.apply(Command::Place { placements }) {
            assert!(
                matches!(event, Event::RunPlaced { .. }),
                "a fresh plan was refused: {event:?}"
            );
        }
        for event in self.apply(Command::Preempt { preemptions }) {
            assert!(
                matches!(event, Event::RunStopping { .. }),
                "a fresh plan was refused: {event:?}"
            );
        }
    }

    fn take(&mut self, step: Step) {
        let node_at = |which: u8| node_name(NODES[usize::from(which) % NODES.len()].0);
        let reason = || "a test".to_owned();
        let command = match step {
            Step::Submit(spec, key) => {
                self.apply_keyed(submit(*spec), key.map(|key| format!("key-{key}")));
                return;
            }
            Step::Follow(mut spec, after) => {
                spec.after = self.some_dependencies(after);
                submit(*spec)
            }
            Step::Array(mut spec, size, most, after) => {
                spec.after = self.some_dependencies(after);
                let most = most.map_or_else(String::new, |most| format!("%{most}"));
                submit_array(&format!("1-{size}{most}"), *spec)
            }
            Step::CancelArray(which) => {
                let Some(Submission::Array(array)) = self.some_submission(which & !1) else {
                    return;
                };
                Command::CancelArray {
                    array,
                    reason: None,
                }
            }
            Step::Plan => return self.place_planned(),
            Step::PlaceAnywhere(which, node, index) => {
                let Some(run) = self.some_run(which) else {
                    return;
                };
                let node = NODES[usize::from(node) % NODES.len()].0;
                let attempt = self.world.run(run).attempts.len() as u32 + u32::from(index % 5 != 0);
                let index = u32::from(index) % 3;
                let members: [(&str, &[u32]); 1] = [(node, &[index])];
                Command::Place {
                    placements: vec![placement(run, attempt, &members)],
                }
            }
            Step::Progress(which, phase) => {
                let Some((run, member)) = self.some_member(which) else {
                    return;
                };
                let (node, mut report) = self.world.report_of(run, member, phase);
                report.detail = (which % 2 == 0).then(reason);
                Command::Report {
                    node,
                    members: vec![report],
                }
            }
            Step::End(which, kind) => {
                let Some((run, member)) = self.some_member(which) else {
                    return;
                };
                let (node, mut report) = self.world.report_of(run, member, MemberPhase::Ended);
                report.end = Some(end(kind));
                Command::Report {
                    node,
                    members: vec![report],
                }
            }
            Step::Stale(which) => {
                let Some((run, member)) = self.some_member(which) else {
                    return;
                };
                let (node, mut report) = self.world.report_of(run, member, MemberPhase::Ended);
                report.epoch = Epoch(report.epoch.0.saturating_sub(1));
                let before = self.world.state.runs().clone();
                self.apply(Command::Report {
                    node,
                    members: vec![report],
                });
                assert_eq!(&before, self.world.state.runs(), "a stale report wrote");
                return;
            }
            Step::Cancel(which) => {
                let Some(run) = self.some_run(which) else {
                    return;
                };
                Command::Cancel { run, reason: None }
            }
            Step::Lose(which) => Command::LoseNode {
                node: node_at(which),
            },
            Step::Register(which, change) => {
                let (name, pool, devices) = NODES[usize::from(which) % NODES.len()];
                let mut description = describe(name, pool, devices);
                let known = &self.world.state.nodes()[name].description.boot_id;
                description.boot_id.clone_from(known);
                match change {
                    Change::Nothing => {}
                    Change::Reboot => description.boot_id.push('x'),
                    Change::OneDeviceLess => drop(description.devices.remove(0)),
                    Change::SmallerDevice => description.devices[0].memory_mib /= 2,
                    Change::LessMemory => {
                        description.memory_mib /= 16;
                        description.cpu_milli /= 4;
                    }
                }
                Command::RegisterNode {
                    description: Box::new(description),
                }
            }
            Step::Cordon(which) => Command::Cordon {
                node: node_at(which),
                reason: reason(),
            },
            Step::Uncordon(which) => Command::Uncordon {
                node: node_at(which),
            },
            Step::Drain(which, grace) => Command::Drain {
                node: node_at(which),
                reason: reason(),
                grace_ms: u64::from(grace % 3),
            },
            Step::Evict(which) => Command::Evict {
                node: node_at(which),
            },
            Step::Quota(which, of_t4, line) => Command::SetQuota(QuotaChange {
                tenant: tenant_name(TENANTS[usize::from(which) % TENANTS.len()]),
                pool: pool_name("default"),
                model: of_t4.map(|of_t4| MODELS[usize::from(of_t4)].to_owned()),
                gpu_milli: line.map(|(quota, _, _)| u64::from(quota)),
                limit_milli: line.and_then(|(_, limit, _)| limit.map(u64::from)),
                lend_milli: line.and_then(|(_, _, lend)| lend.map(u64::from)),
            }),
            Step::Parent(which, parent) => Command::SetTenant {
                tenant: tenant_name(TENANTS[usize::from(which) % TENANTS.len()]),
                parent: parent.map_or(ParentChange::Top, |parent| {
                    ParentChange::Under(tenant_name(TENANTS[usize::from(parent) % TENANTS.len()]))
                }),
                weight: None,
            },
            Step::Cap(cap) => {
                let mut policy = self.world.state.policy().clone();
                policy.gpu_memory_cap_sums_mib = cap
                    .map(|cap| ("b*".to_owned(), 2 * u64::from(cap)))
                    .into_iter()
                    .collect();
                policy.gpu_memory_caps_mib = cap
                    .map(|cap| ("be*".to_owned(), u64::from(cap)))
                    .into_iter()
                    .collect();
                Command::SetPolicy {
                    policy: Box::new(policy),
                }
            }
            Step::Price(of_t4, price, later_us) => {
                let model = if of_t4 { "T4-16G" } else { "A100-80G" }.to_owned();
                let mut policy = self.world.state.policy().clone();
                match later_us {
                    None => drop(policy.gpu_hour_price_micro.insert(model, price.into())),
                    Some(later_us) => policy.scheduled_prices.push(ScheduledPrice {
                        from_us: self.world.now_us + u64::from(later_us),
                        gpu_model: model,
                        price_per_gpu_hour_micro: price.into(),
                    }),
                }
                Command::SetPolicy {
                    policy: Box::new(policy),
                }
            }
            Step::Budget(which, None) => Command::RemoveBudget {
                name: budget(which, 1, false).name,
            },
            Step::Budget(which, Some((amount, stop))) => Command::SetBudget {
                budget: Box::new(budget(which, amount, stop)),
            },
            Step::PassTime => Command::Tick,
            Step::Acknowledge(back) => Command::AcknowledgeOutbox {
                through: (self.next_sequence - 1).saturating_sub(u64::from(back % 8)),
            },
        };
        self.apply(command);
    }

    /// Everything is well again: every node is back as it was, no quota, no cap, no budget stands in the
    /// way.
    fn heal(&mut self) {
        let budgets: Vec<String> = self
            .world
            .state
            .budgets()
            .map(|account| account.budget.name.clone())
            .collect();
        for name in budgets {
            self.apply(Command::RemoveBudget { name });
        }
        let mut policy = self.world.state.policy().clone();
        policy.gpu_memory_cap_sums_mib.clear();
        self.apply(Command::SetPolicy {
            policy: Box::new(policy),
        });
        for (name, pool, devices) in NODES {
            let node = node_name(name);
            let mut description = describe(name, pool, devices);
            let known = &self.world.state.nodes()[name].description.boot_id;
            description.boot_id.clone_from(known);
            self.apply(Command::RegisterNode {
                description: Box::new(description),
            });
            self.apply(Command::Uncordon { node });
        }
        let models = MODELS.map(|model| Some(model.to_owned()));
        for model in models.into_iter().chain([None]) {
            for tenant in TENANTS {
                self.apply(Command::SetQuota(QuotaChange {
                    tenant: tenant_name(tenant),
                    pool: pool_name("default"),
                    model: model.clone(),
                    gpu_milli: None,
                    limit_milli: None,
                    lend_milli: None,
                }));
            }
        }
    }
}

/// One of a few budgets of tenants and of the tag that every run carries.
fn budget(which: u8, amount: u16, stop: bool) -> Budget {
    let scope = match TENANTS.get(usize::from(which) % 4) {
        Some(tenant) => BudgetScope::Tenant(tenant_name(tenant)),
        None => BudgetScope::Tag {
            key: "team".to_owned(),
            value: "nlp".to_owned(),
        },
    };
    Budget {
        name: format!("budget-{}", which % 8),
        scope,
        amount_micro: amount.into(),
        period: if which.is_multiple_of(3) {
            BudgetPeriod::Once
        } else {
            BudgetPeriod::Week
        },
        warn_at_percent: 80,
        stop,
        created_us: 0,
    }
}

/// What a row costs, exactly: millionths of the currency, times thousandths of a device, times
/// microseconds, for each hour.
fn charge(row: &LedgerRow) -> u128 {
    row.gpu_milli_us() * u128::from(row.price_per_gpu_hour_micro)
}

/// Every member of every live attempt ends well, or as it was told to.
fn end_all(history: &mut History) {
    let live: Vec<(RunId, u32, bool)> = history
        .world
        .state
        .live()
        .iter()
        .filter_map(|id| Some((*id, history.world.run(*id).last_attempt()?)))
        .flat_map(|(id, attempt)| {
            let stopping = attempt.stopping.is_some();
            (0_u32..)
                .zip(&attempt.members)
                .filter(|(_, member)| member.phase != MemberPhase::Ended)
                .map(move |(rank, _)| (id, rank, stopping))
        })
        .collect();
    for (run, member, stopping) in live {
        let kind = if stopping {
            EndKind::Stopped
        } else {
            EndKind::Exited { code: 0 }
        };
        let (node, mut report) = history.world.report_of(run, member, MemberPhase::Ended);
        report.end = Some(end(kind));
        history.apply(Command::Report {
            node,
            members: vec![report],
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_history_keeps_the_invariants_and_comes_to_an_end(
        steps in proptest::collection::vec((steps(), 0_u64..5_000), 1..120),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut history = History::new();
        for (step, elapsed_us) in steps {
            history.pass(elapsed_us);
            // World checks every invariant after every entry.
            history.take(step);
            history.ledger_matches();
            history.plan();
        }

        // Replay, and a snapshot with the tail behind it, give the same state (I11).
        let entries = history.world.entries.clone();
        let cut = cut.index(entries.len() + 1);
        let mut replayed = State::default();
        let mut from_snapshot = None;
        for (position, entry) in entries.iter().enumerate() {
            if position == cut {
                let bytes = rmp_serde::to_vec_named(&replayed).expect("a state encodes");
                from_snapshot = Some(rmp_serde::from_slice::<State>(&bytes).expect("and decodes"));
            }
            let events = replayed.apply(position as u64 + 1, entry);
            if let Some(state) = &mut from_snapshot {
                prop_assert_eq!(events, state.apply(position as u64 + 1, entry));
            }
        }
        prop_assert_eq!(replayed.digest(), history.world.state.digest());
        if let Some(state) = from_snapshot {
            prop_assert_eq!(state.digest(), history.world.state.digest());
            prop_assert_eq!(&state, &history.world.state, "what is derived, too");
        }

        // After everything has healed every run reaches an end (I6): each round ends all that is
        // placed, so the number of rounds is bounded by the number of runs, and one retry each.
        history.heal();
        let most_rounds = 2 * history.world.state.runs().len() + 2;
        for _ in 0..most_rounds {
            if history.world.state.live().is_empty() {
                break;
            }
            // As long as the longest wait before a retry.
            history.pass(10_000);
            history.apply(Command::Tick);
            end_all(&mut history);
            history.place_planned();
        }
        let live: Vec<_> = history.world.state.live().iter().map(|id| history.world.run(*id).clone()).collect();
        prop_assert!(live.is_empty(), "{:#?}", live);
        history.ledger_matches();
        prop_assert_eq!(history.world.state.open_ledger_rows(history.world.now_us), vec![]);
        for node in history.world.state.nodes().values() {
            prop_assert!(node.members.is_empty());
            prop_assert_eq!(node.cpu_reserved_milli, 0);
            prop_assert!(node.devices.iter().all(|grants| *grants == DeviceGrants::default()));
        }
    }

    #[test]
    fn what_is_admitted_is_placed_on_an_empty_cluster(
        spec in specs(),
        cap in proptest::option::of(1_000_u64..90_000),
    ) {
        let mut world = World::new();
        for (name, pool, devices) in NODES {
            world.join(describe(name, pool, devices));
        }
        for tenant in &TENANTS[1..] {
            world.accept(Command::CreateTenant { tenant: tenant_name(tenant), parent: None, weight: None });
        }
        let caps: BTreeMap<_, _> = cap.map(|cap| ("*".to_owned(), cap)).into_iter().collect();
        world.set_policy(|policy| policy.gpu_memory_caps_mib = caps);
        if let [Event::RunQueued { run, .. }] = world.apply(submit(spec)).as_slice() {
            prop_assert_eq!(world.plan_and_place(), vec![*run]);
            let grants = world.attempt(*run).members.iter().flat_map(|member| &member.devices);
            for grant in grants {
                let most = cap.filter(|_| world.run(*run).spec.model.is_some()).unwrap_or(u64::MAX);
                prop_assert!(grant.memory_mib <= most);
            }
        }
    }
}
