//! EDGE: lists the Video4Linux2 devices of this machine, finds the one that a URI names,
//! and the programs that have one open.

use super::uri::Which;
use crate::hardware::camera::Identity;
use std::path::{Path, PathBuf};

/// Most processes named in an error.
const MOST_HOLDERS: usize = 4;

/// A video device: a camera, or another node of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Path in `/dev`.
    pub device: PathBuf,
    /// Name given by the maker.
    pub name: String,
    /// USB socket, such as `1-1.2`; `None` on other buses.
    pub usb: Option<String>,
    /// Bus address as the driver reports it; `None` until it was queried.
    pub bus: Option<String>,
    /// The hardware behind it; several nodes may share it.
    hardware: Option<PathBuf>,
}

/// All video nodes, by number; empty if the kernel lists none.
pub fn nodes() -> Vec<Node> {
    nodes_in(Path::new("/sys/class/video4linux"), Path::new("/dev"))
}

/// [`nodes`] with other folders than `/sys/class/video4linux` and `/dev`.
fn nodes_in(class: &Path, devices: &Path) -> Vec<Node> {
    let Ok(entries) = std::fs::read_dir(class) else { return Vec::new() };
    let mut nodes: Vec<(u32, Node)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let file = entry.file_name().into_string().ok()?;
            let number = file.strip_prefix("video")?.parse().ok()?;
            let name = std::fs::read(entry.path().join("name")).ok()?;
            let hardware = entry.path().join("device").canonicalize().ok();
            let usb = hardware.as_deref().and_then(socket);
            let name = String::from_utf8_lossy(&name).trim().to_owned();
            let device = devices.join(&file);
            Some((number, Node { device, name, usb, bus: None, hardware }))
        })
        .collect();
    nodes.sort_by_key(|(number, _)| *number);
    nodes.into_iter().map(|(_, node)| node).collect()
}

/// The socket from the path of a USB interface: `1-1.2` of
/// `.../usb1/1-1/1-1.2/1-1.2:1.0`.
fn socket(hardware: &Path) -> Option<String> {
    let interface = hardware.file_name()?.to_str()?;
    let (socket, _) = interface.split_once(':')?;
    let (bus, ports) = socket.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    (digits(bus) && ports.split('.').all(digits)).then(|| socket.to_owned())
}

/// The path of the one device that the URI names, among `cameras`. An error if none or
/// several match; a path is returned unchecked.
pub fn find(which: &Which, cameras: &[Node]) -> Result<PathBuf, String> {
    let (asked, found): (String, Vec<&Node>) = match which {
        Which::Path(path) => return Ok(path.clone()),
        Which::Name(name) => {
            let wanted = name.to_lowercase();
            let by_name = |whole: bool| {
                let named = cameras.iter().filter(|node| {
                    let name = node.name.to_lowercase();
                    if whole { name == wanted } else { name.contains(&wanted) }
                });
                one_of_each(named)
            };
            // An exact name wins over names that only contain it.
            let whole = by_name(true);
            (format!("name={name}"), if whole.is_empty() { by_name(false) } else { whole })
        }
        Which::Usb(socket) => {
            let there = cameras
                .iter()
                .filter(|node| [&node.usb, &node.bus].contains(&&Some(socket.clone())));
            (format!("usb={socket}"), one_of_each(there))
        }
    };
    match found[..] {
        [node] => Ok(node.device.clone()),
        [] if cameras.is_empty() => Err(format!("{asked}: no camera found; is it plugged in?")),
        [] => Err(format!("{asked}: no such camera; found {}", told(cameras.iter()))),
        _ => Err(format!(
            "{asked}: matches several cameras: {}; use usb=SOCKET or more of the name",
            told(found.into_iter())
        )),
    }
}

/// The first node of each piece of hardware.
fn one_of_each<'a>(nodes: impl Iterator<Item = &'a Node>) -> Vec<&'a Node> {
    let mut found: Vec<&Node> = Vec::new();
    for node in nodes {
        let known =
            node.hardware.is_some() && found.iter().any(|other| other.hardware == node.hardware);
        if !known {
            found.push(node);
        }
    }
    found
}

fn told<'a>(nodes: impl Iterator<Item = &'a Node>) -> String {
    let told: Vec<String> = nodes.map(Node::to_string).collect();
    told.join(", ")
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} ({}", self.name, self.device.display())?;
        match (&self.usb, &self.bus) {
            (Some(place), _) | (None, Some(place)) => write!(f, ", usb={place})"),
            (None, None) => f.write_str(")"),
        }
    }
}

