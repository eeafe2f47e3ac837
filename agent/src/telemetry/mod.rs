//! What this node has and how busy it is: devices (NVML or simulated), host, foreign processes.
//!
//! Calls block (NVML does), so the supervisor makes them from a blocking thread, a few times a minute.

use agent_core::{Device, Key};

/// Where the devices of this node come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeviceSource {
    /// NVML where its library loads, else none.
    #[default]
    Auto,
    /// No devices, even where there are some.
    None,
    /// Made-up ones, marked so everywhere.
    Simulated(Vec<SimulatedDevices>),
}

/// `8xA100-80G`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedDevices {
    /// How many.
    pub count: u32,
    /// Short model name.
    pub model: String,
    /// Memory of each.
    pub memory_mib: u64,
}

/// One reading of one device. An unsupported reading is absent, never zero.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeviceSample {
    /// Device id.
    pub device: String,
    /// Of compute.
    pub utilization_percent: Option<f64>,
    /// In use.
    pub memory_used_mib: Option<u64>,
    /// Drawn.
    pub power_watts: Option<f64>,
    /// Core.
    pub temperature_celsius: Option<f64>,
}

/// A process on one of our devices that belongs to no attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignProcess {
    /// Device id.
    pub device: String,
    /// Process id.
    pub process: u32,
    /// Its user's name.
    pub operating_system_user: String,
    /// Its command, short.
    pub command: String,
    /// On the device.
    pub memory_mib: u64,
}

/// One reading of the node.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sample {
    /// Each device.
    pub devices: Vec<DeviceSample>,
    /// Of all cores.
    pub cpu_percent: f64,
    /// In use.
    pub memory_used_mib: u64,
    /// Off-platform use.
    pub foreign: Vec<ForeignProcess>,
}

/// Reads the node.
pub trait Telemetry: Send + Sync + 'static {
    /// The node's devices; the same list for the life of the agent.
    fn devices(&self) -> Vec<Device>;

    /// Of the driver; empty without one.
    fn driver_version(&self) -> String;

    /// One reading. `ours` are the root processes of live members: they, their descendants and their
    /// process groups are ours, every other process on a device is foreign.
    fn sample(&self, ours: &[(Key, u32)]) -> Sample;
}
