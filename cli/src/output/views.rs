//! Each HTTP type as text for people. Pure: the same value and clock give the same text, so that
//! whole outputs are held by snapshots.

mod arrays;
mod budgets;
mod idle;
mod outlook;
mod platform;

pub use arrays::*;
pub use budgets::*;
pub use idle::justified;
pub use outlook::*;
pub use platform::*;

use super::Paint;
use super::amounts::{ago, bytes, duration, gpu_hours, memory, metric, milli, moment, money};
use super::plan::devices_asked;
use super::tables::{indented, pairs, plain, table, table_of_values};
use crate::priorities::shown;
use platform_proto::http::*;
use std::collections::{BTreeMap, BTreeSet};

fn tags(tags: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = tags
        .iter()
        .map(|(key, value)| format!("{}={}", plain(key), plain(value)))
        .collect();
    pairs.join(" ")
}

fn mark(simulated: bool) -> &'static str {
    if simulated { "simulated" } else { "" }
}

/// From start to end, or until now.
/// How long the last attempt ran, or has run: a run that was stopped and waits again grows no older.
fn run_duration(run: &RunView, now_us: u64) -> String {
    run.started_us.map_or_else(String::new, |start| {
        let stopped = run.attempts.last().and_then(|attempt| attempt.ended_us);
        let end = stopped.or(run.ended_us).unwrap_or(now_us);
        duration(end.saturating_sub(start))
    })
}

#[cfg(test)]
#[test]
fn a_run_that_was_stopped_and_waits_again_grows_no_older() {
    let mut run = crate::snapshots::values::run();
    run.started_us = Some(60_000_000);
    run.ended_us = None;
    run.attempts[0].ended_us = Some(90_000_000);
    assert_eq!(run_duration(&run, 900_000_000), duration(30_000_000));
    run.attempts[0].ended_us = None;
    assert_eq!(run_duration(&run, 900_000_000), duration(840_000_000));
}

/// `platform runs list`.
pub fn runs(list: &RunList, now_us: u64, paint: Paint) -> String {
    if list.runs.is_empty() && list.arrays.is_empty() {
        return "no runs; start one with `platform run --tag team=… train.py`\n".to_owned();
    }
    // Newest first: an array has the number of the first of its runs.
    let number = |id: &str| -> u64 {
        let digits = id.rsplit('-').next().unwrap_or_default();
        digits.parse().unwrap_or(0)
    };
    let mut rows: Vec<Vec<String>> = list
        .runs
        .iter()
        .map(|run| {
            vec![
                run.id.clone(),
                run_name(run),
                run.state.clone(),
                plain(&shown(
                    run.spec.priority,
                    run.spec.priority_class.as_deref(),
                )),
                plain(&run.user),
                tags(&run.spec.tags),
                devices_asked(&run.spec)
                    + if run.simulated { " (simulated)" } else { "" }
                    + &idle::mark(run),
                run_duration(run, now_us),
                money(run.cost_micro, &run.currency),
                ago(run.submitted_us, now_us),
            ]
        })
        .collect();
    rows.extend(list.arrays.iter().map(|array| array_row(array, now_us)));
    rows.sort_by_key(|row| std::cmp::Reverse(number(&row[0])));
    let mut columns = vec![
        "run",
        "name",
        "state",
        "priority",
        "user",
        "tags",
        "devices",
        "took",
        "cost",
        "submitted",
    ];
    // Where every run has the usual one there is nothing to tell.
    let place = columns.iter().position(|column| *column == "priority");
    if let Some(place) = place.filter(|place| rows.iter().all(|row| row[*place].is_empty())) {
        columns.remove(place);
        for row in &mut rows {
            row.remove(place);
        }
    }
    let mut text = table(&columns, rows, paint);
    if let Some(array) = list.arrays.first() {
        text.push_str(&format!(
            "its runs: platform runs list --array {}\n",
            array.id
        ));
    }
    if let Some(next) = &list.next {
        text.push_str(&format!("older: platform runs list --before {next}\n"));
    }
    text
}

