//! Plans, and keeps between plans what it derived of the nodes, so that a plan costs what has changed
//! and not what there is.
//!
//! What is kept cannot lie. It is the free capacity of each pool, taken from one state at one log index,
//! and a state is the same wherever it stands at that index (I11). Before each plan the nodes that an
//! entry has changed since are read again, and so is every node on which the plan before tried
//! something, for a proposal is not yet fact. Who holds what and until when ([`super::reserve`]) is
//! of the state alone, and read again where something changed once it is asked for. Choices do not depend on what was kept for how long: a
//! property test holds a kept planner to what a new one proposes, plan by plan. And were it wrong all the
//! same, `apply` checks every item.

use super::place::Inventory;
use super::reserve::Tenures;
use super::{Plan, claims, pass};
use crate::model::PoolName;
use crate::state::State;
use std::collections::BTreeMap;

/// Plans on the successive states of one log. For the states of another, make another.
#[derive(Default)]
pub struct Planner {
    /// Log index of the state that was planned on last.
    index: u64,
    pools: BTreeMap<PoolName, Inventory>,
    /// Who holds what of each pool's nodes, and when they come free: it follows the state when it is asked.
    tenures: BTreeMap<PoolName, Tenures>,
}

impl Planner {
    /// Proposes devices for waiting runs, and which runs give way to them: the same as [`super::plan`].
    pub fn plan(&mut self, state: &State, now_us: u64) -> Plan {
        self.plan_counted(state, now_us).0
    }

    /// The plan, and how often it looked for room: its cost, which tests hold down.
    pub(super) fn plan_counted(&mut self, state: &State, now_us: u64) -> (Plan, usize) {
        self.follow(state);
        let mut plan = Plan {
            again_at_us: state.next_release_us(),
            ..Plan::default()
        };
        let mut looks = 0;
        for (pool, tenants) in state.queues().pools() {
            let placed_before = plan.placements.len();
            let room = self
                .pools
                .entry(pool.clone())
                .or_insert_with(|| Inventory::of(state, pool));
            room.begin_trial();
            let tenures = self
                .tenures
                .entry(pool.clone())
                .or_insert_with(|| Tenures::new(pool));
            let mut pass = pass::Pass::new(state, pool, room, tenures, now_us);
            pass.place_claimants(&mut plan);
            pass.place_waiting(tenants, &mut plan);
            looks += pass.looks();
            let kept = pass.take_reservations();
            // Who gives way is asked of what stands: the next plan sees what this one has placed.
            if plan.placements.len() == placed_before {
                claims::propose(state, pool, pass.refused_first(), &kept, now_us, &mut plan);
            }
            plan.reservations.extend(kept);
        }
        (plan, looks)
    }

    /// Brings what is kept up to the state.
    fn follow(&mut self, state: &State) {
        if state.index() < self.index {
            // Not the log that was followed.
            self.pools.clear();
            self.tenures.clear();
        }
        for room in self.pools.values_mut() {
            for name in room.end_trial() {
                if let Some(node) = state.nodes().get(&name) {
                    room.refresh_node(node);
                }
            }
            for node in state.nodes_changed_after(self.index) {
                room.refresh_node(node);
            }
        }
        self.index = state.index();
    }
}
