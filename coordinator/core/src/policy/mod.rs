//! Admission: one path that every submit takes, on the server, for the resolved spec.
//!
//! [`resolve`] fills in every default and then checks every rule, so that no client can pass a rule
//! by leaving a field out. It answers with everything at once: the resolved spec and what was
//! defaulted, or the first refusal, which says what was given, what is allowed and what to do.

pub mod arrays;
pub mod budgets;
mod fit;
pub(crate) mod priorities;
pub mod quotas;
mod sums;
mod tags;

use crate::model::{
    Makes, MemberDemand, Meter, NodeDescription, PRIORITY_BOUND, Policy, Pool, PoolName, Role,
    Tenant, TenantName, TenantTree, WorkloadSpec, is_name, is_of_model,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub use fit::{Shortfall, fits_beside, fits_empty, fits_now};
pub use quotas::Standing;
pub use sums::{gpu_memory_sums, least_memory_mib};

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub kind: RefusalKind,
    /// What was wrong, with the value given. Lower case, no final dot.
    pub message: String,
    /// What would have been accepted.
    pub allowed: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
}

/// Coarse class of a refusal; the API maps it to a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The value itself is wrong.
    Invalid,
    /// A guardrail, quota or capacity says no.
    Refused,
    /// It names something that is not there.
    NotFound,
    /// It was right for a state that has passed.
    Conflict,
}

impl Refusal {
    /// A refusal of this kind.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            allowed: None,
            hint: None,
        }
    }

    /// An invalid value.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Invalid, message)
    }

    /// A rule says no.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Refused, message)
    }

    /// Adds what is allowed.
    pub fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What admission may look at: the parts of the state that rules speak of.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Policy in force.
    pub policy: &'a Policy,
    /// Pools.
    pub pools: &'a BTreeMap<PoolName, Pool>,
    /// Makes of nodes in each pool that has any.
    pub makes: &'a BTreeMap<PoolName, Makes>,
    /// Every tenant.
    pub tenants: &'a TenantTree,
    /// Tenant to be charged.
    pub tenant: &'a Tenant,
    /// Role of who asks; absent where a spec that was admitted is looked at again, and where an entry
    /// of the log does not say.
    pub role: Option<Role>,
}

impl Surroundings<'_> {
    /// The same, asked by somebody of this role.
    pub fn asked_by(self, role: Option<Role>) -> Self {
        Self { role, ..self }
    }
}

/// A spec that has passed admission.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// With every default filled in.
    pub spec: WorkloadSpec,
    /// Fields that a default filled in.
    pub defaulted: Vec<String>,
    /// Guardrails that warn.
    pub warnings: Vec<String>,
}

const MOST_NODES: u32 = 10_000;
const MOST_RETRIES: u32 = 100;
/// Longest name, command or environment of a spec in bytes: it travels through the log, so it is
/// kept far below what one log entry may be.
const MOST_SPEC_BYTES: usize = 256 * 1024;
const LONGEST_NAME: usize = 128;

/// Fills in defaults and checks every rule.
pub fn resolve(around: Surroundings<'_>, spec: WorkloadSpec) -> Result<Admitted, Refusal> {
    let mut spec = spec;
    let mut defaulted = Vec::new();
    let mut warnings = Vec::new();
    check_form(&spec)?;
    let pool = resolve_pool(around, &mut spec, &mut defaulted)?;
    let makes: Vec<(&NodeDescription, u32)> = around
        .makes
        .get(&pool)
        .into_iter()
        .flatten()
        .map(|(make, count)| (&**make, *count))
        .collect();
    resolve_devices(around, &pool, &makes, &mut spec, &mut defaulted)?;
    if spec.tenant.is_none() {
        spec.tenant = Some(around.tenant.name.clone());
    }
    priorities::resolve(around, &mut spec)?;
    warnings.extend(tags::check(around.policy, &spec)?);
    resolve_memory_cap(around.policy, &makes, &mut spec, &mut defaulted)?;
    let demand = around.policy.demand(&spec);
    check_ever_fits(around, &pool, &makes, &spec, &demand)?;
    sums::check(
        around.policy,
        makes.iter().map(|(make, _)| *make),
        &spec,
        &demand,
    )?;
    check_quota(around, &pool, &makes, &spec, &demand)?;
    Ok(Admitted {
        spec,
        defaulted,
        warnings,
    })
}

