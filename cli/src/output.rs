//! The one printer. Standard output carries what was asked for (tables, logs, summaries, JSON);
//! standard error carries what is said beside it (plans, progress, notes, errors). Rendering is done
//! by the pure functions of the modules below; only this file writes.

pub mod amounts;
pub mod decided;
pub mod escapes;
pub mod plan;
pub mod simulated;
pub mod tables;
pub mod views;

use crate::args::Colour;
use crate::failure::{Failure, exit};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Paint {
    /// Whether to colour at all.
    pub on: bool,
    /// Columns of the terminal, which tables keep within; absent where there is none.
    pub columns: Option<u16>,
}

impl Paint {
    fn wrap(self, code: &str, text: &str) -> String {
        if self.on && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// For what matters most.
    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// For errors.
    pub fn red(self, text: &str) -> String {
        self.wrap("31", text)
    }

    /// For what wants care.
    pub fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// A state of a run, a node or a tracked run, in the colour of how it fares.
    pub fn state(self, state: &str) -> String {
        let code = match state {
            "succeeded" | "finished" | "ready" => "32",
            "running" => "36",
            "failed" | "lost" => "31",
            "held" | "queued" | "cordoned" | "draining" | "stopping" => "33",
            _ => return state.to_owned(),
        };
        self.wrap(code, state)
    }
}

/// Owns both streams.
#[derive(Debug, Clone)]
pub struct Printer {
    /// Print JSON.
    pub json: bool,
    /// Print no notes.
    pub quiet: bool,
    /// Colours of standard output.
    pub out: Paint,
    /// Colours of standard error.
    pub err: Paint,
    /// Both streams are a terminal: progress can move.
    pub live: bool,
}

impl Printer {
    /// From the flags of every command, the terminal and NO_COLOR.
    pub fn new(json: bool, quiet: bool, colour: Colour) -> Printer {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let paint = |terminal: bool| Paint {
            columns: terminal.then(tables::terminal_columns).flatten(),
            on: match colour {
                Colour::Always => true,
                Colour::Never => false,
                Colour::Auto => terminal && !no_color,
            },
        };
        let (out, err) = (
            std::io::stdout().is_terminal(),
            std::io::stderr().is_terminal(),
        );
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Printer {
            json,
            quiet,
            out: paint(out),
            err: paint(err),
            live: out && err && !json && !quiet && !dumb,
        }
    }

    /// What was asked for, as text; a newline is added where it lacks one.
    pub fn text(&self, text: &str) {
        self.bytes(text.as_bytes());
        if !text.is_empty() && !text.ends_with('\n') {
            self.bytes(b"\n");
        }
    }

    /// What was asked for, as it is.
    pub fn bytes(&self, bytes: &[u8]) {
        let mut stdout = std::io::stdout().lock();
        if let Err(error) = stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            // `platform ps | head` is no error; a full disk behind `>` is.
            let code = if error.kind() == std::io::ErrorKind::BrokenPipe {
                exit::DONE
            } else {
                exit::ERROR
            };
            if code != exit::DONE {
                self.failure(&Failure::error(format!(
                    "cannot write to standard output: {error}"
                )));
            }
            std::process::exit(i32::from(code));
        }
    }

    /// One document, when JSON is wanted, else `text`.
    pub fn result<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(Paint) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            self.document(value)
        } else {
            self.text(&text(self.out));
            Ok(())
        }
    }

    /// One JSON document.
    pub fn document<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        self.text(
            &serde_json::to_string_pretty(value)
                .map_err(|error| Failure::error(error.to_string()))?,
        );
        Ok(())
    }

    /// One line of a stream of JSON documents.
    pub fn event<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        self.text(
            &serde_json::to_string(value).map_err(|error| Failure::error(error.to_string()))?,
        );
        Ok(())
    }

    /// Something said beside the result.
    pub fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            self.say(text);
        }
    }

    /// An error, always said.
    pub fn failure(&self, failure: &Failure) {
        if self.json {
            let body = serde_json::to_string(&failure.body)
                .unwrap_or_else(|_| failure.body.message.clone());
            self.say(&body);
        } else {
            self.say(&failure_text(failure, self.err));
        }
    }

    /// Something said on standard error whatever the flags.
    pub fn say(&self, text: &str) {
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end_matches('\n'));
    }

    /// A question that wants yes. Refused where nobody can answer.
    pub fn confirm(&self, question: &str) -> Result<(), Failure> {
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err(
                Failure::usage(format!("{question} (there is no terminal to ask on)"))
                    .hint("pass --yes"),
            );
        }
        let _ = write!(std::io::stderr().lock(), "{question} [y/N] ");
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" if read.is_ok() => Ok(()),
            _ => Err(Failure::error("not confirmed, nothing was changed")),
        }
    }

    /// A bar of bytes; hidden where nothing can move.
    pub fn byte_bar(&self, total_bytes: u64, what: &str) -> ProgressBar {
        let bar = self.bar(
            total_bytes,
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}",
        );
        bar.set_message(what.to_owned());
        bar
    }

    /// A bar of `total`, in a template of indicatif; hidden where nothing can move.
    pub fn bar(&self, total: u64, template: &str) -> ProgressBar {
        let target = if self.live {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar
    }
}

/// `error: …`, `  allowed: …`, `  hint: …`.
pub fn failure_text(failure: &Failure, paint: Paint) -> String {
    let mut text = format!("{} {}", paint.red("error:"), failure.body.message);
    if let Some(allowed) = &failure.body.allowed {
        text.push_str(&format!("\n  {} {allowed}", paint.bold("allowed:")));
    }
    if let Some(hint) = &failure.body.hint {
        text.push_str(&format!("\n  {} {hint}", paint.bold("hint:")));
    }
    // Words that came from a server or a file must not steer the terminal.
    let mut strip = escapes::Strip::new(paint.on);
    String::from_utf8_lossy(&strip.push(text.as_bytes())).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_printed_with_what_is_allowed_and_what_to_do() {
        let failure = Failure::usage("tag team is missing")
            .allowed("nlp, vision")
            .hint("--tag team=nlp");
        insta::assert_snapshot!(failure_text(&failure, Paint::default()), @r"
        error: tag team is missing
          allowed: nlp, vision
          hint: --tag team=nlp
        ");
    }

    #[test]
    fn an_error_cannot_steer_the_terminal() {
        let failure = Failure::error("bad\x1b]0;title\x07 \x1b[2Jname");
        assert_eq!(failure_text(&failure, Paint::default()), "error: bad name");
    }
}
