//! One writer's journal on disk: its segments, how far it is acknowledged, and whether its process
//! still lives. Knows no server. The same rules as the SDK's own sender, so that either may take over.

use crate::failure::{Failure, on_path};
use agent::journal::{Behind, lost, sequence_of, sift};
use platform_proto::http::{JournalAnswer, RecordResult};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// In a writer's folder: it appends nothing more.
const CLOSED: &str = "closed";
const DIED: &str = "the process ended without closing the run";

/// One writer of one run.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    /// Run.
    pub run: String,
    /// Name.
    pub name: String,
    watermark: u64,
    place: Place,
}

/// Where reading goes on.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    segment: u64,
    offset: u64,
    /// Highest sequence read, or the watermark where it is above.
    sequence: u64,
}

/// Lines that follow each other, and what among them can never be sent.
#[derive(Debug, Default)]
pub struct Batch {
    /// To send.
    pub records: Vec<Record>,
    /// File, line in it, and what is wrong with that.
    pub skipped: Vec<String>,
}

/// One whole line.
#[derive(Debug)]
pub struct Record {
    /// Sequence.
    pub sequence: u64,
    /// The line, without its newline.
    pub line: Vec<u8>,
    value: serde_json::Value,
}

impl Record {
    fn parse(line: &[u8]) -> Option<Record> {
        Some(Record {
            sequence: sequence_of(line)?,
            line: line.to_vec(),
            // What cannot be read behind the sequence refers to nothing here; the store answers it.
            value: serde_json::from_slice(line).unwrap_or_default(),
        })
    }

    /// The store never takes the bytes it refers to: what stands for it says so.
    pub fn lose(&mut self, why: &str) {
        self.line = lost(self.sequence, self.sequence, why).into_bytes();
        self.value = serde_json::Value::Null;
    }

    fn kind(&self) -> &str {
        self.value
            .get("k")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
    }

    /// Addresses and paths of the bytes it refers to.
    pub fn files(&self) -> Vec<(String, String)> {
        let entries = match self.kind() {
            "artifact" => std::slice::from_ref(&self.value),
            "model" => self
                .value
                .get("files")
                .and_then(serde_json::Value::as_array)
                .map(Vec::as_slice)
                .unwrap_or_default(),
            _ => &[],
        };
        let text = |entry: &serde_json::Value, key: &str| {
            entry
                .get(key)
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        entries
            .iter()
            .map(|entry| (text(entry, "sha256"), text(entry, "path")))
            // The address names a file beneath `files/`: nothing but a hash may stand there.
            .filter(|(address, _)| {
                address.len() == 64
                    && address
                        .bytes()
                        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            })
            .collect()
    }
}

/// Every writer in a spool, oldest first.
pub fn writers(spool: &Path) -> Result<Vec<Writer>, Failure> {
    let mut found = Vec::new();
    for run in folders(spool)? {
        for folder in folders(&run)? {
            let (Some(run), Some(name)) = (file_name(&run), file_name(&folder)) else {
                continue;
            };
            if !is_writer(&name) {
                continue;
            }
            let modified = fs::metadata(&folder)
                .and_then(|metadata| metadata.modified())
                .unwrap_or(UNIX_EPOCH);
            let watermark = fs::read_to_string(folder.join("watermark"))
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0);
            found.push((
                modified,
                Writer {
                    folder,
                    run,
                    name,
                    watermark,
                    place: Place::default(),
                },
            ));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.name.cmp(&b.1.name)));
    Ok(found.into_iter().map(|(_, writer)| writer).collect())
}

