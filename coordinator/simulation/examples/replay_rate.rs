//! How much faster than it passed a month is replayed: a hundred nodes of eight devices, six tenants,
//! thirty thousand runs that ask for nine tenths of what there is. One JSON line.

use coordinator_core::model::*;
use coordinator_core::scheduler::Trial;
use coordinator_core::state::{Command, QuotaChange, State};
use coordinator_simulation::history::{History, compare, replay};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

const NODES: u64 = 100;
const RUNS: u64 = 30_000;
const MONTH_US: u64 = 30 * 24 * 3_600 * 1_000_000;
const TENANTS: [&str; 6] = ["nlp", "vision", "speech", "search", "ads", "robots"];

fn main() {
    let frame = frame();
    let history = history();
    let started = Instant::now();
    let replayed = replay(&history, frame.clone(), false, &mut |_| {});
    let took_s = started.elapsed().as_secs_f64();
    let total = compare(&history, &replayed, None, NODES * 8_000)
        .total
        .replayed;
    let started = Instant::now();
    let calibrated = replay(&history, frame, true, &mut |_| {});
    let estimates_s = started.elapsed().as_secs_f64() - took_s;
    let scored = calibrated.calibration.unwrap_or_default().scored();
    println!(
        "{{\"runs\":{RUNS},\"devices\":{},\"seconds\":{took_s:.2},\"times_real_time\":{:.0},\
         \"wait_mean_s\":{},\"preemptions\":{},\"utilisation\":{:.3},\"estimates_seconds\":{estimates_s:.2},\
         \"estimates\":{},\"within\":{}}}",
        NODES * 8,
        MONTH_US as f64 / 1e6 / took_s,
        total.wait_mean_us / 1_000_000,
        total.preemptions,
        total.utilisation,
        scored.0,
        scored.1,
    );
}

fn frame() -> State {
    let mut trial = Trial::new(State::default(), 0);
    for node in 0..NODES {
        let name = NodeName::new(&format!("node-{node:03}")).expect("a good name");
        let devices = (0..8).map(|index| DeviceDescription {
            id: DeviceId(format!("{name}-{index}").into()),
            index,
            model: "A100-80G".to_owned(),
            memory_mib: 81_920,
            simulated: true,
            wiring: DeviceWiring::default(),
        });
        let description = Box::new(NodeDescription {
            pool: PoolName::default_pool(),
            boot_id: "boot".to_owned(),
            devices: devices.collect(),
            cpu_milli: 64_000,
            memory_mib: 512_000,
            runtimes: BTreeSet::from(["process".to_owned()]),
            agent_version: String::new(),
            rack: None,
            name,
        });
        trial.apply(Command::RegisterNode { description });
    }
    for name in TENANTS {
        let tenant = TenantName::new(name).expect("a good name");
        trial.apply(Command::CreateTenant {
            tenant: tenant.clone(),
            parent: None,
            weight: None,
        });
        trial.apply(Command::SetQuota(QuotaChange {
            tenant,
            pool: PoolName::default_pool(),
            model: None,
            gpu_milli: Some(128_000),
            limit_milli: None,
            lend_milli: None,
        }));
    }
    trial.state().frame(0)
}

/// Numbers that look drawn, the same each time (Knuth's MMIX generator, its upper half).
fn draw(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn history() -> History {
    let mut seed = 17;
    let mut came: Vec<u64> = (0..RUNS)
        .map(|_| draw(&mut seed) % (MONTH_US / 1_000_000) * 1_000_000)
        .collect();
    came.sort_unstable();
    let runs = (1..).zip(came).map(|(id, came_us)| {
        let gpus = [1, 1, 1, 1, 2, 2, 4, 8][(draw(&mut seed) % 8) as usize];
        // A few minutes mostly, and a tail of days: 24,000 s of 2.5 devices on average.
        let stay_s = match draw(&mut seed) % 10 {
            0..=4 => draw(&mut seed) % 1_200,
            5..=7 => draw(&mut seed) % 14_400,
            _ => draw(&mut seed) % 220_000,
        };
        let whose = (draw(&mut seed) * draw(&mut seed)) as usize % TENANTS.len();
        past(id, TENANTS[whose], gpus, came_us, (stay_s + 10) * 1_000_000)
    });
    History {
        since_us: 0,
        until_us: MONTH_US,
        runs: runs.collect(),
        arrays: Vec::new(),
    }
}

fn past(id: u64, tenant: &str, gpus: u32, came_us: u64, stay_us: u64) -> PastRun {
    let tenant = TenantName::new(tenant).expect("a good name");
    PastRun {
        id: RunId(id),
        spec: WorkloadSpec {
            name: "train".to_owned(),
            command: vec!["replayed".to_owned()],
            source_sha256: None,
            requirements_path: None,
            working_folder: None,
            environment: BTreeMap::new(),
            image: None,
            gpus: Some(gpus),
            gpu_share_milli: None,
            gpu_memory_mib: None,
            gpu_model: None,
            nodes: 1,
            cpu_milli: None,
            memory_mib: None,
            pool: Some(PoolName::default_pool()),
            tags: BTreeMap::new(),
            model: None,
            priority_class: None,
            never_preempts: false,
            priority: 0,
            time_limit_ms: None,
            retries: 0,
            start_deadline_ms: None,
            warning: None,
            tenant: Some(tenant.clone()),
            preemptible: true,
            after: Vec::new(),
            spread: false,
        },
        user: UserName::new("ana").expect("a good name"),
        tenant,
        submitted_us: came_us,
        array: None,
        spells: vec![Spell {
            placed_us: came_us,
            ended_us: Some(came_us + stay_us),
            preempted: false,
        }],
        end: Some((RunOutcome::Succeeded, came_us + stay_us)),
        charge: Charge::default(),
    }
}
