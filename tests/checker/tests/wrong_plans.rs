//! The checker is a check that can fail: a right plan passes, and each way of spoiling it is found.

#[path = "../../../coordinator/core/src/fixtures.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod fixtures;

use coordinator_core::model::*;
use coordinator_core::scheduler::{Plan, plan};
use coordinator_core::state::{Command, ParentChange, Placement, Preemption};
use fixtures::*;
use platform_checker::{Violation, judge};

const MINUTE_US: u64 = 60_000_000;

/// What is spoilt, how, and what must be found.
type Case = (
    &'static str,
    fn(&mut World, &mut Plan),
    fn(&Violation) -> bool,
);

fn check(before: fn() -> (World, Plan), table: &[Case]) {
    let (world, right) = before();
    assert_eq!(
        judge(&world.state, &right, world.now_us),
        [],
        "the right plan"
    );
    for (what, spoil, is_expected) in table {
        let (mut world, mut wrong) = before();
        spoil(&mut world, &mut wrong);
        let found = judge(&world.state, &wrong, world.now_us);
        assert!(found.iter().any(is_expected), "{what}: {found:#?}");
    }
}

fn planned(placements: Vec<Placement>) -> Plan {
    Plan {
        placements,
        ..Plan::default()
    }
}

/// Two nodes of two A100, one with a T4, one in another pool; a gang of two and a half device wait.
fn two_waiting() -> (World, Plan) {
    let mut world = World::with_nodes(&[
        ("node-1", "2xA100-80G"),
        ("node-2", "2xA100-80G"),
        ("node-3", "T4-16G"),
    ]);
    world.join(describe("gold-1", "gold", "2xA100-80G"));
    let gang = world.submit(WorkloadSpec {
        nodes: 2,
        gpu_model: Some("A100".to_owned()),
        cpu_milli: Some(40_000),
        memory_mib: Some(300 * 1024),
        ..gpus(2)
    });
    let half = world.submit(WorkloadSpec {
        gpu_memory_mib: Some(12 * 1024),
        ..share(500)
    });
    let plan = planned(vec![
        placement(gang, 1, &[("node-1", &[0, 1]), ("node-2", &[0, 1])]),
        placement(half, 1, &[("node-3", &[0])]),
    ]);
    (world, plan)
}

