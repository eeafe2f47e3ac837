//! Tells agents what should run, as the state says it now.
//!
//! Takes no hints from what an event says beyond whom it concerns: every message is computed from
//! the newest state, so a late or repeated message is never older than what it follows.

use crate::convert_agent::{assignment, key_to_proto};
use crate::driver::DriverHandle;
use crate::sessions::Hub;
use coordinator_core::model::{MemberKey, NodeName, Run, RunId};
use coordinator_core::state::{Event, State};
use platform_proto::agent::{Desired, coordinator_message::Message};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::broadcast::error::RecvError;

pub async fn run(driver: DriverHandle, hub: Hub) {
    let mut events = driver.subscribe();
    loop {
        match events.recv().await {
            Ok(applied) => {
                let mut concerned = Concerned::default();
                concerned.add(&applied.events);
                // Whatever else has been applied meanwhile goes out in the same messages.
                while let Ok(more) = events.try_recv() {
                    concerned.add(&more.events);
                }
                send_changes(&driver, &hub, &concerned);
            }
            Err(RecvError::Lagged(skipped)) => {
                tracing::warn!(
                    skipped,
                    "fell behind the log; telling every agent everything"
                );
                let nodes: Vec<NodeName> =
                    driver.read(|state| state.nodes().keys().cloned().collect());
                for node in nodes {
                    send_everything(&driver, &hub, &node, &[]);
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Whom a batch of events concerns.
#[derive(Default)]
struct Concerned {
    runs: BTreeSet<RunId>,
    members: BTreeSet<(MemberKey, NodeName)>,
}

impl Concerned {
    fn add(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::RunPlaced { run } | Event::RunStopping { run } => {
                    self.runs.insert(*run);
                }
                Event::MemberChanged { key, node } | Event::StaleReport { key, node } => {
                    self.members.insert((*key, node.clone()));
                }
                _ => {}
            }
        }
    }
}

fn send_changes(driver: &DriverHandle, hub: &Hub, concerned: &Concerned) {
    if concerned.runs.is_empty() && concerned.members.is_empty() {
        return;
    }
    hub.in_order(|| tell_changes(driver, hub, concerned));
}

fn tell_changes(driver: &DriverHandle, hub: &Hub, concerned: &Concerned) {
    let messages: BTreeMap<NodeName, Desired> = driver.read(|state| {
        let mut messages: BTreeMap<NodeName, Desired> = BTreeMap::new();
        let session_epoch = state.highest_epoch().0;
        let mut message = |node: &NodeName, change: &mut dyn FnMut(&mut Desired)| {
            change(messages.entry(node.clone()).or_insert_with(|| Desired {
                session_epoch,
                ..Desired::default()
            }));
        };
        for run in concerned.runs.iter().filter_map(|id| state.runs().get(id)) {
            for (key, node) in members(run) {
                if let Some(assignment) = assignment(state, key) {
                    message(node, &mut |desired| desired.upsert.push(assignment.clone()));
                }
            }
        }
        for (key, node) in &concerned.members {
            if assignment(state, *key).is_none() {
                message(node, &mut |desired| desired.retire.push(key_to_proto(*key)));
            }
        }
        messages
    });
    for (node, desired) in messages {
        hub.send(&node, Message::Desired(desired));
    }
}

/// Sends a node all that should run on it, and which of what it holds it may forget.
pub fn send_everything(driver: &DriverHandle, hub: &Hub, node: &NodeName, held: &[MemberKey]) {
    hub.in_order(|| {
        let desired = driver.read(|state| everything(state, node, held));
        hub.send(node, Message::Desired(desired));
    });
}

fn everything(state: &State, node: &NodeName, held: &[MemberKey]) -> Desired {
    let keys = state
        .nodes()
        .get(node)
        .map(|node| node.members.clone())
        .unwrap_or_default();
    Desired {
        full: true,
        upsert: keys
            .iter()
            .filter_map(|key| assignment(state, *key))
            .collect(),
        retire: held
            .iter()
            .filter(|key| !keys.contains(key))
            .map(|key| key_to_proto(*key))
            .collect(),
        session_epoch: state.highest_epoch().0,
    }
}

fn members(run: &Run) -> impl Iterator<Item = (MemberKey, &NodeName)> {
    let id = run.id;
    run.last_attempt().into_iter().flat_map(move |attempt| {
        (0_u32..).zip(&attempt.members).map(move |(member, at)| {
            (
                MemberKey {
                    run: id,
                    attempt: attempt.number,
                    member,
                },
                &at.node,
            )
        })
    })
}
