//! `[door]`, `[lockout]`, `[schedule]`, `[groups]` and `[enroll]`: how the door behaves
//! and who may come in when.

use super::fault::{Fault, seconds, within};
use super::unit::{duration_text, rate, time};
use crate::access::door::{
    AntiPassback, DoorSettings, LockKind, LockoutSettings, PassbackSettings, Role,
};
use crate::access::enroll::at_door::ButtonSettings;
use crate::access::enroll::{EnrollSettings, MAX_VIEWS, Poses, SAME_PERSON_RATE};
use crate::access::gesture::Gesture;
use crate::access::schedule::{ClockUnsure, Group, Holiday, Hours, Schedule, Span};
use crate::models::threshold::ThresholdTable;
use crate::service::neighbours;
use crate::vision::pose::Pose;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How long a door may be told to open, seconds: anybody gets through in a minute, and
/// no lock opens for less than a moment.
const OPEN_FOR: (f64, f64) = (0.2, 60.0);
const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;
const WEEK: f64 = 7.0 * DAY;

/// `[door]`: how the door behaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [door]")]
pub struct DoorConfig {
    /// Time to pull the door open.
    #[serde(with = "time")]
    pub open_for: Duration,
    /// The same after a request to exit.
    #[serde(with = "time")]
    pub exit_for: Duration,
    /// "fail-secure" (locked without power) or "fail-safe" (open without power).
    pub lock: LockKind,
    /// Whether it locks as soon as the contact says that it has closed again.
    pub lock_when_closed: bool,
    /// A door open for so long is alarmed about.
    #[serde(with = "time")]
    pub held_open_after: Duration,
    /// The gesture of the button by which somebody let in says that they are forced.
    pub duress: DuressGesture,
    /// It counts for whoever is recognized so long before or after.
    #[serde(with = "time")]
    pub duress_within: Duration,
    /// Which way people pass here.
    pub role: Option<Role>,
    /// What to do about somebody who passes the same way twice.
    pub anti_passback: AntiPassback,
    /// A passage so long ago is forgotten.
    #[serde(with = "time")]
    pub anti_passback_forgets: Duration,
    /// Sockets of the services of the other doors of the same area.
    pub neighbours: Vec<PathBuf>,
    /// When the door stands open, like "mon-fri 09:00-17:00".
    pub open_hours: Vec<Span>,
    /// The same on holidays.
    pub open_hours_on_holidays: Vec<Span>,
}

/// A gesture that says duress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DuressGesture {
    /// There is none.
    #[default]
    Off,
    /// Two short presses.
    Double,
    /// Three short presses.
    Triple,
}

impl DuressGesture {
    /// Whether this is it.
    pub fn is(self, gesture: Gesture) -> bool {
        match self {
            Self::Off => false,
            Self::Double => gesture == Gesture::Presses(2),
            Self::Triple => gesture == Gesture::Presses(3),
        }
    }
}

/// `[lockout]`: after refused tries nobody is let in for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [lockout]")]
pub struct LockoutConfig {
    /// Refused tries in a row that lock out; 0 is never.
    pub tries: u32,
    /// For how long the first time; each further one takes twice as long.
    #[serde(with = "time")]
    pub first: Duration,
    /// But never longer than this.
    #[serde(with = "time")]
    pub longest: Duration,
    /// So long without a try forgets them.
    #[serde(with = "time")]
    pub forget_after: Duration,
}

/// `[schedule]`: what all hours lean on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [schedule]")]
pub struct ScheduleConfig {
    /// Days on which nobody works: "2026-12-24", or "12-25" for every year.
    pub holidays: Vec<Holiday>,
    /// Whether the system's clock may be trusted.
    pub clock: ClockSource,
}

/// Why the clock may be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockSource {
    /// While the system says that it follows a time server.
    #[default]
    Synchronized,
    /// Always: it has a battery, or another time service.
    Trusted,
}

/// `[groups.NAME]`: when a group may come in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [groups.staff]")]
pub struct GroupConfig {
    /// Like "mon-fri 07:00-19:00"; at any time where there is no such key.
    pub hours: Option<Vec<Span>>,
    /// The same on holidays.
    pub on_holidays: Vec<Span>,
    /// While the clock cannot be trusted: "refuse" or "admit".
    pub clock_unsure: ClockUnsure,
}

/// `[enroll]`: enrolling with the button.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [enroll]")]
pub struct EnrollConfig {
    /// Views to take.
    pub views: usize,
    /// The poses of the first of them; none, or "front" and others.
    pub poses: Vec<Pose>,
    /// Time to take them in.
    #[serde(with = "time")]
    pub views_within: Duration,
    /// Time for an administrator to be recognized.
    #[serde(with = "time")]
    pub administrator_within: Duration,
    /// So long after a local reset the first person needs no administrator.
    #[serde(with = "time")]
    pub first_within: Duration,
    /// False accept rate a pair at which a newcomer is somebody known.
    #[serde(with = "rate")]
    pub duplicate_rate: f64,
    /// The same at which they are a look-alike.
    #[serde(with = "rate")]
    pub look_alike_rate: f64,
}

