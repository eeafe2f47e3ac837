//! A trace: runs as they were submitted to some cluster, from CSV.

use super::seconds::parse_us;
use coordinator_core::policy::Refusal;
use flate2::bufread::MultiGzDecoder;
use std::collections::BTreeMap;
use std::io::{BufRead, Read};

const NEEDED: [&str; 5] = ["job_id", "submit", "tenant", "gpus", "duration"];
const HINT: &str =
    "a trace has the columns job_id,submit,tenant,gpus,duration and optionally user,name,pred";

/// One run of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceRun {
    /// Its name in the trace, unique.
    pub name: String,
    /// When it was submitted; negative in a history.
    pub submitted_us: i64,
    /// Owner of the quota it asks.
    pub tenant: String,
    /// GPUs of the gang.
    pub gpus: u32,
    /// Time on GPUs. The policy learns it when the run has ended.
    pub duration_us: u64,
    /// Who submitted it and what it is called, where the trace says so: what a predictor groups by.
    pub kind: Option<String>,
    /// Duration as estimated at submission, where the trace says so.
    pub predicted_us: Option<u64>,
}

/// Runs in the order of their file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// The runs.
    pub runs: Vec<TraceRun>,
}

impl Trace {
    /// Reads runs to schedule, gzipped or not. `name` is the file's name in errors.
    ///
    /// # Errors
    ///
    /// Refuses what is no table, lacks a column, repeats a name or holds a number that cannot be.
    pub fn read(reader: impl BufRead, name: &str) -> Result<Self, Refusal> {
        let trace = read(reader, name, 0)?;
        if trace.runs.is_empty() {
            return Err(Refusal::invalid(format!("{name} holds no runs"))
                .allowed("at least one row below the header")
                .hint(HINT));
        }
        Ok(trace)
    }

    /// Reads runs that ended before the trace: their times may be negative, and there may be none.
    ///
    /// # Errors
    ///
    /// As for [`Trace::read`].
    pub fn read_history(reader: impl BufRead, name: &str) -> Result<Self, Refusal> {
        read(reader, name, i64::MIN)
    }
}

fn read(mut reader: impl BufRead, name: &str, earliest_us: i64) -> Result<Trace, Refusal> {
    let start = reader
        .fill_buf()
        .map_err(|error| Refusal::invalid(format!("cannot read {name}: {error}")))?;
    // Known by its first bytes and not by its name, so that a pipe may carry either.
    let plain: Box<dyn Read + '_> = if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(MultiGzDecoder::new(reader))
    } else {
        Box::new(reader)
    };
    let mut table = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(plain);
    let unreadable = |error: csv::Error| {
        Refusal::invalid(format!("cannot read {name}: {error}"))
            .allowed("CSV with a header, in UTF-8, gzipped or not")
            .hint(HINT)
    };
    let columns: BTreeMap<String, usize> = table
        .headers()
        .map_err(unreadable)?
        .iter()
        .enumerate()
        .map(|(position, column)| (column.trim_start_matches('\u{feff}').to_owned(), position))
        .collect();
    let missing: Vec<&str> = NEEDED
        .into_iter()
        .filter(|column| !columns.contains_key(*column))
        .collect();
    if !missing.is_empty() {
        let has: Vec<&str> = columns
            .keys()
            .map(String::as_str)
            .filter(|column| !column.is_empty())
            .collect();
        let found = if has.is_empty() {
            "it is empty".to_owned()
        } else {
            format!("it has {}", has.join(", "))
        };
        return Err(Refusal::invalid(format!(
            "{name} lacks the column {}: {found}",
            missing.join(", ")
        ))
        .hint(HINT));
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut runs = Vec::new();
    for (line, row) in (2..).zip(table.records()) {
        let row = row.map_err(unreadable)?;
        let cell = |column: &str| {
            columns
                .get(column)
                .and_then(|position| row.get(*position))
                .filter(|text| !text.is_empty())
        };
        let run = read_run(&cell, earliest_us).map_err(|(column, allowed)| {
            Refusal::invalid(format!(
                "{name}, line {line}: {column} is {:?}",
                cell(column).unwrap_or_default()
            ))
            .allowed(allowed)
        })?;
        if let Some(first) = seen.insert(run.name.clone(), line) {
            return Err(Refusal::invalid(format!(
                "{name}, line {line}: job_id {:?} is also on line {first}",
                run.name
            ))
            .allowed("each job_id once"));
        }
        runs.push(run);
    }
    Ok(Trace { runs })
}

/// One row; the column that is wrong, and what is allowed there.
fn read_run<'a>(
    cell: &dyn Fn(&str) -> Option<&'a str>,
    earliest_us: i64,
) -> Result<TraceRun, (&'static str, &'static str)> {
    let submitted = "seconds from the trace's start, 0 or more";
    let text = |column: &'static str| cell(column).ok_or((column, "a name"));
    let submitted_us = cell("submit")
        .and_then(parse_us)
        .filter(|us| *us >= earliest_us)
        .ok_or(("submit", submitted))?;
    let positive = |column: &'static str, text: &str| {
        parse_us(text)
            .and_then(|us| u64::try_from(us).ok())
            .filter(|us| *us > 0)
            .ok_or((column, "seconds, more than 0"))
    };
    Ok(TraceRun {
        name: text("job_id")?.to_owned(),
        submitted_us,
        tenant: text("tenant")?.to_owned(),
        gpus: cell("gpus")
            .and_then(|text| text.parse().ok())
            .filter(|gpus| *gpus > 0)
            .ok_or(("gpus", "a whole number of GPUs, 1 or more"))?,
        duration_us: positive("duration", cell("duration").unwrap_or_default())?,
        kind: match (cell("user"), cell("name")) {
            (None, None) => None,
            (user, name) => Some(format!(
                "{}\u{1f}{}",
                user.unwrap_or_default(),
                name.unwrap_or_default()
            )),
        },
        predicted_us: cell("pred")
            .map(|text| positive("pred", text))
            .transpose()?,
    })
}
