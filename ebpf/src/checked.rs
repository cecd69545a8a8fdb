//! The functions that the kernel checks by themselves: see `netloom_packet`'s `checked`.

use crate::skb::{self, Skb};
use crate::underlay;
use packet::{Checked, Drop, Meta, checked, checked_functions};

/// The loader reads the section, the compiler its length.
#[repr(transparent)]
struct Table<const N: usize>([Checked; N]);

// SAFETY: nobody reads it, nor follows its pointers.
unsafe impl<const N: usize> Sync for Table<N> {}

/// Those of the core.
#[used]
#[unsafe(link_section = "checked")]
static CORE: Table<24> = Table(checked_functions::<Skb>());

/// Those of the programs.
#[used]
#[unsafe(link_section = "checked")]
static OWN: Table<3> = Table([
    checked!(skb::report, &Skb, &Meta, &Drop),
    checked!(underlay::encapsulate, &mut Skb, u32, u32, u32),
    checked!(underlay::put_in_gre, &mut Skb, u32, u32, u32),
]);
