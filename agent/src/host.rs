//! What Hello says of the machine.

use std::fs;
use std::path::Path;

/// The machine, as Hello tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Changes with every boot.
    pub boot_id: String,
    /// Thousandths of CPUs.
    pub cpu_milli: u64,
    /// Memory in all.
    pub memory_mib: u64,
    /// "Debian GNU/Linux 12 (bookworm)".
    pub operating_system: String,
}

/// Looks once.
pub fn look() -> Host {
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    // A container's own limit is what we may give out, not the machine's memory.
    let memory = sysinfo::System::new().map_or(0, |mut system| {
        system.refresh_memory();
        let total = system.total_memory();
        system
            .cgroup_limits()
            .map_or(total, |limits| limits.total_memory.min(total))
    });
    Host {
        boot_id: boot_id(),
        cpu_milli: cpus * 1000,
        memory_mib: memory >> 20,
        operating_system: sysinfo::System::long_os_version().unwrap_or_default(),
    }
}

/// The kernel's id of this boot.
pub fn boot_id() -> String {
    fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}
