//! One HTTP/2 connection with as many requests in flight as the caller likes.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use platform_e2e::Platform;
use platform_proto::http::IDEMPOTENCY_KEY;
use serde_json::Value;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// One connection; clones share it.
#[derive(Clone)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
    token: String,
}

impl Connection {
    /// Opens a connection to a platform.
    pub async fn open(platform: &Platform) -> Result<Connection> {
        let http = platform.http();
        let stream = TcpStream::connect(http.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("the connection broke: {error}");
            }
        });
        let token = http.token.context("no token")?;
        Ok(Connection {
            sender,
            address: http.address,
            token,
        })
    }

    /// One request whose answer's head has come.
    pub async fn start(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Bytes,
    ) -> Result<Incoming> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        let mut sender = self.sender.clone();
        sender.ready().await?;
        let answer = sender.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status();
        if !status.is_success() {
            let body = answer.into_body().collect().await?.to_bytes();
            anyhow::bail!("{path}: {status} {}", String::from_utf8_lossy(&body));
        }
        Ok(answer.into_body())
    }

    /// One request and its whole answer.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Bytes,
    ) -> Result<Value> {
        let body = self
            .start(method, path, key, body)
            .await?
            .collect()
            .await?
            .to_bytes();
        Ok(serde_json::from_slice(&body)?)
    }

    /// Submits a spec and answers the run's id.
    pub async fn submit(&self, key: &str, spec: &Value) -> Result<String> {
        let body = serde_json::to_vec(&serde_json::json!({ "spec": spec }))?;
        let answer = self
            .ask(Method::POST, "/v1/runs", Some(key), body.into())
            .await?;
        let id = answer["run"]["id"].as_str().unwrap_or_default().to_owned();
        ensure!(!id.is_empty(), "no run in {answer}");
        Ok(id)
    }

    /// Cordons or uncordons every node, so that a queue can be filled before it is let go.
    pub async fn every_node(&self, change: &str) -> Result<()> {
        let nodes = self
            .ask(Method::GET, "/v1/nodes", None, Bytes::new())
            .await?;
        for node in nodes["nodes"].as_array().context("no nodes")? {
            let path = format!(
                "/v1/nodes/{}/{change}",
                node["name"].as_str().unwrap_or_default()
            );
            self.ask(
                Method::POST,
                &path,
                Some(&format!("{change}-{path}")),
                Bytes::from_static(b"{}"),
            )
            .await?;
        }
        Ok(())
    }
}
