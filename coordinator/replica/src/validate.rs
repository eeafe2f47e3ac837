//! What a peer's message must satisfy before raft sees it: raft ends the process on a malformed one,
//! and a bad peer must never do that.

use raft::eraftpb::{Message, MessageType};

/// Refuses what would make raft panic. `last_index` is the end of our log.
pub(crate) fn validate(message: &Message, own_id: u64, last_index: u64) -> Result<(), String> {
    if message.to != own_id {
        return Err(format!(
            "message for member {}, this is member {own_id}",
            message.to
        ));
    }
    if message.from == 0 || message.from == own_id {
        return Err(format!(
            "message from member {}, a peer was expected",
            message.from
        ));
    }
    match message.get_msg_type() {
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum => Err(format!(
            "{:?} is a message of a member to itself",
            message.get_msg_type()
        )),
        MessageType::MsgAppend => {
            for (expected, entry) in (message.index + 1..).zip(&message.entries) {
                if entry.index != expected {
                    return Err(format!(
                        "entry {} where entry {expected} was due",
                        entry.index
                    ));
                }
                if entry.term < message.log_term || entry.term > message.term {
                    return Err(format!(
                        "entry {} of term {} in a message of term {}",
                        entry.index, entry.term, message.term
                    ));
                }
            }
            Ok(())
        }
        MessageType::MsgHeartbeat if message.commit > last_index => Err(format!(
            "commit index {} past the end of the log at {last_index}",
            message.commit
        )),
        MessageType::MsgSnapshot => {
            let metadata = message.get_snapshot().get_metadata();
            if metadata.index == 0 || metadata.get_conf_state().voters.is_empty() {
                return Err("a snapshot without index or membership".to_owned());
            }
            Ok(())
        }
        MessageType::MsgPropose | MessageType::MsgReadIndex if message.entries.is_empty() => {
            Err(format!("{:?} without an entry", message.get_msg_type()))
        }
        _ => Ok(()),
    }
}
