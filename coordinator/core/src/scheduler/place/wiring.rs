//! Which of a node's devices belong together, and which racks a gang goes to.
//!
//! A member's devices are taken behind one NVLink island where one has room for all, else behind one PCIe
//! switch, else at one NUMA node; of several that have room the one with the least left over, so that
//! whole ones stay whole. A gang goes to as few racks as hold it, or to as many as there are where it
//! asks for that. Both are preferences: who fits starts.
//!
//! Deliberately lacks bandwidths: which level two devices share decides, not how fast a level is.

use super::class::FreeDevice;
use crate::model::{NodeDescription, NodeName, WHOLE_DEVICE_MILLI};
use std::collections::{BTreeMap, BTreeSet};

/// A gang's members, and where they would rather be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gang<'a> {
    /// How many, each on a node of its own.
    pub members: usize,
    /// To as many racks as there are, instead of to as few.
    pub spread: bool,
    /// Nodes that hold its image or its files already: taken before others that are as good. Looked
    /// at for a gang of one alone.
    pub near: &'a [NodeName],
}

impl From<usize> for Gang<'static> {
    fn from(members: usize) -> Self {
        Self {
            members,
            spread: false,
            near: &[],
        }
    }
}

/// How a free device stands in its node's state: what it shares, fastest first, renumbered so that nodes
/// wired alike are alike.
pub(super) type Place = [Option<u8>; 3];

/// How many things beyond one the devices of a shape would have to be spread over at the fastest level
/// that is known. 0 where nothing is known.
pub(super) fn islands_beyond_one(
    free: &[(FreeDevice, Place)],
    fits: impl Fn(&FreeDevice) -> bool,
    wanted: usize,
) -> u8 {
    let Some(level) = fastest_known(free.iter().map(|(_, place)| place)) else {
        return 0;
    };
    let mut room: BTreeMap<Option<u8>, usize> = BTreeMap::new();
    for (device, place) in free {
        if fits(device) {
            *room.entry(place[level]).or_default() += 1;
        }
    }
    let mut rooms: Vec<usize> = room.into_values().collect();
    rooms.sort_unstable_by(|a, b| b.cmp(a));
    let (mut covered, mut islands) = (0, 0_u8);
    for room in rooms {
        if covered >= wanted {
            break;
        }
        covered += room;
        islands = islands.saturating_add(1);
    }
    islands.saturating_sub(1)
}

fn fastest_known<'a>(mut places: impl Iterator<Item = &'a Place> + Clone) -> Option<usize> {
    (0..3).find(|level| places.any(|place| place[*level].is_some()))
}

/// Renumbers what devices share by first appearance in the node's order.
pub(super) fn places(description: &NodeDescription) -> Vec<Place> {
    let mut numbers: [BTreeMap<u32, u8>; 3] = Default::default();
    description
        .devices
        .iter()
        .map(|device| {
            let levels = device.wiring.levels();
            std::array::from_fn(|level| {
                let next = u8::try_from(numbers[level].len()).unwrap_or(u8::MAX);
                levels[level].map(|shared| *numbers[level].entry(shared).or_insert(next))
            })
        })
        .collect()
}

/// Positions of devices in these states that belong together best; of equal ones the first on the node.
pub(super) fn closest(
    devices: &[FreeDevice],
    places: &[Place],
    states: &[FreeDevice],
) -> Vec<usize> {
    let all: Vec<usize> = (0..devices.len()).collect();
    let Some(first_level) = fastest_known(places.iter()) else {
        return find(devices, &all, states);
    };
    for level in first_level..3 {
        let mut groups: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
        for (position, place) in places.iter().enumerate() {
            if let Some(shared) = place[level] {
                groups.entry(shared).or_default().push(position);
            }
        }
        let best = groups
            .values()
            .map(|group| (whole(devices, group), find(devices, group, states)))
            .filter(|(_, found)| found.len() == states.len())
            .min_by_key(|(free, found)| (*free, found.first().copied()));
        if let Some((_, found)) = best {
            return found;
        }
    }
    // Nothing holds them all: the largest parts first, so that they stand on as few as can be.
    let mut groups: BTreeMap<Option<u8>, Vec<usize>> = BTreeMap::new();
    for (position, place) in places.iter().enumerate() {
        groups.entry(place[first_level]).or_default().push(position);
    }
    let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(find(devices, group, states).len()));
    find(devices, &groups.concat(), states)
}

