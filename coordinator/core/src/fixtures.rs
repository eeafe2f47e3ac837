//! A small world for the tests of this crate: one state, a clock, and commands in one line each.
//!
//! Every command that goes through it is followed by a check of every invariant, so that each test
//! also proves that what it does keeps the house's rules.

use coordinator_core::model::*;
use coordinator_core::policy::Refusal;
use coordinator_core::scheduler::plan;
use coordinator_core::state::{
    Command, Entry, Event, MemberPlacement, MemberReport, Placement, QuotaChange, State,
};
use std::collections::{BTreeMap, BTreeSet};

/// A name, known to be good.
pub fn node_name(text: &str) -> NodeName {
    NodeName::new(text).expect("a good name")
}

/// A pool's name, known to be good.
pub fn pool_name(text: &str) -> PoolName {
    PoolName::new(text).expect("a good name")
}

/// A tenant's name, known to be good.
pub fn tenant_name(text: &str) -> TenantName {
    TenantName::new(text).expect("a good name")
}

/// The smallest spec that passes the first policy.
pub fn spec() -> WorkloadSpec {
    WorkloadSpec {
        name: "train".to_owned(),
        command: vec!["python".to_owned(), "train.py".to_owned()],
        source_sha256: None,
        requirements_path: None,
        working_folder: None,
        environment: BTreeMap::new(),
        image: None,
        gpus: None,
        gpu_share_milli: None,
        gpu_memory_mib: None,
        gpu_model: None,
        nodes: 1,
        cpu_milli: None,
        memory_mib: None,
        pool: None,
        tags: BTreeMap::from([("team".to_owned(), "nlp".to_owned())]),
        model: None,
        priority: 0,
        priority_class: None,
        never_preempts: false,
        time_limit_ms: None,
        retries: 0,
        start_deadline_ms: None,
        warning: None,
        tenant: None,
        preemptible: true,
        after: Vec::new(),
        spread: false,
    }
}

/// The smallest spec with so many whole GPUs.
pub fn gpus(count: u32) -> WorkloadSpec {
    WorkloadSpec {
        gpus: Some(count),
        ..spec()
    }
}

/// The smallest spec with so many thousandths of one GPU.
pub fn share(milli: u32) -> WorkloadSpec {
    WorkloadSpec {
        gpu_share_milli: Some(milli),
        ..spec()
    }
}

/// A gang of so many nodes with one GPU each.
pub fn gang(nodes: u32) -> WorkloadSpec {
    WorkloadSpec { nodes, ..gpus(1) }
}

/// A line in the default pool, in whole GPUs.
pub fn quota(tenant: &str, gpus: u64, limit: Option<u64>, lend: Option<u64>) -> QuotaChange {
    QuotaChange {
        tenant: tenant_name(tenant),
        pool: pool_name("default"),
        model: None,
        gpu_milli: Some(gpus * 1000),
        limit_milli: limit.map(|gpus| gpus * 1000),
        lend_milli: lend.map(|gpus| gpus * 1000),
    }
}

/// A node in a pool with devices as `platform up --devices` takes them: `2xA100-80G,T4-16G`.
pub fn describe(name: &str, pool: &str, devices: &str) -> NodeDescription {
    let mut described = Vec::new();
    for part in devices.split(',').filter(|part| !part.is_empty()) {
        let (count, model) = part.split_once('x').unwrap_or(("1", part));
        let (_, memory) = model.rsplit_once('-').expect("a model with its memory");
        let memory_gib: u64 = memory
            .trim_end_matches('G')
            .parse()
            .expect("memory in GiB behind the model");
        for _ in 0..count.parse::<u32>().expect("a count") {
            let index = u32::try_from(described.len()).expect("few devices");
            described.push(DeviceDescription {
                id: device(name, index),
                index,
                model: model.to_owned(),
                memory_mib: memory_gib * 1024,
                simulated: true,
                wiring: DeviceWiring::default(),
            });
        }
    }
    NodeDescription {
        name: node_name(name),
        pool: pool_name(pool),
        boot_id: "boot-1".to_owned(),
        devices: described,
        cpu_milli: 64_000,
        memory_mib: 512 * 1024,
        runtimes: BTreeSet::from(["process".to_owned()]),
        agent_version: "0.1.0".to_owned(),
        rack: None,
    }
}

/// The id of a device of [`describe`].
pub fn device(node: &str, index: u32) -> DeviceId {
    DeviceId(format!("{node}-gpu-{index}").into())
}

/// A placement of the run's first attempt, one member for each (node, device indexes).
pub fn placement(run: RunId, attempt: u32, members: &[(&str, &[u32])]) -> Placement {
    Placement {
        run,
        attempt,
        members: members
            .iter()
            .map(|(node, devices)| MemberPlacement {
                node: node_name(node),
                devices: devices.iter().map(|index| device(node, *index)).collect(),
            })
            .collect(),
    }
}

/// The command that submits a spec for `ana` of the default tenant.
pub fn submit(spec: WorkloadSpec) -> Command {
    Command::Submit {
        spec: Box::new(spec),
        tenant: TenantName::default_tenant(),
        user: UserName::new("ana").expect("a good name"),
        role: None,
    }
}

