//! `platform runs logs`: what a run wrote, until now or until it ends.

use crate::client::{Client, root_cause, with_query};
use crate::commands::Outcome;
use crate::commands::run::attach::{self, Follow};
use crate::failure::{Failure, exit};
use crate::output::Printer;
use crate::output::escapes::Strip;
use http_body_util::BodyExt;
use platform_proto::http::RunView;

/// Which log, and how to show it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Run.
    pub run: String,
    /// Try; the last where absent.
    pub attempt: Option<u32>,
    /// Member of the gang.
    pub member: u32,
    /// Keep terminal escapes.
    pub raw: bool,
}

/// Where a log is read from `offset`.
pub fn path(run: &str, attempt: Option<u32>, member: u32, offset: u64, follow: bool) -> String {
    let query = [
        ("offset", Some(offset.to_string())),
        ("follow", follow.then(|| "true".to_owned())),
        ("attempt", attempt.map(|attempt| attempt.to_string())),
        ("member", Some(member.to_string())),
    ];
    with_query(&format!("/v1/runs/{run}/logs"), &query)
}

/// Prints what the log holds now. A connection that breaks is taken up at the byte it broke at.
pub async fn print(client: &Client, printer: &Printer, wanted: &Wanted) -> Outcome {
    let mut strip = Strip::new(printer.out.on);
    let (mut offset, mut breaks, mut last) = (0u64, 0, b'\n');
    loop {
        let mut body = client
            .stream(&path(
                &wanted.run,
                wanted.attempt,
                wanted.member,
                offset,
                false,
            ))
            .await?;
        let broken = loop {
            match body.frame().await {
                None => break None,
                Some(Err(error)) => break Some(root_cause(&error)),
                Some(Ok(frame)) => {
                    let Ok(chunk) = frame.into_data() else {
                        continue;
                    };
                    offset += chunk.len() as u64;
                    let shown = if wanted.raw {
                        chunk.to_vec()
                    } else {
                        strip.push(&chunk)
                    };
                    last = shown.last().copied().unwrap_or(last);
                    printer.bytes(&shown);
                }
            }
        };
        match broken {
            None => break,
            Some(why) if breaks >= 5 => {
                return Err(Failure::unavailable(format!(
                    "the log broke off at byte {offset}: {why}"
                )));
            }
            Some(_) => breaks += 1,
        }
    }
    if printer.live && last != b'\n' {
        printer.bytes(b"\n");
    }
    Ok(exit::DONE)
}

/// Prints the log until the run ends; exits as the run did.
pub async fn follow(client: &Client, printer: &Printer, wanted: &Wanted) -> Outcome {
    let run: RunView = client.get(&format!("/v1/runs/{}", wanted.run)).await?;
    let follow = Follow {
        attempt: wanted.attempt,
        member: wanted.member,
        raw: wanted.raw,
        summary: false,
    };
    attach::attach(client, printer, run, follow).await
}
