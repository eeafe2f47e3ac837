//! What a mix would still fill on one kind of node, for every amount of CPU left: the arithmetic.
//!
//! A [`Frame`] is a layout on a grid: CPU in steps, each device in hundredths. For given weights of
//! the offers, [`Frame::solve`] sums the weights of every set of offers that still fits (a
//! partition function, by the recurrence of the knapsack with sums in place of maxima). Its logarithm
//! times the temperature is the worth of what is free: the value of the best filling, softened by how
//! many other fillings are nearly as good. [`Frame::supply`] is its derivative: how often each offer
//! is expected in a filling.
//!
//! Memory of the node is not a second axis: an offer is as large as the scarcer of CPU and memory
//! makes it, in proportion to this layout. What fits in truth is the ranking's to check.

use super::class::{Catalogue, KindId, Layout};
use super::prices::Offer;
use std::collections::BTreeMap;

/// Parts that a device is cut into.
pub(super) const DEVICE_PARTS: usize = 100;
/// Thousandths of a device in each part.
pub(super) const PART_MILLI: f64 = 10.0;
/// Steps that a node's CPU is cut into. Half as many do as well on the openb traces, and up to two
/// points worse on clusters where CPU is scarce; twice as many are no better.
const CPU_STEPS: f64 = 128.0;
/// A step of CPU is no smaller, so that small nodes have few.
const LEAST_STEP_MILLI: f64 = 250.0;
/// How much of a step an offer may pass a whole number by before it counts as one more: rounding up
/// always would make ten offers that fill a node seem not to fit.
const STEP_SLACK: f64 = 0.2;
/// Values kept of states of devices. Past it they are computed anew.
const MOST_REMEMBERED: usize = 16_384;
/// Keeps sums of weights within a double.
const LARGEST_SUM: f64 = 1e280;
const SMALLEST_SUM: f64 = 1e-300;

/// One kind of device within a frame.
struct KindFrame {
    kind: KindId,
    /// Distinct sizes of offers for one such device: parts, steps.
    cells: Vec<(usize, usize)>,
    /// Which cell each offer is, if it is for one device and accepts this kind.
    cell_of: Vec<Option<usize>>,
}

/// A layout on the grid, with the size of each offer there.
pub(super) struct Frame {
    step_cpu_milli: f64,
    cpu_milli_per_mib: f64,
    steps: usize,
    kinds: Vec<KindFrame>,
    /// Position in `kinds` of each device: the most frequent kind first.
    devices: Vec<usize>,
    /// Devices of the most frequent kind.
    alike: usize,
    /// Offers of several devices: offer, devices, steps.
    several: Vec<(usize, usize, usize)>,
    /// Offers without devices: offer, steps.
    bare: Vec<(usize, usize)>,
}

/// What the sums are taken at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Climate {
    /// Softness, in thousandths of a device.
    pub temperature_milli: f64,
    /// What a core is about worth, in thousandths of a device. Sums for more CPU are divided by its
    /// worth, so that they stay within a double however large the node; nothing else depends on it.
    pub core_milli: f64,
}

/// A frame's sums for one set of weights.
pub(super) struct Table {
    climate: Climate,
    /// What one step of CPU divides the sums by.
    decay: f64,
    /// By kind, parts free and steps free.
    partial: Vec<Vec<Vec<f64>>>,
    /// By whole devices free, in the frame's order, and steps free; each divided by its last.
    whole: Vec<Vec<f64>>,
    /// Logarithms of what `whole` was divided by.
    offset: Vec<f64>,
    remembered: BTreeMap<Vec<(KindId, u8)>, Vec<f64>>,
}

/// Parts of a device that are free, by share and by memory, whichever is less.
pub(super) fn parts_free(share_milli: i32, memory_mib: i64, of_memory_mib: u64) -> usize {
    let share = f64::from(share_milli.max(0));
    let memory = if of_memory_mib == 0 {
        share
    } else {
        memory_mib.max(0) as f64 * 1_000.0 / of_memory_mib as f64
    };
    ((share.min(memory) / PART_MILLI + 1e-9) as usize).min(DEVICE_PARTS)
}

