//! Reference kernels in plain Rust: all other kernels give the same results.

use super::{Epilogue, Filter, Matrix, Packed, Walk, padded};
use std::ops::Range;

pub(super) fn matrix(
    matrix: &Matrix,
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    residual: Option<&[u8]>,
    output: &mut [u8],
) {
    let Epilogue { positive, negative, .. } = &matrix.epilogue;
    for (&from, &to) in walk.inputs.iter().zip(&walk.outputs).skip(pixels.start).take(pixels.len())
    {
        for channel in 0..padded(matrix.channels) {
            let at = to as usize + channel;
            output[at] = if channel < matrix.channels {
                let sum = product(matrix, walk, from, channel, input);
                let value = scaled(sum, positive[channel], negative[channel]);
                rounded(&matrix.epilogue, value, residual.map(|other| other[at]))
            } else {
                rounded(&matrix.epilogue, 0.0, None)
            };
        }
    }
}

pub(super) fn matrix_float(
    matrix: &Matrix,
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    output: &mut [f32],
) {
    for (&from, &to) in walk.inputs.iter().zip(&walk.outputs).skip(pixels.start).take(pixels.len())
    {
        for channel in 0..matrix.channels {
            let sum = product(matrix, walk, from, channel, input);
            output[to as usize + channel] = sum as f32 * matrix.epilogue.positive[channel];
        }
    }
}

pub(super) fn filter(
    filter: &Filter,
    walk: &Walk,
    pixels: Range<usize>,
    input: &[u8],
    output: &mut [u8],
) {
    let Packed::Bytes(weights) = &filter.weights else { return };
    let Epilogue { bias, positive, negative, .. } = &filter.epilogue;
    for (&from, &to) in walk.inputs.iter().zip(&walk.outputs).skip(pixels.start).take(pixels.len())
    {
        for channel in 0..filter.channels {
            let weights = &weights[channel * filter.taps..(channel + 1) * filter.taps];
            let sum = walk.runs.iter().zip(weights).fold(bias[channel], |sum, (run, weight)| {
                let q = input[from as usize + *run as usize + channel].cast_signed();
                sum + i32::from(q) * i32::from(*weight)
            });
            let value = scaled(sum, positive[channel], negative[channel]);
            output[to as usize + channel] = rounded(&filter.epilogue, value, None);
        }
    }
}

fn product(matrix: &Matrix, walk: &Walk, from: u32, channel: usize, input: &[u8]) -> i32 {
    let Packed::Bytes(weights) = &matrix.weights else { return 0 };
    let weights = &weights[channel * matrix.inputs..(channel + 1) * matrix.inputs];
    let mut sum = matrix.epilogue.bias[channel];
    for (&run, weights) in walk.runs.iter().zip(weights.chunks_exact(walk.run)) {
        let start = from as usize + run as usize;
        for (q, weight) in input[start..start + walk.run].iter().zip(weights) {
            sum += i32::from(q.cast_signed()) * i32::from(*weight);
        }
    }
    sum
}

/// PReLU and requantization in one: the sign of the sum selects the factor.
fn scaled(sum: i32, positive: f32, negative: f32) -> f32 {
    sum as f32 * if sum < 0 { negative } else { positive }
}

pub(super) fn rounded(epilogue: &Epilogue, value: f32, residual: Option<u8>) -> u8 {
    let value = match (residual, epilogue.residual) {
        (Some(other), Some((scale, zero_point))) => {
            value + (i32::from(other.cast_signed()) - zero_point) as f32 * scale
        }
        _ => value,
    };
    let steps = value.clamp(epilogue.low, epilogue.high).round_ties_even() as i32;
    (steps + epilogue.zero_point) as u8
}
