//! The free capacity of a pool, and choices of it.

use super::class::{Catalogue, FreeDevice, Kind, Layout, LayoutId, NodeState, signed};
use super::filling::FillingValues;
use super::mix::Mix;
use super::ranking::{ClassId, Rank, Ranking, Tie};
use super::shape::Shape;
use super::valuation::{Needs, Valuation, can_take};
use super::wiring::{self, Gang, Place};
use crate::model::{
    DeviceGrants, DeviceId, DeviceWiring, Member, Node, NodeDescription, NodeName, PoolName,
    WHOLE_DEVICE_MILLI,
};
use crate::state::{MemberPlacement, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Shapes that keep a ranking. One more than that, and all are ranked anew as they come.
const MOST_RANKINGS: usize = 1_024;
/// Near nodes looked at for one choice.
const MOST_NEAR: usize = 8;
/// Classes and entries of the log beyond twice what the nodes need, before both are tidied.
const SPARE: usize = 4_096;
/// What lies between the places of two nodes that came in order: room for as many again to come
/// between, halving it each time, before all get new places.
const ORDER_STEP: u64 = 1 << 32;

/// Free capacity of a pool's ready nodes: taken, given back, and refreshed node by node.
///
/// Lives as long as one likes: [`Self::refresh_node`] and [`Self::remove_node`] follow the state. One
/// that was kept chooses as one made anew would: nodes are ordered by name, and what a plan tries on it
/// lies between [`Self::begin_trial`] and [`Self::end_trial`].
pub struct Inventory {
    pool: PoolName,
    catalogue: Catalogue,
    nodes: Vec<Free>,
    positions: BTreeMap<NodeName, u32>,
    /// Positions of removed nodes, for the next ones.
    vacant: Vec<u32>,
    classes: Vec<Class>,
    class_ids: BTreeMap<Arc<NodeState>, ClassId>,
    /// Classes in the order in which a first node came to them: what rankings have yet to look at.
    populated: Vec<ClassId>,
    /// Classes whose nodes are not those by which ties were settled.
    unsettled: Vec<ClassId>,
    /// Nodes that the trial under way has changed.
    tried: Option<Vec<NodeName>>,
    rankings: Vec<Ranking>,
    ranking_ids: BTreeMap<Shape, usize>,
    valuation: Valuation,
    /// Racks seen so far, by number.
    racks: BTreeMap<String, u32>,
}

/// One node.
struct Free {
    name: NodeName,
    /// Its place among the nodes, in the order of their names.
    order: u64,
    device_ids: Vec<DeviceId>,
    /// In the node's own order.
    devices: Vec<FreeDevice>,
    /// What they share, in the same order.
    places: Vec<Place>,
    /// As it was described: what `places` was made of.
    wiring: Vec<DeviceWiring>,
    is_wired: bool,
    rack: Option<u32>,
    cpu_milli: i64,
    memory_mib: i64,
    layout: LayoutId,
    class: ClassId,
}

/// Nodes in equal state.
struct Class {
    state: Arc<NodeState>,
    worth: i64,
    /// Each by its order, with its position.
    nodes: BTreeSet<(u64, u32)>,
    /// Orders classes of equal loss: the last of its nodes when it was populated. Nodes are taken from
    /// the first, so the order is one fixed order of nodes, in which those already begun come before
    /// those that wait untouched. Any other rule (the fuller state, the older) is a bias that adds
    /// up to points of the cluster.
    tie: Tie,
    is_unsettled: bool,
}

/// What is free on one node. Less than nothing where more is held than the node now has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeNode {
    /// CPU, in thousandths.
    pub cpu_milli: i64,
    /// Memory, MiB.
    pub memory_mib: i64,
    /// Each device in the node's order: thousandths, memory in MiB.
    pub devices: Vec<(i32, i64)>,
}

impl Inventory {
    /// The free capacity of a pool, as the state has it.
    pub fn of(state: &State, pool: &PoolName) -> Self {
        Self::of_nodes(pool, state.nodes().values())
    }

