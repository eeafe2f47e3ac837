//! Who holds what of a node, and when each will have left at the latest.

use crate::model::{Attempt, Grant, MemberDemand, MemberKey, Node, Run};
use crate::state::{MemberPlacement, State};

/// What a run takes beyond its time limit: to be fetched and installed before it begins, and to save
/// what it has after it is told to stop (the agents' grace is 30 s).
pub const BEYOND_LIMIT_US: u64 = 60_000_000;

/// The end of what has no time limit.
pub const UNKNOWN_US: u64 = u64::MAX;

/// Ends as far away as this are as good as not known. Sums of two nearer ones stay below
/// [`UNKNOWN_US`], so that adding to them keeps their order.
const FAR_US: u64 = 1 << 61;

/// When something comes to be, said without the time at which it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// At once.
    Now,
    /// At this time, in microseconds.
    At(u64),
    /// So many microseconds after it is asked.
    After(u64),
}

/// When a holder will have left at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At this time, in microseconds.
    At(u64),
    /// So long after it begins, which it will by then, or else at any moment.
    OnceBegun {
        /// By when it is taken to begin, microseconds.
        by_us: u64,
        /// How long it may then run, microseconds.
        limit_us: u64,
    },
    /// It has been told to stop.
    Stopping,
}

/// Something that holds a part of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// When it will have left.
    pub end: End,
    /// Thousandths of devices.
    pub milli: u64,
    /// Since when.
    pub placed_us: u64,
    /// CPU, in thousandths.
    pub cpu_milli: u64,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Positions on the node, with what it holds there.
    pub devices: Vec<(usize, Grant)>,
}

impl Moment {
    /// The time of it, asked now.
    pub fn at_us(self, now_us: u64) -> u64 {
        match self {
            Self::Now => now_us,
            Self::At(at_us) => at_us,
            Self::After(after_us) => now_us.saturating_add(after_us),
        }
    }
}

impl End {
    /// As it looks now.
    pub fn moment(self, now_us: u64) -> Moment {
        match self {
            Self::At(at_us) => Moment::At(at_us),
            Self::OnceBegun { by_us, limit_us } if now_us <= by_us => Moment::At(by_us + limit_us),
            Self::OnceBegun { limit_us, .. } => Moment::After(limit_us),
            Self::Stopping => Moment::After(BEYOND_LIMIT_US),
        }
    }

    /// When [`Self::moment`] will say something else, if nothing happens.
    pub fn changes_us(self, now_us: u64) -> Option<u64> {
        match self {
            Self::OnceBegun { by_us, .. } if now_us <= by_us => Some(by_us + 1),
            _ => None,
        }
    }

    fn known(at_us: u64) -> Self {
        Self::At(if at_us < FAR_US { at_us } else { UNKNOWN_US })
    }

    /// The end of a live attempt.
    fn of(run: &Run, attempt: &Attempt) -> Self {
        let limit_us = run
            .spec
            .time_limit_ms
            .map(|limit| limit.saturating_mul(1000));
        if attempt.stopping.is_some() {
            return Self::Stopping;
        }
        match (limit_us, attempt.started_us) {
            (None, _) => Self::At(UNKNOWN_US),
            (Some(limit_us), Some(started_us)) => Self::known(
                started_us
                    .saturating_add(limit_us)
                    .saturating_add(BEYOND_LIMIT_US),
            ),
            (Some(limit_us), None) => {
                let by_us = attempt.placed_us.saturating_add(BEYOND_LIMIT_US);
                if by_us < FAR_US && limit_us < FAR_US {
                    Self::OnceBegun { by_us, limit_us }
                } else {
                    Self::At(UNKNOWN_US)
                }
            }
        }
    }
}

impl Holder {
    /// Those who hold something of a node.
    pub fn on(state: &State, node: &Node) -> Vec<Self> {
        node.members
            .iter()
            .filter_map(|key| Self::of(state, node, *key))
            .collect()
    }

    /// What one member holds of a node.
    pub fn of(state: &State, node: &Node, key: MemberKey) -> Option<Self> {
        let run = state.runs().get(&key.run)?;
        let attempt = run.attempt(key.attempt)?;
        let member = attempt.members.get(key.member as usize)?;
        let mut devices = Vec::with_capacity(member.devices.len());
        for (position, grants) in node.devices.iter().enumerate() {
            if let Some(grant) = grants.holders.get(&key) {
                devices.push((position, *grant));
            }
        }
        Some(Self {
            end: End::of(run, attempt),
            milli: milli(&devices),
            placed_us: attempt.placed_us,
            cpu_milli: member.cpu_milli,
            memory_mib: member.memory_mib,
            devices,
        })
    }

    /// What a member will hold that a plan places on a node.
    pub fn planned(
        node: &Node,
        demand: &MemberDemand,
        member: &MemberPlacement,
        end_us: u64,
        now_us: u64,
    ) -> Self {
        let devices: Vec<(usize, Grant)> = (0..)
            .zip(&node.description.devices)
            .filter(|(_, device)| member.devices.contains(&device.id))
            .map(|(position, device)| (position, grant(demand, device.memory_mib)))
            .collect();
        Self {
            end: End::At(end_us),
            milli: milli(&devices),
            placed_us: now_us,
            cpu_milli: demand.cpu_milli,
            memory_mib: demand.memory_mib,
            devices,
        }
    }
}

/// What a demand takes of one device.
pub fn grant(demand: &MemberDemand, device_memory_mib: u64) -> Grant {
    Grant {
        share_milli: demand.share_milli,
        memory_mib: demand.memory_on(device_memory_mib),
    }
}

fn milli(devices: &[(usize, Grant)]) -> u64 {
    devices
        .iter()
        .map(|(_, grant)| u64::from(grant.share_milli))
        .sum()
}
