//! What the engine asks of whoever knows nodes and devices.

use super::Demand;
use crate::model::RunId;

/// Free and taken room, worked on while decisions are made. A gang is taken whole or not at all.
pub trait Room {
    /// Takes room for a run, or changes nothing and returns false.
    fn try_take(&mut self, run: RunId, demand: Demand) -> bool;

    /// Frees what a run holds.
    fn give_back(&mut self, run: RunId);

    /// Those of `candidates`, which come in the order in which they should make way, after whose
    /// going the demand would fit: no more than it needs, and a set that is `admissible`. None where
    /// even all of them would not do.
    fn clearing(
        &self,
        demand: Demand,
        candidates: &[RunId],
        admissible: &dyn Fn(&[RunId]) -> bool,
    ) -> Option<Vec<RunId>>;

    /// Runs after whose going the demand fits, and which all fit elsewhere then: at most
    /// `most_gpu_milli` of them in sum, and only such as may move. None where moving does not help.
    fn moving(
        &self,
        demand: Demand,
        most_gpu_milli: u64,
        may_move: &dyn Fn(RunId) -> bool,
    ) -> Option<Vec<RunId>>;
}
