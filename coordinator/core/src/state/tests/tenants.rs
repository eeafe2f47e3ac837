//! The tenant tree and its lines: what is refused, what is counted where.

use crate::fixtures::*;
use crate::model::EndKind;
use crate::policy::RefusalKind;
use crate::state::{Command, ParentChange, QuotaChange};

fn under(tenant: &str, parent: &str) -> Command {
    Command::SetTenant {
        tenant: tenant_name(tenant),
        parent: ParentChange::Under(tenant_name(parent)),
        weight: None,
    }
}

fn weigh(tenant: &str, weight: u32) -> Command {
    Command::SetTenant {
        tenant: tenant_name(tenant),
        parent: ParentChange::Keep,
        weight: Some(weight),
    }
}

/// Sixteen GPUs; research with nlp and vision below it, and guests beside it.
fn company() -> World {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G"), ("node-2", "8xA100-80G")]);
    for tenant in ["research", "nlp", "vision", "guests"] {
        world.tenant(tenant);
    }
    world.accept(under("nlp", "research"));
    world.accept(under("vision", "research"));
    world
}

#[test]
fn a_tree_that_would_be_a_circle_is_refused_with_the_circle() {
    let mut world = company();
    let refusal = world.refuse(under("research", "nlp"));
    assert_eq!(refusal.kind, RefusalKind::Refused);
    assert_eq!(
        refusal.message,
        "tenant research cannot be under nlp: the tree would be a circle, research under nlp under research"
    );
    world.refuse(under("nlp", "nlp"));
    assert_eq!(
        world.refuse(under("nlp", "nobody")).kind,
        RefusalKind::NotFound
    );
    assert_eq!(
        world.refuse(under("nobody", "nlp")).kind,
        RefusalKind::NotFound
    );
}

#[test]
fn a_tree_is_as_deep_as_a_company_and_no_deeper() {
    let mut world = World::new();
    for level in 0..7 {
        world.tenant(&format!("level-{level}"));
    }
    for level in (1..6).rev() {
        world.accept(under(
            &format!("level-{level}"),
            &format!("level-{}", level - 1),
        ));
    }
    let refusal = world.refuse(under("level-0", "level-6"));
    assert_eq!(
        refusal.message,
        "tenant level-0 under level-6 makes a tree of 7 levels"
    );
}

#[test]
fn weights_are_small_whole_numbers() {
    let mut world = company();
    for weight in [0, 1_001, u32::MAX] {
        assert_eq!(
            world.refuse(weigh("nlp", weight)).kind,
            RefusalKind::Invalid
        );
    }
    world.accept(weigh("nlp", 3));
    assert_eq!(world.state.tenants()[&tenant_name("nlp")].weight, 3);
}

#[test]
fn what_is_guaranteed_fits_into_the_pool_and_into_the_line_above() {
    let mut world = company();
    world.quota("research", 10, None, None);
    let table = [
        (
            quota("guests", 7, None, None),
            "a quota of 7 GPUs for guests is more than pool default can guarantee: it has 16, and 10 are guaranteed to others",
            "0 to 6 GPUs",
        ),
        (
            quota("nlp", 11, None, None),
            "a quota of 11 GPUs for nlp does not fit into the 10 of research in pool default, of which 0 are guaranteed to others",
            "0 to 10 GPUs",
        ),
    ];
    for (change, message, allowed) in table {
        let refusal = world.refuse(Command::SetQuota(change));
        assert_eq!(refusal.message, message);
        assert_eq!(refusal.allowed.as_deref(), Some(allowed));
    }
    world.quota("nlp", 6, None, None);
    world.quota("vision", 4, None, None);
    world.refuse(Command::SetQuota(quota("vision", 5, None, None)));
    let refusal = world.refuse(Command::SetQuota(quota("research", 9, None, None)));
    assert_eq!(
        refusal.message,
        "a quota of 9 GPUs for research is less than the 10 guaranteed below it in pool default"
    );
    // A tenant that moves takes its guarantee along.
    world.quota("guests", 1, None, None);
    let refusal = world.refuse(under("guests", "research"));
    assert!(
        refusal.message.contains("does not fit into the 10"),
        "{refusal:?}"
    );
}

