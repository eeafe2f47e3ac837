//! `platform tenants`.

use super::Outcome;
use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::output::{Printer, amounts, views};
use http::Method;
use platform_proto::http::{TenantChange, TenantList, TenantRequest, TenantView};

/// `platform tenants list`.
pub async fn list(client: &Client, printer: &Printer) -> Outcome {
    let list: TenantList = client.get("/v1/tenants").await?;
    printer.result(&list, |paint| {
        views::tenants(&list, amounts::now_us(), paint)
    })?;
    Ok(exit::DONE)
}

/// `platform tenants show`.
pub async fn show(client: &Client, printer: &Printer, tenant: &str) -> Outcome {
    let list: TenantList = client.get("/v1/tenants").await?;
    let found = find(&list, tenant)?;
    printer.result(found, |paint| views::tenant(found, paint))?;
    Ok(exit::DONE)
}

/// The tenant of that name, or the names there are.
pub fn find<'a>(list: &'a TenantList, tenant: &str) -> Result<&'a TenantView, Failure> {
    list.tenants
        .iter()
        .find(|found| found.name == tenant)
        .ok_or_else(|| {
            let names: Vec<&str> = list
                .tenants
                .iter()
                .map(|tenant| tenant.name.as_str())
                .collect();
            Failure::not_found(format!("no tenant `{tenant}`"))
                .allowed(names.join(", "))
                .hint(format!("platform tenants create {tenant}"))
        })
}

/// `platform tenants create`.
pub async fn create(client: &Client, printer: &Printer, request: TenantRequest) -> Outcome {
    let view: TenantView = client.change(Method::POST, "/v1/tenants", &request).await?;
    printer.result(&view, |paint| views::tenant(&view, paint))?;
    Ok(exit::DONE)
}

/// `platform tenants set`.
pub async fn set(
    client: &Client,
    printer: &Printer,
    tenant: &str,
    change: TenantChange,
) -> Outcome {
    let path = format!("/v1/tenants/{tenant}");
    let view: TenantView = client.change(Method::PUT, &path, &change).await?;
    printer.result(&view, |paint| views::tenant(&view, paint))?;
    if change.dry_run {
        printer.note("nothing was changed");
    }
    Ok(exit::DONE)
}
