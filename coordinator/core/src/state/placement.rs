//! Granting and releasing devices. The only place where shares are given out or come back.

use super::index::note_stoppable;
use super::meters::by_model;
use super::{Event, Placement, State};
use crate::model::{
    Attempt, DeviceGrant, EndKind, Epoch, Grant, Member, MemberDemand, MemberEnd, MemberKey,
    MemberPhase, OutboxBody, RunId, RunPhase, StopReason,
};
use crate::policy::fits_now;
use std::collections::BTreeSet;

impl State {
    pub(super) fn place_all(&mut self, placements: &[Placement]) -> Vec<Event> {
        placements
            .iter()
            .map(|placement| match self.place(placement) {
                Ok(()) => Event::RunPlaced { run: placement.run },
                Err(reason) => Event::PlacementRefused {
                    run: placement.run,
                    reason,
                },
            })
            .collect()
    }

    fn place(&mut self, placement: &Placement) -> Result<(), String> {
        let run = self
            .runs
            .get(&placement.run)
            .ok_or("the run does not exist")?;
        if run.phase != RunPhase::Queued {
            return Err("the run does not wait".to_owned());
        }
        if self.is_held(run) {
            return Err("the run is held until it is tried again".to_owned());
        }
        let number = run.next_attempt();
        if placement.attempt != number {
            return Err(format!(
                "attempt {} is planned, and the next is {number}",
                placement.attempt
            ));
        }
        let spec = run.spec.clone();
        let tenant = run.tenant.clone();
        let pool = spec.pool.clone().ok_or("the spec names no pool")?;
        if placement.members.len() != spec.nodes as usize {
            return Err(format!(
                "{} members are planned of {}",
                placement.members.len(),
                spec.nodes
            ));
        }
        let asked = spec.gpu_milli();
        if let Some(refusal) = self.stopped_by(&tenant, &spec) {
            return Err(refusal.message);
        }
        let borrowed_milli = self.check_quota(&tenant, &pool, &spec, asked)?;
        let demand = self.policy.demand(&spec);
        let distinct: BTreeSet<_> = placement
            .members
            .iter()
            .map(|member| &member.node)
            .collect();
        if distinct.len() != placement.members.len() {
            return Err("two members share a node".to_owned());
        }
        let mut members = Vec::with_capacity(placement.members.len());
        for member in &placement.members {
            members.push(self.check_member(&demand, &pool, member)?);
        }
        let memory_mib = members.iter().map(Member::gpu_memory_mib).sum();
        if let Some(reason) = self.over_memory_sum(&spec, memory_mib, |_| 0) {
            return Err(reason);
        }
        let borrowed_milli = if self.tenants.is_metered_by_model(&pool) {
            let grants = by_model(members.iter().flat_map(|member| &member.devices));
            borrowed_milli.max(self.check_models(&tenant, &pool, &spec, &grants)?)
        } else {
            borrowed_milli
        };
        let epoch = Epoch(self.next_epoch);
        self.next_epoch += 1;
        for (rank, member) in (0_u32..).zip(&members) {
            self.grant(
                MemberKey {
                    run: placement.run,
                    attempt: number,
                    member: rank,
                },
                member,
            );
        }
        self.settle_recent(&tenant, &pool);
        self.count_use(&tenant, &pool, asked, true);
        let grants = members.iter().flat_map(|member| &member.devices);
        self.count_models(&tenant, &pool, grants, true);
        let rate = members.iter().map(Member::charge_rate).sum();
        self.count_charge(&tenant, &spec, self.time_us, 0, rate);
        self.count_memory(&spec, memory_mib, true);
        self.dequeue(placement.run);
        let time_us = self.time_us;
        let run = self
            .runs
            .get_mut(&placement.run)
            .ok_or("the run does not exist")?;
        run.phase = RunPhase::Active;
        run.has_claim = false;
        run.held_until_us = None;
        run.attempts.push(Attempt {
            number,
            epoch,
            placed_us: time_us,
            started_us: None,
            ended_us: None,
            stopping: None,
            end: None,
            members,
            borrowed_milli,
            checkpointed_us: None,
            idle: None,
        });
        note_stoppable(&mut self.stoppable, run, true);
        self.active.insert(placement.run);
        self.note_placed(placement.run);
        Ok(())
    }

    fn check_member(
        &self,
        demand: &MemberDemand,
        pool: &crate::model::PoolName,
        placement: &super::MemberPlacement,
    ) -> Result<Member, String> {
        let name = &placement.node;
        let node = self
            .nodes
            .get(name)
            .ok_or_else(|| format!("node {name} does not exist"))?;
        if !node.is_ready() || node.description.pool != *pool {
            return Err(format!("node {name} does not take runs of pool {pool}"));
        }
        fits_now(node, demand)
            .map_err(|shortfall| format!("node {name}: {}", shortfall.words()))?;
        let named: BTreeSet<_> = placement.devices.iter().collect();
        if named.len() != placement.devices.len() || named.len() != demand.devices as usize {
            return Err(format!(
                "{} devices are planned of {}",
                named.len(),
                demand.devices
            ));
        }
        let mut devices = Vec::with_capacity(placement.devices.len());
        for id in &placement.devices {
            let position = node
                .description
                .devices
                .iter()
                .position(|device| device.id == *id)
                .ok_or_else(|| format!("node {name} has no device {id}"))?;
            let device = &node.description.devices[position];
            let memory_mib = demand.memory_on(device.memory_mib);
            let grant = Grant {
                share_milli: demand.share_milli,
                memory_mib,
            };
            if !demand.accepts(&device.model) {
                return Err(format!("device {id} is a {}", device.model));
            }
            if !node.devices[position].fits(grant, device.memory_mib) {
                return Err(format!("device {id} of node {name} is taken"));
            }
            devices.push(DeviceGrant {
                device: id.clone(),
                index: device.index,
                model: device.model.clone(),
                share_milli: demand.share_milli,
                memory_mib,
                simulated: device.simulated,
                price_per_gpu_hour_micro: self.policy.price_per_gpu_hour_micro(&device.model),
                later_prices: Vec::new(),
            });
        }
        Ok(Member {
            node: name.clone(),
            devices,
            cpu_milli: demand.cpu_milli,
            memory_mib: demand.memory_mib,
            phase: MemberPhase::Assigned,
            detail: None,
            enforcement: None,
            end: None,
            released_us: None,
        })
    }

