"""Video files: the only place that reads and writes them, through PyAV (FFmpeg). Cameras are OpenCV's (sources.py).

OpenCV stops at the first run of damaged packets and its frame count is often wrong (edit lists, interlaced streams, AVI), so that
it cannot be told what was lost.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

import numpy as np

from hmr_ros.io.report import ReadReport, printable

DEFAULT_RATE = 25.0  # Hz, where a container names none that can be
_FASTEST = 240.0
_OVERHANG = 0.75  # of the longest step between frames: a container that promises more time than that after its last frame was cut
_GAP = 1.6  # of the usual step between frames
_BITS_PER_PIXEL = 0.25  # of overlays that are written


class VideoFrame(NamedTuple):
    """``index`` counts the frames that could be decoded; ``time`` seconds since the first; ``picture`` uint8 (H, W, 3) BGR, upright."""

    index: int
    time: float
    picture: np.ndarray


class VideoFile:
    """A video by its path. ValueError where it holds no video stream that FFmpeg knows.

    ``rate`` in Hz; ``length`` what the container says, for progress bars only, None where it says nothing.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with self._open() as (container, stream):
            rate = float(stream.guessed_rate or stream.average_rate or 0)
            self.rate = rate if 0 < rate <= _FASTEST else DEFAULT_RATE
            seconds = _promised_seconds(stream)
            self.length = stream.frames or (round(seconds * self.rate) if seconds else None)

    def frames(self, report: ReadReport | None = None) -> Iterator[VideoFrame]:
        """All frames that can be decoded, in order. ``report`` is filled at the end, also when it is left early or fails half way."""
        from av.error import FFmpegError

        convert = self.converter()
        for index, (time, frame) in enumerate(self.decoded(report or ReadReport("frames"))):
            try:
                picture = convert(frame)
            except (FFmpegError, OSError, ValueError, MemoryError) as error:
                raise ValueError(f"{printable(self.path)}: frame {index} of {frame.width}x{frame.height} {frame.format.name} cannot be "
                                 f"converted ({error})") from error  # fmt: skip
            yield VideoFrame(index, time, picture)

    def decoded_from(self, pts: int) -> Iterator:
        """av.VideoFrames from the one with this stamp on, found by seeking; none where it is not found."""
        from av.error import FFmpegError

        with self._open() as (container, stream):
            stream.thread_type, found = "AUTO", False
            try:
                container.seek(pts, stream=stream)
                for packet in container.demux(stream):
                    try:
                        frames = packet.decode()
                    except FFmpegError:
                        continue
                    for frame in frames:
                        found = found or frame.pts == pts
                        if found:
                            yield frame
                        elif frame.pts is None or frame.pts > pts:
                            return
            except FFmpegError:
                return  # as `decoded` ends there

    def converter(self) -> Callable[[object], np.ndarray]:
        """av.VideoFrame → uint8 (H, W, 3) BGR, upright. 16-bit grey is stretched by the bit depth of the whole video."""
        return _converter(self)

    def decoded(self, report: ReadReport) -> Iterator[tuple[float, object]]:
        """(seconds, av.VideoFrame); counts what the container holds and what the decoder makes of it."""
        import av

        packets = left_out = failures = read = damaged = 0
        first = end = None
        times: list[float] = []
        problem = ""
        report.promised, complete = None, False
        with self._open() as (container, stream):
            stream.thread_type = "AUTO"
            try:
                for packet in container.demux(stream):
                    packets += bool(packet.size)
                    left_out += bool(packet.size and packet.is_discard)  # by an edit list: they were never promised
                    if packet.pts is not None and packet.time_base is not None:
                        begin = float(packet.pts * packet.time_base)
                        stop = begin + float((packet.duration or 0) * packet.time_base)
                        end = stop if end is None else max(end, stop)
                    try:
                        frames = packet.decode()
                    except av.error.FFmpegError:
                        failures += 1
                        continue
                    for frame in frames:
                        time = frame.time if frame.time is not None else read / self.rate
                        first = time if first is None else first
                        times.append(time - first)
                        read, damaged = read + 1, damaged + bool(frame.is_corrupt)
                        report.read = read
                        yield times[-1], frame
                complete = True
            except av.error.FFmpegError as error:
                problem, complete = error.strerror or type(error).__name__, True
            finally:
                if complete:
                    steps = np.diff(times, prepend=-1 / self.rate)
                    cut = _missing(stream, end, max(steps.max(initial=0), 1 / self.rate))
                    whole = packets if _packets_are_frames(container, stream) else left_out + read + failures
                    counted = stream.frames if stream.guessed_rate == stream.average_rate else 0  # otherwise fields are counted
                    if cut or not _is_mp4(container):  # the edit list of a whole mp4 may leave counted frames out
                        cut = max(counted - whole, cut)
                    known = stream.frames or _promised_seconds(stream) is not None or failures or problem
                    if not stream.frames and read and steps.max() > _GAP * np.median(steps):  # a hole, or frames at no fixed rate
                        report.note(f"{printable(self.path.name)}: no frame in the {steps.max():.2f} s before {times[steps.argmax()]:.2f} s")
                        known = known and (cut or failures or problem)
                    report.promised = max(whole - left_out + cut, read) if known else None
                    if problem:
                        report.skip(self.path.name, f"reading ended early: {problem}")
                    report.damaged = damaged
                else:
                    report.promised = read  # the caller wanted no more
        if not read:
            raise ValueError(f"{printable(self.path)} is not a readable video: no frame could be decoded; copy or record it again")

    @contextmanager
    def _open(self):
        import av

        av.logging.set_level(None)  # damage makes FFmpeg write thousands of lines; ReadReport says what matters
        with open(self.path, "rb") as file:  # by file object: the name may not be UTF-8
            try:
                container = av.open(file, mode="r")
            except (av.error.FFmpegError, ValueError, UnicodeDecodeError) as error:
                raise ValueError(f"{printable(self.path)} cannot be opened, expected a video that FFmpeg can read "
                                 f"({getattr(error, 'strerror', None) or error}); copy or record it again") from error  # fmt: skip
            with container:
                if not container.streams.video or container.streams.video[0].codec_context is None:
                    raise ValueError(f"{printable(self.path)} has no video stream that FFmpeg can decode, expected a video")
                yield container, container.streams.video[0]


