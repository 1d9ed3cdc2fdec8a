//! `[door]`, `[lockout]`, `[schedule]`, `[groups]` and `[enroll]`: behaviour of the door,
//! opening hours and enrolment.

use super::fault::{Fault, seconds, within};
use super::unit::{rate, time};
use crate::access::DoorEnrolmentSettings;
use crate::access::door::{AntiPassback, DoorSettings, LockKind, PassbackSettings, Role};
use crate::access::enroll::{MAX_VIEWS, Poses};
use crate::access::gesture::DuressGesture;
use crate::access::lockout::LockoutSettings;
use crate::access::names::nfc;
use crate::access::schedule::{ClockUnsure, Group, Holiday, Hours, Schedule, Span};
use crate::hardware::uri::duration_text;
use crate::vision::pose::Pose;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Range of the unlocked time, seconds: a minute is enough for everybody, and a lock needs
/// a moment to release.
const OPEN_FOR: (f64, f64) = (0.2, 60.0);
const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;
const WEEK: f64 = 7.0 * DAY;

/// `[door]`: lock, alarms, duress, anti-passback and open hours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [door]")]
pub struct DoorConfig {
    /// Unlocked time after somebody was let in, 200 ms to 1 minute.
    #[serde(with = "time")]
    pub open_for: Duration,
    /// Unlocked time after a request to exit, 200 ms to 1 minute.
    #[serde(with = "time")]
    pub exit_for: Duration,
    /// "fail-secure" (locked without power) or "fail-safe" (open without power); must match
    /// the lock that is installed.
    pub lock: LockKind,
    /// Lock as soon as the door contact reports that the door has closed again.
    pub lock_when_closed: bool,
    /// Raise an alarm when the door has been open for this time, 1 second to 1 hour.
    #[serde(with = "time")]
    pub held_open_after: Duration,
    /// Button gesture with which a person reports that they are being forced to open.
    pub duress: DuressGesture,
    /// The gesture counts for a person recognized within this time before or after it, 1 to
    /// 60 seconds.
    #[serde(with = "time")]
    pub duress_within: Duration,
    /// Direction in which people pass this door.
    pub role: Option<Role>,
    /// Reaction to a second passage in the same direction; needs `role` unless off.
    pub anti_passback: AntiPassback,
    /// Older passages are forgotten; 1 minute to 168 hours.
    #[serde(with = "time")]
    pub anti_passback_forgets: Duration,
    /// Hours in which the door stands open for everybody, like "mon-fri 09:00-17:00".
    pub open_hours: Vec<Span>,
    /// Open hours on the days of [`ScheduleConfig::holidays`], whatever the weekday.
    pub open_hours_on_holidays: Vec<Span>,
}

/// `[lockout]`: after too many refused tries nobody is let in by face for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [lockout]")]
pub struct LockoutConfig {
    /// Refused tries in a row that start a lockout, up to 100; 0 turns lockouts off.
    pub tries: u32,
    /// Duration of the first lockout, 1 second to 1 hour; each further one lasts twice as
    /// long.
    #[serde(with = "time")]
    pub first: Duration,
    /// Upper limit on the duration of a lockout, up to 24 hours; not below `first`.
    #[serde(with = "time")]
    pub longest: Duration,
    /// After this time without a refused try, tries and lockouts are counted from zero
    /// again.
    #[serde(with = "time")]
    pub forget_after: Duration,
}

/// `[schedule]`: holidays and the clock, on which all hours depend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [schedule]")]
pub struct ScheduleConfig {
    /// Days on which the weekday hours do not apply: "2026-12-24", or "12-25" for every
    /// year.
    pub holidays: Vec<Holiday>,
    /// When to trust the wall clock.
    pub clock: ClockSource,
}

/// When to trust the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockSource {
    /// While systemd-timesyncd reports that it follows a time server.
    #[default]
    Synchronized,
    /// Always: it has a battery, or another time service sets it.
    Trusted,
}

/// `[groups.NAME]`: hours in which a group may come in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [groups.staff]")]
pub struct GroupConfig {
    /// Spans like "mon-fri 07:00-19:00"; `None` means at any time.
    pub hours: Option<Vec<Span>>,
    /// Hours on the days of [`ScheduleConfig::holidays`], whatever the weekday.
    pub on_holidays: Vec<Span>,
    /// Rule while the clock cannot be trusted: "refuse" or "admit".
    pub clock_unsure: ClockUnsure,
}

