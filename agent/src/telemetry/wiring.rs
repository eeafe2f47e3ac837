//! Which devices of a node share an NVLink island, a PCIe switch, a NUMA node: groups out of what the
//! driver says of pairs.
//!
//! Pure. Deliberately lacks speeds and widths of links: placement asks who is together, not how fast.

use agent_core::Wiring;

/// How near two devices are on the PCIe tree, nearest first: what placement needs of the levels of
/// `nvmlDeviceGetTopologyCommonAncestor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nearness {
    /// Behind one PCIe switch, or on one board.
    Switch,
    /// At one NUMA node.
    NumaNode,
    /// On one machine.
    Machine,
}

/// The wiring of each device. `links` are the PCI addresses at the other ends of its active NVLinks:
/// another device's own, or a switch's that several reach. `addresses` are the devices' own. What the
/// driver does not tell of any pair stays unknown.
pub(super) fn wiring(
    addresses: &[String],
    links: &[Vec<String>],
    nearness: impl Fn(usize, usize) -> Option<Nearness>,
) -> Vec<Wiring> {
    let count = addresses.len();
    let linked = |one: usize, other: usize| {
        let ends = &links[one];
        ends.contains(&addresses[other])
            || links[other].contains(&addresses[one])
            || ends.iter().any(|end| links[other].contains(end))
    };
    let islands = links
        .iter()
        .any(|ends| !ends.is_empty())
        .then(|| groups(count, linked));
    let knows_tree = (0..count).any(|one| (0..one).any(|other| nearness(one, other).is_some()));
    let within = |level: Nearness| {
        knows_tree.then(|| {
            groups(count, |one, other| {
                nearness(one, other).is_some_and(|found| found <= level)
            })
        })
    };
    let (switches, numa_nodes) = (within(Nearness::Switch), within(Nearness::NumaNode));
    let of = |groups: &Option<Vec<u32>>, device: usize| Some(*groups.as_ref()?.get(device)?);
    (0..count)
        .map(|device| Wiring {
            nvlink_island: of(&islands, device),
            pcie_switch: of(&switches, device),
            numa_node: of(&numa_nodes, device),
        })
        .collect()
}

/// Numbers of the groups that `together` makes, transitively; by first appearance.
fn groups(count: usize, together: impl Fn(usize, usize) -> bool) -> Vec<u32> {
    let mut group: Vec<Option<u32>> = vec![None; count];
    let mut next = 0;
    for first in 0..count {
        if group[first].is_some() {
            continue;
        }
        let mut reached = vec![first];
        while let Some(device) = reached.pop() {
            group[device] = Some(next);
            for (other, in_group) in group.iter().enumerate() {
                if in_group.is_none() && together(device, other) && !reached.contains(&other) {
                    reached.push(other);
                }
            }
        }
        next += 1;
    }
    group.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(count: usize) -> Vec<String> {
        (0..count)
            .map(|device| format!("0000:{device:02}:00.0"))
            .collect()
    }

    fn numbers(wiring: &[Wiring], of: impl Fn(&Wiring) -> Option<u32>) -> Vec<Option<u32>> {
        wiring.iter().map(of).collect()
    }

    #[test]
    fn devices_on_one_nvlink_switch_are_one_island_whoever_they_link_to() {
        let switch = |name: &str| vec![name.to_owned(), "0000:f1:00.0".to_owned()];
        let links = [
            switch("0000:f0:00.0"),
            switch("0000:f2:00.0"),
            switch("0000:f3:00.0"),
        ];
        let found = wiring(&addresses(3), &links, |_, _| None);
        assert_eq!(numbers(&found, |device| device.nvlink_island), [Some(0); 3]);
        assert_eq!(numbers(&found, |device| device.pcie_switch), [None; 3]);
    }

    #[test]
    fn bridged_pairs_are_islands_of_two_and_a_device_without_links_is_alone() {
        let own = addresses(5);
        let links = [
            vec![own[1].clone()],
            vec![own[0].clone()],
            vec![own[3].clone()],
            // The driver told of this link at its other end alone.
            vec![],
            vec![],
        ];
        let found = wiring(&own, &links, |_, _| None);
        let islands = [Some(0), Some(0), Some(1), Some(1), Some(2)];
        assert_eq!(numbers(&found, |device| device.nvlink_island), islands);
    }

    #[test]
    fn switches_lie_within_numa_nodes() {
        let nearness = |one: usize, other: usize| {
            Some(match (one / 2 == other / 2, one / 4 == other / 4) {
                (true, _) => Nearness::Switch,
                (false, true) => Nearness::NumaNode,
                (false, false) => Nearness::Machine,
            })
        };
        let none = vec![Vec::new(); 8];
        let found = wiring(&addresses(8), &none, nearness);
        let switches = [0, 0, 1, 1, 2, 2, 3, 3].map(Some);
        assert_eq!(numbers(&found, |device| device.pcie_switch), switches);
        let numa_nodes = [0, 0, 0, 0, 1, 1, 1, 1].map(Some);
        assert_eq!(numbers(&found, |device| device.numa_node), numa_nodes);
        assert_eq!(numbers(&found, |device| device.nvlink_island), [None; 8]);
    }

    #[test]
    fn of_one_device_or_none_nothing_is_known() {
        for count in [0, 1] {
            let found = wiring(&addresses(count), &vec![Vec::new(); count], |_, _| None);
            assert_eq!(found, vec![Wiring::default(); count]);
        }
    }
}
