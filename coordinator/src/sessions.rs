//! Agents' sessions as the coordinator holds them: who is connected, when they were heard, and the
//! log readers waiting for their answers. Nothing here is replicated; all of it is rebuilt when
//! agents reconnect.

use coordinator_core::model::{DeviceId, MemberKey, NodeName};
use coordinator_core::scheduler::Reading;
use platform_proto::agent::{
    CoordinatorMessage, DeviceSample, LogCancel, LogChunk, LogRequest, coordinator_message,
};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tonic::Status;

/// Messages waiting for one agent. An agent that does not read so many is cut off and comes back
/// with a full exchange, which is cheaper than an unbounded queue.
pub const MESSAGES_IN_FLIGHT: usize = 1_024;
/// Chunks of 64 KiB waiting for one reader of a log.
const CHUNKS_IN_FLIGHT: usize = 16;
/// Ended members remembered as drained: more than can end within the bound that anybody waits.
const DRAINED_REMEMBERED: usize = 16_384;

/// What goes to an agent.
pub type Outgoing = mpsc::Sender<Result<CoordinatorMessage, Status>>;

/// What was last heard of a node, outside the replicated state.
#[derive(Debug, Clone)]
pub struct NodeSeen {
    /// When.
    pub heard: Instant,
    /// Newest sample by device.
    pub samples: HashMap<String, DeviceSample>,
    /// When they came, by this machine's clock.
    pub sampled_us: u64,
    /// Processes on its devices that no run of ours owns, in words.
    pub foreign: Vec<String>,
}

/// Every session of this coordinator.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Counts sessions opened and members drained, so that waiters look again.
    changes: watch::Sender<u64>,
    /// Held from reading the state until what it says is queued for the agents.
    speaking: Mutex<()>,
}

#[derive(Default)]
struct Inner {
    sessions: HashMap<NodeName, Session>,
    /// Id of the token that last opened a node's session; kept when that ends, for what the agent still
    /// sends on its other connection.
    opened_with: HashMap<NodeName, String>,
    seen: HashMap<NodeName, NodeSeen>,
    readers: HashMap<u64, Reader>,
    drained: HashSet<MemberKey>,
    drained_order: VecDeque<MemberKey>,
    next: u64,
}

struct Session {
    id: u64,
    outgoing: Outgoing,
}

struct Reader {
    session: u64,
    chunks: mpsc::Sender<LogChunk>,
}

/// Chunks of one log, as they come. Dropping it tells the agent to stop.
pub struct LogReader {
    request: u64,
    node: NodeName,
    hub: Hub,
    chunks: mpsc::Receiver<LogChunk>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                inner: Mutex::default(),
                changes: watch::Sender::new(0),
                speaking: Mutex::new(()),
            }),
        }
    }
}

