"""An RTSP server for tests, which sends a WAV file as uncompressed samples (L16): GStreamer's, in Debian's Python."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from peers import answers, free_port, wait_for

#: the packages of Debian are made for this one
_PYTHON = "/usr/bin/python3"
_IMPORTS = """
import gi, sys
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
if not all(map(Gst.ElementFactory.find, ("filesrc", "wavparse", "audioconvert", "rtpL16pay"))):
    sys.exit(1)
"""
_SERVE = """
server = GstRtspServer.RTSPServer(service=sys.argv[1], address="127.0.0.1")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(f"( filesrc location={sys.argv[2]} ! wavparse ! audioconvert ! rtpL16pay name=pay0 pt=96 )")
server.get_mount_points().add_factory("/machine", factory)
server.attach(None)
GLib.MainLoop().run()
"""


@cache
def rtsp_possible() -> bool:
    """Whether this machine has GStreamer's RTSP server, its elements, and their bindings."""
    if not Path(_PYTHON).exists():
        return False
    return subprocess.run([_PYTHON, "-c", _IMPORTS], capture_output=True, check=False).returncode == 0


@contextmanager
def rtsp_server(sound: Path) -> Iterator[str]:
    """Address at which the file is played to each that comes, from its beginning, as fast as it sounds."""
    port = free_port()
    server = subprocess.Popen([_PYTHON, "-c", _IMPORTS + _SERVE, str(port), str(sound)], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(port))
        yield f"rtsp://127.0.0.1:{port}/machine"
    finally:
        server.kill()
        server.wait()
