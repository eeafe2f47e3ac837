//! What is asked of the engine for one attempt. Pure but for a look at the folders.
//!
//! The container gets no more than the process would: the agent's own user, no capabilities, no new
//! privileges, a bound on processes, its own folders and the granted devices.

use super::engine::Ability;
use crate::blobs::hex;
use crate::runtime::{Attempt, LaunchFailure, NodeContext};
use agent_core::{Assignment, Key};
use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigLogConfig, Mount, MountType,
    RestartPolicy, RestartPolicyNameEnum,
};
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

/// Tells this agent's containers from another's.
pub(super) const LABEL_AGENT: &str = "platform.agent";
/// Length of the log at creation: where the container's output begins.
pub(super) const LABEL_LOG_BASE: &str = "platform.log_base";

const WORK: &str = "/platform/work";
const SPOOL: &str = "/platform/spool";
const SDK: &str = "/platform/sdk";

/// Far above what training needs with all its loaders and threads, far below what a fork bomb needs to
/// take the node.
const LIMIT_PROCESSES: i64 = 16_384;
/// The engine accepts no less.
const LEAST_MEMORY_MIB: u64 = 6;

/// Where containers belong: to which agent on which node.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// From the agent's folder, so that two agents at one engine have containers of their own.
    pub(super) agent: String,
    node: String,
}

impl Place {
    pub(super) fn new(agent_folder: &Path, node: &str) -> Self {
        let folder = agent_folder
            .canonicalize()
            .unwrap_or_else(|_| agent_folder.to_owned());
        let digest = Sha256::digest(folder.as_os_str().as_encoded_bytes());
        Self {
            agent: hex(&digest[..4]),
            node: node.to_owned(),
        }
    }

    /// The name of a member's container.
    pub(super) fn name(&self, key: Key) -> String {
        format!("platform-{key}-{}", self.agent)
    }

