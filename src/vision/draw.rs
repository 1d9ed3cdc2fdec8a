//! Drawing on pictures: bounding boxes, landmarks and labels, sized to the picture.
//!
//! Everything is clipped at the borders. Coordinates that are not finite numbers are left
//! out, characters without a glyph become question marks, and no input panics.

use crate::vision::frame::{Frame, Landmarks, Rect, luma};
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::iso_8859_15::{
    FONT_6X10, FONT_7X13_BOLD, FONT_9X15_BOLD, FONT_9X18_BOLD, FONT_10X20,
};
use embedded_graphics::mono_font::mapping::ISO_8859_15;
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::text::{Baseline, Text};
use embedded_graphics::{Drawable, Pixel};
use std::convert::Infallible;

/// A colour: red, green, blue.
pub type Colour = [u8; 3];

/// Green: known people, and an open door.
pub const KNOWN: Colour = [64, 214, 104];
/// Red: unknown people, and refusals.
pub const UNKNOWN: Colour = [218, 48, 44];
/// Blue: faces that are not compared with anybody.
pub const FOUND: Colour = [78, 178, 255];
/// Dark grey: neither good nor bad news.
pub const PLAIN: Colour = [44, 46, 50];
/// Yellow: landmarks.
const LANDMARK: Colour = [255, 220, 40];
const DARK: Colour = [16, 16, 16];
const LIGHT: Colour = [255, 255, 255];
/// Luma from which a background is bright, so that dark letters are readable on it.
const BRIGHT: f32 = 125.0;

/// Shorter side of a picture per pixel of line width.
const SIDE_PER_LINE: usize = 160;
/// Shorter side of a picture per pixel of the height of its largest letters.
const SIDE_PER_HEIGHT: usize = 25;
/// The same of its smallest letters, for small faces.
const SIDE_PER_SMALLEST: usize = 70;
/// Height of a face per pixel of the height of its letters.
const FACE_PER_HEIGHT: f32 = 8.0;
/// Width of a face per pixel of a landmark's radius.
const FACE_PER_RADIUS: f32 = 36.0;
/// Largest coordinate, pixels. Sums of several coordinates must fit into 64 bits.
const FAR: f32 = 1e12;
/// Longest line of text, pixels. Its coordinates must fit into 32 bits.
const LONGEST: usize = 1 << 24;

/// The fonts, from small to large.
const FONTS: [&MonoFont<'_>; 5] =
    [&FONT_6X10, &FONT_7X13_BOLD, &FONT_9X15_BOLD, &FONT_9X18_BOLD, &FONT_10X20];
/// Height of the largest font, pixels.
const LARGEST: usize = FONT_10X20.character_size.height as usize;

/// A face to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Bounding box, pixels of the picture.
    pub rect: Rect,
    /// Landmarks, pixel-centre coordinates of the picture.
    pub landmarks: Landmarks,
    /// Colour of the box and the label's background.
    pub colour: Colour,
    /// Lines of the label. No lines, no label.
    pub lines: Vec<String>,
}

/// Draws the faces: all boxes first, then all landmarks, then all labels. A label stands
/// above its box, or below or inside it, whichever covers the least of other labels and of
/// faces.
pub fn faces(frame: &mut Frame, marks: &[Mark]) {
    let line = line_width(frame);
    for mark in marks {
        outline(frame, &mark.rect, line, mark.colour);
    }
    for mark in marks {
        landmarks(frame, mark, line);
    }
    let canvas = Area::of_frame(frame);
    let boxes: Vec<Area> =
        marks.iter().filter_map(|mark| Area::of_rect(&mark.rect)?.within(canvas)).collect();
    let mut labels: Vec<Area> = Vec::new();
    for mark in marks.iter().filter(|mark| !mark.lines.is_empty()) {
        let label = Label::new(&mark.lines, canvas, letters(frame, mark.rect.height()));
        let area = label.place(mark, canvas, &boxes, &labels);
        label.draw(frame, area, mark.colour);
        labels.extend(area.within(canvas));
    }
}

/// Writes lines on a strip along the lower edge.
pub fn caption(frame: &mut Frame, lines: &[String], colour: Colour) {
    let canvas = Area::of_frame(frame);
    let label = Label::new(lines, canvas, letters(frame, f32::MAX));
    let top = canvas.bottom - label.height;
    label.draw(frame, Area { top, ..canvas }, colour);
}

/// Size of letters: all have the same width.
#[derive(Clone, Copy, Debug)]
pub struct Letters {
    font: &'static MonoFont<'static>,
    /// Picture pixels per pixel of the font, along each axis.
    scale: usize,
}

