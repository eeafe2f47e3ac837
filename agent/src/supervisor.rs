//! The one loop: observe, ask the core, act, record.
//!
//! Everything that happens to this node arrives as an [`Event`]; the core says what is owed; the loop
//! owes nothing else. It never waits for a disk full of journals, a slow coordinator or a runtime.

use crate::attempts;
use crate::clock;
use crate::host::Host;
use crate::launcher::replace;
use crate::logs;
use crate::relay::RelayCommand;
use crate::runtime::{Attempt, LaunchFailure, Progress, Runtime, RuntimeEvent, RuntimeEvents};
use crate::session::{Outbound, SessionEvent, convert};
use crate::telemetry::{Sample, Telemetry};
use crate::{AgentConfig, AgentError};
use agent_core::{Action, Core, Key, MemberReport, Observation, State, StopCause};
use futures::FutureExt as _;
use platform_proto::agent as wire;
use platform_proto::agent::agent_message::Message as Up;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Events taken at once: a burst of starts becomes one message to the launcher and one report.
const BATCH: usize = 1024;
/// How often logs are held against the cap. A disk fills no faster than the cap's slack in this time on
/// ordinary hardware.
const CAP_EVERY: Duration = Duration::from_secs(5);
/// Readers of logs at once.
const LOG_READERS: usize = 256;
const IDLE: Duration = Duration::from_secs(3600);

/// Everything that can happen to the agent.
#[derive(Debug)]
pub(crate) enum Event {
    /// From the stream to the coordinator.
    Session(SessionEvent),
    /// A preparation is over.
    Prepared {
        key: Key,
        outcome: Result<(), LaunchFailure>,
    },
    /// All that an ended member recorded is stored.
    Drained(Key),
    /// A member's journal says that all its work until then (wall clock) is saved.
    Checkpointed { key: Key, at_us: u64 },
    /// The node was read.
    Sampled(Sample),
}

/// The parts the loop works with.
pub(crate) struct Parts {
    pub(crate) config: Arc<AgentConfig>,
    pub(crate) host: Host,
    pub(crate) runtimes: Vec<Arc<dyn Runtime>>,
    pub(crate) telemetry: Arc<dyn Telemetry>,
    pub(crate) relay: mpsc::UnboundedSender<RelayCommand>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) runtime_events: RuntimeEvents,
}

/// What the agent keeps about its coordinator, in `lease.json`.
#[derive(Debug, Default, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Standing {
    boot_id: String,
    session_epoch: u64,
    lease: Option<(u64, u64)>,
}

const STANDING: &str = "lease.json";
/// How long a new agent whose lease ended before it started may look for its coordinator.
const TIME_TO_ASK_US: u64 = 10_000_000;

/// A lease that ended while no agent was there. Nobody could fence at its end, and a few seconds later
/// the coordinator's own word says what is stale; a coordinator that was down as well has replaced
/// nothing, and what runs here would be killed for nothing. A lease that has not ended stands as it was
/// granted: its holder may not lengthen it by a restart.
fn time_to_ask((length_us, end_us): (u64, u64), now_us: u64) -> (u64, u64) {
    if end_us > now_us {
        return (length_us, end_us);
    }
    // The core stops what is fenced a margin of a quarter before the end.
    let ask_us = TIME_TO_ASK_US.saturating_add(length_us / 4).min(length_us);
    (length_us, now_us.saturating_add(ask_us))
}

pub(crate) struct Supervisor {
    parts: Parts,
    core: Core,
    attempts: HashMap<Key, Arc<Attempt>>,
    preparing: HashMap<Key, AbortHandle>,
    outbound: Option<Outbound>,
    heartbeat: Duration,
    /// Readers of logs, and the word to each member's readers that it has ended.
    readers: HashMap<u64, AbortHandle>,
    ends: HashMap<Key, CancellationToken>,
    standing: Standing,
    /// Drained members that no session has been told of.
    drained: Vec<Key>,
}

