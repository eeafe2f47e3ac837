//! What can go wrong with the tracking store, in the words its callers answer with.

/// Why the tracking store refused or failed. Nothing of a refused or failed call is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrackingError {
    /// The lines do not continue what is stored; send again from `watermark + 1`.
    #[error(
        "sequence {given} of writer {writer} does not follow {watermark}; send again from {}",
        watermark + 1
    )]
    Gap {
        /// Who wrote the lines.
        writer: String,
        /// First sequence that does not follow.
        given: u64,
        /// Highest sequence stored.
        watermark: u64,
    },
    /// The call itself is malformed: a run id, a writer, or a line that carries no sequence.
    #[error("{0}")]
    Invalid(String),
    /// More bytes than one call may carry.
    #[error("{given} bytes in one call, at most {limit}; send fewer lines at a time")]
    TooLarge {
        /// What came.
        given: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The disk under the store is full. Nothing was stored; send again once there is room.
    #[error("the disk of the tracking store is full; free some space, nothing was lost")]
    DiskFull,
    /// The store could not answer. Nothing is known to be stored.
    #[error("the tracking store is unavailable: {0}")]
    Unavailable(String),
}

impl From<sqlx::Error> for TrackingError {
    fn from(error: sqlx::Error) -> Self {
        // SQLITE_FULL is 13; extended codes keep the primary one in the low byte.
        let full = error
            .as_database_error()
            .and_then(|database| database.code())
            .and_then(|code| code.parse::<u32>().ok())
            .is_some_and(|code| code & 0xff == 13);
        if full {
            Self::DiskFull
        } else {
            Self::Unavailable(error.to_string())
        }
    }
}

impl From<sqlx::migrate::MigrateError> for TrackingError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Unavailable(format!("its schema cannot be brought up to date: {error}"))
    }
}
