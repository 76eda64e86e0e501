//! The parameters of a request, read so that each mistake names its parameter.

use std::ops::RangeInclusive;

use axum::http::StatusCode;
use serde_json::{Map, Value};

use crate::error::ApiError;

pub(crate) struct Params(Map<String, Value>);

impl Params {
    pub(crate) fn parse(body: &[u8]) -> Result<Params, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Params(map)),
            Ok(_) => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "the body must be a JSON object",
            )),
            Err(error) => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                format!("the body is no JSON: {error}"),
            )),
        }
    }

    /// All parameters that are not null.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Value)> {
        let all = self.0.iter().map(|(name, value)| (name.as_str(), value));
        all.filter(|(_, value)| !value.is_null())
    }

    /// A parameter that is there and not null.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn need(&self, name: &str) -> Result<&Value, ApiError> {
        self.get(name)
            .ok_or_else(|| ApiError::wrong(name, format!("`{name}` is missing")))
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let text = |value: &'_ Value| value.as_str().is_some();
        match self.get(name) {
            None => Ok(None),
            Some(value) if text(value) => Ok(value.as_str()),
            Some(_) => Err(ApiError::wrong(name, format!("`{name}` must be a text"))),
        }
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None => Ok(false),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| ApiError::wrong(name, format!("`{name}` must be true or false"))),
        }
    }

    pub(crate) fn number(
        &self,
        name: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_f64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number as f32)),
            None => Err(ApiError::wrong(
                name,
                format!(
                    "`{name}` must be a number from {} to {}",
                    range.start(),
                    range.end()
                ),
            )),
        }
    }

    pub(crate) fn count(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<usize>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let whole = value.as_u64().or_else(|| {
            let number = value.as_f64()?;
            (number >= 0.0 && number.fract() == 0.0).then_some(number as u64)
        });
        match whole.filter(|count| range.contains(count)) {
            Some(count) => Ok(Some(count as usize)),
            None => Err(ApiError::wrong(
                name,
                format!(
                    "`{name}` must be a whole number from {} to {}",
                    range.start(),
                    range.end()
                ),
            )),
        }
    }

    /// A text or a list of texts.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, ApiError> {
        let wrong = || ApiError::wrong(name, format!("`{name}` must be a text or a list of texts"));
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text.clone()]),
            Some(Value::Array(list)) => list
                .iter()
                .map(|text| text.as_str().map(str::to_owned).ok_or_else(wrong))
                .collect(),
            Some(_) => Err(wrong()),
        }
    }
}
