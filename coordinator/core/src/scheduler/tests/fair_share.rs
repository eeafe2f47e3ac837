//! Turns by what tenants held of late, beside what they hold now.

use crate::fixtures::*;
use crate::model::{EndKind, RunId, TenantName};
use crate::policy::RefusalKind;
use crate::scheduler::plan;
use crate::state::{Command, Entry, ParentChange, State};
use proptest::prelude::*;
use std::collections::BTreeMap;

const HOUR_US: u64 = 3_600_000_000;

fn recent(world: &World, tenant: &str) -> u64 {
    world
        .state
        .recent_milli(&tenant_name(tenant), &pool_name("default"))
}

fn weighted(world: &mut World, tenant: &str, parent: Option<&str>, weight: u32) {
    world.accept(Command::CreateTenant {
        tenant: tenant_name(tenant),
        parent: parent.map(tenant_name),
        weight: Some(weight),
    });
}

/// A run of a tenant that holds one GPU for so long.
fn used(world: &mut World, tenant: &str, hours: u64) {
    let run = world.submit_for(tenant, gpus(1));
    assert_eq!(world.plan_and_place(), [run]);
    world.now_us += hours * HOUR_US;
    world.end(run, 0, EndKind::Exited { code: 0 });
}

/// Whose run goes first of two that wait for the same GPU, the other one's submitted second.
fn first_of(world: &mut World, a: &str, b: &str) -> TenantName {
    world.submit_for(a, gpus(1));
    world.submit_for(b, gpus(1));
    let placed = world.plan_and_place();
    assert_eq!(placed.len(), 1);
    world.run(placed[0]).tenant.clone()
}

#[test]
fn of_two_equal_siblings_the_one_that_held_more_of_late_goes_second() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    used(&mut world, "ads", 3);
    // Of a mean over the past, three hours of a half-life of a day: 1 - 2^(-3/24).
    assert!(recent(&world, "ads").abs_diff(83) <= 1);
    assert_eq!(recent(&world, "nlp"), 0);
    assert_eq!(first_of(&mut world, "ads", "nlp"), tenant_name("nlp"));
}

#[test]
fn what_was_held_is_forgiven_with_time() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    used(&mut world, "ads", 6);
    let before = recent(&world, "ads");
    world.now_us += 24 * HOUR_US;
    // Five hours today are more than six yesterday.
    used(&mut world, "nlp", 5);
    assert!(recent(&world, "ads") <= before / 2, "{before}");
    assert_eq!(first_of(&mut world, "nlp", "ads"), tenant_name("ads"));
}

#[test]
fn a_half_life_of_zero_counts_the_present_alone_and_one_that_is_absurd_is_refused() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    used(&mut world, "ads", 3);
    world.set_policy(|policy| policy.fair_share_half_life_ms = 0);
    assert_eq!(recent(&world, "ads"), 0);
    used(&mut world, "ads", 3);
    assert_eq!(recent(&world, "ads"), 0);
    assert_eq!(
        first_of(&mut world, "ads", "nlp"),
        tenant_name("ads"),
        "as they were submitted"
    );
    for half_life_ms in [1, 59_999, 366 * 24 * 3_600_000, u64::MAX] {
        let mut policy = world.state.policy().clone();
        policy.fair_share_half_life_ms = half_life_ms;
        let refusal = world.refuse(Command::SetPolicy {
            policy: Box::new(policy),
        });
        assert_eq!(refusal.kind, RefusalKind::Invalid, "{half_life_ms}");
    }
    // Turned on again, what is held has no past.
    world.set_policy(|policy| policy.fair_share_half_life_ms = 3_600_000);
    assert_eq!(recent(&world, "ads"), 0);
    world.now_us += HOUR_US;
    world.accept(Command::Tick);
    assert!(recent(&world, "ads").abs_diff(500) <= 1);
}

#[test]
fn a_change_of_the_half_life_does_not_rewrite_the_past() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    used(&mut world, "ads", 24);
    world.now_us += 24 * HOUR_US;
    world.accept(Command::Tick);
    let before = recent(&world, "ads");
    assert!(before.abs_diff(250) <= 1, "a quarter: {before}");
    world.set_policy(|policy| policy.fair_share_half_life_ms = 3_600_000);
    assert!(recent(&world, "ads").abs_diff(before) <= 1);
    world.now_us += HOUR_US;
    world.accept(Command::Tick);
    assert!(recent(&world, "ads").abs_diff(before / 2) <= 1);
}

