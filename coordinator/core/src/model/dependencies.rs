//! What a run is submitted to follow: another run or array, and how that must have ended.
//!
//! Written as people write it, `run-17:ok`, on the command line, in JSON and in the log alike.

use super::{ArrayId, InvalidName, RunId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What is submitted by one command and can be followed as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Submission {
    /// A run, which may be an element of an array.
    Run(RunId),
    /// An array.
    Array(ArrayId),
}

/// What must have ended before a run may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Dependency {
    /// What goes before.
    pub before: Submission,
    /// How it must have ended.
    pub condition: Condition,
}

/// How a run or an array must have ended for what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// With success, of every element; once that cannot be any more, what follows ends too.
    Ok,
    /// However it ended.
    Any,
}

impl fmt::Display for Submission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(run) => run.fmt(formatter),
            Self::Array(array) => array.fmt(formatter),
        }
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let condition = match self.condition {
            Condition::Ok => "ok",
            Condition::Any => "any",
        };
        write!(formatter, "{}:{condition}", self.before)
    }
}

impl FromStr for Dependency {
    type Err = InvalidName;

    /// Reads `RUN`, `RUN:ok` or `RUN:any`, and the same of an array; without a word it is `ok`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (before, condition) = match text.split_once(':') {
            None => (text, Some(Condition::Ok)),
            Some((before, "ok")) => (before, Some(Condition::Ok)),
            Some((before, "any")) => (before, Some(Condition::Any)),
            Some((before, _)) => (before, None),
        };
        let run = || before.parse().map(Submission::Run);
        let array = |_| before.parse().map(Submission::Array);
        run()
            .or_else(array)
            .ok()
            .zip(condition)
            .map(|(before, condition)| Self { before, condition })
            .ok_or_else(|| InvalidName {
                kind: "dependency",
                given: text.to_owned(),
                allowed: "a run or an array, and how it must have ended: run-17, run-17:any, array-17:ok",
            })
    }
}

impl From<Dependency> for String {
    fn from(dependency: Dependency) -> Self {
        dependency.to_string()
    }
}

impl TryFrom<String> for Dependency {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_read_back_what_they_print_and_success_is_meant_where_nothing_is_said() {
        for (text, printed) in [
            ("run-17", "run-17:ok"),
            ("run-17:ok", "run-17:ok"),
            ("run-17:any", "run-17:any"),
            ("array-17", "array-17:ok"),
            ("array-17:any", "array-17:any"),
        ] {
            let dependency: Dependency = text.parse().expect("a dependency");
            assert_eq!(dependency.to_string(), printed);
            assert_eq!(printed.parse(), Ok(dependency));
        }
        for bad in [
            "",
            "17",
            "run-",
            "run-17:",
            "run-17:OK",
            "run-17:ok:any",
            "run-17 :ok",
            "train:ok",
            "array-:ok",
        ] {
            assert!(bad.parse::<Dependency>().is_err(), "{bad}");
        }
    }
}
