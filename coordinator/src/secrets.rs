//! Random secrets, and the files that keep the local ones.

use crate::api::hash_secret;
use crate::driver::DriverHandle;
use crate::{CoordinatorError, now_us};
use coordinator_core::model::{Role, TenantName, Token, UserName};
use coordinator_core::state::{Command, Event};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// No randomness could be had from the kernel.
#[derive(Debug, thiserror::Error)]
#[error("the kernel gave no random bytes: {0}")]
pub struct NoRandomness(String);

impl From<NoRandomness> for crate::api::ApiError {
    fn from(error: NoRandomness) -> Self {
        Self::internal(error.to_string())
    }
}

fn random_hex(bytes: usize) -> Result<String, NoRandomness> {
    let mut random = vec![0_u8; bytes];
    getrandom::fill(&mut random).map_err(|error| NoRandomness(error.to_string()))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A fresh bearer token: 256 random bits, with a prefix that secret scanners can know.
pub fn token_secret() -> Result<String, NoRandomness> {
    Ok(format!("plt_{}", random_hex(32)?))
}

/// A fresh id of a token.
pub fn token_id() -> Result<String, NoRandomness> {
    Ok(format!("token-{}", random_hex(6)?))
}

/// The secret kept in `path`, made and registered when there is none, or when the state does not
/// know it (a folder whose log was lost).
pub async fn ensure_local_token(
    driver: &DriverHandle,
    path: &Path,
    user: &str,
    role: Role,
) -> Result<String, CoordinatorError> {
    let file_error = |source| CoordinatorError::File {
        path: path.to_owned(),
        source,
    };
    let secret = match std::fs::read_to_string(path) {
        Ok(text) if text.trim().len() >= 32 => text.trim().to_owned(),
        Ok(_) => write_secret(path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => write_secret(path)?,
        Err(error) => return Err(file_error(error)),
    };
    let hash = hash_secret(&secret);
    if driver.read(|state| state.tokens().contains_key(&hash)) {
        return Ok(secret);
    }
    let token = Token {
        id: token_id().map_err(|error| file_error(std::io::Error::other(error)))?,
        user: UserName::new(user).map_err(|error| file_error(std::io::Error::other(error)))?,
        tenant: TenantName::default_tenant(),
        role,
        created_us: now_us(),
        expires_us: None,
        revoked: false,
    };
    let applied = driver
        .propose(
            crate::leader::LEADER.to_owned(),
            None,
            Command::CreateToken { hash, token },
        )
        .await
        .map_err(|error| CoordinatorError::Start(error.to_string()))?;
    match applied.events.first() {
        Some(Event::Rejected { refusal }) => Err(CoordinatorError::Start(refusal.message.clone())),
        _ => Ok(secret),
    }
}

/// Written whole and private from its first byte, then renamed into place.
fn write_secret(path: &Path) -> Result<String, CoordinatorError> {
    let file_error = |source| CoordinatorError::File {
        path: path.to_owned(),
        source,
    };
    let secret = token_secret().map_err(|error| file_error(std::io::Error::other(error)))?;
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file: File = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(secret.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(file_error)?;
    Ok(secret)
}
