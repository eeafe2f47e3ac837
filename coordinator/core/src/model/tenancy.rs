//! Every tenant by name, with what the quota tree's rules ask of all of them kept beside: who is below
//! whom, and in which pools anybody has a line or keeps a part of one. A decision asks this several
//! times, and there may be thousands of tenants.

use super::{Meter, PoolName, Quota, Tenant, TenantName};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// Tenants by name, to be read as the map that they are. They change through [`Self::put`] alone.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TenantTree {
    by_name: BTreeMap<TenantName, Tenant>,
    below: BTreeMap<Option<TenantName>, BTreeSet<TenantName>>,
    /// How many lines a pool has.
    lines: BTreeMap<PoolName, usize>,
    /// How many of them do not lend all that is idle.
    keeping: BTreeMap<PoolName, usize>,
    /// The same of lines for single device models.
    models: BTreeMap<PoolName, BTreeMap<String, ModelLines>>,
}

/// How many lines there are for one model in one pool.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct ModelLines {
    lines: usize,
    keeping: usize,
}

impl TenantTree {
    /// Adds a tenant, or replaces the one of its name.
    pub fn put(&mut self, tenant: Tenant) {
        if let Some(before) = self.by_name.remove(&tenant.name) {
            self.note(&before, false);
        }
        self.note(&tenant, true);
        self.by_name.insert(tenant.name.clone(), tenant);
    }

    /// Changes the tenant of this name, if there is one.
    pub fn change(&mut self, name: &TenantName, change: impl FnOnce(&mut Tenant)) {
        if let Some(mut tenant) = self.by_name.get(name).cloned() {
            change(&mut tenant);
            self.put(tenant);
        }
    }

    /// Tenants whose parent this is; those at the top, where none is named.
    pub fn below(&self, parent: Option<&TenantName>) -> impl Iterator<Item = &Tenant> {
        self.below
            .get(&parent.cloned())
            .into_iter()
            .flatten()
            .filter_map(|below| self.by_name.get(below))
    }

    /// Whether anybody has a line there.
    pub fn is_metered<'a>(&self, meter: impl Into<Meter<'a>>) -> bool {
        let meter = meter.into();
        match meter.model {
            None => self.lines.contains_key(meter.pool),
            Some(model) => self.model_lines(meter.pool, model).is_some(),
        }
    }

    /// Whether anybody keeps a part of its idle quota there to itself.
    pub fn keeps_anything<'a>(&self, meter: impl Into<Meter<'a>>) -> bool {
        let meter = meter.into();
        match meter.model {
            None => self.keeping.contains_key(meter.pool),
            Some(model) => self
                .model_lines(meter.pool, model)
                .is_some_and(|counted| counted.keeping > 0),
        }
    }

    /// Whether anybody has a line for a single model in this pool.
    pub fn is_metered_by_model(&self, pool: &PoolName) -> bool {
        self.models.contains_key(pool)
    }

    /// The pools in which anybody has a line for a single model.
    pub fn pools_by_model(&self) -> impl Iterator<Item = &PoolName> {
        self.models.keys()
    }

    /// The models of this pool for which anybody has a line.
    pub fn metered_models(&self, pool: &PoolName) -> impl Iterator<Item = &str> {
        self.models
            .get(pool)
            .into_iter()
            .flat_map(BTreeMap::keys)
            .map(String::as_str)
    }

    fn model_lines(&self, pool: &PoolName, model: &str) -> Option<&ModelLines> {
        self.models.get(pool)?.get(model)
    }

    fn note(&mut self, tenant: &Tenant, is_added: bool) {
        let below = self.below.entry(tenant.parent.clone()).or_default();
        if is_added {
            below.insert(tenant.name.clone());
        } else {
            below.remove(&tenant.name);
        }
        if below.is_empty() {
            self.below.remove(&tenant.parent);
        }
        for (pool, line) in &tenant.quotas {
            count(&mut self.lines, pool, is_added);
            if line.lend_milli.is_some() {
                count(&mut self.keeping, pool, is_added);
            }
        }
        for (pool, models) in &tenant.model_quotas {
            for (model, line) in models {
                self.note_model(pool, model, line, is_added);
            }
        }
    }

    fn note_model(&mut self, pool: &PoolName, model: &str, line: &Quota, is_added: bool) {
        let models = self.models.entry(pool.clone()).or_default();
        let counted = models.entry(model.to_owned()).or_default();
        let step = |count: usize| {
            if is_added {
                count + 1
            } else {
                count.saturating_sub(1)
            }
        };
        counted.lines = step(counted.lines);
        if line.lend_milli.is_some() {
            counted.keeping = step(counted.keeping);
        }
        if counted.lines == 0 {
            models.remove(model);
        }
        if models.is_empty() {
            self.models.remove(pool);
        }
    }
}

