//! Priorities as people write them: by class or by number, and classes as platform teams set them.

use crate::failure::Failure;
use crate::parse;
use platform_proto::http::PriorityClassView;

const CLASS_ALLOWED: &str = "NAME=NUMBER, then any of :role=ROLE, :tenants=A,B and :preempts=no";

/// A priority as it is given: by the name of its class, or by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Priority {
    /// A class of the policy.
    Class(String),
    /// -100 to 100.
    Number(i32),
}

impl Priority {
    /// Its number, and its class where it was given by one; the server has that class's number.
    pub fn split(self) -> (i32, Option<String>) {
        match self {
            Self::Class(name) => (0, Some(name)),
            Self::Number(number) => (number, None),
        }
    }
}

/// `high` or `50`. Which classes there are the server knows.
pub fn priority(text: &str) -> Result<Priority, Failure> {
    if text.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Ok(Priority::Class(text.to_owned()));
    }
    match text.parse() {
        Ok(number) if (-100..=100).contains(&number) => Ok(Priority::Number(number)),
        _ => Err(
            Failure::usage(format!("`{text}` is not a priority")).allowed(
                "-100 to 100, or the name of a class: low, normal, high, or as `platform policy show` has it",
            ),
        ),
    }
}

/// `NAME=NUMBER`, then who may use the class and what it may, in any order.
pub fn class(text: &str) -> Result<(String, PriorityClassView), Failure> {
    let refuse = |message: String| {
        Failure::usage(message)
            .allowed(CLASS_ALLOWED)
            .hint("as in urgent=100:role=tenant-admin, burst=80:tenants=nlp,vision or patient=20:preempts=no")
    };
    let (name, rest) = parse::key_value(text)?;
    let mut parts = rest.split(':');
    let number = parts.next().unwrap_or_default();
    let Ok(priority) = number.parse() else {
        return Err(refuse(format!(
            "`{number}` is not the number of a priority"
        )));
    };
    let mut view = PriorityClassView {
        priority,
        role: None,
        tenants: Vec::new(),
        preempts: true,
    };
    for part in parts {
        match part.split_once('=') {
            Some(("role", role)) => view.role = Some(role.to_owned()),
            Some(("tenants" | "tenant", tenants)) => {
                view.tenants = tenants
                    .split(',')
                    .filter(|tenant| !tenant.is_empty())
                    .map(str::to_owned)
                    .collect();
            }
            Some(("preempts", "yes")) => view.preempts = true,
            Some(("preempts", "no")) => view.preempts = false,
            _ => return Err(refuse(format!("`{part}` says nothing of a priority class"))),
        }
    }
    Ok((name, view))
}

/// A priority as people read it: `high (50)`, or empty for the usual one.
pub fn shown(priority: i32, class: Option<&str>) -> String {
    match class {
        None if priority == 0 => String::new(),
        None => priority.to_string(),
        Some("normal") if priority == 0 => String::new(),
        Some(class) => format!("{class} ({priority})"),
    }
}

/// Classes of every kind, for whole outputs.
#[cfg(test)]
pub fn examples() -> std::collections::BTreeMap<String, PriorityClassView> {
    [
        "low=-50",
        "normal=0",
        "high=50:preempts=no",
        "burst=80:tenants=nlp,vision",
        "urgent=100:role=tenant-admin",
    ]
    .map(|text| class(text).expect("a good class"))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_is_a_class_or_a_number_within_bounds() {
        assert_eq!(priority("high").unwrap().split(), (0, Some("high".into())));
        assert_eq!(priority("-50").unwrap().split(), (-50, None));
        insta::assert_snapshot!(priority("101").unwrap_err(), @r"
        `101` is not a priority
          allowed: -100 to 100, or the name of a class: low, normal, high, or as `platform policy show` has it
        ");
        assert!(priority("High").is_err());
    }

    #[test]
    fn a_class_says_who_may_use_it_and_what_it_may() {
        let (name, view) = class("burst=80:tenants=nlp,vision:role=member:preempts=no").unwrap();
        assert_eq!(name, "burst");
        assert_eq!(
            view,
            PriorityClassView {
                priority: 80,
                role: Some("member".to_owned()),
                tenants: vec!["nlp".to_owned(), "vision".to_owned()],
                preempts: false,
            }
        );
        assert!(class("high=50").unwrap().1.preempts);
        let refused: Vec<String> = ["high=much", "high=50:tenant-admin"]
            .iter()
            .map(|text| class(text).unwrap_err().to_string())
            .collect();
        insta::assert_snapshot!(refused.join("\n"), @r"
        `much` is not the number of a priority
          allowed: NAME=NUMBER, then any of :role=ROLE, :tenants=A,B and :preempts=no
          hint: as in urgent=100:role=tenant-admin, burst=80:tenants=nlp,vision or patient=20:preempts=no
        `tenant-admin` says nothing of a priority class
          allowed: NAME=NUMBER, then any of :role=ROLE, :tenants=A,B and :preempts=no
          hint: as in urgent=100:role=tenant-admin, burst=80:tenants=nlp,vision or patient=20:preempts=no
        ");
    }

    #[test]
    fn the_usual_priority_is_not_worth_a_word() {
        assert_eq!(shown(0, None), "");
        assert_eq!(shown(0, Some("normal")), "");
        assert_eq!(shown(7, None), "7");
        assert_eq!(shown(50, Some("high")), "high (50)");
    }
}
