//! For one shape, the classes that fit it in order of loss.

use super::class::{Catalogue, signed};
use super::shape::Shape;
use super::valuation::Needs;
use std::collections::BTreeSet;

/// A class of nodes in equal state, by number within one inventory.
pub(super) type ClassId = u32;

/// Where a class stands among others of equal loss: by one of its nodes and, where one node has been the
/// first of several classes, by when it was: the length of the inventory's log then. A node's own order
/// first, so that it does not matter what the inventory went through before.
pub(super) type Tie = (u64, usize);

/// Islands beyond one that the devices stand on, loss, tie, and the class.
pub(super) type Rank = (u8, i64, Tie, ClassId);

/// The classes that fit a shape, by wiring, by loss and then by tie. An entry whose tie is not its class's any
/// more is stale: the class was empty meanwhile, and stands again under its new tie.
#[derive(Debug, Clone)]
pub(super) struct Ranking {
    pub shape: Shape,
    /// Memory needed of each kind of device.
    needs: Vec<Option<i64>>,
    pub ranked: BTreeSet<Rank>,
    /// How much of the inventory's log of populated classes is ranked here.
    pub seen: usize,
}

impl Ranking {
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            needs: Vec::new(),
            ranked: BTreeSet::new(),
            seen: 0,
        }
    }

    /// Starts over, for classes have new numbers or nodes new worth.
    pub fn forget(&mut self) {
        self.ranked.clear();
        self.seen = 0;
    }

    /// Memory needed of each kind of device in the catalogue.
    pub fn needs(&mut self, catalogue: &Catalogue) -> &Needs {
        for kind in &catalogue.kinds[self.needs.len()..] {
            let need = self.shape.need_of(&kind.model, kind.memory_mib);
            self.needs.push(need.map(signed));
        }
        &self.needs
    }
}
