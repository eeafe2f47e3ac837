//! Arrays: many runs of one specification, so many at once.

use crate::fixtures::*;
use coordinator_core::model::*;
use coordinator_core::policy::RefusalKind;
use coordinator_core::scheduler::{Tier, explain, plan};
use coordinator_core::state::{Command, Event, State};
use std::collections::BTreeMap;

fn elements(world: &World, array: ArrayId) -> Vec<RunId> {
    let array = &world.state.arrays()[&array];
    world.state.elements(array).map(|run| run.id).collect()
}

fn after(dependency: String, spec: WorkloadSpec) -> WorkloadSpec {
    WorkloadSpec {
        after: vec![dependency.parse().expect("a dependency")],
        ..spec
    }
}

fn phases(world: &World, array: ArrayId) -> (usize, usize, usize, usize) {
    let mut counts = (0, 0, 0, 0);
    for run in elements(world, array) {
        match world.run(run).phase {
            RunPhase::Held => counts.0 += 1,
            RunPhase::Queued => counts.1 += 1,
            RunPhase::Active => counts.2 += 1,
            RunPhase::Ended { .. } => counts.3 += 1,
        }
    }
    counts
}

const DONE: EndKind = EndKind::Exited { code: 0 };

#[test]
fn an_array_is_runs_of_their_own_that_share_what_they_are() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    let array = world.submit_array("0-10:5,7", gpus(1));
    let runs = elements(&world, array);
    assert_eq!(runs[0], array.first_run());
    let indexes: Vec<u32> = runs
        .iter()
        .filter_map(|run| Some(world.run(*run).element.as_ref()?.index))
        .collect();
    assert_eq!(indexes, [0, 5, 10, 7]);
    assert_eq!(world.plan_and_place(), runs);
    let first = &world.run(runs[0]).spec;
    assert!(
        runs.iter()
            .all(|run| std::sync::Arc::ptr_eq(&world.run(*run).spec, first))
    );
    // They share it again when read back.
    let bytes = rmp_serde::to_vec_named(&world.state).expect("a state encodes");
    let read: State = rmp_serde::from_slice(&bytes).expect("and decodes");
    assert_eq!(read, world.state);
    let first = &read.runs()[&runs[0]].spec;
    assert!(
        runs.iter()
            .all(|run| std::sync::Arc::ptr_eq(&read.runs()[run].spec, first))
    );
}

#[test]
fn no_more_are_alive_at_once_than_the_array_may_have_and_the_next_follows_an_end() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    let array = world.submit_array("0-6%3", gpus(1));
    let runs = elements(&world, array);
    assert_eq!(phases(&world, array), (4, 3, 0, 0));
    assert_eq!(world.plan_and_place(), runs[..3]);
    assert!(plan(&world.state, world.now_us).is_empty());
    // Whatever a planner proposes.
    assert_eq!(
        world.try_place(placement(runs[3], 1, &[("node-1", &[5])])),
        Err("the run does not wait".to_owned())
    );
    world.end(runs[1], 0, DONE);
    assert_eq!(world.plan_and_place(), [runs[3]]);
    // One that failed makes way too, and one that is tried again does not.
    world.end(runs[0], 0, EndKind::Exited { code: 1 });
    world.end(runs[2], 0, EndKind::Lost);
    assert_eq!(phases(&world, array), (2, 2, 1, 2));
    assert_eq!(world.plan_and_place(), [runs[2], runs[4]]);
    world.cancel(runs[5]);
    world.end(runs[3], 0, DONE);
    assert_eq!(world.plan_and_place(), [runs[6]]);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_made() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    for (array, message) in [
        (
            "0-99%0",
            "with 0 elements at once the array would never start",
        ),
        ("5-3", "the range 5-3 is empty"),
        ("0-9:0", "the step of 0-9:0 is 0"),
        ("0-10000", "10001 elements are asked for"),
        ("0-999999", "1000000 elements are asked for"),
        ("0-4294967295", "4294967296 elements are asked for"),
        ("1,3,1", "index 1 is named twice"),
        ("0-5,5-9", "index 5 is named twice"),
    ] {
        let refusal = world.refuse(submit_array(array, gpus(1)));
        assert_eq!(
            (refusal.kind, refusal.message.as_str()),
            (RefusalKind::Invalid, message)
        );
        assert!(refusal.allowed.is_some(), "{array}");
    }
    world.submit_array("0-9999%1", gpus(1));
}