/// `[enroll]`: enrolment with the button.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [enroll]")]
pub struct EnrollConfig {
    /// Whether the button outside begins an enrolment, too.
    pub outside: bool,
    /// Whether people enrolled with the button are refused until they get a name.
    pub probation: bool,
    /// Number of views to take of a newcomer, 1 to [`MAX_VIEWS`].
    pub views: usize,
    /// Poses of the first views: empty, or "front" first; at most `views`.
    pub poses: Vec<Pose>,
    /// Time limit for taking all views, 5 seconds to 10 minutes.
    #[serde(with = "time")]
    pub views_within: Duration,
    /// Time limit for recognizing an administrator, 2 seconds to 10 minutes.
    #[serde(with = "time")]
    pub administrator_within: Duration,
    /// For this long after a local reset the first person needs no administrator, 10
    /// seconds to 1 hour.
    #[serde(with = "time")]
    pub first_within: Duration,
    /// False accept rate per pair at which a newcomer counts as already enrolled; below
    /// `look_alike_rate`.
    #[serde(with = "rate")]
    pub duplicate_rate: f64,
    /// False accept rate per pair at which a newcomer counts as a look-alike.
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
            held_open_after: door.held_open_after,
            duress: DuressGesture::Off,
            duress_within: door.duress_within,
            role: door.passback.role,
            anti_passback: door.passback.rule,
            anti_passback_forgets: door.passback.forget,
            open_hours: Vec::new(),
            open_hours_on_holidays: Vec::new(),
        }
    }
}

impl Default for LockoutConfig {
    fn default() -> Self {
        let LockoutSettings { tries, first, longest, forget_after } = LockoutSettings::default();
        Self { tries, first, longest, forget_after }
    }
}

impl Default for EnrollConfig {
    fn default() -> Self {
        Self {
            outside: false,
            probation: false,
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
    /// Checks the ranges of these tables, and their settings against each other.
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
                "must begin with \"front\": the other poses are measured against it",
            ));
        }
        if enroll.poses.len() > enroll.views {
            let (poses, views) = (enroll.poses.len(), enroll.views);
            return Err(Fault::of(
                "enroll.poses",
                &format!("has {poses} poses, more than enroll.views = {views}; raise that"),
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

    /// Settings for [`crate::access::door`].
    pub fn door(&self) -> DoorSettings {
        let door = &self.door;
        DoorSettings {
            lock: door.lock,
            open_for: door.open_for,
            exit_for: door.exit_for,
            lock_when_closed: door.lock_when_closed,
            held_open_after: door.held_open_after,
            duress_within: door.duress_within,
            passback: PassbackSettings {
                rule: door.anti_passback,
                role: door.role,
                forget: door.anti_passback_forgets,
            },
        }
    }

    /// Settings for [`crate::access::lockout`].
    pub fn lockout(&self) -> LockoutSettings {
        let LockoutConfig { tries, first, longest, forget_after } = self.lockout;
        LockoutSettings { tries, first, longest, forget_after }
    }

    /// Settings for [`crate::access::schedule`].
    pub fn schedule(&self) -> Schedule {
        let group = |group: &GroupConfig| Group {
            hours: group
                .hours
                .clone()
                .map(|weekly| Hours { weekly, on_holidays: group.on_holidays.clone() }),
            clock_unsure: group.clock_unsure,
        };
        Schedule {
            // People's groups are stored in this form.
            groups: self.groups.iter().map(|(name, hours)| (nfc(name), group(hours))).collect(),
            holidays: self.schedule.holidays.clone(),
            open: Hours {
                weekly: self.door.open_hours.clone(),
                on_holidays: self.door.open_hours_on_holidays.clone(),
            },
        }
    }

    /// Settings for an enrolment with the button.
    pub fn enroll_at_door(&self) -> DoorEnrolmentSettings {
        let enroll = &self.enroll;
        DoorEnrolmentSettings {
            outside: enroll.outside,
            administrator_within: enroll.administrator_within,
            first_within: enroll.first_within,
            views: enroll.views,
            // `check_access` holds: no more poses than views, no more views than MAX_VIEWS.
            poses: Poses::from_slice(&enroll.poses).unwrap_or_default(),
            views_within: enroll.views_within,
            duplicate_rate: enroll.duplicate_rate,
            look_alike_rate: enroll.look_alike_rate,
        }
    }
}

/// `[groups]`: settings per group, by name.
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
        assert_eq!(config.lockout().longest, Duration::from_secs(3600));
        let schedule = config.schedule();
        assert_eq!((schedule.groups.len(), schedule.holidays.len()), (2, 2));
        assert!(schedule.groups["owners"].hours.is_none() && schedule.needs_clock());
        let thresholds = crate::models::threshold::tests::table();
        let enroll = config.enroll_at_door().calibrated(&thresholds);
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
