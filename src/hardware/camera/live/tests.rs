use super::*;
use crate::vision::picture;
use tempfile::TempDir;

/// Longer than any of these tests takes on a slow machine.
const LONG: Duration = Duration::from_secs(60);
const VIDEO: &str = "printf 'YUV4MPEG2 W1 H1 C444\\nFRAME\\nabc'";

fn hasty() -> Patience {
    let soon = Duration::from_millis(5);
    Patience { least: soon, most: soon, ..Patience::default() }
}

fn start(uri: &str, patience: Patience) -> LiveCamera {
    LiveCamera::start_patient(uri, FrameLimit::default(), Instant::now(), patience)
        .expect("a camera")
}

/// The next frame, after any number of failures.
fn frame(camera: &LiveCamera) -> Captured {
    let began = Instant::now();
    while began.elapsed() < LONG {
        match camera.next(LONG) {
            Taken::Frame(captured) => return captured,
            Taken::Ended(fault) => panic!("ended: {fault:?}"),
            Taken::Nothing | Taken::Same | Taken::Away { .. } => std::thread::sleep(LOOK_EVERY),
        }
    }
    panic!("no frame")
}

/// Waits until the camera is away for this reason. If it is reopened before a slow
/// machine has ended the last program, it is away for another reason meanwhile.
#[track_caller]
fn is_away(camera: &LiveCamera, expected: &str) {
    let (began, mut reasons) = (Instant::now(), Vec::new());
    while began.elapsed() < LONG {
        if let Taken::Away { reason, .. } = camera.next(LOOK_EVERY) {
            if reason.contains(expected) {
                return;
            }
            reasons.push(reason);
            reasons.dedup();
        }
    }
    panic!("not away by {expected:?}, but {reasons:?}")
}

#[test]
fn a_program_that_dies_is_started_again_and_again() {
    let origin = Instant::now();
    let camera =
        LiveCamera::start_patient(&format!("pipe:{VIDEO}"), FrameLimit::default(), origin, hasty());
    let camera = camera.expect("a camera");
    let mut last = Duration::ZERO;
    for _ in 0..3 {
        let captured = frame(&camera);
        assert!(captured.at >= last && captured.at <= origin.elapsed(), "{:?}", captured.at);
        last = captured.at;
    }
    assert!(camera.health().frames >= 3);
    is_away(&camera, "the camera stream ended");
}

#[test]
fn garbage_is_told_and_tried_again() {
    let camera = start("pipe:echo hello", hasty());
    is_away(&camera, "not a YUV4MPEG2 stream");
    let began = Instant::now();
    let tried = || match camera.health().state {
        CameraState::Away { tries, .. } => tries,
        _ => 0,
    };
    while tried() < 3 {
        assert!(began.elapsed() < LONG);
        std::thread::sleep(LOOK_EVERY);
    }
}

#[test]
fn a_program_that_hangs_is_ended_and_started_again() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("pids");
    let hang = format!("pipe:echo $$ >> {}; {VIDEO}; sleep 1000", file.display());
    let short = Duration::from_millis(50);
    let camera = start(&hang, Patience { between: short, ..hasty() });
    frame(&camera);
    is_away(&camera, "no frame for 0.05 seconds");
    frame(&camera);
    drop(camera);
    let pids = std::fs::read_to_string(&file).expect("they were written");
    assert!(pids.lines().count() >= 2, "{pids}");
    let left: Vec<&str> =
        pids.lines().filter(|pid| std::path::Path::new("/proc").join(pid).exists()).collect();
    assert!(left.is_empty(), "{left:?} go on");
    let silent = start("pipe:sleep 1000", Patience { first_frame: short, ..hasty() });
    is_away(&silent, "no frame 0.05 seconds after opening");
}

#[test]
fn a_reader_that_never_ends_takes_the_sign_of_life_with_it() {
    let origin = Instant::now();
    let shared =
        Arc::new(Shared::new("pipe:true", FrameLimit::default(), origin).expect("a camera"));
    let (sender, _receiver) = sync_channel(1);
    let mut minder = Minder::new(Arc::clone(&shared), hasty(), sender);
    let (end, ended) = sync_channel::<()>(0);
    let stuck = std::thread::spawn(move || {
        let _ = ended.recv();
    });
    let told = Duration::from_secs(100);
    minder.old = Some((stuck, told));
    let alive = |minder: &Minder, after: Duration| {
        minder.show_life(told + after);
        shared.slot().health.alive == told + after
    };
    assert!(alive(&minder, HOLDS_FOR - LOOK_EVERY));
    assert!(!alive(&minder, HOLDS_FOR));
    assert!(!alive(&minder, 2 * HOLDS_FOR));
    assert_eq!(
        minder.open().expect_err("it is held"),
        "the previous reading thread still holds the camera"
    );
    // A reading thread may also end late.
    drop(end);
    while minder.old.as_ref().is_some_and(|(old, _)| !old.is_finished()) {
        std::thread::sleep(LOOK_EVERY);
    }
    assert!(alive(&minder, 3 * HOLDS_FOR));
}

