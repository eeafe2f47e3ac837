//! `platform coordinator`: the coordinator without an agent. Agents join with the token it keeps.

use super::{check_listen, local_user, lock, metrics, not_started, stop_on_signal};
use crate::commands::Outcome;
use crate::config::{ClientFile, write_client_file};
use crate::failure::{exit, on_path};
use crate::output::Printer;
use coordinator::CoordinatorConfig;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Starts a coordinator and stays until asked to stop.
pub async fn run(printer: &Printer, home: &Path, data: PathBuf, listen: SocketAddr) -> Outcome {
    check_listen(listen)?;
    let mut held = lock::take(&data)?;
    let shutdown = stop_on_signal()?;
    let config = CoordinatorConfig {
        data_folder: data.clone(),
        listen,
        lease: coordinator::DEFAULT_LEASE,
        local_user: local_user(),
        metrics: Some(metrics()?),
    };
    let coordinator = coordinator::start(config, shutdown.clone())
        .await
        .map_err(not_started)?;
    let url = format!("http://{}", coordinator.address);
    held.say(&url).map_err(on_path("write", &data))?;
    let client = ClientFile {
        url: url.clone(),
        token: coordinator.admin_token.clone(),
    };
    let client_path = write_client_file(home, &client)?;
    if printer.json {
        printer.event(&serde_json::json!({ "url": url, "data": data, "client": client_path }))?;
    } else {
        printer.text(&format!(
            "the coordinator is up at {url}\n  data   {}\n  token  in {}\nnext\n  platform agent --url {url} --token \"$(cat {})\"\n",
            data.display(),
            client_path.display(),
            data.join("agent.token").display()
        ));
    }
    shutdown.cancelled().await;
    let live = coordinator.live_runs();
    coordinator.wait().await.map_err(not_started)?;
    printer.note(&format!("stopped; {live} runs go on with their agents"));
    Ok(exit::DONE)
}
