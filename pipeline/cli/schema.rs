//! `tinylm schema`: experiment files as a JSON schema, for editors that complete and check.
//!
//! Made from the lists that files are checked with, so that the two cannot part. A schema knows less:
//! which stage fills a role, whether a path is there, and what must be given once everything that a
//! file extends is read. So nothing is required in it, and `tinylm plan` has the last word.

use serde_json::{Map, Value, json};
use tinylm_pipeline::{
    Kind, Roles,
    settings::{Setting, Shape},
    spec::keys::{FILE_KEYS, Key, RESOURCE_KEYS, STAGE_KEYS, WATCH_KEYS},
};

use crate::{output::print_json, project::Project};

/// The name of the file that `init` writes beside an experiment.
pub(crate) const NAME: &str = "tinylm.schema.json";

pub(crate) fn schema(project: &Project) {
    print_json(&of(&project.catalog));
}

pub(crate) fn of(catalog: &[Kind]) -> Value {
    let kinds: Vec<Value> = catalog
        .iter()
        .map(|kind| {
            json!({
                "if": { "properties": { "kind": { "const": kind.name } }, "required": ["kind"] },
                "then": { "properties": sections(kind) },
            })
        })
        .collect();
    let names: Vec<&str> = catalog.iter().map(|kind| kind.name).collect();
    let named = json!({ "anyOf": [{ "enum": names }, { "$ref": "#/definitions/variable" }] });
    let stage = described(&STAGE_KEYS, |key| match key {
        "kind" => named.clone(),
        "inputs" => json!({ "type": ["array", "object", "string", "null"] }),
        "retries" => json!({ "type": ["integer", "string"], "minimum": 0 }),
        "timeout" => json!({ "type": ["number", "string"] }),
        "resources" => json!({
            "type": ["object", "null"],
            "properties": described(&RESOURCE_KEYS, |_| json!({ "type": ["integer", "string"] })),
            "additionalProperties": false,
        }),
        _ => json!({ "type": ["object", "null", "string"] }),
    });
    let file = described(&FILE_KEYS, |key| match key {
        "name" | "headline" => json!({ "type": ["string", "null"] }),
        "seed" => json!({ "type": ["integer", "string"], "minimum": 0 }),
        "watch" => json!({
            "type": ["object", "null"],
            "properties": described(&WATCH_KEYS, |_| json!({ "type": ["string", "null"] })),
            "additionalProperties": false,
        }),
        "extends" => json!({ "type": ["string", "null"] }),
        "without" => {
            json!({ "type": ["array", "string", "null"], "items": { "type": "string" } })
        }
        "stages" => {
            json!({ "type": "object", "additionalProperties": { "$ref": "#/definitions/stage" } })
        }
        _ => json!({ "type": ["object", "null"] }),
    });
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A tinylm experiment",
        "type": "object",
        "properties": file,
        "additionalProperties": false,
        "definitions": {
            "variable": { "type": "string", "pattern": "\\$\\{" },
            "stage": {
                // A stage of an extended file is taken out with `null`.
                "type": ["object", "null"],
                "properties": stage,
                "additionalProperties": false,
                "allOf": kinds,
            },
        },
    })
}

/// Keys with their descriptions, each of some form.
fn described(keys: &[Key], form: impl Fn(&str) -> Value) -> Value {
    let keys = keys.iter().map(|(name, about)| {
        let mut form = form(name);
        form["description"] = json!(about);
        ((*name).to_owned(), form)
    });
    Value::Object(keys.collect())
}

/// The parts of a stage that depend on its kind.
fn sections(kind: &Kind) -> Value {
    let mut sections = Map::new();
    for (name, list) in [("with", (kind.settings)()), ("watch", (kind.watch)())] {
        sections.insert(name.to_owned(), or_variable(settings(&list)));
    }
    if let Roles::Fixed(roles) = kind.roles {
        let roles = roles.iter().map(|role| {
            let form = json!({ "type": ["string", "array"], "description": role.about });
            (role.name.to_owned(), form)
        });
        let roles: Map<String, Value> = roles.collect();
        let by_role = json!({
            "type": "object", "properties": roles, "additionalProperties": false,
        });
        let list = json!({ "type": ["array", "string", "null"] });
        sections.insert("inputs".to_owned(), json!({ "anyOf": [by_role, list] }));
    }
    Value::Object(sections)
}

fn settings(list: &[Setting]) -> Value {
    let properties = list.iter().map(|setting| {
        let mut form = or_variable(shaped(&setting.shape));
        form["description"] = json!(setting.about);
        if let Some(default) = setting.default.as_ref().filter(|value| !value.is_null()) {
            form["default"] = default.clone();
        }
        (setting.name.to_owned(), form)
    });
    let properties: Map<String, Value> = properties.collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// Wherever a value may stand, a variable may, and nothing.
fn or_variable(form: Value) -> Value {
    json!({ "anyOf": [form, { "$ref": "#/definitions/variable" }, { "type": "null" }] })
}

fn shaped(shape: &Shape) -> Value {
    match shape {
        Shape::Value("whole number") => json!({ "type": "integer" }),
        Shape::Value("number") => json!({ "type": "number" }),
        Shape::Value("true or false") => json!({ "type": "boolean" }),
        Shape::Value("text") | Shape::Path => json!({ "type": "string" }),
        // Numbers with a word beside them, and values of any sort.
        Shape::Value(_) => json!({}),
        Shape::Choice(words, _) => json!({ "enum": words }),
        Shape::Map(inner, _) => settings(inner),
        Shape::List(inner) => json!({ "type": "array", "items": or_variable(shaped(inner)) }),
        Shape::Table(inner) => {
            json!({ "type": "object", "additionalProperties": or_variable(shaped(inner)) })
        }
    }
}
