//! Copies a container's output into the attempt's log, each byte once, also over restarts of the agent.
//!
//! The engine gives the same bytes in the same order every time it is asked from the start. So the log
//! file itself is the cursor: what it holds beyond the length it had when the container was created (a
//! label of the container says it) has been copied, and that many bytes are skipped. A timestamp would
//! not do: the pieces of a long line share one, and two streams may write theirs out of order.

use super::engine::{Engine, Found};
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::LogsOptionsBuilder;
use futures::StreamExt;
use std::io;
use std::path::Path;
use tokio::fs::OpenOptions;
use tokio::io::AsyncWriteExt;

/// Why copying broke off. It can always be taken up again.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error("the engine's stream broke off: {0}")]
    Engine(#[from] Error),
    #[error("cannot append to the log: {0}")]
    File(#[from] io::Error),
}

/// Copies up to what there is now, or with `follow` until the container ends.
pub(super) async fn copy(
    engine: &Engine,
    container: &Found,
    path: &Path,
    follow: bool,
) -> Result<(), CopyError> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .await?;
    let held = file.metadata().await?.len();
    let mut skip = held.saturating_sub(container.log_base);
    let options = LogsOptionsBuilder::default()
        .stdout(true)
        .stderr(true)
        .follow(follow)
        .build();
    let mut output = std::pin::pin!(engine.client().logs(&container.id, Some(options)));
    while let Some(piece) = output.next().await {
        let message = match piece? {
            LogOutput::StdOut { message }
            | LogOutput::StdErr { message }
            | LogOutput::Console { message } => message,
            LogOutput::StdIn { .. } => continue,
        };
        let fresh = rest(&message, &mut skip);
        if !fresh.is_empty() {
            file.write_all(fresh).await?;
            // Followers read the file: what the workload said must not wait in a buffer.
            file.flush().await?;
        }
    }
    Ok(())
}

/// What of a piece lies beyond the bytes to skip.
fn rest<'a>(piece: &'a [u8], skip: &mut u64) -> &'a [u8] {
    let skipped = usize::try_from(*skip).map_or(piece.len(), |skip| skip.min(piece.len()));
    *skip -= skipped as u64;
    &piece[skipped..]
}

#[cfg(test)]
mod tests {
    use super::rest;

    #[test]
    fn copying_goes_on_within_a_piece_that_was_torn() {
        let mut skip = 7;
        assert_eq!(rest(b"first", &mut skip), b"");
        assert_eq!(rest(b"second", &mut skip), b"cond");
        assert_eq!(rest(b"third", &mut skip), b"third");
    }
}
