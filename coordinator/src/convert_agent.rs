//! Between the core's types and the agent protocol. Nothing else in the coordinator knows both.

use crate::api::convert_arrays;
use coordinator_core::model::{
    DeviceDescription, DeviceId, DeviceWiring, EndKind, Epoch, InvalidName, MemberEnd, MemberKey,
    MemberPhase, NodeDescription, NodeName, PoolName, Run, RunId, StopReason,
};
use coordinator_core::state::{MemberReport, State};
use platform_proto::agent as proto;
use std::collections::BTreeMap;
use std::time::Duration;

/// From the stop signal to SIGKILL. Kubernetes' own default is 30 s; batch schedulers give as much.
pub const STOP_GRACE: Duration = Duration::from_secs(30);

/// A member's key for the wire.
pub fn key_to_proto(key: MemberKey) -> proto::MemberKey {
    proto::MemberKey {
        run: key.run.0,
        attempt: key.attempt,
        member: key.member,
    }
}

/// A member's key off the wire.
pub fn key_from_proto(key: &proto::MemberKey) -> MemberKey {
    MemberKey {
        run: RunId(key.run),
        attempt: key.attempt,
        member: key.member,
    }
}

/// What an agent says its node has.
pub fn description(hello: &proto::Hello) -> Result<NodeDescription, InvalidName> {
    Ok(NodeDescription {
        name: NodeName::new(&hello.node)?,
        pool: PoolName::new(&hello.pool)?,
        boot_id: hello.boot_id.clone(),
        devices: hello
            .devices
            .iter()
            .map(|device| DeviceDescription {
                id: DeviceId(device.id.as_str().into()),
                index: device.index,
                model: device.model.clone(),
                memory_mib: device.memory_mib,
                simulated: device.simulated,
                wiring: DeviceWiring {
                    nvlink_island: device.nvlink_island,
                    pcie_switch: device.pcie_switch,
                    numa_node: device.numa_node,
                },
            })
            .collect(),
        cpu_milli: hello.cpu_milli,
        memory_mib: hello.memory_mib,
        runtimes: hello.runtimes.iter().cloned().collect(),
        agent_version: hello.agent_version.clone(),
        rack: (!hello.rack.is_empty()).then(|| hello.rack.clone()),
    })
}

/// What an agent says of one member; `None` when it says nothing that can be understood.
pub fn report(report: &proto::MemberReport) -> Option<MemberReport> {
    let key = key_from_proto(report.key.as_ref()?);
    let phase = match report.state() {
        proto::MemberState::Unspecified => return None,
        proto::MemberState::Assigned => MemberPhase::Assigned,
        proto::MemberState::Preparing => MemberPhase::Preparing,
        proto::MemberState::Running => MemberPhase::Running,
        proto::MemberState::Ended => MemberPhase::Ended,
    };
    let end = (phase == MemberPhase::Ended).then(|| MemberEnd {
        kind: match report.end() {
            proto::EndKind::Exited => EndKind::Exited {
                code: report.exit_code,
            },
            proto::EndKind::Signaled => EndKind::Signaled {
                signal: report.signal,
            },
            proto::EndKind::Stopped => EndKind::Stopped,
            proto::EndKind::TimeLimit => EndKind::TimeLimit,
            proto::EndKind::LaunchFailed => EndKind::LaunchFailed {
                node_fault: report.node_fault,
            },
            proto::EndKind::Fenced => EndKind::Fenced,
            proto::EndKind::OutOfMemory => EndKind::OutOfMemory,
            proto::EndKind::Lost | proto::EndKind::Unspecified => EndKind::Lost,
        },
        message: report.message.clone(),
    });
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    Some(MemberReport {
        key,
        epoch: Epoch(report.epoch),
        phase,
        detail: text(&report.detail),
        end,
        enforcement: text(&report.enforcement),
        checkpointed_us: (report.checkpointed_us > 0).then_some(report.checkpointed_us),
    })
}

