"""Small video files, encoded here by PyAV without loss unless said."""

import av
import numpy as np


def write(file, frames, *, codec="ffv1", pixels=None, rate=25):
    """Frames uint8 [T, H, W, C], grey or RGB."""
    grey = frames.shape[-1] == 1
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels or ("gray" if grey else "bgr0")
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(frame[..., 0] if grey else frame), "gray" if grey else "rgb24"
            )
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def flat(levels, height=12, width=16):
    """A clip whose frames have one grey level each."""
    return np.broadcast_to(np.asarray(levels, np.uint8)[:, None, None, None], (len(levels), height, width, 1))


def noise(frames, height=12, width=16, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, channels), np.uint8)
