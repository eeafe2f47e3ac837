//! The replica: one `RawNode`, one `State`, and who waits for which log index.

use crate::codec::{CodecError, decode_entry, encode_entry, read_snapshot};
use crate::log::MemoryLog;
use crate::validate::validate;
use coordinator_core::state::{Entry, Event, State};
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChange, ConfChangeV2, ConfState, Entry as RaftEntry, EntryType, HardState, Message,
    MessageType, Snapshot, SnapshotMetadata,
};
use raft::{Config, RawNode, ReadOnlyOption, StateRole, Storage as _};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// Names a proposal between [`Input::Propose`] and its outcome; the shell chooses it.
pub type Token = u64;

/// Names a linearizable read; the shell chooses it.
pub type ReadToken = u64;

/// How a replica behaves; the same on every member but for `id`.
#[derive(Debug, Clone)]
pub struct ReplicaConfig {
    /// This member, never 0.
    pub id: u64,
    /// Ticks without a leader before an election.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Proposals beyond this many uncommitted bytes are refused.
    pub max_uncommitted_bytes: u64,
    /// One entry, at most.
    pub max_entry_bytes: usize,
    /// Fixes the randomised election timeout, for simulations.
    pub pinned_election_ticks: Option<usize>,
}

impl ReplicaConfig {
    /// Defaults for ticks of 50 ms: heartbeats every 100 ms, elections after 500 ms.
    pub fn new(id: u64) -> Self {
        Self {
            id,
            election_ticks: 10,
            heartbeat_ticks: 2,
            max_uncommitted_bytes: 64 * 1024 * 1024,
            max_entry_bytes: 4 * 1024 * 1024,
            pinned_election_ticks: None,
        }
    }
}

/// What the disk held.
pub struct Restored {
    /// Term, vote, commit.
    pub hard_state: HardState,
    /// Of the snapshot that `state` is.
    pub snapshot: SnapshotMetadata,
    /// The state at the snapshot's index.
    pub state: State,
    /// Every entry after the snapshot, in order.
    pub entries: Vec<RaftEntry>,
}

/// The metadata of the first snapshot of a new group: index 1, with `voters`. Every founding member
/// begins from the same one.
pub fn bootstrap_metadata(voters: &[u64]) -> SnapshotMetadata {
    let mut conf_state = ConfState::default();
    conf_state.set_voters(voters.to_vec());
    let mut metadata = SnapshotMetadata::default();
    metadata.set_conf_state(conf_state);
    metadata.index = 1;
    metadata.term = 1;
    metadata
}

/// What goes in.
pub enum Input {
    /// A tick of the shell's clock.
    Tick,
    /// A command to be agreed on.
    Propose {
        /// Comes back with the outcome.
        token: Token,
        /// Stamped by the shell.
        entry: Box<Entry>,
    },
    /// A linearizable read: when may it be served?
    Read(ReadToken),
    /// From a peer, authenticated by the shell.
    Message(Box<Message>),
    /// Seek election now, rather than at the end of a timeout.
    Campaign,
}

/// Why an input was not taken. The replica is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ProposalRefused {
    /// Another member leads, or none.
    #[error("this member does not lead")]
    NotLeader {
        /// Who does, if known.
        leader: Option<u64>,
    },
    /// Too many bytes await agreement.
    #[error("more than {limit} bytes of commands await agreement; try again shortly")]
    Overloaded {
        /// The ceiling.
        limit: u64,
    },
    /// One entry is too large.
    #[error("the command takes {bytes} bytes, at most {limit} fit into the log")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The ceiling.
        limit: usize,
    },
    /// The entry does not encode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A peer's message that raft must not see.
    #[error("refused a peer's message: {0}")]
    BadMessage(String),
    /// Raft's own refusal.
    #[error("raft refused: {0}")]
    Raft(String),
}

/// The replica cannot go on: a committed entry or snapshot is unreadable. Ends the process.
#[derive(Debug, thiserror::Error)]
#[error("log index {index}: {source}")]
pub struct Fatal {
    /// Where.
    pub index: u64,
    /// Why.
    pub source: CodecError,
}

