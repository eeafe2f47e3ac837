//! A coordinator small enough to script: it wishes, records what it hears, and stores blobs and journals.

use platform_proto::agent as wire;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use wire::agent_message::Message as Up;
use wire::agent_service_server::{AgentService, AgentServiceServer};
use wire::coordinator_message::Message as Down;

type DownStream =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<wire::CoordinatorMessage, Status>> + Send>>;
type DownSender = mpsc::Sender<Result<wire::CoordinatorMessage, Status>>;
type BlobStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<wire::BlobChunk, Status>> + Send>>;

#[derive(Debug, Default)]
pub struct Seen {
    pub hellos: Vec<wire::Hello>,
    /// Every report of each run, in order.
    pub reports: BTreeMap<u64, Vec<wire::MemberReport>>,
    pub drained: Vec<u64>,
    /// Bytes by request, and whether the log ended.
    pub logs: BTreeMap<u64, (Vec<u8>, bool, String)>,
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// Lines by tracked run and writer.
    pub journals: BTreeMap<(String, String), Vec<serde_json::Value>>,
    pub tracking_down: bool,
    /// A file that somebody writes to while the next blob is being sent.
    pub grows: Option<PathBuf>,
}

impl Seen {
    pub fn last(&self, run: u64) -> Option<&wire::MemberReport> {
        self.reports.get(&run)?.last()
    }

    pub fn ended(&self, run: u64) -> bool {
        self.last(run)
            .is_some_and(|report| report.state() == wire::MemberState::Ended)
    }

    pub fn running(&self, run: u64) -> bool {
        self.last(run)
            .is_some_and(|report| report.state() == wire::MemberState::Running)
    }
}

#[derive(Clone)]
pub struct Coordinator {
    seen: Arc<Mutex<Seen>>,
    changed: Arc<watch::Sender<u64>>,
    /// What should run, as a real one keeps it: told in full to every new session.
    wishes: Arc<Mutex<HashMap<u64, wire::Assignment>>>,
    session: Arc<Mutex<Option<DownSender>>>,
    epoch: Arc<Mutex<u64>>,
    pub url: String,
}

impl Coordinator {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let coordinator = Self {
            seen: Arc::default(),
            changed: Arc::new(watch::channel(0).0),
            wishes: Arc::default(),
            session: Arc::default(),
            epoch: Arc::default(),
            url,
        };
        let service = AgentServiceServer::new(coordinator.clone());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        coordinator
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        let answer = look(&mut self.seen.lock().unwrap());
        self.changed.send_modify(|count| *count += 1);
        answer
    }

    /// Waits until something was seen.
    pub async fn until(&self, what: &str, seen: impl Fn(&Seen) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !seen(&self.seen.lock().unwrap()) {
                changed.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .is_err()
        {
            panic!("never saw {what}: {:#?}", self.seen.lock().unwrap());
        }
    }

    async fn say(&self, message: Down) {
        let session = self.session.lock().unwrap().clone();
        if let Some(session) = session {
            let message = wire::CoordinatorMessage {
                message: Some(message),
            };
            let _ = session.send(Ok(message)).await;
        }
    }

    pub async fn wish(&self, assignments: Vec<wire::Assignment>) {
        for assignment in &assignments {
            let run = assignment.key.unwrap().run;
            self.wishes.lock().unwrap().insert(run, assignment.clone());
        }
        let session_epoch = *self.epoch.lock().unwrap();
        self.say(Down::Desired(wire::Desired {
            full: false,
            upsert: assignments,
            retire: Vec::new(),
            session_epoch,
        }))
        .await;
    }

    pub async fn stop(&self, run: u64, reason: &str) {
        let mut wish = self.wishes.lock().unwrap().get(&run).cloned().unwrap();
        wish.set_intent(wire::Intent::Stop);
        wish.stop_reason = reason.to_owned();
        self.wish(vec![wish]).await;
    }

    pub async fn retire(&self, run: u64) {
        let wish = self.wishes.lock().unwrap().remove(&run).unwrap();
        let session_epoch = *self.epoch.lock().unwrap();
        self.say(Down::Desired(wire::Desired {
            retire: vec![wish.key.unwrap()],
            session_epoch,
            ..Default::default()
        }))
        .await;
    }

    pub async fn read_log(&self, request: u64, run: u64, follow: bool) {
        self.say(Down::LogRequest(wire::LogRequest {
            request,
            key: Some(key(run)),
            offset: 0,
            follow,
        }))
        .await;
    }

    pub fn store(&self, bytes: Vec<u8>) -> String {
        let sha256 = hash(&bytes);
        self.with(|seen| seen.blobs.insert(sha256.clone(), bytes));
        sha256
    }
}

pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn key(run: u64) -> wire::MemberKey {
    wire::MemberKey {
        run,
        attempt: 1,
        member: 0,
    }
}

