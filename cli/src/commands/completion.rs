//! `platform completion` and the hidden command that writes the reference page: both read nothing
//! but the command line's own definition.

use crate::args::Cli;
use crate::failure::EXIT_CODES;
use clap::CommandFactory;

/// The completion script of a shell.
pub fn script(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "platform", &mut script);
    script
}

/// `docs/reference/cli.md`: the help of every command, and the exit codes.
pub fn reference() -> String {
    let mut page = String::from(
        "# The command line\n\nWritten by `platform reference`; a test keeps it equal to the binary's own help.\n\n\
         ## Exit codes\n\n| code | meaning |\n|---|---|\n",
    );
    for (code, meaning) in EXIT_CODES {
        page.push_str(&format!("| {code} | {meaning} |\n"));
    }
    page.push_str(
        "\n## Streams\n\nStandard output carries what was asked for: tables, logs, the summary of a run, JSON. \
         Standard error carries what is said beside it: plans, progress, notes, errors. With `--json` an error is \
         one JSON object on standard error.\n\n\
         ## Where the platform is\n\n`--url` and `--token`, else PLATFORM_URL and PLATFORM_TOKEN, else \
         `$PLATFORM_HOME/client.json` (default `~/.engineersofai-platform/client.json`), which `platform up` and \
         `platform login` write.\n",
    );
    for (path, help) in helps() {
        page.push_str(&format!("\n## {path}\n\n```text\n{help}```\n"));
    }
    page
}

/// The help of every command that is not hidden, by its full name.
pub fn helps() -> Vec<(String, String)> {
    let mut helps = Vec::new();
    // A fixed width, so that neither a terminal nor a test changes the page.
    collect(Cli::command().term_width(100), "platform", &mut helps);
    helps
}

fn collect(mut command: clap::Command, path: &str, helps: &mut Vec<(String, String)>) {
    command.build();
    let lines: Vec<String> = command
        .render_long_help()
        .to_string()
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    helps.push((path.to_owned(), lines.concat()));
    for nested in command
        .get_subcommands()
        .filter(|nested| !nested.is_hide_set())
    {
        let path = format!("{path} {}", nested.get_name());
        collect(nested.clone().term_width(100), &path, helps);
    }
}
