//! Time, idempotency, the ledger, the audit chain and the outbox.

use crate::fixtures::*;
use crate::model::{EndKind, HOUR_US, MemberPhase, OutboxBody, ScheduledPrice, WorkloadSpec};
use crate::state::{Command, Entry, Event, IDEMPOTENCY_WINDOW_US, State, run_ledger_rows};

fn keyed(world: &World, key: &str, command: Command) -> Entry {
    Entry {
        stamp_us: world.now_us,
        actor: "user:ana".to_owned(),
        idempotency_key: Some(key.to_owned()),
        command,
    }
}

#[test]
fn the_same_key_is_done_once_and_answered_twice() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let first = world.apply_entry(keyed(&world, "k1", submit(gpus(1))));
    let outbox = world.state.outbox().len();
    world.now_us += IDEMPOTENCY_WINDOW_US;
    let again = world.apply_entry(keyed(&world, "k1", submit(gpus(1))));
    assert_eq!(first, again);
    assert_eq!(world.state.runs().len(), 1);
    assert_eq!(world.state.outbox().len(), outbox, "and audited once");
    world.now_us += 1;
    world.apply_entry(keyed(&world, "k1", submit(gpus(1))));
    assert_eq!(
        world.state.runs().len(),
        2,
        "a day later the key is free again"
    );
}

#[test]
fn keys_are_each_actors_own_and_a_refusal_does_not_use_one_up() {
    let mut world = World::new();
    let refused = world.apply_entry(keyed(&world, "k1", submit(gpus(1))));
    assert!(matches!(refused.as_slice(), [Event::Rejected { .. }]));
    world.join(describe("node-1", "default", "A100-80G"));
    world.apply_entry(keyed(&world, "k1", submit(gpus(1))));
    let other = Entry {
        actor: "user:bo".to_owned(),
        ..keyed(&world, "k1", submit(gpus(1)))
    };
    world.apply_entry(other);
    assert_eq!(world.state.runs().len(), 2);
}

#[test]
fn a_clock_that_jumps_back_never_moves_time_back() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let run = world.submit(gpus(1));
    world.place_on(run, &[("node-1", &[0])]);
    world.now_us += 500;
    world.report(run, 0, MemberPhase::Running);
    let before = world.state.time_us();
    world.now_us = 3;
    world.end(run, 0, EndKind::Exited { code: 0 });
    assert_eq!(world.state.time_us(), before);
    let row = &world.ledger()[0];
    assert_eq!((row.start_us, row.end_us), (1_000_000, 1_000_500));
    assert!(
        world
            .state
            .outbox()
            .iter()
            .all(|record| record.at_us <= before)
    );
}

#[test]
fn the_ledger_of_a_partial_gang_with_retries_is_exact_to_the_microsecond() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G"), ("node-2", "T4-16G")]);
    let run = world.submit(WorkloadSpec {
        retries: 1,
        ..gang(2)
    });
    world.now_us = 2_000_000;
    world.place_on(run, &[("node-1", &[0]), ("node-2", &[0])]);
    world.now_us = 2_000_007;
    world.end(run, 1, EndKind::Exited { code: 1 });
    world.now_us = 2_000_020;
    world.end(run, 0, EndKind::Stopped);
    world.now_us = 8_000_000;
    world.place_on(run, &[("node-1", &[1]), ("node-2", &[0])]);
    world.now_us = 8_000_000 + HOUR_US;
    world.end(run, 0, EndKind::Exited { code: 0 });
    world.now_us += 1;
    assert_eq!(
        world.state.open_ledger_rows(world.now_us).len(),
        1,
        "one member still holds"
    );
    world.end(run, 1, EndKind::Exited { code: 0 });
    let rows: Vec<_> = world
        .ledger()
        .iter()
        .map(|row| {
            (
                row.attempt,
                row.member,
                row.start_us,
                row.end_us,
                row.gpu_milli_us(),
                row.cost_micro(),
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            (1, 1, 2_000_000, 2_000_007, 7_000, 0),
            (1, 0, 2_000_000, 2_000_020, 20_000, 0),
            (
                2,
                0,
                8_000_000,
                8_000_000 + HOUR_US,
                1_000 * u128::from(HOUR_US),
                2_500_000
            ),
            (
                2,
                1,
                8_000_000,
                8_000_001 + HOUR_US,
                1_000 * u128::from(HOUR_US + 1),
                400_000
            ),
        ]
    );
    assert_eq!(world.state.open_ledger_rows(world.now_us), []);
    let mut from_run = run_ledger_rows(world.run(run), world.now_us);
    let mut from_outbox = world.ledger();
    from_run.sort_by_key(|row| (row.attempt, row.member));
    from_outbox.sort_by_key(|row| (row.attempt, row.member));
    assert_eq!(from_run, from_outbox, "the run's own page says the same");
}

