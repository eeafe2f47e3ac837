//! Random histories of clusters with a quota tree, in which every plan is judged and then applied:
//! nothing of a fresh plan may be wrong, and nothing of it may be refused.
//!
//! Others are explored with: PROPTEST_RNG_SEED=7 PROPTEST_CASES=2000 cargo test --package
//! platform-checker --test histories

#[path = "../../../coordinator/core/src/fixtures.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod fixtures;

use coordinator_core::model::*;
use coordinator_core::scheduler::plan;
use coordinator_core::state::{Command, Entry, Event, ParentChange, QuotaChange, State};
use fixtures::{describe, end, gpus, node_name, pool_name, share, submit, tenant_name};
use platform_checker::judge;
use proptest::prelude::*;

/// Each node of a cluster is one of these; the last are a pool of their own.
const KINDS: [(&str, &str); 6] = [
    ("default", "8xA100-80G"),
    ("default", "4xA100-80G"),
    ("default", "2xA100-40G,2xT4-16G"),
    ("default", "4xT4-16G"),
    ("gold", "8xH100-80G"),
    ("gold", "2xH100-80G,1xA100-80G"),
];
/// Models of the default pool, as its nodes report them.
const MODEL_LINES: [&str; 3] = ["A100-80G", "A100-40G", "T4-16G"];
const MODELS: [&str; 4] = ["A100", "A100-80G", "T4-16G", "H100-80G"];

/// Guarantee, limit and what is lent, in halves of devices.
type Line = (u8, Option<u8>, Option<u8>);

/// The tenant above (counted from the first; none: at the top), the weight, the lines in the two pools.
type TenantStart = (Option<u8>, u8, Option<Line>, Option<Line>);

/// A cluster and its tenants, at the start.
#[derive(Debug, Clone)]
struct Setting {
    /// Kinds of nodes.
    nodes: Vec<u8>,
    /// Whether it is known in which racks they stand.
    racks: bool,
    tenants: Vec<TenantStart>,
}

/// One step of a history. Numbers choose among what is there when the step is taken.
#[derive(Debug, Clone)]
enum Step {
    /// A spec for a tenant, so many times.
    Submit(Box<WorkloadSpec>, u8, u8),
    Plan,
    /// A member of a live run begins.
    Begin(u8),
    /// So many seconds pass.
    Pass(u8),
    /// A member of a live run ends.
    End(u8, bool),
    /// Every member that was told to stop has.
    StopAll,
    Cancel(u8),
    Cordon(u8),
    Uncordon(u8),
    Drain(u8),
    Lose(u8),
    Register(u8),
    Line(u8, bool, Option<Line>),
    /// The same for one model of the default pool.
    ModelLine(u8, u8, Option<Line>),
    Parent(u8, Option<u8>),
    Cap(Option<u16>),
}

fn lines() -> impl Strategy<Value = Line> {
    (
        0_u8..24,
        proptest::option::weighted(0.4, 0_u8..40),
        proptest::option::weighted(0.4, 0_u8..16),
    )
}

/// There are fewer devices of one model than of all.
fn model_lines() -> impl Strategy<Value = Line> {
    (
        0_u8..12,
        proptest::option::weighted(0.4, 0_u8..20),
        proptest::option::weighted(0.4, 0_u8..8),
    )
}

fn settings() -> impl Strategy<Value = Setting> {
    let tenant = (
        proptest::option::weighted(0.6, any::<u8>()),
        1_u8..4,
        proptest::option::weighted(0.6, lines()),
        proptest::option::weighted(0.3, lines()),
    );
    (
        proptest::collection::vec(0_u8..KINDS.len() as u8, 5..=40),
        any::<bool>(),
        proptest::collection::vec(tenant, 1..=12),
    )
        .prop_map(|(nodes, racks, tenants)| Setting {
            nodes,
            racks,
            tenants,
        })
}