    /// The free capacity of these nodes, of those that are ready and in the pool.
    pub fn of_nodes<'a>(pool: &PoolName, nodes: impl IntoIterator<Item = &'a Node>) -> Self {
        let mut inventory = Self {
            pool: pool.clone(),
            catalogue: Catalogue::default(),
            nodes: Vec::new(),
            positions: BTreeMap::new(),
            vacant: Vec::new(),
            classes: Vec::new(),
            class_ids: BTreeMap::new(),
            populated: Vec::new(),
            unsettled: Vec::new(),
            tried: None,
            rankings: Vec::new(),
            ranking_ids: BTreeMap::new(),
            valuation: Valuation::Tight,
            racks: BTreeMap::new(),
        };
        for node in nodes {
            inventory.refresh_node(node);
        }
        inventory.tidy();
        inventory.settle_ties();
        inventory
    }

    /// Values nodes by what this mix would still fill there, from now on. An empty mix, or a pool
    /// without devices, leaves them packed tightly.
    ///
    /// Settles prices on the whole pool, which may take half a second: see [`FillingValues`].
    pub fn learn(&mut self, mix: &Mix) {
        let mut layouts: BTreeMap<LayoutId, usize> = BTreeMap::new();
        for position in self.positions.values() {
            *layouts
                .entry(self.nodes[*position as usize].layout)
                .or_default() += 1;
        }
        let has_devices = layouts
            .keys()
            .any(|layout| !self.catalogue.layouts[*layout as usize].devices.is_empty());
        self.valuation = if mix.is_empty() || !has_devices {
            Valuation::Tight
        } else {
            Valuation::Filling(Box::new(FillingValues::settle(
                mix,
                &layouts,
                &self.catalogue,
            )))
        };
        self.tidy();
    }

    /// Takes over what the state says of a node: what it has, what it granted, whether it is ready.
    pub fn refresh_node(&mut self, node: &Node) {
        let name = &node.description.name;
        if !node.is_ready() || node.description.pool != self.pool {
            self.remove_node(name);
            return;
        }
        let known = self.positions.get(name).copied();
        if known.is_some_and(|position| self.agrees(position, node)) {
            return;
        }
        let Some(mut free) = self.read(node) else {
            self.remove_node(name);
            return;
        };
        let position = match known {
            Some(position) => {
                self.leave(position);
                free.order = self.nodes[position as usize].order;
                self.nodes[position as usize] = free;
                position
            }
            None => {
                free.order = self.order_of(name);
                let position = self.vacant.pop().unwrap_or(self.nodes.len() as u32);
                if position as usize == self.nodes.len() {
                    self.nodes.push(free);
                } else {
                    self.nodes[position as usize] = free;
                }
                self.positions.insert(name.clone(), position);
                position
            }
        };
        self.enter(position);
    }

    /// Forgets a node.
    pub fn remove_node(&mut self, name: &NodeName) {
        if let Some(position) = self.positions.remove(name) {
            self.leave(position);
            self.vacant.push(position);
            if let Some(tried) = &mut self.tried {
                tried.push(name.clone());
            }
        }
    }

    /// What is done from here on is only tried, until [`Self::end_trial`].
    pub fn begin_trial(&mut self) {
        self.settle_ties();
        self.tried = Some(Vec::new());
    }

    /// Ends a trial and names the nodes that it changed, some of them more than once: what holds of
    /// them is to be taken from the state again.
    pub fn end_trial(&mut self) -> Vec<NodeName> {
        self.tried.take().unwrap_or_default()
    }

    /// A place among the nodes for a name that has none.
    fn order_of(&mut self, name: &NodeName) -> u64 {
        let order = |(_, position): (&NodeName, &u32)| self.nodes[*position as usize].order;
        let before = self
            .positions
            .range::<NodeName, _>(..name)
            .next_back()
            .map_or(0, order);
        match self
            .positions
            .range::<NodeName, _>(name..)
            .next()
            .map(order)
        {
            None => before + ORDER_STEP,
            Some(after) if after - before > 1 => before + (after - before) / 2,
            Some(_) => {
                self.spread_orders();
                self.order_of(name)
            }
        }
    }

    /// Gives every node a new place, with room between.
    fn spread_orders(&mut self) {
        for (place, position) in (1..).zip(self.positions.values()) {
            self.nodes[*position as usize].order = place * ORDER_STEP;
        }
        for (id, class) in (0..).zip(&mut self.classes) {
            class.nodes = class
                .nodes
                .iter()
                .map(|(_, position)| (self.nodes[*position as usize].order, *position))
                .collect();
            if !class.is_unsettled {
                class.is_unsettled = true;
                self.unsettled.push(id);
            }
        }
        self.settle_ties();
    }

    /// Has classes of equal loss ordered by the nodes that they have now, whatever came before.
    fn settle_ties(&mut self) {
        for id in std::mem::take(&mut self.unsettled) {
            let class = &mut self.classes[id as usize];
            class.is_unsettled = false;
            let Some((last, _)) = class.nodes.last() else {
                continue;
            };
            if class.tie.0 != *last {
                class.tie = (*last, self.populated.len());
                self.populated.push(id);
            }
        }
    }

    /// Whether a node takes anything.
    pub fn has(&self, name: &NodeName) -> bool {
        self.positions.contains_key(name)
    }

    /// What is free on a node, `None` when it takes nothing.
    pub fn free_on(&self, name: &NodeName) -> Option<FreeNode> {
        let node = &self.nodes[*self.positions.get(name)? as usize];
        Some(FreeNode {
            cpu_milli: node.cpu_milli,
            memory_mib: node.memory_mib,
            devices: node
                .devices
                .iter()
                .map(|device| (device.share_milli, device.memory_mib))
                .collect(),
        })
    }

    /// Where this many members would go, each on a node of its own, and takes nothing. `None`: there
    /// are not as many nodes with room.
    pub fn choose<'a>(
        &mut self,
        demand: impl Into<Shape>,
        gang: impl Into<Gang<'a>>,
    ) -> Option<Vec<MemberPlacement>> {
        let ranking = self.rank(demand.into());
        let chosen = self.pick(ranking, gang.into())?;
        Some(
            chosen
                .iter()
                .map(|(position, devices)| self.nodes[*position as usize].placement(devices))
                .collect(),
        )
    }

    /// Takes room for this many members, each on a node of its own, or nothing.
    pub fn take<'a>(
        &mut self,
        demand: impl Into<Shape>,
        gang: impl Into<Gang<'a>>,
    ) -> Option<Vec<MemberPlacement>> {
        let ranking = self.rank(demand.into());
        let chosen = self.pick(ranking, gang.into())?;
        let mut placements = Vec::with_capacity(chosen.len());
        for (position, devices) in &chosen {
            placements.push(self.nodes[*position as usize].placement(devices));
            self.change(*position, ranking, devices, -1);
        }
        Some(placements)
    }

    /// Gives back what a member was granted: not what its run would be given by the caps of today.
    pub fn release(&mut self, member: &Member) {
        self.change_held(member, 1);
    }

    /// Takes what [`Self::release`] gave.
    pub fn hold_again(&mut self, member: &Member) {
        self.change_held(member, -1);
    }

    fn change_held(&mut self, member: &Member, sign: i64) {
        let Some(position) = self.positions.get(&member.node).copied() else {
            return;
        };
        self.leave(position);
        if let Some(tried) = &mut self.tried {
            tried.push(member.node.clone());
        }
        let node = &mut self.nodes[position as usize];
        let add = |free: i64, held: u64| free.saturating_add(sign * signed(held));
        node.cpu_milli = add(node.cpu_milli, member.cpu_milli);
        node.memory_mib = add(node.memory_mib, member.memory_mib);
        for grant in &member.devices {
            let Some(device) = node.device_ids.iter().position(|id| *id == grant.device) else {
                continue;
            };
            let device = &mut node.devices[device];
            let share_milli = i32::try_from(grant.share_milli).unwrap_or(i32::MAX);
            device.share_milli = device.share_milli.saturating_add(sign as i32 * share_milli);
            device.memory_mib = add(device.memory_mib, grant.memory_mib);
        }
        self.enter(position);
    }

    /// Gives back what [`Self::take`] took for these members. Nodes and devices that are not here any
    /// more are passed over.
    pub fn give_back(&mut self, demand: impl Into<Shape>, members: &[MemberPlacement]) {
        self.change_members(demand, members, 1);
    }

    /// Takes what [`Self::give_back`] gave.
    pub fn take_back(&mut self, demand: impl Into<Shape>, members: &[MemberPlacement]) {
        self.change_members(demand, members, -1);
    }

    fn change_members(&mut self, demand: impl Into<Shape>, members: &[MemberPlacement], sign: i64) {
        let ranking = self.rank(demand.into());
        for member in members {
            let Some(position) = self.positions.get(&member.node).copied() else {
                continue;
            };
            let ids = &self.nodes[position as usize].device_ids;
            let devices: Vec<usize> = member
                .devices
                .iter()
                .filter_map(|device| ids.iter().position(|id| id == device))
                .collect();
            self.change(position, ranking, &devices, sign);
        }
    }

    /// Up to so many nodes and their devices, the least loss first.
    fn pick(&mut self, ranking: usize, gang: Gang<'_>) -> Option<Vec<(u32, Vec<usize>)>> {
        self.catch_up(ranking);
        let members = gang.members;
        // Racks can only be chosen among all the nodes that have room; without any, the first will do.
        // Those that were seen and are gone make no difference: all nodes are of no rack then.
        let across_racks = members > 1 && !self.racks.is_empty();
        let candidates = if across_racks { usize::MAX } else { members };
        let mut chosen = self.best(ranking, candidates);
        if chosen.len() < members {
            return None;
        }
        if across_racks {
            let in_racks: Vec<_> = chosen
                .iter()
                .map(|node| (self.nodes[node.1 as usize].rack, *node))
                .collect();
            chosen = wiring::across_racks(&in_racks, members, gang.spread);
        }
        if let ([first], false) = (chosen.as_mut_slice(), gang.near.is_empty())
            && let Some(near) = self.as_good_and_near(ranking, gang.near)
        {
            *first = near;
        }
        let ranking = &mut self.rankings[ranking];
        let shape = ranking.shape.clone();
        let needs = ranking.needs(&self.catalogue);
        let mut picked = Vec::with_capacity(members);
        let mut devices: Option<(ClassId, Vec<FreeDevice>)> = None;
        for (id, position) in chosen {
            if devices.as_ref().is_none_or(|(of, _)| *of != id) {
                let class = &self.classes[id as usize];
                let assessed = self.valuation.assess(
                    &self.catalogue,
                    &shape,
                    needs,
                    &class.state,
                    class.worth,
                );
                devices = assessed.map(|(_, devices)| (id, devices));
            }
            let (_, devices) = devices.as_ref()?;
            let node = &self.nodes[position as usize];
            picked.push((
                position,
                node.closest(devices, |at| can_take(at, &shape, needs)),
            ));
        }
        Some(picked)
    }

    /// The first so many nodes of a ranking, each with its class.
    fn best(&mut self, ranking: usize, most: usize) -> Vec<(ClassId, u32)> {
        let ranking = &mut self.rankings[ranking];
        let mut found = Vec::with_capacity(most.min(self.positions.len()));
        let mut stale = Vec::new();
        for entry in &ranking.ranked {
            if found.len() == most {
                break;
            }
            let (_, _, tie, id) = *entry;
            let class = &self.classes[id as usize];
            if class.nodes.is_empty() || class.tie != tie {
                stale.push(*entry);
                continue;
            }
            let nodes = class.nodes.iter().take(most - found.len());
            found.extend(nodes.map(|(_, position)| (id, *position)));
        }
        for entry in &stale {
            ranking.ranked.remove(entry);
        }
        found
    }

    /// One of these nodes, if it is as good a choice as the best.
    fn as_good_and_near(&self, ranking: usize, near: &[NodeName]) -> Option<(ClassId, u32)> {
        let ranked = &self.rankings[ranking].ranked;
        let (islands, loss, _, _) = *ranked.first()?;
        near.iter().take(MOST_NEAR).find_map(|name| {
            let position = *self.positions.get(name)?;
            let id = self.nodes[position as usize].class;
            let tie = self.classes[id as usize].tie;
            ranked
                .contains(&(islands, loss, tie, id))
                .then_some((id, position))
        })
    }

    /// The ranking of a shape.
    fn rank(&mut self, shape: Shape) -> usize {
        if let Some(ranking) = self.ranking_ids.get(&shape) {
            return *ranking;
        }
        if self.rankings.len() >= MOST_RANKINGS {
            self.rankings.clear();
            self.ranking_ids.clear();
        }
        self.rankings.push(Ranking::new(shape.clone()));
        self.ranking_ids.insert(shape, self.rankings.len() - 1);
        self.rankings.len() - 1
    }

    /// Ranks the classes that came to be since the shape was last asked for.
    fn catch_up(&mut self, ranking: usize) {
        let ranking = &mut self.rankings[ranking];
        ranking.needs(&self.catalogue);
        let shape = ranking.shape.clone();
        for id in &self.populated[ranking.seen..] {
            let class = &self.classes[*id as usize];
            if class.nodes.is_empty() {
                continue;
            }
            let assessed = self.valuation.assess(
                &self.catalogue,
                &shape,
                ranking.needs(&self.catalogue),
                &class.state,
                class.worth,
            );
            if let Some((loss, _)) = assessed {
                let islands =
                    islands_beyond_one(&shape, ranking.needs(&self.catalogue), &class.state);
                let rank: Rank = (islands, loss, class.tie, *id);
                ranking.ranked.insert(rank);
            }
        }
        ranking.seen = self.populated.len();
    }

    /// Adds `sign` times the ranking's shape to what is free on these devices of a node.
    fn change(&mut self, position: u32, ranking: usize, devices: &[usize], sign: i64) {
        self.leave(position);
        if let Some(tried) = &mut self.tried {
            tried.push(self.nodes[position as usize].name.clone());
        }
        let ranking = &mut self.rankings[ranking];
        let (cpu_milli, memory_mib, share_milli) = (
            signed(ranking.shape.cpu_milli),
            signed(ranking.shape.memory_mib),
            i32::try_from(ranking.shape.share_milli).unwrap_or(i32::MAX),
        );
        let needs: &Needs = ranking.needs(&self.catalogue);
        let node = &mut self.nodes[position as usize];
        node.cpu_milli = node.cpu_milli.saturating_add(sign * cpu_milli);
        node.memory_mib = node.memory_mib.saturating_add(sign * memory_mib);
        for device in devices {
            let device = &mut node.devices[*device];
            let need_mib = super::valuation::need(needs, device.kind).unwrap_or(0);
            device.share_milli = device.share_milli.saturating_add(sign as i32 * share_milli);
            device.memory_mib = device.memory_mib.saturating_add(sign * need_mib);
        }
        self.enter(position);
    }

    /// Takes a node out of its class.
    fn leave(&mut self, position: u32) {
        let node = &self.nodes[position as usize];
        let class = &mut self.classes[node.class as usize];
        class.nodes.remove(&(node.order, position));
        if !class.is_unsettled {
            class.is_unsettled = true;
            self.unsettled.push(node.class);
        }
    }

    /// Puts a node into the class of its state.
    fn enter(&mut self, position: u32) {
        if self.classes.len().max(self.populated.len()) > 2 * self.nodes.len() + SPARE {
            self.tidy();
            // A trial must not depend on when this happens.
            if self.tried.is_none() {
                self.settle_ties();
            }
        }
        let state = self.nodes[position as usize].state();
        let class = match self.class_ids.get(&state) {
            Some(class) => *class,
            None => self.add_class(Arc::new(state)),
        };
        let node = &mut self.nodes[position as usize];
        node.class = class;
        let entered = &mut self.classes[class as usize];
        if entered.nodes.is_empty() {
            entered.tie = (node.order, self.populated.len());
            self.populated.push(class);
        }
        entered.nodes.insert((node.order, position));
        if !entered.is_unsettled {
            entered.is_unsettled = true;
            self.unsettled.push(class);
        }
    }

    fn add_class(&mut self, state: Arc<NodeState>) -> ClassId {
        let id = self.classes.len() as ClassId;
        self.classes.push(Class {
            worth: self.valuation.worth(&self.catalogue, &state),
            state: state.clone(),
            nodes: BTreeSet::new(),
            tie: (0, 0),
            is_unsettled: false,
        });
        self.class_ids.insert(state, id);
        id
    }

    /// Forgets empty classes, and has everything valued and ranked anew. The order of classes stays.
    fn tidy(&mut self) {
        let mut classes = std::mem::take(&mut self.classes);
        classes.retain(|class| !class.nodes.is_empty());
        classes.sort_by_key(|class| class.tie.1);
        self.class_ids.clear();
        self.populated.clear();
        self.unsettled.clear();
        for ranking in &mut self.rankings {
            ranking.forget();
        }
        for class in classes {
            let id = self.add_class(class.state);
            for (_, position) in &class.nodes {
                self.nodes[*position as usize].class = id;
            }
            let kept = &mut self.classes[id as usize];
            kept.tie = (class.tie.0, self.populated.len());
            kept.nodes = class.nodes;
            kept.is_unsettled = true;
            self.populated.push(id);
            self.unsettled.push(id);
        }
    }

    /// Whether a node is here as the state has it now.
    fn agrees(&self, position: u32, node: &Node) -> bool {
        let free = &self.nodes[position as usize];
        let layout = &self.catalogue.layouts[free.layout as usize];
        let description = &node.description;
        layout.cpu_milli == description.cpu_milli
            && layout.memory_mib == description.memory_mib
            && free.cpu_milli == signed(description.cpu_milli) - signed(node.cpu_reserved_milli)
            && free.memory_mib == signed(description.memory_mib) - signed(node.memory_reserved_mib)
            && free.devices.len() == description.devices.len()
            && layout.runtimes == description.runtimes
            && free.rack.is_some() == description.rack.is_some()
            && free.rack == self.rack_of(description)
            && (0..free.devices.len()).all(|at| {
                let (device, grants) = (&description.devices[at], &node.devices[at]);
                let here = &free.devices[at];
                let kind = &self.catalogue.kinds[usize::from(here.kind)];
                kind.memory_mib == device.memory_mib
                    && kind.model == device.model
                    && free.device_ids[at] == device.id
                    && free.wiring[at] == device.wiring
                    && (here.share_milli, here.memory_mib) == free_of(device.memory_mib, grants)
            })
    }

    fn rack_of(&self, description: &NodeDescription) -> Option<u32> {
        self.racks.get(description.rack.as_ref()?).copied()
    }

    fn read(&mut self, node: &Node) -> Option<Free> {
        let description = &node.description;
        let mut devices = Vec::with_capacity(description.devices.len());
        for (device, grants) in description.devices.iter().zip(&node.devices) {
            let kind = self.catalogue.kind(Kind {
                model: device.model.clone(),
                memory_mib: device.memory_mib,
            })?;
            let (share_milli, memory_mib) = free_of(device.memory_mib, grants);
            devices.push(FreeDevice {
                kind,
                share_milli,
                memory_mib,
            });
        }
        let mut kinds: Vec<_> = devices.iter().map(|device| device.kind).collect();
        kinds.sort_unstable();
        let layout = self.catalogue.layout(Layout {
            cpu_milli: description.cpu_milli,
            memory_mib: description.memory_mib,
            devices: kinds,
            runtimes: description.runtimes.clone(),
        })?;
        let places = wiring::places(description);
        if let Some(rack) = &description.rack
            && !self.racks.contains_key(rack)
        {
            let number = u32::try_from(self.racks.len()).unwrap_or(u32::MAX);
            self.racks.insert(rack.clone(), number);
        }
        Some(Free {
            is_wired: places.iter().any(|place| *place != Place::default()),
            places,
            wiring: description.devices.iter().map(|at| at.wiring).collect(),
            rack: self.rack_of(description),
            name: description.name.clone(),
            order: 0,
            device_ids: description
                .devices
                .iter()
                .map(|device| device.id.clone())
                .collect(),
            devices,
            cpu_milli: signed(description.cpu_milli) - signed(node.cpu_reserved_milli),
            memory_mib: signed(description.memory_mib) - signed(node.memory_reserved_mib),
            layout,
            class: ClassId::MAX,
        })
    }
}

