//! The quantized part of a graph as steps on tensors of bytes.

use super::super::kernels::{CHANNELS, Layer, LayerError, Quantization};

/// Why a node is not part of the quantized form.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Fault {
    /// The ONNX node's name.
    pub node: String,
    pub reason: String,
    /// The file is damaged, so that no runtime could compute the node. Other nodes can
    /// still run in floating point.
    pub damaged: bool,
}

pub(super) type Result<T> = std::result::Result<T, Fault>;

pub(super) fn fault<T>(node: &str, reason: impl Into<String>) -> Result<T> {
    Err(Fault { node: node.to_owned(), reason: reason.into(), damaged: false })
}

pub(super) fn damaged<T>(node: &str, reason: impl Into<String>) -> Result<T> {
    Err(Fault { node: node.to_owned(), reason: reason.into(), damaged: true })
}

/// What a step looks at for each pixel of its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Window {
    pub height: usize,
    pub width: usize,
    pub stride: usize,
    pub padding: usize,
}

impl Window {
    pub(super) const PIXEL: Self = Self { height: 1, width: 1, stride: 1, padding: 0 };

    /// Sides of the output for sides of the input; zero where the window does not fit.
    pub fn output(&self, (height, width): (usize, usize)) -> (usize, usize) {
        let side = |side: usize, window: usize| {
            (side + 2 * self.padding).checked_sub(window).map_or(0, |rest| rest / self.stride + 1)
        };
        match (side(height, self.height), side(width, self.width)) {
            (0, _) | (_, 0) => (0, 0),
            sides => sides,
        }
    }
}

/// Where a step's output goes: a tensor of bytes, or the output of this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Target {
    Tensor(usize),
    Head(usize),
}

#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Op {
    /// Channels mix. For each row of the window [`Tensor::run`] bytes of weights, in
    /// the order columns, stored channels.
    Matrix { layer: Layer, residual: Option<usize> },
    /// Each channel by itself.
    Filter { layer: Layer },
    /// The largest of a window; at the far sides of what is left of it.
    MaxPool,
    /// The mean of each channel, as a picture of one pixel.
    Mean,
    /// Channels mix, then each value becomes its sigmoid; on pictures of one pixel.
    Sigmoid { layer: Layer },
    /// Each channel times its factor, a picture of one pixel, and another tensor added.
    Gate { factors: usize, residual: Option<usize> },
}

impl Op {
    /// Tensors that are read beside the step's input.
    pub fn others(&self) -> impl Iterator<Item = usize> {
        let (factors, residual) = match *self {
            Self::Matrix { residual, .. } => (None, residual),
            Self::Gate { factors, residual } => (Some(factors), residual),
            Self::Filter { .. } | Self::MaxPool | Self::Mean | Self::Sigmoid { .. } => (None, None),
        };
        factors.into_iter().chain(residual)
    }
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Step {
    pub name: String,
    pub op: Op,
    pub window: Window,
    /// Tensor.
    pub input: usize,
    pub output: Target,
}

/// An activation in bytes. The first one is the picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) struct Tensor {
    pub channels: usize,
    /// Bytes of a pixel.
    pub stored: usize,
    /// Zeros that a step wants around it.
    pub border: usize,
    pub quantization: Quantization,
    /// Height and width, where they are always the same.
    pub(super) sides: Option<(usize, usize)>,
}

impl Tensor {
    /// Height and width, if they are always the same.
    pub fn sides(&self) -> Option<(usize, usize)> {
        self.sides
    }

    /// Bytes that a row of a window takes: whole groups, of which the last may
    /// reach over the window.
    pub fn run(&self, window: &Window) -> usize {
        (window.width * self.stored).next_multiple_of(CHANNELS)
    }
}

/// An output, in floating point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) enum Output {
    /// The sums of a layer, for each place all channels.
    Head { channels: usize, softmax: bool },
    /// A dequantized activation, planes of each picture.
    Activation { tensor: usize },
}

/// The quantization of values that are not rounded.
pub(in super::super) const UNIT: Quantization = Quantization { scale: 1.0, zero_point: 0 };

/// The picture's place among the tensors.
pub(in super::super) const PICTURE: usize = 0;
pub(super) const PICTURE_CHANNELS: usize = 3;
/// Red, green, blue and a byte that does not count.
pub(in super::super) const PICTURE_STORED: usize = 4;

/// A network in whole numbers.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Model {
    pub steps: Vec<Step>,
    pub tensors: Vec<Tensor>,
    pub outputs: Vec<Output>,
}

/// Sides after pooling, in which a window that is only partly there counts.
pub(in super::super) fn pooled(window: &Window, (height, width): (usize, usize)) -> (usize, usize) {
    let side = |side: usize, window: usize, stride: usize| {
        // None begins beyond the picture.
        (side.saturating_sub(window).div_ceil(stride) + 1).min(side.div_ceil(stride))
    };
    match (side(height, window.height, window.stride), side(width, window.width, window.stride)) {
        (0, _) | (_, 0) => (0, 0),
        sides => sides,
    }
}

impl From<(&str, LayerError)> for Fault {
    fn from((node, error): (&str, LayerError)) -> Self {
        Self { node: node.to_owned(), reason: error.to_string(), damaged: true }
    }
}