impl Frame {
    /// The layout with the offers that an empty node of it could hold.
    pub fn of(layout: &Layout, catalogue: &Catalogue, offers: &[Offer]) -> Self {
        let cpu_milli = layout.cpu_milli as f64;
        let step_cpu_milli = (cpu_milli / CPU_STEPS).max(LEAST_STEP_MILLI);
        let steps = (cpu_milli / step_cpu_milli) as usize;
        let cpu_milli_per_mib = if layout.memory_mib == 0 {
            0.0
        } else {
            cpu_milli / layout.memory_mib as f64
        };
        let mut counts: BTreeMap<KindId, usize> = BTreeMap::new();
        for kind in &layout.devices {
            *counts.entry(*kind).or_default() += 1;
        }
        let mut counts: Vec<(KindId, usize)> = counts.into_iter().collect();
        counts.sort_by_key(|(kind, count)| (std::cmp::Reverse(*count), *kind));
        let devices = counts
            .iter()
            .enumerate()
            .flat_map(|(position, (_, count))| std::iter::repeat_n(position, *count))
            .collect();
        let alike = counts.first().map_or(0, |(_, count)| *count);
        let mut frame = Self {
            step_cpu_milli,
            cpu_milli_per_mib,
            steps,
            kinds: counts
                .iter()
                .map(|(kind, _)| KindFrame {
                    kind: *kind,
                    cells: Vec::new(),
                    cell_of: vec![None; offers.len()],
                })
                .collect(),
            devices,
            alike,
            several: Vec::new(),
            bare: Vec::new(),
        };
        for (number, offer) in offers.iter().enumerate() {
            frame.add(layout, catalogue, number, offer);
        }
        frame
    }

    fn add(&mut self, layout: &Layout, catalogue: &Catalogue, number: usize, offer: &Offer) {
        let shape = &offer.shape;
        let fits = shape.cpu_milli <= layout.cpu_milli
            && shape.memory_mib <= layout.memory_mib
            && layout.runtimes.contains(shape.runtime);
        let by_memory = shape.memory_mib as f64 * self.cpu_milli_per_mib;
        let size = (shape.cpu_milli as f64).max(by_memory) / self.step_cpu_milli - STEP_SLACK;
        let size = size.ceil().max(0.0) as usize;
        if !fits || size > self.steps {
            return;
        }
        match shape.devices {
            0 => self.bare.push((number, size.max(1))),
            1 => {
                for frame in &mut self.kinds {
                    let kind = &catalogue.kinds[usize::from(frame.kind)];
                    let Some(need_mib) = shape.need_of(&kind.model, kind.memory_mib) else {
                        continue;
                    };
                    let by_memory = if kind.memory_mib == 0 {
                        0.0
                    } else {
                        need_mib as f64 * 1_000.0 / kind.memory_mib as f64
                    };
                    let parts = f64::from(shape.share_milli).max(by_memory) / PART_MILLI - 1e-9;
                    let cell = ((parts.ceil().max(1.0) as usize).min(DEVICE_PARTS), size);
                    let position = frame.cells.iter().position(|known| *known == cell);
                    frame.cell_of[number] = Some(position.unwrap_or_else(|| {
                        frame.cells.push(cell);
                        frame.cells.len() - 1
                    }));
                }
            }
            several => {
                let kind = self
                    .kinds
                    .first()
                    .map(|frame| &catalogue.kinds[usize::from(frame.kind)]);
                let several = several as usize;
                if several <= self.alike
                    && kind
                        .is_some_and(|kind| shape.need_of(&kind.model, kind.memory_mib).is_some())
                {
                    self.several.push((number, several, size));
                }
            }
        }
    }

