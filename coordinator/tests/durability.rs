//! What the driver and its store promise across crashes, damage and full disks, on real files.

use coordinator::driver::{DriverConfig, DriverHandle, DriverThread, ProposeError, start};
use coordinator::storage::{Disk, StoreError};
use coordinator_core::model::TenantName;
use coordinator_core::state::{Command, Event};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

fn create(name: &str) -> Command {
    Command::CreateTenant {
        tenant: TenantName::new(name).expect("a valid name"),
        parent: None,
        weight: None,
    }
}

fn open(folder: &Path) -> (DriverHandle, DriverThread) {
    start(DriverConfig::new(folder)).expect("starts")
}

fn has(handle: &DriverHandle, name: &str) -> bool {
    handle.read(|state| state.tenants().contains_key(name))
}

async fn propose(handle: &DriverHandle, name: &str) -> u64 {
    let applied = handle
        .propose("user:ana", Some(format!("key-{name}")), create(name))
        .await
        .expect("acknowledged");
    assert!(
        !matches!(applied.events[0], Event::Rejected { .. }),
        "{:?}",
        applied.events
    );
    applied.index
}

/// What `kill -9` leaves: the files as they are, with nothing closed.
fn killed(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    copy_folder(folder, copy.path());
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copies");
        }
    }
}

fn log_file(folder: &Path) -> PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(folder.join("log"))
        .expect("readable")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "raftlog")
        })
        .collect();
    files.sort();
    files.pop().expect("a log file")
}

