//! Arrays as text.

use super::super::Paint;
use super::super::amounts::{ago, duration, gpu_hours, moment, money};
use super::super::plan::devices_asked;
use super::super::tables::{pairs, plain};
use super::{shown, tags};
use platform_proto::http::{ArrayView, ElementView};
use serde_json::Value;
use std::collections::BTreeMap;

/// Sets of parameters that a plan shows.
const MOST_SETS: usize = 3;

/// `3 of 10 ended, 1 of them failed; 2 run, 1 queued, 4 held`.
pub fn array_progress(array: &ArrayView) -> String {
    let part = |count: u32, word: &str| (count > 0).then(|| format!("{count} {word}"));
    let list = |parts: [Option<String>; 3]| parts.into_iter().flatten().collect::<Vec<_>>();
    let badly = list([
        part(array.failed, "failed"),
        part(array.cancelled, "cancelled"),
        None,
    ]);
    let waiting = list([
        part(array.alive, "run"),
        part(array.queued, "queued"),
        part(array.held, "held"),
    ]);
    let mut text = format!("{} of {} ended", array.ended(), array.size);
    if !badly.is_empty() {
        text.push_str(&format!(", {}", badly.join(", ")));
    }
    if !waiting.is_empty() {
        text.push_str(&format!("; {}", waiting.join(", ")));
    }
    text
}

/// `100 runs, 8 at once`.
pub fn elements(size: u32, most_alive: Option<u32>) -> String {
    let runs = if size == 1 { "run" } else { "runs" };
    let at_once = most_alive.map_or_else(String::new, |most| format!(", {most} at once"));
    format!("{size} {runs}{at_once}")
}

/// `lr=0.1 depth=2`.
pub fn parameters(parameters: &BTreeMap<String, Value>) -> String {
    let pairs: Vec<String> = parameters
        .iter()
        .map(|(name, value)| {
            let value = match value {
                Value::String(text) => plain(text),
                other => other.to_string(),
            };
            format!("{}={value}", plain(name))
        })
        .collect();
    pairs.join(" ")
}

/// The first sets of a sweep, one to a line.
pub fn first_sets(sets: &[BTreeMap<String, Value>], size: u32) -> String {
    let mut lines: Vec<String> = sets.iter().take(MOST_SETS).map(parameters).collect();
    let more = (size as usize).saturating_sub(lines.len());
    if !lines.is_empty() && more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

/// `array-17, index 3 of 100`.
pub fn element(element: &ElementView) -> String {
    format!(
        "{}, index {} of {}",
        element.array, element.index, element.size
    )
}

/// `platform runs show ARRAY`, and the last words of an attached `platform run`.
pub fn array(array: &ArrayView, paint: Paint) -> String {
    let took = array
        .ended_us
        .map(|end| duration(end.saturating_sub(array.submitted_us)))
        .unwrap_or_default();
    pairs(&[
        ("array", paint.bold(&array.id)),
        ("name", plain(&array.spec.name)),
        ("state", paint.state(&array.state)),
        ("runs", elements(array.size, array.most_alive)),
        ("progress", array_progress(array)),
        ("user", plain(&array.user)),
        ("tenant", plain(&array.tenant)),
        ("tags", tags(&array.spec.tags)),
        ("follows", plain(&array.spec.after.join(", "))),
        ("devices", format!("{} each", devices_asked(&array.spec))),
        ("submitted", moment(array.submitted_us)),
        ("took", took),
        ("GPU hours", gpu_hours(array.gpu_us)),
        ("cost", money(array.cost_micro, &array.currency)),
    ])
}

/// A row of `platform runs list`.
pub fn array_row(array: &ArrayView, now_us: u64) -> Vec<String> {
    vec![
        array.id.clone(),
        format!("{} ({})", plain(&array.spec.name), array_progress(array)),
        array.state.clone(),
        plain(&shown(
            array.spec.priority,
            array.spec.priority_class.as_deref(),
        )),
        plain(&array.user),
        tags(&array.spec.tags),
        format!("{} each", devices_asked(&array.spec)),
        array
            .ended_us
            .map(|end| duration(end.saturating_sub(array.submitted_us)))
            .unwrap_or_default(),
        money(array.cost_micro, &array.currency),
        ago(array.submitted_us, now_us),
    ]
}
