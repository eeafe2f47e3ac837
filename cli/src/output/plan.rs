//! What a submit would do, and what a run did: the two texts that every `platform run` begins and
//! ends with. Pure.

use super::Paint;
use super::amounts::{duration, gpu_hours, memory, metric, milli, money};
use super::tables::{indented, pairs, plain};
use super::views::{command_line, elements, first_sets, grant, is_own_metric, outlook};
use crate::priorities;
use platform_proto::http::{CostReport, RunSpec, RunView, SubmitResponse, TrackedRun};

/// Preparing is charged too: from here on the summary says how long it took.
const WORTH_SAYING_US: u64 = 1_000_000;

/// What a spec asks of devices, in words.
pub fn devices_asked(spec: &RunSpec) -> String {
    let model = spec
        .gpu_model
        .as_deref()
        .map_or_else(|| "GPU".to_owned(), plain);
    let devices = match (spec.gpu_share_milli, spec.gpus) {
        (Some(share), _) => format!("{} of a {model}", milli(u64::from(share))),
        (None, Some(0)) => "no GPU".to_owned(),
        (None, Some(count)) => format!("{count} x {model}"),
        (None, None) => "default".to_owned(),
    };
    let cap = match spec.gpu_memory_mib {
        Some(mib) if spec.gpus != Some(0) => format!(", {} each", memory(mib)),
        _ => String::new(),
    };
    let nodes = if spec.nodes > 1 {
        format!(" on each of {} nodes", spec.nodes)
    } else {
        String::new()
    };
    format!("{devices}{cap}{nodes}")
}

/// What is uploaded, for the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Upload {
    /// Files in the package.
    pub files: usize,
    /// Their size.
    pub folder_bytes: u64,
    /// The package's size.
    pub packed_bytes: u64,
    /// The store has it already.
    pub stored: bool,
}

/// The plan, shown before a submit.
pub fn plan(plan: &SubmitResponse, upload: Option<&Upload>, paint: Paint) -> String {
    let spec = &plan.spec;
    let default = |field: &str| {
        if plan.defaulted.iter().any(|name| name == field) {
            " (default)"
        } else {
            ""
        }
    };
    let simulated = if plan.simulated { ", simulated" } else { "" };
    let tags: Vec<String> = spec
        .tags
        .iter()
        .map(|(key, value)| format!("{}={}", plain(key), plain(value)))
        .collect();
    let devices_default = if ["gpus", "gpu_share_milli"]
        .iter()
        .any(|field| !default(field).is_empty())
    {
        " (default)"
    } else {
        ""
    };
    let mut reserved = Vec::new();
    reserved.extend(spec.cpu_milli.map(|cpus| format!("{} CPUs", milli(cpus))));
    reserved.extend(spec.memory_mib.map(memory));
    let queue = match (plan.starts_now, plan.queue_ahead, &plan.waits_because) {
        (true, _, _) => "starts now".to_owned(),
        (false, 0, None) => "next in the queue".to_owned(),
        (false, ahead, None) => format!("{ahead} ahead of it"),
        (false, 0, Some(why)) => format!("next in the queue; waits: {}", plain(why)),
        (false, ahead, Some(why)) => format!("{ahead} ahead of it; waits: {}", plain(why)),
    };
    let folder = upload.map(|upload| {
        let files = if upload.files == 1 {
            "1 file".to_owned()
        } else {
            format!("{} files", upload.files)
        };
        let sent = if upload.stored {
            "stored already".to_owned()
        } else {
            format!("{} to send", super::amounts::bytes(upload.packed_bytes))
        };
        format!(
            "{files}, {}, {sent}",
            super::amounts::bytes(upload.folder_bytes)
        )
    });
    let mut text = paint.bold("plan") + "\n";
    text.push_str(&indented(&pairs(&[
        ("name", plain(&spec.name)),
        ("command", plain(&command_line(&spec.command))),
        ("folder", folder.unwrap_or_default()),
        (
            "requirements",
            spec.requirements_path
                .as_deref()
                .map(plain)
                .unwrap_or_default(),
        ),
        (
            "image",
            spec.image.as_deref().map(plain).unwrap_or_default(),
        ),
        (
            "devices",
            format!("{}{devices_default}{simulated}", devices_asked(spec)),
        ),
        ("reserved", reserved.join(", ")),
        (
            "pool",
            spec.pool
                .as_deref()
                .map(|pool| format!("{}{}", plain(pool), default("pool")))
                .unwrap_or_default(),
        ),
        (
            "tenant",
            spec.tenant
                .as_deref()
                .map(|tenant| format!("{}{}", plain(tenant), default("tenant")))
                .unwrap_or_default(),
        ),
        (
            "tags",
            if tags.is_empty() {
                "none".to_owned()
            } else {
                tags.join(" ")
            },
        ),
        (
            "model",
            spec.model.as_deref().map(plain).unwrap_or_default(),
        ),
        (
            "priority",
            plain(&priorities::shown(
                spec.priority,
                spec.priority_class.as_deref(),
            )),
        ),
        (
            "preemption",
            if spec.preemptible == Some(false) {
                "never: it borrows no idle quota either".to_owned()
            } else {
                String::new()
            },
        ),
        ("follows", plain(&spec.after.join(", "))),
        (
            "racks",
            if spec.spread && spec.nodes > 1 {
                "as many as there are".to_owned()
            } else {
                String::new()
            },
        ),
        (
            "runs",
            plan.elements
                .as_ref()
                .map(|count| elements(count.size, count.most_alive))
                .unwrap_or_default(),
        ),
        (
            "sweep",
            plan.elements
                .as_ref()
                .map(|count| first_sets(&count.first_parameters, count.size))
                .unwrap_or_default(),
        ),
        (
            "time limit",
            spec.time_limit_ms
                .map(|ms| duration(ms * 1000) + default("time_limit_ms"))
                .unwrap_or_default(),
        ),
        (
            "warning",
            spec.warning
                .as_ref()
                .map(|warning| {
                    format!(
                        "{} {} before the time limit",
                        plain(&warning.signal),
                        duration(warning.before_ms.saturating_mul(1000))
                    )
                })
                .unwrap_or_default(),
        ),
        (
            "start within",
            spec.start_deadline_ms
                .map(|ms| format!("{}, or never", duration(ms.saturating_mul(1000))))
                .unwrap_or_default(),
        ),
        (
            "retries",
            if spec.retries == 0 {
                String::new()
            } else {
                spec.retries.to_string()
            },
        ),
        ("price", price(plan)),
        ("budgets", super::views::budgets_drawn_on(&plan.budgets)),
        ("queue", queue),
    ])));
    for warning in &plan.warnings {
        text.push_str(&format!(
            "{} {}\n",
            paint.yellow("warning:"),
            plain(warning)
        ));
    }
    text
}