impl Default for DoorConfig {
    fn default() -> Self {
        let door = DoorSettings::default();
        Self {
            open_for: door.open_for,
            exit_for: door.exit_for,
            lock: door.lock,
            lock_when_closed: door.lock_when_closed,
            held_open_after: door.held_after,
            duress: DuressGesture::Off,
            duress_within: door.duress_within,
            role: door.passback.role,
            anti_passback: door.passback.rule,
            anti_passback_forgets: door.passback.forget,
            neighbours: Vec::new(),
            open_hours: Vec::new(),
            open_hours_on_holidays: Vec::new(),
        }
    }
}

impl Default for LockoutConfig {
    fn default() -> Self {
        let LockoutSettings { tries, first, longest, forget } = LockoutSettings::default();
        Self { tries, first, longest, forget_after: forget }
    }
}

impl Default for EnrollConfig {
    fn default() -> Self {
        Self {
            views: 5,
            poses: Pose::ALL.to_vec(),
            views_within: Duration::from_secs(60),
            administrator_within: Duration::from_secs(20),
            first_within: Duration::from_secs(600),
            duplicate_rate: 1e-5,
            look_alike_rate: 1e-3,
        }
    }
}

impl super::Config {
    /// Ranges of what is configured here.
    pub(super) fn check_access(&self) -> Result<(), Fault> {
        let (door, lockout, enroll) = (&self.door, &self.lockout, &self.enroll);
        seconds("door.open_for", door.open_for, OPEN_FOR)?;
        seconds("door.exit_for", door.exit_for, OPEN_FOR)?;
        seconds("door.held_open_after", door.held_open_after, (1.0, HOUR))?;
        seconds("door.duress_within", door.duress_within, (1.0, 60.0))?;
        seconds("door.anti_passback_forgets", door.anti_passback_forgets, (60.0, WEEK))?;
        if door.anti_passback != AntiPassback::Off && door.role.is_none() {
            return Err(Fault::of("door.anti_passback", "needs door.role = \"in\" or \"out\""));
        }
        if door.neighbours.len() > neighbours::MOST {
            let text = format!(
                "has {} doors, expected {} at most",
                door.neighbours.len(),
                neighbours::MOST
            );
            return Err(Fault::of("door.neighbours", &text));
        }
        if !door.neighbours.is_empty() && door.role.is_none() {
            return Err(Fault::of("door.neighbours", "needs door.role = \"in\" or \"out\""));
        }
        within("lockout.tries", f64::from(lockout.tries), (0.0, 100.0), "")?;
        seconds("lockout.first", lockout.first, (1.0, HOUR))?;
        seconds("lockout.longest", lockout.longest, (1.0, DAY))?;
        if lockout.longest < lockout.first {
            let first = duration_text(lockout.first);
            return Err(Fault::of(
                "lockout.longest",
                &format!("must not be shorter than lockout.first = {first:?}"),
            )
            .or_at("lockout.first"));
        }
        seconds("lockout.forget_after", lockout.forget_after, (1.0, WEEK))?;
        within("enroll.views", enroll.views as f64, (1.0, MAX_VIEWS as f64), "")?;
        if enroll.poses.first().is_some_and(|first| *first != Pose::Front) {
            return Err(Fault::of(
                "enroll.poses",
                "must begin with \"front\"; all others are told by it",
            ));
        }
        if enroll.poses.len() > enroll.views {
            let (poses, views) = (enroll.poses.len(), enroll.views);
            return Err(Fault::of(
                "enroll.poses",
                &format!("has {poses} poses, which do not fit into enroll.views = {views}"),
            )
            .or_at("enroll.views"));
        }
        seconds("enroll.views_within", enroll.views_within, (5.0, 600.0))?;
        seconds("enroll.administrator_within", enroll.administrator_within, (2.0, 600.0))?;
        seconds("enroll.first_within", enroll.first_within, (10.0, HOUR))?;
        if enroll.duplicate_rate >= enroll.look_alike_rate {
            return Err(Fault::of(
                "enroll.duplicate_rate",
                &format!("must be below enroll.look_alike_rate = \"{:e}\"", enroll.look_alike_rate),
            )
            .or_at("enroll.look_alike_rate"));
        }
        Ok(())
    }

    /// What [`crate::access::door`] needs of it.
    pub fn door(&self) -> DoorSettings {
        let (door, lockout) = (&self.door, &self.lockout);
        DoorSettings {
            lock: door.lock,
            open_for: door.open_for,
            exit_for: door.exit_for,
            lock_when_closed: door.lock_when_closed,
            held_after: door.held_open_after,
            duress_within: door.duress_within,
            lockout: LockoutSettings {
                tries: lockout.tries,
                first: lockout.first,
                longest: lockout.longest,
                forget: lockout.forget_after,
            },
            passback: PassbackSettings {
                rule: door.anti_passback,
                role: door.role,
                forget: door.anti_passback_forgets,
            },
        }
    }

