//! The two connections of an attached client. Each takes itself up again where it broke: the watch by
//! asking for the run as it is, the log by the byte it stopped at.

use super::{Event, Follow};
use crate::client::{Client, root_cause};
use crate::commands::runs::logs;
use crate::failure::{Failure, exit};
use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use platform_proto::http::{ArrayView, AttemptView, RunView, WatchLine};
use std::time::Duration;
use tokio::sync::{mpsc, watch as latest};

/// Between two connections: short enough not to be felt, long enough not to be a storm.
const AGAIN: Duration = Duration::from_millis(150);
/// One line of a watch holds one run; a longer one is no line.
const LONGEST_LINE_BYTES: usize = 16 << 20;
/// Times that the log of an ended attempt is asked for before some of it counts as lost.
const ASKED_AFTER_END: u32 = 5;

/// What `platform run` and `wait` exit with for a run that has ended.
pub fn client_exit(run: &RunView) -> u8 {
    let code = run
        .client_exit_code
        .or(run.exit_code)
        .unwrap_or(match run.state.as_str() {
            "succeeded" => 0,
            "cancelled" => 143,
            _ => 125,
        });
    client_code(Some(code))
}

/// An exit code as a process can give it.
pub fn client_code(code: Option<i32>) -> u8 {
    // A code that does not fit is still not success.
    u8::try_from(code.unwrap_or(125)).unwrap_or(exit::ERROR)
}