#[test]
fn a_large_specification_makes_a_small_array() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    let large = WorkloadSpec {
        environment: BTreeMap::from([("WORDS".to_owned(), "x".repeat(200_000))]),
        ..gpus(1)
    };
    let refusal = world.refuse(submit_array("1-1000", large.clone()));
    assert_eq!(refusal.allowed.as_deref(), Some("at most 67108864 bytes"));
    world.submit_array("1-10", large);
}

#[test]
fn every_element_passes_the_same_admission_as_a_run() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    let refusal = world.refuse(submit_array(
        "0-9",
        WorkloadSpec {
            tags: BTreeMap::new(),
            ..gpus(1)
        },
    ));
    assert_eq!(refusal.message, "required cost tag missing: team");
}

#[test]
fn cancelling_an_array_ends_what_waits_and_stops_what_runs() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let array = world.submit_array("0-9%4", gpus(1));
    let runs = elements(&world, array);
    assert_eq!(world.plan_and_place(), runs[..2]);
    let cancel = Command::CancelArray {
        array,
        reason: Some("no longer wanted".to_owned()),
    };
    let events = world.accept(cancel.clone());
    assert_eq!(
        events,
        [
            Event::ArrayChanged { array },
            Event::RunStopping { run: runs[0] },
            Event::RunStopping { run: runs[1] },
        ]
    );
    assert_eq!(phases(&world, array), (0, 0, 2, 8));
    for run in &runs[..2] {
        world.end(*run, 0, EndKind::Stopped);
    }
    assert!(
        runs.iter()
            .all(|run| world.outcome(*run) == Some(RunOutcome::Cancelled))
    );
    assert_eq!(
        world.refuse(cancel).message,
        format!("{array} has already ended")
    );
    let unknown = ArrayId(array.0 + 1);
    let refusal = world.refuse(Command::CancelArray {
        array: unknown,
        reason: None,
    });
    assert_eq!(refusal.kind, RefusalKind::NotFound);
}

#[test]
fn what_follows_an_array_starts_after_its_last_element_or_ends_with_the_first_that_fails() {
    for (kind, phase) in [
        (DONE, RunPhase::Queued),
        (
            EndKind::Exited { code: 1 },
            RunPhase::Ended {
                outcome: RunOutcome::Cancelled,
                at_us: 1_000_000,
            },
        ),
    ] {
        let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
        let array = world.submit_array("0-2", gpus(1));
        let ok = world.submit(after(format!("{array}:ok"), gpus(1)));
        let any = world.submit(after(format!("{array}:any"), gpus(1)));
        let runs = world.plan_and_place();
        world.end(runs[0], 0, DONE);
        world.end(runs[1], 0, kind.clone());
        let failed = kind != DONE;
        assert_eq!(world.run(ok).is_ended(), failed);
        assert_eq!(world.run(any).phase, RunPhase::Held);
        world.end(runs[2], 0, DONE);
        assert_eq!(world.run(ok).phase, phase);
        assert_eq!(world.run(any).phase, RunPhase::Queued);
        if failed {
            assert_eq!(
                world
                    .run(ok)
                    .cancelled
                    .as_ref()
                    .and_then(|it| it.reason.clone()),
                Some(format!(
                    "{array}, whose success it was to follow, has 1 element without success"
                ))
            );
            let refusal = world.refuse(submit(after(format!("{array}:ok"), gpus(1))));
            assert_eq!(
                refusal.message,
                format!(
                    "{array} has 1 element without success already, so what follows its success can never start"
                )
            );
        }
    }
}

#[test]
fn an_array_that_follows_is_held_as_one_and_then_keeps_to_its_cap() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    let first = world.submit(gpus(1));
    let array = world.submit_array("0-4%2", after(format!("{first}:ok"), gpus(1)));
    let last = world.submit(after(format!("{array}:any"), gpus(1)));
    assert_eq!(phases(&world, array), (5, 0, 0, 0));
    assert_eq!(world.plan_and_place(), [first]);
    world.end(first, 0, DONE);
    assert_eq!(phases(&world, array), (3, 2, 0, 0));
    assert_eq!(world.run(last).phase, RunPhase::Held);
}

#[test]
fn an_array_that_can_never_start_ends_whole() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    let first = world.submit(gpus(1));
    let array = world.submit_array("0-4%2", after(format!("{first}:ok"), gpus(1)));
    let element = world.submit(after(format!("{}:any", array.first_run()), gpus(1)));
    world.cancel(first);
    assert_eq!(phases(&world, array), (0, 0, 0, 5));
    assert_eq!(world.run(element).phase, RunPhase::Queued);
}

