"""Speed and price of a clone and its service, as a table and sentences."""

from denature.extract.speed import SpeedResult


def timing_table(result: SpeedResult) -> list[list[str]]:
    """Header and lines: a line for each batch size of the clone, then of the service."""
    lines = [["Model", "Batch", "Images/s", "p50 ms", "p90 ms", "p99 ms", "Timed"]]
    for name, timings in (("clone", result.clone), ("service", result.service)):
        for timing in timings:
            waits = (
                f"{ms:,.2f}" if timing.count >= least else ""
                for ms, least in ((timing.p50_ms, 1), (timing.p90_ms, 10), (timing.p99_ms, 100))
            )
            rate = f"{timing.images_per_second:,.0f}"
            lines.append([name, str(timing.images), rate, *waits, str(timing.count)])
    return lines


def price_sentences(result: SpeedResult) -> list[str]:
    """The queries of the timing, the service's prices, and the images that pay for a theft."""
    said = [f"The timing took {result.queries:,} queries."] if result.queries else []
    if (prices := result.prices) is not None:
        dated = f" ({prices.source}, {prices.as_of})" if prices.as_of else ""
        said.append(
            f"The service charges US $ {prices.cost(1_000):,.2f} for a thousand images, "
            f"US $ {prices.cost(1_000_000):,.2f} for a million in one month{dated}."
        )
    if (images := result.paid_after) is not None:
        said.append(
            f"The answers that the clone learned from cost US $ {result.paid:,.2f}; the service "
            f"charges as much for {images:,.0f} images."
        )
    return said
