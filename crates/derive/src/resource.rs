//! `derive(Resource)`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{DeriveInput, Field, Ident, LitInt, LitStr, meta::ParseNestedMeta};

use crate::attributes::{self, Target};

/// What `#[resource(..)]` says. A flag stands for an associated constant or function of the struct
/// that has the rest.
#[derive(Default)]
struct Declaration {
    path: Option<String>,
    name: Option<String>,
    quota: Option<String>,
    quota_default: Option<i64>,
    faces: bool,
    also: bool,
    children: bool,
    derived: bool,
    aliases: bool,
    claims: bool,
    home: bool,
    shareable: bool,
    tags: bool,
    upcasts: bool,
    messages: bool,
}

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let declaration = declaration(input)?;
    let (ident, doc) = (&input.ident, attributes::doc(&input.attrs));
    let name = ident.to_string();
    let fields = attributes::fields(input)?;
    let own = fields.iter().map(|f| column(ident, f)).collect::<syn::Result<Vec<_>>>()?;
    let own = own.into_iter().flatten();
    let relations = fields.iter().map(|f| relation(f)).collect::<syn::Result<Vec<_>>>()?;
    let faces = faces(&declaration, &name);
    let (quota, home) = (quota(&declaration), declaration.home);
    let shareable = declaration.shareable;
    let constant = |there: bool, name: &str| {
        let name = format_ident!("{name}");
        if there { quote!(Self::#name) } else { quote!(&[]) }
    };
    let also = constant(declaration.also, "ALSO");
    let children = constant(declaration.children, "CHILDREN");
    let derived = constant(declaration.derived, "DERIVED");
    let aliases = constant(declaration.aliases, "ALIASES");
    let tags = constant(declaration.tags, "TAGS");
    let upcasts = constant(declaration.upcasts, "UPCASTS");
    let messages = constant(declaration.messages, "MESSAGES");
    let claims = match declaration.claims {
        true => quote!(Self::holds_alone(self)),
        false => quote!(::std::vec::Vec::new()),
    };
    Ok(quote! {
        impl #ident {
            #(#relations)*
        }

        impl ::model::Resource for #ident {
            const KIND: ::model::Kind = ::model::Kind::#ident;
            const DEF: ::model::ResourceDef = ::model::ResourceDef {
                kind: Self::KIND,
                name: #name,
                faces: #faces,
                quota: #quota,
                home: #home,
                shareable: #shareable,
                doc: #doc,
                own: &[#(#own),*],
                also: #also,
                children: #children,
                derived: #derived,
                aliases: #aliases,
                tags: #tags,
                upcasts: #upcasts,
                messages: #messages,
            };

            fn id(&self) -> ::model::Id<Self> {
                self.uuid
            }

            fn claims(&self) -> ::std::vec::Vec<::model::Claim> {
                #claims
            }

            fn into_body(self) -> ::model::resource::Body {
                ::model::resource::Body::#ident(self)
            }

            fn of(record: &::model::Record) -> ::std::option::Option<&Self> {
                match &record.body {
                    ::model::resource::Body::#ident(resource) => Some(resource),
                    _ => None,
                }
            }
        }
    })
}

