//! What the agent and the launcher say to each other: frames of JSON behind a length, on a unix socket.
//!
//! Both ends come from the same build in the common case, and from two builds after an upgrade: fields
//! may be added, none may change its meaning.

use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// Largest frame. A start is a few kilobytes; the agent sends at most a few hundred at once.
pub const FRAME_LIMIT_BYTES: usize = 64 << 20;

/// From the agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Start these, each at most once ever.
    Start(Vec<StartRequest>),
    /// Signal the process group of a live one.
    Signal {
        /// Name.
        name: String,
        /// Number.
        signal: i32,
    },
}

/// One workload to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartRequest {
    /// `run-17-1-0`.
    pub name: String,
    /// Attempt folder: `log`, `started.json` and `exit.json` go there.
    pub folder: PathBuf,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it starts.
    pub working_folder: PathBuf,
    /// All of its environment.
    pub environment: Vec<(String, String)>,
    /// `cgroup.procs` files it must be in before it runs.
    #[serde(default)]
    pub control_groups: Vec<PathBuf>,
}

/// From the launcher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// First on every connection: what lives.
    Table(Vec<Running>),
    /// What happened, in order.
    Events(Vec<Event>),
}

/// A live workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Name.
    pub name: String,
    /// Its process, leader of its group.
    pub process: u32,
    /// CLOCK_BOOTTIME.
    pub started_boottime_us: u64,
    /// Wall clock.
    pub at_us: u64,
}

/// What happened to a workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// It lives, or lived already when asked for again.
    Started(Running),
    /// It could not be started and never will.
    Failed {
        /// Name.
        name: String,
        /// For the user.
        message: String,
        /// The node's fault.
        node_fault: bool,
    },
    /// It has ended.
    Ended {
        /// Name.
        name: String,
        /// How; also in `exit.json`.
        exit: ExitRecord,
    },
}

/// `exit.json`: how a workload ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit code, unless signalled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Signal, unless exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// It never started, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// With `failed`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub node_fault: bool,
    /// Nobody saw how it ended, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// Wall clock.
    pub at_us: u64,
}

/// Appends one frame to a buffer.
pub fn encode(message: &impl Serialize, buffer: &mut Vec<u8>) -> io::Result<()> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    serde_json::to_writer(&mut *buffer, message)?;
    let length = buffer.len() - start - 4;
    let length = u32::try_from(length)
        .ok()
        .filter(|length| *length as usize <= FRAME_LIMIT_BYTES)
        .ok_or_else(|| io::Error::other(format!("a frame of {length} bytes is too long")))?;
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Takes the first whole frame off a buffer, if there is one.
pub fn decode<T: for<'a> Deserialize<'a>>(buffer: &mut Vec<u8>) -> io::Result<Option<T>> {
    let Some(head) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*head) as usize;
    if length > FRAME_LIMIT_BYTES {
        return Err(io::Error::other(format!(
            "a frame of {length} bytes, the limit is {FRAME_LIMIT_BYTES}"
        )));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let message = serde_json::from_slice(&buffer[4..4 + length])?;
    buffer.drain(..4 + length);
    Ok(Some(message))
}
