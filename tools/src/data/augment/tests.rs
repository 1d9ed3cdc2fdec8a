use super::*;

/// A picture of coarse noise with a side of [`CROP_SIDE`].
fn crop(seed: usize) -> Crop {
    crop_of(CROP_SIDE, seed)
}

fn crop_of(side: usize, seed: usize) -> Crop {
    let pixels =
        (0..3 * side * side).map(|i| ((i * (7 + seed) + i / 97 * seed) % 256) as u8).collect();
    Crop::from_pixels(side, pixels).expect("a square")
}

/// [`Augment::none`] with the one change that `one` makes.
fn only(one: impl FnOnce(&mut Augment)) -> Augment {
    let mut augment = Augment::none();
    one(&mut augment);
    augment.check().expect("within its limits");
    augment
}

fn always(limit: f64) -> Change {
    Change { probability: 1.0, limit }
}

/// A face-like picture: smooth, so that blur and JPEG change it only a little.
fn smooth() -> Crop {
    let pixels = (0..CROP_SIDE * CROP_SIDE)
        .flat_map(|at| {
            let (x, y) = ((at % CROP_SIDE) as f64, (at / CROP_SIDE) as f64);
            let light = 120.0 + 60.0 * (x / 17.0).sin() * (y / 23.0).cos();
            [light * 1.2, light, light * 0.8].map(|value| value as u8)
        })
        .collect();
    Crop::from_pixels(CROP_SIDE, pixels).expect("112 x 112")
}

/// Columns and rows where two pictures differ.
fn changed(one: &Crop, other: &Crop) -> Vec<(usize, usize)> {
    let pixels = |crop: &Crop| crop.frame().pixels().as_chunks::<3>().0.to_vec();
    (pixels(one).iter().zip(pixels(other)).enumerate())
        .filter(|(_, (a, b))| **a != *b)
        .map(|(at, _)| (at % CROP_SIDE, at / CROP_SIDE))
        .collect()
}

fn mean(crop: &Crop) -> f64 {
    mean_where(crop.frame(), &|_, _| true)
}

/// Mean squared difference of neighbours in a row.
fn texture(crop: &Crop) -> f64 {
    let pixels = crop.frame().pixels();
    let steps = pixels.iter().zip(&pixels[3..]);
    steps.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>()
}

#[test]
fn none_changes_nothing() {
    for seed in 0..20 {
        let before = crop(seed as usize);
        assert_eq!(Augment::none().apply(&before, &mut Chance::new(seed)), before);
    }
}

#[test]
fn the_mirror_image_of_the_mirror_image_is_the_face() {
    let mirror = only(|augment| augment.flip = 1.0);
    let once = mirror.apply(&crop(5), &mut Chance::new(1));
    assert_ne!(once, crop(5));
    assert_eq!(once.frame().pixel(0, 3), crop(5).frame().pixel(111, 3));
    assert_eq!(mirror.apply(&once, &mut Chance::new(2)), crop(5));
}

#[test]
fn the_seed_alone_says_what_happens() {
    let strong = |seed| Augment::strong().apply(&crop(9), &mut Chance::new(seed));
    assert_eq!(strong(4), strong(4));
    let different: Vec<Crop> = (0..10).map(strong).collect();
    assert!(different.iter().enumerate().all(|(at, one)| !different[..at].contains(one)));
}

#[test]
fn brightness_stays_within_its_limit_and_keeps_the_order_of_values() {
    let shift = only(|augment| augment.brightness = always(0.1));
    let before = smooth();
    for seed in 0..50 {
        let after = shift.apply(&before, &mut Chance::new(seed));
        assert!((mean(&after) - mean(&before)).abs() <= 26.0);
        let pairs = before.frame().pixels().iter().zip(after.frame().pixels());
        let by = f64::from(after.frame().pixels()[0]) - f64::from(before.frame().pixels()[0]);
        assert!(pairs.clone().all(|(a, b)| {
            (f64::from(*b) - (f64::from(*a) + by).clamp(0.0, 255.0)).abs() < 1.5
        }));
    }
}

