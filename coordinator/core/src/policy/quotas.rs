//! The quota tree: where a grant puts a tenant, whose idle quota it may use, and who may take it back.
//!
//! A line guarantees its `quota` to a tenant and all below it. What is above is borrowed: first within
//! the nearest line above, then wider. Every function takes the use of tenants as a function, so that
//! a plan can ask it of what it has proposed so far.
//!
//! Deliberately lacks the order in which runs are looked at: that is the scheduler's.

use crate::model::{Meter, Quota, Tenant, TenantName, TenantTree, tenant_and_above};

/// Tenants by name.
pub type Tenants = TenantTree;

/// Where one more grant would put a tenant there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Within a guarantee, or nobody has one in this pool.
    Guaranteed,
    /// Above its own guarantee by so many thousandths.
    Borrows {
        /// Thousandths above.
        milli: u64,
        /// The tenant above it whose quota still covers it; absent: it borrows from anybody.
        within: Option<TenantName>,
    },
    /// Above a ceiling.
    OverLimit {
        /// Whose ceiling: the tenant's own or one above it.
        tenant: TenantName,
        /// What that tenant and those below it hold.
        used_milli: u64,
        /// The ceiling.
        limit_milli: u64,
    },
}

/// A tenant's line in a pool.
pub fn line<'a, 'm>(
    tenants: &'a Tenants,
    tenant: &TenantName,
    meter: impl Into<Meter<'m>>,
) -> Option<&'a Quota> {
    tenants.get(tenant)?.line(meter.into())
}

/// Whether anybody has a line in this pool. Where nobody has, everything is there for everybody.
pub fn is_metered<'m>(tenants: &Tenants, meter: impl Into<Meter<'m>>) -> bool {
    tenants.is_metered(meter)
}

/// The nearest line at or above a tenant, and whose it is.
pub fn nearest_line<'a, 'm>(
    tenants: &'a Tenants,
    tenant: &TenantName,
    meter: impl Into<Meter<'m>>,
) -> Option<(&'a Tenant, &'a Quota)> {
    let meter = meter.into();
    tenant_and_above(tenants, tenant).find_map(|above| Some((above, above.line(meter)?)))
}

/// What a line guarantees to those who have no line of their own below it (its owner's own runs
/// too), and what they hold: the rest is guaranteed to the lines below.
fn rest_of_line(
    tenants: &Tenants,
    meter: Meter<'_>,
    owner: &TenantName,
    line: &Quota,
    used_milli: &impl Fn(&TenantName) -> u64,
) -> (u64, u64) {
    let (mut guaranteed_below, mut used_below) = (0_u64, 0_u64);
    // Most lines are a team's, with nobody below. The tree has no circle, for none is let in.
    let mut branches: Vec<&Tenant> = tenants.below(Some(owner)).collect();
    while let Some(below) = branches.pop() {
        match below.line(meter) {
            Some(lower) => {
                guaranteed_below = guaranteed_below.saturating_add(lower.quota_milli);
                used_below = used_below.saturating_add(used_milli(&below.name));
            }
            None => branches.extend(tenants.below(Some(&below.name))),
        }
    }
    (
        line.quota_milli.saturating_sub(guaranteed_below),
        used_milli(owner).saturating_sub(used_below),
    )
}

/// Where `asked_milli` more would put a tenant.
pub fn standing<'m>(
    tenants: &Tenants,
    meter: impl Into<Meter<'m>>,
    tenant: &TenantName,
    asked_milli: u64,
    used_milli: impl Fn(&TenantName) -> u64,
) -> Standing {
    let meter = meter.into();
    let mut borrowed: Option<u64> = None;
    let mut within: Option<TenantName> = None;
    for above in tenant_and_above(tenants, tenant) {
        let Some(line) = above.line(meter) else {
            continue;
        };
        let used = used_milli(&above.name);
        let then = used.saturating_add(asked_milli);
        if let Some(limit_milli) = line.limit_milli
            && then > limit_milli
            && asked_milli > 0
        {
            return Standing::OverLimit {
                tenant: above.name.clone(),
                used_milli: used,
                limit_milli,
            };
        }
        let over = then.saturating_sub(line.quota_milli).min(asked_milli);
        let own = borrowed.is_none();
        let milli = *borrowed.get_or_insert_with(|| {
            let (rest, used_of_rest) = rest_of_line(tenants, meter, &above.name, line, &used_milli);
            used_of_rest
                .saturating_add(asked_milli)
                .saturating_sub(rest)
                .min(asked_milli)
                .max(over)
        });
        // The line itself may still cover what it guarantees to others below it.
        let covers = over == 0 && (!own || milli > 0);
        if milli > 0 && covers && within.is_none() {
            within = Some(above.name.clone());
        }
    }
    match borrowed {
        Some(0) => Standing::Guaranteed,
        Some(milli) => Standing::Borrows { milli, within },
        None if asked_milli == 0 || !is_metered(tenants, meter) => Standing::Guaranteed,
        None => Standing::Borrows {
            milli: asked_milli,
            within: None,
        },
    }
}

