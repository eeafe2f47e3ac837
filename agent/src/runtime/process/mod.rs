//! The process runtime: a process group on this node, started by the launcher.
//!
//! No isolation from other users of the machine beyond limits and groups; what is in force is said for
//! each allocation. Images, and so real isolation, are the docker runtime's.

mod connection;
mod control_group;
mod environment;
mod leftovers;

pub use environment::Environments;

use super::{Attempt, LaunchFailure, NodeContext, Progress, Runtime};
use crate::launcher::StartRequest;
use crate::vital::vital;
use agent_core::{Assignment, Key, Observation, Signal};
use connection::{Command, Connection};
use control_group::ControlGroups;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Variables of the agent's own environment that a workload sees. Everything else stays here: the agent
/// may hold tokens.
const PASSED_ON: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "CUDA_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Runs workloads as processes of this node.
#[derive(Debug)]
pub struct ProcessRuntime {
    context: Arc<NodeContext>,
    environments: Arc<Environments>,
    control_groups: ControlGroups,
    passed_on: BTreeMap<String, String>,
    /// Virtual environment of attempts that are prepared and not started yet.
    prepared: Mutex<BTreeMap<Key, PathBuf>>,
    commands: mpsc::UnboundedSender<Command>,
    live: Arc<Mutex<BTreeMap<Key, u32>>>,
}

/// What the process runtime needs beside the node.
#[derive(Debug, Clone)]
pub struct ProcessSettings {
    /// The binary that has the launcher subcommand.
    pub launcher: PathBuf,
    /// Arguments before `--socket`; usually just the subcommand.
    pub launcher_arguments: Vec<String>,
    /// The launcher's socket and log live here.
    pub folder: PathBuf,
}

impl ProcessRuntime {
    /// Opens the runtime; the launcher is started when first needed.
    pub fn open(
        context: Arc<NodeContext>,
        environments: Arc<Environments>,
        settings: ProcessSettings,
    ) -> io::Result<Arc<Self>> {
        std::fs::create_dir_all(&settings.folder)?;
        let (commands, receiver) = mpsc::unbounded_channel();
        let control_groups = ControlGroups::detect();
        let live = Arc::new(Mutex::new(BTreeMap::new()));
        let connection = Connection::new(
            settings,
            context.events.clone(),
            control_groups.clone(),
            Arc::clone(&live),
        );
        tokio::spawn(vital("launcher's connection", connection.run(receiver)));
        let mut passed_on: BTreeMap<String, String> = PASSED_ON
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
            .collect();
        // Where a machine has python3 only, "python" still means it; last, so that it hides nothing.
        let path = passed_on.entry("PATH".to_owned()).or_insert_with(|| {
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()
        });
        path.push(':');
        path.push_str(&environments.fallback_programs().display().to_string());
        Ok(Arc::new(Self {
            context,
            environments,
            control_groups,
            passed_on,
            prepared: Mutex::new(BTreeMap::new()),
            commands,
            live,
        }))
    }

    fn prepared(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, PathBuf>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn prepare_all(
        &self,
        attempt: &Attempt,
        progress: &Progress,
    ) -> Result<(), LaunchFailure> {
        let workload = &attempt.assignment.workload;
        if workload.command.first().is_none_or(String::is_empty) {
            return Err(LaunchFailure::user("the command is empty"));
        }
        if !workload.source_sha256.is_empty() {
            progress.report("unpacking the package");
        }
        self.context.unpack(attempt).await?;
        working_folder(attempt)?;
        if let Some(environment) = self.environments.ensure(attempt, progress).await? {
            self.prepared().insert(attempt.key(), environment);
        }
        Ok(())
    }

    fn request(&self, attempt: &Attempt) -> Result<StartRequest, LaunchFailure> {
        let key = attempt.key();
        let working_folder = working_folder(attempt)?;
        let mut variables = self.passed_on.clone();
        variables.extend(
            self.context
                .environment(attempt, &attempt.spool(), &self.context.sdk),
        );
        if let Some(environment) = self.prepared().remove(&key) {
            let path = variables.entry("PATH".to_owned()).or_default();
            *path = format!("{}:{path}", environment.join("bin").display());
            variables.insert("VIRTUAL_ENV".to_owned(), environment.display().to_string());
            variables.remove("PYTHONHOME");
        }
        Ok(StartRequest {
            name: key.to_string(),
            folder: attempt.folder.clone(),
            command: attempt.assignment.workload.command.clone(),
            working_folder,
            environment: variables.into_iter().collect(),
            control_groups: self.control_groups.create(&attempt.assignment)?,
        })
    }
}

/// The folder a command starts in; it must be within the package.
fn working_folder(attempt: &Attempt) -> Result<PathBuf, LaunchFailure> {
    let asked = &attempt.assignment.workload.working_folder;
    if asked.is_empty() || asked == "." {
        return Ok(attempt.work());
    }
    let inside = Path::new(asked).components().all(|part| {
        matches!(
            part,
            std::path::Component::Normal(_) | std::path::Component::CurDir
        )
    });
    let folder = attempt.work().join(asked);
    if !inside || !folder.is_dir() {
        return Err(LaunchFailure::user(format!(
            "the working folder {asked:?} is not a folder of the package"
        )));
    }
    Ok(folder)
}

impl Runtime for ProcessRuntime {
    fn name(&self) -> &'static str {
        "process"
    }

    fn adopt(
        &self,
        attempts: Vec<Arc<Attempt>>,
    ) -> BoxFuture<'_, Result<Vec<(Key, Observation)>, LaunchFailure>> {
        Box::pin(async move {
            let nothing = attempts.is_empty();
            let (answer, found) = oneshot::channel();
            let _ = self.commands.send(Command::Adopt(attempts, answer));
            if nothing {
                // Sent all the same: it warms the launcher up before the first run comes.
                return Ok(Vec::new());
            }
            found
                .await
                .map_err(|_| LaunchFailure::node("the launcher's connection has ended"))
        })
    }

    fn prepare(
        self: Arc<Self>,
        attempt: Arc<Attempt>,
        progress: Progress,
    ) -> BoxFuture<'static, Result<(), LaunchFailure>> {
        Box::pin(async move { self.prepare_all(&attempt, &progress).await })
    }

    fn start(&self, attempt: Arc<Attempt>) {
        match self.request(&attempt) {
            Ok(request) => {
                let _ = self
                    .commands
                    .send(Command::Start(attempt, Box::new(request)));
            }
            Err(failure) => {
                let _ = self.context.events.send(super::RuntimeEvent {
                    key: attempt.key(),
                    observation: Observation::LaunchFailed {
                        message: failure.message,
                        node_fault: failure.node_fault,
                    },
                });
            }
        }
    }

    fn signal(&self, key: Key, signal: Signal) {
        let _ = self.commands.send(Command::Signal(key, signal));
    }

    fn forget(&self, key: Key) {
        self.prepared().remove(&key);
        self.control_groups.remove(key);
    }

    fn enforcement(&self, assignment: &Assignment) -> String {
        let devices = match assignment.devices.first() {
            None => "no devices: CUDA_VISIBLE_DEVICES is empty",
            Some(device) if device.simulated => "devices: simulated, nothing to enforce",
            Some(_) => {
                "devices: CUDA_VISIBLE_DEVICES only, a workload that sets it anew sees the others; device memory: PLATFORM_GPU_MEMORY_MIB is advice"
            }
        };
        format!("{devices}; {}", self.control_groups.enforcement(assignment))
    }

    fn processes(&self) -> Vec<(Key, u32)> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.iter().map(|(key, process)| (*key, *process)).collect()
    }
}
