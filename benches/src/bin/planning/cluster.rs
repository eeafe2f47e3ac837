//! A cluster under a quota tree of 200 teams, all with a line, a ceiling and per-model caps, and what is
//! asked of it: fractions, single GPUs, pairs, whole nodes and gangs of four nodes, by turns over the teams.

use anyhow::Context as _;
use coordinator_core::model::{
    EndKind, MemberEnd, MemberKey, MemberPhase, NodeDescription, PoolName, RunId, TenantName,
    UserName, WorkloadSpec,
};
use coordinator_core::scheduler::{Plan, Planner};
use coordinator_core::state::{Command, Entry, Event, MemberReport, QuotaChange, State};
use serde_json::json;
use std::time::Duration;

pub const GPUS_PER_NODE: u32 = 8;
pub const DEPARTMENTS: usize = 20;
pub const TEAMS: usize = 200;

pub struct Cluster {
    pub state: State,
    pub planner: Planner,
    /// A run that asks for nothing yet.
    pub bare: WorkloadSpec,
    /// Time limits that runs have by turns, the same for all of a team's equal runs; empty: none has one.
    pub limits_ms: &'static [u64],
    now_us: u64,
}

impl Cluster {
    pub fn new(nodes: usize) -> anyhow::Result<Self> {
        let mut cluster = Self {
            state: State::default(),
            planner: Planner::default(),
            bare: bare()?,
            limits_ms: &[],
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
        let mut policy = cluster.state.policy().clone();
        policy
            .gpu_memory_caps_mib
            .insert("bert*".to_owned(), 40_960);
        cluster.apply(Command::SetPolicy {
            policy: Box::new(policy),
        })?;
        Ok(cluster)
    }

    pub fn apply(&mut self, command: Command) -> anyhow::Result<Vec<Event>> {
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
            model: None,
            gpu_milli: Some(milli),
            limit_milli: Some(3 * milli),
            lend_milli: None,
        }))?;
        Ok(())
    }

    /// Submits the next of the mix.
    pub fn submit(&mut self, number: usize) -> anyhow::Result<()> {
        let (gpus, share, members) = match number % 16 {
            0 => (Some(8), None, 4),
            1 | 2 => (Some(8), None, 1),
            3..6 => (Some(2), None, 1),
            6..11 => (Some(1), None, 1),
            _ => (None, Some(500), 1),
        };
        let asked = WorkloadSpec {
            gpus,
            gpu_share_milli: share,
            nodes: members,
            model: (number % 4 == 3).then(|| "bert-base".to_owned()),
            time_limit_ms: number
                .checked_rem(self.limits_ms.len())
                .map(|turn| self.limits_ms[turn]),
            ..self.bare.clone()
        };
        let tenant = TenantName::new(&format!("team-{}", number % TEAMS))?;
        self.ask(asked, tenant)?;
        Ok(())
    }

    /// Submits one run.
    pub fn ask(&mut self, spec: WorkloadSpec, tenant: TenantName) -> anyhow::Result<RunId> {
        let events = self.apply(Command::Submit {
            spec: Box::new(WorkloadSpec {
                tenant: Some(tenant.clone()),
                ..spec
            }),
            tenant,
            user: UserName::new("bench")?,
            role: None,
        })?;
        match events.first() {
            Some(Event::RunQueued { run, .. }) => Ok(*run),
            _ => anyhow::bail!("nothing was queued"),
        }
    }

    /// Plans and applies until a plan places nothing: decisions, the time of the plans that made any, and
    /// of applying them.
    pub fn fill(&mut self) -> anyhow::Result<(usize, Duration, Duration)> {
        let (mut decisions, mut planned, mut applied) = (0, Duration::ZERO, Duration::ZERO);
        loop {
            let started = ProcessorTime::now();
            let Plan { placements, .. } = plan(&mut self.planner, &self.state, self.now_us);
            let took = started.elapsed();
            if placements.is_empty() {
                return Ok((decisions, planned, applied));
            }
            planned += took;
            decisions += placements.len();
            let started = ProcessorTime::now();
            self.apply(Command::Place { placements })?;
            applied += started.elapsed();
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, elapsed_us: u64) {
        self.now_us += elapsed_us;
    }

    /// Every run that was placed begins.
    pub fn all_begin(&mut self) -> anyhow::Result<()> {
        let placed: Vec<RunId> = self.state.active_runs().map(|run| run.id).collect();
        for run in placed {
            self.report(run, MemberPhase::Running)?;
        }
        Ok(())
    }

    /// A run of one GPU that is active.
    fn some_active(&self) -> anyhow::Result<RunId> {
        self.state
            .active_runs()
            .find(|run| run.spec.gpus == Some(1))
            .map(|run| run.id)
            .context("a run of one GPU is active")
    }

    /// Every member of a run says so.
    fn report(&mut self, run: RunId, phase: MemberPhase) -> anyhow::Result<()> {
        let run = self.state.runs().get(&run).context("the run is known")?;
        let attempt = run.last_attempt().context("the run was placed")?;
        let reports: Vec<_> = (0_u32..)
            .zip(&attempt.members)
            .map(|(member, at)| {
                let report = MemberReport {
                    key: MemberKey {
                        run: run.id,
                        attempt: attempt.number,
                        member,
                    },
                    epoch: attempt.epoch,
                    phase,
                    detail: None,
                    end: (phase == MemberPhase::Ended).then(|| MemberEnd {
                        kind: EndKind::Exited { code: 0 },
                        message: String::new(),
                    }),
                    enforcement: None,
                    checkpointed_us: None,
                };
                (at.node.clone(), report)
            })
            .collect();
        for (node, report) in reports {
            self.apply(Command::Report {
                node,
                members: vec![report],
            })?;
        }
        Ok(())
    }

    /// One run of one GPU ends: the time of the plan after it, and what it keeps.
    pub fn one_ends_beside_reservations(&mut self) -> anyhow::Result<(Duration, usize)> {
        let run = self.some_active()?;
        self.report(run, MemberPhase::Ended)?;
        let started = ProcessorTime::now();
        let Plan {
            placements,
            reservations,
            ..
        } = plan(&mut self.planner, &self.state, self.now_us);
        let took = started.elapsed();
        self.apply(Command::Place { placements })?;
        Ok((took, reservations.len()))
    }

    /// One run of one GPU ends; the time of the plan that gives out what came free, and of the one after
    /// it, which finds that nothing is left and nobody has to give way.
    pub fn one_ends(&mut self) -> anyhow::Result<(Duration, Duration)> {
        let run = self.some_active()?;
        self.report(run, MemberPhase::Ended)?;
        let started = ProcessorTime::now();
        let Plan { placements, .. } = plan(&mut self.planner, &self.state, self.now_us);
        let first = started.elapsed();
        anyhow::ensure!(!placements.is_empty(), "what came free is given out");
        self.apply(Command::Place { placements })?;
        let started = ProcessorTime::now();
        let after = plan(&mut self.planner, &self.state, self.now_us);
        let second = started.elapsed();
        anyhow::ensure!(after.is_empty(), "nothing is left to give");
        Ok((first, second))
    }

    /// Takes a waiting run back.
    pub fn cancel(&mut self, run: RunId) -> anyhow::Result<()> {
        self.apply(Command::Cancel { run, reason: None })?;
        Ok(())
    }

    pub fn plan(&mut self) -> Plan {
        plan(&mut self.planner, &self.state, self.now_us)
    }
}