/// Its name, and what sets it apart in its array.
fn run_name(run: &RunView) -> String {
    let Some(element) = &run.element else {
        return plain(&run.spec.name);
    };
    let own = format!("{} [{}]", plain(&run.spec.name), element.index);
    format!("{own} {}", parameters(&element.parameters))
        .trim_end()
        .to_owned()
}

/// `platform runs list --tracked`.
pub fn tracked_list(list: &TrackedList, now_us: u64, paint: Paint) -> String {
    if list.runs.is_empty() {
        return "nothing tracked yet\n".to_owned();
    }
    let rows = list
        .runs
        .iter()
        .map(|run| {
            vec![
                run.run.clone(),
                plain(&run.name),
                // A run of the platform whose program never opened the SDK has only its log here.
                Some(&run.status)
                    .filter(|status| *status != "unknown")
                    .cloned()
                    .unwrap_or_default(),
                plain(&run.user),
                tags(&run.tags),
                ago(run.started_us, now_us),
            ]
        })
        .collect();
    table(
        &["run", "name", "state", "user", "tags", "started"],
        rows,
        paint,
    )
}

/// Whether a metric is the user's own; the SDK's readings of the machine stand under `system/`.
pub fn is_own_metric(key: &str) -> bool {
    !key.starts_with("system/") && !key.starts_with("system.")
}

/// The newest values in one line, at most so many.
pub fn metrics_line(metrics: &BTreeMap<String, MetricLatest>, most: usize) -> String {
    let own: Vec<(&String, &MetricLatest)> = metrics
        .iter()
        .filter(|(key, _)| is_own_metric(key))
        .collect();
    let mut parts: Vec<String> = own
        .iter()
        .take(most)
        .map(|(key, latest)| format!("{}={}", plain(key), metric(latest.value)))
        .collect();
    if own.len() > most {
        parts.push(format!("and {} more", own.len() - most));
    }
    parts.join(" ")
}

/// `platform runs show`.
pub fn run(
    run: Option<&RunView>,
    tracked: Option<&TrackedRun>,
    now_us: u64,
    paint: Paint,
) -> String {
    let mut text = String::new();
    if let Some(run) = run {
        text.push_str(&run_head(run, now_us, paint));
        for attempt in &run.attempts {
            text.push_str(&attempt_text(attempt, now_us));
        }
    } else if let Some(tracked) = tracked {
        text.push_str(&pairs(&[
            ("run", tracked.run.clone()),
            ("name", plain(&tracked.name)),
            ("state", paint.state(&tracked.status)),
            ("user", plain(&tracked.user)),
            ("tags", tags(&tracked.tags)),
            ("parent", tracked.parent.clone().unwrap_or_default()),
            ("started", moment(tracked.started_us)),
            (
                "took",
                tracked
                    .ended_us
                    .map(|end| duration(end.saturating_sub(tracked.started_us)))
                    .unwrap_or_default(),
            ),
        ]));
    }
    if let Some(tracked) = tracked {
        text.push_str(&tracked_text(tracked, paint));
    }
    text
}

fn run_head(run: &RunView, now_us: u64, paint: Paint) -> String {
    let spec = &run.spec;
    pairs(&[
        ("run", run.id.clone()),
        ("name", plain(&spec.name)),
        ("state", paint.state(&run.state)),
        ("why", run.detail.as_deref().map(plain).unwrap_or_default()),
        (
            "exit code",
            run.exit_code
                .map(|code| code.to_string())
                .unwrap_or_default(),
        ),
        ("idle", idle::idle(run)),
        ("justified", idle::justification(run)),
        ("user", plain(&run.user)),
        ("tenant", plain(&run.tenant)),
        ("follows", plain(&run.spec.after.join(", "))),
        (
            "array",
            run.element.as_ref().map(element).unwrap_or_default(),
        ),
        (
            "parameters",
            run.element
                .as_ref()
                .map(|element| parameters(&element.parameters))
                .unwrap_or_default(),
        ),
        ("pool", spec.pool.clone().unwrap_or_default()),
        (
            "priority",
            plain(&shown(spec.priority, spec.priority_class.as_deref())),
        ),
        ("tags", tags(&spec.tags)),
        (
            "model",
            spec.model.as_deref().map(plain).unwrap_or_default(),
        ),
        ("command", plain(&command_line(&spec.command))),
        (
            "image",
            spec.image.as_deref().map(plain).unwrap_or_default(),
        ),
        (
            "devices",
            devices_asked(spec) + if run.simulated { " (simulated)" } else { "" },
        ),
        (
            "time limit",
            spec.time_limit_ms
                .map(|ms| duration(ms * 1000))
                .unwrap_or_default(),
        ),
        ("submitted", moment(run.submitted_us)),
        ("took", run_duration(run, now_us)),
        ("GPU hours", gpu_hours(run.gpu_us)),
        ("cost", money(run.cost_micro, &run.currency)),
    ])
}