#[test]
fn a_placement_that_does_not_fit_is_found() {
    check(
        two_waiting,
        &[
            (
                "a run that is not there",
                |_, plan| plan.placements[0].run = RunId(99),
                |found| matches!(found, Violation::NotWaiting { run: RunId(99) }),
            ),
            (
                "a run that runs already",
                |world, plan| {
                    assert_eq!(world.try_place(plan.placements[1].clone()), Ok(()));
                },
                |found| matches!(found, Violation::NotWaiting { .. }),
            ),
            (
                "twice",
                |_, plan| plan.placements.push(plan.placements[1].clone()),
                |found| matches!(found, Violation::PlacedTwice { .. }),
            ),
            (
                "an attempt too far",
                |_, plan| plan.placements[1].attempt = 2,
                |found| {
                    matches!(
                        found,
                        Violation::WrongAttempt {
                            planned: 2,
                            next: 1,
                            ..
                        }
                    )
                },
            ),
            (
                "half a gang",
                |_, plan| drop(plan.placements[0].members.pop()),
                |found| {
                    matches!(
                        found,
                        Violation::IncompleteGang {
                            planned: 1,
                            asked: 2,
                            ..
                        }
                    )
                },
            ),
            (
                "a gang on one node",
                |_, plan| plan.placements[0].members[1] = plan.placements[0].members[0].clone(),
                |found| matches!(found, Violation::SharedNode { .. }),
            ),
            (
                "devices given twice",
                |_, plan| plan.placements[0].members[1] = plan.placements[0].members[0].clone(),
                |found| {
                    matches!(
                        found,
                        Violation::DeviceOverfull {
                            share_milli: 2000,
                            ..
                        }
                    )
                },
            ),
            (
                "one device for two",
                |_, plan| drop(plan.placements[0].members[0].devices.pop()),
                |found| {
                    matches!(
                        found,
                        Violation::WrongDevices {
                            found: 1,
                            asked: 2,
                            ..
                        }
                    )
                },
            ),
            (
                "the same device for both",
                |_, plan| {
                    let devices = &mut plan.placements[0].members[0].devices;
                    devices[1] = devices[0].clone();
                },
                |found| {
                    matches!(
                        found,
                        Violation::WrongDevices {
                            found: 1,
                            planned: 2,
                            ..
                        }
                    )
                },
            ),
            (
                "another node's device",
                |_, plan| plan.placements[0].members[0].devices[0] = device("node-2", 0),
                |found| matches!(found, Violation::WrongDevices { found: 1, .. }),
            ),
            (
                "another model",
                |_, plan| {
                    plan.placements[0].members[0].node = node_name("node-3");
                    plan.placements[0].members[0].devices = vec![device("node-3", 0)];
                },
                |found| matches!(found, Violation::WrongModel { .. }),
            ),
            (
                "more memory than is left",
                |world, plan| {
                    let half = WorkloadSpec {
                        gpu_memory_mib: Some(12 * 1024),
                        ..share(500)
                    };
                    let other = world.submit(half);
                    plan.placements
                        .push(placement(other, 1, &[("node-3", &[0])]));
                },
                |found| {
                    matches!(
                        found,
                        Violation::DeviceOverfull {
                            share_milli: 1000,
                            memory_mib: 24_576,
                            ..
                        }
                    )
                },
            ),
            (
                "more CPU than there is",
                |world, _| {
                    let mut smaller = describe("node-2", "default", "2xA100-80G");
                    smaller.cpu_milli = 39_000;
                    world.join(smaller);
                },
                |found| {
                    matches!(
                        found,
                        Violation::NodeOverfull {
                            cpu_milli: 40_000,
                            ..
                        }
                    )
                },
            ),
            (
                "a cordoned node",
                |world, _| {
                    world.accept(Command::Cordon {
                        node: node_name("node-2"),
                        reason: "a fan".to_owned(),
                    });
                },
                |found| {
                    matches!(
                        found,
                        Violation::WrongNode {
                            why: "it is not ready",
                            ..
                        }
                    )
                },
            ),
            (
                "another pool",
                |_, plan| {
                    let member = &mut plan.placements[0].members[0];
                    member.node = node_name("gold-1");
                    member.devices = vec![device("gold-1", 0), device("gold-1", 1)];
                },
                |found| {
                    matches!(
                        found,
                        Violation::WrongNode {
                            why: "it is in another pool",
                            ..
                        }
                    )
                },
            ),
            (
                "a node without the runtime",
                |world, _| {
                    let mut without = describe("node-3", "default", "T4-16G");
                    without.runtimes.clear();
                    world.join(without);
                },
                |found| {
                    matches!(
                        found,
                        Violation::WrongNode {
                            why: "it does not offer the runtime",
                            ..
                        }
                    )
                },
            ),
            (
                "a node that is not there",
                |_, plan| plan.placements[1].members[0].node = node_name("node-9"),
                |found| {
                    matches!(
                        found,
                        Violation::WrongNode {
                            why: "it does not exist",
                            ..
                        }
                    )
                },
            ),
            (
                "nothing for a run that fits",
                |_, plan| drop(plan.placements.pop()),
                |found| {
                    matches!(
                        found,
                        Violation::IdleWhileItFits {
                            fitting: 1,
                            members: 1,
                            ..
                        }
                    )
                },
            ),
        ],
    );
}

