//! Random moments from a seed that is printed and can be given again.

use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64: a few lines, and every seed gives the same moments on every machine.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From `$PLATFORM_E2E_SEED`, else from the clock; says which.
    pub fn seeded(name: &str) -> Random {
        let given = std::env::var("PLATFORM_E2E_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed: u64 = given.unwrap_or_else(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |since| since.as_nanos() as u64)
        });
        println!("{name}: repeat with PLATFORM_E2E_SEED={seed}");
        Random(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From `low` up to but not including `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.draw() % (high - low)
    }
}
