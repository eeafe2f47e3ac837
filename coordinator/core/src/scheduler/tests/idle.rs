//! Which runs are told to idle: the window and its hysteresis, and every way in which a reading may fail to
//! come, none of which is ever idleness.

use crate::fixtures::*;
use crate::model::{EndKind, IdlePolicy, MemberPhase, RunId, RunPhase};
use crate::scheduler::{IdleWatch, Reading, UNREAD_AFTER_US};
use crate::state::Command;

const SECOND_US: u64 = 1_000_000;
const MINUTE_US: u64 = 60 * SECOND_US;
/// Agents' own rhythm.
const EVERY_US: u64 = 10 * SECOND_US;

/// A world with one run of two devices on one node each, and what watches it.
struct Watched {
    world: World,
    watch: IdleWatch,
    run: RunId,
}

impl Watched {
    fn new() -> Self {
        let mut world = World::with_nodes(&[("node-1", "1xA100-80G"), ("node-2", "1xA100-80G")]);
        let run = world.submit(crate::model::WorkloadSpec {
            gpus: Some(1),
            ..gang(2)
        });
        world.place_on(run, &[("node-1", &[0]), ("node-2", &[0])]);
        for member in 0..2 {
            world.report(run, member, MemberPhase::Running);
        }
        Self {
            world,
            watch: IdleWatch::default(),
            run,
        }
    }

    /// One more reading of each device, ten seconds on, and what follows from it.
    fn hear(&mut self, readings: [Option<(Option<f64>, Option<u64>)>; 2]) {
        self.world.now_us += EVERY_US;
        for (node, reading) in ["node-1", "node-2"].into_iter().zip(readings) {
            let Some((used_percent, memory_used_mib)) = reading else {
                continue;
            };
            let reading = Reading {
                at_us: self.world.now_us,
                used_percent,
                memory_used_mib,
            };
            self.watch.hear(device(node, 0), reading);
        }
        self.look();
    }

    fn look(&mut self) -> usize {
        let uses = self.watch.look(&self.world.state, self.world.now_us);
        let told = uses.len();
        if told > 0 {
            self.world.accept(Command::NoteUse { uses });
        }
        told
    }

    /// Both devices used so much, for so long.
    fn used(&mut self, percent: f64, for_us: u64) {
        for _ in 0..for_us / EVERY_US {
            self.hear([Some((Some(percent), Some(1_000))); 2]);
        }
    }

    fn idle_since(&self) -> Option<u64> {
        Some(self.world.attempt(self.run).idle?.since_us)
    }
}

#[test]
fn a_run_that_leaves_its_devices_idle_is_told_of_warned_and_stopped_in_three_entries() {
    let mut watched = Watched::new();
    let began_us = watched.world.now_us;
    let entries = watched.world.entries.len();
    watched.used(0.0, 20 * MINUTE_US);
    let since_us = watched.idle_since().expect("it idles");
    assert!(since_us > began_us && since_us <= began_us + EVERY_US);
    watched.used(0.0, 15 * MINUTE_US);
    let idle = watched.world.attempt(watched.run).idle.expect("it idles");
    let warned_us = idle.warned_us.expect("it is warned");
    assert_eq!(warned_us, since_us + 30 * MINUTE_US);
    watched.used(0.0, 90 * MINUTE_US);
    assert!(watched.world.attempt(watched.run).stopping.is_some());
    let told = watched.world.entries.len() - entries;
    assert_eq!(told, 3, "idle, warned, stopped: no entry for a reading");
}

#[test]
fn a_device_of_a_gang_that_is_used_speaks_for_all_of_them() {
    let mut watched = Watched::new();
    for _ in 0..400 {
        watched.hear([Some((Some(0.0), Some(10))), Some((Some(60.0), Some(10)))]);
    }
    assert_eq!(watched.idle_since(), None);
}

#[test]
fn full_memory_with_low_use_is_not_idle() {
    let mut watched = Watched::new();
    let half_mib = 81_920 / 2;
    for _ in 0..400 {
        watched.hear([
            Some((Some(0.0), Some(half_mib))),
            Some((Some(0.0), Some(10))),
        ]);
    }
    assert_eq!(watched.idle_since(), None);
    watched.used(0.0, 10 * MINUTE_US);
    assert!(watched.idle_since().is_some(), "freed, and still not used");
    watched.hear([
        Some((Some(0.0), Some(half_mib))),
        Some((Some(0.0), Some(10))),
    ]);
    assert_eq!(watched.idle_since(), None);
}

