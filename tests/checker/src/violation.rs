//! What can be wrong with a plan, with the numbers that show it.

use coordinator_core::model::{DeviceId, NodeName, PoolName, RunId, TenantName};

/// One thing that is wrong with a plan. Amounts of devices are in thousandths, memory in MiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Its devices are of several models, where quota is stated by model.
    MixedModels {
        /// Run.
        run: RunId,
    },
    /// It gives devices to a run that is not there or does not wait.
    NotWaiting {
        /// That run.
        run: RunId,
    },
    /// It gives devices to a run that may not start yet: its back-off is not over, or a budget is spent.
    Held {
        /// That run.
        run: RunId,
    },
    /// It gives one run devices twice.
    PlacedTwice {
        /// That run.
        run: RunId,
    },
    /// The attempt is not the next one.
    WrongAttempt {
        /// Run.
        run: RunId,
        /// As planned.
        planned: u32,
        /// As it must be.
        next: u64,
    },
    /// A gang is not whole.
    IncompleteGang {
        /// Run.
        run: RunId,
        /// Members planned.
        planned: usize,
        /// Members asked for.
        asked: u32,
    },
    /// Two members of a run are on one node.
    SharedNode {
        /// Run.
        run: RunId,
        /// That node.
        node: NodeName,
    },
    /// A node takes no member of the run at all.
    WrongNode {
        /// Run.
        run: RunId,
        /// That node.
        node: NodeName,
        /// Why.
        why: &'static str,
    },
    /// A member gets too few or too many devices, one twice, or one that its node has not.
    WrongDevices {
        /// Run.
        run: RunId,
        /// Where.
        node: NodeName,
        /// Distinct devices of that node in the plan.
        found: u64,
        /// Devices in the plan.
        planned: u64,
        /// Devices asked for.
        asked: u64,
    },
    /// A device is of another model than was asked for.
    WrongModel {
        /// Run.
        run: RunId,
        /// Device.
        device: DeviceId,
        /// Its model.
        model: String,
    },
    /// A device would be given more than once.
    DeviceOverfull {
        /// Run that is too much.
        run: RunId,
        /// Device.
        device: DeviceId,
        /// Thousandths that would be held; at most 1000.
        share_milli: u64,
        /// Memory that would be held.
        memory_mib: u64,
        /// Memory that there is.
        device_memory_mib: u64,
    },
    /// A node has not so much CPU or memory.
    NodeOverfull {
        /// Run that is too much.
        run: RunId,
        /// Node.
        node: NodeName,
        /// CPU that would be reserved, in thousandths.
        cpu_milli: u64,
        /// Memory that would be reserved.
        memory_mib: u64,
    },
    /// A tenant would hold more than its ceiling.
    OverLimit {
        /// Run that is too much.
        run: RunId,
        /// Whose ceiling.
        tenant: TenantName,
        /// What it holds.
        used_milli: u64,
        /// What the run asks.
        asked_milli: u64,
        /// The ceiling.
        limit_milli: u64,
    },
    /// A run that may not be preempted borrows.
    BorrowsForGood {
        /// Run.
        run: RunId,
        /// What of it is above the guarantee.
        borrowed_milli: u64,
    },
    /// It borrows what its owners do not lend.
    NotLent {
        /// Run.
        run: RunId,
        /// What it asks.
        asked_milli: u64,
        /// Idle in the pool.
        idle_milli: u64,
        /// Of that, kept for its owners.
        kept_milli: u64,
    },
    /// A run of the same tenant that stands behind this one and asks for no less was placed, and this one
    /// was not.
    PassedOver {
        /// Run that still waits.
        run: RunId,
        /// Run that was placed.
        by: RunId,
    },
    /// A run that borrows was placed where one that is owed it would have fitted.
    BorrowedBefore {
        /// Run that still waits, within its guarantee.
        run: RunId,
        /// Nodes on which a member would fit without those that borrow.
        fitting: usize,
        /// Members.
        members: u32,
    },
    /// A run waits that may start and fits on what is idle.
    IdleWhileItFits {
        /// Run.
        run: RunId,
        /// Nodes on which a member fits, without those that may be kept for others.
        fitting: usize,
        /// Members.
        members: u32,
    },
    /// It takes the room that a run waits for until those stopped for it have left.
    TakesKeptRoom {
        /// The run that waits for them.
        claimant: RunId,
        /// Nodes on which a member would fit once they have left, without this plan.
        before: usize,
        /// The same with it.
        after: usize,
        /// Members.
        members: u32,
    },
    /// A member lies over several islands where one has room for it.
    SplitOverIslands {
        /// Run.
        run: RunId,
        /// Where the member lies.
        node: NodeName,
        /// The node with such an island.
        whole_on: NodeName,
    },
    /// A gang lies in more racks than hold it, or where it is to be spread in fewer than there are.
    WrongRacks {
        /// Run.
        run: RunId,
        /// Racks it lies in.
        racks: usize,
        /// Racks that it had to.
        needed: usize,
    },
    /// A run that has devices kept would not fit there at the promised start, though all limits were kept.
    PromiseNotKept {
        /// Run.
        run: RunId,
        /// Where it would not fit.
        node: NodeName,
        /// The promised start.
        start_us: u64,
    },
    /// A run is placed on devices that are kept for another and may be there for too long.
    DelaysReserved {
        /// Who they are kept for.
        run: RunId,
        /// Who is placed there.
        by: RunId,
        /// When that one will have left; `None`: nobody knows.
        end_us: Option<u64>,
        /// By when it must.
        until_us: u64,
    },
    /// It stops an attempt that is not alive or is stopping already, or stops one twice.
    NotStoppable {
        /// That run.
        run: RunId,
    },
    /// It stops a run for one that does not wait, or that it gives devices to.
    NoClaimant {
        /// The run that is stopped.
        run: RunId,
        /// For this one.
        claimant: RunId,
    },
    /// The two are in different pools.
    OtherPool {
        /// The run that is stopped.
        run: RunId,
        /// Its pool.
        pool: Option<PoolName>,
        /// For this one.
        claimant: RunId,
    },
    /// It stops a run that may not be preempted.
    Unpreemptible {
        /// That run.
        run: RunId,
    },
    /// It stops a run before its first while is over.
    TooYoung {
        /// That run.
        run: RunId,
        /// Until when it is left alone.
        exempt_until_us: u64,
    },
    /// A run is stopped for one that may not take from it.
    NoRight {
        /// The run that is stopped.
        run: RunId,
        /// For this one.
        claimant: RunId,
        /// Why it may not.
        why: String,
    },
    /// A claimant would fit and stand although one of its victims went on.
    NeedlessVictim {
        /// The run that is stopped.
        run: RunId,
        /// For this one.
        claimant: RunId,
        /// Nodes on which a member would fit all the same.
        fitting: usize,
        /// Members.
        members: u32,
    },
    /// A claimant would not fit though all of its victims had left.
    StoppedInVain {
        /// The run they are stopped for.
        claimant: RunId,
        /// Nodes on which a member would fit.
        fitting: usize,
        /// Members.
        members: u32,
    },
    /// A claimant would fit, and yet not be let.
    WouldNotStand {
        /// The run others are stopped for.
        claimant: RunId,
        /// What would hold it up.
        why: String,
    },
    /// What the plan's claimants want does not fit beside each other.
    ClaimsCollide {
        /// The first that would find no nodes of its own.
        claimant: RunId,
    },
}
