//! Between plain numbers and torch.

use crate::weights::Tensor as Weights;
use anyhow::Result;
use tch::{Device, Kind, Tensor};

/// A torch tensor as plain numbers.
pub(crate) fn plain(tensor: &Tensor) -> Result<Weights> {
    let shape = tensor.size().iter().map(|side| *side as usize).collect();
    let flat = tensor.detach().to_device(Device::Cpu).contiguous().flatten(0, -1);
    Ok(Weights { shape, values: Vec::try_from(flat)? })
}

/// Plain numbers as a torch tensor, on the CPU.
pub(crate) fn torch(tensor: &Weights) -> Tensor {
    let shape: Vec<i64> = tensor.shape.iter().map(|side| *side as i64).collect();
    Tensor::from_slice(&tensor.values).view(&shape[..])
}

/// Scales each row to length one.
pub fn unit_rows(rows: &Tensor) -> Tensor {
    let length = rows.square().sum_dim_intlist([-1].as_slice(), true, Kind::Float).sqrt();
    rows / length.clamp_min(1e-12)
}
