//! The docker runtime, through bollard: containers where the spec names an image.
//!
//! A container is named after its member and this agent's folder, so that a start asked for twice finds
//! the first one's container, and two agents at one engine never meet. The engine restarts nothing by
//! itself: the coordinator alone decides on another attempt.

mod engine;
mod failures;
mod log;
mod record;
mod spec;
#[cfg(test)]
mod tests;

use super::{Attempt, LaunchFailure, NodeContext, Progress, Runtime, RuntimeEvent, lost};
use crate::clock;
use agent_core::{Assignment, Exit, Key, Observation, Signal};
use engine::{Engine, Found, Life};
use futures::future::BoxFuture;
use record::Record;
use spec::Place;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

/// Between two questions to an engine that does not answer: it may be restarting.
const RETRY: Duration = Duration::from_secs(1);
/// How often a signal or a removal is tried while the engine does not answer.
const TRIES: u32 = 30;
/// How often the end of a log is read again after the container has ended and reading failed.
const LOG_TRIES: u32 = 5;

/// Runs workloads in containers of the local Docker engine.
#[derive(Debug)]
pub struct DockerRuntime {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    context: Arc<NodeContext>,
    engine: Engine,
    place: Place,
    known: Mutex<BTreeMap<Key, Known>>,
    handle: Handle,
}

/// What is known of a member whose start was asked for.
#[derive(Debug, Clone)]
enum Known {
    /// The engine is being asked; a signal that comes meanwhile is sent once it lives.
    Starting { pending: Option<Signal> },
    /// It lives.
    Running { process: u32, seen: Observation },
    /// It has ended, and this was said.
    Ended { seen: Observation },
}

impl DockerRuntime {
    /// Finds the local engine. Must be called within tokio; fails where no engine answers.
    pub async fn connect(
        context: Arc<NodeContext>,
        agent_folder: &Path,
    ) -> Result<Arc<Self>, LaunchFailure> {
        let engine = Engine::connect().await?;
        let place = Place::new(agent_folder, &context.node);
        Ok(Arc::new(Self {
            shared: Arc::new(Shared {
                context,
                engine,
                place,
                known: Mutex::default(),
                handle: Handle::current(),
            }),
        }))
    }
}

