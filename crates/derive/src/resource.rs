//! `derive(Resource)`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, LitStr};

use crate::attributes;

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let (path, scope) = declaration(input)?;
    let (ident, doc) = (&input.ident, attributes::doc(&input.attrs));
    let name = ident.to_string();
    let fields = attributes::fields(input)?;
    let defs = fields.iter().map(|f| attributes::field_def(f)).collect::<syn::Result<Vec<_>>>()?;
    let references = fields.iter().filter(|f| f.ident.as_ref().is_some_and(|i| i != "uuid"));
    let references = references
        .map(|field| {
            let (member, api) = (&field.ident, attributes::api_name(field)?);
            Ok(quote!((#api, ::model::declare::FieldValue::reference(&self.#member))))
        })
        .collect::<syn::Result<Vec<_>>>()?;
    Ok(quote! {
        impl ::model::Resource for #ident {
            const KIND: ::model::Kind = ::model::Kind::#ident;
            const DEF: ::model::ResourceDef = ::model::ResourceDef {
                kind: Self::KIND,
                name: #name,
                path: #path,
                name_scope: #scope,
                doc: #doc,
                fields: &[#(#defs),*],
            };

            fn id(&self) -> ::model::Id<Self> {
                self.uuid
            }

            fn references(&self) -> Vec<(&'static str, ::uuid::Uuid)> {
                let all = [#(#references),*];
                all.into_iter().filter_map(|(field, uuid)| Some((field, uuid?))).collect()
            }

            fn into_record(self) -> ::model::Record {
                ::model::Record::#ident(self)
            }

            fn from_record(record: &::model::Record) -> Option<&Self> {
                match record {
                    ::model::Record::#ident(resource) => Some(resource),
                    _ => None,
                }
            }
        }
    })
}

/// The path and the scope of the name, from `#[resource(..)]`.
fn declaration(input: &DeriveInput) -> syn::Result<(String, TokenStream)> {
    let (mut path, mut scope) = (None, quote!(None));
    for attribute in input.attrs.iter().filter(|a| a.path().is_ident("resource")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("path") {
                path = Some(meta.value()?.parse::<LitStr>()?.value());
            } else if meta.path.is_ident("name_scope") {
                let field = meta.value()?.parse::<LitStr>()?;
                scope = quote!(Some(#field));
            } else if meta.path.is_ident("unique_name") {
                scope = quote!(Some(""));
            } else {
                return Err(meta.error("unknown: path, name_scope, unique_name"));
            }
            Ok(())
        })?;
    }
    let missing = || syn::Error::new_spanned(&input.ident, "needs #[resource(path = \"..\")]");
    Ok((path.ok_or_else(missing)?, scope))
}
