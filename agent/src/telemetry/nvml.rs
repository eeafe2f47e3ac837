//! Real devices, read through NVML on a thread of its own.
//!
//! A driver in trouble can hang a call for ever. Every question therefore has a deadline, and while one
//! is overdue no further one is asked: the node goes on without readings, and nothing else waits.

use super::model::shorten;
use super::wiring::{Nearness, wiring};
use super::{DeviceSample, Observed};
use agent_core::{Device, Wiring};
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{TemperatureSensor, TopologyLevel};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

/// Loading the library may wake a sleeping driver, which takes seconds for each device.
const OPEN_DEADLINE: Duration = Duration::from_secs(30);
/// A healthy driver answers all questions of a sample in some ten milliseconds.
const SAMPLE_DEADLINE: Duration = Duration::from_secs(5);

/// Where the library is: drivers install the first, development packages the second.
const LIBRARIES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// One reading of all devices.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reading {
    pub(super) devices: Vec<DeviceSample>,
    pub(super) processes: Vec<Observed>,
}

/// What was found when the library was opened.
#[derive(Debug, Clone, Default)]
struct Inventory {
    driver_version: String,
    devices: Vec<Device>,
}

#[derive(Debug)]
struct Line {
    questions: mpsc::Sender<mpsc::Sender<Reading>>,
    /// The answer to a question whose deadline has passed.
    overdue: Option<mpsc::Receiver<Reading>>,
}

/// The thread that speaks to the driver, and what it found first.
#[derive(Debug)]
pub(super) struct NvmlThread {
    inventory: Inventory,
    line: Mutex<Line>,
}

impl NvmlThread {
    /// Loads the library and lists the devices. `None` where there is no library or no device.
    pub(super) fn open() -> Option<Self> {
        let (questions, asked) = mpsc::channel::<mpsc::Sender<Reading>>();
        let (found, inventory) = mpsc::channel();
        let spawned = thread::Builder::new()
            .name("nvml".to_owned())
            .spawn(move || serve(&found, &asked));
        if let Err(error) = spawned {
            tracing::warn!(%error, "cannot start the thread that reads devices");
            return None;
        }
        match inventory.recv_timeout(OPEN_DEADLINE) {
            Ok(Ok(inventory)) if inventory.devices.is_empty() => None,
            Ok(Ok(inventory)) => Some(Self {
                inventory,
                line: Mutex::new(Line {
                    questions,
                    overdue: None,
                }),
            }),
            Ok(Err(error)) => {
                tracing::info!(%error, "no NVIDIA driver answers; this node has no devices");
                None
            }
            Err(_) => {
                tracing::warn!(
                    "the NVIDIA driver did not answer within {} s; this node reports no devices, check dmesg and nvidia-smi",
                    OPEN_DEADLINE.as_secs()
                );
                None
            }
        }
    }

    pub(super) fn devices(&self) -> &[Device] {
        &self.inventory.devices
    }

    pub(super) fn driver_version(&self) -> &str {
        &self.inventory.driver_version
    }

    /// One reading; empty while the driver hangs.
    pub(super) fn read(&self) -> Reading {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&mut line, SAMPLE_DEADLINE)
    }
}

fn ask(line: &mut Line, deadline: Duration) -> Reading {
    if let Some(overdue) = &line.overdue {
        match overdue.try_recv() {
            Err(mpsc::TryRecvError::Empty) => return Reading::default(),
            // A late answer is an old one: dropped, and a new question asked.
            Ok(_) | Err(mpsc::TryRecvError::Disconnected) => line.overdue = None,
        }
    }
    let (answer, reading) = mpsc::channel();
    if line.questions.send(answer).is_err() {
        return Reading::default();
    }
    match reading.recv_timeout(deadline) {
        Ok(reading) => reading,
        Err(_) => {
            tracing::warn!(
                "the NVIDIA driver did not answer within {} s; readings pause until it does",
                deadline.as_secs()
            );
            line.overdue = Some(reading);
            Reading::default()
        }
    }
}

/// The thread: the library lives and dies here.
fn serve(
    found: &mpsc::Sender<Result<Inventory, NvmlError>>,
    asked: &mpsc::Receiver<mpsc::Sender<Reading>>,
) {
    let nvml = match load() {
        Ok(nvml) => nvml,
        Err(error) => {
            // The opener is gone only when it gave up waiting.
            let _ = found.send(Err(error));
            return;
        }
    };
    let _ = found.send(inventory(&nvml));
    for answer in asked {
        let _ = answer.send(reading(&nvml));
    }
}

