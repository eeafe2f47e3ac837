//! What a user asks to run, before and after defaults.

use super::{Dependency, PoolName, TenantName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The specification of a run. As submitted, absent fields await a default; as stored in a
/// [`super::Run`] every default has been filled in by [`crate::policy::resolve`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkloadSpec {
    /// For people; not unique.
    pub name: String,
    /// Program and arguments, at least one.
    pub command: Vec<String>,
    /// Content address (SHA-256) of the packed working folder.
    pub source_sha256: Option<String>,
    /// Requirements file within the package.
    pub requirements_path: Option<String>,
    /// Folder within the package where the command starts.
    pub working_folder: Option<String>,
    /// Environment of the workload.
    pub environment: BTreeMap<String, String>,
    /// Container image; absent: the process runtime.
    pub image: Option<String>,
    /// Whole devices for each node; exclusive with `gpu_share_milli`.
    pub gpus: Option<u32>,
    /// Thousandths of one device, 1 to 999.
    pub gpu_share_milli: Option<u32>,
    /// Memory cap on each device, MiB.
    pub gpu_memory_mib: Option<u64>,
    /// Device model.
    pub gpu_model: Option<String>,
    /// Members of the gang, at least 1.
    pub nodes: u32,
    /// Reserved CPU for each node, in thousandths.
    pub cpu_milli: Option<u64>,
    /// Reserved memory for each node, MiB.
    pub memory_mib: Option<u64>,
    /// Pool.
    pub pool: Option<PoolName>,
    /// Cost tags.
    pub tags: BTreeMap<String, String>,
    /// Model this run is for.
    pub model: Option<String>,
    /// Higher first, -100 to 100.
    pub priority: i32,
    /// The class of its priority in the policy; as submitted it may be given instead of a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class: Option<String>,
    /// Whether it stops no other run of its tenant, as its class said when it was admitted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_preempts: bool,
    /// Longest time to run, from start.
    pub time_limit_ms: Option<u64>,
    /// How often a failure of the user's own making is tried again.
    pub retries: u32,
    /// Longest time from its submission until it first starts; one that has not started by then ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_deadline_ms: Option<u64>,
    /// A signal to its processes before its time limit ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<Warning>,
    /// Tenant to charge; absent: the submitter's.
    pub tenant: Option<TenantName>,
    /// Whether it may be stopped and queued again for another run. One that may not never borrows.
    #[serde(default = "WorkloadSpec::default_preemptible")]
    pub preemptible: bool,
    /// What must have ended before it may start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Dependency>,
    /// Whether the members of its gang go to as many racks as there are, instead of to as few.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spread: bool,
}

/// A signal that a workload is sent some time before its time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// How long before the limit, in milliseconds.
    pub before_ms: u64,
    /// Which.
    pub signal: WarningSignal,
}

/// The signals that a workload may ask to be warned with: those that end a program which does not
/// handle them, and say nothing of the platform's own stop.
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
    /// Every one.
    pub const ALL: [Self; 4] = [Self::User1, Self::User2, Self::Hangup, Self::Interrupt];

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
        Self::ALL.into_iter().find(|signal| signal.as_str() == text)
    }
}

/// What one member needs of one node, read off a resolved spec.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberDemand {
    /// Devices.
    pub devices: u32,
    /// Thousandths of each device.
    pub share_milli: u32,
    /// Memory on each device; absent: in proportion to the share.
    pub gpu_memory_mib: Option<u64>,
    /// The most memory that the policy lets its model have of each device.
    pub gpu_memory_ceiling_mib: Option<u64>,
    /// Device model, any when absent.
    pub gpu_model: Option<String>,
    /// The one model of those that it accepts, by its full name, to which a try is narrowed where
    /// quota is stated by model.
    pub only_model: Option<String>,
    /// Reserved CPU.
    pub cpu_milli: u64,
    /// Reserved memory.
    pub memory_mib: u64,
    /// Runtime the node must offer.
    pub runtime: &'static str,
}

/// Whether `asked` names this device model: itself, or as `A100` its family, whatever their memory.
pub fn is_of_model(device_model: &str, asked: &str) -> bool {
    device_model
        .get(..asked.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(asked))
        && matches!(device_model.as_bytes().get(asked.len()), None | Some(b'-'))
}

impl MemberDemand {
    /// Memory this demand takes of a device with `device_memory_mib`: what was asked, else the
    /// share's proportion, and never more than the policy lets its model have.
    pub fn memory_on(&self, device_memory_mib: u64) -> u64 {
        let proportion = u128::from(device_memory_mib) * u128::from(self.share_milli)
            / u128::from(super::WHOLE_DEVICE_MILLI);
        self.gpu_memory_mib
            .unwrap_or_else(|| u64::try_from(proportion).unwrap_or(u64::MAX))
            .min(self.gpu_memory_ceiling_mib.unwrap_or(u64::MAX))
    }

    /// Whether a device of this model is what was asked for.
    pub fn accepts(&self, device_model: &str) -> bool {
        self.gpu_model
            .as_deref()
            .is_none_or(|asked| is_of_model(device_model, asked))
            && self
                .only_model
                .as_deref()
                .is_none_or(|only| only == device_model)
    }

    /// The same on devices of one model alone.
    pub fn narrowed(&self, model: &str) -> Self {
        Self {
            only_model: Some(model.to_owned()),
            ..self.clone()
        }
    }

    /// Thousandths of devices this member holds when placed.
    pub fn gpu_milli(&self) -> u64 {
        u64::from(self.devices) * u64::from(self.share_milli)
    }
}

impl WorkloadSpec {
    fn default_preemptible() -> bool {
        true
    }

    /// The demand of each member, on a resolved spec, without what the policy has to say: where
    /// devices are given out, ask [`super::Policy::demand`].
    pub fn demand(&self) -> MemberDemand {
        let (devices, share_milli) = match self.gpu_share_milli {
            Some(share) => (1, share),
            None => (self.gpus.unwrap_or(0), super::WHOLE_DEVICE_MILLI),
        };
        MemberDemand {
            devices,
            share_milli,
            gpu_memory_mib: self.gpu_memory_mib,
            gpu_memory_ceiling_mib: None,
            gpu_model: self.gpu_model.clone(),
            only_model: None,
            cpu_milli: self.cpu_milli.unwrap_or(0),
            memory_mib: self.memory_mib.unwrap_or(0),
            runtime: if self.image.is_some() {
                "docker"
            } else {
                "process"
            },
        }
    }

    /// Thousandths of devices the whole gang holds when placed.
    pub fn gpu_milli(&self) -> u64 {
        self.demand()
            .gpu_milli()
            .saturating_mul(u64::from(self.nodes))
    }
}
