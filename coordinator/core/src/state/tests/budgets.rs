//! Budgets: what is counted, when they warn, whom they stop, and what a new period changes.

use crate::fixtures::*;
use crate::model::{
    Budget, BudgetPeriod, BudgetScope, Date, EndKind, HOUR_US, RunId, ScheduledPrice, TenantName,
    WorkloadSpec,
};
use crate::scheduler::{Tier, explain};
use crate::state::{Command, Event, ParentChange};

/// An hour of an A100-80G costs 2.50: so many hours of one, each month, for the default tenant.
fn hours(count: u64) -> Budget {
    Budget {
        name: "all".to_owned(),
        scope: BudgetScope::Tenant(TenantName::default_tenant()),
        amount_micro: count * 2_500_000,
        period: BudgetPeriod::Month,
        warn_at_percent: 50,
        stop: true,
        created_us: 0,
    }
}

fn of_tag(name: &str, value: &str, count: u64) -> Budget {
    Budget {
        name: name.to_owned(),
        scope: BudgetScope::Tag {
            key: "team".to_owned(),
            value: value.to_owned(),
        },
        ..hours(count)
    }
}

fn set(world: &mut World, budget: Budget) {
    world.accept(Command::SetBudget {
        budget: Box::new(budget),
    });
}

fn spent_micro(world: &World, name: &str) -> u64 {
    let account = world.state.budget(name).expect("it is set");
    account
        .meter
        .standing(&account.budget, world.now_us)
        .spent_micro
}

/// What the audit has of budgets, in order.
fn told(world: &World) -> Vec<(String, String)> {
    world
        .audit()
        .into_iter()
        .filter(|entry| entry.actor == "budgets")
        .map(|entry| (entry.action, entry.subject))
        .collect()
}

fn pass(world: &mut World, us: u64) {
    world.now_us += us;
    world.accept(Command::Tick);
}

#[test]
fn a_spent_budget_starts_nothing_lets_go_on_what_runs_and_ends_with_its_period() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    set(&mut world, hours(2));
    let runs = world.submit(gpus(1));
    world.plan_and_place();
    let waits = world.submit(gpus(2));
    world.now_us += 2 * HOUR_US - 1;
    world.submit(share(500));
    pass(&mut world, 1);
    assert_eq!(spent_micro(&world, "all"), 5_000_000);

    let refusal = world.refuse(submit(gpus(1)));
    assert_eq!(
        refusal.message,
        "budget all of tenant default stops new runs: 100 % is spent, 5.00 of 5.00 USD, in the month from 1970-01-01 UTC"
    );
    assert_eq!(
        refusal.allowed.as_deref(),
        Some("new runs from 1970-02-01 UTC")
    );
    let none = world.submit(gpus(0));
    assert_eq!(world.plan_and_place(), [none], "what costs nothing starts");
    world.end(runs, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.plan_and_place(), [], "room alone does not start it");
    let refused = world
        .try_place(placement(waits, 1, &[("node-1", &[0, 1])]))
        .expect_err("it is spent");
    assert!(refused.starts_with("budget all of tenant default stops new runs"));
    let waiting = explain(&world.state, world.run(waits));
    assert_eq!(waiting.tier, Tier::OverBudget);
    assert_eq!(waiting.tier.as_str(), "over-budget");

    world.now_us = Date {
        year: 1970,
        month: 2,
        day: 1,
    }
    .start_us();
    assert!(world.state.is_due(world.now_us));
    world.accept(Command::Tick);
    assert_eq!(spent_micro(&world, "all"), 0);
    assert_eq!(world.plan_and_place().len(), 1, "February begins");
}