#[test]
fn contrast_keeps_the_mean() {
    let change = only(|augment| augment.contrast = always(0.3));
    let before = smooth();
    let mut textures = Vec::new();
    for seed in 0..20 {
        let after = change.apply(&before, &mut Chance::new(seed));
        assert!((mean(&after) - mean(&before)).abs() < 1.0);
        textures.push(texture(&after) / texture(&before));
    }
    assert!(textures.iter().any(|more| *more > 1.1), "{textures:?}");
    assert!(textures.iter().any(|less| *less < 0.9), "{textures:?}");
    assert!(textures.iter().all(|ratio| (0.45..1.75).contains(ratio)), "{textures:?}");
}

#[test]
fn blur_distance_and_coarse_files_lose_texture_but_not_the_picture() {
    let noise = crop(31);
    for (name, augment) in [
        ("blur", only(|augment| augment.blur = always(2.0))),
        ("distance", only(|augment| augment.low_resolution = always(16.0))),
    ] {
        for seed in 0..10 {
            let after = augment.apply(&noise, &mut Chance::new(seed));
            assert!(texture(&after) <= texture(&noise), "{name}");
            assert!((mean(&after) - mean(&noise)).abs() < 2.0, "{name}");
        }
    }
    let coarse = only(|augment| augment.jpeg = always(10.0));
    for seed in 0..10 {
        let after = coarse.apply(&smooth(), &mut Chance::new(seed));
        assert_ne!(after, smooth());
        let pixels = smooth().frame().pixels().to_vec();
        let off: f64 = (pixels.iter().zip(after.frame().pixels()))
            .map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs())
            .sum();
        assert!(off / (pixels.len() as f64) < 12.0, "{}", off / pixels.len() as f64);
    }
}

#[test]
fn a_mask_covers_the_mouth_and_never_the_eyes() {
    let masked = only(|augment| augment.mask = always(56.0));
    for seed in 0..50 {
        let covered = changed(&smooth(), &masked.apply(&smooth(), &mut Chance::new(seed)));
        assert!(covered.iter().all(|(_, row)| *row >= 55), "the eyes are free");
        let around = |x: usize, y: usize| {
            covered.iter().filter(|(c, r)| *c / 4 == x / 4 && *r / 4 == y / 4).count()
        };
        // Some pixels of a pleat may have the colour that was there before.
        for (x, y) in [(41usize, 92usize), (56, 92), (70, 92), (56, 76)] {
            assert!(around(x, y) >= 12, "mouth and nose at {x}, {y}: seed {seed}");
        }
        let share = covered.len() as f64 / (CROP_SIDE * CROP_SIDE) as f64;
        assert!((0.2..0.4).contains(&share), "{share}");
    }
}

#[test]
fn a_mask_in_the_shade_is_dark() {
    let masked = only(|augment| augment.mask = always(56.0));
    let dark =
        Crop::from_pixels(CROP_SIDE, vec![20; 3 * CROP_SIDE * CROP_SIDE]).expect("112 x 112");
    for seed in 0..20 {
        let after = masked.apply(&dark, &mut Chance::new(seed));
        assert!(after.frame().pixels().iter().all(|value| *value < 90));
    }
}

#[test]
fn an_object_covers_its_share() {
    let hidden = only(|augment| augment.object = always(0.2));
    let mut largest: f64 = 0.0;
    for seed in 0..200 {
        let covered = changed(&crop(3), &hidden.apply(&crop(3), &mut Chance::new(seed)));
        let share = covered.len() as f64 / (CROP_SIDE * CROP_SIDE) as f64;
        assert!((0.017..0.225).contains(&share), "{share}");
        largest = largest.max(share);
    }
    assert!(largest > 0.15, "{largest}");
}

#[test]
fn probabilities_are_kept() {
    let sometimes = only(|augment| {
        augment.object = Change { probability: 0.25, limit: 0.1 };
    });
    let mut chance = Chance::new(8);
    let hit = (0..1000).filter(|_| sometimes.apply(&crop(1), &mut chance) != crop(1)).count();
    assert!((200..300).contains(&hit), "{hit}");
}

