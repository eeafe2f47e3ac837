//! Replicas on scripted networks: what three of them agree on, and that a snapshot plus its tail is
//! the whole replay.

use coordinator_core::model::TenantName;
use coordinator_core::state::{Command, Entry, State};
use coordinator_replica::{
    Effects, Input, Outcome, ProposalRefused, Replica, ReplicaConfig, Restored, Role,
    bootstrap_metadata, decode_entry, encode_entry, encode_snapshot, read_snapshot,
};
use proptest::prelude::*;
use raft::eraftpb::{HardState, Message, MessageType, Snapshot};

fn tenant(name: &str) -> TenantName {
    TenantName::new(name).expect("a valid name")
}

fn entry(number: u64) -> Entry {
    Entry {
        stamp_us: number,
        actor: "user:ana".to_owned(),
        idempotency_key: Some(format!("key-{number}")),
        command: Command::CreateTenant {
            tenant: tenant(&format!("t{number}")),
            parent: None,
            weight: None,
        },
    }
}

fn fresh(id: u64, voters: &[u64]) -> Replica {
    let mut config = ReplicaConfig::new(id);
    config.pinned_election_ticks = Some(10 + id as usize);
    let restored = Restored {
        hard_state: HardState::default(),
        snapshot: bootstrap_metadata(voters),
        state: State::default(),
        entries: Vec::new(),
    };
    Replica::new(
        config,
        restored,
        &slog::Logger::root(slog::Discard, slog::o!()),
    )
    .expect("starts")
}

/// Runs a replica until it owes nothing; answers its messages and outcomes.
fn pump(replica: &mut Replica) -> (Vec<Message>, Vec<Outcome>) {
    let (mut messages, mut outcomes) = (Vec::new(), Vec::new());
    while let Some(mut effects) = replica.effects() {
        messages.append(&mut effects.messages);
        offer_if_wanted(replica, &effects);
        outcomes.push(replica.persisted(effects).expect("applies"));
    }
    (messages, outcomes)
}

fn offer_if_wanted(replica: &mut Replica, effects: &Effects) {
    if !effects.snapshot_wanted {
        return;
    }
    let metadata = replica.snapshot_metadata();
    let bytes = encode_snapshot(&metadata, &replica.state()).expect("encodes");
    let mut snapshot = Snapshot::default();
    snapshot.set_metadata(metadata);
    snapshot.data = bytes.into();
    replica.offer_snapshot(snapshot);
}

/// Delivers messages among the members for which `up` holds, until silence.
fn settle(replicas: &mut [Replica], up: impl Fn(u64) -> bool) {
    loop {
        let mut flying = Vec::new();
        for (id, replica) in (1..).zip(replicas.iter_mut()) {
            if up(id) {
                flying.extend(pump(replica).0);
            }
        }
        if flying.is_empty() {
            return;
        }
        for message in flying {
            if up(message.to) && up(message.from) {
                let _ = replicas[message.to as usize - 1].input(Input::Message(Box::new(message)));
            }
        }
    }
}

fn tick(replicas: &mut [Replica], times: usize, up: impl Fn(u64) -> bool + Copy) {
    for _ in 0..times {
        for (id, replica) in (1..).zip(replicas.iter_mut()) {
            if up(id) {
                replica.input(Input::Tick).expect("ticks");
            }
        }
        settle(replicas, up);
    }
}

#[test]
fn a_lone_member_elects_itself_without_waiting_and_answers_proposals_in_order() {
    let mut replica = fresh(1, &[1]);
    assert!(replica.is_sole_voter());
    replica.input(Input::Campaign).expect("campaigns");
    pump(&mut replica);
    assert_eq!(replica.role(), Role::Leader);

    for number in 0..100 {
        replica
            .input(Input::Propose {
                token: number,
                entry: Box::new(entry(number)),
            })
            .expect("leads");
    }
    let effects = replica.effects().expect("owes a write");
    assert_eq!(effects.entries.len(), 100, "many proposals share one write");
    assert!(effects.must_sync);
    assert!(
        replica.state().tenants().len() < 100,
        "nothing is applied before it is durable"
    );
    let outcome = replica.persisted(effects).expect("applies");
    assert!(
        outcome.applied.is_empty(),
        "the commit index moves after the write"
    );
    let (_, outcomes) = pump(&mut replica);
    let tokens: Vec<_> = outcomes
        .iter()
        .flat_map(|outcome| &outcome.applied)
        .filter_map(|a| a.token)
        .collect();
    assert_eq!(tokens, (0..100).collect::<Vec<_>>());
}

#[test]
fn three_members_agree_and_one_far_behind_catches_up_by_a_snapshot() {
    let mut replicas: Vec<_> = (1..=3).map(|id| fresh(id, &[1, 2, 3])).collect();
    tick(&mut replicas, 15, |_| true);
    assert_eq!(
        replicas[0].role(),
        Role::Leader,
        "the shortest pinned timeout wins"
    );

    let two_up = |id| id != 3;
    for number in 0..50 {
        replicas[0]
            .input(Input::Propose {
                token: number,
                entry: Box::new(entry(number)),
            })
            .expect("leads");
        settle(&mut replicas, two_up);
    }
    let applied = replicas[0].applied_index();
    replicas[0].compact(applied);
    assert_eq!(replicas[0].first_index(), applied + 1);

    tick(&mut replicas, 30, |_| true);
    for replica in &replicas {
        assert_eq!(replica.applied_index(), applied);
        assert_eq!(replica.state().digest(), replicas[0].state().digest());
    }
}

