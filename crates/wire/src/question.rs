//! What the server asks a host while somebody waits for the answer: what would become of a packet,
//! and what became of real ones. Nothing changes by being asked, and nothing waits for the answer
//! but who asked.

use std::net::IpAddr;

use uuid::Uuid;

use crate::{
    codec::ParseError,
    declare::{message, one_of, words},
    field::Bytes,
    policy::{Action, Way},
};

/// Longest frame that is traced, in bytes.
pub const TRACED_BYTES_MAX: usize = 2_048;

/// Most steps of a trace on one host.
pub const STEPS_MAX: usize = 128;

/// Most drops that one question is answered with.
pub const DROPS_TOLD_MAX: u32 = 256;

message! {
    /// A question on its way.
    Asked {
        /// Its number on its stream; the answer has the same.
        1 => number: u64,
        /// It.
        2 => question: Question,
    }
}

message! {
    /// An answer on its way. An agent works on a few questions at a time, and answers in any order.
    Answered {
        /// The number of its question.
        1 => number: u64,
        /// It.
        2 => answer: Answer,
    }
}

one_of! {
    /// What is asked.
    Question {
        /// What would become of a packet that a port sends?
        1 => FromPort,
        /// What would become of a frame that comes in from another host?
        2 => Arrival,
        /// Which frames of a port were dropped lately?
        3 => DropsOf,
    }
}

message! {
    /// A packet that a port would send: the first of a connection, made by the host, which knows the
    /// MAC of the next hop.
    FromPort {
        /// The port.
        1 => port: Uuid,
        /// The source; if absent, the port's first address of the destination's family.
        2 => source: Option<IpAddr>,
        /// The destination.
        3 => remote: IpAddr,
        /// IP protocol number.
        4 => protocol: u8,
        /// Port of the source, of TCP and UDP; any if 0.
        5 => source_port: u16,
        /// Port of the destination, of TCP and UDP. Of ICMP and ICMPv6: type * 256 + code; an echo
        /// request if 0, which opens nothing.
        6 => port_or_type: u16,
    }
}

message! {
    /// A frame that comes in from another host.
    Arrival checked by check_arrival {
        /// The network in which it comes.
        1 => network: Uuid,
        /// The VTEP of the host that sends it; absent in a physical network.
        2 => vtep: Option<IpAddr>,
        /// It, from its destination MAC on, without a VLAN tag.
        3 => frame: Bytes,
    }
}

message! {
    /// A port whose drops are asked for.
    DropsOf {
        /// The port.
        1 => port: Uuid,
        /// The newest ones, but no more than so many; see [`DROPS_TOLD_MAX`].
        2 => most: u32,
    }
}

one_of! {
    /// What a host answers.
    Answer {
        /// What would become of a packet.
        1 => Trace,
        /// What was dropped.
        2 => Drops,
        /// The question cannot be answered.
        3 => Unanswered,
    }
}

message! {
    /// Why a question cannot be answered.
    Unanswered {
        /// What it is, and what to do.
        1 => why: String,
    }
}

message! {
    /// What would become of a packet on one host, by what its programs do with what is in their maps now.
    Trace checked by check_trace {
        /// The revision whose objects the host has applied last.
        1 => revision: u64,
        /// What the programs did, in order.
        2 => steps: Vec<Step>,
        /// Who decided about the connection: first for its sender, then for its receiver.
        3 => decisions: Vec<Decision>,
        /// How it ends.
        4 => end: End,
        /// Why this says nothing certain: something is about to change, or is not in effect.
        5 => inconclusive: Option<String>,
    }
}

message! {
    /// A step of a packet's way.
    Step {
        /// The stage, by its name in the packet core, such as `guard`.
        1 => stage: String,
        /// What was found there, in words.
        2 => text: String,
        /// The object of the host that it is about: a network, a port, a peer.
        3 => object: Option<Uuid>,
    }
}

words! {
    /// What decided.
    By {
        /// A rule.
        1 => Rule,
        /// No rule: the policy of the port.
        2 => Policy,
        /// The port has no policy.
        3 => Nothing,
        /// The port is closed: what it needs is not there, or has no room.
        4 => Closed,
    }
}

message! {
    /// What decided about a connection, on one of its ends.
    Decision {
        /// The port.
        1 => port: Uuid,
        /// Which way the connection is opened, as the port sees it.
        2 => way: Way,
        /// What decided.
        3 => by: By,
        /// What is decided.
        4 => action: Action,
        /// The rule.
        5 => rule: Option<Uuid>,
        /// The rule's security group.
        6 => group: Option<Uuid>,
        /// It is decided about each packet by itself.
        7 => is_stateless: bool,
    }
}