impl Runtime for DockerRuntime {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn adopt(
        &self,
        attempts: Vec<Arc<Attempt>>,
    ) -> BoxFuture<'_, Result<Vec<(Key, Observation)>, LaunchFailure>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.adopt(attempts).await })
    }

    fn prepare(
        self: Arc<Self>,
        attempt: Arc<Attempt>,
        progress: Progress,
    ) -> BoxFuture<'static, Result<(), LaunchFailure>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.prepare(&attempt, &progress).await })
    }

    fn start(&self, attempt: Arc<Attempt>) {
        let shared = Arc::clone(&self.shared);
        let key = attempt.key();
        {
            let mut known = shared.known();
            match known.get(&key) {
                Some(Known::Starting { .. }) => return,
                Some(Known::Running { seen, .. } | Known::Ended { seen }) => {
                    shared.tell(key, seen.clone());
                    return;
                }
                None => known.insert(key, Known::Starting { pending: None }),
            };
        }
        self.shared
            .handle
            .spawn(async move { shared.launch(attempt).await });
    }

    fn signal(&self, key: Key, signal: Signal) {
        match self.shared.known().get_mut(&key) {
            Some(Known::Starting { pending }) => *pending = Some(signal),
            Some(Known::Running { .. }) => Arc::clone(&self.shared).send(key, signal),
            Some(Known::Ended { .. }) | None => {}
        }
    }

    fn forget(&self, key: Key) {
        self.shared.known().remove(&key);
        let shared = Arc::clone(&self.shared);
        self.shared.handle.spawn(async move {
            let name = shared.place.name(key);
            for _ in 0..TRIES {
                match shared.engine.remove(&name).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::warn!(member = %key, %error, "cannot remove the container yet");
                    }
                }
                tokio::time::sleep(RETRY).await;
            }
            // The next start of this agent finds it by its labels and removes it as an orphan.
        });
    }

    fn enforcement(&self, assignment: &Assignment) -> String {
        spec::enforcement(assignment, &self.shared.engine.ability)
    }

    fn processes(&self) -> Vec<(Key, u32)> {
        self.shared
            .known()
            .iter()
            .filter_map(|(key, known)| match known {
                // 0: it had ended when it was looked at, and its end is about to be told.
                Known::Running { process, .. } if *process > 0 => Some((*key, *process)),
                Known::Starting { .. } | Known::Running { .. } | Known::Ended { .. } => None,
            })
            .collect()
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, BTreeMap<Key, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, key: Key, observation: Observation) {
        // The supervisor is gone only when the agent ends; nobody is left to tell.
        let _ = self.context.events.send(RuntimeEvent { key, observation });
    }

    async fn prepare(&self, attempt: &Attempt, progress: &Progress) -> Result<(), LaunchFailure> {
        let workload = &attempt.assignment.workload;
        progress.report("unpacking the package");
        self.context.unpack(attempt).await?;
        spec::working_folder(attempt)?;
        if !workload.requirements_path.is_empty() {
            note(
                attempt,
                &format!(
                    "platform: {} is not installed in a container; image {} brings its own packages",
                    workload.requirements_path, workload.image
                ),
            )?;
        }
        progress.report(format!("looking for image {}", workload.image));
        if self.engine.has_image(&workload.image).await? {
            return Ok(());
        }
        self.engine
            .pull(&workload.image, |detail| progress.report(detail))
            .await
    }

    async fn launch(self: Arc<Self>, attempt: Arc<Attempt>) {
        let key = attempt.key();
        match self.create_and_start(&attempt).await {
            Ok(started) => self.observe(attempt, started),
            Err(failure) => {
                tracing::info!(member = %key, %failure, "the container did not start");
                // Nothing of it may live on: what failed to start must stay unstarted.
                if let Err(error) = self.engine.remove(&self.place.name(key)).await {
                    tracing::warn!(member = %key, %error, "cannot remove a container that did not start");
                }
                let seen = Observation::LaunchFailed {
                    message: failure.message,
                    node_fault: failure.node_fault,
                };
                self.known()
                    .insert(key, Known::Ended { seen: seen.clone() });
                self.tell(key, seen);
            }
        }
    }

    /// Creates and starts, or finds what an earlier start of the same member has left.
    async fn create_and_start(&self, attempt: &Attempt) -> Result<Started, LaunchFailure> {
        let name = self.place.name(attempt.key());
        let earlier = Record::read(&attempt.folder)?;
        let found = match self.engine.find(&name).await? {
            Some(found) => found,
            None if earlier.is_some() => return Ok(Started::vanished(&name)),
            None => {
                let log_base = length(&attempt.log());
                let body = spec::container(
                    attempt,
                    &self.context,
                    &self.place,
                    &self.engine.ability,
                    log_base,
                )?;
                self.engine.create(&name, body).await?
            }
        };
        if found.life != Life::Created {
            return Ok(Started::found(found, earlier));
        }
        // Written before the start: a record without a life means "it may have started", never the
        // other way round. The start time is early by the engine's few milliseconds.
        let record = Record::now(&found.id);
        record.write(&attempt.folder)?;
        let answer = self.engine.start(&found.id).await;
        // An answer may be lost while the start was not, so the container itself is asked.
        match (self.engine.find_patiently(&found.id).await, answer) {
            (Some(found), _) if found.life != Life::Created => {
                Ok(Started::found(found, Some(record)))
            }
            (_, Err(failure)) => {
                Record::remove(&attempt.folder);
                Err(failure)
            }
            (Some(_), Ok(())) => Err(LaunchFailure::node(format!(
                "the engine said that container {name} started, and it did not"
            ))),
            (None, Ok(())) => Ok(Started::vanished(&name)),
        }
    }

    /// Takes charge of a container that has been started: tells it, follows its log, awaits its end.
    fn observe(self: &Arc<Self>, attempt: Arc<Attempt>, started: Started) {
        let key = attempt.key();
        match started {
            Started::Vanished { message } => self.end(key, lost(message)),
            Started::Container { found, record } => {
                let seen = record.running();
                let pending = {
                    let mut known = self.known();
                    let before = known.insert(
                        key,
                        Known::Running {
                            process: found.process,
                            seen: seen.clone(),
                        },
                    );
                    match before {
                        Some(Known::Starting { pending }) => pending,
                        _ => None,
                    }
                };
                self.tell(key, seen);
                if let Some(signal) = pending {
                    Arc::clone(self).send(key, signal);
                }
                let shared = Arc::clone(self);
                self.handle.spawn(async move {
                    let exit = shared.watch(&attempt, &found).await;
                    shared.end(key, exit);
                });
            }
        }
    }

    fn end(&self, key: Key, exit: Exit) {
        let seen = Observation::Ended {
            exit,
            at_us: clock::now().wall_us,
        };
        let mut known = self.known();
        // Forgotten meanwhile: nobody asks any more.
        if let Some(entry) = known.get_mut(&key) {
            *entry = Known::Ended { seen: seen.clone() };
            drop(known);
            self.tell(key, seen);
        }
    }

    /// Follows the log to the container's end and says how it ended. The log is whole before the end
    /// is told, so that whoever reads it then reads all of it.
    async fn watch(&self, attempt: &Attempt, container: &Found) -> Exit {
        let file = attempt.log();
        loop {
            let followed = log::copy(&self.engine, container, &file, true).await;
            if let Err(error) = &followed {
                tracing::warn!(member = %attempt.key(), %error, "following a container's log broke off");
            } else {
                self.engine.wait(&container.id).await;
            }
            match self.engine.find(&container.id).await {
                Ok(Some(found)) if found.life == Life::Running => {}
                Ok(Some(found)) => {
                    self.drain(attempt, container).await;
                    return found.exit(attempt.assignment.memory_mib);
                }
                Ok(None) => {
                    return Exit::Lost {
                        message: format!(
                            "container {} was removed by someone else",
                            self.place.name(attempt.key())
                        ),
                    };
                }
                Err(error) => tracing::warn!(member = %attempt.key(), %error, "the engine is away"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Reads what following may have missed: copying goes on from the bytes already there.
    async fn drain(&self, attempt: &Attempt, container: &Found) {
        for _ in 0..LOG_TRIES {
            match log::copy(&self.engine, container, &attempt.log(), false).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(member = %attempt.key(), %error, "reading a container's last lines failed");
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn send(self: Arc<Self>, key: Key, signal: Signal) {
        let handle = self.handle.clone();
        handle.spawn(async move {
            let name = self.place.name(key);
            for _ in 0..TRIES {
                match self.engine.kill(&name, signal).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::warn!(member = %key, %error, "cannot signal the container yet");
                    }
                }
                tokio::time::sleep(RETRY).await;
            }
        });
    }

    async fn adopt(
        self: &Arc<Self>,
        attempts: Vec<Arc<Attempt>>,
    ) -> Result<Vec<(Key, Observation)>, LaunchFailure> {
        let wanted: BTreeMap<String, Key> = attempts
            .iter()
            .map(|attempt| (self.place.name(attempt.key()), attempt.key()))
            .collect();
        for name in self.engine.names(&self.place).await? {
            if !wanted.contains_key(&name) {
                tracing::info!(
                    container = name,
                    "removing a container that belongs to no run"
                );
                self.engine.remove(&name).await?;
            }
        }
        let mut observations = Vec::new();
        for attempt in attempts {
            let key = attempt.key();
            let name = self.place.name(key);
            let record = Record::read(&attempt.folder)?;
            let observation = match (self.engine.find(&name).await?, record) {
                // Created at most: `start` will find it. A record may say that a start was near.
                (Some(found), _) if found.life == Life::Created => continue,
                (None, None) => continue,
                (None, Some(_)) => Observation::Ended {
                    exit: lost(format!(
                        "container {name} was gone when the agent came back; someone removed it"
                    )),
                    at_us: clock::now().wall_us,
                },
                (Some(found), record) if found.life == Life::Running => {
                    let record = record.unwrap_or_else(|| Record::now(&found.id));
                    let running = record.running();
                    self.known().insert(
                        key,
                        Known::Running {
                            process: found.process,
                            seen: running.clone(),
                        },
                    );
                    let shared = Arc::clone(self);
                    self.handle.spawn(async move {
                        let exit = shared.watch(&attempt, &found).await;
                        shared.end(key, exit);
                    });
                    running
                }
                (Some(found), _) => {
                    self.drain(&attempt, &found).await;
                    let seen = Observation::Ended {
                        exit: found.exit(attempt.assignment.memory_mib),
                        at_us: clock::now().wall_us,
                    };
                    self.known()
                        .insert(key, Known::Ended { seen: seen.clone() });
                    seen
                }
            };
            observations.push((key, observation));
        }
        Ok(observations)
    }
}

/// What became of a start.
#[derive(Debug)]
enum Started {
    /// It has lived, and lives or has ended since.
    Container { found: Found, record: Record },
    /// It was started once, and is gone.
    Vanished { message: String },
}

impl Started {
    fn found(found: Found, record: Option<Record>) -> Self {
        let record = record.unwrap_or_else(|| Record::now(&found.id));
        Self::Container { found, record }
    }

    fn vanished(name: &str) -> Self {
        Self::Vanished {
            message: format!("container {name} had been started and is gone; someone removed it"),
        }
    }
}

/// A line of our own into the attempt's log, before the container writes.
fn note(attempt: &Attempt, line: &str) -> Result<(), LaunchFailure> {
    let path = attempt.log();
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| writeln!(file, "{line}"))
        .map_err(|error| crate::package::storage_failure(&path, &error))
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |about| about.len())
}