#[test]
fn what_was_not_read_is_never_idle() {
    type Reads = [Option<(Option<f64>, Option<u64>)>; 2];
    let idle = Some((Some(0.0), Some(10)));
    let table: [(&str, Reads); 6] = [
        ("both agents are away", [None, None]),
        ("one agent is away", [idle, None]),
        ("compute is not supported", [idle, Some((None, Some(10)))]),
        ("memory is not supported", [idle, Some((Some(0.0), None))]),
        ("nothing is supported", [Some((None, None)); 2]),
        (
            "a reading is no number",
            [idle, Some((Some(f64::NAN), Some(10)))],
        ),
    ];
    for (story, reads) in table {
        let mut watched = Watched::new();
        for _ in 0..1_000 {
            watched.hear(reads);
        }
        assert_eq!(watched.idle_since(), None, "{story}");
        // And a stretch that was known ends with it.
        let mut watched = Watched::new();
        watched.used(0.0, 20 * MINUTE_US);
        assert!(watched.idle_since().is_some(), "{story}");
        for _ in 0..=UNREAD_AFTER_US / EVERY_US {
            watched.hear(reads);
        }
        assert_eq!(watched.idle_since(), None, "{story}");
        watched.used(0.0, 20 * MINUTE_US);
        let since_us = watched.idle_since().expect("read again");
        assert!(
            since_us > watched.world.now_us - 20 * MINUTE_US,
            "{story}: from the readings that came again"
        );
    }
}

#[test]
fn a_leader_that_was_away_begins_anew_and_stops_nobody_for_the_time_it_missed() {
    let mut watched = Watched::new();
    watched.used(0.0, 100 * MINUTE_US);
    let warned = watched.world.attempt(watched.run).idle.expect("it idles");
    assert!(warned.warned_us.is_some());
    // Three hours later, another leader.
    watched.watch = IdleWatch::default();
    watched.world.now_us += 180 * MINUTE_US;
    watched.world.accept(Command::Tick);
    assert!(watched.world.attempt(watched.run).stopping.is_none());
    assert_eq!(watched.look(), 1, "it does not know of any idleness");
    assert_eq!(watched.idle_since(), None);
    watched.used(0.0, 31 * MINUTE_US);
    assert!(watched.world.attempt(watched.run).stopping.is_none());
}

#[test]
fn a_clock_that_stands_still_or_goes_back_lengthens_no_stretch() {
    let mut watched = Watched::new();
    watched.used(0.0, 4 * MINUTE_US);
    assert_eq!(watched.idle_since(), None, "the window is not over");
    let stands = watched.world.now_us;
    for _ in 0..1_000 {
        watched.hear([Some((Some(0.0), Some(10))); 2]);
        watched.world.now_us = stands;
    }
    // The look ten seconds on has been made once; whatever came at the same time after it is none.
    assert_eq!(watched.idle_since(), None);
    watched.world.now_us -= MINUTE_US;
    watched.look();
    watched.used(0.0, 4 * MINUTE_US);
    assert_eq!(watched.idle_since(), None, "the stretch began anew");
}

#[test]
fn a_reading_around_the_line_is_not_written_again_and_again() {
    let mut watched = Watched::new();
    watched.used(4.0, 10 * MINUTE_US);
    assert!(watched.idle_since().is_some());
    let entries = watched.world.entries.len();
    for step in 0..100 {
        let percent = if step % 2 == 0 { 6.0 } else { 5.5 };
        watched.used(percent, EVERY_US);
    }
    assert_eq!(watched.world.entries.len(), entries);
    assert!(
        watched.idle_since().is_some(),
        "idle still, by its line back"
    );
    watched.used(12.0, 6 * MINUTE_US);
    assert_eq!(watched.idle_since(), None);
    assert_eq!(watched.world.entries.len(), entries + 1);
}

#[test]
fn a_run_at_work_is_not_stopped_by_the_average_of_what_it_did_before() {
    let mut watched = Watched::new();
    watched.used(0.0, 119 * MINUTE_US);
    assert!(watched.world.attempt(watched.run).idle.is_some());
    // Its work begins a moment before it would be stopped.
    watched.used(100.0, 2 * MINUTE_US);
    assert!(watched.world.attempt(watched.run).stopping.is_none());
    assert_eq!(watched.idle_since(), None);
}

#[test]
fn a_pause_between_two_steps_is_not_idleness() {
    let mut watched = Watched::new();
    for _ in 0..100 {
        watched.used(95.0, EVERY_US);
        watched.used(0.0, 2 * MINUTE_US);
    }
    assert_eq!(watched.idle_since(), None);
}

#[test]
fn another_attempt_and_another_policy_begin_anew() {
    let mut watched = Watched::new();
    watched.used(0.0, 20 * MINUTE_US);
    assert!(watched.idle_since().is_some());
    watched.world.set_policy(|policy| {
        policy.idle = IdlePolicy {
            warn_after_ms: None,
            stop_after_ms: None,
            ..IdlePolicy::default()
        };
    });
    watched.used(0.0, EVERY_US);
    assert_eq!(watched.idle_since(), None, "nobody is watched any more");
    watched
        .world
        .set_policy(|policy| policy.idle = IdlePolicy::default());
    watched.used(0.0, 20 * MINUTE_US);
    assert!(watched.idle_since().is_some());
    for member in 0..2 {
        watched.world.end(watched.run, member, EndKind::Lost);
    }
    assert_eq!(watched.world.run(watched.run).phase, RunPhase::Queued);
    let run = watched.run;
    watched
        .world
        .place_on(run, &[("node-1", &[0]), ("node-2", &[0])]);
    for member in 0..2 {
        watched.world.report(run, member, MemberPhase::Running);
    }
    watched.used(0.0, 4 * MINUTE_US);
    assert_eq!(watched.idle_since(), None, "a new attempt has its own time");
}