fn folders(parent: &Path) -> Result<Vec<PathBuf>, Failure> {
    match fs::read_dir(parent) {
        Ok(entries) => Ok(entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(on_path("read", parent)(error)),
    }
}

fn file_name(path: &Path) -> Option<String> {
    path.file_name()
        .and_then(|name| name.to_str())
        .map(str::to_owned)
}

fn is_writer(name: &str) -> bool {
    name.strip_prefix("w-")
        .is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl Writer {
    /// Where its files lie.
    pub fn files(&self) -> PathBuf {
        self.folder.parent().unwrap_or(&self.folder).join("files")
    }

    fn segment(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:08}.ndjson"))
    }

    fn segments(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let digits = name.to_str()?.strip_suffix(".ndjson")?;
                (digits.len() == 8).then(|| digits.parse().ok()).flatten()
            })
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// About how much is left, for a bar.
    pub fn unsent_bytes(&self) -> u64 {
        self.segments()
            .iter()
            .filter_map(|number| fs::metadata(self.segment(*number)).ok())
            .map(|metadata| metadata.len())
            .sum()
    }

    /// How many records are left.
    pub fn unsent(&self) -> Result<u64, Failure> {
        let mut copy = Writer {
            folder: self.folder.clone(),
            run: self.run.clone(),
            name: self.name.clone(),
            watermark: self.watermark,
            place: Place::default(),
        };
        let mut count = 0;
        loop {
            // As if it wrote no more: what it adds meanwhile is counted nowhere.
            let batch = copy.read(4 << 20, true)?;
            if batch.records.is_empty() {
                return Ok(count);
            }
            count += batch.records.len() as u64;
        }
    }

    /// The next whole lines above the watermark; none when nothing is left. A torn last line is not a
    /// record yet, and a number that jumps waits for the line behind it while there may come one.
    pub fn batch(&mut self, most_bytes: usize) -> Result<Batch, Failure> {
        // Asked first: what is read after this is then all there will be.
        let ended = self.folder.join(CLOSED).exists();
        self.read(most_bytes, ended)
    }

    fn read(&mut self, most_bytes: usize, ended: bool) -> Result<Batch, Failure> {
        let mut batch = Batch::default();
        loop {
            let segments = self.segments();
            let Some(number) = segments
                .iter()
                .copied()
                .find(|number| *number >= self.place.segment)
            else {
                return Ok(batch);
            };
            if number != self.place.segment {
                self.place.segment = number;
                self.place.offset = 0;
            }
            let path = self.segment(number);
            let lines = whole_lines(&path, self.place.offset, most_bytes)
                .map_err(on_path("read", &path))?;
            if lines.is_empty() {
                match segments.iter().copied().find(|later| *later > number) {
                    Some(later) => {
                        self.place.segment = later;
                        self.place.offset = 0;
                    }
                    None => return Ok(batch),
                }
                continue;
            }
            let after = self.place.sequence.max(self.watermark);
            let mut sifted = sift(&lines, after, Behind::Unknown);
            if sifted.waits_from.is_some() {
                let end = self.place.offset + lines.len() as u64;
                let behind = match self.sequence_behind(number, end, most_bytes)? {
                    Some(sequence) => Behind::Sequence(sequence),
                    None if ended => Behind::Nothing,
                    None => Behind::Unknown,
                };
                sifted = sift(&lines, after, behind);
            }
            if sifted.waits_from == Some(0) {
                return Ok(batch);
            }
            if !sifted.skipped.is_empty() {
                let before =
                    lines_before(&path, self.place.offset).map_err(on_path("read", &path))?;
                // Where a record stands for it the store's answer tells of it.
                let untold = sifted
                    .skipped
                    .iter()
                    .filter(|skipped| skipped.sequence.is_none());
                batch.skipped.extend(untold.map(|skipped| {
                    let line = before + skipped.line + 1;
                    format!("line {line} of {}: {}", path.display(), skipped.why)
                }));
            }
            self.place.offset += sifted.waits_from.unwrap_or(lines.len()) as u64;
            self.place.sequence = sifted.last_sequence;
            batch.records = sifted
                .lines
                .split(|byte| *byte == b'\n')
                .filter_map(Record::parse)
                .collect();
            if !batch.records.is_empty() {
                return Ok(batch);
            }
        }
    }

    /// The first sequence from a place on.
    fn sequence_behind(
        &self,
        segment: u64,
        mut offset: u64,
        most_bytes: usize,
    ) -> Result<Option<u64>, Failure> {
        let segments = self.segments();
        for number in segments.into_iter().filter(|number| *number >= segment) {
            let path = self.segment(number);
            loop {
                let lines =
                    whole_lines(&path, offset, most_bytes).map_err(on_path("read", &path))?;
                if lines.is_empty() {
                    break;
                }
                let found = lines.split(|byte| *byte == b'\n').find_map(sequence_of);
                if found.is_some() {
                    return Ok(found);
                }
                offset += lines.len() as u64;
            }
            offset = 0;
        }
        Ok(None)
    }

    /// The store holds up to `watermark`: reading starts again behind it.
    pub fn start_after(&mut self, watermark: u64) {
        self.watermark = watermark;
        self.place = Place::default();
    }

    /// A batch was answered: results are kept for the SDK, and what is delivered is deleted.
    pub fn taken(&mut self, batch: &[Record], answer: &JournalAnswer) -> Result<(), Failure> {
        // Answers first: should we die in between, the same lines are sent and answered again.
        if !answer.results.is_empty() {
            append_results(&self.folder.join("results.ndjson"), &answer.results)
                .map_err(on_path("write", &self.folder))?;
        }
        if batch
            .last()
            .is_some_and(|last| last.sequence > answer.watermark)
        {
            self.place = Place::default();
        }
        self.watermark = self.watermark.max(answer.watermark);
        let partial = self
            .folder
            .join(format!("watermark.{}", std::process::id()));
        fs::write(&partial, self.watermark.to_string())
            .and_then(|()| fs::rename(&partial, self.folder.join("watermark")))
            .map_err(on_path("write", &partial))?;
        for record in batch
            .iter()
            .filter(|record| record.sequence <= self.watermark)
        {
            for (address, _) in record.files() {
                // The store has these bytes now, whichever record names them next.
                let _ = fs::remove_file(self.files().join(address));
            }
        }
        for number in self
            .segments()
            .into_iter()
            .filter(|number| *number < self.place.segment)
        {
            let _ = fs::remove_file(self.segment(number));
        }
        Ok(())
    }

    /// Whether this writer appends nothing more. One whose process died is ended here: a torn last
    /// line is cut off, and a run it opened but never closed is closed as failed.
    pub fn end_if_dead(&self) -> bool {
        let marker = self.folder.join(CLOSED);
        if marker.exists() {
            return true;
        }
        let segments = self.segments();
        let Some(last) = segments.last() else {
            return false;
        };
        self.end(&self.segment(*last), &segments, &marker)
            .unwrap_or(false)
    }

    fn end(&self, path: &Path, segments: &[u64], marker: &Path) -> std::io::Result<bool> {
        let mut file = File::options().read(true).write(true).open(path)?;
        // A living writer holds this lock on its newest segment.
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(false);
        }
        let written_us = file
            .metadata()?
            .modified()?
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_micros() as u64);
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        file.set_len(
            content
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end as u64 + 1),
        )?;
        if let Some(last) = self.unclosed(segments)? {
            // It lived at least until it last wrote.
            let close = serde_json::json!({"s": last + 1, "k": "close", "status": "failed", "error": DIED, "ended_us": written_us});
            file.seek(SeekFrom::End(0))?;
            file.write_all(format!("{close}\n").as_bytes())?;
        }
        file.sync_data()?;
        File::create(marker)?;
        Ok(true)
    }

    /// The last sequence, when this writer opened the run, never closed it, and nobody resumed it.
    fn unclosed(&self, segments: &[u64]) -> std::io::Result<Option<u64>> {
        // Where the first segment is gone it was delivered, and with it the record of opening.
        let (mut last, mut opened, mut closed) =
            (self.watermark, segments.first() != Some(&1), false);
        for number in segments {
            let content = fs::read(self.segment(*number))?;
            for record in content
                .split(|byte| *byte == b'\n')
                .filter_map(Record::parse)
            {
                last = record.sequence;
                opened |= record.kind() == "open";
                closed |= record.kind() == "close";
            }
        }
        let others = folders(self.folder.parent().unwrap_or(&self.folder))
            .unwrap_or_default()
            .iter()
            .any(|other| {
                *other != self.folder && file_name(other).is_some_and(|name| name.starts_with("w-"))
            });
        Ok((opened && !closed && !others).then_some(last))
    }

    /// Removes a writer that is closed and delivered.
    pub fn clear(&self) {
        let _ = fs::remove_dir_all(&self.folder);
        // Both go only when nothing of another writer is left in them.
        if fs::remove_dir(self.files()).is_ok() || !self.files().exists() {
            let _ = fs::remove_dir(self.folder.parent().unwrap_or(&self.folder));
        }
    }
}

