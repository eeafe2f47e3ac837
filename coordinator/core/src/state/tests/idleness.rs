//! Warnings, justifications and stops of runs whose devices idle, as the log tells of them.

use crate::fixtures::*;
use crate::model::{EndKind, IdlePolicy, MemberPhase, RunId, RunOutcome, StopReason};
use crate::policy::RefusalKind;
use crate::state::{Command, DeviceUse, Event, IdleStretch, State};

const SECOND_US: u64 = 1_000_000;
const MINUTE_US: u64 = 60 * SECOND_US;

/// A world whose one run has held an A100 since now; at 2.50 USD an hour.
fn world() -> (World, RunId) {
    let mut world = World::with_nodes(&[("node-1", "1xA100-80G")]);
    let run = world.submit(gpus(1));
    world.place_on(run, &[("node-1", &[0])]);
    world.report(run, 0, MemberPhase::Running);
    (world, run)
}

fn idle(run: RunId, since_us: u64, until_us: u64) -> Command {
    Command::NoteUse {
        uses: vec![DeviceUse {
            run,
            attempt: 1,
            idle: Some(IdleStretch { since_us, until_us }),
        }],
    }
}

fn used(run: RunId) -> Command {
    Command::NoteUse {
        uses: vec![DeviceUse {
            run,
            attempt: 1,
            idle: None,
        }],
    }
}

fn justify(run: RunId, reason: &str, for_ms: Option<u64>) -> Command {
    Command::Justify {
        run,
        reason: reason.to_owned(),
        for_ms,
    }
}

#[test]
fn an_idle_run_is_warned_with_what_it_cost_and_stopped_as_cancelled_and_not_queued_again() {
    let (mut world, run) = world();
    let since_us = world.now_us;
    let at = |minutes: u64| since_us + minutes * MINUTE_US;
    world.now_us = at(10);
    let changed = [Event::IdlenessChanged { run }];
    assert_eq!(world.accept(idle(run, since_us, at(10))), changed);
    assert_eq!(world.state.idle_notice(world.run(run)), None);
    world.now_us = at(30);
    assert_eq!(world.accept(idle(run, since_us, at(30))), changed);
    assert_eq!(
        world.state.idle_notice(world.run(run)).as_deref(),
        Some(
            "the GPUs of run-1 have idled since 1970-01-01 00:00 UTC, which has cost 1.25 USD until now; the run is stopped at 1970-01-01 02:00 UTC unless they are used, or it is justified with: platform runs justify run-1 --reason TEXT"
        )
    );
    assert_eq!(world.state.idle_stop_at_us(world.run(run)), Some(at(120)));
    world.now_us = at(60);
    assert_eq!(
        world.accept(idle(run, since_us, at(60))),
        [],
        "said already"
    );
    world.now_us = at(120);
    let events = world.accept(idle(run, since_us, at(120)));
    assert_eq!(events, [Event::RunStopping { run }]);
    assert_eq!(world.attempt(run).stopping, Some(StopReason::Idle));
    world.end(run, 0, EndKind::Stopped);
    assert_eq!(world.outcome(run), Some(RunOutcome::Cancelled));
    let cancelled = world.run(run).cancelled.clone().expect("cancelled");
    assert_eq!(cancelled.by, "the policy of idle devices");
    assert_eq!(
        cancelled.reason.as_deref(),
        Some("its devices idled for 2 h, which cost 5.00 USD")
    );
    let actions: Vec<_> = world
        .audit()
        .into_iter()
        .filter(|entry| entry.action == "run.use")
        .map(|entry| entry.subject)
        .collect();
    assert_eq!(actions, ["run-1", "run-1", "run-1"]);
}

#[test]
fn devices_that_are_used_again_take_the_warning_back() {
    let (mut world, run) = world();
    let since_us = world.now_us;
    world.now_us += 40 * MINUTE_US;
    world.accept(idle(run, since_us, world.now_us));
    assert!(world.state.idle_notice(world.run(run)).is_some());
    world.accept(used(run));
    assert_eq!(world.attempt(run).idle, None);
    assert_eq!(world.accept(used(run)), [], "nothing that an audit names");
    // Idle again: its time begins anew.
    let since_us = world.now_us;
    world.now_us += 10 * MINUTE_US;
    world.accept(idle(run, since_us, world.now_us));
    assert_eq!(world.state.idle_notice(world.run(run)), None);
}

#[test]
fn a_justification_holds_the_stop_off_until_it_is_over() {
    let (mut world, run) = world();
    let since_us = world.now_us;
    let at = |minutes: u64| since_us + minutes * MINUTE_US;
    world.now_us = at(30);
    world.accept(idle(run, since_us, at(30)));
    let five_hours_ms = 5 * 3_600 * 1000;
    let events = world.accept(justify(run, " shown to a customer ", Some(five_hours_ms)));
    assert_eq!(events, [Event::RunJustified { run }]);
    let justification = world.run(run).justification.clone().expect("justified");
    assert_eq!(justification.by, "user:ana");
    assert_eq!(justification.reason, "shown to a customer");
    assert_eq!(justification.until_us, at(330));
    let audit = world.audit();
    let last = audit.last().expect("an entry");
    assert_eq!(
        (last.action.as_str(), last.subject.as_str()),
        ("run.justify", "run-1")
    );
    assert!(
        last.detail.contains("shown to a customer"),
        "{}",
        last.detail
    );
    world.now_us = at(329);
    world.accept(idle(run, since_us, at(329)));
    assert_eq!(world.attempt(run).stopping, None);
    world.now_us = at(330);
    world.accept(idle(run, since_us, at(330)));
    assert_eq!(world.attempt(run).stopping, Some(StopReason::Idle));
}

