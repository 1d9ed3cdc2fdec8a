//! An IR that a test writes.

use std::fmt::Write;

/// An output of a layer: its id, the id of the port, and its shape.
#[derive(Clone, Debug)]
pub struct Value {
    layer: usize,
    port: usize,
    /// Length of each axis.
    pub shape: Vec<usize>,
}

/// A graph under construction.
#[derive(Clone, Debug, Default)]
pub struct Ir {
    layers: String,
    edges: String,
    next: usize,
    /// Writes constants as f16, followed by a conversion, instead of f32.
    half: bool,
    /// The weights file.
    pub bin: Vec<u8>,
}

impl Ir {
    /// An empty graph; `half` as in the field.
    pub fn new(half: bool) -> Self {
        Self { half, ..Self::default() }
    }

    /// Adds a constant named `NAME`.
    pub fn constant(
        &mut self,
        name: &str,
        shape: &[usize],
        mut values: impl FnMut() -> f32,
    ) -> Value {
        let offset = self.bin.len();
        for _ in 0..shape.iter().product() {
            match self.half {
                true => self.bin.extend(half(values()).to_le_bytes()),
                false => self.bin.extend(values().to_le_bytes()),
            }
        }
        let kind = if self.half { "f16" } else { "f32" };
        let size = self.bin.len() - offset;
        let data = format!(
            "element_type=\"{kind}\" shape=\"{}\" offset=\"{offset}\" size=\"{size}\"",
            join(shape)
        );
        let value = self.layer("Const", name, &data, &[], Some(shape));
        match self.half {
            true => {
                let data = "destination_type=\"f32\"";
                self.layer("Convert", &format!("{name}/f32"), data, &[&value], Some(shape))
            }
            false => value,
        }
    }

    /// Adds a layer with attributes as XML and an output of the given shape.
    pub fn layer(
        &mut self,
        kind: &str,
        name: &str,
        data: &str,
        inputs: &[&Value],
        shape: Option<&[usize]>,
    ) -> Value {
        let layer = self.next;
        self.next += 1;
        let half = kind == "Const" && self.half;
        let port = |id: usize, shape: &[usize], half: bool| {
            let precision = if half { "FP16" } else { "FP32" };
            let dims: String = shape.iter().map(|dim| format!("<dim>{dim}</dim>")).collect();
            format!("<port id=\"{id}\" precision=\"{precision}\">{dims}</port>")
        };
        let _ = write!(
            self.layers,
            "<layer id=\"{layer}\" name=\"{name}\" type=\"{kind}\" version=\"opset1\">"
        );
        if !data.is_empty() {
            let _ = write!(self.layers, "<data {data} />");
        }
        self.layers.push_str("<rt_info><attribute name=\"hint\" version=\"0\" /></rt_info>");
        if !inputs.is_empty() {
            let ports: String =
                (0..).zip(inputs).map(|(id, input)| port(id, &input.shape, false)).collect();
            let _ = write!(self.layers, "<input>{ports}</input>");
        }
        for (to, from) in inputs.iter().enumerate() {
            let _ = writeln!(
                self.edges,
                "<edge from-layer=\"{}\" from-port=\"{}\" to-layer=\"{layer}\" to-port=\"{to}\" />",
                from.layer, from.port
            );
        }
        if let Some(shape) = shape {
            let _ = write!(self.layers, "<output>{}</output>", port(inputs.len(), shape, half));
        }
        self.layers.push_str("</layer>\n");
        Value { layer, port: inputs.len(), shape: shape.unwrap_or_default().to_vec() }
    }

    /// The graph file.
    pub fn xml(&self) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<net name=\"toy\" version=\"11\">\n<layers>\n{}</layers>\n\
             <edges>\n{}</edges>\n<rt_info><tool value=\"test\" /></rt_info>\n</net>\n",
            self.layers, self.edges
        )
    }
}

/// Lengths as OpenVINO writes them.
pub fn join(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// A number as half precision, its last bits cut off. Only for numbers that have an
/// exponent in half precision, and zero.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    match (bits >> 23 & 0xff) as i32 - 127 {
        exponent @ -14..=15 => sign | ((exponent + 15) as u16) << 10 | (bits >> 13 & 0x3ff) as u16,
        _ => sign,
    }
}
