//! Amounts and the exact arithmetic of money: integers only, so that replicas and auditors agree.

/// A whole device, in thousandths.
pub const WHOLE_DEVICE_MILLI: u32 = 1000;

/// Microseconds in an hour.
pub const HOUR_US: u64 = 3_600_000_000;

/// Thousandths of a device times microseconds it was held. Exact; the unit of the ledger.
pub fn gpu_milli_us(share_milli: u32, start_us: u64, end_us: u64) -> u128 {
    u128::from(end_us.saturating_sub(start_us)) * u128::from(share_milli)
}

/// Cost of `gpu_milli_us` at a price for each GPU-hour, in millionths of the currency, rounded down.
pub fn cost_micro(gpu_milli_us: u128, price_per_gpu_hour_micro: u64) -> u64 {
    let exact = gpu_milli_us.saturating_mul(u128::from(price_per_gpu_hour_micro))
        / (u128::from(WHOLE_DEVICE_MILLI) * u128::from(HOUR_US));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_half_a_device_costs_half_its_price() {
        let held = gpu_milli_us(500, 1_000, 1_000 + HOUR_US);
        assert_eq!(cost_micro(held, 4_000_000), 2_000_000);
    }

    #[test]
    fn a_clock_that_did_not_advance_costs_nothing() {
        assert_eq!(gpu_milli_us(1000, 5, 5), 0);
        assert_eq!(gpu_milli_us(1000, 5, 4), 0);
    }

    #[test]
    fn a_century_of_a_large_gang_does_not_overflow() {
        let held = gpu_milli_us(u32::MAX, 0, 100 * 365 * 24 * HOUR_US);
        assert!(cost_micro(held, u64::MAX) > 0);
    }
}
