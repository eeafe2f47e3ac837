//! For tests only: the launcher, or a whole agent, as a process that can be killed.
//!
//! `agent-harness launcher --socket PATH`, or `agent-harness agent URL FOLDER`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["launcher", "--socket", socket] => agent::launcher::main(Path::new(socket)),
        ["agent", url, folder] => run_agent(url, folder),
        _ => ExitCode::from(2),
    }
}

fn run_agent(url: &str, folder: &str) -> ExitCode {
    let ran = agent::AgentConfig::new(url, "secret", "node-a", folder).and_then(|mut config| {
        config.containers = false;
        config.devices = agent::telemetry::DeviceSource::None;
        tokio::runtime::Runtime::new().map(|runtime| {
            runtime.block_on(agent::run(
                config,
                tokio_util::sync::CancellationToken::new(),
            ))
        })
    });
    match ran {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
