"""From any picture to MNIST's own form."""

import contextlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from mnist_zoo import data
from mnist_zoo.handwriting import HandwritingError, as_is, digits, open_picture, to_pixels


def drawn(text="7", size=120, ink=0, paper=255, mode="L"):
    """A picture of digits in Pillow's own font, as large as it takes."""
    font = ImageFont.load_default(size)
    picture = Image.new("L", (round(size * (0.8 * len(text) + 0.6)), round(1.6 * size)), paper)
    for n, digit in enumerate(text):
        at = (round(size * (0.4 + 0.8 * n)), size // 5)
        ImageDraw.Draw(picture).text(at, digit, font=font, fill=ink)
    return picture.convert(mode)


def photographed(picture, noise=0.03, seed=0):
    """The same under light from one side, out of focus, on grainy paper."""
    rng = np.random.default_rng(seed)
    gray = np.asarray(picture.convert("L").filter(ImageFilter.GaussianBlur(1)), dtype=float) / 255
    light = np.linspace(0.45, 0.9, gray.shape[1]) * np.linspace(1, 0.8, gray.shape[0])[:, None]
    gray = light * (0.3 + 0.7 * gray) + rng.normal(0, noise, gray.shape)
    return Image.fromarray((255 * gray.clip(0, 1)).astype(np.uint8))


def saved(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    file.seek(0)
    return file


def only(picture):
    (digit,) = digits(picture)
    return digit.image


def alike(one, other):
    """Correlation of two images."""
    return np.corrcoef(one.flatten().float(), other.flatten().float())[0, 1]


def assert_mnist_form(image):
    assert image.shape == (28, 28)
    assert image.dtype == torch.uint8
    assert image.max() == 255
    rows, columns = np.nonzero(image.numpy() > 0)
    assert 19 <= 1 + max(np.ptp(rows), np.ptp(columns)) <= 20
    weights = image.double() / image.sum()
    for axis in (0, 1):
        assert abs(float((weights.sum(1 - axis) * torch.arange(28)).sum()) - 14) <= 0.5


@pytest.mark.parametrize("digit", "0123456789")
def test_a_digit_has_the_form_of_mnist(digit):
    assert_mnist_form(only(drawn(digit)))


@pytest.mark.parametrize("size", [40, 300, 1500])
def test_the_size_of_a_picture_does_not_matter(size):
    image = only(drawn("5", size))
    assert_mnist_form(image)
    assert alike(image, only(drawn("5", 120))) > 0.8


def test_light_on_dark_is_the_same_as_dark_on_light():
    assert alike(only(drawn("3")), only(drawn("3", ink=255, paper=0))) > 0.999
    assert alike(only(drawn("3")), only(drawn("3", ink=90, paper=150))) > 0.99


@pytest.mark.parametrize(
    "mode", ["1", "L", "RGB", "RGBA", "LA", "P", "CMYK", "YCbCr", "HSV", "LAB"]
)
def test_any_mode_is_read(mode):
    picture = drawn("4")
    converted = picture.convert("RGB").convert(mode) if mode == "HSV" else None
    if mode == "LAB":
        converted = Image.merge("LAB", (picture, *[Image.new("L", picture.size, 128)] * 2))
    assert alike(only(converted or picture.convert(mode)), only(picture)) > 0.98


@pytest.mark.parametrize(("dtype", "full"), [(np.uint16, 65535), (np.int32, 65535), ("f4", 1)])
def test_deep_pixels_are_read(dtype, full):
    picture = drawn("4")
    deep = Image.fromarray((np.asarray(picture) / 255 * full).astype(dtype))
    assert alike(only(deep), only(picture)) > 0.999
    assert as_is(deep).image.max() == 255


def test_pixels_that_are_no_numbers_are_background():
    deep = np.asarray(drawn("4", ink=1, paper=0), dtype=np.float32).copy()
    deep[0, 0], deep[1, 1] = np.nan, np.inf
    assert alike(only(Image.fromarray(deep)), only(drawn("4"))) > 0.9


@pytest.mark.parametrize("ink", [(0, 0, 0), (255, 255, 255), (30, 60, 200), (250, 240, 60)])
def test_strokes_on_nothing_are_read_whatever_their_colour(ink):
    mask = drawn("2", ink=255, paper=0)
    picture = Image.new("RGBA", mask.size, (*ink, 0))
    picture.putalpha(mask)
    assert alike(only(picture), only(mask)) > 0.98
    palette = picture.quantize(8)
    assert alike(only(open_picture(saved(palette))), only(mask)) > 0.9


@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ((220, 40, 40), (60, 80, 200)), ((255, 140, 0), (135, 160, 235)),
        ((200, 60, 200), (60, 140, 60)),
    ],
)  # fmt: skip
def test_strokes_as_bright_as_the_paper_are_read_by_their_colour(ink, paper):
    mask = drawn("2", ink=255, paper=0)
    picture = Image.composite(*(Image.new("RGB", mask.size, c) for c in (ink, paper)), mask)
    assert alike(only(picture), only(mask)) > 0.95


