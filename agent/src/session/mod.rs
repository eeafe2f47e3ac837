//! The stream to the coordinator: says Hello, carries reports up and wishes down, comes back for ever.
//!
//! It decides nothing. Whether a coordinator is too old to be listened to is the core's judgement; this
//! only ends the stream when told to.

pub(crate) mod convert;
pub(crate) mod transfer;

use crate::supervisor::Event;
use crate::{AgentConfig, AgentError, clock};
use agent_core::{Desired, Key};
use platform_proto::agent as wire;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use wire::agent_message::Message as Up;
use wire::agent_service_client::AgentServiceClient;
use wire::coordinator_message::Message as Down;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// A coordinator that restarts is found again within this; more would only lengthen every outage.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A token that is refused is refused until a person acts.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// A full list of wishes for a busy node; beyond this the coordinator is not sane.
const MESSAGE_LIMIT_BYTES: usize = 64 << 20;
/// Log chunks under way, of at most 64 KiB: bounds memory, and what a heartbeat can wait behind.
const LOG_CHUNKS: usize = 16;

/// Adds the bearer token to every call.
#[derive(Debug, Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

pub(crate) type Client = AgentServiceClient<InterceptedService<Channel, Bearer>>;

/// A client that connects when first used and again when broken.
pub(crate) fn connect(config: &AgentConfig) -> Result<Client, AgentError> {
    let invalid = |why: String| AgentError::Coordinator {
        url: config.coordinator_url.clone(),
        why,
    };
    let channel = Endpoint::from_shared(config.coordinator_url.clone())
        .map_err(|error| invalid(error.to_string()))?
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .connect_lazy();
    let mut token: MetadataValue<Ascii> = format!("Bearer {}", config.token)
        .parse()
        .map_err(|_| invalid("the token holds characters that no header can carry".to_owned()))?;
    token.set_sensitive(true);
    Ok(AgentServiceClient::with_interceptor(channel, Bearer(token))
        .max_decoding_message_size(MESSAGE_LIMIT_BYTES)
        .max_encoding_message_size(MESSAGE_LIMIT_BYTES))
}

/// What the session tells the supervisor.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// A stream is about to open: what to say in Hello.
    HelloWanted(oneshot::Sender<wire::Hello>),
    /// The coordinator said Welcome.
    Opened {
        outbound: Outbound,
        session_epoch: u64,
        lease_ms: u64,
        heartbeat_ms: u64,
        hello_us: u64,
    },
    /// It wants something.
    Desired(Desired),
    /// It has recorded a batch.
    Acknowledged(u64),
    /// It renewed the lease asked for then.
    LeaseRenewed(u64),
    /// Somebody reads a log.
    LogRequested {
        request: u64,
        key: Key,
        offset: u64,
        follow: bool,
    },
    /// Nobody reads it any more.
    LogCancelled(u64),
    /// The stream is gone.
    Closed,
}

/// The way up of one stream. Dropping it ends the stream.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// Reports, heartbeats, telemetry: few and small, never waiting behind logs. Unbounded because the
    /// core keeps a window of its own and the rest is periodic.
    control: mpsc::UnboundedSender<wire::AgentMessage>,
    logs: mpsc::Sender<wire::AgentMessage>,
    _end: DropGuard,
}

impl Outbound {
    pub(crate) fn send(&self, message: Up) {
        // A closed stream says so by itself, as an event.
        let _ = self.control.send(wire::AgentMessage {
            message: Some(message),
        });
    }

    pub(crate) fn logs(&self) -> mpsc::Sender<wire::AgentMessage> {
        self.logs.clone()
    }
}

enum Ended {
    /// The agent ends.
    Shutdown,
    /// It was open and broke.
    Broke(String),
    /// It never opened.
    Failed(tonic::Status),
}