/// Idle quota that is kept from a tenant because its owners do not lend it, in thousandths. An owner
/// above the tenant keeps nothing from it.
pub fn kept_from_milli<'m>(
    tenants: &Tenants,
    meter: impl Into<Meter<'m>>,
    tenant: &TenantName,
    used_milli: impl Fn(&TenantName) -> u64,
) -> u64 {
    let meter = meter.into();
    if !tenants.keeps_anything(meter) {
        return 0;
    }
    let above: Vec<&TenantName> = tenant_and_above(tenants, tenant)
        .map(|above| &above.name)
        .collect();
    kept_below(tenants, None, meter, &above, &used_milli)
}

/// What the branches under `parent` keep: of a branch its own line or its branches' sum, whichever
/// is more, for what a tenant keeps lies within what the one above it keeps.
fn kept_below(
    tenants: &Tenants,
    parent: Option<&TenantName>,
    meter: Meter<'_>,
    above: &[&TenantName],
    used_milli: &impl Fn(&TenantName) -> u64,
) -> u64 {
    tenants
        .below(parent)
        .map(|branch| {
            let inner = kept_below(tenants, Some(&branch.name), meter, above, used_milli);
            if above.contains(&&branch.name) {
                return inner;
            }
            let own = branch
                .line(meter)
                .map_or(0, |line| line.kept_milli(used_milli(&branch.name)));
            own.max(inner)
        })
        .sum()
}

/// Whether a run that asks for `asked_milli` in the guarantee of `owner` may have devices back that
/// `borrower` holds. The two meet at the nearest tenant above both, or that is one of them: from
/// there down the owner's branch must be within its quotas with what it asks (by `wanted_milli`, what
/// a branch uses and claims already), and the borrower's above every one of its (by `staying_milli`,
/// what it uses and is not giving back). A borrower without a line of its own there is above what the
/// line where they meet guarantees to such.
pub fn may_reclaim<'m>(
    tenants: &Tenants,
    meter: impl Into<Meter<'m>>,
    owner: &TenantName,
    asked_milli: u64,
    borrower: &TenantName,
    wanted_milli: impl Fn(&TenantName) -> u64,
    staying_milli: impl Fn(&TenantName) -> u64,
) -> bool {
    let meter = meter.into();
    let above_borrower: Vec<&TenantName> = tenant_and_above(tenants, borrower)
        .map(|tenant| &tenant.name)
        .collect();
    let above_owner: Vec<&TenantName> = tenant_and_above(tenants, owner)
        .map(|tenant| &tenant.name)
        .collect();
    let owned = lines_until(tenants, meter, &above_owner, &above_borrower);
    let borrowed = lines_until(tenants, meter, &above_borrower, &above_owner);
    let meets = above_borrower
        .iter()
        .find(|name| above_owner.contains(name))
        .and_then(|name| nearest_line(tenants, name, meter));
    let is_above_rest = || {
        meets.is_none_or(|(at, line)| {
            let (rest, used_of_rest) = rest_of_line(tenants, meter, &at.name, line, &staying_milli);
            used_of_rest > rest
        })
    };
    !owned.is_empty()
        && owned
            .iter()
            .all(|(name, quota)| wanted_milli(name).saturating_add(asked_milli) <= *quota)
        && borrowed
            .iter()
            .all(|(name, quota)| staying_milli(name) > *quota)
        && (!borrowed.is_empty() || is_above_rest())
}

/// Whether an owner that takes devices back by another meter is within its own on this one: its branch
/// within its quotas up to where it meets the borrower's. One without a line has what the line where
/// they meet leaves; where the borrower has none either they share that, and what one takes the other gives.
pub fn is_within_beside<'m>(
    tenants: &Tenants,
    meter: impl Into<Meter<'m>>,
    owner: &TenantName,
    asked_milli: u64,
    borrower: &TenantName,
    wanted_milli: impl Fn(&TenantName) -> u64,
) -> bool {
    let meter = meter.into();
    let names = |name| -> Vec<&TenantName> {
        tenant_and_above(tenants, name)
            .map(|tenant| &tenant.name)
            .collect()
    };
    let (above_owner, above_borrower) = (names(owner), names(borrower));
    let owned = lines_until(tenants, meter, &above_owner, &above_borrower);
    if !owned.is_empty() {
        return owned
            .iter()
            .all(|(name, quota)| wanted_milli(name).saturating_add(asked_milli) <= *quota);
    }
    if lines_until(tenants, meter, &above_borrower, &above_owner).is_empty() {
        return true;
    }
    above_owner
        .iter()
        .find(|name| above_borrower.contains(name))
        .and_then(|name| nearest_line(tenants, name, meter))
        .is_some_and(|(at, line)| {
            let (rest, used_of_rest) = rest_of_line(tenants, meter, &at.name, line, &wanted_milli);
            used_of_rest.saturating_add(asked_milli) <= rest
        })
}

