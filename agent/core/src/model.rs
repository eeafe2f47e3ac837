//! What the core and the shell speak about: assignments, observations and reports.
//!
//! Serialisable because an assignment is also the agent's durable record (`assignment.json`).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// One member of one attempt of a run: the name of everything an agent holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Number of the run.
    pub run: u64,
    /// From 1.
    pub attempt: u32,
    /// Rank within the gang, from 0.
    pub member: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "run-{}-{}-{}",
            self.run, self.attempt, self.member
        )
    }
}

impl FromStr for Key {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.strip_prefix("run-").ok_or(())?.split('-');
        let key = Key {
            run: parts.next().ok_or(())?.parse().map_err(|_| ())?,
            attempt: parts.next().ok_or(())?.parse().map_err(|_| ())?,
            member: parts.next().ok_or(())?.parse().map_err(|_| ())?,
        };
        // Only the canonical spelling names a member, or two folders could claim one key.
        if parts.next().is_some() || key.to_string() != text {
            return Err(());
        }
        Ok(key)
    }
}

/// Whether a member should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    /// It should run to its end.
    Run,
    /// It should stop.
    Stop,
}

/// What the coordinator wants of one member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// Which member.
    pub key: Key,
    /// Epoch of the allocation; an older one may change nothing.
    pub epoch: u64,
    /// Run or stop.
    pub intent: Intent,
    /// Why to stop, for the user.
    #[serde(default)]
    pub stop_reason: String,
    /// From the stop signal to SIGKILL.
    pub grace_ms: u64,
    /// What to run.
    pub workload: Workload,
    /// What it may use.
    #[serde(default)]
    pub devices: Vec<GrantedDevice>,
    /// Members of the gang.
    pub member_count: u32,
    /// Node of each member, in rank order.
    #[serde(default)]
    pub member_nodes: Vec<String>,
    /// Stop when the lease is lost.
    pub fence: bool,
    /// 0: no limit asked for.
    #[serde(default)]
    pub cpu_milli: u64,
    /// 0: no limit asked for.
    #[serde(default)]
    pub memory_mib: u64,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Workload {
    /// Name for people.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The user's own variables.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Address of the packed folder; empty: none.
    #[serde(default)]
    pub source_sha256: String,
    /// Requirements file within the package; empty: none.
    #[serde(default)]
    pub requirements_path: String,
    /// Container image; empty: the process runtime.
    #[serde(default)]
    pub image: String,
    /// 0: none.
    #[serde(default)]
    pub time_limit_ms: u64,
    /// Cost tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Name of the model; may be empty.
    #[serde(default)]
    pub model: String,
    /// Tenant that pays.
    #[serde(default)]
    pub tenant: String,
    /// User that submitted.
    #[serde(default)]
    pub user: String,
    /// `run-17`.
    #[serde(default)]
    pub display_id: String,
    /// Folder within the package where the command starts.
    #[serde(default)]
    pub working_folder: String,
    /// A signal before the time limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<Warning>,
}

/// A signal that a workload asked for, some time before its time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// How long before.
    pub before_ms: u64,
    /// Which.
    pub signal: WarningSignal,
}

/// The signals that a workload may be warned with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WarningSignal {
    /// SIGUSR1.
    #[serde(rename = "SIGUSR1")]
    User1,
    /// SIGUSR2.
    #[serde(rename = "SIGUSR2")]
    User2,
    /// SIGHUP.
    #[serde(rename = "SIGHUP")]
    Hangup,
    /// SIGINT.
    #[serde(rename = "SIGINT")]
    Interrupt,
}

impl WarningSignal {
    /// `SIGUSR1`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User1 => "SIGUSR1",
            Self::User2 => "SIGUSR2",
            Self::Hangup => "SIGHUP",
            Self::Interrupt => "SIGINT",
        }
    }

    /// Reads [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::User1, Self::User2, Self::Hangup, Self::Interrupt]
            .into_iter()
            .find(|signal| signal.as_str() == text)
    }
}

/// A share of a device granted to a member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GrantedDevice {
    /// UUID.
    pub id: String,
    /// Index on the node.
    pub index: u32,
    /// Thousandths of the device.
    pub share_milli: u32,
    /// Cap in force; 0: the whole device.
    pub memory_mib: u64,
    /// Short model name.
    pub model: String,
    /// There is no such hardware.
    pub simulated: bool,
}

/// A device of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// UUID, or a stable made-up one.
    pub id: String,
    /// Index on the node.
    pub index: u32,
    /// Short model name, "A100-80G".
    pub model: String,
    /// Memory.
    pub memory_mib: u64,
    /// There is no such hardware.
    pub simulated: bool,
    /// What it shares with others of the node.
    #[serde(default)]
    pub wiring: Wiring,
}

