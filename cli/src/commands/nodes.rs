//! `platform nodes`.

use super::Outcome;
use crate::client::{Client, escape};
use crate::failure::exit;
use crate::output::{Printer, views};
use http::Method;
use platform_proto::http::{NodeChange, NodeList, NodeRequest, NodeView};

/// `platform nodes list`.
pub async fn list(client: &Client, printer: &Printer) -> Outcome {
    let list: NodeList = client.get("/v1/nodes").await?;
    printer.result(&list, |paint| views::nodes(&list, paint))?;
    Ok(exit::DONE)
}

/// `platform nodes show`.
pub async fn show(client: &Client, printer: &Printer, node: &str) -> Outcome {
    let view: NodeView = client.get(&format!("/v1/nodes/{}", escape(node))).await?;
    printer.result(&view, |paint| views::node(&view, paint))?;
    Ok(exit::DONE)
}

/// `platform nodes cordon` and `uncordon`.
pub async fn change(
    client: &Client,
    printer: &Printer,
    node: &str,
    verb: &str,
    request: NodeRequest,
) -> Outcome {
    let change: NodeChange = client
        .change(
            Method::POST,
            &format!("/v1/nodes/{}/{verb}", escape(node)),
            &request,
        )
        .await?;
    printer.result(&change, |paint| views::node_change(&change, paint))?;
    if request.dry_run {
        printer.note("nothing was changed");
    }
    Ok(exit::DONE)
}

/// `platform nodes drain`: asks first when runs would be stopped.
pub async fn drain(
    client: &Client,
    printer: &Printer,
    node: &str,
    request: NodeRequest,
    yes: bool,
) -> Outcome {
    if !yes && !request.dry_run {
        let path = format!("/v1/nodes/{}/drain", escape(node));
        let preview: NodeChange = client
            .change(
                Method::POST,
                &path,
                &NodeRequest {
                    dry_run: true,
                    ..request.clone()
                },
            )
            .await?;
        if !preview.affected_runs.is_empty() {
            let runs = preview.affected_runs.join(" ");
            printer.confirm(&format!("drain {node}? its deadline stops: {runs}"))?;
        }
    }
    change(client, printer, node, "drain", request).await
}