/// The quotas of a branch, from the bottom up to where it meets the other.
fn lines_until<'a>(
    tenants: &Tenants,
    meter: Meter<'_>,
    branch: &[&'a TenantName],
    other: &[&TenantName],
) -> Vec<(&'a TenantName, u64)> {
    branch
        .iter()
        .take_while(|name| !other.contains(name))
        .filter_map(|name| Some((*name, line(tenants, name, meter)?.quota_milli)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PoolName;

    fn name(text: &str) -> TenantName {
        TenantName::new(text).expect("a good name")
    }

    fn pool() -> PoolName {
        PoolName::default_pool()
    }

    /// (name, parent, quota, limit, lend); a quota of 0 with neither is no line.
    type Row = (&'static str, &'static str, u64, Option<u64>, Option<u64>);

    /// What tenants hold.
    type Held = &'static [(&'static str, u64)];
    /// Owner, borrower, what is held, whether the owner may take, and why.
    type Claim = (&'static str, &'static str, Held, bool, &'static str);

    fn tree(rows: &[Row]) -> Tenants {
        rows.iter()
            .map(|(tenant, parent, quota_milli, limit_milli, lend_milli)| {
                let mut made = Tenant::new(name(tenant), 0);
                made.parent = (!parent.is_empty()).then(|| name(parent));
                if *quota_milli > 0 || limit_milli.is_some() || lend_milli.is_some() {
                    made.quotas.insert(
                        pool(),
                        Quota {
                            quota_milli: *quota_milli,
                            limit_milli: *limit_milli,
                            lend_milli: *lend_milli,
                        },
                    );
                }
                made
            })
            .collect()
    }

    fn used<'a>(rows: &'a [(&'a str, u64)]) -> impl Fn(&TenantName) -> u64 + Copy + 'a {
        move |tenant| {
            rows.iter()
                .find(|(name, _)| *name == tenant.as_str())
                .map_or(0, |(_, milli)| *milli)
        }
    }

    const COMPANY: &[Row] = &[
        ("company", "", 0, None, None),
        ("research", "company", 8_000, None, None),
        ("nlp", "research", 4_000, None, None),
        ("vision", "research", 4_000, None, None),
        ("products", "company", 8_000, Some(12_000), None),
        ("ads", "products", 6_000, None, None),
        ("guests", "", 0, None, None),
    ];

    #[test]
    fn a_grant_stands_within_its_line_or_borrows_first_within_the_line_above() {
        let tenants = tree(COMPANY);
        let table: &[(&str, Held, Standing)] = &[
            ("nlp", &[], Standing::Guaranteed),
            (
                "nlp",
                &[("nlp", 3_000), ("research", 3_000)],
                Standing::Borrows {
                    milli: 1_000,
                    within: Some(name("research")),
                },
            ),
            (
                "nlp",
                &[("nlp", 4_000), ("research", 7_000)],
                Standing::Borrows {
                    milli: 2_000,
                    within: None,
                },
            ),
            (
                "ads",
                &[("ads", 2_000), ("products", 11_000)],
                Standing::OverLimit {
                    tenant: name("products"),
                    used_milli: 11_000,
                    limit_milli: 12_000,
                },
            ),
            (
                "guests",
                &[],
                Standing::Borrows {
                    milli: 2_000,
                    within: None,
                },
            ),
        ];
        for (tenant, holds, expected) in table {
            let found = standing(&tenants, &pool(), &name(tenant), 2_000, used(holds));
            assert_eq!(found, *expected, "{tenant} with {holds:?}");
        }
    }

    #[test]
    fn where_nobody_has_a_line_nobody_borrows() {
        let tenants = tree(&[("nlp", "", 0, None, None)]);
        let found = standing(&tenants, &pool(), &name("nlp"), 2_000, |_| 90_000);
        assert_eq!(found, Standing::Guaranteed);
    }

    #[test]
    fn a_run_without_devices_neither_borrows_nor_meets_a_limit() {
        let tenants = tree(&[("nlp", "", 1_000, Some(1_000), None)]);
        for tenant in ["nlp", "guests"] {
            let found = standing(&tenants, &pool(), &name(tenant), 0, |_| 5_000);
            assert_eq!(found, Standing::Guaranteed, "{tenant}");
        }
    }

    #[test]
    fn what_is_not_lent_is_kept_from_everybody_but_its_own_branch() {
        let tenants = tree(&[
            ("research", "", 8_000, None, Some(2_000)),
            ("nlp", "research", 4_000, None, Some(0)),
            ("vision", "research", 4_000, None, None),
            ("guests", "", 0, None, None),
        ]);
        let table: &[(&str, Held, u64)] = &[
            ("guests", &[], 6_000),
            ("vision", &[], 4_000),
            ("nlp", &[], 0),
            ("guests", &[("research", 4_000), ("nlp", 4_000)], 2_000),
            // What is kept of the branch is at least what a tenant below keeps for itself.
            ("guests", &[("research", 4_000), ("vision", 4_000)], 4_000),
        ];
        for (tenant, holds, expected) in table {
            assert_eq!(
                kept_from_milli(&tenants, &pool(), &name(tenant), used(holds)),
                *expected,
                "{tenant} with {holds:?}"
            );
        }
    }

    #[test]
    fn of_three_levels_that_lend_nothing_each_device_is_kept_once() {
        let tenants = tree(&[
            ("company", "", 0, None, None),
            ("research", "company", 8_000, None, Some(0)),
            ("nlp", "research", 4_000, None, Some(0)),
            ("guests", "", 0, None, None),
        ]);
        let kept = kept_from_milli(&tenants, &pool(), &name("guests"), |_| 0);
        assert_eq!(kept, 8_000);
    }

    #[test]
    fn who_has_no_line_below_one_has_only_what_it_leaves_the_lines_below() {
        let tenants = tree(&[
            ("research", "", 8_000, None, None),
            ("nlp", "research", 6_000, None, None),
            ("vision", "research", 0, None, None),
        ]);
        for tenant in ["vision", "research"] {
            let found = standing(&tenants, &pool(), &name(tenant), 3_000, |_| 0);
            assert_eq!(
                found,
                Standing::Borrows {
                    milli: 1_000,
                    within: Some(name("research")),
                },
                "{tenant}: 2 of the 8 are for those without a line"
            );
            let holds: Held = match tenant {
                "vision" => &[("vision", 3_000), ("research", 3_000)],
                _ => &[("research", 3_000)],
            };
            let asks = |milli| {
                may_reclaim(
                    &tenants,
                    &pool(),
                    &name("nlp"),
                    milli,
                    &name(tenant),
                    used(holds),
                    used(holds),
                )
            };
            assert!(asks(6_000), "nlp takes its own from {tenant}");
            assert!(!asks(6_001), "and no more");
            let within: Held = match tenant {
                "vision" => &[("vision", 2_000), ("research", 2_000)],
                _ => &[("research", 2_000)],
            };
            assert!(
                !may_reclaim(
                    &tenants,
                    &pool(),
                    &name("nlp"),
                    1_000,
                    &name(tenant),
                    used(within),
                    used(within)
                ),
                "{tenant} keeps what the line leaves it"
            );
        }
    }

    #[test]
    fn an_owner_takes_back_from_siblings_above_their_quota_then_from_other_branches_above_theirs() {
        let tenants = tree(COMPANY);
        let table: &[Claim] = &[
            (
                "nlp",
                "vision",
                &[("vision", 5_000), ("research", 5_000)],
                true,
                "a sibling above its quota",
            ),
            (
                "nlp",
                "vision",
                &[("vision", 4_000), ("research", 4_000)],
                false,
                "a sibling within its quota",
            ),
            (
                "nlp",
                "ads",
                &[("ads", 9_000), ("products", 9_000)],
                true,
                "another branch above its quota",
            ),
            (
                "nlp",
                "ads",
                &[("ads", 7_000), ("products", 7_000)],
                false,
                "the other branch is within its quota: what it has is its own",
            ),
            (
                "nlp",
                "ads",
                &[("ads", 5_000), ("products", 9_000)],
                false,
                "the tenant itself is within its quota; another of its branch is not",
            ),
            (
                "nlp",
                "ads",
                &[
                    ("research", 8_000),
                    ("vision", 8_000),
                    ("ads", 9_000),
                    ("products", 9_000),
                ],
                false,
                "its own branch is full: the sibling gives first",
            ),
            (
                "nlp",
                "guests",
                &[("guests", 1_000)],
                true,
                "no line at all",
            ),
            (
                "guests",
                "nlp",
                &[("nlp", 9_000), ("research", 9_000)],
                false,
                "nothing is guaranteed to it",
            ),
            (
                "nlp",
                "nlp",
                &[("nlp", 2_000)],
                false,
                "within a tenant priority decides",
            ),
        ];
        for (owner, borrower, holds, expected, why) in table {
            assert_eq!(
                may_reclaim(
                    &tenants,
                    &pool(),
                    &name(owner),
                    1_000,
                    &name(borrower),
                    used(holds),
                    used(holds)
                ),
                *expected,
                "{owner} from {borrower}: {why}"
            );
        }
    }
}
