//! Settings of [`super::controller::Controller`], made from the configuration by
//! [`Config::access`](crate::config::Config::access).

use super::decide::DecideSettings;
use super::door::DoorSettings;
use super::enroll::at_door::ButtonSettings;
use super::enroll::{EnrollSettings, Poses, SAME_PERSON_RATE};
use super::false_entries::FalseEntrySettings;
use super::gesture::DuressGesture;
use super::liveness::GuardSettings;
use super::lockout::LockoutSettings;
use super::schedule::Schedule;
use crate::models::threshold::ThresholdTable;
use std::time::Duration;

/// Which people of a site a door lets in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SitePeople {
    /// All of them.
    #[default]
    All,
    /// Administrators alone.
    Administrators,
    /// None.
    Nobody,
}

impl SitePeople {
    /// Whether somebody of the site may come in.
    pub fn admits(self, administrator: bool) -> bool {
        match self {
            Self::All => true,
            Self::Administrators => administrator,
            Self::Nobody => false,
        }
    }
}

/// Settings of one door.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// False accept rate per attempt, above 0 and below 1.
    pub false_accept_rate: f64,
    /// Budget of false entries, by which that rate is tightened.
    pub false_entries: FalseEntrySettings,
    /// Whether a view of a live camera must differ from the one before it to count.
    pub distinct_views: bool,
    /// Evidence over several frames.
    pub decide: DecideSettings,
    /// Liveness and challenge.
    pub liveness: GuardSettings,
    /// Lock, alarms and anti-passback.
    pub door: DoorSettings,
    /// Lockout after refused attempts.
    pub lockout: LockoutSettings,
    /// Button gesture that reports duress.
    pub duress: DuressGesture,
    /// Hours of the groups, and open hours.
    pub schedule: Schedule,
    /// Enrolment with the button.
    pub enroll: DoorEnrolmentSettings,
}

/// Settings of an enrolment with the button. Similarities follow from rates once the
/// calibration of the models is known.
#[derive(Clone, Debug, PartialEq)]
pub struct DoorEnrolmentSettings {
    /// Whether the button outside begins an enrolment, too.
    pub outside: bool,
    /// Time limit for the administrator to be recognized.
    pub administrator_within: Duration,
    /// Time after a local reset during which the first person needs no administrator.
    pub first_within: Duration,
    /// Number of views wanted.
    pub views: usize,
    /// Poses of the first views.
    pub poses: Poses,
    /// Time limit for the views.
    pub views_within: Duration,
    /// False accept rate per pair at which the newcomer counts as a known person.
    pub duplicate_rate: f64,
    /// False accept rate per pair at which the newcomer counts as a look-alike.
    pub look_alike_rate: f64,
}

impl DoorEnrolmentSettings {
    /// The settings with similarities in the place of rates.
    pub fn calibrated(&self, thresholds: &ThresholdTable) -> ButtonSettings {
        ButtonSettings {
            outside: self.outside,
            administrator_within: self.administrator_within,
            first_within: self.first_within,
            views: EnrollSettings {
                views: self.views,
                poses: self.poses.clone(),
                time: self.views_within,
                same_person: thresholds.for_pair(SAME_PERSON_RATE).similarity,
            },
            duplicate: thresholds.for_pair(self.duplicate_rate).similarity,
            look_alike: thresholds.for_pair(self.look_alike_rate).similarity,
        }
    }
}
