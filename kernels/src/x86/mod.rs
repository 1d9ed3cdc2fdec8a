//! Kernels for x86-64: AVX-512 VNNI with dot products of bytes, and AVX2 with products of
//! 16-bit pairs. Activations in memory are unsigned.
//!
//! Functions are unsafe for two reasons: the processor must have the instructions, and the
//! walk must stay within input and output. The callers in [`super`] guarantee both. Weights
//! and epilogues are padded to whole registers when they are packed.

// Iterators over registers are not inlined into functions with other target features than
// the rest of the program; loops over indices are.
#![allow(clippy::needless_range_loop)]

use super::gate::{Gated, PARTIAL, Pixels, Sides};
use super::{Epilogue, Filter, Matrix, Walk, padded};
use std::arch::x86_64::*;
use std::ops::Range;

pub(super) mod avx2;
pub(super) mod vnni;

/// The byte of a zero point as the gates' `numbers` has all bytes: the float `2^23 + byte`.
fn zero_of(zero_point: i32) -> f32 {
    8_388_608.0 + zero_point as f32
}
