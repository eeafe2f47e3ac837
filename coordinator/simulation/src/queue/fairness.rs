//! Whether tenants had what their quotas promise: integrals over time, kept between events.

use coordinator_core::scheduler::queue::Queue;

/// What one tenant used, was owed and missed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Account {
    quota_milli: u64,
    /// Integral of use.
    pub(super) used_gpu_milli_us: u128,
    /// Integral of the lesser of quota and demand.
    owed_gpu_milli_us: u128,
    /// Of that, what it used.
    given_gpu_milli_us: u128,
    /// Time with any demand.
    active_us: u64,
    /// Time in which a run within its quota waited while another tenant was over its own.
    violated_us: u64,
}

impl Account {
    /// Use within quota and demand, over what was owed. 1 for a tenant that asked nothing.
    pub(super) fn satisfaction(&self) -> f64 {
        if self.owed_gpu_milli_us == 0 {
            1.0
        } else {
            self.given_gpu_milli_us as f64 / self.owed_gpu_milli_us as f64
        }
    }

    /// Share of its active time in which its quota was violated.
    pub(super) fn violation_share(&self) -> f64 {
        if self.active_us == 0 {
            0.0
        } else {
            self.violated_us as f64 / self.active_us as f64
        }
    }
}

/// The accounts, brought forward from event to event.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fairness {
    pub(super) accounts: Vec<Account>,
    now_us: u64,
}

impl Fairness {
    pub(super) fn new(quota_milli: Vec<u64>) -> Self {
        Self {
            accounts: quota_milli
                .into_iter()
                .map(|quota_milli| Account {
                    quota_milli,
                    ..Account::default()
                })
                .collect(),
            now_us: 0,
        }
    }

    pub(super) fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Nothing happened until `now_us`. `seat` finds a tenant's queue and its place there.
    pub(super) fn advance<'a>(&mut self, now_us: u64, seat: &dyn Fn(usize) -> (&'a Queue, usize)) {
        let spell_us = now_us.saturating_sub(std::mem::replace(&mut self.now_us, now_us));
        if spell_us == 0 {
            return;
        }
        let spell = u128::from(spell_us);
        let used: Vec<u64> = (0..self.accounts.len())
            .map(|tenant| {
                let (queue, place) = seat(tenant);
                queue.used_milli(place)
            })
            .collect();
        let over: Vec<bool> = self
            .accounts
            .iter()
            .zip(&used)
            .map(|(account, used)| *used > account.quota_milli)
            .collect();
        let overs = over.iter().filter(|is_over| **is_over).count();
        for (tenant, account) in self.accounts.iter_mut().enumerate() {
            let (queue, place) = seat(tenant);
            let mut waiting_milli = 0;
            let mut is_short = false;
            for (demand, count) in queue.waiting(place) {
                waiting_milli += demand.gpu_milli * count as u64;
                is_short |= used[tenant] + demand.gpu_milli <= account.quota_milli;
            }
            let wanted = used[tenant] + waiting_milli;
            if wanted == 0 {
                continue;
            }
            let owed = wanted.min(account.quota_milli);
            account.active_us += spell_us;
            account.used_gpu_milli_us += u128::from(used[tenant]) * spell;
            account.owed_gpu_milli_us += u128::from(owed) * spell;
            account.given_gpu_milli_us += u128::from(used[tenant].min(owed)) * spell;
            if is_short && overs > usize::from(over[tenant]) {
                account.violated_us += spell_us;
            }
        }
    }
}
