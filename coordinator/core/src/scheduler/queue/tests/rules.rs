//! Each rule of the policy, by an example small enough to follow.

use super::*;

const DAY: u64 = 86_400;

#[test]
fn runs_start_where_there_is_room_and_the_rest_wait() {
    let mut pool = Pool::new(1, &[8]);
    let runs: Vec<RunId> = [4, 2, 4].map(|gpus| pool.submit(0, gpus)).to_vec();
    let decisions = pool.decide();
    assert_eq!(decisions.starts, [runs[0], runs[1]]);
    assert_eq!(decisions.stops, []);
    // Nothing changed, so nothing is decided again.
    assert_eq!(pool.after(1), Decisions::default());
    pool.end(runs[0]);
    assert_eq!(pool.decide().starts, [runs[2]]);
}

#[test]
fn a_run_of_less_service_goes_first_within_a_tenant() {
    let mut pool = Pool::new(1, &[8]);
    let served = Contender {
        attained_gpu_milli_us: 3_200 * 1_000 * u128::from(SECOND_US),
        ..pool.contender(0, 8)
    };
    let served = pool.submit_as(served);
    let fresh = pool.submit(0, 8);
    assert_eq!(pool.decide().starts, [fresh]);
    assert_eq!(pool.queue.level(served), Some(2));
    assert_eq!(pool.queue.level(fresh), Some(1));
}

#[test]
fn a_fresh_run_displaces_its_tenants_run_of_a_later_level_when_that_level_is_reached() {
    let mut pool = Pool::new(1, &[8]);
    let long = pool.submit(0, 8);
    pool.decide();
    let fresh = pool.submit(0, 8);
    // 3,200 GPU-seconds are 400 seconds of eight GPUs.
    assert_eq!(pool.after(399), Decisions::default());
    assert_eq!(pool.queue.next_change_us(), Some(400 * SECOND_US));
    let decisions = pool.after(1);
    assert_eq!(stops(&decisions), [(long, Reason::Displaced)]);
    assert_eq!(decisions.stops[0].makes_way_for, fresh);
    assert_eq!(decisions.starts, [fresh]);
}

#[test]
fn runs_of_one_level_do_not_displace_each_other_in_turn() {
    let mut pool = Pool::new(1, &[8]);
    let first = pool.submit(0, 8);
    pool.decide();
    pool.submit(0, 8);
    assert_eq!(stops(&pool.after(400)), [(first, Reason::Displaced)]);
    // From here on both stand in the second level, and the first does not come back at once.
    for _ in 0..3 {
        assert_eq!(pool.after(400), Decisions::default());
    }
    assert!(!pool.runs(first));
}

#[test]
fn priority_counts_within_a_tenant_and_before_the_level() {
    let mut pool = Pool::new(1, &[8]);
    let ordinary = Contender {
        priority: 1,
        ..pool.contender(0, 8)
    };
    let ordinary = pool.submit_as(ordinary);
    pool.decide();
    let urgent = pool.submit(0, 8);
    let decisions = pool.after(1);
    assert_eq!(stops(&decisions), [(ordinary, Reason::Displaced)]);
    assert_eq!(decisions.starts, [urgent]);
}

#[test]
fn what_idles_is_borrowed_and_its_owner_takes_it_back_at_once() {
    let mut pool = Pool::new(2, &[8, 8]);
    let own = pool.submit(0, 8);
    let borrowed = pool.submit(0, 8);
    assert_eq!(pool.decide().starts, [own, borrowed]);
    let claimed = pool.submit(1, 4);
    let decisions = pool.after(1);
    assert_eq!(stops(&decisions), [(borrowed, Reason::Reclaimed)]);
    assert_eq!(decisions.starts, [claimed]);
}

#[test]
fn a_covered_run_of_the_last_level_reclaims_from_a_borrower_of_the_first() {
    let mut pool = Pool::new(2, &[8, 8]);
    pool.submit(0, 8);
    let borrowed = pool.submit(0, 8);
    pool.decide();
    let old = Contender {
        attained_gpu_milli_us: u128::MAX / 2,
        ..pool.contender(1, 8)
    };
    let old = pool.submit_as(old);
    let decisions = pool.after(1);
    assert_eq!(stops(&decisions), [(borrowed, Reason::Reclaimed)]);
    assert_eq!(decisions.starts, [old]);
}

