use super::*;
use proptest::prelude::*;

const fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// A camera and its log; times are in milliseconds.
struct Scene {
    reopen: Reopen,
    log: Vec<String>,
}

impl Scene {
    fn new() -> Self {
        Self::of(Patience::default())
    }

    fn of(patience: Patience) -> Self {
        Self { reopen: Reopen::new(ms(0), patience), log: Vec::new() }
    }

    fn step(&mut self, at: u64, event: Input) -> &mut Self {
        for action in self.reopen.step(ms(at), event) {
            self.log.push(match action {
                Output::Open => format!("{at} open"),
                Output::Close => format!("{at} close"),
                Output::Report(event) => format!("{at} {event}"),
            });
        }
        self
    }

    /// Steps at every due time up to `end`; `outcome` is the result of each opening.
    fn until(&mut self, end: u64, outcome: impl Fn() -> Input) -> &mut Self {
        loop {
            let at = self.reopen.wake().as_millis() as u64;
            if at > end {
                return self;
            }
            let before = self.log.len();
            self.step(at, Input::Tick);
            if self.log[before..].iter().any(|line| line.ends_with("open")) {
                self.step(at, outcome());
            }
        }
    }

    fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}

fn failed() -> Input {
    Input::Failed("no such device".to_owned())
}

#[test]
fn the_first_frame_is_told_and_the_rest_is_silence() {
    let mut scene = Scene::new();
    scene.step(0, Input::Tick).step(300, Input::Opened).step(400, Input::Frame);
    for at in 5..100 {
        scene.step(100 * at, Input::Frame);
    }
    assert_eq!(scene.said(), ["0 open", "400 the camera works"]);
    assert_eq!(scene.reopen.away(), None);
}

#[test]
fn a_camera_that_is_not_there_is_tried_ever_more_seldom_and_told_once_a_minute() {
    let mut scene = Scene::new();
    scene.until(200_000, failed);
    let said = scene.said();
    let opened: Vec<&str> = said.iter().filter_map(|line| line.strip_suffix(" open")).collect();
    let expected = [
        "0", "500", "1500", "3500", "7500", "15500", "31500", "61500", "91500", "121500", "151500",
        "181500",
    ];
    assert_eq!(opened, expected);
    let told: Vec<&String> = said.iter().filter(|line| line.contains("no camera")).collect();
    assert_eq!(
        told,
        [
            "0 no camera for 0 seconds, 1 failed attempt to open it: no such device",
            "60000 no camera for 60 seconds, 7 failed attempts to open it: no such device",
            "120000 no camera for 120 seconds, 9 failed attempts to open it: no such device",
            "180000 no camera for 180 seconds, 11 failed attempts to open it: no such device",
        ]
    );
    assert_eq!(scene.reopen.away(), Some((ms(0), "no such device", 12)));
}

#[test]
fn another_reason_is_told_at_once_and_so_is_the_return() {
    let mut scene = Scene::new();
    scene.step(0, Input::Tick).step(0, failed()).step(500, Input::Tick);
    scene.step(500, Input::Failed("in use".to_owned())).step(1500, Input::Tick);
    scene.step(1600, Input::Frame);
    assert_eq!(
        scene.said(),
        [
            "0 open",
            "0 close",
            "0 no camera for 0 seconds, 1 failed attempt to open it: no such device",
            "500 open",
            "500 close",
            "500 no camera for 0 seconds, 2 failed attempts to open it: in use",
            "1500 open",
            "1600 the camera works, 2 failed attempts to open it",
        ]
    );
}

#[test]
fn silence_and_a_first_frame_that_does_not_come_are_failures() {
    let mut scene = Scene::new();
    scene.step(0, Input::Tick).step(100, Input::Frame).step(5099, Input::Tick);
    assert_eq!(scene.said().len(), 2);
    assert_eq!(scene.reopen.wake(), ms(5100));
    scene.step(5100, Input::Tick).step(5600, Input::Tick).step(5700, Input::Opened);
    scene.step(20_600, Input::Tick).step(21_600, Input::Tick).step(22_100, Input::Frame);
    assert_eq!(
        scene.said(),
        [
            "5100 close",
            "5100 no camera for 5 seconds: no frame for 5 seconds",
            "5600 open",
            "20600 close",
            "20600 no camera for 20 seconds, 1 failed attempt to open it: no frame \
             15 seconds after opening",
            "21600 open",
            "22100 the camera works again after 22 seconds, 1 failed attempt to open it",
        ]
    );
}

#[test]
fn a_camera_that_hangs_is_opened_anew_until_a_frame_differs() {
    let mut scene = Scene::new();
    let same = || Input::Same { dark: false };
    scene.step(0, Input::Tick).step(100, Input::Frame).step(200, same()).step(2000, same());
    assert_eq!(scene.said().len(), 2);
    scene.step(2100, same()).step(2600, Input::Tick).step(2700, same()).step(4700, same());
    scene.step(5700, Input::Tick).step(5800, same()).step(6000, Input::Frame);
    assert_eq!(
        scene.said(),
        [
            "2100 close",
            "2100 no camera for 2 seconds: its frames are all the same, so it hangs; \
             reconnect it if this persists",
            "2600 open",
            "4700 close",
            "5700 open",
            "6000 the camera works again after 5 seconds, 1 failed attempt to open it",
        ]
    );
}

