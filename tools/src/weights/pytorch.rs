//! PyTorch state dicts: `.pth` files, the zip format and the one before it.

use super::pickle::{Id, Node, Pickle};
use super::{Tensor, Tensors, WeightsError, bf16_values, element_count, f16_values, f32_values};
use std::collections::HashMap;
use std::io::{Cursor, Read};
use zip::ZipArchive;

const FORMAT: &str = "a PyTorch state dict";
/// First value of the old format.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// Keys under which training scripts keep the state dict among other things.
const NESTED: [&str; 4] = ["state_dict", "model", "net", "model_state_dict"];
/// A zip entry larger than this is no face network.
const MAX_ENTRY: u64 = 1 << 30;

/// Reads a state dict. Integer tensors (counters of batch normalization) are
/// left out, and so is the prefix `module.` that parallel training adds.
pub fn read(bytes: &[u8]) -> Result<Tensors, WeightsError> {
    if bytes.starts_with(b"PK\x03\x04") { read_zip(bytes) } else { read_legacy(bytes) }
}

/// Storages by key.
type Storages<'a> = HashMap<String, std::borrow::Cow<'a, [u8]>>;

fn broken(reason: impl Into<String>) -> WeightsError {
    WeightsError::format(FORMAT, reason)
}

fn read_zip(bytes: &[u8]) -> Result<Tensors, WeightsError> {
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|error| broken(error.to_string()))?;
    let names: Vec<String> =
        archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let pickle_name = names
        .iter()
        .find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"))
        .ok_or_else(|| broken("the archive holds no data.pkl"))?;
    let folder = pickle_name.trim_end_matches("data.pkl").to_owned();
    let mut entry = |name: &str| -> Result<Vec<u8>, WeightsError> {
        let file = archive.by_name(name).map_err(|error| broken(format!("{name}: {error}")))?;
        if file.size() > MAX_ENTRY {
            return Err(broken(format!("{name} has {} bytes", file.size())));
        }
        let mut content = Vec::new();
        file.take(MAX_ENTRY)
            .read_to_end(&mut content)
            .map_err(|error| broken(format!("{name}: {error}")))?;
        Ok(content)
    };
    if names.contains(&format!("{folder}byteorder"))
        && entry(&format!("{folder}byteorder"))? != b"little"
    {
        return Err(broken("its numbers are big-endian"));
    }
    let pickled = entry(pickle_name)?;
    let pickle = Pickle::read(&pickled)?;
    let mut storages = Storages::new();
    for name in &names {
        if let Some(key) = name.strip_prefix(&format!("{folder}data/")) {
            storages.insert(key.to_owned(), entry(name)?.into());
        }
    }
    state_dict(&pickle, &storages)
}

fn read_legacy(bytes: &[u8]) -> Result<Tensors, WeightsError> {
    let mut at = 0;
    let mut next = || -> Result<Pickle<'_>, WeightsError> {
        let pickle = Pickle::read(&bytes[at..])?;
        at += pickle.length();
        Ok(pickle)
    };
    let magic = next()?;
    if magic.bytes(magic.root()) != Some(&LEGACY_MAGIC) {
        return Err(broken("the magic number is missing"));
    }
    let protocol = next()?;
    if protocol.index(protocol.root()) != Some(1001) {
        return Err(broken("it has another protocol than 1001"));
    }
    // Sizes of C types, which the storages' own types make redundant.
    next()?;
    let object = next()?;
    let keys = next()?;
    let element_sizes = storage_sizes(&object);
    let mut storages = Storages::new();
    let mut rest = &bytes[at..];
    for id in keys.members(keys.root()).ok_or_else(|| broken("the list of storages is missing"))? {
        let key = keys.text(*id).ok_or_else(|| broken("a storage has no name"))?;
        let truncated =
            |need, got| WeightsError::Truncated { name: format!("storage {key}"), need, got };
        let Some((count, after)) = rest.split_first_chunk::<8>() else {
            return Err(truncated(8, rest.len()));
        };
        let size = element_sizes.get(key).copied().unwrap_or(4);
        let need = usize::try_from(u64::from_le_bytes(*count))
            .ok()
            .and_then(|count| count.checked_mul(size))
            .ok_or_else(|| broken(format!("storage {key} is beyond counting")))?;
        if after.len() < need {
            return Err(truncated(need, after.len()));
        }
        let (data, after) = after.split_at(need);
        storages.insert(key.to_owned(), data.into());
        rest = after;
    }
    state_dict(&object, &storages)
}

/// Bytes an element of each storage takes, as far as tensors of `pickle` name it.
fn storage_sizes(pickle: &Pickle<'_>) -> HashMap<String, usize> {
    let mut sizes = HashMap::new();
    let Some(entries) = find_state_dict(pickle) else { return sizes };
    for (_, value) in entries {
        if let Some((key, kind)) = storage_id(pickle, *value).and_then(|id| storage(pickle, id)) {
            sizes.insert(key.to_owned(), element_size(kind));
        }
    }
    sizes
}

