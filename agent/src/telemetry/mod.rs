//! What this node has and how busy it is: devices (NVML or simulated), host, foreign processes.
//!
//! Calls block (NVML does), so the supervisor makes them from a blocking thread, a few times a minute.

mod host;
mod model;
mod nvml;
mod ownership;
mod readings;
mod simulated;
mod wiring;

pub use model::shorten as shorten_model;
pub use simulated::SimulatedDevicesError;

use agent_core::{Device, Key};
use host::Host;
use nvml::NvmlThread;
use ownership::{ProcFolder, Processes, Users, is_ours};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A driver's own numbers are averages over up to a second; dashboards draw a point in ten.
const READ_DRIVER_EVERY: Duration = Duration::from_secs(10);
const READ_FILE_EVERY: Duration = Duration::from_millis(500);

/// Where the devices of this node come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeviceSource {
    /// NVML where its library loads, else none.
    #[default]
    Auto,
    /// No devices, even where there are some.
    None,
    /// Made-up ones, marked so everywhere.
    Simulated {
        /// Like ones together.
        groups: Vec<SimulatedDevices>,
        /// A file that says how much they are used, read anew for each sample; absent: nothing is said.
        readings: Option<PathBuf>,
    },
}

/// `8xA100-80G`, `8xA100-80G/4`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedDevices {
    /// How many.
    pub count: u32,
    /// Short model name.
    pub model: String,
    /// Memory of each.
    pub memory_mib: u64,
    /// Devices in each NVLink island; absent: how they are wired is not known.
    pub island: Option<u32>,
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

    /// How often it is worth reading.
    fn sample_every(&self) -> Duration;

    /// One reading. `ours` are the root processes of live members: they, their descendants and their
    /// process groups are ours, every other process on a device is foreign.
    fn sample(&self, ours: &[(Key, u32)]) -> Sample;
}

/// Opens the node's devices. Blocks for as long as the driver needs, at most half a minute.
pub fn open(source: &DeviceSource, node: &str) -> Arc<dyn Telemetry> {
    let devices = match source {
        DeviceSource::Auto => NvmlThread::open().map_or(Devices::None, Devices::Real),
        DeviceSource::None => Devices::None,
        DeviceSource::Simulated { groups, readings } => Devices::Simulated {
            devices: simulated::devices(node, groups),
            readings: readings.clone(),
        },
    };
    Arc::new(NodeTelemetry {
        devices,
        host: Host::open(),
    })
}

#[derive(Debug)]
enum Devices {
    None,
    Simulated {
        devices: Vec<Device>,
        readings: Option<PathBuf>,
    },
    Real(NvmlThread),
}

/// The telemetry of this node.
#[derive(Debug)]
struct NodeTelemetry {
    devices: Devices,
    host: Host,
}

impl Telemetry for NodeTelemetry {
    fn devices(&self) -> Vec<Device> {
        match &self.devices {
            Devices::None => Vec::new(),
            Devices::Simulated { devices, .. } => devices.clone(),
            Devices::Real(nvml) => nvml.devices().to_vec(),
        }
    }

    fn driver_version(&self) -> String {
        match &self.devices {
            Devices::Real(nvml) => nvml.driver_version().to_owned(),
            Devices::None | Devices::Simulated { .. } => String::new(),
        }
    }

    fn sample_every(&self) -> Duration {
        match &self.devices {
            // Who writes the file watches what comes of it.
            Devices::Simulated {
                readings: Some(_), ..
            } => READ_FILE_EVERY,
            _ => READ_DRIVER_EVERY,
        }
    }

    fn sample(&self, ours: &[(Key, u32)]) -> Sample {
        let (cpu_percent, memory_used_mib) = self.host.read();
        let (devices, foreign) = match &self.devices {
            Devices::None => (Vec::new(), Vec::new()),
            Devices::Simulated { devices, readings } => {
                let told = readings.as_deref().map(readings::read).unwrap_or_default();
                let sample = |device: &Device| readings::sample(device, &told);
                (devices.iter().map(sample).collect(), Vec::new())
            }
            Devices::Real(nvml) => {
                let reading = nvml.read();
                let roots = ours.iter().map(|(_, root)| *root).collect();
                let foreign = foreign(reading.processes, &roots, &ProcFolder, &Users::read());
                (reading.devices, foreign)
            }
        };
        Sample {
            devices,
            cpu_percent,
            memory_used_mib,
            foreign,
        }
    }
}

/// A process that a device shows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Observed {
    device: String,
    process: u32,
    memory_mib: u64,
}

/// Those of the observed processes that belong to none of our members.
fn foreign(
    observed: Vec<Observed>,
    roots: &BTreeSet<u32>,
    processes: &dyn Processes,
    users: &Users,
) -> Vec<ForeignProcess> {
    observed
        .into_iter()
        .filter(|seen| !is_ours(seen.process, roots, processes))
        .filter_map(|seen| {
            let process = processes.process(seen.process)?;
            Some(ForeignProcess {
                device: seen.device,
                process: seen.process,
                operating_system_user: users.name(process.user_id),
                command: process.command,
                memory_mib: seen.memory_mib,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_not_ours_is_told_with_its_user_and_command() {
        let observed = |process| Observed {
            device: "GPU-1".to_owned(),
            process,
            memory_mib: 512,
        };
        let own = std::process::id();
        let gone = u32::MAX;
        let users = Users::default();
        let seen = foreign(
            vec![observed(own), observed(gone)],
            &BTreeSet::new(),
            &ProcFolder,
            &users,
        );
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].process, seen[0].memory_mib), (own, 512));
        assert!(!seen[0].command.is_empty() && seen[0].operating_system_user.starts_with("uid "));
        let ours = BTreeSet::from([own]);
        assert!(foreign(vec![observed(own)], &ours, &ProcFolder, &users).is_empty());
    }

    #[test]
    fn simulated_devices_have_a_sample_without_a_single_made_up_reading() {
        let source = DeviceSource::Simulated {
            groups: vec!["2xT4".parse().unwrap()],
            readings: None,
        };
        let telemetry = open(&source, "rig");
        assert_eq!(telemetry.devices().len(), 2);
        let sample = telemetry.sample(&[]);
        assert_eq!(sample.devices.len(), 2);
        assert_eq!(sample.devices[0].device, "SIM-rig-0");
        assert_eq!(sample.devices[0].utilization_percent, None);
        assert_eq!(sample.devices[0].memory_used_mib, None);
        assert!(sample.memory_used_mib > 0);
        assert_eq!(telemetry.driver_version(), "");
    }
}