#[test]
fn covered_runs_start_before_borrowers_of_an_earlier_level() {
    let mut pool = Pool::new(1, &[0, 8]);
    let borrower = pool.submit(0, 8);
    let covered = Contender {
        attained_gpu_milli_us: u128::MAX / 2,
        ..pool.contender(1, 8)
    };
    let covered = pool.submit_as(covered);
    assert_eq!(pool.decide().starts, [covered]);
    assert!(!pool.runs(borrower));
}

#[test]
fn a_borrower_displaces_a_borrower_of_a_later_level_and_never_a_covered_run() {
    let mut pool = Pool::new(2, &[8, 0, 0, 8]);
    let covered = pool.submit(0, 8);
    let older = pool.submit(1, 8);
    pool.decide();
    let newer = pool.submit(2, 8);
    assert_eq!(pool.after(300), Decisions::default());
    // At 400 seconds both running ones stand in the second level; only the borrower gives way.
    let decisions = pool.after(100);
    assert_eq!(stops(&decisions), [(older, Reason::Displaced)]);
    assert_eq!(decisions.starts, [newer]);
    assert!(pool.runs(covered));
}

#[test]
fn displacing_never_brings_another_tenant_below_its_quota() {
    // The borrower holds twelve GPUs with a quota of eight: its run of eight is only half borrowed.
    let mut pool = Pool::new(2, &[8, 0, 8]);
    let large = pool.submit(0, 8);
    let small = pool.submit(0, 4);
    pool.decide();
    let newer = pool.submit(1, 8);
    let decisions = pool.after(2_000);
    assert_eq!(decisions.starts, [newer]);
    assert_eq!(stops(&decisions), [(small, Reason::Displaced)]);
    assert!(pool.runs(large));
}

#[test]
fn a_reclaim_goes_below_the_borrowers_quota_only_when_nothing_else_makes_room() {
    let mut pool = Pool::new(2, &[12, 4]);
    let gang = pool.submit(0, 16);
    pool.decide();
    let claimed = pool.submit(1, 4);
    let decisions = pool.after(1);
    assert_eq!(stops(&decisions), [(gang, Reason::Reclaimed)]);
    assert_eq!(decisions.starts, [claimed]);
    // With a smaller run to take, the gang is left alone.
    let mut pool = Pool::new(3, &[16, 8]);
    let gang = pool.submit(0, 16);
    let small = pool.submit(0, 8);
    pool.decide();
    pool.submit(1, 4);
    assert_eq!(stops(&pool.after(1)), [(small, Reason::Reclaimed)]);
    assert!(pool.runs(gang));
}

#[test]
fn the_cheapest_victim_of_a_level_makes_way() {
    let mut pool = Pool::new(3, &[8, 16]);
    let fixed = Contender {
        is_preemptible: false,
        ..pool.contender(0, 8)
    };
    pool.submit_as(fixed);
    let mut borrow = |stop_cost_us, checkpoint| {
        let contender = Contender {
            stop_cost_us,
            checkpoint,
            ..pool.contender(0, 8)
        };
        pool.submit_as(contender)
    };
    let saved = borrow(SECOND_US, Checkpoint::Until(90 * SECOND_US));
    let unsaved = borrow(SECOND_US, Checkpoint::Never);
    pool.decide();
    pool.submit(1, 8);
    assert_eq!(stops(&pool.after(100)), [(saved, Reason::Reclaimed)]);
    assert!(pool.runs(unsaved));
}

#[test]
fn a_checkpoint_makes_a_run_cheaper_to_stop() {
    let mut pool = Pool::new(2, &[0, 8]);
    let mut borrow = || {
        let contender = Contender {
            checkpoint: Checkpoint::Never,
            ..pool.contender(0, 8)
        };
        pool.submit_as(contender)
    };
    let (first, second) = (borrow(), borrow());
    pool.decide();
    pool.queue.checkpointed(first, 50 * SECOND_US);
    pool.submit(1, 8);
    assert_eq!(stops(&pool.after(60)), [(first, Reason::Reclaimed)]);
    assert!(pool.runs(second));
}

