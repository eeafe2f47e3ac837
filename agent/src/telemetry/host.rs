//! Processor and memory of the host, through sysinfo.

use std::sync::{Mutex, PoisonError};
use sysinfo::System;

/// Keeps the last reading, because processor use is a difference between two.
#[derive(Debug)]
pub(super) struct Host {
    /// Absent where the system gives no readings.
    system: Option<Mutex<System>>,
}

impl Host {
    pub(super) fn open() -> Self {
        let system = match System::new() {
            Ok(mut system) => {
                system.refresh_cpu_usage();
                Some(Mutex::new(system))
            }
            Err(error) => {
                tracing::warn!(%error, "the host gives no readings of processor and memory");
                None
            }
        };
        Self { system }
    }

    /// Processor use since the last call in percent of all cores, and memory in use in MiB.
    pub(super) fn read(&self) -> (f64, u64) {
        let Some(system) = &self.system else {
            return (0.0, 0);
        };
        let mut system = system.lock().unwrap_or_else(PoisonError::into_inner);
        system.refresh_cpu_usage();
        system.refresh_memory();
        (
            f64::from(system.global_cpu_usage()).clamp(0.0, 100.0),
            system.used_memory() >> 20,
        )
    }
}
