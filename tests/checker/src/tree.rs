//! The quota tree's promises, computed anew: guarantees, ceilings, what is lent, who takes back.

use coordinator_core::model::{PoolName, Quota, Tenant, TenantName};
use std::collections::BTreeMap;

/// What tenants hold, themselves and all below them.
pub type Used<'u> = &'u dyn Fn(&TenantName) -> u64;

/// The tenants as one pool sees them.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    tenants: &'a BTreeMap<TenantName, Tenant>,
    pool: &'a PoolName,
    /// The lines for this model; absent: those over all.
    model: Option<&'a str>,
}

/// Where one more grant would put a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Guaranteed,
    /// So many thousandths are above the guarantee.
    Borrows(u64),
    OverLimit {
        tenant: TenantName,
        used_milli: u64,
        limit_milli: u64,
    },
}

impl<'a> Tree<'a> {
    pub fn new(
        tenants: &'a BTreeMap<TenantName, Tenant>,
        pool: &'a PoolName,
        model: Option<&'a str>,
    ) -> Self {
        Self {
            tenants,
            pool,
            model,
        }
    }

    /// A tenant and all above it, nearest first.
    pub fn path(&self, tenant: &TenantName) -> Vec<&'a TenantName> {
        let mut path: Vec<&TenantName> = Vec::new();
        let mut next = self.tenants.get(tenant);
        while let Some(tenant) = next {
            if path.contains(&&tenant.name) {
                break;
            }
            path.push(&tenant.name);
            next = tenant
                .parent
                .as_ref()
                .and_then(|parent| self.tenants.get(parent));
        }
        path
    }

    /// Whether a tenant is another or anywhere below it.
    pub fn is_below(&self, tenant: &TenantName, above: &TenantName) -> bool {
        tenant == above || self.path(tenant).contains(&above)
    }

    fn line(&self, tenant: &TenantName) -> Option<&'a Quota> {
        let tenant = self.tenants.get(tenant)?;
        match self.model {
            None => tenant.quotas.get(self.pool),
            Some(model) => tenant.model_quotas.get(self.pool)?.get(model),
        }
    }

    pub fn is_metered(&self) -> bool {
        self.tenants
            .keys()
            .any(|tenant| self.line(tenant).is_some())
    }

    /// The first of these that has a line.
    fn first_line(&self, path: &[&'a TenantName]) -> Option<(&'a TenantName, &'a Quota)> {
        path.iter().find_map(|name| Some((*name, self.line(name)?)))
    }

    /// What a line leaves those who have none of their own below it, and what they hold.
    fn rest(&self, owner: &TenantName, line: &Quota, used: Used<'_>) -> (u64, u64) {
        let (mut left, mut held) = (line.quota_milli, used(owner));
        for below in self.tenants.keys().filter(|name| *name != owner) {
            let Some(lower) = self.line(below) else {
                continue;
            };
            let above = &self.path(below)[1..];
            if self
                .first_line(above)
                .is_some_and(|(nearest, _)| nearest == owner)
            {
                left = left.saturating_sub(lower.quota_milli);
                held = held.saturating_sub(used(below));
            }
        }
        (left, held)
    }

    /// Where so much more would put a tenant.
    pub fn standing(&self, tenant: &TenantName, asked_milli: u64, used: Used<'_>) -> Standing {
        if asked_milli == 0 || !self.is_metered() {
            return Standing::Guaranteed;
        }
        let path = self.path(tenant);
        for above in &path {
            let limit = self.line(above).and_then(|line| line.limit_milli);
            if let Some(limit_milli) = limit
                && used(above) + asked_milli > limit_milli
            {
                return Standing::OverLimit {
                    tenant: (*above).clone(),
                    used_milli: used(above),
                    limit_milli,
                };
            }
        }
        let Some((owner, line)) = self.first_line(&path) else {
            return Standing::Borrows(asked_milli);
        };
        let above_line = (used(owner) + asked_milli).saturating_sub(line.quota_milli);
        let (left, held) = self.rest(owner, line, used);
        let above_rest = (held + asked_milli).saturating_sub(left);
        match above_line.max(above_rest).min(asked_milli) {
            0 => Standing::Guaranteed,
            milli => Standing::Borrows(milli),
        }
    }

    /// Idle quota that its owners keep from a tenant.
    pub fn kept_from_milli(&self, tenant: &TenantName, used: Used<'_>) -> u64 {
        let own = self.path(tenant);
        self.tenants
            .values()
            .filter(|top| top.parent.is_none())
            .map(|top| self.kept_in(top, &own, used))
            .sum()
    }

    fn kept_in(&self, branch: &Tenant, own: &[&TenantName], used: Used<'_>) -> u64 {
        let below: u64 = self
            .tenants
            .values()
            .filter(|child| child.parent.as_ref() == Some(&branch.name))
            .map(|child| self.kept_in(child, own, used))
            .sum();
        if own.contains(&&branch.name) {
            return below;
        }
        let kept = match self.line(&branch.name) {
            Some(line) => match line.lend_milli {
                Some(lend) => line
                    .quota_milli
                    .saturating_sub(lend)
                    .saturating_sub(used(&branch.name)),
                None => 0,
            },
            None => 0,
        };
        kept.max(below)
    }

    /// Whether an owner that takes back by other lines than these is within its own here: its lines up
    /// to the tenant above both; without any, what is left there to such, if the other has a line.
    pub fn is_within_beside(
        &self,
        owner: &TenantName,
        asked_milli: u64,
        borrower: &TenantName,
        with_claims: Used<'_>,
    ) -> bool {
        let (up, down) = (self.path(owner), self.path(borrower));
        let mut own = up.iter().filter(|name| !down.contains(name));
        let has_line = |name: &&&TenantName| self.line(name).is_some();
        if own.clone().any(|name| has_line(&name)) {
            return own.all(|name| {
                self.line(name)
                    .is_none_or(|line| with_claims(name) + asked_milli <= line.quota_milli)
            });
        }
        let mut others = down.iter().filter(|name| !up.contains(name));
        if !others.any(|name| has_line(&name)) {
            return true;
        }
        let shared: Vec<&TenantName> = up
            .iter()
            .filter(|name| down.contains(name))
            .copied()
            .collect();
        self.first_line(&shared).is_some_and(|(at, line)| {
            let (left, held) = self.rest(at, line, with_claims);
            held + asked_milli <= left
        })
    }

    /// Why an owner may not have so much back from a borrower; `None`: it may. What the owner's branch
    /// holds is counted with all that it claims, what the borrower's does without all that leaves.
    pub fn why_not_reclaim(
        &self,
        owner: &TenantName,
        asked_milli: u64,
        borrower: &TenantName,
        with_claims: Used<'_>,
        staying: Used<'_>,
    ) -> Option<String> {
        let (up, down) = (self.path(owner), self.path(borrower));
        let owner_side = up.iter().filter(|name| !down.contains(name));
        let borrower_side = down.iter().filter(|name| !up.contains(name));
        let mut has_quota = false;
        for name in owner_side {
            let Some(line) = self.line(name) else {
                continue;
            };
            has_quota = true;
            let then = with_claims(name) + asked_milli;
            if then > line.quota_milli {
                return Some(format!("{name} would hold {then} of {}", line.quota_milli));
            }
        }
        if !has_quota {
            return Some(format!(
                "nothing is guaranteed to {owner} that {borrower} has no part in"
            ));
        }
        let mut has_line = false;
        for name in borrower_side {
            let Some(line) = self.line(name) else {
                continue;
            };
            has_line = true;
            if staying(name) <= line.quota_milli {
                return Some(format!(
                    "{name} holds {} of {}",
                    staying(name),
                    line.quota_milli
                ));
            }
        }
        if has_line {
            return None;
        }
        let meets = down.iter().position(|name| up.contains(name))?;
        let (at, line) = self.first_line(&down[meets..])?;
        let (left, held) = self.rest(at, line, staying);
        (held <= left).then(|| format!("who has no line under {at} holds {held} of {left}"))
    }
}
