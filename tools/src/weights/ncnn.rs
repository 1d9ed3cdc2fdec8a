//! Reads ncnn models: a text file of layers (`.param`) and a file with their weights in
//! sequence (`.bin`).

use super::{Tensor, Tensors, WeightsError, element_count, f16_values, f32_values};

const FORMAT: &str = "an ncnn model";
/// First line of the text format.
const PARAM_MAGIC: &str = "7767517";
/// Tag of weights stored in half precision; tag 0 is f32.
const HALF_TAG: u32 = 0x0130_6b47;

/// A layer line of the `.param` file.
struct Layer<'a> {
    kind: &'a str,
    name: &'a str,
    parameters: Vec<(i64, &'a str)>,
}

impl Layer<'_> {
    fn parameter(&self, key: i64, default: usize) -> Result<usize, WeightsError> {
        match self.parameters.iter().find(|(known, _)| *known == key) {
            None => Ok(default),
            Some((_, value)) => value.parse().map_err(|_| {
                broken(format!(
                    "layer {}: parameter {key} is {value:?}, expected a count",
                    self.name
                ))
            }),
        }
    }
}

fn broken(reason: impl Into<String>) -> WeightsError {
    WeightsError::format(FORMAT, reason)
}

/// Reads the weights of every layer, as `LAYER.weight`, `.bias`, `.slope`, `.gamma`,
/// `.mean`, `.variance`, `.beta`. Convolutions come out as
/// `[out, in / groups, height, width]`, inner products as `[out, in]`. Fails if the two
/// files do not fit together or hold a kind of layer or weights that is not supported.
pub fn read(param: &str, bin: &[u8]) -> Result<Tensors, WeightsError> {
    let mut lines = param.lines();
    if lines.next().map(str::trim) != Some(PARAM_MAGIC) {
        return Err(broken(format!("the .param file does not begin with {PARAM_MAGIC}")));
    }
    // Skips the counts of layers and blobs, which the layers make redundant.
    lines.next();
    let mut reader = Reader { bytes: bin };
    let mut tensors = Tensors::new();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        read_layer(&parse(line)?, &mut reader, &mut tensors)?;
    }
    if !reader.bytes.is_empty() {
        return Err(broken(format!(
            "the .bin file has {} bytes more than the layers of the .param file take",
            reader.bytes.len()
        )));
    }
    Ok(tensors)
}

fn parse(line: &str) -> Result<Layer<'_>, WeightsError> {
    let mut words = line.split_whitespace();
    let malformed = || broken(format!("layer line {line:?} is malformed"));
    let (Some(kind), Some(name)) = (words.next(), words.next()) else { return Err(malformed()) };
    let mut count =
        || words.next().and_then(|word| word.parse::<usize>().ok()).ok_or_else(malformed);
    let blobs = count()?.saturating_add(count()?);
    let parameters = words
        .skip(blobs)
        .map(|word| {
            let (key, value) = word.split_once('=').ok_or_else(malformed)?;
            Ok((key.parse().map_err(|_| malformed())?, value))
        })
        .collect::<Result<_, WeightsError>>()?;
    Ok(Layer { kind, name, parameters })
}

