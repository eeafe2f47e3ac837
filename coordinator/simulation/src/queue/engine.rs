//! The loop of events: submissions, ends and changes of level, with the core's queue deciding
//! between them.

use super::fairness::Fairness;
use super::{Cluster, Mode, Trace, TraceRun};
use coordinator_core::model::RunId;
use coordinator_core::policy::Refusal;
use coordinator_core::scheduler::queue::{
    Checkpoint, Contender, Predictor, Queue, Reason, Room, Rules, Share, WholeNodes,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

const WHOLE_GPU_MILLI: u64 = 1_000;

/// One spell of a run on its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// From.
    pub start_us: u64,
    /// Until.
    pub end_us: u64,
    /// Positions of nodes in the cluster, and GPUs on each.
    pub nodes: Vec<(u32, u32)>,
}

/// What became of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replayed {
    /// In order; all but the last ended by a preemption.
    pub segments: Vec<Segment>,
    /// Time that its preemptions cost, in all.
    pub overhead_us: u64,
}

impl Replayed {
    /// When it ended.
    pub fn ended_us(&self) -> u64 {
        self.segments.last().map_or(0, |segment| segment.end_us)
    }
}

/// What a simulation came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// By run of the trace.
    pub runs: Vec<Replayed>,
    /// Stops by reason.
    pub stops: BTreeMap<Reason, u64>,
    /// Integrals of use and demand, by tenant.
    pub(super) fairness: Fairness,
}

/// How far a simulation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Runs that ended.
    pub ended: usize,
    /// Simulated time.
    pub now_us: u64,
}

/// Events between two words of progress.
const PROGRESS_EVERY: u64 = 1_024;

/// Nodes that are scheduled together, with their queue.
struct Pool {
    queue: Queue,
    room: WholeNodes,
    /// Position in the cluster of each node.
    nodes: Vec<u32>,
    /// Something happened since it decided last.
    is_due: bool,
}

/// A run that is under way.
struct Live {
    left_us: u64,
    start_us: u64,
    nodes: Vec<(u32, u32)>,
    /// Its group of like runs, and what was predicted for it at its submission.
    group: u64,
    predicted_us: Option<u64>,
    /// Counts its starts, so that an end foreseen before a stop is known to be void.
    start: u32,
}

/// Runs in order of submission, and what drives them.
struct Engine<'a> {
    trace: &'a Trace,
    cluster: &'a Cluster,
    pools: Vec<Pool>,
    /// Pool and tenant therein, by run.
    seats: Vec<(usize, usize)>,
    live: Vec<Live>,
    ends: BinaryHeap<Reverse<(u64, usize, u32)>>,
    predictor: Predictor,
    /// Numbers of groups of like runs.
    groups: BTreeMap<(String, Option<String>, u32), u64>,
    tenants: &'a BTreeMap<&'a str, usize>,
    outcome: Outcome,
}