#[test]
fn a_tenant_that_moves_takes_its_guarantee_along_with_all_below_it() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    for tenant in ["department", "team", "group", "company"] {
        world.tenant(tenant);
    }
    world.accept(under("team", "department"));
    world.accept(under("group", "team"));
    world.accept(under("department", "company"));
    world.quota("company", 8, None, None);
    world.quota("group", 6, None, None);
    let top = |tenant: &str| Command::SetTenant {
        tenant: tenant_name(tenant),
        parent: ParentChange::Top,
        weight: None,
    };
    for tenant in ["group", "team", "department"] {
        let refusal = world.refuse(top(tenant));
        assert_eq!(
            refusal.message,
            format!(
                "a quota of 6 GPUs for {tenant} is more than pool default can guarantee: it has 8, and 8 are guaranteed to others"
            )
        );
    }
    world.quota("company", 6, None, None);
    world.tenant("elsewhere");
    world.quota("elsewhere", 2, None, None);
    world.tenant("below");
    world.accept(under("below", "elsewhere"));
    // The nearest line above counts, not that of the parent alone.
    let refusal = world.refuse(under("team", "below"));
    assert!(
        refusal
            .message
            .contains("does not fit into the 2 of elsewhere"),
        "{refusal:?}"
    );
}

#[test]
fn a_pool_that_no_node_has_joined_may_be_divided_beforehand() {
    let mut world = World::new();
    world.quota("nlp", 64, Some(96), Some(32));
}

#[test]
fn lines_that_could_never_be_kept_are_refused() {
    let mut world = company();
    let base = quota("nlp", 4, None, None);
    let table: &[(QuotaChange, &str)] = &[
        (
            QuotaChange {
                limit_milli: Some(3_500),
                ..base.clone()
            },
            "a limit of 3.5 GPUs is below the quota of 4",
        ),
        (
            QuotaChange {
                lend_milli: Some(4_001),
                ..base.clone()
            },
            "4.001 GPUs to lend are more than the quota of 4",
        ),
        (
            QuotaChange {
                limit_milli: Some(u64::MAX),
                ..base.clone()
            },
            "a limit of 18446744073709551.615 GPUs is out of range",
        ),
        (
            QuotaChange {
                gpu_milli: None,
                limit_milli: Some(1_000),
                ..base.clone()
            },
            "a limit or what is lent is given without a quota",
        ),
    ];
    for (change, message) in table {
        let refusal = world.refuse(Command::SetQuota(change.clone()));
        assert_eq!(refusal.message, *message);
        assert_eq!(refusal.kind, RefusalKind::Invalid);
    }
}

#[test]
fn what_a_tenant_holds_counts_for_all_above_it_and_moves_with_it() {
    let mut world = company();
    let run = world.submit_for("nlp", gpus(2));
    world.place_on(run, &[("node-1", &[0, 1])]);
    let pool = pool_name("default");
    let used = |world: &World| {
        ["nlp", "research", "guests"].map(|name| world.state.used_milli(&tenant_name(name), &pool))
    };
    assert_eq!(used(&world), [2_000, 2_000, 0]);
    world.accept(under("nlp", "guests"));
    assert_eq!(used(&world), [2_000, 0, 2_000]);
    world.accept(Command::SetTenant {
        tenant: tenant_name("nlp"),
        parent: ParentChange::Top,
        weight: None,
    });
    assert_eq!(used(&world), [2_000, 0, 0]);
    world.end(run, 0, EndKind::Exited { code: 0 });
    assert_eq!(used(&world), [0, 0, 0]);
}

#[test]
fn a_quota_set_below_what_is_held_stops_nothing_by_itself() {
    let mut world = company();
    let run = world.submit_for("nlp", gpus(4));
    world.plan_and_place();
    world.quota("nlp", 1, Some(2), None);
    world.now_us += 3_600_000_000;
    assert!(world.plan_and_preempt().is_empty());
    assert!(world.attempt(run).stopping.is_none());
}