/// The plan of a dry run: with what the run would have before it.
pub fn dry_run(
    plan: &SubmitResponse,
    upload: Option<&Upload>,
    now_us: u64,
    paint: Paint,
) -> String {
    let mut text = self::plan(plan, upload, paint);
    if let Some(seen) = &plan.outlook {
        let counts: String = plan
            .reasons
            .iter()
            .map(|reason| format!("{}\n", plain(reason)))
            .collect();
        text.push_str(&paint.bold("until it starts"));
        text.push('\n');
        text.push_str(&indented(&(counts + &outlook(seen, now_us))));
    }
    text
}

/// `1.10 USD an hour`; of an array that of one run, and of as many as there may be at once.
fn price(plan: &SubmitResponse) -> String {
    let at_most = if plan.price_at_most { "at most " } else { "" };
    let one = money(plan.price_per_hour_micro, &plan.currency);
    let Some(count) = &plan.elements else {
        return format!("{at_most}{one} an hour");
    };
    let alive = count.most_alive.unwrap_or(count.size).min(count.size);
    let all = plan.price_per_hour_micro.saturating_mul(u64::from(alive));
    format!(
        "{at_most}{one} an hour each, {} with {alive} at once",
        money(all, &plan.currency)
    )
}

/// What a run did, shown when it has ended.
pub fn summary(
    run: &RunView,
    tracked: Option<&TrackedRun>,
    team_cost: Option<&CostReport>,
    paint: Paint,
) -> String {
    let prepared = run
        .attempts
        .last()
        .and_then(|attempt| attempt.started_us.map(|start| (attempt.placed_us, start)))
        .map(|(placed, start)| start.saturating_sub(placed))
        .filter(|us| *us >= WORTH_SAYING_US)
        .map(|us| format!(", after {} of preparing", duration(us)))
        .unwrap_or_default();
    let took = run
        .started_us
        .zip(run.ended_us)
        .map(|(start, end)| duration(end.saturating_sub(start)) + &prepared);
    let exit = match run.exit_code {
        Some(0) | None => String::new(),
        Some(code) => format!(", exit code {code}"),
    };
    let why = run
        .detail
        .as_deref()
        .filter(|_| run.state != "succeeded")
        .map(|why| format!(": {}", plain(why)))
        .unwrap_or_default();
    let mut held: Vec<String> = Vec::new();
    for member in run
        .attempts
        .last()
        .map(|attempt| attempt.members.as_slice())
        .unwrap_or_default()
    {
        held.extend(
            member
                .devices
                .iter()
                .map(|device| format!("{} on {}", grant(device), plain(&member.node))),
        );
    }
    let mut cost = money(run.cost_micro, &run.currency);
    if run.gpu_us > 0 {
        cost.push_str(&format!(" for {} GPU hours", gpu_hours(run.gpu_us)));
    }
    let charged: Vec<String> = run
        .spec
        .tags
        .iter()
        .map(|(key, value)| format!("{}={}", plain(key), plain(value)))
        .collect();
    let team = run
        .spec
        .tags
        .get("team")
        .zip(team_cost)
        .and_then(|(team, report)| {
            let row = report.rows.iter().find(|row| row.key == *team)?;
            Some(format!(
                "{} has spent {} in 30 days",
                plain(team),
                money(row.cost_micro, &report.currency)
            ))
        });
    let mut metrics: Vec<String> = Vec::new();
    let mut models: Vec<String> = Vec::new();
    let mut files = 0;
    if let Some(tracked) = tracked {
        metrics.extend(
            tracked
                .metrics
                .iter()
                .filter(|(key, _)| is_own_metric(key))
                .map(|(key, latest)| format!("{} {}", plain(key), metric(latest.value))),
        );
        models.extend(
            tracked
                .models
                .iter()
                .map(|version| format!("{} version {}", plain(&version.name), version.version)),
        );
        files = tracked.artifacts.len();
    }
    // A long tail of metrics hides the summary; `runs show` has them all.
    if metrics.len() > 12 {
        let more = metrics.len() - 12;
        metrics.truncate(12);
        metrics.push(format!("and {more} more"));
    }
    let mut text = format!(
        "{} {}{exit}{why}\n",
        paint.bold(&run.id),
        paint.state(&run.state)
    );
    text.push_str(&indented(&pairs(&[
        ("name", plain(&run.spec.name)),
        ("took", took.unwrap_or_default()),
        (
            "attempts",
            if run.attempts.len() > 1 {
                run.attempts.len().to_string()
            } else {
                String::new()
            },
        ),
        ("metrics", metrics.join("\n")),
        ("models", models.join("\n")),
        (
            "files",
            if files == 0 {
                String::new()
            } else {
                files.to_string()
            },
        ),
        (
            "devices",
            if held.is_empty() {
                "none".to_owned()
            } else {
                held.join("\n")
            },
        ),
        ("cost", cost),
        (
            "charged to",
            if charged.is_empty() {
                "no tag".to_owned()
            } else {
                charged.join(" ")
            },
        ),
        ("team", team.unwrap_or_default()),
    ])));
    text.push_str(&next_commands(run, tracked));
    text
}

fn next_commands(run: &RunView, tracked: Option<&TrackedRun>) -> String {
    let mut next = vec![(format!("platform runs show {}", run.id), "all about it")];
    if run.state == "succeeded" {
        if let Some(version) = tracked.and_then(|tracked| tracked.models.first()) {
            next.push((
                format!("platform models show {}", plain(&version.name)),
                "every version of the model",
            ));
        }
        if tracked.is_some_and(|tracked| !tracked.artifacts.is_empty()) {
            next.push((
                format!("platform artifacts download {}", run.id),
                "fetch its files",
            ));
        }
    } else {
        next.push((format!("platform logs {}", run.id), "its whole log"));
    }
    next.push((
        "platform cost --by team".to_owned(),
        "what each team has spent",
    ));
    let width = next
        .iter()
        .map(|(command, _)| command.len())
        .max()
        .unwrap_or(0);
    let lines: Vec<String> = next
        .iter()
        .map(|(command, what)| format!("{command:width$}  {what}"))
        .collect();
    format!("next\n{}", indented(&lines.join("\n")))
}
