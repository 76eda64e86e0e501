//! `tinylm schema`: experiment files as a JSON schema, for editors that complete and check.
//!
//! Made from the lists that files are checked with, so that the two cannot part, and never stricter than they are.
//! A schema knows less: who reads whom, what a stage makes, whether a path is there, and what only a kind can judge.
//! What must be given is required of a file that extends no other; one that does may have it from there. `tinylm plan`
//! has the last word, and a test holds every mistake that it tells against this.

use serde_json::{Map, Value, json};
use tinylm_pipeline::{
    Kind, Roles,
    settings::{Numbers, Setting, Shape},
    spec::keys::{FILE_KEYS, Key, RESOURCE_KEYS, STAGE_KEYS, WATCH_KEYS},
};

use crate::{output::print_json, project::Project};

/// The name of the file that `init` writes beside an experiment.
pub(crate) const NAME: &str = "tinylm.schema.json";

/// A text with a variable in it, which may become anything.
const VARIABLE: &str = r"\$\{";
/// Letters of any language, digits, `_` and `-`.
const STAGE_NAME: &str = r"^([A-Za-z0-9_-]|[^\u0000-\u007f])+$";
/// `90s`, `1h30m`.
const DURATION: &str = r"(?=.*[1-9])(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ms|s|min|m|h|d)\s*)+";
/// `32G`, `500MB`.
const MEMORY: &str = r"[0-9.eE+]+\s*[TGMKtgmk][Bb]?";

pub(crate) fn schema(project: &Project) {
    print_json(&of(&project.catalog));
}

pub(crate) fn of(catalog: &[Kind]) -> Value {
    let extends = json!({
        "required": ["extends"],
        "properties": { "extends": { "type": "string" } },
    });
    let each = |definition: &str| json!({ "additionalProperties": { "$ref": definition } });
    let mut stages = each("#/definitions/whole");
    stages["minProperties"] = json!(1);
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A tinylm experiment",
        "type": "object",
        "properties": file(),
        "additionalProperties": false,
        // What a file does not say, the one that it extends may, and of settings a sweep.
        "allOf": [
            {
                "if": extends,
                "else": { "required": ["stages"], "properties": { "stages": stages } },
            },
            {
                "if": { "anyOf": [extends, { "required": ["sweep"] }] },
                "else": { "properties": { "stages": each("#/definitions/set") } },
            },
        ],
        "definitions": {
            "variable": { "type": "string", "pattern": VARIABLE },
            "stage": stage(catalog),
            // What a stage needs that lies over no other.
            "whole": {
                "type": ["object", "string"],
                "required": ["kind"],
                "allOf": of_kinds(catalog, needs),
            },
            // The settings that it must be given.
            "set": { "allOf": of_kinds(catalog, must_set) },
        },
    })
}

fn file() -> Value {
    described(&FILE_KEYS, |key| match key {
        "name" => json!({ "type": ["string", "null"], "pattern": r"\S" }),
        // A stage, behind the names of what it is used from, and one of its metrics.
        "headline" => {
            json!({ "type": ["string", "null"], "pattern": format!(r"^[^.]+\..+$|{VARIABLE}") })
        }
        "seed" => number(0, None),
        "watch" => json!({
            "type": ["object", "null"],
            "properties": described(&WATCH_KEYS, |_| json!({ "type": ["string", "null"] })),
            "additionalProperties": false,
        }),
        "extends" => json!({ "type": ["string", "null"] }),
        "without" => {
            json!({ "type": ["array", "string", "null"], "items": { "type": "string" } })
        }
        "use" => json!({
            "type": ["object", "null"],
            "propertyNames": { "pattern": STAGE_NAME },
            "additionalProperties": { "type": "string" },
        }),
        "sweep" => json!({
            "type": ["object", "null"],
            "additionalProperties": { "type": "array", "minItems": 1 },
        }),
        "stages" => json!({
            "type": ["object", "string"],
            "pattern": VARIABLE,
            "propertyNames": { "pattern": STAGE_NAME },
            "additionalProperties": { "$ref": "#/definitions/stage" },
        }),
        _ => json!({ "type": ["object", "null"] }),
    })
}