impl Letters {
    /// The smallest letters.
    pub const SMALL: Self = Self { font: FONTS[0], scale: 1 };

    /// The largest letters that are at most `height` pixels high, or else the smallest.
    pub fn of_height(height: usize) -> Self {
        let scale = height.div_ceil(LARGEST).max(1);
        let fits = |font: &&MonoFont<'_>| font.character_size.height as usize <= height / scale;
        let font = FONTS.into_iter().rev().find(fits).unwrap_or(FONTS[0]);
        Self { font, scale }
    }

    /// Width of a letter, pixels.
    pub const fn width(self) -> usize {
        self.font.character_size.width as usize * self.scale
    }

    /// Height of a letter with its descender, pixels.
    pub const fn height(self) -> usize {
        self.font.character_size.height as usize * self.scale
    }

    fn smallest(self) -> bool {
        self.height() <= Self::SMALL.height()
    }
}

/// Writes one line of text, cut to `room` pixels. `(left, top)` is the upper left corner of
/// the first letter. Nothing outside these `room` times [`Letters::height`] pixels changes.
pub fn text(
    frame: &mut Frame,
    text: &str,
    (left, top): (i64, i64),
    room: usize,
    letters: Letters,
    ink: Colour,
) {
    let most = room.min(LONGEST) / letters.width();
    let shown: String = text.chars().take(most).map(with_glyph).collect();
    let look = MonoTextStyle::new(letters.font, BinaryColor::On);
    let mut paper = Paper { frame, left, top, scale: letters.scale as i64, ink };
    let Ok(_) = Text::with_baseline(&shown, Point::zero(), look, Baseline::Top).draw(&mut paper);
}

/// The character, or a question mark if the fonts have no glyph for it.
fn with_glyph(character: char) -> char {
    let known = !character.is_control() && ISO_8859_15.contains(character);
    if known { character } else { '?' }
}

/// Width of lines for a picture, pixels.
fn line_width(frame: &Frame) -> i64 {
    let side = frame.width().min(frame.height());
    ((side + SIDE_PER_LINE / 2) / SIDE_PER_LINE).max(1) as i64
}

/// Letters for the label of a face of that height, so that the labels of small faces do
/// not cover their neighbours.
fn letters(frame: &Frame, face: f32) -> Letters {
    let side = frame.width().min(frame.height());
    let wanted = (face / FACE_PER_HEIGHT) as usize;
    Letters::of_height(wanted.clamp(side / SIDE_PER_SMALLEST, side / SIDE_PER_HEIGHT))
}

/// Whole pixels: `left` and `top` inclusive, `right` and `bottom` exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Area {
    left: i64,
    top: i64,
    right: i64,
    bottom: i64,
}

impl Area {
    fn of_frame(frame: &Frame) -> Self {
        Self { left: 0, top: 0, right: frame.width() as i64, bottom: frame.height() as i64 }
    }

    /// The pixels that a box touches; `None` if it is not finite or has no area.
    fn of_rect(rect: &Rect) -> Option<Self> {
        let near = |value: f32| value.clamp(-FAR, FAR) as i64;
        let area = Self {
            left: near(rect.x1.floor()),
            top: near(rect.y1.floor()),
            right: near(rect.x2.ceil()),
            bottom: near(rect.y2.ceil()),
        };
        (rect.is_finite() && area.left < area.right && area.top < area.bottom).then_some(area)
    }

    /// The part inside `other`; `None` if there is none.
    fn within(self, other: Self) -> Option<Self> {
        let part = Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        };
        (part.left < part.right && part.top < part.bottom).then_some(part)
    }

    /// Pixels shared with `other`, which must lie inside a picture.
    fn shared(self, other: Self) -> i64 {
        self.within(other).map_or(0, |part| (part.right - part.left) * (part.bottom - part.top))
    }
}

fn fill(frame: &mut Frame, area: Area, colour: Colour) {
    let Some(area) = area.within(Area::of_frame(frame)) else { return };
    let width = frame.width();
    for row in area.top as usize..area.bottom as usize {
        let (start, end) = (row * width + area.left as usize, row * width + area.right as usize);
        for pixel in frame.pixels_mut()[start * 3..end * 3].chunks_exact_mut(3) {
            pixel.copy_from_slice(&colour);
        }
    }
}

