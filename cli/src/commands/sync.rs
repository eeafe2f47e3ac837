//! `platform sync`: sends what training processes left in the spool, in order, each record once
//! (docs/reference/journal.md). The store skips what it has, so this may run at any time, beside the
//! SDK's own sender and more than once.

mod journal;

use super::Outcome;
use crate::client::{Client, Payload, escape};
use crate::config;
use crate::failure::{Failure, exit};
use crate::output::Printer;
use indicatif::ProgressBar;
use journal::{Batch, Writer, writers};
use platform_proto::http::JournalAnswer;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The contract allows 4 MiB a call; smaller ones keep each answer quick.
const BATCH_BYTES: usize = 2 << 20;
/// Times that the store and the spool may disagree about where a writer stands before one is wrong.
const CONFLICTS: u32 = 5;

/// What was sent of one run.
#[derive(Debug, Default, Serialize)]
struct Sent {
    records: u64,
    files: u64,
    refused: u64,
}

/// Where spools are: the flag, PLATFORM_SPOOL, or the home.
pub fn spool_folder(flag: Option<PathBuf>) -> Result<PathBuf, Failure> {
    match flag.or_else(|| {
        std::env::var_os("PLATFORM_SPOOL")
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    }) {
        Some(folder) => Ok(folder),
        None => Ok(config::home()?.join("spool")),
    }
}

/// Sends the whole spool, or one run's.
pub async fn sync(
    client: Option<&Client>,
    printer: &Printer,
    spool: &Path,
    only: Option<&str>,
) -> Outcome {
    let mut found = writers(spool)?;
    found.retain(|writer| only.is_none_or(|run| writer.run == run));
    let mut sent: BTreeMap<String, Sent> = BTreeMap::new();
    let total: u64 = found.iter().map(Writer::unsent_bytes).sum();
    let Some(client) = client else {
        for writer in &found {
            sent.entry(writer.run.clone()).or_default().records += writer.unsent()?;
        }
        return report(printer, &sent, spool, "to send");
    };
    let bar = printer.byte_bar(total, "sending");
    let mut broken = None;
    for writer in &mut found {
        let ended = writer.end_if_dead();
        let counted = sent.entry(writer.run.clone()).or_default();
        match deliver(client, printer, writer, counted, &bar).await {
            Ok(()) => {}
            Err(failure) if is_final(&failure) => {
                // The other runs of the spool may fare better; this one's records stay in it.
                counted.refused += 1;
                printer.note(&format!("{}: {failure}", writer.run));
                continue;
            }
            Err(failure) => {
                broken = Some(failure);
                break;
            }
        }
        if ended {
            writer.clear();
        }
    }
    bar.finish_and_clear();
    let refused: u64 = sent.values().map(|sent| sent.refused).sum();
    report(printer, &sent, spool, "sent")?;
    match broken {
        Some(failure) if failure.exit == exit::UNAVAILABLE => {
            Err(failure.hint("nothing is lost: run `platform sync` again later"))
        }
        Some(failure) => Err(failure),
        None if refused > 0 => Ok(exit::ERROR),
        None => Ok(exit::DONE),
    }
}

/// Whether asking again, or with another token, would be answered the same.
fn is_final(failure: &Failure) -> bool {
    matches!(
        failure.body.code.as_str(),
        "invalid" | "not-found" | "refused" | "too-large" | "conflict" | "forbidden"
    )
}

fn report(printer: &Printer, sent: &BTreeMap<String, Sent>, spool: &Path, verb: &str) -> Outcome {
    printer.result(&sent, |_| {
        let lines: Vec<String> = sent
            .iter()
            .map(|(run, sent)| {
                format!(
                    "{run}: {} records and {} files {verb}\n",
                    sent.records, sent.files
                )
            })
            .collect();
        if lines.is_empty() {
            format!("nothing to send in {}\n", spool.display())
        } else {
            lines.concat()
        }
    })?;
    Ok(exit::DONE)
}

async fn deliver(
    client: &Client,
    printer: &Printer,
    writer: &mut Writer,
    sent: &mut Sent,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let mut conflicts = 0;
    let path = format!(
        "/v1/tracking/{}/journal?writer={}",
        escape(&writer.run),
        escape(&writer.name)
    );
    loop {
        let Batch {
            records: mut batch,
            skipped,
        } = writer.batch(BATCH_BYTES)?;
        for skipped in &skipped {
            sent.refused += 1;
            printer.note(&format!("{}: not recorded: {skipped}", writer.run));
        }
        let Some(last) = batch.last().map(|record| record.sequence) else {
            return Ok(());
        };
        for record in &mut batch {
            for (address, path) in record.files() {
                match send_file(client, printer, writer, &address, &path).await {
                    Ok(new) => sent.files += u64::from(new),
                    Err(failure) if is_final(&failure) && failure.body.code != "forbidden" => {
                        record.lose(&format!("the bytes of {path:?} were refused: {failure}"));
                        break;
                    }
                    Err(failure) => return Err(failure),
                }
            }
        }
        let mut lines = Vec::new();
        for record in &batch {
            lines.extend_from_slice(&record.line);
            lines.push(b'\n');
        }
        let size = lines.len() as u64;
        let answer: JournalAnswer = match client
            .post_bytes(&path, "application/x-ndjson", lines.into())
            .await
        {
            Ok(answer) => answer,
            Err(failure) if failure.body.code == "conflict" && conflicts < CONFLICTS => {
                conflicts += 1;
                writer.start_after(failure.body.watermark.unwrap_or(0));
                continue;
            }
            Err(failure) => return Err(failure),
        };
        for result in &answer.results {
            if let Some(error) = &result.error {
                sent.refused += 1;
                printer.note(&format!(
                    "{}: record {} was not taken: {error}",
                    writer.run, result.sequence
                ));
            }
        }
        sent.records += batch
            .iter()
            .filter(|record| record.sequence <= answer.watermark)
            .count() as u64;
        let stuck = answer.watermark < last;
        conflicts += u32::from(stuck);
        writer.taken(&batch, &answer)?;
        bar.inc(size);
        if stuck && conflicts >= CONFLICTS {
            return Err(Failure::error(format!(
                "the store takes no record of {} after {}",
                writer.run, answer.watermark
            )));
        }
    }
}

/// Sends the bytes a record refers to; false when the store has them already or they are gone.
async fn send_file(
    client: &Client,
    printer: &Printer,
    writer: &Writer,
    address: &str,
    path: &str,
) -> Result<bool, Failure> {
    if client.has_blob(address).await? {
        return Ok(false);
    }
    let file = match std::fs::File::open(writer.files().join(address)) {
        Ok(file) => file,
        Err(_) => {
            printer.note(&format!(
                "{}: the bytes of `{path}` are no longer in the spool",
                writer.run
            ));
            return Ok(false);
        }
    };
    let size_bytes = file
        .metadata()
        .map_err(|error| Failure::error(format!("cannot read {path} in the spool: {error}")))?
        .len();
    let payload = Payload::File {
        file: Arc::new(file),
        size_bytes,
        progress: Arc::new(|_| {}),
    };
    client.put_blob(address, payload).await?;
    Ok(true)
}
