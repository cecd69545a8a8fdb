//! The entry points: the order of the stages at each hook, and the counting.
//!
//! A packet passes the stages in this order, each one function in one file:
//!
//! 1. [`crate::classify`]: who sent it into which network, and what its headers say.
//! 2. [`crate::guard`]: are MAC and address the sender's?
//! 3. [`crate::service`]: what is meant for netloom itself ends here.
//! 4. [`crate::route`]: where it goes. Before the policy: a packet that has nowhere to go takes no
//!    place in the connection table.
//! 5. [`crate::policy`]: the sender's side, then the receiver's if it is on this host.
//! 6. Translation will stand here: between the two sides, which see what their own ends see.
//! 7. [`crate::egress`]: the verdict.
//!
//! Every path ends in a [`Verdict`], which is left in the packet's room; every drop is counted
//! here, in one place, under the port that it concerns.

use crate::hand_off::Question;
use crate::kernel::{Concerned, Direction, Drop, Entry, Kernel, Meta, Verdict};
use crate::maps::{Port, PortKey};
use crate::moves::{self, Passage};
use crate::outer::{self, HEADER_BYTES};
use crate::parse::Packet;
use crate::port::PortHead;
use crate::reason::DropReason;
use crate::service::Answer;
use crate::sizes::DELIVERED_MARK;
use crate::strangers::{self, Mentioned};
use crate::{classify, egress, flood, flow, guard, policy, port, route, service, too_big};

/// A frame from a port's VM. `packet` is room for the parsed headers, see [`Packet`], and for the
/// verdict.
#[inline(always)]
pub fn from_port<K: Kernel>(kernel: &mut K, meta: &Meta, packet: &mut Packet) {
    if flow::hit::<K, 0>(kernel, meta, packet) {
        return;
    }
    let port = match classify::port(kernel, meta, packet) {
        Ok(port) => port,
        Err(refused) => {
            packet.verdict = drop(kernel, meta, Entry::FromPort, refused, 0);
            return;
        }
    };
    let mut concerned = Concerned::of(&port);
    if port.is_moving() {
        match moves::from_port(kernel, &port, packet) {
            Passage::GoesOn => {}
            Passage::Tells => {
                kernel.count(port.place(), Direction::FromPort, meta.length);
                packet.verdict = packet.station.tunnel();
                return;
            }
            Passage::Refused(reason) => {
                packet.verdict = drop(kernel, meta, Entry::FromPort, (concerned, reason), 0);
                return;
            }
        }
    }
    if let Err(reason) = port_stages(kernel, meta, (&port, &mut concerned), packet) {
        packet.verdict = drop(kernel, meta, Entry::FromPort, (concerned, reason), packet.zone.rule);
    }
}

/// A frame out of the tunnel device. `packet` is as for [`from_port`].
#[inline(always)]
pub fn from_tunnel<K: Kernel>(kernel: &mut K, meta: &Meta, packet: &mut Packet) {
    if !flow::hit::<K, 0>(kernel, meta, packet) {
        from_opened(kernel, meta, packet);
    }
}

/// What a frame of the underlay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// None of our business here. If it is VXLAN, the tunnel device knows what to do with it.
    Foreign,
    /// A packet of a known flow, which has its verdict.
    Known,
    /// One from a VTEP that may send to us: [`from_opened`] decides about the frame inside.
    Admitted,
}

/// A frame that has come in from the underlay, before the host's stack sees it. But for a foreign
/// one, `meta` is of the frame inside from then on, and the outer packet is to be taken off.
#[inline(always)]
pub fn from_underlay<K: Kernel>(kernel: &mut K, meta: &mut Meta, packet: &mut Packet) -> Opened {
    if outer::open(kernel, meta).is_none() {
        return Opened::Foreign;
    }
    if flow::hit::<K, HEADER_BYTES>(kernel, meta, packet) {
        return Opened::Known;
    }
    if packet.flow.is_segmented() || classify::vtep(kernel, meta).is_err() {
        return Opened::Foreign;
    }
    Opened::Admitted
}

