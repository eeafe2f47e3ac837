//! Journal lines to records, checked as far as a line can be checked by itself.
//!
//! Pure: no database. A line that is wrong but carries its sequence becomes a record that says so, and
//! never blocks the good ones behind it; a line without a sequence refuses the whole call.

use crate::error::TrackingError;
use crate::names::{check_key, check_model, check_path, is_sha256, is_tracked_run};
use crate::points::Point;
use crate::views::Artifact;
use crate::{MAX_KEYS_PER_RUN, MAX_RECORD_BYTES};
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, de};
use std::collections::BTreeMap;
use std::fmt;

/// The kind by which a sender tells of records that it can never give us.
const LOST: &str = "lost";
/// Most records that one line tells the loss of.
const MOST_LOST: u64 = 1 << 33;

/// One line of a journal.
#[derive(Debug, PartialEq)]
pub(crate) struct Record {
    /// From 1, without a gap within a writer.
    pub sequence: u64,
    /// The last that it stands for: its own, but where a sender tells of records that are lost.
    pub through: u64,
    /// What it says, or why it cannot be taken at its word.
    pub body: Result<Body, String>,
}

/// What a record says.
#[derive(Debug, PartialEq)]
pub(crate) enum Body {
    Open {
        name: String,
        tags: BTreeMap<String, String>,
        parent: Option<String>,
        started_us: u64,
        context: String,
    },
    Points(Readings),
    Params(BTreeMap<String, String>),
    Tags(BTreeMap<String, String>),
    Progress {
        done: u64,
        total: u64,
    },
    /// The agents tell the coordinator of it: it matters while the run is alive, and nothing is stored.
    Checkpoint,
    Artifact(Artifact),
    Model {
        name: String,
        framework: String,
        manifest: String,
        files: Vec<Artifact>,
    },
    Close {
        failed: bool,
        error: Option<String>,
        ended_us: u64,
    },
}

/// Points of several metrics, in the order logged.
#[derive(Debug, PartialEq)]
pub(crate) struct Readings {
    /// Names; `None` where the name is outside the grammar and its points cannot be kept.
    pub keys: Vec<Option<String>>,
    /// Index into `keys`, and the point. The index is always within.
    pub points: Vec<(u32, Point)>,
    /// What is wrong with the names that cannot be kept.
    pub error: Option<String>,
}

/// Splits whole lines into records. Bytes behind the last newline are a torn line: not a record yet.
/// Blank lines are skipped.
pub(crate) fn parse(lines: &[u8]) -> Result<Vec<Record>, TrackingError> {
    let whole = lines
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    let mut records = Vec::new();
    for (number, line) in lines[..whole].split(|&byte| byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        records.push(parse_line(line).ok_or_else(|| {
            TrackingError::Invalid(format!(
                "line {} of the call carries no sequence: {:?}; each line is one JSON object with \"s\", from 1",
                number + 1,
                String::from_utf8_lossy(&line[..line.len().min(80)])
            ))
        })?);
    }
    Ok(records)
}

/// `None` when not even a sequence can be read.
fn parse_line(line: &[u8]) -> Option<Record> {
    let refused = |why: String| {
        let sequence = sequence_of(line)?;
        Some(Record {
            sequence,
            through: sequence,
            body: Err(why),
        })
    };
    if line.len() > MAX_RECORD_BYTES {
        return refused(format!(
            "the record has {} bytes, at most {MAX_RECORD_BYTES}; log it in parts",
            line.len()
        ));
    }
    match serde_json::from_slice::<Raw<'_>>(line) {
        Ok(raw) if raw.s > 0 => Some(Record {
            sequence: raw.s,
            through: raw.through(),
            body: raw.check(),
        }),
        Ok(_) => None,
        Err(error) => refused(format!("the record cannot be read: {error}")),
    }
}

/// Reads no more of a line than its sequence, so that the rest may be anything.
fn sequence_of(line: &[u8]) -> Option<u64> {
    struct Head<'a>(&'a mut Option<u64>);
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

/// Text borrowed from the line where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

