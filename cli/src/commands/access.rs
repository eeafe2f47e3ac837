//! Who asks: `whoami`, `login`, `logout`, `tokens`.

use super::Outcome;
use crate::client::{Client, escape};
use crate::config::{self, ClientFile, Endpoint};
use crate::failure::{Failure, exit, on_path};
use crate::output::{Printer, amounts, views};
use http::Method;
use platform_proto::http::{TokenCreated, TokenList, TokenRequest, TokenView, Whoami};
use std::io::{IsTerminal, Read};
use std::path::Path;

/// `platform whoami`.
pub async fn whoami(client: &Client, printer: &Printer) -> Outcome {
    let whoami: Whoami = client.get("/v1/whoami").await?;
    printer.result(&whoami, |_| views::whoami(&whoami, client.url()))?;
    Ok(exit::DONE)
}

/// `platform login`: tries the token, then keeps it.
pub async fn login(
    printer: &Printer,
    home: &Path,
    url: Option<String>,
    token: Option<String>,
) -> Outcome {
    let known = config::read_client_file(home).ok().flatten();
    let url = url.or_else(|| known.map(|file| file.url)).ok_or_else(|| {
        Failure::usage("no --url, and no platform was known here before")
            .hint("platform login --url URL --token TOKEN")
    })?;
    let token = match token {
        Some(token) => token,
        None => read_token(printer)?,
    };
    let endpoint: Endpoint = config::endpoint(Some(&url), Some(token.trim()), None)?;
    let client = Client::new(endpoint.clone())?;
    let whoami: Whoami = client.get("/v1/whoami").await?;
    let path = config::write_client_file(
        home,
        &ClientFile {
            url: endpoint.url.clone(),
            token: endpoint.token,
        },
    )?;
    printer.result(&whoami, |_| views::whoami(&whoami, &endpoint.url))?;
    printer.note(&format!("remembered in {}", path.display()));
    Ok(exit::DONE)
}

fn read_token(printer: &Printer) -> Result<String, Failure> {
    if std::io::stdin().is_terminal() {
        printer.say("token (from `platform tokens create`), then Enter:");
        let mut line = String::new();
        std::io::stdin()
            .read_line(&mut line)
            .map_err(|error| Failure::error(format!("cannot read the token: {error}")))?;
        return Ok(line.trim().to_owned());
    }
    // A token is a line; more than this on standard input is a mistake.
    let mut text = String::new();
    std::io::stdin()
        .take(64 << 10)
        .read_to_string(&mut text)
        .map_err(|error| {
            Failure::error(format!(
                "cannot read the token from standard input: {error}"
            ))
        })?;
    Ok(text.trim().to_owned())
}

/// `platform logout`.
pub fn logout(printer: &Printer, home: &Path) -> Outcome {
    let path = config::client_file(home);
    match std::fs::remove_file(&path) {
        Ok(()) => printer.note(&format!("forgot the token in {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            printer.note("no token was kept here")
        }
        Err(error) => return Err(on_path("remove", &path)(error)),
    }
    if printer.json {
        printer.document(&serde_json::json!({}))?;
    }
    Ok(exit::DONE)
}

/// `platform tokens list`.
pub async fn list_tokens(client: &Client, printer: &Printer) -> Outcome {
    let list: TokenList = client.get("/v1/tokens").await?;
    printer.result(&list, |paint| {
        views::tokens(&list, amounts::now_us(), paint)
    })?;
    Ok(exit::DONE)
}

/// `platform tokens create`: the secret alone on standard output.
pub async fn create_token(client: &Client, printer: &Printer, request: TokenRequest) -> Outcome {
    let created: TokenCreated = client.change(Method::POST, "/v1/tokens", &request).await?;
    let token = &created.token;
    printer.note(&format!(
        "{} for {} as {}; shown this once, keep it:",
        token.id, token.user, token.role
    ));
    printer.result(&created, |_| created.secret.clone())?;
    Ok(exit::DONE)
}

/// `platform tokens revoke`.
pub async fn revoke_token(client: &Client, printer: &Printer, id: &str) -> Outcome {
    let token: TokenView = client.delete(&format!("/v1/tokens/{}", escape(id))).await?;
    printer.result(&token, |_| {
        format!("{} of {} is revoked", token.id, token.user)
    })?;
    Ok(exit::DONE)
}