#[test]
fn what_is_guaranteed_goes_before_what_would_be_borrowed_whatever_was_held() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    world.quota("nlp", 1, None, None);
    for _ in 0..5 {
        used(&mut world, "nlp", 24);
    }
    assert_eq!(first_of(&mut world, "guests", "nlp"), tenant_name("nlp"));
}

#[test]
fn what_a_team_held_counts_for_its_department_and_moves_with_it() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    for department in ["research", "product"] {
        weighted(&mut world, department, None, 1);
    }
    weighted(&mut world, "nlp", Some("research"), 1);
    weighted(&mut world, "speech", Some("research"), 1);
    used(&mut world, "nlp", 6);
    used(&mut world, "speech", 2);
    let (nlp, speech) = (recent(&world, "nlp"), recent(&world, "speech"));
    assert!(recent(&world, "research").abs_diff(nlp + speech) <= 1);
    world.accept(Command::SetTenant {
        tenant: tenant_name("nlp"),
        parent: ParentChange::Under(tenant_name("product")),
        weight: None,
    });
    assert!(recent(&world, "research").abs_diff(speech) <= 1);
    assert!(recent(&world, "product").abs_diff(nlp) <= 1);
    assert_eq!(recent(&world, "nlp"), nlp);
}

#[test]
fn a_snapshot_keeps_what_was_held() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    used(&mut world, "ads", 3);
    let stored = rmp_serde::to_vec_named(&world.state).expect("a state encodes");
    let read: State = rmp_serde::from_slice(&stored).expect("a state reads");
    assert_eq!(read, world.state);
    assert!(recent(&world, "ads") > 80);
    assert_eq!(plan(&read, world.now_us), plan(&world.state, world.now_us));
}

/// Teams whose runs wait whenever they demand anything, on a few GPUs; what each has had.
struct Teams {
    world: World,
    names: Vec<String>,
    /// How long the next runs take, in turn.
    hours: Vec<u64>,
    started: usize,
    ends: BTreeMap<(u64, RunId), usize>,
    /// GPU-hours that each team's runs took, by where they started.
    had: Vec<u64>,
    /// When a run of each team started last.
    last_us: Vec<u64>,
    /// The longest that each waited between two starts while it demanded.
    longest_us: Vec<u64>,
}

impl Teams {
    fn new(devices: &str, weights: &[u32], hours: &[u64]) -> Self {
        let mut world = World::with_nodes(&[("node-1", devices)]);
        let names: Vec<String> = (0..weights.len())
            .map(|number| format!("team-{number}"))
            .collect();
        for (name, weight) in names.iter().zip(weights) {
            weighted(&mut world, name, None, *weight);
        }
        Self {
            world,
            hours: hours.to_vec(),
            started: 0,
            ends: BTreeMap::new(),
            had: vec![0; names.len()],
            last_us: vec![0; names.len()],
            longest_us: vec![0; names.len()],
            names,
        }
    }

    /// Applies without a look at the invariants: a month of them is the business of other tests.
    fn apply(&mut self, command: Command) {
        let entry = Entry {
            stamp_us: self.world.now_us,
            actor: "user:ana".to_owned(),
            idempotency_key: None,
            command,
        };
        self.world.entries.push(entry.clone());
        let index = self.world.entries.len() as u64;
        self.world.state.apply(index, &entry);
    }

    fn submit(&mut self, team: usize) {
        self.apply(submit(crate::model::WorkloadSpec {
            tenant: Some(tenant_name(&self.names[team])),
            ..gpus(1)
        }));
    }

