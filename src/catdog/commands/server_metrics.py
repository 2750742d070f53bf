"""What `catdog serve` tells Prometheus of itself, at /metrics."""

import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, Info, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catdog.answers.classifier import DOUBTS, UNSURE
from catdog.feedback.log_writer import Writer
from catdog.feedback.user_feedback import Noted

ASK = "/invocations"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PROBABILITY = tuple(step / 20 for step in range(1, 21))
_FAMILIARITY = (0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1)
_AGREED = ("yes", "no", "unsure")


class Metrics:
    """The counts of one server. Many threads may count at a time."""

    def __init__(self, *, version: str, classes: Sequence[str], log: Writer | None) -> None:
        self._registry = CollectorRegistry()
        where: Any = {"registry": self._registry}
        Info("catdog_model", "The version that answers.", **where).info({"version": version})
        self._requests = Counter(
            "catdog_requests",
            "Requests by address and status; unknown addresses are other.",
            ["path", "status"],
            **where,
        )
        self._seconds = Histogram(
            "catdog_request_duration_seconds",
            "From the last byte of a request for photographs to the first of its answer, where it got one.",
            buckets=_SECONDS,
            **where,
        )
        self._photographs = Counter("catdog_photographs", "Photographs answered, by label.", ["label"], **where)
        self._probability = Histogram(
            "catdog_probability", f"Probability of {classes[1]}.", buckets=_PROBABILITY, **where
        )
        self._familiarity = Histogram(
            "catdog_familiarity",
            "Share of the validation photographs that are no more familiar.",
            buckets=_FAMILIARITY,
            **where,
        )
        self._feedback = Counter(
            "catdog_feedback", "What clients said of answers, by whether it was the answer.", ["agreed"], **where
        )
        # So that they are 0 before they are 1: Prometheus sees no rise in what was not there.
        for label in (*classes, *DOUBTS.values()):
            self._photographs.labels(label)
        for agreed in _AGREED:
            self._feedback.labels(agreed)
        self._requests.labels(ASK, "200")
        if log:
            self._registry.register(_OfLog(log))

    def count_request(self, path: str, status: int, *, seconds: float) -> None:
        self._requests.labels(path, str(status)).inc()
        if path == ASK and status == 200:
            self._seconds.observe(seconds)

    def count_answers(self, answers: list[dict[str, Any]]) -> None:
        """Count photographs, by the columns of `serving.COLUMNS`."""
        for answer in answers:
            self._photographs.labels(answer["label"]).inc()
            self._probability.observe(answer["probability"])
            if answer["familiarity"] is not None:
                self._familiarity.observe(answer["familiarity"])

    def count_feedback(self, noted: Noted) -> None:
        if noted.new:
            agreed = "unsure" if noted.answered == UNSURE else "yes" if noted.label == noted.answered else "no"
            self._feedback.labels(agreed).inc()

    def route(self) -> Route:
        """The address that Prometheus asks."""

        def metrics(request: Request) -> Response:
            return Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST})

        return Route("/metrics", metrics)


class _OfLog(Collector):
    """The counts that a log keeps itself."""

    def __init__(self, log: Writer) -> None:
        self._log = log

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("catdog_log_photographs", "Photographs in the log.", value=self._log.written)
        lost = CounterMetricFamily("catdog_log_lost", "What the log misses, by reason.", labels=["what", "reason"])
        for (what, reason), number in self._log.losses.counts().items():
            lost.add_metric([what, reason], number)
        yield lost


class Counted:
    """Counts each request, and how long its answer takes once it is whole; stands before all that refuses any.

    `request.state.whole_at` is when the last byte of a request had come, in seconds of `time.perf_counter`.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, paths: Collection[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["whole_at"] = time.perf_counter()
        path = scope["path"] if scope["path"] in self._paths else "other"
        answered = False

        def count(status: int) -> None:
            nonlocal answered
            if not answered:
                self._metrics.count_request(path, status, seconds=time.perf_counter() - state["whole_at"])
            answered = True

        async def received() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                state["whole_at"] = time.perf_counter()
            return message

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        try:
            await self._app(scope, received, sent)
        except Exception:
            count(500)  # so it is answered, further out
            raise
