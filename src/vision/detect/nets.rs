//! The three nets of the detector, run on one or two threads.

use super::Net;
use super::Watch;
use crate::nn::worker::Worker;
use crate::nn::{Activations, Batch, Network, NetworkError};

/// The nets, and copies of them for a second thread if there is one.
pub(super) struct Nets {
    own: [Network; 3],
    second: Option<Worker>,
    pictures: Batch,
}

/// The outputs of a net for a batch, from both threads.
#[derive(Clone, Copy)]
pub(super) struct Outputs<'n> {
    here: &'n [Activations],
    there: &'n [Activations],
}

impl<'n> Outputs<'n> {
    /// The places of output number `at`, in the order of the pictures.
    pub fn places(&self, at: usize) -> impl Iterator<Item = &'n [f32]> + use<'n> {
        let of = |outputs: &'n [Activations]| outputs.get(at).map(Activations::places);
        of(self.here).into_iter().chain(of(self.there)).flatten()
    }
}

impl Nets {
    /// `own` are P-Net, R-Net and O-Net; `second` has the same nets in the same order.
    pub fn new(own: [Network; 3], second: Option<Worker>) -> Self {
        Self { own, second, pictures: Batch::default() }
    }

    /// Returns P-Net.
    pub fn first(&self) -> &Network {
        &self.own[0]
    }

    /// Runs a net on `count` pictures, which `fill` adds one by one. Pictures from number
    /// `split` on go to the second thread, if there is one. They are filled first, so that
    /// the second thread runs while the rest is filled.
    pub fn run(
        &mut self,
        net: Net,
        count: usize,
        split: usize,
        mut fill: impl FnMut(usize, &mut Batch),
        watch: &mut Watch,
    ) -> Result<Outputs<'_>, NetworkError> {
        let number = net as usize;
        let mut second = self.second.as_mut().filter(|_| split < count);
        let own = if second.is_some() { split } else { count };
        if let Some(second) = &mut second {
            let pictures = second.batch();
            pictures.clear();
            (own..count).for_each(|at| fill(at, pictures));
            watch(net, pictures);
            second.start(number)?;
        }
        self.pictures.clear();
        (0..own).for_each(|at| fill(at, &mut self.pictures));
        watch(net, &self.pictures);
        let here = self.own[number].run(&self.pictures);
        // Wait for both threads before an error of either is returned.
        let there = second.map_or(Ok(&[][..]), Worker::finish);
        Ok(Outputs { here: here?, there: there? })
    }
}
