//! The file of `platform simulate --quotas`: what is proposed in place of today's quotas and settings.

use crate::failure::{Failure, on_path};
use crate::parse;
use coordinator_core::model::{PoolName, PoolOrder, TenantName};
use coordinator_core::state::QuotaChange;
use coordinator_simulation::history::{Changes, PoolChange};
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Proposal {
    quota: Vec<Line>,
    tenant: Vec<Tenant>,
    pool: Vec<Pool>,
    policy: Policy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    tenant: String,
    pool: String,
    model: Option<String>,
    gpus: toml::Value,
    limit: Option<toml::Value>,
    lend: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tenant {
    name: String,
    weight: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pool {
    name: String,
    order: Option<String>,
    age_bound: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Policy {
    minimum_run: Option<String>,
    reservation_after: Option<String>,
    fair_share_half_life: Option<String>,
}

/// Reads the file.
pub fn read(path: &Path) -> Result<Changes, Failure> {
    let text = std::fs::read_to_string(path).map_err(on_path("read", path))?;
    parse(&text).map_err(|failure| Failure {
        body: platform_proto::http::ErrorBody {
            message: format!("{}: {}", path.display(), failure.body.message),
            ..failure.body
        },
        ..failure
    })
}

fn parse(text: &str) -> Result<Changes, Failure> {
    let proposal: Proposal = toml::from_str(text).map_err(|error| {
        Failure::usage(error.to_string().trim_end().to_owned())
            .hint("see the keys with: platform simulate --help")
    })?;
    let milli = |value: &toml::Value| parse::gpus_milli(&written(value));
    let named = |error: coordinator_core::model::InvalidName| Failure::usage(error.to_string());
    let mut changes = Changes::default();
    for line in &proposal.quota {
        changes.lines.push(QuotaChange {
            tenant: TenantName::new(&line.tenant).map_err(named)?,
            pool: PoolName::new(&line.pool).map_err(named)?,
            model: line.model.clone(),
            gpu_milli: Some(milli(&line.gpus)?),
            limit_milli: line.limit.as_ref().map(milli).transpose()?,
            lend_milli: line.lend.as_ref().map(milli).transpose()?,
        });
    }
    for tenant in &proposal.tenant {
        let name = TenantName::new(&tenant.name).map_err(named)?;
        changes.weights.push((name, tenant.weight));
    }
    for pool in &proposal.pool {
        changes.pools.push(PoolChange {
            pool: PoolName::new(&pool.name).map_err(named)?,
            order: pool.order.as_deref().map(order).transpose()?,
            age_bound_ms: pool
                .age_bound
                .as_deref()
                .map(parse::duration_ms)
                .transpose()?,
        });
    }
    let Policy {
        minimum_run,
        reservation_after,
        fair_share_half_life,
    } = proposal.policy;
    changes.minimum_run_ms = minimum_run.as_deref().map(parse::duration_ms).transpose()?;
    changes.reservation_after_ms = reservation_after
        .as_deref()
        .map(parse::duration_ms)
        .transpose()?;
    changes.fair_share_half_life_ms = fair_share_half_life
        .as_deref()
        .map(parse::duration_ms)
        .transpose()?;
    if changes == Changes::default() {
        return Err(Failure::usage("nothing is proposed")
            .allowed("[[quota]], [[tenant]], [[pool]], [policy]")
            .hint("see an example with: platform simulate --help"));
    }
    Ok(changes)
}

/// `8` and `"8"` mean the same, and so does `0.5`.
fn written(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn order(text: &str) -> Result<PoolOrder, Failure> {
    PoolOrder::parse(text).ok_or_else(|| {
        Failure::usage(format!("order {text:?} is not known"))
            .allowed(PoolOrder::ALL.map(|(_, word)| word).join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_weights_orders_and_policy_are_read() {
        let changes = parse(
            r#"
            [[quota]]
            tenant = "nlp"
            pool = "default"
            gpus = 0.5
            limit = "8"
            [[tenant]]
            name = "nlp"
            weight = 3
            [[pool]]
            name = "default"
            order = "least-attained"
            age_bound = "12h"
            [policy]
            minimum_run = "90s"
            "#,
        )
        .expect("a good file");
        let line = &changes.lines[0];
        assert_eq!(
            (line.gpu_milli, line.limit_milli, line.lend_milli),
            (Some(500), Some(8_000), None)
        );
        assert_eq!(changes.weights[0].1, 3);
        assert_eq!(changes.pools[0].order, Some(PoolOrder::LeastAttained));
        assert_eq!(changes.pools[0].age_bound_ms, Some(12 * 3_600_000));
        assert_eq!(changes.minimum_run_ms, Some(90_000));
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is_allowed() {
        let said: Vec<String> = [
            "",
            "[[quotas]]\ntenant = \"nlp\"",
            "[[quota]]\ntenant = \"nlp\"\npool = \"default\"\ngpus = 1\nborrow = 2",
            "[[quota]]\ntenant = \"nlp\"\npool = \"default\"\ngpus = -1",
            "[[pool]]\nname = \"default\"\norder = \"lifo\"",
            "[policy]\nminimum_run = \"soon\"",
        ]
        .iter()
        .map(|text| parse(text).expect_err("a refusal").to_string())
        .collect();
        insta::assert_snapshot!(said.join("\n\n"));
    }
}