/// Replays a trace on a cluster.
///
/// # Errors
///
/// Refuses a tenant that the cluster does not know, and a run that its nodes can never hold.
pub fn simulate(
    trace: &Trace,
    cluster: &Cluster,
    history: &Trace,
    rules: &Rules,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome, Refusal> {
    let tenants: BTreeMap<&str, usize> = cluster
        .quota_milli
        .keys()
        .enumerate()
        .map(|(position, tenant)| (tenant.as_str(), position))
        .collect();
    let pools = pools(cluster, rules);
    let seats = seats(trace, cluster, &tenants, &pools)?;
    let mut engine = Engine {
        trace,
        cluster,
        pools,
        live: trace
            .runs
            .iter()
            .map(|run| Live {
                left_us: run.duration_us,
                start_us: 0,
                nodes: Vec::new(),
                group: 0,
                predicted_us: None,
                start: 0,
            })
            .collect(),
        ends: BinaryHeap::new(),
        predictor: Predictor::default(),
        groups: BTreeMap::new(),
        tenants: &tenants,
        outcome: Outcome {
            runs: vec![Replayed::default(); trace.runs.len()],
            stops: BTreeMap::new(),
            fairness: Fairness::new(cluster.quota_milli.values().copied().collect()),
        },
        seats,
    };
    engine.learn(history, &tenants);
    engine.run(progress);
    Ok(engine.outcome)
}

fn pools(cluster: &Cluster, rules: &Rules) -> Vec<Pool> {
    let pool = |nodes: Vec<u32>, shares: Vec<Share>| {
        let gpus: Vec<u32> = nodes
            .iter()
            .map(|node| cluster.nodes[*node as usize].gpus)
            .collect();
        let capacity_milli: u64 = gpus
            .iter()
            .map(|gpus| u64::from(*gpus) * WHOLE_GPU_MILLI)
            .sum();
        let quota_milli = shares
            .iter()
            .map(|share| share.quota_milli)
            .fold(0, u64::saturating_add);
        Pool {
            queue: Queue::new(
                rules.clone(),
                shares,
                capacity_milli.saturating_sub(quota_milli),
            ),
            room: WholeNodes::new(&gpus),
            nodes,
            is_due: false,
        }
    };
    let all = 0..u32::try_from(cluster.nodes.len()).unwrap_or(u32::MAX);
    match cluster.mode {
        Mode::Shared => {
            let shares = cluster
                .quota_milli
                .values()
                .map(|quota| Share::of_quota(*quota))
                .collect();
            vec![pool(all.collect(), shares)]
        }
        // What a tenant owns is its own, whatever the quota says.
        Mode::Partition => cluster
            .quota_milli
            .keys()
            .map(|tenant| {
                let own = all
                    .clone()
                    .filter(|node| cluster.nodes[*node as usize].tenant.as_ref() == Some(tenant))
                    .collect();
                pool(own, vec![Share::of_quota(u64::MAX)])
            })
            .collect(),
    }
}

/// Where each run queues; refuses those that never could run.
fn seats(
    trace: &Trace,
    cluster: &Cluster,
    tenants: &BTreeMap<&str, usize>,
    pools: &[Pool],
) -> Result<Vec<(usize, usize)>, Refusal> {
    let mut fits: BTreeMap<(usize, u32), bool> = BTreeMap::new();
    let mut seats = Vec::with_capacity(trace.runs.len());
    for run in &trace.runs {
        let Some(tenant) = tenants.get(run.tenant.as_str()).copied() else {
            let known: Vec<&str> = tenants.keys().copied().collect();
            return Err(Refusal::invalid(format!(
                "run {:?} is of tenant {:?}, which the cluster does not have",
                run.name, run.tenant
            ))
            .allowed(known.join(", "))
            .hint("add the tenant and its quota to the cluster's file"));
        };
        let seat = match cluster.mode {
            Mode::Shared => (0, tenant),
            Mode::Partition => (tenant, 0),
        };
        let room = &pools[seat.0].room;
        let could = *fits.entry((seat.0, run.gpus)).or_insert_with(|| {
            room.clone()
                .try_take(RunId(0), WholeNodes::demand(run.gpus))
        });
        if !could {
            return Err(Refusal::invalid(format!(
                "run {:?} asks for {} GPUs at once, which no set of nodes of {} can hold",
                run.name,
                run.gpus,
                match cluster.mode {
                    Mode::Shared => "the cluster".to_owned(),
                    Mode::Partition => format!("tenant {:?}", run.tenant),
                }
            ))
            .allowed(format!(
                "up to {} GPUs, on whole nodes and part of one",
                room.free_gpus()
            ))
            .hint("leave the run out of the trace, or enlarge the cluster"));
        }
        seats.push(seat);
    }
    Ok(seats)
}

impl Engine<'_> {
    /// What ended before the trace began, in the order in which it ended.
    fn learn(&mut self, history: &Trace, tenants: &BTreeMap<&str, usize>) {
        let mut ended: Vec<&TraceRun> = history.runs.iter().collect();
        ended.sort_by_key(|run| run.submitted_us.saturating_add_unsigned(run.duration_us));
        for run in ended {
            // A tenant that has left tells nothing about those who stayed.
            let Some(tenant) = tenants.get(run.tenant.as_str()) else {
                continue;
            };
            let group = self.group(run);
            let predicted_us = run.predicted_us.or(self.predictor.predict_us(group));
            self.predictor
                .ended(*tenant, group, predicted_us, run.duration_us);
        }
    }

    /// Like runs: of one tenant, user, name and size.
    fn group(&mut self, run: &TraceRun) -> u64 {
        let next = self.groups.len() as u64;
        let kind = (run.tenant.clone(), run.kind.clone(), run.gpus);
        *self.groups.entry(kind).or_insert(next)
    }

    fn run(&mut self, progress: &mut dyn FnMut(Progress)) {
        let mut order: Vec<usize> = (0..self.trace.runs.len()).collect();
        order.sort_by_key(|run| self.trace.runs[*run].submitted_us);
        let mut arrivals = order
            .into_iter()
            .map(|run| {
                let at_us = u64::try_from(self.trace.runs[run].submitted_us).unwrap_or(0);
                (at_us, run)
            })
            .collect::<Vec<_>>()
            .into_iter()
            .peekable();
        let mut ended = 0;
        let mut events = 0_u64;
        loop {
            let changes = self
                .pools
                .iter()
                .filter_map(|pool| pool.queue.next_change_us())
                .min();
            let next = [
                arrivals.peek().map(|(at_us, _)| *at_us),
                self.next_end_us(),
                changes,
            ];
            let Some(now_us) = next.into_iter().flatten().min() else {
                break;
            };
            self.outcome
                .fairness
                .advance(now_us, &|tenant| match self.cluster.mode {
                    Mode::Shared => (&self.pools[0].queue, tenant),
                    Mode::Partition => (&self.pools[tenant].queue, 0),
                });
            while self.next_end_us().is_some_and(|at_us| at_us <= now_us) {
                self.end(now_us);
                ended += 1;
            }
            while let Some((_, run)) = arrivals.next_if(|(at_us, _)| *at_us <= now_us) {
                self.submit(run, now_us);
            }
            for pool in 0..self.pools.len() {
                self.decide(pool, now_us);
            }
            events += 1;
            if events.is_multiple_of(PROGRESS_EVERY) {
                progress(Progress { ended, now_us });
            }
            if ended == self.trace.runs.len() {
                break;
            }
        }
        progress(Progress {
            ended,
            now_us: self.outcome.fairness.now_us(),
        });
    }

    /// When the next run ends; ends that a stop has made void are dropped.
    fn next_end_us(&mut self) -> Option<u64> {
        while let Some(Reverse((at_us, run, start))) = self.ends.peek().copied() {
            if self.live[run].start == start && !self.live[run].nodes.is_empty() {
                return Some(at_us);
            }
            self.ends.pop();
        }
        None
    }

    fn end(&mut self, now_us: u64) {
        let Some(Reverse((_, run, _))) = self.ends.pop() else {
            return;
        };
        let (pool, _) = self.seats[run];
        self.close(run, now_us);
        let pool = &mut self.pools[pool];
        pool.room.give_back(RunId(run as u64));
        pool.queue.end(RunId(run as u64));
        pool.is_due = true;
        let of = &self.trace.runs[run];
        let Live {
            group,
            predicted_us,
            ..
        } = self.live[run];
        self.predictor.ended(
            self.tenants[of.tenant.as_str()],
            group,
            predicted_us,
            of.duration_us,
        );
    }

    fn submit(&mut self, run: usize, now_us: u64) {
        let (pool, tenant) = self.seats[run];
        let of = &self.trace.runs[run];
        let group = self.group(of);
        let predicted_us = of.predicted_us.or(self.predictor.predict_us(group));
        self.live[run].group = group;
        self.live[run].predicted_us = predicted_us;
        let is_proven = self.predictor.is_proven(self.tenants[of.tenant.as_str()]);
        let contender = Contender {
            run: RunId(run as u64),
            tenant,
            demand: WholeNodes::demand(of.gpus),
            priority: 0,
            submitted_us: now_us,
            attained_gpu_milli_us: 0,
            waited_us: 0,
            is_preemptible: true,
            predicted_us: predicted_us.filter(|_| is_proven),
            stop_cost_us: self.cluster.overhead_us(of.gpus),
            checkpoint: Checkpoint::AtStop,
        };
        self.pools[pool].queue.wait(contender, now_us);
        self.pools[pool].is_due = true;
    }

    fn decide(&mut self, pool: usize, now_us: u64) {
        let of = &mut self.pools[pool];
        let is_changed = of
            .queue
            .next_change_us()
            .is_some_and(|at_us| at_us <= now_us);
        if !is_changed && !std::mem::take(&mut of.is_due) {
            return;
        }
        of.is_due = false;
        let decisions = of.queue.decide(&mut of.room, now_us);
        for stop in &decisions.stops {
            *self.outcome.stops.entry(stop.reason).or_default() += 1;
            let run = stop.run.0 as usize;
            self.close(run, now_us);
            let overhead_us = self.cluster.overhead_us(self.trace.runs[run].gpus);
            self.live[run].left_us += overhead_us;
            self.outcome.runs[run].overhead_us += overhead_us;
        }
        for started in decisions.starts {
            let run = started.0 as usize;
            let of = &self.pools[pool];
            let live = &mut self.live[run];
            live.start += 1;
            live.start_us = now_us;
            live.nodes = of
                .room
                .holding(started)
                .iter()
                .map(|(node, gpus)| (of.nodes[*node as usize], *gpus))
                .collect();
            self.ends
                .push(Reverse((now_us + live.left_us, run, live.start)));
        }
    }

    /// Ends a spell on GPUs.
    fn close(&mut self, run: usize, now_us: u64) {
        let live = &mut self.live[run];
        live.left_us = live.left_us.saturating_sub(now_us - live.start_us);
        self.outcome.runs[run].segments.push(Segment {
            start_us: live.start_us,
            end_us: now_us,
            nodes: std::mem::take(&mut live.nodes),
        });
    }
}
