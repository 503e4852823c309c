"""Sound over HTTP and RTSP, heard as `harken score` hears the file."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import harken
from harken.service.feed import Feed
from harken.service.tap import Tap
from listening import RATE, detector_in, heard_of, humming, scores_of_files, write
from rtsp_server import rtsp_possible, rtsp_server

pytest.importorskip("av", reason="PyAV is not installed (harken[stream])")
from harken.service.sources.stream import StreamSource


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> harken.Detector:
    return detector_in(tmp_path_factory.mktemp("normal"))


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """(address, contents by path) of a server; content None: it answers, and then says nothing."""
    contents: dict[str, bytes | None] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in contents:
                self.send_error(404)
                return
            data = contents[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 20 if data is None else len(data)))
            self.end_headers()
            if data is None:
                time.sleep(3)
                return
            for start in range(0, len(data), 9_999):
                self.wfile.write(data[start : start + 9_999])

        def log_message(self, *arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}", contents
    http.shutdown()
    http.server_close()


@pytest.mark.parametrize(("suffix", "subtype"), [("wav", "PCM_16"), ("flac", "PCM_16"), ("flac", "PCM_24")])
def test_a_stream_is_scored_as_files_are(
    suffix: str, subtype: str, detector: harken.Detector, server: tuple[str, dict[str, bytes | None]], tmp_path: Path
) -> None:
    address, contents = server
    sound = humming(4.5)
    sf.write(tmp_path / f"sound.{suffix}", sound, RATE, subtype=subtype)
    contents["/machine"] = (tmp_path / f"sound.{suffix}").read_bytes()
    (tmp_path / "files").mkdir()
    scores = scores_of_files(detector, sound, tmp_path / "files")
    heard = heard_of(StreamSource(f"{address}/machine", endless=False), detector)
    assert [one.verdict.score for one in heard] == scores


def test_rtsp_is_scored_as_files_are(detector: harken.Detector, tmp_path: Path) -> None:
    """As a camera sends it: live, packets of RTP through the connection of RTSP, a session that is torn down."""
    if not rtsp_possible():
        pytest.skip("GStreamer's RTSP server is not on this machine")
    sound = humming(2.5)
    write(tmp_path / "sound.wav", sound)
    (tmp_path / "files").mkdir()
    scores = scores_of_files(detector, sound, tmp_path / "files")
    with rtsp_server(tmp_path / "sound.wav") as address:
        heard = heard_of(StreamSource(address, patience_s=5.0), detector, len(scores))
        assert [one.verdict.score for one in heard] == scores
        assert [one.window.position for one in heard] == [0, RATE]
        # It is there for the next one, from the beginning.
        (again,) = heard_of(StreamSource(address, patience_s=5.0), detector, 1)
        assert again.verdict.score == scores[0]


def test_a_stream_of_a_higher_rate_and_more_channels(
    detector: harken.Detector, server: tuple[str, dict[str, bytes | None]], tmp_path: Path
) -> None:
    """Each window gets the score of a file of its samples at the stream's rate: no filter runs on across windows."""
    address, contents = server
    rng = np.random.default_rng(5)
    sound_SC = np.rint(rng.uniform(-0.3, 0.3, (44_100 * 2, 4)) * 2**15) / 2**15
    sf.write(tmp_path / "sound.wav", sound_SC, 44_100, subtype="PCM_16")
    contents["/machine"] = (tmp_path / "sound.wav").read_bytes()
    for second in range(2):
        part_S = sound_SC[second * 44_100 : (second + 1) * 44_100, 2]
        sf.write(tmp_path / f"{second}.wav", part_S, 44_100, subtype="PCM_16")
    expected = [verdict.score for verdict in detector.score_many([tmp_path / "0.wav", tmp_path / "1.wav"], workers=0)]
    source = StreamSource(f"{address}/machine", endless=False)
    heard = heard_of(source, detector, channels=[2])
    assert [one.verdict.score for one in heard] == expected
    assert (source.form.sample_rate, source.form.channels) == (44_100, 4)


def test_a_stream_that_cannot_be_reached_is_tried_again(server: tuple[str, dict[str, bytes | None]]) -> None:
    address, contents = server
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://user:secret@127.0.0.1:{unused.getsockname()[1]}/x?token=secret"
        errors = {
            closed: "cannot be opened (Connection refused)",
            f"{address}/missing": "404",
            f"{address}/page": "cannot be opened",
            f"{address}/hangs": "nothing came for 0.5 s",
        }
        contents["/page"], contents["/hangs"] = b"<html>no sound</html>", None
        for url, expected in errors.items():
            feed = Feed(StreamSource(url, patience_s=0.5), [Tap("pump", 1.0)], soonest_s=0.02)
            feed.start()
            until = time.monotonic() + 60
            while feed.status().restarts < 1 and time.monotonic() < until:
                time.sleep(0.02)
            feed.stop()
            assert expected in feed.status().error
            assert "secret" not in str(feed.status())


def test_a_playlist_leads_to_no_files_of_this_computer(
    server: tuple[str, dict[str, bytes | None]], tmp_path: Path
) -> None:
    address, contents = server
    sf.write(tmp_path / "own.wav", humming(1.0), RATE)
    contents["/list.m3u8"] = (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\nfile://{tmp_path}/own.wav\n#EXT-X-ENDLIST\n".encode()
    )
    feed = Feed(StreamSource(f"{address}/list.m3u8", patience_s=1.0), [tap := Tap("pump", 0.5)], soonest_s=0.02)
    feed.start()
    assert tap.get(1.0) is None
    feed.stop()
    assert feed.status().last_sound is None