    /// What [`crate::access::schedule`] needs of it.
    pub fn schedule(&self) -> Schedule {
        let group = |group: &GroupConfig| Group {
            hours: group
                .hours
                .clone()
                .map(|weekly| Hours { weekly, on_holidays: group.on_holidays.clone() }),
            clock_unsure: group.clock_unsure,
        };
        Schedule {
            groups: self.groups.iter().map(|(name, hours)| (name.clone(), group(hours))).collect(),
            holidays: self.schedule.holidays.clone(),
            open: Hours {
                weekly: self.door.open_hours.clone(),
                on_holidays: self.door.open_hours_on_holidays.clone(),
            },
        }
    }

    /// What [`crate::access::enroll::at_door`] needs of it.
    pub fn enroll_by_button(&self, thresholds: &ThresholdTable) -> ButtonSettings {
        let enroll = &self.enroll;
        // Checked: no more poses than views, no more views than there is room for.
        let poses = Poses::from_slice(&enroll.poses).unwrap_or_default();
        ButtonSettings {
            administrator_within: enroll.administrator_within,
            first_within: enroll.first_within,
            views: EnrollSettings {
                views: enroll.views,
                poses,
                time: enroll.views_within,
                same_person: thresholds.for_pair(SAME_PERSON_RATE).similarity,
            },
            duplicate: thresholds.for_pair(enroll.duplicate_rate).similarity,
            look_alike: thresholds.for_pair(enroll.look_alike_rate).similarity,
        }
    }
}

/// `[groups]`
pub type Groups = BTreeMap<String, GroupConfig>;

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use std::path::Path;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("facelatch.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn all_can_be_set() {
        let config = parse(
            "[door]\nopen_for = \"4s\"\nexit_for = \"5s\"\nlock = \"fail-safe\"\n\
             lock_when_closed = false\nheld_open_after = \"1m\"\nduress = \"triple\"\n\
             duress_within = \"8s\"\nrole = \"in\"\nanti_passback = \"hard\"\n\
             anti_passback_forgets = \"8h\"\nopen_hours = [\"mon-fri 09:00-17:00\"]\n\
             open_hours_on_holidays = []\n\
             [lockout]\ntries = 5\nfirst = \"1m\"\nlongest = \"1h\"\nforget_after = \"2h\"\n\
             [schedule]\nholidays = [\"12-25\", \"2026-04-03\"]\nclock = \"trusted\"\n\
             [groups.staff]\nhours = [\"mon-fri 07:00-19:00\", \"sat 09:00-13:00\"]\n\
             on_holidays = [\"10:00-12:00\"]\nclock_unsure = \"admit\"\n[groups.owners]\n\
             [enroll]\nviews = 6\nposes = [\"front\", \"left\", \"right\"]\n\
             views_within = \"90s\"\nadministrator_within = \"30s\"\nfirst_within = \"5m\"\n\
             duplicate_rate = \"1e-6\"\nlook_alike_rate = \"1e-2\"\n",
        )
        .expect("a configuration");
        let door = config.door();
        assert_eq!((door.lock, door.passback.rule), (LockKind::FailSafe, AntiPassback::Hard));
        assert_eq!(door.lockout.longest, Duration::from_secs(3600));
        let schedule = config.schedule();
        assert_eq!((schedule.groups.len(), schedule.holidays.len()), (2, 2));
        assert!(schedule.groups["owners"].hours.is_none() && schedule.needs_clock());
        let thresholds = crate::models::threshold::tests::table();
        let enroll = config.enroll_by_button(&thresholds);
        assert_eq!((enroll.views.views, enroll.views.poses.len()), (6, 3));
        assert!(enroll.look_alike < enroll.duplicate);
    }

    #[test]
    fn mistakes_name_the_place_and_the_cure() {
        for (text, expected) in [
            ("[door]\nlock = \"open\"", "fail-secure"),
            ("[door]\nheld_open_after = \"0s\"", "door.held_open_after"),
            ("[door]\nanti_passback = \"hard\"", "door.role"),
            ("[door]\nopen_hours = [\"always\"]", "mon-fri 07:00-19:00"),
            ("[door]\nduress = \"hold\"", "triple"),
            ("[lockout]\nfirst = \"1h\"\nlongest = \"1m\"", "lockout.longest"),
            ("[schedule]\nholidays = [\"25.12.\"]", "12-25"),
            ("[groups.staff]\nhour = []", "hour"),
            ("[enroll]\nviews = 3", "enroll.poses"),
            ("[enroll]\nviews = 17", "enroll.views"),
            ("[enroll]\nposes = [\"back\"]", "front"),
            ("[enroll]\nposes = [\"left\", \"front\"]", "must begin with"),
            ("[enroll]\nduplicate_rate = \"1e-2\"", "enroll.look_alike_rate"),
        ] {
            let message = parse(text).expect_err(text);
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
