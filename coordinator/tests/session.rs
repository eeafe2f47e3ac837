//! A coordinator over its real port, with agents that a test plays: what each side may believe.

use coordinator::{Coordinator, CoordinatorConfig, DEFAULT_LEASE};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use platform_proto::AGENT_PROTOCOL_VERSION;
use platform_proto::agent::agent_service_client::AgentServiceClient;
use platform_proto::agent::{
    AgentMessage, AppendJournalRequest, Assignment, CoordinatorMessage, Desired, Device, EndKind,
    Heartbeat, Hello, LogChunk, LogRequest, MemberKey, MemberReport, MemberState, Report,
    agent_message, coordinator_message,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};

const BOUND: Duration = Duration::from_secs(20);

struct Platform {
    coordinator: Coordinator,
    _folder: tempfile::TempDir,
}

async fn platform() -> Platform {
    let folder = tempfile::tempdir().unwrap();
    let config = CoordinatorConfig {
        data_folder: folder.path().join("coordinator"),
        listen: "127.0.0.1:0".parse().unwrap(),
        lease: DEFAULT_LEASE,
        local_user: "ana".to_owned(),
        metrics: None,
    };
    let coordinator = coordinator::start(config, CancellationToken::new())
        .await
        .unwrap();
    Platform {
        coordinator,
        _folder: folder,
    }
}

impl Platform {
    async fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> (u16, Vec<u8>) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.coordinator.address))
            .header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = body.map_or_else(Vec::new, |body| serde_json::to_vec(&body).unwrap());
        let response = client
            .request(request.body(Full::from(body)).unwrap())
            .await
            .unwrap();
        let status = response.status().as_u16();
        (
            status,
            response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .to_vec(),
        )
    }

    async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let token = self.coordinator.admin_token.clone();
        let (status, bytes) = self.call(method, path, Some(&token), body).await;
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }

    async fn submit(&self) -> String {
        let spec = json!({"name": "train", "command": ["true"], "tags": {"team": "nlp"}});
        let (status, answer) = self
            .admin("POST", "/v1/runs", Some(json!({"spec": spec})))
            .await;
        assert_eq!(status, 200, "{answer}");
        answer["run"]["id"].as_str().unwrap().to_owned()
    }

    async fn agents(&self) -> AgentServiceClient<Channel> {
        let endpoint = format!("http://{}", self.coordinator.address);
        AgentServiceClient::new(
            Channel::from_shared(endpoint)
                .unwrap()
                .connect()
                .await
                .unwrap(),
        )
    }

    fn signed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value =
            MetadataValue::try_from(format!("Bearer {}", self.coordinator.agent_token)).unwrap();
        request.metadata_mut().insert("authorization", value);
        request
    }

    async fn agent(&self, held: Vec<MemberReport>) -> Agent {
        let (sender, receiver) = mpsc::channel(64);
        let hello = Hello {
            node: "node-1".to_owned(),
            pool: "default".to_owned(),
            boot_id: "boot-1".to_owned(),
            agent_version: "test".to_owned(),
            protocol_version: AGENT_PROTOCOL_VERSION,
            devices: (0..2)
                .map(|index| Device {
                    id: format!("SIM-{index}"),
                    index,
                    model: "A100-80G".to_owned(),
                    memory_mib: 81_920,
                    simulated: true,
                    ..Device::default()
                })
                .collect(),
            cpu_milli: 2_000,
            memory_mib: 8_192,
            held,
            runtimes: vec!["process".to_owned()],
            operating_system: String::new(),
            driver_version: String::new(),
            rack: String::new(),
        };
        sender
            .send(AgentMessage {
                message: Some(agent_message::Message::Hello(hello)),
            })
            .await
            .unwrap();
        let stream = self
            .agents()
            .await
            .session(self.signed(ReceiverStream::new(receiver)))
            .await
            .unwrap();
        let mut agent = Agent {
            sender,
            stream: stream.into_inner(),
        };
        let coordinator_message::Message::Welcome(welcome) = agent.next().await else {
            panic!("a session is welcomed first");
        };
        assert!(welcome.lease_ms > 0);
        agent
    }
}

struct Agent {
    sender: mpsc::Sender<AgentMessage>,
    stream: Streaming<CoordinatorMessage>,
}

impl Agent {
    async fn next(&mut self) -> coordinator_message::Message {
        let message = tokio::time::timeout(BOUND, self.stream.message())
            .await
            .expect("in time");
        message
            .unwrap()
            .expect("the session goes on")
            .message
            .unwrap()
    }

    async fn desired(&mut self) -> Desired {
        loop {
            if let coordinator_message::Message::Desired(desired) = self.next().await {
                return desired;
            }
        }
    }

    async fn assignment(&mut self) -> Assignment {
        loop {
            if let Some(assignment) = self.desired().await.upsert.pop() {
                return assignment;
            }
        }
    }