#[test]
fn a_cap_binds_what_a_run_is_given_and_so_what_fits_beside_it() {
    let mut world = World::with_nodes(&[("node-1", "T4-16G")]);
    world.set_policy(|policy| {
        policy.gpu_memory_caps_mib = [("be*", 10_000), ("bert*", 6_000)]
            .map(|(model, cap)| (model.to_owned(), cap))
            .into();
    });
    let bert = |model: &str| WorkloadSpec {
        model: Some(model.to_owned()),
        ..share(500)
    };
    let runs = ["bert-base", "best", "bert-large"].map(|model| world.submit(bert(model)));
    let on = |run| placement(run, 1, &[("node-1", &[0])]);
    let plan = planned(vec![on(runs[0]), on(runs[1])]);
    // 6,000 MiB and the half of 16 GiB: 14,192 of 16,384.
    assert_eq!(judge(&world.state, &plan, world.now_us), []);
    world.set_policy(|policy| {
        policy.gpu_memory_caps_mib.insert("bert*".to_owned(), 9_000);
    });
    // The run was admitted under the old cap, and keeps what it asked then.
    assert_eq!(judge(&world.state, &plan, world.now_us), []);
    world.set_policy(|policy| {
        policy.gpu_memory_caps_mib.insert("bert-base".to_owned(), 1);
    });
    let halves = planned(vec![on(runs[0]), on(runs[1])]);
    assert_eq!(
        judge(&world.state, &halves, world.now_us),
        [],
        "its own line binds now"
    );
}

/// nlp is guaranteed 2 of the 4 and may reach 3; who has no line borrows what is lent.
fn quotas() -> (World, Plan) {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    world.quota("nlp", 2, Some(3), Some(1));
    let own = world.submit_for("nlp", gpus(2));
    let guest = world.submit_for("guests", gpus(1));
    let plan = planned(vec![
        placement(own, 1, &[("node-1", &[0, 1])]),
        placement(guest, 1, &[("node-1", &[2])]),
    ]);
    (world, plan)
}

#[test]
fn a_placement_that_does_not_stand_is_found() {
    check(
        quotas,
        &[
            (
                "above a ceiling",
                |world, plan| {
                    let more = world.submit_for("nlp", gpus(2));
                    plan.placements[1] = placement(more, 1, &[("node-1", &[2, 3])]);
                },
                |found| {
                    matches!(
                        found,
                        Violation::OverLimit {
                            used_milli: 2000,
                            asked_milli: 2000,
                            limit_milli: 3000,
                            ..
                        }
                    )
                },
            ),
            (
                "above a ceiling further up",
                |world, plan| {
                    world.tenant("team");
                    world.accept(Command::SetTenant {
                        tenant: tenant_name("team"),
                        parent: ParentChange::Under(tenant_name("nlp")),
                        weight: None,
                    });
                    let more = world.submit_for("team", gpus(2));
                    plan.placements[1] = placement(more, 1, &[("node-1", &[2, 3])]);
                },
                |found| matches!(found, Violation::OverLimit { .. }),
            ),
            (
                "what could not be given back",
                |world, plan| {
                    let fixed = world.submit_for(
                        "nlp",
                        WorkloadSpec {
                            preemptible: false,
                            ..gpus(1)
                        },
                    );
                    plan.placements[1] = placement(fixed, 1, &[("node-1", &[2])]);
                },
                |found| {
                    matches!(
                        found,
                        Violation::BorrowsForGood {
                            borrowed_milli: 1000,
                            ..
                        }
                    )
                },
            ),
            (
                "what is not lent",
                |world, plan| {
                    let large = world.submit_for("guests", gpus(4));
                    plan.placements = vec![placement(large, 1, &[("node-1", &[0, 1, 2, 3])])];
                },
                |found| {
                    matches!(
                        found,
                        Violation::NotLent {
                            idle_milli: 4000,
                            kept_milli: 1000,
                            ..
                        }
                    )
                },
            ),
            (
                "who borrows before who is owed",
                |world, plan| {
                    let large = world.submit_for("guests", gpus(3));
                    plan.placements = vec![placement(large, 1, &[("node-1", &[0, 1, 2])])];
                },
                |found| {
                    matches!(
                        found,
                        Violation::BorrowedBefore {
                            fitting: 1,
                            members: 1,
                            ..
                        }
                    )
                },
            ),
            (
                "the lower priority before the higher",
                |world, plan| {
                    world.submit_for(
                        "guests",
                        WorkloadSpec {
                            priority: 5,
                            ..gpus(1)
                        },
                    );
                    plan.placements.truncate(2);
                },
                |found| matches!(found, Violation::PassedOver { .. }),
            ),
        ],
    );
}

