//! Prices at which what the mix offers and what the nodes would choose come out even.
//!
//! Filling a cluster from a known mix is a cutting-stock program: its rows are the shapes (no more of
//! each than comes) and the nodes (one filling each), and its dual prices say how much of its GPU
//! share a shape may keep for the node that takes it. Shapes that are plentiful keep little: nodes
//! compete for the scarce ones that fill remainders (Gilmore and Gomory, "A Linear Programming
//! Approach to the Cutting-Stock Problem", 1961; bid prices for arrivals in random order: Talluri
//! and van Ryzin, "An Analysis of Bid-Price Controls", 1998). The program is solved softened by a
//! temperature, so that its derivative is smooth and the prices follow by proportional scaling.

use super::class::{Catalogue, Layout};
use super::mix::Mix;
use super::shape::Shape;
use super::table::{Climate, Frame};
use std::collections::BTreeMap;

/// Softness of the fillings, in thousandths of a device. Chosen, like the rest here, on the openb
/// orders and on altered mixes and clusters, see docs/performance.md: less is better by a few tenths of a
/// point on large clusters, more refuses large demand later on small ones.
pub(super) const TEMPERATURE_MILLI: f64 = 17.0;
/// Softness at the first round: prices settle sooner from above.
const FIRST_TEMPERATURE_MILLI: f64 = 100.0;
/// Rounds of scaling. Three times as many change the figures by less than 0.1 points.
const MOST_ROUNDS: u64 = 100;
const LEAST_ROUNDS: u64 = 25;
/// Multiplications for all rounds together: below a second on one core.
const MOST_WORK: u64 = 3_000_000_000;
/// The last part of the rounds, at the last temperature.
const SETTLED_PART: f64 = 0.2;
/// How much of the mismatch one round makes good.
const DAMPING: f64 = 0.5;
/// The most that one round believes of a mismatch, as a logarithm.
const LARGEST_MISMATCH: f64 = 2.0;
/// What a core may cost a demand without devices at most, in thousandths of a device. Such demand is
/// placed wherever it fits, so its price has no natural end; a device's share of a node's CPU is
/// worth well below this.
const DEAREST_CORE_MILLI: f64 = 400.0;
/// Where the price of a core begins.
const FIRST_CORE_MILLI: f64 = 40.0;
/// Shapes priced apart; see [`offers`].
const MOST_OFFERS: usize = 512;

/// One shape with how much of it comes and what it is worth to the node that takes it.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub shape: Shape,
    /// How many come until as much was asked for as the cluster has.
    comes: f64,
    /// Its part of all that come.
    part: f64,
    /// What it is worth at most: the thousandths of devices that it fills.
    most_milli: f64,
    /// What it is worth.
    price_milli: f64,
}

impl Offer {
    fn weight(&self, temperature_milli: f64) -> f64 {
        let net_milli = self.price_milli - self.shape_milli_on_grid();
        (net_milli / temperature_milli).exp() * self.part
    }

    /// Thousandths as the tables count them.
    fn shape_milli_on_grid(&self) -> f64 {
        let parts = (f64::from(self.shape.share_milli) / super::table::PART_MILLI).ceil();
        f64::from(self.shape.devices) * parts * super::table::PART_MILLI
    }
}

/// Weights of offers, as the tables take them.
pub(super) fn weights(offers: &[Offer], climate: Climate) -> Vec<f64> {
    offers
        .iter()
        .map(|offer| offer.weight(climate.temperature_milli))
        .collect()
}

/// The temperature with the going price of a core: what demand without devices pays for one.
pub(super) fn climate(offers: &[Offer], temperature_milli: f64) -> Climate {
    let (mut paid_milli, mut cores) = (0.0, 0.0);
    for offer in offers.iter().filter(|offer| offer.shape.devices == 0) {
        paid_milli += offer.comes * offer.price_milli.max(0.0);
        cores += offer.comes * offer.shape.cpu_milli as f64 / 1_000.0;
    }
    Climate {
        temperature_milli,
        core_milli: if cores > 0.0 { paid_milli / cores } else { 0.0 },
    }
}

