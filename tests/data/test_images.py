import copy
import gc
import io
import os
import struct
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile
from torch.utils.data import DataLoader

from reprism.data import image_checks, images
from reprism.data.images import (
    DecodedImages,
    ImageError,
    ImageSet,
    ImageTooLargeError,
    check_images,
    convert_image,
    decode_image,
    read_image,
)
from reprism.data.records import DataError, Sample
from reprism.data.sampling import Draw, IdentityBatchSampler
from reprism.data.transforms import Preprocessing, eval_transform, train_transform

SMALL = Preprocessing(size=(32, 16))


def noise(height=24, width=12, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def chw(array):
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


@pytest.fixture
def samples(tmp_path):
    """Twelve JPEG files of different sizes, three of each of four identities."""
    return [Sample(save(tmp_path / f"{i:02d}.jpg", noise(20 + i, 10 + i % 3, seed=i)), i // 3, 1) for i in range(12)]


@pytest.fixture
def decodes(monkeypatch):
    """How often images have been decoded, in this process."""
    counted = []
    original = images.read_image
    monkeypatch.setattr(images, "read_image", lambda path: (counted.append(path), original(path))[1])
    return counted


# --- read_image


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".webp"])
def test_lossless_files_come_back_as_they_were(tmp_path, suffix):
    array = noise()
    path = save(tmp_path / f"a{suffix}", array, **({"lossless": True} if suffix == ".webp" else {}))
    image = read_image(path)
    assert image.dtype == torch.uint8
    assert image.shape == (3, 24, 12)
    assert image.is_contiguous()
    assert torch.equal(image, chw(array))
    assert torch.equal(read_image(str(path)), image)


def test_jpeg_is_decoded_as_pillow_does(tmp_path):
    path = save(tmp_path / "ü 店.jpg", noise())
    assert torch.equal(read_image(path), chw(np.array(Image.open(path))))


def test_one_pixel_is_an_image_that_may_be_written_to(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(save(tmp_path / "a.png", np.full((1, 1, 3), 7, np.uint8)))
    image += 1
    assert image.flatten().tolist() == [8, 8, 8]


def test_other_modes_become_rgb(tmp_path):
    array = noise()
    picture = Image.fromarray(array)
    gray = array[..., 0]

    save(tmp_path / "grey.png", gray)
    assert torch.equal(read_image(tmp_path / "grey.png"), chw(np.stack([gray] * 3, axis=-1)))

    bits = Image.fromarray(np.where(gray > 127, 255, 0).astype(np.uint8)).convert("1")
    bits.save(tmp_path / "bits.png")
    assert set(read_image(tmp_path / "bits.png").flatten().tolist()) == {0, 255}

    rgba = np.concatenate([array, noise(seed=1)[..., :1]], axis=-1)
    save(tmp_path / "rgba.png", rgba)
    assert torch.equal(read_image(tmp_path / "rgba.png"), chw(array))

    palette = picture.quantize(16)
    palette.save(tmp_path / "palette.png", transparency=bytes(range(16)))
    colors = np.array(palette.getpalette()).reshape(-1, 3).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(read_image(tmp_path / "palette.png"), chw(colors[np.array(palette)]))

    # Flat colour, since JPEG is lossy: red, full-on cyan ink missing.
    Image.new("CMYK", (12, 24), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    red = read_image(tmp_path / "cmyk.jpg").float().mean(dim=(1, 2))
    assert red[0] > 250
    assert red[1:].max() < 5


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(tmp_path, orientation):
    # The meanings of the eight values: EXIF 2.3, tag 0x0112.
    array = noise()
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", array, exif=exif)
    assert torch.equal(read_image(path), chw(UPRIGHT[orientation](array)))


def images_of_every_mode(folder):
    """Files of every mode and orientation that Pillow writes, with and without transparency."""
    picture = Image.fromarray(noise())
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"):
        picture.convert("L" if mode in ("I;16", "LA") else mode).convert(mode).save(
            folder / f"{mode.replace(';', '')}.png"
        )
    palette = picture.quantize(16)
    palette.save(folder / "bytes.png", transparency=bytes(range(16)))
    palette.save(folder / "index.png", transparency=3)
    picture.save(folder / "keyed.png", transparency=(0, 0, 0))
    picture.save(folder / "moving.gif", save_all=True, append_images=[Image.fromarray(noise(seed=1))])
    for mode in ("CMYK", "YCbCr", "F"):
        picture.convert(mode).save(folder / f"{mode}.tif")
    for orientation in UPRIGHT:
        exif = Image.Exif()
        exif[0x0112] = orientation
        for suffix in ("png", "jpg", "tif"):
            picture.save(folder / f"turned{orientation}.{suffix}", exif=exif)
    return sorted(folder.iterdir())


def outcome(read, given):
    try:
        return read(given)
    except ImageError as error:
        return error.reason


def test_an_open_image_is_read_as_its_file_is_and_stays_as_it_is(tmp_path):
    refused = []
    for path in images_of_every_mode(tmp_path):
        expected = outcome(read_image, path)
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("error")
            before = (image.size, image.mode, image.copy().tobytes(), dict(image.getexif()))
            found = outcome(convert_image, image)
            assert (image.size, image.mode, image.copy().tobytes(), dict(image.getexif())) == before, path.name
            image.seek(getattr(image, "n_frames", 1) - 1)  # its file is open still
        if isinstance(expected, str):
            assert found == expected, path.name
            refused.append(path.name)
        else:
            assert torch.equal(found, expected), path.name
    assert refused == ["F.tif", "I16.png"]


def test_an_open_image_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", noise())
    image = Image.open(path)
    image.close()
    with pytest.raises(ImageError, match="Cannot read image 7: it is truncated or corrupt"):
        convert_image(image, "image 7")
    half = path.read_bytes()[:-300]
    (tmp_path / "half.png").write_bytes(half)
    with Image.open(tmp_path / "half.png") as image, pytest.raises(ImageError, match="truncated or corrupt"):
        convert_image(image)
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(ImageTooLargeError, match="12×24"):
        convert_image(Image.fromarray(noise()))


def refusal(path):
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert caught.value.reason in str(caught.value)
    assert isinstance(caught.value, DataError)
    return caught.value.reason


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_truncated_files_are_refused(tmp_path, suffix, keep):
    path = save(tmp_path / f"a{suffix}", noise(64, 64))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert refusal(path)


def test_reasons(tmp_path):
    missing = tmp_path / "missing.jpg"
    assert refusal(missing) == "there is no such file"

    text = tmp_path / "text.jpg"
    text.write_text("<html>404</html>")
    assert "not an image" in refusal(text)

    empty = tmp_path / "empty.jpg"
    empty.touch()
    assert "not an image" in refusal(empty)

    folder = tmp_path / "folder.jpg"
    folder.mkdir()
    assert "directory" in refusal(folder)

    corrupt = save(tmp_path / "corrupt.png", noise(64, 64))
    content = bytearray(corrupt.read_bytes())
    content[len(content) // 2] ^= 0xFF
    corrupt.write_bytes(content)
    assert "truncated or corrupt" in refusal(corrupt)

    deep = save(tmp_path / "deep.png", np.full((8, 8), 40_000, np.uint16))
    assert "8 bits" in refusal(deep)


def test_formats_that_start_other_programs_are_not_tried(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(noise()).save(path, format="EPS")
    with Image.open(path) as opened:
        assert opened.format == "EPS"
    assert "not an image of a format that is read" in refusal(path)


def png_of_claimed_size(path, width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))
    return path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8193, 10_000, 30_000])
def test_decompression_bombs_are_refused_before_they_are_decoded(tmp_path, side):
    # 8193² is above the limit of 2²⁶ by a hair, 10,000² makes Pillow warn and 30,000² makes it refuse.
    start = time.process_time()
    assert "pixels" in refusal(png_of_claimed_size(tmp_path / "bomb.png", side, side))
    assert time.process_time() - start < 1


def test_limit_itself_is_allowed(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", noise(20, 10))
    monkeypatch.setattr(images, "MAX_PIXELS", 200)
    assert read_image(path).shape == (3, 20, 10)
    monkeypatch.setattr(images, "MAX_PIXELS", 199)
    assert "10×20" in refusal(path)


def test_an_image_in_memory_is_decoded_like_a_file(tmp_path):
    path = save(tmp_path / "x.jpg", noise())
    content = path.read_bytes()
    assert torch.equal(decode_image(content), read_image(path))
    assert torch.equal(decode_image(content, ("JPEG",), 24 * 12), read_image(path))
    with pytest.raises(ImageTooLargeError, match="12×24"):
        decode_image(content, max_pixels=24 * 12 - 1)
    for wrong, formats in ((content, ("PNG",)), (content[:-300], ("JPEG",)), (b"", ("JPEG",))):
        with pytest.raises(ImageError) as caught:
            decode_image(wrong, formats)
        assert not isinstance(caught.value, ImageTooLargeError)


def test_pillow_set_to_pass_off_halves_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", noise())
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match="LOAD_TRUNCATED_IMAGES"):
        read_image(path)


def test_running_out_of_memory_is_the_error_of_that_image(tmp_path, monkeypatch):
    """One image that takes more than there is must not end a run over a million others."""
    path = save(tmp_path / "a.png", noise())

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(images.ImageOps, "exif_transpose", fail)
    assert refusal(path) == "it takes more memory to decode than there is"


def test_an_unreadable_image_is_tried_once(tmp_path, monkeypatch):
    opened = []
    original = Image.open
    monkeypatch.setattr(images.Image, "open", lambda *a, **k: (opened.append(a), original(*a, **k))[1])
    path = tmp_path / "text.jpg"
    path.write_text("text")
    refusal(path)
    assert len(opened) == 1


@pytest.mark.parametrize(("width", "height"), [(1, 2**25), (2**25, 1), (1, 101), (404, 4), (2**15 + 1, 2**10)])
def test_an_image_too_long_or_too_thin_is_refused_by_its_header(tmp_path, width, height):
    reason = refusal(png_of_claimed_size(tmp_path / "thin.png", width, height))
    assert reason.startswith(f"{width}×{height}")
    assert ("100 times as long" in reason) == (max(width, height) <= 2**15)


@pytest.mark.parametrize(("width", "height"), [(1, 100), (400, 4), (2**15, 330)])
def test_an_image_at_those_limits_is_read(tmp_path, width, height):
    assert read_image(save(tmp_path / "thin.png", noise(height, width))).shape == (3, height, width)


def progressive(count, width=64, height=64):
    """A progressive JPEG with a scan for the means of blocks, and ``count`` without any content for the rest."""
    buffer = io.BytesIO()
    Image.new("L", (width, height), 128).save(buffer, "jpeg", progressive=True)
    content = buffer.getvalue()
    second = content.index(b"\xff\xda", content.index(b"\xff\xda") + 2)
    header = struct.pack(">HHBBBBBB", 0xFFDA, 8, 1, 1, 0, 1, 63, 0)
    return content[:second] + header * count + b"\xff\xd9"


def test_a_jpeg_of_very_many_scans_is_refused(tmp_path):
    """72 kB of them take this decoder seconds, and 10 MB half an hour."""
    assert decode_image(progressive(99)).shape == (3, 64, 64)
    path = tmp_path / "scans.jpg"
    path.write_bytes(progressive(100))
    assert "101 scans" in refusal(path)
    with pytest.raises(ImageError, match="10,001 scans"):
        decode_image(progressive(10_000))
    with Image.open(path) as opened, pytest.raises(ImageError, match="101 scans"):
        convert_image(opened)


@pytest.mark.parametrize("size", [10, 11, 12, 13])
def test_scans_are_counted_wherever_the_file_is_divided_for_reading(monkeypatch, size):
    monkeypatch.setattr(image_checks, "_READ_AT_ONCE", size)
    with pytest.raises(ImageError, match="201 scans"):
        decode_image(progressive(200))


@given(
    quality=st.integers(1, 100), progressive=st.booleans(), subsampling=st.sampled_from(["4:4:4", "4:2:0"]),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_what_an_encoder_writes_has_few_scans(quality, progressive, subsampling, seed):
    """Whatever is in the picture, no content of it is taken for the beginning of a scan."""
    buffer, pixels = io.BytesIO(), np.random.default_rng(seed).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "jpeg", quality=quality, progressive=progressive, subsampling=subsampling)
    with Image.open(buffer) as opened:
        assert image_checks._scans(opened) == (10 if progressive else 1)


def sixteen_bits(kind, pixels):
    """A PNG of 16 bits per channel (kind 2: RGB, 4: grey with alpha, 6: RGBA), which Pillow does not write."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_color_of_16_bits_is_refused_as_gray_is(kind, channels):
    """Pillow would keep the upper half of each channel, whatever range the camera used."""
    content = sixteen_bits(kind, np.full((4, 4, channels), 300))
    with Image.open(io.BytesIO(content)) as opened:
        assert np.asarray(opened)[0, 0, 0] == 1  # what it would be taken for
    with pytest.raises(ImageError, match="more than 8 bits per channel; convert it to 8 bits"):
        decode_image(content)


@pytest.mark.parametrize(
    "form", [b"P6 2 2 65535\n" + bytes(24), b"P3 1 1 1000\n 1000 500 0", b"P6 2 2 1023\n" + bytes(24)]
)
def test_a_portable_pixmap_of_more_than_8_bits_is_refused(form):
    with pytest.raises(ImageError, match="more than 8 bits per channel"):
        decode_image(form)
    assert decode_image(b"P6 2 2 255\n" + bytes(12)).shape == (3, 2, 2)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    """Opening a pipe waits for somebody who writes into it."""
    pipe, loop = tmp_path / "pipe.jpg", tmp_path / "loop.jpg"
    os.mkfifo(pipe)
    loop.symlink_to("loop.jpg")
    assert refusal(pipe) == "it is no file, but a pipe, a socket or a device"
    assert "symbolic links" in refusal(loop)
    assert "device" in refusal(Path("/dev/zero"))


# --- check_images


def spoil(sample):
    sample.path.write_bytes(sample.path.read_bytes()[:200])


def test_check_tells_readable_from_unreadable_in_order(samples):
    spoil(samples[2])
    samples[7].path.unlink()
    ticks = []
    readable, unreadable = check_images(samples, progress=lambda done, total: ticks.append((done, total)))
    assert readable == [sample for i, sample in enumerate(samples) if i not in (2, 7)]
    assert [sample for sample, _ in unreadable] == [samples[2], samples[7]]
    assert unreadable[1][1] == "there is no such file"
    assert ticks == [(done, 12) for done in range(1, 13)]


def test_check_of_nothing():
    assert check_images([]) == ([], [])


def test_order_holds_whatever_is_finished_first(samples, monkeypatch):
    def slow_first(path):
        time.sleep(0.05 if Path(path).stem == "00" else 0)
        return torch.full((3, 2, 2), int(Path(path).stem), dtype=torch.uint8)

    monkeypatch.setattr(images, "read_image", slow_first)
    decoded = DecodedImages(samples)
    assert [int(decoded[i][0, 0, 0]) for i in range(12)] == list(range(12))


def test_images_decoded_ahead_are_bounded(samples, monkeypatch):
    # One slow image must not let thousands of others pile up behind it.
    release = threading.Event()
    started = []

    def read(path):
        started.append(path)
        if len(started) == 1:
            release.wait(0.5)
        return torch.zeros(3, 1, 1, dtype=torch.uint8)

    monkeypatch.setattr(images, "read_image", read)
    progress = []
    many = samples * 100
    ahead = []

    def watch(done, total):
        if done == 1:
            ahead.append(len(started))
        progress.append(done)

    check_images(many, watch)
    assert progress[-1] == len(started) == 1200
    assert ahead[0] <= 256


# --- DecodedImages


def test_decoded_images_are_those_of_read_image_in_one_tensor(samples):
    decoded = DecodedImages(samples)
    assert len(decoded) == 12
    assert decoded.samples == samples
    assert decoded.unreadable == []
    for i, sample in enumerate(samples):
        assert torch.equal(decoded[i], read_image(sample.path))
    assert torch.equal(decoded[-1], decoded[11])
    assert decoded.nbytes == sum(3 * (20 + i) * (10 + i % 3) for i in range(12))
    assert len({decoded[i].untyped_storage().data_ptr() for i in range(12)}) == 1


def test_decoding_skips_and_records_or_raises(samples, decodes):
    spoil(samples[3])
    decoded = DecodedImages(samples, on_error="skip")
    assert decoded.samples == samples[:3] + samples[4:]
    assert [sample for sample, _ in decoded.unreadable] == [samples[3]]
    assert torch.equal(decoded[3], read_image(samples[4].path))
    with pytest.raises(ImageError, match=r"03\.jpg"):
        DecodedImages(samples)
    with pytest.raises(ValueError, match="on_error is 'ignore'"):
        DecodedImages(samples, on_error="ignore")


def test_an_error_stops_the_decoding_of_the_rest(samples, monkeypatch):
    begun = []

    def read(path):
        begun.append(path)
        if len(begun) == 1:
            raise ImageError("the first is spoilt")
        time.sleep(0.02)
        return torch.zeros(3, 1, 1, dtype=torch.uint8)

    monkeypatch.setattr(images, "read_image", read)
    with pytest.raises(ImageError, match="the first is spoilt"):
        DecodedImages(samples * 200)
    assert len(begun) < 100  # Not even those that were already in line.


def test_no_images_at_all():
    assert len(DecodedImages([])) == 0


# --- ImageSet


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_items_are_the_transformed_image_and_its_label(samples, cache):
    transform = eval_transform(SMALL)
    labels = [sample.pid for sample in samples]
    dataset = ImageSet(samples, transform, labels, cache)
    assert len(dataset) == 12
    for i, sample in enumerate(samples):
        image, label = dataset[i]
        assert image.shape == (3, 32, 16)
        assert torch.equal(image, transform(read_image(sample.path)))
        assert label == sample.pid
    assert ImageSet(samples, transform)[5][1] == 5
    assert ImageSet(samples, transform)[Draw(5, 1)][1] == 5


def test_cache_in_memory_decodes_each_image_once_and_never_again(samples, decodes):
    dataset = ImageSet(samples, eval_transform(SMALL), cache="ram")
    assert sorted(decodes) == sorted(sample.path for sample in samples)
    decodes.clear()
    for _ in range(2):
        for i in range(len(dataset)):
            dataset[i]
    assert decodes == []


def test_without_a_cache_each_access_decodes(samples, decodes):
    dataset = ImageSet(samples, eval_transform(SMALL))
    assert decodes == []
    for _ in range(2):
        for i in range(len(dataset)):
            dataset[i]
    assert len(decodes) == 24


def test_images_decoded_earlier_can_be_given(samples, decodes):
    samples[4].path.unlink()
    decoded = DecodedImages(samples, on_error="skip")
    decodes.clear()
    dataset = ImageSet(decoded.samples, eval_transform(SMALL), cache=decoded)
    assert len(dataset) == 11
    assert torch.equal(dataset[4][0], eval_transform(SMALL)(read_image(samples[5].path)))
    assert decodes == []
    with pytest.raises(ValueError, match=r"11 decoded images are not those of the 12 samples"):
        ImageSet(samples, eval_transform(SMALL), cache=decoded)


def test_cache_reports_progress(samples):
    ticks = []
    ImageSet(samples, eval_transform(SMALL), cache="ram", progress=lambda *tick: ticks.append(tick))
    assert ticks[-1] == (12, 12)


def test_wrong_arguments_are_refused(samples):
    with pytest.raises(ValueError, match="3 labels were given for 12 samples"):
        ImageSet(samples, eval_transform(SMALL), [1, 2, 3])
    with pytest.raises(ValueError, match="cache is 'disk'"):
        ImageSet(samples, eval_transform(SMALL), cache="disk")


AUGMENTED = train_transform(SMALL, flip=0.5, erasing=0.5, pad_crop=4, color_jitter=0.2)


def test_a_draw_is_augmented_as_fork_rng_and_manual_seed_would_have_it(samples):
    dataset = ImageSet(samples, AUGMENTED)
    for seed in (0, 1, 17, 2**32 - 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = AUGMENTED(read_image(samples[3].path))
        assert torch.equal(dataset[Draw(3, seed)][0], expected)


def test_a_draw_neither_reads_nor_moves_the_global_generator(samples):
    dataset = ImageSet(samples, AUGMENTED)
    torch.manual_seed(0)
    first = dataset[Draw(3, 99)][0]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(dataset[Draw(3, 99)][0], first)
    assert torch.equal(torch.get_rng_state(), before)
    assert len({dataset[Draw(3, seed)][0].numpy().tobytes() for seed in range(10)}) > 5


def test_the_generator_is_put_back_after_an_error_too(samples):
    def fail(image):
        torch.rand(3)
        raise ZeroDivisionError

    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        ImageSet(samples, fail)[Draw(0, 5)]
    assert torch.equal(torch.get_rng_state(), before)


def run(dataset, workers, start=0, **options):
    sampler = IdentityBatchSampler(dataset.labels, 2, 3, seed=4)
    sampler.set_epoch(7)
    sampler.start_batch = start
    return list(DataLoader(dataset, batch_sampler=sampler, num_workers=workers, **options))


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(first, second, strict=True)
    )


def test_batches_do_not_depend_on_workers_cache_or_the_start(samples):
    labels = [sample.pid for sample in samples]
    from_disk = ImageSet(samples, AUGMENTED, labels)
    in_memory = ImageSet(samples, AUGMENTED, labels, cache="ram")
    whole = run(from_disk, workers=0)
    assert len(whole) == 2
    assert whole[0][0].shape == (6, 3, 32, 16)
    assert whole[0][1].dtype == torch.int64
    assert same(run(in_memory, workers=0), whole)
    assert same(run(from_disk, workers=2), whole)
    assert same(run(in_memory, workers=1), whole)
    assert same(run(in_memory, workers=1, start=1), whole[1:])


@pytest.mark.slow
def test_spawned_workers_share_the_pixels(samples):
    labels = [sample.pid for sample in samples]
    dataset = ImageSet(samples, AUGMENTED, labels, cache="ram")
    expected = run(copy.deepcopy(dataset), workers=0)
    for sample in samples:
        sample.path.unlink()  # Nobody decodes again.
    assert not dataset._decoded[0].is_shared()
    assert same(run(dataset, workers=1, multiprocessing_context="spawn"), expected)
    assert dataset._decoded[0].is_shared()


def test_an_image_lost_in_a_worker_is_named(samples):
    samples[8].path.unlink()
    dataset = ImageSet(samples, AUGMENTED)
    with pytest.raises(ImageError, match=r"08\.jpg: there is no such file"):
        list(DataLoader(dataset, batch_size=4, num_workers=1))


class Leftover:
    """What its process left to the garbage collector; whoever frees it is noted."""

    def __init__(self, notes: Path) -> None:
        self.notes, self.itself = notes, self

    def __del__(self) -> None:
        (self.notes / f"{os.getpid()}").touch()


class Collecting(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        return gc.collect() and index


def test_a_worker_frees_nothing_that_its_parent_left_behind(tmp_path):
    gc.collect()
    gc.disable()
    try:
        Leftover(tmp_path)
        options = {"num_workers": 1, "multiprocessing_context": "fork", "worker_init_fn": images.prepare_worker}
        assert len(list(DataLoader(Collecting(), 1, **options))) == 2
        assert list(tmp_path.iterdir()) == []
        gc.collect()
        assert [note.name for note in tmp_path.iterdir()] == [f"{os.getpid()}"]
    finally:
        gc.enable()
