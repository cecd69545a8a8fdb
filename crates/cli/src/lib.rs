//! Command line verbs.