/// The command that submits an array for `ana` of the default tenant.
pub fn submit_array(array: &str, spec: WorkloadSpec) -> Command {
    Command::SubmitArray {
        spec: Box::new(spec),
        request: Box::new(array.parse().expect("an array")),
        tenant: TenantName::default_tenant(),
        user: UserName::new("ana").expect("a good name"),
        role: None,
    }
}

/// An end of this kind.
pub fn end(kind: EndKind) -> MemberEnd {
    MemberEnd {
        kind,
        message: "as the node says".to_owned(),
    }
}

/// One state and everything that was applied to it.
pub struct World {
    /// The state.
    pub state: State,
    /// The clock; a test moves it.
    pub now_us: u64,
    /// Every entry applied, first to last.
    pub entries: Vec<Entry>,
}

impl World {
    /// An empty state at a round time.
    pub fn new() -> Self {
        Self {
            state: State::default(),
            now_us: 1_000_000,
            entries: Vec::new(),
        }
    }

    /// A state with these nodes in the default pool.
    pub fn with_nodes(nodes: &[(&str, &str)]) -> Self {
        let mut world = Self::new();
        for (name, devices) in nodes {
            world.join(describe(name, "default", devices));
        }
        world
    }

    /// Applies an entry as it is, and checks every invariant.
    pub fn apply_entry(&mut self, entry: Entry) -> Vec<Event> {
        self.entries.push(entry);
        let index = self.entries.len() as u64;
        let entry = &self.entries[self.entries.len() - 1];
        let events = self.state.apply(index, entry);
        let violations = self.state.violations();
        assert!(violations.is_empty(), "{violations:#?} after {entry:#?}");
        events
    }

    /// Applies a command of `ana` now.
    pub fn apply(&mut self, command: Command) -> Vec<Event> {
        let entry = Entry {
            stamp_us: self.now_us,
            actor: "user:ana".to_owned(),
            idempotency_key: None,
            command,
        };
        self.apply_entry(entry)
    }

    /// Applies a command that must be accepted.
    pub fn accept(&mut self, command: Command) -> Vec<Event> {
        let events = self.apply(command);
        assert!(
            !events
                .iter()
                .any(|event| matches!(event, Event::Rejected { .. })),
            "{events:#?}"
        );
        events
    }

    /// Applies a command that must be refused, changing nothing but index and time.
    pub fn refuse(&mut self, command: Command) -> Refusal {
        let mut before = self.state.clone();
        let events = self.apply(command);
        let [Event::Rejected { refusal }] = events.as_slice() else {
            panic!("not refused: {events:#?}");
        };
        before.apply(
            self.state.index(),
            &Entry {
                stamp_us: self.now_us,
                actor: "leader".to_owned(),
                idempotency_key: None,
                command: Command::Place {
                    placements: Vec::new(),
                },
            },
        );
        assert_eq!(before, self.state, "a refusal changes nothing");
        refusal.clone()
    }

    /// A node joins.
    pub fn join(&mut self, description: NodeDescription) {
        self.accept(Command::RegisterNode {
            description: Box::new(description),
        });
    }

    /// Submits a spec that must be admitted.
    pub fn submit(&mut self, spec: WorkloadSpec) -> RunId {
        match self.accept(submit(spec)).as_slice() {
            [Event::RunQueued { run, .. } | Event::RunHeld { run, .. }] => *run,
            events => panic!("{events:#?}"),
        }
    }

    /// Submits an array, written as people write it, that must be admitted.
    pub fn submit_array(&mut self, array: &str, spec: WorkloadSpec) -> ArrayId {
        match self.accept(submit_array(array, spec)).as_slice() {
            [Event::ArraySubmitted { array, .. }] => *array,
            events => panic!("{events:#?}"),
        }
    }

    /// Submits for a tenant, which is created when it is not there.
    pub fn submit_for(&mut self, tenant: &str, spec: WorkloadSpec) -> RunId {
        self.tenant(tenant);
        self.submit(WorkloadSpec {
            tenant: Some(tenant_name(tenant)),
            ..spec
        })
    }

    /// Places one run as told, and must be let.
    pub fn place_on(&mut self, run: RunId, members: &[(&str, &[u32])]) {
        let attempt = u32::try_from(self.run(run).attempts.len()).expect("few attempts") + 1;
        assert_eq!(
            self.try_place(placement(run, attempt, members)),
            Ok(()),
            "{run} on {members:?}"
        );
    }

    /// Tries one placement; the reason when it is refused.
    pub fn try_place(&mut self, placement: Placement) -> Result<(), String> {
        let events = self.apply(Command::Place {
            placements: vec![placement],
        });
        match events.as_slice() {
            [Event::RunPlaced { .. }] => Ok(()),
            [Event::PlacementRefused { reason, .. }] => Err(reason.clone()),
            events => panic!("{events:#?}"),
        }
    }

