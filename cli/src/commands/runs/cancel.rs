//! `platform runs cancel`.

use crate::client::Client;
use crate::commands::Outcome;
use crate::failure::exit;
use crate::output::{Printer, amounts, views};
use http::Method;
use platform_proto::http::{CancelRequest, RunList, RunView};

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
            next: None,
        };
        for run in runs {
            list.runs
                .push(client.get(&format!("/v1/runs/{run}")).await?);
        }
        list.runs.retain(|run| run.ended_us.is_none());
        printer.result(&list, |paint| match list.runs.is_empty() {
            true => "none of them runs\n".to_owned(),
            false => format!(
                "would be stopped\n{}",
                views::runs(&list, amounts::now_us(), paint)
            ),
        })?;
        return Ok(exit::DONE);
    }
    if runs.len() > 1 && !yes {
        printer.confirm(&format!("stop {} runs: {}?", runs.len(), runs.join(" ")))?;
    }
    let mut code = exit::DONE;
    for run in runs {
        let request = CancelRequest {
            reason: reason.clone(),
        };
        match client
            .change::<RunView>(Method::POST, &format!("/v1/runs/{run}/cancel"), &request)
            .await
        {
            Ok(view) if printer.json => printer.event(&view)?,
            Ok(view) => printer.text(&format!("{} {}", view.id, printer.out.state(&view.state))),
            // The others are still to be stopped.
            Err(failure) => {
                printer.failure(&failure);
                code = code.max(failure.exit);
            }
        }
    }
    Ok(code)
}
