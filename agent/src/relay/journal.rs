//! One attempt's journals on disk: what of them is still to be sent, and sending it.
//!
//! The format is `docs/reference/journal.md`. Nothing here trusts the workload: names outside the grammar
//! are left alone, a torn last line is not a record yet, and links are not followed.

use crate::journal::{
    Behind, LONGEST_LINE_BYTES, Sifted, Skipped, files_of, last_checkpoint_us, lost, sequence_of,
    sift, too_long,
};
use crate::logs;
use crate::runtime::Attempt;
use crate::session::transfer::{Appended, Transfer, TransferError};
use agent_core::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const READ_BYTES: u64 = 1 << 20;
/// In a writer's folder: it appends nothing more.
const CLOSED: &str = "closed";

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
    /// Run and name of writers that the store never takes.
    refused: BTreeSet<(String, String)>,
    /// When all work was last saved, by what was read since it was last asked.
    checkpointed_us: Option<u64>,
}

/// A piece of a journal, ready to send.
struct Piece {
    path: PathBuf,
    sifted: Sifted,
    files: Vec<String>,
    segment: u64,
    /// Where it begins in its segment, and where the next begins.
    begin: u64,
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
    /// When the workload last said that all its work is saved, once for each time that it did.
    pub(super) fn take_checkpoint(&mut self) -> Option<u64> {
        self.checkpointed_us.take()
    }