    /// Makes a plan and applies it; every item must be accepted. Says which runs were placed.
    pub fn plan_and_place(&mut self) -> Vec<RunId> {
        let placements = plan(&self.state, self.now_us).placements;
        let runs = placements.iter().map(|placement| placement.run).collect();
        for event in self.apply(Command::Place { placements }) {
            assert!(matches!(event, Event::RunPlaced { .. }), "{event:?}");
        }
        runs
    }

    /// The run.
    pub fn run(&self, id: RunId) -> &Run {
        &self.state.runs()[&id]
    }

    /// The last attempt of a run that has one.
    pub fn attempt(&self, id: RunId) -> &Attempt {
        self.run(id).last_attempt().expect("an attempt")
    }

    /// A report about one member of the last attempt, in its epoch, from its node.
    pub fn report_of(
        &self,
        run: RunId,
        member: u32,
        phase: MemberPhase,
    ) -> (NodeName, MemberReport) {
        let attempt = self.attempt(run);
        let report = MemberReport {
            key: MemberKey {
                run,
                attempt: attempt.number,
                member,
            },
            epoch: attempt.epoch,
            phase,
            detail: None,
            end: None,
            enforcement: None,
            checkpointed_us: None,
        };
        (attempt.members[member as usize].node.clone(), report)
    }

    /// Applies a report as it is.
    pub fn send(&mut self, node: NodeName, report: MemberReport) -> Vec<Event> {
        self.apply(Command::Report {
            node,
            members: vec![report],
        })
    }

    /// A member says where it is.
    pub fn report(&mut self, run: RunId, member: u32, phase: MemberPhase) -> Vec<Event> {
        let (node, report) = self.report_of(run, member, phase);
        self.send(node, report)
    }

    /// A member says how it ended.
    pub fn end(&mut self, run: RunId, member: u32, kind: EndKind) -> Vec<Event> {
        let (node, mut report) = self.report_of(run, member, MemberPhase::Ended);
        report.end = Some(end(kind));
        self.send(node, report)
    }

    /// Cancels a run.
    pub fn cancel(&mut self, run: RunId) -> Vec<Event> {
        self.accept(Command::Cancel {
            run,
            reason: Some("no longer wanted".to_owned()),
        })
    }

    /// Lets the time pass for which a run is held, if it is.
    pub fn wait_out(&mut self, run: RunId) {
        self.now_us = self.now_us.max(self.run(run).held_until_us.unwrap_or(0));
        self.accept(Command::Tick);
    }

    /// How an ended run ended.
    pub fn outcome(&self, run: RunId) -> Option<RunOutcome> {
        match &self.run(run).phase {
            RunPhase::Ended { outcome, .. } => Some(outcome.clone()),
            _ => None,
        }
    }

    /// Every ledger row in the outbox, in order.
    pub fn ledger(&self) -> Vec<LedgerRow> {
        self.state
            .outbox()
            .iter()
            .filter_map(|record| match &record.body {
                OutboxBody::Ledger(row) => Some(row.clone()),
                OutboxBody::Audit(_) | OutboxBody::Decision(_) => None,
            })
            .collect()
    }

    /// Every audit entry in the outbox, in order.
    pub fn audit(&self) -> Vec<AuditEntry> {
        self.state
            .outbox()
            .iter()
            .filter_map(|record| match &record.body {
                OutboxBody::Audit(entry) => Some(entry.clone()),
                OutboxBody::Ledger(_) | OutboxBody::Decision(_) => None,
            })
            .collect()
    }

    /// Makes a plan and applies the preemptions in it; every one must be accepted. Says who stops.
    pub fn plan_and_preempt(&mut self) -> Vec<RunId> {
        let preemptions = plan(&self.state, self.now_us).preemptions;
        let runs = preemptions.iter().map(|preempted| preempted.run).collect();
        for event in self.apply(Command::Preempt { preemptions }) {
            assert!(matches!(event, Event::RunStopping { .. }), "{event:?}");
        }
        runs
    }

    /// Gives a tenant a line in the default pool, in whole GPUs, and makes the tenant if need be.
    pub fn quota(&mut self, tenant: &str, gpus: u64, limit: Option<u64>, lend: Option<u64>) {
        self.tenant(tenant);
        self.accept(Command::SetQuota(quota(tenant, gpus, limit, lend)));
    }

    /// Orders the runs that wait in the default pool.
    pub fn order(&mut self, order: PoolOrder, age_bound_ms: Option<u64>) {
        self.accept(Command::SetPool {
            pool: pool_name("default"),
            description: None,
            order: Some(order),
            age_bound_ms,
            must_exist: Some(true),
        });
    }

    /// Makes a tenant if it is not there.
    pub fn tenant(&mut self, tenant: &str) {
        let tenant = tenant_name(tenant);
        if !self.state.tenants().contains_key(&tenant) {
            self.accept(Command::CreateTenant {
                tenant,
                parent: None,
                weight: None,
            });
        }
    }

    /// Changes the policy in force.
    pub fn set_policy(&mut self, change: impl FnOnce(&mut Policy)) {
        let mut policy = self.state.policy().clone();
        change(&mut policy);
        self.accept(Command::SetPolicy {
            policy: Box::new(policy),
        });
    }
}
