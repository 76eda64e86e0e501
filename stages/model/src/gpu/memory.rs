//! Memory of the device, which returns to a shelf when nobody holds it.
//!
//! A step asks for the same sizes every time, and asking a driver for memory makes it wait for all that
//! was launched. One queue of launches makes early reuse safe: whoever gets a buffer writes it later.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use super::launcher::{Arg, Launch, Launcher, Numbers, NumbersMut};
use crate::ops::Result;

/// Buffers are whole multiples of this many bytes.
const GRAIN: usize = 256;

/// A device and its memory that is free to be used again, by size.
pub(crate) struct Device {
    pub(crate) launcher: Box<dyn Launcher>,
    shelf: RefCell<BTreeMap<usize, Vec<u64>>>,
    /// Bytes that are taken of the device, and the most that were.
    n_bytes: Cell<[u64; 2]>,
}

impl Device {
    pub(crate) fn new(launcher: Box<dyn Launcher>) -> Rc<Self> {
        Rc::new(Device {
            launcher,
            shelf: RefCell::default(),
            n_bytes: Cell::default(),
        })
    }

    /// Memory of any value.
    pub(crate) fn take(self: &Rc<Self>, n_bytes: usize) -> Result<Buf> {
        let n_bytes = n_bytes.next_multiple_of(GRAIN).max(GRAIN);
        let (address, n_bytes) = match self.find(n_bytes) {
            Some(found) => found,
            None => (self.ask(n_bytes)?, n_bytes),
        };
        let device = Rc::clone(self);
        Ok(Buf {
            device,
            address,
            n_bytes,
        })
    }

    pub(crate) fn floats(self: &Rc<Self>, n: usize) -> Result<Buf> {
        self.take(4 * n)
    }

    pub(crate) fn zeros(self: &Rc<Self>, n: usize) -> Result<Buf> {
        let buf = self.floats(n)?;
        let args = [Arg::At(buf.address), Arg::Float(0.0), Arg::Long(n as u64)];
        self.each("fill", n, &args)?;
        Ok(buf)
    }

    pub(crate) fn upload(self: &Rc<Self>, from: Numbers) -> Result<Buf> {
        let n_bytes = match from {
            Numbers::F32(x) => size_of_val(x),
            Numbers::U16(x) => size_of_val(x),
            Numbers::U32(x) => size_of_val(x),
        };
        let buf = self.take(n_bytes)?;
        self.launcher.write(buf.address, from)?;
        Ok(buf)
    }

    pub(crate) fn floats_of(&self, buf: &Buf, n: usize) -> Result<Vec<f32>> {
        let mut out = vec![0.0; n];
        self.launcher.read(NumbersMut::F32(&mut out), buf.address)?;
        Ok(out)
    }

    /// Launches a kernel whose threads each take one number.
    pub(crate) fn each(&self, kernel: &'static str, n: usize, args: &[Arg]) -> Result<()> {
        self.launch(kernel, [n.div_ceil(256), 1, 1], 256, 0, args)
    }

    /// Launches a kernel whose blocks each take one row.
    pub(crate) fn rows(&self, kernel: &'static str, n_rows: usize, args: &[Arg]) -> Result<()> {
        self.launch(kernel, [n_rows, 1, 1], 128, 64, args)
    }

    pub(crate) fn launch(
        &self,
        kernel: &'static str,
        grid: [usize; 3],
        block: u32,
        shared_bytes: usize,
        args: &[Arg],
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        self.launcher.launch(&Launch {
            kernel,
            grid: grid.map(|n| n as u32),
            block,
            shared_bytes: shared_bytes as u32,
            args,
        })
    }

    /// Gives back what nobody holds: shapes are about to change.
    pub(crate) fn clear(&self) {
        let shelf = std::mem::take(&mut *self.shelf.borrow_mut());
        let [mut now, most] = self.n_bytes.get();
        for (size, addresses) in shelf {
            now -= (size * addresses.len()) as u64;
            addresses.iter().for_each(|at| self.launcher.free(*at));
        }
        self.n_bytes.set([now, most]);
    }

    /// The most memory that was taken at a time.
    pub(crate) fn most_bytes(&self) -> u64 {
        self.n_bytes.get()[1]
    }

    /// The smallest free buffer that is large enough, unless it is much too large.
    fn find(&self, n_bytes: usize) -> Option<(u64, usize)> {
        let mut shelf = self.shelf.borrow_mut();
        let (&size, free) = shelf.range_mut(n_bytes..=n_bytes + n_bytes / 4).next()?;
        let address = free.pop();
        if free.is_empty() {
            shelf.remove(&size);
        }
        let address = address?;
        self.launcher.forget(address, size);
        Some((address, size))
    }

    fn ask(&self, n_bytes: usize) -> Result<u64> {
        let address = self.launcher.alloc(n_bytes).or_else(|_| {
            self.clear();
            self.launcher.alloc(n_bytes)
        })?;
        let [now, most] = self.n_bytes.get();
        let now = now + n_bytes as u64;
        self.n_bytes.set([now, most.max(now)]);
        Ok(address)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Memory that returns to its device's shelf when dropped.
pub(crate) struct Buf {
    device: Rc<Device>,
    pub(crate) address: u64,
    n_bytes: usize,
}

impl Buf {
    pub(crate) fn at(&self) -> Arg {
        Arg::At(self.address)
    }

    /// The numbers behind the first `n`.
    pub(crate) fn behind(&self, n: usize) -> Arg {
        Arg::At(self.address + 4 * n as u64)
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        let mut shelf = self.device.shelf.borrow_mut();
        shelf.entry(self.n_bytes).or_default().push(self.address);
    }
}