fn element_size(kind: &str) -> usize {
    match kind {
        "DoubleStorage" | "LongStorage" => 8,
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => 2,
        "CharStorage" | "ByteStorage" | "BoolStorage" => 1,
        _ => 4,
    }
}

fn find_state_dict<'p>(pickle: &'p Pickle<'_>) -> Option<&'p [(Id, Id)]> {
    let entries = pickle.entries(pickle.root())?;
    let nested = entries.iter().find(|(key, value)| {
        pickle.text(*key).is_some_and(|key| NESTED.contains(&key))
            && pickle.entries(*value).is_some()
    });
    match nested {
        Some((_, value)) => pickle.entries(*value),
        None => Some(entries),
    }
}

fn state_dict(pickle: &Pickle<'_>, storages: &Storages<'_>) -> Result<Tensors, WeightsError> {
    let entries = find_state_dict(pickle).ok_or_else(|| broken("it holds no dictionary"))?;
    let mut tensors = Tensors::new();
    for (key, value) in entries {
        let name = pickle.text(*key).ok_or_else(|| broken("a tensor has no name"))?;
        if let Some(tensor) = tensor(pickle, *value, name, storages)? {
            let name = name.strip_prefix("module.").unwrap_or(name);
            tensors.insert(name.to_owned(), tensor);
        }
    }
    Ok(tensors)
}

/// Arguments of the tensor behind a value, a parameter unwrapped.
fn tensor_arguments<'p>(pickle: &'p Pickle<'_>, id: Id) -> Option<&'p [Id]> {
    let arguments = pickle.arguments(id)?;
    match pickle.called(id)?.1 {
        "_rebuild_tensor_v2" | "_rebuild_tensor" => Some(arguments),
        "_rebuild_parameter" => {
            let inner = *arguments.first()?;
            // One level: a parameter of a parameter does not exist.
            (pickle.called(inner)?.1.starts_with("_rebuild_tensor"))
                .then(|| pickle.arguments(inner))?
        }
        _ => None,
    }
}

fn storage_id(pickle: &Pickle<'_>, id: Id) -> Option<Id> {
    tensor_arguments(pickle, id)?.first().copied()
}

/// Key and type of a storage: `("storage", type, key, location, count)`.
fn storage<'a>(pickle: &Pickle<'a>, id: Id) -> Option<(&'a str, &'static str)> {
    let Node::Persistent(reference) = pickle.node(id) else { return None };
    let reference = pickle.members(*reference)?;
    Some((pickle.text(*reference.get(2)?)?, pickle.global(*reference.get(1)?)?.1))
}

fn tensor(
    pickle: &Pickle<'_>,
    id: Id,
    name: &str,
    storages: &Storages<'_>,
) -> Result<Option<Tensor>, WeightsError> {
    let fault = |reason: &str| broken(format!("{name} {reason}"));
    let arguments = tensor_arguments(pickle, id).ok_or_else(|| fault("is no tensor"))?;
    let [storage_id, offset, shape, strides, ..] = *arguments else {
        return Err(fault("is no tensor"));
    };
    let (key, kind) = storage(pickle, storage_id).ok_or_else(|| fault("has no storage"))?;
    let indices = |id| -> Option<Vec<usize>> {
        pickle.members(id)?.iter().map(|side| pickle.index(*side)).collect()
    };
    let offset = pickle.index(offset).ok_or_else(|| fault("has no offset"))?;
    let shape = indices(shape).ok_or_else(|| fault("has no shape"))?;
    let strides = indices(strides).ok_or_else(|| fault("has no strides"))?;
    let bytes = storages
        .get(key)
        .ok_or_else(|| fault(&format!("needs storage {key}, which is missing")))?;
    let values = match kind {
        "FloatStorage" => f32_values(bytes),
        "HalfStorage" => f16_values(bytes),
        "BFloat16Storage" => bf16_values(bytes),
        "DoubleStorage" => bytes
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
            .collect(),
        _ => return Ok(None),
    };
    if shape.len() != strides.len() {
        return Err(fault("has as many strides as no shape"));
    }
    let count = element_count(&shape).ok_or_else(|| fault("has a shape beyond counting"))?;
    let last = shape.iter().zip(&strides).try_fold(offset, |at, (side, stride)| {
        side.saturating_sub(1).checked_mul(*stride).and_then(|step| at.checked_add(step))
    });
    // A stride of zero would let a small file claim any number of elements.
    if count > values.len() || (count > 0 && last.is_none_or(|last| last >= values.len())) {
        let need = last
            .unwrap_or(usize::MAX)
            .saturating_add(1)
            .max(count)
            .saturating_mul(element_size(kind));
        return Err(WeightsError::Truncated { name: name.to_owned(), need, got: bytes.len() });
    }
    let mut out = Vec::with_capacity(count);
    let mut position = vec![0; shape.len()];
    for _ in 0..count {
        let at: usize = position.iter().zip(&strides).map(|(p, stride)| p * stride).sum();
        out.push(values[offset + at]);
        for axis in (0..shape.len()).rev() {
            position[axis] += 1;
            if position[axis] < shape[axis] {
                break;
            }
            position[axis] = 0;
        }
    }
    Ok(Some(Tensor { shape, values: out }))
}
