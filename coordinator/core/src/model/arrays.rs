//! Arrays: many runs of one specification, submitted, shown, cancelled and followed as one.
//!
//! An array is named after its first run, and its runs have the ids that follow: `array-17` of three
//! elements is `run-17`, `run-18` and `run-19`.

use super::{ArrayId, InvalidName, Run, RunId, TenantName, UserName, WorkloadSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// An array that was admitted. What its elements share they hold themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Array {
    /// Id.
    pub id: ArrayId,
    /// Tenant that is charged.
    pub tenant: TenantName,
    /// Who submitted it.
    pub user: UserName,
    /// Number of elements.
    pub size: u32,
    /// Elements that may be queued or alive at once; absent: all.
    pub most_alive: Option<u32>,
}

impl Array {
    /// The runs of its elements, first to last.
    pub fn runs(&self) -> std::ops::Range<RunId> {
        let first = self.id.first_run();
        first..RunId(first.0.saturating_add(u64::from(self.size)))
    }
}

/// A run's part in an array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Element {
    /// The array.
    pub array: ArrayId,
    /// Its index, as asked for.
    pub index: u32,
    /// What a sweep gives it, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Parameter>,
}

/// One value of a sweep. A number is kept as it is written: it is told on and never reckoned with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parameter {
    /// Words.
    Text(String),
    /// A number as JSON writes it.
    Number(String),
    /// Yes or no.
    Flag(bool),
}

impl Parameter {
    /// As it stands in a command.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(text) => text,
            Self::Flag(true) => "true",
            Self::Flag(false) => "false",
        }
    }
}

/// The elements that a submit asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ArrayRequest {
    /// Indexes, in order. Empty with parameters: as many as there are, from 0.
    pub indexes: Vec<IndexRange>,
    /// Elements that may be queued or alive at once; absent: all.
    pub most_alive: Option<u32>,
    /// What a sweep gives each element; empty: no sweep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<BTreeMap<String, Parameter>>,
}

/// Indexes from the first to the last, both included, so far apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRange {
    /// First.
    pub first: u32,
    /// No index is greater.
    pub last: u32,
    /// From one to the next.
    pub step: u32,
}

impl IndexRange {
    /// How many indexes it holds; none when it ends before it begins, or takes no steps.
    pub fn len(self) -> u64 {
        match (self.last.checked_sub(self.first), self.step) {
            (None, _) | (_, 0) => 0,
            (Some(span), step) => u64::from(span / step) + 1,
        }
    }

    /// Whether it holds none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Its indexes.
    pub fn indexes(self) -> impl Iterator<Item = u32> {
        (self.first..=self.last).step_by(self.step.max(1) as usize)
    }
}

impl fmt::Display for IndexRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first == self.last, self.step) {
            (true, 1) => write!(formatter, "{}", self.first),
            (_, 1) => write!(formatter, "{}-{}", self.first, self.last),
            (_, step) => write!(formatter, "{}-{}:{step}", self.first, self.last),
        }
    }
}

impl FromStr for ArrayRequest {
    type Err = InvalidName;

    /// Reads `0-99`, `0-99%8`, `1,3,7` and `0-10:2`. Whether that makes sense is admission's to say.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        read(text).ok_or_else(|| InvalidName {
            kind: "array",
            given: text.to_owned(),
            allowed: "indexes, and how many at once: 0-99, 0-99%8, 1,3,7 or 0-10:2",
        })
    }
}

fn read(text: &str) -> Option<ArrayRequest> {
    let (indexes, most_alive) = match text.split_once('%') {
        Some((indexes, most)) => (indexes, Some(number(most)?)),
        None => (text, None),
    };
    let indexes = indexes.split(',').map(range).collect::<Option<_>>()?;
    Some(ArrayRequest {
        indexes,
        most_alive,
        parameters: Vec::new(),
    })
}

fn range(text: &str) -> Option<IndexRange> {
    let (span, step) = match text.split_once(':') {
        Some((span, step)) => (span, number(step)?),
        None => (text, 1),
    };
    let (first, last) = match span.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(span)?, number(span)?),
    };
    Some(IndexRange { first, last, step })
}

fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl WorkloadSpec {
    /// The command of one element: `{name}` stands for the parameter of that name. What names no
    /// parameter stays as it is, for braces are common in arguments.
    pub fn command_of(&self, element: Option<&Element>) -> Vec<String> {
        let Some(element) = element.filter(|element| !element.parameters.is_empty()) else {
            return self.command.clone();
        };
        self.command
            .iter()
            .map(|argument| Pieces::of(argument, &element.parameters).collect())
            .collect()
    }

    /// Bytes of the command once these parameters are filled in, without making it.
    pub fn command_bytes_with(&self, parameters: &BTreeMap<String, Parameter>) -> usize {
        self.command
            .iter()
            .flat_map(|argument| Pieces::of(argument, parameters))
            .fold(0, |bytes: usize, piece| bytes.saturating_add(piece.len()))
    }
}

impl Run {
    /// Program and arguments, with the parameters of its element filled in.
    pub fn command(&self) -> Vec<String> {
        self.spec.command_of(self.element.as_deref())
    }
}

/// An argument in pieces, left to right and once, so that what a value holds is never taken for a
/// placeholder.
struct Pieces<'a> {
    rest: &'a str,
    parameters: &'a BTreeMap<String, Parameter>,
}

impl<'a> Pieces<'a> {
    fn of(rest: &'a str, parameters: &'a BTreeMap<String, Parameter>) -> Self {
        Self { rest, parameters }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if let Some(inner) = self.rest.strip_prefix('{')
            && let Some((name, after)) = inner.split_once('}')
            && let Some(value) = self.parameters.get(name)
        {
            self.rest = after;
            return Some(value.as_str());
        }
        // Up to the next brace; one that begins no placeholder is text like any other.
        let from = usize::from(self.rest.starts_with('{'));
        let end = self.rest[from..]
            .find('{')
            .map_or(self.rest.len(), |open| from + open);
        let (piece, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!piece.is_empty()).then_some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_read_as_people_write_them() {
        for (text, indexes, most_alive) in [
            ("0-3", vec![0, 1, 2, 3], None),
            ("0-3%2", vec![0, 1, 2, 3], Some(2)),
            ("1,3,7", vec![1, 3, 7], None),
            ("0-10:2", vec![0, 2, 4, 6, 8, 10], None),
            ("0-9:4,100%0", vec![0, 4, 8, 100], Some(0)),
            ("5", vec![5], None),
        ] {
            let request: ArrayRequest = text.parse().expect("an array");
            let read: Vec<u32> = request.indexes.iter().flat_map(|r| r.indexes()).collect();
            let count: u64 = request.indexes.iter().map(|range| range.len()).sum();
            assert_eq!((read, request.most_alive), (indexes, most_alive), "{text}");
            assert_eq!(
                count,
                request.indexes.iter().flat_map(|r| r.indexes()).count() as u64
            );
        }
        for bad in [
            "",
            "%8",
            "0-",
            "-3",
            "a-b",
            "0-3%",
            "0-3%x",
            "1,,2",
            "0-3:",
            "+1",
            "0-4294967296",
            "1 - 3",
            "0-3%2%2",
            "0--3",
        ] {
            assert!(bad.parse::<ArrayRequest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_knows_its_length_without_counting() {
        let range = |first, last, step| IndexRange { first, last, step };
        assert_eq!(range(0, u32::MAX, 1).len(), 1 << 32);
        assert_eq!(range(5, 3, 1).len(), 0);
        assert_eq!(range(0, 3, 0).len(), 0);
        assert_eq!(range(0, 10, 3).len(), 4);
    }

    #[test]
    fn parameters_are_filled_in_once_and_other_braces_are_left_alone() {
        let parameters = BTreeMap::from([
            ("lr".to_owned(), Parameter::Number("0.1".to_owned())),
            ("name".to_owned(), Parameter::Text("{lr}".to_owned())),
            ("fast".to_owned(), Parameter::Flag(true)),
        ]);
        for (argument, filled) in [
            ("--lr={lr}", "--lr=0.1"),
            ("{name}-{fast}", "{lr}-true"),
            (r#"{"lr": {lr}, "x": {}}"#, r#"{"lr": 0.1, "x": {}}"#),
            ("{{lr}}", "{0.1}"),
            ("{unknown} {", "{unknown} {"),
            ("é{lr}é", "é0.1é"),
        ] {
            let pieces = Pieces::of(argument, &parameters);
            assert_eq!(pieces.collect::<String>(), filled);
        }
    }
}