fn resolve_pool(
    around: Surroundings<'_>,
    spec: &mut WorkloadSpec,
    defaulted: &mut Vec<String>,
) -> Result<PoolName, Refusal> {
    let pool = spec.pool.clone().unwrap_or_else(|| {
        defaulted.push("pool".to_owned());
        PoolName::default_pool()
    });
    if !around.pools.contains_key(&pool) {
        return Err(unknown_pool(pool.as_str(), around.pools));
    }
    spec.pool = Some(pool.clone());
    Ok(pool)
}

/// The refusal of a pool that is not there.
pub fn unknown_pool(given: &str, pools: &BTreeMap<PoolName, Pool>) -> Refusal {
    Refusal::new(
        RefusalKind::NotFound,
        format!("pool {given:?} does not exist"),
    )
    .allowed(list(pools.keys().map(PoolName::as_str)))
    .hint("see the pools with: platform pools list")
}

/// What a specification takes in the log and in every run that is made of it, in bytes.
pub(crate) fn spec_bytes(spec: &WorkloadSpec) -> usize {
    spec.command
        .iter()
        .map(|argument| argument.len() + 1)
        .sum::<usize>()
        + [
            &spec.requirements_path,
            &spec.working_folder,
            &spec.image,
            &spec.gpu_model,
        ]
        .into_iter()
        .flatten()
        .map(String::len)
        .sum::<usize>()
        + spec
            .environment
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>()
        + spec
            .tags
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>()
}

