//! Reads ncnn models: a text file of layers (`.param`) and a file with their weights in
//! sequence (`.bin`). A parameter that this reader does not know is an error, since a
//! network without it would be another one.

use super::{Tensor, Tensors, WeightsError, element_count, f16_values, f32_values};

/// What an ncnn model is called.
pub const FORMAT: &str = "an ncnn model";
/// First line of the text format.
const PARAM_MAGIC: &str = "7767517";
/// Tag of weights stored in half precision; tag 0 is f32.
const HALF_TAG: u32 = 0x0130_6b47;

/// Parameters of each kind of layer that are read, and those that are not, with the only
/// value that they may have.
type Known = (&'static [i64], &'static [(i64, f64)]);

const CONVOLUTION: Known = (
    &[0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14, 15, 16],
    // Scales of 8-bit weights, activation, value of the padding, weights as an input.
    &[(8, 0.0), (9, 0.0), (18, 0.0), (19, 0.0)],
);

fn known(kind: &str) -> Known {
    match kind {
        "Convolution" | "ConvolutionDepthWise" => CONVOLUTION,
        "InnerProduct" => (&[0, 1, 2], &[(8, 0.0), (9, 0.0)]),
        "BatchNorm" => (&[0, 1], &[]),
        "PReLU" => (&[0], &[]),
        "Input" | "BinaryOp" => (&[0, 1, 2, 3, 11], &[]),
        // They have no weights; the importers check them.
        _ => (&[0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14, 15, 16, 18], &[]),
    }
}

/// A layer line of the `.param` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its kind, such as `Convolution`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Names of its inputs.
    pub inputs: Vec<String>,
    /// Names of its outputs.
    pub outputs: Vec<String>,
    parameters: Vec<(i64, String)>,
}

impl Layer {
    /// A count among the parameters.
    ///
    /// # Errors
    /// If it is no count.
    pub fn parameter(&self, key: i64, default: usize) -> Result<usize, WeightsError> {
        match self.text(key) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| {
                broken(format!(
                    "layer {}: parameter {key} is {value:?}, expected a count",
                    self.name
                ))
            }),
        }
    }

    /// A number among the parameters.
    ///
    /// # Errors
    /// If it is no number.
    pub fn number(&self, key: i64, default: f64) -> Result<f64, WeightsError> {
        match self.text(key) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| {
                broken(format!(
                    "layer {}: parameter {key} is {value:?}, expected a number",
                    self.name
                ))
            }),
        }
    }

    fn text(&self, key: i64) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str())
    }

    /// Refuses parameters that are not known, or whose effect is not.
    fn check(&self) -> Result<(), WeightsError> {
        let (read, neutral) = known(&self.kind);
        let other = |key: i64, value: &str| {
            Err(WeightsError::Unsupported(format!(
                "layer {}: parameter {key}={value} is not supported; convert the model without \
                 optimizing it (ncnnoptimize fuses layers)",
                self.name
            )))
        };
        for (key, value) in &self.parameters {
            // Parameters of an activation do nothing without one.
            if read.contains(key) || *key == -23310 {
                continue;
            }
            match neutral.iter().find(|(known, _)| known == key) {
                Some((_, only)) if value.parse::<f64>().is_ok_and(|value| value == *only) => {}
                _ => return other(*key, value),
            }
        }
        Ok(())
    }
}

fn broken(reason: impl Into<String>) -> WeightsError {
    WeightsError::format(FORMAT, reason)
}

/// The layers in their order, and their weights. The weights are named `LAYER.weight`, `.bias`, `.slope`, `.gamma`,
/// `.mean`, `.variance`, `.beta`. Convolutions come out as
/// `[out, in / groups, height, width]`, inner products as `[out, in]`. Fails if the two
/// files do not fit together or hold a kind of layer, parameter or weights that is not
/// supported.
pub fn read(param: &str, bin: &[u8]) -> Result<(Vec<Layer>, Tensors), WeightsError> {
    let mut lines = param.lines();
    if lines.next().map(str::trim) != Some(PARAM_MAGIC) {
        return Err(broken(format!("the .param file does not begin with {PARAM_MAGIC}")));
    }
    // Skips the counts of layers and blobs, which the layers make redundant.
    lines.next();
    let mut reader = Reader { bytes: bin };
    let mut tensors = Tensors::new();
    let mut layers = Vec::new();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let layer = parse(line)?;
        layer.check()?;
        read_layer(&layer, &mut reader, &mut tensors)?;
        layers.push(layer);
    }
    if !reader.bytes.is_empty() {
        return Err(broken(format!(
            "the .bin file has {} bytes more than the layers of the .param file take",
            reader.bytes.len()
        )));
    }
    Ok((layers, tensors))
}

