//! Writes shapes as SVG and PNG.

use anyhow::Result;
use embedded_graphics::Drawable;
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{Dimensions, OriginDimensions, Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_1::{FONT_9X18_BOLD, FONT_10X20};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::primitives::{Polyline, Primitive, PrimitiveStyle, Rectangle};
pub(super) use embedded_graphics::text::Alignment;
use embedded_graphics::text::{Baseline, Text, TextStyleBuilder};
use image::{ImageFormat, RgbImage, imageops};
use std::fmt::Write;

/// PNG pixels per point.
const PNG_SCALE: u32 = 2;
/// Supersampling factor: shapes are drawn larger and scaled down, which smooths their
/// edges.
const SMOOTHING: u32 = 2;
/// Length of a dash and of the gap after it, points.
const DASH: f64 = 6.0;

/// Colour role of a shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Tone {
    Ink,
    Grid,
    Series(usize),
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Ink => "ink",
            Self::Grid => "grid",
            Self::Series(at) => ["one", "two", "three"][at % 3],
        }
    }

    /// Colour in a PNG. The series colours are distinct for colour-blind readers, too
    /// (Okabe and Ito's blue, vermilion and green).
    fn rgb(self) -> Rgb888 {
        match self {
            Self::Ink => Rgb888::new(0x1b, 0x1f, 0x24),
            Self::Grid => Rgb888::new(0xd4, 0xd8, 0xde),
            Self::Series(at) => [
                Rgb888::new(0x00, 0x72, 0xb2),
                Rgb888::new(0xd5, 0x5e, 0x00),
                Rgb888::new(0x00, 0x9e, 0x73),
            ][at % 3],
        }
    }
}

/// CSS for the classes of the shapes, for a page or a separate SVG file.
pub const STYLE: &str = "\
svg.plot{background:#fff;font:12px system-ui,sans-serif}\
svg.plot text{fill:#1b1f24}\
svg.plot .strong{font-weight:bold}\
svg.plot polyline{fill:none;stroke-linejoin:round}\
svg.plot .ink{stroke:#1b1f24}\
svg.plot .grid{stroke:#d4d8de}\
svg.plot polyline.one{stroke:#0072b2}svg.plot rect.one{fill:#0072b2}\
svg.plot polyline.two{stroke:#d55e00}svg.plot rect.two{fill:#d55e00}\
svg.plot polyline.three{stroke:#009e73}svg.plot rect.three{fill:#009e73}\
@media (prefers-color-scheme:dark){\
svg.plot{background:#14171b}\
svg.plot text{fill:#e4e7eb}\
svg.plot .ink{stroke:#e4e7eb}\
svg.plot .grid{stroke:#3a4048}\
svg.plot polyline.one{stroke:#56b4e9}svg.plot rect.one{fill:#56b4e9}\
svg.plot polyline.two{stroke:#e69f00}svg.plot rect.two{fill:#e69f00}\
svg.plot polyline.three{stroke:#2fc79b}svg.plot rect.three{fill:#2fc79b}}";

/// A shape; coordinates are points from the upper left corner.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Line { points: Vec<[f64; 2]>, tone: Tone, width: f64, dashed: bool },
    Block { at: [f64; 2], size: [f64; 2], tone: Tone, opacity: f64 },
    Word { at: [f64; 2], align: Alignment, strong: bool, text: String },
}

/// A plot as shapes, ready to be written.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Stem of the file names and of the element ids in a page.
    pub name: &'static str,
    pub(super) title: String,
    pub(super) description: String,
    /// Width and height, points.
    pub(super) size: [f64; 2],
    pub(super) shapes: Vec<Shape>,
}

impl Picture {
    /// SVG element for a page that includes [`STYLE`].
    pub fn svg(&self) -> String {
        self.write_svg("")
    }

    /// Content of an SVG file.
    pub fn svg_file(&self) -> String {
        self.write_svg(&format!("<style>{STYLE}</style>\n")) + "\n"
    }

