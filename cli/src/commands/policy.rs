//! `platform policy`: read, change what was named, write back under the version that was read.

use super::Outcome;
use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::output::{Printer, amounts, views};
use crate::parse::Wait;
use http::Method;
use platform_proto::http::{PolicyView, PriorityClassView, ScheduledPriceView, TagRule};

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
    /// Caps in sum by model.
    pub cap_sums: Vec<(String, u64)>,
    /// Caps in sum to take away.
    pub no_cap_sums: Vec<String>,
    /// Prices by GPU model.
    pub prices: Vec<(String, u64)>,
    /// Prices to take away.
    pub no_prices: Vec<String>,
    /// When the prices come into effect, or did the ones to take away; absent: they are in effect.
    pub prices_from_us: Option<u64>,
    /// Price of the others.
    pub default_price: Option<u64>,
    /// Currency.
    pub currency: Option<String>,
    /// How long a run is left alone before it may be stopped for another.
    pub minimum_run_ms: Option<u64>,
    /// After how long what a tenant held counts half as much in its turns.
    pub fair_share_half_life_ms: Option<u64>,
    /// Priority classes to set.
    pub priority_classes: Vec<(String, PriorityClassView)>,
    /// Priority classes to take away.
    pub no_priority_classes: Vec<String>,
    /// How long a run may find no room in its turn before devices are kept for it.
    pub reservation_after_ms: Option<u64>,
    /// From which use on, in percent, GPUs are not idle.
    pub idle_below_percent: Option<u32>,
    /// How long GPUs idle until their run is warned.
    pub idle_warn_after: Option<Wait>,
    /// How long GPUs idle until their run is stopped.
    pub idle_stop_after: Option<Wait>,
    /// The longest that a justification of idle GPUs holds.
    pub longest_justification_ms: Option<u64>,
    /// How long a run waits after its first failure.
    pub retry_wait_ms: Option<u64>,
    /// The longest that it waits after a failure.
    pub retry_wait_longest_ms: Option<u64>,
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
    if changes.prices_from_us.is_some() && changes.prices.is_empty() && changes.no_prices.is_empty()
    {
        return Err(Failure::usage("--from says when, and no price is named")
            .allowed("--from with --price or --no-price"));
    }
    if changes == Changes::default() {
        return Err(
            Failure::usage("nothing to change was named").hint("platform policy set --help")
        );
    }
    let sets_classes =
        !changes.priority_classes.is_empty() || !changes.no_priority_classes.is_empty();
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
    if sets_classes {
        printer.note(
            "runs that wait or run keep the class, the priority and the rights that they have",
        );
    }
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
    policy.gpu_memory_cap_sums_mib.extend(changes.cap_sums);
    for model in changes.no_cap_sums {
        if policy.gpu_memory_cap_sums_mib.remove(&model).is_none() {
            return Err(absent(
                "GPU-memory cap in sum for",
                &model,
                policy.gpu_memory_cap_sums_mib.keys().collect(),
            ));
        }
    }
    if let Some(from_us) = changes.prices_from_us {
        schedule(&mut policy, from_us, changes.prices, &changes.no_prices)?;
    } else {
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
    }
    let classes = policy.priority_classes.get_or_insert_default();
    classes.extend(changes.priority_classes);
    for name in changes.no_priority_classes {
        if classes.remove(&name).is_none() {
            return Err(absent("priority class", &name, classes.keys().collect()));
        }
    }
    policy.tag_mode = changes.tag_mode.unwrap_or(policy.tag_mode);
    policy.default_gpu_hour_price_micro = changes
        .default_price
        .unwrap_or(policy.default_gpu_hour_price_micro);
    policy.currency = changes.currency.unwrap_or(policy.currency);
    policy.minimum_run_ms = changes.minimum_run_ms.unwrap_or(policy.minimum_run_ms);
    policy.fair_share_half_life_ms = changes
        .fair_share_half_life_ms
        .unwrap_or(policy.fair_share_half_life_ms);
    policy.reservation_after_ms = changes
        .reservation_after_ms
        .unwrap_or(policy.reservation_after_ms);
    policy.idle_below_percent = changes
        .idle_below_percent
        .unwrap_or(policy.idle_below_percent);
    policy.idle_warn_after_ms = changes
        .idle_warn_after
        .map_or(policy.idle_warn_after_ms, Wait::ms);
    policy.idle_stop_after_ms = changes
        .idle_stop_after
        .map_or(policy.idle_stop_after_ms, Wait::ms);
    policy.longest_justification_ms = changes
        .longest_justification_ms
        .unwrap_or(policy.longest_justification_ms);
    policy.retry_wait_ms = changes.retry_wait_ms.unwrap_or(policy.retry_wait_ms);
    policy.retry_wait_longest_ms = changes
        .retry_wait_longest_ms
        .unwrap_or(policy.retry_wait_longest_ms);
    Ok(policy)
}