/// Thousandths and MiB that are free of a device.
fn free_of(memory_mib: u64, grants: &DeviceGrants) -> (i32, i64) {
    let granted = i32::try_from(grants.share_milli).unwrap_or(i32::MAX);
    (
        WHOLE_DEVICE_MILLI as i32 - granted,
        signed(memory_mib) - signed(grants.memory_mib),
    )
}

impl Free {
    fn state(&self) -> NodeState {
        let mut devices = self.devices.clone();
        devices.sort_unstable();
        let mut wired = Vec::new();
        if self.is_wired {
            wired.extend(
                self.devices
                    .iter()
                    .copied()
                    .zip(self.places.iter().copied()),
            );
            wired.sort_unstable();
        }
        NodeState {
            layout: self.layout,
            cpu_milli: self.cpu_milli,
            memory_mib: self.memory_mib,
            devices,
            wired,
        }
    }

    /// Positions of devices in these states, or of others that fit and lie closer together.
    fn closest(&self, states: &[FreeDevice], fits: impl Fn(&FreeDevice) -> bool) -> Vec<usize> {
        wiring::on_fewest_islands(&self.devices, &self.places, states, fits)
    }

    fn placement(&self, devices: &[usize]) -> MemberPlacement {
        MemberPlacement {
            node: self.name.clone(),
            devices: devices
                .iter()
                .map(|device| self.device_ids[*device].clone())
                .collect(),
        }
    }
}

