//! `platform runs justify`.

use crate::client::Client;
use crate::commands::Outcome;
use crate::commands::runs::path;
use crate::failure::exit;
use crate::output::{Printer, views};
use http::Method;
use platform_proto::http::{JustifyRequest, RunView};

/// Says why the devices of a run may idle, so that it is not stopped for that until then.
pub async fn justify(
    client: &Client,
    printer: &Printer,
    run: &str,
    reason: String,
    for_ms: Option<u64>,
    dry_run: bool,
) -> Outcome {
    let request = JustifyRequest {
        reason,
        for_ms,
        dry_run,
    };
    let path = format!("{}/justify", path(run));
    let view: RunView = client.change(Method::POST, &path, &request).await?;
    printer.result(&view, |_| views::justified(&view))?;
    if dry_run {
        printer.note("nothing was changed");
    }
    Ok(exit::DONE)
}
