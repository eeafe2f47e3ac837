//! `platform policy`: read, change what was named, write back under the version that was read.

use super::Outcome;
use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::output::{Printer, views};
use http::Method;
use platform_proto::http::{PolicyView, TagRule};

/// What `platform policy set` changes; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Tags to require, with their values.
    pub require_tags: Vec<(String, Vec<String>)>,
    /// Tags to require no longer.
    pub no_require_tags: Vec<String>,
    /// Mode.
    pub tag_mode: Option<String>,
    /// Caps by model.
    pub caps: Vec<(String, u64)>,
    /// Caps to take away.
    pub no_caps: Vec<String>,
    /// Prices by GPU model.
    pub prices: Vec<(String, u64)>,
    /// Prices to take away.
    pub no_prices: Vec<String>,
    /// Price of the others.
    pub default_price: Option<u64>,
    /// Currency.
    pub currency: Option<String>,
    /// How long a run is left alone before it may be stopped for another.
    pub minimum_run_ms: Option<u64>,
    /// How long a run may find no room in its turn before devices are kept for it.
    pub reservation_after_ms: Option<u64>,
}

/// `platform policy show`.
pub async fn show(client: &Client, printer: &Printer) -> Outcome {
    let policy: PolicyView = client.get("/v1/policy").await?;
    printer.result(&policy, |_| views::policy(&policy))?;
    Ok(exit::DONE)
}

/// `platform policy set`.
pub async fn set(
    client: &Client,
    printer: &Printer,
    changes: Changes,
    version: Option<u64>,
    dry_run: bool,
) -> Outcome {
    if changes == Changes::default() {
        return Err(
            Failure::usage("nothing to change was named").hint("platform policy set --help")
        );
    }
    let read: PolicyView = client.get("/v1/policy").await?;
    if version.is_some_and(|version| version != read.version) {
        return Err(
            Failure::error(format!("the policy is at version {}", read.version))
                .hint("look again with `platform policy show`"),
        );
    }
    let wanted = changed(read, changes)?;
    if dry_run {
        printer.result(&wanted, |_| views::policy(&wanted))?;
        printer.note("nothing was changed");
        return Ok(exit::DONE);
    }
    let policy: PolicyView = client.change(Method::PUT, "/v1/policy", &wanted).await?;
    printer.result(&policy, |_| views::policy(&policy))?;
    Ok(exit::DONE)
}

fn changed(mut policy: PolicyView, changes: Changes) -> Result<PolicyView, Failure> {
    let absent = |what: &str, name: &str, known: Vec<&String>| {
        let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
        Failure::not_found(format!("the policy has no {what} `{name}`")).allowed(
            if known.is_empty() {
                "none is set".to_owned()
            } else {
                known.join(", ")
            },
        )
    };
    for (key, allowed) in changes.require_tags {
        policy.required_tags.insert(key, TagRule { allowed });
    }
    for key in changes.no_require_tags {
        if policy.required_tags.remove(&key).is_none() {
            return Err(absent(
                "required tag",
                &key,
                policy.required_tags.keys().collect(),
            ));
        }
    }
    policy.gpu_memory_caps_mib.extend(changes.caps);
    for model in changes.no_caps {
        if policy.gpu_memory_caps_mib.remove(&model).is_none() {
            return Err(absent(
                "GPU-memory cap for",
                &model,
                policy.gpu_memory_caps_mib.keys().collect(),
            ));
        }
    }
    policy.gpu_hour_price_micro.extend(changes.prices);
    for model in changes.no_prices {
        if policy.gpu_hour_price_micro.remove(&model).is_none() {
            return Err(absent(
                "price for",
                &model,
                policy.gpu_hour_price_micro.keys().collect(),
            ));
        }
    }
    policy.tag_mode = changes.tag_mode.unwrap_or(policy.tag_mode);
    policy.default_gpu_hour_price_micro = changes
        .default_price
        .unwrap_or(policy.default_gpu_hour_price_micro);
    policy.currency = changes.currency.unwrap_or(policy.currency);
    policy.minimum_run_ms = changes.minimum_run_ms.unwrap_or(policy.minimum_run_ms);
    policy.reservation_after_ms = changes
        .reservation_after_ms
        .unwrap_or(policy.reservation_after_ms);
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> PolicyView {
        PolicyView {
            version: 3,
            required_tags: [("team".to_owned(), TagRule::default())].into(),
            tag_mode: "enforce".to_owned(),
            gpu_memory_caps_mib: [("bert*".to_owned(), 20480)].into(),
            gpu_hour_price_micro: [("T4".to_owned(), 350_000)].into(),
            default_gpu_hour_price_micro: 1_000_000,
            currency: "EUR".to_owned(),
            minimum_run_ms: 30_000,
            reservation_after_ms: 300_000,
        }
    }

    #[test]
    fn what_is_not_named_stays_and_the_version_that_was_read_goes_back() {
        let changes = Changes {
            tag_mode: Some("warn".to_owned()),
            no_prices: vec!["T4".to_owned()],
            ..Changes::default()
        };
        let after = changed(policy(), changes).unwrap();
        let before = policy();
        assert_eq!((after.version, after.tag_mode.as_str()), (3, "warn"));
        assert!(after.gpu_hour_price_micro.is_empty());
        assert_eq!(
            (after.required_tags, after.gpu_memory_caps_mib),
            (before.required_tags, before.gpu_memory_caps_mib)
        );
    }

    #[test]
    fn taking_away_what_is_not_there_says_what_is() {
        let changes = Changes {
            no_caps: vec!["bert".to_owned()],
            ..Changes::default()
        };
        insta::assert_snapshot!(changed(policy(), changes).unwrap_err(), @r"
        the policy has no GPU-memory cap for `bert`
          allowed: bert*
        ");
    }
}
