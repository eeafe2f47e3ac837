//! Priorities by name and by number, who may use which, and what stays with a run.

use crate::fixtures::*;
use crate::model::{Policy, PriorityClass, Role, RunId, RunPhase, UserName, WorkloadSpec};
use crate::policy::{Refusal, RefusalKind};
use crate::state::{Command, Event};

/// The class of a run that is admitted, or words of the refusal.
type Answer = Result<&'static str, &'static str>;

fn asked(class: Option<&str>, priority: i32) -> WorkloadSpec {
    WorkloadSpec {
        priority_class: class.map(str::to_owned),
        priority,
        ..gpus(1)
    }
}

fn submit_as(role: Role, tenant: &str, spec: WorkloadSpec) -> Command {
    Command::Submit {
        spec: Box::new(WorkloadSpec {
            tenant: Some(tenant_name(tenant)),
            ..spec
        }),
        tenant: tenant_name("default"),
        user: UserName::new("ana").expect("a good name"),
        role: Some(role),
    }
}

fn submitted(world: &mut World, role: Role, spec: WorkloadSpec) -> RunId {
    match world.accept(submit_as(role, "default", spec)).as_slice() {
        [Event::RunQueued { run, .. }] => *run,
        other => panic!("{other:?}"),
    }
}

/// `high` is for tenant admins, `burst` up to 80 for nlp and those below it.
fn with_closed_classes() -> World {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    for (tenant, parent) in [("nlp", None), ("vision", None), ("speech", Some("nlp"))] {
        world.accept(Command::CreateTenant {
            tenant: tenant_name(tenant),
            parent: parent.map(tenant_name),
            weight: None,
        });
    }
    world.set_policy(|policy| {
        let high = PriorityClass {
            role: Some(Role::TenantAdmin),
            ..PriorityClass::open(50)
        };
        let burst = PriorityClass {
            tenants: [tenant_name("nlp")].into(),
            ..PriorityClass::open(80)
        };
        policy.priority_classes.insert("high".to_owned(), high);
        policy.priority_classes.insert("burst".to_owned(), burst);
    });
    world
}

#[test]
fn a_class_gives_its_number_and_a_number_its_class() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    for (class, priority) in [("low", -50), ("normal", 0), ("high", 50)] {
        let run = submitted(&mut world, Role::Member, asked(Some(class), 0));
        assert_eq!(world.run(run).spec.priority, priority);
        assert_eq!(world.run(run).spec.priority_class.as_deref(), Some(class));
    }
    let table = [
        (-100, "low"),
        (-50, "low"),
        (-49, "normal"),
        (0, "normal"),
        (1, "high"),
        (50, "high"),
    ];
    for (number, class) in table {
        let run = submitted(&mut world, Role::Member, asked(None, number));
        assert_eq!(world.run(run).spec.priority, number);
        assert_eq!(world.run(run).spec.priority_class.as_deref(), Some(class));
    }
    let admins = submitted(&mut world, Role::TenantAdmin, asked(None, 51));
    assert_eq!(
        world.run(admins).spec.priority_class.as_deref(),
        Some("urgent")
    );
    // The number that it resolves to may come back with it, and no other.
    submitted(&mut world, Role::Member, asked(Some("high"), 50));
    let refusal = world.refuse(submit_as(Role::Member, "default", asked(Some("high"), 7)));
    assert_eq!(refusal.kind, RefusalKind::Invalid);
    let refusal = world.refuse(submit_as(Role::Member, "default", asked(Some("hgih"), 0)));
    assert_eq!(refusal.message, "priority class \"hgih\" does not exist");
    assert_eq!(
        refusal.allowed.as_deref(),
        Some("low (-50), normal (0), high (50), or a number up to 50")
    );
}

