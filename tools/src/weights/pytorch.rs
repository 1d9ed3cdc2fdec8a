//! Reads PyTorch state dicts: `.pth` files in the zip format and in the older one.

use super::pickle::{Id, Node, Pickle};
use super::{
    Budget, Tensor, Tensors, WeightsError, bf16_values, element_count, f16_values, f32_values,
    is_weights,
};
use std::collections::HashMap;
use std::io::{Cursor, Read};
use zip::ZipArchive;

const FORMAT: &str = "a PyTorch state dict";
/// The first value of a file in the old format.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// Keys under which training scripts keep the state dict.
const NESTED: [&str; 4] = ["state_dict", "model", "net", "model_state_dict"];
/// Size limit of all entries of an archive together, bytes. No face network has more.
const MAX_ARCHIVE: u64 = 1 << 29;
/// Size limit of the pickle among them, which holds only names and shapes, bytes.
const MAX_PICKLE: u64 = 1 << 26;

/// Reads a state dict as f32. Integer tensors (counters of batch normalization) are
/// skipped, and the prefix `module.`, which parallel training adds, is removed. Fails if
/// the file is damaged, cut short or refers to anything but tensors.
pub fn read(bytes: &[u8]) -> Result<Tensors, WeightsError> {
    is_weights(FORMAT, bytes, &["a zip archive"])?;
    if bytes.starts_with(b"PK\x03\x04") { read_zip(bytes) } else { read_legacy(bytes) }
}

/// Bytes of the storages, by key.
type Storages<'a> = HashMap<String, std::borrow::Cow<'a, [u8]>>;

fn broken(reason: impl Into<String>) -> WeightsError {
    WeightsError::format(FORMAT, reason)
}

fn read_zip(bytes: &[u8]) -> Result<Tensors, WeightsError> {
    let (entries, fault) = match ZipArchive::new(Cursor::new(bytes)) {
        Ok(archive) => (listed(archive)?, None),
        // An archive has its list of entries at the end. If it is cut short, the entries
        // before the cut still show which tensor is the first one missing.
        Err(error) => (in_order(bytes), Some(error.to_string())),
    };
    let entry = |name: &str| entries.iter().find(|(entry, _)| entry == name).map(|(_, b)| b);
    let damaged = |fault: &Option<String>| {
        let fault = fault.as_deref().unwrap_or("it holds no data.pkl");
        broken(format!("the archive is damaged or cut short: {fault}"))
    };
    let Some((pickle_name, pickled)) =
        entries.iter().find(|(name, _)| name == "data.pkl" || name.ends_with("/data.pkl"))
    else {
        return Err(match &fault {
            Some(_) => damaged(&fault),
            None => other_archive(&entries),
        });
    };
    if entries.iter().any(|(name, _)| name.ends_with("/constants.pkl")) {
        return Err(WeightsError::Unsupported(
            "this is a TorchScript program, not a state dict; save the weights with \
             torch.save(torch.jit.load(FILE).state_dict(), \"weights.pth\")"
                .to_owned(),
        ));
    }
    let folder = pickle_name.trim_end_matches("data.pkl");
    if entry(&format!("{folder}byteorder")).is_some_and(|order| order != b"little") {
        return Err(broken("its numbers are big-endian"));
    }
    let pickle = Pickle::read(pickled)?;
    let mut storages = Storages::new();
    for (name, content) in &entries {
        if let Some(key) = name.strip_prefix(&format!("{folder}data/")) {
            storages.insert(key.to_owned(), content.as_slice().into());
        }
    }
    let tensors = state_dict(&pickle, &storages)?;
    // Every entry is readable, but without its list the archive is not what was saved.
    if fault.is_some() { Err(damaged(&fault)) } else { Ok(tensors) }
}

/// Names an archive that PyTorch did not write.
fn other_archive(entries: &[(String, Vec<u8>)]) -> WeightsError {
    let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    let weights = names.iter().find(|name| {
        [".pth", ".pt", ".ckpt", ".safetensors", ".bin"].iter().any(|end| name.ends_with(end))
    });
    WeightsError::Unsupported(match (weights, names.first()) {
        (Some(weights), _) => {
            format!("this is a zip archive with {weights} in it; unpack it and name that file")
        }
        (None, Some(first)) => format!(
            "this is a zip archive of {} other files, such as {first}, not {FORMAT}; name a .pth \
             file",
            names.len()
        ),
        (None, None) => "this is an empty zip archive; fetch the file again".to_owned(),
    })
}

/// Name and content of every entry.
fn listed(mut archive: ZipArchive<Cursor<&[u8]>>) -> Result<Vec<(String, Vec<u8>)>, WeightsError> {
    let mut entries = Vec::new();
    let mut left = MAX_ARCHIVE;
    for index in 0..archive.len() {
        let file = archive.by_index(index).map_err(|error| broken(error.to_string()))?;
        let name = file.name().map_err(|error| broken(error.to_string()))?.into_owned();
        let content =
            content(file, &name, left).map_err(|error| broken(format!("{name}: {error}")))?;
        left -= content.len() as u64;
        entries.push((name, content));
    }
    Ok(entries)
}

