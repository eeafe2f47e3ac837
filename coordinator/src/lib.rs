//! The coordinator's tokio shell: driver, storage, leader work and API