impl Supervisor {
    /// Reads the disk, adopts what lives, and knows again what the last agent knew.
    pub(crate) async fn open(parts: Parts) -> Result<Self, AgentError> {
        let folder = &parts.config.data_folder;
        let mut standing: Standing = std::fs::read(folder.join(STANDING))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        if standing.boot_id != parts.host.boot_id {
            // The clock of the lease began anew, and nothing that it could fence is alive.
            standing.boot_id.clone_from(&parts.host.boot_id);
            standing.lease = None;
        }
        let core = Core::new(
            standing.session_epoch,
            standing
                .lease
                .map(|lease| time_to_ask(lease, clock::now().boottime_us)),
        );
        let mut supervisor = Self {
            parts,
            core,
            attempts: HashMap::new(),
            preparing: HashMap::new(),
            outbound: None,
            heartbeat: Duration::from_secs(1),
            readers: HashMap::new(),
            ends: HashMap::new(),
            standing,
            drained: Vec::new(),
        };
        supervisor.adopt().await?;
        Ok(supervisor)
    }

    async fn adopt(&mut self) -> Result<(), AgentError> {
        let folder = self.attempts_folder();
        let storage = |error| AgentError::Storage {
            path: folder.clone(),
            error,
        };
        std::fs::create_dir_all(&folder).map_err(storage)?;
        let found = attempts::find(&folder, &self.parts.host.boot_id).map_err(storage)?;
        for attempt in found.retired {
            self.tell_relay(RelayCommand::Ended {
                attempt,
                retired: true,
            });
        }
        let mut observed: HashMap<Key, Observation> = HashMap::new();
        for runtime in self.parts.runtimes.clone() {
            let own: Vec<Arc<Attempt>> = found
                .here
                .iter()
                .filter(|attempt| runtime_name(attempt) == runtime.name())
                .cloned()
                .collect();
            let answer = runtime.adopt(own).await.map_err(AgentError::Adoption)?;
            observed.extend(answer);
        }
        let here = found.here.into_iter().map(|attempt| {
            let seen = observed.remove(&attempt.key());
            (attempt, seen)
        });
        let all: Vec<_> = here.chain(found.before).collect();
        let count = all.len();
        for (attempt, seen) in all {
            let key = attempt.key();
            let cause = attempts::stop_cause(&attempt);
            if matches!(seen, Some(Observation::Running { .. })) {
                self.tell_relay(RelayCommand::Watch(Arc::clone(&attempt)));
            }
            let assignment = attempt.assignment.clone();
            self.attempts.insert(key, attempt);
            let actions = self.core.adopt(assignment, seen, cause, clock::now());
            self.act(actions);
        }
        if count > 0 {
            tracing::info!(
                count,
                live = self.core.live(),
                "took over from the agent before"
            );
        }
        Ok(())
    }

    fn attempts_folder(&self) -> PathBuf {
        self.parts.config.data_folder.join("attempts")
    }

    fn tell_relay(&self, command: RelayCommand) {
        // The relay ends only with the agent.
        let _ = self.parts.relay.send(command);
    }

