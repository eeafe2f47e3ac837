//! The HTTP client of every command: bearer token, one idempotency key for each change kept over
//! every retry, bounded patience when nobody answers, and errors as the server words them.

use crate::config::Endpoint;
use crate::failure::Failure;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use platform_proto::http::{ErrorBody, IDEMPOTENCY_KEY};
use serde::{Serialize, de::DeserializeOwned};
use std::fs::File;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// How long a command goes on trying when nobody answers. A coordinator that restarts is back well
/// within it; a person who forgot `platform up` still gets an answer soon.
const PATIENCE: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(40);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// From a request's last byte to the head of its answer. Longer than any answer takes, so that a
/// half-dead server does not hold a terminal for ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// An answer's body is read whole up to here; only streams are larger.
const LARGEST_ANSWER_BYTES: usize = 256 << 20;

/// Speaks to one platform.
#[derive(Clone)]
pub struct Client {
    http: legacy::Client<HttpConnector, Body>,
    endpoint: Endpoint,
    patience: Duration,
}

/// Bytes to send: small ones from memory, large ones from a file, both as often as need be.
#[derive(Clone)]
pub enum Payload {
    /// Nothing.
    Empty,
    /// In memory.
    Memory {
        /// Its media type.
        media: &'static str,
        /// The bytes.
        bytes: Bytes,
    },
    /// In a file, told of as it goes.
    File {
        /// Where the bytes are.
        file: Arc<File>,
        /// How many.
        size_bytes: u64,
        /// Called with the bytes sent so far.
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    },
}

impl Client {
    /// A client of `endpoint`. Nothing is sent yet.
    pub fn new(endpoint: Endpoint) -> Result<Client, Failure> {
        check_url(&endpoint.url)?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        let http = legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(Client {
            http,
            endpoint,
            patience: PATIENCE,
        })
    }

    /// The same client with another patience.
    pub fn with_patience(&self, patience: Duration) -> Client {
        Client {
            patience,
            ..self.clone()
        }
    }

    /// Where it asks.
    pub fn url(&self) -> &str {
        &self.endpoint.url
    }

