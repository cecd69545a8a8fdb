//! `derive(Resource)` and `derive(Message)`: a declaration becomes a static table.
//!
//! The output is data plus a few one-line functions. Whatever a walk over the table can do at run
//! time is not done here.

mod attributes;
mod message;
mod resource;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes `impl model::Resource`: the table of a resource and its way in and out of the store.
///
/// On the struct: `#[resource(path = "/zones", unique_name)]` or `name_scope = "zoneUuid"`.
/// On a field: `#[field(hidden)]`.
#[proc_macro_derive(Resource, attributes(resource, field))]
pub fn derive_resource(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    resource::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes `impl model::Message`: the table of a message.
///
/// On the struct: `#[message(post = "/zones", creates = "Zone")]`, with `put`, `delete` or `get`,
/// `action = "key"`, `body = "path"`, `answer = "now"`. On a field:
/// `#[field(max_len = 64, range = "1..=9", required, any_uuid)]`.
#[proc_macro_derive(Message, attributes(message, field))]
pub fn derive_message(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    message::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