#[test]
fn a_leader_cut_off_says_unknown_and_its_uncommitted_proposal_is_never_applied() {
    let mut replicas: Vec<_> = (1..=3).map(|id| fresh(id, &[1, 2, 3])).collect();
    tick(&mut replicas, 15, |_| true);
    replicas[0]
        .input(Input::Propose {
            token: 7,
            entry: Box::new(entry(7)),
        })
        .expect("leads");
    let mut unknown = Vec::new();
    // Its peers are deaf: check_quorum makes it step down.
    for _ in 0..40 {
        let _ = replicas[0].input(Input::Tick);
        unknown.extend(
            pump(&mut replicas[0])
                .1
                .into_iter()
                .flat_map(|outcome| outcome.unknown),
        );
    }
    assert_eq!(unknown, [7]);
    assert!(matches!(replicas[0].role(), Role::Follower { .. }));
    let refused = replicas[0].input(Input::Propose {
        token: 8,
        entry: Box::new(entry(8)),
    });
    assert!(matches!(refused, Err(ProposalRefused::NotLeader { .. })));

    tick(&mut replicas, 40, |id| id != 1);
    let leader = replicas
        .iter()
        .skip(1)
        .position(|replica| replica.role() == Role::Leader)
        .expect("a new leader")
        + 1;
    replicas[leader]
        .input(Input::Propose {
            token: 9,
            entry: Box::new(entry(9)),
        })
        .expect("leads");
    tick(&mut replicas, 40, |_| true);
    for replica in &replicas {
        let state = replica.state();
        assert!(state.tenants().contains_key(&tenant("t9")));
        assert!(!state.tenants().contains_key(&tenant("t7")));
    }
}

#[test]
fn malformed_messages_of_a_peer_are_refused_and_not_fatal() {
    let mut replica = fresh(1, &[1, 2, 3]);
    let message = |kind| {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.from, message.to, message.term) = (2, 1, 5);
        message
    };
    let mut beyond = message(MessageType::MsgHeartbeat);
    beyond.commit = 1_000_000;
    let mut gap = message(MessageType::MsgAppend);
    let mut late = raft::eraftpb::Entry::default();
    (late.index, late.term) = (9, 5);
    gap.entries.push(late);
    let mut elsewhere = message(MessageType::MsgAppend);
    elsewhere.to = 3;
    for bad in [
        beyond,
        gap,
        elsewhere,
        message(MessageType::MsgHup),
        message(MessageType::MsgSnapshot),
        message(MessageType::MsgPropose),
        message(MessageType::MsgReadIndex),
    ] {
        let refused = replica.input(Input::Message(Box::new(bad)));
        assert!(matches!(refused, Err(ProposalRefused::BadMessage(_))));
    }
}

/// Bytes that version 1 wrote. They must decode for ever; a change of these bytes is a new version.
const GOLDEN_ENTRY: &str = "0184a87374616d705f757301a56163746f72a8757365723a616e61af6964656d706f74656e63795f6b6579a56b65792d31a7636f6d6d616e6481ad6372656174655f74656e616e7481a674656e616e74a27431";

#[test]
fn the_bytes_of_a_log_entry_are_as_version_1_wrote_them() {
    let bytes = encode_entry(&entry(1)).expect("encodes");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN_ENTRY);
    assert_eq!(decode_entry(&bytes).expect("decodes"), entry(1));
}

#[test]
fn unknown_versions_are_refused_by_number() {
    let mut bytes = encode_entry(&entry(1)).expect("encodes");
    bytes[0] = 9;
    let error = decode_entry(&bytes).expect_err("refused").to_string();
    assert!(error.contains("unknown log entry version 9"), "{error}");
    assert!(decode_entry(&[]).is_err());
    let mut bytes = encode_snapshot(&bootstrap_metadata(&[1]), &State::default()).expect("encodes");
    assert_eq!(
        &bytes[..5],
        [1, 8, 0, 0, 0],
        "version, then the length of the metadata"
    );
    bytes[0] = 9;
    let error = read_snapshot(&bytes[..]).expect_err("refused").to_string();
    assert!(error.contains("unknown snapshot version 9"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// I11: snapshot + tail = replay.
    #[test]
    fn a_snapshot_and_its_tail_are_the_whole_replay(numbers in prop::collection::vec(0u64..40, 1..60), cut in 0usize..60) {
        let mut whole = State::default();
        let mut resumed = State::default();
        for (position, number) in numbers.iter().enumerate() {
            let index = position as u64 + 2;
            if position == cut {
                let bytes = encode_snapshot(&bootstrap_metadata(&[1]), &resumed).expect("encodes");
                resumed = read_snapshot(&bytes[..]).expect("decodes").1;
            }
            let entry = entry(*number);
            let decoded = decode_entry(&encode_entry(&entry).expect("encodes")).expect("decodes");
            prop_assert_eq!(whole.apply(index, &entry), resumed.apply(index, &decoded));
        }
        prop_assert_eq!(whole.digest(), resumed.digest());
    }
}
