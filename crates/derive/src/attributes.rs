//! Reads attributes, doc comments and fields; makes the `FieldDef`s that both derives share.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Expr, ExprLit, Field, Fields, Lit, LitStr, Meta};

/// Longest text where the declaration names no limit: ZStack's limit for names, in characters.
const DEFAULT_MAX_LEN: usize = 255;

/// The first paragraph of the doc comment, on one line.
pub(crate) fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value().trim().to_owned()),
            _ => None,
        },
        _ => None,
    });
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The named fields of a struct.
pub(crate) fn fields(input: &DeriveInput) -> syn::Result<Vec<&Field>> {
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(named) => Ok(named.named.iter().collect()),
            _ => Err(syn::Error::new_spanned(&input.ident, "needs named fields")),
        },
        _ => Err(syn::Error::new_spanned(&input.ident, "only structs can be declared")),
    }
}

/// `snake_case` to `camelCase`, as `#[serde(rename_all = "camelCase")]` does.
fn camel_case(snake: &str) -> String {
    let mut words = snake.split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        name.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}

/// The field's name in the API: serde's `rename`, else `camelCase`.
pub(crate) fn api_name(field: &Field) -> syn::Result<String> {
    let mut name = field.ident.as_ref().map(|i| camel_case(&i.to_string())).unwrap_or_default();
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("serde")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("rename") {
                name = meta.value()?.parse::<LitStr>()?.value();
            }
            Ok(())
        })?;
    }
    Ok(name)
}

/// What `#[field(..)]` says.
#[derive(Default)]
struct Rules {
    hidden: bool,
    required: bool,
    any_uuid: bool,
    max_len: Option<usize>,
    range: Option<(i64, i64)>,
}

fn rules(field: &Field) -> syn::Result<Rules> {
    let mut rules = Rules::default();
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("field")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("hidden") {
                rules.hidden = true;
            } else if meta.path.is_ident("required") {
                rules.required = true;
            } else if meta.path.is_ident("any_uuid") {
                rules.any_uuid = true;
            } else if meta.path.is_ident("max_len") {
                rules.max_len = Some(meta.value()?.parse::<syn::LitInt>()?.base10_parse()?);
            } else if meta.path.is_ident("range") {
                rules.range = Some(parse_range(&meta.value()?.parse()?)?);
            } else {
                return Err(meta.error("unknown: hidden, required, any_uuid, max_len, range"));
            }
            Ok(())
        })?;
    }
    Ok(rules)
}

fn parse_range(text: &LitStr) -> syn::Result<(i64, i64)> {
    let value = text.value();
    let ends = value.split_once("..=").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    ends.ok_or_else(|| syn::Error::new_spanned(text, "a range is written \"1..=9\""))
}

/// The `FieldDef` of a field.
pub(crate) fn field_def(field: &Field) -> syn::Result<TokenStream> {
    let (name, doc, rules) = (api_name(field)?, doc(&field.attrs), rules(field)?);
    if doc.is_empty() {
        return Err(syn::Error::new_spanned(field, "every field has a doc comment: users see it"));
    }
    let value = &field.ty;
    let (hidden, must) = (rules.hidden, rules.required);
    let max_len = rules.max_len.unwrap_or(DEFAULT_MAX_LEN);
    let range = rules.range.map_or(quote!(None), |(low, high)| quote!(Some((#low, #high))));
    let refs = match rules.any_uuid {
        true => quote!(None),
        false => quote!(<#value as ::model::declare::FieldValue>::REFS),
    };
    Ok(quote! {
        ::model::FieldDef {
            name: #name,
            kind: <#value as ::model::declare::FieldValue>::TYPE,
            required: #must || <#value as ::model::declare::FieldValue>::REQUIRED,
            max_len: #max_len,
            range: #range,
            one_of: <#value as ::model::declare::FieldValue>::ONE_OF,
            refs: #refs,
            hidden: #hidden,
            doc: #doc,
        }
    })
}