/// Every field of every kind: kinds do not disagree about a field, and a flat struct is read as it
/// streams by, where an enum tagged inside would be buffered first.
#[derive(Deserialize)]
struct Raw<'a> {
    s: u64,
    #[serde(borrow)]
    k: Option<Text<'a>>,
    #[serde(borrow)]
    keys: Option<Vec<Text<'a>>>,
    points: Option<Vec<RawPoint>>,
    name: Option<String>,
    tags: Option<BTreeMap<String, String>>,
    parent: Option<String>,
    started_us: Option<u64>,
    context: Option<serde_json::Map<String, serde_json::Value>>,
    params: Option<BTreeMap<String, serde_json::Value>>,
    done: Option<u64>,
    total: Option<u64>,
    path: Option<String>,
    sha256: Option<String>,
    size_bytes: Option<u64>,
    framework: Option<String>,
    manifest: Option<serde_json::Map<String, serde_json::Value>>,
    files: Option<Vec<Artifact>>,
    status: Option<String>,
    error: Option<String>,
    ended_us: Option<u64>,
    at_us: Option<u64>,
    through: Option<u64>,
    why: Option<String>,
}

impl Raw<'_> {
    /// A sender tells of lost records as one, however many; no other kind stands for more than itself,
    /// and no process logs so many that the number could run out.
    fn through(&self) -> u64 {
        let lost = self.k.as_ref().is_some_and(|kind| kind.0 == LOST);
        let through = self.through.unwrap_or(self.s).max(self.s);
        if lost && through - self.s <= MOST_LOST {
            through
        } else {
            self.s
        }
    }

    fn check(self) -> Result<Body, String> {
        let kind = needed("k", self.k)?.0;
        match kind.as_ref() {
            "open" => {
                let tags = self.tags.unwrap_or_default();
                check_keys("tag", &tags)?;
                if let Some(parent) = self.parent.as_deref()
                    && !is_tracked_run(parent)
                {
                    return Err(format!("parent {parent:?} is not the id of a run"));
                }
                Ok(Body::Open {
                    name: needed("name", self.name)?,
                    tags,
                    parent: self.parent,
                    started_us: needed("started_us", self.started_us)?,
                    context: serde_json::Value::from(self.context.unwrap_or_default()).to_string(),
                })
            }
            "points" => readings(needed("keys", self.keys)?, needed("points", self.points)?),
            "params" => {
                let params = needed("params", self.params)?;
                check_keys("parameter", &params)?;
                if let Some((name, _)) = params
                    .iter()
                    .find(|(_, value)| value.is_array() || value.is_object())
                {
                    return Err(format!(
                        "parameter {name:?} is not a scalar; log it as text or as several parameters"
                    ));
                }
                Ok(Body::Params(
                    params
                        .into_iter()
                        .map(|(name, value)| (name, value.to_string()))
                        .collect(),
                ))
            }
            "tags" => {
                let tags = needed("tags", self.tags)?;
                check_keys("tag", &tags)?;
                Ok(Body::Tags(tags))
            }
            "progress" => Ok(Body::Progress {
                done: needed("done", self.done)?,
                total: needed("total", self.total)?,
            }),
            "checkpoint" => needed("at_us", self.at_us).map(|_| Body::Checkpoint),
            "artifact" => {
                let artifact = Artifact {
                    path: needed("path", self.path)?,
                    sha256: needed("sha256", self.sha256)?,
                    size_bytes: needed("size_bytes", self.size_bytes)?,
                };
                check_artifact(&artifact)?;
                Ok(Body::Artifact(artifact))
            }
            "model" => {
                let name = needed("name", self.name)?;
                check_model(&name)?;
                let files = needed("files", self.files)?;
                files.iter().try_for_each(check_artifact)?;
                Ok(Body::Model {
                    name,
                    framework: needed("framework", self.framework)?,
                    manifest: serde_json::Value::from(needed("manifest", self.manifest)?)
                        .to_string(),
                    files,
                })
            }
            "close" => {
                let status = needed("status", self.status)?;
                Ok(Body::Close {
                    failed: match status.as_str() {
                        "finished" => false,
                        "failed" => true,
                        other => {
                            return Err(format!(
                                "status {other:?} is not known; allowed are finished and failed"
                            ));
                        }
                    },
                    error: self.error,
                    ended_us: needed("ended_us", self.ended_us)?,
                })
            }
            // Taken, and answered with what its sender could not give us.
            LOST => Err(needed("why", self.why)?.chars().take(1000).collect()),
            other => Err(format!(
                "kind {:?} is not known to this version",
                other.chars().take(40).collect::<String>()
            )),
        }
    }
}

fn needed<T>(field: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| format!("field {field:?} is missing"))
}

fn check_keys<V>(kind: &str, named: &BTreeMap<String, V>) -> Result<(), String> {
    named.keys().try_for_each(|name| check_key(kind, name))
}

