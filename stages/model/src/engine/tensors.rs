//! Tensors by name: the form in which weights and moments are saved and loaded.

use std::collections::BTreeMap;

use super::error::EngineError;

/// Named f32 tensors with their shapes, in name order.
pub type Tensors = BTreeMap<String, Tensor>;

#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

/// Copies the data of a tensor that must be there, in this shape.
pub(crate) fn find(
    tensors: &Tensors,
    name: &str,
    shape: &[usize],
) -> Result<Vec<f32>, EngineError> {
    let tensor = tensors
        .get(name)
        .ok_or_else(|| EngineError::MissingTensor(name.into()))?;
    if tensor.shape != shape || tensor.data.len() != shape.iter().product::<usize>() {
        return Err(EngineError::Shape {
            name: name.into(),
            found: tensor.shape.clone(),
            expected: shape.to_vec(),
        });
    }
    Ok(tensor.data.clone())
}

/// Refuses tensors that nothing here is called.
pub(crate) fn no_strangers(
    tensors: &Tensors,
    is_known: impl Fn(&str) -> bool,
) -> Result<(), EngineError> {
    match tensors.keys().find(|name| !is_known(name)) {
        Some(name) => Err(EngineError::UnknownTensor(name.clone())),
        None => Ok(()),
    }
}
