//! `platform pools`.

use super::Outcome;
use crate::client::{Client, escape};
use crate::failure::{Failure, exit};
use crate::output::{Printer, views};
use http::Method;
use platform_proto::http::{PoolList, PoolRequest, PoolView};

/// What `platform pools create` and `set` say of a pool; what is not named stays.
#[derive(Debug, Default)]
pub struct Changes {
    /// For people.
    pub description: Option<String>,
    /// Order of a tenant's waiting runs.
    pub order: Option<String>,
    /// How long a run may wait before it goes first whatever the order.
    pub age_bound_ms: Option<u64>,
}

/// `platform pools list`.
pub async fn list(client: &Client, printer: &Printer) -> Outcome {
    let list: PoolList = client.get("/v1/pools").await?;
    printer.result(&list, |paint| views::pools(&list.pools, paint))?;
    Ok(exit::DONE)
}

/// `platform pools show`.
pub async fn show(client: &Client, printer: &Printer, pool: &str) -> Outcome {
    let list: PoolList = client.get("/v1/pools").await?;
    let names: Vec<&str> = list.pools.iter().map(|pool| pool.name.as_str()).collect();
    let Some(found) = list.pools.iter().find(|found| found.name == pool) else {
        return Err(Failure::not_found(format!("no pool `{pool}`"))
            .allowed(names.join(", "))
            .hint("platform pools list"));
    };
    printer.result(found, |paint| {
        views::pools(std::slice::from_ref(found), paint)
    })?;
    Ok(exit::DONE)
}

/// `platform pools create` (the pool must not exist) and `set` (it must).
pub async fn put(
    client: &Client,
    printer: &Printer,
    pool: &str,
    changes: Changes,
    must_exist: bool,
) -> Outcome {
    let request = PoolRequest {
        description: changes.description,
        order: changes.order,
        age_bound_ms: changes.age_bound_ms,
        must_exist: Some(must_exist),
    };
    let view: PoolView = client
        .change(
            Method::PUT,
            &format!("/v1/pools/{}", escape(pool)),
            &request,
        )
        .await?;
    printer.result(&view, |paint| {
        views::pools(std::slice::from_ref(&view), paint)
    })?;
    Ok(exit::DONE)
}
