//! Which lines of a journal can be sent: one judgement for every sender, the relay and `platform sync`.
//!
//! A line whose sequence can be read is the store's to answer, however bad the rest of it is. What the
//! store can never take is kept from it here, because it would hold up every good line behind it for
//! ever: a line without a sequence, one too long for a call, and a sequence that skips others. Skipped
//! sequences are told to the store as a record of kind `lost`, so that the writer's numbers have no gap
//! and the run's record says what is missing (docs/reference/journal.md). Whether a number skips others or
//! is damaged itself only the line behind it tells: until that is there, the line waits. Pure: no disk, no
//! network.

use crate::blobs::is_sha256;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Longest line that is sent; the store takes no longer record.
pub const LONGEST_LINE_BYTES: usize = 4 << 20;
/// A jump in the numbers past this is a damaged number, not lost records: no process logs so many.
const LARGEST_GAP: u64 = 1 << 32;

/// Lines that the store takes or answers, in order and without a gap, and what was kept from it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sifted {
    /// Whole lines.
    pub lines: Vec<u8>,
    /// How many of them.
    pub records: u64,
    /// Sequence of the last of them; where sifting began when there is none.
    pub last_sequence: u64,
    /// Byte from which lines were left for later, the first with a number that nothing behind it proves
    /// yet; none when all were judged.
    pub waits_from: Option<usize>,
    /// What can never be accepted.
    pub skipped: Vec<Skipped>,
    origins: Vec<usize>,
}

/// What stands behind the lines that are sifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Nothing yet, or it was not looked at.
    Unknown,
    /// Nothing, and nothing will: the writer has ended.
    Nothing,
    /// A line with this sequence, the first that has one.
    Sequence(u64),
}

/// A line that was kept back, or records that are not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Number of the line within what was sifted, from 0.
    pub line: usize,
    /// Sequence of the record that stands for it, and that the store answers; none where no record is
    /// missing by its numbers.
    pub sequence: Option<u64>,
    /// What is wrong with it.
    pub why: String,
}

/// Takes whole lines that follow the sequence `after`. Lines at or below it are left out: they are
/// stored already. A number that jumps is believed once the next one goes on from it: where that is not
/// known, its line waits, and so does all behind it.
pub fn sift(lines: &[u8], after: u64, behind: Behind) -> Sifted {
    let mut begin = 0;
    let numbered: Vec<Numbered<'_>> = lines
        .split(|byte| *byte == b'\n')
        .enumerate()
        .map(|(number, line)| {
            let at = begin;
            begin += line.len() + 1;
            (number, at, line)
        })
        .filter(|(_, _, line)| !line.iter().all(u8::is_ascii_whitespace))
        .map(|(number, begin, line)| Numbered {
            number,
            begin,
            line,
            sequence: sequence_of(line),
        })
        .collect();
    let mut sifted = Sifted {
        last_sequence: after,
        ..Sifted::default()
    };
    for (at, &numbered_line) in numbered.iter().enumerate() {
        let Numbered {
            number,
            begin,
            line,
            sequence,
        } = numbered_line;
        let Some(sequence) = sequence else {
            sifted.skip(number, None, format!("it has no sequence: {}", shown(line)));
            continue;
        };
        if sequence <= after {
            // What stood before a stored line was told of when that line was sent.
            sifted.skipped.clear();
            continue;
        }
        if sequence <= sifted.last_sequence {
            continue;
        }
        let expected = sifted.last_sequence + 1;
        if sequence > expected {
            // A number that the lines behind it do not go on from is itself what is damaged.
            let next = numbered[at + 1..].iter().find_map(|next| next.sequence);
            let next = next.map_or(behind, Behind::Sequence);
            let too_far = sequence - expected > LARGEST_GAP;
            if next == Behind::Unknown && !too_far {
                sifted.waits_from = Some(begin);
                break;
            }
            if too_far || matches!(next, Behind::Sequence(next) if next <= sequence) {
                sifted.skip(
                    number,
                    None,
                    format!("sequence {sequence} comes after {}", expected - 1),
                );
                continue;
            }
            let why = format!(
                "records {expected} to {} are not in the journal",
                sequence - 1
            );
            let record = lost(expected, sequence - 1, &why);
            sifted.push(sequence - 1, number, record.as_bytes());
            sifted.skip(number, Some(sequence - 1), why);
        }
        if line.len() > LONGEST_LINE_BYTES {
            let why = too_long(line.len() as u64);
            let record = lost(sequence, sequence, &why);
            sifted.push(sequence, number, record.as_bytes());
            sifted.skip(number, Some(sequence), why);
        } else {
            sifted.push(sequence, number, line);
        }
    }
    sifted
}

#[derive(Clone, Copy)]
struct Numbered<'a> {
    /// From 0.
    number: usize,
    /// Its first byte.
    begin: usize,
    line: &'a [u8],
    sequence: Option<u64>,
}

