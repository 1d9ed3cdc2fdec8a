//! Stochastic gradient descent with momentum, equal to `torch.optim.SGD` step by step.
//! Its momentum can be read out and restored, so that an interrupted training continues
//! exactly.

use crate::train::tensors::{plain, torch};
use crate::weights::{self, Tensors};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use tch::Tensor;

/// The momentum of each trained tensor, by name.
#[derive(Debug)]
pub struct Sgd {
    momentum: f64,
    buffers: BTreeMap<String, Tensor>,
}

/// Settings of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Move {
    /// Learning rate.
    pub rate: f64,
    /// Weight decay.
    pub decay: f64,
}

impl Sgd {
    /// Starts with zero momentum for each of the given tensors.
    pub fn new<'t>(
        momentum: f64,
        learning: impl Iterator<Item = (&'t String, &'t Tensor)>,
    ) -> Self {
        let still = |(name, tensor): (&String, &Tensor)| {
            (name.clone(), tch::no_grad(|| tensor.zeros_like()))
        };
        Self { momentum, buffers: learning.map(still).collect() }
    }

    /// Updates a tensor by its gradient. `torch.optim.SGD` starts its buffer with the
    /// first gradient and this one starts with zeros, which gives the same result.
    pub fn step(&mut self, name: &str, tensor: &mut Tensor, slope: &Tensor, how: Move) {
        let Some(buffer) = self.buffers.get_mut(name) else { return };
        tch::no_grad(|| {
            let slope = decayed(tensor, slope, how);
            let _ = buffer.g_mul_scalar_(self.momentum);
            let _ = buffer.g_add_(&slope);
            let _ = tensor.g_sub_(&(&*buffer * how.rate));
        });
    }

    /// Updates some rows of a tensor. `rows` are their indices and `slope` their
    /// gradients. The other rows and their momentum stay unchanged.
    pub fn step_rows(
        &mut self,
        name: &str,
        tensor: &mut Tensor,
        rows: &Tensor,
        slope: &Tensor,
        how: Move,
    ) {
        let Some(buffer) = self.buffers.get_mut(name) else { return };
        tch::no_grad(|| {
            let some = tensor.index_select(0, rows);
            let slope = decayed(&some, slope, how);
            let moved = buffer.index_select(0, rows) * self.momentum + slope;
            let _ = tensor.index_copy_(0, rows, &(some - &moved * how.rate));
            let _ = buffer.index_copy_(0, rows, &moved);
        });
    }

    /// The momentum as plain numbers, by name of the tensor.
    pub fn tensors(&self) -> Result<Tensors> {
        self.buffers.iter().map(|(name, buffer)| Ok((name.clone(), plain(buffer)?))).collect()
    }

    /// Restores momentum that was read out. Fails if a tensor is missing, extra,
    /// misshapen or empty.
    pub fn restore(&mut self, tensors: &Tensors) -> Result<()> {
        let expected: Vec<(String, Vec<usize>)> = self
            .buffers
            .iter()
            .map(|(name, buffer)| {
                (name.clone(), buffer.size().iter().map(|side| *side as usize).collect())
            })
            .collect();
        weights::check("this training's momentum", tensors, &expected)?;
        for (name, buffer) in &mut self.buffers {
            let given = tensors.get(name).with_context(|| format!("{name} is missing"))?;
            ensure!(!given.values.is_empty(), "{name} is empty");
            tch::no_grad(|| buffer.copy_(&torch(given)));
        }
        Ok(())
    }
}

fn decayed(tensor: &Tensor, slope: &Tensor, how: Move) -> Tensor {
    if how.decay == 0.0 { slope.shallow_clone() } else { slope + tensor * how.decay }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::nn::{self, OptimizerConfig};
    use tch::{Device, Kind};

    fn start() -> Tensor {
        Tensor::from_slice(&[0.5f32, -1.0, 2.0, 0.25, 3.0, -0.125]).view([3, 2])
    }

    fn loss(tensor: &Tensor, step: usize) -> Tensor {
        (tensor.sin() * (step as f64 + 1.0)).square().sum(Kind::Float)
    }

    #[test]
    fn steps_are_those_of_torch() {
        for (momentum, decay) in [(0.0, 0.0), (0.9, 0.0), (0.95, 5e-2)] {
            let store = nn::VarStore::new(Device::Cpu);
            let mut theirs = store.root().zeros("w", &[3, 2]);
            tch::no_grad(|| theirs.copy_(&start()));
            let mut optimizer = nn::Sgd { momentum, dampening: 0.0, wd: decay, nesterov: false }
                .build(&store, 0.01)
                .expect("an optimizer");
            let name = "w".to_owned();
            let mut ours = start().set_requires_grad(true);
            let mut sgd = Sgd::new(momentum, [(&name, &ours)].into_iter());
            for step in 0..20 {
                let rate = 0.01 / (step + 1) as f64;
                optimizer.set_lr(rate);
                optimizer.backward_step(&loss(&theirs, step));
                let slope = Tensor::run_backward(&[loss(&ours, step)], &[&ours], false, false);
                sgd.step("w", &mut ours, &slope[0], Move { rate, decay });
                let apart = (&ours - &theirs).abs().max().double_value(&[]);
                assert!(apart < 1e-6, "{momentum} {decay} step {step}: {apart}");
            }
            assert!((&ours - start()).abs().min().double_value(&[]) > 1e-3);
        }
    }

    #[test]
    fn some_rows_move_as_all_would_and_the_others_stay() {
        let name = "w".to_owned();
        let (mut all, mut some) = (start(), start());
        let mut sgds = [&all, &some].map(|tensor| Sgd::new(0.9, [(&name, tensor)].into_iter()));
        let how = Move { rate: 0.1, decay: 0.01 };
        let rows = Tensor::from_slice(&[0i64, 2]);
        for step in 0..3 {
            let slope = start() * f64::from(step + 1);
            sgds[0].step("w", &mut all, &slope, how);
            sgds[1].step_rows("w", &mut some, &rows, &slope.index_select(0, &rows), how);
        }
        let apart = (all.index_select(0, &rows) - some.index_select(0, &rows)).abs().max();
        assert!(apart.double_value(&[]) < 1e-6);
        assert!(some.get(1).equal(&start().get(1)));
        assert_eq!(sgds[1].tensors().expect("numbers")["w"].values[2..4], [0.0, 0.0]);
    }

    #[test]
    fn with_its_momentum_put_back_the_next_step_is_the_same_to_the_bit() {
        let name = "w".to_owned();
        let mut tensor = start();
        let mut sgd = Sgd::new(0.9, [(&name, &tensor)].into_iter());
        let how = Move { rate: 0.1, decay: 0.01 };
        sgd.step("w", &mut tensor, &start(), how);
        let mut again = Sgd::new(0.9, [(&name, &tensor)].into_iter());
        again.restore(&sgd.tensors().expect("numbers")).expect("its own");
        let mut other = tensor.copy();
        sgd.step("w", &mut tensor, &start(), how);
        again.step("w", &mut other, &start(), how);
        assert!(tensor.equal(&other));
        let wrong = Tensors::from([("v".to_owned(), plain(&tensor).expect("numbers"))]);
        let error = sgd.restore(&wrong).expect_err("another's").to_string();
        assert!(error.contains("w is missing") && error.contains("v is extra"), "{error}");
    }
}
