//! The coordinator's pure core: model, state, scheduler, policy