fn check_artifact(artifact: &Artifact) -> Result<(), String> {
    check_path(&artifact.path)?;
    if is_sha256(&artifact.sha256) {
        Ok(())
    } else {
        Err(format!(
            "sha256 {:?} of {:?} is not 64 lower-case hexadecimal digits",
            artifact.sha256.chars().take(80).collect::<String>(),
            artifact.path
        ))
    }
}

fn readings(names: Vec<Text<'_>>, raw: Vec<RawPoint>) -> Result<Body, String> {
    if names.len() > MAX_KEYS_PER_RUN {
        return Err(format!(
            "{} metric names in one record, at most {MAX_KEYS_PER_RUN}",
            names.len()
        ));
    }
    let mut error = None;
    let keys: Vec<Option<String>> = names
        .into_iter()
        .map(|name| match check_key("metric", &name.0) {
            Ok(()) => Some(name.0.into_owned()),
            Err(why) => {
                error.get_or_insert(why);
                None
            }
        })
        .collect();
    let mut points = Vec::with_capacity(raw.len());
    for RawPoint { key, point } in raw {
        if key as usize >= keys.len() {
            return Err(format!(
                "a point is of key {key}, but the record names {}",
                keys.len()
            ));
        }
        points.push((key, point));
    }
    Ok(Body::Points(Readings {
        keys,
        points,
        error,
    }))
}

/// `[key index, step, time_us, value]`.
struct RawPoint {
    key: u32,
    point: Point,
}

impl<'de> Deserialize<'de> for RawPoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Four;
        impl<'de> Visitor<'de> for Four {
            type Value = RawPoint;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("[key index, step, time_us, value]")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawPoint, A::Error> {
                fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
                    seq: &mut A,
                    at: usize,
                ) -> Result<T, A::Error> {
                    seq.next_element()?
                        .ok_or_else(|| A::Error::invalid_length(at, &Four))
                }
                let key = next(&mut seq, 0)?;
                let step = next(&mut seq, 1)?;
                let time_us = next(&mut seq, 2)?;
                let Number(value) = next(&mut seq, 3)?;
                if seq.next_element::<IgnoredAny>()?.is_some() {
                    return Err(A::Error::invalid_length(5, &Four));
                }
                Ok(RawPoint {
                    key,
                    point: Point {
                        step,
                        time_us,
                        value,
                    },
                })
            }
        }
        deserializer.deserialize_seq(Four)
    }
}

