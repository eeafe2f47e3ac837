//! The coordinator's tokio shell around its pure core.
//!
//! [`start`] opens the log and the stores, elects itself, makes the local secrets, starts what a
//! leader does and serves one port. Architecture invariant: nothing here decides; rules live in
//! `coordinator-core`, and this crate only performs effects and converts at the edge.

mod api;
mod convert_agent;
pub mod driver;
mod leader;
mod secrets;
mod sessions;
pub mod storage;

/// How a client reads a period's history, with the conversions that wrote it.
pub mod history {
    pub use crate::api::{array_from_http, read_frame, run_from_http};
}

use crate::driver::{DriverConfig, DriverHandle, DriverThread};
use axum::serve::ListenerExt as _;
use coordinator_core::model::Role;
use coordinator_tracking::{BlobStore, Tracking};
use metrics_exporter_prometheus::PrometheusHandle;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Version of this program: decisions say which made them.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Open requests may take so long to finish when the process is asked to stop.
const STOP_BOUND: Duration = Duration::from_millis(500);

/// How a coordinator runs.
#[derive(Debug, Clone)]
pub struct CoordinatorConfig {
    /// Everything it keeps lies beneath.
    pub data_folder: PathBuf,
    /// Where to listen; loopback only.
    pub listen: SocketAddr,
    /// Lease granted to agents.
    pub lease: Duration,
    /// User that the local administrator's token speaks for.
    pub local_user: String,
    /// Renders the process's metrics, when it records any.
    pub metrics: Option<PrometheusHandle>,
}

/// Lease granted to agents unless told otherwise: an agent may be unheard for so long before its
/// runs are stopped and started elsewhere.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(30);

/// Why a coordinator could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// It would have been reachable from other machines, in clear text.
    #[error("will not listen on {address}: it is not a loopback address, and there is no TLS yet")]
    NotLoopback {
        /// Asked for.
        address: SocketAddr,
    },
    /// The port is taken, or may not be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Asked for.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A file or folder of its own.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The replicated log.
    #[error("the log cannot be opened: {0}")]
    Log(#[from] storage::StoreError),
    /// The tracking store.
    #[error("the tracking store cannot be opened: {0}")]
    Tracking(#[from] coordinator_tracking::TrackingError),
    /// The artifact store.
    #[error("the artifact store cannot be opened: {0}")]
    Blobs(#[from] coordinator_tracking::BlobError),
    /// It could not become ready.
    #[error("the coordinator could not become ready: {0}")]
    Start(String),
}

/// A coordinator that is serving.
pub struct Coordinator {
    /// Where it listens.
    pub address: SocketAddr,
    /// Secret of the local administrator.
    pub admin_token: String,
    /// Secret with which agents join.
    pub agent_token: String,
    driver: DriverHandle,
    thread: Option<DriverThread>,
    loops: JoinSet<()>,
    server: JoinHandle<std::io::Result<()>>,
    shutdown: CancellationToken,
}

/// Starts a coordinator; it answers when this returns.
pub async fn start(
    config: CoordinatorConfig,
    shutdown: CancellationToken,
) -> Result<Coordinator, CoordinatorError> {
    if !config.listen.ip().is_loopback() {
        return Err(CoordinatorError::NotLoopback {
            address: config.listen,
        });
    }
    // The port first: when it is taken, nothing else has been touched.
    let listener =
        TcpListener::bind(config.listen)
            .await
            .map_err(|source| CoordinatorError::Listen {
                address: config.listen,
                source,
            })?;
    let address = listener
        .local_addr()
        .map_err(|source| CoordinatorError::Listen {
            address: config.listen,
            source,
        })?;
    let folder = &config.data_folder;
    private_folder(folder)?;
    let raft_folder = folder.join("raft");
    let (driver, thread) =
        tokio::task::spawn_blocking(move || driver::start(DriverConfig::new(raft_folder)))
            .await
            .map_err(|error| CoordinatorError::Start(error.to_string()))??;
    let tracking = Tracking::open(&folder.join("tracking")).await?;
    let blobs = BlobStore::open(&folder.join("blobs")).await?;
    let admin_token = secrets::ensure_local_token(
        &driver,
        &folder.join("admin.token"),
        &config.local_user,
        Role::PlatformAdmin,
    )
    .await?;
    let agent_token =
        secrets::ensure_local_token(&driver, &folder.join("agent.token"), "agent", Role::Agent)
            .await?;
    let hub = sessions::Hub::default();
    let loops = leader::start(&driver, &hub, &tracking, config.lease, &shutdown);
    let app = api::App::new(api::Parts {
        refusals: api::Refusals::default(),
        driver: driver.clone(),
        tracking,
        blobs,
        hub,
        lease: config.lease,
        metrics: config.metrics.clone(),
    });
    let router = api::router(app);
    let listener = listener.tap_io(|stream| {
        // Small answers must not wait for more to send.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
    });
    let stopping = shutdown.clone();
    let server = tokio::spawn(async move {
        axum::serve(listener, router)
            .with_graceful_shutdown(async move { stopping.cancelled().await })
            .await
    });
    tracing::info!(%address, "the coordinator serves");
    Ok(Coordinator {
        address,
        admin_token,
        agent_token,
        driver,
        thread: Some(thread),
        loops,
        server,
        shutdown,
    })
}

impl Coordinator {
    /// Runs that have not ended: they go on when this process stops, and are adopted by the next.
    pub fn live_runs(&self) -> usize {
        self.driver.read(|state| state.live().len())
    }

    /// Serves until `shutdown`, then lets open requests finish within a bound and closes the log.
    pub async fn wait(mut self) -> Result<(), CoordinatorError> {
        self.shutdown.cancelled().await;
        while self.loops.join_next().await.is_some() {}
        // Sessions and watches never end by themselves, so the bound is the rule, not the exception.
        if tokio::time::timeout(STOP_BOUND, &mut self.server)
            .await
            .is_err()
        {
            self.server.abort();
        }
        let thread = self.thread.take();
        tokio::task::spawn_blocking(move || drop(thread))
            .await
            .map_err(|error| CoordinatorError::Start(error.to_string()))
    }
}

/// Microseconds since the Unix epoch, for what people read. The log's time is the driver's.
pub(crate) fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        })
}

fn private_folder(folder: &Path) -> Result<(), CoordinatorError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| CoordinatorError::File {
            path: folder.to_owned(),
            source,
        })
}
