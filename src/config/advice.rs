//! Advice: valid settings that are probably a mistake.

use super::ClockSource;
use super::Config;
use super::access::GroupConfig;
use super::devices::wired_to;
use super::fault::{Fault, quoted};
use super::reader::nearest;
use crate::access::decide::TwoFaces;
use crate::access::door::LockKind;
use crate::access::gesture::DuressGesture;
use crate::access::liveness::Mode;
use crate::access::names;
use crate::access::schedule::{ClockUnsure, DEFAULT_GROUP, Span};
use crate::hardware::gpio::Place;
use crate::hardware::uri::duration_text;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// Frames per second to assume if the camera URI has no `fps` option.
const USUAL_FRAMES: f64 = 15.0;
/// Least watchdog for a fail-safe lock: the relay is released, and such a lock opened, when
/// the service is silent for half of it.
const PATIENT: Duration = Duration::from_secs(10);
/// False accept rate from which one stranger in some hundreds gets in.
const HIGH_RATE: f64 = 2e-3;
/// Liveness threshold below which hardly any face is refused.
const LOW_LIVENESS: f32 = 0.05;
/// Share of the picture's width or height below which hardly any face lies in the zone.
const NARROW_ZONE: f32 = 0.1;
/// Length from which hours that end on the next day are probably a slip, minutes.
const LONG_NIGHT: u16 = 20 * 60;

impl Config {
    /// Settings that are probably a mistake. The door works with them nevertheless.
    pub fn advice(&self) -> Vec<Fault> {
        let mut advice = Vec::new();
        self.advise_wiring(&mut advice);
        self.advise_door(&mut advice);
        self.advise_recognition(&mut advice);
        self.advise_liveness(&mut advice);
        self.advise_hours(&mut advice);
        self.advise_groups(&mut advice);
        self.advise_clock(&mut advice);
        self.advise_service(&mut advice);
        self.advise_roles(&mut advice);
        self.advise_link(&mut advice);
        self.advise_site(&mut advice);
        advice
    }

    fn advise_wiring(&self, advice: &mut Vec<Fault>) {
        let mut taken: HashMap<Place, &'static str> = HashMap::new();
        let relay = ("relay.uri", self.relay.uri.as_str());
        for (key, uri) in std::iter::once(relay).chain(self.lines().map(|(key, _, uri)| (key, uri)))
        {
            let Some(line) = wired_to(uri) else { continue };
            if let Some(first) = taken.get(&line) {
                advice.push(Fault::of(
                    key,
                    &format!("uses the same GPIO line as {first}; give each a line of its own"),
                ));
            } else {
                taken.insert(line, key);
            }
        }
        let (door, gpio) = (&self.door, &self.gpio);
        if door.duress != DuressGesture::Off
            && gpio.button_outside.is_none()
            && gpio.button_inside.is_none()
        {
            advice.push(Fault::of(
                "door.duress",
                "needs a button, but neither gpio.button_outside nor gpio.button_inside is set",
            ));
        }
        if gpio.button_outside.is_some() && gpio.button_inside.is_none() && !self.enroll.outside {
            advice.push(
                Fault::of(
                    "gpio.button_outside",
                    "is the only button, and enrolment does not begin outside: wire \
                     gpio.button_inside, or set enroll.outside = true",
                )
                .or_at("enroll.outside"),
            );
        }
        let lights = &self.lights;
        let mute = [&lights.red, &lights.green, &lights.blue, &lights.buzzer]
            .iter()
            .all(|light| light.is_none());
        if self.liveness.mode == Mode::Enforce && self.liveness.turns > 0 && mute {
            advice.push(Fault::of(
                "liveness.turns",
                "asks people to turn their heads, but there is no light or buzzer under \
                 [lights] to ask them with",
            ));
        }
    }

