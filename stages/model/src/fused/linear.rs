//! The linear map with the three ways to end it: alone, activated, added to the residual stream.

use std::sync::Arc;

use dfdx::prelude::*;

use super::{
    Fused,
    gradients::{Done, Grads, give, put, take_or_new},
    node::{Kept, Node, Target, values},
};
use crate::kernels::rows::{self, Write};
use crate::kernels::{View, matmul};
use crate::noise::Place;
use crate::ops::Result;
use crate::profile::span;

impl<T: Tape<f32, Cpu>> Fused<'_, T> {
    pub(super) fn linear_alone(
        &mut self,
        x: &Node,
        weight: &Node,
        bias: Option<&Node>,
    ) -> Result<Node> {
        let y = self.product(x, weight, values(bias));
        let y = self.node(
            y,
            weight.data.len() / x.width,
            &[Some(x), Some(weight), bias],
        )?;
        let backward = self.linear_backward(x, weight, bias);
        self.record(&y, move |grads, d_y| backward(grads, &d_y));
        Ok(y)
    }

    pub(super) fn linear_activated(
        &mut self,
        x: &Node,
        weight: &Node,
        bias: Option<&Node>,
        place: Place,
    ) -> Result<Node> {
        let activation = self.scene.config.activation;
        let mask = self.scene.mask(place);
        let hidden = Arc::new(self.product(x, weight, values(bias)));
        let width = weight.data.len() / x.width;
        let make = {
            let (hidden, pool) = (Arc::clone(&hidden), self.pool.clone());
            move || {
                let _span = span("activation");
                let mut y = pool.take(hidden.len());
                rows::activate(activation, &hidden, &mut y, width, mask.as_ref());
                y
            }
        };
        let y = self.node(make(), width, &[Some(x), Some(weight), bias])?;
        let y = y.or_again(make);
        let backward = self.linear_backward(x, weight, None);
        let (bias, pool) = (bias.and_then(Target::of), self.pool.clone());
        self.record(&y, move |grads, mut d_y| {
            {
                let _span = span("activation");
                let mut d_bias = pool.zeros(bias.as_ref().map_or(0, |bias| bias.n));
                rows::activate_backward(
                    activation,
                    &hidden,
                    &mut d_y,
                    width,
                    mask.as_ref(),
                    &mut d_bias,
                );
                if let Some(bias) = bias {
                    give(grads, &bias.slot, d_bias)?;
                }
            }
            drop(hidden);
            backward(grads, &d_y)
        });
        Ok(y)
    }

    pub(super) fn linear_added(
        &mut self,
        x: &Node,
        weight: &Node,
        bias: Option<&Node>,
        residual: &Node,
        place: Place,
    ) -> Result<Node> {
        let mask = self.scene.mask(place);
        let width = residual.width;
        let y = match &mask {
            None => {
                let mut y = self.pool.take(residual.data.len());
                {
                    let _span = span("bias, residual");
                    rows::fill_residual(&mut y, width, values(bias), &residual.data);
                }
                self.multiply(&mut y, true, x, weight);
                y
            }
            Some(mask) => {
                let mut y = self.product(x, weight, values(bias));
                let _span = span("bias, residual");
                rows::drop_and_add(&mut y, width, mask, &residual.data);
                y
            }
        };
        let y = self.node(y, width, &[Some(x), Some(weight), bias, Some(residual)])?;
        let backward = self.linear_backward(x, weight, bias);
        let (residual, pool) = (Target::of(residual), self.pool.clone());
        self.record(&y, move |grads, d_y| {
            match mask {
                None => backward(grads, &d_y)?,
                Some(mask) => {
                    let mut dropped = pool.take(d_y.len());
                    {
                        let _span = span("bias, residual");
                        rows::copy_dropped(&mut dropped, &d_y, width, &mask);
                    }
                    backward(grads, &dropped)?;
                }
            }
            match residual {
                Some(residual) => give(grads, &residual.slot, d_y),
                None => Ok(()),
            }
        });
        Ok(y)
    }

    /// Returns how a linear map passes the gradient of its result on.
    fn linear_backward(
        &self,
        x: &Node,
        weight: &Node,
        bias: Option<&Node>,
    ) -> impl FnOnce(&mut Grads, &[f32]) -> Done + 'static {
        let (kept, target, width) = (Kept::of(x), Target::of(x), x.width);
        let (weight, bias) = (weight.clone(), bias.and_then(Target::of));
        let (pool, precision) = (self.pool.clone(), self.scene.precision);
        move |grads, d_y| {
            if let Some(bias) = bias {
                let _span = span("bias, residual");
                bias.add_to(grads, &pool, |d| rows::add_column_sums(d, d_y))?;
            }
            let d_y = View::new(d_y, weight.data.len() / width);
            if let Some(Target { slot, n }) = &target {
                let _span = span("products");
                let (mut d_x, write) = take_or_new(grads, slot, &pool, *n)?;
                let weight = View::new(&weight.data, width);
                matmul(&mut d_x, write == Write::Add, d_y, weight, precision);
                put(grads, slot, d_x)?;
            }
            if let Some(slot) = &weight.slot {
                let x = kept.data();
                let _span = span("products");
                let (mut d_weight, write) = take_or_new(grads, slot, &pool, weight.data.len())?;
                let (accumulate, x) = (write == Write::Add, View::new(&x, width));
                matmul(&mut d_weight, accumulate, d_y.t(), x, precision);
                put(grads, slot, d_weight)?;
            }
            Ok(())
        }
    }
}
