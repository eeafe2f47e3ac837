//! Where the platform is and who asks: flags, then environment, then `client.json` in PLATFORM_HOME.

use crate::failure::{Failure, on_path};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What `client.json` holds. Written by `platform up` and `platform login`, read by the SDK as well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientFile {
    /// Where the platform answers.
    pub url: String,
    /// Bearer token.
    pub token: String,
}

/// Where to ask and with which token.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Without a trailing slash.
    pub url: String,
    /// Bearer token.
    pub token: String,
}

/// $PLATFORM_HOME, else `~/.engineersofai-platform`.
pub fn home() -> Result<PathBuf, Failure> {
    if let Some(home) = std::env::var_os("PLATFORM_HOME").filter(|value| !value.is_empty()) {
        return std::path::absolute(PathBuf::from(home))
            .map_err(|error| Failure::error(format!("PLATFORM_HOME is not usable: {error}")));
    }
    match std::env::var_os("HOME").filter(|value| !value.is_empty()) {
        Some(home) => Ok(PathBuf::from(home).join(".engineersofai-platform")),
        None => Err(Failure::error("neither PLATFORM_HOME nor HOME is set")
            .hint("export PLATFORM_HOME=DIR")),
    }
}

/// The path of `client.json`.
pub fn client_file(home: &Path) -> PathBuf {
    home.join("client.json")
}

/// Reads `client.json`; `None` when there is none.
pub fn read_client_file(home: &Path) -> Result<Option<ClientFile>, Failure> {
    let path = client_file(home);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(on_path("read", &path)(error)),
    };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        Failure::error(format!(
            "{} is not what `platform login` writes: {error}",
            path.display()
        ))
        .hint("platform login --url URL --token TOKEN")
    })
}

/// Writes `client.json` for the user alone, whole or not at all.
pub fn write_client_file(home: &Path, client: &ClientFile) -> Result<PathBuf, Failure> {
    let path = client_file(home);
    std::fs::create_dir_all(home).map_err(on_path("create", home))?;
    let partial = home.join(format!(".client.json.{}", std::process::id()));
    let _ = std::fs::remove_file(&partial);
    let text =
        serde_json::to_string_pretty(client).map_err(|error| Failure::error(error.to_string()))?;
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())
                .and_then(|()| file.write_all(b"\n"))
        })
        .and_then(|()| std::fs::rename(&partial, &path));
    written.map_err(on_path("write", &path))?;
    Ok(path)
}

/// Flags and environment (clap has merged them) over `client.json`.
///
/// A token from the file goes only to the address the file names: `--url` alone must not carry it to
/// a stranger.
pub fn endpoint(
    url: Option<&str>,
    token: Option<&str>,
    file: Option<ClientFile>,
) -> Result<Endpoint, Failure> {
    let trim = |url: &str| url.trim_end_matches('/').to_owned();
    let url = match (url, &file) {
        (Some(url), _) => trim(url),
        (None, Some(file)) => trim(&file.url),
        (None, None) => {
            return Err(Failure::unauthenticated("no platform is known here").hint(
                "start one with `platform up`, or `platform login --url URL --token TOKEN`",
            ));
        }
    };
    let token = match (token, file) {
        (Some(token), _) => token.to_owned(),
        (None, Some(file)) if trim(&file.url) == url => file.token,
        (None, _) => {
            return Err(
                Failure::unauthenticated(format!("no token for {url}")).hint(format!(
                    "platform login --url {url} --token TOKEN, or set PLATFORM_TOKEN"
                )),
            );
        }
    };
    if token.is_empty() || !token.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        return Err(Failure::unauthenticated(
            "the token is empty or has characters that no token has",
        )
        .hint("platform login --url URL --token TOKEN"));
    }
    Ok(Endpoint { url, token })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(url: &str) -> Option<ClientFile> {
        Some(ClientFile {
            url: url.to_owned(),
            token: "secret".to_owned(),
        })
    }

    #[test]
    fn a_token_in_the_file_never_goes_to_another_address() {
        let refused = endpoint(
            Some("http://127.0.0.1:1"),
            None,
            file("http://127.0.0.1:7477"),
        )
        .unwrap_err();
        assert_eq!(refused.exit, crate::failure::exit::FORBIDDEN);
        assert!(
            endpoint(
                Some("http://127.0.0.1:7477/"),
                None,
                file("http://127.0.0.1:7477")
            )
            .is_ok()
        );
    }

    #[test]
    fn flags_win_over_the_file_and_nothing_at_all_says_what_to_do() {
        let flags = endpoint(
            Some("http://localhost:1"),
            Some("t"),
            file("http://127.0.0.1:7477"),
        )
        .unwrap();
        assert_eq!(
            (flags.url.as_str(), flags.token.as_str()),
            ("http://localhost:1", "t")
        );
        insta::assert_snapshot!(endpoint(None, None, None).unwrap_err());
    }

    #[test]
    fn the_client_file_is_for_its_user_alone() {
        let home = tempfile::tempdir().unwrap();
        let written = ClientFile {
            url: "http://127.0.0.1:7477".to_owned(),
            token: "t".to_owned(),
        };
        let path = write_client_file(home.path(), &written).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(read_client_file(home.path()).unwrap(), Some(written));
    }

    #[test]
    fn a_broken_client_file_is_named() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(client_file(home.path()), "{").unwrap();
        assert!(
            read_client_file(home.path())
                .unwrap_err()
                .body
                .message
                .contains("client.json")
        );
    }
}