    /// The loop.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::UnboundedReceiver<Event>,
        mut runtime_events: mpsc::UnboundedReceiver<RuntimeEvent>,
        shutdown: CancellationToken,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut runtime_batch = Vec::with_capacity(BATCH);
        let mut heartbeat = Instant::now();
        let mut sample = tokio::time::interval(self.parts.telemetry.sample_every());
        sample.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut cap = tokio::time::interval(CAP_EVERY);
        cap.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wake = self.next_wake(heartbeat);
            tokio::select! {
                () = shutdown.cancelled() => return,
                count = events.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                }
                _ = runtime_events.recv_many(&mut runtime_batch, BATCH) => {}
                () = tokio::time::sleep_until(wake) => {}
                _ = sample.tick() => self.sample(),
                _ = cap.tick() => self.hold_logs_to_their_cap(),
            }
            let mut actions = Vec::new();
            for event in runtime_batch.drain(..) {
                self.observe(event.key, event.observation, &mut actions);
            }
            for event in batch.drain(..) {
                self.take(event, &mut actions);
            }
            actions.extend(self.core.tick(clock::now()));
            self.act(actions);
            if self.outbound.is_some() && Instant::now() >= heartbeat {
                heartbeat = Instant::now() + self.heartbeat;
                self.beat();
            }
            self.report();
        }
    }

    fn next_wake(&self, heartbeat: Instant) -> Instant {
        let now = Instant::now();
        let core = self.core.next_wake_us().map(|due_us| {
            let now_us = clock::now().boottime_us;
            now + Duration::from_micros(due_us.saturating_sub(now_us))
        });
        let beat = self.outbound.as_ref().map(|_| heartbeat);
        let first = [core, beat].into_iter().flatten().min();
        // Past deadlines are at most a core tick away; without a session reports wait for one.
        first.map_or(now + IDLE, |at| at.max(now + Duration::from_millis(1)))
    }

    fn observe(&mut self, key: Key, observation: Observation, actions: &mut Vec<Action>) {
        match &observation {
            Observation::Running { .. } => {
                metrics::counter!("agent_starts_total").increment(1);
                if let Some(attempt) = self.attempts.get(&key) {
                    let attempt = Arc::clone(attempt);
                    self.tell_relay(RelayCommand::Watch(attempt));
                }
            }
            Observation::LaunchFailed {
                message,
                node_fault,
            } => {
                metrics::counter!("agent_launch_failures_total", "node_fault" => if *node_fault { "true" } else { "false" })
                    .increment(1);
                tracing::warn!(run = %key, message, node_fault, "launch failed");
            }
            Observation::Ended { exit, .. } => tracing::debug!(run = %key, ?exit, "ended"),
            Observation::Progress { .. } | Observation::Prepared => {}
        }
        actions.extend(self.core.observe(key, observation, clock::now()));
    }

    fn take(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Session(event) => self.take_session(event, actions),
            Event::Prepared { key, outcome } => {
                self.preparing.remove(&key);
                let observation = match outcome {
                    Ok(()) => Observation::Prepared,
                    Err(failure) => Observation::LaunchFailed {
                        message: failure.message,
                        node_fault: failure.node_fault,
                    },
                };
                self.observe(key, observation, actions);
            }
            Event::Drained(key) => {
                self.drained.push(key);
                self.tell_drained();
            }
            Event::Checkpointed { key, at_us } => self.core.checkpointed(key, at_us, clock::now()),
            Event::Sampled(sample) => {
                if let Some(outbound) = &self.outbound {
                    let at_us = clock::now().wall_us;
                    outbound.send(Up::Telemetry(convert::telemetry(sample, at_us)));
                }
            }
        }
    }

    fn take_session(&mut self, event: SessionEvent, actions: &mut Vec<Action>) {
        match event {
            SessionEvent::HelloWanted(answer) => {
                let _ = answer.send(self.hello());
            }
            SessionEvent::Opened {
                outbound,
                session_epoch,
                lease_ms,
                heartbeat_ms,
                hello_us,
            } => match self.core.welcomed(session_epoch, lease_ms, hello_us) {
                Ok(()) => {
                    tracing::info!(session_epoch, lease_ms, "session open");
                    self.heartbeat = Duration::from_millis(heartbeat_ms.max(10));
                    self.outbound = Some(outbound);
                    self.tell_drained();
                    self.remember_standing();
                    self.tell_relay(RelayCommand::Reachable);
                }
                Err(stale) => {
                    tracing::warn!(?stale, "a coordinator of the past is not listened to");
                    drop(outbound);
                }
            },
            SessionEvent::Desired(desired) => match self.core.desired(desired, clock::now()) {
                Ok(owed) => actions.extend(owed),
                Err(stale) => {
                    tracing::warn!(?stale, "wishes of the past are not followed");
                    self.outbound = None;
                }
            },
            SessionEvent::Acknowledged(sequence) => self.core.acknowledged(sequence),
            SessionEvent::LeaseRenewed(sent_us) => {
                self.core.lease_renewed(sent_us);
                self.remember_standing();
            }
            SessionEvent::LogRequested {
                request,
                key,
                offset,
                follow,
            } => self.read_log(request, key, offset, follow),
            SessionEvent::LogCancelled(request) => {
                if let Some(reader) = self.readers.remove(&request) {
                    reader.abort();
                }
            }
            SessionEvent::Closed => {
                self.outbound = None;
                for (_, reader) in self.readers.drain() {
                    reader.abort();
                }
            }
        }
    }

    /// Says which ended members have everything stored; without a session it waits for the next.
    fn tell_drained(&mut self) {
        if let Some(outbound) = &self.outbound {
            for key in self.drained.drain(..) {
                outbound.send(Up::Drained(wire::Drained {
                    key: Some(convert::key_to_wire(key)),
                }));
            }
        }
    }

    fn hello(&mut self) -> wire::Hello {
        let held = self.core.hello();
        let held = held
            .into_iter()
            .map(|report| self.to_wire(report))
            .collect();
        let telemetry = &self.parts.telemetry;
        let config = &self.parts.config;
        wire::Hello {
            node: config.node.clone(),
            pool: config.pool.clone(),
            boot_id: self.parts.host.boot_id.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_version: platform_proto::AGENT_PROTOCOL_VERSION,
            devices: telemetry
                .devices()
                .into_iter()
                .map(convert::device)
                .collect(),
            cpu_milli: config.cpu_milli.unwrap_or(self.parts.host.cpu_milli),
            memory_mib: config.memory_mib.unwrap_or(self.parts.host.memory_mib),
            held,
            runtimes: self
                .parts
                .runtimes
                .iter()
                .map(|runtime| runtime.name().to_owned())
                .collect(),
            operating_system: self.parts.host.operating_system.clone(),
            driver_version: telemetry.driver_version(),
            rack: config.rack.clone().unwrap_or_default(),
        }
    }

    fn to_wire(&self, report: MemberReport) -> wire::MemberReport {
        let enforcement = match (report.state, self.core.assignment(report.key)) {
            (State::Running, Some(assignment)) => self
                .runtime(!assignment.workload.image.is_empty())
                .map(|runtime| runtime.enforcement(assignment))
                .unwrap_or_default(),
            _ => String::new(),
        };
        convert::report(report, enforcement)
    }

    fn runtime(&self, container: bool) -> Option<&Arc<dyn Runtime>> {
        let name = if container { "docker" } else { "process" };
        self.parts
            .runtimes
            .iter()
            .find(|runtime| runtime.name() == name)
    }

    /// The lease and the newest coordinator met, for the next agent on this disk.
    fn remember_standing(&mut self) {
        self.standing.session_epoch = self.core.session_epoch();
        self.standing.lease = self.core.lease();
        let folder = &self.parts.config.data_folder;
        let written = serde_json::to_vec(&self.standing)
            .map_err(std::io::Error::other)
            .and_then(|bytes| replace(folder, STANDING, &bytes));
        if let Err(error) = written {
            tracing::warn!(%error, "cannot keep the lease on disk");
        }
    }

    fn beat(&self) {
        if let Some(outbound) = &self.outbound {
            outbound.send(Up::Heartbeat(wire::Heartbeat {
                sent_boottime_us: clock::now().boottime_us,
            }));
        }
    }

    fn report(&mut self) {
        if self.outbound.is_none() {
            return;
        }
        while let Some((sequence, members)) = self.core.next_report(clock::now()) {
            let members = members
                .into_iter()
                .map(|report| self.to_wire(report))
                .collect();
            if let Some(outbound) = &self.outbound {
                outbound.send(Up::Report(wire::Report { sequence, members }));
            }
        }
    }

    /// Does what the core says is owed.
    fn act(&mut self, actions: Vec<Action>) {
        let mut prepare = Vec::new();
        for action in actions {
            match action {
                Action::Prepare(key) => prepare.extend(self.begin(key)),
                Action::CancelPreparation(key) => {
                    if let Some(preparation) = self.preparing.remove(&key) {
                        preparation.abort();
                    }
                }
                Action::Start(key) => self.start(key),
                Action::Signal { key, signal, cause } => self.signal(key, signal, &cause),
                Action::Warn { key, signal } => self.warn(key, signal),
                Action::Ended(key) => self.ended(key),
                Action::Retire(key) => {
                    if let Some(attempt) = self.attempts.remove(&key) {
                        if let Some(runtime) =
                            self.runtime(!attempt.assignment.workload.image.is_empty())
                        {
                            runtime.forget(key);
                        }
                        self.tell_relay(RelayCommand::Retired(key));
                    }
                }
            }
        }
        self.prepare(prepare);
    }

    fn begin(&mut self, key: Key) -> Option<(Arc<Attempt>, Arc<dyn Runtime>)> {
        let assignment = self.core.assignment(key)?.clone();
        let container = !assignment.workload.image.is_empty();
        let attempt = Arc::new(Attempt {
            folder: self.attempts_folder().join(key.to_string()),
            assignment,
        });
        self.attempts.insert(key, Arc::clone(&attempt));
        match self.runtime(container) {
            Some(runtime) => Some((attempt, Arc::clone(runtime))),
            None => {
                let failure = LaunchFailure::node("this node has no container engine that answers");
                let _ = self.parts.events.send(Event::Prepared {
                    key,
                    outcome: Err(failure),
                });
                None
            }
        }
    }

    /// Records a batch of assignments on one thread, then prepares each. What needs no waiting (no
    /// package, no requirements) is done with at the first poll and costs no task of its own.
    fn prepare(&mut self, batch: Vec<(Arc<Attempt>, Arc<dyn Runtime>)>) {
        if batch.is_empty() {
            return;
        }
        let boot_id = self.parts.host.boot_id.clone();
        let events = self.parts.events.clone();
        let progress = self.parts.runtime_events.clone();
        let (plain, rest): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .partition(|(attempt, _)| is_plain(attempt));
        if !plain.is_empty() {
            let boot_id = boot_id.clone();
            let events = events.clone();
            let progress = progress.clone();
            tokio::spawn(async move {
                let plain = record_all(plain, boot_id, &events).await;
                for (attempt, runtime) in plain {
                    prepare_one(attempt, runtime, &progress, &events).await;
                }
            });
        }
        for (attempt, runtime) in rest {
            let key = attempt.key();
            let boot_id = boot_id.clone();
            let events = events.clone();
            let progress = progress.clone();
            let preparation = tokio::spawn(async move {
                let recorded = record_all(vec![(attempt, runtime)], boot_id, &events).await;
                for (attempt, runtime) in recorded {
                    prepare_one(attempt, runtime, &progress, &events).await;
                }
            });
            self.preparing.insert(key, preparation.abort_handle());
        }
    }

    fn start(&self, key: Key) {
        let Some(attempt) = self.attempts.get(&key) else {
            return;
        };
        if let Some(runtime) = self.runtime(!attempt.assignment.workload.image.is_empty()) {
            tracing::debug!(run = %key, "start");
            runtime.start(Arc::clone(attempt));
        }
    }

    fn signal(&self, key: Key, signal: agent_core::Signal, cause: &StopCause) {
        let Some(attempt) = self.attempts.get(&key) else {
            return;
        };
        if let Err(error) = attempts::record_stop(attempt, cause) {
            // A full disk must not keep a workload alive; only the words of its end may suffer.
            tracing::warn!(run = %key, %error, "cannot record why it is stopped");
        }
        tracing::info!(run = %key, ?signal, ?cause, "stop");
        if let Some(runtime) = self.runtime(!attempt.assignment.workload.image.is_empty()) {
            runtime.signal(key, signal);
        }
    }

    fn warn(&self, key: Key, signal: agent_core::WarningSignal) {
        let Some(attempt) = self.attempts.get(&key) else {
            return;
        };
        match attempts::record_warning(attempt) {
            Ok(true) => {}
            // An agent before us has sent it.
            Ok(false) => return,
            // A full disk must not keep the word from the workload; it may come twice.
            Err(error) => tracing::warn!(run = %key, %error, "cannot record that it is warned"),
        }
        tracing::info!(run = %key, signal = signal.as_str(), "its time limit is near");
        if let Some(runtime) = self.runtime(!attempt.assignment.workload.image.is_empty()) {
            runtime.signal(key, agent_core::Signal::Warn(signal));
        }
    }

    fn ended(&mut self, key: Key) {
        if let Some(readers) = self.ends.remove(&key) {
            readers.cancel();
        }
        if let Some(attempt) = self.attempts.get(&key) {
            self.tell_relay(RelayCommand::Ended {
                attempt: Arc::clone(attempt),
                retired: false,
            });
        }
    }

    fn read_log(&mut self, request: u64, key: Key, offset: u64, follow: bool) {
        let Some(outbound) = &self.outbound else {
            return;
        };
        self.readers.retain(|_, reader| !reader.is_finished());
        let refuse = |error: String, absent: bool| {
            outbound.send(Up::LogChunk(wire::LogChunk {
                request,
                offset,
                content: Vec::new(),
                end: true,
                error,
                absent,
            }));
        };
        if self.readers.len() >= LOG_READERS {
            refuse(
                format!("this node serves {LOG_READERS} log readers already; try again later"),
                false,
            );
            return;
        }
        // An attempt may be let go while its folder still waits for its journal: its log is there.
        let folder = self.attempts_folder().join(key.to_string());
        let ended = if !self.attempts.contains_key(&key) || self.core.has_ended(key) {
            let ended = CancellationToken::new();
            ended.cancel();
            ended
        } else {
            self.ends.entry(key).or_default().clone()
        };
        if ended.is_cancelled() && !folder.exists() {
            refuse(format!("this node holds no log of {key}"), true);
            return;
        }
        let reader = tokio::spawn(logs::serve(
            request,
            folder,
            offset,
            follow,
            ended,
            outbound.logs(),
        ));
        self.readers.insert(request, reader.abort_handle());
    }

    fn sample(&self) {
        if self.outbound.is_none() {
            return;
        }
        let telemetry = Arc::clone(&self.parts.telemetry);
        let events = self.parts.events.clone();
        let ours: Vec<_> = self
            .parts
            .runtimes
            .iter()
            .flat_map(|runtime| runtime.processes())
            .collect();
        tokio::task::spawn_blocking(move || {
            let _ = events.send(Event::Sampled(telemetry.sample(&ours)));
        });
    }

    fn hold_logs_to_their_cap(&self) {
        let folders: Vec<PathBuf> = self
            .attempts
            .iter()
            .filter(|(key, _)| !self.core.has_ended(**key))
            .map(|(_, attempt)| attempt.folder.clone())
            .collect();
        if folders.is_empty() {
            return;
        }
        let cap_bytes = self.parts.config.log_limit_bytes;
        tokio::task::spawn_blocking(move || {
            for folder in folders {
                if let Err(error) = logs::enforce_cap(&folder, cap_bytes) {
                    tracing::warn!(folder = %folder.display(), %error, "cannot cut a log");
                }
            }
        });
    }
}