/// The entries up to the first incomplete one (APPNOTE.TXT, sections 4.3.7 and 4.3.9).
/// Only stored entries are read; PyTorch writes no others.
fn in_order(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while let Some((name, content, after)) = stored_entry(rest) {
        entries.push((name, content.to_vec()));
        rest = after;
    }
    entries
}

/// One stored entry, and the bytes after it.
fn stored_entry(bytes: &[u8]) -> Option<(String, &[u8], &[u8])> {
    const HEADER: usize = 30;
    const DESCRIPTOR: &[u8] = b"PK\x07\x08";
    let header = bytes.get(..HEADER)?.strip_prefix(b"PK\x03\x04")?;
    // After the signature: flags at 2, method at 4, size at 14, lengths of name and extra
    // field at 22 and 24.
    let short = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let (flags, method, name, extra) = (short(2), short(4), short(22), short(24));
    if method != 0 {
        return None;
    }
    let data = bytes.get(HEADER + name + extra..)?;
    let name = String::from_utf8_lossy(bytes.get(HEADER..HEADER + name)?).into_owned();
    if flags & 8 == 0 {
        let size = short(14) | short(16) << 16;
        return Some((name, data.get(..size)?, &data[size..]));
    }
    // The size follows the data, as 4 or 8 bytes after signature and checksum. If the
    // signature is only part of the data, the size does not fit.
    let signatures = data.windows(4).enumerate().filter(|(_, four)| *four == DESCRIPTOR);
    for (size, _) in signatures {
        let tail = &data[size..];
        for (length, end) in [(8, 24), (4, 16)] {
            let Some(field) = tail.get(8..8 + length) else { continue };
            let told = field.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
            let Some(after) = tail.get(end..) else { continue };
            if told == size as u64 && (after.is_empty() || after.starts_with(b"PK")) {
                return Some((name, &data[..size], after));
            }
        }
    }
    None
}

/// Unpacks an entry of at most the permitted size.
fn content(file: impl Read, name: &str, left: u64) -> Result<Vec<u8>, std::io::Error> {
    let most = if name.ends_with("data.pkl") { left.min(MAX_PICKLE) } else { left };
    let mut content = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        return Err(std::io::Error::other("more bytes than a face network has"));
    }
    Ok(content)
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
        return Err(broken("its protocol is not 1001"));
    }
    // Skips the sizes of C types, which the storages' own types make redundant.
    next()?;
    let object = next()?;
    let keys = next()?;
    let element_sizes = storage_sizes(&object);
    let names = storage_names(&object);
    let mut storages = Storages::new();
    let mut rest = &bytes[at..];
    for id in keys.members(keys.root()).ok_or_else(|| broken("the list of storages is missing"))? {
        let key = keys.text(*id).ok_or_else(|| broken("a storage has no name"))?;
        // Storages have only numbers, so an error names the tensor in it.
        let name = names.get(key).cloned().unwrap_or_else(|| format!("storage {key}"));
        let truncated = |need, got| WeightsError::Truncated { name: name.clone(), need, got };
        let Some((count, after)) = rest.split_first_chunk::<8>() else {
            return Err(truncated(8, rest.len()));
        };
        let size = element_sizes.get(key).copied().unwrap_or(4);
        let need = usize::try_from(u64::from_le_bytes(*count))
            .ok()
            .and_then(|count| count.checked_mul(size))
            .ok_or_else(|| broken(format!("storage {key} is too large")))?;
        if after.len() < need {
            return Err(truncated(need, after.len()));
        }
        let (data, after) = after.split_at(need);
        storages.insert(key.to_owned(), data.into());
        rest = after;
    }
    if !rest.is_empty() {
        return Err(broken(format!("{} bytes follow its last storage", rest.len())));
    }
    state_dict(&object, &storages)
}

/// Bytes per element of every storage in the pickle. An optimizer's storages are
/// included, because they lie between those that matter.
fn storage_sizes(pickle: &Pickle<'_>) -> HashMap<String, usize> {
    (0..pickle.nodes().len())
        .filter_map(|id| storage(pickle, id))
        .map(|(key, kind)| (key.to_owned(), element_size(kind)))
        .collect()
}