def test_a_transparent_frame_round_paper_is_no_stroke():
    page = drawn("2", ink=30, paper=240).convert("RGBA")
    picture = Image.new("RGBA", (page.width + 80, page.height + 80), (0, 0, 0, 0))
    picture.paste(page, (40, 40))
    assert alike(only(picture), only(drawn("2"))) > 0.95


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 60}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("GIF", {"save_all": True, "append_images": [Image.new("L", (156, 192))]}),
        ("WEBP", {}),
    ],
)
def test_every_format_is_read(kind, options, tmp_path):
    picture = drawn("6")
    stream = saved(picture, kind, **options)
    (tmp_path / "six").write_bytes(stream.getvalue())
    for source in (stream, tmp_path / "six", str(tmp_path / "six")):
        assert alike(only(open_picture(source)), only(picture)) > 0.98


def test_a_picture_is_turned_as_its_camera_was():
    picture = drawn("7")
    exif = Image.Exif()
    exif[0x0112] = 6  # what is stored has to be turned by 90° to the right
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    opened = open_picture(saved(turned, "JPEG", exif=exif, quality=95))
    assert opened.size == picture.size
    assert alike(only(opened), only(picture)) > 0.98


@pytest.mark.parametrize("seed", range(3))
def test_a_photograph_is_read(seed):
    page = Image.new("L", (900, 700), 255)
    page.paste(drawn("5", 200), (300, 200))
    (digit,) = digits(photographed(page, seed=seed))
    assert alike(digit.image, only(drawn("5"))) > 0.9
    left, top, right, bottom = digit.box
    assert 300 < left < right < 600
    assert 200 < top < bottom < 550