one_of! {
    /// How a packet ends on a host.
    End {
        /// It is dropped.
        1 => Dropped,
        /// It comes out of a port.
        2 => Delivered,
        /// It goes to another host.
        3 => Sent,
        /// It is for netloom itself, which answers.
        4 => Served,
        /// Something else.
        5 => Other,
    }
}

message! {
    /// It is dropped.
    Dropped {
        /// The reason's name in metrics.
        1 => reason: String,
        /// What it means.
        2 => meaning: String,
    }
}

message! {
    /// It comes out of a port.
    Delivered {
        /// The port.
        1 => port: Uuid,
    }
}

message! {
    /// It goes to another host, or to somebody who is no host of ours.
    Sent {
        /// The network in which it goes.
        1 => network: Uuid,
        /// The VTEP that it goes to; absent in a physical network.
        2 => vtep: Option<IpAddr>,
        /// It comes from this VTEP.
        3 => own: Option<IpAddr>,
        /// The frame as it leaves.
        4 => frame: Bytes,
    }
}

message! {
    /// It is for netloom itself, which answers.
    Served {
        /// By what, in words.
        1 => by: String,
    }
}

message! {
    /// It ends otherwise.
    Other {
        /// How, in words.
        1 => what: String,
    }
}

message! {
    /// Frames of a port that were dropped lately.
    Drops checked by check_drops {
        /// They, the newest last.
        1 => frames: Vec<DropSeen>,
        /// Drops that the host has counted at the port since it is there.
        2 => counted: u64,
        /// Events of all ports that were lost because too many came at once.
        3 => lost: u64,
        /// Since when the host has listened, in milliseconds since 1970 by its clock.
        4 => since_ms: u64,
    }
}

message! {
    /// Frames that were dropped, all alike.
    DropSeen {
        /// When it was last seen, in milliseconds since 1970, by the host's clock.
        1 => at_ms: u64,
        /// How many, since `since_ms`.
        2 => count: u64,
        /// The reason's name in metrics.
        3 => reason: String,
        /// What it means.
        4 => meaning: String,
        /// The frame came from the port; else it was on its way to it.
        5 => is_from_port: bool,
        /// What the frame was, in words: addresses, protocol and ports.
        6 => what: String,
        /// The rule that decided, if one did and it is still there.
        7 => rule: Option<Uuid>,
        /// Its security group.
        8 => group: Option<Uuid>,
        /// The source, if it is IP.
        9 => source: Option<IpAddr>,
        /// The destination, if it is IP.
        10 => destination: Option<IpAddr>,
        /// IP protocol number, if it is IP.
        11 => protocol: Option<u8>,
        /// Port of the source; 0 if there is none.
        12 => source_port: u16,
        /// Port of the destination, or ICMP type * 256 + code; 0 if there is none.
        13 => port_or_type: u16,
    }
}

fn check_arrival(arrival: &Arrival) -> Result<(), ParseError> {
    most("Arrival.frame", arrival.frame.0.len(), TRACED_BYTES_MAX)
}

fn check_trace(trace: &Trace) -> Result<(), ParseError> {
    most("Trace.steps", trace.steps.len(), STEPS_MAX)?;
    most("Trace.decisions", trace.decisions.len(), 2)
}

fn check_drops(drops: &Drops) -> Result<(), ParseError> {
    most("Drops.frames", drops.frames.len(), DROPS_TOLD_MAX as usize)
}

fn most(field: &'static str, count: usize, most: usize) -> Result<(), ParseError> {
    if count > most { Err(ParseError::TooMany(field)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn questions_and_answers_are_read_as_they_were_written() {
        for asked in samples::questions() {
            assert_eq!(Asked::decode(&asked.encode()), Ok(asked));
        }
        for answered in samples::answers() {
            assert_eq!(Answered::decode(&answered.encode()), Ok(answered));
        }
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let mut asked = samples::questions();
        for Asked { question, .. } in &mut asked {
            if let Question::Arrival(arrival) = question {
                arrival.frame = Bytes(vec![0; TRACED_BYTES_MAX + 1]);
            }
        }
        let refused = asked.iter().filter(|asked| Asked::decode(&asked.encode()).is_err());
        assert_eq!(refused.count(), 1);
    }
}
