//! Sizes of the hot futures: memory per request in flight, and bytes that are moved when a future is awaited.

use std::sync::Arc;

use super::*;

/// The size of the future that `make` would return. Never calls it.
fn size_of_future<F: Future>(_: impl FnOnce() -> F) -> usize {
    size_of::<F>()
}

fn any<T>() -> T {
    unreachable!("only its type is needed")
}

#[test]
fn hot_futures_stay_small() {
    let handle = size_of_future(|| handle(any::<&'static Arc<State>>(), any(), any(), any()));
    let run =
        size_of_future(|| run(any::<&'static Arc<State>>(), any::<&'static mut Option<_>>(), any(), any()));
    let dispatch = size_of_future(|| {
        dispatch::run(
            any::<&'static State>(),
            any::<&'static Live>(),
            any::<dispatch::Call<'static>>(),
            any::<&'static _>(),
            any::<&'static mut _>(),
        )
    });
    let attempts = size_of_future(|| {
        attempts::run(
            any::<&'static attempts::Chain<'static>>(),
            any(),
            any(),
            any::<&'static mut Option<_>>(),
        )
    });
    let send = size_of_future(|| {
        crate::upstream::UpstreamClient::send(any::<&'static _>(), any::<&'static _>(), any(), any())
    });
    let respond = size_of_future(|| {
        respond::run(any(), any::<&'static Live>(), any(), any(), any::<&'static mut Option<_>>())
    });
    let read = size_of_future(|| ingress::read_body(any::<&'static _>(), any(), any(), any()));
    println!(
        "handle {handle} run {run} attempts {attempts} dispatch {dispatch} send {send} respond {respond} read {read}"
    );
    println!(
        "context {} answering {} deadline {} outgoing {} spliced {} request {} reply {} envelope {} metered {}",
        size_of::<RequestContext>(),
        size_of::<early::Answering>(),
        size_of::<Deadline>(),
        size_of::<dispatch::Outgoing>(),
        size_of::<nemo_llm::Spliced>(),
        size_of::<http::Request<crate::upstream::SegmentBody>>(),
        size_of::<dispatch::Reply>(),
        size_of::<nemo_llm::Envelope<'_>>(),
        size_of::<metered_body::MeteredBody>()
    );
    assert!(handle <= 2 * 1024, "{handle}");
    // Larger ones take the allocator's slow path.
    assert!(size_of::<RequestContext>() <= 1024, "{}", size_of::<RequestContext>());
}
