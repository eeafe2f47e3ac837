//! A run's log, as bytes from an offset: live from the node that has it, else as it was stored at
//! the end. A broken body means: ask again from where you are.

use super::App;
use super::auth::Identity;
use super::error::ApiError;
use super::lines::Lines;
use super::runs::{run_id, visible};
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use coordinator_core::model::{MemberKey, MemberPhase, NodeName, RunId};
use futures::TryStreamExt;
use serde::Deserialize;

const CHUNKS_IN_FLIGHT: usize = 16;

/// Which log, from where.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    offset: Option<u64>,
    follow: Option<bool>,
    attempt: Option<u32>,
    member: Option<u32>,
}

/// GET /v1/runs/{run}/logs. Without `attempt`: the last one. With `follow`: until the member ends.
pub async fn logs(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Path(run): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response, ApiError> {
    let id = run_id(&run)?;
    app.driver.read(|state| {
        let run = visible(state, &identity, id)?;
        match query.attempt {
            Some(number) if number == 0 || run.attempt(number).is_none() => {
                Err(ApiError::not_found(format!("{id} has no attempt {number}"))
                    .allowed(format!("1 to {}", run.attempts.len())))
            }
            _ if query.member.is_some_and(|member| member >= run.spec.nodes) => Err(
                ApiError::not_found(format!("{id} has no member {}", query.member.unwrap_or(0)))
                    .allowed(format!("0 to {}", run.spec.nodes - 1)),
            ),
            _ => Ok(()),
        }
    })?;
    let body = Lines::body(CHUNKS_IN_FLIGHT, move |chunks| async move {
        Reading {
            app: &app,
            id,
            member: query.member.unwrap_or(0),
            attempt: query.attempt,
            follow: query.follow.unwrap_or(false),
            offset: query.offset.unwrap_or(0),
            chunks: &chunks,
        }
        .send_all()
        .await
    });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, body).into_response())
}

struct Reading<'a> {
    app: &'a App,
    id: RunId,
    member: u32,
    attempt: Option<u32>,
    follow: bool,
    offset: u64,
    chunks: &'a Lines,
}

/// What became of reading from a node.
enum FromNode {
    /// The whole log was sent.
    Complete,
    /// The reader has left.
    Left,
    /// The node is not connected, or broke off, or cannot read it.
    Gone(String),
    /// The node holds nothing of that member.
    Absent(String),
}

impl Reading<'_> {
    async fn send_all(mut self) -> Result<(), ApiError> {
        let mut applied = self.app.driver.watch();
        let mut sessions = self.app.hub.changes();
        loop {
            applied.borrow_and_update();
            sessions.borrow_and_update();
            let found = self.locate()?;
            let mut missing = "the run has not been placed yet".to_owned();
            if let Some((key, node, ended)) = found {
                if ended && let Some(sha256) = self.stored(key).await? {
                    return self.send_stored(&sha256).await;
                }
                let before = self.offset;
                let mut absent = false;
                match self.send_from_node(key, &node).await {
                    // Cut off for reading slowly, or a session that came back: on from here.
                    FromNode::Gone(_) if self.offset > before => continue,
                    FromNode::Complete | FromNode::Left => return Ok(()),
                    FromNode::Gone(reason) => missing = reason,
                    FromNode::Absent(reason) => (absent, missing) = (true, reason),
                }
                if let Some(sha256) = self.stored(key).await? {
                    return self.send_stored(&sha256).await;
                }
                // A node lets go of an ended member once its log is stored, and an empty log is not:
                // then all of it has been sent.
                if ended && absent {
                    return Ok(());
                }
                if ended && !self.follow {
                    return Err(ApiError::unavailable(missing));
                }
            } else if !self.follow || self.is_over() {
                return Ok(());
            }
            tokio::select! {
                changed = applied.changed() => changed.map_err(|_| ApiError::unavailable(missing))?,
                changed = sessions.changed() => changed.map_err(|_| ApiError::unavailable(missing))?,
                () = self.chunks.closed() => return Ok(()),
            }
        }
    }

    fn is_over(&self) -> bool {
        self.app.driver.read(|state| {
            state
                .runs()
                .get(&self.id)
                .is_none_or(coordinator_core::model::Run::is_ended)
        })
    }

    /// Which member, on which node, and whether it has ended. Once chosen, the attempt stays.
    fn locate(&mut self) -> Result<Option<(MemberKey, NodeName, bool)>, ApiError> {
        let found = self.app.driver.read(|state| {
            let run = state.runs().get(&self.id)?;
            let attempt = match self.attempt {
                Some(number) => run.attempt(number)?,
                None => run.last_attempt()?,
            };
            let member = attempt.members.get(self.member as usize)?;
            let key = MemberKey {
                run: self.id,
                attempt: attempt.number,
                member: self.member,
            };
            Some((key, member.node.clone(), member.phase == MemberPhase::Ended))
        });
        if let Some((key, ..)) = &found {
            self.attempt = Some(key.attempt);
        }
        Ok(found)
    }

    async fn stored(&self, key: MemberKey) -> Result<Option<String>, ApiError> {
        let path = format!("logs/attempt-{}-member-{}.log", key.attempt, key.member);
        Ok(self
            .app
            .tracking
            .artifact(&self.id.to_string(), &path)
            .await?)
    }

    async fn send_stored(&mut self, sha256: &str) -> Result<(), ApiError> {
        let mut stream = self.app.blobs.get(sha256).await?;
        let mut skip = self.offset;
        while let Some(bytes) = stream.try_next().await? {
            let len = bytes.len() as u64;
            if skip >= len {
                skip -= len;
                continue;
            }
            let rest = bytes.slice(usize::try_from(skip).unwrap_or(usize::MAX)..);
            skip = 0;
            if !self.chunks.send(rest).await {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn send_from_node(&mut self, key: MemberKey, node: &NodeName) -> FromNode {
        let Some(mut reader) = self.app.hub.read_log(node, key, self.offset, self.follow) else {
            return FromNode::Gone(format!("node {node} is not connected"));
        };
        loop {
            let chunk = tokio::select! {
                chunk = reader.next() => chunk,
                () = self.chunks.closed() => return FromNode::Left,
            };
            let Some(chunk) = chunk else {
                return FromNode::Gone(format!("node {node} broke off"));
            };
            if !chunk.error.is_empty() {
                return if chunk.absent {
                    FromNode::Absent(chunk.error)
                } else {
                    FromNode::Gone(chunk.error)
                };
            }
            // An agent answers from the offset asked for; anything else would repeat or skip bytes.
            if !chunk.content.is_empty() && chunk.offset != self.offset {
                return FromNode::Gone(format!(
                    "node {node} answered from offset {}",
                    chunk.offset
                ));
            }
            self.offset += chunk.content.len() as u64;
            if !chunk.content.is_empty() && !self.chunks.send(chunk.content.into()).await {
                return FromNode::Left;
            }
            if chunk.end {
                return FromNode::Complete;
            }
        }
    }
}
