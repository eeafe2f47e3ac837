//! The engine's side of the runtime: what it can do, and each question put to it.
//!
//! Questions are idempotent: removing what is gone, killing what has ended and creating what exists
//! are no failures.

use super::spec::{LABEL_AGENT, LABEL_LOG_BASE, Place};
use super::{RETRY, failures};
use crate::runtime::LaunchFailure;
use agent_core::{Exit, Signal};
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, InspectNetworkOptions,
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

const SOCKET: &str = "unix:///var/run/docker.sock";
/// An answer may wait for a slow disk; a pull is watched by [`PULL_SILENCE`] instead.
const ANSWER_TIMEOUT_S: u64 = 120;
/// An engine that lives answers its ping at once; one that does not must not hold up the agent's start.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A registry that says nothing for this long is away.
const PULL_SILENCE: Duration = Duration::from_secs(120);
/// Between two words on a pull's progress.
const PULL_REPORT: Duration = Duration::from_secs(1);

/// What this engine can do, asked once.
#[derive(Debug, Clone, Default)]
pub(super) struct Ability {
    /// Processors of the machine, in thousandths; 0: unknown.
    pub(super) cpu_milli: u64,
    /// Memory of the machine.
    pub(super) memory_mib: u64,
    /// Whether there is a bridge network.
    pub(super) bridge: bool,
    /// Names under which devices can be had by CDI; empty on engines that know no CDI.
    pub(super) cdi_devices: BTreeSet<String>,
}

/// A connection to the local engine.
#[derive(Debug)]
pub(super) struct Engine {
    client: Docker,
    pub(super) ability: Ability,
}

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It was never started.
    Created,
    /// It lives.
    Running,
    /// It has lived.
    Ended,
}

/// A container as the engine tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) life: Life,
    /// 0 unless it runs.
    pub(super) process: u32,
    /// Length of the attempt's log before the container wrote to it.
    pub(super) log_base: u64,
    exit_code: i64,
    out_of_memory: bool,
}

impl Found {
    /// How it ended.
    pub(super) fn exit(&self, memory_mib: u64) -> Exit {
        let code = i32::try_from(self.exit_code).unwrap_or(-1);
        // The mark is set when any process of the container was killed for memory. One that went on to
        // succeed has not failed.
        if self.out_of_memory && code != 0 {
            let limit = match memory_mib {
                0 => "the node's memory".to_owned(),
                limit => format!("its memory limit of {limit} MiB"),
            };
            return Exit::OutOfMemory {
                message: format!("the container passed {limit}; ask for more with --memory"),
            };
        }
        // The engine tells a signal as 128 plus its number, as a shell does.
        match code {
            129..=192 => Exit::Signaled { signal: code - 128 },
            code => Exit::Exited { code },
        }
    }
}

impl From<ContainerInspectResponse> for Found {
    fn from(answer: ContainerInspectResponse) -> Self {
        let state = answer.state.unwrap_or_default();
        let has_started = state
            .started_at
            .is_some_and(|at| !at.is_empty() && !at.starts_with("0001-"));
        let life = match state.status {
            Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD)
                if has_started =>
            {
                Life::Ended
            }
            Some(
                ContainerStateStatusEnum::RUNNING
                | ContainerStateStatusEnum::PAUSED
                | ContainerStateStatusEnum::RESTARTING
                | ContainerStateStatusEnum::REMOVING
                | ContainerStateStatusEnum::STOPPING,
            ) => Life::Running,
            _ => Life::Created,
        };
        let label = |name: &str| answer.config.as_ref()?.labels.as_ref()?.get(name);
        Self {
            life,
            process: state
                .pid
                .and_then(|pid| u32::try_from(pid).ok())
                .unwrap_or(0),
            log_base: label(LABEL_LOG_BASE)
                .and_then(|base| base.parse().ok())
                .unwrap_or(0),
            exit_code: state.exit_code.unwrap_or(-1),
            out_of_memory: state.oom_killed.unwrap_or(false),
            id: answer.id.unwrap_or_default(),
        }
    }
}

/// The engine's answer to a question about something that is not there.
fn is_absent(error: &Error) -> bool {
    status(error) == Some(404)
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// The engine's own words, without the client's.
fn words(error: Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message,
        Error::DockerStreamError { error } => error,
        other => other.to_string(),
    }
}

