//! `platform runs cancel`.

use crate::client::Client;
use crate::commands::Outcome;
use crate::commands::runs::{is_array, path};
use crate::failure::exit;
use crate::output::{Printer, amounts, views};
use http::Method;
use platform_proto::http::{ArrayView, CancelRequest, RunList, RunView};
use serde::Serialize;

/// What was told to stop.
#[derive(Serialize)]
#[serde(untagged)]
enum Stopped {
    Run(Box<RunView>),
    Array(Box<ArrayView>),
}

/// Stops runs. One that has ended already stays as it is, and is no error: asked twice, done once.
pub async fn cancel(
    client: &Client,
    printer: &Printer,
    runs: &[String],
    reason: Option<String>,
    yes: bool,
    dry_run: bool,
) -> Outcome {
    if dry_run {
        let mut list = RunList {
            runs: Vec::new(),
            arrays: Vec::new(),
            next: None,
        };
        for run in runs {
            if is_array(run) {
                list.arrays.push(client.get(&path(run)).await?);
            } else {
                list.runs.push(client.get(&path(run)).await?);
            }
        }
        list.runs.retain(|run| run.ended_us.is_none());
        list.arrays.retain(|array| array.ended_us.is_none());
        let nothing = list.runs.is_empty() && list.arrays.is_empty();
        printer.result(&list, |paint| match nothing {
            true => "none of them runs\n".to_owned(),
            false => format!(
                "would be stopped\n{}",
                views::runs(&list, amounts::now_us(), paint)
            ),
        })?;
        return Ok(exit::DONE);
    }
    let arrays = runs.iter().any(|run| is_array(run));
    if (arrays || runs.len() > 1) && !yes {
        let question = if arrays {
            format!("stop every run of {}?", runs.join(" "))
        } else {
            format!("stop {} runs: {}?", runs.len(), runs.join(" "))
        };
        printer.confirm(&question)?;
    }
    let mut code = exit::DONE;
    for run in runs {
        let request = CancelRequest {
            reason: reason.clone(),
        };
        let path = format!("{}/cancel", path(run));
        let stopped = if is_array(run) {
            let stopped = client.change::<ArrayView>(Method::POST, &path, &request);
            stopped.await.map(|array| Stopped::Array(Box::new(array)))
        } else {
            let stopped = client.change::<RunView>(Method::POST, &path, &request);
            stopped.await.map(|run| Stopped::Run(Box::new(run)))
        };
        match stopped {
            Ok(stopped) if printer.json => printer.event(&stopped)?,
            Ok(Stopped::Run(view)) => {
                printer.text(&format!("{} {}", view.id, printer.out.state(&view.state)));
            }
            Ok(Stopped::Array(view)) => {
                printer.text(&format!("{} {}", view.id, views::array_progress(&view)));
            }
            // The others are still to be stopped.
            Err(failure) => {
                printer.failure(&failure);
                code = code.max(failure.exit);
            }
        }
    }
    Ok(code)
}
