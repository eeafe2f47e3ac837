//! Table tests of [`super::State::apply`], by what they tell of.

mod admission;
mod arrays;
mod books;
mod budgets;
mod dependencies;
mod ends;
mod idleness;
mod nodes;
mod ordering;
mod placement;
mod preemption;
mod priorities;
mod reports;
mod settings;
mod sums;
mod tenants;
mod timers;