fn attempt_text(attempt: &AttemptView, now_us: u64) -> String {
    let took = attempt
        .started_us
        .map(|start| duration(attempt.ended_us.unwrap_or(now_us).saturating_sub(start)));
    let end = attempt
        .end
        .as_deref()
        .map(|end| format!(": {}", plain(end)))
        .unwrap_or_default();
    let mut text = format!("\nattempt {}  {}{end}", attempt.number, attempt.state);
    if let Some(took) = took {
        text.push_str(&format!("  {took}"));
    }
    if let Some(at_us) = attempt.checkpointed_us {
        let ago = duration(now_us.saturating_sub(at_us));
        text.push_str(&format!("  checkpoint {ago} ago"));
    }
    text.push('\n');
    for (rank, member) in attempt.members.iter().enumerate() {
        let held: Vec<String> = member.devices.iter().map(grant).collect();
        let held = if held.is_empty() {
            "no device".to_owned()
        } else {
            held.join(", ")
        };
        text.push_str(&format!(
            "  member {rank} on {}  {}  {held}\n",
            plain(&member.node),
            member.state
        ));
        if let Some(enforcement) = &member.enforcement {
            text.push_str(&format!("    {}\n", plain(enforcement)));
        }
    }
    text
}

/// A granted share, in words.
pub fn grant(grant: &GrantView) -> String {
    let part = if grant.share_milli == 1000 {
        String::new()
    } else {
        format!("{} of ", milli(u64::from(grant.share_milli)))
    };
    let simulated = if grant.simulated { " (simulated)" } else { "" };
    format!(
        "{part}{} #{}, {}{simulated}",
        plain(&grant.model),
        grant.index,
        memory(grant.memory_mib)
    )
}

fn tracked_text(tracked: &TrackedRun, paint: Paint) -> String {
    let mut text = String::new();
    if let Some(progress) = &tracked.progress {
        text.push_str(&format!(
            "\nprogress  {} of {}\n",
            progress.done, progress.total
        ));
    }
    if !tracked.params.is_empty() {
        let rows = tracked
            .params
            .iter()
            .map(|(key, value)| vec![plain(key), scalar(value)])
            .collect();
        text.push_str(&format!(
            "\n{}",
            table(&["parameter", "value"], rows, paint)
        ));
    }
    if !tracked.metrics.is_empty() {
        let rows = tracked
            .metrics
            .iter()
            .map(|(key, latest)| {
                vec![
                    plain(key),
                    metric(latest.value),
                    latest.step.to_string(),
                    latest.count.to_string(),
                ]
            })
            .collect();
        text.push_str(&format!(
            "\n{}",
            table(&["metric", "latest", "step", "points"], rows, paint)
        ));
    }
    for version in &tracked.models {
        text.push_str(&format!(
            "\nmodel  {} version {} ({})\n",
            plain(&version.name),
            version.version,
            plain(&version.framework)
        ));
    }
    if !tracked.artifacts.is_empty() {
        text.push_str(&format!("\n{}", artifacts(&tracked.artifacts, paint)));
    }
    if let Some(error) = &tracked.error {
        let lines: Vec<String> = error.lines().map(plain).collect();
        text.push_str(&format!("\nerror\n{}", indented(&lines.join("\n"))));
    }
    text
}

fn scalar(value: &serde_json::Value) -> String {
    plain(
        &value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned),
    )
}

