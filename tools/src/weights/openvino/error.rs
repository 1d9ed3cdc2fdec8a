//! Why an IR cannot be imported.

use crate::weights::WeightsError;
use thiserror::Error;

/// Why an IR cannot be imported. The caller adds the file's name.
#[derive(Debug, Error)]
pub enum IrError {
    /// The XML file holds something else.
    #[error("not an OpenVINO IR: {reason}; {cure}")]
    NotIr {
        /// What does not fit.
        reason: String,
        /// What to do about it.
        cure: &'static str,
    },
    /// The graph computes in 8-bit integers.
    #[error(
        "the network is quantized to 8 bits ({sign}); take the FP16 files of the same model \
         instead of FP16-INT8"
    )]
    Quantized {
        /// The first node or element that shows it.
        sign: String,
    },
    /// A node is not as expected.
    #[error(
        "node {node}: has {has}, expected {expected}; take the published FP16 or FP32 files, \
         unchanged"
    )]
    Node {
        /// Id, name and kind of the node.
        node: String,
        /// What the node has.
        has: String,
        /// What it should have.
        expected: String,
    },
    /// The weights file is not one.
    #[error("the weights file {reason}; {cure}")]
    Weights {
        /// What does not fit.
        reason: String,
        /// What to do about it.
        cure: &'static str,
    },
    /// The weights file ends before or within a constant.
    #[error(
        "the weights file is cut short: constant {constant} takes bytes {begin} to {end}, the \
         file has {got} bytes; fetch the .bin again, from the folder of the .xml"
    )]
    Short {
        /// Name of the constant.
        constant: String,
        /// Its first byte.
        begin: usize,
        /// The byte after its last.
        end: usize,
        /// Bytes in the file.
        got: usize,
    },
    /// A constant has a value that no network can compute with.
    #[error(
        "constant {constant} holds a value that is NaN or infinite; fetch the .bin again, \
         from the folder of the .xml"
    )]
    NotFinite {
        /// Name of the constant.
        constant: String,
    },
    /// The constants together are too large.
    #[error(transparent)]
    TooLarge(#[from] WeightsError),
}
