//! The one loop that drives the replica, on a thread of its own: gather inputs, make durable, send,
//! apply, reply. [`Driver::pump`] is the only place where that order is kept.
//!
//! Architecture invariant: nothing but this thread writes the log or the state. Readers share the
//! state by a lock that the thread takes for one batch at a time. What it deliberately lacks: the plan
//! and every other duty of a leader (see `leader`), and the wire to peers, which it reaches by
//! [`DriverConfig::send`] alone.

use crate::storage::{Disk, Past, RealDisk, Snapshotter, Store, StoreError};
use coordinator_core::state::{Command, Entry, Event, State};
use coordinator_replica::{Input, ProposalRefused, Replica, ReplicaConfig, Role};
use raft::eraftpb::Message;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, oneshot, watch};

/// The leader's clock, in microseconds of the Unix epoch.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How the driver behaves.
pub struct DriverConfig {
    /// Folder of this member.
    pub directory: PathBuf,
    /// The replica's part.
    pub replica: ReplicaConfig,
    /// Length of raft's tick.
    pub tick: Duration,
    /// Proposals under way at once; more wait in the caller. Bounds memory and the longest batch.
    pub proposals_max: usize,
    /// Proposals that share one write, at most.
    pub batch_entries: usize,
    /// A snapshot is due after this many commands, if the log since the last is also a quarter of its size.
    pub snapshot_after_entries: u64,
    /// A snapshot is due after this many bytes of log, on the same condition.
    pub snapshot_after_bytes: u64,
    /// Entries kept behind a snapshot, for members that lag a little.
    pub keep_entries: u64,
    /// With less free space than this, proposals are refused as [`ProposeError::DiskFull`]. They are
    /// accepted again at a quarter more.
    pub free_floor_bytes: u64,
    /// Events kept for a slow subscriber before it is told that it lags.
    pub event_buffer: usize,
    /// The disk; tests give another.
    pub disk: Arc<dyn Disk>,
    /// The clock; tests give another.
    pub clock: Clock,
    /// Messages to peers.
    pub send: Box<dyn FnMut(Vec<Message>) + Send>,
    /// Called once, on the driver's thread, when durability or the log has failed. By default it
    /// writes the reason and ends the process: what the disk holds is then unknown.
    pub on_fatal: Box<dyn FnOnce(String) + Send>,
}

impl DriverConfig {
    /// Defaults for a member alone in its group.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            replica: ReplicaConfig::new(1),
            tick: Duration::from_millis(50),
            proposals_max: 8192,
            batch_entries: 1024,
            snapshot_after_entries: 20_000,
            snapshot_after_bytes: 32 * 1024 * 1024,
            keep_entries: 4096,
            free_floor_bytes: 64 * 1024 * 1024,
            event_buffer: 8192,
            disk: Arc::new(RealDisk),
            clock: Arc::new(wall_clock_us),
            send: Box::new(|messages| {
                debug_assert!(messages.is_empty(), "a lone member has no peers")
            }),
            on_fatal: Box::new(|reason| {
                tracing::error!(reason, "the coordinator stops");
                eprintln!("error: the coordinator stops: {reason}");
                // EX_IOERR of sysexits.h.
                std::process::exit(74);
            }),
        }
    }
}

fn wall_clock_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        })
}

/// A command that was applied: its log index and what happened.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Log index.
    pub index: u64,
    /// What happened, in order.
    pub events: Arc<Vec<Event>>,
}

/// Why a command was not acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// Surely not done: the disk is nearly full.
    #[error(
        "unavailable: disk full: {free_bytes} bytes free, at least {floor_bytes} needed; free some space, nothing is lost"
    )]
    DiskFull {
        /// Free now.
        free_bytes: u64,
        /// Needed.
        floor_bytes: u64,
    },
    /// Surely not done: another member leads, or none.
    #[error("unavailable: this member does not lead")]
    NotLeader {
        /// Who does, if known.
        leader: Option<u64>,
    },
    /// Surely not done: the command can never, or not now, enter the log.
    #[error("{0}")]
    Refused(String),
    /// Surely not done: too many commands await agreement.
    #[error("unavailable: {0}")]
    Overloaded(String),
    /// Perhaps done: ask again with the same idempotency key.
    #[error("unavailable: the outcome is unknown: {0}; ask again with the same idempotency key")]
    Unknown(String),
}

