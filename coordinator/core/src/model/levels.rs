//! Levels of attained service: the less a run has had, the earlier its level.
//!
//! A geometric scale needs no estimate of durations and serves heavy tails well; few levels keep
//! runs of a level from displacing each other in turn (Gu et al., Tiresias, NSDI 2019).

/// Ascending thresholds between levels, in thousandths of GPUs times microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    thresholds: Vec<u128>,
}

impl Levels {
    /// One level: attained service does not count.
    pub fn one() -> Self {
        Self {
            thresholds: Vec::new(),
        }
    }

    /// `count` levels; the first ends at `first_gpu_milli_us`, and each next at `ratio` times the last.
    pub fn geometric(count: u32, first_gpu_milli_us: u128, ratio: u32) -> Self {
        let mut thresholds = Vec::new();
        let mut next = first_gpu_milli_us.max(1);
        for _ in 1..count {
            thresholds.push(next);
            let further = next.saturating_mul(u128::from(ratio.max(2)));
            if further == next {
                break;
            }
            next = further;
        }
        Self { thresholds }
    }

    /// Seven levels from 3,200 GPU-seconds, each four times the last. Found on the Philly trace and held
    /// on resampled ones (docs/performance.md).
    pub fn standard() -> Self {
        Self::geometric(7, 3_200 * 1_000 * 1_000_000, 4)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.thresholds.len() + 1
    }

    /// The level of this much service, from 0. A threshold belongs to the level above it.
    pub fn of(&self, attained_gpu_milli_us: u128) -> u32 {
        let passed = self
            .thresholds
            .partition_point(|threshold| *threshold <= attained_gpu_milli_us);
        u32::try_from(passed).unwrap_or(u32::MAX)
    }

    /// How long a run of this size and service runs until its next level; none in the last.
    pub fn until_next_us(&self, attained_gpu_milli_us: u128, gpu_milli: u64) -> Option<u64> {
        let next = self
            .thresholds
            .iter()
            .find(|threshold| **threshold > attained_gpu_milli_us)?;
        // A run on the CPU alone attains nothing.
        let rate = u128::from(gpu_milli);
        if rate == 0 {
            return None;
        }
        u64::try_from((next - attained_gpu_milli_us).div_ceil(rate)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_ends_at_a_multiple_of_the_last() {
        let levels = Levels::geometric(4, 100, 4);
        for (attained, level) in [
            (0, 0),
            (99, 0),
            (100, 1),
            (399, 1),
            (400, 2),
            (1_599, 2),
            (1_600, 3),
            (u128::MAX, 3),
        ] {
            assert_eq!(levels.of(attained), level, "{attained}");
        }
    }

    #[test]
    fn larger_gangs_reach_the_next_level_sooner() {
        let levels = Levels::geometric(3, 1_000, 4);
        assert_eq!(levels.until_next_us(0, 1), Some(1_000));
        assert_eq!(levels.until_next_us(0, 8), Some(125));
        assert_eq!(levels.until_next_us(1_000, 7), Some(429));
        assert_eq!(levels.until_next_us(4_000, 8), None);
        assert_eq!(levels.until_next_us(0, 0), None);
    }

    #[test]
    fn absurd_scales_end_rather_than_overflow() {
        assert_eq!(Levels::one().of(u128::MAX), 0);
        assert_eq!(Levels::geometric(0, 5, 2), Levels::one());
        let steep = Levels::geometric(u32::MAX, 0, 0);
        assert!(steep.of(u128::MAX) <= 129);
    }
}
