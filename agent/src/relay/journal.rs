//! One attempt's journals on disk: what of them is still to be sent, and sending it.
//!
//! The format is `docs/reference/journal.md`. Nothing here trusts the workload: names outside the grammar
//! are left alone, a torn last line is not a record yet, and links are not followed.

use crate::blobs::is_sha256;
use crate::runtime::Attempt;
use crate::session::transfer::{Transfer, TransferError};
use agent_core::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Most bytes of lines in one call; the journal's own limit.
const CALL_BYTES: usize = 4 << 20;
const READ_BYTES: u64 = 1 << 20;

/// How far one writer's journal has been sent.
#[derive(Debug, Default)]
struct Cursor {
    segment: u64,
    offset: u64,
    watermark: u64,
}

/// Where sending one attempt's journals stands. Lost with the agent, rebuilt from the disk: the store
/// skips what it has.
#[derive(Debug, Default)]
pub(super) struct Progress {
    writers: BTreeMap<(String, String), Cursor>,
    uploaded: BTreeSet<String>,
}

/// A piece of a journal, ready to send.
struct Piece {
    lines: Vec<u8>,
    last_sequence: u64,
    records: u64,
    files: Vec<String>,
    segment: u64,
    offset: u64,
}

/// The run id of an attempt as tracking knows it.
pub(super) fn tracked_run(attempt: &Attempt) -> String {
    match attempt.assignment.workload.display_id.as_str() {
        "" => format!("run-{}", attempt.key().run),
        id => id.to_owned(),
    }
}

impl Progress {
    /// Sends all that is there; the number of records sent.
    pub(super) async fn drain(
        &mut self,
        attempt: &Attempt,
        transfer: &Transfer,
    ) -> Result<u64, TransferError> {
        let own = tracked_run(attempt);
        let mut sent = 0;
        for run in folders(&attempt.spool())? {
            if run != own && !is_nested(&run, &own) {
                continue;
            }
            for writer in folders(&attempt.spool().join(&run))? {
                if is_writer(&writer) {
                    sent += self.drain_writer(attempt, transfer, &run, &writer).await?;
                }
            }
        }
        Ok(sent)
    }

    async fn drain_writer(
        &mut self,
        attempt: &Attempt,
        transfer: &Transfer,
        run: &str,
        writer: &str,
    ) -> Result<u64, TransferError> {
        let run_folder = attempt.spool().join(run);
        let folder = run_folder.join(writer);
        let name = (run.to_owned(), writer.to_owned());
        let cursor = self.writers.entry(name.clone()).or_insert_with(|| Cursor {
            segment: 0,
            offset: 0,
            watermark: read_watermark(&folder),
        });
        let mut sent = 0;
        while let Some(piece) = next_piece(&folder, cursor)? {
            if piece.last_sequence > cursor.watermark {
                for sha256 in &piece.files {
                    if !self.uploaded.contains(sha256) {
                        let path = run_folder.join("files").join(sha256);
                        // A record about bytes that are not there is the store's to answer.
                        if path.is_file() {
                            transfer.put(sha256.clone(), &path).await?;
                        }
                        self.uploaded.insert(sha256.clone());
                    }
                }
                let answer = transfer
                    .append(
                        attempt.key(),
                        attempt.assignment.epoch,
                        run.to_owned(),
                        writer.to_owned(),
                        piece.lines,
                    )
                    .await;
                let answer = match answer {
                    Err(TransferError::Conflict(why)) => {
                        // From the first line on disk: the store skips what it has.
                        *cursor = Cursor::default();
                        return Err(TransferError::Conflict(why));
                    }
                    other => other?,
                };
                record_results(&folder, cursor.watermark, &answer.results)?;
                cursor.watermark = cursor.watermark.max(answer.watermark);
                crate::launcher::replace(
                    &folder,
                    "watermark",
                    cursor.watermark.to_string().as_bytes(),
                )?;
                sent += piece.records;
            }
            cursor.segment = piece.segment;
            cursor.offset = piece.offset;
        }
        remove_sent(&folder, cursor)?;
        Ok(sent)
    }
}

/// Whether nothing was ever recorded.
pub(super) fn is_empty(attempt: &Attempt) -> bool {
    folders(&attempt.spool()).is_ok_and(|runs| runs.is_empty())
}

