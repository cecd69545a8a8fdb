//! REST, sessions, query language.