impl Hub {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every update below leaves the maps whole, so a panic elsewhere does not spoil them.
        self.shared
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.shared.changes.send_modify(|count| *count += 1);
    }

    /// Reads the state and queues what it says as one step. A full list of wishes that was read before
    /// a placement and queued behind it would tell the agent to let the placed run go.
    pub fn in_order<R>(&self, read_and_send: impl FnOnce() -> R) -> R {
        let _turn = self
            .shared
            .speaking
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        read_and_send()
    }

    /// Ends a node's session: its agent comes back with hello.
    pub fn cut_off(&self, node: &NodeName) {
        self.inner().sessions.remove(node);
    }

    /// A new session of a node, opened with the token of this id; an older one of the same node ends.
    pub fn open(&self, node: &NodeName, token: &str, outgoing: Outgoing) -> u64 {
        let mut inner = self.inner();
        inner.opened_with.insert(node.clone(), token.to_owned());
        inner.next += 1;
        let id = inner.next;
        inner
            .sessions
            .insert(node.clone(), Session { id, outgoing });
        drop(inner);
        self.heard(node);
        self.tell();
        id
    }

    /// Whether this token opened the node's last session; none before the node has opened one here.
    pub fn opened_with(&self, node: &NodeName, token: &str) -> Option<bool> {
        let inner = self.inner();
        inner.opened_with.get(node).map(|opened| opened == token)
    }

    /// A session has ended. Readers of its logs see their stream break.
    pub fn close(&self, node: &NodeName, id: u64) {
        let mut inner = self.inner();
        if inner
            .sessions
            .get(node)
            .is_some_and(|session| session.id == id)
        {
            inner.sessions.remove(node);
        }
        inner.readers.retain(|_, reader| reader.session != id);
    }

    /// Whether this is still the node's session.
    pub fn is_current(&self, node: &NodeName, id: u64) -> bool {
        self.inner()
            .sessions
            .get(node)
            .is_some_and(|session| session.id == id)
    }

    /// The agent gave a sign of life.
    pub fn heard(&self, node: &NodeName) {
        let now = Instant::now();
        self.inner()
            .seen
            .entry(node.clone())
            .and_modify(|seen| seen.heard = now)
            .or_insert_with(|| NodeSeen {
                heard: now,
                samples: HashMap::new(),
                sampled_us: 0,
                foreign: Vec::new(),
            });
    }

    /// New telemetry of a node.
    pub fn telemetry(&self, node: &NodeName, samples: Vec<DeviceSample>, foreign: Vec<String>) {
        if let Some(seen) = self.inner().seen.get_mut(node) {
            seen.samples = samples
                .into_iter()
                .map(|sample| (sample.device.clone(), sample))
                .collect();
            seen.sampled_us = crate::now_us();
            seen.foreign = foreign;
        }
    }

    /// What devices were read as, by whatever came after this moment.
    pub fn readings_after(&self, after_us: u64) -> Vec<(DeviceId, Reading)> {
        let inner = self.inner();
        let fresh = inner
            .seen
            .values()
            .filter(|seen| seen.sampled_us > after_us);
        fresh
            .flat_map(|seen| {
                seen.samples.values().map(|sample| {
                    let reading = Reading {
                        at_us: seen.sampled_us,
                        used_percent: sample.utilization_percent,
                        memory_used_mib: sample.memory_used_mib,
                    };
                    (DeviceId(sample.device.as_str().into()), reading)
                })
            })
            .collect()
    }

    /// What was last heard of a node since this coordinator started.
    pub fn seen(&self, node: &NodeName) -> Option<NodeSeen> {
        self.inner().seen.get(node).cloned()
    }

    /// When a node was last heard.
    pub fn heard_at(&self, node: &NodeName) -> Option<Instant> {
        self.inner().seen.get(node).map(|seen| seen.heard)
    }

    /// Sends to a node, if it is connected. An agent that has fallen too far behind is cut off.
    pub fn send(&self, node: &NodeName, message: coordinator_message::Message) {
        let mut inner = self.inner();
        let Some(session) = inner.sessions.get(node) else {
            return;
        };
        let message = CoordinatorMessage {
            message: Some(message),
        };
        if session.outgoing.try_send(Ok(message)).is_err() {
            tracing::warn!(%node, "the agent does not read its session; cutting it off");
            inner.sessions.remove(node);
        }
    }

    /// Asks a node for a member's log. `None` when it is not connected.
    pub fn read_log(
        &self,
        node: &NodeName,
        key: MemberKey,
        offset: u64,
        follow: bool,
    ) -> Option<LogReader> {
        let (sender, chunks) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let mut inner = self.inner();
        let session = inner.sessions.get(node)?.id;
        inner.next += 1;
        let request = inner.next;
        inner.readers.insert(
            request,
            Reader {
                session,
                chunks: sender,
            },
        );
        drop(inner);
        let key = Some(crate::convert_agent::key_to_proto(key));
        self.send(
            node,
            coordinator_message::Message::LogRequest(LogRequest {
                request,
                key,
                offset,
                follow,
            }),
        );
        Some(LogReader {
            request,
            node: node.clone(),
            hub: self.clone(),
            chunks,
        })
    }

    /// A chunk came. Never waits: a session also carries heartbeats, and must not stand still for a
    /// slow terminal. A reader whose chunks pile up is cut off; it keeps what it has and asks again
    /// from there.
    pub fn log_chunk(&self, node: &NodeName, chunk: LogChunk) {
        let (request, last) = (chunk.request, chunk.end);
        let mut inner = self.inner();
        let Some(reader) = inner.readers.get(&request) else {
            return;
        };
        let cut_off = reader.chunks.try_send(chunk).is_err();
        if cut_off || last {
            inner.readers.remove(&request);
        }
        drop(inner);
        if cut_off && !last {
            self.send(
                node,
                coordinator_message::Message::LogCancel(LogCancel { request }),
            );
        }
    }

    /// Everything a member recorded has been relayed.
    pub fn drained(&self, key: MemberKey) {
        let mut inner = self.inner();
        if inner.drained.insert(key) {
            inner.drained_order.push_back(key);
            if inner.drained_order.len() > DRAINED_REMEMBERED
                && let Some(oldest) = inner.drained_order.pop_front()
            {
                inner.drained.remove(&oldest);
            }
        }
        drop(inner);
        self.tell();
    }

    /// Waits until a member is drained, or its node is not connected.
    pub async fn wait_until_drained(&self, key: MemberKey, node: &NodeName) {
        let mut changes = self.shared.changes.subscribe();
        loop {
            {
                let inner = self.inner();
                if inner.drained.contains(&key) || !inner.sessions.contains_key(node) {
                    return;
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Told whenever a session opens.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

impl LogReader {
    /// The next chunk; `None` when the session broke.
    pub async fn next(&mut self) -> Option<LogChunk> {
        self.chunks.recv().await
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        if self.hub.inner().readers.remove(&self.request).is_some() {
            self.hub.send(
                &self.node,
                coordinator_message::Message::LogCancel(LogCancel {
                    request: self.request,
                }),
            );
        }
    }
}