/// Draws the four sides of a box, inside it.
fn outline(frame: &mut Frame, rect: &Rect, line: i64, colour: Colour) {
    let Some(area) = Area::of_rect(rect) else { return };
    let Area { left, top, right, bottom } = area;
    for side in [
        Area { bottom: bottom.min(top + line), ..area },
        Area { top: top.max(bottom - line), ..area },
        Area { right: right.min(left + line), ..area },
        Area { left: left.max(right - line), ..area },
    ] {
        fill(frame, side, colour);
    }
}

/// Draws the landmarks as dots with a dark rim; on small faces without the rim.
fn landmarks(frame: &mut Frame, mark: &Mark, line: i64) {
    let most = 1.5 * line as f32;
    // A width that is no number gives the smallest dot.
    let radius = (mark.rect.width() / FACE_PER_RADIUS).min(most).max(1.0);
    for point in mark.landmarks {
        if radius > 1.5 {
            dot(frame, point, radius + (0.5 * line as f32).min(0.5 * radius), DARK);
        }
        dot(frame, point, radius, LANDMARK);
    }
}

/// Draws a dot with soft edges, in pixel-centre coordinates.
fn dot(frame: &mut Frame, [x, y]: [f32; 2], radius: f32, colour: Colour) {
    let reach = radius + 1.0;
    let touched = Rect { x1: x - reach, y1: y - reach, x2: x + reach + 1.0, y2: y + reach + 1.0 };
    let Some(area) = Area::of_rect(&touched).and_then(|area| area.within(Area::of_frame(frame)))
    else {
        return;
    };
    let width = frame.width();
    for row in area.top as usize..area.bottom as usize {
        for column in area.left as usize..area.right as usize {
            let distance = (column as f32 - x).hypot(row as f32 - y);
            let cover = (radius + 0.5 - distance).clamp(0.0, 1.0);
            let start = (row * width + column) * 3;
            for (value, ink) in frame.pixels_mut()[start..start + 3].iter_mut().zip(colour) {
                let (old, new) = (f32::from(*value), f32::from(ink));
                *value = (old + (new - old) * cover).round() as u8;
            }
        }
    }
}

/// Lines of text on a background.
struct Label<'l> {
    lines: &'l [String],
    letters: Letters,
    /// Space around the text, pixels.
    margin: i64,
    /// Size with the margins, pixels.
    width: i64,
    height: i64,
}

impl<'l> Label<'l> {
    /// A label in these letters, or in smaller ones if it would be wider than the picture.
    fn new(lines: &'l [String], canvas: Area, mut letters: Letters) -> Self {
        let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0) as i64;
        loop {
            let margin = (letters.height() / 4 + 1) as i64;
            let width = longest.saturating_mul(letters.width() as i64).saturating_add(2 * margin);
            if width <= canvas.right || letters.smallest() {
                let width = width.min(canvas.right);
                let height = (lines.len() * letters.height()) as i64 + 2 * margin;
                return Self { lines, letters, margin, width, height };
            }
            letters = Letters::of_height(letters.height() - 1);
        }
    }

    /// The best place in the picture. A box that is not finite counts as the upper left
    /// corner.
    fn place(&self, mark: &Mark, canvas: Area, boxes: &[Area], labels: &[Area]) -> Area {
        let corner = Area { left: 0, top: 0, right: 0, bottom: 0 };
        let face = Area::of_rect(&mark.rect).unwrap_or(corner);
        let place = |left: i64, top: i64| {
            let left = left.min(canvas.right - self.width).max(0);
            let top = top.min(canvas.bottom - self.height).max(0);
            Area { left, top, right: left + self.width, bottom: top + self.height }
        };
        let covered = |area: &Area| {
            // A label that is covered says nothing; a face can bear it.
            let of = |others: &[Area]| others.iter().map(|other| area.shared(*other)).sum::<i64>();
            4 * of(labels) + of(boxes)
        };
        let left = place(face.left, face.top - self.height);
        [
            place(face.left, face.bottom),
            place(face.right - self.width, face.top - self.height),
            place(face.right - self.width, face.bottom),
            place(face.left, face.top),
            place(face.left, face.bottom - self.height),
        ]
        .into_iter()
        .fold((covered(&left), left), |(least, best), area| {
            let this = covered(&area);
            if this < least { (this, area) } else { (least, best) }
        })
        .1
    }

    fn draw(&self, frame: &mut Frame, area: Area, colour: Colour) {
        let ink = if luma(colour.map(f32::from)) >= BRIGHT { DARK } else { LIGHT };
        fill(frame, area, colour);
        let (left, mut top) = (area.left + self.margin, area.top + self.margin);
        let room = (area.right - left).max(0) as usize;
        for line in self.lines {
            text(frame, line, (left, top), room, self.letters, ink);
            top += self.letters.height() as i64;
        }
    }
}