impl Sifted {
    /// Puts a record of kind `lost` in the place of each that refers to bytes which the store never takes.
    pub fn without(&mut self, sha256: &str, why: &str) {
        let mut lines = Vec::with_capacity(self.lines.len());
        for (at, line) in self
            .lines
            .split_inclusive(|byte| *byte == b'\n')
            .enumerate()
        {
            let refers = files_of(line).iter().any(|file| file == sha256);
            match sequence_of(line) {
                Some(sequence) if refers => {
                    let why = format!("the bytes of {sha256} were refused: {why}");
                    lines.extend_from_slice(lost(sequence, sequence, &why).as_bytes());
                    lines.push(b'\n');
                    let line = self.origin(at);
                    self.skipped.push(Skipped {
                        line,
                        sequence: Some(sequence),
                        why,
                    });
                }
                _ => lines.extend_from_slice(line),
            }
        }
        self.lines = lines;
    }

    /// Number within what was sifted of the line that is now at this place.
    pub fn origin(&self, at: usize) -> usize {
        self.origins.get(at).copied().unwrap_or(0)
    }

    fn push(&mut self, sequence: u64, origin: usize, line: &[u8]) {
        self.origins.push(origin);
        self.lines.extend_from_slice(line);
        self.lines.push(b'\n');
        self.records += 1;
        self.last_sequence = sequence;
    }

    fn skip(&mut self, line: usize, sequence: Option<u64>, why: String) {
        self.skipped.push(Skipped {
            line,
            sequence,
            why,
        });
    }
}

/// The record that stands for those from `first` to `through`, without its newline.
pub fn lost(first: u64, through: u64, why: &str) -> String {
    serde_json::json!({"s": first, "through": through, "k": "lost", "why": why}).to_string()
}

/// What is wrong with a line of so many bytes.
pub fn too_long(bytes: u64) -> String {
    format!("the record has {bytes} bytes, at most {LONGEST_LINE_BYTES}; log it in parts")
}

/// Reads no more of a line than its sequence, as the store does, so that the rest may be anything.
pub fn sequence_of(line: &[u8]) -> Option<u64> {
    struct Head<'a>(&'a mut Option<u64>);
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    impl<'de> Visitor<'de> for Head<'_> {
        type Value = ();
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a record")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<Text<'de>>()? {
                if key.0 == "s" {
                    *self.0 = Some(map.next_value()?);
                    return Ok(());
                }
                map.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }
    let mut sequence = None;
    // An error behind the sequence is what we came here to look past.
    let _ = serde_json::Deserializer::from_slice(line).deserialize_map(Head(&mut sequence));
    sequence.filter(|&sequence| sequence > 0)
}

/// Content addresses of the bytes that a line refers to. Only a line that may refer to some is parsed
/// whole: points are many.
pub fn files_of(line: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Stored {
        sha256: Option<String>,
        #[serde(default)]
        files: Vec<Stored>,
    }
    if !line.windows(8).any(|part| part == b"\"sha256\"") {
        return Vec::new();
    }
    let Ok(stored) = serde_json::from_slice::<Stored>(line) else {
        return Vec::new();
    };
    let all = stored.files.iter().chain([&stored]);
    all.filter_map(|stored| stored.sha256.clone())
        .filter(|sha256| is_sha256(sha256))
        .collect()
}

/// When the last of the checkpoints that these lines tell of was made, in microseconds since the epoch.
/// Only a line that may tell of one is parsed.
pub fn last_checkpoint_us(lines: &[u8]) -> Option<u64> {
    const KIND: &str = "checkpoint";
    #[derive(Deserialize)]
    struct Told<'a> {
        #[serde(borrow)]
        k: Cow<'a, str>,
        at_us: u64,
    }
    lines
        .split(|byte| *byte == b'\n')
        .filter(|line| line.windows(KIND.len()).any(|part| part == KIND.as_bytes()))
        .filter_map(|line| serde_json::from_slice::<Told<'_>>(line).ok())
        .filter(|told| told.k == KIND)
        .map(|told| told.at_us)
        .max()
}