/// What the shell owes, in this order: make durable, send, call [`Replica::persisted`].
#[must_use = "effects must be made durable and handed back"]
pub struct Effects {
    /// To be kept; never to go back.
    pub hard_state: Option<HardState>,
    /// To be appended, replacing any suffix from the first one's index on.
    pub entries: Vec<RaftEntry>,
    /// To be saved in place of the whole log so far.
    pub snapshot: Option<Snapshot>,
    /// Whether the disk must confirm; else `hard_state` may wait for the next write.
    pub must_sync: bool,
    /// To be sent once the above is durable.
    pub messages: Vec<Message>,
    /// A member needs a snapshot: see [`Replica::offer_snapshot`].
    pub snapshot_wanted: bool,
    number: u64,
    committed: Vec<RaftEntry>,
    reads: Vec<(ReadToken, u64)>,
}

/// A command that was applied.
pub struct AppliedEntry {
    /// Its log index.
    pub index: u64,
    /// Who waits for it here, if anyone.
    pub token: Option<Token>,
    /// What happened.
    pub events: Vec<Event>,
}

/// What came of handing effects back.
#[derive(Default)]
pub struct Outcome {
    /// Commands applied, by index.
    pub applied: Vec<AppliedEntry>,
    /// Proposals overruled by another leader's entry at the same index: surely not done.
    pub overruled: Vec<Token>,
    /// Proposals whose fate this member can no longer tell, as it lost the lead.
    pub unknown: Vec<Token>,
    /// Reads that may be served once the index beside each is applied.
    pub reads: Vec<(ReadToken, u64)>,
    /// The state was replaced by a snapshot.
    pub restored: bool,
}

/// Who leads, as far as this member knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// This member.
    Leader,
    /// Another, or none known.
    Follower {
        /// Who.
        leader: Option<u64>,
    },
}

struct Pending {
    index: u64,
    term: u64,
    token: Token,
}

/// See the crate's page.
pub struct Replica {
    raw: RawNode<MemoryLog>,
    config: ReplicaConfig,
    state: Arc<RwLock<State>>,
    conf_state: ConfState,
    applied_index: u64,
    applied_term: u64,
    pending: VecDeque<Pending>,
    led: bool,
}

impl Replica {
    /// A replica as the disk held it. Entries after the snapshot are applied through the first effects.
    pub fn new(
        config: ReplicaConfig,
        restored: Restored,
        logger: &slog::Logger,
    ) -> Result<Self, String> {
        let Restored {
            mut hard_state,
            snapshot,
            state,
            entries,
        } = restored;
        // Raft panics on an applied index above the commit index; a snapshot holds committed entries only.
        hard_state.commit = hard_state.commit.max(snapshot.index);
        hard_state.term = hard_state.term.max(snapshot.term);
        let last = entries.last().map_or(snapshot.index, |entry| entry.index);
        if hard_state.commit > last {
            return Err(format!(
                "the log ends at index {last}, before the commit index {}",
                hard_state.commit
            ));
        }
        for (expected, entry) in (snapshot.index + 1..).zip(&entries) {
            if entry.index != expected {
                return Err(format!(
                    "the log has entry {} where entry {expected} was due",
                    entry.index
                ));
            }
        }
        let raft_config = Config {
            id: config.id,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            min_election_tick: config.pinned_election_ticks.unwrap_or(0),
            max_election_tick: config.pinned_election_ticks.map_or(0, |ticks| ticks + 1),
            applied: snapshot.index,
            max_size_per_msg: 1024 * 1024,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            max_uncommitted_size: config.max_uncommitted_bytes,
            max_committed_size_per_ready: 4 * 1024 * 1024,
            ..Config::default()
        };
        let conf_state = snapshot.get_conf_state().clone();
        let log = MemoryLog::new(hard_state, &snapshot, entries);
        let raw = RawNode::new(&raft_config, log, logger).map_err(|error| error.to_string())?;
        Ok(Self {
            raw,
            config,
            state: Arc::new(RwLock::new(state)),
            conf_state,
            applied_index: snapshot.index,
            applied_term: snapshot.term,
            pending: VecDeque::new(),
            led: false,
        })
    }

    /// Takes one input.
    pub fn input(&mut self, input: Input) -> Result<(), ProposalRefused> {
        match input {
            Input::Tick => {
                self.raw.tick();
                Ok(())
            }
            Input::Campaign => self
                .raw
                .campaign()
                .map_err(|error| ProposalRefused::Raft(error.to_string())),
            Input::Propose { token, entry } => self.propose(token, &entry),
            Input::Read(token) => {
                if self.role() != Role::Leader {
                    return Err(self.not_leader());
                }
                self.raw.read_index(token.to_le_bytes().to_vec());
                Ok(())
            }
            Input::Message(message) => {
                let last = self.raw.store().last_index().unwrap_or(0);
                validate(&message, self.config.id, last).map_err(ProposalRefused::BadMessage)?;
                // A proposal forwarded by a peer would lose its token and its stamp.
                if message.get_msg_type() == MessageType::MsgPropose {
                    return Err(ProposalRefused::BadMessage(
                        "proposals are not forwarded between members".to_owned(),
                    ));
                }
                self.raw
                    .step(*message)
                    .map_err(|error| ProposalRefused::Raft(error.to_string()))
            }
        }
    }

