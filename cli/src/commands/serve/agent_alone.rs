//! `platform agent`: the agent of this node, for a coordinator elsewhere.

use super::stop_on_signal;
use crate::commands::Outcome;
use crate::config::Endpoint;
use crate::failure::{Failure, exit};
use crate::output::Printer;
use agent::AgentConfig;
use agent::telemetry::DeviceSource;
use std::path::PathBuf;

/// Starts an agent and stays until asked to stop.
pub async fn run(
    printer: &Printer,
    endpoint: Endpoint,
    data: PathBuf,
    node: String,
    pool: String,
    rack: Option<String>,
    devices: DeviceSource,
) -> Outcome {
    let shutdown = stop_on_signal()?;
    let mut config = AgentConfig::new(&endpoint.url, &endpoint.token, &node, &data)
        .map_err(|error| Failure::error(format!("cannot find this program's own file: {error}")))?;
    config.pool = pool;
    config.rack = rack;
    config.devices = devices;
    printer.note(&format!(
        "the agent of {node} works for {}\n  data  {}",
        endpoint.url,
        data.display()
    ));
    agent::run(config, shutdown)
        .await
        .map_err(|error| Failure::error(error.to_string()))?;
    printer.note("stopped; its runs go on and are adopted at the next `platform agent`");
    Ok(exit::DONE)
}