/// Sets prices to come, and takes others back.
fn schedule(
    policy: &mut PolicyView,
    from_us: u64,
    prices: Vec<(String, u64)>,
    no_prices: &[String],
) -> Result<(), Failure> {
    let scheduled = &mut policy.scheduled_prices;
    for (gpu_model, price_micro) in prices {
        scheduled.retain(|price| (price.from_us, &price.gpu_model) != (from_us, &gpu_model));
        scheduled.push(ScheduledPriceView {
            from_us,
            gpu_model,
            price_micro,
        });
    }
    for model in no_prices {
        let before = scheduled.len();
        scheduled.retain(|price| (price.from_us, &price.gpu_model) != (from_us, model));
        if scheduled.len() == before {
            let known: Vec<String> = scheduled
                .iter()
                .map(|price| format!("{} from {}", price.gpu_model, amounts::utc(price.from_us)))
                .collect();
            return Err(Failure::not_found(format!(
                "the policy has no price for `{model}` from {}",
                amounts::utc(from_us)
            ))
            .allowed(if known.is_empty() {
                "none is to come".to_owned()
            } else {
                known.join(", ")
            }));
        }
    }
    scheduled.sort();
    Ok(())
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
            gpu_memory_cap_sums_mib: [("bert*".to_owned(), 163_840)].into(),
            gpu_hour_price_micro: [("T4".to_owned(), 350_000)].into(),
            default_gpu_hour_price_micro: 1_000_000,
            scheduled_prices: Vec::new(),
            currency: "EUR".to_owned(),
            minimum_run_ms: 30_000,
            fair_share_half_life_ms: 86_400_000,
            reservation_after_ms: 300_000,
            retry_wait_ms: 5_000,
            retry_wait_longest_ms: 300_000,
            priority_classes: None,
            idle_below_percent: 5,
            idle_warn_after_ms: Some(1_800_000),
            idle_stop_after_ms: Some(7_200_000),
            longest_justification_ms: 86_400_000,
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
    fn a_price_to_come_replaces_its_like_and_is_taken_back_by_its_moment() {
        let from_us = 1_798_761_600_000_000;
        let price = |model: &str, micro| Changes {
            prices: vec![(model.to_owned(), micro)],
            prices_from_us: Some(from_us),
            ..Changes::default()
        };
        let once = changed(policy(), price("T4", 1)).unwrap();
        let twice = changed(once, price("T4", 2)).unwrap();
        let both = changed(twice, price("A100", 3)).unwrap();
        let listed: Vec<_> = both
            .scheduled_prices
            .iter()
            .map(|price| (price.gpu_model.as_str(), price.price_micro))
            .collect();
        assert_eq!(listed, [("A100", 3), ("T4", 2)]);
        assert_eq!(both.gpu_hour_price_micro["T4"], 350_000, "now as before");
        let take_back = |model: &str| Changes {
            no_prices: vec![model.to_owned()],
            prices_from_us: Some(from_us),
            ..Changes::default()
        };
        let left = changed(both.clone(), take_back("T4")).unwrap();
        assert_eq!(left.scheduled_prices.len(), 1);
        insta::assert_snapshot!(changed(both, take_back("H100")).unwrap_err(), @r"
        the policy has no price for `H100` from 2027-01-01 UTC
          allowed: A100 from 2027-01-01 UTC, T4 from 2027-01-01 UTC
        ");
    }

    #[test]
    fn a_priority_class_is_set_as_a_whole_and_taken_away_by_its_name() {
        let set = |text: &str| Changes {
            priority_classes: vec![crate::priorities::class(text).unwrap()],
            ..Changes::default()
        };
        let once = changed(policy(), set("high=50:role=tenant-admin")).unwrap();
        let twice = changed(once, set("high=60")).unwrap();
        let classes = twice.priority_classes.clone().unwrap();
        assert_eq!(
            (classes["high"].priority, &classes["high"].role),
            (60, &None)
        );
        let take_back = |name: &str| Changes {
            no_priority_classes: vec![name.to_owned()],
            ..Changes::default()
        };
        let left = changed(twice.clone(), take_back("high")).unwrap();
        assert_eq!(left.priority_classes, Some([].into()));
        insta::assert_snapshot!(changed(twice, take_back("hihg")).unwrap_err(), @r"
        the policy has no priority class `hihg`
          allowed: high
        ");
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