    /// Sends all that is there; the number of records sent. One writer's trouble does not hold up the
    /// others: it is told at the end. `ended` says that the attempt writes no more.
    pub(super) async fn drain(
        &mut self,
        attempt: &Attempt,
        ended: bool,
        transfer: &Transfer,
    ) -> Result<u64, TransferError> {
        let own = tracked_run(attempt);
        let mut sent = 0;
        let mut trouble = None;
        for run in folders(&attempt.spool())? {
            if run != own && !is_nested(&run, &own) {
                continue;
            }
            for writer in folders(&attempt.spool().join(&run))? {
                if !is_writer(&writer) {
                    continue;
                }
                let call = Call {
                    attempt,
                    transfer,
                    run: &run,
                    writer: &writer,
                };
                match self.drain_writer(&call, ended).await {
                    Ok(records) => sent += records,
                    Err(TransferError::Refused(why)) => {
                        self.refused.insert((run.clone(), writer.clone()));
                        tell(
                            attempt,
                            1,
                            &format!("nothing more of {run}/{writer} can be recorded: {why}"),
                        );
                    }
                    Err(error @ (TransferError::Conflict { .. } | TransferError::Disk(_))) => {
                        trouble.get_or_insert(error);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        trouble.map_or(Ok(sent), Err)
    }

    async fn drain_writer(&mut self, call: &Call<'_>, ended: bool) -> Result<u64, TransferError> {
        let Call {
            attempt,
            transfer,
            run,
            writer,
        } = *call;
        let run_folder = attempt.spool().join(run);
        let folder = run_folder.join(writer);
        let name = (run.to_owned(), writer.to_owned());
        if self.refused.contains(&name) {
            return Ok(0);
        }
        let cursor = self.writers.entry(name).or_insert_with(|| Cursor {
            segment: 0,
            offset: 0,
            watermark: read_watermark(&folder),
        });
        let mut sent = 0;
        while let Some(mut piece) = next_piece(&folder, cursor, ended)? {
            // Who would lose least is asked before the store has answered, and without one too.
            let saved_us = last_checkpoint_us(&piece.sifted.lines);
            self.checkpointed_us = self.checkpointed_us.max(saved_us);
            if piece.sifted.records > 0 {
                for sha256 in piece.files {
                    let path = run_folder.join("files").join(&sha256);
                    // A record about bytes that are not there is the store's to answer.
                    if !self.uploaded.contains(&sha256) && path.is_file() {
                        match transfer.put(sha256.clone(), &path).await {
                            // Nobody writes into these again: bytes that do not have their hash never will.
                            Err(TransferError::Refused(why) | TransferError::Changed(why)) => {
                                piece.sifted.without(&sha256, &why);
                                continue;
                            }
                            other => other?,
                        }
                    }
                    self.uploaded.insert(sha256);
                }
                let answer = match call.append(&mut piece.sifted).await {
                    Err(TransferError::Conflict { why, watermark }) => {
                        // From the first line on disk: what the store has is left out.
                        *cursor = Cursor {
                            watermark,
                            ..Cursor::default()
                        };
                        return Err(TransferError::Conflict { why, watermark });
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
                sent += piece.sifted.records;
            }
            if let Some(first) = piece.sifted.skipped.first() {
                let count = piece.sifted.skipped.len();
                let line = line_number(&piece.path, piece.begin)? + first.line as u64;
                let file = piece.path.strip_prefix(attempt.spool());
                let mut text = format!(
                    "line {line} of {} was not recorded: {}",
                    file.unwrap_or(&piece.path).display(),
                    first.why
                );
                if count > 1 {
                    text.push_str(&format!(" (and {} more)", count - 1));
                }
                tell(attempt, count, &text);
            }
            cursor.segment = piece.segment;
            cursor.offset = piece.offset;
        }
        remove_sent(&folder, cursor)?;
        Ok(sent)
    }
}

/// Whose lines are sent, and by which way.
struct Call<'a> {
    attempt: &'a Attempt,
    transfer: &'a Transfer,
    run: &'a str,
    writer: &'a str,
}

impl Call<'_> {
    async fn send(&self, lines: Vec<u8>) -> Result<Appended, TransferError> {
        self.transfer
            .append(
                self.attempt.key(),
                self.attempt.assignment.epoch,
                self.run.to_owned(),
                self.writer.to_owned(),
                lines,
            )
            .await
    }

    /// Sends lines. Where the store, of another version perhaps, refuses what we think it answers, it
    /// is asked line by line, and a record stands for each that it never takes.
    async fn append(&self, sifted: &mut Sifted) -> Result<Appended, TransferError> {
        match self.send(sifted.lines.clone()).await {
            Err(TransferError::Refused(_)) => {}
            other => return other,
        }
        let mut all = Appended::default();
        let mut skipped = Vec::new();
        for (at, line) in sifted
            .lines
            .split_inclusive(|byte| *byte == b'\n')
            .enumerate()
        {
            let mut answer = self.send(line.to_vec()).await;
            if let Err(TransferError::Refused(why)) = &answer
                && let Some(sequence) = sequence_of(line)
            {
                let record = format!("{}\n", lost(sequence, sequence, why));
                skipped.push(Skipped {
                    line: sifted.origin(at),
                    sequence: Some(sequence),
                    why: why.clone(),
                });
                answer = self.send(record.into_bytes()).await;
            }
            let answer = answer?;
            all.watermark = all.watermark.max(answer.watermark);
            all.results.extend(answer.results);
        }
        sifted.skipped.extend(skipped);
        Ok(all)
    }
}

/// Says what cannot be recorded where the run's owner and the node's operator look: in the run's log and
/// in the agent's.
pub(super) fn tell(attempt: &Attempt, count: usize, text: &str) {
    tracing::warn!(run = %attempt.key(), "{text}");
    metrics::counter!("agent_relay_skipped_total").increment(count as u64);
    if let Err(error) = logs::note(&attempt.log(), text) {
        tracing::warn!(run = %attempt.key(), %error, "cannot say so in the run's log");
    }
}

/// Number of the line that begins at `offset`, from 1.
fn line_number(path: &Path, offset: u64) -> io::Result<u64> {
    let mut before = Vec::new();
    fs::File::open(path)?
        .take(offset)
        .read_to_end(&mut before)?;
    Ok(before.iter().filter(|byte| **byte == b'\n').count() as u64 + 1)
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

/// Whole lines of a journal as they lie on the disk.
struct Lines {
    path: PathBuf,
    segment: u64,
    begin: u64,
    end: u64,
    content: Vec<u8>,
    /// It is the beginning of one line that is longer than any call.
    too_long: bool,
}

impl Lines {
    fn sift(&self, after: u64, behind: Behind) -> Sifted {
        if self.too_long {
            one_too_long(&self.content, self.end - self.begin, after, behind)
        } else {
            sift(&self.content, after, behind)
        }
    }

    /// The first sequence in it.
    fn sequence(&self) -> Option<u64> {
        if self.too_long {
            return sequence_of(&self.content);
        }
        let mut lines = self.content.split(|byte| *byte == b'\n');
        lines.find_map(sequence_of)
    }
}

/// The next lines after the cursor that can be judged, if any. `ended` says that nothing more is written.
fn next_piece(folder: &Path, cursor: &Cursor, ended: bool) -> io::Result<Option<Piece>> {
    // Asked first: what is found after this is then all there will be.
    let ended = ended || folder.join(CLOSED).exists();
    let Some(read) = read_lines(folder, cursor.segment, cursor.offset)? else {
        return Ok(None);
    };
    let mut sifted = read.sift(cursor.watermark, Behind::Unknown);
    if sifted.waits_from.is_some() {
        let behind = match sequence_behind(folder, read.segment, read.end)? {
            Some(sequence) => Behind::Sequence(sequence),
            None if ended => Behind::Nothing,
            None => Behind::Unknown,
        };
        sifted = read.sift(cursor.watermark, behind);
    }
    let offset = match sifted.waits_from {
        Some(0) => return Ok(None),
        Some(judged) => read.begin + judged as u64,
        None => read.end,
    };
    Ok(Some(Piece {
        segment: read.segment,
        begin: read.begin,
        offset,
        files: sifted
            .lines
            .split(|byte| *byte == b'\n')
            .flat_map(files_of)
            .collect(),
        sifted,
        path: read.path,
    }))
}

/// The first sequence from this place on.
fn sequence_behind(folder: &Path, segment: u64, offset: u64) -> io::Result<Option<u64>> {
    let (mut segment, mut offset) = (segment, offset);
    while let Some(read) = read_lines(folder, segment, offset)? {
        if let Some(sequence) = read.sequence() {
            return Ok(Some(sequence));
        }
        (segment, offset) = (read.segment, read.end);
    }
    Ok(None)
}

/// The next whole lines from this place on, if any.
fn read_lines(folder: &Path, segment: u64, offset: u64) -> io::Result<Option<Lines>> {
    for (number, path) in segments(folder)? {
        if number < segment {
            continue;
        }
        let begin = if number == segment { offset } else { 0 };
        let mut file = fs::File::open(&path)?;
        file.seek(SeekFrom::Start(begin))?;
        let mut lines = Vec::new();
        (&file).take(READ_BYTES).read_to_end(&mut lines)?;
        // A line longer than one read: go on to its end, as far as a call may carry.
        while !lines.contains(&b'\n') && lines.len() < LONGEST_LINE_BYTES {
            if (&file).take(READ_BYTES).read_to_end(&mut lines)? == 0 {
                break;
            }
        }
        let whole = lines.iter().rposition(|byte| *byte == b'\n');
        let too_long = whole.is_none() && lines.len() >= LONGEST_LINE_BYTES;
        let bytes = match whole {
            Some(end) => {
                lines.truncate(end + 1);
                lines.len() as u64
            }
            None if too_long => match to_line_end(&mut file)? {
                Some(rest_bytes) => lines.len() as u64 + rest_bytes,
                None => continue,
            },
            None => continue,
        };
        return Ok(Some(Lines {
            segment: number,
            begin,
            end: begin + bytes,
            content: lines,
            too_long,
            path,
        }));
    }
    Ok(None)
}

/// Bytes up to and with the next newline; none when the line is not whole yet.
fn to_line_end(file: &mut fs::File) -> io::Result<Option<u64>> {
    let mut part = vec![0; 64 << 10];
    let mut passed = 0;
    loop {
        let read = file.read(&mut part)?;
        if read == 0 {
            return Ok(None);
        }
        if let Some(end) = part[..read].iter().position(|byte| *byte == b'\n') {
            return Ok(Some(passed + end as u64 + 1));
        }
        passed += read as u64;
    }
}

/// What stands for a line of which only the beginning was read.
fn one_too_long(beginning: &[u8], bytes: u64, after: u64, behind: Behind) -> Sifted {
    let why = too_long(bytes - 1);
    let line = sequence_of(beginning).map(|sequence| lost(sequence, sequence, &why) + "\n");
    let mut sifted = sift(line.unwrap_or_default().as_bytes(), after, behind);
    if sifted.waits_from.is_none() {
        sifted.skipped.push(Skipped {
            line: 0,
            sequence: None,
            why,
        });
    }
    sifted
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
        let piece = next_piece(folder.path(), &Cursor::default(), false)
            .unwrap()
            .unwrap();
        assert_eq!(piece.sifted.last_sequence, 2);
        assert_eq!(piece.files, vec![hash]);
        let cursor = Cursor {
            segment: piece.segment,
            offset: piece.offset,
            watermark: 2,
        };
        assert!(next_piece(folder.path(), &cursor, false).unwrap().is_none());
    }

    /// The sequences that are sent, and how many lines are skipped, until nothing is left to judge.
    fn sent(folder: &Path, cursor: &mut Cursor, ended: bool) -> (Vec<u64>, usize) {
        let (mut sequences, mut skipped) = (Vec::new(), 0);
        while let Some(piece) = next_piece(folder, cursor, ended).unwrap() {
            let mut lines = piece.sifted.lines.split(|byte| *byte == b'\n');
            sequences.extend(lines.by_ref().filter_map(sequence_of));
            skipped += piece.sifted.skipped.len();
            cursor.segment = piece.segment;
            cursor.offset = piece.offset;
            cursor.watermark = piece.sifted.last_sequence;
        }
        (sequences, skipped)
    }

    fn tags(sequences: impl IntoIterator<Item = u64>) -> String {
        let line = |sequence| format!("{{\"s\":{sequence},\"k\":\"tags\",\"tags\":{{}}}}\n");
        sequences.into_iter().map(line).collect()
    }

    #[test]
    fn a_damaged_number_on_the_last_line_of_a_live_journal_swallows_none_of_those_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("00000001.ndjson");
        let damaged = tags([400_000]);
        let mut cursor = Cursor::default();
        fs::write(&path, tags(1..=3) + &damaged).unwrap();
        assert_eq!(sent(folder.path(), &mut cursor, false), (vec![1, 2, 3], 0));
        assert_eq!(cursor.offset, tags(1..=3).len() as u64);
        // A line without a number proves nothing.
        fs::write(&path, tags(1..=3) + &damaged + "garbage\n").unwrap();
        assert_eq!(sent(folder.path(), &mut cursor, false), (vec![], 0));
        // Also where the writer goes on in its next segment.
        fs::write(folder.path().join("00000002.ndjson"), tags(5..=6)).unwrap();
        // The damaged line, the garbage, and what stood in its place, told as lost.
        assert_eq!(sent(folder.path(), &mut cursor, false), (vec![4, 5, 6], 3));
    }

    #[test]
    fn a_gap_on_the_last_line_is_told_of_once_its_writer_is_closed_or_its_attempt_has_ended() {
        for closed in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let mut cursor = Cursor::default();
            fs::write(folder.path().join("00000001.ndjson"), tags([1, 5])).unwrap();
            assert_eq!(sent(folder.path(), &mut cursor, false), (vec![1], 0));
            if closed {
                fs::write(folder.path().join(CLOSED), b"").unwrap();
            }
            // Those from 2 to 4 as one.
            let rest = sent(folder.path(), &mut cursor, !closed);
            assert_eq!(rest, (vec![2, 5], 1), "closed: {closed}");
        }
    }

    #[test]
    fn a_line_too_long_for_any_call_is_passed_by_and_told_of_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(LONGEST_LINE_BYTES + (1 << 20));
        let text = format!(
            "{{\"s\":1,\"k\":\"tags\",\"x\":\"{long}\"}}\n{long}\n{{\"s\":2,\"k\":\"tags\",\"tags\":{{}}}}\n{long}"
        );
        let path = folder.path().join("00000001.ndjson");
        fs::write(&path, &text).unwrap();
        let mut cursor = Cursor::default();
        let mut sequences = Vec::new();
        let mut lines = Vec::new();
        while let Some(piece) = next_piece(folder.path(), &cursor, false).unwrap() {
            sequences.extend(
                piece
                    .sifted
                    .lines
                    .split(|byte| *byte == b'\n')
                    .filter_map(sequence_of),
            );
            if !piece.sifted.skipped.is_empty() {
                lines.push(line_number(&path, piece.begin).unwrap());
            }
            cursor.offset = piece.offset;
            cursor.segment = piece.segment;
            cursor.watermark = piece.sifted.last_sequence;
        }
        assert_eq!(sequences, [1, 2]);
        assert_eq!(lines, [1, 2]);
        assert_eq!(
            cursor.offset,
            (text.len() - long.len()) as u64,
            "a torn line waits"
        );
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
