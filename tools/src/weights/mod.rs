//! Reads trained weights from several formats, as named tensors.

pub mod ncnn;
pub mod npy;
pub mod openvino;
pub mod pickle;
pub mod pytorch;
pub mod safetensors;

use facelatch::files::{self, Class};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// A tensor of f32, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// All values, in row-major order.
    pub values: Vec<f32>,
}

impl Tensor {
    /// A tensor, or `None` if the number of values does not fit the shape.
    pub fn new(shape: Vec<usize>, values: Vec<f32>) -> Option<Self> {
        (element_count(&shape)? == values.len()).then_some(Self { shape, values })
    }

    /// A copy with permuted axes: its axis `i` is axis `order[i]` of this tensor.
    pub fn permuted(&self, order: &[usize]) -> Self {
        let shape: Vec<usize> = order.iter().map(|axis| self.shape[*axis]).collect();
        let mut strides = vec![1; self.shape.len()];
        for axis in (1..self.shape.len()).rev() {
            strides[axis - 1] = strides[axis] * self.shape[axis];
        }
        let mut position = vec![0; shape.len()];
        let values = (0..self.values.len())
            .map(|_| {
                let at: usize =
                    position.iter().zip(order).map(|(p, axis)| p * strides[*axis]).sum();
                for axis in (0..shape.len()).rev() {
                    position[axis] += 1;
                    if position[axis] < shape[axis] {
                        break;
                    }
                    position[axis] = 0;
                }
                self.values[at]
            })
            .collect();
        Self { shape, values }
    }

    /// The same values under another shape with the same number of elements.
    pub fn reshaped(self, shape: &[usize]) -> Self {
        debug_assert_eq!(element_count(shape), Some(self.values.len()));
        Self { shape: shape.to_vec(), values: self.values }
    }
}

/// Number of elements of a shape, or `None` if it overflows.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, side| product.checked_mul(*side))
}

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Why weights cannot be used. The caller adds the file's name.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// A pickle within the file is not readable.
    #[error(transparent)]
    Pickle(#[from] pickle::PickleError),
    /// The file does not have the expected format.
    #[error("not {format}: {reason}; fetch the file again")]
    Format {
        /// The expected format.
        format: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// The file is healthy, but something in it is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// The file is of another kind.
    #[error("this is {found}, not {format}; {cure}")]
    Other {
        /// What the file is, with an article.
        found: &'static str,
        /// The expected format.
        format: &'static str,
        /// What to do.
        cure: &'static str,
    },
    /// The file ends within a tensor.
    #[error("tensor {name} is cut short: {need} bytes needed, {got} left; fetch the file again")]
    Truncated {
        /// Name of the tensor.
        name: String,
        /// Bytes that the tensor takes.
        need: usize,
        /// Bytes that are left.
        got: usize,
    },
    /// The file ends before a tensor of unknown size.
    #[error("cut short: {name} is missing; fetch the file again")]
    Missing {
        /// Name of the tensor.
        name: String,
    },
    /// The tensors belong to another architecture.
    #[error("these are not the weights of {architecture}: {}", faults.join("; "))]
    Mismatch {
        /// The expected architecture.
        architecture: String,
        /// Every tensor that is missing, extra, misshapen or not finite.
        faults: Vec<String>,
    },
}

impl WeightsError {
    pub(crate) fn format(format: &'static str, reason: impl Into<String>) -> Self {
        Self::Format { format, reason: reason.into() }
    }
}

/// Limit of the elements of one file's tensors together: 512 MB, a hundred times a face
/// network. It keeps a small file that repeats one storage from claiming more.
pub(crate) const MAX_ELEMENTS: usize = 1 << 27;

/// Elements that are left of [`MAX_ELEMENTS`].
pub(crate) struct Budget(usize);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(MAX_ELEMENTS)
    }

    /// Subtracts the elements of a tensor. Fails if too few are left.
    pub(crate) fn spend(
        &mut self,
        format: &'static str,
        name: &str,
        elements: usize,
    ) -> Result<(), WeightsError> {
        self.0 = self.0.checked_sub(elements).ok_or_else(|| {
            let most = MAX_ELEMENTS;
            WeightsError::format(
                format,
                format!("with {name} it holds more than {most} numbers, which no face network has"),
            )
        })?;
        Ok(())
    }
}

