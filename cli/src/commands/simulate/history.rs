//! `platform simulate --history`: a period fetched from the coordinator and played again here, so that
//! trying quotas out costs the platform no more than a few reads.

use super::proposal;
use crate::client::{Client, with_query};
use crate::failure::{Failure, exit};
use crate::output::{Printer, amounts, simulated};
use crate::parse;
use coordinator::history::{array_from_http, read_frame, run_from_http};
use coordinator_core::model::Array;
use coordinator_core::state::State;
use coordinator_simulation::history::{
    Calibration, Comparison, History, Replayed, compare, propose, replay,
};
use platform_proto::http::{HistoryPage, Whoami};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// What is printed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// When the period began.
    pub since_us: u64,
    /// When it ended: now.
    pub until_us: u64,
    /// Currency code.
    pub currency: String,
    /// Devices that the replay had, in thousandths.
    pub capacity_milli: u64,
    /// Runs submitted before the period that had not ended when it began.
    pub carried_over: usize,
    /// What happened, and what would have.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// Why the replay with the proposal refused runs, and how many, beyond the one with today's quotas.
    pub refusals: BTreeMap<String, usize>,
    /// How good estimated starts were in the replay with today's quotas.
    pub calibration: Calibration,
    /// How much faster than it passed the period was played, without estimates.
    pub times_real_time: f64,
}

/// Fetches, replays and compares.
pub async fn run(
    client: &Client,
    printer: &Printer,
    since: &str,
    quotas: Option<&Path>,
) -> Result<u8, Failure> {
    let until_us = amounts::now_us();
    let since_us = parse::moment_us(since, until_us)?;
    if since_us >= until_us {
        return Err(Failure::usage(format!(
            "--history {since} is not in the past"
        )));
    }
    // What is wrong with the file is said before anything is fetched.
    let changes = quotas.map(proposal::read).transpose()?;
    let whoami: Whoami = client.get("/v1/whoami").await?;
    let history = fetch(client, printer, since_us, until_us).await?;
    let path = with_query(
        "/v1/history/frame",
        &[("since_us", Some(since_us.to_string()))],
    );
    let frame = read_frame(&client.bytes(&path).await?).map_err(|error| {
        Failure::error(format!(
            "the platform's settings could not be read: {error}"
        ))
        .hint("compare `platform --version` here and there")
    })?;
    let proposed = changes
        .map(|changes| propose(frame.clone(), &changes).map_err(refused))
        .transpose()?;
    if history.runs.is_empty() {
        return Err(
            Failure::not_found(format!("no run since {}", amounts::utc(since_us)))
                .hint("name an earlier moment, as in: platform simulate --history 90d"),
        );
    }
    let capacity_milli = frame
        .pools()
        .keys()
        .map(|pool| frame.capacity_milli(pool))
        .sum();
    let started = Instant::now();
    let today = play(printer, "today's quotas", &history, frame.clone(), false);
    let proposed = proposed.map(|frame| play(printer, "proposed", &history, frame, false));
    let took_s = started.elapsed().as_secs_f64() / if proposed.is_some() { 2.0 } else { 1.0 };
    let calibrated = play(printer, "estimates", &history, frame, true);
    let report = Report {
        since_us,
        until_us,
        currency: whoami.currency,
        capacity_milli,
        carried_over: history
            .runs
            .iter()
            .filter(|run| run.submitted_us < since_us)
            .count(),
        comparison: compare(&history, &today, proposed.as_ref(), capacity_milli),
        refusals: refusals(&today, proposed.as_ref()),
        calibration: calibrated.calibration.unwrap_or_default(),
        times_real_time: (until_us - since_us) as f64 / 1e6 / took_s.max(1e-6),
    };
    printer.result(&report, |paint| simulated::comparison(&report, paint))?;
    printer.note(&format!(
        "{} replayed {:.0} times as fast as they passed, on the nodes of today, all of them ready; a run holds \
         devices as long as its last attempt did, and in full again after it was stopped; budgets are left out",
        amounts::duration(until_us - since_us),
        report.times_real_time
    ));
    Ok(exit::DONE)
}

async fn fetch(
    client: &Client,
    printer: &Printer,
    since_us: u64,
    until_us: u64,
) -> Result<History, Failure> {
    let mut history = History {
        since_us,
        until_us,
        ..History::default()
    };
    let mut arrays: BTreeMap<_, Array> = BTreeMap::new();
    let mut after = None;
    let bar = printer.bar(0, "reading the history: {pos} runs");
    loop {
        let path = with_query(
            "/v1/history",
            &[
                ("since_us", Some(since_us.to_string())),
                ("until_us", Some(until_us.to_string())),
                ("after", after),
            ],
        );
        let page: HistoryPage = client.get(&path).await?;
        for run in page.runs {
            history
                .runs
                .push(run_from_http(run).map_err(Failure::from_server)?);
        }
        for array in &page.arrays {
            let array = array_from_http(array).map_err(Failure::from_server)?;
            arrays.insert(array.id, array);
        }
        bar.set_position(history.runs.len() as u64);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    history.arrays = arrays.into_values().collect();
    Ok(history)
}

fn play(
    printer: &Printer,
    what: &'static str,
    history: &History,
    frame: State,
    calibrates: bool,
) -> Replayed {
    let bar = printer.bar(
        history.runs.len() as u64,
        "{msg} {wide_bar} {pos}/{len} runs",
    );
    bar.set_message(what);
    let replayed = replay(history, frame, calibrates, &mut |progress| {
        bar.set_position(progress.submitted as u64);
    });
    bar.finish_and_clear();
    replayed
}

/// Why runs would be refused that are not refused today.
fn refusals(today: &Replayed, proposed: Option<&Replayed>) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    let refused = proposed.map_or(&today.refused, |proposed| &proposed.refused);
    for (run, why) in refused {
        if proposed.is_none() || !today.refused.contains_key(run) {
            *counted.entry(why.clone()).or_default() += 1;
        }
    }
    counted
}

fn refused(refusal: coordinator_core::policy::Refusal) -> Failure {
    let mut failure = Failure::usage(format!("the proposal is refused: {}", refusal.message));
    failure.body.allowed = refusal.allowed;
    failure.body.hint = refusal.hint;
    failure
}