#[test]
fn a_fraction_is_charged_as_one_and_a_run_without_devices_has_its_row() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let half = world.submit(share(500));
    let none = world.submit(gpus(0));
    assert_eq!(world.plan_and_place().len(), 2);
    world.now_us += HOUR_US;
    world.end(half, 0, EndKind::Exited { code: 0 });
    world.end(none, 0, EndKind::Exited { code: 0 });
    let rows = world.ledger();
    assert_eq!(rows[0].cost_micro(), 1_250_000);
    assert_eq!(rows[0].memory_mib, 40_960);
    assert_eq!((rows[1].device.clone(), rows[1].cost_micro()), (None, 0));
    assert_eq!(rows[1].end_us - rows[1].start_us, HOUR_US);
}

#[test]
fn a_run_is_charged_at_each_moment_what_the_policy_says_then() {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G,T4-16G")]);
    let other = world.submit(WorkloadSpec {
        gpu_model: Some("T4-16G".to_owned()),
        ..gpus(1)
    });
    world.plan_and_place();
    world.now_us += HOUR_US;
    let granted_us = world.now_us;
    let long = world.submit(gpus(2));
    world.plan_and_place();
    let price = |world: &mut World, micro: u64| {
        world.set_policy(|policy| {
            policy
                .gpu_hour_price_micro
                .insert("A100-80G".to_owned(), micro);
        });
    };
    // In the moment of the grant itself nothing has been charged yet: there is nothing to cut.
    price(&mut world, 3_000_000);
    world.now_us += HOUR_US;
    price(&mut world, 4_000_000);
    price(&mut world, 5_000_000);
    world.set_policy(|policy| {
        policy.scheduled_prices.push(ScheduledPrice {
            from_us: granted_us + 2 * HOUR_US,
            gpu_model: "A100-80G".to_owned(),
            price_per_gpu_hour_micro: 1_000_000,
        });
    });
    // The entry that follows comes an hour late, and the price is in effect from its own moment.
    world.now_us += 2 * HOUR_US;
    assert!(world.state.is_due(world.now_us));
    let version = world.state.policy().version;
    world.accept(Command::Tick);
    assert!(!world.state.is_due(u64::MAX));
    assert_eq!(
        world.state.policy().version,
        version + 1,
        "whoever read it before reads it again"
    );
    world.end(long, 0, EndKind::Exited { code: 0 });
    world.end(other, 0, EndKind::Exited { code: 0 });
    let rows: Vec<_> = world
        .ledger()
        .iter()
        .map(|row| (row.start_us, row.end_us, row.cost_micro()))
        .collect();
    let hour = |n: u64| granted_us + n * HOUR_US;
    let of_one_device = [
        (hour(0), hour(1), 3_000_000),
        (hour(1), hour(2), 5_000_000),
        (hour(2), hour(3), 1_000_000),
    ];
    assert_eq!(rows[..3], of_one_device);
    assert_eq!(rows[3..6], of_one_device);
    assert_eq!(rows[6..], [(hour(0) - HOUR_US, hour(3), 1_600_000)]);
    let mut own = run_ledger_rows(world.run(long), world.now_us);
    own.extend(run_ledger_rows(world.run(other), world.now_us));
    assert_eq!(own, world.ledger(), "the run's own page says the same");
}

#[test]
fn prices_of_the_past_and_prices_twice_are_refused() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    world.now_us = 1_798_761_600_000_000;
    world.submit(gpus(1));
    let to_come = |from_us, gpu_model: &str| ScheduledPrice {
        from_us,
        gpu_model: gpu_model.to_owned(),
        price_per_gpu_hour_micro: 1,
    };
    let later = world.now_us + HOUR_US;
    for (prices, words) in [
        (
            vec![to_come(world.now_us, "T4-16G")],
            "the price of T4-16G cannot be in effect from 2027-01-01 UTC: that has passed",
        ),
        (
            vec![to_come(later, "T4-16G"), to_come(later, "T4-16G")],
            "T4-16G has two prices from 2027-01-01 01:00 UTC",
        ),
        (vec![to_come(later, "")], "GPU model \"\" is not valid"),
        (
            (1..=513).map(|n| to_come(later + n, "T4-16G")).collect(),
            "513 prices to come are too many",
        ),
    ] {
        let mut policy = world.state.policy().clone();
        policy.scheduled_prices = prices;
        let refusal = world.refuse(Command::SetPolicy {
            policy: Box::new(policy),
        });
        assert!(refusal.message.starts_with(words), "{refusal:?}");
    }
    world.set_policy(|policy| {
        policy.scheduled_prices = vec![to_come(later + 1, "T4-16G"), to_come(later, "T4-16G")];
    });
    assert_eq!(world.state.policy().scheduled_prices[0].from_us, later);
}

