//! Reads attributes, doc comments and fields; makes the `FieldDef`s that both derives share.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{
    Attribute, Data, DeriveInput, Expr, ExprLit, Field, Fields, GenericArgument, Lit, LitStr, Meta,
    PathArguments, Type,
};

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
            } else if meta.input.peek(syn::Token![=]) {
                meta.value()?.parse::<Expr>()?;
            }
            Ok(())
        })?;
    }
    Ok(name)
}

/// What `#[field(..)]` says.
#[derive(Default)]
pub(crate) struct Rules {
    pub(crate) hidden: bool,
    pub(crate) index: bool,
    /// It is no column: its struct shows what is in it, or does not.
    pub(crate) flatten: bool,
    pub(crate) on_delete: Option<String>,
    /// The resource is a part of what this field points at.
    pub(crate) part: bool,
    required: bool,
    secret: bool,
    max_len: Option<usize>,
    range: Option<(i64, i64)>,
}

/// Reads `#[field(..)]`.
pub(crate) fn rules(field: &Field) -> syn::Result<Rules> {
    let mut rules = Rules::default();
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("field")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("hidden") {
                rules.hidden = true;
            } else if meta.path.is_ident("index") {
                rules.index = true;
            } else if meta.path.is_ident("flatten") {
                rules.flatten = true;
            } else if meta.path.is_ident("on_delete") {
                rules.on_delete = Some(on_delete(&meta.value()?.parse()?)?);
            } else if meta.path.is_ident("part") {
                rules.part = true;
            } else if meta.path.is_ident("secret") {
                rules.secret = true;
            } else if meta.path.is_ident("required") {
                rules.required = true;
            } else if meta.path.is_ident("max_len") {
                rules.max_len = Some(meta.value()?.parse::<syn::LitInt>()?.base10_parse()?);
            } else if meta.path.is_ident("range") {
                rules.range = Some(parse_range(&meta.value()?.parse()?)?);
            } else {
                return Err(meta.error(
                    "unknown: hidden, index, flatten, on_delete, part, required, secret, max_len, range",
                ));
            }
            Ok(())
        })?;
    }
    Ok(rules)
}

/// The variant of `OnDelete` that a rule is.
fn on_delete(text: &LitStr) -> syn::Result<String> {
    let variant = match text.value().as_str() {
        "refuse" => "Refuse",
        "cascade" => "Cascade",
        "cascade_to_user" => "CascadeToUser",
        "detach" => "Detach",
        "keep" => "Keep",
        _ => {
            let text = syn::Error::new_spanned(
                text,
                "unknown: refuse, cascade, cascade_to_user, detach, keep",
            );
            return Err(text);
        }
    };
    Ok(variant.to_owned())
}

fn parse_range(text: &LitStr) -> syn::Result<(i64, i64)> {
    let value = text.value();
    let ends = value.split_once("..=").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    ends.ok_or_else(|| syn::Error::new_spanned(text, "a range is written \"1..=9\""))
}

/// What a field of this type points at.
pub(crate) enum Target {
    /// Nothing: it is no reference.
    Nothing,
    /// A resource of this type.
    One(Box<Type>),
    /// A resource of any type.
    Any,
}

/// Looks for `Id<T>` and `AnyId`, also inside `Option` and `Vec`.
pub(crate) fn target(of: &Type) -> Target {
    let Type::Path(path) = of else { return Target::Nothing };
    let Some(last) = path.path.segments.last() else { return Target::Nothing };
    let inner = match &last.arguments {
        PathArguments::AngleBracketed(arguments) => match arguments.args.first() {
            Some(GenericArgument::Type(inner)) => Some(inner),
            _ => None,
        },
        _ => None,
    };
    match (last.ident.to_string().as_str(), inner) {
        ("AnyId", _) => Target::Any,
        ("Id", Some(parent)) => Target::One(Box::new(parent.clone())),
        ("Option" | "Vec", Some(inner)) => target(inner),
        _ => Target::Nothing,
    }
}

/// The `FieldDef` of a field.
pub(crate) fn field_def(field: &Field) -> syn::Result<TokenStream> {
    let (name, doc, rules) = (api_name(field)?, doc(&field.attrs), rules(field)?);
    if doc.is_empty() {
        return Err(syn::Error::new_spanned(field, "every field has a doc comment: users see it"));
    }
    let (value, must, secret) = (&field.ty, rules.required, rules.secret);
    let max_len = rules.max_len.map_or(quote!(::model::field::MAX_LEN), |max| quote!(#max));
    let range = rules.range.map_or(quote!(None), |(low, high)| quote!(Some((#low, #high))));
    Ok(quote! {
        ::model::FieldDef {
            required: #must || <#value as ::model::field::FieldValue>::REQUIRED,
            max_len: #max_len,
            range: #range,
            secret: #secret,
            ..::model::FieldDef::of::<#value>(#name, #doc)
        }
    })
}