/// nlp is guaranteed 2 of 4 devices on two nodes and waits with 1; two guests hold all.
fn reclaimed() -> (World, Plan) {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G"), ("node-2", "2xA100-80G")]);
    world.quota("nlp", 2, None, None);
    let guests = [
        world.submit_for("guests", gpus(2)),
        world.submit_for("guests", gpus(2)),
    ];
    world.place_on(guests[0], &[("node-1", &[0, 1])]);
    world.place_on(guests[1], &[("node-2", &[0, 1])]);
    world.now_us += MINUTE_US;
    let owner = world.submit_for("nlp", gpus(1));
    let plan = Plan {
        preemptions: vec![preemption(guests[0], owner)],
        ..Plan::default()
    };
    (world, plan)
}

fn preemption(run: RunId, claimant: RunId) -> Preemption {
    Preemption {
        run,
        attempt: 1,
        claimant,
    }
}

fn by_name(world: &World, tenant: &str) -> Vec<RunId> {
    let runs = world.state.runs().values();
    runs.filter(|run| run.tenant.as_str() == tenant)
        .map(|run| run.id)
        .collect()
}

#[test]
fn stopping_a_run_without_a_right_or_a_need_is_found() {
    check(
        reclaimed,
        &[
            (
                "a victim too many",
                |world, plan| {
                    let owner = plan.preemptions[0].claimant;
                    let other = by_name(world, "guests")[1];
                    plan.preemptions.push(preemption(other, owner));
                },
                |found| {
                    matches!(
                        found,
                        Violation::NeedlessVictim {
                            fitting: 1,
                            members: 1,
                            ..
                        }
                    )
                },
            ),
            (
                "the same victim twice",
                |_, plan| plan.preemptions.push(plan.preemptions[0].clone()),
                |found| matches!(found, Violation::NotStoppable { .. }),
            ),
            (
                "an attempt that is over",
                |_, plan| plan.preemptions[0].attempt = 7,
                |found| matches!(found, Violation::NotStoppable { .. }),
            ),
            (
                "a victim that stops already",
                |world, plan| {
                    world.cancel(plan.preemptions[0].run);
                },
                |found| matches!(found, Violation::NotStoppable { .. }),
            ),
            (
                "a victim in its first while",
                |world, _| world.now_us -= MINUTE_US - 1_000_000,
                |found| matches!(found, Violation::TooYoung { .. }),
            ),
            (
                "for one that does not wait",
                |world, plan| plan.preemptions[0].claimant = by_name(world, "guests")[1],
                |found| matches!(found, Violation::NoClaimant { .. }),
            ),
            (
                "for one that has nothing guaranteed",
                |world, plan| {
                    plan.preemptions[0].claimant = world.submit_for("others", gpus(1));
                },
                |found| matches!(found, Violation::NoRight { .. }),
            ),
            (
                "for one of the same tenant without a higher priority",
                |world, plan| {
                    plan.preemptions[0].claimant = world.submit_for("guests", gpus(1));
                },
                |found| matches!(found, Violation::NoRight { .. }),
            ),
            (
                "for one of the same tenant whose class stops nobody",
                |world, plan| {
                    let patient = WorkloadSpec {
                        priority: 9,
                        never_preempts: true,
                        ..gpus(1)
                    };
                    plan.preemptions[0].claimant = world.submit_for("guests", patient);
                },
                |found| matches!(found, Violation::NoRight { .. }),
            ),
            (
                "for more than is guaranteed",
                |world, plan| {
                    let large = world.submit_for(
                        "nlp",
                        WorkloadSpec {
                            nodes: 2,
                            ..gpus(2)
                        },
                    );
                    let guests = by_name(world, "guests");
                    plan.preemptions =
                        vec![preemption(guests[0], large), preemption(guests[1], large)];
                },
                |found| matches!(found, Violation::NoRight { .. }),
            ),
            (
                "two claims that together pass the guarantee",
                |world, plan| {
                    let second = world.submit_for("nlp", gpus(2));
                    let other = by_name(world, "guests")[1];
                    plan.preemptions.push(preemption(other, second));
                },
                |found| matches!(found, Violation::NoRight { .. }),
            ),
            (
                "a victim whose end makes too little room",
                |world, plan| {
                    plan.preemptions[0].claimant = world.submit_for(
                        "nlp",
                        WorkloadSpec {
                            nodes: 2,
                            ..gpus(1)
                        },
                    );
                },
                |found| {
                    matches!(
                        found,
                        Violation::StoppedInVain {
                            fitting: 1,
                            members: 2,
                            ..
                        }
                    )
                },
            ),
            (
                "a borrower that would be cut below its quota",
                |world, plan| {
                    world.quota("guests", 2, None, None);
                    let other = by_name(world, "guests")[1];
                    let second = world.submit_for(
                        "nlp",
                        WorkloadSpec {
                            gpu_memory_mib: Some(9),
                            ..gpus(1)
                        },
                    );
                    plan.preemptions.push(preemption(other, second));
                },
                |found| matches!(found, Violation::NoRight { .. }),
            ),
            (
                "two claims on the same room",
                |world, plan| {
                    let second = world.submit_for(
                        "nlp",
                        WorkloadSpec {
                            gpu_memory_mib: Some(9_000),
                            ..gpus(1)
                        },
                    );
                    let first = plan.preemptions[0].claimant;
                    // Its victims are on the first's node alone.
                    let guests = by_name(world, "guests");
                    world.cancel(guests[0]);
                    world.end(guests[0], 0, EndKind::Stopped);
                    let halves = [
                        world.submit_for("guests", gpus(1)),
                        world.submit_for("guests", gpus(1)),
                    ];
                    world.place_on(halves[0], &[("node-1", &[0])]);
                    world.place_on(halves[1], &[("node-1", &[1])]);
                    world.now_us += MINUTE_US;
                    plan.preemptions =
                        vec![preemption(halves[0], first), preemption(halves[1], second)];
                },
                |found| matches!(found, Violation::ClaimsCollide { .. }),
            ),
        ],
    );
}