    /// Reads one document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.document(Method::GET, path, Payload::Empty, None).await
    }

    /// Changes something: done once, however often the connection breaks.
    pub async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let bytes = serde_json::to_vec(body)
            .map_err(|error| Failure::error(format!("cannot write the request: {error}")))?;
        let payload = Payload::Memory {
            media: "application/json",
            bytes: bytes.into(),
        };
        self.document(method, path, payload, Some(new_key()?)).await
    }

    /// Changes something that takes no body.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.document(Method::DELETE, path, Payload::Empty, Some(new_key()?))
            .await
    }

    /// Sends bytes and reads one document.
    pub async fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        media: &'static str,
        bytes: Bytes,
    ) -> Result<T, Failure> {
        self.document(
            Method::POST,
            path,
            Payload::Memory { media, bytes },
            Some(new_key()?),
        )
        .await
    }

    /// Reads a body that is no document, whole.
    pub async fn bytes(&self, path: &str) -> Result<Bytes, Failure> {
        let answer = self.answer(Method::GET, path, Payload::Empty, None).await?;
        read_whole(answer.into_body()).await
    }

    /// Opens a stream: the answer's head has come, its body is read by the caller.
    pub async fn stream(&self, path: &str) -> Result<Incoming, Failure> {
        Ok(self
            .answer(Method::GET, path, Payload::Empty, None)
            .await?
            .into_body())
    }

    /// Whether the store holds a blob.
    pub async fn has_blob(&self, sha256: &str) -> Result<bool, Failure> {
        match self
            .answer(
                Method::HEAD,
                &format!("/v1/blobs/{sha256}"),
                Payload::Empty,
                None,
            )
            .await
        {
            Ok(_) => Ok(true),
            Err(failure) if failure.body.code == "not-found" => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Stores a blob. Content-addressed: twice is once.
    pub async fn put_blob(&self, sha256: &str, payload: Payload) -> Result<(), Failure> {
        let answer = self
            .answer(
                Method::PUT,
                &format!("/v1/blobs/{sha256}"),
                payload,
                Some(new_key()?),
            )
            .await?;
        read_whole(answer.into_body()).await.map(drop)
    }

    async fn document<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
        key: Option<String>,
    ) -> Result<T, Failure> {
        let started = Instant::now();
        loop {
            let answer = self
                .answer(method.clone(), path, payload.clone(), key.clone())
                .await?;
            match read_whole(answer.into_body()).await {
                Ok(bytes) => {
                    return serde_json::from_slice(&bytes).map_err(|error| {
                        Failure::error(format!(
                            "{} answered {path} with something else than expected: {error}",
                            self.url()
                        ))
                        .hint("compare `platform --version` here and there")
                    });
                }
                // The answer broke off half-way: the same question with the same key is safe.
                Err(failure) if started.elapsed() >= self.patience => return Err(failure),
                Err(_) => tokio::time::sleep(FIRST_PAUSE).await,
            }
        }
    }

    /// One question, asked until it is answered or patience ends. Every call of this client may be
    /// repeated: reads change nothing, and changes carry their key.
    async fn answer(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
        key: Option<String>,
    ) -> Result<Response<Incoming>, Failure> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match self
                .once(method.clone(), path, &payload, key.as_deref())
                .await
            {
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.body.code == "unavailable" => failure,
                Err(failure) => return Err(failure),
            };
            if started.elapsed() + pause > self.patience {
                return Err(failure);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn once(
        &self,
        method: Method,
        path: &str,
        payload: &Payload,
        key: Option<&str>,
    ) -> Result<Response<Incoming>, Failure> {
        let changes = key.is_some();
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("{}{path}", self.endpoint.url))
            .header(
                header::AUTHORIZATION,
                format!("Bearer {}", self.endpoint.token),
            )
            .header(
                header::USER_AGENT,
                concat!("platform/", env!("CARGO_PKG_VERSION")),
            );
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        match payload {
            Payload::Empty => {}
            Payload::Memory { media, .. } => request = request.header(header::CONTENT_TYPE, *media),
            Payload::File { size_bytes, .. } => {
                request = request
                    .header(header::CONTENT_TYPE, "application/octet-stream")
                    .header(header::CONTENT_LENGTH, *size_bytes);
            }
        }
        let request = request
            .body(body(payload))
            .map_err(|error| Failure::usage(format!("cannot ask {}: {error}", self.url())))?;
        let large = matches!(payload, Payload::File { .. });
        let asked = self.http.request(request);
        let answered = if large {
            asked.await
        } else {
            match tokio::time::timeout(ANSWER_WITHIN, asked).await {
                Ok(answered) => answered,
                Err(_) => return Err(self.silent("no answer within 60 s", changes)),
            }
        };
        let answer = answered.map_err(|error| {
            // A connection that was refused carried nothing: only then is the outcome known.
            let unknown = changes && !error.is_connect();
            self.silent(&root_cause(&error), unknown)
        })?;
        if answer.status().is_success() {
            Ok(answer)
        } else {
            Err(self.refusal(method, path, answer).await)
        }
    }

    fn silent(&self, why: &str, unknown: bool) -> Failure {
        let failure = Failure::unavailable(format!(
            "no answer from the platform at {}: {why}",
            self.url()
        ));
        if unknown {
            failure.hint(
                "it may or may not have been done: look with `platform ps` before asking again",
            )
        } else {
            failure.hint("is it running? start it with `platform up`, or name another with --url")
        }
    }

    async fn refusal(&self, method: Method, path: &str, answer: Response<Incoming>) -> Failure {
        let status = answer.status();
        let bytes = read_whole(answer.into_body()).await.unwrap_or_default();
        if let Ok(body) = serde_json::from_slice::<ErrorBody>(&bytes) {
            let anonymous = body.code == "unauthenticated" && body.hint.is_none();
            let failure = Failure::from_server(body);
            return if anonymous {
                failure.hint("platform login --url URL --token TOKEN")
            } else {
                failure
            };
        }
        // A HEAD has no body, and a proxy has its own words.
        let code = match status {
            StatusCode::UNAUTHORIZED => "unauthenticated",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::NOT_FOUND => "not-found",
            StatusCode::PAYLOAD_TOO_LARGE => "too-large",
            StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::BAD_GATEWAY
            | StatusCode::GATEWAY_TIMEOUT => "unavailable",
            _ => "internal",
        };
        let message = format!("{} answered {method} {path} with {status}", self.url());
        Failure::from_server(ErrorBody {
            code: code.to_owned(),
            message,
            ..ErrorBody::default()
        })
    }
}

