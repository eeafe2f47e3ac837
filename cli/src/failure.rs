//! How a command fails: what was wrong, what is allowed, what to do next, and the exit code that says
//! so to programs. Every error a user sees passes through here, so that they all read alike.

use platform_proto::http::ErrorBody;
use std::fmt;

/// Exit codes of the command line; `docs/reference/cli.md` lists them for users.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// An error with no code of its own.
    pub const ERROR: u8 = 1;
    /// The command line, or a value on it, is wrong.
    pub const USAGE: u8 = 2;
    /// No token, a wrong one, or one that may not do this.
    pub const FORBIDDEN: u8 = 3;
    /// Nothing has that name.
    pub const NOT_FOUND: u8 = 4;
    /// Admission refused it.
    pub const REFUSED: u8 = 5;
    /// No answer: what was asked may or may not have happened.
    pub const UNAVAILABLE: u8 = 6;
    /// Detached by Ctrl-C; the run goes on.
    pub const DETACHED: u8 = 130;
}

/// The table of exit codes, for the reference page and for `platform --help`.
pub const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "done"),
    ("1", "an error"),
    ("2", "the command line is wrong"),
    ("3", "unauthenticated or forbidden"),
    ("4", "not found"),
    ("5", "refused at admission"),
    ("6", "unavailable: the outcome is unknown"),
    (
        "124",
        "run, wait, logs -f: the time limit ended the workload",
    ),
    (
        "125",
        "run, wait, logs -f: the platform failed it (node lost, launch failed)",
    ),
    ("128+N", "run, wait, logs -f: signal N ended the workload"),
    ("130", "detached by Ctrl-C; the run goes on"),
    ("143", "run, wait, logs -f: the run was cancelled"),
    ("other", "run, wait, logs -f: the workload's own exit code"),
];

/// An error to print and a code to exit with.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// What the process exits with.
    pub exit: u8,
    /// What is printed, in the same shape the server uses.
    pub body: ErrorBody,
}

impl Failure {
    fn new(exit: u8, code: &str, message: impl Into<String>) -> Failure {
        let body = ErrorBody {
            code: code.to_owned(),
            message: message.into(),
            ..ErrorBody::default()
        };
        Failure { exit, body }
    }

    /// An error with no code of its own.
    pub fn error(message: impl Into<String>) -> Failure {
        Failure::new(exit::ERROR, "error", message)
    }

    /// A wrong command line, or a wrong value in a file that stands for one.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(exit::USAGE, "invalid", message)
    }

    /// Something named is not there.
    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(exit::NOT_FOUND, "not-found", message)
    }

    /// No credentials, or wrong ones.
    pub fn unauthenticated(message: impl Into<String>) -> Failure {
        Failure::new(exit::FORBIDDEN, "unauthenticated", message)
    }

    /// No answer came: the outcome is unknown, never "failed".
    pub fn unavailable(message: impl Into<String>) -> Failure {
        Failure::new(exit::UNAVAILABLE, "unavailable", message)
    }

    /// What the server answered.
    pub fn from_server(body: ErrorBody) -> Failure {
        let exit = match body.code.as_str() {
            "invalid" => exit::USAGE,
            "unauthenticated" | "forbidden" => exit::FORBIDDEN,
            "not-found" => exit::NOT_FOUND,
            "refused" => exit::REFUSED,
            "unavailable" => exit::UNAVAILABLE,
            _ => exit::ERROR,
        };
        Failure { exit, body }
    }

    /// Adds what would have been accepted.
    pub fn allowed(mut self, allowed: impl Into<String>) -> Failure {
        self.body.allowed = Some(allowed.into());
        self
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.body.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.body.message)?;
        if let Some(allowed) = &self.body.allowed {
            write!(out, "\n  allowed: {allowed}")?;
        }
        if let Some(hint) = &self.body.hint {
            write!(out, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// An I/O error with the path it is about; `io::Error` alone never says which file.
pub fn on_path<'a>(
    verb: &'a str,
    path: &'a std::path::Path,
) -> impl FnOnce(std::io::Error) -> Failure + 'a {
    move |error| Failure::error(format!("cannot {verb} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_message_then_allowed_then_hint() {
        let failure = Failure::usage("no pool \"gpu\"")
            .allowed("default, big")
            .hint("platform pools list");
        insta::assert_snapshot!(failure, @r#"
        no pool "gpu"
          allowed: default, big
          hint: platform pools list
        "#);
    }

    #[test]
    fn each_server_code_has_the_documented_exit_code() {
        let exits: Vec<u8> = [
            "invalid",
            "unauthenticated",
            "forbidden",
            "not-found",
            "refused",
            "unavailable",
            "internal",
            "conflict",
        ]
        .iter()
        .map(|code| {
            let body = ErrorBody {
                code: (*code).to_owned(),
                ..ErrorBody::default()
            };
            Failure::from_server(body).exit
        })
        .collect();
        assert_eq!(exits, [2, 3, 3, 4, 5, 6, 1, 1]);
    }
}
