//! The platform itself as text: nodes, pools, tenants, quotas, policy, cost, tokens, models.

use super::mark;
use crate::output::Paint;
use crate::output::amounts::{
    ago, bytes, duration, gpu_hours, memory, milli, moment, money, money_figure, utc,
};
use crate::output::tables::{indented, pairs, plain, table};
use platform_proto::http::*;
use std::collections::BTreeMap;

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
        ("rack", node.rack.as_deref().map(plain).unwrap_or_default()),
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
                    wiring(device),
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
                    "wired",
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

/// What a device shares with others of its node: those with the same words are together.
fn wiring(device: &DeviceView) -> String {
    [
        ("NVLink", device.nvlink_island),
        ("switch", device.pcie_switch),
        ("NUMA", device.numa_node),
    ]
    .into_iter()
    .filter_map(|(level, shared)| Some(format!("{level} {}", shared?)))
    .collect::<Vec<_>>()
    .join(", ")
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
                match pool.age_bound_ms {
                    Some(bound_ms) => {
                        format!(
                            "{}, {} at most",
                            plain(&pool.order),
                            duration(bound_ms * 1000)
                        )
                    }
                    None => plain(&pool.order),
                },
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
            "order",
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
                .map(|quota| match &quota.model {
                    None => format!("{}={}", plain(&quota.pool), quota_figure(quota)),
                    Some(model) => format!(
                        "{}/{}={}",
                        plain(&quota.pool),
                        plain(model),
                        quota_figure(quota)
                    ),
                })
                .collect();
            vec![
                plain(&tenant.name),
                tenant.live_runs.to_string(),
                tenant.parent.as_deref().map(plain).unwrap_or_default(),
                tenant.weight.to_string(),
                quotas.join(" "),
                ago(tenant.created_us, now_us),
            ]
        })
        .collect();
    table(
        &[
            "tenant",
            "live runs",
            "under",
            "weight",
            "quotas",
            "created",
        ],
        rows,
        paint,
    )
}

/// `platform tenants show`.
pub fn tenant(tenant: &TenantView, paint: Paint) -> String {
    let head = pairs(&[
        ("tenant", plain(&tenant.name)),
        ("created", moment(tenant.created_us)),
        ("live runs", tenant.live_runs.to_string()),
        (
            "under",
            tenant.parent.as_deref().map(plain).unwrap_or_default(),
        ),
        ("weight", tenant.weight.to_string()),
    ]);
    if tenant.quotas.is_empty() {
        head
    } else {
        format!("{head}\n{}", quotas(&tenant.quotas, paint))
    }
}

fn quota_figure(quota: &QuotaView) -> String {
    quota.gpu_milli.map_or_else(|| "none".to_owned(), milli)
}

/// `platform quotas list`, `show` and `set`.
pub fn quotas(quotas: &[QuotaView], paint: Paint) -> String {
    if quotas.is_empty() {
        return "no quotas: every tenant may use every GPU; set one with `platform quotas set TENANT --gpus N`\n".to_owned();
    }
    let some = |amount: u64| {
        if amount == 0 {
            String::new()
        } else {
            milli(amount)
        }
    };
    // Most platforms have no line for a single model, and need no column for it.
    let is_by_model = quotas.iter().any(|quota| quota.model.is_some());
    let model = |quota: &QuotaView| {
        let model = quota.model.as_deref();
        is_by_model.then(|| model.map_or_else(|| "all".to_owned(), plain))
    };
    let rows = quotas
        .iter()
        .map(|quota| {
            let has_line = quota.gpu_milli.is_some();
            let ceiling = |amount: Option<u64>, without: &str| match (has_line, amount) {
                (false, _) => String::new(),
                (true, Some(amount)) => milli(amount),
                (true, None) => without.to_owned(),
            };
            let mut row = vec![plain(&quota.tenant), plain(&quota.pool)];
            row.extend(model(quota));
            row.extend([
                quota_figure(quota),
                ceiling(quota.limit_milli, "none"),
                ceiling(quota.lend_milli, "all"),
                milli(quota.used_milli),
                some(quota.recent_milli),
                some(quota.borrowed_milli),
                some(quota.lent_milli),
                some(quota.waiting_milli),
            ]);
            row
        })
        .collect();
    let mut heads = vec!["tenant", "pool"];
    heads.extend(is_by_model.then_some("model"));
    heads.extend([
        "quota", "limit", "lends", "used", "of late", "borrowed", "lent", "waiting",
    ]);
    table(&heads, rows, paint)
}