fn stage(catalog: &[Kind]) -> Value {
    let names: Vec<&str> = catalog.iter().map(|kind| kind.name).collect();
    let named = json!({ "anyOf": [{ "enum": names }, { "$ref": "#/definitions/variable" }] });
    let keys = described(&STAGE_KEYS, |key| match key {
        "kind" => named.clone(),
        "inputs" => json!({
            "type": ["array", "object", "string", "null"],
            "pattern": VARIABLE,
            "items": { "type": "string" },
        }),
        "retries" => number(0, Some(u32::MAX)),
        "timeout" => json!({
            "type": ["number", "string", "null"],
            "exclusiveMinimum": 0,
            "pattern": format!(r"^\s*{DURATION}$|{VARIABLE}"),
        }),
        "resources" => json!({
            "type": ["object", "string", "null"],
            "pattern": VARIABLE,
            "properties": described(&RESOURCE_KEYS, resource),
            "additionalProperties": false,
        }),
        _ => json!({ "type": ["object", "null", "string"], "pattern": VARIABLE }),
    });
    json!({
        // A stage of an extended file is taken out with `null`.
        "type": ["object", "null", "string"],
        "pattern": VARIABLE,
        "properties": keys,
        "additionalProperties": false,
        "allOf": of_kinds(catalog, sections),
    })
}

fn resource(key: &str) -> Value {
    let span = |one: &str| {
        json!({
            "type": ["string", "null"],
            "pattern": format!(r"^\s*{one}\s*(\.\.\s*{one}\s*)?$|{VARIABLE}"),
        })
    };
    match key {
        "memory" => span(MEMORY),
        "time" => span(DURATION),
        "nodes" | "ranks" => number(1, Some(256)),
        "cpus" => number(1, Some(u32::MAX)),
        _ => number(0, Some(u32::MAX)),
    }
}

/// A whole number, a variable, or nothing.
fn number(min: u32, max: Option<u32>) -> Value {
    let mut form = json!({
        "type": ["integer", "string", "null"],
        "minimum": min,
        "pattern": VARIABLE,
    });
    if let Some(max) = max {
        form["maximum"] = json!(max);
    }
    form
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

/// What holds of a stage by its kind.
fn of_kinds(catalog: &[Kind], then: impl Fn(&Kind) -> Value) -> Vec<Value> {
    let kinds = catalog.iter().map(|kind| {
        json!({
            "if": { "properties": { "kind": { "const": kind.name } }, "required": ["kind"] },
            "then": then(kind),
        })
    });
    kinds.collect()
}

/// The parts of a stage that depend on its kind.
fn sections(kind: &Kind) -> Value {
    let with = settings(&(kind.settings)(), kind.exclusive);
    let mut sections = json!({ "with": or_variable(with) });
    sections["watch"] = or_variable(settings(&(kind.watch)(), &[]));
    if let Roles::Fixed(roles) = kind.roles {
        let by_role = roles.iter().map(|role| {
            let mut form = stages_of(role.many);
            form["description"] = json!(role.about);
            (role.name.to_owned(), form)
        });
        let by_role = json!({
            "type": "object",
            "properties": by_role.collect::<Map<_, _>>(),
            "additionalProperties": false,
        });
        // A list fills the first role.
        let mut list = stages_of(roles.first().is_some_and(|role| role.many));
        list["type"] = json!(["array", "string", "null"]);
        list["pattern"] = json!(VARIABLE);
        if roles.is_empty() {
            list["maxItems"] = json!(0);
        }
        sections["inputs"] = json!({ "anyOf": [by_role, list] });
    }
    json!({ "properties": sections })
}

/// The names of the stages that fill a role.
fn stages_of(many: bool) -> Value {
    let form = json!({ "type": ["string", "array", "null"], "items": { "type": "string" } });
    match many {
        true => form,
        false => {
            let mut one = form;
            one["maxItems"] = json!(1);
            one
        }
    }
}

fn must_set(kind: &Kind) -> Value {
    match names_of(&(kind.settings)(), |setting| setting.default.is_none()) {
        names if names.is_empty() => json!({}),
        names => json!({ "required": ["with"], "properties": { "with": { "required": names } } }),
    }
}

/// The roles of a stage that must be filled, and which of its settings cannot be nothing.
fn needs(kind: &Kind) -> Value {
    let mut required = Vec::new();
    let mut properties = json!({
        "with": filled(&(kind.settings)()),
        "watch": filled(&(kind.watch)()),
    });
    let roles = match kind.roles {
        Roles::Fixed(roles) => roles,
        Roles::Any => &[],
    };
    let wanted: Vec<&str> = roles
        .iter()
        .filter(|role| role.required)
        .map(|role| role.name)
        .collect();
    if !wanted.is_empty() {
        required.push("inputs");
        let some = json!({ "type": ["string", "array"], "minItems": 1 });
        let some = wanted.iter().map(|role| ((*role).to_owned(), some.clone()));
        let in_list = wanted == [roles[0].name];
        properties["inputs"] = json!({
            "type": if in_list { json!(["array", "object", "string"]) } else { json!(["object", "string"]) },
            "minItems": 1,
            "required": wanted,
            "properties": some.collect::<Map<_, _>>(),
        });
    }
    json!({ "required": required, "properties": properties })
}

/// Refuses `null` where it would be a value: over another file it takes one away.
fn filled(list: &[Setting]) -> Value {
    let properties = list.iter().filter_map(|setting| match &setting.shape {
        Shape::Map(inner, _) => Some((setting.name.to_owned(), filled(inner))),
        _ if setting.default == Some(Value::Null) => None,
        _ => Some((
            setting.name.to_owned(),
            json!({ "not": { "type": "null" } }),
        )),
    });
    json!({ "properties": properties.collect::<Map<_, _>>() })
}

fn names_of(list: &[Setting], fits: impl Fn(&Setting) -> bool) -> Vec<&'static str> {
    let settings = list.iter().filter(|setting| fits(setting));
    settings.map(|setting| setting.name).collect()
}