fn whole_lines(path: &Path, offset: u64, most_bytes: usize) -> std::io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        // Another sender has delivered and deleted it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(offset))?;
    let mut content = Vec::new();
    // One line may be longer than a batch; it is then a batch of its own.
    loop {
        let before = content.len();
        (&mut file)
            .take(most_bytes as u64)
            .read_to_end(&mut content)?;
        if let Some(end) = content.iter().rposition(|byte| *byte == b'\n') {
            content.truncate(end + 1);
            return Ok(content);
        }
        if content.len() == before {
            return Ok(Vec::new());
        }
    }
}

/// How many lines there are before an offset.
fn lines_before(path: &Path, offset: u64) -> std::io::Result<usize> {
    let mut before = Vec::new();
    File::open(path)?.take(offset).read_to_end(&mut before)?;
    Ok(before.iter().filter(|byte| **byte == b'\n').count())
}

fn append_results(path: &Path, results: &[RecordResult]) -> std::io::Result<()> {
    let mut lines = String::new();
    for result in results {
        lines.push_str(&serde_json::to_string(result)?);
        lines.push('\n');
    }
    File::options()
        .append(true)
        .create(true)
        .open(path)?
        .write_all(lines.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str =
        r#"{"s":1,"k":"open","name":"n","tags":{},"parent":null,"started_us":1,"context":{}}"#;

    fn spool(segments: &[&str]) -> tempfile::TempDir {
        let spool = tempfile::tempdir().unwrap();
        let folder = spool
            .path()
            .join("local-01ARZ3NDEKTSV4RRFFQ69G5FAV/w-0123456789abcdef");
        fs::create_dir_all(&folder).unwrap();
        for (index, content) in segments.iter().enumerate() {
            fs::write(folder.join(format!("{:08}.ndjson", index + 1)), content).unwrap();
        }
        spool
    }

    fn sequences(batch: &Batch) -> Vec<u64> {
        batch.records.iter().map(|record| record.sequence).collect()
    }

    #[test]
    fn a_writer_whose_process_died_is_closed_as_failed_and_its_torn_line_cut() {
        let spool = spool(&[&format!(
            "{OPEN}\n{{\"s\":2,\"k\":\"tags\",\"tags\":{{}}}}\n{{\"s\":3,\"k\":"
        )]);
        let mut writer = writers(spool.path()).unwrap().remove(0);
        assert_eq!(writer.unsent().unwrap(), 2);
        assert!(writer.end_if_dead());
        let batch = writer.batch(1 << 20).unwrap();
        assert_eq!(sequences(&batch), [1, 2, 3]);
        assert_eq!(batch.records[2].kind(), "close");
        assert!(writer.folder.join("closed").exists());
    }

    #[test]
    fn a_living_writer_is_left_alone() {
        let spool = spool(&[&format!("{OPEN}\n")]);
        let writer = writers(spool.path()).unwrap().remove(0);
        let held = File::open(writer.segment(1)).unwrap();
        flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(!writer.end_if_dead());
        assert!(!writer.folder.join("closed").exists());
    }

    #[test]
    fn delivered_segments_and_files_are_deleted_and_the_place_is_kept() {
        let sha256 = "a".repeat(64);
        let artifact =
            format!(r#"{{"s":2,"k":"artifact","path":"x","sha256":"{sha256}","size_bytes":1}}"#);
        let spool = spool(&[
            &format!("{OPEN}\n{artifact}\n"),
            "{\"s\":3,\"k\":\"close\",\"status\":\"finished\",\"error\":null,\"ended_us\":2}\n",
        ]);
        let mut writer = writers(spool.path()).unwrap().remove(0);
        fs::create_dir_all(writer.files()).unwrap();
        fs::write(writer.files().join(&sha256), "b").unwrap();
        let first = writer.batch(1 << 20).unwrap();
        writer
            .taken(
                &first.records,
                &JournalAnswer {
                    watermark: 2,
                    results: Vec::new(),
                },
            )
            .unwrap();
        assert!(!writer.files().join(&sha256).exists());
        let second = writer.batch(1 << 20).unwrap();
        assert_eq!(sequences(&second), [3]);
        writer
            .taken(
                &second.records,
                &JournalAnswer {
                    watermark: 3,
                    results: Vec::new(),
                },
            )
            .unwrap();
        assert_eq!(writer.segments(), [2]);
        assert_eq!(writers(spool.path()).unwrap()[0].watermark, 3);
        writer.clear();
        assert!(fs::read_dir(spool.path()).unwrap().next().is_none());
    }

    #[test]
    fn lines_are_sent_again_from_where_the_store_stands() {
        let lines: String = (1..=4)
            .map(|s| format!("{{\"s\":{s},\"k\":\"tags\",\"tags\":{{}}}}\n"))
            .collect();
        let spool = spool(&[&lines]);
        let mut writer = writers(spool.path()).unwrap().remove(0);
        assert_eq!(writer.batch(1 << 20).unwrap().records.len(), 4);
        writer.start_after(2);
        assert_eq!(sequences(&writer.batch(1 << 20).unwrap()), [3, 4]);
        writer.start_after(0);
        assert_eq!(
            sequences(&writer.batch(40).unwrap()),
            [1],
            "a batch holds whole lines, at least one"
        );
    }

    #[test]
    fn a_line_that_can_never_be_sent_is_told_of_and_those_behind_it_are_sent() {
        let tags = |s: u64| format!("{{\"s\":{s},\"k\":\"tags\",\"tags\":{{}}}}\n");
        let spool = spool(&[
            &format!("{}garbage\n", tags(1)),
            &[tags(3), "nothing\n".to_owned(), tags(4)].concat(),
        ]);
        let mut writer = writers(spool.path()).unwrap().remove(0);
        assert_eq!(writer.unsent().unwrap(), 4);
        let first = writer.batch(1 << 20).unwrap();
        assert_eq!(sequences(&first), [1]);
        assert!(
            first.skipped[0].starts_with("line 2 of ") && first.skipped[0].contains("garbage"),
            "{first:?}"
        );
        let second = writer.batch(1 << 20).unwrap();
        assert_eq!(sequences(&second), [2, 3, 4]);
        assert_eq!(second.records[0].kind(), "lost");
        assert_eq!(second.skipped.len(), 1);
    }

    #[test]
    fn a_number_that_jumps_waits_for_the_line_behind_it_while_its_writer_lives() {
        let tags = |s: u64| format!("{{\"s\":{s},\"k\":\"tags\",\"tags\":{{}}}}\n");
        let spool = spool(&[&[tags(1), tags(400_000)].concat()]);
        let mut writer = writers(spool.path()).unwrap().remove(0);
        assert_eq!(sequences(&writer.batch(1 << 20).unwrap()), [1]);
        let waits = writer.batch(1 << 20).unwrap();
        assert!(waits.records.is_empty() && waits.skipped.is_empty());
        assert_eq!(writer.unsent().unwrap(), 3, "were nothing to follow");
        fs::write(writer.segment(2), [tags(3), tags(4)].concat()).unwrap();
        let damaged = writer.batch(1 << 20).unwrap();
        assert!(damaged.skipped[0].contains("400000"), "{damaged:?}");
        assert_eq!(sequences(&damaged), [2, 3, 4]);
        // The jump of one that is closed passes nothing.
        fs::write(writer.segment(3), tags(9)).unwrap();
        assert!(writer.batch(1 << 20).unwrap().records.is_empty());
        fs::write(writer.folder.join(CLOSED), b"").unwrap();
        assert_eq!(sequences(&writer.batch(1 << 20).unwrap()), [5, 9]);
    }

    #[test]
    fn only_folders_of_writers_are_read() {
        assert!(is_writer("w-0123456789abcdef"));
        assert!(!is_writer("files") && !is_writer("w-1") && !is_writer("agent-1-0"));
    }
}
