"""Operators of images and sounds, on files made here."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import zlib

import numpy as np
import pytest

from data.texts import make_batch
from sharpen.core.errors import ConfigError, DataError
from sharpen.data import Dataset, ops
from sharpen.data.ops.dedup.images import perceptual_hash
from sharpen.data.ops.media.audio import signal_to_noise
from sharpen.data.ops.media.base import read_file

Image = pytest.importorskip("PIL.Image")
soundfile = pytest.importorskip("soundfile")


def picture(width, height, seed=0):
    """A scene of soft spots: alike at every size, unlike for another seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    spots = rng.random((12, 3))
    values = sum(np.exp(-(((x - a) ** 2 + (y - b) ** 2) / (0.005 + 0.05 * c))) for a, b, c in spots)
    values = (255 * values / values.max()).astype(np.uint8)
    return Image.fromarray(np.stack([values] * 3, -1))


@pytest.fixture
def folder(tmp_path):
    picture(80, 40).save(tmp_path / "wide.png")
    picture(40, 40, 1).save(tmp_path / "square.png")
    picture(160, 80).save(tmp_path / "larger.jpg", quality=60)
    Image.new("RGB", (30, 30), (255, 255, 255)).save(tmp_path / "white.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "wide.png").read_bytes()[:60])
    return tmp_path


def kept(one, *rows):
    batch = make_batch([""] * len(rows), [{"images": row, "audios": row} for row in rows])
    found = one.measure(batch)
    return one.keep(found).tolist(), found, one


def test_shapes_of_any_or_all_images(folder):
    rows = (["wide.png"], ["square.png", "wide.png"], "square.png", [], None)
    some = ops.image_shape(folder=str(folder), min_width=50, max_height=60)
    fates, found, one = kept(some, *rows)
    assert fates == [True, True, False, True, True]
    assert found["width"][1] == [40, 80]
    assert one.miss(found, 2).threshold == "min=50"
    every = ops.image_shape(folder=str(folder), min_width=50, strategy="all")
    assert kept(every, *rows)[0] == [True, False, False, True, True]


def test_one_image_must_hold_all_bounds(folder):
    one = ops.image_shape(folder=str(folder), min_width=50, min_height=70)
    assert kept(one, ["wide.png", "square.png"], ["larger.jpg"])[0] == [False, True]


def test_sizes_ratios_and_light(folder):
    size = (folder / "wide.png").stat().st_size
    one = ops.image_size(folder=str(folder), min=size, max=size)
    assert kept(one, ["wide.png"], ["square.png"])[0] == [True, False]
    one = ops.image_aspect_ratio(folder=str(folder), max=1.5)
    fates, found, _ = kept(one, ["wide.png"], ["square.png"])
    assert fates == [False, True]
    assert [v[0] for v in found["image_aspect_ratio"]] == [2.0, 1.0]
    fates, found, one = kept(ops.image_light(folder=str(folder)), ["white.png"], ["wide.png"])
    assert fates == [False, True]
    gray = np.asarray(picture(80, 40).convert("L")) / 255
    assert found["brightness"][1] == [pytest.approx(gray.mean(), rel=1e-12)]
    assert found["contrast"][1] == [pytest.approx(gray.std(), rel=1e-12)]
    assert one.miss(found, 0).statistic == "brightness"


def test_sharpness_is_the_variance_of_the_laplacian(folder):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (9, 7), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    wanted = []
    for y in range(1, 8):
        for x in range(1, 6):
            around = [noise[y - 1, x], noise[y + 1, x], noise[y, x - 1], noise[y, x + 1]]
            wanted.append(sum(map(int, around)) - 4 * int(noise[y, x]))
    fates, found, _ = kept(ops.image_sharpness(folder=str(folder)), ["noise.png"], ["white.png"])
    assert found["image_sharpness"][0] == [pytest.approx(np.var(wanted), rel=1e-12)]
    assert fates == [True, False]


def test_a_classifier_is_code_of_the_user(folder):
    path = folder / "own.py"
    path.write_text("def score(image):\n    return image.width / 100\n")
    with pytest.raises(ConfigError, match="allow_code: true"):
        ops.image_classifier(path=str(path))
    one = ops.image_classifier(path=str(path), folder=str(folder), allow_code=True)
    fates, found, _ = kept(one, ["wide.png"], ["square.png"])
    assert fates == [False, True]
    assert found["image_classifier"][0] == [0.8]


def test_files_that_cannot_be_read_are_rows_that_fail(folder):
    rows = [["wide.png"], ["gone.png"], ["broken.png"], ["data:image/png;base64,@"], [3]]
    lines = [json.dumps({"text": str(i), "images": row}) for i, row in enumerate(rows)]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    data = Dataset.read(folder / "rows.jsonl").apply(ops.image_shape(folder=str(folder)))
    result = data.write(folder / "out", on_error="skip", trace=True)
    assert result.rows_out == 1
    reasons = [result.why(i)[0]["reason"] for i in range(1, 5)]
    assert "gone.png cannot be read: No such file" in reasons[0]
    assert "broken.png is no image that can be read" in reasons[1]
    assert "a data: address is damaged" in reasons[2]
    assert "must hold paths, not [3]" in reasons[3]
    with pytest.raises(DataError, match=r"row 1: DataError: gone\.png"):
        data.write(folder / "other")


def test_an_image_that_claims_to_be_huge_is_refused(folder):
    raw = bytearray((folder / "wide.png").read_bytes())
    raw[16:24] = struct.pack(">II", 30000, 30000)  # width and height, in the first chunk
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    (folder / "bomb.png").write_bytes(raw)
    with pytest.raises(DataError, match=r"bomb\.png is no image that can be read: .*exceeds limit"):
        kept(ops.image_shape(folder=str(folder)), ["bomb.png"])


def test_an_image_can_stand_in_the_row(folder):
    raw = (folder / "wide.png").read_bytes()
    address = "data:image/png;base64," + base64.b64encode(raw).decode()
    assert read_file(address, ".") == raw
    assert read_file("data:,a%20b", ".") == b"a b"
    assert kept(ops.image_shape(min_width=80, max_width=80), [address])[0] == [True]
    with pytest.raises(DataError, match="it has no comma"):
        read_file("data:image/png", ".")


@pytest.mark.parametrize("method", ["average", "difference", "dct"])
def test_images_that_look_alike_have_close_hashes(method):
    def bits(one, other):
        return (perceptual_hash(one, method) ^ perceptual_hash(other, method)).bit_count()

    for seed in range(5):
        one = picture(120, 90, seed)
        buffer = io.BytesIO()
        one.resize((77, 58)).save(buffer, "jpeg", quality=40)
        assert bits(one, Image.open(buffer)) <= 4
        assert bits(one, picture(120, 90, seed + 100)) > 8
    assert perceptual_hash(Image.new("L", (9, 9), 7), method) == 0


def test_the_hash_is_that_of_the_cosine_transform():
    from scipy.fft import dctn

    small = picture(64, 64, 3).convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    waves = dctn(np.asarray(small, np.float64), type=2)[:8, :8]
    bits = (waves > np.median(waves)).ravel()
    assert f"{perceptual_hash(picture(64, 64, 3)):064b}" == "".join(map(str, bits.astype(int)))


def test_copies_of_images_go(folder):
    rows = [
        *(["wide.png"], ["square.png"], ["larger.jpg"], ["white.png"], ["white.png"], []),
        *(["wide.png", "square.png"], ["wide.png", "square.png"], ["square.png", "wide.png"]),
    ]
    lines = [json.dumps({"text": str(i), "images": row}) for i, row in enumerate(rows)]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    data = Dataset.read(folder / "rows.jsonl").apply(ops.image_dedup(folder=str(folder)))
    result = data.write(folder / "out", trace=True)
    assert result.rows_out == 7
    assert result.why(2)[0]["kept_id"] == "0"
    assert result.why(7)[0]["kept_id"] == "6"


def test_sounds(tmp_path):
    rate = 8000
    rng = np.random.default_rng(0)
    noise = 0.01 * rng.standard_normal(2 * rate)
    tone = noise.copy()
    tone[rate // 2 : -rate // 2] += 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    for name, samples in (("noise.wav", noise), ("tone.flac", tone), ("none.wav", 0 * noise)):
        soundfile.write(tmp_path / name, samples, rate)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    where = str(tmp_path)
    fates, found, _ = kept(ops.audio_duration(folder=where, max=1.5), ["noise.wav"], [])
    assert fates == [False, True]
    assert found["audio_duration"][0] == [2.0]
    fates, found, _ = kept(ops.audio_snr(folder=where, min=10), ["noise.wav"], ["tone.flac"])
    assert fates == [False, True]
    # Half of the time a tone of power 1/8, over noise of power 1e-4.
    assert found["audio_snr"][1][0] == pytest.approx(10 * math.log10(0.125 / 2 / 1e-4), abs=1.5)
    assert kept(ops.audio_snr(folder=where), ["none.wav"])[1]["audio_snr"][0] == [-math.inf]
    size = (tmp_path / "noise.wav").stat().st_size
    assert kept(ops.audio_size(folder=where, max=size - 1), ["noise.wav"])[0] == [False]
    with pytest.raises(DataError, match=r"broken\.wav is no sound that can be read"):
        kept(ops.audio_duration(folder=where), ["broken.wav"])


def test_signal_to_noise_by_hand():
    samples = np.concatenate([np.full(200, 1.0), np.full(1800, 2.0)])
    # Frames of 200 samples, each 100 after the last: powers 1, 2.5 and 17 times 4.
    mean, quiet = (1 + 2.5 + 17 * 4) / 19, (1 + 2.5) / 2
    wanted = 10 * math.log10((mean - quiet) / quiet)
    assert signal_to_noise(samples, 8000) == pytest.approx(wanted, rel=1e-12)
    assert signal_to_noise(np.concatenate([np.zeros(800), np.ones(800)]), 8000) == math.inf
    assert signal_to_noise(np.zeros(0), 8000) == -math.inf


def test_wrong_arguments_are_refused():
    with pytest.raises(ConfigError, match="strategy='some' must be one of any, all"):
        ops.image_shape(strategy="some")
    with pytest.raises(ConfigError, match="audio_duration: min=3 must not be above max=2"):
        ops.audio_duration(min=3, max=2)
    with pytest.raises(ConfigError, match="width: min=3 must not be above max=2"):
        ops.image_shape(min_width=3, max_width=2)
    with pytest.raises(ConfigError, match="distance=6 must be less than blocks=6"):
        ops.image_dedup(distance=6)
    with pytest.raises(ConfigError, match="method='crc' must be one of average"):
        ops.image_dedup(method="crc")