    fn advise_door(&self, advice: &mut Vec<Fault>) {
        let door = &self.door;
        if door.held_open_after <= door.open_for {
            advice.push(
                Fault::of(
                    "door.held_open_after",
                    &format!(
                        "is not longer than door.open_for = {:?}: a person who uses that time \
                         causes an alarm",
                        duration_text(door.open_for)
                    ),
                )
                .or_at("door.open_for"),
            );
        }
        if self.lockout.tries > 0 && self.liveness.mode != Mode::Enforce {
            advice.push(
                Fault::of(
                    "lockout.tries",
                    "lets anybody lock staff out with a few strange faces, because nobody has \
                     proof of liveness; set liveness.mode = \"enforce\"",
                )
                .or_at("liveness.mode"),
            );
        }
        if door.lock == LockKind::FailSafe && self.relay.uri == "log:" {
            advice.push(Fault::of(
                "door.lock",
                "is \"fail-safe\", but relay.uri = \"log:\" moves no lock: the door is open",
            ));
        }
    }

    fn advise_recognition(&self, advice: &mut Vec<Fault>) {
        let recognition = &self.recognition;
        let asked = self.camera_rate();
        let rate = asked.unwrap_or(USUAL_FRAMES);
        let takes = (recognition.frames - 1) as f64 / rate;
        if takes >= recognition.evidence_expires.as_secs_f64() {
            let takes = Duration::try_from_secs_f64(takes).unwrap_or_default();
            let takes = Duration::from_millis(takes.as_millis() as u64);
            advice.push(
                Fault::of(
                    "recognition.evidence_expires",
                    &format!(
                        "is too short for recognition.frames = {}: at {rate} frames per second \
                         they take {}, and nobody is let in",
                        recognition.frames,
                        duration_text(takes)
                    ),
                )
                .or_at(if asked.is_some() {
                    "camera.uri"
                } else {
                    "recognition.frames"
                }),
            );
        }
        if recognition.false_accept_rate >= HIGH_RATE {
            advice.push(Fault::of(
                "recognition.false_accept_rate",
                &format!(
                    "admits about one stranger in {:.0}; a door needs \"1e-4\" or less",
                    1.0 / recognition.false_accept_rate
                ),
            ));
        }
        if recognition.two_faces == TwoFaces::Any {
            advice.push(Fault::of(
                "recognition.two_faces",
                "is \"any\": whoever stands beside somebody enrolled is let in with them; set \
                 \"refuse\" or \"all\"",
            ));
        }
        let [left, top, right, bottom] = recognition.zone;
        if right - left < NARROW_ZONE || bottom - top < NARROW_ZONE {
            advice.push(Fault::of(
                "recognition.zone",
                &format!(
                    "is only {:.0} % as wide and {:.0} % as high as the picture: hardly any face \
                     lies in it",
                    100.0 * (right - left),
                    100.0 * (bottom - top)
                ),
            ));
        }
    }

    fn advise_liveness(&self, advice: &mut Vec<Fault>) {
        let liveness = &self.liveness;
        // A recording shows nobody at a door.
        let watched = self.camera.uri.as_deref().is_some_and(|uri| !uri.starts_with("images:"));
        if watched && liveness.mode == Mode::Off {
            advice.push(
                Fault::of(
                    "liveness.mode",
                    "is \"off\": a print or a telephone that shows somebody enrolled opens the \
                     door; set \"advise\" and read the log, then \"enforce\"",
                )
                .or_at("camera.uri"),
            );
        }
        if liveness.threshold < LOW_LIVENESS {
            advice.push(Fault::of(
                "liveness.threshold",
                &format!("= {}: no face is refused; the default is 0.5", liveness.threshold),
            ));
        }
        if liveness.mode == Mode::Enforce && !liveness.motion && liveness.turns == 0 {
            advice.push(Fault::of(
                "liveness.mode",
                "is \"enforce\" with motion = false and turns = 0: only traces of prints and \
                 screens in the picture count, and a good print may pass",
            ));
        }
        if liveness.mode != Mode::Enforce && (liveness.motion || liveness.turns > 0) {
            let key = if liveness.motion { "liveness.motion" } else { "liveness.turns" };
            advice.push(Fault::of(key, "has an effect only with liveness.mode = \"enforce\""));
        }
    }