#[test]
fn nobody_is_stopped_who_does_not_make_room() {
    let mut pool = Pool::new(2, &[0, 16]);
    let small: Vec<RunId> = (0..4).map(|_| pool.submit(0, 4)).collect();
    pool.decide();
    pool.submit(1, 8);
    let decisions = pool.after(1);
    // One node is enough, and it is cleared whole.
    assert_eq!(decisions.stops.len(), 2);
    let nodes: Vec<u32> = small
        .iter()
        .filter(|run| pool.runs(**run))
        .map(|run| pool.room.holding(*run)[0].0)
        .collect();
    assert_eq!(nodes.len(), 2);
    assert_eq!(nodes[0], nodes[1]);
}

#[test]
fn nobody_is_stopped_where_all_of_them_would_not_do() {
    let mut pool = Pool::new(2, &[8, 0, 8]);
    pool.submit(0, 8);
    pool.submit(1, 8);
    pool.decide();
    // Sixteen GPUs are over this tenant's quota, and half the cluster is covered.
    pool.submit(2, 16);
    assert_eq!(pool.after(2 * DAY), Decisions::default());
}

#[test]
fn a_few_small_runs_move_together_so_that_a_gang_fits() {
    let mut pool = Pool::new(2, &[16]);
    let runs: Vec<RunId> = (0..4).map(|_| pool.submit(0, 4)).collect();
    pool.decide();
    // Half of each node is free.
    pool.end(runs[1]);
    pool.end(runs[3]);
    let gang = pool.submit(0, 8);
    let decisions = pool.after(1);
    assert_eq!(decisions.stops.len(), 1);
    let moved = decisions.stops[0];
    assert_eq!((moved.reason, moved.makes_way_for), (Reason::Moved, gang));
    assert_eq!(decisions.starts, {
        let mut both = [moved.run, gang];
        both.sort();
        both
    });
}

#[test]
fn nothing_moves_where_the_rules_forbid_it() {
    let rules = Rules {
        most_moved_gpu_milli: 3_000,
        ..Rules::standard()
    };
    let mut pool = Pool::with(rules, 2, &[16]);
    let runs: Vec<RunId> = (0..4).map(|_| pool.submit(0, 4)).collect();
    pool.decide();
    pool.end(runs[1]);
    pool.end(runs[3]);
    pool.submit(0, 8);
    assert_eq!(pool.after(1), Decisions::default());
}

#[test]
fn a_run_that_may_not_be_stopped_neither_borrows_nor_makes_way() {
    let mut pool = Pool::new(2, &[8, 8]);
    let fixed = Contender {
        is_preemptible: false,
        ..pool.contender(0, 8)
    };
    let fixed = pool.submit_as(fixed);
    let more = Contender {
        is_preemptible: false,
        ..pool.contender(0, 8)
    };
    let more = pool.submit_as(more);
    assert_eq!(pool.decide().starts, [fixed]);
    // Another of its tenant, of an earlier level by then, does not displace it either.
    let fresh = pool.submit(0, 8);
    assert_eq!(pool.after(1_000).starts, [fresh]);
    assert!(pool.runs(fixed) && !pool.runs(more));
}

#[test]
fn a_run_is_left_alone_for_the_least_time_that_the_rules_give_it() {
    let rules = Rules {
        minimum_run_us: 600 * SECOND_US,
        ..Rules::standard()
    };
    let mut pool = Pool::with(rules, 1, &[0, 8]);
    let borrowed = pool.submit(0, 8);
    pool.decide();
    pool.submit(1, 8);
    assert_eq!(pool.after(599), Decisions::default());
    assert_eq!(stops(&pool.after(1)), [(borrowed, Reason::Reclaimed)]);
}

