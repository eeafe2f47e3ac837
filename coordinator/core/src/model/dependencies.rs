//! What a run is submitted to follow: another run, and how that must have ended.
//!
//! Written as people write it, `run-17:ok`, on the command line, in JSON and in the log alike.

use super::{InvalidName, RunId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A run that must have ended before another may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Dependency {
    /// The run that goes before.
    pub run: RunId,
    /// How it must have ended.
    pub condition: Condition,
}

/// How a run must have ended for the one that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// With success; once it has not, the one that follows ends too.
    Ok,
    /// However it ended.
    Any,
}

impl fmt::Display for Dependency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let condition = match self.condition {
            Condition::Ok => "ok",
            Condition::Any => "any",
        };
        write!(formatter, "{}:{condition}", self.run)
    }
}

impl FromStr for Dependency {
    type Err = InvalidName;

    /// Reads `RUN`, `RUN:ok` or `RUN:any`; without a word it is `ok`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (run, condition) = match text.split_once(':') {
            None => (text, Some(Condition::Ok)),
            Some((run, "ok")) => (run, Some(Condition::Ok)),
            Some((run, "any")) => (run, Some(Condition::Any)),
            Some((run, _)) => (run, None),
        };
        run.parse()
            .ok()
            .zip(condition)
            .map(|(run, condition)| Self { run, condition })
            .ok_or_else(|| InvalidName {
                kind: "dependency",
                given: text.to_owned(),
                allowed: "a run, and how it must have ended: run-17, run-17:ok, run-17:any",
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
        ] {
            assert!(bad.parse::<Dependency>().is_err(), "{bad}");
        }
    }
}