/// Processor time of this thread: what a decision costs, whoever else uses the machine.
#[derive(Clone, Copy)]
pub struct ProcessorTime(Duration);

impl ProcessorTime {
    pub fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Self(Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        ))
    }

    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

/// All planning of the bench goes through here, so that its instructions can be counted alone.
#[inline(never)]
fn plan(planner: &mut Planner, state: &State, now_us: u64) -> Plan {
    planner.plan(state, now_us)
}

/// A run that asks for nothing yet.
fn bare() -> anyhow::Result<WorkloadSpec> {
    Ok(serde_json::from_value(json!({
        "name": "bench", "command": ["true"], "environment": {}, "nodes": 1,
        "tags": {"team": "bench"}, "priority": 0, "retries": 0,
    }))?)
}

fn description(number: usize) -> anyhow::Result<NodeDescription> {
    let devices: Vec<_> = (0..GPUS_PER_NODE)
        .map(|index| {
            json!({
                "id": format!("node-{number}-gpu-{index}"), "index": index, "model": "A100-80G",
                "memory_mib": 81_920, "simulated": true,
            })
        })
        .collect();
    Ok(serde_json::from_value(json!({
        "name": format!("node-{number}"), "pool": "default", "boot_id": "boot", "devices": devices,
        "cpu_milli": 128_000, "memory_mib": 1 << 20, "runtimes": ["process"],
        "agent_version": "0.1.0",
    }))?)
}