def _promised_seconds(stream) -> float | None:
    """How long the container says this stream is: its own duration (mp4), or Matroska's tag. Not the estimate from a file's end."""
    if stream.duration and stream.time_base and (stream.frames or _is_mp4(stream.container)):
        return float(stream.duration * stream.time_base)
    tag = stream.metadata.get("DURATION", "")
    try:
        hours, minutes, seconds = tag.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return None


def _is_mp4(container) -> bool:
    return "mp4" in container.format.name


def _packets_are_frames(container, stream) -> bool:
    """Not so in AVI (packed MPEG-4) and transport streams (fields), nor of codecs whose reference frames are not shown."""
    return _is_mp4(container) or ("matroska" in container.format.name and stream.codec_context.name not in ("vp8", "vp9", "av1"))


def _missing(stream, end: float | None, step: float) -> int:
    """How many frames the container names beyond its last packet; 0 where that reaches the promised end, or none is named."""
    seconds = _promised_seconds(stream)
    if seconds is None or end is None:
        return 0
    start = float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0
    overhang = seconds + start - end
    if overhang <= _OVERHANG * step:
        return 0
    return max(round(overhang * float(stream.guessed_rate or 1 / step)), 1)


def _converter(video: VideoFile):
    from av.video.reformatter import VideoReformatter

    from hmr_ros.io.decode import bit_depth_of, to_8bit

    reformatter, depth = VideoReformatter(), None

    def convert(frame) -> np.ndarray:
        nonlocal depth
        if frame.format.name in ("gray16le", "gray16be"):
            if depth is None:
                depth = max(bit_depth_of(f.to_ndarray(format="gray16le")) for _, f in video.decoded(ReadReport("frames")))
            picture = np.repeat(to_8bit(frame.to_ndarray(format="gray16le"), depth)[..., None], 3, axis=2)
        else:
            bgr = reformatter.reformat(frame, format="bgr24", interpolation="BICUBIC")
            plane = bgr.planes[0]
            rows = np.frombuffer(plane, np.uint8).reshape(bgr.height, plane.line_size)[:, : 3 * bgr.width]
            picture = np.ascontiguousarray(rows).reshape(bgr.height, bgr.width, 3)
        turns = round((frame.rotation or 0) / 90) % 4
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture

    return convert


class VideoWriter:
    """An mp4 of pictures uint8 (H, W, 3) BGR of one size, MPEG-4 part 2, at ``rate`` Hz. Use it as a context."""

    def __init__(self, path: str | Path, rate: float):
        self._path, self._rate = Path(path), rate
        self._file = self._container = self._stream = None

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, picture: np.ndarray) -> None:
        import av

        height, width = picture.shape[:2]
        if self._container is None:
            from fractions import Fraction

            self._file = open(self._path, "wb")
            self._container = av.open(self._file, mode="w", format="mp4")
            rate = Fraction(self._rate).limit_denominator(1000)
            self._stream = self._container.add_stream("mpeg4", rate=rate)
            self._stream.width, self._stream.height = width - width % 2, height - height % 2
            self._stream.pix_fmt = "yuv420p"
            self._stream.bit_rate = int(_BITS_PER_PIXEL * width * height * self._rate)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[: self._stream.height, : self._stream.width]), format="bgr24")
        self._container.mux(self._stream.encode(frame))

    def __exit__(self, kind, *_) -> None:
        if self._container is None:
            return
        try:
            if kind is None:
                self._container.mux(self._stream.encode())
            self._container.close()
        finally:
            self._file.close()