/// Which runtime an attempt asks for.
fn runtime_name(attempt: &Attempt) -> &'static str {
    if attempt.assignment.workload.image.is_empty() {
        "process"
    } else {
        "docker"
    }
}

/// Whether preparing it takes no time worth cancelling.
fn is_plain(attempt: &Attempt) -> bool {
    let workload = &attempt.assignment.workload;
    workload.image.is_empty()
        && workload.source_sha256.is_empty()
        && workload.requirements_path.is_empty()
}

type Batch = Vec<(Arc<Attempt>, Arc<dyn Runtime>)>;

/// Writes the assignments down; those that could not be are failed, as the node's fault.
async fn record_all(batch: Batch, boot_id: String, events: &mpsc::UnboundedSender<Event>) -> Batch {
    let recorded = tokio::task::spawn_blocking(move || {
        let mut good = Vec::with_capacity(batch.len());
        let mut bad = Vec::new();
        for (attempt, runtime) in batch {
            match attempts::record(&attempt, &boot_id) {
                Ok(()) => good.push((attempt, runtime)),
                Err(error) => bad.push((
                    attempt.key(),
                    crate::package::storage_failure(&attempt.folder, &error),
                )),
            }
        }
        (good, bad)
    })
    .await;
    let Ok((good, bad)) = recorded else {
        return Vec::new();
    };
    for (key, failure) in bad {
        let _ = events.send(Event::Prepared {
            key,
            outcome: Err(failure),
        });
    }
    good
}

