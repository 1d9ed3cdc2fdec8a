//! Galleries: `enroll`, `people`, and commands that read them.

use super::{
    ADMIRAL, ASTRONAUT, PATIENCE, at, enrolled, facelatch, fails, json_lines, output, stderr,
    stdout, succeeds,
};
use facelatch::vision::frame::Frame;
use facelatch::vision::picture;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Reading a missing gallery must not create one.
#[test]
fn looking_begins_no_gallery() {
    let folder = TempDir::new().expect("a folder");
    let gallery = at(folder.path(), "none/gallery.redb");
    let missing = at(folder.path(), "missing.redb");
    let exported = at(folder.path(), "exported.redb");
    for arguments in [
        &["identify", ASTRONAUT][..],
        &["people", "list"],
        &["people", "show", "A"],
        &["people", "export", "--unencrypted", &exported],
    ] {
        let message = fails(&[arguments, &["--gallery", &gallery]].concat());
        assert!(message.contains("no gallery yet; enroll somebody"), "{message}");
    }
    let status = succeeds(&["status", "--json", "--gallery", &gallery]);
    assert_eq!(json_lines(&status)[0]["gallery_file"]["state"], "absent");
    let message = fails(&["people", "import", &missing, "--gallery", &gallery]);
    assert!(message.contains("missing.redb: file not found"), "{message}");
    let message = fails(&["people", "remove", "A", "--gallery", &gallery]);
    assert!(message.contains("no gallery yet"), "{message}");
    assert!(!folder.path().join("none").exists());
    // If only the last good copy is left, it is used.
    let gallery = enrolled(&folder);
    for arguments in [&["status", "--json"][..], &["identify", "--json", ASTRONAUT]] {
        std::fs::remove_file(&gallery).expect("removed");
        let said = succeeds(&[arguments, &["--gallery", &gallery]].concat());
        let line = &json_lines(&said)[0];
        let known = line["people"] == 1 || line["faces"][0]["name"] == "Eileen Collins";
        assert!(known, "{said}");
    }
}

/// Importing needs only read permission for the export.
#[test]
fn an_export_that_may_only_be_read_is_imported() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().expect("a folder");
    let export = at(folder.path(), "export.redb");
    succeeds(&["people", "export", "--unencrypted", &export, "--gallery", &enrolled(&folder)]);
    let before = std::fs::read(&export).expect("a file");
    std::fs::set_permissions(&export, PermissionsExt::from_mode(0o400)).expect("permissions");
    let other = at(folder.path(), "other.redb");
    let said = succeeds(&["people", "import", &export, "--gallery", &other]);
    assert_eq!(said, "1 people added\n");
    assert_eq!(std::fs::read(&export).expect("a file"), before);
}

