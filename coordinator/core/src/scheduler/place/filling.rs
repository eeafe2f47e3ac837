//! What each node is worth to a known mix.

use super::class::{Catalogue, FreeDevice, Layout, LayoutId, NodeState};
use super::mix::Mix;
use super::prices::{Offer, TEMPERATURE_MILLI, climate, rounded, settle, weights};
use super::table::{Frame, Table, parts_free};
use std::collections::BTreeMap;

/// Layouts whose CPU and memory agree to so many binary digits are valued as one.
const ALIKE_DIGITS: u32 = 5;

/// Values a node by what the mix would still fill there, at prices settled on the whole cluster. See
/// [`super::Inventory::learn`].
pub struct FillingValues {
    offers: Vec<Offer>,
    frames: Vec<(Frame, Table)>,
    by_layout: BTreeMap<LayoutId, usize>,
    by_likeness: BTreeMap<Layout, usize>,
}

impl FillingValues {
    /// Settles prices on nodes of these layouts, so many of each. Takes up to about half a second:
    /// it is for start-up or beside the planner's loop, never for each decision.
    pub(super) fn settle(
        mix: &Mix,
        nodes: &BTreeMap<LayoutId, usize>,
        catalogue: &Catalogue,
    ) -> Self {
        let mut alike: BTreeMap<Layout, (LayoutId, usize)> = BTreeMap::new();
        for (layout, count) in nodes {
            let likeness = likeness(&catalogue.layouts[*layout as usize]);
            alike.entry(likeness).or_insert((*layout, 0)).1 += count;
        }
        let layouts: Vec<(&Layout, usize)> = alike
            .values()
            .map(|(layout, count)| (&catalogue.layouts[*layout as usize], *count))
            .collect();
        Self {
            offers: settle(mix, &layouts, catalogue),
            frames: Vec::new(),
            by_layout: BTreeMap::new(),
            by_likeness: BTreeMap::new(),
        }
    }

    /// What a node in this state is worth, in thousandths of a device.
    pub(super) fn worth_milli(&mut self, catalogue: &Catalogue, state: &NodeState) -> i64 {
        self.worth_of(
            catalogue,
            state.layout,
            state.cpu_milli,
            state.memory_mib,
            &state.devices,
        )
    }

    /// The same, of a state in parts.
    pub(super) fn worth_of(
        &mut self,
        catalogue: &Catalogue,
        layout: LayoutId,
        cpu_milli: i64,
        memory_mib: i64,
        devices: &[FreeDevice],
    ) -> i64 {
        let position = self.frame(catalogue, layout);
        let (frame, table) = &mut self.frames[position];
        let free = devices
            .iter()
            .map(|device| {
                let memory_mib = catalogue.kinds[usize::from(device.kind)].memory_mib;
                let parts = parts_free(device.share_milli, device.memory_mib, memory_mib);
                (device.kind, u8::try_from(parts).unwrap_or(u8::MAX))
            })
            .collect();
        frame.worth(table, cpu_milli, memory_mib, free).round() as i64
    }

    fn frame(&mut self, catalogue: &Catalogue, layout: LayoutId) -> usize {
        if let Some(position) = self.by_layout.get(&layout) {
            return *position;
        }
        let description = &catalogue.layouts[layout as usize];
        let next = self.frames.len();
        let position = *self
            .by_likeness
            .entry(likeness(description))
            .or_insert(next);
        if position == next {
            let frame = Frame::of(description, catalogue, &self.offers);
            let climate = climate(&self.offers, TEMPERATURE_MILLI);
            let table = frame.solve(&weights(&self.offers, climate), climate);
            self.frames.push((frame, table));
        }
        self.by_layout.insert(layout, position);
        position
    }
}

fn likeness(layout: &Layout) -> Layout {
    Layout {
        cpu_milli: rounded(layout.cpu_milli, ALIKE_DIGITS),
        memory_mib: rounded(layout.memory_mib, ALIKE_DIGITS),
        ..layout.clone()
    }
}
