//! What every runtime needs of its node: where blobs and the SDK lie, whom to tell, and the one
//! environment that a workload gets, the same in a process and in a container.

use super::{Attempt, LaunchFailure, RuntimeEvents};
use crate::blobs::BlobCache;
use crate::package;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Default port of a gang's rendezvous, spread by run so that two gangs on a node do not meet.
const FIRST_RENDEZVOUS_PORT: u64 = 29_500;
const RENDEZVOUS_PORTS: u64 = 1_000;

/// The node as runtimes see it; shared by all of them.
#[derive(Debug)]
pub struct NodeContext {
    /// Where events go.
    pub events: RuntimeEvents,
    /// Packages by content.
    pub blobs: Arc<BlobCache>,
    /// Folder to put in front of PYTHONPATH: it holds `engineersofai_platform`.
    pub sdk: PathBuf,
    /// This node's name.
    pub node: String,
}

impl NodeContext {
    /// Fetches the package of an attempt and unpacks it into its work folder; creates an empty one
    /// when there is no package. Safe to repeat after a crash in between.
    pub async fn unpack(&self, attempt: &Attempt) -> Result<(), LaunchFailure> {
        let work = attempt.work();
        let sha256 = attempt.assignment.workload.source_sha256.clone();
        if sha256.is_empty() {
            return std::fs::create_dir_all(&work)
                .map_err(|error| package::storage_failure(&work, &error));
        }
        let blob = self.blobs.fetch(&sha256).await?;
        tokio::task::spawn_blocking(move || package::unpack(blob.path(), &work))
            .await
            .map_err(|error| LaunchFailure::node(format!("unpacking stopped: {error}")))?
    }

    /// The variables of the contract. `spool` and `sdk` are the paths as the workload sees them. The
    /// user's own variables come first, so that no one can pass for another run by setting ours.
    pub fn environment(
        &self,
        attempt: &Attempt,
        spool: &Path,
        sdk: &Path,
    ) -> BTreeMap<String, String> {
        let assignment = &attempt.assignment;
        let workload = &assignment.workload;
        let mut variables = workload.environment.clone();
        let display_id = if workload.display_id.is_empty() {
            format!("run-{}", assignment.key.run)
        } else {
            workload.display_id.clone()
        };
        let visible: Vec<String> = assignment
            .devices
            .iter()
            .map(|device| {
                if device.simulated {
                    device.index.to_string()
                } else {
                    device.id.clone()
                }
            })
            .collect();
        let devices: Vec<serde_json::Value> = assignment
            .devices
            .iter()
            .map(|device| {
                serde_json::json!({
                    "id": device.id,
                    "index": device.index,
                    "model": device.model,
                    "share_milli": device.share_milli,
                    "memory_mib": device.memory_mib,
                    "simulated": device.simulated,
                })
            })
            .collect();
        // Alone on a node, loopback always works; a gang's first member is reached by its node's name.
        let master = match assignment.member_nodes.first() {
            Some(node) if assignment.member_count > 1 => node.as_str(),
            _ => "127.0.0.1",
        };
        let port = FIRST_RENDEZVOUS_PORT + assignment.key.run % RENDEZVOUS_PORTS;
        let mut set = |name: &str, value: String| {
            variables.insert(name.to_owned(), value);
        };
        set("PLATFORM_RUN_ID", display_id);
        set("PLATFORM_RUN_NAME", workload.name.clone());
        set("PLATFORM_ATTEMPT", assignment.key.attempt.to_string());
        set("PLATFORM_MEMBER", assignment.key.member.to_string());
        set("PLATFORM_SPOOL", spool.display().to_string());
        set("PLATFORM_SENDER", "agent".to_owned());
        set(
            "PLATFORM_TAGS",
            serde_json::json!(workload.tags).to_string(),
        );
        if !workload.model.is_empty() {
            set("PLATFORM_MODEL", workload.model.clone());
        }
        set("PLATFORM_TENANT", workload.tenant.clone());
        set("PLATFORM_USER", workload.user.clone());
        set("PLATFORM_NODE", self.node.clone());
        set(
            "PLATFORM_DEVICES",
            serde_json::Value::from(devices).to_string(),
        );
        let cap = assignment
            .devices
            .iter()
            .map(|device| device.memory_mib)
            .max();
        if let Some(cap) = cap.filter(|cap| *cap > 0) {
            set("PLATFORM_GPU_MEMORY_MIB", cap.to_string());
        }
        if let Some(warning) = workload.warning {
            set("PLATFORM_WARN_SIGNAL", warning.signal.as_str().to_owned());
            set(
                "PLATFORM_WARN_BEFORE_SECONDS",
                (warning.before_ms / 1000).to_string(),
            );
        }
        set("CUDA_VISIBLE_DEVICES", visible.join(","));
        set("RANK", assignment.key.member.to_string());
        set("WORLD_SIZE", assignment.member_count.max(1).to_string());
        set("MASTER_ADDR", master.to_owned());
        set("MASTER_PORT", port.to_string());
        set("PYTHONUNBUFFERED", "1".to_owned());
        let python_path = match variables.get("PYTHONPATH").filter(|path| !path.is_empty()) {
            Some(own) => format!("{}:{own}", sdk.display()),
            None => sdk.display().to_string(),
        };
        variables.insert("PYTHONPATH".to_owned(), python_path);
        variables
    }
}