    /// Hours that are empty, or that last nearly a day because they end on the next one.
    fn advise_hours(&self, advice: &mut Vec<Fault>) {
        let (door, groups) = (&self.door, &self.groups);
        let mut lists: Vec<(String, &[Span])> = vec![
            ("door.open_hours".to_owned(), &door.open_hours),
            ("door.open_hours_on_holidays".to_owned(), &door.open_hours_on_holidays),
        ];
        for (name, GroupConfig { hours, on_holidays, .. }) in groups {
            let table = format!("groups.{}", quoted(name));
            if let Some(hours) = hours {
                lists.push((format!("{table}.hours"), hours));
                if hours.is_empty() && on_holidays.is_empty() {
                    advice.push(Fault::of(
                        format!("{table}.hours"),
                        "is empty: the group is always refused; remove the key if it may come in \
                         at any time",
                    ));
                }
            }
            lists.push((format!("{table}.on_holidays"), on_holidays));
        }
        for (key, spans) in lists {
            for span in spans {
                let (minutes, next_day) = span.length();
                if next_day && minutes >= LONG_NIGHT {
                    let text = format!(
                        "has \"{span}\", which ends on the next day and lasts {} hours; write \
                         00:00-24:00 for whole days",
                        f64::from(minutes / 6) / 10.0
                    );
                    advice.push(Fault::of(key.clone(), &text));
                }
            }
        }
    }

    /// Groups that nobody can be in, or that lack a table.
    fn advise_groups(&self, advice: &mut Vec<Fault>) {
        if let Some(text) = self.group_advice(DEFAULT_GROUP) {
            let text = format!("{text}; people who were put into no group are in it");
            advice.push(Fault::of("groups", &text));
        }
        for name in self.groups.keys() {
            let table = format!("groups.{}", quoted(name));
            if let Err(fault) = names::checked(name) {
                advice.push(Fault::of(table, &format!("{fault}: nobody can be put into it")));
            } else if name.trim() != name {
                let text = "has white space around its name: nobody can be put into it";
                advice.push(Fault::of(table, text));
            }
        }
        for (one, other) in names::look_alikes(self.groups.keys().map(String::as_str)) {
            advice.push(Fault::of(
                format!("groups.{}", quoted(other)),
                &format!("looks like the group {one:?}; give one of them another name"),
            ));
        }
    }

    /// Advice on a group whose people are always refused, because other groups have a table
    /// and this one has none. `None` if they are not.
    pub fn group_advice(&self, group: &str) -> Option<String> {
        let schedule = self.schedule();
        if schedule.groups.is_empty() || schedule.groups.contains_key(&names::nfc(group)) {
            return None;
        }
        let looks = names::Likeness::of(group);
        let names = || self.groups.keys().map(String::as_str);
        let near = names().find(|name| names::Likeness::of(name).is_like(&looks));
        let near = near.or_else(|| nearest(group, names()));
        let near = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        Some(format!(
            "have no table [groups.{}]: people of the group {group:?} are always refused{near}",
            quoted(group)
        ))
    }

    fn advise_clock(&self, advice: &mut Vec<Fault>) {
        if self.schedule.clock == ClockSource::Trusted {
            return;
        }
        let refuses = |group: &super::GroupConfig| {
            group.hours.is_some() && group.clock_unsure == ClockUnsure::Refuse
        };
        if !self.groups.is_empty() && self.groups.values().all(refuses) {
            advice.push(
                Fault::of(
                    "schedule.clock",
                    "is \"synchronized\" and every group has hours and clock_unsure = \"refuse\": \
                     without a time server nobody is let in; remove the hours of one group, or \
                     set its clock_unsure = \"admit\"",
                )
                .or_at("groups"),
            );
        }
    }