fn body(payload: &Payload) -> Body {
    match payload {
        Payload::Empty => Full::new(Bytes::new())
            .map_err(|never| match never {})
            .boxed_unsync(),
        Payload::Memory { bytes, .. } => Full::new(bytes.clone())
            .map_err(|never| match never {})
            .boxed_unsync(),
        Payload::File {
            file,
            size_bytes,
            progress,
        } => {
            let (file, size_bytes, progress) =
                (Arc::clone(file), *size_bytes, Arc::clone(progress));
            let frames = futures::stream::try_unfold(0u64, move |offset| {
                let (file, progress) = (Arc::clone(&file), Arc::clone(&progress));
                async move {
                    progress(offset);
                    if offset >= size_bytes {
                        return Ok(None);
                    }
                    // A quarter of a MiB: large enough to cost nothing, small enough for a smooth bar.
                    let mut chunk = vec![0; (size_bytes - offset).min(256 << 10) as usize];
                    file.read_exact_at(&mut chunk, offset)?;
                    let next = offset + chunk.len() as u64;
                    Ok::<_, std::io::Error>(Some((Frame::data(Bytes::from(chunk)), next)))
                }
            });
            StreamBody::new(frames).boxed_unsync()
        }
    }
}

async fn read_whole(mut body: Incoming) -> Result<Bytes, Failure> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Failure::unavailable(format!("the answer broke off: {}", root_cause(&error)))
        })?;
        if let Ok(chunk) = frame.into_data() {
            if whole.len() + chunk.len() > LARGEST_ANSWER_BYTES {
                return Err(Failure::error("the answer is larger than 256 MiB")
                    .hint("ask for less with --limit"));
            }
            whole.extend_from_slice(&chunk);
        }
    }
    Ok(whole.into())
}

/// The innermost reason; the outer ones only say "client error".
pub fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost
        .downcast_ref::<std::io::Error>()
        .map(std::io::Error::kind)
    {
        Some(std::io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        Some(std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe) => {
            "the connection was cut".to_owned()
        }
        _ => innermost.to_string(),
    }
}

/// A token in clear text must not leave the machine, so plain HTTP goes to loopback only.
fn check_url(url: &str) -> Result<(), Failure> {
    let wrong = |why: &str| {
        Failure::usage(format!("cannot use the address `{url}`: {why}"))
            .allowed("http://127.0.0.1:PORT")
    };
    let uri: http::Uri = url.parse().map_err(|_| wrong("it is not a URL"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(wrong("this version does not speak TLS yet")
                .hint("tunnel: ssh -L 7477:127.0.0.1:7477 HOST"));
        }
        _ => return Err(wrong("it does not start with http://")),
    }
    if uri.path() != "/" && !uri.path().is_empty() || uri.query().is_some() {
        return Err(wrong("it has a path"));
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    if !loopback {
        return Err(
            wrong("without TLS the token would cross the network in the clear")
                .hint("tunnel: ssh -L 7477:127.0.0.1:7477 HOST"),
        );
    }
    Ok(())
}

/// A key that nobody else draws.
fn new_key() -> Result<String, Failure> {
    random_hex(16)
}

/// So many random bytes, in hexadecimal.
pub fn random_hex(bytes: usize) -> Result<String, Failure> {
    let mut random = vec![0u8; bytes];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::error(format!("no randomness from the system: {error}")))?;
    Ok(hex(&random))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Escapes one part of a path or a value of a query.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// A path with a query of those values that are there.
pub fn with_query(path: &str, values: &[(&str, Option<String>)]) -> String {
    let query: Vec<String> = values
        .iter()
        .filter_map(|(key, value)| {
            value
                .as_ref()
                .map(|value| format!("{key}={}", escape(value)))
        })
        .collect();
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", query.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_crosses_the_network_in_the_clear() {
        for good in [
            "http://127.0.0.1:7477",
            "http://localhost:1",
            "http://[::1]:7477",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        let refused: String = [
            "http://10.0.0.1:7477",
            "https://platform",
            "ftp://x",
            "127.0.0.1:7477",
            "http://127.0.0.1/x",
            "http://a b",
        ]
        .iter()
        .map(|url| format!("{}\n", check_url(url).expect_err(url)))
        .collect();
        insta::assert_snapshot!(refused);
    }

    #[test]
    fn paths_and_queries_are_escaped() {
        assert_eq!(escape("../a b"), "..%2Fa%20b");
        assert_eq!(
            with_query(
                "/v1/runs",
                &[("tag", Some("team=a&b".to_owned())), ("user", None)]
            ),
            "/v1/runs?tag=team%3Da%26b"
        );
    }
}
