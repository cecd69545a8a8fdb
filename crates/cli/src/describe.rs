//! What messages there are and what they take, from the tables.

use std::fmt::Write;

use model::{
    FieldDef, MessageDef,
    declare::Method,
    resource::{faces, messages},
};

use crate::{Error, call};

/// Every message and query, a line each.
pub(crate) fn list() -> String {
    let mut text = String::new();
    for def in messages() {
        line(&mut text, def.name, first_sentence(def.doc));
    }
    for (kind, face) in faces() {
        line(&mut text, &format!("Query{}", face.name), first_sentence(kind.def().doc));
    }
    text
}

/// One message or query with its fields.
///
/// # Errors
/// When there is none of this name.
pub(crate) fn one(name: &str) -> Result<String, Error> {
    let mut text = String::new();
    if let Some((kind, face)) = call::queried(name) {
        let def = kind.def();
        head(&mut text, name, def.doc, &format!("GET /zstack/v1{}", face.path));
        let columns = def.columns().filter(|column| !column.hidden).map(|column| &column.field);
        let derived = def.derived.iter().map(|derived| &derived.field);
        columns.chain(derived).for_each(|field| shown_line(&mut text, field));
        return Ok(text);
    }
    let Some(def) = messages().find(|def| def.name == name) else {
        return Err(call::unknown(name));
    };
    head(&mut text, name, def.doc, &route(def));
    def.fields.iter().for_each(|field| field_line(&mut text, field));
    Ok(text)
}

fn route(def: &MessageDef) -> String {
    let verb = match def.method {
        Method::Get => "GET",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
    };
    format!("{verb} /zstack/v1{}", def.path)
}

fn head(text: &mut String, name: &str, doc: &str, route: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{name}: {doc}\n  {route}");
}

fn line(text: &mut String, name: &str, doc: &str) {
    let _ = writeln!(text, "{name:28} {doc}");
}

fn field_line(text: &mut String, field: &FieldDef) {
    let star = if field.required { "*" } else { "" };
    let _ = writeln!(text, "  {:28} {}", format!("{}{star}", field.name), field.doc);
}

/// A field of an inventory: nobody has to give it.
fn shown_line(text: &mut String, field: &FieldDef) {
    let _ = writeln!(text, "  {:28} {}", field.name, field.doc);
}

fn first_sentence(doc: &str) -> &str {
    doc.split_inclusive(". ").next().unwrap_or(doc).trim_end()
}
