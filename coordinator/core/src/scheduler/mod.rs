//! Who gets which devices next: [`plan`] proposes, [`crate::state::State::apply`] decides.
//!
//! Reads the state and changes nothing. A plan may be stale or cut short without harm, for every
//! item is checked again when it is applied. In each pool runs for which others were stopped come first,
//! then what is within a guarantee, then what borrows ([`pass`]); what is guaranteed and finds no room
//! takes it back from whoever has borrowed it ([`claims`]), and nobody else starts where it will. Where members go is [`place`]'s.
//!
//! A run of the front that finds no room for too long has devices kept for it ([`reserve`]), and others
//! use them until they are complete.
//!
//! Deliberately lacks a memory of its own: the same state and time give the same plan on every machine.
//! What a [`Planner`] keeps between plans it only keeps so as not to derive it again.

mod claims;
pub mod decisions;
mod estimate;
mod explain;
mod fairness;
mod forecast;
mod held;
mod idle;
mod kept;
mod models;
mod order;
mod outlook;
mod pass;
pub mod place;
mod planner;
pub mod queue;
mod reach;
mod reserve;
mod trial;
mod turns;

pub use estimate::{Durations, Estimate, estimate};
pub use explain::{Tier, Waiting, explain, explain_spec, held};
pub use forecast::preempted_by;
pub use idle::{IdleWatch, Reading, UNREAD_AFTER_US};
pub use outlook::{Change, GivesWay, Holder, Outlook, Position, Until, outlook};
pub use planner::Planner;
pub use reserve::Reservation;
pub use trial::Trial;

use crate::state::{Placement, Preemption, State};

/// Placements proposed in one plan at most: one log entry stays small, and the next plan sees what
/// became of them.
pub const MOST_PLACEMENTS: usize = 256;

/// Lines of one tenant that may find no room in one pool before the pass gives up on that tenant. Each
/// costs a look at the pool; people ask for a few dozen different shapes.
pub const MOST_LINES_REFUSED: usize = 256;

/// Proposed changes, not yet fact.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Devices for waiting runs.
    pub placements: Vec<Placement>,
    /// Runs to be stopped and queued again, so that others can start.
    pub preemptions: Vec<Preemption>,
    /// Devices kept for runs that wait: nobody behind them in the order was placed there who would
    /// not be gone in time.
    pub reservations: Vec<Reservation>,
    /// When to plan again even if nothing changes until then: a run that is left alone for its first
    /// while may be stopped from then on, and one that is held may be tried again.
    pub again_at_us: Option<u64>,
}

impl Plan {
    /// Whether it proposes nothing.
    pub fn is_empty(&self) -> bool {
        self.placements.is_empty() && self.preemptions.is_empty()
    }

    fn look_again_at(&mut self, at_us: u64) {
        self.again_at_us = Some(self.again_at_us.map_or(at_us, |sooner| sooner.min(at_us)));
    }
}

/// Proposes devices for waiting runs, and which runs give way to them. Who plans often keeps a
/// [`Planner`], which proposes the same and does not read every node each time.
pub fn plan(state: &State, now_us: u64) -> Plan {
    Planner::default().plan(state, now_us)
}

#[cfg(test)]
mod tests;
