//! Reads logs for those who ask: from an offset, and on as they grow.
//!
//! Chunks are at most 64 KiB and wait for the session to take them, so a slow reader costs no memory. A
//! log is bytes: half a line, terminal escapes and broken UTF-8 travel as they are.

use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use platform_proto::agent as wire;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const CHUNK_BYTES: usize = 64 << 10;
/// Only where inotify has run out of watches is a log looked at this often.
const POLL: Duration = Duration::from_millis(500);
const CUT: &str = "log.cut";

/// The part of a log that was dropped to keep within the node's cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Cut {
    /// First byte dropped.
    pub(crate) from: u64,
    /// First byte kept again.
    pub(crate) to: u64,
}

impl Cut {
    /// The line a reader sees in place of what was dropped.
    pub(crate) fn marker(self) -> String {
        format!(
            "\n[platform: {} bytes of this log were dropped here, it passed the node's cap]\n",
            self.to - self.from
        )
    }
}

/// The cut of an attempt's log, if it has one.
pub(crate) fn cut(folder: &Path) -> Option<Cut> {
    serde_json::from_slice(&fs::read(folder.join(CUT)).ok()?).ok()
}

/// Keeps a log within `cap_bytes` by giving back the disk of its middle: the first half of the cap and
/// the last half stay. Offsets stay true, because the file keeps its length.
pub(crate) fn enforce_cap(folder: &Path, cap_bytes: u64) -> io::Result<()> {
    let log = folder.join("log");
    let length = match fs::metadata(&log) {
        Ok(about) => about.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let half = cap_bytes / 2;
    let before = cut(folder).map_or(half, |cut| cut.to);
    // A quarter of slack, so that a steady writer is not cut at every look.
    if length - before.min(length) <= half + half / 2 {
        return Ok(());
    }
    let cut = Cut {
        from: half,
        to: length - half,
    };
    // The record first: a reader must not take the hole for zeros that the workload wrote.
    crate::launcher::replace(folder, CUT, &serde_json::to_vec(&cut)?)?;
    let file = OpenOptions::new().write(true).open(log)?;
    rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE,
        cut.from,
        cut.to - cut.from,
    )?;
    Ok(())
}

/// Adds a line of the platform's own to a log, on a line of its own.
pub(crate) fn note(log: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .open(log)?;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    let before = if last == *b"\n" { "" } else { "\n" };
    // One write, so that it stays whole beside what the workload writes.
    file.write_all(format!("{before}[platform: {text}]\n").as_bytes())
}

/// One piece of a log as a reader sees it, and the offset after it.
pub(crate) fn read_at(folder: &Path, file: &File, offset: u64) -> io::Result<(Vec<u8>, u64)> {
    let cut = cut(folder);
    let mut most = CHUNK_BYTES;
    if let Some(cut) = cut {
        if (cut.from..cut.to).contains(&offset) {
            return Ok((cut.marker().into_bytes(), cut.to));
        }
        if offset < cut.from {
            most = usize::try_from(cut.from - offset).unwrap_or(most).min(most);
        }
    }
    let mut content = vec![0; most];
    let read = file.read_at(&mut content, offset)?;
    content.truncate(read);
    Ok((content, offset + read as u64))
}