/// The URI to write into the configuration. By name if that names only this device,
/// because it is then found in any socket; else by socket, else by path.
pub fn lasting_uri(node: &Node, cameras: &[Node]) -> String {
    let ways = [
        (!node.name.is_empty())
            .then(|| (format!("name={}", node.name), Which::Name(node.name.clone()))),
        node.usb.clone().map(|usb| (format!("usb={usb}"), Which::Usb(usb))),
    ];
    let lasting = ways.into_iter().flatten().find(|(text, which)| {
        !text.contains(['?', '\0']) && find(which, cameras).as_ref() == Ok(&node.device)
    });
    match lasting {
        Some((text, _)) => format!("v4l:{text}"),
        None => format!("v4l:{}", node.device.display()),
    }
}

/// What tells the camera at this path from another one: its maker's numbers and serial
/// number as the kernel read them, and its socket. `card` and `bus` are the driver's words.
pub fn identity(device: &Path, card: &str, bus: &str) -> Identity {
    identity_in(Path::new("/sys/class/video4linux"), device, card, bus)
}

#[cfg_attr(not(feature = "v4l"), allow(dead_code))]
fn identity_in(class: &Path, device: &Path, card: &str, bus: &str) -> Identity {
    let device = device.canonicalize().unwrap_or_else(|_| device.to_owned());
    let node = class.join(device.file_name().unwrap_or_default());
    let hardware = node.join("device").canonicalize().ok();
    let usb = hardware.as_deref().and_then(socket);
    // The numbers belong to the USB device, the video node to one of its interfaces.
    let parent = hardware.as_deref().and_then(Path::parent).filter(|_| usb.is_some());
    let number = |name: &str| {
        let text = std::fs::read(parent?.join(name)).ok()?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    let model = match (number("idVendor"), number("idProduct")) {
        (Some(vendor), Some(product)) => format!("{card} ({vendor}:{product})"),
        _ => card.to_owned(),
    };
    Identity { model, serial: number("serial"), socket: usb.unwrap_or_else(|| bus.to_owned()) }
}

/// Other programs that have the device open, as far as this user may see them.
pub fn holders(device: &Path) -> Vec<String> {
    holders_in(Path::new("/proc"), device, std::process::id())
}

fn holders_in(processes: &Path, device: &Path, ourselves: u32) -> Vec<String> {
    let device = device.canonicalize().unwrap_or_else(|_| device.to_owned());
    let Ok(entries) = std::fs::read_dir(processes) else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number: u32 =
                entry.file_name().to_str()?.parse().ok().filter(|number| *number != ourselves)?;
            let mut files = std::fs::read_dir(entry.path().join("fd")).ok()?;
            let holds = files.any(|file| {
                file.and_then(|file| std::fs::read_link(file.path())).is_ok_and(|to| to == device)
            });
            holds.then(|| {
                let name = std::fs::read(entry.path().join("comm")).unwrap_or_default();
                format!("{} (process {number})", String::from_utf8_lossy(&name).trim())
            })
        })
        .take(MOST_HOLDERS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    fn node(number: u32, name: &str, usb: Option<&str>) -> Node {
        Node {
            device: format!("/dev/video{number}").into(),
            name: name.to_owned(),
            usb: usb.map(str::to_owned),
            bus: None,
            hardware: usb.map(PathBuf::from),
        }
    }

    #[test]
    fn devices_are_read_with_name_and_socket() {
        let root = TempDir::new().expect("a folder");
        let class = root.path().join("class");
        for (number, name, hardware) in [
            (10, "HD Pro Webcam C920\n", Some("usb1/1-1/1-1.2/1-1.2:1.0")),
            (2, "unicam\n", Some("platform/3f801000.csi")),
            (1, "DoorCam\n", None),
        ] {
            let node = class.join(format!("video{number}"));
            std::fs::create_dir_all(&node).expect("a folder");
            std::fs::write(node.join("name"), name).expect("written");
            if let Some(hardware) = hardware {
                let hardware = root.path().join(hardware);
                std::fs::create_dir_all(&hardware).expect("a folder");
                symlink(&hardware, node.join("device")).expect("a link");
            }
        }
        std::fs::create_dir_all(class.join("v4l-subdev0")).expect("a folder");
        let nodes = nodes_in(&class, Path::new("/dev"));
        let told: Vec<String> = nodes.iter().map(Node::to_string).collect();
        assert_eq!(
            told,
            [
                "\"DoorCam\" (/dev/video1)",
                "\"unicam\" (/dev/video2)",
                "\"HD Pro Webcam C920\" (/dev/video10, usb=1-1.2)"
            ]
        );
        assert!(nodes_in(&root.path().join("none"), Path::new("/dev")).is_empty());
    }

    #[test]
    fn the_one_device_meant_is_found_whatever_its_number() {
        let mut loopback = node(7, "DoorCam", None);
        loopback.bus = Some("platform:v4l2loopback-000".to_owned());
        let cameras = [
            node(0, "HD Webcam", Some("1-1")),
            // Second stream of the same camera.
            node(1, "HD Webcam", Some("1-1")),
            node(2, "HD Webcam C920", Some("1-1.2")),
            node(3, "Twin", Some("2-1")),
            node(5, "Twin", Some("2-2")),
            loopback,
        ];
        for (which, expected) in [
            (Which::Name("c920".to_owned()), Ok("/dev/video2")),
            (Which::Name("HD Webcam".to_owned()), Ok("/dev/video0")),
            (Which::Name("door".to_owned()), Ok("/dev/video7")),
            (Which::Usb("1-1.2".to_owned()), Ok("/dev/video2")),
            (Which::Usb("2-2".to_owned()), Ok("/dev/video5")),
            (Which::Usb("platform:v4l2loopback-000".to_owned()), Ok("/dev/video7")),
            (Which::Path("/dev/door".into()), Ok("/dev/door")),
            (Which::Usb("1".to_owned()), Err("usb=1: no such camera; found \"HD Webcam\"")),
            (
                Which::Name("twin".to_owned()),
                Err("matches several cameras: \"Twin\" (/dev/video3, usb=2-1), \"Twin\" \
                     (/dev/video5, usb=2-2); use usb="),
            ),
            (Which::Name("Logitech".to_owned()), Err("name=Logitech: no such camera")),
        ] {
            match (find(&which, &cameras), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, Path::new(expected), "{which:?}"),
                (Err(message), Err(expected)) => {
                    assert!(message.contains(expected), "{message}");
                }
                (got, expected) => panic!("{which:?} gave {got:?}, expected {expected:?}"),
            }
        }
        let message = find(&Which::Usb("1-1".to_owned()), &[]).expect_err("no camera");
        assert!(message.contains("plugged in"), "{message}");
        let uris: Vec<String> = cameras.iter().map(|node| lasting_uri(node, &cameras)).collect();
        assert_eq!(
            uris,
            [
                "v4l:name=HD Webcam",
                "v4l:/dev/video1",
                "v4l:name=HD Webcam C920",
                "v4l:usb=2-1",
                "v4l:usb=2-2",
                "v4l:name=DoorCam"
            ]
        );
    }

    #[test]
    fn cameras_of_one_name_differ_in_their_numbers_and_their_socket() {
        let root = TempDir::new().expect("a folder");
        let class = root.path().join("class");
        let plug = |number: u32, socket: &str, serial: Option<&str>| {
            let node = class.join(format!("video{number}"));
            let device = root.path().join(format!("usb1/{socket}"));
            let hardware = device.join(format!("{socket}:1.0"));
            std::fs::create_dir_all(&node).expect("a folder");
            std::fs::create_dir_all(&hardware).expect("a folder");
            symlink(&hardware, node.join("device")).expect("a link");
            let numbers = [("idVendor", Some("046d")), ("idProduct", Some("082d"))];
            for (name, text) in numbers.into_iter().chain([("serial", serial)]) {
                if let Some(text) = text {
                    std::fs::write(device.join(name), format!("{text}\n")).expect("written");
                }
            }
            let path = format!("/dev/video{number}");
            identity_in(&class, Path::new(&path), "Webcam", "usb-0000:01:00.0-1")
        };
        let first = plug(0, "1-1.2", Some("A1B2"));
        assert_eq!(first.to_string(), "Webcam (046d:082d), serial number A1B2, in socket 1-1.2");
        let other = plug(1, "1-1.3", None);
        assert_eq!(other.to_string(), "Webcam (046d:082d), in socket 1-1.3");
        assert_ne!(first, other);
        let unknown = identity_in(&class, Path::new("/dev/video9"), "Cam", "platform:x");
        assert_eq!(unknown.to_string(), "Cam, in socket platform:x");
    }

    #[test]
    fn who_holds_a_device_is_named() {
        let root = TempDir::new().expect("a folder");
        let device = root.path().join("video0");
        std::fs::write(&device, "").expect("written");
        let link = root.path().join("door-camera");
        symlink(&device, &link).expect("a link");
        for (number, holds) in [(12, true), (13, false), (14, true)] {
            let process = root.path().join(format!("{number}/fd"));
            std::fs::create_dir_all(&process).expect("a folder");
            std::fs::write(root.path().join(format!("{number}/comm")), "cheese\n")
                .expect("written");
            if holds {
                symlink(device.canonicalize().expect("a path"), process.join("3")).expect("a link");
            }
        }
        assert_eq!(holders_in(root.path(), &link, 14), ["cheese (process 12)"]);
        assert!(holders_in(root.path(), Path::new("/dev/null"), 14).is_empty());
    }
}