#[test]
fn a_crossing_is_told_once_in_each_period_and_to_whoever_submits_from_then_on() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    set(
        &mut world,
        Budget {
            stop: false,
            period: BudgetPeriod::Week,
            ..hours(4)
        },
    );
    let warnings = |world: &mut World| match world.accept(submit(gpus(1))).as_slice() {
        [Event::RunQueued { warnings, .. }] => warnings.clone(),
        events => panic!("{events:#?}"),
    };
    assert_eq!(warnings(&mut world), Vec::<String>::new());
    world.plan_and_place();
    pass(&mut world, 2 * HOUR_US);
    let warn = ("budget.warn".to_owned(), "all".to_owned());
    let reached = ("budget.reached".to_owned(), "all".to_owned());
    assert_eq!(told(&world), std::slice::from_ref(&warn));
    assert_eq!(
        warnings(&mut world),
        [
            "budget all of tenant default: 50 % is spent, 5.00 of 10.00 USD, in the week from 1970-01-01 UTC; at this rate it is spent on 1970-01-01 04:00 UTC"
        ]
    );
    pass(&mut world, HOUR_US);
    pass(&mut world, HOUR_US);
    assert_eq!(told(&world), [warn.clone(), reached.clone()]);
    assert_eq!(warnings(&mut world).len(), 1, "it warns and does not stop");
    // The platform was down over two ends of weeks: each crossing of the week that is now is told.
    pass(&mut world, 14 * 24 * HOUR_US);
    assert_eq!(told(&world), [warn.clone(), reached.clone(), warn, reached]);
}

#[test]
fn a_run_draws_on_its_tags_and_on_every_tenant_above_it() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    for tenant in ["lab", "nlp"] {
        world.tenant(tenant);
    }
    world.accept(Command::SetTenant {
        tenant: tenant_name("nlp"),
        parent: ParentChange::Under(tenant_name("lab")),
        weight: None,
    });
    let of = |name: &str, tenant: &str| Budget {
        name: name.to_owned(),
        scope: BudgetScope::Tenant(tenant_name(tenant)),
        ..hours(100)
    };
    for budget in [
        of("lab", "lab"),
        of("nlp", "nlp"),
        of_tag("tag-a", "a", 1),
        of_tag("tag-b", "b", 100),
    ] {
        set(&mut world, budget);
    }
    let tagged = |value: &str| WorkloadSpec {
        tags: [("team".to_owned(), value.to_owned())].into(),
        ..gpus(1)
    };
    world.submit_for("nlp", tagged("a"));
    world.submit_for("lab", tagged("b"));
    assert_eq!(world.plan_and_place().len(), 2);
    let (late, free) = (
        world.submit_for("nlp", tagged("a")),
        world.submit_for("nlp", tagged("b")),
    );
    pass(&mut world, HOUR_US);
    let spent = |world: &World, name: &str| spent_micro(world, name) / 2_500_000;
    let all = |world: &World| ["lab", "nlp", "tag-a", "tag-b"].map(|name| spent(world, name));
    assert_eq!(all(&world), [2, 1, 1, 1]);
    assert_eq!(
        world.plan_and_place(),
        [free],
        "a spent tag stops its own runs and nobody else's of the line"
    );
    assert_eq!(
        explain(&world.state, world.run(late)).tier,
        Tier::OverBudget
    );
    // What it spent goes with a tenant that moves.
    world.accept(Command::SetTenant {
        tenant: tenant_name("nlp"),
        parent: ParentChange::Top,
        weight: None,
    });
    assert_eq!(all(&world), [1, 1, 1, 1]);
    pass(&mut world, HOUR_US);
    assert_eq!(all(&world), [2, 3, 2, 3]);
}

#[test]
fn a_budget_that_is_set_late_counts_what_was_spent_in_its_period() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let first = world.submit(gpus(2));
    world.plan_and_place();
    world.now_us += HOUR_US;
    world.end(first, 0, EndKind::Exited { code: 0 });
    world.submit(gpus(1));
    world.plan_and_place();
    world.now_us += HOUR_US;
    let waits = world.submit(gpus(2));
    let preview = world
        .state
        .budget_to_be(&hours(3))
        .expect("it may be set so");
    assert_eq!(world.state.held_back_by(&preview), [waits]);
    let larger = world.state.budget_to_be(&hours(4)).expect("and so");
    assert_eq!(world.state.held_back_by(&larger), Vec::<RunId>::new());
    set(&mut world, hours(3));
    assert_eq!(spent_micro(&world, "all"), 7_500_000);
    assert_eq!(told(&world).len(), 2, "both at once");
    set(&mut world, hours(4));
    assert_eq!(told(&world).len(), 2, "what is still so is not told again");
    assert!(
        !world
            .state
            .is_stopped(&TenantName::default_tenant(), &gpus(1))
    );
    pass(&mut world, HOUR_US);
    assert_eq!(told(&world).len(), 3, "the larger amount is reached");
    let once = Budget {
        name: "once".to_owned(),
        period: BudgetPeriod::Once,
        ..hours(100)
    };
    set(&mut world, once.clone());
    pass(&mut world, HOUR_US);
    set(
        &mut world,
        Budget {
            amount_micro: 5,
            ..once
        },
    );
    assert_eq!(
        spent_micro(&world, "once"),
        2_500_000,
        "from the day it was first set on"
    );
    world.accept(Command::RemoveBudget {
        name: "all".to_owned(),
    });
    world.accept(Command::RemoveBudget {
        name: "once".to_owned(),
    });
    world.submit(gpus(1));
}

