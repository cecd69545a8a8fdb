//! Declarations become static tables.