/// The same of a frame that may be in GRE, if it comes from a VTEP that may send to us: whether congestion was
/// experienced on the way. `None`: it is none of our business. Else `meta` is of the frame inside, and
/// the outer packet is to be taken off for [`from_tunnel`].
#[inline(always)]
pub fn from_gre<K: Kernel>(kernel: &K, meta: &mut Meta) -> Option<bool> {
    let experienced = outer::open_gre(kernel, meta)?;
    classify::vtep(kernel, meta).ok().map(|_| experienced)
}

/// The frame out of an outer packet that [`from_underlay`] has admitted, as [`from_tunnel`].
#[inline(always)]
pub fn from_opened<K: Kernel>(kernel: &mut K, meta: &Meta, packet: &mut Packet) {
    let mut concerned = Concerned::default();
    if let Err(reason) = tunnel_stages(kernel, meta, &mut concerned, packet) {
        packet.verdict =
            drop(kernel, meta, Entry::FromTunnel, (concerned, reason), packet.zone.rule);
    }
}

/// A frame that is about to leave the host side of a port, towards its VM: one that another program
/// delivers, or an answer of the agent, which has the mark that it drew by lot when it started. To set
/// a mark takes CAP_NET_ADMIN, and who has that can take the programs away.
///
/// The shim clears the mark of what passes, so that it means nothing beyond this hook.
#[inline(always)]
pub fn to_port<K: Kernel>(kernel: &mut K, meta: &Meta) -> Verdict {
    if meta.mark == DELIVERED_MARK {
        return Verdict::Pass;
    }
    let port = kernel.port(&PortKey::untagged(meta.ifindex));
    if let Some(port) = port
        && meta.mark != 0
        && meta.mark == kernel.answer_mark()
    {
        kernel.count(port.place(), Direction::ToPort, meta.length);
        return Verdict::Pass;
    }
    let concerned = |port: Port| Concerned { number: port.number, place: port.place() };
    let port = port.map_or(Concerned::default(), concerned);
    drop(kernel, meta, Entry::ToPort, (port, DropReason::HostToPort), 0)
}

/// `concerned` is the port that a drop is counted under: the sender, then the receiver.
#[inline(always)]
fn port_stages<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    (port, concerned): (&PortHead, &mut Concerned),
    packet: &mut Packet,
) -> Result<(), DropReason> {
    let admitted = match admit(kernel, meta, port, packet) {
        Admission::Forward => serve(kernel, meta, port, packet),
        refused => refused,
    };
    match admitted {
        Admission::Refused(reason) => return Err(reason),
        Admission::Answered => {
            kernel.count(port.place(), Direction::FromPort, meta.length);
            packet.verdict = Verdict::Reflect;
            return Ok(());
        }
        Admission::HandedOff(question) => {
            kernel.count(port.place(), Direction::FromPort, meta.length);
            packet.verdict = Verdict::HandOff { port: port.number, question };
            return Ok(());
        }
        Admission::Untracked => {
            let passes = flood::untracked(kernel, meta, port, packet, false);
            *concerned = packet.zone.concerned();
            return passes;
        }
        Admission::Shared => return flood::untracked(kernel, meta, port, packet, true),
        Admission::Forward => {}
    }
    route::station(kernel, meta, port, packet)?;
    let receiver = match packet.station.as_local() {
        Some(key) => route::local_port(kernel, packet, &key, port)?,
        None => route::way_out(kernel, packet)?,
    };
    policy::side(kernel, meta, (port, Direction::FromPort), packet)?;
    flow::note(packet, 0);
    flow::note(packet, 1);
    if !too_big::fits(kernel, meta, port, packet)? {
        packet.verdict = Verdict::Reflect;
        return Ok(());
    }
    kernel.count(port.place(), Direction::FromPort, meta.length);
    let Some(key) = packet.station.as_local() else {
        egress::remote(kernel, meta, packet, port.place());
        return Ok(());
    };
    *concerned = Concerned::of(&receiver);
    policy::side(kernel, meta, (&receiver, Direction::ToPort), packet)?;
    flow::note(packet, 1);
    egress::local(kernel, meta, packet, (port.place(), key), &receiver);
    flow::keep_answers(kernel, packet, port, &receiver);
    Ok(())
}