    fn propose(&mut self, token: Token, entry: &Entry) -> Result<(), ProposalRefused> {
        if self.role() != Role::Leader {
            return Err(self.not_leader());
        }
        let bytes = encode_entry(entry)?;
        if bytes.len() > self.config.max_entry_bytes {
            return Err(ProposalRefused::TooLarge {
                bytes: bytes.len(),
                limit: self.config.max_entry_bytes,
            });
        }
        match self.raw.propose(Vec::new(), bytes) {
            Ok(()) => {
                let index = self.raw.raft.raft_log.last_index();
                self.pending.push_back(Pending {
                    index,
                    term: self.raw.raft.term,
                    token,
                });
                Ok(())
            }
            // Raft says the same word for "too much uncommitted" and "leadership is on its way elsewhere".
            Err(raft::Error::ProposalDropped) => Err(ProposalRefused::Overloaded {
                limit: self.config.max_uncommitted_bytes,
            }),
            Err(error) => Err(ProposalRefused::Raft(error.to_string())),
        }
    }

    fn not_leader(&self) -> ProposalRefused {
        match self.role() {
            Role::Leader => ProposalRefused::NotLeader {
                leader: Some(self.config.id),
            },
            Role::Follower { leader } => ProposalRefused::NotLeader { leader },
        }
    }

    /// What the shell owes now, if anything. Many inputs may come before: they share one write.
    pub fn effects(&mut self) -> Option<Effects> {
        if !self.raw.has_ready() {
            return None;
        }
        let mut ready = self.raw.ready();
        let snapshot = (!ready.snapshot().is_empty()).then(|| ready.snapshot().clone());
        let entries = ready.take_entries();
        let mut messages = ready.take_messages();
        messages.extend(ready.take_persisted_messages());
        let reads = ready
            .take_read_states()
            .into_iter()
            .filter_map(|read| {
                let token = <[u8; 8]>::try_from(read.request_ctx.as_slice()).ok()?;
                Some((ReadToken::from_le_bytes(token), read.index))
            })
            .collect();
        let effects = Effects {
            hard_state: ready.hs().cloned(),
            must_sync: ready.must_sync(),
            committed: ready.take_committed_entries(),
            number: ready.number(),
            snapshot_wanted: self.raw.store().take_wanted(),
            snapshot,
            entries,
            messages,
            reads,
        };
        let log = self.raw.mut_store();
        if let Some(snapshot) = &effects.snapshot {
            log.restore(snapshot.get_metadata());
        }
        log.append(&effects.entries);
        self.raw.advance_append_async(ready);
        Some(effects)
    }

    /// The effects are durable and their messages are on their way: apply what is agreed.
    pub fn persisted(&mut self, effects: Effects) -> Result<Outcome, Fatal> {
        self.raw.on_persist_ready(effects.number);
        let mut outcome = Outcome {
            reads: effects.reads,
            ..Outcome::default()
        };
        if let Some(snapshot) = effects.snapshot {
            let index = snapshot.get_metadata().index;
            let (metadata, state) =
                read_snapshot(snapshot.get_data()).map_err(|source| Fatal { index, source })?;
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
            self.conf_state = self.raw.store().conf_state().clone();
            self.applied_index = metadata.index;
            self.applied_term = metadata.term;
            outcome.restored = true;
        }
        self.apply(effects.committed, &mut outcome)?;
        let leads = self.role() == Role::Leader;
        if self.led && !leads {
            outcome
                .unknown
                .extend(self.pending.drain(..).map(|pending| pending.token));
        }
        self.led = leads;
        Ok(outcome)
    }

