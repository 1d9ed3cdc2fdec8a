//! Records that the doors of one site share. Pure: no files, no network, no clock.
