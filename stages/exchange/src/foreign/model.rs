//! A model in another program's file, read as ours.

use super::{error::ForeignError, family::Layout, named::Named};
use tinylm_model::{
    config::{ModelConfig, Parameter},
    engine::{Tensor, Tensors},
};

/// A model of another program that has been looked at, and of which no tensor has been read.
pub struct ForeignModel<'a> {
    /// The other program's word for the family, such as `llama`.
    pub family: String,
    pub config: ModelConfig,
    /// For a person to know, such as positions that are left out.
    pub notes: Vec<String>,
    layout: Layout,
    source: &'a dyn Named,
}

impl<'a> ForeignModel<'a> {
    pub(super) fn new(
        family: &str,
        mut config: ModelConfig,
        layout: Layout,
        source: &'a dyn Named,
    ) -> Result<Self, ForeignError> {
        config.check()?;
        layout.find_biases(&mut config, source)?;
        config.check()?;
        layout.check_names(&config, source)?;
        Ok(Self {
            family: family.to_owned(),
            config,
            notes: Vec::new(),
            layout,
            source,
        })
    }

    /// Makes the model read at most so many tokens.
    pub fn shorten(&mut self, context: usize) -> Result<(), ForeignError> {
        if context == 0 || context > self.config.context {
            return Err(ForeignError::Field {
                field: "context".to_owned(),
                value: context.to_string(),
                reason: format!("the model reads from 1 to {} tokens", self.config.context),
            });
        }
        self.config.context = context;
        Ok(())
    }

    /// Reads every tensor, one after the other, into the form of ours. Numbers that are none are
    /// refused: a model with one would answer nothing, and only once it is asked.
    pub fn tensors(&self) -> Result<Tensors, ForeignError> {
        let parameters = self.config.parameters().into_iter();
        parameters
            .map(|parameter| {
                let tensor = self.layout.read(&parameter, &self.config, self.source)?;
                let tensor = fitting(tensor, &parameter)?;
                finite(&tensor, &parameter.name)?;
                Ok((parameter.name.clone(), tensor))
            })
            .collect()
    }
}

fn finite(tensor: &Tensor, name: &str) -> Result<(), ForeignError> {
    match tensor.data.iter().find(|number| !number.is_finite()) {
        None => Ok(()),
        Some(&number) => Err(ForeignError::NotFinite {
            name: name.to_owned(),
            number,
        }),
    }
}

/// Checks a tensor's shape; of more rows than asked for (positions) the first are taken.
fn fitting(mut tensor: Tensor, parameter: &Parameter) -> Result<Tensor, ForeignError> {
    let is_longer = parameter.name == "positions.weight"
        && tensor.shape.len() == 2
        && tensor.shape[0] > parameter.shape[0]
        && tensor.shape[1] == parameter.shape[1];
    if is_longer {
        tensor.data.truncate(parameter.n());
        tensor.shape.clone_from(&parameter.shape);
    }
    match tensor.shape == parameter.shape {
        true => Ok(tensor),
        false => Err(ForeignError::Shape {
            name: parameter.name.clone(),
            found: tensor.shape,
            expected: parameter.shape.clone(),
        }),
    }
}
