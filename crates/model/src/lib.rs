//! Resources, ids, states, error codes and their declarations.