#[test]
fn a_video_whose_key_frames_are_far_apart_does_not_hang() {
    let mut scene = Scene::of(Patience::with("pipe:ffmpeg -i rtsp://cam -f yuv4mpegpipe -"));
    scene.step(0, Input::Tick);
    for at in 1..600 {
        let key_frame = at % 100 == 0;
        let event = if key_frame { Input::Frame } else { Input::Same { dark: false } };
        scene.step(100 * at, event);
    }
    assert_eq!(scene.said(), ["0 open", "100 the camera works"]);
    for at in 600..800 {
        scene.step(100 * at, Input::Same { dark: false });
    }
    assert!(scene.said().concat().contains("its frames are all the same"));
    assert_eq!(Patience::with("v4l:/dev/video0"), Patience::default());
}

#[test]
fn the_dark_is_told_once_and_the_camera_is_watched_in_between() {
    let mut scene = Scene::new();
    scene.step(0, Input::Tick).step(0, Input::Frame);
    let (mut at, mut open, mut closed) = (0, true, 0);
    while at < 3_600_000 {
        at += 100;
        scene.step(at, Input::Tick);
        if open {
            scene.step(at, Input::Same { dark: true });
        }
        for line in &scene.log {
            open = if line.ends_with("open") { true } else { open && !line.ends_with("close") };
        }
        scene.log.retain(|line| line.contains("camera"));
        closed += u64::from(!open);
    }
    assert!(scene.reopen.is_dark());
    let said = scene.said();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[1].contains("its picture is black"), "{said:?}");
    // Closed for half a second about fifteen times an hour.
    assert!(closed < 100, "{closed}");
    while !open {
        at += 100;
        open = scene.step(at, Input::Tick).said().iter().any(|line| line.ends_with("open"));
    }
    scene.step(at, Input::Frame);
    assert!(!scene.reopen.is_dark() && scene.reopen.away().is_none());
}

#[test]
fn bad_frames_cost_only_themselves_unless_there_are_no_others() {
    let bad = || Input::Bad("cut short".to_owned());
    let mut scene = Scene::new();
    scene.step(0, Input::Tick).step(100, Input::Frame).step(200, bad()).step(300, bad());
    scene.step(400, Input::Frame).step(60_000, Input::Frame).step(60_200, Input::Frame);
    assert_eq!(
        scene.said()[2..],
        ["200 unreadable frame: cut short", "60200 unreadable frame: cut short"]
    );
    for at in 0..60 {
        scene.step(60_300 + 100 * at, bad());
    }
    let said = scene.said();
    assert_eq!(
        said,
        ["65200 close", "65200 no camera for 5 seconds: no frame for 5 seconds; cut short"]
    );
}

#[test]
fn one_frame_now_and_then_does_not_make_it_be_opened_more_often() {
    let mut scene = Scene::new();
    let mut at = 0;
    let mut waits = Vec::new();
    for _ in 0..9 {
        scene.step(at, Input::Tick).step(at, Input::Frame).step(at, Input::Ended);
        waits.push(scene.reopen.wake().as_millis() as u64 - at);
        at = scene.reopen.wake().as_millis() as u64;
    }
    assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
    // Steady frames reset the delay.
    scene.step(at, Input::Tick).step(at, Input::Frame).step(at + 5_000, Input::Frame);
    scene.step(at + 5_100, Input::Ended);
    assert_eq!(scene.reopen.wake(), ms(at + 5_600));
}

proptest! {
    #[test]
    fn it_is_open_or_will_be_whatever_happens(
        events in prop::collection::vec((0..20_000u64, 0..8usize), 0..200),
    ) {
        let patience = Patience::default();
        let mut reopen = Reopen::new(ms(0), patience);
        let (mut now, mut open, mut told) = (ms(0), false, Vec::new());
        for (pause, event) in events {
            now += ms(pause);
            let event = match event {
                0 => Input::Opened,
                1 => Input::Frame,
                2 => Input::Bad("bad".to_owned()),
                3 => failed(),
                4 => Input::Ended,
                5 => Input::Same { dark: false },
                6 => Input::Same { dark: true },
                _ => Input::Tick,
            };
            let about = event.clone();
            for action in reopen.step(now, event) {
                match action {
                    Output::Open => {
                        prop_assert!(!open, "opened twice");
                        open = true;
                    }
                    Output::Close => {
                        prop_assert!(open, "closed twice");
                        open = false;
                    }
                    Output::Report(CameraEvent::Away { .. }) => told.push(now),
                    Output::Report(_) => {}
                }
            }
            // A closed camera is opened within the longest delay.
            prop_assert!(open || reopen.wake() <= now + patience.most, "{about:?}");
            prop_assert!(open || reopen.away().is_some() || now == ms(0) || reopen.wake() <= now);
            prop_assert_eq!(reopen.away().is_some() && open && about == Input::Frame, false);
        }
    }
}