    fn labels(&self, assignment: &Assignment, log_base: u64) -> HashMap<String, String> {
        let key = assignment.key;
        [
            (LABEL_AGENT, self.agent.clone()),
            (LABEL_LOG_BASE, log_base.to_string()),
            ("platform.run", format!("run-{}", key.run)),
            ("platform.attempt", key.attempt.to_string()),
            ("platform.member", key.member.to_string()),
            ("platform.node", self.node.clone()),
            ("platform.epoch", assignment.epoch.to_string()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }
}

/// Where the command starts, within the package; refused when it leaves it or is not there.
pub(super) fn working_folder(attempt: &Attempt) -> Result<PathBuf, LaunchFailure> {
    let asked = Path::new(&attempt.assignment.workload.working_folder);
    let stays = asked
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !stays {
        return Err(LaunchFailure::user(format!(
            "working folder {asked:?} leaves the package; name a folder within it"
        )));
    }
    if !attempt.work().join(asked).is_dir() {
        return Err(LaunchFailure::user(format!(
            "working folder {asked:?} is not in the package"
        )));
    }
    Ok(Path::new(WORK).join(asked))
}

/// The whole request.
pub(super) fn container(
    attempt: &Attempt,
    context: &NodeContext,
    place: &Place,
    ability: &Ability,
    log_base: u64,
) -> Result<ContainerCreateBody, LaunchFailure> {
    let assignment = &attempt.assignment;
    let workload = &assignment.workload;
    let working_folder = working_folder(attempt)?;
    let mut environment = context.environment(attempt, Path::new(SPOOL), Path::new(SDK));
    let real = real_devices(assignment);
    // Images made for GPUs ask for all of them in this variable, and an engine whose default runtime is
    // NVIDIA's obeys. Ours is the last word.
    let visible = if real.is_empty() {
        "void".to_owned()
    } else {
        real.iter()
            .map(|(id, _)| id.as_str())
            .collect::<Vec<_>>()
            .join(",")
    };
    environment.insert("NVIDIA_VISIBLE_DEVICES".to_owned(), visible);
    let user = rustix::process::geteuid();
    if !user.is_root() {
        // The image knows nothing of this user, and its home would be "/".
        environment
            .entry("HOME".to_owned())
            .or_insert_with(|| "/tmp".to_owned());
    }
    Ok(ContainerCreateBody {
        image: Some(workload.image.clone()),
        // The command is the whole truth: an entry point of the image would change its meaning.
        entrypoint: (!workload.command.is_empty()).then(|| workload.command.clone()),
        env: Some(
            environment
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        ),
        working_dir: Some(working_folder.display().to_string()),
        // Files it writes into the bound folders belong to the agent then, which must remove them.
        user: Some(format!(
            "{}:{}",
            user.as_raw(),
            rustix::process::getegid().as_raw()
        )),
        labels: Some(place.labels(assignment, log_base)),
        host_config: Some(host_config(attempt, context, ability)),
        ..ContainerCreateBody::default()
    })
}

fn host_config(attempt: &Attempt, context: &NodeContext, ability: &Ability) -> HostConfig {
    let assignment = &attempt.assignment;
    let memory_bytes = memory_bytes(assignment.memory_mib);
    HostConfig {
        mounts: Some(vec![
            bind(&attempt.work(), WORK, false),
            bind(&attempt.spool(), SPOOL, false),
            bind(&context.sdk, SDK, true),
        ]),
        device_requests: device_request(&real_devices(assignment), &ability.cdi_devices)
            .map(|request| vec![request]),
        nano_cpus: nano_cpus(assignment.cpu_milli, ability.cpu_milli),
        memory: memory_bytes,
        // The same amount: no swap beside it.
        memory_swap: memory_bytes,
        // Loaders of training pass tensors through it, and the engine's 64 MiB are never enough. It
        // counts against the memory limit.
        shm_size: memory_bytes.or_else(|| {
            i64::try_from(ability.memory_mib / 2)
                .ok()
                .filter(|mib| *mib > 0)
                .map(|mib| mib << 20)
        }),
        pids_limit: Some(LIMIT_PROCESSES),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        // Without one the workload would be process 1, which ignores SIGTERM and reaps no orphans.
        init: Some(true),
        network_mode: Some(network(assignment, ability).to_owned()),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        // Never rotated: the log is copied by counting bytes from its start.
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: None,
        }),
        ..HostConfig::default()
    }
}

fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(
            std::path::absolute(source)
                .unwrap_or_else(|_| source.to_owned())
                .display()
                .to_string(),
        ),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

/// A gang's members speak on ports that no one published; they share the node's network.
fn network(assignment: &Assignment, ability: &Ability) -> &'static str {
    if assignment.member_count > 1 || !ability.bridge {
        "host"
    } else {
        "bridge"
    }
}

fn memory_bytes(memory_mib: u64) -> Option<i64> {
    let mib = i64::try_from(memory_mib.max(LEAST_MEMORY_MIB)).ok()?;
    (memory_mib > 0).then(|| mib.saturating_mul(1 << 20))
}

/// The engine refuses more processors than the machine has.
fn nano_cpus(cpu_milli: u64, machine_milli: u64) -> Option<i64> {
    let milli = match machine_milli {
        0 => cpu_milli,
        machine => cpu_milli.min(machine),
    };
    i64::try_from(milli.saturating_mul(1_000_000))
        .ok()
        .filter(|nano| *nano > 0)
}

/// Id and index of the granted devices that exist.
fn real_devices(assignment: &Assignment) -> Vec<(String, u32)> {
    assignment
        .devices
        .iter()
        .filter(|device| !device.simulated)
        .map(|device| (device.id.clone(), device.index))
        .collect()
}

