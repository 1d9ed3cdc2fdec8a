//! `camera`: lists cameras and takes pictures.

use super::common_args::{CAMERA, CommonArgs, OF_CONFIGURATION, camera_uri};
use super::image_args::FaceLine;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use facelatch::hardware::camera::live::{LiveCamera, Taken};
use facelatch::hardware::camera::v4l::nodes::{Node, lasting_uri};
use facelatch::hardware::camera::{FrameLimit, redacted};
use facelatch::vision::detect::Detector;
use facelatch::vision::draw::{self, Mark};
use facelatch::vision::frame::Frame;
use facelatch::vision::picture::encode_png;
use facelatch::vision::quality;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageError};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Quality of the JPEG files written, 1 to 100.
const JPEG_QUALITY: u8 = 95;
/// Time limit for all frames of a shot.
const TIME: Duration = Duration::from_secs(60);
/// Longest wait for one frame before the time limit is checked.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// List cameras, or take a picture
#[derive(Args)]
pub struct Camera {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    List(List),
    Shot(Shot),
}

/// List the cameras of this machine
///
/// Shows name, USB socket, formats, sizes and frames per second, and a URI for the
/// configuration that identifies the camera even if its device number changes.
#[derive(Args)]
struct List {
    /// Print JSON Lines, one object per camera
    #[arg(long)]
    json: bool,
}

/// Take a picture and measure brightness, sharpness and faces
///
/// Brightness is the mean, from 0 to 255. Sharpness is the share of fine detail in the
/// contrast, from 0 up: compare it while you focus the lens.
#[derive(Args)]
struct Shot {
    #[command(flatten)]
    common: CommonArgs,
    #[arg(long, value_name = "URI", help = format!("{CAMERA}{OF_CONFIGURATION}"))]
    camera: Option<String>,
    /// File to write, .jpg, .jpeg or .png
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Number of frames to take; the last is written, after the exposure has settled
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    frames: u32,
    /// Draw the boxes, scores and landmarks of the faces on the picture
    #[arg(long)]
    faces: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Camera {
    pub fn run(self) -> Result<ExitCode> {
        match self.action {
            Action::List(list) => list.run(),
            Action::Shot(shot) => shot.run(),
        }
    }
}

/// A camera as printed.
#[derive(Serialize)]
struct CameraLine {
    device: PathBuf,
    name: String,
    usb: Option<String>,
    bus: Option<String>,
    uri: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    formats: Vec<FormatLine>,
    /// Formats of the camera that Facelatch cannot read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_read: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A pixel format at one size, with its frame rates.
#[derive(Serialize)]
struct FormatLine {
    format: String,
    size: String,
    rates: String,
}

impl CameraLine {
    fn new(node: &Node, cameras: &[Node]) -> Self {
        let mut line = Self {
            device: node.device.clone(),
            name: node.name.clone(),
            usb: node.usb.clone(),
            bus: node.bus.clone(),
            uri: lasting_uri(node, cameras),
            formats: Vec::new(),
            not_read: Vec::new(),
            error: None,
        };
        line.describe();
        line
    }

    #[cfg(feature = "v4l")]
    fn describe(&mut self) {
        use facelatch::hardware::camera::v4l::offer::{Rates, Size};
        let described = match facelatch::hardware::camera::v4l::driver::describe(&self.device) {
            Ok(described) => described,
            Err(error) => {
                self.error = Some(error.to_string());
                return;
            }
        };
        self.not_read = described.others;
        for offer in described.offers {
            for size in offer.sizes {
                let rates = match &size {
                    Size::One { rates, .. } => rates,
                    Size::Range { .. } | Size::Unknown => &Rates::Unknown,
                };
                let rates = rates.to_string();
                let (format, size) = (offer.format.to_string(), size.to_string());
                self.formats.push(FormatLine { format, size, rates });
            }
        }
    }

    #[cfg(not(feature = "v4l"))]
    fn describe(&mut self) {}

