//! What holds after every pass, over random sequences.

use super::*;
use proptest::prelude::*;

const NODES: usize = 4;
const QUOTAS: [u64; 3] = [16, 8, 8];

#[derive(Debug, Clone)]
enum Step {
    Submit { tenant: usize, gpus: u32 },
    End { which: usize },
    Pass { seconds: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let gpus = prop_oneof![
        Just(1_u32),
        Just(2),
        Just(3),
        Just(4),
        Just(8),
        Just(12),
        Just(16)
    ];
    let step = prop_oneof![
        4 => (0..QUOTAS.len(), gpus).prop_map(|(tenant, gpus)| Step::Submit { tenant, gpus }),
        2 => (0_usize..64).prop_map(|which| Step::End { which }),
        2 => prop_oneof![Just(1_u64), Just(300), Just(5_000), Just(400_000)]
            .prop_map(|seconds| Step::Pass { seconds }),
    ];
    prop::collection::vec(step, 1..80)
}

/// Plays a sequence; checks what must hold after each pass; returns all that was decided.
fn play(steps: &[Step]) -> Vec<Decisions> {
    let mut pool = Pool::new(NODES, &QUOTAS);
    let mut known: BTreeMap<RunId, usize> = BTreeMap::new();
    let mut running: BTreeSet<RunId> = BTreeSet::new();
    let mut all = Vec::new();
    for step in steps {
        match step {
            Step::Submit { tenant, gpus } => {
                known.insert(pool.submit(*tenant, *gpus), *tenant);
            }
            Step::End { which } => {
                if let Some(run) = running.iter().nth(which % running.len().max(1)).copied() {
                    pool.end(run);
                    running.remove(&run);
                    known.remove(&run);
                }
            }
            Step::Pass { seconds } => pool.now_us += seconds * SECOND_US,
        }
        let decisions = pool.decide();
        for stop in &decisions.stops {
            assert!(running.remove(&stop.run), "stopped what did not run");
            assert!(
                decisions.starts.contains(&stop.makes_way_for),
                "stopped in vain: {stop:?}"
            );
        }
        for run in &decisions.starts {
            assert!(running.insert(*run), "started what runs");
        }
        check(&pool, &known, &running);
        check_nothing_idles(&pool, &known, &running);
        all.push(decisions);
    }
    all
}

/// Room is held by running runs alone, each whole and consolidated, and by tenant adds up.
fn check(pool: &Pool, known: &BTreeMap<RunId, usize>, running: &BTreeSet<RunId>) {
    let mut used = [0_u32; NODES];
    let mut by_tenant = [0_u64; QUOTAS.len()];
    for (run, tenant) in known {
        let holding = pool.room.holding(*run);
        assert_eq!(!holding.is_empty(), running.contains(run));
        if holding.is_empty() {
            continue;
        }
        let gpus = pool.gpus[run];
        assert_eq!(holding.iter().map(|(_, gpus)| gpus).sum::<u32>(), gpus);
        assert_eq!(holding.len(), gpus.div_ceil(8) as usize);
        assert!(holding.iter().filter(|(_, gpus)| *gpus < 8).count() <= 1);
        for (node, gpus) in holding {
            used[*node as usize] += gpus;
        }
        by_tenant[*tenant] += u64::from(gpus) * 1_000;
    }
    assert!(used.iter().all(|gpus| *gpus <= 8), "{used:?}");
    for (tenant, used_milli) in by_tenant.iter().enumerate() {
        assert_eq!(*used_milli, pool.queue.used_milli(tenant));
    }
}

/// Nobody waits who would fit: so nobody borrows what a covered run could use, and nothing idles.
fn check_nothing_idles(pool: &Pool, known: &BTreeMap<RunId, usize>, running: &BTreeSet<RunId>) {
    for run in known.keys().filter(|run| !running.contains(run)) {
        let demand = WholeNodes::demand(pool.gpus[run]);
        assert!(
            !pool.room.clone().try_take(*run, demand),
            "{run} fits, and waits"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn room_is_never_given_twice_and_quota_is_passed_only_onto_what_idles(steps in steps()) {
        play(&steps);
    }

    #[test]
    fn the_same_input_gives_the_same_decisions(steps in steps()) {
        prop_assert_eq!(play(&steps), play(&steps));
    }
}