/// A number, or `"NaN"`, `"Infinity"`, `"-Infinity"`.
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrWord;
        impl Visitor<'_> for NumberOrWord {
            type Value = Number;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number, \"NaN\", \"Infinity\" or \"-Infinity\"")
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Number, E> {
                Ok(Number(value))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Number, E> {
                match word {
                    "NaN" => Ok(Number(f64::NAN)),
                    "Infinity" => Ok(Number(f64::INFINITY)),
                    "-Infinity" => Ok(Number(f64::NEG_INFINITY)),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(NumberOrWord)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Record {
        parse(format!("{line}\n").as_bytes()).unwrap().remove(0)
    }

    fn error_of(line: &str) -> String {
        one(line).body.unwrap_err()
    }

    #[test]
    fn points_are_read_with_their_words_for_what_json_cannot_say() {
        let record = one(
            r#"{"s":3,"k":"points","keys":["loss"],"points":[[0,-1,5,0.1],[0,2,4,"NaN"],[0,3,6,"-Infinity"],[0,4,7,3]]}"#,
        );
        let Ok(Body::Points(readings)) = record.body else {
            panic!("{record:?}");
        };
        assert_eq!(record.sequence, 3);
        assert_eq!(readings.keys, [Some("loss".to_owned())]);
        assert_eq!(readings.points[0].1.value, 0.1);
        assert!(readings.points[1].1.value.is_nan());
        assert_eq!(readings.points[2].1.value, f64::NEG_INFINITY);
        assert_eq!(readings.points[3].1.value, 3.0);
        // A clock that jumped back is kept as it is.
        assert_eq!(readings.points[1].1.time_us, 4);
    }

    #[test]
    fn fields_come_in_any_order_and_unknown_ones_are_passed_over() {
        let record = one(r#"{"new":{"a":[1]},"total":4,"done":1,"k":"progress","s":9}"#);
        assert_eq!(record.sequence, 9);
        assert_eq!(record.body, Ok(Body::Progress { done: 1, total: 4 }));
        let record = one(r#"{"s":2,"k":"checkpoint","step":null,"at_us":7}"#);
        assert_eq!(record.body, Ok(Body::Checkpoint));
    }

    #[test]
    fn every_bad_record_with_a_sequence_says_what_is_wrong() {
        for (line, part) in [
            (r#"{"s":1}"#, "\"k\" is missing"),
            (r#"{"s":1,"k":"later"}"#, "kind \"later\" is not known"),
            (
                r#"{"s":1,"k":"points","keys":["a"]}"#,
                "\"points\" is missing",
            ),
            (
                r#"{"s":1,"k":"points","keys":["a"],"points":[[1,0,0,0]]}"#,
                "of key 1",
            ),
            (
                r#"{"s":1,"k":"points","keys":["a"],"points":[[0,0,0]]}"#,
                "cannot be read",
            ),
            (
                r#"{"s":1,"k":"points","keys":["a"],"points":[[0,0,0,1e999]]}"#,
                "cannot be read",
            ),
            (
                r#"{"s":1,"k":"points","keys":["a"],"points":[[0,0,0,"nan"]]}"#,
                "\"NaN\"",
            ),
            (
                r#"{"s":1,"k":"points","keys":["a"],"points":[[0,0,0,1"#,
                "cannot be read",
            ),
            (
                r#"{"s":1,"k":"points","keys":["a"]} trailing"#,
                "cannot be read",
            ),
            (r#"{"s":1,"k":"params","params":{"a":[1]}}"#, "not a scalar"),
            (r#"{"s":1,"k":"tags","tags":{"":"x"}}"#, "empty name"),
            (r#"{"s":1,"k":"tags","tags":{"a":1}}"#, "cannot be read"),
            (
                r#"{"s":1,"k":"checkpoint","step":41}"#,
                "\"at_us\" is missing",
            ),
            (
                r#"{"s":1,"k":"progress","done":-1,"total":2}"#,
                "cannot be read",
            ),
            (
                r#"{"s":1,"k":"artifact","path":"../x","sha256":"","size_bytes":1}"#,
                "relative path",
            ),
            (
                r#"{"s":1,"k":"artifact","path":"x","sha256":"AB","size_bytes":1}"#,
                "hexadecimal",
            ),
            (
                r#"{"s":1,"k":"model","name":"A b","framework":"x","manifest":{},"files":[]}"#,
                "model name",
            ),
            (
                r#"{"s":1,"k":"close","status":"done","ended_us":1}"#,
                "finished and failed",
            ),
            (
                r#"{"s":1,"k":"open","name":"n","parent":"../x","started_us":1}"#,
                "not the id of a run",
            ),
        ] {
            let error = error_of(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn lines_without_a_sequence_refuse_the_call_and_name_the_line() {
        for bad in [
            "garbage",
            "{}",
            "[1]",
            r#"{"s":0,"k":"tags"}"#,
            r#"{"s":-1}"#,
            r#"{"s":"1"}"#,
            "\u{0}\u{1}",
        ] {
            let lines = format!("{{\"s\":1,\"k\":\"progress\",\"done\":0,\"total\":1}}\n{bad}\n");
            let error = parse(lines.as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with("line 2 "), "{bad}: {error}");
        }
        assert!(parse(b"\xff\xfe\n").is_err());
    }

    #[test]
    fn a_torn_last_line_is_not_a_record_yet() {
        let whole = r#"{"s":1,"k":"progress","done":0,"total":1}"#;
        let lines = format!("{whole}\n\n{{\"s\":2,\"k\":\"prog");
        assert_eq!(parse(lines.as_bytes()).unwrap().len(), 1);
        assert_eq!(parse(whole.as_bytes()).unwrap().len(), 0);
        assert_eq!(parse(b"").unwrap().len(), 0);
    }

    #[test]
    fn one_bad_metric_name_does_not_take_the_good_ones_with_it() {
        let record = one(r#"{"s":1,"k":"points","keys":["","a"],"points":[[0,0,0,1],[1,0,0,2]]}"#);
        let Ok(Body::Points(readings)) = record.body else {
            panic!("{record:?}");
        };
        assert_eq!(readings.keys, [None, Some("a".to_owned())]);
        assert!(readings.error.unwrap().contains("empty name"));
    }

    #[test]
    fn a_record_past_the_limit_is_answered_and_taken() {
        let long = format!(
            r#"{{"s":7,"k":"tags","tags":{{"a":"{}"}}}}"#,
            "x".repeat(MAX_RECORD_BYTES)
        );
        let record = one(&long);
        assert_eq!(record.sequence, 7);
        assert!(record.body.unwrap_err().contains("at most 4194304"));
    }
}
