//! Answers that go on: a task writes what there is to say, and the reader takes it as fast as it can.

use super::error::ApiError;
use axum::body::{Body, Bytes};
use serde::Serialize;
use std::io;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// The writing side of an answer that goes on.
pub struct Lines(mpsc::Sender<Result<Bytes, io::Error>>);

/// What is answered is JSON, one object a line.
pub const NDJSON: &str = "application/x-ndjson";

impl Lines {
    /// A body of what `write` sends until it returns. At most `in_flight` pieces wait for a slow reader;
    /// past it the writer waits. Where it fails the reader sees a broken body, and asks again.
    pub fn body<Write, Writing>(in_flight: usize, write: Write) -> Body
    where
        Write: FnOnce(Self) -> Writing,
        Writing: Future<Output = Result<(), ApiError>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(in_flight);
        let writing = write(Self(sender.clone()));
        tokio::spawn(async move {
            if let Err(error) = writing.await {
                let broken = io::Error::other(error.body.message);
                // A reader that left needs no reason.
                let _ = sender.send(Err(broken)).await;
            }
        });
        Body::from_stream(ReceiverStream::new(receiver))
    }

    /// Sends a piece as it is. False: the reader has left.
    pub async fn send(&self, bytes: Bytes) -> bool {
        self.0.send(Ok(bytes)).await.is_ok()
    }

    /// Sends an object as a line of JSON. False: the reader has left.
    pub async fn send_json(&self, line: &impl Serialize) -> Result<bool, ApiError> {
        let mut bytes =
            serde_json::to_vec(line).map_err(|error| ApiError::internal(error.to_string()))?;
        bytes.push(b'\n');
        Ok(self.send(bytes.into()).await)
    }

    /// Returns once the reader has left.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}
