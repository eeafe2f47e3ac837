//! How long anybody waits when everybody obeys: owners for what they lent, large gangs behind small
//! runs, and nobody for a neighbour's long queue. Time is played through event by event.

#[path = "../../../coordinator/core/src/fixtures.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod fixtures;

use coordinator_core::model::*;
use coordinator_core::scheduler::plan;
use coordinator_core::state::Command;
use fixtures::*;
use platform_checker::judge;
use proptest::prelude::*;
use std::collections::BTreeMap;

const SECOND_US: u64 = 1_000_000;
/// How long an attempt takes to stop after it was told to: what the agents grant.
const GRACE_US: u64 = 30 * SECOND_US;
/// A world in which every run works for a known time, and stops a grace after it is told to.
struct Played {
    world: World,
    /// How long each run works.
    lengths_us: BTreeMap<RunId, u64>,
    /// When who was told to stop will have stopped.
    stops_us: BTreeMap<RunId, u64>,
}

impl Played {
    fn new(nodes: &[(&str, &str)]) -> Self {
        Self {
            world: World::with_nodes(nodes),
            lengths_us: BTreeMap::new(),
            stops_us: BTreeMap::new(),
        }
    }

    fn submit(&mut self, tenant: &str, spec: WorkloadSpec, length_us: u64) -> RunId {
        let run = self.world.submit_for(tenant, spec);
        self.lengths_us.insert(run, length_us);
        run
    }

    fn end_of(&self, run: &Run) -> u64 {
        let placed_us = run.last_attempt().map_or(0, |attempt| attempt.placed_us);
        let works_until_us = placed_us + self.lengths_us[&run.id];
        self.stops_us
            .get(&run.id)
            .map_or(works_until_us, |stops_us| works_until_us.min(*stops_us))
    }

    /// Plans until a plan proposes nothing, and ends whoever ends now; `None`: nothing more happens.
    fn next_us(&mut self) -> Option<u64> {
        loop {
            let over: Vec<RunId> = self
                .world
                .state
                .active_runs()
                .filter(|run| self.end_of(run) <= self.world.now_us)
                .map(|run| run.id)
                .collect();
            for run in over {
                let stopped = self.stops_us.remove(&run).is_some();
                let kind = if stopped {
                    EndKind::Stopped
                } else {
                    EndKind::Exited { code: 0 }
                };
                for member in 0..self.world.attempt(run).members.len() as u32 {
                    self.world.end(run, member, kind.clone());
                }
            }
            let plan = plan(&self.world.state, self.world.now_us);
            assert_eq!(judge(&self.world.state, &plan, self.world.now_us), []);
            if plan.is_empty() {
                let ends = self.world.state.active_runs().map(|run| self.end_of(run));
                return ends.chain(plan.again_at_us).min();
            }
            for preemption in &plan.preemptions {
                self.stops_us
                    .insert(preemption.run, self.world.now_us + GRACE_US);
            }
            let placed: Vec<RunId> = plan.placements.iter().map(|placed| placed.run).collect();
            self.world.apply(Command::Place {
                placements: plan.placements,
            });
            for run in placed {
                for member in 0..self.world.attempt(run).members.len() as u32 {
                    self.world.report(run, member, MemberPhase::Running);
                }
            }
            self.world.apply(Command::Preempt {
                preemptions: plan.preemptions,
            });
        }
    }

    /// Plays what happens until then.
    fn play_until(&mut self, until_us: u64) {
        while let Some(next_us) = self.next_us().filter(|next_us| *next_us < until_us) {
            self.world.now_us = next_us;
        }
        self.world.now_us = until_us;
    }

    /// Plays until these have all been placed once, and says when that was.
    fn all_placed_us(&mut self, runs: &[RunId]) -> u64 {
        loop {
            let next_us = self.next_us();
            let is_placed = |run: &RunId| !self.world.run(*run).attempts.is_empty();
            if runs.iter().all(is_placed) {
                let placed = runs
                    .iter()
                    .map(|run| self.world.run(*run).attempts[0].placed_us);
                return placed.max().unwrap_or(0);
            }
            let next_us = next_us.expect("somebody waits, and something is to come");
            assert!(next_us > self.world.now_us, "time goes on");
            self.world.now_us = next_us;
        }
    }
}

