//! What a hostile or broken package may not do, each refusal in its own words.

use agent::package::{PackageError, unpack, unpack_from};
use std::fs;
use std::io::Write;
use tar::{EntryType, Header};

fn entry(kind: EntryType, path: &str, link: &str, content: &[u8]) -> (Header, Vec<u8>) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    // By hand: the builder itself refuses what an attacker would write.
    let name = &mut header.as_old_mut().name;
    name[..path.len()].copy_from_slice(path.as_bytes());
    let target = &mut header.as_old_mut().linkname;
    target[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    (header, content.to_vec())
}

fn archive(entries: Vec<(Header, Vec<u8>)>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (header, content) in entries {
        builder.append(&header, content.as_slice()).unwrap();
    }
    zstd::encode_all(builder.into_inner().unwrap().as_slice(), 1).unwrap()
}

fn outcome(entries: Vec<(Header, Vec<u8>)>) -> Result<(), PackageError> {
    let root = tempfile::tempdir().unwrap();
    let work = root.path().join("work");
    fs::create_dir(&work).unwrap();
    let result = unpack_from(archive(entries).as_slice(), &work, 1000, 5);
    // Whatever was refused, nothing came to lie beside the folder.
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    result
}

#[test]
fn paths_and_links_that_leave_the_folder_are_refused_each_by_name() {
    use PackageError as E;
    let file = EntryType::Regular;
    let link = EntryType::Symlink;
    assert!(matches!(
        outcome(vec![entry(file, "../x", "", b"x")]),
        Err(E::Escapes(_))
    ));
    assert!(matches!(
        outcome(vec![entry(file, "a/../../x", "", b"x")]),
        Err(E::Escapes(_))
    ));
    assert!(matches!(
        outcome(vec![entry(file, "/etc/x", "", b"x")]),
        Err(E::Absolute(_))
    ));
    assert!(matches!(
        outcome(vec![entry(link, "l", "/etc", b"")]),
        Err(E::LinkLeaves { .. })
    ));
    assert!(matches!(
        outcome(vec![entry(link, "a/l", "../../x", b"")]),
        Err(E::LinkLeaves { .. })
    ));
    assert!(matches!(
        outcome(vec![entry(EntryType::Char, "c", "", b"")]),
        Err(E::Kind { .. })
    ));
    assert!(matches!(
        outcome(vec![entry(EntryType::Link, "h", "/etc/passwd", b"")]),
        Err(E::Kind { .. })
    ));
    assert!(
        outcome(vec![
            entry(file, "a/x", "", b"x"),
            entry(link, "a/l", "../a/x", b"")
        ])
        .is_ok()
    );
}

#[test]
fn a_small_archive_that_holds_too_much_is_refused() {
    use PackageError as E;
    let file = EntryType::Regular;
    let large = outcome(vec![entry(file, "x", "", &[0; 1001])]);
    assert!(matches!(large, Err(E::TooManyBytes { limit: 1000 })));
    let many = (0..6)
        .map(|number| entry(file, &format!("f{number}"), "", b""))
        .collect();
    assert!(matches!(outcome(many), Err(E::TooManyEntries { limit: 5 })));
}

#[test]
fn a_broken_archive_is_the_users_fault_and_a_full_disk_the_nodes() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("package");
    fs::File::create(&path)
        .unwrap()
        .write_all(b"no archive")
        .unwrap();
    let refused = unpack(&path, &root.path().join("work")).unwrap_err();
    assert!(!refused.node_fault, "{refused}");
    // /dev/full says what a full disk says.
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .write_all(b"x")
        .unwrap_err();
    let failure = agent::package::storage_failure(root.path(), &full);
    assert!(
        failure.node_fault && failure.message.contains("disk is full"),
        "{failure}"
    );
}