#[test]
fn what_is_out_of_its_limits_is_named() {
    for augment in [Augment::none(), Augment::mild(), Augment::strong(), Augment::door()] {
        augment.check().expect("within its limits");
    }
    let mut augment = Augment::none();
    augment.blur.limit = f64::NAN;
    assert!(augment.check().expect_err("no number").to_string().starts_with("blur: limit NaN"));
    let mut augment = Augment::none();
    augment.mask.probability = 1.5;
    let message = augment.check().expect_err("more than certain").to_string();
    assert_eq!(message, "mask: probability 1.5; it must be in 0..=1");
}

#[test]
fn presets_follow_from_the_seed_and_older_ones_are_as_they_were() {
    for side in [112, 128] {
        let face = crop_of(side, 3);
        for augment in [Augment::mild(), Augment::strong(), Augment::door()] {
            let at = |seed| augment.apply(&face, &mut Chance::new(seed));
            assert_eq!(at(5), at(5));
            assert_ne!(at(5), at(6));
        }
    }
    // A change that never happens leaves the numbers of the others alone.
    let changed = Augment { shift: Change { probability: 0.0, limit: 9.0 }, ..Augment::strong() };
    let at = |augment: Augment| augment.apply(&crop(3), &mut Chance::new(5));
    assert_eq!(at(changed), at(Augment::strong()));
}

#[test]
fn a_face_moves_turns_and_grows_and_the_edge_repeats() {
    let mut frame = Frame::filled(9, 9, [10; 3]);
    let dot = |frame: &Frame| -> Vec<usize> {
        let pixels = frame.pixels().as_chunks::<3>().0.iter().enumerate();
        pixels.filter(|(_, pixel)| pixel[0] > 100).map(|(at, _)| at).collect()
    };
    frame.pixels_mut()[3 * (4 * 9 + 6)..][..3].fill(200);
    let after = |shift, size, angle: f64| {
        let mut frame = frame.clone();
        moved(&mut frame, shift, size, angle.to_radians());
        frame
    };
    assert_eq!(after([0.0; 2], 1.0, 0.0), frame);
    assert_eq!(dot(&after([1.0, -2.0], 1.0, 0.0)), [2 * 9 + 7]);
    // A quarter turn: from the right of the centre to below it.
    assert_eq!(dot(&after([0.0; 2], 1.0, 90.0)), [6 * 9 + 4]);
    assert_eq!(dot(&after([0.0; 2], 0.5, 0.0)), [4 * 9 + 5]);
    let half = after([0.5, 0.0], 1.0, 0.0);
    assert_eq!(half.pixel(6, 4), half.pixel(7, 4));
    let mut edge = Frame::filled(9, 9, [10; 3]);
    for row in 0..9 {
        edge.pixels_mut()[3 * 9 * row..][..3].fill(90);
    }
    moved(&mut edge, [3.0, 0.0], 1.0, 0.0);
    assert_eq!([edge.pixel(0, 4), edge.pixel(3, 4), edge.pixel(4, 4)], [[90; 3], [90; 3], [10; 3]]);
}

#[test]
fn light_from_a_side_brightens_that_side_and_keeps_the_mean() {
    for towards in [0.0, 0.8, 2.0, 4.0] {
        let mut frame = Frame::filled(64, 64, [100; 3]);
        side_light(&mut frame, 0.5, towards);
        let values = || frame.pixels().iter().map(|value| f64::from(*value));
        let mean = values().sum::<f64>() / values().count() as f64;
        assert!((mean - 100.0).abs() < 0.5, "{mean}");
        let (darkest, brightest) = (values().fold(255.0, f64::min), values().fold(0.0, f64::max));
        assert!((50.0..52.0).contains(&darkest) && (148.0..=150.0).contains(&brightest));
    }
    let mut frame = Frame::filled(64, 64, [100; 3]);
    side_light(&mut frame, 1.0, 0.0);
    assert!(frame.pixel(63, 20)[0] > 190 && frame.pixel(0, 20)[0] < 5);
}
