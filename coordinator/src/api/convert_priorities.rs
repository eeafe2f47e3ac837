//! Priority classes between the core's types and the HTTP types.

use super::error::ApiError;
use coordinator_core::model::{PriorityClass, Role, TenantName, WorkloadSpec};
use platform_proto::http::PriorityClassView;
use std::collections::BTreeMap;

/// The classes as clients read them.
pub fn classes_view(
    classes: &BTreeMap<String, PriorityClass>,
) -> BTreeMap<String, PriorityClassView> {
    classes
        .iter()
        .map(|(name, class)| {
            let view = PriorityClassView {
                priority: class.priority,
                role: class.role.map(|role| role.as_str().to_owned()),
                tenants: class.tenants.iter().map(ToString::to_string).collect(),
                preempts: !class.never_preempts,
            };
            (name.clone(), view)
        })
        .collect()
}

/// The classes that a client sent.
pub fn classes_from_http(
    classes: BTreeMap<String, PriorityClassView>,
) -> Result<BTreeMap<String, PriorityClass>, ApiError> {
    classes
        .into_iter()
        .map(|(name, class)| Ok((name, class_from_http(class)?)))
        .collect()
}

fn class_from_http(class: PriorityClassView) -> Result<PriorityClass, ApiError> {
    let role = class.role.map(|text| {
        Role::parse(&text).ok_or_else(|| {
            ApiError::invalid(format!("role {text:?} is not known"))
                .allowed("member, tenant-admin, platform-admin")
        })
    });
    Ok(PriorityClass {
        priority: class.priority,
        role: role.transpose()?,
        tenants: class
            .tenants
            .iter()
            .map(|tenant| TenantName::new(tenant))
            .collect::<Result<_, _>>()?,
        never_preempts: !class.preempts,
    })
}

/// What its priority does for a run that waits, in words; `None` where it has the usual one.
pub fn words(spec: &WorkloadSpec) -> Option<String> {
    let class = spec.priority_class.as_deref();
    let named = match class {
        Some(class) => format!("its priority is {} ({class})", spec.priority),
        None => format!("its priority is {}", spec.priority),
    };
    let right = if spec.never_preempts {
        "it goes before lower ones of its tenant and stops none of them"
    } else {
        "it goes before lower ones of its tenant, and may stop them"
    };
    (spec.priority != 0 || class.is_some_and(|class| class != "normal"))
        .then(|| format!("{named}: {right}"))
}