    /// Plays on for so long, with demand of these teams that never ends.
    fn play(&mut self, hours: u64, demanding: &[usize]) {
        self.had.fill(0);
        self.longest_us.fill(0);
        let until_us = self.world.now_us + hours * HOUR_US;
        for team in demanding {
            self.last_us[*team] = self.world.now_us;
            for _ in 0..4 {
                self.submit(*team);
            }
        }
        while self.world.now_us < until_us {
            let placements = plan(&self.world.state, self.world.now_us).placements;
            let placed: Vec<RunId> = placements.iter().map(|placed| placed.run).collect();
            self.apply(Command::Place { placements });
            for run in placed {
                let tenant = self.world.run(run).tenant.clone();
                let of_team = |name: &String| name == tenant.as_str();
                let team = self.names.iter().position(of_team).expect("a team");
                let takes = self.hours[self.started % self.hours.len()];
                self.started += 1;
                let end_us = self.world.now_us + takes * HOUR_US;
                self.ends.insert((end_us, run), team);
                self.had[team] += takes;
                let waited_us = self.world.now_us - self.last_us[team];
                self.longest_us[team] = self.longest_us[team].max(waited_us);
                self.last_us[team] = self.world.now_us;
                if demanding.contains(&team) {
                    self.submit(team);
                }
            }
            let ((at_us, run), _) = self.ends.pop_first().expect("something runs");
            self.world.now_us = at_us;
            let (node, mut report) = self
                .world
                .report_of(run, 0, crate::model::MemberPhase::Ended);
            report.end = Some(end(EndKind::Exited { code: 0 }));
            self.apply(Command::Report {
                node,
                members: vec![report],
            });
        }
        for team in demanding {
            let waited_us = self.world.now_us.saturating_sub(self.last_us[*team]);
            self.longest_us[*team] = self.longest_us[*team].max(waited_us);
        }
        assert_eq!(self.world.state.violations(), []);
    }

    /// Whether each has had the part of the whole that its weight is of the weights, within so many
    /// hundredths of the whole.
    fn check(&self, weights: &[u32], hundredths: u64) -> Result<(), TestCaseError> {
        let (all, total): (u64, u32) = (self.had.iter().sum(), weights.iter().sum());
        for (had, weight) in self.had.iter().zip(weights) {
            let due = all * u64::from(*weight) / u64::from(total);
            prop_assert!(
                had.abs_diff(due) * 100 <= all * hundredths,
                "{had} of {all}, due {due}: {:?} at {weights:?}",
                self.had
            );
        }
        Ok(())
    }
}

const DAY: u64 = 24;

#[test]
fn weights_of_two_to_one_have_two_thirds_and_a_third_of_three_devices_and_of_four() {
    for devices in ["3xA100-80G", "4xA100-80G"] {
        let mut teams = Teams::new(devices, &[2, 1], &[3]);
        teams.play(30 * DAY, &[0, 1]);
        teams.check(&[2, 1], 2).expect("their parts");
    }
}

#[test]
fn an_idle_tenant_catches_up_for_less_than_a_half_life_and_then_has_its_part() {
    let mut teams = Teams::new("4xA100-80G", &[1, 1], &[2]);
    teams.play(30 * DAY, &[0]);
    // All of its past is another's. It has the more of what comes free until they are even by what
    // counts, and the other has started again within a half-life.
    teams.play(2 * DAY, &[0, 1]);
    assert!(
        teams.longest_us[0] <= DAY * HOUR_US,
        "{:?}",
        teams.longest_us
    );
    assert!(
        teams.had[1] * 10 <= teams.had.iter().sum::<u64>() * 8,
        "{:?}",
        teams.had
    );
    teams.play(14 * DAY, &[0, 1]);
    teams.check(&[1, 1], 4).expect("equal parts");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever their runs take, and whoever began with a burst: siblings that always have something
    /// waiting come to the part of the whole that their weights are of all. None waits for longer than
    /// what it had alone takes to decay to its part, and two of the longest runs.
    #[test]
    fn shares_come_to_the_weights_and_nobody_starves(
        weights in prop::collection::vec(1..5_u32, 2..4),
        hours in prop::collection::vec(1..9_u64, 1..7),
        burst_days in 0..8_u64,
    ) {
        let mut teams = Teams::new("4xA100-80G", &weights, &hours);
        let all: Vec<usize> = (0..weights.len()).collect();
        if burst_days > 0 {
            teams.play(burst_days * DAY, &[0]);
        }
        teams.play(5 * DAY, &all);
        let total: u32 = weights.iter().sum();
        for (waited_us, weight) in teams.longest_us.iter().zip(&weights) {
            let half_lives = (f64::from(total) / f64::from(*weight)).log2();
            let bound_us = ((half_lives * DAY as f64 + 2.0 * 8.0) * HOUR_US as f64) as u64;
            prop_assert!(*waited_us <= bound_us, "{waited_us} of {bound_us}: {weights:?}");
        }
        teams.play(30 * DAY, &all);
        teams.check(&weights, 4)?;
    }
}