/// Who would be stopped, on a dry run.
pub fn preempts(preempts: &[PreemptedView]) -> String {
    let lines: Vec<String> = preempts
        .iter()
        .map(|preempted| {
            format!(
                "{} ({}) of {} would be stopped and queued again for {} of {}",
                plain(&preempted.run),
                plain(&preempted.name),
                plain(&preempted.tenant),
                plain(&preempted.claimant),
                plain(&preempted.claimant_tenant)
            )
        })
        .collect();
    lines.join("\n")
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
    let each = policy
        .gpu_memory_caps_mib
        .iter()
        .map(|(model, mib)| format!("{}  {} of each GPU", plain(model), memory(*mib)));
    let in_sum = policy
        .gpu_memory_cap_sums_mib
        .iter()
        .map(|(model, mib)| format!("{}  {} in sum", plain(model), memory(*mib)));
    let caps: Vec<String> = each.chain(in_sum).collect();
    let price =
        |model: &str, micro| format!("{}  {}", plain(model), money(micro, &policy.currency));
    let now = policy
        .gpu_hour_price_micro
        .iter()
        .map(|(model, micro)| ((model, 0), price(model, *micro)));
    let to_come = policy.scheduled_prices.iter().map(|later| {
        let text = price(&later.gpu_model, later.price_micro);
        (
            (&later.gpu_model, later.from_us),
            format!("{text} from {}", utc(later.from_us)),
        )
    });
    let in_order: BTreeMap<_, _> = now.chain(to_come).collect();
    let mut prices: Vec<String> = in_order.into_values().collect();
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
        ("priorities", priorities(policy)),
        (
            "fair share",
            match policy.fair_share_half_life_ms {
                0 => "by what tenants hold now".to_owned(),
                half_life_ms => format!(
                    "by what tenants hold now and held before, which counts half after {}",
                    duration(half_life_ms.saturating_mul(1000))
                ),
            },
        ),
        (
            "minimum run",
            format!(
                "{} before a run may be stopped for another",
                duration(policy.minimum_run_ms.saturating_mul(1000))
            ),
        ),
        (
            "reservation",
            format!(
                "after {} without room in its turn, devices are kept for a run",
                duration(policy.reservation_after_ms.saturating_mul(1000))
            ),
        ),
        ("idle GPUs", idle_policy(policy)),
        (
            "retry wait",
            format!(
                "{} after a failure, doubled with each, at most {}",
                duration(policy.retry_wait_ms.saturating_mul(1000)),
                duration(policy.retry_wait_longest_ms.saturating_mul(1000))
            ),
        ),
    ])
}

/// The priority classes, highest first, and whom each is for.
fn priorities(policy: &PolicyView) -> String {
    let mut classes: Vec<_> = policy.priority_classes.iter().flatten().collect();
    classes.sort_by_key(|(_, class)| std::cmp::Reverse(class.priority));
    if classes.is_empty() {
        return "numbers alone, -100 to 100, open to all".to_owned();
    }
    let lines: Vec<String> = classes
        .into_iter()
        .map(|(name, class)| {
            let role = class.role.as_deref().map_or_else(String::new, |role| {
                format!(", for a {} and above", plain(role))
            });
            let tenants = match class.tenants.as_slice() {
                [] => String::new(),
                tenants => format!(", for runs of {}", plain(&tenants.join(", "))),
            };
            let right = if class.preempts { "" } else { ", stops nobody" };
            format!("{}  {}{role}{tenants}{right}", plain(name), class.priority)
        })
        .collect();
    lines.join("\n")
}

fn idle_policy(policy: &PolicyView) -> String {
    let span = |ms: u64| duration(ms.saturating_mul(1000));
    let Some(warn_ms) = policy.idle_warn_after_ms else {
        return "are let be".to_owned();
    };
    let stop = match policy.idle_stop_after_ms {
        Some(stop_ms) => format!("stopped after {}", span(stop_ms)),
        None => "not stopped".to_owned(),
    };
    format!(
        "below {} % of use: a run is warned after {} and {stop}; justified for at most {}",
        policy.idle_below_percent,
        span(warn_ms),
        span(policy.longest_justification_ms)
    )
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
    if !report.rates.is_empty() {
        let rates = report
            .rates
            .iter()
            .map(|rate| {
                vec![
                    plain(&rate.gpu_model),
                    money_figure(rate.price_micro),
                    gpu_hours(rate.gpu_us),
                    money_figure(rate.cost_micro),
                ]
            })
            .collect();
        text.push_str("\nat these prices\n");
        text.push_str(&table(
            &["GPU", "per hour", "GPU hours", &cost],
            rates,
            paint,
        ));
        text.push('\n');
    }
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
                token.expires_us.map_or_else(|| "never".to_owned(), moment),
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
                plain(&model.tenant),
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
        &[
            "model",
            "tenant",
            "newest",
            "framework",
            "run",
            "registered",
        ],
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
        "model   {}\ntenant  {}\n\n{}",
        plain(&model.name),
        plain(&model.tenant),
        table(
            &["version", "framework", "run", "files", "size", "registered"],
            rows,
            paint
        )
    )
}
