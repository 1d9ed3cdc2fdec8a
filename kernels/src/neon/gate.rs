//! Squeeze and excitation.

use super::super::gate::{Gated, PARTIAL, Pixels, Sides};
use super::{rounded, with_residual};
use std::arch::aarch64::*;

/// Adds the bytes of each channel to the sums, in 16 bits.
///
/// # Safety
///
/// The processor has NEON. The picture has one stored channel per sum, a multiple of 16, and
/// lies within its memory.
#[target_feature(enable = "neon")]
pub(crate) unsafe fn channel_sums(sides: Sides, input: Pixels<'_>, sums: &mut [i32]) {
    let mut channel = 0;
    // SAFETY: the caller guarantees the same; the blocks end with the channels.
    unsafe {
        while sums.len() - channel >= 64 {
            block::<4>(sides, input, channel, sums);
            channel += 64;
        }
        while channel < sums.len() {
            block::<1>(sides, input, channel, sums);
            channel += 16;
        }
    }
}

/// The sums of `B * 16` channels from `channel` on.
///
/// # Safety
///
/// As for [`channel_sums`]; there are as many channels.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn block<const B: usize>(
    (rows, columns): Sides,
    input: Pixels<'_>,
    channel: usize,
    sums: &mut [i32],
) {
    let stored = sums.len();
    let zero = [[vdupq_n_s16(0); 2]; B];
    let (mut words, mut left) = (zero, PARTIAL);
    for row in 0..rows {
        let mut at = input.first + row * input.pitch + channel;
        let mut todo = columns;
        while todo > 0 {
            let some = todo.min(left);
            for _ in 0..some {
                for b in 0..B {
                    // SAFETY: 16 stored channels of a pixel.
                    let bytes = unsafe { vld1q_s8(input.bytes.as_ptr().add(at + 16 * b).cast()) };
                    words[b][0] = vaddw_s8(words[b][0], vget_low_s8(bytes));
                    words[b][1] = vaddw_high_s8(words[b][1], bytes);
                }
                at += stored;
            }
            (todo, left) = (todo - some, left - some);
            if left == 0 {
                flush(words, &mut sums[channel..]);
                (words, left) = (zero, PARTIAL);
            }
        }
    }
    flush(words, &mut sums[channel..]);
}

/// Adds the sums of `B * 16` channels.
#[target_feature(enable = "neon")]
#[inline]
fn flush<const B: usize>(words: [[int16x8_t; 2]; B], sums: &mut [i32]) {
    for (words, sums) in words.as_flattened().iter().zip(sums.chunks_exact_mut(8)) {
        // SAFETY: the chunk has eight sums.
        unsafe {
            let sums = sums.as_mut_ptr();
            vst1q_s32(sums, vaddw_s16(vld1q_s32(sums), vget_low_s16(*words)));
            let sums = sums.add(4);
            vst1q_s32(sums, vaddw_high_s16(vld1q_s32(sums), *words));
        }
    }
}

/// Takes 16 channels of a row at a time and keeps their factors in registers.
///
/// # Safety
///
/// The processor has NEON. All pictures lie within their memories. There is one factor per
/// stored channel.
#[target_feature(enable = "neon")]
pub(crate) unsafe fn gate(gated: Gated<'_>) {
    let Gated { sides: (rows, columns), channels, input, output, epilogue, .. } = gated;
    let zero = vdup_n_s8(gated.input_zero_point as i8);
    let (scale, other_zero) = epilogue.residual.unwrap_or_default();
    for row in 0..rows {
        for channel in (0..channels).step_by(16) {
            // SAFETY: for each pixel 16 stored channels are read and written, for which the
            // pictures have room; there is one factor for each.
            unsafe {
                let factors = gated.factors.as_ptr().add(channel);
                let factors = array!(4, vdupq_n_f32(0.0), |i| vld1q_f32(factors.add(4 * i)));
                let place = |first: usize, pitch: usize| first + row * pitch + channel;
                let mut from = input.bytes.as_ptr().add(place(input.first, input.pitch));
                let to = output.bytes.as_mut_ptr();
                let mut to = to.add(place(output.first, output.pitch));
                let mut other = gated
                    .residual
                    .map(|other| other.bytes.as_ptr().add(place(other.first, other.pitch)));
                for _ in 0..columns {
                    let bytes = vld1q_s8(from.cast());
                    let low = vsubl_s8(vget_low_s8(bytes), zero);
                    let high = vsubl_s8(vget_high_s8(bytes), zero);
                    let quarters = [
                        vmovl_s16(vget_low_s16(low)),
                        vmovl_high_s16(low),
                        vmovl_s16(vget_low_s16(high)),
                        vmovl_high_s16(high),
                    ];
                    let mut values = array!(4, factors[0], |i| {
                        vmulq_f32(vcvtq_f32_s32(quarters[i]), factors[i])
                    });
                    if let Some(at) = &mut other {
                        values = with_residual(values, vld1q_s8(at.cast()), scale, other_zero);
                        *at = at.wrapping_add(channels);
                    }
                    vst1q_s8(to.cast(), rounded(values, epilogue));
                    // Wrapping: none is read after the last pixel.
                    (from, to) = (from.wrapping_add(channels), to.wrapping_add(channels));
                }
            }
        }
    }
}