#[test]
fn an_array_of_another_tenant_is_not_told_from_none() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G")]);
    world.tenant("vision");
    let array = world.submit_array(
        "0-1",
        WorkloadSpec {
            tenant: Some(tenant_name("vision")),
            ..gpus(1)
        },
    );
    let refusal = world.refuse(submit(after(format!("{array}:any"), gpus(1))));
    assert_eq!(refusal.message, format!("{array} does not exist"));
}

#[test]
fn explain_says_how_many_of_its_array_run() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let array = world.submit_array("0-9%3", gpus(1));
    let runs = elements(&world, array);
    world.plan_and_place();
    let waiting = explain(&world.state, world.run(runs[5]));
    assert_eq!(waiting.tier, Tier::Held);
    assert_eq!(waiting.summary, "2 of 3 of its array run");
    assert_eq!(
        waiting.reasons,
        [
            "1 of its array are queued and go first",
            "2 of its array are held before it"
        ]
    );
}

#[test]
fn a_sweep_gives_each_element_its_parameters_and_fills_them_in() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let set = |lr: &str| {
        BTreeMap::from([
            ("lr".to_owned(), Parameter::Number(lr.to_owned())),
            ("fast".to_owned(), Parameter::Flag(true)),
        ])
    };
    let sweep = |parameters| Command::SubmitArray {
        spec: Box::new(WorkloadSpec {
            command: ["train", "--lr={lr}", "{\"a\": 1}"]
                .map(str::to_owned)
                .into(),
            ..gpus(1)
        }),
        request: Box::new(ArrayRequest {
            parameters,
            ..ArrayRequest::default()
        }),
        tenant: TenantName::default_tenant(),
        user: UserName::new("ana").expect("a good name"),
        role: None,
    };
    let events = world.accept(sweep(vec![set("0.1"), set("0.01")]));
    let [Event::ArraySubmitted { array, .. }] = events.as_slice() else {
        panic!("{events:?}");
    };
    let commands: Vec<Vec<String>> = elements(&world, *array)
        .into_iter()
        .map(|run| world.run(run).command())
        .collect();
    assert_eq!(
        commands,
        [
            ["train", "--lr=0.1", "{\"a\": 1}"],
            ["train", "--lr=0.01", "{\"a\": 1}"]
        ]
    );
    let mut other = set("0.3");
    other.remove("fast");
    let named = |name: &str| BTreeMap::from([(name.to_owned(), Parameter::Flag(true))]);
    let text = |text: String| BTreeMap::from([("a".to_owned(), Parameter::Text(text))]);
    for (parameters, message) in [
        (
            vec![set("0.1"), other],
            "the elements of the sweep have different parameters",
        ),
        (vec![named("a b")], "parameter \"a b\" is not valid"),
        (vec![named("")], "parameter \"\" is not valid"),
        (vec![BTreeMap::new()], "0 parameters are swept"),
        (
            vec![text("x".repeat(1024 * 1024))],
            "the parameters of the sweep take 1048577 bytes",
        ),
        (
            vec![text("\0".to_owned())],
            "a value of parameter \"a\" holds a NUL byte",
        ),
        (vec![named("a"); 10_001], "10001 elements are asked for"),
    ] {
        assert_eq!(world.refuse(sweep(parameters)).message, message);
    }
}

#[test]
fn a_command_that_grows_without_bound_when_it_is_filled_in_is_refused() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let refusal = world.refuse(Command::SubmitArray {
        spec: Box::new(WorkloadSpec {
            command: vec!["{a}".repeat(50_000)],
            ..gpus(1)
        }),
        request: Box::new(ArrayRequest {
            parameters: vec![BTreeMap::from([(
                "a".to_owned(),
                Parameter::Text("x".repeat(500_000)),
            )])],
            ..ArrayRequest::default()
        }),
        tenant: TenantName::default_tenant(),
        user: UserName::new("ana").expect("a good name"),
        role: None,
    });
    assert_eq!(
        refusal.message,
        "the command of element 0 takes 25000000000 bytes once its parameters are filled in"
    );
}

#[test]
fn the_cost_of_an_array_is_that_of_its_elements() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    let array = world.submit_array("0-2%1", gpus(1));
    for run in elements(&world, array) {
        assert_eq!(world.plan_and_place(), [run]);
        world.now_us += 3_600_000_000;
        world.end(run, 0, DONE);
    }
    let rows = world.ledger();
    let line = world.state.array_line(array).expect("a line");
    assert_eq!(
        line.gpu_milli_us(),
        rows.iter().map(LedgerRow::gpu_milli_us).sum::<u128>()
    );
    assert_eq!(
        line.cost_micro(),
        rows.iter().map(LedgerRow::cost_micro).sum::<u64>()
    );
    assert!(line.is_over() && !line.is_spoilt());
}
