//! Watches an array to its end: how many of its runs are where. Ctrl-C leaves; they go on.

use super::follow::watch_array;
use super::{RECONNECT, client_code};
use crate::client::Client;
use crate::commands::Outcome;
use crate::failure::exit;
use crate::output::{Printer, views};
use platform_proto::http::ArrayView;
use std::time::{Duration, Instant};

/// Plain lines come no faster than this: a log file is to be read.
const LINES_EVERY: Duration = Duration::from_secs(1);

/// Shows an array until all of its runs have ended or Ctrl-C is pressed. Not 0 when any has not
/// succeeded.
pub async fn attach(client: &Client, printer: &Printer, id: &str) -> Outcome {
    let bar = printer
        .live
        .then(|| printer.bar(0, "{spinner} {bar:16} {pos}/{len} {wide_msg}"));
    let mut told: Option<Instant> = None;
    let mut said = String::new();
    let mut failed = Ok(());
    let patient = client.with_patience(RECONNECT);
    let watched = watch_array(&patient, id, |view: &ArrayView| {
        if printer.json {
            failed = printer.event(view);
        }
        let line = views::array_progress(view);
        if let Some(bar) = &bar {
            bar.set_length(u64::from(view.size));
            bar.set_position(u64::from(view.ended()));
            bar.set_message(line);
        } else if line != said && told.is_none_or(|at| at.elapsed() >= LINES_EVERY) {
            printer.note(&format!("{}: {line}", view.id));
            said = line;
            told = Some(Instant::now());
        }
    });
    let ended = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => None,
        ended = watched => Some(ended),
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    failed?;
    let Some(ended) = ended.transpose()? else {
        printer.note(&format!(
            "detached; {id} goes on\n  platform runs list --array {id}\n  platform stop {id}"
        ));
        return Ok(exit::DETACHED);
    };
    if !printer.json && !printer.quiet {
        printer.text(&views::array(&ended, printer.out));
        printer.text(&format!(
            "next\n  platform runs list --array {id}{}",
            if ended.failed > 0 {
                " --state failed"
            } else {
                ""
            }
        ));
    }
    Ok(client_code(ended.client_exit_code))
}