    fn grant(&mut self, key: MemberKey, member: &Member) {
        let Some(node) = self.nodes.get_mut(&member.node) else {
            return;
        };
        node.members.insert(key);
        node.cpu_reserved_milli += member.cpu_milli;
        node.memory_reserved_mib += member.memory_mib;
        for grant in &member.devices {
            if let Some(position) = node
                .description
                .devices
                .iter()
                .position(|device| device.id == grant.device)
            {
                node.devices[position].add(
                    key,
                    Grant {
                        share_milli: grant.share_milli,
                        memory_mib: grant.memory_mib,
                    },
                );
            }
        }
        self.note_grants(&member.node);
    }

    /// Ends one member and gives its share back, with its ledger rows. A member that has ended
    /// already is left as it is, so a repeated report changes nothing.
    pub(super) fn release(&mut self, key: MemberKey, end: MemberEnd) -> Vec<Event> {
        let time_us = self.time_us;
        let Some(run) = self.runs.get_mut(&key.run) else {
            return Vec::new();
        };
        let gang = run.spec.nodes > 1;
        let Some(attempt) = run
            .attempts
            .last_mut()
            .filter(|attempt| attempt.number == key.attempt)
        else {
            return Vec::new();
        };
        let Some(member) = attempt.members.get_mut(key.member as usize) else {
            return Vec::new();
        };
        if member.phase == MemberPhase::Ended {
            return Vec::new();
        }
        member.phase = MemberPhase::Ended;
        member.detail = None;
        let failed = !end.kind.is_success();
        member.end = Some(end);
        member.released_us = Some(time_us);
        let over = attempt.is_over();
        let was_stopping = attempt.stopping.is_some();
        let run = &*run;
        let Some(attempt) = run.last_attempt() else {
            return Vec::new();
        };
        let member = &attempt.members[key.member as usize];
        let node_name = member.node.clone();
        let grants = match &run.spec.pool {
            Some(pool) if self.tenants.is_metered_by_model(pool) => member.devices.clone(),
            _ => Vec::new(),
        };
        let rows = super::accounts::ledger_rows(run, attempt, key.member, member, time_us);
        let (tenant, spec) = (run.tenant.clone(), run.spec.clone());
        let (rate, memory_mib) = (member.charge_rate(), member.gpu_memory_mib());
        let held: u64 = member
            .devices
            .iter()
            .map(|grant| u64::from(grant.share_milli))
            .sum();
        if let Some(node) = self.nodes.get_mut(&node_name)
            && node.members.remove(&key)
        {
            node.cpu_reserved_milli -= member.cpu_milli;
            node.memory_reserved_mib -= member.memory_mib;
            for grants in &mut node.devices {
                grants.remove(key);
            }
        }
        self.note_grants(&node_name);
        if let Some(pool) = &spec.pool {
            self.settle_recent(&tenant, pool);
            self.count_use(&tenant, pool, held, false);
            self.count_models(&tenant, pool, &grants, false);
            if was_stopping {
                self.count_stopping(&tenant, pool, held, false);
                self.count_models_stopping(&tenant, pool, &grants, false);
            }
        }
        self.count_charge(&tenant, &spec, time_us, rate, 0);
        self.count_memory(&spec, memory_mib, false);
        self.count_element_cost(key.run, &rows);
        for row in rows {
            self.push_outbox(OutboxBody::Ledger(row));
        }
        let mut events = vec![Event::MemberChanged {
            key,
            node: node_name,
        }];
        if over {
            events.extend(self.settle_attempt(key.run));
        } else if gang && failed {
            events.extend(self.stop_attempt(key.run, StopReason::MemberFailed));
        }
        events
    }

    /// Whether `epoch` is the one that may write for this member: that of the run's last attempt.
    pub fn is_current(&self, key: MemberKey, epoch: Epoch) -> bool {
        self.current_epoch(key.run)
            .is_some_and(|(number, current)| number == key.attempt && current == epoch)
    }

    /// Whether what a member recorded in `epoch` may still be written: it is current, or its own node
    /// said how it ended before the next attempt began. One that was lost or fenced stays refused.
    pub fn may_record(&self, key: MemberKey, epoch: Epoch) -> bool {
        let ended_by_its_node = || {
            let attempt = self.runs.get(&key.run)?.attempt(key.attempt)?;
            let end = attempt.members.get(key.member as usize)?.end.as_ref()?;
            Some(attempt.epoch == epoch && !matches!(end.kind, EndKind::Lost | EndKind::Fenced))
        };
        self.is_current(key, epoch) || ended_by_its_node().unwrap_or(false)
    }

    /// Number and epoch of a run's last attempt.
    pub fn current_epoch(&self, run: RunId) -> Option<(u32, Epoch)> {
        self.runs
            .get(&run)?
            .last_attempt()
            .map(|attempt| (attempt.number, attempt.epoch))
    }
}
