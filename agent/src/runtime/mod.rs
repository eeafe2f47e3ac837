//! How a workload is brought to life: one trait, a runtime for processes and one for containers.
//!
//! A runtime keeps no durable record of its own: the attempt folder is the record. It never decides:
//! the core says start, signal, forget; the runtime does it and tells what it sees as [`RuntimeEvent`]s.
//! Architecture invariant: `start` is idempotent by name (the key), also across a restart of the agent.

mod context;
pub mod docker;
pub mod process;

pub use context::NodeContext;

use agent_core::{Assignment, Exit, Key, Observation, Signal};
use futures::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;

/// One attempt of one member with its folder: what a runtime works on.
#[derive(Debug)]
pub struct Attempt {
    /// What to run.
    pub assignment: Assignment,
    /// `<agent folder>/attempts/run-17-1-0`; exists before `prepare` is called.
    pub folder: PathBuf,
}

impl Attempt {
    /// Its name.
    pub fn key(&self) -> Key {
        self.assignment.key
    }

    /// Where the package is unpacked. The runtime creates it.
    pub fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// What the workload wrote, standard output and error together. Runtimes append.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Where the SDK writes its journal. Exists before `prepare` is called.
    pub fn spool(&self) -> PathBuf {
        self.folder.join("spool")
    }
}

/// Why a workload could not be prepared or started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LaunchFailure {
    /// For the user: value, limit, hint.
    pub message: String,
    /// Counts against the node (full disk, no engine), not against the user (no such command).
    pub node_fault: bool,
}

impl LaunchFailure {
    /// A fault of this node.
    pub fn node(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            node_fault: true,
        }
    }

    /// A fault of what was asked for.
    pub fn user(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            node_fault: false,
        }
    }
}

/// What a runtime tells the supervisor, in the order it happened for each key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEvent {
    /// About which member.
    pub key: Key,
    /// `Progress`, `Running`, `LaunchFailed` or `Ended`.
    pub observation: Observation,
}

/// Where runtimes send their events. Unbounded, because a runtime must never wait for the supervisor
/// while the supervisor waits for it; at most a handful of events exist for each live member.
pub type RuntimeEvents = tokio::sync::mpsc::UnboundedSender<RuntimeEvent>;

/// Tells what preparation is doing, in a few words for the user ("installing requirements").
#[derive(Clone, Debug)]
pub struct Progress {
    key: Key,
    events: RuntimeEvents,
}

impl Progress {
    /// For one member.
    pub fn new(key: Key, events: RuntimeEvents) -> Self {
        Self { key, events }
    }

    /// Says what is being done now.
    pub fn report(&self, detail: impl Into<String>) {
        // The supervisor is gone only when the agent ends; nobody is left to tell.
        let _ = self.events.send(RuntimeEvent {
            key: self.key,
            observation: Observation::Progress {
                detail: detail.into(),
            },
        });
    }
}

/// One way to run workloads.
pub trait Runtime: Send + Sync + 'static {
    /// "process" or "docker", as Hello says it.
    fn name(&self) -> &'static str;

    /// After a start of the agent: what became of these attempts, which an agent before us recorded on
    /// this same boot. Adopts what lives (its end will come as an event), finds out how the others
    /// ended, and removes what is this agent's but belongs to none of them. An attempt that surely never
    /// started is left out of the answer.
    fn adopt(
        &self,
        attempts: Vec<Arc<Attempt>>,
    ) -> BoxFuture<'_, Result<Vec<(Key, Observation)>, LaunchFailure>>;

    /// Brings all that a start needs: package, environment, image. May take minutes; dropping the future
    /// gives up and leaves nothing running. Progress lines go through `progress`, long output into
    /// the attempt's log.
    fn prepare(
        self: Arc<Self>,
        attempt: Arc<Attempt>,
        progress: Progress,
    ) -> BoxFuture<'static, Result<(), LaunchFailure>>;

    /// Starts a prepared attempt and returns at once; `Running` or `LaunchFailed` follows as an event,
    /// later `Ended`. Starting a known name again starts nothing and answers with what is known.
    fn start(&self, attempt: Arc<Attempt>);

    /// Signals the whole of a live attempt (process group, container). An unknown one is ignored.
    fn signal(&self, key: Key, signal: Signal);

    /// Removes what is left of an ended attempt outside its folder (a container, a cgroup).
    fn forget(&self, key: Key);

    /// Whether `image` or its absence asks for this runtime is the supervisor's choice; this says how
    /// devices and the memory limit of an assignment are enforced here, and what that does not cover.
    fn enforcement(&self, assignment: &Assignment) -> String;

    /// Process ids (roots) of the live members, so that telemetry can tell ours from foreign ones.
    fn processes(&self) -> Vec<(Key, u32)>;
}

/// How an attempt that vanished without a trace is told.
pub fn lost(message: impl Into<String>) -> Exit {
    Exit::Lost {
        message: message.into(),
    }
}
