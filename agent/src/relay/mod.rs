//! Carries journals and logs of attempts to the coordinator, behind the lifecycle and never in its way.
//!
//! It lags when it must: a bounded number of attempts is sent at once, an outage only makes it wait, and
//! what it has not sent stays on disk, also past the attempt's end and the agent's. An attempt's folder
//! goes when the coordinator has let go of it and everything in it is stored.

mod journal;

use crate::blobs::hex;
use crate::journal::lost;
use crate::logs;
use crate::runtime::Attempt;
use crate::session::transfer::{Transfer, TransferError};
use crate::supervisor::Event;
use agent_core::Key;
use futures::StreamExt;
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Attempts being sent at once: enough to hide the round trips, few enough to leave the node's cores to
/// the workloads and the coordinator's to its runs.
const AT_ONCE: usize = 8;
/// A journal that is written steadily is sent this often.
const PACE: Duration = Duration::from_millis(100);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Without inotify, and against what it may miss, a live journal is looked at this often.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The coordinator has let go of the attempt; only its journals and log keep the folder.
pub(crate) const RETIRED: &str = "retired";
/// The log is stored.
const LOG_STORED: &str = "log.stored";

/// What the supervisor tells the relay.
#[derive(Debug)]
pub(crate) enum RelayCommand {
    /// It may write from now on.
    Watch(Arc<Attempt>),
    /// It writes no more; with `retired`, it was let go before this agent started.
    Ended {
        /// Which.
        attempt: Arc<Attempt>,
        /// Let go already.
        retired: bool,
    },
    /// The coordinator let go of it.
    Retired(Key),
    /// A session is open: what waits for one need not.
    Reachable,
}

#[derive(Debug)]
struct Entry {
    attempt: Arc<Attempt>,
    ended: bool,
    retired: bool,
    /// Everything of an ended attempt is stored.
    drained: bool,
    /// A pass is under way.
    busy: bool,
    /// Something changed during the pass.
    again: bool,
    due: Option<Instant>,
    failures: u32,
    progress: Option<journal::Progress>,
}

struct Passed {
    key: Key,
    ended: bool,
    progress: journal::Progress,
    outcome: Result<u64, TransferError>,
}

struct Relay {
    transfer: Transfer,
    events: mpsc::UnboundedSender<Event>,
    entries: BTreeMap<Key, Entry>,
    due: BTreeSet<(Instant, Key)>,
    passes: JoinSet<Passed>,
    watches: Option<Watches>,
    watched: HashMap<WatchDescriptor, (Key, PathBuf)>,
}

type Changes = Option<EventStream<Vec<u8>>>;

/// Runs until the supervisor drops its end.
pub(crate) async fn run(
    transfer: Transfer,
    commands: mpsc::UnboundedReceiver<RelayCommand>,
    events: mpsc::UnboundedSender<Event>,
) {
    let (watches, changes): (_, Changes) = match Inotify::init() {
        Ok(inotify) => (
            Some(inotify.watches()),
            inotify.into_event_stream(vec![0; 64 << 10]).ok(),
        ),
        Err(error) => {
            tracing::warn!(%error, "no inotify: journals are looked at every {LOOK_AGAIN:?}");
            (None, None)
        }
    };
    serve(Relay::new(transfer, events, watches), commands, changes).await;
}