/// What a device shares with others of its node. Equal numbers share the thing; absent: not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wiring {
    /// Devices that reach each other over NVLink.
    pub nvlink_island: Option<u32>,
    /// Devices behind one PCIe switch.
    pub pcie_switch: Option<u32>,
    /// Devices at one NUMA node.
    pub numa_node: Option<u32>,
}

/// The signals a member may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// SIGTERM: please end.
    Terminate,
    /// SIGKILL: end.
    Kill,
    /// What the workload asked for: its time is nearly over.
    Warn(WarningSignal),
}

/// How a workload that had started ended, as its runtime saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Exit {
    /// By itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// By a signal.
    Signaled {
        /// Its number.
        signal: i32,
    },
    /// The kernel ended it for its memory limit.
    OutOfMemory {
        /// For the user.
        message: String,
    },
    /// Nobody saw how: the node rebooted, or what watched it died.
    Lost {
        /// For the user.
        message: String,
    },
}

/// What a runtime observes of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// Preparation goes on.
    Progress {
        /// "installing requirements".
        detail: String,
    },
    /// All that a start needs is there.
    Prepared,
    /// It could not be prepared or started.
    LaunchFailed {
        /// For the user.
        message: String,
        /// The node's fault, not the user's.
        node_fault: bool,
    },
    /// It lives.
    Running {
        /// CLOCK_BOOTTIME at the start: a time limit counts from here, also after adoption.
        started_boottime_us: u64,
        /// Wall clock, for people.
        at_us: u64,
    },
    /// It has ended.
    Ended {
        /// How.
        exit: Exit,
        /// Wall clock, for people.
        at_us: u64,
    },
}

/// State of a member as reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Taken, nothing done yet.
    Assigned,
    /// Fetching, unpacking, installing.
    Preparing,
    /// The workload lives.
    Running,
    /// It never will again.
    Ended,
}

/// Why a member ended, as reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum End {
    /// By itself.
    Exited {
        /// Exit code.
        code: i32,
    },
    /// By a signal nobody here sent.
    Signaled {
        /// Its number.
        signal: i32,
    },
    /// Because the coordinator said so.
    Stopped,
    /// Its time limit passed.
    TimeLimit,
    /// It never started.
    LaunchFailed {
        /// The node's fault, not the user's.
        node_fault: bool,
    },
    /// The lease was lost.
    Fenced,
    /// It vanished.
    Lost,
    /// The kernel ended it for its memory limit.
    OutOfMemory,
}

/// The latest word about one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberReport {
    /// Which.
    pub key: Key,
    /// Epoch of its allocation.
    pub epoch: u64,
    /// Where it stands.
    pub state: State,
    /// What the node does while preparing.
    pub detail: String,
    /// With [`State::Ended`].
    pub end: Option<End>,
    /// For the user.
    pub message: String,
    /// Wall clock, for people.
    pub at_us: u64,
    /// Wall clock when the workload last said that all its work is saved.
    pub checkpointed_us: Option<u64>,
}

/// The time, as the shell read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_BOOTTIME: deadlines and leases; it never jumps.
    pub boottime_us: u64,
    /// Wall clock: for people only, it may jump.
    pub wall_us: u64,
}

/// Why the agent stops a live member. Written down before the first signal, so that an agent that
/// starts in between still tells a stop from a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum StopCause {
    /// The coordinator said so.
    Desired {
        /// Its words.
        reason: String,
    },
    /// The time limit of the workload passed.
    TimeLimit {
        /// It.
        limit_ms: u64,
    },
    /// The lease was about to end.
    Lease,
    /// The coordinator does not know this member.
    Orphan,
}

impl StopCause {
    pub(crate) fn end(&self) -> End {
        match self {
            StopCause::Desired { .. } | StopCause::Orphan => End::Stopped,
            StopCause::TimeLimit { .. } => End::TimeLimit,
            StopCause::Lease => End::Fenced,
        }
    }

    pub(crate) fn message(&self) -> String {
        match self {
            StopCause::Desired { reason } => reason.clone(),
            StopCause::TimeLimit { limit_ms } => {
                format!("stopped after its time limit of {} s", limit_ms / 1000)
            }
            StopCause::Lease => {
                "stopped because the node lost its lease: it could not reach the coordinator".into()
            }
            StopCause::Orphan => {
                "stopped because the coordinator does not know this attempt".into()
            }
        }
    }
}
