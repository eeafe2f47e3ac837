//! Memory and CPU limits by control groups, where this machine lets us make any.
//!
//! Only a workload that asked for a limit gets a group: a group costs several system calls, and a run
//! that asked for nothing must not pay for it.

use crate::runtime::LaunchFailure;
use agent_core::{Assignment, Key};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

const ROOT: &str = "/sys/fs/cgroup";
const NAME: &str = "engineersofai-platform";
/// Length of a CPU period; the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// Which hierarchy is there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hierarchy {
    /// One tree for all.
    Unified(PathBuf),
    /// A tree for each controller; either may be missing.
    Separate {
        memory: Option<PathBuf>,
        cpu: Option<PathBuf>,
    },
    /// None we may write.
    None,
}

/// Makes and removes the groups of attempts.
#[derive(Debug, Clone)]
pub(super) struct ControlGroups {
    hierarchy: Hierarchy,
    /// Two agents on one machine (tests) must not share groups.
    prefix: String,
}

impl ControlGroups {
    /// Finds out by trying: permissions alone do not tell.
    pub(super) fn detect() -> Self {
        let root = Path::new(ROOT);
        let hierarchy = if root.join("cgroup.controllers").exists() {
            unified(root).map_or(Hierarchy::None, Hierarchy::Unified)
        } else {
            let usable = |controller: &str, limit: &str| {
                let folder = root.join(controller).join(NAME);
                fs::create_dir_all(&folder).ok()?;
                folder.join(limit).exists().then_some(folder)
            };
            match (
                usable("memory", "memory.limit_in_bytes"),
                usable("cpu", "cpu.cfs_quota_us"),
            ) {
                (None, None) => Hierarchy::None,
                (memory, cpu) => Hierarchy::Separate { memory, cpu },
            }
        };
        Self {
            hierarchy,
            prefix: process::id().to_string(),
        }
    }

    fn folders(&self, key: Key) -> Vec<PathBuf> {
        let roots: Vec<&PathBuf> = match &self.hierarchy {
            Hierarchy::Unified(root) => vec![root],
            Hierarchy::Separate { memory, cpu } => memory.iter().chain(cpu).collect(),
            Hierarchy::None => Vec::new(),
        };
        // A predecessor of this agent may have made the group: any prefix counts.
        let ending = format!(".{key}");
        roots
            .into_iter()
            .filter_map(|root| fs::read_dir(root).ok())
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(&ending))
            .map(|entry| entry.path())
            .collect()
    }

    /// Makes the groups for what was asked for; the files a process writes itself into.
    pub(super) fn create(&self, assignment: &Assignment) -> Result<Vec<PathBuf>, LaunchFailure> {
        let name = format!("{}.{}", self.prefix, assignment.key);
        let memory_bytes = assignment.memory_mib << 20;
        let quota_us = assignment.cpu_milli * PERIOD_US / 1000;
        let mut files = Vec::new();
        let mut limit = |root: &Path, settings: &[(&str, String)]| {
            let folder = root.join(&name);
            let outcome = fs::create_dir_all(&folder).and_then(|()| {
                settings
                    .iter()
                    .try_for_each(|(file, value)| fs::write(folder.join(file), value))
            });
            files.push(folder.join("cgroup.procs"));
            outcome.map_err(|error: io::Error| {
                LaunchFailure::node(format!(
                    "cannot set the limits in {}: {error}",
                    folder.display()
                ))
            })
        };
        match &self.hierarchy {
            Hierarchy::None => {}
            Hierarchy::Unified(root) => {
                let mut settings = Vec::new();
                if memory_bytes > 0 {
                    settings.push(("memory.max", memory_bytes.to_string()));
                }
                if quota_us > 0 {
                    settings.push(("cpu.max", format!("{quota_us} {PERIOD_US}")));
                }
                if !settings.is_empty() {
                    limit(root, &settings)?;
                }
            }
            Hierarchy::Separate { memory, cpu } => {
                if let Some(root) = memory.as_ref().filter(|_| memory_bytes > 0) {
                    limit(root, &[("memory.limit_in_bytes", memory_bytes.to_string())])?;
                }
                if let Some(root) = cpu.as_ref().filter(|_| quota_us > 0) {
                    limit(
                        root,
                        &[
                            ("cpu.cfs_period_us", PERIOD_US.to_string()),
                            ("cpu.cfs_quota_us", quota_us.to_string()),
                        ],
                    )?;
                }
            }
        }
        Ok(files)
    }

    /// Whether the kernel ended something of this attempt for its memory limit.
    pub(super) fn out_of_memory(&self, assignment: &Assignment) -> bool {
        if assignment.memory_mib == 0 {
            return false;
        }
        self.folders(assignment.key).iter().any(|folder| {
            ["memory.events", "memory.oom_control"].iter().any(|file| {
                fs::read_to_string(folder.join(file)).is_ok_and(|text| {
                    text.lines().any(|line| {
                        line.strip_prefix("oom_kill ")
                            .is_some_and(|count| count.trim() != "0")
                    })
                })
            })
        })
    }

    /// Removes the groups of an ended attempt, and kills what hid in them.
    pub(super) fn remove(&self, key: Key) {
        for folder in self.folders(key) {
            let _ = fs::write(folder.join("cgroup.kill"), "1");
            let _ = fs::remove_dir(folder);
        }
    }

    pub(super) fn enforcement(&self, assignment: &Assignment) -> String {
        let (has_memory, has_cpu) = match &self.hierarchy {
            Hierarchy::Unified(_) => (true, true),
            Hierarchy::Separate { memory, cpu } => (memory.is_some(), cpu.is_some()),
            Hierarchy::None => (false, false),
        };
        let say = |what: &str, asked: bool, enforced: bool| match (asked, enforced) {
            (false, _) => format!("{what}: no limit"),
            (true, true) => format!("{what}: control group"),
            (true, false) => {
                format!("{what}: not enforced, this node has no writable control groups")
            }
        };
        format!(
            "{}; {}; processes that leave the process group are not stopped with it",
            say("memory", assignment.memory_mib > 0, has_memory),
            say("cpu", assignment.cpu_milli > 0, has_cpu),
        )
    }
}

fn unified(root: &Path) -> Option<PathBuf> {
    let folder = root.join(NAME);
    fs::create_dir_all(&folder).ok()?;
    // Refused where processes live beside us; then the probe below tells.
    let _ = fs::write(root.join("cgroup.subtree_control"), "+memory +cpu");
    let _ = fs::write(folder.join("cgroup.subtree_control"), "+memory +cpu");
    let probe = folder.join(format!("probe-{}", process::id()));
    fs::create_dir_all(&probe).ok()?;
    let usable = probe.join("memory.max").exists() && probe.join("cpu.max").exists();
    let _ = fs::remove_dir(probe);
    usable.then_some(folder)
}
