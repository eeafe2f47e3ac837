//! What every figure shares: one JSON line, a client that keeps many requests in flight, and raw peers
//! of the same machine in the same minute, so that a figure can be read as a ratio.

mod client;
mod peers;

pub use client::Connection;
pub use peers::{fdatasync_per_second, spawn_per_second};

use serde_json::{Map, Value};
use std::time::Duration;

/// Prints the one line of a bench: the figure, its unit, its aim, and what else was seen.
pub fn print(bench: &str, value: f64, unit: &str, aim: &str, more: Value) {
    let mut line = Map::new();
    line.insert("bench".to_owned(), bench.into());
    line.insert("value".to_owned(), rounded(value));
    line.insert("unit".to_owned(), unit.into());
    line.insert("aim".to_owned(), aim.into());
    if let Value::Object(more) = more {
        for (name, value) in more {
            let value = value
                .as_f64()
                .filter(|_| value.is_f64())
                .map_or(value, rounded);
            line.insert(name, value);
        }
    }
    println!("{}", Value::Object(line));
}

fn rounded(value: f64) -> Value {
    // Three digits after the point: no figure here is known better than that.
    Value::from((value * 1000.0).round() / 1000.0)
}

/// The value below which this part of the sorted times lies, in milliseconds.
pub fn percentile_ms(sorted: &[Duration], part: f64) -> f64 {
    let at = ((sorted.len() as f64 - 1.0) * part).round() as usize;
    sorted
        .get(at)
        .map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}
