//! Functions that the kernel checks by themselves.
//!
//! The verifier walks a function anew for each call and for each state that a caller may be in, unless
//! it is global by the object's types (BTF): that one it walks once, for all arguments that its
//! signature allows, and takes it for safe at each call. This saves three quarters of all that it does
//! (the test `instructions` of `netloom-dataplane`). The price: neither the function nor its caller
//! knows more of the other than the signature. So they pass numbers, the context, and memory of a
//! fixed size, and the function gives a number, if only for the verifier.
//!
//! The table is in the object, in a section of its own, out of which the loader makes the types. As it
//! has their addresses, the compiler leaves the signatures as they are. It still passes nothing for
//! what a function does not use: see [`Kernel::is_given`].
//!
//! A function that is not in the table is walked with its callers, which is always right.

use crate::flow::Candidate;
use crate::kernel::{Kernel, Meta};
use crate::maps::Flow;
use crate::outer::HEADER_BYTES;
use crate::parse::Packet;
use crate::port::PortHead;
use crate::slots::Room;
use crate::{
    conntrack, flow, flow_log, icmp_error, learned, parse, policy, route, slots, too_big, transport,
};

/// The most parameters of a function.
pub const PARAMETERS: usize = 5;

/// A function that is checked by itself.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Checked {
    function: *const (),
    /// Of each parameter, from the first one: bytes of the memory that it points to, 0 for the
    /// context, [`Checked::NUMBER`], or [`Checked::NONE`].
    parameters: [u32; PARAMETERS],
    pad: u32,
}

impl Checked {
    /// A parameter that is a number.
    pub const NUMBER: u32 = u32::MAX - 1;
    /// No parameter.
    pub const NONE: u32 = u32::MAX;

    /// The entry of a function with these parameters; [`checked!`](crate::checked) knows them.
    #[must_use]
    pub const fn new(function: *const (), parameters: [u32; PARAMETERS]) -> Checked {
        Checked { function, parameters, pad: 0 }
    }
}

/// What a parameter is, as [`Checked`] has it.
pub trait Parameter {
    /// See there.
    const IS: u32;
}

impl<T> Parameter for &T {
    const IS: u32 = bytes::<T>();
}

impl<T> Parameter for &mut T {
    const IS: u32 = bytes::<T>();
}

impl Parameter for u32 {
    const IS: u32 = Checked::NUMBER;
}

impl Parameter for u64 {
    const IS: u32 = Checked::NUMBER;
}

const fn bytes<T>() -> u32 {
    let [b0, b1, b2, b3, ..] = size_of::<T>().to_le_bytes();
    u32::from_le_bytes([b0, b1, b2, b3])
}

/// The entry of a function: its name, then its parameters' types.
#[macro_export]
macro_rules! checked {
    ($function:expr, $($parameter:ty),*) => {{
        let parameters = {
            let mut all = [$crate::Checked::NONE; $crate::PARAMETERS];
            let known = [$(<$parameter as $crate::Parameter>::IS),*];
            let mut at = 0;
            while at < known.len() {
                all[at] = known[at];
                at += 1;
            }
            all
        };
        $crate::Checked::new($function as fn($($parameter),*) -> _ as *const (), parameters)
    }};
}

/// The functions of this crate that are checked by themselves: those that take long, by what they are
/// or by how often they are called.
#[must_use]
pub const fn checked_functions<K: Kernel>() -> [Checked; 24] {
    [
        checked!(conntrack::follow::<K>, &mut K, &Packet, u32, u64),
        checked!(conntrack::set_spot::<K>, &K, &mut Packet),
        checked!(conntrack::track::<K>, &mut K, &mut Packet),
        checked!(flow::hit::<K, 0>, &mut K, &Meta, &mut Packet),
        checked!(flow::hit::<K, HEADER_BYTES>, &mut K, &Meta, &mut Packet),
        checked!(flow::shared::share::<K>, &mut K, &Flow, u32, u64),
        checked!(flow_log::tell::<K>, &mut K, &Packet, u32),
        checked!(icmp_error::aim::<K>, &K, &mut Packet),
        checked!(learned::find::<K>, &mut K, &Meta, &mut Packet),
        checked!(parse::network::<K>, &K, &Meta, &mut Packet),
        checked!(policy::ask::<K>, &mut K, &mut Packet),
        checked!(policy::identify::<K>, &K, &mut Packet),
        checked!(policy::judge::<K>, &mut K, &mut Packet),
        checked!(policy::read::<K>, &mut K, &mut Packet),
        checked!(policy::renew::<K>, &mut K, &mut Packet),
        checked!(route::station::<K>, &mut K, &Meta, &PortHead, &mut Packet),
        checked!(slots::claim::<K>, &mut K, &mut Room),
        checked!(slots::look::<K>, &mut K, &mut Room),
        checked!(slots::look_around::<K>, &mut K, &mut Room, u32, u32),
        checked!(too_big::chunk::<K>, &K, u32),
        checked!(transport::header::<K>, &K, &mut Packet),
        checked!(flow::read_key::<K, 0>, &K, &Meta, &mut Candidate),
        checked!(flow::read_key::<K, HEADER_BYTES>, &K, &Meta, &mut Candidate),
        checked!(slots::find_in_common::<K>, &mut K, &mut Room),
    ]
}
