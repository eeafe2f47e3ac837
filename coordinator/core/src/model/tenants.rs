//! Tenants in their tree, and what each is guaranteed, may reach and lends in a pool.

use super::{Meter, PoolName, TenantName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Company, department, team and three more: deeper trees are a mistake in a script.
pub const MOST_TENANT_LEVELS: usize = 6;

/// An owner of quota. What it holds includes what the tenants below it hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// Name.
    pub name: TenantName,
    /// When it was created.
    pub created_us: u64,
    /// The tenant above it; absent at the top.
    #[serde(default)]
    pub parent: Option<TenantName>,
    /// Its part of what nobody is guaranteed, beside its siblings' weights.
    #[serde(default = "Tenant::default_weight")]
    pub weight: u32,
    /// Its line in each pool. Without one it has what the nearest line above it leaves.
    #[serde(rename = "quota_milli")]
    pub quotas: BTreeMap<PoolName, Quota>,
    /// Its lines for single device models in each pool, beside the one over all models.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub model_quotas: BTreeMap<PoolName, BTreeMap<String, Quota>>,
}

/// A tenant's line in one pool, in thousandths of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "QuotaForm")]
pub struct Quota {
    /// Guaranteed: what others borrowed of it is reclaimed when it is wanted.
    pub quota_milli: u64,
    /// Ceiling, borrowed devices included; absent: whatever is idle.
    pub limit_milli: Option<u64>,
    /// The most of its idle quota that others may use; absent: all of it.
    pub lend_milli: Option<u64>,
}

/// How a line was ever written down: first as its guarantee alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum QuotaForm {
    Guarantee(u64),
    Line {
        quota_milli: u64,
        limit_milli: Option<u64>,
        lend_milli: Option<u64>,
    },
}

impl From<QuotaForm> for Quota {
    fn from(form: QuotaForm) -> Self {
        match form {
            QuotaForm::Guarantee(quota_milli) => Self {
                quota_milli,
                limit_milli: None,
                lend_milli: None,
            },
            QuotaForm::Line {
                quota_milli,
                limit_milli,
                lend_milli,
            } => Self {
                quota_milli,
                limit_milli,
                lend_milli,
            },
        }
    }
}

impl Quota {
    /// Idle quota that is kept for its owner while the owner holds `used_milli`.
    pub fn kept_milli(&self, used_milli: u64) -> u64 {
        self.lend_milli.map_or(0, |lend| {
            self.quota_milli
                .saturating_sub(lend)
                .saturating_sub(used_milli)
        })
    }
}

impl Tenant {
    /// A tenant at the top, without a line.
    pub fn new(name: TenantName, created_us: u64) -> Self {
        Self {
            name,
            created_us,
            parent: None,
            weight: Self::default_weight(),
            quotas: BTreeMap::new(),
            model_quotas: BTreeMap::new(),
        }
    }

    /// Its line there, if it has one.
    pub fn line(&self, meter: Meter<'_>) -> Option<&Quota> {
        match meter.model {
            None => self.quotas.get(meter.pool),
            Some(model) => self.model_quotas.get(meter.pool)?.get(model),
        }
    }

    /// Sets its line there, or takes it away.
    pub fn set_line(&mut self, meter: Meter<'_>, line: Option<Quota>) {
        match (meter.model, line) {
            (None, Some(line)) => drop(self.quotas.insert(meter.pool.clone(), line)),
            (None, None) => drop(self.quotas.remove(meter.pool)),
            (Some(model), Some(line)) => {
                let models = self.model_quotas.entry(meter.pool.clone()).or_default();
                models.insert(model.to_owned(), line);
            }
            (Some(model), None) => {
                if let Some(models) = self.model_quotas.get_mut(meter.pool) {
                    models.remove(model);
                    if models.is_empty() {
                        self.model_quotas.remove(meter.pool);
                    }
                }
            }
        }
    }

    /// What its lines for single models in a pool guarantee together, one of them left out.
    pub fn models_quota_milli(&self, pool: &PoolName, without: Option<&str>) -> u64 {
        self.model_quotas
            .get(pool)
            .into_iter()
            .flatten()
            .filter(|(model, _)| Some(model.as_str()) != without)
            .map(|(_, line)| line.quota_milli)
            .fold(0, u64::saturating_add)
    }

    fn default_weight() -> u32 {
        1
    }
}

/// A tenant and those above it, nearest first. Ends where the tree does, even if a name is missing
/// or the links were a circle.
pub fn tenant_and_above<'a>(
    tenants: &'a BTreeMap<TenantName, Tenant>,
    name: &TenantName,
) -> impl Iterator<Item = &'a Tenant> {
    let mut next = tenants.get(name);
    std::iter::from_fn(move || {
        let tenant = next?;
        next = tenant
            .parent
            .as_ref()
            .and_then(|parent| tenants.get(parent));
        Some(tenant)
    })
    // No way up is longer than this, so a circle ends too.
    .take(tenants.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_written_before_limits_existed_is_read_as_its_guarantee() {
        let line = Quota {
            quota_milli: 2_000,
            limit_milli: None,
            lend_milli: None,
        };
        let old = rmp_serde::to_vec_named(&2_000_u64).expect("a number encodes");
        assert_eq!(rmp_serde::from_slice::<Quota>(&old).ok(), Some(line));
        let new = rmp_serde::to_vec_named(&line).expect("a line encodes");
        assert_eq!(rmp_serde::from_slice::<Quota>(&new).ok(), Some(line));
    }

    #[test]
    fn what_is_not_lent_is_kept_until_its_owner_holds_it() {
        let line = |lend_milli| Quota {
            quota_milli: 8_000,
            limit_milli: None,
            lend_milli,
        };
        assert_eq!(line(None).kept_milli(0), 0, "all of it is lent");
        assert_eq!(line(Some(3_000)).kept_milli(0), 5_000);
        assert_eq!(line(Some(3_000)).kept_milli(4_000), 1_000);
        assert_eq!(line(Some(3_000)).kept_milli(6_000), 0);
        assert_eq!(line(Some(9_000)).kept_milli(0), 0);
    }

    #[test]
    fn a_circle_of_parents_ends() {
        let name = |text: &str| TenantName::new(text).expect("a good name");
        let below = |child: &str, parent: &str| {
            let mut tenant = Tenant::new(name(child), 0);
            tenant.parent = Some(name(parent));
            (tenant.name.clone(), tenant)
        };
        let tenants = BTreeMap::from([below("a", "b"), below("b", "a")]);
        assert_eq!(tenant_and_above(&tenants, &name("a")).count(), 2);
    }
}
