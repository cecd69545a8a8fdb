//! Every decision about a packet; shared by kernel, tests, simulator and trace.
#![cfg_attr(not(test), no_std)]
