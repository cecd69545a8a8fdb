//! `derive(Message)`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{DeriveInput, LitStr, meta::ParseNestedMeta};

use crate::attributes;

/// What `#[message(..)]` says.
#[derive(Default)]
struct MessageAttributes {
    method: Option<(&'static str, String)>,
    also: Vec<String>,
    action: Option<String>,
    path_only: bool,
    creates: Option<String>,
    now: bool,
    access: Option<&'static str>,
}

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let said = declaration(input)?;
    let Some((method, path)) = &said.method else {
        return Err(syn::Error::new_spanned(&input.ident, "needs get, post, put or delete"));
    };
    let also = &said.also;
    let (ident, doc) = (&input.ident, attributes::doc(&input.attrs));
    let name = ident.to_string();
    let body = body(&said, method);
    let method = format_ident!("{method}");
    let access = format_ident!("{}", said.access.unwrap_or("Account"));
    let answer = if said.now { quote!(Now) } else { quote!(Job) };
    let creates = said.creates.as_ref().map_or(quote!(None), |kind| {
        let kind = format_ident!("{kind}");
        quote!(Some(::model::Kind::#kind))
    });
    let fields = attributes::fields(input)?;
    let defs = fields.iter().map(|f| attributes::field_def(f)).collect::<syn::Result<Vec<_>>>()?;
    Ok(quote! {
        impl ::model::Message for #ident {
            const DEF: ::model::MessageDef = ::model::MessageDef {
                name: #name,
                method: ::model::declare::Method::#method,
                path: #path,
                also: &[#(#also),*],
                fields_in: ::model::declare::FieldsIn::#body,
                creates: #creates,
                answer: ::model::declare::Answer::#answer,
                access: ::model::declare::Access::#access,
                doc: #doc,
                fields: &[#(#defs),*],
            };
        }
    })
}

/// ZStack's rule: POST has `params`, PUT the action's name, GET and DELETE the query string.
fn body(said: &MessageAttributes, method: &str) -> TokenStream {
    match (&said.action, said.path_only, method) {
        (Some(action), ..) => quote!(Below(#action)),
        (None, true, _) => quote!(Path),
        (None, false, "Post" | "Put") => quote!(Below("params")),
        (None, false, _) => quote!(Query),
    }
}

fn declaration(input: &DeriveInput) -> syn::Result<MessageAttributes> {
    let mut said = MessageAttributes::default();
    for attribute in input.attrs.iter().filter(|a| a.path().is_ident("message")) {
        attribute.parse_nested_meta(|meta| read(&mut said, &meta))?;
    }
    Ok(said)
}

fn read(said: &mut MessageAttributes, meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
    let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
    let text = meta.value()?.parse::<LitStr>()?.value();
    match (key.as_str(), text.as_str()) {
        ("get", _) => said.method = Some(("Get", text)),
        ("post", _) => said.method = Some(("Post", text)),
        ("put", _) => said.method = Some(("Put", text)),
        ("delete", _) => said.method = Some(("Delete", text)),
        ("also", _) => said.also.push(text),
        ("action", _) => said.action = Some(text),
        ("creates", _) => said.creates = Some(text),
        ("body", "path") => said.path_only = true,
        ("answer", "now") => said.now = true,
        ("access", "open") => said.access = Some("Open"),
        ("access", "account") => said.access = Some("Account"),
        ("access", "admin") => said.access = Some("Admin"),
        _ => {
            return Err(meta.error(
                "unknown: get, post, put, delete, also, action, creates, body, answer, access",
            ));
        }
    }
    Ok(())
}