    async fn retired(&mut self) -> MemberKey {
        loop {
            if let Some(key) = self.desired().await.retire.pop() {
                return key;
            }
        }
    }

    async fn log_request(&mut self) -> LogRequest {
        loop {
            if let coordinator_message::Message::LogRequest(request) = self.next().await {
                return request;
            }
        }
    }

    /// Whatever was said before has been taken: messages of a session are taken in order.
    async fn answered(&mut self) {
        self.say(agent_message::Message::Heartbeat(Heartbeat {
            sent_boottime_us: 42,
        }))
        .await;
        loop {
            if let coordinator_message::Message::LeaseRenewed(renewed) = self.next().await {
                assert_eq!(renewed.sent_boottime_us, 42);
                return;
            }
        }
    }

    async fn say(&self, message: agent_message::Message) {
        self.sender
            .send(AgentMessage {
                message: Some(message),
            })
            .await
            .unwrap();
    }

    async fn report(&self, sequence: u64, reports: Vec<MemberReport>) {
        self.say(agent_message::Message::Report(Report {
            sequence,
            members: reports,
        }))
        .await;
    }
}

fn running(assignment: &Assignment) -> MemberReport {
    MemberReport {
        key: assignment.key,
        epoch: assignment.epoch,
        state: MemberState::Running.into(),
        ..MemberReport::default()
    }
}

fn exited(assignment: &Assignment, code: i32) -> MemberReport {
    MemberReport {
        state: MemberState::Ended.into(),
        end: EndKind::Exited.into(),
        exit_code: code,
        ..running(assignment)
    }
}

#[tokio::test]
async fn a_run_goes_from_submit_to_its_end_and_its_share_comes_back() {
    let platform = platform().await;
    let mut agent = platform.agent(Vec::new()).await;
    assert!(agent.desired().await.full);
    let run = platform.submit().await;
    let assignment = agent.assignment().await;
    assert_eq!(assignment.devices.len(), 1);
    assert!(assignment.devices[0].simulated);
    agent.report(1, vec![running(&assignment)]).await;
    agent.report(2, vec![exited(&assignment, 3)]).await;
    assert_eq!(agent.retired().await, assignment.key.unwrap());
    let (_, view) = platform
        .admin("GET", &format!("/v1/runs/{run}"), None)
        .await;
    assert_eq!(view["state"], "failed");
    assert_eq!(
        (&view["exit_code"], &view["client_exit_code"]),
        (&json!(3), &json!(3))
    );
    let (_, nodes) = platform.admin("GET", "/v1/nodes", None).await;
    assert_eq!(nodes["nodes"][0]["devices"][0]["share_allocated_milli"], 0);
    let (_, cost) = platform.admin("GET", "/v1/cost?by=team", None).await;
    assert_eq!(cost["rows"][0]["key"], "nlp");
    assert_eq!(cost["total"]["gpu_us"], view["gpu_us"]);
}