fn specs() -> impl Strategy<Value = WorkloadSpec> {
    let devices = prop_oneof![
        4 => prop_oneof![Just(1_u32), Just(1), Just(2), Just(4), Just(8), Just(0)].prop_map(gpus),
        2 => prop_oneof![Just(500_u32), Just(250), Just(300), 1_u32..1_000].prop_map(share),
    ];
    (
        devices,
        prop_oneof![6 => Just(1_u32), 2 => Just(2), 1 => 3_u32..7],
        proptest::option::weighted(0.2, 1_000_u64..80_000),
        proptest::option::weighted(0.3, 0_usize..MODELS.len()),
        prop::bool::weighted(0.25),
        proptest::option::weighted(
            0.3,
            prop_oneof![Just(4_000_u64), Just(16_000), Just(60_000)],
        ),
        (
            proptest::option::weighted(0.3, prop_oneof![Just(10_u64), Just(600_000)]),
            prop_oneof![6 => Just((0_i32, 0_u32)), 2 => (-3_i32..4, 0_u32..3)],
            prop::bool::weighted(0.85),
            prop::bool::weighted(0.2),
            prop::bool::weighted(0.2),
            prop::bool::weighted(0.2),
        ),
    )
        .prop_map(
            |(
                spec,
                nodes,
                memory,
                model,
                gold,
                host,
                (limit, (priority, retries), preemptible, capped, never_preempts, spread),
            )| {
                WorkloadSpec {
                    nodes,
                    gpu_memory_mib: memory,
                    gpu_model: model.map(|model| MODELS[model].to_owned()),
                    pool: Some(pool_name(if gold { "gold" } else { "default" })),
                    cpu_milli: host,
                    memory_mib: host.map(|milli| milli * 2),
                    time_limit_ms: limit,
                    retries,
                    priority,
                    preemptible,
                    never_preempts,
                    spread,
                    model: capped.then(|| "bert".to_owned()),
                    ..spec
                }
            },
        )
}

fn steps() -> impl Strategy<Value = Step> {
    let some = any::<u8>;
    prop_oneof![
        16 => (specs(), some(), 1_u8..7)
            .prop_map(|(spec, tenant, times)| Step::Submit(Box::new(spec), tenant, times)),
        12 => Just(Step::Plan),
        4 => some().prop_map(Step::Begin),
        1 => (0_u8..100).prop_map(Step::Pass),
        6 => (some(), any::<bool>()).prop_map(|(which, well)| Step::End(which, well)),
        6 => Just(Step::StopAll),
        2 => some().prop_map(Step::Cancel),
        1 => some().prop_map(Step::Cordon),
        2 => some().prop_map(Step::Uncordon),
        1 => some().prop_map(Step::Drain),
        1 => some().prop_map(Step::Lose),
        2 => some().prop_map(Step::Register),
        3 => (some(), prop::bool::weighted(0.7), proptest::option::weighted(0.8, lines()))
            .prop_map(|(tenant, default, line)| Step::Line(tenant, default, line)),
        2 => (some(), some(), proptest::option::weighted(0.8, model_lines()))
            .prop_map(|(tenant, model, line)| Step::ModelLine(tenant, model, line)),
        1 => (some(), proptest::option::of(some()))
            .prop_map(|(tenant, parent)| Step::Parent(tenant, parent)),
        1 => proptest::option::of(any::<u16>()).prop_map(Step::Cap),
    ]
}

struct History {
    state: State,
    now_us: u64,
    index: u64,
    nodes: Vec<(NodeName, NodeDescription)>,
    tenants: Vec<TenantName>,
}

impl History {
    fn new(setting: &Setting) -> Self {
        let nodes = setting.nodes.iter().enumerate().map(|(position, kind)| {
            let (pool, devices) = KINDS[usize::from(*kind)];
            let name = format!("node-{position:02}");
            let mut description = describe(&name, pool, devices);
            // Some are wired in twos, some in fours, some are not known to be; in three racks or none.
            if let Some(island) = [None, Some(2), Some(4)][position % 3] {
                for device in &mut description.devices {
                    device.wiring.nvlink_island = Some(device.index / island);
                }
            }
            description.rack = setting.racks.then(|| format!("rack-{}", position / 2 % 3));
            (node_name(&name), description)
        });
        let mut history = Self {
            state: State::default(),
            now_us: 1_000_000,
            index: 0,
            nodes: nodes.collect(),
            tenants: (0..setting.tenants.len())
                .map(|position| tenant_name(&format!("tenant-{position}")))
                .collect(),
        };
        for pool in ["default", "gold"] {
            history.apply(Command::SetPool {
                pool: pool_name(pool),
                description: None,
                order: None,
                age_bound_ms: None,
                must_exist: None,
            });
        }
        // Whatever was placed a few steps ago may be stopped, and what was placed just now may not;
        // who has waited for twenty steps has devices kept.
        let policy = Policy {
            minimum_run_ms: 20,
            reservation_after_ms: 200,
            ..history.state.policy().clone()
        };
        history.apply(Command::SetPolicy {
            policy: Box::new(policy),
        });
        for (_, description) in history.nodes.clone() {
            history.apply(Command::RegisterNode {
                description: Box::new(description),
            });
        }
        for (position, (parent, weight, ..)) in setting.tenants.iter().enumerate() {
            let parent = parent.and_then(|parent| usize::from(parent).checked_rem(position));
            history.apply(Command::CreateTenant {
                tenant: history.tenants[position].clone(),
                parent: parent.map(|parent| history.tenants[parent].clone()),
                weight: Some(u32::from(*weight)),
            });
        }
        for (position, (_, _, default, gold)) in setting.tenants.iter().enumerate() {
            for (pool, line) in [("default", default), ("gold", gold)] {
                if line.is_some() {
                    history.set_line(position, pool, None, *line);
                }
            }
        }
        history
    }

