//! The three nets, on one thread or on two.

use super::Net;
use super::Watch;
use crate::nn::worker::Second;
use crate::nn::{Network, NetworkError, Pictures, Values};

/// The nets, and copies of them on a second thread if there is one.
pub(super) struct Nets {
    own: [Network; 3],
    second: Option<Second>,
    pictures: Pictures,
}

/// What a net said of a batch, whichever thread it was run on.
#[derive(Clone, Copy)]
pub(super) struct Outputs<'n> {
    here: &'n [Values],
    there: &'n [Values],
}

impl<'n> Outputs<'n> {
    /// The places of output number `at`, in the pictures' order.
    pub fn places(&self, at: usize) -> impl Iterator<Item = &'n [f32]> + use<'n> {
        let of = |outputs: &'n [Values]| outputs.get(at).map(Values::places);
        of(self.here).into_iter().chain(of(self.there)).flatten()
    }
}

impl Nets {
    /// P-, R- and O-Net; `second` has the same ones in the same order.
    pub fn new(own: [Network; 3], second: Option<Second>) -> Self {
        Self { own, second, pictures: Pictures::default() }
    }

    /// P-Net.
    pub fn first(&self) -> &Network {
        &self.own[0]
    }

    /// Runs a net on `count` pictures, which `fill` adds one by one. From number
    /// `split` on they are a second thread's, if there is one; these are filled first,
    /// so that both run while the rest is filled.
    pub fn run(
        &mut self,
        net: Net,
        count: usize,
        split: usize,
        mut fill: impl FnMut(usize, &mut Pictures),
        watch: &mut Watch,
    ) -> Result<Outputs<'_>, NetworkError> {
        let number = net as usize;
        let mut second = self.second.as_mut().filter(|_| split < count);
        let own = if second.is_some() { split } else { count };
        if let Some(second) = &mut second {
            let pictures = second.pictures();
            pictures.clear();
            (own..count).for_each(|at| fill(at, pictures));
            watch(net, pictures);
            second.start(number)?;
        }
        self.pictures.clear();
        (0..own).for_each(|at| fill(at, &mut self.pictures));
        watch(net, &self.pictures);
        let here = self.own[number].run(&self.pictures);
        // Both have ended before either's fault is told.
        let there = second.map_or(Ok(&[][..]), Second::finish);
        Ok(Outputs { here: here?, there: there? })
    }
}