/// The picture as a draw target for text. Its origin is the upper left corner of the text.
struct Paper<'f> {
    frame: &'f mut Frame,
    left: i64,
    top: i64,
    /// Picture pixels per pixel of the font, along each axis.
    scale: i64,
    ink: Colour,
}

impl OriginDimensions for Paper<'_> {
    fn size(&self) -> Size {
        Size::new(self.frame.width() as u32, self.frame.height() as u32)
    }
}

impl DrawTarget for Paper<'_> {
    type Color = BinaryColor;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Pixel<BinaryColor>>,
    {
        for Pixel(at, _) in pixels.into_iter().filter(|pixel| pixel.1 == BinaryColor::On) {
            let left = self.left.saturating_add(i64::from(at.x) * self.scale);
            let top = self.top.saturating_add(i64::from(at.y) * self.scale);
            let (right, bottom) = (left.saturating_add(self.scale), top.saturating_add(self.scale));
            fill(self.frame, Area { left, top, right, bottom }, self.ink);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const PAPER: Colour = [90, 91, 92];

    /// Positions of the pixels that are no longer of the colour that all had.
    fn changed(frame: &Frame) -> Vec<(i64, i64)> {
        let width = frame.width();
        (0..width * frame.height())
            .filter(|at| frame.pixels()[at * 3..at * 3 + 3] != PAPER)
            .map(|at| ((at % width) as i64, (at / width) as i64))
            .collect()
    }

    fn inside(area: Area, (x, y): (i64, i64)) -> bool {
        (area.left..area.right).contains(&x) && (area.top..area.bottom).contains(&y)
    }

    fn written(line: &str) -> Frame {
        let mut frame = Frame::filled(60, 12, PAPER);
        text(&mut frame, line, (1, 1), 58, Letters::SMALL, LIGHT);
        frame
    }

    /// Coordinates near the picture and anywhere, also infinite and not a number.
    fn coordinate() -> impl Strategy<Value = f32> {
        prop_oneof![-40.0f32..200.0, any::<f32>()]
    }

    fn line() -> impl Strategy<Value = String> {
        let character = prop_oneof![any::<char>(), any::<u8>().prop_map(char::from)];
        vec(character, 0..30).prop_map(String::from_iter)
    }

    fn mark() -> impl Strategy<Value = Mark> {
        let point = || [coordinate(), coordinate()];
        let points = [point(), point(), point(), point(), point()];
        let rect = [coordinate(), coordinate(), coordinate(), coordinate()];
        (rect, points, vec(line(), 0..4)).prop_map(|([x1, y1, x2, y2], landmarks, lines)| Mark {
            rect: Rect { x1, y1, x2, y2 },
            landmarks,
            colour: KNOWN,
            lines,
        })
    }

    #[test]
    fn letters_grow_with_the_picture() {
        let heights = [0, 10, 14, 20, 21, 38, 60, 150].map(|height| {
            let letters = Letters::of_height(height);
            assert!(letters.height() <= height.max(10), "{height}");
            letters.height()
        });
        assert_eq!(heights, [10, 10, 13, 20, 20, 36, 60, 144]);
    }

    #[test]
    fn letters_beyond_ascii_have_glyphs_and_others_become_question_marks() {
        let replaced = written("?");
        for known in ["É", "ß", "ž", "€", "Š", "~"] {
            assert_ne!(written(known), replaced, "{known}");
        }
        for unknown in ["Ł", "中", "\n", "\t", "\r", "\0", "\u{7f}", "\u{85}", "\u{10ffff}"] {
            assert_eq!(written(unknown), replaced, "{unknown:?}");
        }
        assert_eq!(written("a\nb"), written("a?b"));
    }

    #[test]
    fn a_box_is_drawn_inside_its_sides_and_landmarks_on_their_pixels() {
        let mut frame = Frame::filled(500, 400, PAPER);
        let rect = Rect { x1: 100.4, y1: 50.0, x2: 299.5, y2: 250.0 };
        let landmarks = [[160.0, 120.0], [240.0, 120.0], [200.0, 160.0]];
        let landmarks = [landmarks[0], landmarks[1], landmarks[2], [170.0, 200.0], [230.0, 200.0]];
        faces(&mut frame, &[Mark { rect, landmarks, colour: FOUND, lines: vec![] }]);
        let area = Area { left: 100, top: 50, right: 300, bottom: 250 };
        let changed = changed(&frame);
        assert!(changed.iter().all(|at| inside(area, *at)));
        // Three lines along four sides, and five dots.
        let sides = 3 * 2 * (200 + 194);
        assert!((sides + 5 * 40..sides + 5 * 200).contains(&changed.len()), "{}", changed.len());
        for (x, y) in [(100, 50), (102, 52), (299, 249), (297, 150)] {
            assert_eq!(frame.pixel(x, y), FOUND, "{x},{y}");
        }
        assert_eq!(frame.pixel(103, 53), PAPER);
        for [x, y] in landmarks {
            assert_eq!(frame.pixel(x as isize, y as isize), LANDMARK);
        }
    }

    #[test]
    fn labels_keep_clear_of_faces_and_of_each_other() {
        let canvas = Area { left: 0, top: 0, right: 640, bottom: 480 };
        let lines = ["somebody".to_owned(), "score 99 %".to_owned()];
        let label = Label::new(&lines, canvas, Letters::of_height(17));
        let mark = |x1: f32, y1: f32| Mark {
            rect: Rect { x1, y1, x2: x1 + 90.0, y2: y1 + 120.0 },
            landmarks: [[0.0; 2]; 5],
            colour: KNOWN,
            lines: lines.to_vec(),
        };
        let marks = [mark(100.0, 100.0), mark(130.0, 100.0), mark(400.0, 0.0), mark(600.0, 380.0)];
        let boxes: Vec<Area> =
            marks.iter().filter_map(|mark| Area::of_rect(&mark.rect)?.within(canvas)).collect();
        let mut labels = Vec::new();
        for mark in &marks {
            let area = label.place(mark, canvas, &boxes, &labels);
            assert_eq!(area.within(canvas), Some(area), "in the picture");
            for other in boxes.iter().chain(&labels) {
                assert_eq!(area.shared(*other), 0, "{area:?} covers {other:?}");
            }
            labels.push(area);
        }
        assert_eq!(labels[0].bottom, 100, "above its box");
        assert_eq!(labels[1].top, 220, "below its box, because of the other label");
        assert_eq!(labels[2].top, 120, "below its box, because of the border");
    }

    #[test]
    fn long_labels_get_smaller_letters() {
        let canvas = Area { left: 0, top: 0, right: 250, bottom: 900 };
        let lines = ["similarity 0.998, needs 0.312".to_owned()];
        let label = Label::new(&lines, canvas, Letters::of_height(20));
        assert!(label.width <= 250 && label.letters.height() >= 13, "{:?}", label.letters);
    }

    proptest! {
        #[test]
        fn nothing_panics(
            sides in (1usize..200, 1usize..200),
            marks in vec(mark(), 0..5),
            lines in vec(line(), 0..4),
            at in (any::<i64>(), any::<i64>()),
            room: usize,
            height in 0usize..3000,
        ) {
            let mut frame = Frame::filled(sides.0, sides.1, PAPER);
            faces(&mut frame, &marks);
            caption(&mut frame, &lines, UNKNOWN);
            let letters = Letters::of_height(height);
            for line in &lines {
                text(&mut frame, line, at, room, letters, LIGHT);
            }
        }

        #[test]
        fn text_stays_in_its_room(
            line in line(),
            (left, top) in (-90i64..130, -60i64..130),
            room in 0usize..150,
            height in 0usize..70,
        ) {
            let mut frame = Frame::filled(120, 110, PAPER);
            let letters = Letters::of_height(height);
            text(&mut frame, &line, (left, top), room, letters, LIGHT);
            let (right, bottom) = (left + room as i64, top + letters.height() as i64);
            let area = Area { left, top, right, bottom };
            prop_assert!(changed(&frame).iter().all(|at| inside(area, *at)));
        }

        #[test]
        fn labels_stay_in_their_areas_and_in_the_picture(
            sides in (1usize..160, 1usize..160),
            mark in mark(),
        ) {
            let mut frame = Frame::filled(sides.0, sides.1, PAPER);
            let canvas = Area::of_frame(&frame);
            let label = Label::new(&mark.lines, canvas, letters(&frame, mark.rect.height()));
            let area = label.place(&mark, canvas, &[], &[]);
            label.draw(&mut frame, area, FOUND);
            prop_assert!(changed(&frame).iter().all(|at| inside(area, *at)));
            if label.height <= canvas.bottom {
                prop_assert_eq!(area.within(canvas), Some(area));
            }
        }
    }
}
