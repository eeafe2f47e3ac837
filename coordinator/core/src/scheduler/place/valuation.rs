//! Which devices of a node to take, and the loss of taking them there.

use super::class::{Catalogue, FreeDevice, KindId, NodeState};
use super::filling::FillingValues;
use super::shape::Shape;
use crate::model::WHOLE_DEVICE_MILLI;

/// Losses are compared in steps of so many thousandths of a device. Exact ones would chase noise from
/// node to node, where equal ones keep to nodes already begun (Weng et al., USENIX ATC 2023, round
/// theirs too).
const LOSS_STEP_MILLI: i64 = 5;

/// Who says what a node is worth.
pub enum Valuation {
    /// Without a mix: the node with the least share left free afterwards, so that large requests find
    /// whole nodes later.
    Tight,
    /// What a known mix would still fill there.
    Filling(Box<FillingValues>),
}

/// What a shape needs of each kind of device: memory, or `None` when it will never do.
pub(super) type Needs = [Option<i64>];

impl Valuation {
    /// What a node in this state is worth.
    pub(super) fn worth(&mut self, catalogue: &Catalogue, state: &NodeState) -> i64 {
        match self {
            Self::Tight => 0,
            Self::Filling(values) => values.worth_milli(catalogue, state),
        }
    }

    /// The least loss at which a node in this state takes the shape, and of which devices. `None`:
    /// it does not fit.
    pub(super) fn assess(
        &mut self,
        catalogue: &Catalogue,
        shape: &Shape,
        needs: &Needs,
        state: &NodeState,
        worth: i64,
    ) -> Option<(i64, Vec<FreeDevice>)> {
        let layout = &catalogue.layouts[state.layout as usize];
        let cpu_milli = left(state.cpu_milli, shape.cpu_milli)?;
        let memory_mib = left(state.memory_mib, shape.memory_mib)?;
        if !layout.runtimes.contains(shape.runtime) {
            return None;
        }
        let wanted = shape.devices as usize;
        let mut fitting: Vec<FreeDevice> = Vec::new();
        if wanted > 0 {
            fitting.extend(
                state
                    .devices
                    .iter()
                    .filter(|device| can_take(device, shape, needs)),
            );
            if fitting.len() < wanted {
                return None;
            }
            // The fullest first. Kinds by name: their numbers tell what the inventory saw first.
            fitting.sort_by(|one, other| {
                let kind = |device: &FreeDevice| &catalogue.kinds[usize::from(device.kind)];
                one.share_milli
                    .cmp(&other.share_milli)
                    .then_with(|| match one.kind == other.kind {
                        true => one.memory_mib.cmp(&other.memory_mib),
                        false => kind(one).cmp(kind(other)),
                    })
            });
        }
        match self {
            Self::Tight => {
                fitting.truncate(wanted);
                let free: i64 = state
                    .devices
                    .iter()
                    .map(|device| i64::from(device.share_milli.clamp(0, WHOLE_DEVICE_MILLI as i32)))
                    .sum();
                let taken = i64::try_from(shape.gpu_milli()).unwrap_or(i64::MAX);
                Some((free.saturating_sub(taken).max(0), fitting))
            }
            Self::Filling(values) => {
                let mut after = state.devices.clone();
                let mut loss_of = |taken: &[FreeDevice]| {
                    after.clone_from(&state.devices);
                    take(&mut after, taken, shape, needs);
                    let rest =
                        values.worth_of(catalogue, state.layout, cpu_milli, memory_mib, &after);
                    // Demand that no node could fill makes both as large as can be.
                    worth.saturating_sub(rest)
                };
                let (loss, taken) = if wanted == 1 {
                    fitting.dedup();
                    fitting
                        .into_iter()
                        .map(|device| (loss_of(&[device]), vec![device]))
                        .min_by_key(|(loss, _)| *loss)?
                } else {
                    fitting.truncate(wanted);
                    (loss_of(&fitting), fitting)
                };
                Some((loss / LOSS_STEP_MILLI, taken))
            }
        }
    }
}

/// Whether the device has room for its part of the shape.
pub(super) fn can_take(device: &FreeDevice, shape: &Shape, needs: &Needs) -> bool {
    need(needs, device.kind).is_some_and(|need_mib| {
        i64::from(device.share_milli) >= i64::from(shape.share_milli)
            && device.memory_mib >= need_mib
    })
}

/// Memory needed of a device of this kind.
pub(super) fn need(needs: &Needs, kind: KindId) -> Option<i64> {
    needs.get(usize::from(kind)).copied().flatten()
}

fn left(free: i64, asked: u64) -> Option<i64> {
    let asked = i64::try_from(asked).ok()?;
    // A node that holds more than it now has takes nothing more, not even nothing.
    (free >= asked).then(|| free - asked)
}

fn take(devices: &mut [FreeDevice], taken: &[FreeDevice], shape: &Shape, needs: &Needs) {
    let mut done = vec![false; devices.len()];
    for wanted in taken {
        let position = (0..devices.len()).find(|at| !done[*at] && devices[*at] == *wanted);
        if let Some(position) = position {
            done[position] = true;
            let device = &mut devices[position];
            device.share_milli -= shape.share_milli as i32;
            device.memory_mib -= need(needs, device.kind).unwrap_or(0);
        }
    }
}
