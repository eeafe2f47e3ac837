//! `platform runs wait`.

use crate::client::Client;
use crate::commands::Outcome;
use crate::commands::run::attach::{RECONNECT, client_exit, watch};
use crate::failure::{Failure, exit};
use crate::output::{Printer, amounts};
use platform_proto::http::RunView;
use std::time::Duration;

/// Waits until every run has ended; the first exit code that is not 0, in the order given.
pub async fn wait(
    client: &Client,
    printer: &Printer,
    runs: &[String],
    timeout_ms: Option<u64>,
) -> Outcome {
    // A name that does not exist is an error at once, not after the first has ended.
    for run in runs {
        client.get::<RunView>(&format!("/v1/runs/{run}")).await?;
    }
    let patient = client.with_patience(RECONNECT);
    let ended = futures::future::try_join_all(runs.iter().map(|run| {
        let patient = patient.clone();
        async move { watch(&patient, run, |_| {}).await }
    }));
    let ended = match timeout_ms {
        None => ended.await?,
        Some(ms) => tokio::time::timeout(Duration::from_millis(ms), ended)
            .await
            .map_err(|_| {
                Failure::unavailable(format!(
                    "not every run has ended within {}",
                    amounts::duration(ms.saturating_mul(1000))
                ))
                .hint(format!("they go on: platform runs wait {}", runs.join(" ")))
            })??,
    };
    let mut code = exit::DONE;
    for run in &ended {
        if printer.json {
            printer.event(run)?;
        } else if !printer.quiet {
            let why = run
                .detail
                .as_deref()
                .map(|why| format!(": {why}"))
                .unwrap_or_default();
            printer.text(&format!(
                "{} {}{why}",
                run.id,
                printer.out.state(&run.state)
            ));
        }
        if code == exit::DONE {
            code = client_exit(run);
        }
    }
    Ok(code)
}
