//! Watches a run to its end: its states, its metrics and its log, through restarts of the platform,
//! with no byte of the log lost or repeated. Ctrl-C leaves; the run goes on.

pub mod array;
mod display;
mod follow;

pub use follow::{client_code, client_exit, watch, watch_array};

use crate::client::Client;
use crate::commands::{Outcome, cost};
use crate::failure::{Failure, exit};
use crate::output::{Printer, amounts, plan};
use bytes::Bytes;
use display::Display;
use platform_proto::http::{CostReport, RunView, TrackedRun, WatchLine};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch as latest};

/// How long an attached client waits for a platform that has gone: a restart takes seconds, an
/// upgrade minutes. The run goes on meanwhile either way.
pub const RECONNECT: Duration = Duration::from_secs(600);

/// After a run has ended its log follows within moments; a node that is gone never sends the rest.
const LOG_AFTER_END: Duration = Duration::from_secs(20);

/// What is shown of a run.
#[derive(Debug, Clone)]
pub struct Follow {
    /// Only this try's log; each in turn where absent.
    pub attempt: Option<u32>,
    /// Which member's log.
    pub member: u32,
    /// Keep terminal escapes.
    pub raw: bool,
    /// States, metrics and a summary too, not the log alone.
    pub summary: bool,
}

/// What the two connections tell the one that prints.
#[derive(Debug)]
pub enum Event {
    /// The run has changed.
    Seen(Box<WatchLine>),
    /// Bytes of the log.
    Log(Bytes),
    /// The log of a further attempt begins.
    Attempt(u32),
    /// Nothing more comes of the log; false: some of it could not be had.
    LogEnded(bool),
    /// The connection is gone; it is being made again.
    Lost,
    /// The run has ended, or cannot be watched.
    Ended(Box<Result<RunView, Failure>>),
}

/// Shows a run until it ends or Ctrl-C is pressed; answers with the run's own exit code.
pub async fn attach(client: &Client, printer: &Printer, run: RunView, follow: Follow) -> Outcome {
    let id = run.id.clone();
    // Enough to keep both connections busy while a terminal scrolls; beyond it they wait.
    let (events, mut heard) = mpsc::channel(64);
    let (newest, seen) = latest::channel(run.clone());
    let patient = client.with_patience(RECONNECT);
    let watching = tokio::spawn(follow::watch_events(
        patient,
        id.clone(),
        newest,
        events.clone(),
    ));
    let reading = tokio::spawn(follow::log_events(
        client.clone(),
        id.clone(),
        follow.clone(),
        seen,
        events,
    ));
    let mut display = Display::new(printer, &run, &follow);
    let outcome = show(&mut heard, &mut display).await;
    watching.abort();
    reading.abort();
    display.close();
    match outcome? {
        None => {
            printer.note(&format!(
                "detached; {id} goes on\n  platform logs -f {id}\n  platform stop {id}"
            ));
            Ok(exit::DETACHED)
        }
        Some(ended) => {
            if follow.summary && !printer.json && !printer.quiet {
                summarise(client, printer, &ended).await;
            } else if !follow.summary {
                printer.note(&format!("{} {}", ended.id, printer.err.state(&ended.state)));
            }
            if printer.quiet && ended.exit_code.is_none() && ended.state == "failed" {
                // It never spoke for itself, so its log does not say why.
                let why = ended.detail.as_deref().unwrap_or("for no reason it gave");
                printer.failure(
                    &Failure::error(format!("{id} failed: {why}"))
                        .hint(format!("platform runs show {id}")),
                );
            }
            Ok(client_exit(&ended))
        }
    }
}

/// The one loop that prints. `None`: detached.
async fn show(
    heard: &mut mpsc::Receiver<Event>,
    display: &mut Display<'_>,
) -> Result<Option<RunView>, Failure> {
    let mut ended: Option<(RunView, Instant)> = None;
    let mut log_ended = false;
    let mut beat = tokio::time::interval(Duration::from_millis(200));
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            biased;
            _ = &mut interrupted => return Ok(None),
            event = heard.recv() => match event {
                Some(Event::Seen(line)) => display.seen(*line)?,
                Some(Event::Log(chunk)) => {
                    display.log(&chunk);
                    // The rest is still coming: only silence counts against it.
                    if let Some((_, since)) = &mut ended {
                        *since = Instant::now();
                    }
                }
                Some(Event::Attempt(number)) => display.attempt(number),
                Some(Event::Lost) => display.lost(),
                Some(Event::LogEnded(whole)) => {
                    log_ended = true;
                    if !whole {
                        display.log_incomplete();
                    }
                }
                Some(Event::Ended(result)) => ended = Some(((*result)?, Instant::now())),
                None => log_ended = true,
            },
            _ = beat.tick() => display.beat(),
        }
        if let Some((run, since)) = &ended {
            if !log_ended && since.elapsed() >= LOG_AFTER_END {
                display.log_incomplete();
                log_ended = true;
            }
            if log_ended {
                return Ok(Some(run.clone()));
            }
        }
    }
}

/// The last words. Tracking may be a moment behind the run's end, and may be down: it is waited for
/// briefly and done without.
async fn summarise(client: &Client, printer: &Printer, ended: &RunView) {
    let hurried = client.with_patience(Duration::from_millis(300));
    let deadline = Instant::now() + Duration::from_millis(1500);
    let (run_path, tracked_path) = (
        format!("/v1/runs/{}", ended.id),
        format!("/v1/tracking/{}", ended.id),
    );
    let team = ended.spec.tags.get("team");
    let now_us = amounts::now_us();
    // Thirty days back, and a little ahead: the server's clock is not ours.
    let cost_path = cost::path(
        "team",
        now_us.saturating_sub(30 * 86_400_000_000),
        now_us + 60_000_000,
    );
    loop {
        let (run, tracked, report) = futures::join!(
            hurried.get::<RunView>(&run_path),
            hurried.get::<TrackedRun>(&tracked_path),
            hurried.get::<CostReport>(&cost_path)
        );
        let run = run.unwrap_or_else(|_| ended.clone());
        let tracking = tracked
            .as_ref()
            .is_ok_and(|tracked| tracked.status == "running");
        let counted = report.as_ref().map_or(true, |report| {
            team.is_none_or(|team| {
                run.cost_micro == 0
                    || report
                        .rows
                        .iter()
                        .any(|row| row.key == *team && row.cost_micro >= run.cost_micro)
            })
        });
        if (tracking || !counted) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(40)).await;
            continue;
        }
        printer.text(&plan::summary(
            &run,
            tracked.as_ref().ok(),
            report.as_ref().ok().filter(|_| counted),
            printer.out,
        ));
        return;
    }
}
