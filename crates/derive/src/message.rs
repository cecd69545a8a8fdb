//! `derive(Message)`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{DeriveInput, LitStr, meta::ParseNestedMeta};

use crate::attributes;

/// What `#[message(..)]` says.
#[derive(Default)]
struct Call {
    method: Option<(&'static str, String)>,
    action: Option<String>,
    path_only: bool,
    creates: Option<String>,
    now: bool,
    access: Option<&'static str>,
}

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let call = declaration(input)?;
    let Some((method, path)) = &call.method else {
        return Err(syn::Error::new_spanned(&input.ident, "needs get, post, put or delete"));
    };
    let (ident, doc) = (&input.ident, attributes::doc(&input.attrs));
    let name = ident.to_string();
    let body = body(&call, method);
    let method = format_ident!("{method}");
    let access = format_ident!("{}", call.access.unwrap_or("Account"));
    let answer = if call.now { quote!(Now) } else { quote!(Job) };
    let creates = call.creates.as_ref().map_or(quote!(None), |kind| {
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
fn body(call: &Call, method: &str) -> TokenStream {
    match (&call.action, call.path_only, method) {
        (Some(action), ..) => quote!(Below(#action)),
        (None, true, _) => quote!(Path),
        (None, false, "Post" | "Put") => quote!(Below("params")),
        (None, false, _) => quote!(Query),
    }
}

fn declaration(input: &DeriveInput) -> syn::Result<Call> {
    let mut call = Call::default();
    for attribute in input.attrs.iter().filter(|a| a.path().is_ident("message")) {
        attribute.parse_nested_meta(|meta| read(&mut call, &meta))?;
    }
    Ok(call)
}

fn read(call: &mut Call, meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
    let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
    let text = meta.value()?.parse::<LitStr>()?.value();
    match (key.as_str(), text.as_str()) {
        ("get", _) => call.method = Some(("Get", text)),
        ("post", _) => call.method = Some(("Post", text)),
        ("put", _) => call.method = Some(("Put", text)),
        ("delete", _) => call.method = Some(("Delete", text)),
        ("action", _) => call.action = Some(text),
        ("creates", _) => call.creates = Some(text),
        ("body", "path") => call.path_only = true,
        ("answer", "now") => call.now = true,
        ("access", "open") => call.access = Some("Open"),
        ("access", "account") => call.access = Some("Account"),
        ("access", "admin") => call.access = Some("Admin"),
        _ => {
            return Err(meta
                .error("unknown: get, post, put, delete, action, creates, body, answer, access"));
        }
    }
    Ok(())
}