/// Name of the tensor in each storage of the state dict, by key.
fn storage_names(pickle: &Pickle<'_>) -> HashMap<String, String> {
    let entries = find_state_dict(pickle).unwrap_or_default();
    entries
        .iter()
        .filter_map(|(key, value)| {
            let (storage, _) = storage(pickle, storage_id(pickle, *value)?)?;
            Some((storage.to_owned(), pickle.text(*key)?.to_owned()))
        })
        .collect()
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

/// Names the dictionaries of tensors below the top level.
fn dictionaries(pickle: &Pickle<'_>) -> Option<WeightsError> {
    /// Levels that are looked into, and dictionaries in all. A pickle may contain itself.
    const DEPTH: usize = 3;
    const MOST: usize = 200;
    let mut found = Vec::new();
    let mut open = vec![(Vec::new(), pickle.entries(pickle.root())?)];
    let mut next = 0;
    while let Some((path, entries)) = open.get(next).cloned() {
        next += 1;
        let tensors =
            entries.iter().filter(|(_, value)| tensor_arguments(pickle, *value).is_some()).count();
        if tensors > 0 {
            found.push((path, tensors));
            continue;
        }
        for (key, value) in entries.iter().take(MOST) {
            let inner = pickle.text(*key).zip(pickle.entries(*value));
            if let Some((key, inner)) = inner.filter(|_| path.len() < DEPTH && open.len() < MOST) {
                open.push(([&path[..], &[key]].concat(), inner));
            }
        }
    }
    let keys: String = found.first()?.0.iter().map(|key| format!("[{key:?}]")).collect();
    let found: Vec<String> = found
        .iter()
        .map(|(path, tensors)| format!("{} ({tensors} tensors)", path.join(".")))
        .collect();
    Some(WeightsError::Unsupported(format!(
        "holds dictionaries under: {}; save the one with the network alone, for example with \
         torch.save(torch.load(FILE){keys}, \"weights.pth\")",
        found.join("; ")
    )))
}

fn state_dict(pickle: &Pickle<'_>, storages: &Storages<'_>) -> Result<Tensors, WeightsError> {
    let entries = find_state_dict(pickle).ok_or_else(|| broken("it holds no dictionary"))?;
    let is_tensor = |(_, value): &(Id, Id)| tensor_arguments(pickle, *value).is_some();
    if !entries.iter().any(is_tensor)
        && let Some(elsewhere) = dictionaries(pickle)
    {
        return Err(elsewhere);
    }
    let mut tensors = Tensors::new();
    let mut budget = Budget::new();
    for (key, value) in entries {
        let name = pickle.text(*key).ok_or_else(|| broken("a tensor has no name"))?;
        if let Some(tensor) = tensor(pickle, *value, name, storages, &mut budget)? {
            let name = name.strip_prefix("module.").unwrap_or(name);
            tensors.insert(name.to_owned(), tensor);
        }
    }
    Ok(tensors)
}

/// Arguments of the call that rebuilds a tensor, also if a parameter wraps it.
fn tensor_arguments<'p>(pickle: &'p Pickle<'_>, id: Id) -> Option<&'p [Id]> {
    let arguments = pickle.arguments(id)?;
    match pickle.called(id)?.1 {
        "_rebuild_tensor_v2" | "_rebuild_tensor" => Some(arguments),
        "_rebuild_parameter" => {
            let inner = *arguments.first()?;
            // One level is enough, because parameters are not nested.
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
    budget: &mut Budget,
) -> Result<Option<Tensor>, WeightsError> {
    let fault = |reason: &str| broken(format!("{name} {reason}"));
    let arguments = tensor_arguments(pickle, id).ok_or_else(|| fault("is not a tensor"))?;
    let [storage_id, offset, shape, strides, ..] = *arguments else {
        return Err(fault("is not a tensor"));
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
    if shape.len() != strides.len() {
        return Err(fault("has strides that do not fit its shape"));
    }
    let count = element_count(&shape).ok_or_else(|| fault("has a shape that is too large"))?;
    let last = shape.iter().zip(&strides).try_fold(offset, |at, (side, stride)| {
        side.saturating_sub(1).checked_mul(*stride).and_then(|step| at.checked_add(step))
    });
    let size = element_size(kind);
    let held = bytes.len() / size;
    // Compares counts too, because a stride of zero would let a small file claim any
    // number of elements.
    let end = match last {
        _ if count == 0 => offset.min(held),
        Some(last) if last < held && count <= held => last + 1,
        _ => {
            let need = last.unwrap_or(usize::MAX).saturating_add(1).max(count);
            let (name, need) = (name.to_owned(), need.saturating_mul(size));
            return Err(WeightsError::Truncated { name, need, got: bytes.len() });
        }
    };
    let offset = offset.min(end);
    // More may be decoded than is kept.
    budget.spend(FORMAT, name, count.max(end - offset))?;
    let bytes = &bytes[offset * size..end * size];
    let values = match kind {
        "FloatStorage" => f32_values(bytes),
        "HalfStorage" => f16_values(bytes),
        "BFloat16Storage" => bf16_values(bytes),
        "DoubleStorage" => {
            bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect()
        }
        _ => return Ok(None),
    };
    let mut out = Vec::with_capacity(count);
    let mut position = vec![0; shape.len()];
    for _ in 0..count {
        let at: usize = position.iter().zip(&strides).map(|(p, stride)| p * stride).sum();
        out.push(values[at]);
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
