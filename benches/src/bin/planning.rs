//! What a plan costs on the replicated state itself, with a tree of 200 tenants that all have a line:
//! filling an empty cluster plan by plan, and one plan when a run ends on a full cluster while ten
//! times as many runs wait as there are nodes. Three sizes, so that growth is seen.

use anyhow::Context as _;
use coordinator_core::model::{
    DeviceDescription, DeviceId, EndKind, MemberEnd, MemberKey, MemberPhase, NodeDescription,
    NodeName, PoolName, RunPhase, TenantName, UserName, WorkloadSpec,
};
use coordinator_core::scheduler::{Plan, plan};
use coordinator_core::state::{Command, Entry, Event, MemberReport, QuotaChange, State};
use platform_benches::print;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const GPUS_PER_NODE: u32 = 8;
/// Admission looks at every node of a pool, so larger ones take minutes to fill.
const SIZES: [usize; 3] = [250, 1_000, 4_000];
const WAITING_PER_NODE: usize = 10;
const DEPARTMENTS: usize = 20;
const TEAMS: usize = 200;

fn main() -> anyhow::Result<()> {
    for nodes in SIZES {
        let mut cluster = Cluster::new(nodes)?;
        let mut submitted = 0;
        let started = Instant::now();
        // Asked for in all: what fills the cluster, and what waits behind it.
        while submitted < nodes * (GPUS_PER_NODE as usize + WAITING_PER_NODE) {
            cluster.submit(submitted)?;
            submitted += 1;
        }
        let submit = started.elapsed();
        let (decisions, planned, applied) = cluster.fill()?;
        print(
            "planning",
            decisions as f64 / planned.as_secs_f64(),
            "decisions/s",
            "at or above 100000 at 10,000 nodes",
            json!({
                "nodes": nodes,
                "tenants": TEAMS + DEPARTMENTS,
                "decisions": decisions,
                "with_apply_per_second": decisions as f64 / (planned + applied).as_secs_f64(),
                "submit_us": submit.as_secs_f64() * 1e6 / submitted as f64,
            }),
        );
        let (pass, waiting) = cluster.one_ends()?;
        print(
            "plan_when_one_ends",
            pass.as_secs_f64() * 1e3,
            "ms",
            "below 5 at 10,000 nodes with 100,000 waiting",
            json!({"nodes": nodes, "waiting": waiting}),
        );
    }
    Ok(())
}

struct Cluster {
    state: State,
    now_us: u64,
}

impl Cluster {
    fn new(nodes: usize) -> anyhow::Result<Self> {
        let mut cluster = Self {
            state: State::default(),
            now_us: 1,
        };
        for node in 0..nodes {
            cluster.apply(Command::RegisterNode {
                description: Box::new(description(node)?),
            })?;
        }
        let per_team = nodes as u64 * u64::from(GPUS_PER_NODE) * 1000 / TEAMS as u64;
        for department in 0..DEPARTMENTS {
            let name = format!("department-{department}");
            cluster.tenant(&name, None, per_team * (TEAMS / DEPARTMENTS) as u64)?;
        }
        for team in 0..TEAMS {
            let department = format!("department-{}", team % DEPARTMENTS);
            cluster.tenant(&format!("team-{team}"), Some(&department), per_team)?;
        }
        Ok(cluster)
    }

    fn apply(&mut self, command: Command) -> anyhow::Result<Vec<Event>> {
        let entry = Entry {
            stamp_us: self.now_us,
            actor: "bench".to_owned(),
            idempotency_key: None,
            command,
        };
        let events = self.state.apply(self.state.index() + 1, &entry);
        for event in &events {
            if let Event::Rejected { refusal } = event {
                anyhow::bail!("refused: {}", refusal.message);
            }
        }
        // Nobody reads the books here, and they must not fill the memory.
        let through = self.state.outbox_sequence();
        let entry = Entry {
            stamp_us: self.now_us,
            actor: "bench".to_owned(),
            idempotency_key: None,
            command: Command::AcknowledgeOutbox { through },
        };
        self.state.apply(self.state.index() + 1, &entry);
        Ok(events)
    }

    fn tenant(&mut self, name: &str, parent: Option<&str>, milli: u64) -> anyhow::Result<()> {
        let tenant = TenantName::new(name)?;
        self.apply(Command::CreateTenant {
            tenant: tenant.clone(),
            parent: parent.map(TenantName::new).transpose()?,
            weight: None,
        })?;
        self.apply(Command::SetQuota(QuotaChange {
            tenant,
            pool: PoolName::default_pool(),
            gpu_milli: Some(milli),
            limit_milli: None,
            lend_milli: None,
        }))?;
        Ok(())
    }

