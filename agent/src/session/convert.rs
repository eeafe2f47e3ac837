//! Conversions between the protocol's messages and the core's types; they live here alone.

use agent_core::{
    Assignment, Desired, Device, End, GrantedDevice, Intent, Key, MemberReport, State, Warning,
    WarningSignal, Workload,
};
use platform_proto::agent as wire;

use crate::telemetry::Sample;

pub(crate) fn key_to_wire(key: Key) -> wire::MemberKey {
    wire::MemberKey {
        run: key.run,
        attempt: key.attempt,
        member: key.member,
    }
}

pub(crate) fn key(key: wire::MemberKey) -> Key {
    Key {
        run: key.run,
        attempt: key.attempt,
        member: key.member,
    }
}

/// What the coordinator wants; an assignment without a key or workload is left out and logged, because
/// one bad entry must not stop the others.
pub(crate) fn desired(desired: wire::Desired) -> Desired {
    Desired {
        full: desired.full,
        upsert: desired.upsert.into_iter().filter_map(assignment).collect(),
        retire: desired.retire.into_iter().map(key).collect(),
        session_epoch: desired.session_epoch,
    }
}

fn assignment(assignment: wire::Assignment) -> Option<Assignment> {
    let (Some(member), Some(workload)) = (assignment.key, assignment.workload.clone()) else {
        tracing::error!(?assignment, "an assignment without key or workload");
        return None;
    };
    let intent = match assignment.intent() {
        wire::Intent::Run => Intent::Run,
        wire::Intent::Stop => Intent::Stop,
        wire::Intent::Unspecified => {
            tracing::error!(key = %key(member), "an assignment without intent");
            return None;
        }
    };
    Some(Assignment {
        key: key(member),
        epoch: assignment.epoch,
        intent,
        stop_reason: assignment.stop_reason,
        grace_ms: assignment.grace_ms,
        workload: Workload {
            name: workload.name,
            command: workload.command,
            environment: workload.environment.into_iter().collect(),
            source_sha256: workload.source_sha256,
            requirements_path: workload.requirements_path,
            image: workload.image,
            time_limit_ms: workload.time_limit_ms,
            tags: workload.tags.into_iter().collect(),
            model: workload.model,
            tenant: workload.tenant,
            user: workload.user,
            display_id: workload.display_id,
            working_folder: workload.working_folder,
            // One that this agent does not know is not sent: a newer coordinator may offer more.
            warning: WarningSignal::parse(&workload.warn_signal)
                .filter(|_| workload.warn_before_ms > 0)
                .map(|signal| Warning {
                    before_ms: workload.warn_before_ms,
                    signal,
                }),
        },
        devices: assignment
            .devices
            .into_iter()
            .map(|device| GrantedDevice {
                id: device.id,
                index: device.index,
                share_milli: device.share_milli,
                memory_mib: device.memory_mib,
                model: device.model,
                simulated: device.simulated,
            })
            .collect(),
        member_count: assignment.member_count,
        member_nodes: assignment.member_nodes,
        fence: assignment.fence,
        cpu_milli: assignment.cpu_milli,
        memory_mib: assignment.memory_mib,
    })
}

pub(crate) fn report(report: MemberReport, enforcement: String) -> wire::MemberReport {
    let state = match report.state {
        State::Assigned => wire::MemberState::Assigned,
        State::Preparing => wire::MemberState::Preparing,
        State::Running => wire::MemberState::Running,
        State::Ended => wire::MemberState::Ended,
    };
    let mut message = wire::MemberReport {
        key: Some(key_to_wire(report.key)),
        epoch: report.epoch,
        state: state.into(),
        detail: report.detail,
        message: report.message,
        at_us: report.at_us,
        enforcement,
        checkpointed_us: report.checkpointed_us.unwrap_or(0),
        ..Default::default()
    };
    let Some(end) = report.end else {
        return message;
    };
    let kind = match end {
        End::Exited { code } => {
            message.exit_code = code;
            wire::EndKind::Exited
        }
        End::Signaled { signal } => {
            message.signal = signal;
            wire::EndKind::Signaled
        }
        End::Stopped => wire::EndKind::Stopped,
        End::TimeLimit => wire::EndKind::TimeLimit,
        End::LaunchFailed { node_fault } => {
            message.node_fault = node_fault;
            wire::EndKind::LaunchFailed
        }
        End::Fenced => wire::EndKind::Fenced,
        End::Lost => wire::EndKind::Lost,
        End::OutOfMemory => wire::EndKind::OutOfMemory,
    };
    message.set_end(kind);
    message
}

pub(crate) fn device(device: Device) -> wire::Device {
    wire::Device {
        id: device.id,
        index: device.index,
        model: device.model,
        memory_mib: device.memory_mib,
        simulated: device.simulated,
        nvlink_island: device.wiring.nvlink_island,
        pcie_switch: device.wiring.pcie_switch,
        numa_node: device.wiring.numa_node,
    }
}

pub(crate) fn telemetry(sample: Sample, at_us: u64) -> wire::Telemetry {
    wire::Telemetry {
        at_us,
        devices: sample
            .devices
            .into_iter()
            .map(|device| wire::DeviceSample {
                device: device.device,
                utilization_percent: device.utilization_percent,
                memory_used_mib: device.memory_used_mib,
                power_watts: device.power_watts,
                temperature_celsius: device.temperature_celsius,
            })
            .collect(),
        cpu_percent: sample.cpu_percent,
        memory_used_mib: sample.memory_used_mib,
        foreign: sample
            .foreign
            .into_iter()
            .map(|process| wire::ForeignProcess {
                device: process.device,
                process: process.process,
                operating_system_user: process.operating_system_user,
                command: process.command,
                memory_mib: process.memory_mib,
            })
            .collect(),
    }
}