fn away(error: Error) -> LaunchFailure {
    LaunchFailure::node(format!(
        "the Docker engine of this node does not answer: {}",
        words(error)
    ))
}

impl Engine {
    /// Connects to the engine of this machine and asks what it can do.
    pub(super) async fn connect() -> Result<Self, LaunchFailure> {
        let address = std::env::var("DOCKER_HOST").unwrap_or_default();
        let address = match address.as_str() {
            "" => SOCKET,
            local if local.starts_with("unix://") => local,
            remote => {
                return Err(LaunchFailure::node(format!(
                    "DOCKER_HOST {remote:?} is not a unix socket; containers must run on this node"
                )));
            }
        };
        let client = Docker::connect_with_unix(address, ANSWER_TIMEOUT_S, API_DEFAULT_VERSION)
            .map_err(away)?;
        let asked = tokio::time::timeout(CONNECT_TIMEOUT, async move {
            let client = client.negotiate_version().await?;
            let about = client.info().await?;
            let bridge = client
                .inspect_network("bridge", None::<InspectNetworkOptions>)
                .await;
            Ok::<_, Error>((client, about, bridge.is_ok()))
        });
        let (client, about, bridge) = asked
            .await
            .map_err(|_| {
                LaunchFailure::node(format!(
                    "the Docker engine at {address} did not answer within {} s",
                    CONNECT_TIMEOUT.as_secs()
                ))
            })?
            .map_err(away)?;
        let positive = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        let ability = Ability {
            cpu_milli: positive(about.ncpu).unwrap_or(0) * 1_000,
            memory_mib: positive(about.mem_total).unwrap_or(0) >> 20,
            bridge,
            cdi_devices: about
                .discovered_devices
                .unwrap_or_default()
                .into_iter()
                .filter(|device| device.source.as_deref() == Some("cdi"))
                .filter_map(|device| device.id)
                .collect(),
        };
        Ok(Self { client, ability })
    }

    /// For the log's stream.
    pub(super) fn client(&self) -> &Docker {
        &self.client
    }

    /// Whether the image lies on this node.
    pub(super) async fn has_image(&self, image: &str) -> Result<bool, LaunchFailure> {
        match self.client.inspect_image(image).await {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            // A name that is no name is refused as a bad request.
            Err(error) if status(&error) == Some(400) => Err(failures::pull(image, &words(error))),
            Err(error) => Err(away(error)),
        }
    }

