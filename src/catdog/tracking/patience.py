"""Requests to an MLflow server: tried again for a minute with a countdown; after an outage, none in this process."""

import functools
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from mlflow.utils import request_utils
from mlflow.utils.credentials import read_mlflow_creds
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ReadTimeoutError

from catdog.base import errors

T = TypeVar("T")
SECONDS = 60.0  # from the last sign of life until we give up
EACH = 20  # for the answer to one request; MLFLOW_HTTP_REQUEST_TIMEOUT overrules it
_PAUSE, _BETWEEN_LINES = 1.0, 10.0
_PASSING = {408, 429, 500, 502, 503, 504}
_REFUSED = {401, 403}
_LONGEST = 80  # characters of what a server says that are shown
# Twice asked, these make two things. After a lost answer the caller has to look first: see `again`.
_CREATING = ("/runs/create", "/logged-models", "/model-versions/create")
_API = re.compile(r"/api/\d+\.\d+/mlflow/")  # files come and go by other paths
_MONITOR = "SystemMetricsMonitor"  # the thread in which MLflow records memory and load


class OutageError(requests.ConnectionError):
    """A server that did not answer for all of `SECONDS`, or that answered as no MLflow server does."""

    def __init__(self, server: str, what: str) -> None:
        super().__init__(f"the MLflow server at {server} stopped answering (it {what})")
        self.server, self.what = server, what


class RefusalError(OutageError):
    """A server that wants to know who asks, or that does not permit this to who does."""

    def __str__(self) -> str:
        return f"the MLflow server at {self.server} {self.what}"


class LostAnswerError(requests.ConnectionError):
    """Whether the server has made what it was asked to make is not known."""


class _Session:
    """What MLflow takes for its `requests.Session`."""

    outage: OutageError | None = None  # of the process

    def __init__(self, *, patient: bool) -> None:
        self._patient = patient
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, request_utils.TCPKeepAliveHTTPAdapter(max_retries=0))

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        """The answer, whole.

        Raises:
            OutageError: there was none within `SECONDS`, or there was an outage before.
            RefusalError: the user is unknown, or may not do this.
            LostAnswerError: the request makes something new, and may have come through.
        """
        address = urlsplit(url)
        server = f"{address.scheme}://{address.netloc.rpartition('@')[2]}"
        body: Any = options.get("data")
        start = body.tell() if hasattr(body, "tell") else 0
        timeout = options.pop("timeout", None) or SECONDS
        # A server passes a large file on, to a bucket say, before it answers.
        options["timeout"] = max(timeout, SECONDS) if method == "PUT" else timeout
        options["stream"] = False  # else a body that is cut off is found out too late to ask again
        wait = _Wait(server)
        while True:
            if _Session.outage:
                raise type(_Session.outage)(server, _Session.outage.what)
            if hasattr(body, "seek"):
                body.seek(start)
            try:
                answer = self._session.request(method, url, **options)
                if answer.status_code in _REFUSED:
                    raise _given_up(RefusalError(server, _refusal(answer)))
                what = _wrong(answer, address.path)
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                what, certain = _why(error), _never_arrived(error)
                waited = options["timeout"] if _timed_out(error) else 0
            else:
                if not what:
                    wait.over()
                    return answer
                certain, waited = False, 0
                if answer.status_code not in _PASSING and answer.status_code >= 400:
                    raise _given_up(OutageError(server, what))
            if method == "POST" and address.path.endswith(_CREATING) and not certain:
                raise LostAnswerError(f"the MLflow server at {server} {what}")
            if not self._patient or (left := wait.left(waited, what)) <= 0:
                raise _given_up(OutageError(server, what))
            time.sleep(min(_PAUSE, left))
            options["timeout"] = min(options["timeout"], max(left, 1))


class _Wait:
    """The time since the last sign of life, and a line about it now and then."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._since: float | None = None
        self._said: float | None = None

    def left(self, waited: float, what: str) -> float:
        """Seconds until we give up; `waited` is how long the failure took to show, `what` the server did."""
        now = time.monotonic()
        if self._since is None:
            self._since = now - waited
        left = self._since + SECONDS - now
        if left > 0 and (self._said is None or now - self._said >= _BETWEEN_LINES):
            self._said = now
            _say(f"the MLflow server at {self._server} {what}; trying again for {left:.0f} s more")
        return left

    def over(self) -> None:
        if self._said is not None:
            _say(f"the MLflow server at {self._server} answers again")


def install() -> None:
    """Let MLflow ask by this module from now on, and forget an outage before."""
    _Session.outage = None
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(EACH))
    request_utils._get_request_session = lambda retries, *_, **__: _session(os.getpid(), patient=retries > 0)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Meanwhile, give up after so many seconds."""
    global SECONDS
    before, SECONDS = SECONDS, min(SECONDS, seconds)
    try:
        yield
    finally:
        SECONDS = before


def outage() -> OutageError | None:
    """The outage since `install`, if there was one."""
    return _Session.outage


def again(create: Callable[..., T]) -> Callable[..., T]:
    """A decorator: call `create` once more where an answer was lost. It looks first for what it is to create."""

    @functools.wraps(create)
    def called(*given: Any, **options: Any) -> T:
        try:
            return create(*given, **options)
        except Exception as error:
            if not any(isinstance(cause, LostAnswerError) for cause in errors.causes(error)):
                raise
        return create(*given, **options)

    return called


@functools.cache
def _session(pid: int, *, patient: bool) -> _Session:
    # One for each process: connections must not be shared with children.
    return _Session(patient=patient)


def _wrong(answer: requests.Response, path: str) -> str:
    """What is wrong with an answer, or nothing."""
    if answer.status_code in _PASSING:
        return f"answers {answer.status_code}"
    if _API.search(path) and not _is_json(answer):
        return f"answers {answer.status_code} with no JSON, as no MLflow server does"
    return ""


def _refusal(answer: requests.Response) -> str:
    """What the server refuses, and to whom. A refusal may also be of the name by which the server was called."""
    user = read_mlflow_creds().username
    if answer.status_code == 401:
        problem = f"does not know {user} by this password" if user else "asks who you are"
        return f"{problem} (401): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    request = _API.split(urlsplit(answer.url).path)[-1]
    said = answer.text.strip().partition("\n")[0][:_LONGEST]
    return f"does not permit this to {user or 'you'} (403 at {request}: {said}): ask who runs it for the permission"


def _is_json(answer: requests.Response) -> bool:
    try:
        return isinstance(answer.json(), dict)
    except ValueError:
        return False


def _why(error: Exception) -> str:
    if _timed_out(error):
        return "does not answer in time"
    return "can't be reached" if _never_arrived(error) else "cuts the connection"


def _timed_out(error: Exception) -> bool:
    return isinstance(error, requests.Timeout) or any(isinstance(each, ReadTimeoutError) for each in _inner(error))


def _never_arrived(error: Exception) -> bool:
    return any(isinstance(each, NewConnectionError | ConnectTimeoutError) for each in _inner(error))


def _inner(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it has as arguments or reasons: requests wraps those of urllib3 so."""
    yield error
    for each in (*error.args, getattr(error, "reason", None)):
        if isinstance(each, BaseException):
            yield from _inner(each)


def _given_up(error: OutageError) -> OutageError:
    if threading.current_thread().name == _MONITOR:  # the training does not hang on that
        _say(f"the MLflow server at {error.server} {error.what}: memory and load of this run are no longer recorded")
    else:
        _Session.outage = error
    return error


def _say(text: str) -> None:
    print(f"notice: {text}", file=sys.stderr, flush=True)