#[test]
fn a_victim_that_makes_room_below_a_ceiling_that_is_met_still_is_found() {
    let mut world = World::with_nodes(&[("node-1", "4xA100-80G")]);
    world.quota("nlp", 3, Some(3), None);
    let small = world.submit_for("nlp", gpus(1));
    let large = world.submit_for("nlp", gpus(2));
    world.plan_and_place();
    world.now_us += MINUTE_US;
    let urgent = world.submit_for(
        "nlp",
        WorkloadSpec {
            priority: 9,
            ..gpus(2)
        },
    );
    let for_urgent = |victims: &[RunId]| Plan {
        preemptions: victims.iter().map(|run| preemption(*run, urgent)).collect(),
        ..Plan::default()
    };
    let found = |victims: &[RunId]| judge(&world.state, &for_urgent(victims), world.now_us);
    assert_eq!(found(&[large]), []);
    assert!(matches!(
        found(&[small, large])[..],
        [Violation::NeedlessVictim { .. }]
    ));
    assert!(
        matches!(found(&[small])[..], [Violation::WouldNotStand { .. }]),
        "there is room, and 2 with 2 are above 3"
    );
}

#[test]
fn a_run_that_may_not_be_preempted_is_not() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    world.quota("nlp", 2, None, None);
    let fixed = world.submit_for(
        "nlp",
        WorkloadSpec {
            preemptible: false,
            ..gpus(2)
        },
    );
    world.plan_and_place();
    world.now_us += MINUTE_US;
    let urgent = world.submit_for(
        "nlp",
        WorkloadSpec {
            priority: 9,
            ..gpus(1)
        },
    );
    let wrong = Plan {
        preemptions: vec![preemption(fixed, urgent)],
        ..Plan::default()
    };
    let found = judge(&world.state, &wrong, world.now_us);
    assert_eq!(found, [Violation::Unpreemptible { run: fixed }]);
}

