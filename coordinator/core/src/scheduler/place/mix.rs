//! The mix: how often each shape of demand comes, learnt from a list or from arrivals so far.

use super::Shape;
use std::collections::BTreeMap;

/// Shapes told apart. One more halves every count and forgets the rarest, so that a mix stays small
/// whatever people submit, and what they ask now outweighs what they asked once.
const MOST_SHAPES: usize = 4_096;

/// How often each shape of demand comes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mix {
    counts: BTreeMap<Shape, u64>,
}

impl Mix {
    /// Knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts members of one shape.
    pub fn observe(&mut self, shape: &Shape, members: u64) {
        if let Some(count) = self.counts.get_mut(shape) {
            *count = count.saturating_add(members);
            return;
        }
        while self.counts.len() >= MOST_SHAPES {
            self.counts.retain(|_, count| {
                *count /= 2;
                *count > 0
            });
        }
        self.counts.insert(shape.clone(), members);
    }

    /// Whether it knows of no demand for devices: then there is nothing to value nodes by.
    pub fn is_empty(&self) -> bool {
        self.gpu_milli() == 0.0
    }

    /// Thousandths of devices that everything counted asks for together.
    pub(super) fn gpu_milli(&self) -> f64 {
        self.counts
            .iter()
            .map(|(shape, count)| shape.gpu_milli() as f64 * *count as f64)
            .sum()
    }

    /// Shapes with their counts.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&Shape, u64)> {
        self.counts.iter().map(|(shape, count)| (shape, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::place::tests::share_of;

    #[test]
    fn a_mix_of_endless_shapes_stays_small_and_keeps_what_comes_often() {
        let mut mix = Mix::new();
        mix.observe(&share_of(500, 0), 1_000);
        for cpu_milli in 1..10_000 {
            mix.observe(&share_of(500, cpu_milli), 1);
        }
        assert!(mix.counts.len() <= MOST_SHAPES);
        assert!(mix.counts.contains_key(&share_of(500, 0)));
    }

    #[test]
    fn demand_without_devices_alone_is_no_mix_to_value_nodes_by() {
        let mut mix = Mix::new();
        assert!(mix.is_empty());
        let mut bare = share_of(1_000, 1_000);
        bare.devices = 0;
        mix.observe(&bare, 5);
        assert!(mix.is_empty());
        mix.observe(&share_of(10, 0), 1);
        assert!(!mix.is_empty());
    }
}
