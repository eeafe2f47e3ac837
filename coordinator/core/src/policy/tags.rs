//! Required cost tags: no run starts without the keys that it will be charged by.

use super::Refusal;
use crate::model::{Policy, TagMode, WorkloadSpec, is_name};

const LONGEST_VALUE: usize = 128;

/// Checks the form of every tag and the presence of the required ones. Answers with warnings.
pub fn check(policy: &Policy, spec: &WorkloadSpec) -> Result<Vec<String>, Refusal> {
    for (key, value) in &spec.tags {
        if !is_name(key) {
            return Err(Refusal::invalid(format!("tag key {key:?} is not valid"))
                .allowed("1 to 63 lower-case letters, digits, '-', '_' or '.', beginning with a letter or digit"));
        }
        if value.is_empty() || value.len() > LONGEST_VALUE || value.chars().any(char::is_control) {
            return Err(
                Refusal::invalid(format!("tag {key}={value:?} is not valid")).allowed(format!(
                    "a value of 1 to {LONGEST_VALUE} bytes without control characters"
                )),
            );
        }
    }
    let missing: Vec<&String> = policy
        .required_tags
        .keys()
        .filter(|key| !spec.tags.contains_key(*key))
        .collect();
    let wrong = policy.required_tags.iter().find_map(|(key, allowed)| {
        let value = spec.tags.get(key)?;
        (!allowed.is_empty() && !allowed.contains(value)).then_some((key, value, allowed))
    });
    let refusal = if !missing.is_empty() {
        Refusal::refused(format!(
            "required cost tag{} missing: {}",
            if missing.len() == 1 { "" } else { "s" },
            join(missing.iter().map(|key| key.as_str()), ", ")
        ))
        .allowed(join(
            missing
                .iter()
                .map(|key| format!("{key}={}", values(&policy.required_tags[*key]))),
            "; ",
        ))
        .hint(format!(
            "add {}",
            join(
                missing.iter().map(|key| {
                    let value = policy.required_tags[*key]
                        .first()
                        .map_or("VALUE", String::as_str);
                    format!("--tag {key}={value}")
                }),
                " "
            )
        ))
    } else if let Some((key, value, allowed)) = wrong {
        Refusal::refused(format!("cost tag {key}={value} is not an allowed value"))
            .allowed(format!("{key}={}", values(allowed)))
            .hint(format!("use --tag {key}={}", allowed[0]))
    } else {
        return Ok(Vec::new());
    };
    match policy.tag_mode {
        TagMode::Off => Ok(Vec::new()),
        TagMode::Warn => Ok(vec![format!(
            "{}; {}",
            refusal.message,
            refusal.hint.unwrap_or_default()
        )]),
        TagMode::Enforce => Err(refusal),
    }
}

fn values(allowed: &[String]) -> String {
    if allowed.is_empty() {
        "any value".to_owned()
    } else {
        allowed.join("|")
    }
}

fn join<T: AsRef<str>>(parts: impl Iterator<Item = T>, separator: &str) -> String {
    parts.fold(String::new(), |mut text, part| {
        if !text.is_empty() {
            text.push_str(separator);
        }
        text.push_str(part.as_ref());
        text
    })
}
