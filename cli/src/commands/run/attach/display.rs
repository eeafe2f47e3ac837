//! How an attached run is shown. On a terminal: the log, and below it one moving line with the newest
//! metrics. Elsewhere: the log on standard output, and plain lines beside it on standard error.

use super::Follow;
use crate::failure::Failure;
use crate::output::escapes::Strip;
use crate::output::tables::plain;
use crate::output::{Printer, views};
use indicatif::{ProgressBar, ProgressStyle};
use platform_proto::http::{MetricLatest, Progress, RunView, WatchLine};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Plain lines of metrics come no faster than this: a log file is to be read.
const METRICS_EVERY: Duration = Duration::from_secs(1);
/// A line longer than this is printed in pieces on a terminal, so that memory has a bound.
const LONGEST_LINE_BYTES: usize = 64 << 10;

/// Shows one run.
pub struct Display<'a> {
    printer: &'a Printer,
    run: RunView,
    states: bool,
    raw: bool,
    strip: Strip,
    bar: Option<ProgressBar>,
    /// On a terminal: what has no newline yet, for the bar must not stand on the same line.
    held: Vec<u8>,
    last_byte: u8,
    shown_state: String,
    metrics: BTreeMap<String, MetricLatest>,
    progress: Option<Progress>,
    unshown: bool,
    metrics_at: Option<Instant>,
    lost: bool,
}

impl<'a> Display<'a> {
    /// Shows `run` from here on.
    pub fn new(printer: &'a Printer, run: &RunView, follow: &Follow) -> Display<'a> {
        let bar = (printer.live && follow.summary).then(|| {
            let bar = printer.bar(0, "{spinner} {wide_msg}");
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let mut display = Display {
            printer,
            run: run.clone(),
            states: follow.summary,
            raw: follow.raw,
            strip: Strip::new(printer.out.on),
            bar,
            held: Vec::new(),
            last_byte: b'\n',
            shown_state: String::new(),
            metrics: BTreeMap::new(),
            progress: None,
            unshown: false,
            metrics_at: None,
            lost: false,
        };
        display.state();
        display
    }

    /// The run has changed.
    pub fn seen(&mut self, line: WatchLine) -> Result<(), Failure> {
        if self.lost {
            self.lost = false;
            self.beside("connected again");
        }
        if self.printer.json && self.states {
            self.printer.event(&line)?;
        }
        self.unshown |=
            line.metrics.keys().any(|key| views::is_own_metric(key)) || line.progress.is_some();
        self.metrics.extend(line.metrics);
        self.progress = line.progress.or_else(|| self.progress.take());
        self.run = line.run;
        if self.run.ended_us.is_some() {
            self.plain_metrics(true);
        }
        self.state();
        self.beat();
        Ok(())
    }

    /// Bytes of the log.
    pub fn log(&mut self, chunk: &[u8]) {
        let shown = if self.raw {
            chunk.to_vec()
        } else {
            self.strip.push(chunk)
        };
        let Some(last) = shown.last() else { return };
        self.last_byte = *last;
        if self.printer.json && self.states {
            // Standard output is for JSON alone.
            self.printer.say(&String::from_utf8_lossy(&shown));
            return;
        }
        let Some(bar) = &self.bar else {
            self.printer.bytes(&shown);
            return;
        };
        self.held.extend_from_slice(&shown);
        let whole = match self.held.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if self.held.len() > LONGEST_LINE_BYTES => self.held.len(),
            None => 0,
        };
        if whole > 0 {
            let rest = self.held.split_off(whole);
            let lines = std::mem::replace(&mut self.held, rest);
            let lines = overwritten(&lines);
            bar.suspend(|| self.printer.bytes(&lines));
        }
        self.beat();
    }

    /// The log of a further attempt begins.
    pub fn attempt(&mut self, number: u32) {
        self.flush();
        self.beside(&format!("attempt {number}"));
    }

    /// Some of the log could not be had.
    pub fn log_incomplete(&mut self) {
        let id = self.run.id.clone();
        self.beside(&format!(
            "the log may be incomplete; later: platform logs {id}"
        ));
    }

    /// The connection is gone.
    pub fn lost(&mut self) {
        if !self.lost {
            self.lost = true;
            self.beside("connection lost; the run goes on, connecting again");
        }
    }

    /// Time has passed: what moves is brought up to date.
    pub fn beat(&mut self) {
        if let Some(bar) = &self.bar {
            bar.set_message(moving_line(
                self.printer,
                &self.run,
                &self.metrics,
                self.progress.as_ref(),
                &self.held,
            ));
            if let Some(progress) = &self.progress
                && let Ok(style) =
                    ProgressStyle::with_template("{spinner} {bar:16} {pos}/{len} {wide_msg}")
            {
                bar.set_style(style.progress_chars("━╸ "));
                bar.set_length(progress.total);
                bar.set_position(progress.done.min(progress.total));
            }
        } else {
            self.plain_metrics(false);
        }
    }

    /// Nothing more is shown.
    pub fn close(&mut self) {
        self.flush();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        // The next words begin on a line of their own; a file gets exactly the log's bytes from `logs`.
        if self.last_byte != b'\n' && (self.states || self.printer.live) && !self.printer.json {
            self.printer.bytes(b"\n");
            self.last_byte = b'\n';
        }
    }

    fn flush(&mut self) {
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            return;
        }
        if let Some(bar) = &self.bar {
            let line = [overwritten(&held).as_slice(), b"\n"].concat();
            bar.suspend(|| self.printer.bytes(&line));
            self.last_byte = b'\n';
        }
    }

    fn state(&mut self) {
        let detail = self
            .run
            .detail
            .as_deref()
            .map(|detail| format!(" ({})", plain(detail)))
            .unwrap_or_default();
        let state = format!("{}{detail}", self.printer.err.state(&self.run.state));
        if self.states && self.bar.is_none() && state != self.shown_state {
            self.beside(&format!("state: {state}"));
            self.shown_state = state;
        }
    }

    fn plain_metrics(&mut self, now: bool) {
        let due = now
            || self
                .metrics_at
                .is_none_or(|at| at.elapsed() >= METRICS_EVERY);
        if !self.unshown || !due || !self.states || self.bar.is_some() {
            return;
        }
        self.unshown = false;
        self.metrics_at = Some(Instant::now());
        let line = metrics_text(&self.metrics, self.progress.as_ref());
        if !line.is_empty() {
            self.beside(&line);
        }
    }

    fn beside(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.printer.note(text)),
            None => self.printer.note(text),
        }
    }
}

