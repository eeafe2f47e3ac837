//! Priorities by name and by number, and who may use which.
//!
//! What a run was admitted with stays with it: its class, its number and whether it may stop others are
//! written into the resolved spec, and no later change of the classes reaches what runs or waits.

use super::{Refusal, Surroundings, list};
use crate::model::{
    PRIORITY_BOUND, Policy, PriorityClass, Role, TenantName, TenantTree, WorkloadSpec, is_name,
    tenant_and_above,
};

/// More names than that are a mistake in a script.
const MOST_CLASSES: usize = 32;

/// Gives the priority its class or its number, and checks that whoever asks may use it.
pub(super) fn resolve(around: Surroundings<'_>, spec: &mut WorkloadSpec) -> Result<(), Refusal> {
    // Who asks is not known of what was admitted already, and of entries of the log that were written
    // when every priority was open: both stay as they were.
    let Some(role) = around.role else {
        return Ok(());
    };
    let asking = Asking { around, role };
    let (name, class) = match &spec.priority_class {
        Some(name) => asking.by_name(name, spec.priority)?,
        None if around.policy.priority_classes.is_empty() => return Ok(()),
        None => asking.by_number(spec.priority)?,
    };
    if spec.priority_class.is_some() {
        spec.priority = class.priority;
    }
    spec.never_preempts = class.never_preempts;
    spec.priority_class = Some(name.to_owned());
    Ok(())
}

/// Who asks for a priority, and beside what.
#[derive(Clone, Copy)]
struct Asking<'a> {
    around: Surroundings<'a>,
    role: Role,
}

impl<'a> Asking<'a> {
    fn by_name(&self, name: &str, number: i32) -> Result<(&'a str, &'a PriorityClass), Refusal> {
        let classes = &self.around.policy.priority_classes;
        let Some((name, class)) = classes.get_key_value(name) else {
            return Err(self.with_open_classes(Refusal::invalid(format!(
                "priority class {name:?} does not exist"
            ))));
        };
        if number != 0 && number != class.priority {
            return Err(Refusal::invalid(format!(
                "both priority class {name} ({}) and priority {number} are asked for",
                class.priority
            ))
            .allowed("one of them"));
        }
        if let Some(closed) = self.why_closed(class) {
            return Err(self.with_open_classes(Refusal::refused(format!(
                "priority class {name} is {closed}"
            ))));
        }
        Ok((name, class))
    }

    /// The lowest class open to whoever asks that reaches up to a number.
    fn by_number(&self, number: i32) -> Result<(&'a str, &'a PriorityClass), Refusal> {
        if let Some(found) = self
            .open_classes()
            .into_iter()
            .find(|(_, class)| number <= class.priority)
        {
            return Ok(found);
        }
        let message = match self.open_classes().last() {
            Some((name, class)) => format!(
                "priority {number} is above {name} ({}), the highest class open to you",
                class.priority
            ),
            None => format!("priority {number} is of no class that is open to you"),
        };
        Err(self.with_open_classes(Refusal::refused(message)))
    }

    /// The classes open to whoever asks, lowest first.
    fn open_classes(&self) -> Vec<(&'a str, &'a PriorityClass)> {
        let mut open: Vec<(&str, &PriorityClass)> = self
            .around
            .policy
            .priority_classes
            .iter()
            .filter(|(_, class)| self.why_closed(class).is_none())
            .map(|(name, class)| (name.as_str(), class))
            .collect();
        open.sort_by_key(|(name, class)| (class.priority, *name));
        open
    }

    fn with_open_classes(&self, refusal: Refusal) -> Refusal {
        let open = self.open_classes();
        let Some((highest, class)) = open.last() else {
            return refusal
                .allowed("no priority class is open to you")
                .hint("ask a platform engineer to open one: platform policy set --priority-class");
        };
        let named: Vec<String> = open
            .iter()
            .map(|(name, class)| format!("{name} ({})", class.priority))
            .collect();
        refusal
            .allowed(format!(
                "{}, or a number up to {}",
                named.join(", "),
                class.priority
            ))
            .hint(format!(
                "ask for one of them, as in --priority {highest}; who may use which: platform policy show"
            ))
    }

    /// For whom a class is, if not for this submitter and tenant.
    fn why_closed(&self, class: &PriorityClass) -> Option<String> {
        if let Some(needed) = class.role
            && !self.role.includes(needed)
        {
            return Some(format!(
                "for a {} and above, and you are a {}",
                needed.as_str(),
                self.role.as_str()
            ));
        }
        let charged = &self.around.tenant.name;
        let is_of_tenants = class.tenants.is_empty()
            || tenant_and_above(self.around.tenants, charged)
                .any(|above| class.tenants.contains(&above.name));
        (!is_of_tenants).then(|| {
            format!(
                "for runs of {}, and this one is charged to {charged}",
                list(class.tenants.iter().map(TenantName::as_str))
            )
        })
    }
}

/// Whether a policy's classes could be kept.
pub(crate) fn check_classes(policy: &Policy, tenants: &TenantTree) -> Result<(), Refusal> {
    let classes = &policy.priority_classes;
    if classes.len() > MOST_CLASSES {
        return Err(
            Refusal::invalid(format!("{} priority classes are too many", classes.len()))
                .allowed(format!("up to {MOST_CLASSES}")),
        );
    }
    for (name, class) in classes {
        // A name that begins with a digit would be read as a number.
        if !is_name(name) || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
            return Err(
                Refusal::invalid(format!("priority class {name:?} is not valid")).allowed(
                    "1 to 63 lower-case letters, digits, '-', '_' or '.', beginning with a letter",
                ),
            );
        }
        if !(-PRIORITY_BOUND..=PRIORITY_BOUND).contains(&class.priority) {
            return Err(Refusal::invalid(format!(
                "priority class {name}={} is out of range",
                class.priority
            ))
            .allowed(format!("-{PRIORITY_BOUND} to {PRIORITY_BOUND}")));
        }
        if let Some(role) = class.role
            && (!Role::PlatformAdmin.includes(role) || !role.includes(Role::Member))
        {
            return Err(Refusal::invalid(format!(
                "priority class {name} is for a role that submits nothing: {}",
                role.as_str()
            ))
            .allowed("member, tenant-admin, platform-admin"));
        }
        if let Some(unknown) = class
            .tenants
            .iter()
            .find(|tenant| !tenants.contains_key(*tenant))
        {
            return Err(Refusal::invalid(format!(
                "priority class {name} is for tenant {unknown}, which does not exist"
            ))
            .allowed(list(tenants.keys().map(TenantName::as_str)))
            .hint("see the tenants with: platform tenants list"));
        }
    }
    Ok(())
}
