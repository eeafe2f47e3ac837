//! The agent's pure core: desired, observed and now become actions
