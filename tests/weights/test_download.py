"""Downloads against a real local server: complete, interrupted, wrong, absent."""
from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from saccade.errors import StorageError
from saccade.weights import download
from saccade.weights.download import cache_folder, fetch

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT; the first `cuts` answers break off after 300 000 bytes; without `ranges` a range request gets the whole file."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts, self.ranges, self.requests = 0, True, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/model.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append(asked)
        if self.path != "/model.pth":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        body = CONTENT[start:]
        if self.server.cuts > 0:
            self.server.cuts -= 1
            body = body[:300_000]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    running = Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


def leftovers() -> list[str]:
    return sorted(p.name for p in (cache_folder() / "lufficc").iterdir() if p.suffix not in (".lock", ".sha256"))


def test_a_download_is_checked_and_kept(server: Server) -> None:
    path = fetch(server.url, "lufficc/model.pth", DIGEST[:8])
    assert path == cache_folder() / "lufficc" / "model.pth" and path.read_bytes() == CONTENT
    assert fetch(server.url, "lufficc/model.pth", DIGEST[:8]) == path and len(server.requests) == 1
    assert leftovers() == ["model.pth"]


def test_an_interrupted_download_is_continued_where_it_stopped(server: Server) -> None:
    server.cuts = 2
    assert fetch(server.url, "lufficc/model.pth", DIGEST[:8]).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-", "bytes=600000-"]


def test_a_later_call_continues_what_an_earlier_one_left(server: Server) -> None:
    server.cuts = 99
    with pytest.raises(StorageError, match="of 1024000 bytes"):
        fetch(server.url, "lufficc/model.pth", DIGEST[:8], attempts=1)
    assert leftovers() == ["model.pth.part"]
    server.cuts = 0
    assert fetch(server.url, "lufficc/model.pth", DIGEST[:8]).read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=300000-"


def test_a_server_without_ranges_sends_the_file_from_its_start(server: Server) -> None:
    server.cuts, server.ranges = 1, False
    assert fetch(server.url, "lufficc/model.pth", DIGEST[:8]).read_bytes() == CONTENT


def test_a_complete_part_is_taken_as_it_is(server: Server) -> None:
    part = cache_folder() / "lufficc" / "model.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert fetch(server.url, "lufficc/model.pth", DIGEST[:8]).read_bytes() == CONTENT and server.requests == ["bytes=1024000-"]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server: Server) -> None:
    part = cache_folder() / "lufficc" / "model.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT + b"more")
    assert fetch(server.url, "lufficc/model.pth", DIGEST[:8]).read_bytes() == CONTENT


def test_a_wrong_checksum_discards_the_file(server: Server) -> None:
    with pytest.raises(StorageError, match="expected deadbeef") as caught:
        fetch(server.url, "lufficc/model.pth", "deadbeef")
    assert server.url in str(caught.value) and leftovers() == []


def test_without_a_known_checksum_the_length_is_checked(server: Server) -> None:
    server.cuts = 99
    with pytest.raises(StorageError, match=r"ended after|bytes"):
        fetch(server.url, "lufficc/model.pth", None, attempts=2)


def test_a_file_placed_by_hand_is_checked_and_used_without_network(server: Server) -> None:
    target = cache_folder() / "lufficc" / "model.pth"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"something else")
    with pytest.raises(StorageError, match="not the expected file"):
        fetch(server.url, "lufficc/model.pth", DIGEST[:8])
    target.write_bytes(CONTENT)
    assert fetch(server.url, "lufficc/model.pth", DIGEST[:8]) == target and server.requests == []


def test_no_network_names_the_url_and_the_place_for_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path))
    url = "http://127.0.0.1:9/model.pth"  # the discard port: nobody listens
    with pytest.raises(StorageError) as caught:
        fetch(url, "lufficc/model.pth", "0123abcd")
    message = str(caught.value)
    assert url in message and str(tmp_path / "lufficc" / "model.pth") in message and "0123abcd" in message


def test_a_file_that_is_not_there_is_not_asked_for_again(server: Server) -> None:
    with pytest.raises(StorageError, match="Not Found"):
        fetch(server.url.replace("model", "other"), "lufficc/other.pth", None)
    assert len(server.requests) == 1


def test_two_at_once_download_once(server: Server) -> None:
    threads = [threading.Thread(target=fetch, args=(server.url, "lufficc/model.pth", DIGEST[:8])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1 and leftovers() == ["model.pth"]


def test_an_unwritable_cache_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"Not a directory|exists"):
        fetch("http://127.0.0.1:9/model.pth", "lufficc/model.pth", None)


def test_the_cache_lies_in_the_home_folder_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SACCADE_CACHE", raising=False)
    assert download.cache_folder() == Path.home() / ".cache" / "saccade" / "weights"