/// The user's variables, and what a run's part in an array adds to them.
fn environment(state: &State, run: &Run) -> BTreeMap<String, String> {
    let mut variables = run.spec.environment.clone();
    let Some(element) = &run.element else {
        return variables;
    };
    let size = state.arrays().get(&element.array).map_or(0, |a| a.size);
    let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);
    set("PLATFORM_ARRAY_ID", element.array.to_string());
    set("PLATFORM_ARRAY_INDEX", element.index.to_string());
    set("PLATFORM_ARRAY_SIZE", size.to_string());
    if !element.parameters.is_empty() {
        let parameters = convert_arrays::parameters_to_json(&element.parameters);
        set("PLATFORM_SWEEP", serde_json::json!(parameters).to_string());
    }
    variables
}

/// What should run for this member, or `None` when it has ended or never was.
pub fn assignment(state: &State, key: MemberKey) -> Option<proto::Assignment> {
    let run = state.runs().get(&key.run)?;
    let attempt = run
        .last_attempt()
        .filter(|attempt| attempt.number == key.attempt)?;
    let member = attempt
        .members
        .get(key.member as usize)
        .filter(|member| member.phase != MemberPhase::Ended)?;
    let spec = &run.spec;
    let (intent, stop_reason) = match &attempt.stopping {
        None => (proto::Intent::Run, String::new()),
        Some(reason) => (
            proto::Intent::Stop,
            match (reason, &run.cancelled) {
                (StopReason::Cancelled, Some(cancelled)) => {
                    format!("cancelled by {}", cancelled.by)
                }
                (StopReason::Cancelled, None) => "cancelled".to_owned(),
                (StopReason::MemberFailed, _) => "another member of its gang ended".to_owned(),
                (StopReason::Idle, _) => match run
                    .cancelled
                    .as_ref()
                    .and_then(|cancelled| cancelled.reason.as_deref())
                {
                    Some(reason) => reason.to_owned(),
                    None => "its devices idled".to_owned(),
                },
                (StopReason::Evicted, _) => "its node is drained".to_owned(),
                (StopReason::Preempted { claimant }, _) => {
                    format!("preempted by {claimant} of higher priority")
                }
                (StopReason::Reclaimed { claimant }, _) => {
                    format!("the quota it borrowed went back to {claimant}")
                }
            },
        ),
    };
    Some(proto::Assignment {
        key: Some(key_to_proto(key)),
        epoch: attempt.epoch.0,
        intent: intent.into(),
        stop_reason,
        grace_ms: u64::try_from(STOP_GRACE.as_millis()).unwrap_or(u64::MAX),
        workload: Some(proto::Workload {
            name: spec.name.clone(),
            command: run.command(),
            environment: environment(state, run).into_iter().collect(),
            source_sha256: spec.source_sha256.clone().unwrap_or_default(),
            requirements_path: spec.requirements_path.clone().unwrap_or_default(),
            image: spec.image.clone().unwrap_or_default(),
            time_limit_ms: spec.time_limit_ms.unwrap_or(0),
            tags: spec.tags.clone().into_iter().collect(),
            model: spec.model.clone().unwrap_or_default(),
            tenant: run.tenant.to_string(),
            user: run.user.to_string(),
            display_id: run.id.to_string(),
            working_folder: spec.working_folder.clone().unwrap_or_default(),
            warn_before_ms: spec.warning.map_or(0, |warning| warning.before_ms),
            warn_signal: spec
                .warning
                .map_or_else(String::new, |warning| warning.signal.as_str().to_owned()),
        }),
        devices: member
            .devices
            .iter()
            .map(|grant| proto::GrantedDevice {
                id: grant.device.to_string(),
                index: grant.index,
                share_milli: grant.share_milli,
                memory_mib: grant.memory_mib,
                model: grant.model.clone(),
                simulated: grant.simulated,
            })
            .collect(),
        member_count: u32::try_from(attempt.members.len()).unwrap_or(u32::MAX),
        member_nodes: attempt
            .members
            .iter()
            .map(|member| member.node.to_string())
            .collect(),
        fence: true,
        cpu_milli: member.cpu_milli,
        memory_mib: member.memory_mib,
    })
}
