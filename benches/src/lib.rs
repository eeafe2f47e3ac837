//! Measurements: one binary per figure, one JSON line each