    /// Whether an empty node could hold the offer of this number.
    pub fn holds(&self, number: usize) -> bool {
        self.kinds.iter().any(|kind| kind.cell_of[number].is_some())
            || self
                .several
                .iter()
                .any(|(several, _, _)| *several == number)
            || self.bare.iter().any(|(bare, _)| *bare == number)
    }

    fn step_milli(&self, climate: Climate) -> f64 {
        climate.core_milli * self.step_cpu_milli / 1_000.0
    }

    /// Multiplications that one [`Self::solve`] and one [`Self::supply`] take, about.
    pub fn work(&self) -> u64 {
        let length = self.steps as u64 + 1;
        let cells: u64 = self.kinds.iter().map(|kind| kind.cells.len() as u64).sum();
        cells * DEVICE_PARTS as u64 * length + 3 * self.devices.len() as u64 * length * length
    }

    /// Sums over all fillings, for these weights of the offers.
    pub fn solve(&self, weights: &[f64], climate: Climate) -> Table {
        let length = self.steps + 1;
        let decay = (-self.step_milli(climate) / climate.temperature_milli).exp();
        let mut bare = powers(decay, length);
        for (number, size) in &self.bare {
            let weight = weights[*number] * decay.powi(*size as i32);
            for step in *size..length {
                bare[step] = (bare[step] + bare[step - size] * weight).min(LARGEST_SUM);
            }
        }
        let partial: Vec<_> = self
            .kinds
            .iter()
            .map(|kind| self.solve_device(kind, weights, climate.temperature_milli, decay))
            .collect();
        let mut table = Table {
            climate,
            decay,
            partial,
            whole: Vec::with_capacity(self.devices.len() + 1),
            offset: Vec::with_capacity(self.devices.len() + 1),
            remembered: BTreeMap::new(),
        };
        table.push(bare, 0.0);
        for (before, position) in self.devices.iter().enumerate() {
            let count = before + 1;
            let device = &table.partial[*position][DEVICE_PARTS];
            let mut sums = joined(&table.whole[before], device, decay);
            for (number, devices, size) in &self.several {
                if count <= self.alike && *devices <= count {
                    let weight = weights[*number]
                        * decay.powi(*size as i32)
                        * table.ratio(count - devices, before);
                    let rest = &table.whole[count - devices];
                    for (sum, rest) in sums[*size..].iter_mut().zip(rest) {
                        *sum += rest * weight;
                    }
                }
            }
            let offset = table.offset[before];
            table.push(sums, offset);
        }
        table
    }

    fn solve_device(
        &self,
        kind: &KindFrame,
        weights: &[f64],
        temperature_milli: f64,
        decay: f64,
    ) -> Vec<Vec<f64>> {
        let nothing = powers(decay, self.steps + 1);
        // What stays free costs its thousandths, so that sums stay near one whatever the device.
        let mut sums: Vec<Vec<f64>> = (0..=DEVICE_PARTS)
            .map(|parts| {
                let idle = (-(parts as f64) * PART_MILLI / temperature_milli).exp();
                nothing.iter().map(|sum| sum * idle).collect()
            })
            .collect();
        for ((parts, size), weight) in kind.cells.iter().zip(kind.cell_weights(weights, decay)) {
            for free in *parts..=DEVICE_PARTS {
                let (below, rest) = sums.split_at_mut(free);
                let source = &below[free - parts];
                for (sum, source) in rest[0][*size..].iter_mut().zip(source) {
                    *sum += source * weight;
                }
            }
        }
        sums
    }