/// The beginning of a line, harmless in a terminal.
fn shown(line: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(&line[..line.len().min(60)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(sequence: u64) -> String {
        format!("{{\"s\":{sequence},\"k\":\"tags\",\"tags\":{{}}}}\n")
    }

    fn sequences(sifted: &Sifted) -> Vec<u64> {
        sifted
            .lines
            .split(|byte| *byte == b'\n')
            .filter_map(sequence_of)
            .collect()
    }

    #[test]
    fn lines_without_a_sequence_are_kept_back_and_everything_behind_them_is_sent() {
        let lines = format!(
            "{}garbage\n\0\0\0\n{{\"k\":\"tags\"}}\n{{\"s\":0}}\n{}",
            tags(1),
            tags(2)
        );
        let sifted = sift(lines.as_bytes(), 0, Behind::Unknown);
        assert_eq!(sequences(&sifted), [1, 2]);
        let skipped: Vec<usize> = sifted.skipped.iter().map(|skipped| skipped.line).collect();
        assert_eq!(skipped, [1, 2, 3, 4]);
        assert_eq!((sifted.records, sifted.last_sequence), (2, 2));
    }

    #[test]
    fn the_last_checkpoint_is_read_off_the_lines_and_nothing_else_is_taken_for_one() {
        let lines = br#"{"s":1,"k":"checkpoint","at_us":50,"step":1}
{"s":2,"k":"tags","tags":{"checkpoint":"x"},"at_us":90}
{"step":null,"at_us":70,"k":"checkpoint","s":3}
{"s":4,"k":"checkpoint","at_us":"soon"}
{"s":5,"k":"checkpoint","at_us":-1}
{"s":6,"k":"checkpoint","at
"#;
        assert_eq!(last_checkpoint_us(lines), Some(70));
        assert_eq!(last_checkpoint_us(b"{\"s\":1,\"k\":\"tags\"}\n"), None);
    }

    #[test]
    fn a_damaged_line_leaves_no_gap_in_the_numbers() {
        let lines = format!("{}\u{fffd}damaged\n{}", tags(1), tags(3));
        let sifted = sift(lines.as_bytes(), 0, Behind::Nothing);
        assert_eq!(sequences(&sifted), [1, 2, 3]);
        let text = String::from_utf8(sifted.lines).unwrap();
        assert!(
            text.contains(r#""k":"lost""#) && text.contains("records 2 to 2"),
            "{text}"
        );
    }

    #[test]
    fn a_record_that_is_bad_behind_its_sequence_is_the_stores_to_answer() {
        let lines = "{\"s\":1,\"k\":\"points\",\"keys\n{\"k\":\"x\",\"s\":2,\"y\":}\n";
        let sifted = sift(lines.as_bytes(), 0, Behind::Unknown);
        assert_eq!(sifted.lines, lines.as_bytes());
        assert!(sifted.skipped.is_empty());
    }

    #[test]
    fn a_damaged_number_does_not_make_the_store_skip_the_good_lines_behind_it() {
        for damaged in [9, u64::MAX] {
            let lines = [tags(1), tags(damaged), tags(3), tags(4)].concat();
            let sifted = sift(lines.as_bytes(), 0, Behind::Unknown);
            assert_eq!(sequences(&sifted), [1, 2, 3, 4], "{damaged}");
            assert_eq!(sifted.last_sequence, 4);
        }
    }

    #[test]
    fn a_number_that_jumps_waits_for_the_line_behind_it_and_so_does_all_from_there() {
        let before = [tags(1), "garbage\n".to_owned()].concat();
        let lines = [before.clone(), tags(400_000), "more\n".to_owned()].concat();
        let waits = sift(lines.as_bytes(), 0, Behind::Unknown);
        assert_eq!((sequences(&waits), waits.skipped.len()), (vec![1], 1));
        assert_eq!(waits.waits_from, Some(before.len()));
        let rest = &lines.as_bytes()[before.len()..];
        let judged = |behind| {
            let sifted = sift(rest, 1, behind);
            assert_eq!(sifted.waits_from, None);
            sequences(&sifted)
        };
        assert_eq!(judged(Behind::Sequence(3)), [0; 0], "damaged");
        assert_eq!(judged(Behind::Sequence(400_001)), [2, 400_000]);
        assert_eq!(judged(Behind::Nothing), [2, 400_000], "it passes nothing");
        // No line behind this one could prove it.
        let absurd = sift(tags(u64::MAX).as_bytes(), 1, Behind::Unknown);
        assert_eq!((absurd.waits_from, absurd.skipped.len()), (None, 1));
    }

    #[test]
    fn only_records_that_refer_to_refused_bytes_are_replaced_each_in_its_place() {
        let hash = "a".repeat(64);
        let lines = format!(
            "garbage\n{{\"s\":1,\"k\":\"params\",\"params\":{{\"x\":\"{hash}\"}}}}\n{{\"s\":2,\"k\":\"artifact\",\"sha256\":\"{hash}\"}}\n"
        );
        let mut sifted = sift(lines.as_bytes(), 0, Behind::Unknown);
        sifted.without(&hash, "damaged");
        assert_eq!(sequences(&sifted), [1, 2]);
        let text = String::from_utf8(sifted.lines).unwrap();
        assert_eq!(text.matches("\"k\":\"lost\"").count(), 1, "{text}");
        assert!(text.contains("params"));
        assert_eq!(sifted.skipped[1].line, 2);
    }

    #[test]
    fn what_is_stored_is_not_sent_again_and_a_line_too_long_is_told_of() {
        let long = format!(
            "{{\"s\":4,\"k\":\"tags\",\"x\":\"{}\"}}\n",
            "x".repeat(LONGEST_LINE_BYTES)
        );
        let lines = [tags(2), tags(3), long, tags(5)].concat();
        let sifted = sift(lines.as_bytes(), 2, Behind::Unknown);
        assert_eq!(sequences(&sifted), [3, 4, 5]);
        assert!(sifted.lines.len() < 1000);
        assert_eq!(sifted.skipped.len(), 1);
    }
}