impl From<ProposalRefused> for ProposeError {
    fn from(refused: ProposalRefused) -> Self {
        match refused {
            ProposalRefused::NotLeader { leader } => Self::NotLeader { leader },
            ProposalRefused::Overloaded { .. } => Self::Overloaded(refused.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}

struct Proposal {
    actor: String,
    idempotency_key: Option<String>,
    command: Command,
    reply: oneshot::Sender<Result<Applied, ProposeError>>,
    // Released when the proposal is answered, even if its caller has gone: the bound holds for what is here.
    permit: OwnedSemaphorePermit,
}

/// Everything the loop wakes for.
enum Wake {
    Proposal(Box<Proposal>),
    Read(oneshot::Sender<Result<u64, ProposeError>>),
    Message(Box<Message>),
    Past {
        index: u64,
        reply: oneshot::Sender<Result<Past, StoreError>>,
    },
    SnapshotMade {
        index: u64,
        result: Result<u64, StoreError>,
    },
    Stop,
}

/// What the rest of the process holds of the driver. Cheap to clone.
#[derive(Clone)]
pub struct DriverHandle {
    wakes: Sender<Wake>,
    permits: Arc<Semaphore>,
    state: Arc<RwLock<State>>,
    applied: watch::Receiver<u64>,
    role: watch::Receiver<Role>,
    events: broadcast::WeakSender<Applied>,
}

impl DriverHandle {
    /// The state as it was at a log index that was applied, read beside the driver.
    ///
    /// # Errors
    ///
    /// What the disk says; it may be asked again.
    pub async fn past(&self, index: u64) -> Result<Past, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.wakes
            .send(Wake::Past { index, reply })
            .map_err(|_| stopped())?;
        let past = answer.await.map_err(|_| stopped())?;
        past.map_err(|error| ProposeError::Refused(error.to_string()))
    }

    /// Proposes a command and waits until it is durable and applied. A refusal by the state itself is
    /// an [`Event::Rejected`] among the events. Dropping the future does not withdraw the command.
    pub async fn propose(
        &self,
        actor: impl Into<String>,
        idempotency_key: Option<String>,
        command: Command,
    ) -> Result<Applied, ProposeError> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| stopped())?;
        let (reply, answer) = oneshot::channel();
        let proposal = Proposal {
            actor: actor.into(),
            idempotency_key,
            command,
            reply,
            permit,
        };
        self.wakes
            .send(Wake::Proposal(Box::new(proposal)))
            .map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Reads the applied state. Keep it short: applies wait meanwhile.
    pub fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the state holds everything acknowledged before the call, by raft's ReadIndex; then
    /// [`DriverHandle::read`] is linearizable. Answers the index.
    pub async fn linearize(&self) -> Result<u64, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.wakes.send(Wake::Read(reply)).map_err(|_| stopped())?;
        let index = answer.await.map_err(|_| stopped())??;
        let mut applied = self.applied.clone();
        applied
            .wait_for(|applied| *applied >= index)
            .await
            .map_err(|_| stopped())?;
        Ok(index)
    }

    /// Hands in a peer's message, already authenticated.
    pub fn step(&self, message: Message) -> Result<(), ProposeError> {
        self.wakes
            .send(Wake::Message(Box::new(message)))
            .map_err(|_| stopped())
    }

