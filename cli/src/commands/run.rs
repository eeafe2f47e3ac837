//! `platform run`: from a folder and a command to a run that is watched to its end.

pub mod attach;
pub mod command;
pub mod dev;
pub mod prepare;

use super::Outcome;
use crate::client::{Client, Payload};
use crate::failure::{Failure, exit};
use crate::output::{Printer, amounts, plan as plan_output};
use crate::pack::{self, Listing, Package};
use attach::Follow;
use http::Method;
use platform_proto::http::{RunSpec, SubmitRequest, SubmitResponse};
use prepare::Prepared;
use std::sync::Arc;

/// What to do once the plan is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Submit and watch.
    Attach,
    /// Submit and return.
    Detach,
    /// Only show the plan.
    DryRun,
}

/// Packs, plans, uploads what is missing, submits, and watches.
pub async fn run(client: &Client, printer: &Printer, prepared: Prepared, how: How) -> Outcome {
    let Prepared { mut spec, listing } = prepared;
    let package = pack_off_thread(listing).await?;
    spec.source_sha256 = Some(package.1.sha256.clone());
    let (listing, package) = package;
    let stored = client.has_blob(&package.sha256).await?;
    let upload = plan_output::Upload {
        files: listing.files(),
        folder_bytes: listing.folder_bytes,
        packed_bytes: package.packed_bytes,
        stored,
    };
    let plan = plan(client, &spec, stored, how == How::DryRun).await?;
    if how == How::DryRun {
        printer.result(&plan, |paint| {
            plan_output::dry_run(&plan, Some(&upload), amounts::now_us(), paint)
        })?;
        printer.note("nothing was submitted");
        return Ok(exit::DONE);
    }
    printer.note(&plan_output::plan(&plan, Some(&upload), printer.err));
    if !stored {
        send(client, printer, package).await?;
    }
    let request = SubmitRequest {
        spec,
        dry_run: false,
        outlook: false,
    };
    let submitted: SubmitResponse = client.change(Method::POST, "/v1/runs", &request).await?;
    let run = submitted.run.clone().ok_or_else(|| {
        Failure::error("the platform took the run but did not name it").hint("platform ps")
    })?;
    if how == How::Detach {
        printer.result(&submitted, |_| run.id.clone())?;
        printer.note(&format!("come back with: platform logs -f {}", run.id));
        return Ok(exit::DONE);
    }
    if printer.json {
        printer.event(&submitted)?;
    }
    printer.note(&format!("{} submitted", printer.err.bold(&run.id)));
    attach::attach(
        client,
        printer,
        run,
        Follow {
            attempt: None,
            member: 0,
            raw: false,
            summary: true,
        },
    )
    .await
}

/// Compression is work for a thread of its own: the connection is not kept waiting by it.
async fn pack_off_thread(listing: Listing) -> Result<(Listing, Package), Failure> {
    tokio::task::spawn_blocking(move || pack::pack(&listing).map(|package| (listing, package)))
        .await
        .map_err(|error| Failure::error(format!("packing stopped: {error}")))?
}

async fn plan(
    client: &Client,
    spec: &RunSpec,
    stored: bool,
    outlook: bool,
) -> Result<SubmitResponse, Failure> {
    // A package that is not stored yet cannot be named to the server, and is not worth sending before
    // the plan is known to stand.
    let mut asked = spec.clone();
    if !stored {
        asked.source_sha256 = None;
        asked.requirements_path = None;
    }
    let request = SubmitRequest {
        spec: asked,
        dry_run: true,
        outlook,
    };
    let mut plan: SubmitResponse = client.change(Method::POST, "/v1/runs", &request).await?;
    plan.spec.source_sha256 = spec.source_sha256.clone();
    plan.spec.requirements_path = spec.requirements_path.clone();
    Ok(plan)
}

async fn send(client: &Client, printer: &Printer, package: Package) -> Result<(), Failure> {
    let bar = printer.byte_bar(package.packed_bytes, "sending the folder");
    let moving = bar.clone();
    let payload = Payload::File {
        file: Arc::new(package.file),
        size_bytes: package.packed_bytes,
        progress: Arc::new(move |sent| moving.set_position(sent)),
    };
    let sent = client.put_blob(&package.sha256, payload).await;
    bar.finish_and_clear();
    sent
}
