//! From the values of a sweep to one set of parameters for each run: every combination, or some drawn.
//!
//! Pure but for the seed: the same values and seed give the same sets, so that a sweep can be repeated.

use crate::failure::Failure;
use platform_proto::http::SweepRequest;
use serde_json::{Number, Value};
use std::collections::BTreeMap;

/// The server takes no more; said before a list as long as a product of many is made.
const MOST_ELEMENTS: u64 = 10_000;
/// Digits of a drawn decimal: more say nothing to a reader, and nothing to a learning rate.
const DIGITS: usize = 6;

/// What a parameter may be.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// One of these.
    Listed(Vec<Value>),
    /// Whole numbers, both ends included.
    Whole(i64, i64),
    /// A number between the two; `true`: even in its logarithm.
    Decimal(f64, f64, bool),
}

/// How the values of several parameters are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Every combination.
    #[default]
    Grid,
    /// Some, drawn.
    Random,
}

/// A sweep as it was typed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sweep {
    /// Parameters, in the order typed.
    pub parameters: Vec<(String, Values)>,
    /// How they are joined.
    pub mode: Mode,
    /// How many are drawn.
    pub samples: Option<u32>,
    /// What the drawing begins with.
    pub seed: Option<u64>,
    /// How many run at once.
    pub at_most: Option<u32>,
}

/// Reads `lr=0.1,0.01`, `depth=2..6`, `lr=0.0001..0.1` and `lr=0.0001..0.1:log`.
pub fn parse(text: &str) -> Result<(String, Values), Failure> {
    let wrong = |why: &str| {
        Failure::usage(format!("`{text}` is not a sweep: {why}"))
            .allowed("lr=0.1,0.01, depth=2..6, or drawn: lr=0.0001..0.1, lr=0.0001..0.1:log")
    };
    let (name, values) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| wrong("it has no name"))?;
    let values = match values.split_once("..") {
        None => listed(values).ok_or_else(|| wrong("a value is empty"))?,
        Some((first, last)) => range(first, last).ok_or_else(|| {
            wrong("a range goes from a smaller number to a greater one, and :log above 0")
        })?,
    };
    Ok((name.to_owned(), values))
}

fn listed(text: &str) -> Option<Values> {
    text.split(',')
        .map(|value| (!value.is_empty()).then(|| scalar(value)))
        .collect::<Option<_>>()
        .map(Values::Listed)
}