/// Names a file of another kind than the expected one, such as what a failed download
/// leaves. `accepted` are kinds, by their names, that the format is made of.
///
/// # Errors
/// If the file is of a kind that is known not to be weights of this format.
pub(crate) fn is_weights(
    format: &'static str,
    bytes: &[u8],
    accepted: &[&str],
) -> Result<(), WeightsError> {
    let tensors = bytes.get(8..10) == Some(b"{\"")
        && bytes.first_chunk::<8>().is_some_and(|n| u64::from_le_bytes(*n) < 1 << 32);
    let found = match files::kind_of(bytes) {
        _ if bytes.starts_with(b"\x93NUMPY") => Some(("a NumPy file", None)),
        _ if bytes.starts_with(b"\x89HDF") => Some(("an HDF5 file of Keras", None)),
        _ if bytes.get(4..8) == Some(b"TFL3") => Some(("a TensorFlow Lite model", None)),
        _ if tensors => Some(("a safetensors file", None)),
        _ if bytes.starts_with(b"7767517\n") => Some(("an ncnn .param file", None)),
        found => found.map(|kind| (kind.name, Some(kind.class))),
    };
    let Some((found, class)) = found.filter(|(name, _)| !accepted.contains(name)) else {
        return Ok(());
    };
    let cure = match class {
        Some(Class::Lost | Class::Page) => "the download failed; fetch the file again",
        Some(Class::Pointer) => "fetch its content, for example with git lfs pull",
        Some(Class::Archive) if format.contains("safetensors") => {
            "give it the ending .pth if PyTorch wrote it; else unpack it and name the file in it"
        }
        Some(Class::Archive) => "unpack it and name the file in it",
        None => "give it the ending of its kind, or name the other file",
        _ => "name a file of weights",
    };
    Err(WeightsError::Other { found, format, cure })
}