pub fn assignment(run: u64, script: &str) -> wire::Assignment {
    wire::Assignment {
        key: Some(key(run)),
        epoch: 1,
        intent: wire::Intent::Run.into(),
        grace_ms: 5_000,
        workload: Some(wire::Workload {
            name: "story".into(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            display_id: format!("run-{run}"),
            tenant: "research".into(),
            user: "ada".into(),
            ..Default::default()
        }),
        member_count: 1,
        ..Default::default()
    }
}

fn authorised<T>(request: &Request<T>) -> Result<(), Status> {
    let token = request.metadata().get("authorization");
    if token.is_some_and(|token| token == "Bearer secret") {
        Ok(())
    } else {
        Err(Status::unauthenticated("no token"))
    }
}

#[tonic::async_trait]
impl AgentService for Coordinator {
    type SessionStream = DownStream;
    type GetBlobStream = BlobStream;

    async fn session(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<DownStream>, Status> {
        authorised(&request)?;
        let mut up = request.into_inner();
        let (sender, down) = mpsc::channel(64);
        let coordinator = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = up.next().await {
                coordinator.hear(message, &sender).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(down))))
    }

    async fn get_blob(
        &self,
        request: Request<wire::GetBlobRequest>,
    ) -> Result<Response<BlobStream>, Status> {
        authorised(&request)?;
        let sha256 = request.into_inner().sha256;
        let bytes = self.with(|seen| seen.blobs.get(&sha256).cloned());
        let bytes = bytes.ok_or_else(|| Status::not_found(sha256))?;
        let chunks: Vec<_> = bytes
            .chunks(1000)
            .map(|chunk| {
                Ok(wire::BlobChunk {
                    content: chunk.to_vec(),
                })
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<wire::PutBlobChunk>>,
    ) -> Result<Response<wire::PutBlobResponse>, Status> {
        authorised(&request)?;
        let mut stream = request.into_inner();
        let mut sha256 = String::new();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.message().await? {
            sha256.push_str(&chunk.sha256);
            bytes.extend(chunk.content);
            if let Some(path) = self.with(|seen| seen.grows.take()) {
                let mut file = std::fs::File::options().append(true).open(path)?;
                file.write_all(b"the end\n")?;
            }
        }
        if hash(&bytes) != sha256 {
            return Err(Status::invalid_argument("wrong hash"));
        }
        self.with(|seen| seen.blobs.insert(sha256, bytes));
        Ok(Response::new(wire::PutBlobResponse {}))
    }

    async fn append_journal(
        &self,
        request: Request<wire::AppendJournalRequest>,
    ) -> Result<Response<wire::AppendJournalResponse>, Status> {
        authorised(&request)?;
        let request = request.into_inner();
        self.with(|seen| {
            if seen.tracking_down {
                return Err(Status::unavailable("the tracking store is down"));
            }
            let lines = seen
                .journals
                .entry((request.tracked_run, request.writer))
                .or_default();
            let mut results = Vec::new();
            for line in request.lines.split(|byte| *byte == b'\n') {
                if line.is_empty() {
                    continue;
                }
                let record = serde_json::from_slice::<serde_json::Value>(line)
                    .ok()
                    .filter(|record| record["s"].is_u64());
                let Some(record) = record else {
                    return Err(Status::invalid_argument("a line without a sequence"));
                };
                let sequence = record["s"].as_u64().unwrap();
                if sequence as usize <= lines.len() {
                    continue;
                }
                if sequence as usize != lines.len() + 1 {
                    return Err(Status::aborted("a gap"));
                }
                if record["k"] == "model" {
                    results.push(format!("{{\"sequence\":{sequence},\"version\":1}}"));
                }
                lines.push(record);
            }
            Ok(Response::new(wire::AppendJournalResponse {
                watermark: lines.len() as u64,
                results,
            }))
        })
    }
}

impl Coordinator {
    async fn hear(&self, message: wire::AgentMessage, sender: &DownSender) {
        match message.message.unwrap() {
            Up::Hello(hello) => {
                for report in &hello.held {
                    let run = report.key.unwrap().run;
                    let report = report.clone();
                    self.with(|seen| seen.reports.entry(run).or_default().push(report));
                }
                *self.session.lock().unwrap() = Some(sender.clone());
                let session_epoch = {
                    let mut epoch = self.epoch.lock().unwrap();
                    *epoch += 1;
                    *epoch
                };
                self.say(Down::Welcome(wire::Welcome {
                    lease_ms: 10_000,
                    heartbeat_ms: 100,
                    session_epoch,
                }))
                .await;
                let upsert = self.wishes.lock().unwrap().values().cloned().collect();
                self.say(Down::Desired(wire::Desired {
                    full: true,
                    upsert,
                    retire: Vec::new(),
                    session_epoch,
                }))
                .await;
                self.with(|seen| seen.hellos.push(hello));
            }
            Up::Heartbeat(beat) => {
                self.say(Down::LeaseRenewed(wire::LeaseRenewed {
                    sent_boottime_us: beat.sent_boottime_us,
                }))
                .await;
            }
            Up::Report(report) => {
                self.with(|seen| {
                    for member in report.members {
                        let run = member.key.unwrap().run;
                        seen.reports.entry(run).or_default().push(member);
                    }
                });
                self.say(Down::ReportAcknowledged(wire::ReportAcknowledged {
                    sequence: report.sequence,
                }))
                .await;
            }
            Up::LogChunk(chunk) => self.with(|seen| {
                let log = seen.logs.entry(chunk.request).or_default();
                log.0.extend(chunk.content);
                log.1 |= chunk.end;
                log.2.push_str(&chunk.error);
            }),
            Up::Telemetry(_) => {}
            Up::Drained(drained) => {
                self.with(|seen| seen.drained.push(drained.key.unwrap().run));
            }
        }
    }
}
