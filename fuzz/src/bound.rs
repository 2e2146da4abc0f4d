//! How much memory may be held at once.

/// So many bytes for each byte of the input, and so many besides.
#[derive(Clone, Copy)]
pub struct Bound(pub u64, pub u64);

/// What decoding may hold.
pub const DECODER: Bound = Bound(2, 64 << 10);

impl Bound {
    /// Runs `work` on an input of so many bytes, and fails if it holds more than allowed at any moment.
    pub fn of<T>(self, input: usize, work: impl FnOnce() -> T) -> T {
        let mut result = None;
        let held = allocation_counter::measure(|| result = Some(work())).bytes_max;
        let most = self.0 * input as u64 + self.1;
        assert!(held <= most, "{input} bytes made it hold {held} bytes at once, more than {most}");
        result.expect("it ran")
    }
}