#[test]
fn a_limit_holds_though_gpus_idle_and_a_lender_keeps_what_it_does_not_lend() {
    let share = |quota_milli, limit_milli, lend_milli| Share {
        quota_milli,
        limit_milli,
        lend_milli,
    };
    let shares = vec![
        share(4_000, 10_000, u64::MAX),
        share(12_000, u64::MAX, 5_000),
    ];
    let mut pool = Pool::of_shares(Rules::standard(), 2, shares);
    let runs: Vec<RunId> = (0..4).map(|_| pool.submit(0, 3)).collect();
    // Nine are within the limit, and five of them are lent.
    assert_eq!(pool.decide().starts, runs[..3]);
    pool.end(runs[0]);
    assert_eq!(pool.decide().starts, [runs[3]]);
    let shares = vec![
        share(4_000, 99_000, u64::MAX),
        share(12_000, u64::MAX, 4_000),
    ];
    let mut pool = Pool::of_shares(Rules::standard(), 2, shares);
    let runs: Vec<RunId> = (0..4).map(|_| pool.submit(0, 3)).collect();
    assert_eq!(pool.decide().starts, runs[..2]);
}

#[test]
fn a_run_that_has_waited_as_long_as_the_rules_allow_goes_first() {
    let mut pool = Pool::new(1, &[0, 0]);
    let old = Contender {
        attained_gpu_milli_us: u128::MAX / 2,
        ..pool.contender(0, 8)
    };
    let old = pool.submit_as(old);
    let busy = pool.submit(1, 8);
    assert_eq!(pool.decide().starts, [busy]);
    let decisions = pool.after(12 * DAY - 1);
    assert_eq!(decisions, Decisions::default());
    assert_eq!(stops(&pool.after(1)), [(busy, Reason::Displaced)]);
    assert!(pool.runs(old));
    // And stays there: its level does not rise again with service.
    pool.submit(1, 8);
    assert_eq!(pool.after(DAY), Decisions::default());
    assert_eq!(pool.queue.level(old), Some(0));
}

#[test]
fn a_large_gang_starts_within_its_bound_however_many_small_runs_keep_coming() {
    let rules = Rules {
        starvation_bound_us: Some(DAY * SECOND_US),
        ..Rules::standard()
    };
    let mut pool = Pool::with(rules, 4, &[32]);
    let old = Contender {
        attained_gpu_milli_us: u128::MAX / 2,
        ..pool.contender(0, 32)
    };
    let gang = pool.submit_as(old);
    let mut small: Vec<RunId> = (0..32).map(|_| pool.submit(0, 1)).collect();
    pool.decide();
    // Every quarter of an hour some small runs end and as many come, so that no node empties by
    // itself and none of them ever reaches the second level.
    for quarter in 1..=4 * 48 {
        pool.now_us += 900 * SECOND_US;
        for run in small.drain(..16).collect::<Vec<_>>() {
            pool.end(run);
        }
        for _ in 0..16 {
            small.push(pool.submit(0, 1));
        }
        pool.decide();
        if pool.runs(gang) {
            assert!(quarter >= 4 * 24, "before its turn");
            return;
        }
    }
    panic!("the gang starved");
}

#[test]
fn predictions_order_runs_of_one_level_and_size_alone() {
    let mut pool = Pool::new(1, &[8]);
    let mut predicted = |gpus, predicted_us| {
        let contender = Contender {
            predicted_us,
            ..pool.contender(0, gpus)
        };
        pool.submit_as(contender)
    };
    let unknown = predicted(4, None);
    let long = predicted(4, Some(900));
    let short = predicted(4, Some(100));
    let tiny = predicted(1, None);
    assert_eq!(pool.decide().starts, [short, tiny]);
    pool.end(tiny);
    assert_eq!(pool.decide().starts, [long]);
    assert!(!pool.runs(unknown));
}

#[test]
fn a_run_twice_or_of_no_tenant_is_refused() {
    let mut pool = Pool::new(1, &[8]);
    let run = pool.contender(0, 1);
    assert!(pool.queue.wait(run, 0));
    assert!(!pool.queue.wait(run, 0));
    assert!(!pool.queue.hold(run, 0));
    let stranger = pool.contender(1, 1);
    assert!(!pool.queue.wait(stranger, 0));
    pool.queue.end(RunId(99));
    assert_eq!(pool.decide().starts, [run.run]);
}
