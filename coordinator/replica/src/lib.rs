//! A replica without I/O: raft's RawNode and the State, input to effects
