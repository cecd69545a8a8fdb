//! Change set in, wire objects per host out: pure and incremental.