/// By CDI where the engine has found every device under a name of ours, else by NVIDIA's runtime hook.
fn device_request(
    devices: &[(String, u32)],
    cdi_devices: &BTreeSet<String>,
) -> Option<DeviceRequest> {
    if devices.is_empty() {
        return None;
    }
    // Only by UUID: the order of indexes is another one for each reader.
    let by_cdi: Vec<String> = devices
        .iter()
        .map(|(id, _)| format!("nvidia.com/gpu={id}"))
        .collect();
    if by_cdi.iter().all(|name| cdi_devices.contains(name)) {
        return Some(DeviceRequest {
            driver: Some("cdi".to_owned()),
            device_ids: Some(by_cdi),
            ..DeviceRequest::default()
        });
    }
    Some(DeviceRequest {
        device_ids: Some(devices.iter().map(|(id, _)| id.clone()).collect()),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    })
}

/// What is enforced for this assignment, and what that does not cover.
pub(super) fn enforcement(assignment: &Assignment, ability: &Ability) -> String {
    let mut words = vec!["container".to_owned()];
    if real_devices(assignment).is_empty() {
        words.push(if assignment.devices.is_empty() {
            "no device is visible".to_owned()
        } else {
            "simulated devices, nothing to enforce".to_owned()
        });
    } else {
        words.push("only the granted devices are visible".to_owned());
        if assignment
            .devices
            .iter()
            .any(|device| device.memory_mib > 0)
        {
            words.push(
                "the device memory cap is passed on and kept by the SDK, a program that ignores it is not held"
                    .to_owned(),
            );
        }
    }
    words.push(match assignment.memory_mib {
        0 => "no memory limit".to_owned(),
        limit => format!("memory limit {limit} MiB by cgroup"),
    });
    words.push(match assignment.cpu_milli {
        0 => "no cpu limit".to_owned(),
        limit => format!("cpu limit {}.{:03} by cgroup", limit / 1_000, limit % 1_000),
    });
    if network(assignment, ability) == "host" {
        words.push("the node's network is shared".to_owned());
    }
    words.push("disk use is not limited".to_owned());
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_asked_for_by_cdi_only_where_the_engine_knows_each_uuid() {
        let devices = [("GPU-a".to_owned(), 0), ("GPU-b".to_owned(), 1)];
        let both: BTreeSet<String> = ["nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b"]
            .map(str::to_owned)
            .into();
        let request = device_request(&devices, &both).unwrap();
        assert_eq!(request.driver.as_deref(), Some("cdi"));
        let one = BTreeSet::from(["nvidia.com/gpu=GPU-a".to_owned()]);
        for known in [one, BTreeSet::new()] {
            let request = device_request(&devices, &known).unwrap();
            assert_eq!(request.driver, None);
            let ids = request.device_ids.unwrap();
            assert_eq!(ids, ["GPU-a", "GPU-b"]);
            assert_eq!(request.capabilities.unwrap(), [["gpu"]]);
        }
        assert_eq!(device_request(&[], &both), None);
    }

    #[test]
    fn limits_are_left_out_when_not_asked_for_and_never_above_the_machine() {
        assert_eq!(memory_bytes(0), None);
        assert_eq!(memory_bytes(1), Some(6 << 20));
        assert_eq!(memory_bytes(64), Some(64 << 20));
        assert_eq!(nano_cpus(0, 2_000), None);
        assert_eq!(nano_cpus(500, 2_000), Some(500_000_000));
        assert_eq!(nano_cpus(8_000, 2_000), Some(2_000_000_000));
        assert_eq!(nano_cpus(8_000, 0), Some(8_000_000_000));
    }

    #[test]
    fn two_agents_name_the_containers_of_the_same_run_differently() {
        let key = Key {
            run: 17,
            attempt: 1,
            member: 0,
        };
        let one = Place::new(Path::new("/nowhere/one"), "rig").name(key);
        let other = Place::new(Path::new("/nowhere/other"), "rig").name(key);
        assert!(one.starts_with("platform-run-17-1-0-"), "{one}");
        assert_ne!(one, other);
    }
}
