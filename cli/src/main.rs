//! The one binary: parses, dispatches, exits. Each command takes plain values; this file is where the
//! command line's types end. No runtime is started before a command needs one, so that `--version`
//! and completion cost nothing.

mod args;
mod client;
mod commands;
mod config;
mod dispatch;
mod failure;
mod output;
mod pack;
mod parse;
mod priorities;
mod project;
#[cfg(test)]
mod snapshots;

use clap::Parser;
use output::Printer;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let global = &cli.global;
    let printer = Printer::new(global.json, global.quiet, global.color);
    match dispatch::dispatch(&printer, cli.global.clone(), cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            printer.failure(&failure);
            ExitCode::from(failure.exit)
        }
    }
}