fn with_limit(limit_us: u64, spec: WorkloadSpec) -> WorkloadSpec {
    WorkloadSpec {
        time_limit_ms: Some(limit_us / 1000),
        ..spec
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn all_that_an_owner_asks_within_its_quota_starts_within_a_minute_and_a_grace(
        borrowers in proptest::collection::vec((1_u32..9, 60_u64..2_000), 30..90),
        owned in proptest::collection::vec(prop_oneof![3 => Just((1, 1)), 1 => Just((1, 2)), 1 => Just((8, 1)), 1 => Just((4, 2))], 1..6),
        lead_s in 0_u64..120,
    ) {
        let mut played = Played::new(&[
            ("node-1", "8xA100-80G"),
            ("node-2", "8xA100-80G"),
            ("node-3", "8xA100-80G"),
            ("node-4", "8xA100-80G"),
        ]);
        // What the owner asks for fits its quota, and on as many nodes as there are.
        let asked: u32 = owned.iter().map(|(gpus, nodes)| gpus * nodes).sum();
        let whole_nodes: u32 = owned.iter().map(|(gpus, nodes)| gpus.div_ceil(8) * nodes).sum();
        prop_assume!(whole_nodes <= 4);
        played.world.quota("owner", u64::from(asked), None, None);
        for (count, length_s) in borrowers {
            played.submit("guests", gpus(count), length_s * SECOND_US);
        }
        played.next_us();
        played.world.now_us += lead_s * SECOND_US;
        let asked_us = played.world.now_us;
        let runs: Vec<RunId> = owned
            .into_iter()
            .map(|(count, nodes)| {
                let spec = WorkloadSpec { nodes, ..gpus(count) };
                played.submit("owner", spec, 86_400 * SECOND_US)
            })
            .collect();
        let placed_us = played.all_placed_us(&runs);
        // The first has devices kept for it; beside those kept for its equals behind, a run may still
        // start that is left alone for its own first while.
        let bound_us = 60 * SECOND_US + GRACE_US;
        prop_assert!(
            placed_us - asked_us <= bound_us,
            "{} s after it asked, and {} s are promised",
            (placed_us - asked_us) / SECOND_US,
            bound_us / SECOND_US
        );
    }

    #[test]
    fn what_an_owner_is_owed_comes_within_a_minimum_run_and_a_grace_however_short_borrowers_are(
        borrowers in proptest::collection::vec((1_u32..4, 3_u64..60), 60..120),
        asked in prop_oneof![Just((4_u32, 1_u32)), Just((4, 2)), Just((3, 1)), Just((2, 3))],
        lead_s in 0_u64..60,
    ) {
        let mut played = Played::new(&[
            ("node-1", "4xA100-80G"),
            ("node-2", "4xA100-80G"),
            ("node-3", "4xA100-80G"),
        ]);
        let (count, nodes) = asked;
        played.world.quota("owner", u64::from(count * nodes), None, None);
        for (count, length_s) in borrowers {
            played.submit("guests", gpus(count), length_s * SECOND_US);
        }
        played.play_until(played.world.now_us + lead_s * SECOND_US);
        let asked_us = played.world.now_us;
        let spec = WorkloadSpec { nodes, ..gpus(count) };
        let run = played.submit("owner", spec, 86_400 * SECOND_US);
        let placed_us = played.all_placed_us(&[run]);
        let bound_us = played.world.state.policy().minimum_run_ms * 1000 + GRACE_US;
        prop_assert!(
            placed_us - asked_us <= bound_us,
            "{} s after it asked, and {} s are promised",
            (placed_us - asked_us) / SECOND_US,
            bound_us / SECOND_US
        );
    }

    #[test]
    fn a_large_gang_starts_by_the_longest_limit_of_those_that_pass_it(
        small in proptest::collection::vec((1_u32..5, 60_u64..600), 60..140),
        nodes in 2_u32..4,
    ) {
        const LONGEST_US: u64 = 600 * SECOND_US;
        let mut played = Played::new(&[
            ("node-1", "8xA100-80G"),
            ("node-2", "8xA100-80G"),
            ("node-3", "8xA100-80G"),
            ("node-4", "8xA100-80G"),
        ]);
        let mut small = small.into_iter();
        for (count, length_s) in small.by_ref().take(40) {
            played.submit("many", with_limit(LONGEST_US, gpus(count)), length_s * SECOND_US);
        }
        played.next_us();
        let gang = played.submit(
            "one",
            with_limit(LONGEST_US, WorkloadSpec { nodes, ..gpus(8) }),
            LONGEST_US,
        );
        let asked_us = played.world.now_us;
        for (count, length_s) in small {
            played.submit("many", with_limit(LONGEST_US, gpus(count)), length_s * SECOND_US);
        }
        let placed_us = played.all_placed_us(&[gang]);
        // Devices are kept after a while; who is there by then ends by its limit, a minute to start
        // and a minute to stop taken into account.
        let while_us = played.world.state.policy().reservation_after_ms * 1000;
        let bound_us = while_us + LONGEST_US + 120 * SECOND_US;
        prop_assert!(
            placed_us - asked_us <= bound_us,
            "{} s after it asked, and {} s are the bound",
            (placed_us - asked_us) / SECOND_US,
            bound_us / SECOND_US
        );
    }

    #[test]
    fn equal_tenants_hold_equal_shares_but_for_one_run(
        sizes in proptest::collection::vec((1_u32..9, any::<bool>()), 0..60),
        early in 0_usize..60,
    ) {
        let mut world = World::with_nodes(&[
            ("node-1", "8xA100-80G"),
            ("node-2", "8xA100-80G"),
            ("node-3", "8xA100-80G"),
            ("node-4", "8xA100-80G"),
        ]);
        // One of them came first with many; both have enough small ones to fill every gap.
        for _ in 0..early {
            world.submit_for("one", gpus(1));
        }
        for (count, first) in sizes {
            world.submit_for(if first { "one" } else { "other" }, gpus(count));
        }
        for tenant in ["one", "other"] {
            for _ in 0..32 {
                world.submit_for(tenant, gpus(1));
            }
        }
        let plan = plan(&world.state, world.now_us);
        prop_assert_eq!(judge(&world.state, &plan, world.now_us), []);
        let placed: Vec<RunId> = plan.placements.iter().map(|placed| placed.run).collect();
        let largest = placed.iter().map(|run| world.run(*run).spec.gpu_milli()).max().unwrap_or(0);
        world.apply(Command::Place { placements: plan.placements });
        let [one, other] = ["one", "other"]
            .map(|tenant| world.state.used_milli(&tenant_name(tenant), &pool_name("default")));
        prop_assert_eq!(one + other, 32_000, "nothing idles");
        prop_assert!(one.abs_diff(other) <= largest, "{} against {}, largest {}", one, other, largest);
    }
}
