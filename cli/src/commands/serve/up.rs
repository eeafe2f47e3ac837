//! `platform up`: coordinator, agent and store in one process. The agent speaks to the coordinator
//! over loopback as a remote one would: the same code on one machine and on many.

use super::{check_listen, local_user, lock, metrics, not_started, stop_on_signal};
use crate::client::{Client, escape};
use crate::commands::Outcome;
use crate::config::{ClientFile, Endpoint, write_client_file};
use crate::failure::{Failure, exit, on_path};
use crate::output::tables::pairs;
use crate::output::{Paint, Printer};
use agent::AgentConfig;
use agent::telemetry::DeviceSource;
use coordinator::CoordinatorConfig;
use platform_proto::http::NodeView;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An agent that has not joined by then is still starting (a driver may take half a minute); the
/// platform answers meanwhile.
const NODE_WITHIN: Duration = Duration::from_secs(40);
/// Workloads outlive the agent, so nothing is lost by not waiting longer for it.
const AGENT_STOPS_WITHIN: Duration = Duration::from_secs(5);

/// How to start.
#[derive(Debug, Clone)]
pub struct Up {
    /// PLATFORM_HOME.
    pub home: PathBuf,
    /// Data folder.
    pub data: PathBuf,
    /// Where to answer.
    pub listen: SocketAddr,
    /// Devices.
    pub devices: DeviceSource,
    /// Node name.
    pub node: String,
    /// Pool.
    pub pool: String,
    /// Rack.
    pub rack: Option<String>,
}

/// Starts everything and stays until asked to stop.
pub async fn up(printer: &Printer, up: Up) -> Outcome {
    check_listen(up.listen)?;
    let mut held = lock::take(&up.data)?;
    let data = up.data.canonicalize().map_err(on_path("open", &up.data))?;
    let shutdown = stop_on_signal()?;
    let config = CoordinatorConfig {
        data_folder: data.join("coordinator"),
        listen: up.listen,
        lease: coordinator::DEFAULT_LEASE,
        local_user: local_user(),
        metrics: Some(metrics()?),
    };
    // The coordinator outlives the agent's last report, so it has a token of its own.
    let coordinator_stops = tokio_util::sync::CancellationToken::new();
    let coordinator = coordinator::start(config, coordinator_stops.clone())
        .await
        .map_err(not_started)?;
    let url = format!("http://{}", coordinator.address);
    held.say(&url).map_err(on_path("write", &data))?;
    let mut config = AgentConfig::new(
        &url,
        coordinator.agent_token.clone(),
        &up.node,
        data.join("agent"),
    )
    .map_err(|error| Failure::error(format!("cannot find this program's own file: {error}")))?;
    config.pool = up.pool.clone();
    config.rack = up.rack;
    config.devices = up.devices;
    let mut agent = tokio::spawn(agent::run(config, shutdown.clone()));
    let client_file = ClientFile {
        url: url.clone(),
        token: coordinator.admin_token.clone(),
    };
    let client_path = write_client_file(&up.home, &client_file)?;
    let client = Client::new(Endpoint {
        url: client_file.url,
        token: client_file.token,
    })?;
    let node = tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        node = joined(&client, &up.node) => node,
        ended = &mut agent => {
            let failure = agent_failure(ended);
            coordinator_stops.cancel();
            coordinator.wait().await.map_err(not_started)?;
            return Err(failure);
        }
    };
    if !shutdown.is_cancelled() {
        ready(printer, &url, node.as_ref(), &up.pool, &data, &client_path)?;
    }
    let failed = tokio::select! {
        // First: asked to stop, the agent may have ended before this is looked at.
        biased;
        () = shutdown.cancelled() => None,
        ended = &mut agent => Some(agent_failure(ended)),
    };
    shutdown.cancel();
    if failed.is_none() {
        let _ = tokio::time::timeout(AGENT_STOPS_WITHIN, &mut agent).await;
    }
    let live = coordinator.live_runs();
    coordinator_stops.cancel();
    coordinator.wait().await.map_err(not_started)?;
    match (failed, live) {
        (Some(failure), _) => return Err(failure),
        (None, 0) => printer.note("stopped; no run was alive"),
        (None, 1) => {
            printer.note("stopped; 1 run goes on and is adopted at the next `platform up`")
        }
        (None, live) => printer.note(&format!(
            "stopped; {live} runs go on and are adopted at the next `platform up`"
        )),
    }
    Ok(exit::DONE)
}

fn agent_failure(ended: Result<Result<(), agent::AgentError>, tokio::task::JoinError>) -> Failure {
    match ended {
        Ok(Ok(())) => Failure::error("the agent stopped by itself"),
        Ok(Err(error)) => Failure::error(format!("the agent stopped: {error}")),
        Err(error) => Failure::error(format!("the agent stopped: {error}")),
    }
}

/// The node as the coordinator sees it, once it has joined.
async fn joined(client: &Client, node: &str) -> Option<NodeView> {
    let deadline = Instant::now() + NODE_WITHIN;
    let path = format!("/v1/nodes/{}", escape(node));
    while Instant::now() < deadline {
        if let Ok(view) = client.get::<NodeView>(&path).await
            && view.heard_ago_ms.is_some()
        {
            return Some(view);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

fn ready(
    printer: &Printer,
    url: &str,
    node: Option<&NodeView>,
    pool: &str,
    data: &Path,
    client: &Path,
) -> Result<(), Failure> {
    if printer.json {
        return printer.event(
            &serde_json::json!({ "url": url, "data": data, "client": client, "node": node }),
        );
    }
    printer.text(&ready_text(
        url,
        node,
        pool,
        &data.display().to_string(),
        &client.display().to_string(),
        printer.out,
    ));
    Ok(())
}

/// The first thing a new user reads.
fn ready_text(
    url: &str,
    node: Option<&NodeView>,
    pool: &str,
    data: &str,
    client: &str,
    paint: Paint,
) -> String {
    let devices = node.map_or_else(
        || "not known yet: the node is still joining".to_owned(),
        devices_text,
    );
    let name = node
        .map(|node| format!("{}, pool {pool}", node.name))
        .unwrap_or_default();
    let head = pairs(&[
        ("devices", devices),
        ("node", name),
        ("data", data.to_owned()),
        ("token", format!("in {client}")),
    ]);
    let head: String = head.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "{} at {url}\n{head}next\n  platform run --tag team=NAME train.py   run a script of this folder, or of any other\n  \
         platform ps                             what runs and what waits\n  \
         platform nodes list                     the devices and their use\n\
         Ctrl-C stops the platform; runs go on and are adopted at the next `platform up`\n",
        paint.bold("the platform is up")
    )
}

fn devices_text(node: &NodeView) -> String {
    let mut models: BTreeMap<(&str, bool), u64> = BTreeMap::new();
    for device in &node.devices {
        *models.entry((&device.model, device.simulated)).or_default() += 1;
    }
    if models.is_empty() {
        return "none; `platform up --devices 8xA100-80G` simulates some".to_owned();
    }
    let shown: Vec<String> = models
        .iter()
        .map(|((model, simulated), count)| {
            format!(
                "{count}x{}{}",
                crate::output::tables::plain(model),
                if *simulated { " (simulated)" } else { "" }
            )
        })
        .collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_block_says_what_is_simulated_and_what_to_do_next() {
        let mut node = crate::snapshots::values::node();
        node.name = "desk".to_owned();
        insta::assert_snapshot!(ready_text(
            "http://127.0.0.1:7477",
            Some(&node),
            "default",
            "HOME/data",
            "HOME/client.json",
            Paint::default()
        ));
    }
}