    fn advise_service(&self, advice: &mut Vec<Fault>) {
        let service = &self.service;
        if self.watchdog().is_some_and(|watchdog| watchdog <= service.idle_look_every) {
            advice.push(
                Fault::of(
                    "service.watchdog",
                    "is not longer than service.idle_look_every: an empty corridor would look \
                     like a fault",
                )
                .or_at("service.idle_look_every"),
            );
        }
        if self.door.lock == LockKind::FailSafe
            && self.watchdog().is_some_and(|watchdog| watchdog < PATIENT)
        {
            advice.push(
                Fault::of(
                    "service.watchdog",
                    "is below 10s with door.lock = \"fail-safe\": a service that is delayed for \
                     some seconds opens the door",
                )
                .or_at("door.lock"),
            );
        }
        for (key, path) in [
            ("gallery.file", &self.gallery.file),
            ("models.folder", &self.models.folder),
            ("service.status_socket", &service.status_socket),
            ("link.socket", &self.link.socket),
        ] {
            if path.as_deref().is_some_and(Path::is_relative) {
                advice.push(Fault::of(
                    key,
                    "is a relative path, which depends on where the service is started; begin it \
                     with /",
                ));
            }
        }
    }

    /// Advice if schedules need a synchronized clock and the system clock is not
    /// `synchronized`.
    pub fn clock_advice(&self, synchronized: bool) -> Option<Fault> {
        let lacking = self.schedule.clock == ClockSource::Synchronized
            && !synchronized
            && self.schedule().needs_clock();
        lacking.then(|| {
            Fault::of(
                "schedule.clock",
                "is \"synchronized\", but this system follows no time server now: groups follow \
                 clock_unsure, and open_hours do not open; enable systemd-timesyncd, or set \
                 \"trusted\" if the clock has a battery",
            )
            .or_at("groups")
        })
    }

    /// Advice if schedules need the local time and the system does not know its time zone,
    /// for this reason.
    pub fn zone_advice(&self, unknown: &str) -> Option<Fault> {
        self.schedule().needs_clock().then(|| {
            Fault::of(
                "schedule.clock",
                &format!(
                    "cannot be trusted, because {unknown}: groups follow clock_unsure, and \
                     open_hours do not open"
                ),
            )
            .or_at("groups")
        })
    }

