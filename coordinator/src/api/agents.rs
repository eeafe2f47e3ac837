//! The coordinator's side of the agent protocol.

use super::App;
use super::auth::{Identity, bearer, identify};
use super::blobs::LARGEST_BLOB_BYTES;
use super::tracking::platform_run;
use crate::convert_agent::{description, key_from_proto, report};
use crate::leader::dispatch;
use crate::sessions::MESSAGES_IN_FLIGHT;
use bytes::Bytes;
use coordinator_core::model::{Epoch, NodeName, Role};
use coordinator_core::state::{Command, Event};
use coordinator_tracking::{Author, BlobError, TrackingError};
use futures::{Stream, StreamExt, TryStreamExt};
use platform_proto::AGENT_PROTOCOL_VERSION;
use platform_proto::agent::agent_service_server::AgentService;
use platform_proto::agent::{
    AgentMessage, AppendJournalRequest, AppendJournalResponse, BlobChunk, CoordinatorMessage,
    GetBlobRequest, LeaseRenewed, PutBlobChunk, PutBlobResponse, ReportAcknowledged, Welcome,
    agent_message, coordinator_message,
};
use std::pin::Pin;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// The service.
pub struct Agents {
    app: App,
}

impl Agents {
    /// On the shared parts.
    pub fn new(app: App) -> Self {
        Self { app }
    }

    fn authenticate<T>(&self, request: &Request<T>) -> Result<Identity, Status> {
        let secret = bearer(
            request
                .metadata()
                .get("authorization")
                .and_then(|value| value.to_str().ok()),
        );
        let identity = secret.and_then(|secret| identify(&self.app, secret, crate::now_us()));
        match identity {
            Some(identity) if identity.role == Role::Agent => Ok(identity),
            Some(_) => Err(Status::permission_denied(
                "only an agent's token opens an agent's session",
            )),
            None => Err(Status::unauthenticated(
                "the token is missing, unknown, expired or revoked",
            )),
        }
    }
}

