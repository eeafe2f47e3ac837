//! The processes that stay: `platform up`, `platform coordinator`, `platform agent`.

pub mod agent_alone;
pub mod coordinator_alone;
mod lock;
pub mod up;

use crate::args::serve::LogFormat;
use crate::failure::Failure;
use agent::telemetry::DeviceSource;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How a process that stays writes its own log.
#[derive(Debug, Clone)]
pub struct Logging {
    /// Filter.
    pub filter: String,
    /// Format.
    pub format: LogFormat,
    /// Colours.
    pub colour: bool,
}

/// Starts logging to standard error.
pub fn log(logging: &Logging) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(&logging.filter).map_err(|error| {
        Failure::usage(format!("`{}` is not a log filter: {error}", logging.filter))
            .allowed("error, warn, info, debug, trace, or target=level,target=level")
    })?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(logging.colour);
    let started = match logging.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().with_ansi(false).try_init(),
    };
    started.map_err(|error| Failure::error(format!("cannot start logging: {error}")))
}

/// Records metrics for `GET /metrics`.
fn metrics() -> Result<PrometheusHandle, Failure> {
    let handle = PrometheusBuilder::new()
        .install_recorder()
        .map_err(|error| Failure::error(format!("cannot record metrics: {error}")))?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        // Keeps histograms from growing between two scrapes.
        let mut every = tokio::time::interval(Duration::from_secs(5));
        loop {
            every.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// Ends when the process is asked to stop; a second time ends the process at once.
fn stop_on_signal() -> Result<CancellationToken, Failure> {
    let cannot =
        |error: std::io::Error| Failure::error(format!("cannot listen for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let shutdown = CancellationToken::new();
    let asked = shutdown.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if !first {
                // Everything acknowledged is on disk: a hard end loses nothing.
                std::process::exit(130);
            }
            asked.cancel();
        }
    });
    Ok(shutdown)
}

/// Devices as they stand on the command line; all of it or nothing.
pub fn devices(asked: &[String], readings: Option<PathBuf>) -> Result<DeviceSource, Failure> {
    if asked.is_empty() {
        return Ok(DeviceSource::Auto);
    }
    if asked.len() == 1 && asked[0] == "none" {
        return Ok(DeviceSource::None);
    }
    asked
        .iter()
        .map(|text| {
            text.parse().map_err(|error| {
                Failure::usage(format!("--devices {text}: {error}"))
                    .allowed("NxMODEL-MEMORY, as 8xA100-80G; or none")
            })
        })
        .collect::<Result<Vec<_>, _>>()
        .map(|groups| DeviceSource::Simulated { groups, readings })
}

/// The name of this node: the flag, else the host's own.
pub fn node_name(flag: Option<String>) -> String {
    flag.unwrap_or_else(|| {
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .to_lowercase();
        let plain: String = host
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.' {
                    c
                } else {
                    '-'
                }
            })
            .collect();
        let plain = plain.trim_matches(['-', '.', '_']).to_owned();
        if plain.is_empty() {
            "local".to_owned()
        } else {
            plain
        }
    })
}

/// Who the local administrator's token speaks for.
fn local_user() -> String {
    let named = ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_default();
    let plain: String = named
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_' || *c == '.')
        .collect();
    if plain.is_empty() {
        "local".to_owned()
    } else {
        plain
    }
}

/// Nothing listens beyond loopback without TLS, and this version has none.
pub fn check_listen(listen: SocketAddr) -> Result<(), Failure> {
    if listen.ip().is_loopback() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "--listen {listen} is reachable from other machines, and there is no TLS yet"
    ))
    .allowed(format!("127.0.0.1:{0} or [::1]:{0}", listen.port()))
    .hint("from another machine: ssh -L 7477:127.0.0.1:7477 HOST"))
}

/// Why a coordinator did not start, with what to do.
fn not_started(error: coordinator::CoordinatorError) -> Failure {
    let in_use = matches!(&error, coordinator::CoordinatorError::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse);
    let failure = Failure::error(error.to_string());
    if in_use {
        failure.hint("another program has this port; choose one with --listen 127.0.0.1:PORT (0: any free one)")
    } else {
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_listens_beyond_loopback() {
        assert_eq!(check_listen("127.0.0.1:0".parse().unwrap()), Ok(()));
        assert_eq!(check_listen("[::1]:7477".parse().unwrap()), Ok(()));
        insta::assert_snapshot!(check_listen("0.0.0.0:7477".parse().unwrap()).unwrap_err(), @r"
        --listen 0.0.0.0:7477 is reachable from other machines, and there is no TLS yet
          allowed: 127.0.0.1:7477 or [::1]:7477
          hint: from another machine: ssh -L 7477:127.0.0.1:7477 HOST
        ");
    }

    #[test]
    fn devices_are_simulated_only_when_asked_for() {
        assert_eq!(devices(&[], None).unwrap(), DeviceSource::Auto);
        assert_eq!(
            devices(&["none".to_owned()], None).unwrap(),
            DeviceSource::None
        );
        assert!(
            matches!(devices(&["8xA100-80G".to_owned(), "2xT4".to_owned()], None).unwrap(), DeviceSource::Simulated { groups, .. } if groups.len() == 2)
        );
        assert_eq!(
            devices(&["A100".to_owned()], None).unwrap_err().exit,
            crate::failure::exit::USAGE
        );
    }
}
