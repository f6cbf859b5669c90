"""Files from http addresses: resumed, compared with what the address gave before, one message for
each thing that servers do.
"""

from __future__ import annotations

import contextlib
import math
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import requests
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema, RequestException
from urllib3.exceptions import HTTPError

from nnunet_builtin.sharing import pins
from nnunet_builtin.sharing.manifest import digest_of
from nnunet_builtin.sharing.pins import shown
from nnunet_builtin.untrusted.archives import Limits
from nnunet_core.errors import NnunetError, StorageError, UsageError
from nnunet_core.runtime import files, locks
from nnunet_core.runtime.files import Document
from nnunet_core.runtime.names import below, is_plain
from nnunet_core.runtime.reporting import Reporter

_WAIT = (15, 60)  # seconds to connect, and between two parts of an answer
_TRIES = 5  # one after the other that bring nothing
_TRIES_UNREACHABLE = 2  # where no server answers, and none ever did
_ALL_TRIES = 100
_PAUSE = 1.0  # seconds before the first repetition; twice as many before each further one
_REDIRECTS = 8
_BLOCK = 1 << 16
_MB = 1_000_000
_LATER = {408, 425, 429, 500, 502, 503, 504}
_STARTS = (b"PK", b"\x1f\x8b")  # of zip, of gzip
_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class _Begun(Document):
    """What is known of a file that is partly here.

    Attributes:
        address: Where it is from.
        validator: ETag, or date of the last change; empty if the server gave none.
        size: Bytes of the whole file, None if the server did not say.
    """

    address: str
    validator: str = ""
    size: int | None = None


class _BrokenError(Exception):
    """A try that failed and may succeed later."""


class _UnreachableError(_BrokenError):
    """No server is there: the connection was refused, or nobody has that name."""


@contextlib.contextmanager
def downloaded(address: str, results: Path, report: Reporter) -> Iterator[Path]:
    """Yield an archive from an http address. A download that broke off goes on where it stopped.

    The file is removed when the block ends well, or finds it damaged (StorageError). It stays where
    something else has to be done first.

    Args:
        address: Begins with http:// or https://.
        results: Of the workspace; the file lies in `downloads` there.
        report: Told of the progress.

    Raises:
        UsageError: The address is of another kind.
        NnunetError: The server has no such file, or sends something else.
        StorageError: The disk is full, or the file is another one than it was before.
    """
    _check_scheme(address)
    name = unquote(urlsplit(address).path).rpartition("/")[2]
    name = name if is_plain(name) and len(name) < 100 else "model"
    path = below(results, pins.FOLDER, f"{files.digest(address)[:8]}-{name}")
    with locks.held(path.with_name(f"{path.name}.lock"), "a download", report):
        _Download(address, path, report).run()
        try:
            pins.check(address, digest_of(path).digest, results)
            yield path
        except StorageError:
            path.unlink(missing_ok=True)
            raise
        path.unlink(missing_ok=True)


def _check_scheme(address: str, before: str = "") -> None:
    """Raise UsageError where an address is not of the web, or leads from https to http."""
    scheme = urlsplit(address).scheme
    if scheme not in {"http", "https"} or (scheme == "http" and before.startswith("https:")):
        sent = f", to which {shown(before)} leads," if before else ""
        raise UsageError(
            f"{shown(address)}{sent} is not downloaded from. Allowed are addresses that begin "
            "with https://, or with http:// from the start. Nothing was written."
        )


