//! Who comes next, kept as a tree: in each branch the next run of it, so that a grant moves one branch
//! along at each level and never its siblings.

use super::fairness::{Phase, PlannedUse, Turn};
use crate::model::QueuePlace;
use std::collections::BTreeSet;

/// How far along a branch is below where it stands, its next run, and whose that is.
type Head = (Turn, QueuePlace, usize);

/// The tenants that have runs left to be looked at, in their turns.
#[derive(Default)]
pub struct Turns {
    /// By the position at which the tenant was met.
    branches: Vec<Branch>,
    tops: BTreeSet<Head>,
}

#[derive(Default)]
struct Branch {
    /// The next run of the tenant itself, and of each tenant right below.
    heads: BTreeSet<Head>,
    /// The tenant's own among them.
    own: Option<Head>,
    /// The first of them, as it stands among the heads of the tenant above.
    first: Option<Head>,
}

impl Turns {
    /// Whose turn it is: the number given for the tenant.
    pub fn first(&self) -> Option<usize> {
        self.tops.first().map(|(_, _, whose)| *whose)
    }

    /// The next run of a met tenant is this, and what it and those above hold may have grown.
    pub fn set(
        &mut self,
        planned: &PlannedUse<'_>,
        phase: Phase,
        tenant: usize,
        whose: usize,
        next: Option<QueuePlace>,
    ) {
        if self.branches.len() < planned.met() {
            self.branches.resize_with(planned.met(), Branch::default);
        }
        let branch = &mut self.branches[tenant];
        let own = next.map(|place| (Turn::default(), place, whose));
        if let Some(before) = std::mem::replace(&mut branch.own, own) {
            branch.heads.remove(&before);
        }
        branch.heads.extend(own);
        let mut climbing = Some(tenant);
        while let Some(position) = climbing {
            climbing = planned.above(position);
            let branch = &mut self.branches[position];
            let first = branch.heads.first().map(|(below, place, whose)| {
                let turn = below.under(planned.part(position, phase));
                (turn, *place, *whose)
            });
            let before = std::mem::replace(&mut branch.first, first);
            if before == first {
                continue;
            }
            let heads = match climbing {
                Some(above) => &mut self.branches[above].heads,
                None => &mut self.tops,
            };
            if let Some(before) = before {
                heads.remove(&before);
            }
            heads.extend(first);
        }
    }
}