/// A command as one would type it.
pub fn command_line(command: &[String]) -> String {
    let quoted: Vec<String> = command
        .iter()
        .map(|part| {
            let plain = !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c));
            if plain {
                part.clone()
            } else {
                format!("'{}'", part.replace('\'', r"'\''"))
            }
        })
        .collect();
    quoted.join(" ")
}

/// Files with their sizes.
pub fn artifacts(files: &[ArtifactView], paint: Paint) -> String {
    let rows = files
        .iter()
        .map(|file| {
            vec![
                plain(&file.path),
                bytes(file.size_bytes),
                file.sha256.chars().take(12).collect(),
            ]
        })
        .collect();
    table(&["file", "size", "sha256"], rows, paint)
}

/// `platform runs explain`.
pub fn explanation(explanation: &Explanation, now_us: u64, paint: Paint) -> String {
    let mut text = format!(
        "{} {}: {}\n",
        explanation.run,
        paint.state(&explanation.state),
        plain(&explanation.summary)
    );
    for reason in &explanation.reasons {
        text.push_str(&format!("  {}\n", plain(reason)));
    }
    if let Some(seen) = &explanation.outlook {
        text.push_str(&indented(&outlook(seen, now_us)));
    } else if explanation.queue_ahead > 0 {
        text.push_str(&format!(
            "  {} ahead of it in its pool\n",
            explanation.queue_ahead
        ));
    }
    if let Some(hint) = &explanation.hint {
        text.push_str(&format!("{} {}\n", paint.bold("hint:"), plain(hint)));
    }
    text
}

/// `platform runs compare`: one column a run.
pub fn comparison(
    compared: &[(Option<RunView>, Option<TrackedRun>)],
    now_us: u64,
    paint: Paint,
) -> String {
    let names: Vec<String> = compared
        .iter()
        .map(|(run, tracked)| {
            run.as_ref()
                .map(|run| run.id.clone())
                .or_else(|| tracked.as_ref().map(|t| t.run.clone()))
                .unwrap_or_default()
        })
        .collect();
    let mut heading = vec![""];
    heading.extend(names.iter().map(String::as_str));
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut add = |name: &str, cells: Vec<String>| {
        if cells.iter().any(|cell| !cell.is_empty()) {
            let mut row = vec![name.to_owned()];
            row.extend(cells);
            rows.push(row);
        }
    };
    let of_run = |show: &dyn Fn(&RunView) -> String| -> Vec<String> {
        compared
            .iter()
            .map(|(run, _)| run.as_ref().map(show).unwrap_or_default())
            .collect()
    };
    let of_tracked = |show: &dyn Fn(&TrackedRun) -> String| -> Vec<String> {
        compared
            .iter()
            .map(|(_, tracked)| tracked.as_ref().map(show).unwrap_or_default())
            .collect()
    };
    add(
        "name",
        compared
            .iter()
            .map(|(run, t)| {
                run.as_ref()
                    .map(|r| plain(&r.spec.name))
                    .or_else(|| t.as_ref().map(|t| plain(&t.name)))
                    .unwrap_or_default()
            })
            .collect(),
    );
    add("state", of_run(&|run| run.state.clone()));
    add("devices", of_run(&|run| devices_asked(&run.spec)));
    add("took", of_run(&|run| run_duration(run, now_us)));
    add("cost", of_run(&|run| money(run.cost_micro, &run.currency)));
    let params: BTreeSet<&String> = compared
        .iter()
        .filter_map(|(_, t)| t.as_ref())
        .flat_map(|t| t.params.keys())
        .collect();
    for key in params {
        add(
            &plain(key),
            of_tracked(&|t| t.params.get(key).map(scalar).unwrap_or_default()),
        );
    }
    let metrics: BTreeSet<&String> = compared
        .iter()
        .filter_map(|(_, t)| t.as_ref())
        .flat_map(|t| t.metrics.keys())
        .collect();
    for key in metrics.into_iter().filter(|key| is_own_metric(key)) {
        add(
            &plain(key),
            of_tracked(&|t| {
                t.metrics
                    .get(key)
                    .map(|latest| metric(latest.value))
                    .unwrap_or_default()
            }),
        );
    }
    table_of_values(&heading, rows, paint)
}