/// Watches an array until all of its runs have ended, through any number of connections.
pub async fn watch_array(
    client: &Client,
    array: &str,
    mut each: impl FnMut(&ArrayView),
) -> Result<ArrayView, Failure> {
    let path = format!("/v1/arrays/{array}/watch");
    loop {
        let mut lines = Lines {
            body: client.stream(&path).await?,
            held: BytesMut::new(),
        };
        while let Some(line) = lines.next().await? {
            let view: ArrayView = serde_json::from_slice(&line).map_err(|error| {
                Failure::error(format!(
                    "the watch of {array} holds something else than expected: {error}"
                ))
            })?;
            each(&view);
            if view.ended_us.is_some() {
                return Ok(view);
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Watches a run to its end, through any number of connections.
pub async fn watch(
    client: &Client,
    run: &str,
    mut each: impl FnMut(WatchEvent),
) -> Result<RunView, Failure> {
    let path = format!("/v1/runs/{run}/watch");
    loop {
        let mut lines = Lines {
            body: client.stream(&path).await?,
            held: BytesMut::new(),
        };
        while let Some(line) = lines.next().await? {
            let line: WatchLine = serde_json::from_slice(&line).map_err(|error| {
                Failure::error(format!(
                    "the watch of {run} holds something else than expected: {error}"
                ))
            })?;
            let ended = line.run.ended_us.is_some().then(|| line.run.clone());
            each(WatchEvent::Line(Box::new(line)));
            if let Some(run) = ended {
                return Ok(run);
            }
        }
        each(WatchEvent::Broken);
        tokio::time::sleep(AGAIN).await;
    }
}

/// What a watch says as it goes.
#[derive(Debug)]
pub enum WatchEvent {
    /// A line.
    Line(Box<WatchLine>),
    /// The connection broke; another is made.
    Broken,
}

/// Tells every change of a run.
pub async fn watch_events(
    client: Client,
    run: String,
    newest: latest::Sender<RunView>,
    events: mpsc::Sender<Event>,
) {
    let (forward, mut forwarded) = mpsc::unbounded_channel();
    // A watch line is small and comes at most a few times a second, so this queue needs no bound of
    // its own; the one behind it has one.
    let sending = async {
        while let Some(event) = forwarded.recv().await {
            let event = match event {
                WatchEvent::Line(line) => {
                    newest.send_replace(line.run.clone());
                    Event::Seen(line)
                }
                WatchEvent::Broken => Event::Lost,
            };
            if events.send(event).await.is_err() {
                return;
            }
        }
    };
    let watching = async move { watch(&client, &run, |event| drop(forward.send(event))).await };
    let (result, ()) = futures::join!(watching, sending);
    // The receiver goes only when the whole command does.
    let _ = events.send(Event::Ended(Box::new(result))).await;
}

/// Tells the log of each attempt in turn, every byte once.
pub async fn log_events(
    client: Client,
    run: String,
    follow: Follow,
    seen: latest::Receiver<RunView>,
    events: mpsc::Sender<Event>,
) {
    let mut reader = LogReader {
        client: client.with_patience(Duration::from_secs(5)),
        run,
        follow,
        seen,
        events,
    };
    let whole = reader.read().await;
    let _ = reader.events.send(Event::LogEnded(whole)).await;
}

struct LogReader {
    client: Client,
    run: String,
    follow: Follow,
    seen: latest::Receiver<RunView>,
    events: mpsc::Sender<Event>,
}

impl LogReader {
    /// False when some of the log could not be had.
    async fn read(&mut self) -> bool {
        if let Some(number) = self.follow.attempt {
            return self.read_attempt(number).await;
        }
        // `logs -f` of a run at its third try shows that one; who is attached from the start sees all.
        let newest = self
            .seen
            .borrow()
            .attempts
            .last()
            .map_or(1, |attempt| attempt.number);
        let (mut number, mut whole) = (newest, true);
        loop {
            let there = self
                .seen
                .wait_for(|run| attempt(run, number).is_some() || run.ended_us.is_some())
                .await
                .map(|run| attempt(&run, number).is_some());
            if !matches!(there, Ok(true)) {
                return whole;
            }
            if number > newest && self.events.send(Event::Attempt(number)).await.is_err() {
                return whole;
            }
            whole &= self.read_attempt(number).await;
            number += 1;
        }
    }

    async fn read_attempt(&mut self, number: u32) -> bool {
        let mut offset = 0;
        let mut asked_after_end = 0;
        loop {
            // Read before asking: only a log asked for after the end is known to be whole.
            let ended = attempt_ended(&self.seen.borrow_and_update(), number);
            let path = logs::path(&self.run, Some(number), self.follow.member, offset, !ended);
            let answered = match self.client.stream(&path).await {
                Ok(body) => self.forward(body, &mut offset).await,
                Err(failure) => Err(failure),
            };
            match answered {
                Ok(()) if ended => return true,
                Ok(()) => {}
                // No log, and none will come: it ended before it wrote anything.
                Err(failure) if ended && failure.exit == exit::NOT_FOUND => return true,
                Err(_) if ended => {
                    asked_after_end += 1;
                    if asked_after_end >= ASKED_AFTER_END {
                        return false;
                    }
                }
                Err(_) => {}
            }
            // Whatever comes first: news of the run, or a moment.
            let _ = tokio::time::timeout(AGAIN, self.seen.changed()).await;
            if self.events.is_closed() {
                return false;
            }
        }
    }

    async fn forward(&self, mut body: Incoming, offset: &mut u64) -> Result<(), Failure> {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::unavailable(root_cause(&error)))?;
            if let Ok(chunk) = frame.into_data() {
                *offset += chunk.len() as u64;
                if self.events.send(Event::Log(chunk)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn attempt(run: &RunView, number: u32) -> Option<&AttemptView> {
    run.attempts.iter().find(|attempt| attempt.number == number)
}

fn attempt_ended(run: &RunView, number: u32) -> bool {
    run.ended_us.is_some() || attempt(run, number).is_some_and(|attempt| attempt.ended_us.is_some())
}

/// Whole lines of a body.
struct Lines {
    body: Incoming,
    held: BytesMut,
}

impl Lines {
    /// The next whole line; `None` when the connection has ended or broken. A torn line is dropped: the
    /// next connection begins with the run as it is.
    async fn next(&mut self) -> Result<Option<BytesMut>, Failure> {
        loop {
            if let Some(end) = self.held.iter().position(|byte| *byte == b'\n') {
                let line = self.held.split_to(end + 1);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            if self.held.len() > LONGEST_LINE_BYTES {
                return Err(Failure::error("the watch holds a line longer than 16 MiB"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(chunk) = frame.into_data() {
                        self.held.extend_from_slice(&chunk);
                    }
                }
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}
