//! Reads the clocks, in the one place that does.

use agent_core::Now;
use rustix::time::{ClockId, clock_gettime};
use std::time::SystemTime;

/// Both clocks, now.
pub fn now() -> Now {
    let boottime = clock_gettime(ClockId::Boottime);
    Now {
        boottime_us: u64::try_from(boottime.tv_sec).unwrap_or(0) * 1_000_000
            + u64::try_from(boottime.tv_nsec).unwrap_or(0) / 1_000,
        wall_us: SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
            }),
    }
}
