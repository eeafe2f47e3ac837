//! `platform run --dev`: the same spec here and now, in the folder itself, without a coordinator: the
//! same variables, the same cached environment, the same SDK. Only who sends differs: the SDK itself.

use super::command;
use super::prepare::{self, Typed};
use crate::client::random_hex;
use crate::commands::Outcome;
use crate::failure::{Failure, exit, on_path};
use crate::output::Printer;
use agent::blobs::{BlobCache, BlobSource, FetchError};
use agent::runtime::process::Environments;
use agent::runtime::{Attempt, NodeContext, Progress};
use agent::telemetry::{self, DeviceSource};
use agent_core::{Assignment, GrantedDevice, Intent, Key, Observation, Workload};
use futures::future::BoxFuture;
use platform_proto::http::RunSpec;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Environments kept for `--dev`, beside those of the agent: two processes do not evict each other's.
const ENVIRONMENTS_KEPT: usize = 20;

/// Runs the spec here; exits as the workload does.
pub async fn run(printer: &Printer, home: &Path, mut typed: Typed) -> Outcome {
    let folder = prepare::canonical(&typed.folder)?;
    if typed.command.is_empty() {
        typed.command.push(command::only_script(&folder)?);
    }
    let resolved = command::resolve(&folder, &typed.command)?;
    let spec = prepare::spec(&typed, &folder, &resolved)?;
    if spec.image.is_some() {
        printer.note("--dev runs without the container image");
    }
    if spec.nodes > 1 {
        printer.note(&format!("--dev runs one of the {} members", spec.nodes));
    }
    let dev = home.join("dev");
    let id = format!("dev-{}", random_hex(4)?);
    let attempt_folder = dev.join(&id);
    std::fs::create_dir_all(&attempt_folder).map_err(on_path("create", &attempt_folder))?;
    let _removed = Removed(attempt_folder.clone());
    // The attempt works in the folder itself, not in a copy.
    std::os::unix::fs::symlink(&folder, attempt_folder.join("work"))
        .map_err(on_path("create", &attempt_folder))?;
    let devices = devices(printer, &spec).await?;
    let memory_mib = spec.gpu_memory_mib.filter(|_| spec.gpus != Some(0));
    let attempt = Attempt {
        assignment: assignment(&id, spec, devices),
        folder: attempt_folder,
    };
    let variables = variables(printer, home, &dev, &attempt, memory_mib).await?;
    start(&attempt, &folder, variables).await
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // Only a log of the installer is in it; what is left is found by the next cleaning hand.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// There is no store here: a package is never fetched.
#[derive(Debug)]
struct NoStore;

impl BlobSource for NoStore {
    fn read<'a>(
        &'a self,
        sha256: &'a str,
        _sink: &'a mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
    ) -> BoxFuture<'a, Result<io::Result<()>, FetchError>> {
        Box::pin(async move { Err(FetchError::Missing(sha256.to_owned())) })
    }
}

/// The first devices of this machine that fit; none where there are none.
async fn devices(printer: &Printer, spec: &RunSpec) -> Result<Vec<GrantedDevice>, Failure> {
    if spec.gpus == Some(0) {
        return Ok(Vec::new());
    }
    let found =
        tokio::task::spawn_blocking(|| telemetry::open(&DeviceSource::Auto, "dev").devices())
            .await
            .map_err(|error| Failure::error(format!("cannot look for devices: {error}")))?;
    let asked = match (spec.gpu_share_milli, spec.gpus) {
        (Some(_), _) => 1,
        (None, gpus) => gpus.map_or(1, |gpus| gpus as usize),
    };
    let fits = |model: &str| {
        spec.gpu_model
            .as_deref()
            .is_none_or(|wanted| model.to_lowercase().contains(&wanted.to_lowercase()))
    };
    let granted: Vec<GrantedDevice> = found
        .into_iter()
        .filter(|device| fits(&device.model))
        .take(asked)
        .map(|device| GrantedDevice {
            id: device.id,
            index: device.index,
            share_milli: spec.gpu_share_milli.unwrap_or(1000),
            memory_mib: spec.gpu_memory_mib.unwrap_or(0),
            model: device.model,
            simulated: device.simulated,
        })
        .collect();
    let explicit = spec.gpus.is_some() || spec.gpu_share_milli.is_some();
    if explicit && granted.len() < asked {
        printer.note(&format!(
            "this machine has {} of the {asked} GPUs asked for",
            granted.len()
        ));
    }
    Ok(granted)
}