    /// Adds to `supply` how often each offer is expected on so many empty nodes.
    pub fn supply(&self, table: &Table, weights: &[f64], nodes: f64, supply: &mut [f64]) {
        let length = self.steps + 1;
        let devices = self.devices.len();
        // Derivatives of the logarithm of the last sum by each of `whole`, and by each kind's sums.
        let mut by_whole = vec![vec![0.0_f64; length]; devices + 1];
        by_whole[devices][length - 1] = 1.0;
        let mut by_device = vec![vec![0.0_f64; length]; self.kinds.len()];
        for count in (1..=devices).rev() {
            let position = self.devices[count - 1];
            let (lower, upper) = by_whole.split_at_mut(count);
            let shrink = (table.offset[count - 1] - table.offset[count]).exp();
            let outer: Vec<f64> = upper[0].iter().map(|value| value * shrink).collect();
            let steps = differences(&table.partial[position][DEVICE_PARTS], table.decay);
            let rest = &table.whole[count - 1];
            let below = &mut lower[count - 1];
            let by_device = &mut by_device[position];
            for (step, outer) in outer.iter().enumerate().filter(|(_, outer)| **outer != 0.0) {
                for size in 0..=step {
                    below[step - size] += outer * steps[size];
                    by_device[size] += outer * rest[step - size];
                }
            }
            for (number, several, size) in &self.several {
                if count > self.alike || *several > count {
                    continue;
                }
                let weight = weights[*number]
                    * table.decay.powi(*size as i32)
                    * table.ratio(count - several, count - 1);
                let rest = &table.whole[count - several];
                let below = &mut lower[count - several];
                let mut expected = 0.0;
                for step in *size..length {
                    let flow = outer[step] * weight;
                    below[step - size] += flow;
                    expected += flow * rest[step - size];
                }
                supply[*number] += expected * nodes;
            }
        }
        for (number, size) in &self.bare {
            let weight = weights[*number] * table.decay.powi(*size as i32);
            let expected = series(*size, weight, length, |shift| {
                (shift..length)
                    .map(|step| by_whole[0][step] * table.whole[0][step - shift])
                    .sum()
            });
            supply[*number] += expected * nodes;
        }
        for (position, kind) in self.kinds.iter().enumerate() {
            let decayed = kind.cell_weights(weights, table.decay);
            let sums = kind.cell_weights(weights, 1.0);
            let by_device = &by_device[position];
            let expected = self.expected_cells(kind, &decayed, table, position, by_device);
            for (number, cell) in kind.cell_of.iter().enumerate() {
                if let Some(cell) = *cell
                    && sums[cell] > 0.0
                {
                    supply[number] += nodes * expected[cell] * weights[number] / sums[cell];
                }
            }
        }
    }

    fn expected_cells(
        &self,
        kind: &KindFrame,
        weights: &[f64],
        table: &Table,
        position: usize,
        by_device: &[f64],
    ) -> Vec<f64> {
        let length = self.steps + 1;
        let steps: Vec<Vec<f64>> = table.partial[position]
            .iter()
            .map(|sums| differences(sums, table.decay))
            .collect();
        kind.cells
            .iter()
            .zip(weights)
            .map(|((parts, size), weight)| {
                let (mut free, mut shift, mut power, mut expected) = (DEVICE_PARTS, 0, 1.0, 0.0);
                while free >= *parts && shift + size < length {
                    free -= parts;
                    shift += size;
                    power *= weight;
                    let flow: f64 = by_device[shift..]
                        .iter()
                        .zip(&steps[free])
                        .map(|(by_device, step)| by_device * step)
                        .sum();
                    expected += power * flow;
                }
                expected
            })
            .collect()
    }

    /// What a node of this frame is worth with so much free, in thousandths of a device.
    pub fn worth(
        &self,
        table: &mut Table,
        cpu_milli: i64,
        memory_mib: i64,
        mut free: Vec<(KindId, u8)>,
    ) -> f64 {
        let mut cpu = cpu_milli.max(0) as f64;
        if self.cpu_milli_per_mib > 0.0 {
            cpu = cpu.min(memory_mib.max(0) as f64 * self.cpu_milli_per_mib);
        }
        let step = ((cpu / self.step_cpu_milli + 1e-9) as usize).min(self.steps);
        free.retain(|(_, parts)| *parts > 0);
        free.sort_unstable();
        let idle_milli: f64 = free
            .iter()
            .map(|(_, parts)| f64::from(*parts) * PART_MILLI)
            .sum();
        if !table.remembered.contains_key(&free) {
            if table.remembered.len() >= MOST_REMEMBERED {
                table.remembered.clear();
            }
            let logarithms = self.logarithms(table, &free);
            table.remembered.insert(free.clone(), logarithms);
        }
        let cpu_milli = step as f64 * self.step_milli(table.climate);
        table.remembered[&free][step] * table.climate.temperature_milli + cpu_milli + idle_milli
    }