    fn print(&self, out: &mut impl Write) -> Result<()> {
        let place = match (&self.usb, &self.bus) {
            (Some(usb), _) => format!("  usb={usb}"),
            (None, Some(bus)) => format!("  {bus}"),
            (None, None) => String::new(),
        };
        writeln!(out, "{}  {}{place}", self.device.display(), self.name)?;
        writeln!(out, "  uri = {}", Value::from(self.uri.as_str()))?;
        for FormatLine { format, size, rates } in &self.formats {
            writeln!(out, "  {format} {size}  {rates} frames per second")?;
        }
        if !self.not_read.is_empty() {
            writeln!(out, "  unsupported formats: {}", self.not_read.join(", "))?;
        }
        if let Some(error) = &self.error {
            writeln!(out, "  {error}")?;
        }
        Ok(())
    }
}

impl List {
    fn run(self) -> Result<ExitCode> {
        #[cfg(feature = "v4l")]
        let cameras = facelatch::hardware::camera::v4l::driver::cameras();
        #[cfg(not(feature = "v4l"))]
        let cameras = facelatch::hardware::camera::v4l::nodes::nodes();
        let mut out = anstream::stdout().lock();
        let mut failed = false;
        for node in &cameras {
            let line = CameraLine::new(node, &cameras);
            failed |= line.error.is_some();
            if self.json {
                serde_json::to_writer(&mut out, &line)?;
                writeln!(out)?;
            } else {
                line.print(&mut out)?;
            }
        }
        if cameras.is_empty() {
            log::warn!("the kernel lists no camera; check that one is plugged in");
        }
        if !cfg!(feature = "v4l") {
            log::warn!(
                "this facelatch was built without V4L2, so it lists no formats and cannot open \
                 v4l: cameras; build it with --features device"
            );
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

impl Shot {
    fn run(self) -> Result<ExitCode> {
        let config = self.common.config()?;
        let uri = camera_uri(self.camera, &config)?;
        let format = Format::of(&self.out)?;
        let models = self.common.models(&config)?;
        let mut detector = Detector::new(&models.detector, config.detector())?;
        let mut frame = last_of(&uri, config.camera.limit(), self.frames)?;
        let faces: Vec<FaceLine> = detector
            .detect(&frame)?
            .iter()
            .map(|face| FaceLine::new(&frame, face, models.covers()))
            .collect();
        let (brightness, sharpness) = quality::of_picture(&frame);
        if self.faces {
            let marks: Vec<Mark> = faces.iter().map(FaceLine::mark).collect();
            draw::faces(&mut frame, &marks);
        }
        let bytes = format.encode(&frame).context("cannot encode the picture")?;
        std::fs::write(&self.out, bytes).with_context(|| self.out.display().to_string())?;
        let (width, height) = (frame.width(), frame.height());
        let mut out = anstream::stdout().lock();
        let name = self.out.display();
        if self.json {
            let line = json!({
                "picture": name.to_string(), "camera": redacted(&uri), "width": width, "height": height,
                "brightness": brightness, "sharpness": sharpness, "faces": faces,
            });
            writeln!(out, "{line}")?;
        } else {
            let count = faces.len();
            let noun = if count == 1 { "face" } else { "faces" };
            writeln!(
                out,
                "{name}  {width}x{height}  brightness {brightness:.0}  sharpness {sharpness:.3}  \
                 {count} {noun}"
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Takes `frames` frames and returns the last. A recorded camera may end earlier.
///
/// # Errors
/// If the camera fails, gives no frame, or does not give `frames` frames within [`TIME`].
fn last_of(uri: &str, limit: FrameLimit, frames: u32) -> Result<Frame> {
    let began = Instant::now();
    let camera = LiveCamera::start_within(uri, limit, began)?;
    let mut last = None;
    let mut count = 0;
    while count < frames {
        match camera.next(LOOK_EVERY) {
            Taken::Frame(captured) => {
                last = Some(captured.frame);
                count += 1;
            }
            Taken::Nothing | Taken::Same if began.elapsed() < TIME => {}
            Taken::Nothing | Taken::Same => {
                bail!("{}: only {count} frames in {} s", redacted(uri), TIME.as_secs())
            }
            Taken::Away { reason, .. } => bail!("{reason}"),
            Taken::Ended(Some(fault)) => bail!("{fault}"),
            Taken::Ended(None) => break,
        }
    }
    last.with_context(|| format!("{}: no frame", redacted(uri)))
}

/// File format of the picture.
#[derive(Clone, Copy)]
enum Format {
    Jpeg,
    Png,
}

impl Format {
    /// The format for the extension of the file name.
    fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        match ending.to_ascii_lowercase().as_str() {
            "png" => Ok(Self::Png),
            "jpg" | "jpeg" => Ok(Self::Jpeg),
            _ => bail!("{}: the file name must end in .jpg, .jpeg or .png", path.display()),
        }
    }

    fn encode(self, frame: &Frame) -> Result<Vec<u8>, ImageError> {
        let Self::Jpeg = self else { return encode_png(frame) };
        let mut bytes = Vec::new();
        let (width, height) = (frame.width() as u32, frame.height() as u32);
        JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).encode(
            frame.pixels(),
            width,
            height,
            ExtendedColorType::Rgb8,
        )?;
        Ok(bytes)
    }
}
