//! How good estimated starts were: each scored against the start that came, by how far ahead it looked.

use coordinator_core::model::RunId;
use coordinator_core::scheduler::Estimate;
use coordinator_core::state::State;
use serde::Serialize;

const MINUTE_US: u64 = 60_000_000;
/// Where one lead ends and the next begins.
const LEADS: [(&str, u64); 4] = [
    ("up to 10 min", 10 * MINUTE_US),
    ("up to 1 h", 60 * MINUTE_US),
    ("up to 6 h", 360 * MINUTE_US),
    ("longer", u64::MAX),
];

/// An estimate that was made when a run was submitted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scored {
    pub run: RunId,
    pub at_us: u64,
    /// Absent: too little was known to say anything.
    pub estimate: Option<Estimate>,
}

/// What became of the estimates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Calibration {
    /// Runs that waited and for which nothing could be said.
    pub unknown: usize,
    /// Estimates whose interval was still open when the period ended.
    pub open: usize,
    /// The others, by how far ahead the middle of the interval lay.
    pub leads: Vec<Lead>,
}

/// Estimates that looked about as far ahead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lead {
    /// How far, in words.
    pub lead: &'static str,
    /// How many.
    pub estimates: usize,
    /// Starts within their interval.
    pub within: usize,
    /// Starts before it.
    pub earlier: usize,
    /// Starts after it, and runs that had not started when it was over.
    pub later: usize,
}

impl Calibration {
    pub(super) fn of(scored: &[Scored], state: &State, until_us: u64) -> Self {
        let mut calibration = Self {
            leads: LEADS
                .iter()
                .map(|(lead, _)| Lead {
                    lead,
                    estimates: 0,
                    within: 0,
                    earlier: 0,
                    later: 0,
                })
                .collect(),
            ..Self::default()
        };
        for Scored {
            run,
            at_us,
            estimate,
        } in scored
        {
            let run = state.runs().get(run);
            let start_us =
                run.and_then(|run| run.attempts.first().map(|attempt| attempt.placed_us));
            // One that was cancelled while it waited says nothing.
            if start_us.is_none() && run.is_none_or(|run| run.is_ended()) {
                continue;
            }
            calibration.count(*at_us, *estimate, start_us, until_us);
        }
        calibration
    }

    fn count(
        &mut self,
        at_us: u64,
        estimate: Option<Estimate>,
        start_us: Option<u64>,
        until_us: u64,
    ) {
        let Some(estimate) = estimate else {
            self.unknown += 1;
            return;
        };
        if start_us.is_none() && estimate.latest_us >= until_us {
            self.open += 1;
            return;
        }
        let middle_us = estimate.earliest_us + (estimate.latest_us - estimate.earliest_us) / 2;
        let ahead_us = middle_us.saturating_sub(at_us);
        let nth = LEADS
            .iter()
            .position(|(_, most_us)| ahead_us <= *most_us)
            .unwrap_or(LEADS.len() - 1);
        let lead = &mut self.leads[nth];
        lead.estimates += 1;
        match start_us {
            Some(start_us) if estimate.holds(start_us) => lead.within += 1,
            Some(start_us) if start_us < estimate.earliest_us => lead.earlier += 1,
            _ => lead.later += 1,
        }
    }

    /// Estimates that were scored, and how many starts fell within their interval.
    pub fn scored(&self) -> (usize, usize) {
        self.leads.iter().fold((0, 0), |(estimates, within), lead| {
            (estimates + lead.estimates, within + lead.within)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_scored_by_its_interval_and_by_how_far_ahead_it_was_estimated() {
        let interval = |earliest_min, latest_min| {
            Some(Estimate {
                earliest_us: earliest_min * MINUTE_US,
                latest_us: latest_min * MINUTE_US,
            })
        };
        let mut calibration = Calibration::of(&[], &State::default(), 0);
        for (estimate, start_min) in [
            (interval(1, 9), Some(5)),
            (interval(1, 9), Some(0)),
            (interval(1, 9), None),
            (interval(20, 40), Some(41)),
            (interval(20, 200), None),
            (None, Some(3)),
        ] {
            let start_us = start_min.map(|minutes: u64| minutes * MINUTE_US);
            calibration.count(0, estimate, start_us, 100 * MINUTE_US);
        }
        let told: Vec<_> = calibration
            .leads
            .iter()
            .map(|lead| (lead.estimates, lead.within, lead.earlier, lead.later))
            .collect();
        assert_eq!(
            told,
            [(3, 1, 1, 1), (1, 0, 0, 1), (0, 0, 0, 0), (0, 0, 0, 0)]
        );
        assert_eq!((calibration.unknown, calibration.open), (1, 1));
        assert_eq!(calibration.scored(), (4, 1));
    }
}