    fn write_svg(&self, style: &str) -> String {
        let ([width, height], name) = (self.size, self.name);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" viewBox=\"0 0 {} {}\" \
             width=\"{}\" role=\"img\" aria-labelledby=\"{name}-title {name}-description\">\n\
             <title id=\"{name}-title\">{}</title>\n\
             <desc id=\"{name}-description\">{}</desc>\n{style}",
            short(width),
            short(height),
            short(width),
            escape(&self.title),
            escape(&self.description)
        );
        for shape in &self.shapes {
            // Writing into a string cannot fail.
            let _ = match shape {
                Shape::Line { points, tone, width, dashed } => {
                    let places: Vec<String> = points
                        .iter()
                        .map(|[x, y]| format!("{},{}", short(*x), short(*y)))
                        .collect();
                    let dashes = format!(" stroke-dasharray=\"{DASH}\"");
                    writeln!(
                        svg,
                        "<polyline class=\"{}\" stroke-width=\"{width}\"{} points=\"{}\"/>",
                        tone.class(),
                        if *dashed { &dashes } else { "" },
                        places.join(" ")
                    )
                }
                Shape::Block { at: [x, y], size: [width, height], tone, opacity } => writeln!(
                    svg,
                    "<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" opacity=\"{}\"/>",
                    tone.class(),
                    short(*x),
                    short(*y),
                    short(*width),
                    short(*height),
                    (opacity * 100.0).round() / 100.0
                ),
                Shape::Word { at: [x, y], align, strong, text } => {
                    let anchor = match align {
                        Alignment::Left => "",
                        Alignment::Center => " text-anchor=\"middle\"",
                        Alignment::Right => " text-anchor=\"end\"",
                    };
                    let class = if *strong { " class=\"strong\"" } else { "" };
                    let (x, y) = (short(*x), short(*y));
                    writeln!(
                        svg,
                        "<text{class} x=\"{x}\" y=\"{y}\"{anchor}>{}</text>",
                        escape(text)
                    )
                }
            };
        }
        svg + "</svg>"
    }

    /// Content of a PNG file, two pixels per point.
    pub fn png(&self) -> Result<Vec<u8>> {
        let [width, height] = self.size.map(|side| side.ceil() as u32 * PNG_SCALE);
        let mut fine = Canvas::white(width * SMOOTHING, height * SMOOTHING);
        let scale = f64::from(PNG_SCALE * SMOOTHING);
        let point = |[x, y]: [f64; 2], scale: f64| {
            Point::new((x * scale).round() as i32, (y * scale).round() as i32)
        };
        for shape in &self.shapes {
            match shape {
                Shape::Line { points, tone, width, dashed } => {
                    fine.opacity = 1.0;
                    let style =
                        PrimitiveStyle::with_stroke(tone.rgb(), (width * scale).round() as u32);
                    let pieces = if *dashed { dashes(points) } else { vec![points.clone()] };
                    for piece in pieces {
                        let places: Vec<Point> =
                            piece.iter().map(|place| point(*place, scale)).collect();
                        let Ok(()) = Polyline::new(&places).into_styled(style).draw(&mut fine);
                    }
                }
                Shape::Block { at, size, tone, opacity } => {
                    fine.opacity = *opacity as f32;
                    let (from, size) = (point(*at, scale), point(*size, scale));
                    // Draw at least one pixel.
                    let size =
                        Size::new(size.x.max(1).cast_unsigned(), size.y.max(1).cast_unsigned());
                    let style = PrimitiveStyle::with_fill(tone.rgb());
                    let Ok(()) = Rectangle::new(from, size).into_styled(style).draw(&mut fine);
                }
                Shape::Word { .. } => {}
            }
        }
        let image = imageops::resize(&fine.image, width, height, imageops::FilterType::Triangle);
        let mut canvas = Canvas { image, opacity: 1.0 };
        for shape in &self.shapes {
            if let Shape::Word { at, align, strong, text } = shape {
                let font = if *strong { &FONT_9X18_BOLD } else { &FONT_10X20 };
                let style = TextStyleBuilder::new()
                    .alignment(*align)
                    .baseline(Baseline::Alphabetic)
                    .build();
                let at = point(*at, f64::from(PNG_SCALE));
                let look = MonoTextStyle::new(font, Tone::Ink.rgb());
                let Ok(_) = Text::with_text_style(text, at, look, style).draw(&mut canvas);
            }
        }
        let mut bytes = std::io::Cursor::new(Vec::new());
        canvas.image.write_to(&mut bytes, ImageFormat::Png)?;
        Ok(bytes.into_inner())
    }
}

