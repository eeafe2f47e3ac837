//! Where members go: the free capacity of a pool, and a choice that strands as little of it as it can.
//!
//! An [`Inventory`] holds what is free, node by node. Nodes in equal state share one class, each
//! shape of demand keeps the classes that fit it in order of score, and only classes that came to be
//! since the shape was last asked for are scored again: no decision scans the nodes.
//!
//! The score is a loss: what the node was worth less what it is worth afterwards. Who says what a
//! node is worth is a [`Valuation`]: without a known mix, packing ([`Valuation::Tight`]); with one,
//! [`FillingValues`], which ask what the mix would still fill there at the [`prices`] that the
//! whole cluster and the whole mix settle on.
//!
//! Before the loss comes the wiring between devices, where it is known: a node on which they are behind
//! one NVLink island goes before any other, and gangs keep to few racks ([`Gang`]).
//!
//! Deliberately lacking: any knowledge of who asks (quota, order, preemption).

mod class;
mod filling;
mod inventory;
mod mix;
mod prices;
mod ranking;
mod shape;
mod table;
mod valuation;
mod wiring;

pub use filling::FillingValues;
pub use inventory::{FreeNode, Inventory};
pub use mix::Mix;
pub use shape::Shape;
pub use valuation::Valuation;
pub use wiring::Gang;

#[cfg(test)]
mod tests;