/// A line that a bar of the workload's own (tqdm) wrote over and over: only its last state.
fn overwritten(lines: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(lines.len());
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let (text, end) = match line.strip_suffix(b"\n") {
            Some(text) => (text.strip_suffix(b"\r").unwrap_or(text), &b"\n"[..]),
            None => (line, &b""[..]),
        };
        let last = text
            .split(|byte| *byte == b'\r')
            .rfind(|part| !part.is_empty())
            .unwrap_or_default();
        shown.extend_from_slice(last);
        shown.extend_from_slice(end);
    }
    shown
}

/// `metrics: step 3  accuracy=0.91 loss=0.2  (3 of 10)`.
fn metrics_text(metrics: &BTreeMap<String, MetricLatest>, progress: Option<&Progress>) -> String {
    let step = metrics
        .iter()
        .filter(|(key, _)| views::is_own_metric(key))
        .map(|(_, latest)| latest.step)
        .max();
    let done = progress.map(|progress| format!("{} of {}", progress.done, progress.total));
    match (step, done) {
        (Some(step), Some(done)) => format!(
            "metrics: step {step}  {}  ({done})",
            views::metrics_line(metrics, 8)
        ),
        (Some(step), None) => format!("metrics: step {step}  {}", views::metrics_line(metrics, 8)),
        (None, Some(done)) => format!("progress: {done}"),
        (None, None) => String::new(),
    }
}

fn moving_line(
    printer: &Printer,
    run: &RunView,
    metrics: &BTreeMap<String, MetricLatest>,
    progress: Option<&Progress>,
    held: &[u8],
) -> String {
    let mut parts = vec![printer.err.bold(&run.id), printer.err.state(&run.state)];
    match (&run.detail, run.started_us) {
        (Some(detail), None) => parts.push(plain(detail)),
        (_, Some(start)) => parts.push(crate::output::amounts::duration(
            crate::output::amounts::now_us().saturating_sub(start),
        )),
        (None, None) => {}
    }
    let line = views::metrics_line(metrics, 4);
    if !line.is_empty() {
        parts.push(line);
    } else if progress.is_none() && !held.is_empty() {
        // A log with no newline is still seen.
        let tail = Strip::new(false).push(&overwritten(held));
        parts.push(
            plain(&String::from_utf8_lossy(&tail))
                .chars()
                .take(60)
                .collect(),
        );
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_of_the_workloads_own_shows_its_last_state() {
        assert_eq!(
            overwritten(b"10%\r20%\r30%\ndone\r\n\rnext"),
            b"30%\ndone\nnext"
        );
    }

    #[test]
    fn metrics_are_one_plain_line() {
        let latest = |value, step| MetricLatest {
            step,
            value,
            count: 1,
        };
        let metrics = [
            ("loss".to_owned(), latest(0.25, 3)),
            ("accuracy".to_owned(), latest(f64::NAN, 2)),
            ("system/cpu".to_owned(), latest(9.0, 99)),
        ]
        .into();
        assert_eq!(
            metrics_text(&metrics, Some(&Progress { done: 3, total: 10 })),
            "metrics: step 3  accuracy=NaN loss=0.25  (3 of 10)"
        );
        assert_eq!(metrics_text(&BTreeMap::new(), None), "");
    }
}