fn check_form(spec: &WorkloadSpec) -> Result<(), Refusal> {
    if spec.name.is_empty()
        || spec.name.len() > LONGEST_NAME
        || spec.name.chars().any(char::is_control)
    {
        return Err(
            Refusal::invalid(format!("run name {:?} is not valid", spec.name))
                .allowed(format!(
                    "1 to {LONGEST_NAME} bytes without control characters"
                ))
                .hint("give another with --name"),
        );
    }
    if spec.command.is_empty() || spec.command[0].is_empty() {
        return Err(Refusal::invalid("the command is empty")
            .hint("say what to run, as in: platform run -- python train.py"));
    }
    if let Some(argument) = spec.command.iter().find(|argument| argument.contains('\0')) {
        return Err(Refusal::invalid(format!(
            "argument {argument:?} holds a NUL byte"
        )));
    }
    let bytes = spec_bytes(spec);
    if bytes > MOST_SPEC_BYTES {
        return Err(
            Refusal::invalid(format!("the specification takes {bytes} bytes"))
                .allowed(format!("at most {MOST_SPEC_BYTES} bytes"))
                .hint("put large values in a file of the working folder"),
        );
    }
    for (key, value) in &spec.environment {
        let named = !key.is_empty()
            && !key.as_bytes()[0].is_ascii_digit()
            && key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !named || value.contains('\0') {
            return Err(
                Refusal::invalid(format!("environment variable {key:?} is not valid")).allowed(
                    "letters, digits and '_', not beginning with a digit; no NUL in the value",
                ),
            );
        }
        if key.starts_with("PLATFORM_") {
            return Err(Refusal::refused(format!(
                "environment variable {key:?} is set by the platform"
            ))
            .allowed("any name that does not begin with PLATFORM_"));
        }
    }
    if let Some(image) = &spec.image
        && (image.is_empty()
            || image.starts_with('-')
            || image.chars().any(|c| c.is_control() || c.is_whitespace()))
    {
        return Err(Refusal::invalid(format!("image {image:?} is not valid"))
            .allowed("an image reference without blanks, as in registry/name:tag"));
    }
    if spec.gpus.is_some() && spec.gpu_share_milli.is_some() {
        return Err(
            Refusal::invalid("both whole GPUs and a fraction are asked for")
                .allowed("one of --gpus N and --gpu-fraction F"),
        );
    }
    if let Some(share) = spec.gpu_share_milli
        && !(1..1000).contains(&share)
    {
        return Err(
            Refusal::invalid(format!("GPU fraction {share} thousandths is out of range"))
                .allowed("0.001 to 0.999")
                .hint("for whole GPUs use --gpus N"),
        );
    }
    if spec.nodes == 0 || spec.nodes > MOST_NODES {
        return Err(
            Refusal::invalid(format!("{} nodes are asked for", spec.nodes))
                .allowed(format!("1 to {MOST_NODES}")),
        );
    }
    if spec.retries > MOST_RETRIES {
        return Err(
            Refusal::invalid(format!("{} retries are asked for", spec.retries))
                .allowed(format!("0 to {MOST_RETRIES}")),
        );
    }
    if !(-PRIORITY_BOUND..=PRIORITY_BOUND).contains(&spec.priority) {
        return Err(
            Refusal::invalid(format!("priority {} is out of range", spec.priority))
                .allowed(format!("-{PRIORITY_BOUND} to {PRIORITY_BOUND}")),
        );
    }
    if spec.time_limit_ms == Some(0) {
        return Err(
            Refusal::invalid("a time limit of 0 would end the run before it starts")
                .allowed("more than 0, as in --time-limit 2h"),
        );
    }
    if spec.start_deadline_ms == Some(0) {
        return Err(
            Refusal::invalid("a start deadline of 0 would end the run before it starts")
                .allowed("more than 0, as in --start-within 2h"),
        );
    }
    if let Some(warning) = &spec.warning {
        match spec.time_limit_ms {
            None => {
                return Err(Refusal::invalid(
                    "a warning before the time limit is asked for, and no time limit",
                )
                .hint("add --time-limit 2h"));
            }
            Some(limit_ms) if warning.before_ms == 0 || warning.before_ms >= limit_ms => {
                return Err(Refusal::invalid(format!(
                    "a warning {} s before a time limit of {} s would never come",
                    warning.before_ms / 1000,
                    limit_ms / 1000
                ))
                .allowed("more than 0, and less than the time limit"));
            }
            Some(_) => {}
        }
    }
    if spec.gpu_memory_mib == Some(0) {
        return Err(
            Refusal::invalid("a GPU-memory cap of 0 leaves nothing to run in")
                .allowed("more than 0, as in --gpu-memory 20G"),
        );
    }
    if let Some(hash) = &spec.source_sha256
        && !(hash.len() == 64
            && hash
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)))
    {
        return Err(Refusal::invalid(format!(
            "source {hash:?} is not a SHA-256 in lower-case hex"
        )));
    }
    for path in [&spec.requirements_path, &spec.working_folder]
        .into_iter()
        .flatten()
    {
        if path.is_empty()
            || path.starts_with('/')
            || path.chars().any(char::is_control)
            || path.split('/').any(|part| part == "..")
        {
            return Err(
                Refusal::invalid(format!("path {path:?} leaves the working folder"))
                    .allowed("a relative path without '..'"),
            );
        }
    }
    if let Some(model) = &spec.model
        && !is_name(model)
    {
        return Err(Refusal::invalid(format!("model {model:?} is not valid"))
            .allowed("1 to 63 lower-case letters, digits, '-', '_' or '.', beginning with a letter or digit")
            .hint("give another with --model"));
    }
    Ok(())
}

