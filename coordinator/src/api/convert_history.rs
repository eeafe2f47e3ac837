//! A period's runs between HTTP and the core's words. A client that replays a history reads it back
//! with the same conversions that wrote it.

use super::convert;
use super::error::ApiError;
use coordinator_core::model::{
    Array, ArrayId, Charge, PastRun, RunOutcome, Spell, TenantName, UserName, WHOLE_DEVICE_MILLI,
};
use platform_proto::http::{ErrorBody, HistoryArray, HistoryRun, HistorySpell};

pub fn run_to_http(run: &PastRun) -> HistoryRun {
    HistoryRun {
        id: run.id.to_string(),
        spec: convert::spec_to_http(&run.spec),
        tenant: run.tenant.to_string(),
        user: run.user.to_string(),
        submitted_us: run.submitted_us,
        array: run.array.map(|array| array.to_string()),
        spells: run
            .spells
            .iter()
            .map(|spell| HistorySpell {
                placed_us: spell.placed_us,
                ended_us: spell.ended_us,
                preempted: spell.preempted,
            })
            .collect(),
        outcome: run
            .end
            .as_ref()
            .map(|(outcome, _)| word(outcome).to_owned()),
        ended_us: run.end.as_ref().map(|(_, at_us)| *at_us),
        gpu_us: convert::whole_gpu_us(run.charge.gpu_milli_us),
        cost_micro: u64::try_from(run.charge.cost_micro).unwrap_or(u64::MAX),
    }
}

pub fn array_to_http(array: &Array) -> HistoryArray {
    HistoryArray {
        id: array.id.to_string(),
        tenant: array.tenant.to_string(),
        user: array.user.to_string(),
        size: array.size,
        most_alive: array.most_alive,
    }
}

/// A run as [`HistoryRun`] tells it.
///
/// # Errors
///
/// A name or a word that this version does not know.
pub fn run_from_http(run: HistoryRun) -> Result<PastRun, ErrorBody> {
    read_run(run).map_err(|error| error.body)
}

/// An array as [`HistoryArray`] tells it.
///
/// # Errors
///
/// A name that is none.
pub fn array_from_http(array: &HistoryArray) -> Result<Array, ErrorBody> {
    read_array(array).map_err(|error| error.body)
}

fn read_run(run: HistoryRun) -> Result<PastRun, ApiError> {
    let outcome = run.outcome.as_deref().map(outcome).transpose()?;
    let array = run
        .array
        .as_deref()
        .map(str::parse::<ArrayId>)
        .transpose()?;
    Ok(PastRun {
        id: run.id.parse()?,
        spec: convert::spec_from_http(run.spec)?,
        tenant: TenantName::new(&run.tenant)?,
        user: UserName::new(&run.user)?,
        submitted_us: run.submitted_us,
        array,
        spells: run
            .spells
            .iter()
            .map(|spell| Spell {
                placed_us: spell.placed_us,
                ended_us: spell.ended_us,
                preempted: spell.preempted,
            })
            .collect(),
        end: outcome.zip(run.ended_us),
        charge: Charge {
            gpu_milli_us: u128::from(run.gpu_us) * u128::from(WHOLE_DEVICE_MILLI),
            cost_micro: u128::from(run.cost_micro),
        },
    })
}

fn read_array(array: &HistoryArray) -> Result<Array, ApiError> {
    Ok(Array {
        id: array.id.parse()?,
        tenant: TenantName::new(&array.tenant)?,
        user: UserName::new(&array.user)?,
        size: array.size,
        most_alive: array.most_alive,
    })
}

fn word(outcome: &RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::Succeeded => "succeeded",
        RunOutcome::Failed => "failed",
        RunOutcome::Cancelled => "cancelled",
    }
}

fn outcome(text: &str) -> Result<RunOutcome, ApiError> {
    [
        RunOutcome::Succeeded,
        RunOutcome::Failed,
        RunOutcome::Cancelled,
    ]
    .into_iter()
    .find(|outcome| word(outcome) == text)
    .ok_or_else(|| {
        ApiError::invalid(format!("outcome {text:?} is not known"))
            .allowed("succeeded, failed, cancelled")
    })
}
