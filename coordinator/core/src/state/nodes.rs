//! Nodes come, change, are withdrawn and are lost.

use super::{Event, Outcome, State};
use crate::model::{
    DeviceGrants, DeviceId, EndKind, MemberEnd, MemberKey, Node, NodeCondition, NodeDescription,
    NodeName, Pool, StopReason,
};
use crate::policy::{Refusal, RefusalKind};

/// Thousandths of CPU or MiB that a node may claim: far above any machine, and far enough below
/// 2^64 that no sum over a cluster overflows.
const MOST_CAPACITY: u64 = 1 << 40;
/// Devices that a node may claim: eight GPUs of seven slices each, with room.
const MOST_DEVICES: usize = 1024;

impl State {
    pub(super) fn register_node(&mut self, description: &NodeDescription) -> Outcome {
        let name = description.name.clone();
        let mut ids: Vec<_> = description
            .devices
            .iter()
            .map(|device| &device.id)
            .collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Refusal::invalid(format!(
                "node {name} names device {} twice",
                pair[0]
            )));
        }
        let largest = description
            .devices
            .iter()
            .map(|device| device.memory_mib)
            .chain([description.cpu_milli, description.memory_mib])
            .max()
            .unwrap_or(0);
        if largest > MOST_CAPACITY || description.devices.len() > MOST_DEVICES {
            return Err(Refusal::invalid(format!(
                "node {name} says that it has {} devices, and {largest} of a resource",
                description.devices.len()
            ))
            .allowed(format!("up to {MOST_DEVICES} devices and {MOST_CAPACITY}")));
        }
        self.pools
            .entry(description.pool.clone())
            .or_insert_with(|| Pool {
                description: format!("created when node {name} joined"),
                ..Pool::new(description.pool.clone())
            });
        let Some(node) = self.nodes.get(&name) else {
            self.nodes
                .insert(name.clone(), Node::new(description.clone()));
            self.note_node(&name);
            return Ok(vec![Event::NodeChanged { node: name }]);
        };
        if node.description == *description && node.condition != NodeCondition::Lost {
            return Ok(Vec::new());
        }
        let rebooted = node.description.boot_id != description.boot_id;
        let gone: Vec<MemberKey> = node
            .members
            .iter()
            .filter(|key| rebooted || self.holds_device_not_in(**key, node, description))
            .copied()
            .collect();
        let message = if rebooted {
            "the node rebooted"
        } else {
            "a device it held has vanished"
        };
        let mut events = Vec::new();
        for key in gone {
            events.extend(self.release(
                key,
                MemberEnd {
                    kind: EndKind::Lost,
                    message: message.to_owned(),
                },
            ));
        }
        if let Some(node) = self.nodes.get_mut(&name) {
            let before = std::mem::take(&mut node.devices);
            let known = std::mem::replace(&mut node.description, description.clone());
            node.devices = description
                .devices
                .iter()
                .map(|device| {
                    known
                        .devices
                        .iter()
                        .position(|other| other.id == device.id)
                        .map_or_else(DeviceGrants::default, |position| before[position].clone())
                })
                .collect();
            if node.condition == NodeCondition::Lost {
                node.condition = NodeCondition::Ready;
            }
        }
        self.note_node(&name);
        events.push(Event::NodeChanged { node: name });
        Ok(events)
    }

    /// Whether a member holds something of a device that is gone, or that has become too small for
    /// what was granted of it.
    fn holds_device_not_in(
        &self,
        key: MemberKey,
        node: &Node,
        description: &NodeDescription,
    ) -> bool {
        let granted_mib = |id: &DeviceId| {
            node.description
                .devices
                .iter()
                .zip(&node.devices)
                .find(|(device, _)| device.id == *id)
                .map_or(0, |(_, grants)| grants.memory_mib)
        };
        self.runs
            .get(&key.run)
            .and_then(|run| run.attempt(key.attempt)?.members.get(key.member as usize))
            .filter(|member| member.node == node.description.name)
            .is_some_and(|member| {
                member.devices.iter().any(|grant| {
                    !description.devices.iter().any(|device| {
                        device.id == grant.device && granted_mib(&device.id) <= device.memory_mib
                    })
                })
            })
    }

    pub(super) fn lose_node(&mut self, name: &NodeName) -> Outcome {
        let node = self.node_mut(name)?;
        if node.condition == NodeCondition::Lost {
            return Ok(Vec::new());
        }
        let keep = matches!(
            node.condition,
            NodeCondition::Cordoned { .. } | NodeCondition::Draining { .. }
        );
        // A cordon outlives the loss: an operator's word stands until an operator takes it back.
        if !keep {
            node.condition = NodeCondition::Lost;
        }
        let members: Vec<MemberKey> = node.members.iter().copied().collect();
        self.note_node(name);
        let mut events = vec![Event::NodeChanged { node: name.clone() }];
        for key in members {
            let end = MemberEnd {
                kind: EndKind::Lost,
                message: format!("node {name} was not heard past its lease"),
            };
            events.extend(self.release(key, end));
        }
        Ok(events)
    }

    pub(super) fn cordon(&mut self, name: &NodeName, reason: &str) -> Outcome {
        self.node_mut(name)?.condition = NodeCondition::Cordoned {
            reason: reason.to_owned(),
        };
        self.note_node(name);
        Ok(vec![Event::NodeChanged { node: name.clone() }])
    }

    pub(super) fn uncordon(&mut self, name: &NodeName) -> Outcome {
        let node = self.node_mut(name)?;
        if node.condition == NodeCondition::Lost {
            return Err(
                Refusal::new(RefusalKind::Conflict, format!("node {name} is lost")).hint(
                    "it takes runs again once its agent is heard: start platform agent there",
                ),
            );
        }
        node.condition = NodeCondition::Ready;
        node.launch_failures = 0;
        self.note_node(name);
        Ok(vec![Event::NodeChanged { node: name.clone() }])
    }

    pub(super) fn drain(&mut self, name: &NodeName, reason: &str, grace_ms: u64) -> Outcome {
        let deadline_us = self.time_us.saturating_add(grace_ms.saturating_mul(1000));
        self.node_mut(name)?.condition = NodeCondition::Draining {
            reason: reason.to_owned(),
            deadline_us,
        };
        self.note_node(name);
        let mut events = vec![Event::NodeChanged { node: name.clone() }];
        if grace_ms == 0 {
            events.extend(self.evict(name)?);
        }
        Ok(events)
    }

    pub(super) fn evict(&mut self, name: &NodeName) -> Outcome {
        let time_us = self.time_us;
        let node = self.node_mut(name)?;
        match node.condition {
            NodeCondition::Draining { deadline_us, .. } if deadline_us <= time_us => {}
            _ => return Ok(Vec::new()),
        }
        let runs: std::collections::BTreeSet<_> = node.members.iter().map(|key| key.run).collect();
        Ok(runs
            .into_iter()
            .flat_map(|run| self.stop_attempt(run, StopReason::Evicted))
            .collect())
    }

    fn node_mut(&mut self, name: &NodeName) -> Result<&mut Node, Refusal> {
        let known = self.nodes.contains_key(name);
        if !known {
            return Err(unknown_node(name.as_str(), self.nodes.keys()));
        }
        self.nodes
            .get_mut(name)
            .ok_or_else(|| unknown_node(name.as_str(), [].iter()))
    }
}

/// The refusal of a node that is not there.
pub fn unknown_node<'a>(given: &str, known: impl Iterator<Item = &'a NodeName>) -> Refusal {
    let known: Vec<&str> = known.map(NodeName::as_str).collect();
    Refusal::new(
        RefusalKind::NotFound,
        format!("node {given:?} does not exist"),
    )
    .allowed(if known.is_empty() {
        "no node has joined yet".to_owned()
    } else {
        known.join(", ")
    })
    .hint("see the nodes with: platform nodes list")
}