/// [`closest`], but where those devices lie apart and others that fit do not, then the others: on a node
/// of several models the tightest packing may be one of each.
pub(super) fn on_fewest_islands(
    devices: &[FreeDevice],
    places: &[Place],
    states: &[FreeDevice],
    fits: impl Fn(&FreeDevice) -> bool,
) -> Vec<usize> {
    let found = closest(devices, places, states);
    if islands(places, &found) <= 1 {
        return found;
    }
    on_one_island(devices, places, fits, found.len()).unwrap_or(found)
}

/// Positions of so many devices that fit, all on one thing at the fastest level that is known: of several the
/// one with the least left over. `None`: nothing has room for them all.
fn on_one_island(
    devices: &[FreeDevice],
    places: &[Place],
    fits: impl Fn(&FreeDevice) -> bool,
    wanted: usize,
) -> Option<Vec<usize>> {
    let level = fastest_known(places.iter())?;
    let mut groups: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
    for (position, place) in places.iter().enumerate() {
        if let (Some(shared), true) = (place[level], fits(&devices[position])) {
            groups.entry(shared).or_default().push(position);
        }
    }
    let holds_all = groups.into_values().filter(|group| group.len() >= wanted);
    let mut least = holds_all.min_by_key(Vec::len)?;
    least.truncate(wanted);
    Some(least)
}

/// Over how many things at the fastest level that is known these devices lie.
fn islands(places: &[Place], devices: &[usize]) -> usize {
    let Some(level) = fastest_known(places.iter()) else {
        return 1;
    };
    let distinct: BTreeSet<Option<u8>> = devices.iter().map(|at| places[*at][level]).collect();
    distinct.len()
}

/// Devices of a group that nobody holds any part of.
fn whole(devices: &[FreeDevice], group: &[usize]) -> usize {
    let is_whole = |at: &&usize| devices[**at].share_milli == WHOLE_DEVICE_MILLI as i32;
    group.iter().filter(is_whole).count()
}

/// One position for each state, the first of `among` that is in it.
fn find(devices: &[FreeDevice], among: &[usize], states: &[FreeDevice]) -> Vec<usize> {
    let mut found: Vec<usize> = Vec::with_capacity(states.len());
    for state in states {
        let position = among
            .iter()
            .find(|at| devices[**at] == *state && !found.contains(at));
        found.extend(position);
    }
    found
}

