//! `.safetensors` files.

use super::{Tensor, Tensors, WeightsError, bf16_values, f16_values, f32_values};
use safetensors::{Dtype, SafeTensors};

const FORMAT: &str = "a safetensors file";

/// Reads all floating tensors; integer ones (counters) are left out.
pub fn read(bytes: &[u8]) -> Result<Tensors, WeightsError> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| {
        first_cut(bytes).unwrap_or_else(|| WeightsError::format(FORMAT, error.to_string()))
    })?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        let values = match view.dtype() {
            Dtype::F32 => f32_values(view.data()),
            Dtype::F16 => f16_values(view.data()),
            Dtype::BF16 => bf16_values(view.data()),
            Dtype::F64 => {
                let (values, _) = view.data().as_chunks();
                values.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect()
            }
            _ => continue,
        };
        let name = name.strip_prefix("module.").unwrap_or(name);
        tensors.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), values });
    }
    Ok(tensors)
}

/// The first tensor, by its place, that the file ends before, if that is what is
/// wrong with it.
fn first_cut(bytes: &[u8]) -> Option<WeightsError> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let header = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let got = rest.len() - header.len();
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let (begin, end, name) = header
        .iter()
        .filter_map(|(name, entry)| {
            let offsets = entry.get("data_offsets")?;
            Some((offsets.get(0)?.as_u64()? as usize, offsets.get(1)?.as_u64()? as usize, name))
        })
        .filter(|(_, end, _)| *end > got)
        .min()?;
    let need = end.saturating_sub(begin);
    Some(WeightsError::Truncated { name: name.clone(), need, got: got.saturating_sub(begin) })
}
