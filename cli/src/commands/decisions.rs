//! `platform runs decisions` and `platform decisions`.

use super::Outcome;
use crate::client::{Client, escape};
use crate::failure::exit;
use crate::output::{Printer, decided};
use platform_proto::http::{DecisionList, DecisionReplay};

/// `platform runs decisions`.
pub async fn of_run(client: &Client, printer: &Printer, run: &str) -> Outcome {
    let path = format!("/v1/runs/{}/decisions", escape(run));
    let list: DecisionList = client.get(&path).await?;
    printer.result(&list, |paint| decided::decisions(&list, Some(run), paint))?;
    Ok(exit::DONE)
}

/// `platform decisions list`.
pub async fn list(client: &Client, printer: &Printer, limit: u32) -> Outcome {
    let list: DecisionList = client.get(&format!("/v1/decisions?limit={limit}")).await?;
    printer.result(&list, |paint| decided::decisions(&list, None, paint))?;
    Ok(exit::DONE)
}

/// `platform decisions replay`: fails when it comes out otherwise.
pub async fn replay(client: &Client, printer: &Printer, id: u64) -> Outcome {
    let replay: DecisionReplay = client.get(&format!("/v1/decisions/{id}/replay")).await?;
    printer.result(&replay, |_| decided::replay(&replay))?;
    Ok(if replay.same { exit::DONE } else { exit::ERROR })
}