fn count(counts: &mut BTreeMap<PoolName, usize>, pool: &PoolName, is_added: bool) {
    let counted = counts.entry(pool.clone()).or_default();
    *counted = if is_added {
        *counted + 1
    } else {
        counted.saturating_sub(1)
    };
    if *counted == 0 {
        counts.remove(pool);
    }
}

impl Deref for TenantTree {
    type Target = BTreeMap<TenantName, Tenant>;

    fn deref(&self) -> &Self::Target {
        &self.by_name
    }
}

impl<'a> IntoIterator for &'a TenantTree {
    type Item = (&'a TenantName, &'a Tenant);
    type IntoIter = std::collections::btree_map::Iter<'a, TenantName, Tenant>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_name.iter()
    }
}

impl FromIterator<Tenant> for TenantTree {
    fn from_iter<I: IntoIterator<Item = Tenant>>(tenants: I) -> Self {
        let mut tree = Self::default();
        for tenant in tenants {
            tree.put(tenant);
        }
        tree
    }
}

/// Stored as the map alone.
impl Serialize for TenantTree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.by_name.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TenantTree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let by_name = BTreeMap::<TenantName, Tenant>::deserialize(deserializer)?;
        Ok(by_name.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_the_tenants_follows_each_change() {
        let name = |text: &str| TenantName::new(text).expect("a good name");
        let pool = PoolName::default_pool();
        let mut tree: TenantTree = ["company", "nlp", "vision"]
            .iter()
            .map(|text| Tenant::new(name(text), 0))
            .collect();
        assert!(!tree.is_metered(&pool) && tree.below(None).count() == 3);
        tree.change(&name("nlp"), |tenant| {
            tenant.parent = Some(name("company"));
            tenant.quotas.insert(
                pool.clone(),
                Quota {
                    quota_milli: 4_000,
                    limit_milli: None,
                    lend_milli: Some(0),
                },
            );
        });
        let below: Vec<&str> = tree
            .below(Some(&name("company")))
            .map(|tenant| tenant.name.as_str())
            .collect();
        assert_eq!(below, ["nlp"]);
        assert!(tree.is_metered(&pool) && tree.keeps_anything(&pool));
        tree.change(&name("nlp"), |tenant| {
            tenant.parent = Some(name("vision"));
            tenant.quotas.clear();
        });
        assert!(!tree.is_metered(&pool) && !tree.keeps_anything(&pool));
        assert_eq!(tree.below(Some(&name("company"))).count(), 0);
        let of_model = Meter::of_model(&pool, "A100-80G");
        tree.change(&name("nlp"), |tenant| {
            let line = Quota {
                quota_milli: 4_000,
                limit_milli: None,
                lend_milli: Some(0),
            };
            tenant.set_line(of_model, Some(line));
        });
        assert!(tree.is_metered(of_model) && tree.keeps_anything(of_model));
        assert!(!tree.is_metered(&pool) && tree.is_metered_by_model(&pool));
        assert!(!tree.is_metered(Meter::of_model(&pool, "T4-16G")));
        let bytes = rmp_serde::to_vec_named(&tree).expect("a map encodes");
        assert_eq!(
            rmp_serde::from_slice::<TenantTree>(&bytes).ok(),
            Some(tree.clone())
        );
        tree.change(&name("nlp"), |tenant| tenant.set_line(of_model, None));
        assert!(!tree.is_metered(of_model) && !tree.is_metered_by_model(&pool));
    }
}
