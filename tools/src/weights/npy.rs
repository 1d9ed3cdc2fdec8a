//! Reads NumPy files that hold one pickled dictionary of lists of arrays, the form of
//! MTCNN's weights.

use super::pickle::{Id, Node, Pickle, PickleError};
use super::{Budget, Tensor, WeightsError, element_count, f32_values, is_weights};
use std::collections::BTreeMap;

const FORMAT: &str = "a NumPy file of an object array";

/// Lists of arrays by name.
pub type Lists = BTreeMap<String, Vec<Tensor>>;

/// Reads a `.npy` file of version 1 to 3 with a scalar object array that holds
/// `{name: [array, ...]}`. Fails if the file is damaged or an array is not little-endian
/// f4.
pub fn read_lists(bytes: &[u8]) -> Result<Lists, WeightsError> {
    is_weights(FORMAT, bytes, &["a NumPy file"])?;
    let payload = object_payload(bytes)?;
    let pickle = Pickle::read(payload).map_err(|error| named(payload, error))?;
    let broken = |reason: &str| WeightsError::format(FORMAT, reason);
    // The state of an object array ends with the list of its elements; a scalar has one.
    let root = array_state(&pickle, pickle.root())
        .or_else(|| pickle.members(pickle.root()))
        .and_then(|state| state.last())
        .and_then(|list| pickle.members(*list))
        .and_then(|elements| elements.first().copied())
        .unwrap_or(pickle.root());
    let entries = pickle.entries(root).ok_or_else(|| broken("it holds no dictionary"))?;
    let mut lists = Lists::new();
    let mut budget = Budget::new();
    for (key, list) in entries {
        let name = pickle.text(*key).ok_or_else(|| broken("a name is not a string"))?;
        let members = pickle
            .members(*list)
            .ok_or_else(|| broken(&format!("{name} is not a list of arrays")))?;
        let tensors = members
            .iter()
            .enumerate()
            .map(|(index, id)| array(&pickle, *id, &format!("{name}[{index}]"), &mut budget))
            .collect::<Result<_, _>>()?;
        lists.insert(name.to_owned(), tensors);
    }
    Ok(lists)
}

/// For a pickle that is cut short: an error that names the first incomplete array.
fn named(payload: &[u8], error: PickleError) -> WeightsError {
    let PickleError::Short { .. } = error else { return error.into() };
    let (pickle, open) = Pickle::remains(payload);
    // Finds the last name that is followed by a list. Arrays that have not been put into
    // the list yet come after it.
    let list = (1..open.len()).rev().find_map(|at| {
        let name = pickle.text(open[at - 1])?;
        let Node::List(members) = pickle.node(open[at]) else { return None };
        let waiting = open[at + 1..].iter().filter(|id| array_state(&pickle, **id).is_some());
        Some((name, members.len() + waiting.count()))
    });
    match list {
        Some((name, index)) => WeightsError::Missing { name: format!("{name}[{index}]") },
        None => error.into(),
    }
}

fn object_payload(bytes: &[u8]) -> Result<&[u8], WeightsError> {
    let broken = |reason: &str| WeightsError::format(FORMAT, reason);
    let rest =
        bytes.strip_prefix(b"\x93NUMPY").ok_or_else(|| broken("the magic bytes are missing"))?;
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => return Err(broken("the header is cut short or of another version")),
    };
    if rest.len() < length {
        return Err(broken("the header is cut short"));
    }
    let (header, payload) = rest.split_at(length);
    let header = String::from_utf8_lossy(header);
    if !header.contains("'|O'") {
        return Err(broken("its elements are not objects"));
    }
    Ok(payload)
}

/// The state of `_reconstruct(...)`: version, shape, dtype, Fortran order, data.
fn array_state<'p>(pickle: &'p Pickle<'_>, id: Id) -> Option<&'p [Id]> {
    let (_, "_reconstruct") = pickle.called(id)? else { return None };
    match pickle.node(id) {
        Node::Call { state: Some(state), .. } => pickle.members(*state),
        _ => None,
    }
}