#[test]
fn room_that_is_kept_for_a_claimant_is_nobody_elses() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    world.quota("nlp", 2, None, None);
    let guest = world.submit_for("guests", gpus(1));
    world.plan_and_place();
    world.now_us += MINUTE_US;
    let owner = world.submit_for("nlp", gpus(2));
    assert_eq!(world.plan_and_preempt(), [guest]);
    let thief = world.submit_for("thieves", gpus(1));
    let right = plan(&world.state, world.now_us);
    assert_eq!(judge(&world.state, &right, world.now_us), []);
    let wrong = planned(vec![placement(thief, 1, &[("node-1", &[1])])]);
    assert_eq!(
        judge(&world.state, &wrong, world.now_us),
        [Violation::TakesKeptRoom {
            claimant: owner,
            before: 1,
            after: 0,
            members: 1,
        }]
    );
}

#[test]
fn who_is_in_another_pool_is_stopped_for_nobody_here() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    world.join(describe("gold-1", "gold", "A100-80G"));
    let golden = world.submit(WorkloadSpec {
        pool: Some(pool_name("gold")),
        ..gpus(1)
    });
    let held = world.submit(gpus(1));
    world.plan_and_place();
    world.now_us += MINUTE_US;
    let urgent = world.submit(WorkloadSpec {
        priority: 9,
        ..gpus(1)
    });
    let stop = |run| Plan {
        preemptions: vec![preemption(run, urgent)],
        ..Plan::default()
    };
    assert_eq!(judge(&world.state, &stop(held), world.now_us), []);
    let found = judge(&world.state, &stop(golden), world.now_us);
    assert!(
        matches!(found[..], [Violation::OtherPool { .. }]),
        "{found:?}"
    );
}

#[test]
fn a_run_that_is_held_after_a_failure_leaves_its_device_idle_until_its_time() {
    let mut world = World::with_nodes(&[("node-1", "1xA100-80G")]);
    let run = world.submit(WorkloadSpec {
        retries: 1,
        ..gpus(1)
    });
    world.plan_and_place();
    world.end(run, 0, EndKind::Exited { code: 1 });
    let hasty = planned(vec![placement(run, 2, &[("node-1", &[0])])]);
    let found = |world: &World, plan: &Plan| judge(&world.state, plan, world.now_us);
    assert_eq!(found(&world, &planned(Vec::new())), []);
    assert_eq!(found(&world, &hasty), [Violation::Held { run }]);
    world.wait_out(run);
    assert_eq!(found(&world, &hasty), []);
    assert_ne!(found(&world, &planned(Vec::new())), []);
}

#[test]
fn a_run_whose_budget_is_spent_starts_no_more() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    world.accept(Command::SetBudget {
        budget: Box::new(Budget {
            name: "small".to_owned(),
            scope: BudgetScope::Tenant(TenantName::default_tenant()),
            amount_micro: 1,
            period: BudgetPeriod::Month,
            warn_at_percent: 50,
            stop: true,
            created_us: 0,
        }),
    });
    world.submit(gpus(1));
    world.plan_and_place();
    let waits = world.submit(gpus(1));
    let next = planned(vec![placement(waits, 1, &[("node-1", &[1])])]);
    world.now_us += MINUTE_US;
    world.accept(Command::Tick);
    let found = judge(&world.state, &next, world.now_us);
    assert_eq!(found, [Violation::Held { run: waits }]);
    assert_eq!(judge(&world.state, &Plan::default(), world.now_us), []);
}
