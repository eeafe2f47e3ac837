//! Each HTTP type as text for people. Pure: the same value and clock give the same text, so that
//! whole outputs are held by snapshots.

use super::amounts::{
    ago, bytes, duration, gpu_hours, memory, metric, milli, moment, money, money_figure,
};
use super::plan::devices_asked;
use super::tables::{indented, pairs, plain, table, table_of_values};
use super::{Paint, amounts};
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
fn run_duration(run: &RunView, now_us: u64) -> String {
    run.started_us.map_or_else(String::new, |start| {
        duration(run.ended_us.unwrap_or(now_us).saturating_sub(start))
    })
}

/// `platform runs list`.
pub fn runs(list: &RunList, now_us: u64, paint: Paint) -> String {
    if list.runs.is_empty() {
        return "no runs; start one with `platform run --tag team=… train.py`\n".to_owned();
    }
    let rows = list
        .runs
        .iter()
        .map(|run| {
            vec![
                run.id.clone(),
                plain(&run.spec.name),
                run.state.clone(),
                plain(&run.user),
                tags(&run.spec.tags),
                devices_asked(&run.spec) + if run.simulated { " (simulated)" } else { "" },
                run_duration(run, now_us),
                money(run.cost_micro, &run.currency),
                ago(run.submitted_us, now_us),
            ]
        })
        .collect();
    let mut text = table(
        &[
            "run",
            "name",
            "state",
            "user",
            "tags",
            "devices",
            "took",
            "cost",
            "submitted",
        ],
        rows,
        paint,
    );
    if let Some(next) = &list.next {
        text.push_str(&format!("older: platform runs list --before {next}\n"));
    }
    text
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
                run.status.clone(),
                plain(&run.user),
                tags(&run.tags),
                metrics_line(&run.metrics, 3),
                ago(run.started_us, now_us),
            ]
        })
        .collect();
    table(
        &["run", "name", "state", "user", "tags", "metrics", "started"],
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
        ("user", plain(&run.user)),
        ("tenant", plain(&run.tenant)),
        ("pool", spec.pool.clone().unwrap_or_default()),
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
pub fn explanation(explanation: &Explanation, paint: Paint) -> String {
    let mut text = format!(
        "{} is {}: {}\n",
        explanation.run,
        paint.state(&explanation.state),
        plain(&explanation.summary)
    );
    for reason in &explanation.reasons {
        text.push_str(&format!("  {}\n", plain(reason)));
    }
    if explanation.queue_ahead > 0 {
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

/// `platform nodes list`.
pub fn nodes(list: &NodeList, paint: Paint) -> String {
    if list.nodes.is_empty() {
        return "no nodes; start one with `platform agent`\n".to_owned();
    }
    let rows = list
        .nodes
        .iter()
        .map(|node| {
            let mut models: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
            for device in &node.devices {
                let count = models.entry(&device.model).or_default();
                count.0 += 1;
                count.1 += u64::from(device.share_allocated_milli);
            }
            let devices: Vec<String> = models
                .iter()
                .map(|(model, (count, _))| format!("{count}x{}", plain(model)))
                .collect();
            let used: u64 = models.values().map(|(_, used)| used).sum();
            vec![
                plain(&node.name),
                plain(&node.pool),
                node.state.clone(),
                if devices.is_empty() {
                    "none".to_owned()
                } else {
                    devices.join(" ")
                },
                format!("{} of {}", milli(used), node.devices.len()),
                format!(
                    "{} of {}",
                    milli(node.cpu_reserved_milli),
                    milli(node.cpu_milli)
                ),
                format!(
                    "{} of {}",
                    memory(node.memory_reserved_mib),
                    memory(node.memory_mib)
                ),
                node.runs.len().to_string(),
                mark(node.simulated).to_owned(),
            ]
        })
        .collect();
    table(
        &[
            "node",
            "pool",
            "state",
            "devices",
            "GPUs used",
            "CPUs",
            "memory",
            "runs",
            "note",
        ],
        rows,
        paint,
    )
}

/// `platform nodes show`.
pub fn node(node: &NodeView, paint: Paint) -> String {
    let mut text = pairs(&[
        ("node", plain(&node.name)),
        ("pool", plain(&node.pool)),
        ("state", paint.state(&node.state)),
        ("why", node.reason.as_deref().map(plain).unwrap_or_default()),
        (
            "CPUs",
            format!(
                "{} of {} reserved",
                milli(node.cpu_reserved_milli),
                milli(node.cpu_milli)
            ),
        ),
        (
            "memory",
            format!(
                "{} of {} reserved",
                memory(node.memory_reserved_mib),
                memory(node.memory_mib)
            ),
        ),
        ("runtimes", node.runtimes.join(", ")),
        ("agent", format!("version {}", plain(&node.agent_version))),
        (
            "heard",
            node.heard_ago_ms.map_or_else(
                || "not since the coordinator started".to_owned(),
                |ms| format!("{} ago", duration(ms * 1000)),
            ),
        ),
        ("runs", node.runs.join(" ")),
        ("devices", mark(node.simulated).to_owned()),
    ]);
    if !node.devices.is_empty() {
        let rows = node
            .devices
            .iter()
            .map(|device| {
                vec![
                    device.index.to_string(),
                    plain(&device.model) + if device.simulated { " (simulated)" } else { "" },
                    format!(
                        "{} of {}",
                        memory(device.memory_allocated_mib),
                        memory(device.memory_mib)
                    ),
                    milli(u64::from(device.share_allocated_milli)),
                    device
                        .utilization_percent
                        .map(|percent| format!("{percent:.0}%"))
                        .unwrap_or_default(),
                    device.memory_used_mib.map(memory).unwrap_or_default(),
                    device.runs.join(" "),
                ]
            })
            .collect();
        text.push_str(&format!(
            "\n{}",
            table(
                &[
                    "#",
                    "device",
                    "memory granted",
                    "share",
                    "busy",
                    "memory used",
                    "runs"
                ],
                rows,
                paint
            )
        ));
    }
    if !node.off_platform.is_empty() {
        let lines: Vec<String> = node.off_platform.iter().map(|line| plain(line)).collect();
        text.push_str(&format!(
            "\noff-platform use\n{}",
            indented(&lines.join("\n"))
        ));
    }
    text
}

/// What a change of a node did, or would do.
pub fn node_change(change: &NodeChange, paint: Paint) -> String {
    let mut text = format!(
        "{} is {}\n",
        plain(&change.node.name),
        paint.state(&change.node.state)
    );
    if !change.affected_runs.is_empty() {
        let verb = if change.dry_run {
            "would be stopped"
        } else {
            "are stopped"
        };
        text.push_str(&format!(
            "  at its deadline {verb}: {}\n",
            change.affected_runs.join(" ")
        ));
    } else if change.dry_run {
        text.push_str("  no run would be stopped\n");
    }
    text
}

/// `platform pools list` and `show`.
pub fn pools(pools: &[PoolView], paint: Paint) -> String {
    let rows = pools
        .iter()
        .map(|pool| {
            let devices: Vec<String> = pool
                .devices
                .iter()
                .map(|(model, count)| format!("{count}x{}", plain(model)))
                .collect();
            vec![
                plain(&pool.name),
                pool.nodes.to_string(),
                if devices.is_empty() {
                    "none".to_owned()
                } else {
                    devices.join(" ")
                },
                format!("{} of {}", milli(pool.used_milli), milli(pool.gpu_milli)),
                pool.waiting.to_string(),
                mark(pool.simulated).to_owned(),
                plain(&pool.description),
            ]
        })
        .collect();
    table(
        &[
            "pool",
            "nodes",
            "devices",
            "GPUs used",
            "waiting",
            "note",
            "description",
        ],
        rows,
        paint,
    )
}

/// `platform tenants list`.
pub fn tenants(list: &TenantList, now_us: u64, paint: Paint) -> String {
    let rows = list
        .tenants
        .iter()
        .map(|tenant| {
            let quotas: Vec<String> = tenant
                .quotas
                .iter()
                .map(|quota| format!("{}={}", plain(&quota.pool), quota_figure(quota)))
                .collect();
            vec![
                plain(&tenant.name),
                tenant.live_runs.to_string(),
                quotas.join(" "),
                ago(tenant.created_us, now_us),
            ]
        })
        .collect();
    table(&["tenant", "live runs", "quotas", "created"], rows, paint)
}

/// `platform tenants show`.
pub fn tenant(tenant: &TenantView, paint: Paint) -> String {
    let head = pairs(&[
        ("tenant", plain(&tenant.name)),
        ("created", moment(tenant.created_us)),
        ("live runs", tenant.live_runs.to_string()),
    ]);
    if tenant.quotas.is_empty() {
        head
    } else {
        format!("{head}\n{}", quotas(&tenant.quotas, paint))
    }
}

fn quota_figure(quota: &QuotaView) -> String {
    quota
        .gpu_milli
        .map_or_else(|| "unlimited".to_owned(), milli)
}

/// `platform quotas list`, `show` and `set`.
pub fn quotas(quotas: &[QuotaView], paint: Paint) -> String {
    if quotas.is_empty() {
        return "no quotas: every tenant may use every GPU; set one with `platform quotas set TENANT --gpus N`\n".to_owned();
    }
    let rows = quotas
        .iter()
        .map(|quota| {
            vec![
                plain(&quota.tenant),
                plain(&quota.pool),
                quota_figure(quota),
                milli(quota.used_milli),
                milli(quota.waiting_milli),
            ]
        })
        .collect();
    table(&["tenant", "pool", "GPUs", "used", "waiting"], rows, paint)
}

/// `platform policy show`.
pub fn policy(policy: &PolicyView) -> String {
    let required: Vec<String> = policy
        .required_tags
        .iter()
        .map(|(key, rule)| {
            let allowed: Vec<String> = rule.allowed.iter().map(|value| plain(value)).collect();
            format!(
                "{}  {}",
                plain(key),
                if allowed.is_empty() {
                    "any value".to_owned()
                } else {
                    allowed.join(", ")
                }
            )
        })
        .collect();
    let caps: Vec<String> = policy
        .gpu_memory_caps_mib
        .iter()
        .map(|(model, mib)| format!("{}  {}", plain(model), memory(*mib)))
        .collect();
    let mut prices: Vec<String> = policy
        .gpu_hour_price_micro
        .iter()
        .map(|(model, micro)| format!("{}  {}", plain(model), money(*micro, &policy.currency)))
        .collect();
    prices.push(format!(
        "any other  {}",
        money(policy.default_gpu_hour_price_micro, &policy.currency)
    ));
    pairs(&[
        ("version", policy.version.to_string()),
        (
            "required tags",
            if required.is_empty() {
                "none".to_owned()
            } else {
                required.join("\n")
            },
        ),
        ("when missing", policy.tag_mode.clone()),
        (
            "GPU-memory caps",
            if caps.is_empty() {
                "none".to_owned()
            } else {
                caps.join("\n")
            },
        ),
        ("price of a GPU-hour", prices.join("\n")),
    ])
}

/// `platform cost`.
pub fn cost(report: &CostReport, paint: Paint) -> String {
    let line = |row: &CostRow, key: &str| {
        vec![
            key.to_owned(),
            row.runs.to_string(),
            gpu_hours(row.gpu_us),
            money_figure(row.cost_micro),
        ]
    };
    let mut rows: Vec<Vec<String>> = report
        .rows
        .iter()
        .map(|row| {
            line(
                row,
                &if row.key.is_empty() {
                    "(none)".to_owned()
                } else {
                    plain(&row.key)
                },
            )
        })
        .collect();
    rows.push(line(&report.total, "total"));
    let cost = format!("cost ({})", report.currency);
    let mut text = table(&[&report.by, "runs", "GPU hours", &cost], rows, paint);
    text.push_str(&format!(
        "from {} to {}\n",
        moment(report.since_us),
        moment(report.until_us)
    ));
    if report.simulated {
        text.push_str("some of it ran on simulated devices\n");
    }
    text
}

/// `platform cost --format csv`: exact figures, a header, RFC 4180 quoting.
pub fn cost_csv(report: &CostReport) -> String {
    let mut text = format!(
        "{},runs,gpu_us,cost_micro,currency\r\n",
        csv_cell(&report.by)
    );
    for row in &report.rows {
        text.push_str(&format!(
            "{},{},{},{},{}\r\n",
            csv_cell(&row.key),
            row.runs,
            row.gpu_us,
            row.cost_micro,
            csv_cell(&report.currency)
        ));
    }
    text
}

fn csv_cell(text: &str) -> String {
    // A leading = + - @ makes a spreadsheet compute what another user wrote.
    let guarded = if text.starts_with(['=', '+', '-', '@']) {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if guarded.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}

/// `platform whoami`.
pub fn whoami(whoami: &Whoami, url: &str) -> String {
    pairs(&[
        ("user", plain(&whoami.user)),
        ("tenant", plain(&whoami.tenant)),
        ("role", whoami.role.clone()),
        ("token", whoami.token.clone()),
        (
            "platform",
            format!("{url}, version {}", plain(&whoami.server_version)),
        ),
        ("devices", mark(whoami.simulated).to_owned()),
        ("currency", whoami.currency.clone()),
    ])
}

/// `platform tokens list`.
pub fn tokens(list: &TokenList, now_us: u64, paint: Paint) -> String {
    let rows = list
        .tokens
        .iter()
        .map(|token| {
            let state = match token.expires_us {
                _ if token.revoked => "revoked",
                Some(end) if end <= now_us => "expired",
                _ => "valid",
            };
            vec![
                token.id.clone(),
                plain(&token.user),
                plain(&token.tenant),
                token.role.clone(),
                state.to_owned(),
                ago(token.created_us, now_us),
                token
                    .expires_us
                    .map_or_else(|| "never".to_owned(), amounts::moment),
            ]
        })
        .collect();
    table(
        &[
            "token", "user", "tenant", "role", "state", "created", "expires",
        ],
        rows,
        paint,
    )
}

/// `platform models list`.
pub fn models(list: &ModelList, now_us: u64, paint: Paint) -> String {
    if list.models.is_empty() {
        return "no models; register one with run.register_model(model, \"name\")\n".to_owned();
    }
    let rows = list
        .models
        .iter()
        .map(|model| {
            let newest = model.versions.last();
            vec![
                plain(&model.name),
                newest
                    .map(|version| version.version.to_string())
                    .unwrap_or_default(),
                newest
                    .map(|version| plain(&version.framework))
                    .unwrap_or_default(),
                newest
                    .map(|version| version.run.clone())
                    .unwrap_or_default(),
                newest
                    .map(|version| ago(version.created_us, now_us))
                    .unwrap_or_default(),
            ]
        })
        .collect();
    table(
        &["model", "newest", "framework", "run", "registered"],
        rows,
        paint,
    )
}

/// `platform models show`.
pub fn model(model: &ModelView, now_us: u64, paint: Paint) -> String {
    let rows = model
        .versions
        .iter()
        .rev()
        .map(|version| {
            let size: u64 = version.files.iter().map(|file| file.size_bytes).sum();
            vec![
                version.version.to_string(),
                plain(&version.framework),
                version.run.clone(),
                version.files.len().to_string(),
                bytes(size),
                ago(version.created_us, now_us),
            ]
        })
        .collect();
    format!(
        "model  {}\n\n{}",
        plain(&model.name),
        table(
            &["version", "framework", "run", "files", "size", "registered"],
            rows,
            paint
        )
    )
}