    fn apply(&mut self, command: Command) -> Vec<Event> {
        self.index += 1;
        let entry = Entry {
            stamp_us: self.now_us,
            actor: "user:ana".to_owned(),
            idempotency_key: None,
            command,
        };
        self.state.apply(self.index, &entry)
    }

    fn set_line(&mut self, tenant: usize, pool: &str, model: Option<&str>, line: Option<Line>) {
        let halves = |amount: u8| u64::from(amount) * 500;
        self.apply(Command::SetQuota(QuotaChange {
            tenant: self.tenants[tenant].clone(),
            pool: pool_name(pool),
            model: model.map(str::to_owned),
            gpu_milli: line.map(|(quota, _, _)| halves(quota)),
            limit_milli: line.and_then(|(_, limit, _)| limit.map(halves)),
            lend_milli: line.and_then(|(_, _, lend)| lend.map(halves)),
        }));
    }

    /// Judges a fresh plan, and applies it; whether it proposes anything.
    fn plan(&mut self) -> bool {
        let plan = plan(&self.state, self.now_us);
        let found = judge(&self.state, &plan, self.now_us);
        assert!(found.is_empty(), "{found:?}\n{plan:?}\n{}", self.picture());
        let is_empty = plan.is_empty();
        let events = self.apply(Command::Place {
            placements: plan.placements,
        });
        let refused = |event: &&Event| !matches!(event, Event::RunPlaced { .. });
        assert_eq!(events.iter().find(refused), None, "of a fresh plan");
        let events = self.apply(Command::Preempt {
            preemptions: plan.preemptions,
        });
        let refused = |event: &&Event| !matches!(event, Event::RunStopping { .. });
        assert_eq!(events.iter().find(refused), None, "of a fresh plan");
        !is_empty
    }

    /// The state in a page, for whoever reads what was found.
    fn picture(&self) -> String {
        let mut lines = vec![format!("at {}", self.now_us)];
        for (name, tenant) in self.state.tenants() {
            let above = tenant.parent.as_ref().map(TenantName::as_str);
            lines.push(format!(
                "{name} under {above:?}: {:?} {:?}",
                tenant.quotas, tenant.model_quotas
            ));
        }
        for (name, node) in self.state.nodes() {
            let devices: Vec<String> = node
                .description
                .devices
                .iter()
                .zip(&node.devices)
                .map(|(device, grants)| {
                    let held = (grants.share_milli, grants.memory_mib);
                    format!("{} {held:?}", device.model)
                })
                .collect();
            let condition = &node.condition;
            let pool = &node.description.pool;
            lines.push(format!(
                "{name} {pool} {condition:?}: {}",
                devices.join(", ")
            ));
        }
        for run in self.state.live().iter().map(|id| &self.state.runs()[id]) {
            let spec = &run.spec;
            let held = run.last_attempt().map(|attempt| {
                let nodes: Vec<&str> = attempt.members.iter().map(|m| m.node.as_str()).collect();
                (attempt.placed_us, &attempt.stopping, nodes)
            });
            lines.push(format!(
                "{} {} {:?} {:?} x {} {:?} {:?} MiB {:?} {:?}/{:?} priority {} stops nobody {} preemptible {} claim {}: {held:?}",
                run.id,
                run.tenant,
                run.phase,
                (spec.gpus, spec.gpu_share_milli),
                spec.nodes,
                spec.pool.as_ref().map(PoolName::as_str),
                spec.gpu_memory_mib,
                spec.gpu_model,
                spec.cpu_milli,
                spec.memory_mib,
                spec.priority,
                spec.never_preempts,
                spec.preemptible,
                run.has_claim,
            ));
        }
        lines.join("\n")
    }

    /// Members of live attempts, and whether those are told to stop.
    fn members(&self) -> Vec<(MemberKey, Epoch, NodeName, bool)> {
        self.state
            .active_runs()
            .filter_map(|run| Some((run.id, run.last_attempt()?)))
            .flat_map(|(run, attempt)| {
                let ranks = (0_u32..).zip(&attempt.members);
                ranks
                    .filter(|(_, member)| member.phase != MemberPhase::Ended)
                    .map(move |(rank, member)| {
                        let key = MemberKey {
                            run,
                            attempt: attempt.number,
                            member: rank,
                        };
                        let stopping = attempt.stopping.is_some();
                        (key, attempt.epoch, member.node.clone(), stopping)
                    })
            })
            .collect()
    }

    fn end(&mut self, key: MemberKey, epoch: Epoch, node: NodeName, kind: EndKind) {
        self.report(key, epoch, node, MemberPhase::Ended, Some(end(kind)));
    }

