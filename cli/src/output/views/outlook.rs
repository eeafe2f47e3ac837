//! What a waiting run has before it, as text.

use crate::output::amounts::{duration, milli, moment};
use crate::output::tables::{indented, pairs, plain};
use platform_proto::http::{ChangeView, GivesWayView, HolderView, OutlookView, PositionView};

/// Position, holders, who gives way, when it starts and what would start it now: a line each.
pub fn outlook(seen: &OutlookView, now_us: u64) -> String {
    let mut text = String::new();
    let mut line = |said: String| {
        text.push_str(&said);
        text.push('\n');
    };
    for holder in &seen.holders {
        line(held(holder, now_us));
    }
    if seen.more_holders > 0 {
        line(format!("and {} more hold what it needs", seen.more_holders));
    }
    if let Some(position) = &seen.position {
        line(place(position));
        if let Some(why) = &position.why {
            line(plain(why));
        }
    }
    if let Some(gives_way) = &seen.gives_way {
        line(way(gives_way, now_us));
    }
    if seen.starts_now {
        line("the next plan starts it".to_owned());
        return text;
    }
    line(match &seen.start {
        Some(start) if start.earliest_us <= now_us => format!(
            "starts by {} ({}), if runs last as they did before",
            moment(start.latest_us),
            from_now(start.latest_us, now_us)
        ),
        Some(start) => format!(
            "starts between {} ({}) and {} ({}), if runs last as they did before",
            moment(start.earliest_us),
            from_now(start.earliest_us, now_us),
            moment(start.latest_us),
            from_now(start.latest_us, now_us)
        ),
        None => {
            "when it starts is unknown: too few runs like those before it have ended, and not all have a time limit"
                .to_owned()
        }
    });
    if seen.changes.is_empty() {
        return text;
    }
    text.push_str("would start now with\n");
    let changes: Vec<(String, String)> = seen.changes.iter().map(change).collect();
    let rows: Vec<(&str, String)> = changes
        .iter()
        .map(|(flags, words)| (flags.as_str(), words.clone()))
        .collect();
    text.push_str(&indented(&pairs(&rows)));
    text
}

fn from_now(us: u64, now_us: u64) -> String {
    match us.saturating_sub(now_us) {
        0 => "now".to_owned(),
        us => format!("in {}", duration(us)),
    }
}

fn gpus(held_milli: u64) -> String {
    format!(
        "{} GPU{}",
        milli(held_milli),
        if held_milli == 1000 { "" } else { "s" }
    )
}

fn held(holder: &HolderView, now_us: u64) -> String {
    let until = if holder.stopping {
        ", and has been told to stop".to_owned()
    } else if let Some(us) = holder.until_us {
        format!(
            " until {} ({}) at the latest",
            moment(us),
            from_now(us, now_us)
        )
    } else if let Some(us) = holder.limit_us {
        format!(" for at most {} from its start", duration(us))
    } else {
        ", no time limit".to_owned()
    };
    format!(
        "{} of {} holds {}{until}",
        plain(&holder.run),
        plain(&holder.tenant),
        gpus(holder.held_milli)
    )
}

fn place(position: &PositionView) -> String {
    format!(
        "it is {} of the {} that its tenant has waiting; its tenant's turn is {} of {}",
        position.ahead + 1,
        position.waiting,
        position.turn,
        position.turns
    )
}

fn way(gives_way: &GivesWayView, now_us: u64) -> String {
    let runs: Vec<String> = gives_way.runs.iter().map(|run| plain(run)).collect();
    format!(
        "{} to give way to it {}",
        match runs.as_slice() {
            [one] => format!("{one} is"),
            several => format!("{} are", several.join(", ")),
        },
        from_now(gives_way.at_us, now_us)
    )
}

fn change(change: &ChangeView) -> (String, String) {
    let stopped = match change.gives_way.as_slice() {
        [] => String::new(),
        runs => {
            let runs: Vec<String> = runs.iter().map(|run| plain(run)).collect();
            format!("; {} would be stopped for it", runs.join(", "))
        }
    };
    (
        plain(&change.flags),
        format!("{}{stopped}", plain(&change.words)),
    )
}
