//! What platform engineers set: pools, tenants, quotas, the policy, tokens.

use crate::fixtures::*;
use crate::model::{Policy, Role, TenantName, Token, UserName};
use crate::policy::RefusalKind;
use crate::state::{Command, QuotaChange};

#[test]
fn a_policy_changes_only_from_the_version_in_force() {
    let mut world = World::new();
    let read = world.state.policy().clone();
    world.set_policy(|policy| policy.currency = "EUR".to_owned());
    assert_eq!(world.state.policy().version, 2);
    let refusal = world.refuse(Command::SetPolicy {
        policy: Box::new(read),
    });
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert_eq!(
        refusal.message,
        "the change is of policy version 1, and version 2 is in force"
    );
}

#[test]
fn a_policy_that_could_never_be_kept_is_refused() {
    type Change = fn(&mut Policy);
    let table: &[(Change, &str)] = &[
        (
            |p| drop(p.required_tags.insert("Team".to_owned(), vec![])),
            "tag key \"Team\"",
        ),
        (
            |p| {
                p.gpu_memory_caps_mib.insert("bert".to_owned(), 0);
            },
            "bert=0 MiB",
        ),
        (
            |p| {
                p.gpu_memory_caps_mib.insert("be*rt".to_owned(), 1);
            },
            "be*rt=1 MiB",
        ),
        (
            |p| {
                p.gpu_memory_caps_mib.insert(String::new(), 1);
            },
            "=1 MiB",
        ),
        (|p| p.currency = "euro".to_owned(), "currency \"euro\""),
        (
            |p| p.retry.longest_wait_ms = 1,
            "a wait of 5000 ms, at the longest 1 ms",
        ),
        (
            |p| p.retry.longest_wait_ms = u64::MAX,
            "at the longest 18446744073709551615 ms",
        ),
    ];
    for (change, expected) in table {
        let mut world = World::new();
        let mut policy = world.state.policy().clone();
        change(&mut policy);
        let refusal = world.refuse(Command::SetPolicy {
            policy: Box::new(policy),
        });
        assert_eq!(refusal.kind, RefusalKind::Invalid);
        assert!(refusal.message.contains(expected), "{refusal:?}");
    }
}

#[test]
fn pools_are_created_once_and_set_when_they_are_there() {
    let mut world = World::new();
    let set = |must_exist, description: &str| Command::SetPool {
        pool: pool_name("gold"),
        description: Some(description.to_owned()),
        order: None,
        age_bound_ms: None,
        must_exist,
    };
    assert_eq!(
        world.refuse(set(Some(true), "x")).kind,
        RefusalKind::NotFound
    );
    world.accept(set(Some(false), "for the brave"));
    assert_eq!(
        world.refuse(set(Some(false), "x")).kind,
        RefusalKind::Conflict
    );
    world.accept(set(Some(true), "for all"));
    assert_eq!(world.state.pools()["gold"].description, "for all");
    assert_eq!(world.refuse(set(None, "a\u{7}")).kind, RefusalKind::Invalid);
    assert_eq!(
        world.refuse(set(None, &"a".repeat(501))).kind,
        RefusalKind::Invalid
    );
}

#[test]
fn tenants_and_quotas_name_what_is_not_there() {
    let mut world = World::new();
    let tenant = tenant_name("nlp");
    let quota = |tenant: &str, pool: &str, gpu_milli| {
        Command::SetQuota(QuotaChange {
            tenant: tenant_name(tenant),
            pool: pool_name(pool),
            model: None,
            gpu_milli,
            limit_milli: None,
            lend_milli: None,
        })
    };
    assert_eq!(
        world.refuse(quota("nlp", "default", None)).kind,
        RefusalKind::NotFound
    );
    world.accept(Command::CreateTenant {
        tenant: tenant.clone(),
        parent: None,
        weight: None,
    });
    let again = world.refuse(Command::CreateTenant {
        tenant: tenant.clone(),
        parent: None,
        weight: None,
    });
    assert_eq!(again.message, "tenant nlp exists already");
    assert_eq!(
        world.refuse(quota("nlp", "gold", None)).kind,
        RefusalKind::NotFound
    );
    assert_eq!(
        world.refuse(quota("nlp", "default", Some(u64::MAX))).kind,
        RefusalKind::Invalid
    );
    world.accept(quota("nlp", "default", Some(2_000)));
    assert_eq!(
        world.state.tenants()[&tenant].quotas[&pool_name("default")].quota_milli,
        2_000
    );
    world.accept(quota("nlp", "default", None));
    assert!(world.state.tenants()[&tenant].quotas.is_empty());
}

#[test]
fn tokens_are_added_once_and_withdrawn_for_good() {
    let mut world = World::new();
    let token = Token {
        id: "t-1".to_owned(),
        user: UserName::new("ana").expect("a good name"),
        tenant: TenantName::default_tenant(),
        role: Role::Member,
        created_us: 0,
        expires_us: None,
        revoked: false,
    };
    let create = |hash: &str, token: &Token| Command::CreateToken {
        hash: hash.to_owned(),
        token: token.clone(),
    };
    world.accept(create("aa", &token));
    assert_eq!(world.state.tokens()["aa"].created_us, world.now_us);
    assert_eq!(
        world.refuse(create("aa", &token)).kind,
        RefusalKind::Conflict
    );
    assert_eq!(
        world.refuse(create("bb", &token)).kind,
        RefusalKind::Conflict
    );
    let stranger = Token {
        tenant: tenant_name("nobody"),
        ..token
    };
    assert_eq!(
        world.refuse(create("cc", &stranger)).kind,
        RefusalKind::NotFound
    );
    world.accept(Command::RevokeToken {
        id: "t-1".to_owned(),
    });
    assert!(world.state.tokens()["aa"].revoked);
    let refusal = world.refuse(Command::RevokeToken {
        id: "t-9".to_owned(),
    });
    assert_eq!(refusal.kind, RefusalKind::NotFound);
    assert!(
        world
            .audit()
            .iter()
            .all(|entry| !entry.detail.contains("aa")),
        "no hash in the audit"
    );
}
