//! `platform quotas`.

use super::{Outcome, tenants};
use crate::client::Client;
use crate::failure::exit;
use crate::output::{Printer, views};
use http::Method;
use platform_proto::http::{QuotaList, QuotaRequest, QuotaView, TenantList};

/// `platform quotas list`.
pub async fn list(client: &Client, printer: &Printer) -> Outcome {
    let list: QuotaList = client.get("/v1/quotas").await?;
    printer.result(&list, |paint| views::quotas(&list.quotas, paint))?;
    Ok(exit::DONE)
}

/// `platform quotas show`: of one tenant, or all.
pub async fn show(client: &Client, printer: &Printer, tenant: Option<&str>) -> Outcome {
    let Some(tenant) = tenant else {
        return list(client, printer).await;
    };
    let mut list: QuotaList = client.get("/v1/quotas").await?;
    list.quotas.retain(|quota| quota.tenant == tenant);
    if list.quotas.is_empty() {
        // A tenant without a quota and a tenant that does not exist must not look alike.
        let known: TenantList = client.get("/v1/tenants").await?;
        tenants::find(&known, tenant)?;
    }
    printer.result(&list, |paint| views::quotas(&list.quotas, paint))?;
    Ok(exit::DONE)
}

/// `platform quotas set`.
pub async fn set(client: &Client, printer: &Printer, request: QuotaRequest) -> Outcome {
    let quota: QuotaView = client.change(Method::PUT, "/v1/quotas", &request).await?;
    printer.result(&quota, |paint| {
        views::quotas(std::slice::from_ref(&quota), paint)
    })?;
    if request.dry_run {
        if !quota.preempts.is_empty() {
            printer.note(&views::preempts(&quota.preempts));
        }
        printer.note("nothing was changed");
    }
    Ok(exit::DONE)
}
