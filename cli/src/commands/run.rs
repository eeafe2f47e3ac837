//! `platform run`: from a folder and a command to a run that is watched to its end.

pub mod attach;
pub mod command;
pub mod dev;
pub mod prepare;
pub mod sweep;

use super::Outcome;
use crate::client::{Client, Payload};
use crate::failure::{Failure, exit};
use crate::output::{Printer, amounts, plan as plan_output};
use crate::pack::{self, Listing, Package};
use attach::Follow;
use http::Method;
use platform_proto::http::{SubmitRequest, SubmitResponse};
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
    let Prepared {
        mut spec,
        listing,
        array,
        sweep,
    } = prepared;
    let sweep = sweep
        .as_ref()
        .map(|sweep| sweep::request(sweep, fresh_seed()?))
        .transpose()?;
    let (sweep, seed) = sweep.map_or((None, None), |(request, seed)| (Some(request), seed));
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
    if let Some(seed) = seed {
        printer.note(&format!("drawn with --seed {seed}"));
    }
    let mut request = SubmitRequest {
        spec,
        dry_run: true,
        array,
        sweep,
        outlook: how == How::DryRun,
    };
    let plan = plan(client, &request, stored).await?;
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
    request.dry_run = false;
    request.outlook = false;
    let submitted: SubmitResponse = client.change(Method::POST, "/v1/runs", &request).await?;
    if let Some(array) = &submitted.array {
        let id = array.id.clone();
        if how == How::Detach {
            printer.result(&submitted, |_| id.clone())?;
            printer.note(&format!("see them with: platform runs list --array {id}"));
            return Ok(exit::DONE);
        }
        if printer.json {
            printer.event(&submitted)?;
        }
        printer.note(&format!("{} submitted", printer.err.bold(&id)));
        return attach::array::attach(client, printer, &id).await;
    }
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

/// What a drawn sweep begins with when nothing was said.
fn fresh_seed() -> Result<u64, Failure> {
    // Short enough to be typed again.
    getrandom::u32()
        .map(u64::from)
        .map_err(|error| Failure::error(format!("the system gives no random numbers: {error}")))
}

/// Compression is work for a thread of its own: the connection is not kept waiting by it.
async fn pack_off_thread(listing: Listing) -> Result<(Listing, Package), Failure> {
    tokio::task::spawn_blocking(move || pack::pack(&listing).map(|package| (listing, package)))
        .await
        .map_err(|error| Failure::error(format!("packing stopped: {error}")))?
}

async fn plan(
    client: &Client,
    request: &SubmitRequest,
    stored: bool,
) -> Result<SubmitResponse, Failure> {
    // A package that is not stored yet cannot be named to the server, and is not worth sending before
    // the plan is known to stand.
    let mut asked = request.clone();
    if !stored {
        asked.spec.source_sha256 = None;
        asked.spec.requirements_path = None;
    }
    let mut plan: SubmitResponse = client.change(Method::POST, "/v1/runs", &asked).await?;
    plan.spec.source_sha256 = request.spec.source_sha256.clone();
    plan.spec.requirements_path = request.spec.requirements_path.clone();
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