    /// Pulls an image; a registry that cannot be reached is told as such.
    pub(super) async fn pull(
        &self,
        image: &str,
        report: impl Fn(String) + Send,
    ) -> Result<(), LaunchFailure> {
        let options = CreateImageOptionsBuilder::default()
            .from_image(&with_tag(image))
            .build();
        let mut answers = std::pin::pin!(self.client.create_image(Some(options), None, None));
        let mut layers = BTreeMap::<String, (i64, i64)>::new();
        let mut reported = None::<Instant>;
        report(format!("pulling image {image}"));
        loop {
            let answer = match tokio::time::timeout(PULL_SILENCE, answers.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(answer))) => answer,
                Ok(Some(Err(error))) => return Err(failures::pull(image, &words(error))),
                Err(_) => {
                    let silence = format!("i/o timeout: silent for {} s", PULL_SILENCE.as_secs());
                    return Err(failures::pull(image, &silence));
                }
            };
            if let (Some(layer), Some(detail)) = (answer.id, answer.progress_detail)
                && let (Some(current), Some(total)) = (detail.current, detail.total)
                && answer.status.as_deref() == Some("Downloading")
            {
                layers.insert(layer, (current, total));
                if reported.is_none_or(|at| at.elapsed() >= PULL_REPORT) {
                    reported = Some(Instant::now());
                    let current: i64 = layers.values().map(|(current, _)| current).sum();
                    let total: i64 = layers.values().map(|(_, total)| total).sum();
                    report(format!(
                        "pulling image {image}: {} of {} MiB",
                        current >> 20,
                        total >> 20
                    ));
                }
            }
        }
    }

    /// Creates a container, or finds the one that has its name.
    pub(super) async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<Found, LaunchFailure> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        match self.client.create_container(Some(options), body).await {
            Ok(_) => {}
            Err(error) if status(&error) == Some(409) => {}
            Err(error) if status(&error).is_some() => return Err(failures::start(&words(error))),
            Err(error) => return Err(away(error)),
        }
        self.find(name).await?.ok_or_else(|| {
            LaunchFailure::node(format!(
                "container {name} was removed as soon as it was created"
            ))
        })
    }

    /// Starts a container; one that lives already stays as it is.
    pub(super) async fn start(&self, id: &str) -> Result<(), LaunchFailure> {
        match self.client.start_container(id, None).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error).is_some() => Err(failures::start(&words(error))),
            Err(error) => Err(away(error)),
        }
    }

    /// Looks for a container by name or id.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Found>, LaunchFailure> {
        match self.client.inspect_container(name, None).await {
            Ok(answer) => Ok(Some(answer.into())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(away(error)),
        }
    }

    /// As [`find`](Self::find), but asks until the engine answers: for whoever must know.
    pub(super) async fn find_patiently(&self, name: &str) -> Option<Found> {
        loop {
            match self.find(name).await {
                Ok(found) => return found,
                Err(error) => tracing::warn!(container = name, %error, "waiting for the engine"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Waits until a container does not run. Any answer means that the caller should look.
    pub(super) async fn wait(&self, id: &str) {
        let options = WaitContainerOptionsBuilder::default()
            .condition("not-running")
            .build();
        let mut answers = std::pin::pin!(self.client.wait_container(id, Some(options)));
        // An exit code above zero comes as an error of this client; looking tells more in any case.
        let _ = answers.next().await;
    }

    /// Signals a container; one that does not run is left alone.
    pub(super) async fn kill(&self, name: &str, signal: Signal) -> Result<(), LaunchFailure> {
        let signal = match signal {
            Signal::Terminate => "SIGTERM",
            Signal::Kill => "SIGKILL",
            Signal::Warn(signal) => signal.as_str(),
        };
        let options = KillContainerOptionsBuilder::default()
            .signal(signal)
            .build();
        match self.client.kill_container(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(away(error)),
        }
    }

    /// Removes a container, alive or not, with its anonymous volumes.
    pub(super) async fn remove(&self, name: &str) -> Result<(), LaunchFailure> {
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        match self.client.remove_container(name, Some(options)).await {
            Ok(()) => Ok(()),
            // Gone, or being removed by an earlier question.
            Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(away(error)),
        }
    }

    /// Names of all containers of this agent.
    pub(super) async fn names(&self, place: &Place) -> Result<Vec<String>, LaunchFailure> {
        let label = format!("{LABEL_AGENT}={}", place.agent);
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let containers = self
            .client
            .list_containers(Some(options))
            .await
            .map_err(away)?;
        Ok(containers
            .into_iter()
            .filter_map(|container| container.names?.into_iter().next())
            .map(|name| name.trim_start_matches('/').to_owned())
            .collect())
    }
}

/// A name without a tag would pull every tag there is.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(exit_code: i64, out_of_memory: bool) -> Found {
        Found {
            id: "c".to_owned(),
            life: Life::Ended,
            process: 0,
            log_base: 0,
            exit_code,
            out_of_memory,
        }
    }

    #[test]
    fn an_exit_is_told_as_code_signal_or_out_of_memory() {
        assert_eq!(ended(0, false).exit(0), Exit::Exited { code: 0 });
        assert_eq!(ended(3, false).exit(0), Exit::Exited { code: 3 });
        assert_eq!(ended(143, false).exit(0), Exit::Signaled { signal: 15 });
        assert_eq!(ended(255, false).exit(0), Exit::Exited { code: 255 });
        // A child was killed for memory and the workload coped.
        assert_eq!(ended(0, true).exit(64), Exit::Exited { code: 0 });
        let Exit::OutOfMemory { message } = ended(137, true).exit(64) else {
            panic!("not told as out of memory");
        };
        assert!(message.contains("64 MiB") && message.contains("--memory"));
    }

    #[test]
    fn only_a_name_without_tag_or_digest_gets_one() {
        assert_eq!(with_tag("a"), "a:latest");
        assert_eq!(
            with_tag("r.example:5000/team/a"),
            "r.example:5000/team/a:latest"
        );
        assert_eq!(
            with_tag("r.example:5000/team/a:1"),
            "r.example:5000/team/a:1"
        );
        assert_eq!(with_tag("a@sha256:00"), "a@sha256:00");
    }
}
