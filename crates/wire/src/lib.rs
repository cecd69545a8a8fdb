//! The protocol between the server and its agents.