fn parse(line: &str) -> Result<Layer, WeightsError> {
    let mut words = line.split_whitespace();
    let malformed = || broken(format!("layer line {line:?} is malformed"));
    let mut word = || words.next().map(str::to_owned).ok_or_else(malformed);
    let (kind, name) = (word()?, word()?);
    let mut count = || word()?.parse::<usize>().map_err(|_| malformed());
    let (inputs, outputs) = (count()?, count()?);
    // Ends at the first word that is missing, whatever the counts claim.
    let mut blobs = |count: usize| (0..count).map(|_| word()).collect::<Result<_, _>>();
    let (inputs, outputs) = (blobs(inputs)?, blobs(outputs)?);
    let parameters = words
        .map(|word| {
            let (key, value) = word.split_once('=').ok_or_else(malformed)?;
            Ok((key.parse().map_err(|_| malformed())?, value.to_owned()))
        })
        .collect::<Result<_, WeightsError>>()?;
    Ok(Layer { kind, name, inputs, outputs, parameters })
}

fn read_layer(
    layer: &Layer,
    reader: &mut Reader<'_>,
    tensors: &mut Tensors,
) -> Result<(), WeightsError> {
    let mut add = |what: &str, shape: Vec<usize>, values: Vec<f32>| {
        tensors.insert(format!("{}.{what}", layer.name), Tensor { shape, values });
    };
    match layer.kind.as_str() {
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
            let weights = reader.tagged(&layer.name, count)?;
            add("weight", vec![outputs, count / window, height, width], weights);
            if layer.parameter(5, 0)? != 0 {
                add("bias", vec![outputs], reader.plain(&layer.name, outputs)?);
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
            let weights = reader.tagged(&layer.name, count)?;
            add("weight", vec![outputs, count / outputs], weights);
            if layer.parameter(1, 0)? != 0 {
                add("bias", vec![outputs], reader.plain(&layer.name, outputs)?);
            }
        }
        "BatchNorm" => {
            let channels = layer.parameter(0, 0)?;
            let epsilon = layer.number(1, 0.0)? as f32;
            for what in ["gamma", "mean", "variance", "beta"] {
                let mut values = reader.plain(&layer.name, channels)?;
                if what == "variance" {
                    values.iter_mut().for_each(|value| *value += epsilon);
                }
                add(what, vec![channels], values);
            }
        }
        "PReLU" => {
            let channels = layer.parameter(0, 0)?;
            add("slope", vec![channels], reader.plain(&layer.name, channels)?);
        }
        "Input" | "Split" | "BinaryOp" | "Pooling" | "Softmax" | "Dropout" | "Flatten" => {}
        other => {
            return Err(WeightsError::Unsupported(format!(
                "layer {} is of kind {other}, which is not supported; only models of this \
                 architecture in their original form are",
                layer.name
            )));
        }
    }
    Ok(())
}

/// Name of a kind of stored weights by its tag.
fn kind_of_weights(tag: u32) -> &'static str {
    match tag {
        0x000d_4b38 => "8-bit integers",
        0x0002_c056 => "raw floats with a tag",
        0x0130_6b48 => "bfloat16",
        _ => "unknown, or the .bin does not belong to the .param",
    }
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
            other => Err(WeightsError::Unsupported(format!(
                "layer {layer}: weights of kind {other:#010x} ({}) are not supported; convert the \
                 model to f32 or f16",
                kind_of_weights(other)
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
        let (layers, tensors) = read(PARAM, &bin()).expect("a model");
        assert_eq!((layers.len(), layers[1].inputs[0].as_str()), (3, "data"));
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
        let (_, tensors) = read(param, &bytes).expect("a model");
        assert_eq!(tensors["f.weight"].values, [1.0, 2.0, -1.0]);
    }

    #[test]
    fn parameters_are_honoured_or_refused() {
        for (more, expected) in [
            ("9=1", "parameter 9=1 is not supported"),
            ("18=0.5", "parameter 18=0.5"),
            ("42=1", "parameter 42=1"),
            ("8=2", "parameter 8=2"),
        ] {
            let param = PARAM.replace("6=6", &format!("6=6 {more}"));
            let message = read(&param, &bin()).expect_err("refused").to_string();
            assert!(message.contains(expected) && !message.contains("fetch"), "{message}");
        }
        for neutral in ["9=0", "-23310=1,2.000000e-01", "18=0.0"] {
            let param = PARAM.replace("6=6", &format!("6=6 {neutral}"));
            assert!(read(&param, &bin()).is_ok(), "{neutral}");
        }
        // The epsilon of a batch normalization is part of its variance.
        let param = "7767517\n1 1\nBatchNorm b 1 1 a b 0=1 1=0.5\n";
        let bytes: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read(param, &bytes).expect("a model").1["b.variance"].values, [3.5]);
        // A kind of weights that is not read is no reason to fetch them again.
        let mut other = bin();
        other[..4].copy_from_slice(&0x000d_4b38u32.to_le_bytes());
        let message = read(PARAM, &other).expect_err("8 bits").to_string();
        assert!(message.contains("8-bit integers") && !message.contains("fetch"), "{message}");
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