def test_digits_are_read_from_left_to_right():
    found = digits(drawn("1975"))
    assert len(found) == 4
    assert [digit.box for digit in found] == sorted(digit.box for digit in found)
    for digit, text in zip(found, "1975", strict=True):
        assert alike(digit.image, only(drawn(text))) > 0.97


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("size", [(1000, 24), (3000, 60), (4000, 76), (6000, 60), (6000, 136)])
def test_a_long_and_narrow_picture_is_read(size, turned):
    length, height = size
    strip = Image.new("L", size[:: -1 if turned else 1], 255)
    small = data.Digits(val_size=0)
    small.setup("fit")
    images = small.splits["train"][0][:10]
    for n, image in enumerate(images):
        digit = Image.fromarray(255 - image.numpy()).resize((height, height))
        at = 0, 20 + n * (length // 11)
        strip.paste(digit, at if turned else at[::-1])
    found = digits(strip)
    assert len(found) == 10
    for digit, image in zip(found, images, strict=True):
        assert alike(digit.image, image) > 0.75


def page(*lines):
    """Lines of digits, one under the other."""
    rows = [drawn(line) for line in lines]
    picture = Image.new("L", (max(r.width for r in rows), sum(r.height for r in rows)), 255)
    for n, row in enumerate(rows):
        picture.paste(row, (0, n * row.height))
    return picture


@pytest.mark.parametrize("lines", [("01234", "56789"), ("12", "3456", "7"), ("1", "2")])
def test_rows_are_read_from_top_to_bottom(lines):
    found = digits(page(*lines))
    assert len(found) == len("".join(lines))
    for digit, text in zip(found, "".join(lines), strict=True):
        assert alike(digit.image, only(drawn(text))) > 0.9, text


@pytest.mark.parametrize("gap", [8, 15, 25])
def test_rows_may_be_close(gap):
    white = np.full((gap, 600), 255, np.uint8)
    parts = [white]
    for line in ("0123", "4567", "8901"):
        row = np.asarray(drawn(line, size=140))
        inked = row[(row < 250).any(axis=1)]
        parts += [np.pad(inked, ((0, 0), (0, 600 - row.shape[1])), constant_values=255), white]
    found = digits(Image.fromarray(np.concatenate(parts)))
    assert len(found) == 12


@pytest.mark.parametrize("angle", [-8, -3, 3, 8])
def test_rows_may_slope(angle):
    found = digits(page("3333", "7777").rotate(angle, expand=True, fillcolor=255))
    three, seven = (only(drawn(t).rotate(angle, fillcolor=255)) for t in "37")
    read = [alike(d.image, seven) > alike(d.image, three) for d in found]
    assert read == [False] * 4 + [True] * 4


def test_a_row_need_not_be_level():
    picture = Image.new("L", (900, 300), 255)
    for n, down in enumerate((0, 60, 10, 55, 0)):
        picture.paste(drawn("6").crop((30, 20, 150, 170)), (40 + 160 * n, 20 + down))
    lefts = [digit.box[0] for digit in digits(picture)]
    assert len(lefts) == 5
    assert lefts == sorted(lefts)


def framed(text, margin, width, ink=0):
    picture = drawn(text)
    corners = (margin, margin, picture.width - 1 - margin, picture.height - 1 - margin)
    ImageDraw.Draw(picture).rectangle(corners, outline=ink, width=width)
    return picture


@pytest.mark.parametrize("margin", [0, 3, 10])
@pytest.mark.parametrize("width", [1, 4, 8])
@pytest.mark.parametrize("text", ["0", "7", "305"])
def test_a_frame_is_no_digit(text, width, margin):
    picture = framed(text, margin, width)
    for shown in (picture, picture.point(lambda v: 255 - v)):
        found = digits(shown)
        assert len(found) == len(text)
        for digit, one in zip(found, text, strict=True):
            assert alike(digit.image, only(drawn(one))) > 0.95


def test_a_frame_may_be_askew_photographed_or_divided():
    picture = framed("305", 10, 4)
    assert len(digits(picture.rotate(3, expand=True, fillcolor=255))) == 3
    assert len(digits(photographed(picture))) == 3
    for x in (130, 226):
        ImageDraw.Draw(picture).line((x, 10, x, picture.height - 10), fill=0, width=4)
    assert len(digits(picture)) == 3


def test_a_frame_may_be_cut_off():
    picture = Image.new("L", (400, 400), 255)
    picture.paste(drawn("5"), (120, 120))
    ImageDraw.Draw(picture).rectangle((60, 60, 340, 340), outline=0, width=3)
    for corners in ((0, 0, 400, 320), (90, 0, 400, 400), (0, 0, 310, 320)):
        assert alike(only(picture.crop(corners)), only(drawn("5"))) > 0.95


@pytest.mark.parametrize("radius", [4, 8, 12])
@pytest.mark.parametrize("digit", "0468")
def test_a_digit_with_a_speck_inside_is_no_frame(digit, radius):
    picture = drawn(digit, 200)
    (plain,) = digits(picture)
    left, top, right, bottom = plain.box
    x, y = (left + right) // 2, (top + bottom) // 2
    ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
    (specked,) = digits(picture)
    assert specked.box == plain.box


def test_a_frame_with_nothing_in_it_is_what_there_is():
    picture = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(picture).rectangle((60, 40, 140, 160), outline=0, width=6)
    assert len(digits(picture)) == 1


def test_what_a_digit_reaches_over_is_a_digit():
    picture = Image.new("L", (300, 300), 255)
    draw = ImageDraw.Draw(picture)
    draw.line([(10, 5), (290, 5), (200, 299)], fill=0, width=10)  # a 7, cut off at the border
    draw.line([(100, 100), (100, 200)], fill=0, width=10)
    assert max(digit.box[2] - digit.box[0] for digit in digits(picture)) > 270


def test_a_box_is_in_pixels_of_the_picture():
    picture = Image.new("L", (3000, 2000))
    ImageDraw.Draw(picture).rectangle((1200, 300, 1499, 1299), fill=255)
    (digit,) = digits(picture)
    assert np.allclose(digit.box, (1200, 300, 1500, 1300), atol=6)


@pytest.mark.parametrize("gap", [4, 12])
def test_the_pieces_of_a_broken_stroke_are_one_digit(gap):
    picture = drawn("5", 300)
    ImageDraw.Draw(picture).rectangle((0, 200, picture.width, 199 + gap), fill=255)
    assert alike(only(picture), only(drawn("5"))) > 0.7


def test_specks_and_commas_are_no_digits():
    rng = np.random.default_rng(0)
    picture = drawn("13", 200)
    draw = ImageDraw.Draw(picture)
    for x, y in rng.integers((0, 0), picture.size, (60, 2)).tolist():
        draw.point((x, y), fill=0)
    draw.ellipse((230, 255, 245, 270), fill=0)
    assert len(digits(picture)) == 2


def test_a_thin_pen_leaves_strokes_as_thick_as_those_of_mnist():
    picture = Image.new("L", (1000, 1000), 255)
    ImageDraw.Draw(picture).line([(300, 200), (700, 200), (450, 800)], fill=0, width=2)
    image = only(picture)
    assert_mnist_form(image)
    assert (image > 100).sum(dim=1)[8:20].float().mean() >= 1.5


@pytest.mark.parametrize("paper", [0, 128, 255])
def test_an_empty_page_holds_no_digit(paper):
    with pytest.raises(HandwritingError, match="no digit"):
        digits(Image.new("L", (300, 200), paper))
    noise = np.random.default_rng(0).normal(128, 5, (300, 200)).clip(0, 255)
    with pytest.raises(HandwritingError, match="no digit"):
        digits(Image.fromarray(noise.astype(np.uint8)))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (28, 28), (3, 2)])
