//! What the end-to-end tests and the benches stand on: real processes of the real binary, each in a
//! folder of its own, a plain HTTP client, and waiting for conditions with a deadline.
//!
//! It deliberately knows nothing of our crates: what it sees is what a user or a program sees.

pub mod http;
pub mod platform;
pub mod random;
pub mod wait;

pub use http::{Http, Reply};
pub use platform::{Finished, Options, Platform, binary, finish};
pub use wait::{eventually, skip};
