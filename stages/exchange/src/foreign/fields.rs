//! The fields of another program's description, read so that what cannot be meant here is
//! refused by the field's name.

use serde_json::Value;

use super::error::ForeignError;
use tinylm_model::config::Activation;

/// A description: `config.json`, or the metadata of a GGUF file below its family's name.
pub(super) struct Fields<'a> {
    json: &'a Value,
    prefix: String,
}

impl<'a> Fields<'a> {
    pub(super) fn new(json: &'a Value, prefix: &str) -> Self {
        let prefix = prefix.to_owned();
        Self { json, prefix }
    }

    /// Returns a field unless it is missing or null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        let value = &self.json[format!("{}{name}", self.prefix)];
        (!value.is_null()).then_some(value)
    }

    fn need(&self, name: &str) -> Result<&'a Value, ForeignError> {
        let field = format!("{}{name}", self.prefix);
        self.get(name).ok_or(ForeignError::MissingField { field })
    }

    pub(super) fn refuse(&self, name: &str, reason: &str) -> ForeignError {
        let value = self.get(name).map_or("missing".to_owned(), short);
        ForeignError::Field {
            field: format!("{}{name}", self.prefix),
            value,
            reason: reason.to_owned(),
        }
    }

    pub(super) fn count(&self, name: &str) -> Result<usize, ForeignError> {
        let count = self.need(name)?.as_u64();
        let count = count.and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| self.refuse(name, "a count is expected"))
    }

    pub(super) fn count_or(&self, name: &str, default: usize) -> Result<usize, ForeignError> {
        self.get(name).map_or(Ok(default), |_| self.count(name))
    }

    pub(super) fn number(&self, name: &str) -> Result<f32, ForeignError> {
        let number = self.need(name)?.as_f64();
        number
            .map(|number| number as f32)
            .ok_or_else(|| self.refuse(name, "a number is expected"))
    }

    pub(super) fn number_or(&self, name: &str, default: f32) -> Result<f32, ForeignError> {
        self.get(name).map_or(Ok(default), |_| self.number(name))
    }

    pub(super) fn flag_or(&self, name: &str, default: bool) -> Result<bool, ForeignError> {
        let flag = self.get(name).map(Value::as_bool);
        match flag {
            None => Ok(default),
            Some(Some(flag)) => Ok(flag),
            Some(None) => Err(self.refuse(name, "true or false is expected")),
        }
    }

    /// Refuses every field whose value, where it is given, is not the one that is meant here.
    pub(super) fn only(&self, fields: &[(&str, Value)]) -> Result<(), ForeignError> {
        let mut given = fields.iter();
        let other = given.find(|(name, value)| self.get(name).is_some_and(|given| given != value));
        match other {
            None => Ok(()),
            Some((name, value)) => Err(self.refuse(name, &format!("only {value} is known here"))),
        }
    }

    pub(super) fn activation(&self, name: &str, default: &str) -> Result<Activation, ForeignError> {
        let word = self.get(name).map_or(Some(default), Value::as_str);
        match word {
            Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Activation::GeluTanh),
            Some("gelu") => Ok(Activation::Gelu),
            Some("relu") => Ok(Activation::Relu),
            Some("silu" | "swish") => Ok(Activation::Silu),
            _ => Err(self.refuse(name, "gelu_new, gelu, relu and silu are known here")),
        }
    }
}

/// A value as a message can hold it.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}