async fn serve(
    mut relay: Relay,
    mut commands: mpsc::UnboundedReceiver<RelayCommand>,
    mut changes: Changes,
) {
    let mut batch = Vec::new();
    loop {
        relay.begin_passes();
        let next = match relay.due.first() {
            Some((at, _)) if relay.passes.len() < AT_ONCE => Some(*at),
            _ => None,
        };
        let timer = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let change = async {
            match &mut changes {
                Some(changes) => changes.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            count = commands.recv_many(&mut batch, 1024) => {
                if count == 0 {
                    return;
                }
                let mut gone = Vec::new();
                for command in batch.drain(..) {
                    relay.take(command, &mut gone);
                }
                remove(gone);
            }
            Some(passed) = relay.passes.join_next() => match passed {
                Ok(passed) => {
                    let mut gone = Vec::new();
                    relay.passed(passed, &mut gone);
                    remove(gone);
                }
                // A pass that is not counted as ended would hold its attempt back for ever.
                Err(error) => if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            },
            change = change => match change {
                Some(Ok(event)) => relay.changed(&event.wd, event.mask, event.name.as_deref()),
                Some(Err(error)) => tracing::warn!(%error, "inotify"),
                None => changes = None,
            },
            () = timer => {}
        }
        metrics::gauge!("agent_relay_lag_attempts").set(relay.due.len() as f64);
    }
}

/// Removes whole folders on a thread of their own.
fn remove(folders: Vec<PathBuf>) {
    if folders.is_empty() {
        return;
    }
    tokio::task::spawn_blocking(move || {
        for folder in folders {
            if let Err(error) = crate::attempts::remove(&folder) {
                // The next start of the agent finds the mark and tries again.
                let _ = fs::write(folder.join(RETIRED), b"");
                tracing::warn!(folder = %folder.display(), %error, "cannot remove an attempt");
            }
        }
    });
}

impl Relay {
    fn new(
        transfer: Transfer,
        events: mpsc::UnboundedSender<Event>,
        watches: Option<Watches>,
    ) -> Self {
        Self {
            transfer,
            events,
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
            passes: JoinSet::new(),
            watches,
            watched: HashMap::new(),
        }
    }

    fn take(&mut self, command: RelayCommand, gone: &mut Vec<PathBuf>) {
        match command {
            RelayCommand::Watch(attempt) => {
                let key = attempt.key();
                let spool = attempt.spool();
                self.entries
                    .entry(key)
                    .or_insert_with(|| Entry::new(attempt));
                self.watch(key, &spool);
                self.schedule(key, LOOK_AGAIN);
            }
            RelayCommand::Ended { attempt, retired } => {
                let key = attempt.key();
                let entry = self
                    .entries
                    .entry(key)
                    .or_insert_with(|| Entry::new(attempt));
                entry.ended = true;
                entry.retired |= retired;
                let nothing_to_send = journal::is_empty(&entry.attempt)
                    && fs::metadata(entry.attempt.log()).map_or(true, |about| about.len() == 0);
                // Most short runs: nothing to send, nothing unpacked, nothing to wait for.
                if nothing_to_send && !entry.busy && no_work(&entry.attempt) {
                    self.drained(key);
                    self.finish(key, gone);
                } else {
                    self.schedule(key, Duration::ZERO);
                }
            }
            RelayCommand::Retired(key) => {
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.retired = true;
                    if !entry.drained {
                        let _ = fs::write(entry.attempt.folder.join(RETIRED), b"");
                    }
                    self.finish(key, gone);
                }
            }
            RelayCommand::Reachable => {
                let waiting: Vec<Key> = self
                    .entries
                    .iter()
                    .filter(|(_, entry)| entry.failures > 0)
                    .map(|(key, _)| *key)
                    .collect();
                for key in waiting {
                    self.schedule(key, Duration::ZERO);
                }
            }
        }
    }

    /// Plans a pass, or an earlier one.
    fn schedule(&mut self, key: Key, after: Duration) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if entry.drained {
            return;
        }
        if entry.busy {
            entry.again = true;
            return;
        }
        let at = Instant::now() + after;
        if let Some(old) = entry.due {
            if old <= at {
                return;
            }
            self.due.remove(&(old, key));
        }
        entry.due = Some(at);
        self.due.insert((at, key));
    }

    fn begin_passes(&mut self) {
        let now = Instant::now();
        while self.passes.len() < AT_ONCE
            && let Some((at, key)) = self.due.first().copied()
            && at <= now
        {
            self.due.pop_first();
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            entry.due = None;
            entry.busy = true;
            entry.again = false;
            let attempt = Arc::clone(&entry.attempt);
            let progress = entry.progress.take().unwrap_or_default();
            let transfer = self.transfer.clone();
            let ended = entry.ended;
            self.passes
                .spawn(async move { pass(attempt, progress, ended, transfer).await });
        }
    }

    fn passed(&mut self, passed: Passed, gone: &mut Vec<PathBuf>) {
        let key = passed.key;
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.busy = false;
        let mut progress = passed.progress;
        if let Some(at_us) = progress.take_checkpoint() {
            let _ = self.events.send(Event::Checkpointed { key, at_us });
        }
        entry.progress = Some(progress);
        let mut all_stored = false;
        let pause = match passed.outcome {
            Ok(sent) => {
                metrics::counter!("agent_relay_records_total").increment(sent);
                entry.failures = 0;
                all_stored = passed.ended;
                if entry.again { PACE } else { LOOK_AGAIN }
            }
            Err(TransferError::Stale(why)) => {
                // Fenced: nothing of it may be written any more, by design.
                tracing::warn!(run = %key, %why, "what was left of the journal is refused");
                metrics::counter!("agent_relay_refused_total").increment(1);
                all_stored = entry.ended;
                LONGEST_PAUSE
            }
            Err(error) => {
                if entry.failures == 0 {
                    tracing::warn!(run = %key, %error, "journal and log wait on this node's disk");
                }
                entry.failures = entry.failures.saturating_add(1);
                (FIRST_PAUSE * 2_u32.pow(entry.failures.min(8))).min(LONGEST_PAUSE)
            }
        };
        let ended_since = entry.ended && !passed.ended;
        if all_stored {
            self.drained(key);
        } else if ended_since {
            self.schedule(key, Duration::ZERO);
        } else {
            self.schedule(key, pause);
        }
        self.finish(key, gone);
    }

    fn drained(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key)
            && !std::mem::replace(&mut entry.drained, true)
        {
            let _ = self.events.send(Event::Drained(key));
        }
    }

    /// Lets go of what is both stored and retired.
    fn finish(&mut self, key: Key, gone: &mut Vec<PathBuf>) {
        let done = self
            .entries
            .get(&key)
            .is_some_and(|entry| entry.drained && entry.retired && !entry.busy);
        if done && let Some(entry) = self.entries.remove(&key) {
            if let Some(due) = entry.due {
                self.due.remove(&(due, key));
            }
            gone.push(entry.attempt.folder.clone());
        }
    }

    /// Watches a spool: the runs in it, and the writers in those.
    fn watch(&mut self, key: Key, folder: &Path) {
        let Some(watches) = &mut self.watches else {
            return;
        };
        let mask = WatchMask::CREATE | WatchMask::MODIFY | WatchMask::ONLYDIR;
        let Ok(descriptor) = watches.add(folder, mask) else {
            return;
        };
        self.watched.insert(descriptor, (key, folder.to_owned()));
        // What was made before the watch was there.
        if let Ok(entries) = fs::read_dir(folder) {
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    self.watch(key, &entry.path());
                }
            }
        }
    }

    fn changed(
        &mut self,
        descriptor: &WatchDescriptor,
        mask: EventMask,
        name: Option<&std::ffi::OsStr>,
    ) {
        if mask.contains(EventMask::IGNORED) {
            self.watched.remove(descriptor);
            return;
        }
        let Some((key, folder)) = self.watched.get(descriptor).cloned() else {
            return;
        };
        // Our own writes (watermark, results) would wake us for ever.
        let ours = name.is_some_and(|name| {
            let name = name.to_string_lossy();
            name.starts_with("watermark") || name.starts_with("results")
        });
        if ours {
            return;
        }
        if mask.contains(EventMask::ISDIR | EventMask::CREATE)
            && let Some(name) = name
        {
            self.watch(key, &folder.join(name));
        }
        self.schedule(key, PACE);
    }
}

