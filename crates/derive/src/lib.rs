//! `derive(Resource)` and `derive(Message)`: a declaration becomes a static table.
//!
//! The output is data plus a few one-line functions. Whatever a walk over the table can do at run
//! time is not done here.

mod attributes;
mod message;
mod resource;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes `impl model::Resource`, the table of a resource, and a typed relation for each reference.
///
/// On the struct: `#[resource(path = "/zones", quota = "zone.num", quota_default = 20)]`, and flags
/// for what the struct says in associated items: `faces` (`FACES`), `also` (`ALSO`, columns),
/// `children` (`CHILDREN`), `derived` (`DERIVED`), `aliases` (`ALIASES`), `upcasts` (`UPCASTS`),
/// `messages` (`MESSAGES`), `claims` (the function `holds_alone`). `home`: it lives on the host that its field `hostUuid`
/// names. On a field: `#[field(hidden, index, on_delete = "cascade")]`.
#[proc_macro_derive(Resource, attributes(resource, field))]
pub fn derive_resource(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    resource::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes `impl model::Message`: the table of a message.
///
/// On the struct: `#[message(post = "/zones", creates = "Zone")]`, with `put`, `delete` or `get`,
/// `also = "/other-path"`, `action = "key"`, `body = "path"`, `answer = "now"`, `access = "open"` or `"admin"`. On a field:
/// `#[field(max_len = 64, range = "1..=9", required)]`.
#[proc_macro_derive(Message, attributes(message, field))]
pub fn derive_message(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    message::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