/// Which of the candidates, the best first and each in a rack, a gang takes. As many as it has members,
/// if there are as many.
pub(super) fn across_racks<T: Copy>(
    candidates: &[(Option<u32>, T)],
    members: usize,
    spread: bool,
) -> Vec<T> {
    let mut racks: BTreeMap<Option<u32>, Vec<T>> = BTreeMap::new();
    // Racks in the order of their best candidate.
    let mut order: Vec<Option<u32>> = Vec::new();
    for (rack, candidate) in candidates {
        let in_rack = racks.entry(*rack).or_default();
        if in_rack.is_empty() {
            order.push(*rack);
        }
        in_rack.push(*candidate);
    }
    let mut racks: Vec<Vec<T>> = order.iter().filter_map(|rack| racks.remove(rack)).collect();
    let mut chosen = Vec::with_capacity(members);
    if spread {
        let longest = racks.iter().map(Vec::len).max().unwrap_or(0);
        for turn in 0..longest {
            chosen.extend(racks.iter().filter_map(|rack| rack.get(turn)).copied());
        }
        chosen.truncate(members);
        return chosen;
    }
    while chosen.len() < members && !racks.is_empty() {
        let missing = members - chosen.len();
        // The smallest that holds all that is missing, else the largest: the fewest racks, and large
        // ones kept for large gangs. Sorting is stable, so of equal ones the better stands first.
        let fits = (0..racks.len())
            .filter(|rack| racks[*rack].len() >= missing)
            .min_by_key(|rack| racks[*rack].len());
        let largest = (0..racks.len()).min_by_key(|rack| std::cmp::Reverse(racks[*rack].len()));
        let Some(rack) = fits.or(largest) else { break };
        chosen.extend(racks.remove(rack).into_iter().take(missing));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::describe;
    use crate::model::DeviceWiring;

    fn free(share_milli: i32) -> FreeDevice {
        FreeDevice {
            kind: 0,
            share_milli,
            memory_mib: 80,
        }
    }

    fn wired(levels: &[[u32; 3]]) -> Vec<Place> {
        let mut node = describe("node-1", "default", &format!("{}xA100-80G", levels.len()));
        for (device, [island, switch, numa]) in node.devices.iter_mut().zip(levels) {
            device.wiring = DeviceWiring {
                nvlink_island: Some(*island),
                pcie_switch: Some(*switch),
                numa_node: Some(*numa),
            };
        }
        places(&node)
    }

    /// Two islands of four, each of two switches of two, at one NUMA node each.
    fn eight() -> Vec<Place> {
        wired(&[
            [7, 70, 1],
            [7, 70, 1],
            [7, 71, 1],
            [7, 71, 1],
            [9, 90, 2],
            [9, 90, 2],
            [9, 91, 2],
            [9, 91, 2],
        ])
    }

    #[test]
    fn devices_that_are_taken_together_are_the_closest_with_the_least_left_over() {
        // Free shares of the eight devices, how many whole ones are taken, and which.
        type Row = ([i32; 8], usize, &'static [usize], &'static str);
        let table: &[Row] = &[
            ([1000; 8], 4, &[0, 1, 2, 3], "a whole island"),
            (
                [0, 1000, 1000, 1000, 1000, 1000, 1000, 1000],
                4,
                &[4, 5, 6, 7],
                "the island that has room for all",
            ),
            (
                [0, 1000, 1000, 1000, 1000, 1000, 1000, 1000],
                2,
                &[1, 2],
                "the island that is begun, the other stays whole",
            ),
            (
                [0, 0, 0, 1000, 1000, 1000, 1000, 1000],
                1,
                &[3],
                "the last of an island before one of a whole one",
            ),
            (
                [0, 1000, 1000, 1000, 0, 0, 1000, 1000],
                4,
                &[1, 2, 3, 6],
                "no island has room: most of one and the rest of another",
            ),
        ];
        for (shares, wanted, expected, why) in table {
            let devices: Vec<FreeDevice> = shares.iter().map(|share| free(*share)).collect();
            let found = closest(&devices, &eight(), &vec![free(1000); *wanted]);
            assert_eq!(found, *expected, "{why}");
        }
    }

    #[test]
    fn without_an_island_that_has_room_one_numa_node_is_better_than_two() {
        // Islands of two, two of them at each NUMA node.
        let places = wired(&[
            [1, 1, 1],
            [1, 1, 1],
            [2, 2, 2],
            [2, 2, 2],
            [3, 3, 2],
            [3, 3, 2],
        ]);
        let devices = vec![free(1000); 6];
        assert_eq!(closest(&devices, &places, &[free(1000); 3]), [2, 3, 4]);
    }

    #[test]
    fn where_no_wiring_is_known_the_first_devices_are_taken() {
        let devices = [free(0), free(1000), free(1000)];
        let places = places(&describe("node-1", "default", "3xA100-80G"));
        assert_eq!(closest(&devices, &places, &[free(1000)]), [1]);
        let states: Vec<_> = devices.into_iter().zip(places).collect();
        assert_eq!(islands_beyond_one(&states, |_| true, 3), 0);
    }

    #[test]
    fn islands_beyond_one_are_counted_over_what_is_free() {
        let table = [
            ([1000; 8], 4, 0),
            ([1000; 8], 5, 1),
            ([0, 1000, 1000, 1000, 0, 1000, 1000, 1000], 4, 1),
            ([0, 0, 1000, 1000, 0, 0, 1000, 1000], 2, 0),
        ];
        for (shares, wanted, expected) in table {
            let states: Vec<_> = shares.map(free).into_iter().zip(eight()).collect();
            let found = islands_beyond_one(&states, |device| device.share_milli == 1000, wanted);
            assert_eq!(found, expected, "{wanted} of {shares:?}");
        }
    }

    #[test]
    fn a_gang_goes_to_the_fewest_racks_or_where_it_asks_to_the_most() {
        let rack = |text: &str| -> Vec<(Option<u32>, usize)> {
            text.bytes()
                .enumerate()
                .map(|(at, rack)| ((rack != b'-').then_some(u32::from(rack)), at))
                .collect()
        };
        let table: &[(&str, usize, bool, &[usize], &str)] = &[
            ("abab", 2, false, &[0, 2], "one rack holds both"),
            (
                "aaabb",
                2,
                false,
                &[3, 4],
                "the rack with nothing left over",
            ),
            ("abbcc", 3, false, &[1, 2, 0], "no rack holds three"),
            ("aabbc", 3, true, &[0, 2, 4], "one of each"),
            ("aab", 3, true, &[0, 2, 1], "and again from the first"),
            ("--a", 2, false, &[0, 1], "an unknown rack is one more"),
            ("ab", 3, false, &[0, 1], "no more than there are"),
        ];
        for (racks, members, spread, expected, why) in table {
            let found = across_racks(&rack(racks), *members, *spread);
            assert_eq!(found, *expected, "{why}: {members} of {racks}");
        }
    }
}
