//! Boxes whose value is made where it stays. Called where a request allocates something large.

/// Allocates first and makes the value second: `Box::new` makes it on the stack and copies all of it, also the parts that
/// are empty still. For the future of an `async fn` that is everything but its arguments.
#[inline]
pub fn in_place<T>(make: impl FnOnce() -> T) -> Box<T> {
    Box::write(Box::new_uninit(), make())
}
