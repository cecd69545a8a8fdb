//! The protocol between the server and its agents: what a host must hold, and what it reports.
//!
//! [`object`] has the typed objects that `compile` produces and the agent applies; [`digest`] the
//! digests by which both ends prove that they agree. The protobuf encoding (`proto/link.proto`)
//! stays inside [`codec`]: it is parsed at the door, and nothing else sees it.

pub mod object;