/// Keeps a session open until the agent ends.
pub(crate) async fn run(
    client: Client,
    events: mpsc::UnboundedSender<Event>,
    shutdown: CancellationToken,
) {
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    loop {
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ended::Shutdown,
            ended = one(client.clone(), &events) => ended,
        };
        let _ = events.send(Event::Session(SessionEvent::Closed));
        let wait = match ended {
            Ended::Shutdown => return,
            Ended::Broke(why) => {
                tracing::warn!(%why, "the session broke");
                metrics::counter!("agent_sessions_broken_total").increment(1);
                told = false;
                pause = FIRST_PAUSE;
                pause
            }
            Ended::Failed(status) => {
                // Once for each outage, or a night of it fills the log.
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(code = ?status.code(), message = status.message(), "no session");
                }
                match status.code() {
                    tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => REFUSED_PAUSE,
                    _ => {
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        pause
                    }
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn one(mut client: Client, events: &mpsc::UnboundedSender<Event>) -> Ended {
    let (answer, hello) = oneshot::channel();
    let _ = events.send(Event::Session(SessionEvent::HelloWanted(answer)));
    let Ok(hello) = hello.await else {
        return Ended::Shutdown;
    };
    let (control, mut control_queue) = mpsc::unbounded_channel();
    let (logs, mut log_queue) = mpsc::channel(LOG_CHUNKS);
    let _ = control.send(wire::AgentMessage {
        message: Some(Up::Hello(hello)),
    });
    // Both queues into one stream, control first.
    let (up, up_stream) = mpsc::channel(1);
    let pump = tokio::spawn(async move {
        loop {
            let message = tokio::select! {
                biased;
                message = control_queue.recv() => match message {
                    Some(message) => message,
                    None => return,
                },
                Some(message) = log_queue.recv() => message,
            };
            if up.send(message).await.is_err() {
                return;
            }
        }
    });
    let _pump = AbortOnDrop(pump.abort_handle());
    let hello_us = clock::now().boottime_us;
    let opened = async {
        let mut down = client
            .session(tokio_stream::wrappers::ReceiverStream::new(up_stream))
            .await?
            .into_inner();
        let first = down.message().await?;
        Ok::<_, tonic::Status>((down, first))
    };
    let (mut down, welcome) = match tokio::time::timeout(WELCOME_TIMEOUT, opened).await {
        Err(_) => return Ended::Failed(tonic::Status::deadline_exceeded("no welcome")),
        Ok(Err(status)) => return Ended::Failed(status),
        Ok(Ok((
            down,
            Some(wire::CoordinatorMessage {
                message: Some(Down::Welcome(welcome)),
            }),
        ))) => (down, welcome),
        Ok(Ok(_)) => {
            return Ended::Failed(tonic::Status::internal("the first word was no welcome"));
        }
    };
    let end = CancellationToken::new();
    let _ = events.send(Event::Session(SessionEvent::Opened {
        outbound: Outbound {
            control,
            logs,
            _end: end.clone().drop_guard(),
        },
        session_epoch: welcome.session_epoch,
        lease_ms: welcome.lease_ms,
        heartbeat_ms: welcome.heartbeat_ms,
        hello_us,
    }));
    loop {
        let message = tokio::select! {
            () = end.cancelled() => return Ended::Broke("ended by the agent".to_owned()),
            message = down.message() => message,
        };
        let event = match message {
            Ok(Some(message)) => take(message),
            Ok(None) => return Ended::Broke("closed by the coordinator".to_owned()),
            Err(status) => {
                return Ended::Broke(format!("{:?}: {}", status.code(), status.message()));
            }
        };
        if let Some(event) = event
            && events.send(Event::Session(event)).is_err()
        {
            return Ended::Shutdown;
        }
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn take(message: wire::CoordinatorMessage) -> Option<SessionEvent> {
    match message.message? {
        // Only the first may be one.
        Down::Welcome(_) => None,
        Down::Desired(desired) => Some(SessionEvent::Desired(convert::desired(desired))),
        Down::ReportAcknowledged(report) => Some(SessionEvent::Acknowledged(report.sequence)),
        Down::LeaseRenewed(lease) => Some(SessionEvent::LeaseRenewed(lease.sent_boottime_us)),
        Down::LogRequest(request) => Some(SessionEvent::LogRequested {
            request: request.request,
            key: convert::key(request.key?),
            offset: request.offset,
            follow: request.follow,
        }),
        Down::LogCancel(cancel) => Some(SessionEvent::LogCancelled(cancel.request)),
    }
}