    fn report(
        &mut self,
        key: MemberKey,
        epoch: Epoch,
        node: NodeName,
        phase: MemberPhase,
        end: Option<MemberEnd>,
    ) {
        let report = coordinator_core::state::MemberReport {
            key,
            epoch,
            phase,
            detail: None,
            end,
            enforcement: None,
            checkpointed_us: None,
        };
        self.apply(Command::Report {
            node,
            members: vec![report],
        });
    }

    fn take(&mut self, step: Step) {
        let node = |which: u8| self.nodes[usize::from(which) % self.nodes.len()].clone();
        let tenant = |which: u8| usize::from(which) % self.tenants.len();
        let reason = || "a test".to_owned();
        let command = match step {
            Step::Submit(spec, which, times) => {
                let tenant = Some(self.tenants[tenant(which)].clone());
                for _ in 0..times {
                    let spec = (*spec).clone();
                    let tenant = tenant.clone();
                    self.apply(submit(WorkloadSpec { tenant, ..spec }));
                }
                return;
            }
            Step::Plan => {
                self.plan();
                return;
            }
            Step::Pass(seconds) => {
                self.now_us += u64::from(seconds) * 1_000_000;
                Command::Tick
            }
            Step::Begin(which) => {
                let members = self.members();
                let position = usize::from(which).checked_rem(members.len());
                if let Some(position) = position {
                    let (key, epoch, node, _) = members[position].clone();
                    self.report(key, epoch, node, MemberPhase::Running, None);
                }
                return;
            }
            Step::End(which, well) => {
                let members = self.members();
                let position = usize::from(which).checked_rem(members.len());
                if let Some(position) = position {
                    let (key, epoch, node, _) = members[position].clone();
                    let code = i32::from(!well);
                    self.end(key, epoch, node, EndKind::Exited { code });
                }
                return;
            }
            Step::StopAll => {
                for (key, epoch, node, stopping) in self.members() {
                    if stopping {
                        self.end(key, epoch, node, EndKind::Stopped);
                    }
                }
                return;
            }
            Step::Cancel(which) => {
                let live = self.state.live();
                let position = usize::from(which).checked_rem(live.len());
                let Some(run) = position.and_then(|position| live.iter().nth(position)) else {
                    return;
                };
                Command::Cancel {
                    run: *run,
                    reason: None,
                }
            }
            Step::Cordon(which) => Command::Cordon {
                node: node(which).0,
                reason: reason(),
            },
            Step::Uncordon(which) => Command::Uncordon {
                node: node(which).0,
            },
            Step::Drain(which) => {
                let node = node(which).0;
                self.apply(Command::Drain {
                    node: node.clone(),
                    reason: reason(),
                    grace_ms: 0,
                });
                Command::Evict { node }
            }
            Step::Lose(which) => Command::LoseNode {
                node: node(which).0,
            },
            Step::Register(which) => Command::RegisterNode {
                description: Box::new(node(which).1),
            },
            Step::Line(which, default, line) => {
                let tenant = tenant(which);
                let pool = if default { "default" } else { "gold" };
                return self.set_line(tenant, pool, None, line);
            }
            Step::ModelLine(which, model, line) => {
                let model = MODEL_LINES[usize::from(model) % MODEL_LINES.len()];
                return self.set_line(tenant(which), "default", Some(model), line);
            }
            Step::Parent(which, parent) => Command::SetTenant {
                tenant: self.tenants[tenant(which)].clone(),
                parent: parent.map_or(ParentChange::Top, |parent| {
                    ParentChange::Under(self.tenants[tenant(parent)].clone())
                }),
                weight: None,
            },
            Step::Cap(cap) => {
                let mut policy = self.state.policy().clone();
                policy.gpu_memory_caps_mib = cap
                    .map(|cap| ("be*".to_owned(), u64::from(cap)))
                    .into_iter()
                    .collect();
                Command::SetPolicy {
                    policy: Box::new(policy),
                }
            }
        };
        self.apply(command);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_plan_of_any_history_is_right(
        setting in settings(),
        steps in proptest::collection::vec((steps(), 0_u64..20_000), 20..160),
    ) {
        let mut history = History::new(&setting);
        for (step, elapsed_us) in steps {
            history.now_us += elapsed_us;
            history.take(step);
        }
        // The state has heard of the moment, as it has from a leader where nothing else happens.
        history.apply(Command::Tick);
        // Planned again and again at the same moment, it comes to rest, and stays there.
        let most_plans = 2 * history.state.live().len() + 2;
        let rests = (0..most_plans).any(|_| !history.plan());
        prop_assert!(rests, "after {} plans at one moment", most_plans);
        prop_assert!(!history.plan());
        prop_assert_eq!(history.state.violations(), vec![]);
    }
}