class _Download:
    """One file on its way: `path.part` while it is not whole, `path.json` says of what."""

    def __init__(self, address: str, path: Path, report: Reporter) -> None:
        self._address, self._path, self._report = address, path, report
        self._part = path.with_name(f"{path.name}.part")
        self._note = path.with_name(f"{path.name}.json")

    def run(self) -> None:
        """Bring the file, with repetitions."""
        if self._path.is_file():
            return
        failures, most = 0, self._size()
        with requests.Session() as session:
            for _ in range(_ALL_TRIES):
                try:
                    self._try(session)
                except _BrokenError as error:
                    # only what was never here before is progress
                    failures = 1 if self._size() > most else failures + 1
                    most = max(most, self._size())
                    hopeless = isinstance(error, _UnreachableError) and not most
                    tries = _TRIES_UNREACHABLE if hopeless else _TRIES
                    if failures > tries:
                        raise self._given_up(error) from error
                    self._wait(error, failures, tries)
                except OSError as error:
                    raise StorageError(
                        f"{self._part} cannot be written: {error}. Free some space, then run the "
                        "command again: it goes on where it stopped."
                    ) from error
                else:
                    self._part.replace(self._path)
                    self._note.unlink(missing_ok=True)
                    return
        raise self._given_up("the connection breaks again and again")

    def _wait(self, why: object, failures: int, tries: int) -> None:
        pause = _PAUSE * 2 ** (failures - 1)
        self._report.message(
            f"{shown(self._address)}: {why}; trying again in {pause:.0f} s ({failures} of {tries})"
        )
        time.sleep(pause)

    def _given_up(self, why: object) -> NnunetError:
        if isinstance(why, _UnreachableError) and not self._size():
            return NnunetError(
                f"{shown(self._address)} cannot be downloaded: {why}. Nothing came. Check the "
                "address and the network of this machine, or download the file elsewhere and name "
                "it: nnunet models install, or import, FILE."
            )
        return NnunetError(
            f"{shown(self._address)} cannot be downloaded: {why}. {self._size() / _MB:.1f} MB are "
            f"kept in {self._part}. Run the command again later: it goes on from there."
        )

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.is_file() else 0

    def _try(self, session: requests.Session) -> None:
        """Ask for what is missing, and append it.

        Raises:
            _BrokenError: The connection or the server failed; what came is kept.
        """
        begun = self._begun()
        headers = {"Accept-Encoding": "identity"}  # bytes as they are, so that they can be counted
        if begun is not None and self._size():
            headers["Range"] = f"bytes={self._size()}-"
            if begun.validator:
                headers["If-Range"] = begun.validator
        try:
            with self._opened(session, headers) as response:
                self._receive(response, begun)
        except (RequestException, HTTPError) as error:
            cause = _cause(error)
            if isinstance(cause, ConnectionRefusedError | socket.gaierror):
                raise _UnreachableError(f"no server answers there: {_words(cause)}") from error
            raise _BrokenError(f"the connection broke: {_words(cause)}") from error

    def _begun(self) -> _Begun | None:
        """Return what is known of the part that is here; None where it cannot be gone on with."""
        with contextlib.suppress(StorageError):
            begun = _Begun.read(self._note)
            if begun.address == shown(self._address) and (begun.validator or begun.size):
                return begun
        return None

    def _opened(self, session: requests.Session, headers: dict[str, str]) -> requests.Response:
        """Follow redirects, each of which is checked."""
        address = self._address
        for _ in range(_REDIRECTS):
            try:
                response = session.get(
                    address, headers=headers, stream=True, allow_redirects=False, timeout=_WAIT
                )
            except (InvalidURL, InvalidSchema, MissingSchema) as error:
                raise UsageError(f"{shown(address)} is no address: {error}") from error
            if not response.is_redirect:
                return response
            response.close()
            before, address = address, urljoin(address, response.headers["Location"])
            _check_scheme(address, before)
        raise NnunetError(f"{shown(self._address)} leads from address to address without an end.")

    def _receive(self, response: requests.Response, begun: _Begun | None) -> None:
        status, here = response.status_code, self._size()
        first, total = _range_of(response)
        if status == 206 and begun is not None and first == here and total == begun.size:
            self._append(response, "ab", begun)
            return
        if status == 416 and begun is not None and total == here == begun.size:
            return  # nothing is missing
        if status in {206, 416}:
            self._part.unlink(missing_ok=True)
            raise _BrokenError("the server sends another part than it was asked for")
        if status in _LATER:
            raise _BrokenError(f"the server answers {status} {response.reason}")
        if status != 200:
            raise NnunetError(
                f"{shown(self._address)} answers {status} {response.reason}: there is no such file "
                "for you. Look at the page that published it for its address now, download it with "
                "a browser, and name the file: nnunet models install, or import, FILE."
            )
        length = response.headers.get("Content-Length", "")
        size = int(length) if length.isdigit() else None
        etag = response.headers.get("ETag", "")
        # a weak one (W/) does not promise equal bytes
        strong = etag if etag.startswith('"') else ""
        validator = strong or response.headers.get("Last-Modified", "")
        begun = _Begun(address=shown(self._address), validator=validator, size=size)
        self._part.parent.mkdir(parents=True, exist_ok=True)
        begun.write(self._note)
        self._append(response, "wb", begun)  # also where a range was asked for and ignored

    def _append(self, response: requests.Response, mode: str, begun: _Begun) -> None:
        here = self._size() if mode == "ab" else 0
        self._check_room(begun.size, here)
        total = math.ceil((begun.size or 0) / _MB)
        title = f"download {self._path.name.partition('-')[2]}, MB"
        with (
            self._part.open(mode) as file,
            self._report.track(title, total, here // _MB) as tracker,
        ):
            for block in response.raw.stream(_BLOCK, decode_content=False):
                if here == 0:
                    self._check_start(response, block)
                file.write(block)
                tracker.advance((here + len(block)) // _MB - here // _MB)
                here += len(block)
                self._check_room(None, here)
        if begun.size is not None and here < begun.size:
            raise _BrokenError(f"it ended after {here} of {begun.size} bytes")

    def _check_room(self, size: int | None, here: int) -> None:
        most = Limits().size
        if max(size or 0, here) > most:
            self._part.unlink(missing_ok=True)
            raise NnunetError(
                f"{shown(self._address)} sends more than {most} bytes. No model is like that."
            )

    def _check_start(self, response: requests.Response, block: bytes) -> None:
        """Stop before gigabytes of something else, a page that asks to log in for instance."""
        if not block.startswith(_STARTS):
            self._part.unlink(missing_ok=True)
            kind = response.headers.get("Content-Type", "something unnamed")
            raise NnunetError(
                f"{shown(self._address)} answers with {kind}, not with a zip or tar.gz. Open it "
                "in a browser: it may be a page that leads to the file, or asks you to log in."
            )


def _range_of(response: requests.Response) -> tuple[int | None, int | None]:
    """Return the first byte and the size of the whole file of an answer, None where not given."""
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    first, total = found.groups() if found else (None, None)
    return (
        int(first) if first is not None else None,
        int(total) if total not in {None, "*"} else None,
    )


def _cause(error: BaseException) -> BaseException:
    """Return the innermost reason of a broken connection."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]