impl Entry {
    fn new(attempt: Arc<Attempt>) -> Self {
        Self {
            attempt,
            ended: false,
            retired: false,
            drained: false,
            busy: false,
            again: false,
            due: None,
            failures: 0,
            progress: None,
        }
    }
}

/// Removes an empty work folder; false when there is more to remove.
fn no_work(attempt: &Attempt) -> bool {
    match fs::remove_dir(attempt.work()) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

async fn pass(
    attempt: Arc<Attempt>,
    mut progress: journal::Progress,
    ended: bool,
    transfer: Transfer,
) -> Passed {
    let outcome = async {
        let sent = progress.drain(&attempt, ended, &transfer).await?;
        if ended {
            store_log(&attempt, &transfer).await?;
            let work = attempt.work();
            // A run's files are the user's own to keep, as artifacts; the folder is not kept past its end.
            let _ = tokio::task::spawn_blocking(move || crate::attempts::remove(&work)).await;
        }
        Ok(sent)
    }
    .await;
    Passed {
        key: attempt.key(),
        ended,
        progress,
        outcome,
    }
}

/// Stores the log as an artifact of the run. Doing it twice gives the same record.
async fn store_log(attempt: &Arc<Attempt>, transfer: &Transfer) -> Result<(), TransferError> {
    let log = attempt.log();
    if fs::metadata(&log).map_or(true, |about| about.len() == 0)
        || attempt.folder.join(LOG_STORED).exists()
    {
        return Ok(());
    }
    let folder = attempt.folder.clone();
    let hashed = tokio::task::spawn_blocking(move || hash_log(&folder)).await;
    let (path, sha256, size_bytes) = match hashed {
        Ok(hashed) => hashed?,
        Err(error) => return Err(TransferError::Disk(io::Error::other(error))),
    };
    let key = attempt.key();
    let record = match transfer.put(sha256.clone(), &path).await {
        // A process that the workload left behind still writes to it: it is hashed anew.
        Err(TransferError::Changed(why)) => {
            return Err(TransferError::Unavailable(format!(
                "the log changed while it was stored: {why}"
            )));
        }
        Err(TransferError::Refused(why)) => {
            journal::tell(attempt, 1, &format!("this log cannot be stored: {why}"));
            lost(1, 1, &format!("the log was refused: {why}"))
        }
        stored => {
            stored?;
            serde_json::json!({
                "s": 1,
                "k": "artifact",
                "path": format!("logs/attempt-{}-member-{}.log", key.attempt, key.member),
                "sha256": sha256,
                "size_bytes": size_bytes,
            })
            .to_string()
        }
    };
    let line = format!("{record}\n").into_bytes();
    transfer
        .append(
            key,
            attempt.assignment.epoch,
            journal::tracked_run(attempt),
            journal::agent_writer(key),
            line,
        )
        .await?;
    fs::write(attempt.folder.join(LOG_STORED), b"")?;
    Ok(())
}

/// The log as it is stored: itself, or with its cut shown, in a file beside it.
fn hash_log(folder: &Path) -> io::Result<(PathBuf, String, u64)> {
    let log = File::open(folder.join("log"))?;
    let mut kept = match logs::cut(folder) {
        Some(_) => Some(File::create(folder.join("log.kept"))?),
        None => None,
    };
    let mut hasher = Sha256::new();
    let mut size = 0;
    let mut offset = 0;
    loop {
        let (content, next) = logs::read_at(folder, &log, offset)?;
        if content.is_empty() {
            break;
        }
        if let Some(kept) = &mut kept {
            kept.write_all(&content)?;
        }
        hasher.update(&content);
        size += content.len() as u64;
        offset = next;
    }
    let name = if kept.is_some() { "log.kept" } else { "log" };
    Ok((folder.join(name), hex(&hasher.finalize()), size))
}

/// The relay's loop with a pass that panics, for the test of what becomes of the process.
#[cfg(test)]
pub(crate) async fn panics_in_a_pass() {
    let folder = std::env::temp_dir();
    let config = crate::AgentConfig::new("http://127.0.0.1:1", "t", "n", folder).unwrap();
    let (events, _heard) = mpsc::unbounded_channel();
    let (_commands, waiting) = mpsc::unbounded_channel();
    let mut relay = Relay::new(Transfer::new(&config).unwrap(), events, None);
    relay.passes.spawn(async { panic!("a defect") });
    serve(relay, waiting, None).await;
}