/// What becomes of a frame from a port before any destination is looked up. One byte, because a
/// BPF function returns no more than a register.
enum Admission {
    /// It goes on.
    Forward,
    /// It goes on, and is no part of a connection.
    Untracked,
    /// The same, and it is about an address that stations share.
    Shared,
    /// It has been turned into its own answer.
    Answered,
    /// The agent answers it.
    HandedOff(Question),
    /// It ends here.
    Refused(DropReason),
}

/// The first stages of a frame from a port.
#[inline(never)]
fn admit<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    port: &PortHead,
    packet: &mut Packet,
) -> Admission {
    let admitted = classify::headers(kernel, meta, port.net, packet).and_then(|()| {
        service::of_agent(kernel, port, packet);
        guard::from_port(kernel, port, packet)
    });
    match admitted {
        Ok(()) => Admission::Forward,
        Err(reason) => Admission::Refused(reason),
    }
}

/// The one after them: the last before any destination is looked up. A function of its own, for the
/// sake of the stack.
#[inline(never)]
fn serve<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    port: &PortHead,
    packet: &mut Packet,
) -> Admission {
    match service::answer(kernel, meta, port, packet) {
        Ok(Answer::None) if flood::is_untracked(packet) => Admission::Untracked,
        Ok(Answer::None) => Admission::Forward,
        Ok(Answer::Shared) => Admission::Shared,
        Ok(Answer::InPlace) => Admission::Answered,
        Ok(Answer::ByAgent(question)) => Admission::HandedOff(question),
        Err(reason) => Admission::Refused(reason),
    }
}

#[inline(always)]
fn tunnel_stages<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    concerned: &mut Concerned,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    let vtep = classify::vtep(kernel, meta)?;
    if vtep.is_foreign != 0 {
        let is_ours = strangers::arrive(kernel, meta, (vtep.net, concerned), packet)?;
        return if is_ours { Ok(()) } else { Err(DropReason::UnknownDestination) };
    }
    if let Err(reason) = tunnel_admits(kernel, meta, vtep.net, packet) {
        return Err(match moves::told(kernel, &meta.vtep, vtep.net) {
            true => DropReason::MoveTold,
            false => reason,
        });
    }
    if packet.destination_mac.is_group() {
        return flood::arrived(kernel, meta, Mentioned::Nobody, packet);
    }
    if !route::find(kernel, packet) {
        return Err(DropReason::UnknownDestination);
    }
    let Some(key) = packet.station.as_local() else {
        if !packet.station.is_forwarded() && !packet.is_handed_on {
            return Err(DropReason::TunnelToTunnel);
        }
        packet.verdict = packet.station.tunnel();
        return Ok(());
    };
    let Some(receiver) = port::receiver(kernel, &key, packet) else {
        return Err(DropReason::MissingLocalPort);
    };
    *concerned = Concerned::of(&receiver);
    strangers::receive(kernel, meta, packet, &receiver)?;
    egress::local(kernel, meta, packet, (0, key), &receiver);
    Ok(())
}

/// Whether a frame out of a tunnel is what it says, and may come from there.
#[inline(always)]
fn tunnel_admits<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    net: u32,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    packet.is_handed_on = false;
    classify::headers(kernel, meta, net, packet)?;
    guard::from_tunnel(kernel, &meta.vtep, packet)
}

/// The one way out for a drop.
#[inline(always)]
fn drop<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    entry: Entry,
    (port, reason): (Concerned, DropReason),
    rule: u32,
) -> Verdict {
    kernel.count_drop(meta, &Drop { reason, entry, port, rule });
    Verdict::Drop(reason)
}
