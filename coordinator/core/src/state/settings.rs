//! What platform engineers set beside tenants: pools, the policy, tokens.

use super::idleness::check_idle_policy;
use super::{Event, Outcome, State};
use crate::model::{Policy, Pool, PoolName, PoolOrder, Token};
use crate::policy::{self, Refusal, RefusalKind, unknown_pool};

const LONGEST_DESCRIPTION: usize = 500;
/// A day: a run that may hold borrowed devices for longer than that has taken them.
const LONGEST_MINIMUM_RUN_MS: u64 = 24 * 3_600 * 1000;
/// 30 days: a run that waits for longer than that is not helped by devices that are kept.
const LONGEST_RESERVATION_AFTER_MS: u64 = 30 * 24 * 3_600 * 1000;
/// A year: what was used before that is history.
const LONGEST_HALF_LIFE_MS: u64 = 365 * 24 * 3_600 * 1000;
/// What is forgotten within a minute is not remembered.
const SHORTEST_HALF_LIFE_MS: u64 = 60 * 1000;
/// A day: a run that waits longer is submitted again.
const LONGEST_RETRY_WAIT_MS: u64 = 24 * 3_600 * 1000;

/// An order that lets a run wait for longer than a year has no bound.
const LONGEST_AGE_BOUND_MS: u64 = 365 * 24 * 3_600 * 1000;
const SHORTEST_AGE_BOUND_MS: u64 = 1000;

/// What is to change of a pool; what is absent stays.
pub(super) struct PoolChange<'a> {
    pub(super) description: Option<&'a str>,
    pub(super) order: Option<PoolOrder>,
    pub(super) age_bound_ms: Option<u64>,
}

impl State {
    pub(super) fn set_pool(
        &mut self,
        name: &PoolName,
        change: &PoolChange<'_>,
        must_exist: Option<bool>,
    ) -> Outcome {
        let exists = self.pools.contains_key(name);
        match must_exist {
            Some(true) if !exists => return Err(unknown_pool(name.as_str(), &self.pools)),
            Some(false) if exists => {
                return Err(Refusal::new(
                    RefusalKind::Conflict,
                    format!("pool {name} exists already"),
                )
                .hint(format!("change it with: platform pools set {name}")));
            }
            _ => {}
        }
        if let Some(text) = change.description
            && (text.len() > LONGEST_DESCRIPTION || text.chars().any(char::is_control))
        {
            return Err(Refusal::invalid(
                "the description is too long or holds control characters",
            )
            .allowed(format!("up to {LONGEST_DESCRIPTION} bytes of text")));
        }
        if let Some(bound_ms) = change.age_bound_ms
            && !(SHORTEST_AGE_BOUND_MS..=LONGEST_AGE_BOUND_MS).contains(&bound_ms)
        {
            return Err(Refusal::invalid(format!(
                "an age bound of {} s is out of range",
                bound_ms / 1000
            ))
            .allowed("1 s to 365 d")
            .hint("for runs as they were submitted, use: --order fifo"));
        }
        let pool = self
            .pools
            .entry(name.clone())
            .or_insert_with(|| Pool::new(name.clone()));
        if let Some(text) = change.description {
            pool.description = text.to_owned();
        }
        let before = (pool.order, pool.age_bound_ms);
        pool.order = change.order.unwrap_or(pool.order);
        pool.age_bound_ms = change.age_bound_ms.unwrap_or(pool.age_bound_ms);
        if before != (pool.order, pool.age_bound_ms) {
            self.order_anew(name);
        }
        Ok(vec![Event::SettingsChanged])
    }

