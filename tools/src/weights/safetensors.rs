//! `.safetensors` files.

use super::{Tensor, Tensors, WeightsError, bf16_values, f16_values, f32_values};
use safetensors::{Dtype, SafeTensors};

const FORMAT: &str = "a safetensors file";

/// Reads all floating tensors; integer ones (counters) are left out.
pub fn read(bytes: &[u8]) -> Result<Tensors, WeightsError> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| WeightsError::format(FORMAT, error.to_string()))?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        let values = match view.dtype() {
            Dtype::F32 => f32_values(view.data()),
            Dtype::F16 => f16_values(view.data()),
            Dtype::BF16 => bf16_values(view.data()),
            _ => continue,
        };
        let name = name.strip_prefix("module.").unwrap_or(name);
        tensors.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), values });
    }
    Ok(tensors)
}
