//! Expires the leases of nodes that are not heard, and the deadlines of drains.
//!
//! Leases live in the leader's memory: only their loss is a command. A new leader has heard nobody
//! yet, so it first waits one full lease and its margin before it believes anyone dead.

use super::LEADER;
use crate::driver::DriverHandle;
use crate::sessions::Hub;
use coordinator_core::model::{NodeCondition, NodeName};
use coordinator_core::state::Command;
use std::time::{Duration, Instant};

/// Past its lease a node is given this much more: its agent stops what it must at the lease's end
/// less a margin of its own, so that the two never overlap.
pub const MARGIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub async fn run(driver: DriverHandle, hub: Hub, lease: Duration) {
    let mut leading_since = Instant::now();
    let mut looked = leading_since;
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        if was_stopped(looked, now) {
            leading_since = now;
        }
        looked = now;
        let now_us = crate::now_us();
        let heard_at = |node: &NodeName| hub.heard_at(node);
        let commands: Vec<Command> = driver.read(|state| {
            state
                .nodes()
                .values()
                .filter_map(|node| {
                    let name = &node.description.name;
                    let holds = !node.members.is_empty();
                    if is_expired(heard_at(name), leading_since, now, lease)
                        && (holds || node.is_ready())
                    {
                        return Some(Command::LoseNode { node: name.clone() });
                    }
                    match node.condition {
                        NodeCondition::Draining { deadline_us, .. }
                            if deadline_us <= now_us && holds =>
                        {
                            let stopping = node.members.iter().all(|key| {
                                state
                                    .runs()
                                    .get(&key.run)
                                    .and_then(|run| run.last_attempt())
                                    .is_none_or(|attempt| attempt.stopping.is_some())
                            });
                            (!stopping).then(|| Command::Evict { node: name.clone() })
                        }
                        _ => None,
                    }
                })
                .collect()
        });
        for command in commands {
            tracing::warn!(command = command.action(), "a deadline has passed");
            let lost = match &command {
                Command::LoseNode { node } => Some(node.clone()),
                _ => None,
            };
            match driver.propose(LEADER.to_owned(), None, command).await {
                // A lost node takes runs again when its agent says hello. One whose session still
                // stands, silent for a while, would never say it.
                Ok(_) => lost.iter().for_each(|node| hub.cut_off(node)),
                Err(error) => {
                    tracing::warn!(%error, "could not be proposed; the next look tries again");
                }
            }
        }
    }
}

/// Whether this process itself stood still between two looks: what agents said meanwhile waits
/// unread, so nobody is believed silent before one more full lease.
fn was_stopped(looked: Instant, now: Instant) -> bool {
    now.saturating_duration_since(looked) > MARGIN
}

/// Whether a node's lease is over: unheard for a lease and the margin, counted from when it was last
/// heard or from when this leader began, whichever is later.
fn is_expired(
    heard: Option<Instant>,
    leading_since: Instant,
    now: Instant,
    lease: Duration,
) -> bool {
    let since = heard.map_or(leading_since, |heard| heard.max(leading_since));
    now.saturating_duration_since(since) > lease + MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    #[test]
    fn a_new_leader_waits_one_full_lease_before_it_believes_anyone_dead() {
        let leading_since = Instant::now();
        let heard_before = leading_since.checked_sub(Duration::from_secs(3_600));
        for heard in [None, heard_before] {
            assert!(!is_expired(
                heard,
                leading_since,
                leading_since + LEASE,
                LEASE
            ));
            assert!(is_expired(
                heard,
                leading_since,
                leading_since + LEASE + MARGIN * 2,
                LEASE
            ));
        }
    }

    #[test]
    fn a_leader_that_stood_still_counts_the_silence_as_its_own() {
        let looked = Instant::now();
        assert!(!was_stopped(looked, looked + LOOK_EVERY * 2));
        assert!(was_stopped(looked, looked + LEASE * 2));
    }

    #[test]
    fn a_heartbeat_renews_the_lease_in_full() {
        let leading_since = Instant::now();
        let heard = leading_since + Duration::from_secs(100);
        assert!(!is_expired(
            Some(heard),
            leading_since,
            heard + LEASE + MARGIN,
            LEASE
        ));
        assert!(is_expired(
            Some(heard),
            leading_since,
            heard + LEASE + MARGIN * 2,
            LEASE
        ));
    }
}