    pub(super) fn set_policy(&mut self, policy: &Policy) -> Outcome {
        if policy.version != self.policy.version {
            return Err(Refusal::new(
                RefusalKind::Conflict,
                format!(
                    "the change is of policy version {}, and version {} is in force",
                    policy.version, self.policy.version
                ),
            )
            .hint("read it again with: platform policy show"));
        }
        for key in policy.required_tags.keys() {
            if !crate::model::is_name(key) {
                return Err(Refusal::invalid(format!("tag key {key:?} is not valid")).allowed(
                    "1 to 63 lower-case letters, digits, '-', '_' or '.', beginning with a letter or digit",
                ));
            }
        }
        for (pattern, cap) in &policy.gpu_memory_caps_mib {
            let stem = pattern.strip_suffix('*').unwrap_or(pattern);
            if !(stem.is_empty() && pattern == "*" || crate::model::is_name(stem)) || *cap == 0 {
                return Err(Refusal::invalid(format!(
                    "GPU-memory cap {pattern}={cap} MiB is not valid"
                ))
                .allowed("a model name or prefix*, and more than 0 MiB"));
            }
        }
        for (pattern, cap) in &policy.gpu_memory_cap_sums_mib {
            let stem = pattern.strip_suffix('*').unwrap_or(pattern);
            if !(stem.is_empty() && pattern == "*" || crate::model::is_name(stem)) || *cap == 0 {
                return Err(Refusal::invalid(format!(
                    "GPU-memory cap {pattern}={cap} MiB in sum is not valid"
                ))
                .allowed("a model name or prefix*, and more than 0 MiB"));
            }
        }
        if policy.currency.len() != 3
            || !policy
                .currency
                .bytes()
                .all(|byte| byte.is_ascii_uppercase())
        {
            return Err(
                Refusal::invalid(format!("currency {:?} is not valid", policy.currency))
                    .allowed("three capital letters, as in EUR"),
            );
        }
        if policy.minimum_run_ms > LONGEST_MINIMUM_RUN_MS {
            return Err(Refusal::invalid(format!(
                "a minimum run time of {} s before preemption is out of range",
                policy.minimum_run_ms / 1000
            ))
            .allowed("0 s to 24 h"));
        }
        if policy.reservation_after_ms > LONGEST_RESERVATION_AFTER_MS {
            return Err(Refusal::invalid(format!(
                "a wait of {} s before devices are kept is out of range",
                policy.reservation_after_ms / 1000
            ))
            .allowed("0 s to 30 d"));
        }
        if policy.fair_share_half_life_ms > LONGEST_HALF_LIFE_MS
            || (1..SHORTEST_HALF_LIFE_MS).contains(&policy.fair_share_half_life_ms)
        {
            return Err(Refusal::invalid(format!(
                "a half-life of {} ms for what tenants held is out of range",
                policy.fair_share_half_life_ms
            ))
            .allowed("1 min to 365 d, or 0 to count only what is held now"));
        }
        let scheduled_prices = self.check_scheduled_prices(policy)?;
        let retry = &policy.retry;
        if retry.longest_wait_ms > LONGEST_RETRY_WAIT_MS
            || retry.first_wait_ms > retry.longest_wait_ms
        {
            return Err(Refusal::invalid(format!(
                "a wait of {} ms, at the longest {} ms, before a retry is out of range",
                retry.first_wait_ms, retry.longest_wait_ms
            ))
            .allowed("0 s to 24 h, and the longest no shorter than the first"));
        }
        check_idle_policy(&policy.idle)?;
        policy::priorities::check_classes(policy, &self.tenants)?;
        self.pace_recent(policy.fair_share_half_life_ms);
        self.policy = Policy {
            version: self.policy.version + 1,
            scheduled_prices,
            ..policy.clone()
        };
        self.charge_live_grants(self.time_us);
        self.recount_memory();
        Ok(vec![Event::SettingsChanged])
    }

    pub(super) fn create_token(&mut self, hash: &str, token: &Token) -> Outcome {
        self.surroundings(&token.tenant)?;
        if self.tokens.contains_key(hash) || self.tokens.values().any(|known| known.id == token.id)
        {
            return Err(Refusal::new(
                RefusalKind::Conflict,
                format!("token {} exists already", token.id),
            ));
        }
        let token = Token {
            created_us: self.time_us,
            ..token.clone()
        };
        self.tokens.insert(hash.to_owned(), token);
        Ok(vec![Event::SettingsChanged])
    }

    pub(super) fn revoke_token(&mut self, id: &str) -> Outcome {
        let Some(token) = self.tokens.values_mut().find(|token| token.id == id) else {
            return Err(Refusal::new(
                RefusalKind::NotFound,
                format!("token {id:?} does not exist"),
            )
            .hint("see the tokens with: platform tokens list"));
        };
        token.revoked = true;
        Ok(vec![Event::SettingsChanged])
    }
}