fn folders(path: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

fn is_nested(run: &str, own: &str) -> bool {
    run.strip_prefix(own)
        .and_then(|rest| rest.strip_prefix('.'))
        .is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_writer(name: &str) -> bool {
    name.strip_prefix("w-")
        .is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn read_watermark(folder: &Path) -> u64 {
    fs::read_to_string(folder.join("watermark"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

fn segments(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found: Vec<(u64, PathBuf)> = fs::read_dir(folder)?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let number = name.strip_suffix(".ndjson")?.parse().ok()?;
            entry
                .file_type()
                .is_ok_and(|kind| kind.is_file())
                .then(|| (number, entry.path()))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// The next whole lines after the cursor, if any.
fn next_piece(folder: &Path, cursor: &Cursor) -> io::Result<Option<Piece>> {
    for (number, path) in segments(folder)? {
        if number < cursor.segment {
            continue;
        }
        let offset = if number == cursor.segment {
            cursor.offset
        } else {
            0
        };
        let mut file = fs::File::open(&path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut lines = Vec::new();
        (&file).take(READ_BYTES).read_to_end(&mut lines)?;
        // A line longer than one read: go on to its end, as far as a call may carry.
        while !lines.contains(&b'\n') && lines.len() < CALL_BYTES {
            if (&file).take(READ_BYTES).read_to_end(&mut lines)? == 0 {
                break;
            }
        }
        let Some(end) = lines.iter().rposition(|byte| *byte == b'\n') else {
            if lines.len() >= CALL_BYTES {
                return Err(io::Error::other(format!(
                    "{}: a line longer than {CALL_BYTES} bytes",
                    path.display()
                )));
            }
            continue;
        };
        lines.truncate(end + 1);
        let (last_sequence, records, files) = look_into(&lines);
        return Ok(Some(Piece {
            segment: number,
            offset: offset + lines.len() as u64,
            lines,
            last_sequence,
            records,
            files,
        }));
    }
    Ok(None)
}

/// Sequence of the last line, how many there are, and the files they refer to. Only lines that may refer
/// to files are parsed whole: points are many.
fn look_into(lines: &[u8]) -> (u64, u64, Vec<String>) {
    #[derive(serde::Deserialize)]
    struct Numbered {
        s: u64,
    }
    #[derive(serde::Deserialize)]
    struct Stored {
        sha256: Option<String>,
        #[serde(default)]
        files: Vec<Stored>,
    }
    let mut files = Vec::new();
    let mut records = 0;
    let mut last = 0;
    for line in lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        records += 1;
        if line.windows(8).any(|part| part == b"\"sha256\"")
            && let Ok(stored) = serde_json::from_slice::<Stored>(line)
        {
            let all = stored.files.iter().chain([&stored]);
            files.extend(
                all.filter_map(|stored| stored.sha256.clone())
                    .filter(|sha256| is_sha256(sha256)),
            );
        }
        last = match serde_json::from_slice::<Numbered>(line) {
            Ok(numbered) => last.max(numbered.s),
            // Not ours to judge: the store answers bad lines.
            Err(_) => u64::MAX,
        };
    }
    (last, records, files)
}

fn record_results(folder: &Path, watermark: u64, results: &[String]) -> io::Result<()> {
    #[derive(serde::Deserialize)]
    struct Answered {
        sequence: u64,
    }
    let mut text = String::new();
    for result in results {
        // An answer given again after a break is on disk already.
        let new = serde_json::from_str::<Answered>(result)
            .is_ok_and(|answered| answered.sequence > watermark);
        if new {
            text.push_str(result);
            text.push('\n');
        }
    }
    if text.is_empty() {
        return Ok(());
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("results.ndjson"))?
        .write_all(text.as_bytes())
}

/// Removes segments that are sent whole; the newest stays, the writer may still append to it.
fn remove_sent(folder: &Path, cursor: &Cursor) -> io::Result<()> {
    for (number, path) in segments(folder)? {
        if number < cursor.segment {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The agent's own writer for a member.
pub(super) fn agent_writer(key: Key) -> String {
    format!("agent-{}-{}", key.attempt, key.member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_waits_and_files_of_models_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let hash = "a".repeat(64);
        let text = format!(
            "{{\"s\":1,\"k\":\"points\"}}\n{{\"s\":2,\"k\":\"model\",\"files\":[{{\"path\":\"m\",\"sha256\":\"{hash}\"}}]}}\n{{\"s\":3"
        );
        fs::write(folder.path().join("00000001.ndjson"), &text).unwrap();
        let piece = next_piece(folder.path(), &Cursor::default())
            .unwrap()
            .unwrap();
        assert_eq!(piece.last_sequence, 2);
        assert_eq!(piece.files, vec![hash]);
        let cursor = Cursor {
            segment: piece.segment,
            offset: piece.offset,
            watermark: 2,
        };
        assert!(next_piece(folder.path(), &cursor).unwrap().is_none());
    }

    #[test]
    fn only_names_of_the_grammar_are_sent() {
        assert!(is_nested("run-17.0a1b2c3d", "run-17"));
        assert!(!is_nested("run-171.0a1b2c3d", "run-17"));
        assert!(!is_nested("run-17.x", "run-17"));
        assert!(is_writer("w-0123456789abcdef"));
        assert!(!is_writer("agent-1-0"));
    }
}