/// Answers one log request until its end. `ended` says that the workload writes no more.
pub(crate) async fn serve(
    request: u64,
    folder: std::path::PathBuf,
    mut offset: u64,
    follow: bool,
    ended: CancellationToken,
    out: mpsc::Sender<wire::AgentMessage>,
) {
    let chunk = |offset, content, end, error: String| {
        let message = wire::AgentMessage {
            message: Some(wire::agent_message::Message::LogChunk(wire::LogChunk {
                request,
                offset,
                content,
                end,
                error,
                absent: false,
            })),
        };
        let out = out.clone();
        async move { out.send(message).await.is_ok() }
    };
    // The folder is watched, because the log may not be there yet.
    let mut changes = if follow { watch(&folder) } else { None };
    loop {
        // Read after this look: what was written before the end is seen before we stop.
        let last = !follow || ended.is_cancelled();
        match File::open(folder.join("log")) {
            Ok(file) => loop {
                match read_at(&folder, &file, offset) {
                    Ok((content, _)) if content.is_empty() => break,
                    Ok((content, next)) => {
                        if !chunk(offset, content, false, String::new()).await {
                            return;
                        }
                        offset = next;
                    }
                    Err(error) => {
                        let _ = chunk(offset, Vec::new(), true, error.to_string()).await;
                        return;
                    }
                }
            },
            // A run that wrote nothing yet has an empty log.
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder.exists() => {}
            Err(error) => {
                let text = format!("the log is gone from this node: {error}");
                let _ = chunk(offset, Vec::new(), true, text).await;
                return;
            }
        }
        if last {
            let _ = chunk(offset, Vec::new(), true, String::new()).await;
            return;
        }
        let change = async {
            match &mut changes {
                Some(changes) => {
                    let _ = changes.next().await;
                }
                None => tokio::time::sleep(POLL).await,
            }
        };
        tokio::select! {
            () = change => {}
            () = ended.cancelled() => {}
            () = out.closed() => return,
        }
    }
}

fn watch(folder: &Path) -> Option<inotify::EventStream<[u8; 4096]>> {
    let inotify = Inotify::init().ok()?;
    inotify
        .watches()
        .add(
            folder,
            WatchMask::MODIFY | WatchMask::CREATE | WatchMask::DELETE_SELF,
        )
        .ok()?;
    inotify.into_event_stream([0; 4096]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    async fn collect(messages: &mut mpsc::Receiver<wire::AgentMessage>) -> (Vec<u8>, String) {
        let mut all = Vec::new();
        while let Some(message) = messages.recv().await {
            let Some(wire::agent_message::Message::LogChunk(chunk)) = message.message else {
                continue;
            };
            assert!(chunk.content.len() <= CHUNK_BYTES);
            all.extend_from_slice(&chunk.content);
            if chunk.end {
                return (all, chunk.error);
            }
        }
        panic!("the log ended without saying so");
    }

    #[tokio::test]
    async fn a_followed_log_without_a_newline_and_with_escapes_arrives_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let (out, mut messages) = mpsc::channel(4);
        let ended = CancellationToken::new();
        let serving = tokio::spawn(serve(
            1,
            folder.path().to_owned(),
            0,
            true,
            ended.clone(),
            out,
        ));
        let piece = b"\x1b[2K\r\xff\xfe 50%".repeat(20_000);
        let mut file = File::create(folder.path().join("log")).unwrap();
        for _ in 0..3 {
            file.write_all(&piece).unwrap();
            tokio::task::yield_now().await;
        }
        let ender = tokio::spawn(async move { ended.cancel() });
        let (all, error) = collect(&mut messages).await;
        ender.await.unwrap();
        serving.await.unwrap();
        assert_eq!(error, "");
        assert_eq!(all, piece.repeat(3));
    }

    #[tokio::test]
    async fn a_log_past_the_cap_shows_where_it_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("log"), vec![b'a'; 1_000_000]).unwrap();
        enforce_cap(folder.path(), 200_000).unwrap();
        let (out, mut messages) = mpsc::channel(4);
        let ended = CancellationToken::new();
        tokio::spawn(serve(1, folder.path().to_owned(), 0, false, ended, out));
        let (all, _) = collect(&mut messages).await;
        let text = String::from_utf8(all).unwrap();
        assert!(text.contains("800000 bytes of this log were dropped here"));
        assert!(text.len() < 201_000 && !text.contains('\0'));
    }

    #[tokio::test]
    async fn a_log_that_is_gone_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (out, mut messages) = mpsc::channel(4);
        let gone = folder.path().join("gone");
        tokio::spawn(serve(1, gone, 0, true, CancellationToken::new(), out));
        let (_, error) = collect(&mut messages).await;
        assert!(error.contains("gone from this node"), "{error}");
    }
}
