//! `platform runs wait`.

use crate::client::Client;
use crate::commands::Outcome;
use crate::commands::run::attach::{RECONNECT, client_code, client_exit, watch, watch_array};
use crate::commands::runs::{is_array, path};
use crate::failure::{Failure, exit};
use crate::output::{Printer, amounts, views};
use platform_proto::http::{ArrayView, RunView};
use serde::Serialize;
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
        client.get::<serde_json::Value>(&path(run)).await?;
    }
    let patient = client.with_patience(RECONNECT);
    let ended = futures::future::try_join_all(runs.iter().map(|run| {
        let patient = patient.clone();
        async move {
            Ok::<_, Failure>(if is_array(run) {
                Ended::Array(Box::new(watch_array(&patient, run, |_| {}).await?))
            } else {
                Ended::Run(Box::new(watch(&patient, run, |_| {}).await?))
            })
        }
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
    for ended in &ended {
        let (line, its_code) = match ended {
            Ended::Run(run) => {
                let why = run
                    .detail
                    .as_deref()
                    .map(|why| format!(": {why}"))
                    .unwrap_or_default();
                let state = printer.out.state(&run.state);
                (format!("{} {state}{why}", run.id), client_exit(run))
            }
            Ended::Array(array) => {
                let state = printer.out.state(&array.state);
                let progress = views::array_progress(array);
                let line = format!("{} {state}: {progress}", array.id);
                (line, client_code(array.client_exit_code))
            }
        };
        if printer.json {
            printer.event(ended)?;
        } else if !printer.quiet {
            printer.text(&line);
        }
        if code == exit::DONE {
            code = its_code;
        }
    }
    Ok(code)
}

/// What has ended.
#[derive(Serialize)]
#[serde(untagged)]
enum Ended {
    Run(Box<RunView>),
    Array(Box<ArrayView>),
}
