//! Refused submits on their way to the books: each person's refusal once, and again after a while, so
//! that a script in a loop fills nothing.

use super::App;
use super::auth::Identity;
use crate::leader::decisions::keep;
use coordinator_core::policy::Refusal;
use coordinator_core::scheduler::decisions::of_refusal;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The same refusal of the same person is kept once within it.
const QUIET_US: u64 = 60 * 1_000_000;
/// Refusals remembered; beyond them the oldest are forgotten, and may be kept once more.
const MOST_REMEMBERED: usize = 1_024;

/// When who was last refused what.
#[derive(Default)]
pub struct Refusals(Mutex<BTreeMap<(String, String), u64>>);

impl Refusals {
    /// Whether this one is news.
    fn is_news(&self, actor: &str, message: &str, now_us: u64) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, at_us| at_us.saturating_add(QUIET_US) > now_us);
        let key = (actor.to_owned(), message.to_owned());
        if last.contains_key(&key) {
            return false;
        }
        if last.len() >= MOST_REMEMBERED {
            let oldest = last.iter().min_by_key(|(_, at_us)| **at_us);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                last.remove(&oldest);
            }
        }
        last.insert(key, now_us);
        true
    }
}

impl App {
    /// Keeps a submit's refusal, which the log entry at `index` met with. Nobody waits for it.
    pub(super) fn keep_refusal(&self, identity: &Identity, index: u64, refusal: &Refusal) {
        let (actor, now_us) = (identity.actor(), crate::now_us());
        if !self.refusals.is_news(&actor, &refusal.message, now_us) {
            return;
        }
        let decision = of_refusal(
            index.saturating_sub(1),
            now_us,
            crate::VERSION,
            &identity.tenant,
            &actor,
            &refusal.message,
        );
        let driver = self.driver.clone();
        tokio::spawn(async move { keep(&driver, vec![decision]).await });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_refusal_is_news_once_a_minute_and_what_is_remembered_is_bounded() {
        let refusals = Refusals::default();
        assert!(refusals.is_news("user:ana", "too much", 0));
        assert!(!refusals.is_news("user:ana", "too much", QUIET_US - 1));
        assert!(refusals.is_news("user:ben", "too much", 1));
        assert!(refusals.is_news("user:ana", "no tag", 1));
        assert!(refusals.is_news("user:ana", "too much", QUIET_US));
        for nth in 0..3 * MOST_REMEMBERED {
            assert!(refusals.is_news("user:ana", &nth.to_string(), QUIET_US));
        }
        assert_eq!(
            refusals.0.lock().map(|last| last.len()).ok(),
            Some(MOST_REMEMBERED)
        );
    }
}