    /// Index up to which the state is applied.
    pub fn applied_index(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Follows the applied index.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// Follows who leads.
    pub fn watch_role(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// Every applied command from now on, in order. A receiver that falls behind by more than
    /// [`DriverConfig::event_buffer`] gets `Lagged` and must read the state anew; one that gets
    /// `Closed` outlived the driver.
    pub fn subscribe(&self) -> broadcast::Receiver<Applied> {
        self.events
            .upgrade()
            .map_or_else(|| broadcast::channel(1).1, |events| events.subscribe())
    }
}

fn stopped() -> ProposeError {
    ProposeError::Unknown("the coordinator is stopping".to_owned())
}

/// Owns the thread; dropping it stops the loop and waits for it.
pub struct DriverThread {
    wakes: Sender<Wake>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for DriverThread {
    fn drop(&mut self) {
        let _ = self.wakes.send(Wake::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Opens the store, replays the log, and starts the loop. A lone member leads when this returns.
pub fn start(config: DriverConfig) -> Result<(DriverHandle, DriverThread), StoreError> {
    let (store, restored) = Store::open(
        &config.directory,
        config.replica.id,
        Arc::clone(&config.disk),
    )?;
    let path = config.directory.display().to_string();
    let damaged = |reason: String| StoreError::Damaged {
        path: path.clone(),
        reason,
    };
    let logger = slog::Logger::root(slog::Fuse(TracingDrain), slog::o!());
    let replica = Replica::new(config.replica.clone(), restored, &logger).map_err(damaged)?;
    let (wakes, inbox) = std::sync::mpsc::channel();
    let (applied, applied_watch) = watch::channel(replica.applied_index());
    let (role, role_watch) = watch::channel(replica.role());
    let (events, _) = broadcast::channel(config.event_buffer);
    let stamp_us = replica.state().time_us();
    let handle = DriverHandle {
        wakes: wakes.clone(),
        permits: Arc::new(Semaphore::new(config.proposals_max)),
        state: replica.shared_state(),
        applied: applied_watch,
        role: role_watch,
        events: events.downgrade(),
    };
    let mut driver = Driver {
        snapshot_index: replica.applied_index(),
        log_bytes: 0,
        snapshot_under_way: false,
        waiting: HashMap::new(),
        reads: HashMap::new(),
        next_token: 0,
        stamp_us,
        refusing: None,
        owed: None,
        self_wakes: wakes.clone(),
        permits: Arc::clone(&handle.permits),
        config,
        store,
        replica,
        applied,
        role,
        events,
    };
    driver.check_free_space();
    driver.pump().map_err(Stop::into_store_error)?;
    if driver.replica.is_sole_voter() {
        // Nobody else could win: do not wait for a timeout.
        driver
            .replica
            .input(Input::Campaign)
            .map_err(|error| damaged(error.to_string()))?;
        driver.pump().map_err(Stop::into_store_error)?;
    }
    let thread = std::thread::Builder::new()
        .name("driver".to_owned())
        .spawn(move || run(driver, &inbox))
        .map_err(|source| StoreError::Io {
            path: "driver thread".to_owned(),
            source,
        })?;
    Ok((
        handle,
        DriverThread {
            wakes,
            thread: Some(thread),
        },
    ))
}

fn run(mut driver: Driver, inbox: &Receiver<Wake>) {
    let reason = match std::panic::catch_unwind(AssertUnwindSafe(|| driver.run(inbox))) {
        Ok(Ok(())) => return,
        Ok(Err(stop)) => stop.reason(),
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| {
                panic
                    .downcast_ref::<&str>()
                    .map(|reason| (*reason).to_owned())
            })
            .unwrap_or_else(|| "the driver panicked".to_owned()),
    };
    driver.permits.close();
    driver.waiting.clear();
    driver.reads.clear();
    let on_fatal = std::mem::replace(&mut driver.config.on_fatal, Box::new(|_| {}));
    // Not dropped: the log library would sync once more, and a failed sync must not be retried.
    std::mem::forget(driver.store);
    on_fatal(reason);
}

/// Why the loop cannot go on.
enum Stop {
    Store(StoreError),
    Replica(coordinator_replica::Fatal),
}

impl Stop {
    fn reason(self) -> String {
        match self {
            Self::Store(error) => error.to_string(),
            Self::Replica(error) => error.to_string(),
        }
    }

    fn into_store_error(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Replica(fatal) => StoreError::Codec {
                path: format!("log index {}", fatal.index),
                source: fatal.source,
            },
        }
    }
}

struct Waiting {
    reply: oneshot::Sender<Result<Applied, ProposeError>>,
    _permit: OwnedSemaphorePermit,
}

struct Driver {
    config: DriverConfig,
    store: Store,
    replica: Replica,
    waiting: HashMap<u64, Waiting>,
    reads: HashMap<u64, oneshot::Sender<Result<u64, ProposeError>>>,
    next_token: u64,
    stamp_us: u64,
    /// Free bytes when proposals began to be refused.
    refusing: Option<u64>,
    /// Effects that a full disk did not take.
    owed: Option<coordinator_replica::Effects>,
    snapshot_index: u64,
    snapshot_under_way: bool,
    log_bytes: u64,
    applied: watch::Sender<u64>,
    role: watch::Sender<Role>,
    events: broadcast::Sender<Applied>,
    self_wakes: Sender<Wake>,
    permits: Arc<Semaphore>,
}

impl Driver {
    fn run(&mut self, inbox: &Receiver<Wake>) -> Result<(), Stop> {
        let mut next_tick = Instant::now() + self.config.tick;
        loop {
            let mut wake =
                match inbox.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
                    Ok(wake) => Some(wake),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                };
            // Whatever has come in meanwhile shares one write.
            let mut taken = 0;
            while let Some(next) = wake {
                if matches!(next, Wake::Stop) {
                    return Ok(());
                }
                self.take(next)?;
                taken += 1;
                wake = if taken < self.config.batch_entries {
                    inbox.try_recv().ok()
                } else {
                    None
                };
            }
            let now = Instant::now();
            if now >= next_tick {
                // A stalled process makes up for no lost ticks: they would only start elections.
                next_tick = now + self.config.tick;
                self.check_free_space();
                if self.owed.is_none() {
                    let _ = self.replica.input(Input::Tick);
                }
            }
            self.pump()?;
        }
    }

    fn take(&mut self, wake: Wake) -> Result<(), Stop> {
        match wake {
            Wake::Proposal(proposal) => self.propose(*proposal),
            Wake::Read(reply) => {
                self.next_token += 1;
                let token = self.next_token;
                match self
                    .when_writable()
                    .and_then(|()| Ok(self.replica.input(Input::Read(token))?))
                {
                    Ok(()) => {
                        self.reads.insert(token, reply);
                    }
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                }
            }
            Wake::Message(message) => {
                if self.owed.is_none()
                    && let Err(error) = self.replica.input(Input::Message(message))
                {
                    tracing::warn!(%error, "a peer's message was not taken");
                }
            }
            Wake::SnapshotMade { index, result } => {
                self.snapshot_under_way = false;
                match result {
                    Ok(bytes) => {
                        tracing::info!(index, bytes, "snapshot saved, log compacted");
                        self.store.note_snapshot(bytes);
                        self.replica
                            .compact(index.saturating_sub(self.config.keep_entries));
                    }
                    Err(StoreError::Full(reason)) => {
                        tracing::warn!(
                            index,
                            reason,
                            "no snapshot for want of space; the log grows on"
                        );
                    }
                    Err(error) => return Err(Stop::Store(error)),
                }
            }
            Wake::Past { index, reply } => self.look_back(index, reply),
            Wake::Stop => {}
        }
        Ok(())
    }

    /// Raft takes no input between effects and their persistence.
    fn when_writable(&self) -> Result<(), ProposeError> {
        if self.refusing.is_none() && self.owed.is_none() {
            return Ok(());
        }
        let free_bytes = self.refusing.unwrap_or_default();
        Err(ProposeError::DiskFull {
            free_bytes,
            floor_bytes: self.config.free_floor_bytes,
        })
    }

    /// Reads the past on a thread of its own: the log is not kept from going on.
    fn look_back(&self, index: u64, reply: oneshot::Sender<Result<Past, StoreError>>) {
        let snapshotter = self.store.snapshotter();
        let spawned = std::thread::Builder::new()
            .name("past".to_owned())
            .spawn(move || {
                let past = snapshotter.past(index);
                // Dropped first, so that the log is closed by the driver alone.
                drop(snapshotter);
                let _ = reply.send(past);
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread to look back; who asked may ask again");
        }
    }

    fn propose(&mut self, proposal: Proposal) {
        let Proposal {
            actor,
            idempotency_key,
            command,
            reply,
            permit,
        } = proposal;
        // The leader's stamp never goes back, whatever its clock does.
        let stamp_us = self.stamp_us.max((self.config.clock)());
        let entry = Box::new(Entry {
            stamp_us,
            actor,
            idempotency_key,
            command,
        });
        self.next_token += 1;
        let token = self.next_token;
        match self
            .when_writable()
            .and_then(|()| Ok(self.replica.input(Input::Propose { token, entry })?))
        {
            Ok(()) => {
                self.stamp_us = stamp_us;
                self.waiting.insert(
                    token,
                    Waiting {
                        reply,
                        _permit: permit,
                    },
                );
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Persist, then send, then apply and reply.
    fn pump(&mut self) -> Result<(), Stop> {
        while let Some(effects) = self.owed.take().or_else(|| self.replica.effects()) {
            // 1. Persist: one fdatasync for all that came in.
            match self.store.persist(&effects) {
                Ok(()) => {}
                Err(StoreError::Full(reason)) => {
                    let free_bytes = self.store.free_bytes().unwrap_or(0);
                    if self.refusing.is_none() {
                        tracing::error!(
                            reason,
                            free_bytes,
                            "the disk is full: proposals are refused until space returns"
                        );
                    }
                    self.refusing = Some(free_bytes);
                    self.owed = Some(effects);
                    return Ok(());
                }
                Err(error) => return Err(Stop::Store(error)),
            }
            self.log_bytes += effects
                .entries
                .iter()
                .map(|entry| entry.data.len() as u64)
                .sum::<u64>();
            // 2. Send.
            let mut effects = effects;
            let messages = std::mem::take(&mut effects.messages);
            if !messages.is_empty() {
                (self.config.send)(messages);
            }
            // 3. Apply and reply.
            let outcome = self.replica.persisted(effects).map_err(Stop::Replica)?;
            let mut replies = Vec::with_capacity(outcome.applied.len());
            for entry in outcome.applied {
                let applied = Applied {
                    index: entry.index,
                    events: Arc::new(entry.events),
                };
                if let Some(waiting) = entry.token.and_then(|token| self.waiting.remove(&token)) {
                    replies.push((waiting, applied.clone()));
                }
                // Fails when nobody subscribes.
                let _ = self.events.send(applied);
            }
            self.applied.send_if_modified(|applied| {
                std::mem::replace(applied, self.replica.applied_index()) != *applied
            });
            for (waiting, applied) in replies {
                let _ = waiting.reply.send(Ok(applied));
            }
            for token in outcome.overruled {
                self.refuse(token, ProposeError::NotLeader { leader: None });
            }
            for token in outcome.unknown {
                self.refuse(
                    token,
                    ProposeError::Unknown("this member lost the lead".to_owned()),
                );
            }
            for (token, index) in outcome.reads {
                if let Some(reply) = self.reads.remove(&token) {
                    let _ = reply.send(Ok(index));
                }
            }
            self.follow_role();
        }
        self.maybe_snapshot();
        Ok(())
    }

    fn refuse(&mut self, token: u64, error: ProposeError) {
        if let Some(waiting) = self.waiting.remove(&token) {
            let _ = waiting.reply.send(Err(error));
        }
    }

    fn follow_role(&mut self) {
        let role = self.replica.role();
        let changed = self
            .role
            .send_if_modified(|last| std::mem::replace(last, role) != role);
        if !changed {
            return;
        }
        tracing::info!(?role, term = self.replica.term(), "leadership");
        // A new leader stamps no earlier than what it has applied.
        self.stamp_us = self.stamp_us.max(self.replica.state().time_us());
        if role != Role::Leader {
            for (_, reply) in self.reads.drain() {
                let _ = reply.send(Err(ProposeError::NotLeader { leader: None }));
            }
        }
    }

    fn check_free_space(&mut self) {
        let Ok(free_bytes) = self.store.free_bytes() else {
            return;
        };
        let floor = self.config.free_floor_bytes;
        match self.refusing {
            None if free_bytes < floor => {
                tracing::error!(
                    free_bytes,
                    floor,
                    "the disk is nearly full: proposals are refused until space returns"
                );
                self.refusing = Some(free_bytes);
            }
            Some(_) if free_bytes >= floor.saturating_add(floor / 4) => {
                tracing::info!(free_bytes, "space has returned: proposals are taken again");
                self.refusing = None;
            }
            Some(_) => self.refusing = Some(free_bytes),
            None => {}
        }
    }

    fn maybe_snapshot(&mut self) {
        let index = self.replica.applied_index();
        if self.replica.is_sole_voter() {
            // Nobody will ask for older entries, and the disk has them.
            self.replica
                .compact(index.saturating_sub(self.config.keep_entries));
        }
        let entries = index.saturating_sub(self.snapshot_index);
        let due = (entries >= self.config.snapshot_after_entries
            || self.log_bytes >= self.config.snapshot_after_bytes)
            && self.log_bytes >= self.store.last_snapshot_bytes() / 4;
        if !due || self.snapshot_under_way || self.refusing.is_some() {
            return;
        }
        let snapshotter: Snapshotter = self.store.snapshotter();
        let metadata = self.replica.snapshot_metadata();
        let compact_to = index.saturating_sub(self.config.keep_entries);
        let done = self.self_wakes.clone();
        let spawned = std::thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || {
                let result = snapshotter.make(&metadata, compact_to);
                // Dropped first, so that the log is closed by the driver alone.
                drop(snapshotter);
                let _ = done.send(Wake::SnapshotMade {
                    index: metadata.index,
                    result,
                });
            });
        match spawned {
            Ok(_) => {
                self.snapshot_under_way = true;
                self.snapshot_index = index;
                self.log_bytes = 0;
            }
            Err(error) => tracing::warn!(%error, "no thread for a snapshot; it is tried again"),
        }
    }
}

/// Raft speaks slog; we speak tracing.
struct TracingDrain;

impl slog::Drain for TracingDrain {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, _: &slog::OwnedKVList) -> Result<(), slog::Never> {
        let message = record.msg();
        match record.level() {
            slog::Level::Critical | slog::Level::Error => {
                tracing::error!(target: "raft", "{message}")
            }
            slog::Level::Warning => tracing::warn!(target: "raft", "{message}"),
            slog::Level::Info | slog::Level::Debug => tracing::debug!(target: "raft", "{message}"),
            slog::Level::Trace => tracing::trace!(target: "raft", "{message}"),
        }
        Ok(())
    }
}