fn settings(list: &[Setting], exclusive: &[&[&str]]) -> Value {
    let properties = list.iter().map(|setting| {
        let mut form = or_variable(shaped(&setting.shape));
        form["description"] = json!(setting.about);
        if let Some(default) = setting.default.as_ref().filter(|value| !value.is_null()) {
            form["default"] = default.clone();
        }
        (setting.name.to_owned(), form)
    });
    let properties: Map<String, Value> = properties.collect();
    let mut form =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    let pairs: Vec<Value> = exclusive.iter().flat_map(|group| not_both(group)).collect();
    if !pairs.is_empty() {
        form["allOf"] = json!(pairs);
    }
    form
}

/// Of a group, no two are set. A variable may turn out to be nothing.
fn not_both(group: &[&str]) -> Vec<Value> {
    let set =
        json!({ "not": { "anyOf": [{ "type": "null" }, { "$ref": "#/definitions/variable" }] } });
    let pairs = group.iter().enumerate().flat_map(|(idx, one)| {
        let set = &set;
        group[idx + 1..].iter().map(move |other| {
            json!({ "not": {
                "required": [one, other],
                "properties": { *one: set.clone(), *other: set.clone() },
            } })
        })
    });
    pairs.collect()
}

/// Wherever a value may stand, a variable may, and nothing.
fn or_variable(form: Value) -> Value {
    json!({ "anyOf": [form, { "$ref": "#/definitions/variable" }, { "type": "null" }] })
}

fn shaped(shape: &Shape) -> Value {
    match shape {
        Shape::Number(numbers) => within(*numbers),
        Shape::Value("true or false") => json!({ "type": "boolean" }),
        Shape::Value("text") | Shape::Path => json!({ "type": "string" }),
        Shape::Value(_) => json!({}),
        Shape::Own(_, form) => serde_json::from_str(form).expect("a schema beside a type is JSON"),
        Shape::Choice(words, _) => json!({ "enum": words }),
        Shape::Map(inner, exclusive) => settings(inner, exclusive),
        Shape::List(inner) => json!({ "type": "array", "items": or_variable(item(inner)) }),
        Shape::Table(inner) => {
            json!({ "type": "object", "additionalProperties": or_variable(shaped(inner)) })
        }
    }
}

/// An item of a list, which replaces another whole: so what it needs, it has.
fn item(shape: &Shape) -> Value {
    let mut form = shaped(shape);
    if let Shape::Map(list, _) = shape {
        form["required"] = json!(names_of(list, |setting| setting.default.is_none()));
    }
    form
}

fn within(Numbers { is_whole, range }: Numbers) -> Value {
    let mut form = json!({ "type": if is_whole { "integer" } else { "number" } });
    let bound = |bound: f64| match is_whole {
        true => json!(bound as i64),
        false => json!(bound),
    };
    if range.min.is_finite() {
        let name = if range.is_above {
            "exclusiveMinimum"
        } else {
            "minimum"
        };
        form[name] = bound(range.min);
    }
    if range.max.is_finite() {
        form["maximum"] = bound(range.max);
    }
    form
}