#[test]
fn a_closed_class_is_closed_by_its_name_and_by_every_number_above_the_open_ones() {
    let member = Role::Member;
    let admin = Role::TenantAdmin;
    let table: &[(Role, &str, Option<&str>, i32, Answer)] = &[
        (
            member,
            "vision",
            Some("high"),
            0,
            Err("for a tenant-admin and above, and you are a member"),
        ),
        (
            member,
            "vision",
            None,
            1,
            Err("priority 1 is above normal (0), the highest class open to you"),
        ),
        (
            member,
            "vision",
            None,
            50,
            Err("priority 50 is above normal (0)"),
        ),
        (member, "vision", None, 0, Ok("normal")),
        (member, "vision", None, -100, Ok("low")),
        (admin, "vision", Some("high"), 0, Ok("high")),
        (admin, "vision", None, 50, Ok("high")),
        (
            admin,
            "vision",
            Some("burst"),
            0,
            Err("for runs of nlp, and this one is charged to vision"),
        ),
        (admin, "vision", None, 100, Ok("urgent")),
        (member, "nlp", Some("burst"), 0, Ok("burst")),
        (member, "speech", Some("burst"), 0, Ok("burst")),
        // What is below an open class is open too, whosesoever it is.
        (member, "speech", None, 20, Ok("burst")),
        (
            member,
            "speech",
            None,
            81,
            Err("priority 81 is above burst (80)"),
        ),
    ];
    for (role, tenant, class, priority, expected) in table {
        let mut world = with_closed_classes();
        let command = submit_as(*role, tenant, asked(*class, *priority));
        match expected {
            Ok(class) => {
                let events = world.accept(command);
                let [Event::RunQueued { run, .. }] = events.as_slice() else {
                    panic!("{events:?}");
                };
                assert_eq!(world.run(*run).spec.priority_class.as_deref(), Some(*class));
            }
            Err(words) => {
                let refusal: Refusal = world.refuse(command);
                assert_eq!(refusal.kind, RefusalKind::Refused, "{refusal:?}");
                assert!(refusal.message.contains(words), "{refusal:?}");
                assert!(
                    refusal
                        .allowed
                        .as_ref()
                        .is_some_and(|allowed| allowed.contains("normal (0)")),
                    "what is open is named: {refusal:?}"
                );
                assert!(refusal.hint.is_some(), "{refusal:?}");
            }
        }
    }
}

#[test]
fn an_array_is_bound_like_a_run() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let array = |class: &str| Command::SubmitArray {
        spec: Box::new(asked(Some(class), 0)),
        request: Box::new("0-3".parse().expect("an array")),
        tenant: tenant_name("default"),
        user: UserName::new("ana").expect("a good name"),
        role: Some(Role::Member),
    };
    let refusal = world.refuse(array("urgent"));
    assert_eq!(refusal.kind, RefusalKind::Refused);
    world.accept(array("low"));
    assert!(
        world
            .state
            .runs()
            .values()
            .all(|run| run.spec.priority == -50)
    );
}

#[test]
fn without_classes_every_number_is_open_and_no_name_is() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    world.set_policy(|policy| policy.priority_classes.clear());
    let run = submitted(&mut world, Role::Member, asked(None, 100));
    assert_eq!(world.run(run).spec.priority_class, None);
    assert_eq!(
        world
            .refuse(submit_as(Role::Member, "default", asked(Some("high"), 0)))
            .allowed
            .as_deref(),
        Some("no priority class is open to you")
    );
}

#[test]
fn a_change_of_the_classes_leaves_those_that_were_admitted_as_they_are() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    world.set_policy(|policy| policy.minimum_run_ms = 0);
    let low = submitted(&mut world, Role::Member, asked(Some("low"), 0));
    assert_eq!(world.plan_and_place(), [low]);
    let before = submitted(&mut world, Role::Member, asked(Some("high"), 0));
    world.set_policy(|policy| {
        policy.priority_classes.insert(
            "high".to_owned(),
            PriorityClass {
                never_preempts: true,
                ..PriorityClass::open(60)
            },
        );
        policy.priority_classes.remove("low");
    });
    let after = submitted(&mut world, Role::Member, asked(Some("high"), 0));
    assert_eq!(world.run(low).spec.priority_class.as_deref(), Some("low"));
    let right = |run: RunId| {
        world
            .state
            .claim_on(world.run(run), world.run(low))
            .is_some()
    };
    assert_eq!((world.run(before).spec.priority, right(before)), (50, true));
    assert_eq!((world.run(after).spec.priority, right(after)), (60, false));
}

/// A class that goes before most and stops nobody, where anybody may be stopped at once.
fn with_patient_class(world: &mut World) {
    world.set_policy(|policy| {
        policy.minimum_run_ms = 0;
        policy.priority_classes.insert(
            "patient".to_owned(),
            PriorityClass {
                never_preempts: true,
                ..PriorityClass::open(90)
            },
        );
    });
}

