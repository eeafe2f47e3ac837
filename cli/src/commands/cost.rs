//! `platform cost`.

use super::Outcome;
use crate::args::look::CostFormat;
use crate::client::{Client, with_query};
use crate::failure::{Failure, exit};
use crate::output::{Printer, amounts, views};
use crate::parse;
use platform_proto::http::CostReport;

/// Prints what was spent between two moments.
pub async fn report(
    client: &Client,
    printer: &Printer,
    by: &str,
    since: &str,
    until: Option<&str>,
    format: CostFormat,
) -> Outcome {
    let now_us = amounts::now_us();
    let since_us = parse::moment_us(since, now_us)?;
    let until_us = until.map_or(Ok(now_us), |until| parse::moment_us(until, now_us))?;
    if since_us >= until_us {
        return Err(Failure::usage(format!(
            "--since {since} is not before --until {}",
            until.unwrap_or("now")
        )));
    }
    let report: CostReport = client.get(&path(by, since_us, until_us)).await?;
    match format {
        CostFormat::Json => printer.document(&report)?,
        CostFormat::Csv if !printer.json => printer.text(&views::cost_csv(&report)),
        _ => printer.result(&report, |paint| views::cost(&report, paint))?,
    }
    Ok(exit::DONE)
}

/// Where a cost report is asked for.
pub fn path(by: &str, since_us: u64, until_us: u64) -> String {
    let query = [
        ("by", Some(by.to_owned())),
        ("since_us", Some(since_us.to_string())),
        ("until_us", Some(until_us.to_string())),
    ];
    with_query("/v1/cost", &query)
}
