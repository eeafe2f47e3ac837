//! Between the core's outlook of a waiting run and the HTTP types.

use coordinator_core::scheduler::{Holder, Outlook, Until};
use platform_proto::http::{
    ChangeView, GivesWayView, HolderView, OutlookView, PositionView, StartView,
};

/// An outlook as clients read it.
pub fn outlook_view(outlook: Outlook) -> OutlookView {
    OutlookView {
        position: outlook.position.map(|position| PositionView {
            ahead: position.ahead,
            waiting: position.waiting,
            turn: position.turn,
            turns: position.turns,
            why: position.why,
        }),
        holders: outlook.holders.into_iter().map(holder_view).collect(),
        more_holders: outlook.more_holders as u64,
        gives_way: outlook.gives_way.map(|gives_way| GivesWayView {
            runs: gives_way.runs.iter().map(ToString::to_string).collect(),
            at_us: gives_way.at_us,
        }),
        start: outlook.start.map(|start| StartView {
            earliest_us: start.earliest_us,
            latest_us: start.latest_us,
        }),
        starts_now: outlook.starts_now,
        changes: outlook
            .changes
            .into_iter()
            .map(|change| ChangeView {
                flags: change.flags,
                words: change.words,
                gives_way: change.gives_way.iter().map(ToString::to_string).collect(),
            })
            .collect(),
    }
}

fn holder_view(holder: Holder) -> HolderView {
    let (stopping, until_us, limit_us) = match holder.until {
        Until::Stopping => (true, None, None),
        Until::Latest { at_us } => (false, Some(at_us), None),
        Until::AfterStart { limit_us } => (false, None, Some(limit_us)),
        Until::NoLimit => (false, None, None),
    };
    HolderView {
        run: holder.run.to_string(),
        tenant: holder.tenant.to_string(),
        held_milli: holder.held_milli,
        stopping,
        until_us,
        limit_us,
    }
}