    /// Fractions, single GPUs, whole nodes and gangs of four nodes, by turns over the teams.
    fn submit(&mut self, number: usize) -> anyhow::Result<()> {
        let (gpus, share, members) = match number % 16 {
            0 => (Some(8), None, 4),
            1 | 2 => (Some(8), None, 1),
            3..6 => (Some(2), None, 1),
            6..11 => (Some(1), None, 1),
            _ => (None, Some(500), 1),
        };
        let tenant = TenantName::new(&format!("team-{}", number % TEAMS))?;
        let spec = WorkloadSpec {
            name: "bench".to_owned(),
            command: vec!["true".to_owned()],
            source_sha256: None,
            requirements_path: None,
            working_folder: None,
            environment: BTreeMap::new(),
            image: None,
            gpus,
            gpu_share_milli: share,
            gpu_memory_mib: None,
            gpu_model: None,
            nodes: members,
            cpu_milli: None,
            memory_mib: None,
            pool: None,
            tags: BTreeMap::from([("team".to_owned(), "bench".to_owned())]),
            model: None,
            priority: 0,
            time_limit_ms: None,
            retries: 0,
            start_deadline_ms: None,
            warning: None,
            tenant: Some(tenant.clone()),
            preemptible: true,
            after: Vec::new(),
        };
        self.apply(Command::Submit {
            spec: Box::new(spec),
            tenant,
            user: UserName::new("bench")?,
        })?;
        Ok(())
    }

    /// Plans and applies until a plan places nothing: decisions, and the time of both.
    fn fill(&mut self) -> anyhow::Result<(usize, Duration, Duration)> {
        let (mut decisions, mut planned, mut applied) = (0, Duration::ZERO, Duration::ZERO);
        loop {
            let started = Instant::now();
            let Plan { placements, .. } = plan(&self.state, self.now_us);
            planned += started.elapsed();
            if placements.is_empty() {
                return Ok((decisions, planned, applied));
            }
            decisions += placements.len();
            let started = Instant::now();
            self.apply(Command::Place { placements })?;
            applied += started.elapsed();
        }
    }

    /// One run of one GPU ends; the time of the plan that follows, the best of five.
    fn one_ends(&mut self) -> anyhow::Result<(Duration, usize)> {
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let (run, attempt) = self
                .state
                .runs()
                .values()
                .filter(|run| run.phase == RunPhase::Active && run.spec.gpus == Some(1))
                .find_map(|run| Some((run.id, run.last_attempt()?)))
                .context("a run of one GPU is active")?;
            let report = MemberReport {
                key: MemberKey {
                    run,
                    attempt: attempt.number,
                    member: 0,
                },
                epoch: attempt.epoch,
                phase: MemberPhase::Ended,
                detail: None,
                end: Some(MemberEnd {
                    kind: EndKind::Exited { code: 0 },
                    message: String::new(),
                }),
                enforcement: None,
                checkpointed_us: None,
            };
            let node = attempt.members[0].node.clone();
            self.apply(Command::Report {
                node,
                members: vec![report],
            })?;
            let started = Instant::now();
            let Plan { placements, .. } = plan(&self.state, self.now_us);
            best = best.min(started.elapsed());
            anyhow::ensure!(!placements.is_empty(), "what came free is given out");
            self.apply(Command::Place { placements })?;
        }
        let waiting = self.state.queues().waiting(&PoolName::default_pool());
        Ok((best, waiting))
    }
}

fn description(number: usize) -> anyhow::Result<NodeDescription> {
    let name = format!("node-{number}");
    Ok(NodeDescription {
        devices: (0..GPUS_PER_NODE)
            .map(|index| DeviceDescription {
                id: DeviceId(format!("{name}-gpu-{index}").into()),
                index,
                model: "A100-80G".to_owned(),
                memory_mib: 81_920,
                simulated: true,
            })
            .collect(),
        name: NodeName::new(&name)?,
        pool: PoolName::default_pool(),
        boot_id: "boot".to_owned(),
        cpu_milli: 128_000,
        memory_mib: 1 << 20,
        runtimes: BTreeSet::from(["process".to_owned()]),
        agent_version: "0.1.0".to_owned(),
    })
}