#[test]
fn people_come_and_go() {
    let folder = TempDir::new().expect("a folder");
    let gallery = enrolled(&folder);
    let people = |arguments: &[&str]| {
        let mut all = vec!["people"];
        all.extend(arguments);
        all.extend(["--gallery", &gallery]);
        output(&all)
    };
    let listed = json_lines(&stdout(&people(&["list", "--json"])));
    assert_eq!(listed[0]["name"], "Eileen Collins");
    assert_eq!((&listed[0]["templates"], &listed[0]["pictures"]), (&1.into(), &1.into()));

    let faces = succeeds(&["identify", "--json", ASTRONAUT, ADMIRAL, "--gallery", &gallery]);
    let faces = json_lines(&faces);
    assert_eq!(faces[0]["faces"][0]["name"], "Eileen Collins");
    assert!(faces[0]["faces"][0]["similarity"].as_f64().expect("a number") > 0.99);
    assert_eq!(faces[1]["faces"][0]["name"], Value::Null);

    // The same face under another name is refused, and another face under the same name.
    let message = fails(&["enroll", "Somebody", "--image", ASTRONAUT, "--gallery", &gallery]);
    assert!(message.contains("Eileen Collins, who is already enrolled"), "{message}");
    let message = fails(&["enroll", "Eileen Collins", "--image", ADMIRAL, "--gallery", &gallery]);
    assert!(message.contains("does not look like Eileen Collins"), "{message}");

    assert!(people(&["admin", "Eileen Collins"]).status.success());
    assert!(people(&["group", "Eileen Collins", "astronauts"]).status.success());
    assert!(!people(&["admin", "Somebody"]).status.success());
    let dates = |more: &[&str]| people(&[&["dates", "Eileen Collins"], more].concat());
    for wrong in [&["--until", "tomorrow"][..], &[], &["--always", "--from", "2026-01-01"]] {
        assert_eq!(dates(wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert!(dates(&["--from", "2026-12-01T08:00Z"]).status.success());
    assert!(!dates(&["--until", "2026-11-30"]).status.success(), "before the first day");
    assert!(dates(&["--until", "2026-12-31T17:00Z"]).status.success());
    assert!(people(&["rename", "Eileen Collins", "Commander Collins"]).status.success());
    let saved = at(folder.path(), "saved");
    assert!(people(&["show", "Commander Collins", "--save", &saved]).status.success());
    assert_eq!(std::fs::read_dir(&saved).expect("a folder").count(), 1);
    let exported = at(folder.path(), "exported.redb");
    assert!(people(&["export", "--unencrypted", &exported]).status.success());
    assert!(!people(&["import", &exported]).status.success(), "the name is taken");
    assert!(people(&["remove", "Commander Collins"]).status.success());
    let gone = people(&["remove", "Commander Collins"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(stderr(&gone).contains("nobody with this name"));
    let itself = people(&["import", &gallery]);
    assert!(stderr(&itself).contains("is the gallery itself"), "{}", stderr(&itself));
    let imported = people(&["import", &exported]);
    assert!(imported.status.success());
    assert!(stdout(&imported).contains("1 of them were administrators and are ordinary"));
    assert!(!stdout(&people(&["list"])).contains("administrator"));
    assert!(people(&["remove", "Commander Collins"]).status.success());
    assert!(people(&["import", &exported, "--with-administrators"]).status.success());
    let listed = stdout(&people(&["list"]));
    assert!(listed.contains("Commander Collins  1 template"), "{listed}");
    assert!(listed.contains(", group astronauts, administrator"), "{listed}");
    assert!(people(&["admin", "Commander Collins", "--off"]).status.success());
    let shown = json_lines(&stdout(&people(&["show", "Commander Collins", "--json"])));
    assert_eq!(shown[0]["administrator"], Value::Bool(false));
    assert_eq!(shown[0]["group"], "astronauts");
    assert_eq!(shown[0]["valid_from"], 1_796_112_000);
    assert_eq!(shown[0]["valid_until"], 1_798_736_400);
    assert!(people(&["dates", "Commander Collins", "--always"]).status.success());
    let listed = stdout(&people(&["list"]));
    assert!(!listed.contains("until"), "{listed}");
    let status = succeeds(&["status", "--json", "--gallery", &gallery]);
    let status = &json_lines(&status)[0];
    assert_eq!((&status["people"], &status["templates"]), (&1.into(), &1.into()));
    let marked = status["thresholds"].as_array().expect("thresholds");
    let extrapolated: Vec<bool> =
        marked.iter().map(|line| line["extrapolated"] == Value::Bool(true)).collect();
    assert!(!extrapolated[0] && extrapolated[extrapolated.len() - 1] && extrapolated.is_sorted());
}

/// The cut face of one person resembles that of another, and so do two masks.
#[test]
fn a_face_that_is_not_whole_is_not_enrolled() {
    let folder = TempDir::new().expect("a folder");
    let gallery = at(folder.path(), "gallery.redb");
    for (number, portrait) in [ASTRONAUT, ADMIRAL].into_iter().enumerate() {
        let photo = picture::read(portrait).expect("a portrait");
        let found = json_lines(&succeeds(&["detect", "--json", portrait]));
        let landmark = |at: usize, axis: usize| {
            found[0]["faces"][0]["landmarks"][at][axis].as_f64().expect("a number") as isize
        };
        let (left, right, nose) = (landmark(0, 0), landmark(1, 0), landmark(2, 1));
        let mouth = landmark(3, 1).max(landmark(4, 1));
        let (middle, eyes) = ((left + right) / 2, landmark(0, 1));
        let far = right - left;
        let mask = |x: isize, y: isize| {
            let half = if y < mouth { far * 11 / 10 } else { far * 11 / 10 - (y - mouth) };
            (nose - far / 5..mouth + far * 2 / 3).contains(&y) && (x - middle).abs() < half
        };
        let glasses = |x: isize, y: isize| {
            let near = |eye: isize| (x - eye).abs() < far * 2 / 5;
            (eyes - far / 4..eyes + far / 3).contains(&y) && (near(left) || near(right))
        };
        let painted = |covers: &dyn Fn(isize, isize) -> bool, colour: [u8; 3]| {
            let mut made = photo.clone();
            let width = made.width();
            for (at, pixel) in made.pixels_mut().as_chunks_mut::<3>().0.iter_mut().enumerate() {
                if covers((at % width) as isize, (at / width) as isize) {
                    *pixel = colour;
                }
            }
            made
        };
        let (width, height) = (photo.width(), (nose + far / 4) as usize);
        let pixels = photo.pixels()[..width * height * 3].to_vec();
        for (made, advice) in [
            (Frame::new(width, height, pixels).expect("a frame"), "come fully into the picture"),
            (painted(&|_, y| y > nose + far / 4, [0; 3]), "come fully into the picture"),
            (painted(&mask, [160, 190, 210]), "take off the mask"),
            (painted(&glasses, [15; 3]), "take off the sunglasses"),
        ] {
            let file = at(folder.path(), "photo.png");
            std::fs::write(&file, picture::encode_png(&made).expect("a PNG")).expect("written");
            let message = fails(&["enroll", "A", "--image", &file, "--gallery", &gallery]);
            assert!(message.contains(advice), "portrait {number}, {advice}: {message}");
        }
    }
}

#[test]
fn enrolling_in_front_of_the_camera_takes_different_views() {
    let folder = TempDir::new().expect("a folder");
    let frames = at(folder.path(), "frames");
    succeeds(&["demo", "--save-frames", &frames]);
    let gallery = at(folder.path(), "gallery.redb");
    // Pictures of one view add no second view, and the camera ends too early.
    let still = format!("images:{ASTRONAUT}");
    let message = fails(&["enroll", "A", "--camera", &still, "--gallery", &gallery]);
    assert!(message.contains("after 1 of 5 views"), "{message}");
    let listed = output(&["people", "list", "--gallery", &gallery]);
    assert!(listed.status.success() && stdout(&listed).is_empty());
    assert!(stderr(&listed).contains("nobody is enrolled yet"), "{}", stderr(&listed));
    let walk = format!("images:{frames}/1-*.png?fps=3");
    let said = succeeds(&["enroll", "A", "--camera", &walk, "--views", "2", "--gallery", &gallery]);
    assert!(said.contains("A: 2 templates added"), "{said}");
}

#[test]
fn a_signal_ends_enrolling_and_its_camera() {
    let folder = TempDir::new().expect("a folder");
    let gallery = at(folder.path(), "gallery.redb");
    let mark = at(folder.path(), "camera-program");
    let camera = format!("pipe:touch {mark}; sleep 1000; : {mark}");
    let mut enrolling = facelatch(&["enroll", "A", "--camera", &camera, "--gallery", &gallery])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let began = Instant::now();
    while !Path::new(&mark).exists() {
        let ended = enrolling.try_wait().expect("a state");
        assert!(ended.is_none() && began.elapsed() < PATIENCE, "no camera is opened: {ended:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = enrolling.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &id]).status().expect("kill runs").success());
    let ended = enrolling.wait_with_output().expect("an end");
    assert_eq!(ended.status.code(), Some(1));
    assert!(stderr(&ended).contains("nothing was enrolled") || stderr(&ended).contains("signal"));
    let left = Command::new("pgrep").args(["-f", &mark]).output().expect("pgrep runs");
    assert!(left.stdout.is_empty(), "the camera program goes on");
}

#[test]
fn a_signal_ends_enrolling_from_pictures() {
    let folder = TempDir::new().expect("a folder");
    let gallery = at(folder.path(), "gallery.redb");
    let blank = picture::encode_png(&Frame::filled(640, 480, [90; 3])).expect("a PNG");
    std::fs::write(at(folder.path(), "blank.png"), blank).expect("written");
    // Logged in every round, which shows that the camera runs.
    std::fs::write(at(folder.path(), "bad.png"), "no picture").expect("written");
    let camera = format!("images:{}?fps=1000&loop", folder.path().display());
    for signal in ["INT", "TERM"] {
        let mut enrolling = facelatch(&["enroll", "A", "--camera", &camera, "--gallery", &gallery])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut log = BufReader::new(enrolling.stderr.take().expect("its log")).lines();
        assert!(log.any(|line| line.is_ok_and(|line| line.contains("bad.png"))));
        let id = enrolling.id().to_string();
        let killed = Command::new("kill").args(["-s", signal, &id]).status().expect("kill runs");
        assert!(killed.success());
        let last = log.map_while(Result::ok).last().expect("a last word");
        assert!(last.contains("stopped by a signal after 0 of 5 views"), "{last}");
        assert_eq!(enrolling.wait().expect("an end").code(), Some(1));
    }
}

/// A card that is away, a file that is put back, a link that leads nowhere: each command
/// says what is wrong, and none of them creates anything.
#[test]
fn every_command_names_what_is_wrong_with_the_gallery() {
    let folder = TempDir::new().expect("a folder");
    let card = folder.path().join("card");
    std::fs::create_dir(&card).expect("a folder");
    let gallery = at(&card, "gallery.redb");
    succeeds(&["enroll", "Eileen Collins", "--image", ASTRONAUT, "--gallery", &gallery]);
    let old = std::fs::read(&gallery).expect("a gallery");
    succeeds(&["people", "rename", "Eileen Collins", "Eileen", "--gallery", &gallery]);
    let [exported, away] = ["exported.redb", "away"].map(|name| at(folder.path(), name));
    let commands = |gallery: &str, expected: &str| {
        for arguments in [
            &["people", "list"][..],
            &["people", "remove", "Eileen"],
            &["people", "export", "--unencrypted", &exported],
            &["identify", ASTRONAUT],
            &["enroll", "Grace Hopper", "--image", ADMIRAL],
            &["status"],
            &["run", "--camera", &format!("images:{ASTRONAUT}")],
        ] {
            let done = output(&[arguments, &["--gallery", gallery]].concat());
            assert_eq!(done.status.code(), Some(1), "{arguments:?}");
            let said = [stdout(&done), stderr(&done)].concat();
            assert!(said.contains(expected), "{arguments:?}: {said}");
        }
        let checked = output(&["check", "--gallery", gallery]);
        assert!(stdout(&checked).contains(expected), "{}", stdout(&checked));
    };
    std::fs::rename(&card, &away).expect("moved");
    std::fs::create_dir(&card).expect("a folder");
    commands(&gallery, "the gallery is missing, although people were enrolled here");
    assert_eq!(std::fs::read_dir(&card).expect("a folder").count(), 0);
    std::fs::remove_dir_all(&card).expect("removed");
    std::fs::rename(&away, &card).expect("back");
    let link = at(folder.path(), "link.redb");
    std::os::unix::fs::symlink("nowhere", &link).expect("a link");
    commands(&link, "unreachable: ");
    let newer = std::fs::read(&gallery).expect("a gallery");
    let copy = at(&card, "gallery.last-good.redb");
    for file in [&gallery, &copy] {
        std::fs::write(file, &old).expect("written");
    }
    commands(&gallery, "is older than revision 3");
    // Only an order takes it.
    let said = succeeds(&["people", "restore", &gallery, "--gallery", &gallery]);
    assert!(said.contains("1 people restored"), "{said}");
    assert!(succeeds(&["people", "list", "--gallery", &gallery]).contains("Eileen Collins"));
    for file in [&gallery, &copy] {
        std::fs::write(file, &newer).expect("written");
    }
    commands(&gallery, "is older than revision 4");
    for file in [&gallery, &copy] {
        std::fs::remove_file(file).expect("removed");
    }
    succeeds(&["people", "new", "--gallery", &gallery]);
    assert_eq!(succeeds(&["people", "list", "--gallery", &gallery]), "");
}

#[test]
fn a_damaged_gallery_is_named_and_nobody_is_lost() {
    let folder = TempDir::new().expect("a folder");
    let gallery = enrolled(&folder);
    let whole = std::fs::read(&gallery).expect("a gallery");
    std::fs::write(&gallery, &whole[..whole.len() / 2]).expect("written");
    let listed = output(&["people", "list", "--gallery", &gallery]);
    assert!(listed.status.success());
    assert!(stdout(&listed).contains("Eileen Collins"));
    let message = stderr(&listed);
    assert!(message.contains("was damaged") && message.contains("damaged-1"), "{message}");
    std::fs::write(&gallery, "nonsense").expect("written");
    std::fs::write(at(folder.path(), "gallery.last-good.redb"), "nonsense").expect("written");
    let message = fails(&["people", "list", "--gallery", &gallery]);
    assert!(message.contains("facelatch people restore FILE takes a backup"), "{message}");
}

#[test]
fn names_and_groups_that_look_alike_are_refused_and_lost_groups_are_named() {
    let folder = TempDir::new().expect("a folder");
    let gallery = enrolled(&folder);
    for (name, expected) in [
        ("eileen collins", "looks like \"Eileen Collins\""),
        ("Eil\u{435}en Collins", "looks like \"Eileen Collins\""),
        ("Eileen Collins\u{200b}", "contains the invisible character U+200B"),
        ("Eileen\u{202e}", "changes the direction of text"),
    ] {
        let message = fails(&["enroll", name, "--image", ADMIRAL, "--gallery", &gallery]);
        assert!(message.contains(expected), "{message}");
        let rename = ["people", "rename", "Eileen Collins", name, "--gallery", &gallery];
        let message = if name == "Eileen\u{202e}" { fails(&rename) } else { continue };
        assert!(message.contains("printable characters"), "{message}");
    }
    let file = at(folder.path(), "facelatch.toml");
    std::fs::write(&file, "[groups.staff]\n[groups.night]\n").expect("written");
    let group = |group: &str| {
        let all = ["people", "group", "Eileen Collins", group, "--gallery", &gallery];
        output(&[&all[..], &["--config", &file]].concat())
    };
    let moved = group("nihgt");
    assert!(moved.status.success());
    let message = stderr(&moved);
    assert!(message.contains("no table [groups.nihgt]"), "{message}");
    assert!(message.contains("did you mean \"night\"?"), "{message}");
    let check = output(&["check", "--gallery", &gallery, "--config", &file]);
    let said = stdout(&check);
    let line = said.lines().find(|line| line.contains("[groups.nihgt]")).expect(&said);
    assert!(line.contains("wrong") && line.contains("\"Eileen Collins\""), "{line}");
    let refused = group("N\u{456}ght");
    assert!(stderr(&refused).contains("looks like the group \"night\""), "{}", stderr(&refused));
    let moved = group("night");
    assert!(moved.status.success() && stderr(&moved).is_empty(), "{}", stderr(&moved));
}