/// Islands beyond one that the shape's devices would have to stand on, on a node in this state.
fn islands_beyond_one(shape: &Shape, needs: &Needs, state: &NodeState) -> u8 {
    wiring::islands_beyond_one(
        &state.wired,
        |device| can_take(device, shape, needs),
        shape.devices as usize,
    )
}

#[cfg(test)]
impl Inventory {
    /// That the classes and rankings agree with a scan of the nodes.
    pub(super) fn check(&mut self) {
        let members: usize = self.classes.iter().map(|class| class.nodes.len()).sum();
        assert_eq!(members, self.positions.len(), "each node is in one class");
        for position in self.positions.values() {
            let node = &self.nodes[*position as usize];
            let class = &self.classes[node.class as usize];
            assert!(class.nodes.contains(&(node.order, *position)));
            assert_eq!(*class.state, node.state());
        }
        for ranking in 0..self.rankings.len() {
            self.catch_up(ranking);
            let ranking = &mut self.rankings[ranking];
            let shape = ranking.shape.clone();
            let needs = ranking.needs(&self.catalogue);
            let mut scanned = BTreeSet::new();
            for (id, class) in (0..).zip(&self.classes) {
                let (state, worth) = (&class.state, class.worth);
                let assessed = self
                    .valuation
                    .assess(&self.catalogue, &shape, needs, state, worth);
                if let Some((loss, _)) = assessed
                    && !class.nodes.is_empty()
                {
                    let islands = islands_beyond_one(&shape, needs, state);
                    scanned.insert((islands, loss, class.tie, id));
                }
            }
            let ranked: BTreeSet<_> = ranking
                .ranked
                .iter()
                .filter(|(_, _, tie, id)| {
                    let class = &self.classes[*id as usize];
                    !class.nodes.is_empty() && class.tie == *tie
                })
                .copied()
                .collect();
            assert_eq!(ranked, scanned, "a ranking agrees with a scan");
        }
    }
}