#[test]
fn a_class_that_stops_nobody_goes_first_and_waits_for_room() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    with_patient_class(&mut world);
    let running = submitted(&mut world, Role::Member, asked(Some("low"), 0));
    assert_eq!(world.plan_and_place(), [running]);
    let normal = submitted(&mut world, Role::Member, asked(None, -50));
    let patient = submitted(&mut world, Role::Member, asked(Some("patient"), 0));
    let plan = crate::scheduler::plan(&world.state, world.now_us);
    assert!(plan.preemptions.is_empty(), "{plan:?}");
    // A planner that proposes it all the same is refused.
    let events = world.apply(Command::Preempt {
        preemptions: vec![crate::state::Preemption {
            run: running,
            attempt: 1,
            claimant: patient,
        }],
    });
    assert!(
        matches!(events.as_slice(), [Event::PreemptionRefused { .. }]),
        "{events:?}"
    );
    assert_eq!(world.run(running).phase, RunPhase::Active);
    assert_eq!(
        world.state.queues().of_tenant(
            &crate::model::PoolName::default_pool(),
            &tenant_name("default")
        ),
        [patient, normal]
    );
}

#[test]
fn a_run_that_stops_nobody_keeps_none_behind_it_from_taking_what_they_may() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    with_patient_class(&mut world);
    let saved = submitted(&mut world, Role::Member, asked(Some("low"), 0));
    world.now_us += 1_000_000;
    assert_eq!(world.plan_and_place(), [saved]);
    world.now_us += 60_000_000;
    let fresh = submitted(&mut world, Role::Member, asked(Some("low"), 0));
    assert_eq!(world.plan_and_place(), [fresh]);
    world.now_us += 1_000_000;
    let patient = submitted(&mut world, Role::Member, asked(Some("patient"), 0));
    let high = submitted(&mut world, Role::Member, asked(Some("high"), 0));
    // Of two that are below it, the one that loses least.
    assert_eq!(world.plan_and_preempt(), [fresh]);
    world.end(fresh, 0, crate::model::EndKind::Stopped);
    assert_eq!(world.plan_and_place(), [high]);
    world.end(saved, 0, crate::model::EndKind::Exited { code: 0 });
    assert_eq!(world.plan_and_place(), [patient]);
}

#[test]
fn classes_that_could_never_be_kept_are_refused() {
    let mut world = World::new();
    let of_role = |role| PriorityClass {
        role: Some(role),
        ..PriorityClass::open(50)
    };
    let nobodys = PriorityClass {
        tenants: [tenant_name("nobody")].into(),
        ..PriorityClass::open(50)
    };
    let table: &[(&str, PriorityClass, &str)] = &[
        ("7up", PriorityClass::open(7), "beginning with a letter"),
        ("High", PriorityClass::open(7), "lower-case"),
        ("high", PriorityClass::open(101), "-100 to 100"),
        ("high", of_role(Role::Agent), "member, tenant-admin"),
        ("high", of_role(Role::Viewer), "member, tenant-admin"),
        ("high", nobodys, "default"),
    ];
    let refused = |world: &mut World, policy: Policy| {
        world.refuse(Command::SetPolicy {
            policy: Box::new(policy),
        })
    };
    for (name, class, allowed) in table {
        let mut policy = world.state.policy().clone();
        policy
            .priority_classes
            .insert((*name).to_owned(), class.clone());
        let refusal = refused(&mut world, policy);
        assert_eq!(refusal.kind, RefusalKind::Invalid, "{refusal:?}");
        assert!(
            refusal
                .allowed
                .as_ref()
                .is_some_and(|text| text.contains(allowed)),
            "{refusal:?}"
        );
    }
    let mut policy = world.state.policy().clone();
    for number in 0..40 {
        policy
            .priority_classes
            .insert(format!("class-{number}"), PriorityClass::open(number));
    }
    assert_eq!(
        refused(&mut world, policy).allowed.as_deref(),
        Some("up to 32")
    );
}

#[test]
fn an_entry_written_before_there_were_classes_is_read_and_does_what_it_did() {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "snake_case")]
    enum OldCommand {
        Submit {
            spec: Box<WorkloadSpec>,
            tenant: crate::model::TenantName,
            user: UserName,
        },
    }
    let old = rmp_serde::to_vec_named(&OldCommand::Submit {
        spec: Box::new(asked(None, 100)),
        tenant: tenant_name("default"),
        user: UserName::new("ana").expect("a good name"),
    })
    .expect("an old command encodes");
    let command: Command = rmp_serde::from_slice(&old).expect("an old command reads");
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    assert!(matches!(
        world.accept(command).as_slice(),
        [Event::RunQueued { run: RunId(1), .. }]
    ));
    assert_eq!(world.run(RunId(1)).spec.priority, 100);
}
