//! Reads and writes `.safetensors` files.

use super::{Tensor, Tensors, WeightsError, bf16_values, f16_values, f32_values, is_weights};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;

const FORMAT: &str = "a safetensors file";

/// Reads all floating-point tensors as f32. Integer tensors (counters) are skipped, and
/// the prefix `module.` is removed.
pub fn read(bytes: &[u8]) -> Result<Tensors, WeightsError> {
    is_weights(FORMAT, bytes, &[FORMAT])?;
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

/// Writes all tensors as f32, with texts as metadata. The same tensors give the same
/// bytes.
pub fn write(
    tensors: &Tensors,
    texts: Option<HashMap<String, String>>,
) -> Result<Vec<u8>, WeightsError> {
    let faulty = |error: safetensors::SafeTensorError| {
        WeightsError::format(FORMAT, format!("cannot be written: {error}"))
    };
    let bytes: Vec<(&String, &[usize], Vec<u8>)> = tensors
        .iter()
        .map(|(name, Tensor { shape, values })| {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (name, shape.as_slice(), bytes)
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| {
            Ok((*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).map_err(faulty)?))
        })
        .collect::<Result<Vec<_>, WeightsError>>()?;
    safetensors::serialize(views, texts).map_err(faulty)
}

/// Reads the texts in the metadata.
pub fn texts(bytes: &[u8]) -> Result<HashMap<String, String>, WeightsError> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|error| WeightsError::format(FORMAT, error.to_string()))?;
    Ok(metadata.metadata().clone().unwrap_or_default())
}

/// If the file is cut short: the first tensor, in file order, that is incomplete.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_and_texts_are_read_as_they_were_written() {
        let tensor = |values: &[f32]| Tensor::new(vec![values.len()], values.to_vec());
        let tensors = Tensors::from([
            ("b".to_owned(), tensor(&[1.5, -0.0]).expect("two")),
            ("a".to_owned(), tensor(&[f32::MIN_POSITIVE, 3e38, 0.1]).expect("three")),
        ]);
        let given = HashMap::from([("state".to_owned(), "{\"epoch\":3}".to_owned())]);
        let bytes = write(&tensors, Some(given.clone())).expect("written");
        assert_eq!(read(&bytes).expect("tensors"), tensors);
        assert_eq!(texts(&bytes).expect("texts"), given);
        assert_eq!(write(&tensors, Some(given)).expect("written"), bytes);
    }
}
