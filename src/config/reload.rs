//! Which settings a running service can reload, and which need a restart.

use super::Config;

/// A setting and whether a change of it needs a restart.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Name with its table, like "door.open_for"; all groups together are "groups".
    pub name: &'static str,
    /// Whether a change needs a restart: devices, files and sockets stay open during a
    /// reload, and a change of the lock type would invert the relay.
    pub restart: bool,
    same: fn(&Config, &Config) -> bool,
}

macro_rules! key {
    ($restart:expr, $table:ident $(. $key:ident)?) => {
        Key {
            name: concat!(stringify!($table) $(, ".", stringify!($key))?),
            restart: $restart,
            same: |one, other| one.$table $(.$key)? == other.$table $(.$key)?,
        }
    };
}

macro_rules! keys {
    (restart: $($a:ident $(. $b:ident)?),*; reload: $($c:ident $(. $d:ident)?),* $(;)?) => {
        &[$(key!(true, $a $(. $b)?)),*, $(key!(false, $c $(. $d)?)),*]
    };
}

/// All settings. A test compares them with [`Config`], so that every new setting must be in
/// one of the two lists.
pub static KEYS: &[Key] = keys! {
    restart:
        camera.uri, camera.largest_frame, relay.uri,
        gpio.button_outside, gpio.button_inside, gpio.door_contact, gpio.exit, gpio.reset,
        gpio.debounce,
        lights.red, lights.green, lights.blue, lights.buzzer,
        door.lock,
        gallery.file, gallery.keep_crops, audit.keep_for, audit.largest, audit.pictures_keep_for, models.folder,
        recognition.distinct_views, service.status_socket, service.power_saving, service.idle_look_every,
        service.watchdog,
        roles.read, roles.order, roles.administrator,
        link.socket, link.user, link.orders, link.names, link.duress,
        site.key, site.door, site.on_lease_end;
    reload:
        door.open_for, door.exit_for, door.lock_when_closed, door.held_open_after,
        door.duress, door.duress_within, door.role, door.anti_passback,
        door.anti_passback_forgets, door.open_hours, door.open_hours_on_holidays,
        recognition.false_accept_rate, recognition.false_entries_per_year,
        recognition.strangers_per_day, recognition.frames, recognition.evidence_expires,
        recognition.two_faces, recognition.again_after,
        recognition.zone,
        recognition.minimum_face,
        liveness.mode, liveness.threshold, liveness.motion, liveness.turns,
        enroll.outside, enroll.probation, enroll.views, enroll.poses, enroll.views_within, enroll.administrator_within,
        enroll.first_within, enroll.duplicate_rate, enroll.look_alike_rate,
        lockout.tries, lockout.first, lockout.longest, lockout.forget_after,
        schedule.holidays, schedule.clock, models.trusted_keys, groups,
        audit.pictures, audit.replay;
};

impl Key {
    /// Whether the setting differs between two configurations.
    pub(super) fn differs(&self, one: &Config, other: &Config) -> bool {
        !(self.same)(one, other)
    }
}

impl Config {
    /// Settings that differ between the two; those that need a restart come first.
    pub fn changed<'c>(&'c self, other: &'c Self) -> impl Iterator<Item = &'static Key> + 'c {
        KEYS.iter().filter(|key| !(key.same)(self, other))
    }

    /// The first setting that differs and needs a restart; `None` if a reload is enough.
    pub fn needs_restart(&self, other: &Self) -> Option<&'static str> {
        self.changed(other).find(|key| key.restart).map(|key| key.name)
    }
}