#[test]
fn a_camera_whose_frames_are_all_the_same_is_opened_anew_if_they_are_to_differ() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("openings");
    for (luma, expected) in [("\\353", "all the same"), ("\\020", "black")] {
        let bytes = format!("printf 'FRAME\\n{luma}\\200\\200'");
        let begin = "printf 'YUV4MPEG2 W1 H1 C444\\n'";
        let uri = format!(
            "pipe:echo x >> {}; {begin}; while {bytes}; do sleep 0.01; done",
            file.display()
        );
        std::fs::write(&file, "").expect("written");
        let openings = || std::fs::read_to_string(&file).expect("text").len() / 2;
        let same = Duration::from_millis(30);
        let camera = start(&uri, Patience { same, ..hasty() });
        camera.expect_distinct(true);
        frame(&camera);
        is_away(&camera, expected);
        let began = Instant::now();
        while openings() < 3 {
            assert!(began.elapsed() < LONG);
            assert!(!matches!(camera.next(LOOK_EVERY), Taken::Frame(_)), "nothing is new");
        }
        // It was away all the time.
        assert!(matches!(camera.health().state, CameraState::Away { .. }));
    }
}

#[test]
fn frames_that_may_be_the_same_are_all_shown() {
    let frames = "for i in 1 2 3 4 5 6 7 8 9; do printf 'FRAME\\nabc'; sleep 0.01; done";
    let camera = start(&format!("pipe:{VIDEO}; {frames}; sleep 1000"), hasty());
    for _ in 0..2 {
        frame(&camera);
    }
}

#[test]
fn only_the_newest_frame_counts() {
    let many = "for i in 1 2 3 4 5 6 7 8 9; do printf 'FRAME\\nabc'; done; \
                printf 'FRAME\\n\\353\\200\\200'; sleep 1000";
    let camera = start(&format!("pipe:{VIDEO}; {many}"), Patience::default());
    let began = Instant::now();
    while camera.health().frames < 11 {
        assert!(began.elapsed() < LONG);
        std::thread::sleep(LOOK_EVERY);
    }
    assert_eq!(frame(&camera).frame, Frame::filled(1, 1, [255; 3]));
    assert!(matches!(camera.next(LOOK_EVERY), Taken::Nothing));
    let health = camera.health();
    assert_eq!((health.state, health.bad_frames), (CameraState::Streaming, 0));
    assert!(health.last_frame.is_some_and(|at| at <= health.alive));
}

#[test]
fn the_end_does_not_wait_for_a_camera_that_hangs() {
    let began = Instant::now();
    let mut camera = start("pipe:sleep 1000", Patience::default());
    assert!(matches!(camera.next(LOOK_EVERY), Taken::Nothing));
    camera.stop();
    assert!(matches!(camera.next(LONG), Taken::Ended(None)));
    assert!(began.elapsed() < LONG);
}

#[test]
fn recorded_frames_come_in_turn_and_end() {
    let folder = TempDir::new().expect("a folder");
    for (name, grey) in [("a.png", 10), ("b.png", 20), ("d.png", 30)] {
        let png = picture::encode_png(&Frame::filled(4, 4, [grey; 3])).expect("a picture");
        std::fs::write(folder.path().join(name), png).expect("written");
    }
    std::fs::write(folder.path().join("c.jpg"), "no picture").expect("written");
    let camera = start(&format!("images:{}?fps=10", folder.path().display()), hasty());
    assert_eq!(camera.kind(), Kind::Recorded);
    for (grey, at) in [(10, 0), (20, 100), (30, 300)] {
        let captured = frame(&camera);
        assert_eq!(captured.frame.pixel(0, 0), [grey; 3]);
        assert_eq!(captured.at, Duration::from_millis(at));
    }
    assert!(matches!(camera.next(LONG), Taken::Ended(None)));
    assert_eq!(camera.health().bad_frames, 1);
    let missing = start("images:/no/such/folder", hasty());
    let Taken::Ended(Some(fault)) = missing.next(LONG) else { panic!("no fault") };
    assert!(fault.contains("/no/such/folder"), "{fault}");
}

#[test]
fn what_names_no_camera_is_refused_at_once() {
    for uri in ["camera0", "v4l:video0", "v4l:/dev/video0?fps=no"] {
        assert!(LiveCamera::start(uri, Instant::now()).is_err(), "{uri}");
    }
}