/// A number, true and false are what they look like; everything else is text.
fn scalar(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

fn range(first: &str, last: &str) -> Option<Values> {
    let (last, log) = match last.strip_suffix(":log") {
        Some(last) => (last, true),
        None => (last, false),
    };
    if let (false, Ok(first), Ok(last)) = (log, first.parse::<i64>(), last.parse::<i64>()) {
        return (first <= last).then_some(Values::Whole(first, last));
    }
    let (first, last): (f64, f64) = (first.parse().ok()?, last.parse().ok()?);
    let good = first.is_finite() && last.is_finite() && first < last && (!log || first > 0.0);
    good.then_some(Values::Decimal(first, last, log))
}

/// One set of parameters for each run. `fresh_seed` is drawn when none was given, and told.
pub fn request(sweep: &Sweep, fresh_seed: u64) -> Result<(SweepRequest, Option<u64>), Failure> {
    let mut seen = std::collections::BTreeSet::new();
    if let Some((twice, _)) = sweep.parameters.iter().find(|(name, _)| !seen.insert(name)) {
        return Err(
            Failure::usage(format!("parameter {twice} is swept twice")).hint(format!(
                "give all of its values at once: --sweep {twice}=A,B"
            )),
        );
    }
    let (parameters, seed) = match sweep.mode {
        Mode::Grid => {
            if sweep.samples.is_some() || sweep.seed.is_some() {
                return Err(
                    Failure::usage("a grid has every combination, and draws none")
                        .hint("to draw some of them, add --sweep-mode random"),
                );
            }
            (grid(&sweep.parameters)?, None)
        }
        Mode::Random => {
            let samples = sweep
                .samples
                .filter(|samples| (1..=MOST_ELEMENTS).contains(&u64::from(*samples)))
                .ok_or_else(|| {
                    Failure::usage("a random sweep wants to know how many to draw")
                        .allowed(format!("--samples 1 to {MOST_ELEMENTS}"))
                        .hint("--sweep-mode random --samples 20")
                })?;
            let seed = sweep.seed.unwrap_or(fresh_seed);
            (drawn(&sweep.parameters, samples, seed), Some(seed))
        }
    };
    let request = SweepRequest {
        parameters,
        most_alive: sweep.at_most,
    };
    Ok((request, seed))
}

type Sets = Vec<BTreeMap<String, Value>>;

fn grid(parameters: &[(String, Values)]) -> Result<Sets, Failure> {
    let mut count: u64 = 1;
    for (name, values) in parameters {
        let of_one = match values {
            Values::Listed(listed) => listed.len() as u64,
            Values::Whole(first, last) => last.abs_diff(*first).saturating_add(1),
            Values::Decimal(..) => {
                return Err(Failure::usage(format!(
                    "{name} is a range of decimals, which has no grid"
                ))
                .allowed(format!("listed values, as in --sweep {name}=0.1,0.01"))
                .hint("or draw from it: --sweep-mode random --samples 20"));
            }
        };
        count = count.saturating_mul(of_one);
    }
    if count > MOST_ELEMENTS {
        return Err(Failure::usage(format!("the grid has {count} combinations"))
            .allowed(format!("at most {MOST_ELEMENTS}"))
            .hint("draw some of them: --sweep-mode random --samples 100"));
    }
    let mut sets: Sets = vec![BTreeMap::new()];
    for (name, values) in parameters {
        let values: Vec<Value> = match values {
            Values::Listed(listed) => listed.clone(),
            Values::Whole(first, last) => (*first..=*last).map(Value::from).collect(),
            Values::Decimal(..) => Vec::new(),
        };
        sets = sets
            .iter()
            .flat_map(|set| {
                values.iter().map(|value| {
                    let mut set = set.clone();
                    set.insert(name.clone(), value.clone());
                    set
                })
            })
            .collect();
    }
    Ok(sets)
}

fn drawn(parameters: &[(String, Values)], samples: u32, seed: u64) -> Sets {
    let mut random = Random(seed);
    (0..samples)
        .map(|_| {
            parameters
                .iter()
                .map(|(name, values)| (name.clone(), random.value(values)))
                .collect()
        })
        .collect()
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): small, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below a bound, which is not 0; the tiny bias of a remainder is no matter here.
    fn below(&mut self, bound: u128) -> u128 {
        u128::from(self.next()) % bound
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn value(&mut self, values: &Values) -> Value {
        match values {
            Values::Listed(listed) => {
                let which = usize::try_from(self.below(listed.len().max(1) as u128)).unwrap_or(0);
                listed.get(which).cloned().unwrap_or(Value::Null)
            }
            Values::Whole(first, last) => {
                let span = u128::from(last.abs_diff(*first)) + 1;
                let value = i128::from(*first) + i128::try_from(self.below(span)).unwrap_or(0);
                Value::from(i64::try_from(value).unwrap_or(*last))
            }
            Values::Decimal(first, last, log) => {
                let unit = self.unit();
                let drawn = if *log {
                    (first.ln() + (last.ln() - first.ln()) * unit).exp()
                } else {
                    first + (last - first) * unit
                };
                let short = format!("{drawn:.*e}", DIGITS - 1);
                let rounded = short.parse::<f64>().unwrap_or(drawn).clamp(*first, *last);
                Number::from_f64(rounded).map_or(Value::Null, Value::Number)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sweep(texts: &[&str], mode: Mode) -> Sweep {
        Sweep {
            parameters: texts
                .iter()
                .map(|text| parse(text).expect("a sweep"))
                .collect(),
            mode,
            ..Sweep::default()
        }
    }

    #[test]
    fn values_are_what_they_look_like() {
        for (text, values) in [
            (
                "lr=0.1,1e-2,3",
                Values::Listed(vec![json!(0.1), json!(0.01), json!(3)]),
            ),
            (
                "name=adam,true,007",
                Values::Listed(vec![json!("adam"), json!(true), json!("007")]),
            ),
            ("depth=2..6", Values::Whole(2, 6)),
            ("shift=-3..-1", Values::Whole(-3, -1)),
            ("lr=0.1..0.5", Values::Decimal(0.1, 0.5, false)),
            ("lr=1e-4..1:log", Values::Decimal(1e-4, 1.0, true)),
        ] {
            assert_eq!(parse(text).map(|(_, values)| values), Ok(values), "{text}");
        }
        for bad in [
            "lr",
            "=1",
            "lr=",
            "lr=1,,2",
            "lr=6..2",
            "lr=a..b",
            "lr=0.5..0.1",
            "lr=0..1:log",
            "lr=1..",
            "lr=0.1..inf",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_grid_is_every_combination_the_last_named_fastest() {
        let (request, seed) =
            request(&sweep(&["lr=0.1,0.01", "depth=2..3"], Mode::Grid), 7).expect("a grid");
        assert_eq!(
            serde_json::to_value(&request.parameters).expect("JSON"),
            json!([
                {"lr": 0.1, "depth": 2},
                {"lr": 0.1, "depth": 3},
                {"lr": 0.01, "depth": 2},
                {"lr": 0.01, "depth": 3},
            ])
        );
        assert_eq!(seed, None);
    }

    #[test]
    fn a_drawn_sweep_keeps_to_its_bounds_and_can_be_repeated() {
        let mut random = sweep(
            &[
                "lr=0.0001..0.1:log",
                "depth=2..6",
                "kind=a,b",
                "wide=-9223372036854775808..9223372036854775807",
            ],
            Mode::Random,
        );
        random.samples = Some(500);
        let (first, seed) = request(&random, 41).expect("a sweep");
        assert_eq!(seed, Some(41));
        random.seed = Some(41);
        assert_eq!(request(&random, 99).expect("a sweep").0, first);
        random.seed = Some(42);
        assert_ne!(request(&random, 99).expect("a sweep").0, first);
        let mut below_a_hundredth = 0;
        for set in &first.parameters {
            let lr = set["lr"].as_f64().expect("a number");
            assert!((0.0001..=0.1).contains(&lr), "{lr}");
            assert!((2..=6).contains(&set["depth"].as_i64().expect("whole")));
            assert!(["a", "b"].contains(&set["kind"].as_str().expect("text")));
            below_a_hundredth += u32::from(lr < 0.01);
        }
        // Two of the three decades lie below a hundredth.
        assert!(
            (280..390).contains(&below_a_hundredth),
            "{below_a_hundredth}"
        );
    }

    #[test]
    fn what_makes_no_sweep_is_said_before_anything_is_made() {
        let with = |texts: &[&str], mode, samples, seed| {
            let asked = Sweep {
                samples,
                seed,
                ..sweep(texts, mode)
            };
            request(&asked, 1).expect_err("no sweep").body.message
        };
        for (said, message) in [
            (
                with(&["a=1,2", "a=3"], Mode::Grid, None, None),
                "parameter a is swept twice",
            ),
            (
                with(&["a=1..1000000", "b=1..1000000"], Mode::Grid, None, None),
                "the grid has 1000000000000 combinations",
            ),
            (
                with(&["a=0.1..0.2"], Mode::Grid, None, None),
                "a is a range of decimals, which has no grid",
            ),
            (
                with(&["a=1,2"], Mode::Grid, Some(3), None),
                "a grid has every combination, and draws none",
            ),
            (
                with(&["a=1,2"], Mode::Random, None, None),
                "a random sweep wants to know how many to draw",
            ),
            (
                with(&["a=1,2"], Mode::Random, Some(1_000_000), None),
                "a random sweep wants to know how many to draw",
            ),
        ] {
            assert_eq!(said, message);
        }
    }
}