/// Picture to draw on, with the opacity of the next shape.
struct Canvas {
    image: RgbImage,
    opacity: f32,
}

impl Canvas {
    fn white(width: u32, height: u32) -> Self {
        Self { image: RgbImage::from_pixel(width, height, image::Rgb([255; 3])), opacity: 1.0 }
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.image.width(), self.image.height())
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Self::Error>
    where
        I: IntoIterator<Item = Pixel<Rgb888>>,
    {
        let bounds = self.bounding_box();
        for Pixel(at, colour) in pixels {
            if !bounds.contains(at) {
                continue;
            }
            let pixel = self.image.get_pixel_mut(at.x.cast_unsigned(), at.y.cast_unsigned());
            for (value, new) in pixel.0.iter_mut().zip([colour.r(), colour.g(), colour.b()]) {
                let mixed =
                    f32::from(*value) * (1.0 - self.opacity) + f32::from(new) * self.opacity;
                *value = mixed.round() as u8;
            }
        }
        Ok(())
    }
}

/// Cuts a line into dashes.
fn dashes(points: &[[f64; 2]]) -> Vec<Vec<[f64; 2]>> {
    let mut pieces: Vec<Vec<[f64; 2]>> = vec![vec![]];
    let (mut drawing, mut left) = (true, DASH);
    for pair in points.windows(2) {
        let ([mut x, mut y], [to_x, to_y]) = (pair[0], pair[1]);
        loop {
            if let (true, Some(piece)) = (drawing, pieces.last_mut()) {
                piece.push([x, y]);
            }
            let length = (to_x - x).hypot(to_y - y);
            if length <= left {
                left -= length;
                break;
            }
            (x, y) = (x + (to_x - x) * left / length, y + (to_y - y) * left / length);
            if let (true, Some(piece)) = (drawing, pieces.last_mut()) {
                piece.push([x, y]);
                pieces.push(vec![]);
            }
            (drawing, left) = (!drawing, DASH);
        }
    }
    if let (true, Some(piece), Some(last)) = (drawing, pieces.last_mut(), points.last()) {
        piece.push(*last);
    }
    pieces.retain(|piece| piece.len() > 1);
    pieces
}

/// Rounds to a tenth of a point, which is finer than the eye can see.
fn short(value: f64) -> f64 {
    (value * 10.0).round() / 10.0 + 0.0
}

/// Escapes text for content and attributes of HTML and XML. Control characters that XML
/// cannot express become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML cannot express these.
            '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_is_cut_into_dashes() {
        let pieces = dashes(&[[0.0, 0.0], [10.0, 0.0], [10.0, 10.0]]);
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces[0], [[0.0, 0.0], [6.0, 0.0]]);
        assert_eq!(pieces[1][0], [10.0, 2.0]);
        assert!(dashes(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn no_text_breaks_out_of_its_place(text in "\\PC{0,20}|[<>&\"'\\x00-\\x1f]{0,8}") {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            prop_assert!(escaped.matches('&').count() == escaped.matches(';').count().min(escaped.matches('&').count()));
        }
    }
}