    fn logarithms(&self, table: &Table, free: &[(KindId, u8)]) -> Vec<f64> {
        let is_whole = |(kind, parts): &(KindId, u8)| {
            usize::from(*parts) == DEVICE_PARTS
                && self.kinds.first().is_some_and(|first| first.kind == *kind)
        };
        let whole = free.iter().filter(|device| is_whole(device)).count();
        let whole = whole.min(self.alike);
        let mut sums = table.whole[whole].clone();
        for (kind, parts) in free.iter().filter(|device| !is_whole(device)) {
            if let Some(position) = self.kinds.iter().position(|frame| frame.kind == *kind) {
                let device = &table.partial[position][usize::from(*parts)];
                sums = joined(&sums, device, table.decay);
            }
        }
        sums.iter()
            .map(|sum| sum.max(SMALLEST_SUM).ln() + table.offset[whole])
            .collect()
    }
}

impl KindFrame {
    fn cell_weights(&self, weights: &[f64], decay: f64) -> Vec<f64> {
        let mut sums = vec![0.0; self.cells.len()];
        for (cell, weight) in self.cell_of.iter().zip(weights) {
            if let Some(cell) = cell {
                sums[*cell] += weight;
            }
        }
        for (sum, (_, size)) in sums.iter_mut().zip(&self.cells) {
            *sum *= decay.powi(*size as i32);
        }
        sums
    }
}

impl Table {
    fn push(&mut self, mut sums: Vec<f64>, offset: f64) {
        let last = sums.last().copied().unwrap_or(1.0);
        let last = last.clamp(SMALLEST_SUM, f64::MAX);
        for sum in &mut sums {
            *sum /= last;
        }
        self.whole.push(sums);
        self.offset.push(offset + last.ln());
    }

    /// What `whole[of]` was divided by over what `whole[by]` was.
    fn ratio(&self, of: usize, by: usize) -> f64 {
        (self.offset[of] - self.offset[by]).exp()
    }
}

/// The sums for two lots of devices that share the CPU.
fn joined(left: &[f64], right: &[f64], decay: f64) -> Vec<f64> {
    let mut sums = vec![0.0_f64; left.len()];
    for (size, step) in differences(right, decay).into_iter().enumerate() {
        if step > 0.0 {
            for (sum, left) in sums[size..].iter_mut().zip(left) {
                *sum += step * left;
            }
        }
    }
    sums
}

/// The sums of fillings that take exactly so many steps, from those that take so many or fewer.
fn differences(sums: &[f64], decay: f64) -> Vec<f64> {
    let mut before = 0.0;
    sums.iter()
        .map(|sum| {
            let step = sum - before * decay;
            before = *sum;
            step.max(0.0)
        })
        .collect()
}

/// One, `decay`, its square and so on.
fn powers(decay: f64, length: usize) -> Vec<f64> {
    std::iter::successors(Some(1.0), |power| Some(power * decay))
        .take(length)
        .collect()
}

/// `weight * flow(size) + weight^2 * flow(2 size) + ...` while it fits.
fn series(size: usize, weight: f64, length: usize, flow: impl Fn(usize) -> f64) -> f64 {
    let (mut shift, mut power, mut sum) = (size, weight, 0.0);
    while shift < length {
        sum += power * flow(shift);
        shift += size;
        power *= weight;
    }
    sum
}