    /// The frame rate in the camera URI, frames per second; `None` without one.
    fn camera_rate(&self) -> Option<f64> {
        let uri = self.camera.uri.as_deref()?;
        let options = match uri.split_once(':') {
            // A ? in a command belongs to the command.
            None | Some(("pipe", _)) => None,
            Some((_, rest)) => rest.split_once('?'),
        };
        let rate = options?.1.split('&').find_map(|option| option.strip_prefix("fps="))?;
        rate.parse().ok().filter(|rate: &f64| *rate > 0.0 && rate.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(text: &str) -> Vec<String> {
        let config = Config::parse(Path::new("facelatch.toml"), text).expect(text);
        config.advice().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_default_needs_no_advice() {
        assert_eq!(advice(""), Vec::<String>::new());
        assert_eq!(Config::default().clock_advice(false), None);
    }

    #[test]
    fn likely_mistakes_are_named_with_their_cure() {
        for (text, expected) in [
            (
                "[gpio]\nexit = \"gpio:0/17\"\n\
                 [lights]\nred = \"gpio:/dev/gpiochip0/17?active=low\"",
                "lights.red uses the same GPIO line as gpio.exit",
            ),
            ("[door]\nduress = \"double\"", "door.duress needs a button"),
            ("[door]\nopen_for = \"40s\"", "door.held_open_after is not longer than door.open_for"),
            ("[door]\nlock = \"fail-safe\"", "the door is open"),
            (
                "[camera]\nuri = \"v4l:/dev/video0?width=640&fps=1\"\n[liveness]\nmode = \"advise\"",
                "at 1 frames per second they take 2s",
            ),
            ("[recognition]\nframes = 30", "they take 1.933s"),
            ("[recognition]\nfalse_accept_rate = 1e-2", "one stranger in 100"),
            ("[recognition]\ntwo_faces = \"any\"", "whoever stands beside somebody enrolled"),
            ("[recognition]\nzone = [0.5, 0.0, 0.51, 1.0]", "1 % as wide and 100 % as high"),
            ("[liveness]\nthreshold = 0", "liveness.threshold = 0: no face is refused"),
            ("[camera]\nuri = \"v4l:/dev/video0\"", "liveness.mode is \"off\": a print"),
            (
                "[schedule]\nclock = \"trusted\"\n[groups.staff]\nhours = [\"fri 18:00-18:00\"]",
                "groups.staff.hours has \"fri 18:00-18:00\", which ends on the next day and lasts 24 hours",
            ),
            ("[door]\nopen_hours = [\"08:00-07:30\"]", "lasts 23.5 hours"),
            (
                "[schedule]\nclock = \"trusted\"\n[groups.staff]\nhours = []",
                "groups.staff.hours is empty",
            ),
            ("[groups.night]", "groups have no table [groups.staff]: people of the group"),
            ("[groups.Staff]", "did you mean \"Staff\"?"),
            (
                "[groups.staff]\n[groups.\"s\u{430}les\"]\n[groups.sales]",
                "looks like the group \"sales\"",
            ),
            ("[groups.staff]\n[groups.\"ni\u{200b}ght\"]", "nobody can be put into it"),
            ("[liveness]\nmode = \"enforce\"", "a good print may pass"),
            ("[liveness]\nmode = \"enforce\"\nturns = 1", "no light or buzzer"),
            ("[liveness]\nmode = \"advise\"\nmotion = true", "has an effect only with"),
            ("[groups.staff]\nhours = [\"07:00-19:00\"]", "without a time server nobody"),
            (
                "[service]\nwatchdog = \"2s\"\nidle_look_every = \"2s\"",
                "service.watchdog is not longer",
            ),
            (
                "[door]\nlock = \"fail-safe\"\n[relay]\nuri = \"gpio:0/17\"\n\
                 [service]\nwatchdog = \"9s\"",
                "service.watchdog is below 10s",
            ),
            ("[gallery]\nfile = \"gallery.redb\"", "gallery.file is a relative path"),
        ] {
            let said = advice(text);
            assert!(matches!(&said[..], [one] if one.contains(expected)), "{text}: {said:?}");
        }
    }

    #[test]
    fn a_sensible_configuration_needs_no_advice() {
        for text in [
            "[gpio]\nexit = \"gpio:0/17\"\n[lights]\nred = \"gpio:1/17\"",
            "[gpio]\nbutton_inside = \"gpio:0/17\"\n[door]\nduress = \"double\"",
            "[camera]\nuri = \"pipe:x?fps=1\"\n[liveness]\nmode = \"advise\"",
            "[camera]\nuri = \"images:frames\"",
            "[schedule]\nclock = \"trusted\"\n[groups.staff]\nhours = [\"fri 22:00-06:00\", \"00:00-24:00\"]",
            "[groups.staff]\n[groups.\"Stäff\"]",
            "[liveness]\nmode = \"enforce\"\nmotion = true",
            "[groups.staff]\nhours = [\"07:00-19:00\"]\n[groups.owners]",
            "[groups.staff]\nhours = [\"07:00-19:00\"]\n[schedule]\nclock = \"trusted\"",
            "[door]\nlock = \"fail-safe\"\n[relay]\nuri = \"gpio:0/17\"",
            "[service]\nwatchdog = \"0s\"\nidle_look_every = \"10s\"",
        ] {
            assert_eq!(advice(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn hours_need_a_clock_that_follows_a_time_server() {
        let parse = |text| Config::parse(Path::new("facelatch.toml"), text).expect(text);
        let hours = "[door]\nopen_hours = [\"mon-fri 09:00-17:00\"]\n";
        assert!(parse(hours).clock_advice(false).is_some());
        assert!(parse(hours).clock_advice(true).is_none());
        let vouched = format!("{hours}[schedule]\nclock = \"trusted\"");
        assert!(parse(&vouched).clock_advice(false).is_none());
    }
}
