//! Devices that idle, as people read it.

use crate::output::amounts::{money, utc};
use crate::output::tables::plain;
use platform_proto::http::RunView;

/// A line of `runs show`; empty when its devices are used, or nothing is known of them.
pub fn idle(run: &RunView) -> String {
    let Some(idle) = &run.idle else {
        return String::new();
    };
    let stop = match idle.stop_at_us {
        Some(at_us) => format!(", stopped at {} if they go on", utc(at_us)),
        None => String::new(),
    };
    format!(
        "since {}, {}{stop}",
        utc(idle.since_us),
        money(idle.cost_micro, &run.currency)
    )
}

/// A line of `runs show`; empty when nobody has said why they may idle.
pub fn justification(run: &RunView) -> String {
    run.justification
        .as_ref()
        .map(|justification| {
            format!(
                "until {} by {}: {}",
                utc(justification.until_us),
                plain(&justification.by),
                plain(&justification.reason)
            )
        })
        .unwrap_or_default()
}

/// Beside the devices in a list, once the run is warned: what their idleness has cost.
pub fn mark(run: &RunView) -> String {
    match &run.idle {
        Some(idle) if idle.warned_us.is_some() => {
            format!(", idle: {}", money(idle.cost_micro, &run.currency))
        }
        _ => String::new(),
    }
}

/// What `runs justify` prints.
pub fn justified(run: &RunView) -> String {
    format!("{} may idle {}\n", run.id, justification(run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Paint;
    use crate::output::views;
    use crate::snapshots::values::{self, NOW_US};
    use platform_proto::http::{IdleView, JustificationView, RunList};

    const MINUTE_US: u64 = 60 * 1_000_000;

    fn warned() -> RunView {
        RunView {
            state: "running".to_owned(),
            ended_us: None,
            exit_code: None,
            idle: Some(IdleView {
                since_us: NOW_US - 40 * MINUTE_US,
                warned_us: Some(NOW_US - 10 * MINUTE_US),
                stop_at_us: Some(NOW_US + 80 * MINUTE_US),
                cost_micro: 3_333_333,
            }),
            justification: Some(JustificationView {
                by: "user:ada".to_owned(),
                reason: "shown at noon".to_owned(),
                at_us: NOW_US - MINUTE_US,
                until_us: NOW_US + 240 * MINUTE_US,
            }),
            ..values::run()
        }
    }

    #[test]
    fn a_run_that_idles_says_since_when_what_it_cost_and_who_lets_it() {
        let list = RunList {
            runs: vec![warned()],
            arrays: Vec::new(),
            next: None,
        };
        insta::assert_snapshot!(views::runs(&list, NOW_US, Paint::default()));
        insta::assert_snapshot!(views::run(Some(&warned()), None, NOW_US, Paint::default()));
        insta::assert_snapshot!(justified(&warned()));
    }

    #[test]
    fn a_run_that_is_not_warned_yet_is_not_marked_in_the_list() {
        let mut run = warned();
        run.idle.as_mut().expect("idle").warned_us = None;
        assert_eq!(mark(&run), "");
        assert_eq!(mark(&values::run()), "");
    }
}
