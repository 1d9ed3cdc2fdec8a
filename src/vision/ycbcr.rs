//! YCbCr to RGB: the arithmetic that cameras and JPEG files share.

/// The matrix that turns YCbCr into RGB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matrix {
    /// ITU-R BT.601: standard definition, JPEG, and webcams that do not report another.
    #[default]
    Bt601,
    /// ITU-R BT.709: high definition.
    Bt709,
}

/// How sample values map to colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Colours {
    /// Conversion matrix.
    pub matrix: Matrix,
    /// Whether luma runs from 0 to 255 instead of 16 to 235.
    pub full_range: bool,
}

/// Fixed-point weights in 1/65536. `black` is the luma of black; chroma counts from 128.
#[derive(Clone, Copy)]
pub(crate) struct Weights {
    black: i32,
    luma: i32,
    red_of_cr: i32,
    green_of_cb: i32,
    green_of_cr: i32,
    blue_of_cb: i32,
}

impl Colours {
    /// The weights for these colours.
    pub(crate) const fn weights(self) -> Weights {
        let (black, luma) = if self.full_range { (0, 65536) } else { (16, 76309) };
        let [red_of_cr, green_of_cb, green_of_cr, blue_of_cb] = match (self.matrix, self.full_range)
        {
            (Matrix::Bt601, true) => [91881, 22554, 46802, 116_130],
            (Matrix::Bt601, false) => [104_597, 25675, 53279, 132_201],
            (Matrix::Bt709, true) => [103_206, 12276, 30679, 121_609],
            (Matrix::Bt709, false) => [117_489, 13975, 34925, 138_438],
        };
        Weights { black, luma, red_of_cr, green_of_cb, green_of_cr, blue_of_cb }
    }
}

impl Weights {
    /// Contribution of a Cb, Cr pair to red, green and blue.
    #[inline]
    pub(crate) fn colour(&self, cb: u8, cr: u8) -> [i32; 3] {
        let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
        [self.red_of_cr * cr, -self.green_of_cb * cb - self.green_of_cr * cr, self.blue_of_cb * cb]
    }

    /// Writes one RGB pixel.
    #[inline]
    pub(crate) fn write(&self, pixel: &mut [u8], luma: u8, colour: [i32; 3]) {
        let light = (i32::from(luma) - self.black) * self.luma + 32768;
        for (value, colour) in pixel.iter_mut().zip(colour) {
            *value = ((light + colour) >> 16).clamp(0, 255) as u8;
        }
    }
}
