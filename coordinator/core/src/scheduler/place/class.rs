//! What nodes have in common: layouts that never change, and states that many nodes share.

use super::wiring::Place;
use std::collections::{BTreeMap, BTreeSet};

/// A model of device with its memory, by number within one inventory.
pub(super) type KindId = u16;
/// A layout, by number within one inventory.
pub(super) type LayoutId = u32;

/// A model of device with its memory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pub model: String,
    pub memory_mib: u64,
}

/// What a node offers when it is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Layout {
    pub cpu_milli: u64,
    pub memory_mib: u64,
    /// Kinds of its devices, sorted: where on the node they sit is the node's own matter.
    pub devices: Vec<KindId>,
    pub runtimes: BTreeSet<String>,
}

/// What is free of one device. Less than nothing where a device holds more than it now has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FreeDevice {
    pub kind: KindId,
    pub share_milli: i32,
    pub memory_mib: i64,
}

/// What is free on a node, wherever on it: nodes in equal state are one to the ranking.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeState {
    pub layout: LayoutId,
    pub cpu_milli: i64,
    pub memory_mib: i64,
    /// Sorted.
    pub devices: Vec<FreeDevice>,
    /// The same devices with what they share; empty where nothing of it is known. Sorted.
    pub wired: Vec<(FreeDevice, Place)>,
}

/// Kinds and layouts seen so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Catalogue {
    pub kinds: Vec<Kind>,
    pub layouts: Vec<Layout>,
    kind_ids: BTreeMap<Kind, KindId>,
    layout_ids: BTreeMap<Layout, LayoutId>,
}

impl Catalogue {
    /// The number of a kind. `None` once there are more kinds than numbers.
    pub fn kind(&mut self, kind: Kind) -> Option<KindId> {
        if let Some(id) = self.kind_ids.get(&kind) {
            return Some(*id);
        }
        let id = KindId::try_from(self.kinds.len()).ok()?;
        self.kinds.push(kind.clone());
        self.kind_ids.insert(kind, id);
        Some(id)
    }

    /// The number of a layout. `None` once there are more layouts than numbers.
    pub fn layout(&mut self, layout: Layout) -> Option<LayoutId> {
        if let Some(id) = self.layout_ids.get(&layout) {
            return Some(*id);
        }
        let id = LayoutId::try_from(self.layouts.len()).ok()?;
        self.layouts.push(layout.clone());
        self.layout_ids.insert(layout, id);
        Some(id)
    }
}

/// An amount as a number that may go below zero. What is larger than any machine stays as large.
pub(super) fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