#[tokio::test]
async fn an_end_that_was_never_acknowledged_is_believed_when_the_agent_comes_back() {
    let platform = platform().await;
    let mut agent = platform.agent(Vec::new()).await;
    let run = platform.submit().await;
    let assignment = agent.assignment().await;
    drop(agent);
    let mut back = platform.agent(vec![exited(&assignment, 0)]).await;
    let desired = back.desired().await;
    assert!(
        desired.full && desired.upsert.is_empty(),
        "it is not started again"
    );
    assert_eq!(desired.retire, vec![assignment.key.unwrap()]);
    let (_, view) = platform
        .admin("GET", &format!("/v1/runs/{run}"), None)
        .await;
    assert_eq!(view["state"], "succeeded");
    assert_eq!(view["attempts"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_member_of_an_older_epoch_can_write_neither_report_nor_journal() {
    let platform = platform().await;
    let mut agent = platform.agent(Vec::new()).await;
    let run = platform.submit().await;
    let assignment = agent.assignment().await;
    let stale = MemberReport {
        epoch: assignment.epoch + 7,
        ..exited(&assignment, 0)
    };
    agent.report(1, vec![stale, running(&assignment)]).await;
    loop {
        if matches!(
            agent.next().await,
            coordinator_message::Message::ReportAcknowledged(_)
        ) {
            break;
        }
    }
    let (_, view) = platform
        .admin("GET", &format!("/v1/runs/{run}"), None)
        .await;
    assert_eq!(view["state"], "running");
    let append = |epoch| AppendJournalRequest {
        key: assignment.key,
        epoch,
        writer: "w-0000000000000001".to_owned(),
        lines: b"{\"s\":1,\"k\":\"points\",\"keys\":[\"loss\"],\"points\":[[0,1,5,0.5]]}\n"
            .to_vec(),
        tracked_run: run.clone(),
    };
    let mut agents = platform.agents().await;
    let refused = agents
        .append_journal(platform.signed(append(assignment.epoch + 7)))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let taken = agents
        .append_journal(platform.signed(append(assignment.epoch)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(taken.watermark, 1);
    let reserved = AppendJournalRequest {
        writer: "agent-1-7".to_owned(),
        ..append(assignment.epoch)
    };
    let refused = agents
        .append_journal(platform.signed(reserved))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "another member's");
    let token = serde_json::json!({"user": "node-2", "tenant": "default", "role": "agent"});
    let (_, created) = platform.admin("POST", "/v1/tokens", Some(token)).await;
    let mut other = platform.signed(append(assignment.epoch));
    let bearer = format!("Bearer {}", created["secret"].as_str().unwrap());
    other
        .metadata_mut()
        .insert("authorization", MetadataValue::try_from(bearer).unwrap());
    let refused = agents.append_journal(other).await.unwrap_err();
    assert_eq!(
        refused.code(),
        Code::PermissionDenied,
        "another node's token"
    );
    let elsewhere = AppendJournalRequest {
        tracked_run: "run-999".to_owned(),
        ..append(assignment.epoch)
    };
    let refused = agents
        .append_journal(platform.signed(elsewhere))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_log_is_followed_and_continued_where_a_broken_session_left_it() {
    let platform = platform().await;
    let mut agent = platform.agent(Vec::new()).await;
    let run = platform.submit().await;
    let assignment = agent.assignment().await;
    let path = format!("/v1/runs/{run}/logs?follow=true");
    let token = platform.coordinator.admin_token.clone();
    let reading = platform.call("GET", &path, Some(&token), None);
    let answering = async {
        let request = agent.log_request().await;
        assert_eq!((request.offset, request.follow), (0, true));
        let first = LogChunk {
            request: request.request,
            content: b"epoch 1\n".to_vec(),
            ..LogChunk::default()
        };
        agent.say(agent_message::Message::LogChunk(first)).await;
        agent.answered().await;
        drop(agent);
        let mut back = platform.agent(vec![running(&assignment)]).await;
        let request = back.log_request().await;
        assert_eq!(request.offset, 8, "asked again from where the reader was");
        let last = LogChunk {
            request: request.request,
            offset: 8,
            content: b"no newline at the end".to_vec(),
            end: true,
            ..LogChunk::default()
        };
        back.say(agent_message::Message::LogChunk(last)).await;
        back
    };
    let ((status, body), _back) =
        tokio::time::timeout(BOUND, async { tokio::join!(reading, answering) })
            .await
            .unwrap();
    assert_eq!(status, 200);
    assert_eq!(body, b"epoch 1\nno newline at the end");
}

#[tokio::test]
async fn a_reader_that_does_not_read_never_holds_back_heartbeats() {
    let platform = platform().await;
    let mut agent = platform.agent(Vec::new()).await;
    let run = platform.submit().await;
    agent.assignment().await;
    // A socket that asks for the log and never reads the answer.
    let mut socket = tokio::net::TcpStream::connect(platform.coordinator.address)
        .await
        .unwrap();
    let ask = format!(
        "GET /v1/runs/{run}/logs?follow=true HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        platform.coordinator.admin_token
    );
    tokio::io::AsyncWriteExt::write_all(&mut socket, ask.as_bytes())
        .await
        .unwrap();
    let request = agent.log_request().await;
    let chunk = vec![b'x'; 64 * 1024];
    for number in 0..400_u64 {
        let chunk = LogChunk {
            request: request.request,
            offset: number * chunk.len() as u64,
            content: chunk.clone(),
            ..LogChunk::default()
        };
        agent.say(agent_message::Message::LogChunk(chunk)).await;
    }
    agent.answered().await;
}

#[tokio::test]
async fn a_user_s_token_opens_no_session_and_an_agent_s_token_nothing_else() {
    let platform = platform().await;
    let agent_token = platform.coordinator.agent_token.clone();
    let (status, _) = platform
        .call("GET", "/v1/runs", Some(&agent_token), None)
        .await;
    assert_eq!(status, 403);
    let mut request = Request::new(ReceiverStream::new(mpsc::channel(1).1));
    let value =
        MetadataValue::try_from(format!("Bearer {}", platform.coordinator.admin_token)).unwrap();
    request.metadata_mut().insert("authorization", value);
    let refused = platform.agents().await.session(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn nothing_listens_beyond_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let config = CoordinatorConfig {
        data_folder: folder.path().join("coordinator"),
        listen: "0.0.0.0:0".parse().unwrap(),
        lease: DEFAULT_LEASE,
        local_user: "ana".to_owned(),
        metrics: None,
    };
    let refused = coordinator::start(config, CancellationToken::new())
        .await
        .err()
        .unwrap();
    assert!(
        refused.to_string().contains("not a loopback address"),
        "{refused}"
    );
    assert!(
        !folder.path().join("coordinator").exists(),
        "nothing was touched"
    );
}
