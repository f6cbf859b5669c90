"""Downloads go on where they broke off, and each thing that a server does wrong is one message."""

import io
import json
import socket
import zipfile

import pytest
from commands import nnunet
from finished_run import one_error
from small_training import Told
from trained_model import make_trained
from web_server import honest, serving

from nnunet_builtin.sharing import downloading, pins
from nnunet_builtin.sharing.downloading import downloaded
from nnunet_builtin.sharing.export import export
from nnunet_builtin.sharing.manifest import digest_of
from nnunet_core.errors import NnunetError, StorageError, UsageError

SIZE = 300_000


def make_zip(size=SIZE):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        file.writestr("a", bytes(range(250)) * (size // 250))
    return held.getvalue()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(downloading, "_PAUSE", 0)
    monkeypatch.setattr(downloading, "_WAIT", (5, 2))


@pytest.fixture
def server():
    with serving(make_zip()) as found:
        yield found


def take(server, folder, path="/models/a.zip"):
    with downloaded(server.url(path), folder, Told()) as archive:
        content = archive.read_bytes()
    assert [p.name for p in (folder / "downloads").iterdir() if p.suffix != ".lock"] == []
    return content


def starts(server):
    return [int(h.get("Range", "bytes=0-")[6:-1]) for h in server.asked]


def test_a_file_is_brought_whole(server, tmp_path):
    assert take(server, tmp_path) == server.content
    assert len(server.asked) == 1


def test_broken_connections_are_resumed_where_they_broke(server, tmp_path):
    def breaking(handler, number, start):
        honest(handler, number, start, stop=100_000 if number < 3 else None)

    server.answer = breaking
    assert take(server, tmp_path) == server.content
    assert starts(server) == [0, 100_000, 200_000]
    assert server.asked[1]["If-Range"] == '"1"'


def test_a_later_command_goes_on(server, tmp_path):
    server.answer = lambda h, n, s: honest(h, n, s, stop=50_000) if n == 1 else h.reply(503)
    with pytest.raises(NnunetError, match="it goes on from there"):
        take(server, tmp_path)
    server.answer, before = honest, len(server.asked)
    assert take(server, tmp_path) == server.content
    assert starts(server)[before:] == [50_000]


def test_a_file_that_changed_meanwhile_is_taken_anew(server, tmp_path):
    def changing(handler, number, start):
        if number == 2:
            server.etag, server.content = '"2"', make_zip(200_000)
        honest(handler, number, start, stop=50_000 if number == 1 else None)

    server.answer = changing
    assert take(server, tmp_path) == make_zip(200_000)


def without_validator(handler, number, start):
    owner = handler.server.owner
    part = owner.content[start:]
    if start:
        place = f"bytes {start}-{len(owner.content) - 1}/{len(owner.content)}"
        handler.reply(206, part, Content_Length=len(part), Content_Range=place)
    else:
        if number > 1:
            owner.asked.append({"Range": "bytes=0-"})
        handler.reply(200, part[:1000], Content_Length=len(part))


def ignores_ranges(handler, number, _):
    owner = handler.server.owner
    body = owner.content[:1000] if number == 1 else owner.content
    handler.reply(200, body, Content_Length=len(owner.content), ETag=owner.etag)


def sends_another_part(handler, number, start):
    if number == 2:
        start = 0
        length = len(handler.server.owner.content)
        place = f"bytes 0-{length - 1}/{length}"
        handler.reply(206, handler.server.owner.content, Content_Range=place)
        return
    honest(handler, number, start, stop=1000 if number == 1 else None)


def says_another_size(handler, number, start):
    if number == 2:
        place = f"bytes {start}-{start + 9}/{start + 10}"
        handler.reply(206, b"0123456789", Content_Range=place, Content_Length=10)
        return
    honest(handler, number, start, stop=1000 if number == 1 else None)


def is_busy_first(handler, number, start):
    if number < 4:
        handler.reply({1: 503, 2: 429, 3: 500}[number], b"later")
        return
    honest(handler, number, start)


def sends_chunks(handler, *_):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    content = handler.server.owner.content
    for at in range(0, len(content), 70_000):
        part = content[at : at + 70_000]
        handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


def packs_what_it_sends(handler, *_):
    content = handler.server.owner.content
    handler.reply(200, content, Content_Length=len(content), Content_Encoding="gzip")


def leads_elsewhere(handler, number, start):
    if "moved" not in handler.path:
        handler.reply(302, b"", Location="/moved/a.zip?token=1", Content_Length=0)
        return
    honest(handler, number, start)


ODD = (
    *(without_validator, ignores_ranges, sends_another_part, says_another_size, is_busy_first),
    *(sends_chunks, packs_what_it_sends, leads_elsewhere),
)


@pytest.mark.parametrize("answer", ODD, ids=lambda answer: answer.__name__)
def test_odd_servers_are_borne(server, tmp_path, answer):
    server.answer = answer
    assert take(server, tmp_path) == server.content


def promises_more(handler, number, start):
    honest(handler, number, start, Content_Length=SIZE * 2, ETag="")


def page(handler, *_):
    handler.reply(200, b"<html>log in</html>", Content_Type="text/html", Content_Length=19)


def leads_to_file(handler, *_):
    handler.reply(302, b"", Location="file:///etc/passwd", Content_Length=0)


def leads_in_circles(handler, *_):
    handler.reply(301, b"", Location="/models/a.zip", Content_Length=0)


BAD = {
    "404": (lambda h, *_: h.reply(404, b"no", Content_Length=2), NnunetError, "404"),
    "403": (lambda h, *_: h.reply(403, b"no", Content_Length=2), NnunetError, "browser"),
    "always 503": (lambda h, *_: h.reply(503, b"", Content_Length=0), NnunetError, "503"),
    "page": (page, NnunetError, "text/html"),
    "to a file": (leads_to_file, UsageError, "file:///etc/passwd, to which .* leads"),
    "in circles": (leads_in_circles, NnunetError, "without an end"),
    "promises more": (promises_more, NnunetError, "Run the command again"),
    "always breaks": (lambda h, n, s: honest(h, n, s, stop=0), NnunetError, "again"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_servers_are_one_message(server, tmp_path, kind):
    server.answer, error, reason = BAD[kind]
    with pytest.raises(error, match=reason):
        take(server, tmp_path)
    assert not list(tmp_path.rglob("*.zip"))
    assert len(server.asked) < 30


def test_a_length_that_is_too_small_leaves_nothing(server, tmp_path):
    server.answer = lambda h, *_: h.reply(200, server.content, Content_Length=1000)
    done = nnunet("models", "install", server.url(), "--workspace", tmp_path)
    assert "damaged" in one_error(done)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_nothing_listens(tmp_path):
    with serving(b"") as gone:
        pass
    with pytest.raises(NnunetError, match="cannot be downloaded"):
        take(gone, tmp_path)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://x/a.zip", "C:/a.zip", "s3://x/a"])
def test_other_addresses_are_wrong_usage(tmp_path, address):
    with pytest.raises(UsageError, match="https://"), downloaded(address, tmp_path, Told()):
        pass


def test_a_download_never_leads_from_https_to_http():
    with pytest.raises(UsageError, match="leads"):
        downloading._check_scheme("http://b/a.zip", "https://a/a.zip")
    downloading._check_scheme("https://b/a.zip", "http://a/a.zip")


def test_names_in_an_address_cannot_lead_elsewhere(server, tmp_path):
    for path in ("/..%2F..%2Fevil.zip", "/%2e%2e", "/", "/a%00b.zip", f"/{'x' * 300}"):
        assert take(server, tmp_path / "ws", path) == server.content
    assert [p.name for p in tmp_path.iterdir()] == ["ws"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    model = make_trained(folder / "results", folds=("0",))
    first = export(model, folder / "a.zip", licence="one").file.read_bytes()
    return first, export(model, folder / "b.zip", licence="two").file.read_bytes()


def test_an_address_is_installed_and_its_digest_pinned(server, exported, tmp_path):
    server.content, other = exported
    command = ("models", "install", server.url(), "--workspace", tmp_path)
    done = nnunet(*command)
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "results" / "downloads" / "pins.json").read_text())
    pin = kept["files"][server.url()]
    assert pin["digest"] == digest_of(exported[0]).digest
    assert pins.models_of(server.url(), tmp_path / "results") == tuple(pin["models"]) != ()
    assert nnunet(*command).returncode == 0
    server.content = other
    message = one_error(nnunet(*command, "--overwrite"))
    assert digest_of(exported[0]).digest in message
    assert "pins.json" in message
    assert one_error(nnunet(*command, "--overwrite", "--digest", "0" * 64))


def test_passwords_in_addresses_are_not_shown(server, exported, tmp_path):
    server.content = exported[0]
    address = server.url().replace("http://", "http://ann:secret@")
    assert nnunet("models", "install", address, "--workspace", tmp_path).returncode == 0
    assert "secret" not in (tmp_path / "results" / "downloads" / "pins.json").read_text()
    server.answer = lambda h, *_: h.reply(404)
    assert "secret" not in one_error(nnunet("models", "install", address, "--workspace", tmp_path))


def test_a_full_disk_is_said(server, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloading._Begun, "write", full)
    with pytest.raises(StorageError, match="Free some space"):
        take(server, tmp_path)


def test_an_address_where_no_server_is_fails_soon_and_says_each_try(tmp_path, monkeypatch):
    slept, messages, told = [], [], Told()
    monkeypatch.setattr(told, "message", messages.append)
    monkeypatch.setattr(downloading, "_PAUSE", 1)
    monkeypatch.setattr(downloading.time, "sleep", slept.append)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # nobody listens
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/a.zip"
        with (
            pytest.raises(NnunetError, match=r"no server answers there.* Nothing came"),
            downloaded(address, tmp_path, told),
        ):
            pass
    assert slept == [1, 2]
    tries = [line for line in messages if "trying again in" in line]
    assert [line[-8:] for line in tries] == ["(1 of 2)", "(2 of 2)"]