type Sending<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AgentService for Agents {
    type SessionStream = Sending<CoordinatorMessage>;
    type GetBlobStream = Sending<BlobChunk>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let identity = self.authenticate(&request)?;
        let mut incoming = request.into_inner();
        let Some(AgentMessage {
            message: Some(agent_message::Message::Hello(hello)),
        }) = incoming.message().await?
        else {
            return Err(Status::failed_precondition("a session begins with hello"));
        };
        if hello.protocol_version != AGENT_PROTOCOL_VERSION {
            return Err(Status::failed_precondition(format!(
                "the agent speaks protocol {}, and this coordinator {AGENT_PROTOCOL_VERSION}",
                hello.protocol_version
            )));
        }
        let description = description(&hello).map_err(|error| {
            Status::invalid_argument(format!("{error}: allowed are {}", error.allowed))
        })?;
        let node = description.name.clone();
        let (outgoing, receiver) = mpsc::channel(MESSAGES_IN_FLIGHT);
        let app = self.app.clone();
        self.propose(
            &node,
            Command::RegisterNode {
                description: Box::new(description),
            },
        )
        .await?;
        // What the agent holds is believed before it is told what to hold: an end that was never
        // acknowledged must not be started again.
        let held: Vec<_> = hello.held.iter().filter_map(report).collect();
        let held_keys: Vec<_> = held.iter().map(|report| report.key).collect();
        if !held.is_empty() {
            self.propose(
                &node,
                Command::Report {
                    node: node.clone(),
                    members: held,
                },
            )
            .await?;
        }
        let id = app.hub.open(&node, &identity.token, outgoing);
        let epoch = app.driver.read(|state| state.highest_epoch());
        app.hub.send(
            &node,
            coordinator_message::Message::Welcome(Welcome {
                lease_ms: u64::try_from(app.lease.as_millis()).unwrap_or(u64::MAX),
                heartbeat_ms: u64::try_from(app.lease.as_millis() / 6).unwrap_or(u64::MAX),
                session_epoch: epoch.0,
            }),
        );
        dispatch::send_everything(&app.driver, &app.hub, &node, &held_keys);
        tracing::info!(%node, held = held_keys.len(), "an agent opened its session");
        tokio::spawn(async move {
            let ended = listen(&app, &node, id, incoming).await;
            app.hub.close(&node, id);
            match ended {
                Ok(()) => tracing::info!(%node, "an agent closed its session"),
                Err(status) => tracing::warn!(%node, %status, "an agent's session broke"),
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get_blob(
        &self,
        request: Request<GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        self.authenticate(&request)?;
        let sha256 = request.into_inner().sha256;
        let stream = self.app.blobs.get(&sha256).await.map_err(blob_status)?;
        Ok(Response::new(Box::pin(
            stream
                .map_ok(|bytes| BlobChunk {
                    content: bytes.to_vec(),
                })
                .map_err(blob_status),
        )))
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<PutBlobChunk>>,
    ) -> Result<Response<PutBlobResponse>, Status> {
        self.authenticate(&request)?;
        let mut incoming = request.into_inner();
        let first = incoming
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("nothing was sent"))?;
        let sha256 = first.sha256;
        let rest = incoming.map(|chunk| match chunk {
            Ok(chunk) => Ok(Bytes::from(chunk.content)),
            Err(status) => Err(std::io::Error::other(status)),
        });
        let content = futures::stream::iter([Ok(Bytes::from(first.content))]).chain(rest);
        self.app
            .blobs
            .put(&sha256, content, LARGEST_BLOB_BYTES)
            .await
            .map_err(blob_status)?;
        Ok(Response::new(PutBlobResponse {}))
    }

    async fn append_journal(
        &self,
        request: Request<AppendJournalRequest>,
    ) -> Result<Response<AppendJournalResponse>, Status> {
        let identity = self.authenticate(&request)?;
        let request = request.into_inner();
        let key = key_from_proto(
            request
                .key
                .as_ref()
                .ok_or_else(|| Status::invalid_argument("the member's key is missing"))?,
        );
        if platform_run(&request.tracked_run) != Some(key.run)
            || super::tracking::check_tracked_name(&request.tracked_run).is_err()
        {
            return Err(Status::invalid_argument(format!(
                "tracked run {:?} does not belong to {}",
                request.tracked_run, key.run
            )));
        }
        // A workload's writers are its own to name; of the agents' names, a node has this member's alone.
        let own = format!("agent-{}-{}", key.attempt, key.member);
        if request.writer != own && !super::tracking::is_workload_writer(&request.writer) {
            return Err(Status::invalid_argument(format!(
                "writer {:?} is not one of this member: allowed are {own}, and w- with 16 hexadecimal digits",
                request.writer
            )));
        }
        let (author, node) = self.app.driver.read(|state| {
            let stale = || Status::failed_precondition(format!("epoch {} is stale", request.epoch));
            if !state.may_record(key, Epoch(request.epoch)) {
                return Err(stale());
            }
            let run = state.runs().get(&key.run).ok_or_else(stale)?;
            let member = run
                .attempt(key.attempt)
                .and_then(|attempt| attempt.members.get(key.member as usize))
                .ok_or_else(stale)?;
            let author = Author {
                user: run.user.to_string(),
                tenant: run.tenant.to_string(),
            };
            Ok((author, member.node.clone()))
        })?;
        match self.app.hub.opened_with(&node, &identity.token) {
            Some(true) => {}
            Some(false) => {
                return Err(Status::permission_denied(format!(
                    "{} is on node {node}, whose session another token opened",
                    key.run
                )));
            }
            None => {
                return Err(Status::unavailable(format!(
                    "node {node} has not opened its session yet"
                )));
            }
        }
        let outcome = self
            .app
            .tracking
            .append_journal(
                &request.tracked_run,
                &author,
                &request.writer,
                request.lines.into(),
            )
            .await
            .map_err(tracking_status)?;
        Ok(Response::new(AppendJournalResponse {
            watermark: outcome.watermark,
            results: outcome.results,
        }))
    }
}

impl Agents {
    async fn propose(
        &self,
        node: &NodeName,
        command: Command,
    ) -> Result<std::sync::Arc<Vec<Event>>, Status> {
        let applied = self
            .app
            .driver
            .propose(format!("agent:{node}"), None, command)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        match applied.events.first() {
            Some(Event::Rejected { refusal }) => {
                Err(Status::failed_precondition(refusal.message.clone()))
            }
            _ => Ok(applied.events),
        }
    }
}

fn tracking_status(error: TrackingError) -> Status {
    match error {
        TrackingError::Gap { watermark, .. } => {
            let mut status = Status::aborted(error.to_string());
            if let Ok(value) = watermark.to_string().parse() {
                status.metadata_mut().insert("watermark", value);
            }
            status
        }
        TrackingError::Invalid(_) | TrackingError::TooLarge { .. } => {
            Status::invalid_argument(error.to_string())
        }
        other => Status::unavailable(other.to_string()),
    }
}

fn blob_status(error: BlobError) -> Status {
    match error {
        BlobError::NotFound(_) => Status::not_found(error.to_string()),
        BlobError::Name(_) | BlobError::Mismatch { .. } => {
            Status::invalid_argument(error.to_string())
        }
        BlobError::TooLarge { .. } => Status::out_of_range(error.to_string()),
        other => Status::unavailable(other.to_string()),
    }
}

/// Reads an agent's messages until its session ends or a newer one replaces it.
async fn listen(
    app: &App,
    node: &NodeName,
    id: u64,
    mut incoming: Streaming<AgentMessage>,
) -> Result<(), Status> {
    while let Some(message) = incoming.message().await? {
        if !app.hub.is_current(node, id) {
            return Ok(());
        }
        app.hub.heard(node);
        match message.message {
            Some(agent_message::Message::Heartbeat(heartbeat)) => {
                let renewed = LeaseRenewed {
                    sent_boottime_us: heartbeat.sent_boottime_us,
                };
                app.hub
                    .send(node, coordinator_message::Message::LeaseRenewed(renewed));
            }
            Some(agent_message::Message::Report(batch)) => {
                let members = batch.members.iter().filter_map(report).collect();
                let command = Command::Report {
                    node: node.clone(),
                    members,
                };
                let applied = app
                    .driver
                    .propose(format!("agent:{node}"), None, command)
                    .await
                    .map_err(|error| Status::unavailable(error.to_string()))?;
                app.hub.send(
                    node,
                    coordinator_message::Message::ReportAcknowledged(ReportAcknowledged {
                        sequence: batch.sequence,
                    }),
                );
                tracing::trace!(%node, index = applied.index, "report applied");
            }
            Some(agent_message::Message::LogChunk(chunk)) => app.hub.log_chunk(node, chunk),
            Some(agent_message::Message::Telemetry(telemetry)) => {
                let foreign = telemetry
                    .foreign
                    .iter()
                    .map(|process| {
                        format!(
                            "{} {} (process {}) on {}: {} MiB",
                            process.operating_system_user,
                            process.command,
                            process.process,
                            process.device,
                            process.memory_mib
                        )
                    })
                    .collect();
                app.hub.telemetry(node, telemetry.devices, foreign);
            }
            Some(agent_message::Message::Drained(drained)) => {
                if let Some(key) = &drained.key {
                    app.hub.drained(key_from_proto(key));
                }
            }
            Some(agent_message::Message::Hello(_)) | None => {
                return Err(Status::failed_precondition(
                    "hello comes once, at the beginning",
                ));
            }
        }
    }
    Ok(())
}
