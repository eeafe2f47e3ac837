//! `platform models`.

use super::Outcome;
use crate::client::{Client, escape};
use crate::failure::exit;
use crate::output::{Printer, amounts, views};
use platform_proto::http::{ModelList, ModelView};

/// `platform models list`.
pub async fn list(client: &Client, printer: &Printer) -> Outcome {
    let list: ModelList = client.get("/v1/models").await?;
    printer.result(&list, |paint| {
        views::models(&list, amounts::now_us(), paint)
    })?;
    Ok(exit::DONE)
}

/// `platform models show`.
pub async fn show(client: &Client, printer: &Printer, name: &str) -> Outcome {
    let model: ModelView = client.get(&format!("/v1/models/{}", escape(name))).await?;
    printer.result(&model, |paint| {
        views::model(&model, amounts::now_us(), paint)
    })?;
    Ok(exit::DONE)
}