fn load() -> Result<Nvml, NvmlError> {
    let mut last = NvmlError::NotFound;
    for library in LIBRARIES {
        match Nvml::builder().lib_path(OsStr::new(library)).init() {
            Ok(nvml) => return Ok(nvml),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Grantable devices: boards, or the slices of a board that is cut.
fn grantable(nvml: &Nvml) -> Vec<nvml_wrapper::Device<'_>> {
    let mut devices = Vec::new();
    for index in 0..nvml.device_count().unwrap_or(0) {
        let board = match nvml.device_by_index(index) {
            Ok(board) => board,
            Err(error) => {
                tracing::warn!(index, %error, "a device cannot be opened and is left out");
                continue;
            }
        };
        if board.mig_mode().is_ok_and(|mode| mode.current == 1) {
            // Places of slices may be empty, so gaps are normal.
            let places = board.mig_device_count().unwrap_or(0);
            devices.extend((0..places).filter_map(|place| board.mig_device_by_index(place).ok()));
        } else {
            devices.push(board);
        }
    }
    devices
}

fn inventory(nvml: &Nvml) -> Result<Inventory, NvmlError> {
    let found = grantable(nvml);
    let mut devices = Vec::new();
    for ((device, wiring), index) in found.iter().zip(wired(nvml, &found)).zip(0..) {
        let memory_mib = device.memory_info()?.total >> 20;
        devices.push(Device {
            id: device.uuid()?,
            index,
            model: shorten(&device.name()?, memory_mib),
            memory_mib,
            simulated: false,
            wiring,
        });
    }
    Ok(Inventory {
        driver_version: nvml.sys_driver_version().unwrap_or_default(),
        devices,
    })
}

/// Links a device may have, `NVML_NVLINK_MAX_LINKS`.
const MOST_LINKS: u32 = 18;

/// What the driver says of the ways between devices. Slices and old drivers do not answer: unknown.
fn wired(nvml: &Nvml, devices: &[nvml_wrapper::Device<'_>]) -> Vec<Wiring> {
    let addresses: Vec<String> = devices
        .iter()
        .map(|device| device.pci_info().map(|at| at.bus_id).unwrap_or_default())
        .collect();
    let links: Vec<Vec<String>> = devices
        .iter()
        .map(|device| {
            (0..MOST_LINKS)
                .map(|link| device.link_wrapper_for(link))
                .filter(|link| link.is_active().unwrap_or(false))
                .filter_map(|link| Some(link.remote_pci_info().ok()?.bus_id))
                .collect()
        })
        .collect();
    wiring(&addresses, &links, |one, other| {
        // The call consumes the other device, so that is opened once more.
        let other = nvml.device_by_uuid(devices[other].uuid().ok()?).ok()?;
        let level = devices[one].topology_common_ancestor(other).ok()?;
        Some(match level {
            TopologyLevel::Internal | TopologyLevel::Single => Nearness::Switch,
            TopologyLevel::Multiple | TopologyLevel::HostBridge | TopologyLevel::Node => {
                Nearness::NumaNode
            }
            TopologyLevel::System => Nearness::Machine,
        })
    })
}

fn reading(nvml: &Nvml) -> Reading {
    let mut all = Reading::default();
    for device in grantable(nvml) {
        let Ok(id) = device.uuid() else { continue };
        // What a device does not support stays absent.
        all.devices.push(DeviceSample {
            device: id.clone(),
            utilization_percent: device.utilization_rates().ok().map(|both| both.gpu.into()),
            memory_used_mib: device.memory_info().ok().map(|memory| memory.used >> 20),
            power_watts: device
                .power_usage()
                .ok()
                .map(|milliwatts| f64::from(milliwatts) / 1_000.0),
            temperature_celsius: device
                .temperature(TemperatureSensor::Gpu)
                .ok()
                .map(f64::from),
        });
        let compute = device.running_compute_processes().unwrap_or_default();
        let graphics = device.running_graphics_processes().unwrap_or_default();
        all.processes.extend(once_each(&id, &compute, &graphics));
    }
    all
}

/// A process may draw and compute; its memory is the same memory then.
fn once_each(device: &str, compute: &[ProcessInfo], graphics: &[ProcessInfo]) -> Vec<Observed> {
    let mut memory_by_process = BTreeMap::<u32, u64>::new();
    for process in compute.iter().chain(graphics) {
        let bytes = match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => bytes,
            UsedGpuMemory::Unavailable => 0,
        };
        let memory = memory_by_process.entry(process.pid).or_default();
        *memory = (*memory).max(bytes);
    }
    memory_by_process
        .into_iter()
        .map(|(process, bytes)| Observed {
            device: device.to_owned(),
            process,
            memory_mib: bytes >> 20,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_hangs_costs_one_deadline_and_is_asked_again_once_it_answers() {
        let (questions, asked) = mpsc::channel::<mpsc::Sender<Reading>>();
        let mut line = Line {
            questions,
            overdue: None,
        };
        let deadline = Duration::from_millis(10);
        assert_eq!(ask(&mut line, deadline), Reading::default());
        assert_eq!(ask(&mut line, Duration::MAX), Reading::default());
        // Only one question was asked; its late answer is dropped and the next one counts.
        let late = asked.recv().unwrap();
        assert!(asked.try_recv().is_err());
        late.send(Reading::default()).unwrap();
        let fresh = Reading {
            devices: vec![DeviceSample::default()],
            processes: Vec::new(),
        };
        let answer = fresh.clone();
        let driver = thread::spawn(move || asked.recv().unwrap().send(answer).unwrap());
        assert_eq!(ask(&mut line, SAMPLE_DEADLINE), fresh);
        driver.join().unwrap();
    }

    #[test]
    fn a_process_that_draws_and_computes_is_seen_once() {
        let process = |pid, bytes| ProcessInfo {
            pid,
            used_gpu_memory: UsedGpuMemory::Used(bytes),
            gpu_instance_id: None,
            compute_instance_id: None,
        };
        let seen = once_each("GPU-1", &[process(7, 3 << 20)], &[process(7, 3 << 20)]);
        let expected = Observed {
            device: "GPU-1".to_owned(),
            process: 7,
            memory_mib: 3,
        };
        assert_eq!(seen, [expected]);
    }
}
