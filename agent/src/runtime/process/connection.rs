//! The agent's end of the launcher's socket: starts the launcher when absent, reconnects, reconciles.
//!
//! After every connect the launcher's table and the attempt folders say what became of each member we
//! believe alive; the same path serves a broken connection, a dead launcher and a fresh agent.

use super::control_group::ControlGroups;
use super::{ProcessSettings, leftovers};
use crate::launcher::{
    Answer, Event, ExitRecord, Request, Running, STARTED, StartRequest, decode, encode, read_exit,
    replace, short_path,
};
use crate::runtime::{Attempt, RuntimeEvent, RuntimeEvents, lost};
use agent_core::{Exit, Key, Observation, Signal, WarningSignal};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

/// Commands taken at once; their starts travel as one message.
const BATCH: usize = 512;
/// A launcher execs and binds in a few milliseconds; past this it never will.
const LAUNCHER_START: Duration = Duration::from_secs(10);
const CONNECT_PAUSE: Duration = Duration::from_millis(2);
const RETRY_PAUSE: Duration = Duration::from_millis(500);

pub(super) enum Command {
    Start(Arc<Attempt>, Box<StartRequest>),
    Signal(Key, Signal),
    Adopt(Vec<Arc<Attempt>>, oneshot::Sender<Vec<(Key, Observation)>>),
}

/// A member that was handed to the launcher and has not ended.
struct Member {
    attempt: Arc<Attempt>,
    /// Kept until the launcher has answered, to ask a new launcher again.
    request: Option<Box<StartRequest>>,
    running: bool,
}

pub(super) struct Connection {
    settings: ProcessSettings,
    events: RuntimeEvents,
    control_groups: ControlGroups,
    members: HashMap<Key, Member>,
    live: Arc<Mutex<BTreeMap<Key, u32>>>,
}

/// Why the inner loop ended.
enum Broken {
    /// The runtime was dropped.
    Finished,
    /// The launcher is gone or unreachable.
    Launcher(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Broken::Launcher(error)
    }
}

