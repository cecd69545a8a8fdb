//! How much the compiler has worked.

/// How many entries each operator has read and made so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Finding where the tunnels of each host and pool end.
    pub vteps: u64,
    /// Finding what the guests of each L3 network are told.
    pub told: u64,
    /// Finding the hosts of which each such network has guests.
    pub subnets: u64,
    /// Finding what instances may read about themselves.
    pub abouts: u64,
    /// Bringing NICs, their addresses and their instances' default routes together.
    pub nics: u64,
    /// Bringing NICs and their networks together.
    pub placed: u64,
    /// Bringing these and their VTEPs together, and those of the hosts they move to.
    pub homed: u64,
    /// Finding the networks on each host.
    pub present: u64,
    /// Bringing NICs and the other hosts of their networks together.
    pub peers: u64,
    /// Finding hosts without a VTEP.
    pub missing: u64,
    /// Finding which networks routers join.
    pub domains: u64,
    /// Finding what guards each NIC, and what its hosts hold for that.
    pub guards: u64,
    /// Bringing members of groups and the hosts that look for them together.
    pub members: u64,
    /// Objects that came or went.
    pub objects: u64,
}

impl Work {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Work {
            vteps,
            told,
            subnets,
            abouts,
            nics,
            placed,
            homed,
            present,
            peers,
            missing,
            domains,
            guards,
            members,
            objects,
        } = self;
        vteps
            + told
            + subnets
            + abouts
            + nics
            + placed
            + homed
            + present
            + peers
            + missing
            + domains
            + guards
            + members
            + objects
    }
}
