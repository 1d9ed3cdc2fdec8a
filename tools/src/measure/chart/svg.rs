//! Writes shapes as SVG.

use std::fmt::Write;

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
}

/// CSS for the classes of the shapes, for a page or a separate SVG file. The colours of the
/// series are distinct for colour-blind readers, too (Okabe and Ito's blue, vermilion and
/// green).
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

/// Which end of a text its position names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Alignment {
    Left,
    Center,
    Right,
}

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

    proptest! {
        #[test]
        fn no_text_breaks_out_of_its_place(text in "\\PC{0,20}|[<>&\"'\\x00-\\x1f]{0,8}") {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            prop_assert!(escaped.matches('&').count() == escaped.matches(';').count().min(escaped.matches('&').count()));
        }
    }
}