fn assignment(id: &str, spec: RunSpec, devices: Vec<GrantedDevice>) -> Assignment {
    Assignment {
        key: Key {
            run: 0,
            attempt: 1,
            member: 0,
        },
        epoch: 0,
        intent: Intent::Run,
        stop_reason: String::new(),
        grace_ms: 0,
        workload: Workload {
            name: spec.name,
            command: spec.command,
            environment: spec.environment,
            source_sha256: String::new(),
            requirements_path: spec.requirements_path.unwrap_or_default(),
            image: String::new(),
            time_limit_ms: spec.time_limit_ms.unwrap_or(0),
            tags: spec.tags,
            model: spec.model.unwrap_or_default(),
            tenant: spec.tenant.unwrap_or_else(|| "default".to_owned()),
            user: std::env::var("USER").unwrap_or_else(|_| "local".to_owned()),
            display_id: id.to_owned(),
            working_folder: String::new(),
            // Nobody holds a dev run to its time limit.
            warning: None,
        },
        devices,
        member_count: 1,
        member_nodes: Vec::new(),
        fence: false,
        cpu_milli: 0,
        memory_mib: 0,
    }
}

/// What the workload's environment adds to ours; `memory_mib` is the cap on device memory that was asked
/// for.
async fn variables(
    printer: &Printer,
    home: &Path,
    dev: &Path,
    attempt: &Attempt,
    memory_mib: Option<u64>,
) -> Result<Vec<(String, String)>, Failure> {
    let sdk = dev.join("sdk");
    let sdk = agent::sdk::unpack(&sdk).map_err(on_path("write", &sdk))?;
    let cache = dev.join("environments");
    let environments =
        Environments::open(cache.clone(), PathBuf::from("python3"), ENVIRONMENTS_KEPT)
            .map_err(on_path("open", &cache))?;
    let (events, mut heard) = mpsc::unbounded_channel();
    let progress = Progress::new(attempt.key(), events.clone());
    let built = environments.ensure(attempt, &progress);
    tokio::pin!(built);
    let environment = loop {
        tokio::select! {
            built = &mut built => break built.map_err(|failure| Failure::error(failure.message))?,
            Some(event) = heard.recv() => {
                if let Observation::Progress { detail } = event.observation {
                    printer.note(&detail);
                }
            }
        }
    };
    let blobs = dev.join("blobs");
    let blobs =
        BlobCache::open(blobs.clone(), 0, Arc::new(NoStore)).map_err(on_path("open", &blobs))?;
    let node = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let context = NodeContext {
        events,
        blobs: Arc::new(blobs),
        sdk: sdk.clone(),
        node,
    };
    let spool = home.join("spool");
    let mut variables = context.environment(attempt, &spool, &sdk);
    variables.remove("PLATFORM_SENDER");
    // A cap that was asked for is the workload's to keep to, also where no device is there to have it.
    if let Some(cap) = memory_mib {
        variables.insert("PLATFORM_GPU_MEMORY_MIB".to_owned(), cap.to_string());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let fallback = environments.fallback_programs().display().to_string();
    let path = match &environment {
        Some(environment) => {
            variables.insert("VIRTUAL_ENV".to_owned(), environment.display().to_string());
            format!("{}:{path}:{fallback}", environment.join("bin").display())
        }
        None => format!("{path}:{fallback}"),
    };
    variables.insert("PATH".to_owned(), path);
    Ok(variables.into_iter().collect())
}

async fn start(attempt: &Attempt, folder: &Path, variables: Vec<(String, String)>) -> Outcome {
    let workload = &attempt.assignment.workload;
    let Some((program, arguments)) = workload.command.split_first() else {
        return Err(Failure::usage("nothing to run"));
    };
    let path = variables
        .iter()
        .find(|(name, _)| name == "PATH")
        .map(|(_, path)| path.clone())
        .unwrap_or_default();
    let found = find(program, folder, &path);
    let mut command = tokio::process::Command::new(found.unwrap_or_else(|| PathBuf::from(program)));
    command
        .args(arguments)
        .current_dir(folder)
        .env_remove("PLATFORM_SENDER")
        .envs(variables)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        Failure::error(format!("cannot start `{program}`: {error}"))
            .hint("is it installed, and on PATH?")
    })?;
    let limit = match workload.time_limit_ms {
        0 => Duration::MAX,
        ms => Duration::from_millis(ms),
    };
    let deadline = tokio::time::sleep(limit.min(Duration::from_secs(10 * 366 * 86_400)));
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            ended = child.wait() => {
                let status = ended.map_err(|error| Failure::error(format!("lost sight of `{program}`: {error}")))?;
                return Ok(code(status));
            }
            // The terminal has told the workload as well; it decides, and we wait for it.
            _ = tokio::signal::ctrl_c() => {}
            () = &mut deadline => {
                let _ = child.kill().await;
                return Ok(124);
            }
        }
    }
}

/// A bare name is looked up on the workload's PATH, which the environment stands in front of.
fn find(program: &str, folder: &Path, path: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(folder.join(program));
    }
    std::env::split_paths(path)
        .map(|entry| entry.join(program))
        .find(|candidate| candidate.is_file())
}

fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(i32::from(exit::ERROR));
    u8::try_from(code).unwrap_or(exit::ERROR)
}
