//! Between the core's arrays and the HTTP types.

use super::convert::{spec_to_http, whole_gpu_us};
use super::error::ApiError;
use coordinator_core::model::{Array, ArrayRequest, LedgerRow, Parameter, Run};
use coordinator_core::state::{ArrayLine, State, run_ledger_rows};
use platform_proto::http::{ArrayView, ElementCount, ElementView, SweepRequest};
use serde_json::Value;
use std::collections::BTreeMap;

/// Exit code of an attached client when an element failed, whatever that one's own was.
const SOME_FAILED: i32 = 1;
/// Sets of parameters that a plan shows.
const FIRST_SETS: usize = 3;
/// As for a run that was cancelled: 128 and SIGTERM.
const SOME_CANCELLED: i32 = 143;

/// The array that a submit asks for, if any.
pub fn array_request(
    array: Option<&str>,
    sweep: Option<SweepRequest>,
) -> Result<Option<ArrayRequest>, ApiError> {
    match (array, sweep) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(text.parse::<ArrayRequest>()?)),
        (None, Some(sweep)) => Ok(Some(ArrayRequest {
            indexes: Vec::new(),
            most_alive: sweep.most_alive,
            parameters: (0_usize..)
                .zip(sweep.parameters)
                .map(|(index, set)| {
                    set.into_iter()
                        .map(|(name, value)| {
                            let value = parameter(index, &name, value)?;
                            Ok((name, value))
                        })
                        .collect()
                })
                .collect::<Result<_, ApiError>>()?,
        })),
        (Some(_), Some(_)) => Err(ApiError::invalid("both an array and a sweep are asked for")
            .allowed("one of --array INDEXES and --sweep NAME=VALUES")
            .hint("a sweep is an array: its elements are counted from 0")),
    }
}

fn parameter(element: usize, name: &str, value: Value) -> Result<Parameter, ApiError> {
    match value {
        Value::String(text) => Ok(Parameter::Text(text)),
        Value::Number(number) => Ok(Parameter::Number(number.to_string())),
        Value::Bool(flag) => Ok(Parameter::Flag(flag)),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(ApiError::invalid(format!(
            "parameter {name:?} of element {element} is {value}"
        ))
        .allowed("text, a number, true or false")),
    }
}

/// The parameters of an element, as they were sent.
pub fn parameters_to_json(parameters: &BTreeMap<String, Parameter>) -> BTreeMap<String, Value> {
    parameters
        .iter()
        .map(|(name, value)| {
            let value = match value {
                Parameter::Text(text) => Value::String(text.clone()),
                Parameter::Number(number) => {
                    serde_json::from_str(number).unwrap_or_else(|_| Value::String(number.clone()))
                }
                Parameter::Flag(flag) => Value::Bool(*flag),
            };
            (name.clone(), value)
        })
        .collect()
}

/// How many elements a submit makes; `None`: it is no array.
pub fn element_count(size: Option<usize>, request: Option<&ArrayRequest>) -> Option<ElementCount> {
    let request = request?;
    Some(ElementCount {
        size: u32::try_from(size?).unwrap_or(u32::MAX),
        most_alive: request.most_alive,
        first_parameters: request
            .parameters
            .iter()
            .take(FIRST_SETS)
            .map(parameters_to_json)
            .collect(),
    })
}

/// A run's part in an array.
pub fn element_view(state: &State, run: &Run) -> Option<ElementView> {
    let element = run.element.as_ref()?;
    Some(ElementView {
        array: element.array.to_string(),
        index: element.index,
        size: state.arrays().get(&element.array)?.size,
        parameters: parameters_to_json(&element.parameters),
    })
}

/// One array as clients read it; what it holds is charged until `now_us`.
pub fn array_view(state: &State, array: &Array, now_us: u64) -> ArrayView {
    let none = ArrayLine::default();
    let line = state.array_line(array.id).unwrap_or(&none);
    let (mut alive, mut cost_micro, mut gpu_milli_us) = (0, line.cost_micro(), line.gpu_milli_us());
    for run in state.active_elements(array) {
        alive += 1;
        // Of its attempts only the last holds anything; what was given back is counted already.
        let open = run_ledger_rows(run, now_us.max(state.time_us()))
            .into_iter()
            .filter(|row| {
                run.last_attempt().is_some_and(|attempt| {
                    attempt.number == row.attempt
                        && attempt
                            .members
                            .get(row.member as usize)
                            .is_some_and(|member| member.released_us.is_none())
                })
            });
        for row in open {
            cost_micro += LedgerRow::cost_micro(&row);
            gpu_milli_us += row.gpu_milli_us();
        }
    }
    let first = state.runs().get(&array.id.first_run());
    let state_word = if line.is_over() {
        match (line.failed(), line.cancelled()) {
            (0, 0) => "succeeded",
            (0, _) => "cancelled",
            _ => "failed",
        }
    } else if alive > 0 {
        "running"
    } else if line.released() > 0 {
        "queued"
    } else {
        "held"
    };
    ArrayView {
        id: array.id.to_string(),
        spec: first.map(|run| spec_to_http(&run.spec)).unwrap_or_default(),
        tenant: array.tenant.to_string(),
        user: array.user.to_string(),
        state: state_word.to_owned(),
        size: array.size,
        most_alive: array.most_alive,
        held: u32::try_from(line.held().len()).unwrap_or(u32::MAX),
        queued: line.released().saturating_sub(alive),
        alive,
        succeeded: line.succeeded(),
        failed: line.failed(),
        cancelled: line.cancelled(),
        submitted_us: first.map_or(0, |run| run.submitted_us),
        ended_us: line.is_over().then(|| line.last_end_us()),
        client_exit_code: line
            .is_over()
            .then(|| match (line.failed(), line.cancelled()) {
                (0, 0) => 0,
                (0, _) => SOME_CANCELLED,
                _ => SOME_FAILED,
            }),
        cost_micro,
        gpu_us: whole_gpu_us(gpu_milli_us),
        currency: state.policy().currency.clone(),
    }
}
