//! The bytes of log entries and snapshots. Each begins with a version, and an unknown one is refused
//! loudly: a record that cannot be read must never be skipped.

use coordinator_core::state::{Entry, State};
use protobuf::Message as _;
use raft::eraftpb::SnapshotMetadata;
use std::io::{Read, Write};

/// First byte of every log entry written by this version.
pub const ENTRY_VERSION: u8 = 1;

/// First byte of every snapshot written by this version.
pub const SNAPSHOT_VERSION: u8 = 1;

/// Longest metadata that a snapshot may announce: a membership of thousands fits in it.
const METADATA_BYTES_MAX: u32 = 64 * 1024;

/// Why bytes could not be turned into an entry or a snapshot, or the other way about.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Nothing there.
    #[error("empty record where a version byte was expected")]
    Empty,
    /// Written by a newer or foreign version.
    #[error(
        "unknown {what} version {found}, this binary reads version {known}; run the version that wrote it"
    )]
    UnknownVersion {
        /// `log entry` or `snapshot`.
        what: &'static str,
        /// What was found.
        found: u8,
        /// What is understood.
        known: u8,
    },
    /// The body does not decode.
    #[error("cannot decode {what}: {source}")]
    Decode {
        /// `log entry` or `snapshot`.
        what: &'static str,
        /// The decoder's reason.
        source: rmp_serde::decode::Error,
    },
    /// The body does not encode.
    #[error("cannot encode {what}: {source}")]
    Encode {
        /// `log entry` or `snapshot`.
        what: &'static str,
        /// The encoder's reason.
        source: rmp_serde::encode::Error,
    },
    /// The metadata of a snapshot is malformed.
    #[error("malformed snapshot metadata: {0}")]
    Metadata(String),
    /// Reading or writing failed underneath.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// An entry as it stands in the log: version byte, then MessagePack with named fields, so that a
/// field added later with a default reads older entries.
pub fn encode_entry(entry: &Entry) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(256);
    bytes.push(ENTRY_VERSION);
    rmp_serde::encode::write_named(&mut bytes, entry).map_err(|source| CodecError::Encode {
        what: "log entry",
        source,
    })?;
    Ok(bytes)
}

/// The reverse of [`encode_entry`].
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, CodecError> {
    let (&version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != ENTRY_VERSION {
        return Err(CodecError::UnknownVersion {
            what: "log entry",
            found: version,
            known: ENTRY_VERSION,
        });
    }
    rmp_serde::from_slice(body).map_err(|source| CodecError::Decode {
        what: "log entry",
        source,
    })
}

/// Writes a snapshot: version byte, length and bytes of raft's metadata (index, term, membership),
/// then the state as MessagePack with named fields. Streams; the whole is never held in memory.
pub fn write_snapshot(
    mut writer: impl Write,
    metadata: &SnapshotMetadata,
    state: &State,
) -> Result<(), CodecError> {
    let metadata = metadata
        .write_to_bytes()
        .map_err(|error| CodecError::Metadata(error.to_string()))?;
    let length = u32::try_from(metadata.len()).unwrap_or(u32::MAX);
    if length > METADATA_BYTES_MAX {
        return Err(CodecError::Metadata(format!(
            "{length} bytes, at most {METADATA_BYTES_MAX}"
        )));
    }
    writer.write_all(&[SNAPSHOT_VERSION])?;
    writer.write_all(&length.to_le_bytes())?;
    writer.write_all(&metadata)?;
    rmp_serde::encode::write_named(&mut writer, state).map_err(|source| CodecError::Encode {
        what: "snapshot",
        source,
    })?;
    Ok(())
}

/// The reverse of [`write_snapshot`].
pub fn read_snapshot(mut reader: impl Read) -> Result<(SnapshotMetadata, State), CodecError> {
    let mut version = [0; 1];
    reader.read_exact(&mut version)?;
    if version[0] != SNAPSHOT_VERSION {
        return Err(CodecError::UnknownVersion {
            what: "snapshot",
            found: version[0],
            known: SNAPSHOT_VERSION,
        });
    }
    let mut length = [0; 4];
    reader.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > METADATA_BYTES_MAX {
        return Err(CodecError::Metadata(format!(
            "{length} bytes announced, at most {METADATA_BYTES_MAX}"
        )));
    }
    let mut metadata = vec![0; length as usize];
    reader.read_exact(&mut metadata)?;
    let metadata = SnapshotMetadata::parse_from_bytes(&metadata)
        .map_err(|error| CodecError::Metadata(error.to_string()))?;
    let state = rmp_serde::from_read(reader).map_err(|source| CodecError::Decode {
        what: "snapshot",
        source,
    })?;
    Ok((metadata, state))
}

/// A snapshot in memory, as carried between members.
pub fn encode_snapshot(metadata: &SnapshotMetadata, state: &State) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    write_snapshot(&mut bytes, metadata, state)?;
    Ok(bytes)
}
