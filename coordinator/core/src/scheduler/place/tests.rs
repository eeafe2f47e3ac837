//! What placement keeps: capacity, exactness, completeness, and which node and device it chooses.

use super::Shape;

/// One device's share.
pub(super) fn share_of(share_milli: u32, cpu_milli: u64) -> Shape {
    Shape {
        devices: 1,
        share_milli,
        gpu_memory_mib: None,
        gpu_memory_ceiling_mib: None,
        gpu_models: Vec::new(),
        cpu_milli,
        memory_mib: 0,
        runtime: "process",
    }
}
