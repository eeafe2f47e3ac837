//! The agent's shell: session, supervisor, runtimes and telemetry.
//!
//! One agent runs on each node. It is told what should run there and makes it so; it reports what is until
//! the coordinator has heard it. Workloads outlive it. Architecture invariant: decisions are `agent-core`'s;
//! protocol types stop at `session`; this crate and the coordinator never import each other.

mod attempts;
pub mod blobs;
mod clock;
pub mod host;
pub mod journal;
pub mod launcher;
mod logs;
pub mod package;
mod relay;
pub mod runtime;
pub mod sdk;
mod session;
mod supervisor;
pub mod telemetry;
mod vital;

use blobs::BlobCache;
use runtime::docker::DockerRuntime;
use runtime::process::{Environments, ProcessRuntime, ProcessSettings};
use runtime::{LaunchFailure, NodeContext, Runtime};
use session::transfer::Transfer;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use supervisor::{Parts, Supervisor};
use telemetry::DeviceSource;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vital::vital;

/// All that an agent is told at its start.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// `http://127.0.0.1:7477`.
    pub coordinator_url: String,
    /// Bearer token with the agent's role.
    pub token: String,
    /// This node's name, unique among nodes.
    pub node: String,
    /// The pool it serves.
    pub pool: String,
    /// The rack it stands in, when known.
    pub rack: Option<String>,
    /// Everything the agent keeps lies here.
    pub data_folder: PathBuf,
    /// Where its devices come from.
    pub devices: DeviceSource,
    /// Python for virtual environments, and what `python` means without one.
    pub python: PathBuf,
    /// The binary that has the launcher subcommand.
    pub launcher: PathBuf,
    /// Its arguments before `--socket PATH`.
    pub launcher_arguments: Vec<String>,
    /// Packages kept, in bytes.
    pub blob_limit_bytes: u64,
    /// Virtual environments kept.
    pub environment_limit: usize,
    /// A log is cut in its middle past this.
    pub log_limit_bytes: u64,
    /// CPUs to offer, in thousandths; absent: all.
    pub cpu_milli: Option<u64>,
    /// Memory to offer; absent: all.
    pub memory_mib: Option<u64>,
    /// Whether to look for a container engine.
    pub containers: bool,
}

impl AgentConfig {
    /// The defaults: this binary as launcher, `python3`, 20 GiB of packages, 20 environments, 1 GiB of log.
    pub fn new(
        coordinator_url: impl Into<String>,
        token: impl Into<String>,
        node: impl Into<String>,
        data_folder: impl Into<PathBuf>,
    ) -> io::Result<Self> {
        Ok(Self {
            coordinator_url: coordinator_url.into(),
            token: token.into(),
            node: node.into(),
            pool: "default".to_owned(),
            rack: None,
            data_folder: data_folder.into(),
            devices: DeviceSource::Auto,
            python: PathBuf::from("python3"),
            launcher: std::env::current_exe()?,
            launcher_arguments: vec![launcher::SUBCOMMAND.to_owned()],
            blob_limit_bytes: 20 << 30,
            environment_limit: 20,
            log_limit_bytes: 1 << 30,
            cpu_milli: None,
            memory_mib: None,
            containers: true,
        })
    }
}

/// Why an agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its folder cannot be used.
    #[error("{}: {error}", path.display())]
    Storage {
        /// Where.
        path: PathBuf,
        /// What the disk said.
        error: io::Error,
    },
    /// Another agent works in the folder.
    #[error("another agent uses {}; stop it, or give this one another data folder", .0.display())]
    InUse(PathBuf),
    /// The coordinator's address or the token makes no sense.
    #[error("coordinator {url:?}: {why}")]
    Coordinator {
        /// As given.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// What the last agent left cannot be taken over.
    #[error("cannot take over what runs on this node: {0}")]
    Adoption(LaunchFailure),
}

/// Runs an agent until `shutdown`. Its workloads go on, and the next agent in the same folder adopts them.
pub async fn run(config: AgentConfig, shutdown: CancellationToken) -> Result<(), AgentError> {
    let config = Arc::new(config);
    let folder = config.data_folder.clone();
    let storage = |path: &Path| {
        let path = path.to_owned();
        move |error| AgentError::Storage { path, error }
    };
    std::fs::create_dir_all(&folder).map_err(storage(&folder))?;
    // Canonical, because workloads see these paths from other folders.
    let folder = folder.canonicalize().map_err(storage(&folder))?;
    let config = Arc::new(AgentConfig {
        data_folder: folder.clone(),
        ..AgentConfig::clone(&config)
    });
    private(&folder).map_err(storage(&folder))?;
    let _lock = lock(&folder)?;

    let (events, event_queue) = mpsc::unbounded_channel();
    let (runtime_events, runtime_queue) = mpsc::unbounded_channel();
    let transfer = Transfer::new(&config)?;
    let blobs = folder.join("blobs");
    let blobs = BlobCache::open(
        blobs.clone(),
        config.blob_limit_bytes,
        Arc::new(transfer.clone()),
    )
    .map_err(storage(&blobs))?;
    let sdk = folder.join("sdk");
    let sdk = sdk::unpack(&sdk).map_err(storage(&sdk))?;
    let context = Arc::new(NodeContext {
        events: runtime_events.clone(),
        blobs: Arc::new(blobs),
        sdk,
        node: config.node.clone(),
    });
    let environments = folder.join("environments");
    let environments = Environments::open(
        environments.clone(),
        config.python.clone(),
        config.environment_limit,
    )
    .map_err(storage(&environments))?;
    let settings = ProcessSettings {
        launcher: config.launcher.clone(),
        launcher_arguments: config.launcher_arguments.clone(),
        folder: folder.join("launcher"),
    };
    let process = ProcessRuntime::open(Arc::clone(&context), Arc::new(environments), settings)
        .map_err(storage(&folder))?;
    let mut runtimes: Vec<Arc<dyn Runtime>> = vec![process];
    if config.containers {
        match DockerRuntime::connect(Arc::clone(&context), &folder).await {
            Ok(docker) => runtimes.push(docker),
            Err(why) => tracing::info!(%why, "no container runtime on this node"),
        }
    }
    let source = config.devices.clone();
    let node = config.node.clone();
    let looked =
        tokio::task::spawn_blocking(move || (telemetry::open(&source, &node), host::look()));
    let (telemetry, host) = looked.await.map_err(|error| AgentError::Storage {
        path: folder.clone(),
        error: io::Error::other(error),
    })?;
    let (relay, relay_queue) = mpsc::unbounded_channel();
    let relaying = tokio::spawn(vital(
        "relay",
        relay::run(transfer, relay_queue, events.clone()),
    ));
    let client = session::connect(&config)?;
    let supervisor = Supervisor::open(Parts {
        config: Arc::clone(&config),
        host,
        runtimes,
        telemetry,
        relay,
        events: events.clone(),
        runtime_events,
    })
    .await?;
    let session = session::run(client, events, shutdown.clone());
    let session = tokio::spawn(vital("session", session));
    let supervising = supervisor.run(event_queue, runtime_queue, shutdown);
    vital("supervisor", supervising).await;
    session.abort();
    relaying.abort();
    Ok(())
}

/// Only this user may look into the agent's folder: logs and packages are other people's.
fn private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
}

fn lock(folder: &Path) -> Result<std::fs::File, AgentError> {
    let path = folder.join("agent.lock");
    let file = std::fs::File::create(&path).map_err(|error| AgentError::Storage {
        path: path.clone(),
        error,
    })?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(AgentError::InUse(folder.to_owned())),
    }
}
