//! What reservations ask of the nodes is kept between plans: whatever happens meanwhile, and however much
//! time passes, a kept planner keeps the same devices for the same runs as a new one.

use crate::fixtures::*;
use crate::model::{EndKind, MemberPhase, RunId, RunPhase, WorkloadSpec};
use crate::scheduler::{Planner, plan};
use crate::state::Command;
use proptest::prelude::*;

const SECOND_US: u64 = 1_000_000;
const NODES: [(&str, &str); 4] = [
    ("node-1", "4xA100-80G"),
    ("node-2", "4xA100-80G"),
    ("node-3", "2xA100-80G,2xT4-16G"),
    ("node-4", "2xT4-16G"),
];

/// One step; numbers choose among what is there when it is taken.
#[derive(Debug, Clone)]
enum Step {
    Submit(usize, Box<WorkloadSpec>),
    Begin(usize),
    End(usize),
    Cancel(usize),
    Cordon(usize),
    Uncordon(usize),
    /// Seconds.
    Pass(u64),
    /// Plans; the second says whether what was proposed comes to be.
    Plan(bool),
}

fn specs() -> impl Strategy<Value = WorkloadSpec> {
    (
        prop_oneof![
            3 => (1_u32..5).prop_map(gpus),
            1 => prop_oneof![Just(250_u32), Just(500), Just(700)].prop_map(share),
        ],
        prop_oneof![3 => Just(1_u32), 1 => 2_u32..4],
        // Some alike, so that ends are level with one another.
        proptest::option::weighted(0.8, prop_oneof![1_u64..20, Just(1), Just(10)]),
        proptest::option::weighted(0.3, prop_oneof![Just("A100-80G"), Just("T4-16G")]),
        proptest::option::weighted(0.2, 1_000_u64..60_000),
    )
        .prop_map(|(spec, nodes, minutes, model, cpu_milli)| WorkloadSpec {
            nodes,
            time_limit_ms: minutes.map(|minutes| minutes * 60_000),
            gpu_model: model.map(str::to_owned),
            cpu_milli,
            ..spec
        })
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..3, specs()).prop_map(|(tenant, spec)| Step::Submit(tenant, Box::new(spec))),
        4 => any::<usize>().prop_map(Step::Begin),
        2 => any::<usize>().prop_map(Step::End),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => (0..NODES.len()).prop_map(Step::Cordon),
        2 => (0..NODES.len()).prop_map(Step::Uncordon),
        4 => prop_oneof![0_u64..10, 30_u64..90, Just(60), 100_u64..600].prop_map(Step::Pass),
        6 => prop::bool::weighted(0.8).prop_map(Step::Plan),
    ]
}

fn some(world: &World, which: usize, phase: &RunPhase) -> Option<RunId> {
    let runs: Vec<RunId> = world
        .state
        .runs()
        .values()
        .filter(|run| run.phase == *phase)
        .map(|run| run.id)
        .collect();
    runs.get(which.checked_rem(runs.len())?).copied()
}

fn report(world: &mut World, run: RunId, phase: MemberPhase) {
    for member in 0..world.run(run).spec.nodes {
        let is_there = world
            .run(run)
            .last_attempt()
            .is_some_and(|attempt| !attempt.is_over());
        match phase {
            _ if !is_there => return,
            MemberPhase::Ended => world.end(run, member, EndKind::Exited { code: 0 }),
            phase => world.report(run, member, phase),
        };
    }
}

/// How many reservations were compared.
fn play(steps: &[Step]) -> Result<usize, TestCaseError> {
    let mut world = World::with_nodes(&NODES);
    let tenants = ["default", "nlp", "vision"];
    world.quota("nlp", 4, None, None);
    world.quota("vision", 2, None, None);
    let mut planner = Planner::default();
    let mut compared = 0;
    for step in steps {
        match step {
            Step::Submit(tenant, spec) => {
                world.apply(submit(WorkloadSpec {
                    tenant: Some(tenant_name(tenants[*tenant])),
                    ..*spec.clone()
                }));
            }
            Step::Begin(which) => {
                if let Some(run) = some(&world, *which, &RunPhase::Active) {
                    report(&mut world, run, MemberPhase::Running);
                }
            }
            Step::End(which) => {
                if let Some(run) = some(&world, *which, &RunPhase::Active) {
                    report(&mut world, run, MemberPhase::Ended);
                }
            }
            Step::Cancel(which) => {
                if let Some(run) = some(&world, *which, &RunPhase::Active) {
                    world.cancel(run);
                }
            }
            Step::Cordon(node) => {
                world.apply(Command::Cordon {
                    node: node_name(NODES[*node].0),
                    reason: "a test".to_owned(),
                });
            }
            Step::Uncordon(node) => {
                world.apply(Command::Uncordon {
                    node: node_name(NODES[*node].0),
                });
            }
            Step::Pass(seconds) => world.now_us += seconds * SECOND_US,
            Step::Plan(comes_to_be) => {
                let kept = planner.plan(&world.state, world.now_us);
                let fresh = plan(&world.state, world.now_us);
                prop_assert_eq!(&kept, &fresh, "a kept planner and a new one disagree");
                compared += kept.reservations.len();
                if *comes_to_be {
                    world.apply(Command::Place {
                        placements: kept.placements,
                    });
                    world.apply(Command::Preempt {
                        preemptions: kept.preemptions,
                    });
                }
            }
        }
    }
    Ok(compared)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_kept_planner_keeps_the_same_devices_as_a_new_one(
        steps in proptest::collection::vec(steps(), 20..160),
    ) {
        play(&steps)?;
    }
}

#[test]
fn histories_like_these_do_have_reservations() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let compared: usize = (0..16)
        .map(|_| {
            let steps = proptest::collection::vec(steps(), 150).new_tree(&mut runner);
            let steps = steps.expect("steps can be drawn").current();
            play(&steps).expect("the planners agree")
        })
        .sum();
    assert!(compared > 100, "only {compared} reservations");
}