def test_the_smallest_pictures_are_no_trouble(size):
    with pytest.raises(HandwritingError, match="no digit"):
        digits(Image.new("L", size))


def test_what_has_the_form_of_mnist_stays_as_it_is():
    image = only(drawn("8"))
    assert torch.equal(only(Image.fromarray(image.numpy())), image)
    assert torch.equal(only(Image.fromarray(255 - image.numpy())), image)
    assert torch.equal(only(Image.fromarray(image.numpy()).convert("RGB")), image)


@pytest.mark.mnist
def test_the_digits_of_mnist_stay_as_they_are(mnist_root):
    images, _ = data.MNIST(root=mnist_root).load(train=False)
    for image in images[:1000]:
        assert torch.equal(only(open_picture(saved(Image.fromarray(image.numpy())))), image)


def test_as_is_only_scales():
    picture = drawn("7", ink=255, paper=0)
    digit = as_is(picture)
    assert digit.box == (0, 0, *picture.size)
    assert alike(digit.image, torch.tensor(np.asarray(picture.resize((28, 28))))) > 0.99
    image = torch.randint(256, (28, 28), dtype=torch.uint8)
    assert torch.equal(as_is(Image.fromarray(image.numpy())).image, image)


def bomb(width, height):
    """A PNG of a few bytes that says that it is huge."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"hello", "not a picture"),
        (saved(drawn("7")).getvalue()[:200], "damaged"),
        (saved(drawn("7"), "JPEG").getvalue()[:900], "damaged"),
        (saved(drawn("7"), "GIF").getvalue()[:300], "damaged"),
        (bomb(8000, 8000), "too large, 8,000 × 8,000"),
        (bomb(60000, 60000), "too large"),
        (bomb(1, 40_000_000), "too large, 1 × 40,000,000"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    ],
)
def test_what_cannot_be_opened_is_told_in_a_line(content, message, tmp_path, recwarn):
    file = tmp_path / "picture.png"
    file.write_bytes(content)
    with pytest.raises(HandwritingError, match=message) as caught:
        open_picture(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)
    assert not recwarn


def test_what_is_not_there_is_told_in_a_line(tmp_path):
    with pytest.raises(HandwritingError, match="no such file"):
        open_picture(tmp_path / "seven.png")
    with pytest.raises(HandwritingError, match="a folder"):
        open_picture(tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP"])
def test_no_damage_ends_in_a_traceback(kind):
    whole = saved(drawn("7", 30), kind).getvalue()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for at in rng.integers(0, len(damaged), 3):
            damaged[at] = rng.integers(256)
        with contextlib.suppress(HandwritingError):
            picture = open_picture(io.BytesIO(damaged))
            if picture.width * picture.height < 1_000_000:
                digits(picture)


def test_two_tones_are_no_digit():
    picture = Image.new("L", (200, 200), 248)
    picture.paste(217, (0, 100, 200, 200))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(HandwritingError, match="nothing stands out"):
            digits(picture)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[::-1],
        lambda x: x.astype(">f4") / 255,
        lambda x: np.frombuffer(x.tobytes(), np.uint8).reshape(x.shape),
    ],
    ids=["turned round", "of another byte order", "read-only"],
)
def test_arrays_of_any_making_are_taken(change, recwarn):
    images = np.arange(3 * 784, dtype=np.uint32).reshape(3, 28, 28).astype(np.uint8)
    pixels = to_pixels(change(images))
    assert pixels.shape == (3, 1, 28, 28)
    assert pixels.sum() == pytest.approx(images.sum() / 255)
    assert not recwarn.list


@pytest.mark.parametrize("images", ["four.png", {}, object()])
def test_what_is_no_image_is_told(images):
    with pytest.raises(HandwritingError, match="neither picture nor array nor tensor"):
        to_pixels(images)