#[test]
fn a_justification_outside_of_the_policy_is_refused_and_says_what_is_allowed() {
    let (mut world, run) = world();
    let day_ms = 24 * 3_600 * 1000;
    let refusal = world.refuse(justify(run, "for long", Some(2 * day_ms)));
    assert_eq!(
        refusal.message,
        "a justification for 48 h is not within the policy"
    );
    assert_eq!(refusal.allowed.as_deref(), Some("up to 24 h"));
    let table = [
        (justify(run, "", None), RefusalKind::Invalid),
        (justify(run, " \t ", None), RefusalKind::Invalid),
        (justify(run, &"x".repeat(501), None), RefusalKind::Invalid),
        (justify(run, "two\nlines", None), RefusalKind::Invalid),
        (justify(run, "for no time", Some(0)), RefusalKind::Refused),
        (
            justify(run, "for ever", Some(u64::MAX)),
            RefusalKind::Refused,
        ),
        (justify(RunId(77), "none", None), RefusalKind::NotFound),
    ];
    for (command, kind) in table {
        assert_eq!(world.refuse(command.clone()).kind, kind, "{command:?}");
    }
    world.set_policy(|policy| policy.idle.longest_justification_ms = 0);
    let refusal = world.refuse(justify(run, "why not", None));
    assert_eq!(
        refusal.allowed.as_deref(),
        Some("none: the policy takes no justification")
    );
    world.end(run, 0, EndKind::Exited { code: 0 });
    assert_eq!(
        world.refuse(justify(run, "late", None)).kind,
        RefusalKind::Conflict
    );
}

#[test]
fn words_about_what_was_not_or_is_not_to_come_change_nothing() {
    let (mut world, run) = world();
    let began_us = world.now_us;
    world.now_us += 200 * MINUTE_US;
    let now_us = world.now_us;
    let other_attempt = Command::NoteUse {
        uses: vec![DeviceUse {
            run,
            attempt: 2,
            idle: Some(IdleStretch {
                since_us: began_us,
                until_us: now_us,
            }),
        }],
    };
    let table = [
        ("before it started", idle(run, began_us - 1, now_us)),
        ("in time to come", idle(run, began_us, now_us + 1)),
        ("backwards", idle(run, now_us, began_us)),
        ("another attempt", other_attempt),
        ("no such run", idle(RunId(77), began_us, now_us)),
    ];
    for (story, command) in table {
        assert_eq!(world.accept(command), [], "{story}");
        assert_eq!(world.attempt(run).idle, None, "{story}");
    }
    world.cancel(run);
    assert_eq!(
        world.accept(idle(run, began_us, now_us)),
        [],
        "it stops already"
    );
}

#[test]
fn a_shorter_wait_still_leaves_the_notice_between_warning_and_stop() {
    let (mut world, run) = world();
    let since_us = world.now_us;
    world.now_us += 100 * MINUTE_US;
    world.accept(idle(run, since_us, world.now_us));
    let warned_us = world.now_us;
    world.set_policy(|policy| {
        policy.idle.warn_after_ms = Some(60_000);
        policy.idle.stop_after_ms = Some(120_000);
    });
    assert_eq!(
        world.state.idle_stop_at_us(world.run(run)),
        Some(warned_us + MINUTE_US)
    );
    world.accept(idle(run, since_us, world.now_us));
    assert_eq!(world.attempt(run).stopping, None);
}

#[test]
fn a_policy_of_idle_devices_that_cannot_be_is_refused() {
    let mut world = World::new();
    let good = IdlePolicy::default();
    let table = [
        IdlePolicy {
            warn_after_ms: Some(0),
            ..good.clone()
        },
        IdlePolicy {
            warn_after_ms: Some(u64::MAX),
            ..good.clone()
        },
        IdlePolicy {
            stop_after_ms: Some(u64::MAX),
            ..good.clone()
        },
        IdlePolicy {
            stop_after_ms: good.warn_after_ms,
            ..good.clone()
        },
        IdlePolicy {
            warn_after_ms: None,
            ..good.clone()
        },
        IdlePolicy {
            below_percent: 0,
            ..good.clone()
        },
        IdlePolicy {
            below_percent: 51,
            ..good.clone()
        },
        IdlePolicy {
            longest_justification_ms: u64::MAX,
            ..good.clone()
        },
    ];
    for idle in table {
        let mut policy = world.state.policy().clone();
        policy.idle = idle.clone();
        let refusal = world.refuse(Command::SetPolicy {
            policy: Box::new(policy),
        });
        assert_eq!(refusal.kind, RefusalKind::Invalid, "{idle:?}");
        assert!(refusal.allowed.is_some(), "{idle:?}");
    }
}

#[test]
fn what_is_known_of_idleness_outlives_a_snapshot() {
    let (mut world, run) = world();
    let since_us = world.now_us;
    world.now_us += 30 * MINUTE_US;
    world.accept(idle(run, since_us, world.now_us));
    world.accept(justify(run, "a demonstration", None));
    let bytes = rmp_serde::to_vec_named(&world.state).expect("it encodes");
    let read: State = rmp_serde::from_slice(&bytes).expect("it decodes");
    assert_eq!(read, world.state);
}
