//! How long runs took, by who submitted them and what they were called: enough to tell a short run
//! from a long one before it starts, and no more.
//!
//! A run is foretold by the narrowest group that has ended often enough: its user's runs of the same
//! model (or name) and size, else of the same model or name, else all of its user's. Bounded, and the
//! same on every replica: whole milliseconds, and the group that has been silent longest leaves first.

use crate::model::{EndKind, RecentDurations, Run, RunOutcome, UserName, WorkloadSpec};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Groups kept at most: a few for each of some hundred users, and under a mebibyte in a snapshot.
const MOST_GROUPS: usize = 2_048;

/// Runs that are taken to be alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Group {
    user: UserName,
    /// Model, else name; absent: all of the user's.
    called: Option<String>,
    /// Thousandths of devices; absent: of any size.
    gpu_milli: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Recent {
    /// Grows with every end; says which group has been silent longest.
    turn: u64,
    took_ms: RecentDurations,
}

/// What ended runs took.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(Group, Recent)>", into = "Vec<(Group, Recent)>")]
pub struct RunHistory {
    groups: BTreeMap<Group, Recent>,
    by_turn: BTreeSet<(u64, Group)>,
}

impl From<Vec<(Group, Recent)>> for RunHistory {
    fn from(groups: Vec<(Group, Recent)>) -> Self {
        let by_turn = groups
            .iter()
            .map(|(group, recent)| (recent.turn, group.clone()))
            .collect();
        Self {
            groups: groups.into_iter().collect(),
            by_turn,
        }
    }
}

impl From<RunHistory> for Vec<(Group, Recent)> {
    fn from(history: RunHistory) -> Self {
        history.groups.into_iter().collect()
    }
}

impl RunHistory {
    /// Nothing has ended yet.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// How long a run of this user is going to hold its devices, in milliseconds: as those like it did,
    /// never longer than its own limit; absent when neither says anything.
    pub fn predict_ms(&self, user: &UserName, spec: &WorkloadSpec) -> Option<u64> {
        let known = groups(user, spec)
            .iter()
            .find_map(|group| self.groups.get(group)?.took_ms.median());
        match (known, spec.time_limit_ms) {
            (Some(known), Some(limit)) => Some(known.min(limit)),
            (known, limit) => known.or(limit),
        }
    }

    /// Takes note of a run that has ended while it held devices. One that failed says nothing of how
    /// long the next takes, unless it ran out of time.
    pub(super) fn note(&mut self, run: &Run, outcome: &RunOutcome) {
        let out_of_time = run
            .last_attempt()
            .and_then(|attempt| attempt.end.as_ref())
            .is_some_and(|end| end.kind == EndKind::TimeLimit);
        if *outcome == RunOutcome::Failed && !out_of_time {
            return;
        }
        let took_ms = run.held_us() / 1000;
        for group in groups(&run.user, &run.spec) {
            self.add(group, took_ms);
        }
    }

    fn add(&mut self, group: Group, took_ms: u64) {
        let turn = self.by_turn.last().map_or(0, |(last, _)| last + 1);
        let recent = self.groups.entry(group.clone()).or_insert_with(|| Recent {
            turn,
            took_ms: RecentDurations::default(),
        });
        self.by_turn.remove(&(recent.turn, group.clone()));
        recent.turn = turn;
        recent.took_ms.add(took_ms);
        self.by_turn.insert((turn, group));
        while self.groups.len() > MOST_GROUPS
            && let Some((_, silent)) = self.by_turn.pop_first()
        {
            self.groups.remove(&silent);
        }
    }
}

/// The groups of a run, narrowest first.
fn groups(user: &UserName, spec: &WorkloadSpec) -> [Group; 3] {
    let called = spec.model.as_ref().unwrap_or(&spec.name);
    let group = |called: Option<&String>, gpu_milli| Group {
        user: user.clone(),
        called: called.cloned(),
        gpu_milli,
    };
    [
        group(Some(called), Some(spec.gpu_milli())),
        group(Some(called), None),
        group(None, None),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::spec;

    fn ana() -> UserName {
        UserName::new("ana").expect("a good name")
    }

    fn named(name: &str) -> WorkloadSpec {
        WorkloadSpec {
            name: name.to_owned(),
            ..spec()
        }
    }

    fn learn(history: &mut RunHistory, user: &UserName, spec: &WorkloadSpec, took_ms: u64) {
        for group in groups(user, spec) {
            history.add(group, took_ms);
        }
    }

    #[test]
    fn the_narrowest_group_that_is_known_foretells() {
        let mut history = RunHistory::default();
        assert_eq!(history.predict_ms(&ana(), &named("eval")), None);
        for _ in 0..3 {
            learn(&mut history, &ana(), &named("eval"), 10);
        }
        for _ in 0..5 {
            learn(&mut history, &ana(), &named("train"), 9_000);
        }
        let large = WorkloadSpec {
            gpus: Some(8),
            ..named("eval")
        };
        for (spec, predicted) in [
            (named("eval"), Some(10)),
            (named("train"), Some(9_000)),
            (large, Some(10)),
            (named("new"), Some(9_000)),
        ] {
            assert_eq!(
                history.predict_ms(&ana(), &spec),
                predicted,
                "{}",
                spec.name
            );
        }
        let bob = UserName::new("bob").expect("a good name");
        assert_eq!(history.predict_ms(&bob, &named("eval")), None);
    }

    #[test]
    fn a_time_limit_bounds_what_is_foretold_and_stands_in_for_it() {
        let mut history = RunHistory::default();
        let limited = |time_limit_ms| WorkloadSpec {
            time_limit_ms: Some(time_limit_ms),
            ..named("eval")
        };
        assert_eq!(history.predict_ms(&ana(), &limited(70)), Some(70));
        for _ in 0..3 {
            learn(&mut history, &ana(), &named("eval"), 50);
        }
        assert_eq!(history.predict_ms(&ana(), &limited(70)), Some(50));
        assert_eq!(history.predict_ms(&ana(), &limited(20)), Some(20));
    }

    #[test]
    fn whoever_has_been_silent_longest_is_forgotten_and_the_rest_is_read_back_as_it_was() {
        let mut history = RunHistory::default();
        for _ in 0..3 {
            learn(&mut history, &ana(), &named("first"), 1);
        }
        for number in 0..2 * MOST_GROUPS {
            learn(&mut history, &ana(), &named(&format!("run-{number}")), 7);
        }
        assert_eq!(history.groups.len(), MOST_GROUPS);
        assert_eq!(history.by_turn.len(), MOST_GROUPS);
        assert_eq!(
            history.predict_ms(&ana(), &named("first")),
            Some(7),
            "only what its user's runs took is left"
        );
        let stored = rmp_serde::to_vec_named(&history).expect("a history encodes");
        let read: RunHistory = rmp_serde::from_slice(&stored).expect("and reads");
        assert_eq!(read, history);
        assert!(stored.len() < 1 << 20, "{} bytes", stored.len());
    }
}
