//! `platform runs`.

pub mod cancel;
pub mod justify;
pub mod logs;
pub mod wait;

use super::Outcome;
use crate::client::{Client, with_query};
use crate::failure::{Failure, exit};
use crate::output::{Printer, amounts, views};
use platform_proto::http::{ArrayView, Explanation, RunList, RunView, TrackedList, TrackedRun};
use serde::Serialize;

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this state.
    pub state: Option<String>,
    /// Only this user.
    pub user: Option<String>,
    /// Only this tenant.
    pub tenant: Option<String>,
    /// Only with this tag.
    pub tag: Option<(String, String)>,
    /// The runs of this array, which is one line otherwise.
    pub array: Option<String>,
    /// How many.
    pub limit: u32,
    /// Only older than this one.
    pub before: Option<String>,
}

/// `platform runs list`.
pub async fn list(client: &Client, printer: &Printer, filter: Filter) -> Outcome {
    let query = [
        ("state", filter.state),
        ("user", filter.user),
        ("tenant", filter.tenant),
        (
            "tag",
            filter.tag.map(|(key, value)| format!("{key}={value}")),
        ),
        (
            "collapse",
            filter.array.is_none().then(|| "true".to_owned()),
        ),
        ("array", filter.array),
        ("limit", Some(filter.limit.to_string())),
        ("before", filter.before),
    ];
    let list: RunList = client.get(&with_query("/v1/runs", &query)).await?;
    printer.result(&list, |paint| views::runs(&list, amounts::now_us(), paint))?;
    Ok(exit::DONE)
}

/// `platform runs list --tracked`.
pub async fn list_tracked(
    client: &Client,
    printer: &Printer,
    limit: u32,
    before: Option<String>,
) -> Outcome {
    let query = [("limit", Some(limit.to_string())), ("before", before)];
    let list: TrackedList = client.get(&with_query("/v1/tracking", &query)).await?;
    printer.result(&list, |paint| {
        views::tracked_list(&list, amounts::now_us(), paint)
    })?;
    Ok(exit::DONE)
}

/// Whether an id is that of an array.
pub fn is_array(id: &str) -> bool {
    id.starts_with("array-")
}

/// Where the server shows a run or an array.
pub fn path(id: &str) -> String {
    let kind = if is_array(id) { "arrays" } else { "runs" };
    format!("/v1/{kind}/{id}")
}

/// A run as the scheduler knows it and as tracking does; either may be missing, not both.
#[derive(Debug, Serialize)]
struct Known {
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<RunView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracked: Option<TrackedRun>,
}

async fn known(client: &Client, run: &str) -> Result<Known, Failure> {
    // Tracking is asked with little patience: with its store down, runs are still shown.
    let hurried = client.with_patience(std::time::Duration::from_millis(300));
    let (view_path, tracked_path) = (format!("/v1/runs/{run}"), format!("/v1/tracking/{run}"));
    let (view, tracked) = futures::join!(
        client.get::<RunView>(&view_path),
        hurried.get::<TrackedRun>(&tracked_path)
    );
    match (view, tracked) {
        (Ok(view), tracked) => Ok(Known {
            run: Some(view),
            tracked: tracked.ok(),
        }),
        // What the SDK tracked elsewhere, and nested runs, are no runs of the scheduler.
        (Err(failure), Ok(tracked)) if failure.exit == exit::NOT_FOUND => Ok(Known {
            run: None,
            tracked: Some(tracked),
        }),
        (Err(failure), _) => Err(failure),
    }
}

/// `platform runs show`.
pub async fn show(client: &Client, printer: &Printer, run: &str) -> Outcome {
    if is_array(run) {
        let array: ArrayView = client.get(&path(run)).await?;
        printer.result(&array, |paint| views::array(&array, paint))?;
        return Ok(exit::DONE);
    }
    let known = known(client, run).await?;
    printer.result(&known, |paint| {
        views::run(
            known.run.as_ref(),
            known.tracked.as_ref(),
            amounts::now_us(),
            paint,
        )
    })?;
    Ok(exit::DONE)
}

/// `platform runs explain`.
pub async fn explain(client: &Client, printer: &Printer, run: &str) -> Outcome {
    let explanation: Explanation = client.get(&format!("/v1/runs/{run}/explain")).await?;
    printer.result(&explanation, |paint| {
        views::explanation(&explanation, amounts::now_us(), paint)
    })?;
    Ok(exit::DONE)
}

/// `platform runs compare`.
pub async fn compare(client: &Client, printer: &Printer, runs: &[String]) -> Outcome {
    let compared = futures::future::try_join_all(runs.iter().map(|run| known(client, run))).await?;
    printer.result(&compared, |paint| {
        let columns: Vec<_> = compared
            .iter()
            .map(|known| (known.run.clone(), known.tracked.clone()))
            .collect();
        views::comparison(&columns, amounts::now_us(), paint)
    })?;
    Ok(exit::DONE)
}
