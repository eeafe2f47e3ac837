//! What an array may be: how many elements, how many at once, and what a sweep may give them.

use super::Refusal;
use crate::model::{ArrayRequest, IndexRange, Parameter, WorkloadSpec};
use std::collections::{BTreeMap, BTreeSet};

/// Elements of one array at most: one log entry makes them all, and one look shows them.
pub const MOST_ELEMENTS: u64 = 10_000;
/// Bytes of a specification times elements at most, for a snapshot holds every run in full.
const MOST_ARRAY_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of all that a sweep gives at most: they travel in one log entry.
const MOST_PARAMETER_BYTES: usize = 1024 * 1024;
const MOST_PARAMETERS: usize = 100;
const LONGEST_PARAMETER_NAME: usize = 64;

/// Index and parameters of each element, in order.
pub type Elements = Vec<(u32, BTreeMap<String, Parameter>)>;

/// The elements of an array; or why there can be no such array.
pub fn elements(request: &ArrayRequest) -> Result<Elements, Refusal> {
    if request.most_alive == Some(0) {
        return Err(
            Refusal::invalid("with 0 elements at once the array would never start")
                .allowed("at least 1")
                .hint("as in --array 0-99%8, which runs 8 at once; leave %N out for no limit"),
        );
    }
    check_ranges(&request.indexes)?;
    let swept = request.parameters.len() as u64;
    let named: u64 = request.indexes.iter().map(|range| range.len()).sum();
    let count = if request.indexes.is_empty() {
        swept
    } else {
        named
    };
    if count == 0 || count > MOST_ELEMENTS {
        return Err(Refusal::invalid(format!("{count} elements are asked for"))
            .allowed(format!("1 to {MOST_ELEMENTS}"))
            .hint(if swept > 0 {
                "sweep fewer values, or draw some of them: --sweep-mode random --samples N"
            } else {
                "let each element do more, or submit several arrays"
            }));
    }
    if swept > 0 && swept != count {
        return Err(Refusal::invalid(format!(
            "{count} elements are asked for, with {swept} sets of parameters"
        ))
        .allowed("as many of the one as of the other"));
    }
    check_parameters(&request.parameters)?;
    let indexes: Vec<u32> = if request.indexes.is_empty() {
        (0..u32::try_from(count).unwrap_or(u32::MAX)).collect()
    } else {
        request
            .indexes
            .iter()
            .flat_map(|range| range.indexes())
            .collect()
    };
    let mut seen = BTreeSet::new();
    if let Some(twice) = indexes.iter().find(|index| !seen.insert(**index)) {
        return Err(Refusal::invalid(format!("index {twice} is named twice"))
            .allowed("each index once, as in 0-9,20"));
    }
    let mut parameters = request.parameters.iter();
    Ok(indexes
        .into_iter()
        .map(|index| (index, parameters.next().cloned().unwrap_or_default()))
        .collect())
}

fn check_ranges(ranges: &[IndexRange]) -> Result<(), Refusal> {
    for range in ranges {
        if range.step == 0 {
            return Err(Refusal::invalid(format!("the step of {range} is 0"))
                .allowed("a step of at least 1, as in 0-10:2"));
        }
        if range.is_empty() {
            return Err(Refusal::invalid(format!("the range {range} is empty"))
                .allowed("the smaller index first, as in 0-99"));
        }
    }
    Ok(())
}

fn check_parameters(sets: &[BTreeMap<String, Parameter>]) -> Result<(), Refusal> {
    let Some(first) = sets.first() else {
        return Ok(());
    };
    if first.is_empty() || first.len() > MOST_PARAMETERS {
        return Err(
            Refusal::invalid(format!("{} parameters are swept", first.len()))
                .allowed(format!("1 to {MOST_PARAMETERS}")),
        );
    }
    for name in first.keys() {
        let good = name.len() <= LONGEST_PARAMETER_NAME
            && !name.is_empty()
            && !name.as_bytes()[0].is_ascii_digit()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if !good {
            return Err(
                Refusal::invalid(format!("parameter {name:?} is not valid")).allowed(format!(
                    "1 to {LONGEST_PARAMETER_NAME} letters, digits, '_', '.' and '-', not beginning with a digit"
                )),
            );
        }
    }
    if let Some(other) = sets.iter().find(|set| !set.keys().eq(first.keys())) {
        return Err(
            Refusal::invalid("the elements of the sweep have different parameters").allowed(
                format!(
                    "the same for each: {}, not {}",
                    list(first.keys()),
                    list(other.keys())
                ),
            ),
        );
    }
    let bytes: usize = sets
        .iter()
        .flatten()
        .map(|(name, value)| name.len() + value.as_str().len())
        .sum();
    if bytes > MOST_PARAMETER_BYTES {
        return Err(
            Refusal::invalid(format!("the parameters of the sweep take {bytes} bytes"))
                .allowed(format!("at most {MOST_PARAMETER_BYTES} bytes"))
                .hint("put large values in files of the working folder and sweep their names"),
        );
    }
    let holds_nul =
        |value: &Parameter| matches!(value, Parameter::Text(text) if text.contains('\0'));
    if let Some((name, _)) = sets.iter().flatten().find(|(_, value)| holds_nul(value)) {
        return Err(Refusal::invalid(format!(
            "a value of parameter {name:?} holds a NUL byte"
        )));
    }
    Ok(())
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Refuses what would make every snapshot too large, and commands that become so once filled in.
pub fn check_size(
    spec: &WorkloadSpec,
    elements: &[(u32, BTreeMap<String, Parameter>)],
) -> Result<(), Refusal> {
    let own = super::spec_bytes(spec) as u64;
    let bytes = own.saturating_mul(elements.len() as u64);
    if bytes > MOST_ARRAY_BYTES {
        return Err(Refusal::invalid(format!(
            "{} elements of a specification of {own} bytes take {bytes} bytes",
            elements.len()
        ))
        .allowed(format!("at most {MOST_ARRAY_BYTES} bytes"))
        .hint("put large values in a file of the working folder"));
    }
    for (index, parameters) in elements {
        let filled = spec.command_bytes_with(parameters);
        if filled > super::MOST_SPEC_BYTES {
            return Err(Refusal::invalid(format!(
                "the command of element {index} takes {filled} bytes once its parameters are filled in"
            ))
            .allowed(format!("at most {} bytes", super::MOST_SPEC_BYTES)));
        }
    }
    Ok(())
}
