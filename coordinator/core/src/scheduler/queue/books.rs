//! Who uses how much of what, and whether one more run is covered, borrowed or too much.

use super::Share;

/// How a start would stand in the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cover {
    /// By the tenant's own quota.
    Quota,
    /// By what others, or nobody, leave idle.
    Borrow,
    /// By nothing: over its limit, or more than is lent.
    Nothing,
}

/// Use by tenant, with the sums that lending asks for kept as it changes.
#[derive(Debug, Clone)]
pub(super) struct Books {
    shares: Vec<Share>,
    used_milli: Vec<u64>,
    unassigned_milli: u64,
    // Wide, since an unlimited quota is the largest number there is.
    borrowed_milli: u128,
    lendable_milli: u128,
}

impl Books {
    pub(super) fn new(shares: Vec<Share>, unassigned_milli: u64) -> Self {
        let lendable_milli = shares.iter().map(|share| lendable(share, 0)).sum();
        Self {
            used_milli: vec![0; shares.len()],
            shares,
            unassigned_milli,
            borrowed_milli: 0,
            lendable_milli,
        }
    }

    pub(super) fn used_milli(&self, tenant: usize) -> u64 {
        self.used_milli.get(tenant).copied().unwrap_or(0)
    }

    pub(super) fn quota_milli(&self, tenant: usize) -> u64 {
        self.shares[tenant].quota_milli
    }

    /// By how much a tenant is over its quota.
    pub(super) fn over_milli(&self, tenant: usize) -> u64 {
        self.used_milli[tenant].saturating_sub(self.shares[tenant].quota_milli)
    }

    pub(super) fn tenants(&self) -> usize {
        self.shares.len()
    }

    pub(super) fn take(&mut self, tenant: usize, gpu_milli: u64) {
        self.set(tenant, self.used_milli[tenant].saturating_add(gpu_milli));
    }

    pub(super) fn give_back(&mut self, tenant: usize, gpu_milli: u64) {
        self.set(tenant, self.used_milli[tenant].saturating_sub(gpu_milli));
    }

    /// How `gpu_milli` more would stand.
    pub(super) fn cover(&self, tenant: usize, gpu_milli: u64) -> Cover {
        self.cover_after(tenant, gpu_milli, 0, 0)
    }

    /// The same, once the tenant has given back `own_milli`, and others `others_milli` of what they
    /// borrowed.
    pub(super) fn cover_after(
        &self,
        tenant: usize,
        gpu_milli: u64,
        own_milli: u64,
        others_milli: u64,
    ) -> Cover {
        let share = &self.shares[tenant];
        let before = self.used_milli[tenant];
        let after = before.saturating_sub(own_milli).saturating_add(gpu_milli);
        if after > share.limit_milli {
            return Cover::Nothing;
        }
        if after <= share.quota_milli {
            return Cover::Quota;
        }
        let borrowed = self.borrowed_milli - u128::from(self.over_milli(tenant))
            + u128::from(after - share.quota_milli);
        let borrowed = borrowed.saturating_sub(u128::from(others_milli));
        // What this tenant itself could lend is no longer idle once it is over its quota.
        let lendable = self.lendable_milli - lendable(share, before);
        if borrowed <= lendable + u128::from(self.unassigned_milli) {
            Cover::Borrow
        } else {
            Cover::Nothing
        }
    }

    fn set(&mut self, tenant: usize, used_milli: u64) {
        let share = &self.shares[tenant];
        let before = self.used_milli[tenant];
        self.borrowed_milli = self.borrowed_milli
            - u128::from(before.saturating_sub(share.quota_milli))
            + u128::from(used_milli.saturating_sub(share.quota_milli));
        self.lendable_milli =
            self.lendable_milli - lendable(share, before) + lendable(share, used_milli);
        self.used_milli[tenant] = used_milli;
    }
}

fn lendable(share: &Share, used_milli: u64) -> u128 {
    u128::from(
        share
            .lend_milli
            .min(share.quota_milli.saturating_sub(used_milli)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(quota_milli: u64, limit_milli: u64, lend_milli: u64) -> Share {
        Share {
            quota_milli,
            limit_milli,
            lend_milli,
        }
    }

    #[test]
    fn a_start_is_covered_borrowed_or_neither() {
        let mut books = Books::new(vec![share(4, 9, 4), share(8, 8, 3)], 1);
        for (gpu_milli, expected) in [
            (4, Cover::Quota),
            (5, Cover::Borrow),
            // Three are lent and one is nobody's.
            (8, Cover::Borrow),
            (9, Cover::Nothing),
            (10, Cover::Nothing),
        ] {
            assert_eq!(books.cover(0, gpu_milli), expected, "{gpu_milli}");
        }
        // The owner uses all but two: so much is left to lend, however much it would lend.
        books.take(1, 6);
        assert_eq!(books.cover(0, 7), Cover::Borrow);
        assert_eq!(books.cover(0, 8), Cover::Nothing);
        books.give_back(1, 6);
        assert_eq!(books.cover(0, 8), Cover::Borrow);
    }

    #[test]
    fn what_would_be_stopped_counts_as_given_back() {
        let mut books = Books::new(vec![share(4, 6, 0)], 0);
        books.take(0, 4);
        assert_eq!(books.cover(0, 2), Cover::Nothing);
        assert_eq!(books.cover_after(0, 2, 2, 0), Cover::Quota);
        assert_eq!(books.over_milli(0), 0);
    }

    #[test]
    fn a_tenant_over_its_quota_shows_by_how_much() {
        let mut books = Books::new(vec![share(4, u64::MAX, 0), share(4, 4, u64::MAX)], 0);
        books.take(0, 7);
        assert_eq!(books.over_milli(0), 3);
        assert_eq!(books.cover(0, 1), Cover::Borrow);
        assert_eq!(books.cover(0, 2), Cover::Nothing);
    }
}