#[test]
fn a_price_that_changes_changes_what_is_spent_from_its_moment_on() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    set(&mut world, hours(100));
    world.submit(gpus(1));
    world.plan_and_place();
    let from_us = world.now_us + HOUR_US;
    world.set_policy(|policy| {
        policy.scheduled_prices.push(ScheduledPrice {
            from_us,
            gpu_model: "A100-80G".to_owned(),
            price_per_gpu_hour_micro: 5_000_000,
        });
    });
    // Late, as when the coordinator was down.
    pass(&mut world, 3 * HOUR_US);
    assert_eq!(spent_micro(&world, "all"), 2_500_000 + 2 * 5_000_000);
}

#[test]
fn a_run_over_budget_has_nobody_stopped_for_it() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    world.quota("nlp", 1, None, None);
    let borrower = world.submit_for("guests", gpus(1));
    world.plan_and_place();
    world.submit_for("nlp", gpus(1));
    world.now_us += HOUR_US;
    set(
        &mut world,
        Budget {
            scope: BudgetScope::Tag {
                key: "team".to_owned(),
                value: "nlp".to_owned(),
            },
            amount_micro: 1,
            ..hours(1)
        },
    );
    let plan = crate::scheduler::plan(&world.state, world.now_us);
    assert!(plan.is_empty(), "{plan:#?}");
    let events = world.apply(Command::Preempt {
        preemptions: vec![crate::state::Preemption {
            run: borrower,
            attempt: 1,
            claimant: RunId(2),
        }],
    });
    assert!(
        matches!(events.as_slice(), [Event::PreemptionRefused { reason, .. }] if reason.starts_with("budget all")),
        "{events:#?}"
    );
}

#[test]
fn budgets_that_say_nothing_are_refused_with_what_is_allowed() {
    let mut world = World::new();
    let tag = |key: &str, value: &str| BudgetScope::Tag {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    for (budget, words) in [
        (
            Budget {
                name: "Not A Name".to_owned(),
                ..hours(1)
            },
            "budget name \"Not A Name\" is not valid",
        ),
        (hours(0), "an amount of 0 millionths is out of range"),
        (
            Budget {
                amount_micro: u64::MAX,
                ..hours(1)
            },
            "an amount of 18446744073709551615 millionths is out of range",
        ),
        (
            Budget {
                warn_at_percent: 101,
                ..hours(1)
            },
            "a warning at 101 % is out of range",
        ),
        (
            Budget {
                scope: BudgetScope::Tenant(tenant_name("nobody")),
                ..hours(1)
            },
            "tenant \"nobody\" does not exist",
        ),
        (
            Budget {
                scope: tag("project", ""),
                ..hours(1)
            },
            "tag project=\"\" is not valid",
        ),
    ] {
        let refusal = world.refuse(Command::SetBudget {
            budget: Box::new(budget),
        });
        assert_eq!(refusal.message, words);
    }
    let refusal = world.refuse(Command::RemoveBudget {
        name: "none".to_owned(),
    });
    assert_eq!(refusal.message, "budget \"none\" does not exist");
}

#[test]
fn a_clock_that_jumps_beyond_the_calendar_ends() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    set(
        &mut world,
        Budget {
            period: BudgetPeriod::Week,
            ..hours(1)
        },
    );
    world.submit(gpus(1));
    world.plan_and_place();
    world.now_us = u64::MAX;
    world.accept(Command::Tick);
    assert!(!world.state.is_due(u64::MAX));
}