fn resolve_devices(
    around: Surroundings<'_>,
    pool: &PoolName,
    makes: &[(&NodeDescription, u32)],
    spec: &mut WorkloadSpec,
    defaulted: &mut Vec<String>,
) -> Result<(), Refusal> {
    if makes.is_empty() {
        let served: Vec<&str> = around.makes.keys().map(PoolName::as_str).collect();
        return Err(Refusal::refused(format!("pool {pool} has no nodes"))
            .allowed(if served.is_empty() {
                "no pool has nodes yet".to_owned()
            } else {
                list(served)
            })
            .hint(
                "choose another with --pool, or start an agent: platform agent --pool ".to_owned()
                    + pool.as_str(),
            ));
    }
    let mut models: Vec<&str> = makes
        .iter()
        .flat_map(|(make, _)| &make.devices)
        .map(|device| device.model.as_str())
        .collect();
    models.sort_unstable();
    models.dedup();
    if spec.gpus.is_none() && spec.gpu_share_milli.is_none() {
        spec.gpus = Some(u32::from(!models.is_empty()));
        defaulted.push("gpus".to_owned());
    }
    if spec.demand().devices == 0 && (spec.gpu_memory_mib.is_some() || spec.gpu_model.is_some()) {
        return Err(
            Refusal::invalid("a GPU model or GPU memory is asked for, but no GPU")
                .allowed("at least one GPU, or neither of the two")
                .hint("add --gpus 1"),
        );
    }
    if let Some(model) = &spec.gpu_model
        && !models.iter().any(|present| is_of_model(present, model))
    {
        return Err(
            Refusal::refused(format!("GPU model {model:?} is not in pool {pool}"))
                .allowed(list(models))
                .hint("see the devices with: platform nodes list"),
        );
    }
    Ok(())
}

/// A model's cap binds what is asked, and also what would be given when nothing is asked.
fn resolve_memory_cap(
    policy: &Policy,
    makes: &[(&NodeDescription, u32)],
    spec: &mut WorkloadSpec,
    defaulted: &mut Vec<String>,
) -> Result<(), Refusal> {
    let Some((model, cap)) = spec
        .model
        .as_ref()
        .and_then(|model| Some((model, policy.gpu_memory_cap_mib(model)?)))
    else {
        return Ok(());
    };
    let demand = spec.demand();
    if demand.devices == 0 {
        return Ok(());
    }
    match spec.gpu_memory_mib {
        Some(asked) if asked > cap => Err(Refusal::refused(format!(
            "model {model} may use at most {cap} MiB of each GPU, and {asked} MiB are asked for"
        ))
        .allowed(format!("up to {cap} MiB"))
        .hint(format!("add --gpu-memory {cap}M"))),
        Some(_) => Ok(()),
        None => {
            let dearest = makes
                .iter()
                .flat_map(|(make, _)| &make.devices)
                .filter(|device| demand.accepts(&device.model))
                .map(|device| demand.memory_on(device.memory_mib))
                .max()
                .unwrap_or(0);
            if dearest > cap {
                spec.gpu_memory_mib = Some(cap);
                defaulted.push("gpu_memory_mib".to_owned());
            }
            Ok(())
        }
    }
}

/// A run that could not start even if its tenant held nothing is refused at once: above a ceiling, or
/// above the guarantee and not to be preempted, for what is borrowed must be there to give back.
fn check_quota(
    around: Surroundings<'_>,
    pool: &PoolName,
    makes: &[(&NodeDescription, u32)],
    spec: &WorkloadSpec,
    demand: &MemberDemand,
) -> Result<(), Refusal> {
    check_meter(around, pool.into(), spec)?;
    let models = models_to_try(around, pool, makes, demand);
    check_any(models, |model| {
        check_meter(around, Meter::of_model(pool, model), spec)
    })
}