async fn prepare_one(
    attempt: Arc<Attempt>,
    runtime: Arc<dyn Runtime>,
    progress: &RuntimeEvents,
    events: &mpsc::UnboundedSender<Event>,
) {
    let key = attempt.key();
    let prepared = runtime.prepare(attempt, Progress::new(key, progress.clone()));
    let outcome = AssertUnwindSafe(prepared)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            // One package must not end the agent each time that it is tried anew.
            Err(LaunchFailure::node(
                "the agent failed to prepare it by a defect of its own; its log says more",
            ))
        });
    let _ = events.send(Event::Prepared { key, outcome });
}

#[cfg(test)]
mod tests {
    use super::time_to_ask;

    #[test]
    fn a_restart_never_lengthens_a_lease_that_has_not_ended() {
        assert_eq!(
            time_to_ask((30_000_000, 103_000_000), 100_000_000),
            (30_000_000, 103_000_000)
        );
    }

    #[test]
    fn a_lease_that_ended_unwatched_leaves_time_to_ask_and_never_a_whole_lease() {
        let (_, end_us) = time_to_ask((30_000_000, 40_000_000), 100_000_000);
        assert_eq!(end_us, 117_500_000);
        let (_, end_us) = time_to_ask((2_000_000, 40_000_000), 100_000_000);
        assert_eq!(end_us, 102_000_000);
    }
}
