//! What a line of the quota tree is about: all devices of a pool, or those of one model in it. A granted
//! device counts on both.

use super::{PoolName, is_of_model};
use std::fmt;

/// All devices of a pool, or those of one model in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Meter<'a> {
    /// Pool.
    pub pool: &'a PoolName,
    /// Device model, as nodes report it; absent: whatever the model.
    pub model: Option<&'a str>,
}

impl<'a> Meter<'a> {
    /// The devices of one model in a pool.
    pub fn of_model(pool: &'a PoolName, model: &'a str) -> Self {
        Self {
            pool,
            model: Some(model),
        }
    }

    /// As a command names it: `--pool default --model A100-80G`.
    pub fn flags(self) -> String {
        match self.model {
            Some(model) if model.contains([' ', '(', ')']) => {
                format!("--pool {} --model '{model}'", self.pool)
            }
            Some(model) => format!("--pool {} --model {model}", self.pool),
            None => format!("--pool {}", self.pool),
        }
    }

    /// Whether a run that asks for this model, or for any, may be given devices that count here.
    pub fn is_open_to(self, asked: Option<&str>) -> bool {
        match (self.model, asked) {
            (Some(model), Some(asked)) => is_of_model(model, asked),
            _ => true,
        }
    }
}

/// `in pool default`, or `of A100-80G in pool default`.
impl fmt::Display for Meter<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(model) = self.model {
            write!(formatter, "of {model} ")?;
        }
        write!(formatter, "in pool {}", self.pool)
    }
}

/// All devices of the pool.
impl<'a> From<&'a PoolName> for Meter<'a> {
    fn from(pool: &'a PoolName) -> Self {
        Self { pool, model: None }
    }
}