fn array(
    pickle: &Pickle<'_>,
    id: Id,
    name: &str,
    budget: &mut Budget,
) -> Result<Tensor, WeightsError> {
    let broken = |reason: &str| WeightsError::format(FORMAT, format!("{name} {reason}"));
    let state = array_state(pickle, id).ok_or_else(|| broken("is not an array"))?;
    let [_, shape, dtype, fortran, data] = *state else {
        return Err(broken("does not have the state of an array"));
    };
    let shape: Vec<usize> = pickle
        .members(shape)
        .and_then(|sides| sides.iter().map(|side| pickle.index(*side)).collect())
        .ok_or_else(|| broken("has no shape"))?;
    let kind = pickle
        .arguments(dtype)
        .and_then(|arguments| pickle.text(*arguments.first()?))
        .ok_or_else(|| broken("has no element type"))?;
    let big_endian = match pickle.node(dtype) {
        Node::Call { state: Some(state), .. } => pickle
            .members(*state)
            .and_then(|state| pickle.text(*state.get(1)?))
            .is_some_and(|order| order == ">"),
        _ => false,
    };
    if kind != "f4" || big_endian {
        return Err(broken(&format!("holds {kind}, expected little-endian f4")));
    }
    let bytes = raw(pickle, data).ok_or_else(|| broken("has no data"))?;
    let count = element_count(&shape).ok_or_else(|| broken("has a shape that is too large"))?;
    let need = count.saturating_mul(4);
    if bytes.len() < need {
        return Err(WeightsError::Truncated { name: name.to_owned(), need, got: bytes.len() });
    }
    budget.spend(FORMAT, name, count)?;
    let values = f32_values(&bytes[..need]);
    let tensor = Tensor { shape, values };
    Ok(match pickle.node(fortran) {
        // Column-major is row-major of the reversed axes.
        Node::Bool(true) => {
            let mut reversed = tensor.shape.clone();
            reversed.reverse();
            let order: Vec<usize> = (0..reversed.len()).rev().collect();
            Tensor { shape: reversed, values: tensor.values }.permuted(&order)
        }
        _ => tensor,
    })
}

/// Bytes as they are, or as `_codecs.encode(text, "latin1")`, which Python 3 writes for
/// readers of protocol 2.
fn raw<'a>(pickle: &Pickle<'a>, id: Id) -> Option<std::borrow::Cow<'a, [u8]>> {
    if let Some(bytes) = pickle.bytes(id) {
        return Some(bytes.into());
    }
    let [text, encoding] = *pickle.arguments(id)? else { return None };
    if pickle.called(id)? != ("_codecs", "encode") || pickle.text(encoding)? != "latin1" {
        return None;
    }
    let bytes: Option<Vec<u8>> =
        pickle.text(text)?.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect();
    Some(bytes?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `numpy.save(f, {"net": [numpy.array([[1, 2, 3]], "f4")]}, allow_pickle=True)`,
    /// protocol 2.
    fn file() -> Vec<u8> {
        let header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }\n";
        let mut bytes = b"\x93NUMPY\x01\0".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header);
        bytes.extend(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01)cnumpy\ndtype\nU\x02O8K\0K\x01\x87R\x89]}U\x03net]");
        bytes.extend(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01K\x01K\x03\x86cnumpy\ndtype\nU\x02f4K\0K\x01\x87R(K\x03U\x01<NNNtb\x89U\x0c");
        for value in [1f32, 2.0, 3.0] {
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend(b"tbasatb.");
        bytes
    }

    #[test]
    fn reads_arrays_out_of_a_pickled_dictionary() {
        let lists = read_lists(&file()).expect("a file");
        assert_eq!(lists["net"], [Tensor { shape: vec![1, 3], values: vec![1.0, 2.0, 3.0] }]);
    }

    #[test]
    fn a_file_cut_short_names_the_array() {
        let file = file();
        for cut in [file.len() - 10, file.len() - 30] {
            let message = read_lists(&file[..cut]).expect_err("cut short").to_string();
            assert!(message.contains("net[0] is missing"), "{message}");
        }
    }

    #[test]
    fn another_file_is_named_as_such() {
        let message = read_lists(b"PK\x03\x04").expect_err("a zip").to_string();
        assert!(message.contains("a zip archive"), "{message}");
        let message = read_lists(&[0x80, 2]).expect_err("a pickle").to_string();
        assert!(message.contains("magic bytes"), "{message}");
    }

    proptest! {
        #[test]
        fn damage_is_an_error_or_harmless(at in 0usize..400, byte in any::<u8>(), cut in 0usize..400) {
            let mut bytes = file();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = read_lists(&bytes);
            bytes.truncate(cut);
            let _ = read_lists(&bytes);
        }
    }
}
