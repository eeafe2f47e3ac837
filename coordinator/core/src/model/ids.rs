//! Ids and names. A name is checked where it enters, and is then known to be harmless in a path, a
//! URL, a label and a terminal.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use std::fmt;
use std::str::FromStr;

/// A name or id outside its grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {given:?} is not valid")]
pub struct InvalidName {
    /// What was being named.
    pub kind: &'static str,
    /// What was given.
    pub given: String,
    /// The grammar, in words.
    pub allowed: &'static str,
}

const NAME_GRAMMAR: &str =
    "1 to 63 lower-case letters, digits, '-', '_' or '.', beginning with a letter or digit";

/// Whether `text` is a name: `[a-z0-9][a-z0-9._-]{0,62}`.
pub fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && (bytes[0].is_ascii_lowercase() || bytes[0].is_ascii_digit())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(byte))
}

macro_rules! name_type {
    ($(#[$documentation:meta])* $name:ident, $kind:literal) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Checks the grammar. Errors name the value and what is allowed.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                if is_name(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidName { kind: $kind, given: text.to_owned(), allowed: NAME_GRAMMAR })
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                Self::new(&text).map_err(|error| D::Error::custom(format!("{error}: allowed are {}", error.allowed)))
            }
        }
    };
}

name_type!(
    /// Owner of quota.
    TenantName, "tenant"
);
name_type!(
    /// Set of like nodes.
    PoolName, "pool"
);
name_type!(
    /// Machine with one agent.
    NodeName, "node"
);
name_type!(
    /// A person or a service.
    UserName, "user"
);

impl TenantName {
    /// The tenant that exists from the first day.
    pub fn default_tenant() -> Self {
        Self("default".into())
    }
}

impl PoolName {
    /// The pool that exists from the first day.
    pub fn default_pool() -> Self {
        Self("default".into())
    }
}

impl NodeName {
    /// Stands where no one node is meant.
    pub fn any() -> Self {
        Self("any".into())
    }
}

/// One run, `run-17`. The number is drawn from replicated state, so it is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "run-{}", self.0)
    }
}

impl FromStr for RunId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        text.strip_prefix("run-")
            .filter(|digits| !digits.starts_with('0') && !digits.starts_with('+'))
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| InvalidName {
                kind: "run",
                given: text.to_owned(),
                allowed: "run- and a number, as in run-17",
            })
    }
}

/// One array, `array-17`: named after the first of its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ArrayId(pub u64);

impl ArrayId {
    /// The run of its first element.
    pub fn first_run(self) -> RunId {
        RunId(self.0)
    }
}

impl fmt::Display for ArrayId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "array-{}", self.0)
    }
}

impl FromStr for ArrayId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        text.strip_prefix("array-")
            .filter(|digits| !digits.starts_with('0') && !digits.starts_with('+'))
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| InvalidName {
                kind: "array",
                given: text.to_owned(),
                allowed: "array- and a number, as in array-17",
            })
    }
}

/// Fences older holders: grows with every attempt placed, never used twice.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// A device as its driver names it (an NVML UUID), or the made-up id of a simulated one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(pub std::sync::Arc<str>);

impl fmt::Display for DeviceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One member of one attempt of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberKey {
    /// The run.
    pub run: RunId,
    /// From 1.
    pub attempt: u32,
    /// Rank, from 0.
    pub member: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_grammar() {
        for good in ["a", "nlp", "a100-80g", "0x", "team.one_two"] {
            assert!(TenantName::new(good).is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in [
            "",
            "-a",
            ".a",
            "A",
            "a b",
            "a/b",
            "..",
            "a\u{1b}",
            "é",
            long.as_str(),
        ] {
            assert!(TenantName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn run_ids_read_back_what_they_print_and_nothing_else() {
        assert_eq!("run-17".parse::<RunId>(), Ok(RunId(17)));
        assert_eq!(RunId(17).to_string(), "run-17");
        for bad in [
            "17",
            "run-",
            "run-+1",
            "run-01",
            "run--1",
            "run-1x",
            "run-99999999999999999999",
        ] {
            assert!(bad.parse::<RunId>().is_err(), "{bad}");
        }
    }
}
