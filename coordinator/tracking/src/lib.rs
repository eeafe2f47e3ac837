//! Experiments, metrics, registry and ledger on SQL; artifacts on an object store