/// A field with the functions that read it and make it point at nothing.
fn column(ident: &Ident, field: &Field) -> syn::Result<Option<TokenStream>> {
    let rules = attributes::rules(field)?;
    if rules.flatten {
        return Ok(None);
    }
    let def = attributes::field_def(field)?;
    let (member, hidden, index) = (&field.ident, rules.hidden, rules.index);
    let on_delete = match (attributes::target(&field.ty), is_own_id(field), &rules.on_delete) {
        (Target::Nothing, _, None) | (_, true, None) => quote!(None),
        (Target::One(_) | Target::Any, false, Some(rule)) => {
            let rule = format_ident!("{rule}");
            quote!(Some(::model::relation::OnDelete::#rule))
        }
        (Target::Nothing, ..) | (_, true, Some(_)) => {
            return Err(syn::Error::new_spanned(field, "on_delete is for references"));
        }
        (Target::One(_) | Target::Any, false, None) => {
            let text = "a reference says what happens when what it points at is deleted: \
                        on_delete = refuse, cascade, cascade_to_user, detach or keep";
            return Err(syn::Error::new_spanned(field, text));
        }
    };
    let part = match rules.part {
        false => quote!(None),
        true => quote!(Some(|record| {
            let resource = <Self as ::model::Resource>::of(record)?;
            ::model::field::Readable::target(&resource.#member)
        })),
    };
    Ok(Some(quote! {
        ::model::declare::Column {
            field: #def,
            hidden: #hidden,
            index: #index,
            on_delete: #on_delete,
            part: #part,
            read: |record| match <Self as ::model::Resource>::of(record) {
                Some(resource) => ::model::field::Readable::plain(&resource.#member),
                None => ::model::Plain::Null,
            },
            detach: |record, gone| match &mut record.body {
                ::model::resource::Body::#ident(resource) => {
                    ::model::field::Readable::detach(&mut resource.#member, gone)
                }
                _ => false,
            },
        }
    }))
}

/// `VmNic::L3_NETWORK` for the field `l3_network_uuid`, with both types.
fn relation(field: &Field) -> syn::Result<TokenStream> {
    let Target::One(parent) = attributes::target(&field.ty) else { return Ok(quote!()) };
    if is_own_id(field) {
        return Ok(quote!());
    }
    let snake = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
    let short = snake.trim_end_matches("_uuids").trim_end_matches("_uuid");
    let (name, api) = (format_ident!("{}", short.to_uppercase()), attributes::api_name(field)?);
    let doc = format!("The relation that `{snake}` is.");
    Ok(quote! {
        #[doc = #doc]
        pub const #name: ::model::Relation<Self, #parent> = ::model::Relation::new(#api);
    })
}

fn is_own_id(field: &Field) -> bool {
    field.ident.as_ref().is_some_and(|ident| ident == "uuid")
}

fn faces(declaration: &Declaration, name: &str) -> TokenStream {
    if declaration.faces {
        return quote!(Self::FACES);
    }
    let Some(path) = &declaration.path else { return quote!(&[]) };
    let name = declaration.name.as_deref().unwrap_or(name);
    quote!(&[::model::shown::Face { name: #name, path: #path, only: None }])
}

fn quota(declaration: &Declaration) -> TokenStream {
    let (Some(name), Some(default)) = (&declaration.quota, declaration.quota_default) else {
        return quote!(None);
    };
    quote!(Some(::model::declare::Quota { name: #name, default: #default }))
}

fn declaration(input: &DeriveInput) -> syn::Result<Declaration> {
    let mut found = Declaration::default();
    for attribute in input.attrs.iter().filter(|a| a.path().is_ident("resource")) {
        attribute.parse_nested_meta(|meta| read(&mut found, &meta))?;
    }
    if found.quota.is_some() != found.quota_default.is_some() {
        let text = "quota = \"name\" and quota_default = number go together";
        return Err(syn::Error::new_spanned(&input.ident, text));
    }
    Ok(found)
}

fn read(found: &mut Declaration, meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
    let text = || Ok::<_, syn::Error>(Some(meta.value()?.parse::<LitStr>()?.value()));
    match meta.path.get_ident().map(ToString::to_string).unwrap_or_default().as_str() {
        "path" => found.path = text()?,
        "name" => found.name = text()?,
        "quota" => found.quota = text()?,
        "quota_default" => {
            found.quota_default = Some(meta.value()?.parse::<LitInt>()?.base10_parse()?);
        }
        "faces" => found.faces = true,
        "also" => found.also = true,
        "children" => found.children = true,
        "derived" => found.derived = true,
        "aliases" => found.aliases = true,
        "claims" => found.claims = true,
        "home" => found.home = true,
        "shareable" => found.shareable = true,
        "tags" => found.tags = true,
        "upcasts" => found.upcasts = true,
        "messages" => found.messages = true,
        _ => {
            return Err(meta.error(
                "unknown: path, name, quota, quota_default, faces, also, children, derived, \
                 aliases, claims, home, shareable, tags, upcasts, messages",
            ));
        }
    }
    Ok(())
}