/// Where the written part of a log file ends: the rest is zeros allocated ahead.
fn written_end(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_command_of_many_proposers_survives_kill_9_with_the_same_state() {
    let folder = tempfile::tempdir().expect("a folder");
    let (handle, _thread) = open(folder.path());
    let mut proposers = Vec::new();
    for proposer in 0..32 {
        let handle = handle.clone();
        proposers.push(tokio::spawn(async move {
            for number in 0..20 {
                propose(&handle, &format!("t{proposer}-{number}")).await;
            }
        }));
    }
    for proposer in proposers {
        proposer.await.expect("finishes");
    }
    let digest = handle.read(|state| state.digest());
    let copy = killed(folder.path());
    let (again, _thread_again) = open(copy.path());
    for proposer in 0..32 {
        for number in 0..20 {
            assert!(has(&again, &format!("t{proposer}-{number}")));
        }
    }
    assert_eq!(again.read(|state| state.digest()), digest);
    propose(&again, "after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_under_load_nothing_acknowledged_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = DriverConfig::new(folder.path());
    config.snapshot_after_entries = 50;
    config.keep_entries = 10;
    let (handle, _thread) = start(config).expect("starts");
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..8)
        .map(|proposer| {
            let (handle, acknowledged, stop) =
                (handle.clone(), Arc::clone(&acknowledged), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let name = format!("t{proposer}-{number}");
                    propose(&handle, &name).await;
                    acknowledged.lock().expect("whole").push(name);
                    number += 1;
                }
            })
        })
        .collect();
    let mut applied = handle.watch();
    for round in 1..=5u64 {
        applied
            .wait_for(|index| *index >= round * 60)
            .await
            .expect("goes on");
        let before: Vec<String> = acknowledged.lock().expect("whole").clone();
        // A copy taken file by file is no instant of one disk: only the log alone may be copied while it
        // grows, so the snapshots are taken along first, and rounds where one was made meanwhile are void.
        let listed = |folder: &Path| {
            let mut names: Vec<_> = std::fs::read_dir(folder.join("snapshots"))
                .expect("readable")
                .flatten()
                .map(|e| e.file_name())
                .collect();
            names.sort();
            names
        };
        let snapshots = listed(folder.path());
        let copy = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(copy.path().join("log")).expect("a folder");
        std::fs::copy(folder.path().join("synced"), copy.path().join("synced")).expect("copies");
        std::fs::create_dir(copy.path().join("snapshots")).expect("a folder");
        let whole = snapshots.iter().all(|name| {
            std::fs::copy(
                folder.path().join("snapshots").join(name),
                copy.path().join("snapshots").join(name),
            )
            .is_ok()
        });
        copy_folder(&folder.path().join("log"), &copy.path().join("log"));
        if !whole || listed(folder.path()) != snapshots {
            continue;
        }
        let (again, _thread_again) = open(copy.path());
        for name in &before {
            assert!(has(&again, name), "{name} was acknowledged");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for proposer in load {
        proposer.await.expect("finishes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_and_the_log_behind_it_restore_the_same_state_and_the_log_is_let_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = DriverConfig::new(folder.path());
    config.snapshot_after_entries = 100;
    config.keep_entries = 8;
    let (handle, thread) = start(config).expect("starts");
    for number in 0..250 {
        propose(&handle, &format!("t{number}")).await;
    }
    let digest = handle.read(|state| state.digest());
    // Joins the loop; a snapshot under way finishes on its own and is waited for by the listing below.
    drop(thread);
    let snapshots = || {
        std::fs::read_dir(folder.path().join("snapshots"))
            .expect("readable")
            .flatten()
            .filter_map(|entry| entry.path().file_stem()?.to_str()?.parse::<u64>().ok())
            .max()
    };
    assert!(
        snapshots().expect("a snapshot") > 1,
        "a later one than the founding one"
    );
    let copy = killed(folder.path());
    let (again, _thread) = open(copy.path());
    assert_eq!(again.read(|state| state.digest()), digest);
    // The same key gives the same answer, from before the snapshot too.
    let repeated = again
        .propose("user:ana", Some("key-t1".to_owned()), create("t1"))
        .await
        .expect("acknowledged");
    assert!(
        !matches!(repeated.events[0], Event::Rejected { .. }),
        "{:?}",
        repeated.events
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_cut_and_a_corrupt_middle_refuses_to_start_with_nothing_destroyed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (handle, _thread) = open(folder.path());
    for number in 0..20 {
        propose(&handle, &format!("t{number}")).await;
    }
    let copy = killed(folder.path());
    let file = log_file(copy.path());
    let clean = std::fs::read(&file).expect("readable");
    let end = written_end(&clean);

    // Half of a write that was never acknowledged.
    let mut torn = clean.clone();
    let garbage: Vec<u8> = (0..300u32).map(|number| (number * 7 + 13) as u8).collect();
    torn[end..end + garbage.len()].copy_from_slice(&garbage);
    std::fs::write(&file, &torn).expect("writes");
    let (again, thread) = open(copy.path());
    assert!(has(&again, "t19"));
    propose(&again, "later").await;
    drop((again, thread));
    let (again, thread) = open(copy.path());
    assert!(has(&again, "later"));
    drop((again, thread));

    // One bit gone bad amid acknowledged commands, wherever it is behind the header of the file.
    for position in (96..end).step_by(end / 12) {
        let copy = killed(folder.path());
        let file = log_file(copy.path());
        let mut rotten = std::fs::read(&file).expect("readable");
        rotten[position] ^= 1;
        std::fs::write(&file, &rotten).expect("writes");
        let refused = start(DriverConfig::new(copy.path()))
            .err()
            .unwrap_or_else(|| panic!("bit at {position} unseen"));
        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
        let left = std::fs::read(&file).expect("readable");
        assert!(
            left[..end] == rotten[..end],
            "nothing but zeros was cut off"
        );
    }
    // Cut short, or gone.
    for cut in [Some(end / 2), None] {
        let copy = killed(folder.path());
        let file = log_file(copy.path());
        match cut {
            Some(length) => std::fs::write(&file, &clean[..length]).expect("writes"),
            None => std::fs::remove_file(&file).expect("removes"),
        }
        assert!(matches!(
            start(DriverConfig::new(copy.path())),
            Err(StoreError::Damaged { .. })
        ));
    }
    // The snapshot has rotted.
    let copy = killed(folder.path());
    let snapshot = copy
        .path()
        .join("snapshots")
        .join(format!("{:020}.snap", 1));
    let mut bytes = std::fs::read(&snapshot).expect("readable");
    bytes[20] ^= 1;
    std::fs::write(&snapshot, bytes).expect("writes");
    assert!(matches!(
        start(DriverConfig::new(copy.path())),
        Err(StoreError::Damaged { .. })
    ));
}

/// A disk with so many free bytes, that may fill or fail.
#[derive(Default)]
struct SmallDisk {
    free: AtomicU64,
    full: AtomicBool,
    broken: AtomicBool,
    refused_writes: AtomicU64,
}

impl Disk for SmallDisk {
    fn free_bytes(&self, _: &Path) -> Result<u64> {
        Ok(self.free.load(Ordering::SeqCst))
    }

    fn before_write(&self, _: usize) -> Result<()> {
        if self.full.load(Ordering::SeqCst) {
            self.refused_writes.fetch_add(1, Ordering::SeqCst);
            return Err(Error::from(ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn before_sync(&self) -> Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            Err(Error::other("medium error"))
        } else {
            Ok(())
        }
    }
}

async fn until_taken(handle: &DriverHandle, name: &str) {
    loop {
        match handle
            .propose("user:ana", Some(name.to_owned()), create(name))
            .await
        {
            Ok(_) => return,
            Err(ProposeError::DiskFull { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_floor_of_free_space_proposals_are_refused_and_taken_again_when_space_returns() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Arc::new(SmallDisk {
        free: AtomicU64::new(10_000),
        ..SmallDisk::default()
    });
    let mut config = DriverConfig::new(folder.path());
    config.disk = disk.clone();
    config.free_floor_bytes = 1000;
    config.tick = std::time::Duration::from_millis(5);
    let (handle, _thread) = start(config).expect("starts");
    propose(&handle, "before").await;
    disk.free.store(999, Ordering::SeqCst);
    let mut number = 0;
    let refused = loop {
        number += 1;
        match handle
            .propose("user:ana", None, create(&format!("t{number}")))
            .await
        {
            Ok(_) => tokio::task::yield_now().await,
            Err(refused) => break refused,
        }
    };
    assert!(
        refused
            .to_string()
            .contains("disk full: 999 bytes free, at least 1000 needed"),
        "{refused}"
    );
    assert!(has(&handle, "before"), "reads go on");
    disk.free.store(1250, Ordering::SeqCst);
    until_taken(&handle, "after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_meets_a_full_disk_is_kept_and_done_once_when_space_returns() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Arc::new(SmallDisk {
        free: AtomicU64::new(u64::MAX),
        ..SmallDisk::default()
    });
    let mut config = DriverConfig::new(folder.path());
    config.disk = disk.clone();
    config.tick = std::time::Duration::from_millis(5);
    let (handle, _thread) = start(config).expect("starts");
    propose(&handle, "before").await;
    disk.full.store(true, Ordering::SeqCst);
    let caught = tokio::spawn({
        let handle = handle.clone();
        async move { propose(&handle, "caught").await }
    });
    while disk.refused_writes.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let refused = handle.propose("user:ana", None, create("refused")).await;
    assert!(
        matches!(refused, Err(ProposeError::DiskFull { .. })),
        "{refused:?}"
    );
    assert!(has(&handle, "before") && !has(&handle, "caught"));
    disk.full.store(false, Ordering::SeqCst);
    caught.await.expect("acknowledged late");
    until_taken(&handle, "after").await;
    let digest = handle.read(|state| state.digest());
    let copy = killed(folder.path());
    let (again, _thread) = open(copy.path());
    assert_eq!(again.read(|state| state.digest()), digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_fsync_ends_the_driver_with_the_reason_and_acknowledges_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Arc::new(SmallDisk {
        free: AtomicU64::new(u64::MAX),
        ..SmallDisk::default()
    });
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut config = DriverConfig::new(folder.path());
    config.disk = disk.clone();
    config.on_fatal = Box::new(move |reason| tell.send(reason).expect("heard"));
    let (handle, _thread) = start(config).expect("starts");
    propose(&handle, "before").await;
    disk.broken.store(true, Ordering::SeqCst);
    let lost = handle.propose("user:ana", None, create("lost")).await;
    assert!(matches!(lost, Err(ProposeError::Unknown(_))), "{lost:?}");
    let reason = told.await.expect("a reason");
    assert!(
        reason.contains("fsync of raft log file") && reason.contains("medium error"),
        "{reason}"
    );
    assert!(
        handle
            .propose("user:ana", None, create("later"))
            .await
            .is_err()
    );
    assert!(!has(&handle, "lost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_back_never_takes_the_stamp_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Arc::new(AtomicU64::new(5_000_000));
    let config = |clock: Arc<AtomicU64>| {
        let mut config = DriverConfig::new(folder.path());
        config.clock = Arc::new(move || clock.load(Ordering::SeqCst));
        config
    };
    let (handle, thread) = start(config(clock.clone())).expect("starts");
    propose(&handle, "first").await;
    assert_eq!(handle.read(|state| state.time_us()), 5_000_000);
    clock.store(1_000_000, Ordering::SeqCst);
    propose(&handle, "second").await;
    assert_eq!(handle.read(|state| state.time_us()), 5_000_000);
    drop((handle, thread));
    let (handle, _thread) = start(config(clock)).expect("starts");
    propose(&handle, "third").await;
    assert_eq!(handle.read(|state| state.time_us()), 5_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_hear_each_index_once_in_order_and_a_slow_one_is_told_that_it_lags() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = DriverConfig::new(folder.path());
    config.event_buffer = 64;
    let (handle, _thread) = start(config).expect("starts");
    let mut prompt = handle.subscribe();
    let mut slow = handle.subscribe();
    let mut last = handle.applied_index();
    for number in 0..100 {
        let index = propose(&handle, &format!("t{number}")).await;
        let heard = prompt.recv().await.expect("in time");
        assert_eq!(heard.index, index);
        assert!(heard.index > last);
        last = heard.index;
    }
    assert!(matches!(
        slow.recv().await,
        Err(tokio::sync::broadcast::error::RecvError::Lagged(_))
    ));
    assert_eq!(handle.linearize().await.expect("leads"), last);
    assert_eq!(*handle.watch().borrow(), last);
}

#[test]
fn a_second_opening_of_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = open(folder.path());
    assert!(start(DriverConfig::new(folder.path())).is_err());
}
