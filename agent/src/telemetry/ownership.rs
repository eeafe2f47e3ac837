//! Whose a process on a device is: ours by descent or process group, else foreign, by OS user.
//!
//! Pure but for [`ProcFolder`], which reads `/proc`. A process that `/proc` does not show (it has just
//! ended, or lives in another pid namespace) is nobody's: what cannot be known is not reported.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// What is known of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its parent.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// Its real user.
    pub user_id: u32,
    /// Its command, short (the kernel's `comm`).
    pub command: String,
}

/// Where processes are looked up.
pub trait Processes {
    /// The process, if it lives.
    fn process(&self, process: u32) -> Option<Process>;
}

/// Longest chain of parents followed; a cycle cannot exist, but a process may change while we look.
const LIMIT_ANCESTORS: usize = 256;

/// Whether a process descends from one of `roots` or shares a process group with one.
pub fn is_ours(process: u32, roots: &BTreeSet<u32>, processes: &dyn Processes) -> bool {
    let mut current = process;
    for _ in 0..LIMIT_ANCESTORS {
        if roots.contains(&current) {
            return true;
        }
        let Some(found) = processes.process(current) else {
            return false;
        };
        // A root leads its own group; a child whose parent has ended is still in it.
        if roots.contains(&found.group) {
            return true;
        }
        if found.parent <= 1 {
            return false;
        }
        current = found.parent;
    }
    false
}

/// Reads `/proc`.
#[derive(Debug, Default)]
pub struct ProcFolder;

impl Processes for ProcFolder {
    fn process(&self, process: u32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        parse(&stat, &status)
    }
}

/// Of `/proc/N/stat` and `/proc/N/status`.
fn parse(stat: &str, status: &str) -> Option<Process> {
    // The command stands in parentheses and may itself hold some, and spaces.
    let (front, rest) = stat.rsplit_once(')')?;
    let (_, command) = front.split_once('(')?;
    let mut fields = rest.split_ascii_whitespace();
    let _state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // Negative or 0 in a foreign pid namespace.
    let group = fields.next()?.parse().unwrap_or(0);
    let user_id = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()?;
    Some(Process {
        parent,
        group,
        user_id,
        command: command.to_owned(),
    })
}

/// Names of users by id, as `/etc/passwd` says.
#[derive(Debug, Default)]
pub struct Users(BTreeMap<u32, String>);

impl Users {
    /// Reads `/etc/passwd`; without one every user is told by number.
    pub fn read() -> Self {
        Self::parse(&fs::read_to_string("/etc/passwd").unwrap_or_default())
    }

    fn parse(passwd: &str) -> Self {
        let entry = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let id = fields.nth(1)?.parse().ok()?;
            Some((id, name))
        };
        let mut names = BTreeMap::new();
        for (id, name) in passwd.lines().filter_map(entry) {
            // The first name of an id counts, as it does for the C library.
            names.entry(id).or_insert(name);
        }
        Self(names)
    }

    /// A user's name, or "uid 1000".
    pub fn name(&self, user_id: u32) -> String {
        match self.0.get(&user_id) {
            Some(name) => name.clone(),
            None => format!("uid {user_id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Table(BTreeMap<u32, Process>);

    impl Processes for Table {
        fn process(&self, process: u32) -> Option<Process> {
            self.0.get(&process).cloned()
        }
    }

    fn table(rows: &[(u32, u32, u32)]) -> Table {
        let row = |(process, parent, group): &(u32, u32, u32)| {
            let found = Process {
                parent: *parent,
                group: *group,
                user_id: 0,
                command: "python".to_owned(),
            };
            (*process, found)
        };
        Table(rows.iter().map(row).collect())
    }

    #[test]
    fn a_grandchild_and_an_orphan_of_the_group_are_ours_and_a_notebook_is_not() {
        let roots = BTreeSet::from([100]);
        let processes = table(&[
            (100, 50, 100),
            (101, 100, 100),
            (102, 101, 102), // its own group, but a grandchild
            (103, 1, 100),   // its parent has ended, its group tells
            (200, 1, 200),
            (201, 200, 200),
        ]);
        let ours = |process| is_ours(process, &roots, &processes);
        assert!(ours(100) && ours(101) && ours(102) && ours(103));
        assert!(!ours(200) && !ours(201) && !ours(999));
    }

    #[test]
    fn a_chain_of_parents_that_never_ends_is_given_up() {
        let processes = table(&[(7, 8, 7), (8, 7, 8)]);
        assert!(!is_ours(7, &BTreeSet::from([100]), &processes));
    }

    #[test]
    fn a_command_with_parentheses_and_spaces_is_read_whole() {
        let stat = "42 (my (odd) tool) S 7 42 42 0 -1 4194560";
        let status = "Name:\tmy\nUid:\t1000\t1000\t1000\t1000\n";
        let expected = Process {
            parent: 7,
            group: 42,
            user_id: 1000,
            command: "my (odd) tool".to_owned(),
        };
        assert_eq!(parse(stat, status), Some(expected));
        assert_eq!(parse("garbage", status), None);
    }

    #[test]
    fn this_very_process_is_found_and_is_its_own_descendant() {
        let own = std::process::id();
        assert!(ProcFolder.process(own).is_some());
        assert!(is_ours(own, &BTreeSet::from([own]), &ProcFolder));
    }

    #[test]
    fn users_are_told_by_name_and_strangers_by_number() {
        let users =
            Users::parse("root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/:\nalias:x:1000:1::/:\nbad");
        assert_eq!(users.name(1000), "ada");
        assert_eq!(users.name(4), "uid 4");
    }
}
