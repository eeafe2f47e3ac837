//! One user's endless runs: nobody else waits a moment longer for them, nor does a plan cost more.
//! `tests/checker` has a million of them.

use crate::fixtures::*;
use crate::model::{EndKind, WorkloadSpec};
use crate::scheduler::Planner;
use crate::state::{Command, Entry, Event, State};

const RUNS: u64 = 50_000;

fn apply(state: &mut State, command: Command) -> Vec<Event> {
    let entry = Entry {
        stamp_us: 1_000_000,
        actor: "user:ana".to_owned(),
        idempotency_key: None,
        command,
    };
    let index = state.index() + 1;
    state.apply(index, &entry)
}

#[test]
fn a_plan_looks_once_for_each_shape_however_many_runs_one_user_has() {
    let mut world = World::with_nodes(&[("node-1", "8xA100-80G"), ("node-2", "8xA100-80G")]);
    world.tenant("modest");
    let held = world.submit(gpus(8));
    world.submit(gpus(8));
    world.plan_and_place();
    let mut state = world.state.clone();
    let shapes = [gpus(1), gpus(2), gpus(4), share(500), gang(2)];
    for number in 0..RUNS {
        let spec = shapes[(number % shapes.len() as u64) as usize].clone();
        apply(&mut state, submit(spec));
        // The exporter keeps up.
        if number % 1_000 == 0 {
            let through = state.outbox_sequence();
            apply(&mut state, Command::AcknowledgeOutbox { through });
        }
    }
    assert_eq!(state.queues().waiting(&pool_name("default")) as u64, RUNS);
    let modest = WorkloadSpec {
        tenant: Some(tenant_name("modest")),
        ..gpus(8)
    };
    let events = apply(&mut state, submit(modest));
    let [Event::RunQueued { run: modest, .. }] = events[..] else {
        panic!("{events:?}");
    };
    // Full: each shape is looked at once.
    let mut planner = Planner::default();
    let (plan, looks) = planner.plan_counted(&state, 1_000_000);
    assert!(plan.is_empty());
    assert!(looks <= shapes.len() + 1, "{looks} looks");
    // The next that comes free is the other's, as it holds nothing and a long queue is but one turn.
    let (node, mut report) = world.report_of(held, 0, crate::model::MemberPhase::Ended);
    report.end = Some(end(EndKind::Exited { code: 0 }));
    apply(
        &mut state,
        Command::Report {
            node,
            members: vec![report],
        },
    );
    let (plan, looks) = planner.plan_counted(&state, 1_000_000);
    let placed: Vec<_> = plan.placements.iter().map(|placed| placed.run).collect();
    assert_eq!(placed, [modest]);
    assert!(looks <= shapes.len() + 1, "{looks} looks");
}