impl Connection {
    pub(super) fn new(
        settings: ProcessSettings,
        events: RuntimeEvents,
        control_groups: ControlGroups,
        live: Arc<Mutex<BTreeMap<Key, u32>>>,
    ) -> Self {
        Self {
            settings,
            events,
            control_groups,
            members: HashMap::new(),
            live,
        }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut waiting = Vec::new();
        loop {
            // Nothing to watch and nothing to do: a launcher is not worth its memory.
            if self.members.is_empty()
                && waiting.is_empty()
                && commands.recv_many(&mut waiting, BATCH).await == 0
            {
                return;
            }
            match self.serve(&mut commands, &mut waiting).await {
                Err(Broken::Finished) => return,
                Err(Broken::Launcher(error)) => {
                    tracing::warn!(%error, "the launcher's connection broke");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Ok(()) => {}
            }
        }
    }

    async fn serve(
        &mut self,
        commands: &mut mpsc::UnboundedReceiver<Command>,
        waiting: &mut Vec<Command>,
    ) -> Result<(), Broken> {
        let stream = match self.connect().await {
            Ok(stream) => stream,
            Err(error) => {
                self.give_up_starts(waiting, &error);
                return Err(error.into());
            }
        };
        let (mut reader, mut writer) = stream.into_split();
        let mut input = Vec::with_capacity(64 << 10);
        let table = loop {
            if let Some(answer) = decode::<Answer>(&mut input)? {
                match answer {
                    Answer::Table(table) => break table,
                    Answer::Events(_) => continue,
                }
            }
            read_more(&mut reader, &mut input).await?;
        };
        let mut output = Vec::new();
        self.reconcile(&table, &mut output)?;
        loop {
            self.take(waiting, &table, &mut output)?;
            if !output.is_empty() {
                writer.write_all(&output).await?;
                output.clear();
            }
            tokio::select! {
                count = commands.recv_many(waiting, BATCH) => {
                    if count == 0 {
                        return Err(Broken::Finished);
                    }
                }
                read = read_more(&mut reader, &mut input) => {
                    read?;
                    while let Some(answer) = decode::<Answer>(&mut input)? {
                        if let Answer::Events(events) = answer {
                            for event in events {
                                self.happened(event);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Turns commands into frames; all starts of a batch into one.
    fn take(
        &mut self,
        waiting: &mut Vec<Command>,
        table: &[Running],
        output: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut starts = Vec::new();
        for command in waiting.drain(..) {
            match command {
                Command::Start(attempt, request) => {
                    starts.push((*request).clone());
                    self.members.insert(
                        attempt.key(),
                        Member {
                            attempt,
                            request: Some(request),
                            running: false,
                        },
                    );
                }
                Command::Signal(key, signal) => {
                    let signal = match signal {
                        Signal::Terminate => rustix::process::Signal::TERM,
                        Signal::Kill => rustix::process::Signal::KILL,
                        Signal::Warn(WarningSignal::User1) => rustix::process::Signal::USR1,
                        Signal::Warn(WarningSignal::User2) => rustix::process::Signal::USR2,
                        Signal::Warn(WarningSignal::Hangup) => rustix::process::Signal::HUP,
                        Signal::Warn(WarningSignal::Interrupt) => rustix::process::Signal::INT,
                    };
                    let request = Request::Signal {
                        name: key.to_string(),
                        signal: signal.as_raw(),
                    };
                    encode(&request, output)?;
                }
                Command::Adopt(attempts, answer) => {
                    let found = self.adopt(attempts, table);
                    let _ = answer.send(found);
                }
            }
        }
        encode_starts(&starts, output)?;
        Ok(())
    }

    async fn connect(&self) -> io::Result<UnixStream> {
        let socket = self.settings.folder.join("launcher.sock");
        let (_folder, short) = short_path(&socket)?;
        if let Ok(stream) = UnixStream::connect(&short).await {
            return Ok(stream);
        }
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.settings.folder.join("launcher.log"))?;
        let mut launcher = tokio::process::Command::new(&self.settings.launcher)
            .args(&self.settings.launcher_arguments)
            .arg("--socket")
            .arg(&socket)
            .current_dir(&self.settings.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        let until = tokio::time::Instant::now() + LAUNCHER_START;
        loop {
            match UnixStream::connect(&short).await {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    // One that found another launcher in place leaves with success.
                    if let Some(status) = launcher.try_wait()?
                        && !status.success()
                    {
                        return Err(io::Error::other(format!(
                            "the launcher {} ended with {status}; see {}",
                            self.settings.launcher.display(),
                            self.settings.folder.join("launcher.log").display()
                        )));
                    }
                    if tokio::time::Instant::now() > until {
                        return Err(error);
                    }
                    tokio::time::sleep(CONNECT_PAUSE).await;
                }
            }
        }
    }

    /// No launcher: what has surely not started fails as the node's fault, so that the coordinator can
    /// place it elsewhere. Commands about live members wait.
    fn give_up_starts(&mut self, waiting: &mut Vec<Command>, error: &io::Error) {
        let message = format!("no launcher: {error}");
        let mut kept = Vec::new();
        for command in waiting.drain(..) {
            match command {
                Command::Start(attempt, _) => self.tell(
                    attempt.key(),
                    Observation::LaunchFailed {
                        message: message.clone(),
                        node_fault: true,
                    },
                ),
                other => kept.push(other),
            }
        }
        *waiting = kept;
    }

    /// What we believe alive, against the launcher's table and the disk.
    fn reconcile(&mut self, table: &[Running], output: &mut Vec<u8>) -> io::Result<()> {
        let names: HashMap<&str, &Running> = table
            .iter()
            .map(|running| (running.name.as_str(), running))
            .collect();
        let mut again = Vec::new();
        for key in self.members.keys().copied().collect::<Vec<_>>() {
            let Some(member) = self.members.get(&key) else {
                continue;
            };
            let found = names.get(key.to_string().as_str()).copied();
            match found_on_disk(&member.attempt, found) {
                Some(Event::Started(running)) => self.happened(Event::Started(running)),
                Some(event) => self.happened(event),
                None => {
                    // Never started: the request was lost with the connection.
                    if let Some(request) = &member.request {
                        again.push((**request).clone());
                    }
                }
            }
        }
        encode_starts(&again, output)?;
        Ok(())
    }

    fn adopt(&mut self, attempts: Vec<Arc<Attempt>>, table: &[Running]) -> Vec<(Key, Observation)> {
        let names: HashMap<&str, &Running> = table
            .iter()
            .map(|running| (running.name.as_str(), running))
            .collect();
        let mut found = Vec::new();
        for attempt in attempts {
            let key = attempt.key();
            let running = names.get(key.to_string().as_str()).copied();
            // The table is from when we connected. What it names may have ended since: then the record
            // is on disk, and its event has come or comes for a member not yet in our list.
            let on_disk = match running {
                Some(_) if read_exit(&attempt.folder).is_some() => found_on_disk(&attempt, None),
                running => found_on_disk(&attempt, running),
            };
            let Some(event) = on_disk else {
                continue;
            };
            if let Event::Started(running) = &event {
                self.lock_live().insert(key, running.process);
                self.members.insert(
                    key,
                    Member {
                        attempt: Arc::clone(&attempt),
                        request: None,
                        running: true,
                    },
                );
            }
            found.push((key, self.observation(&attempt, event)));
        }
        found
    }

    fn lock_live(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, u32>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn happened(&mut self, event: Event) {
        let name = match &event {
            Event::Started(running) => &running.name,
            Event::Failed { name, .. } | Event::Ended { name, .. } => name,
        };
        let Ok(key) = name.parse::<Key>() else {
            return;
        };
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        let attempt = Arc::clone(&member.attempt);
        if let Event::Started(running) = &event {
            member.request = None;
            if std::mem::replace(&mut member.running, true) {
                return;
            }
            let process = running.process;
            self.lock_live().insert(key, process);
        } else {
            self.members.remove(&key);
            self.lock_live().remove(&key);
        }
        let observation = self.observation(&attempt, event);
        self.tell(key, observation);
    }

    fn observation(&self, attempt: &Attempt, event: Event) -> Observation {
        match event {
            Event::Started(running) => Observation::Running {
                started_boottime_us: running.started_boottime_us,
                at_us: running.at_us,
            },
            Event::Failed {
                message,
                node_fault,
                ..
            } => Observation::LaunchFailed {
                message,
                node_fault,
            },
            Event::Ended { exit: record, .. } => {
                let at_us = record.at_us;
                let exit = match record {
                    ExitRecord {
                        lost: Some(message),
                        ..
                    } => lost(message),
                    ExitRecord {
                        signal: Some(_), ..
                    } if self.control_groups.out_of_memory(&attempt.assignment) => {
                        Exit::OutOfMemory {
                            message: format!(
                                "killed by the kernel: it used more than its limit of {} MiB of memory; ask for more with --memory",
                                attempt.assignment.memory_mib
                            ),
                        }
                    }
                    ExitRecord {
                        signal: Some(signal),
                        ..
                    } => Exit::Signaled { signal },
                    ExitRecord { code, .. } => Exit::Exited {
                        code: code.unwrap_or(-1),
                    },
                };
                Observation::Ended { exit, at_us }
            }
        }
    }

    fn tell(&self, key: Key, observation: Observation) {
        let _ = self.events.send(RuntimeEvent { key, observation });
    }
}

/// Frames of so many starts that the largest workload the coordinator admits, of 256 KiB, still fits
/// into the limit of one.
fn encode_starts(starts: &[StartRequest], output: &mut Vec<u8>) -> io::Result<()> {
    for some in starts.chunks(64) {
        encode(&Request::Start(some.to_vec()), output)?;
    }
    Ok(())
}

/// What the folder and the table say of an attempt; nothing when it never started.
fn found_on_disk(attempt: &Attempt, running: Option<&Running>) -> Option<Event> {
    let name = attempt.key().to_string();
    if let Some(running) = running {
        return Some(Event::Started(running.clone()));
    }
    match read_exit(&attempt.folder) {
        Some(ExitRecord {
            failed: Some(message),
            node_fault,
            ..
        }) => Some(Event::Failed {
            name,
            message,
            node_fault,
        }),
        Some(exit) => Some(Event::Ended { name, exit }),
        None if attempt.folder.join(STARTED).exists() => {
            let killed = leftovers::kill(&attempt.spool());
            let exit = ExitRecord {
                code: None,
                signal: None,
                failed: None,
                node_fault: false,
                lost: Some(format!(
                    "the launcher that watched it died; {killed} processes of it were killed"
                )),
                at_us: crate::clock::now().wall_us,
            };
            // So that a later agent tells the same story.
            if let Ok(content) = serde_json::to_vec(&exit) {
                let _ = replace(&attempt.folder, crate::launcher::EXIT, &content);
            }
            Some(Event::Ended { name, exit })
        }
        None => None,
    }
}

async fn read_more(
    reader: &mut tokio::net::unix::OwnedReadHalf,
    input: &mut Vec<u8>,
) -> io::Result<()> {
    match reader.read_buf(input).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