fn read_layer(
    layer: &Layer<'_>,
    reader: &mut Reader<'_>,
    tensors: &mut Tensors,
) -> Result<(), WeightsError> {
    let mut add = |what: &str, shape: Vec<usize>, values: Vec<f32>| {
        tensors.insert(format!("{}.{what}", layer.name), Tensor { shape, values });
    };
    match layer.kind {
        "Convolution" | "ConvolutionDepthWise" => {
            let outputs = layer.parameter(0, 0)?;
            let width = layer.parameter(1, 0)?;
            let height = layer.parameter(11, width)?;
            let count = layer.parameter(6, 0)?;
            let window = element_count(&[outputs, height, width]).unwrap_or(0);
            if window == 0 || count % window != 0 {
                return Err(broken(format!(
                    "layer {}: {count} weights do not fit {outputs} outputs of {height}x{width}",
                    layer.name
                )));
            }
            let weights = reader.tagged(layer.name, count)?;
            add("weight", vec![outputs, count / window, height, width], weights);
            if layer.parameter(5, 0)? != 0 {
                add("bias", vec![outputs], reader.plain(layer.name, outputs)?);
            }
        }
        "InnerProduct" => {
            let outputs = layer.parameter(0, 0)?;
            let count = layer.parameter(2, 0)?;
            if outputs == 0 || count % outputs != 0 {
                return Err(broken(format!(
                    "layer {}: {count} weights do not fit {outputs} outputs",
                    layer.name
                )));
            }
            let weights = reader.tagged(layer.name, count)?;
            add("weight", vec![outputs, count / outputs], weights);
            if layer.parameter(1, 0)? != 0 {
                add("bias", vec![outputs], reader.plain(layer.name, outputs)?);
            }
        }
        "BatchNorm" => {
            let channels = layer.parameter(0, 0)?;
            for what in ["gamma", "mean", "variance", "beta"] {
                add(what, vec![channels], reader.plain(layer.name, channels)?);
            }
        }
        "PReLU" => {
            let channels = layer.parameter(0, 0)?;
            add("slope", vec![channels], reader.plain(layer.name, channels)?);
        }
        "Input" | "Split" | "BinaryOp" | "Pooling" | "Softmax" | "Dropout" | "Flatten" => {}
        other => {
            return Err(broken(format!(
                "layer {} is of kind {other}, which is not supported",
                layer.name
            )));
        }
    }
    Ok(())
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, layer: &str, need: usize) -> Result<&'a [u8], WeightsError> {
        match self.bytes.split_at_checked(need) {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(taken)
            }
            None => {
                Err(WeightsError::Truncated { name: layer.to_owned(), need, got: self.bytes.len() })
            }
        }
    }

    fn plain(&mut self, layer: &str, count: usize) -> Result<Vec<f32>, WeightsError> {
        self.take(layer, count.saturating_mul(4)).map(f32_values)
    }

    fn tagged(&mut self, layer: &str, count: usize) -> Result<Vec<f32>, WeightsError> {
        let tag = self.take(layer, 4)?;
        match u32::from_le_bytes([tag[0], tag[1], tag[2], tag[3]]) {
            0 => self.plain(layer, count),
            HALF_TAG => {
                // Padded to a multiple of four bytes.
                let size = count
                    .checked_mul(2)
                    .and_then(|n| n.checked_next_multiple_of(4))
                    .unwrap_or(usize::MAX);
                Ok(f16_values(&self.take(layer, size)?[..count * 2]))
            }
            other => Err(broken(format!(
                "layer {layer}: weights of kind {other:#010x} are not supported; convert the model to f32"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARAM: &str = "7767517\n3 3\nInput data 0 1 data 0=2 1=4 2=4\n\
        Convolution c 1 1 data c 0=2 1=3 11=1 5=1 6=6\nPReLU p 1 1 c out 0=2\n";

    fn bin() -> Vec<u8> {
        let mut bytes = 0u32.to_le_bytes().to_vec();
        for value in 0..10 {
            bytes.extend((value as f32).to_le_bytes());
        }
        bytes
    }

    #[test]
    fn reads_layers_in_order() {
        let tensors = read(PARAM, &bin()).expect("a model");
        assert_eq!(tensors["c.weight"].shape, [2, 1, 1, 3]);
        assert_eq!(tensors["c.bias"].values, [6.0, 7.0]);
        assert_eq!(tensors["p.slope"].values, [8.0, 9.0]);
    }

    #[test]
    fn a_file_cut_short_names_the_layer() {
        let message = read(PARAM, &bin()[..30]).expect_err("cut").to_string();
        assert!(message.contains("tensor c is cut short"), "{message}");
        let mut long = bin();
        long.push(0);
        let message = read(PARAM, &long).expect_err("long").to_string();
        assert!(message.contains("1 bytes more"), "{message}");
    }

    #[test]
    fn halves_are_read_with_their_padding() {
        let param = "7767517\n1 1\nInnerProduct f 1 1 a b 0=1 2=3\n";
        let mut bytes = HALF_TAG.to_le_bytes().to_vec();
        for bits in [0x3c00u16, 0x4000, 0xbc00, 0] {
            bytes.extend(bits.to_le_bytes());
        }
        assert_eq!(read(param, &bytes).expect("a model")["f.weight"].values, [1.0, 2.0, -1.0]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(.|\n){0,200}", bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&text, &bytes);
            let _ = read(&format!("7767517\n1 1\n{text}"), &bytes);
        }

        #[test]
        fn no_parameter_panics(values in prop::collection::vec(any::<i32>(), 6), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            for kind in ["Convolution", "InnerProduct", "BatchNorm", "PReLU"] {
                let [a, b, c, d, e, f] = values[..] else { continue };
                let line = format!("{kind} x 1 1 a b 0={a} 1={b} 2={c} 5={d} 6={e} 11={f}");
                let _ = read(&format!("7767517\n1 1\n{line}\n"), &bytes);
            }
        }
    }
}