    fn apply(&mut self, committed: Vec<RaftEntry>, outcome: &mut Outcome) -> Result<(), Fatal> {
        let Some(last) = committed.last().map(|entry| entry.index) else {
            return Ok(());
        };
        // Decoded before the lock is taken, which readers share.
        let mut decoded = Vec::with_capacity(committed.len());
        for entry in committed {
            let fatal = |source| Fatal {
                index: entry.index,
                source,
            };
            let command = match entry.get_entry_type() {
                EntryType::EntryNormal if entry.data.is_empty() => None,
                EntryType::EntryNormal => Some(decode_entry(&entry.data).map_err(fatal)?),
                EntryType::EntryConfChange => {
                    let change = ConfChange::parse_from_bytes(&entry.data)
                        .map_err(|error| fatal(CodecError::Metadata(error.to_string())))?;
                    self.change_membership(&change);
                    None
                }
                EntryType::EntryConfChangeV2 => {
                    let change = ConfChangeV2::parse_from_bytes(&entry.data)
                        .map_err(|error| fatal(CodecError::Metadata(error.to_string())))?;
                    self.change_membership(&change);
                    None
                }
            };
            self.applied_term = entry.term;
            decoded.push((entry.index, entry.term, command));
        }
        let state = Arc::clone(&self.state);
        let mut state = state.write().unwrap_or_else(PoisonError::into_inner);
        for (index, term, command) in decoded {
            let mut token = None;
            while self
                .pending
                .front()
                .is_some_and(|pending| pending.index <= index)
            {
                let Some(pending) = self.pending.pop_front() else {
                    break;
                };
                if pending.index == index && pending.term == term {
                    token = Some(pending.token);
                } else {
                    outcome.overruled.push(pending.token);
                }
            }
            if let Some(entry) = command {
                let events = state.apply(index, &entry);
                outcome.applied.push(AppliedEntry {
                    index,
                    token,
                    events,
                });
            }
        }
        drop(state);
        self.applied_index = last;
        self.raw.advance_apply_to(last);
        Ok(())
    }

    fn change_membership(&mut self, change: &impl raft_change::Change) {
        // Raft checked the change when it was proposed; one that it now refuses changes nothing.
        if let Some(conf_state) = change.apply(&mut self.raw) {
            self.conf_state = conf_state;
        }
    }

    /// The applied state. The replica writes it within [`Replica::persisted`] alone.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, to be shared with readers in other threads, who must only read.
    pub fn shared_state(&self) -> Arc<RwLock<State>> {
        Arc::clone(&self.state)
    }

    /// Index up to which the state is applied.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// What a snapshot of the state as it is now would say of itself.
    pub fn snapshot_metadata(&self) -> SnapshotMetadata {
        let mut metadata = SnapshotMetadata::default();
        metadata.set_conf_state(self.conf_state.clone());
        metadata.index = self.applied_index;
        metadata.term = self.applied_term;
        metadata
    }

    /// A snapshot for members whose log has fallen behind, after [`Effects::snapshot_wanted`].
    pub fn offer_snapshot(&mut self, snapshot: Snapshot) {
        self.raw.mut_store().stage(snapshot);
    }

    /// Entries up to `index` are within a durable snapshot: forget them.
    pub fn compact(&mut self, index: u64) {
        self.raw.mut_store().compact(index.min(self.applied_index));
    }

    /// First index still in the log.
    pub fn first_index(&self) -> u64 {
        self.raw.store().first_index().unwrap_or(1)
    }

    /// Who leads.
    pub fn role(&self) -> Role {
        if self.raw.raft.state == StateRole::Leader {
            Role::Leader
        } else {
            Role::Follower {
                leader: (self.raw.raft.leader_id != 0).then_some(self.raw.raft.leader_id),
            }
        }
    }

    /// Current term.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// Whether this member is the only voter, so that it need not wait for anyone to seek election.
    pub fn is_sole_voter(&self) -> bool {
        self.conf_state.voters == [self.config.id] && self.conf_state.voters_outgoing.is_empty()
    }
}

/// Both kinds of membership change, under one name.
mod raft_change {
    use super::{ConfChange, ConfChangeV2, ConfState, MemoryLog, RawNode};

    pub(super) trait Change {
        fn apply(&self, raw: &mut RawNode<MemoryLog>) -> Option<ConfState>;
    }

    impl Change for ConfChange {
        fn apply(&self, raw: &mut RawNode<MemoryLog>) -> Option<ConfState> {
            raw.apply_conf_change(self).ok()
        }
    }

    impl Change for ConfChangeV2 {
        fn apply(&self, raw: &mut RawNode<MemoryLog>) -> Option<ConfState> {
            raw.apply_conf_change(self).ok()
        }
    }
}