/// Compares tensors with the names and shapes of an architecture. The error names each
/// tensor that is missing, extra, misshapen or not finite, or the prefix that all have.
pub fn check(
    architecture: &str,
    tensors: &Tensors,
    expected: &[(String, Vec<usize>)],
) -> Result<(), WeightsError> {
    if let Some(fault) = prefix(tensors, expected) {
        return Err(WeightsError::Mismatch {
            architecture: architecture.to_owned(),
            faults: vec![fault],
        });
    }
    let mut faults = Vec::new();
    for (name, shape) in expected {
        match tensors.get(name) {
            None => faults.push(format!("{name} is missing (expected {shape:?})")),
            Some(tensor) if tensor.shape != *shape => {
                faults.push(format!("{name} is {:?}, expected {shape:?}", tensor.shape));
            }
            Some(tensor) if tensor.values.iter().any(|value| !value.is_finite()) => {
                faults.push(format!("{name} holds a value that is not finite"));
            }
            Some(_) => {}
        }
    }
    for name in tensors.keys() {
        if !expected.iter().any(|(known, _)| known == name) {
            faults.push(format!("{name} is extra"));
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(WeightsError::Mismatch { architecture: architecture.to_owned(), faults })
}

/// Names the prefix under which most of the expected names stand.
fn prefix(tensors: &Tensors, expected: &[(String, Vec<usize>)]) -> Option<String> {
    let mut counts = BTreeMap::<&str, usize>::new();
    let expected: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    for name in tensors.keys() {
        let starts = name.match_indices('.').map(|(dot, _)| name.split_at(dot + 1));
        for (prefix, _) in starts.filter(|(_, rest)| expected.contains(rest)) {
            *counts.entry(prefix).or_default() += 1;
        }
    }
    let (prefix, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    let there = expected.iter().filter(|name| tensors.contains_key(**name)).count();
    if 2 * count < expected.len() || there >= count {
        return None;
    }
    let cure = format!(
        "save them without it, for example with {{k.removeprefix({prefix:?}): v for k, v in \
         state_dict.items() if k.startswith({prefix:?})}}"
    );
    let others: Vec<&str> =
        tensors.keys().map(String::as_str).filter(|name| !name.starts_with(prefix)).collect();
    Some(match others[..] {
        [] => format!("all names begin with {prefix:?}; {cure}"),
        [first, ..] => format!(
            "{count} names begin with {prefix:?}, {} others do not, such as {first}; {cure}",
            others.len()
        ),
    })
}

/// Decodes little-endian f32.
pub(crate) fn f32_values(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Decodes little-endian IEEE half precision.
pub(crate) fn f16_values(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|b| half(u16::from_le_bytes([b[0], b[1]]))).collect()
}

/// Decodes little-endian bfloat16.
pub(crate) fn bf16_values(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(2)
        .map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16))
        .collect()
}

fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff) / 1024.0;
    sign * match exponent {
        0 => fraction * 2f32.powi(-14),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_permuted() {
        let tensor = Tensor::new(vec![2, 3], vec![1., 2., 3., 4., 5., 6.]).expect("six values");
        let turned = tensor.permuted(&[1, 0]);
        assert_eq!(turned.shape, [3, 2]);
        assert_eq!(turned.values, [1., 4., 2., 5., 3., 6.]);
    }

    #[test]
    fn halves_are_widened() {
        for (bits, value) in
            [(0x3c00, 1.0), (0xc000, -2.0), (0x3555, 0.333_251_95), (0x0001, 5.960_464_5e-8)]
        {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7c00).is_infinite() && half(0x7e00).is_nan());
    }

    #[test]
    fn a_prefix_is_named_once() {
        let expected: Vec<_> = ["a.w", "b.w", "c.w"].map(|name| (name.to_owned(), vec![1])).into();
        let said = |names: &[&str]| {
            let one = Tensor::new(vec![1], vec![0.0]).expect("one");
            let tensors = names.iter().map(|name| ((*name).to_owned(), one.clone())).collect();
            check("toy", &tensors, &expected).expect_err("a prefix").to_string()
        };
        let all = said(&["net.model.a.w", "net.model.b.w", "net.model.c.w"]);
        assert!(all.contains("all names begin with \"net.model.\"; save"), "{all}");
        let most = said(&["x.a.w", "x.b.w", "head.w"]);
        assert!(most.contains("2 names begin with \"x.\", 1 others do not, such as head.w"));
        assert!(said(&["x.a.w", "b.w", "c.w"]).contains("a.w is missing"));
    }

    #[test]
    fn a_file_of_another_kind_is_named() {
        for (bytes, expected) in [
            (&b""[..], "this is an empty file, not toys; the download failed; fetch"),
            (b"<!DOCTYPE html><html>404", "this is a web page"),
            (b"version https://git-lfs.github.com/spec/v1\n", "this is a Git LFS pointer"),
            (b"\x1f\x8b\x08", "this is a gzip file"),
            (b"\x20\0\0\0\0\0\0\0{\"a\"", "this is a safetensors file"),
            (b"\x93NUMPY", "this is a NumPy file"),
        ] {
            let message = is_weights("toys", bytes, &[]).expect_err("another kind").to_string();
            assert!(message.starts_with(expected), "{message}");
        }
        assert!(is_weights("toys", b"PK\x03\x04", &["a zip archive"]).is_ok());
        assert!(is_weights("toys", &[0x80, 2, 0x7d], &[]).is_ok());
    }

    #[test]
    fn every_fault_is_named() {
        let tensors = Tensors::from([
            ("a".to_owned(), Tensor::new(vec![2], vec![0.0; 2]).expect("two")),
            ("stray".to_owned(), Tensor::new(vec![1], vec![0.0]).expect("one")),
        ]);
        let expected = [("a".to_owned(), vec![3]), ("b".to_owned(), vec![1])];
        let message = check("toy", &tensors, &expected).expect_err("three faults").to_string();
        for part in ["a is [2], expected [3]", "b is missing", "stray is extra"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