/// The prices of a mix on a cluster: so many nodes of each layout.
pub(super) fn settle(mix: &Mix, layouts: &[(&Layout, usize)], catalogue: &Catalogue) -> Vec<Offer> {
    let mut offers = offers(mix);
    let frames: Vec<(Frame, f64)> = layouts
        .iter()
        .map(|(layout, count)| (Frame::of(layout, catalogue, &offers), *count as f64))
        .collect();
    expect(&mut offers, &frames, capacity_milli(layouts));
    let work: u64 = frames.iter().map(|(frame, _)| frame.work()).sum();
    let rounds = (MOST_WORK / work.max(1)).clamp(LEAST_ROUNDS, MOST_ROUNDS);
    let cooling = FIRST_TEMPERATURE_MILLI / TEMPERATURE_MILLI;
    for round in 0..rounds {
        let part = round as f64 / (rounds as f64 * (1.0 - SETTLED_PART));
        let temperature_milli = FIRST_TEMPERATURE_MILLI / cooling.powf(part.min(1.0));
        let climate = climate(&offers, temperature_milli);
        let weights = weights(&offers, climate);
        let mut supply = vec![0.0; offers.len()];
        for (frame, nodes) in &frames {
            let table = frame.solve(&weights, climate);
            frame.supply(&table, &weights, *nodes, &mut supply);
        }
        for (offer, supplied) in offers.iter_mut().zip(supply) {
            let mismatch = ((offer.comes + 0.01) / (supplied + 0.01)).ln();
            let mismatch = mismatch.clamp(-LARGEST_MISMATCH, LARGEST_MISMATCH);
            offer.price_milli =
                (offer.price_milli + DAMPING * temperature_milli * mismatch).min(offer.most_milli);
        }
    }
    offers
}

/// How many of each offer come until all that fits somewhere asks for as much as there is: what fits
/// nowhere takes no room from the others.
fn expect(offers: &mut [Offer], frames: &[(Frame, f64)], capacity_milli: f64) {
    let asked_milli: f64 = (0..)
        .zip(offers.iter())
        .filter(|(number, _)| frames.iter().any(|(frame, _)| frame.holds(*number)))
        .map(|(_, offer)| offer.comes * offer.shape.gpu_milli() as f64)
        .sum();
    if asked_milli > 0.0 {
        for offer in offers {
            offer.comes *= capacity_milli / asked_milli;
        }
    }
}

fn capacity_milli(layouts: &[(&Layout, usize)]) -> f64 {
    layouts
        .iter()
        .map(|(layout, count)| 1_000.0 * layout.devices.len() as f64 * *count as f64)
        .sum()
}

/// The mix as offers. Where it has more shapes than can be priced apart, CPU and memory are rounded
/// until they are few enough, and at last the rarest are left out.
fn offers(mix: &Mix) -> Vec<Offer> {
    let mut counts: BTreeMap<Shape, f64> = BTreeMap::new();
    for digits in [u32::MAX, 5, 4, 3] {
        counts.clear();
        for (shape, count) in mix.counts() {
            let rounded = Shape {
                cpu_milli: rounded(shape.cpu_milli, digits),
                memory_mib: rounded(shape.memory_mib, digits),
                ..shape.clone()
            };
            *counts.entry(rounded).or_default() += count as f64;
        }
        if counts.len() <= MOST_OFFERS {
            break;
        }
    }
    let mut counts: Vec<(Shape, f64)> = counts.into_iter().collect();
    counts.sort_by(|left, right| right.1.total_cmp(&left.1).then(left.0.cmp(&right.0)));
    counts.truncate(MOST_OFFERS);
    let total: f64 = counts.iter().map(|(_, count)| count).sum();
    counts
        .into_iter()
        .map(|(shape, count)| {
            let (most_milli, price_milli) = if shape.devices > 0 {
                (shape.gpu_milli() as f64, shape.gpu_milli() as f64)
            } else {
                let cores = shape.cpu_milli as f64 / 1_000.0;
                (DEAREST_CORE_MILLI * cores, FIRST_CORE_MILLI * cores)
            };
            Offer {
                comes: count,
                part: count / total,
                most_milli,
                price_milli,
                shape,
            }
        })
        .collect()
}

/// Down to so many binary digits.
pub(super) fn rounded(amount: u64, digits: u32) -> u64 {
    let drop = (u64::BITS - amount.leading_zeros()).saturating_sub(digits);
    (amount >> drop) << drop
}