/// The models to which a run is narrowed one after another, where quota is stated by model.
fn models_to_try<'a>(
    around: Surroundings<'_>,
    pool: &PoolName,
    makes: &'a [(&NodeDescription, u32)],
    demand: &MemberDemand,
) -> BTreeSet<&'a str> {
    if demand.devices == 0 || !around.tenants.is_metered_by_model(pool) {
        return BTreeSet::new();
    }
    makes
        .iter()
        .flat_map(|(make, _)| &make.devices)
        .map(|device| device.model.as_str())
        .filter(|model| demand.accepts(model))
        .collect()
}

/// Passes where one of these models does, or where there is none to try; else says what is wrong with
/// the first.
fn check_any<'a>(
    models: BTreeSet<&'a str>,
    check: impl Fn(&'a str) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut first_refusal = None;
    for model in models {
        match check(model) {
            Ok(()) => return Ok(()),
            Err(refusal) => first_refusal = first_refusal.or(Some(refusal)),
        }
    }
    first_refusal.map_or(Ok(()), Err)
}

/// Whether a pool's nodes could ever hold it; where quota is stated by model, on devices of one.
fn check_ever_fits(
    around: Surroundings<'_>,
    pool: &PoolName,
    makes: &[(&NodeDescription, u32)],
    spec: &WorkloadSpec,
    demand: &MemberDemand,
) -> Result<(), Refusal> {
    fit::check_ever_fits(pool, makes, spec, demand)?;
    let models = models_to_try(around, pool, makes, demand);
    check_any(models, |model| {
        fit::check_ever_fits(pool, makes, spec, &demand.narrowed(model))
    })
}

/// [`check_quota`] on one meter.
fn check_meter(
    around: Surroundings<'_>,
    meter: Meter<'_>,
    spec: &WorkloadSpec,
) -> Result<(), Refusal> {
    let asked = spec.gpu_milli();
    let tenant = &around.tenant.name;
    // A line is set as a whole, so the hint names all of it.
    let raise = |flag: &str, name: &TenantName| {
        let line = quotas::line(around.tenants, name, meter);
        let part = |given: &str, value: Option<u64>| match value {
            _ if given == flag => format!(" {given} N"),
            Some(milli) => format!(" {given} {}", gpus(milli)),
            None => String::new(),
        };
        format!(
            "ask for less, or have it raised: platform quotas set {name} {}{}{}{}",
            meter.flags(),
            part("--gpus", line.map(|line| line.quota_milli)),
            part("--limit", line.and_then(|line| line.limit_milli)),
            part("--lend", line.and_then(|line| line.lend_milli)),
        )
    };
    match quotas::standing(around.tenants, meter, tenant, asked, |_| 0) {
        Standing::OverLimit {
            tenant: above,
            limit_milli,
            ..
        } => Err(Refusal::refused(format!(
            "{} GPUs are asked for, and tenant {above} has a limit of {} {meter}",
            gpus(asked),
            gpus(limit_milli)
        ))
        .allowed(format!("up to {} GPUs", gpus(limit_milli)))
        .hint(raise("--limit", &above))),
        Standing::Borrows { milli, .. } if !spec.preemptible => {
            let quota = asked.saturating_sub(milli);
            Err(Refusal::refused(format!(
                "{} GPUs are asked for, tenant {tenant} has a quota of {} {meter}, and a run that may not be preempted borrows nothing",
                gpus(asked),
                gpus(quota)
            ))
            .allowed(format!("up to {} GPUs, or a run that may be preempted", gpus(quota)))
            .hint(raise("--gpus", tenant)))
        }
        Standing::Guaranteed | Standing::Borrows { .. } => Ok(()),
    }
}

/// Thousandths as people write them: `1.5`.
pub fn gpus(milli: u64) -> String {
    if milli.is_multiple_of(1000) {
        (milli / 1000).to_string()
    } else {
        format!("{}.{:03}", milli / 1000, milli % 1000)
            .trim_end_matches('0')
            .to_owned()
    }
}

fn list<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let items: Vec<&str> = items.into_iter().collect();
    if items.is_empty() {
        "none".to_owned()
    } else {
        items.join(", ")
    }
}

#[cfg(test)]
mod tests;
