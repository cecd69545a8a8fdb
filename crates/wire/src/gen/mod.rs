//! What `tonic-prost-build` makes from `proto/link.proto`; see `xtask`.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated code documents itself in the .proto file"
)]

include!("netloom.link.v1.rs");