fn busy() -> World {
    let mut world = World::with_nodes(&[("node-1", "2xA100-80G")]);
    for _ in 0..3 {
        let run = world.submit(gpus(1));
        world.now_us += 10;
        world.plan_and_place();
        world.end(run, 0, EndKind::Exited { code: 0 });
    }
    world
}

#[test]
fn the_audit_chain_verifies_and_shows_every_kind_of_tampering() {
    let world = busy();
    let chain = world.audit();
    let verifies = |chain: &[crate::model::AuditEntry]| {
        let mut previous = String::new();
        (1_u64..).zip(chain).all(|(sequence, entry)| {
            let right = entry.sequence == sequence
                && entry.previous == previous
                && entry.hash == entry.expected_hash();
            previous.clone_from(&entry.hash);
            right
        }) && previous == world.state.audit_head()
    };
    assert!(chain.len() > 5 && verifies(&chain));
    type Tampering = fn(&mut Vec<crate::model::AuditEntry>);
    let tamperings: &[Tampering] = &[
        |chain| chain[2].actor = "user:eve".to_owned(),
        |chain| chain[2].action.push('x'),
        |chain| chain[2].subject = "run-9".to_owned(),
        |chain| chain[2].detail.clear(),
        |chain| chain[2].at_us += 1,
        |chain| drop(chain.remove(2)),
        |chain| chain.swap(2, 3),
        |chain| chain.truncate(3),
        |chain| {
            // Text moved from one field to the next, rehashed nowhere else.
            let moved = chain[1].subject.split_off(1);
            chain[1].detail.insert_str(0, &moved);
        },
        |chain| {
            chain[2].actor = "user:eve".to_owned();
            chain[2].hash = chain[2].expected_hash();
        },
    ];
    for (number, tamper) in tamperings.iter().enumerate() {
        let mut copy = chain.clone();
        tamper(&mut copy);
        assert!(!verifies(&copy), "tampering {number} went unseen");
    }
}

#[test]
fn the_audit_never_holds_a_value_of_the_environment() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    world.submit(WorkloadSpec {
        environment: [("TOKEN".to_owned(), "hunter2".to_owned())].into(),
        ..spec()
    });
    let entry = world.audit().pop().expect("an entry");
    assert_eq!(
        (entry.action.as_str(), entry.subject.as_str()),
        ("run.submit", "run-1")
    );
    assert!(entry.detail.contains("TOKEN") && !entry.detail.contains("hunter2"));
}

#[test]
fn a_long_audit_detail_is_cut_between_characters() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    world.accept(Command::Cordon {
        node: node_name("node-1"),
        reason: "é".repeat(5_000),
    });
    let entry = world.audit().pop().expect("an entry");
    assert!(entry.detail.len() < 2_010 && entry.detail.ends_with('…'));
}

#[test]
fn what_changed_nothing_leaves_no_audit_entry() {
    let mut world = World::with_nodes(&[("node-1", "A100-80G")]);
    let before = world.state.outbox().len();
    world
        .try_place(placement(crate::model::RunId(9), 1, &[]))
        .expect_err("unknown");
    world.refuse(submit(gpus(99)));
    world.apply(Command::Place { placements: vec![] });
    assert_eq!(world.state.outbox().len(), before);
}

#[test]
fn the_outbox_has_no_gap_and_gives_up_only_what_is_acknowledged() {
    let mut world = busy();
    let sequences: Vec<u64> = world
        .state
        .outbox()
        .iter()
        .map(|record| record.sequence)
        .collect();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
    world.accept(Command::AcknowledgeOutbox { through: 4 });
    world.accept(Command::AcknowledgeOutbox { through: 2 });
    assert_eq!(world.state.outbox()[0].sequence, 5);
    let newest = world.state.outbox_sequence();
    world.accept(Command::AcknowledgeOutbox { through: u64::MAX });
    assert!(world.state.outbox().is_empty());
    world.submit(gpus(1));
    assert_eq!(world.state.outbox()[0].sequence, newest + 1);
    assert!(matches!(world.state.outbox()[0].body, OutboxBody::Audit(_)));
}

#[test]
fn equal_entries_give_equal_digests_and_a_snapshot_is_the_whole_state() {
    let world = busy();
    let mut other = State::default();
    for (index, entry) in (1_u64..).zip(&world.entries) {
        other.apply(index, entry);
    }
    assert_eq!(world.state.digest(), other.digest());
    let bytes = rmp_serde::to_vec_named(&world.state).expect("it encodes");
    let read: State = rmp_serde::from_slice(&bytes).expect("it decodes");
    assert_eq!(read, world.state);
    assert_eq!(read.digest(), world.state.digest());
}
