"""Pictures of what a network does: what stands on them, and that they are readable as files."""

import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from mnist_zoo.report import pictures

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat")


def words(figure):
    """Everything written within the axes."""
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def drawn(figure):
    """The images in the figure, as arrays."""
    return [image.get_array() for image in figure.axes[0].images]


class TestSave:
    def test_writes_a_png_and_makes_its_folder(self, tmp_path):
        file = tmp_path / "new" / "picture.png"
        pictures.save(pictures.filters(torch.randn(2, 1, 5, 5)), file)
        with Image.open(file) as image:
            assert image.format == "PNG"
            assert min(image.size) > 100
        assert list(file.parent.iterdir()) == [file]

    def test_the_same_picture_is_the_same_file(self, tmp_path):
        weights = torch.randn(2, 1, 5, 5)
        for name in ("a.png", "b.png"):
            pictures.save(pictures.filters(weights), tmp_path / name)
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


class TestConfusionMatrix:
    COUNTS = torch.diag(torch.full((10,), 980)).index_put(
        (torch.tensor(4), torch.tensor(9)), torch.tensor(12)
    )

    def test_shows_every_count_in_its_place(self):
        figure = pictures.confusion_matrix(self.COUNTS, DIGITS, "A title")
        (axes,) = figure.axes
        places = {text.get_position(): text.get_text() for text in axes.texts}
        assert len(places) == 100
        assert places[9, 4] == "12"  # x is what was read, y what it was
        assert places[4, 9] == "0"
        assert places[3, 3] == "980"
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
        assert axes.get_title("left") == "A title"

    def test_the_right_ones_do_not_swamp_the_mistakes(self):
        (shades,) = drawn(pictures.confusion_matrix(self.COUNTS, DIGITS))
        assert shades[4, 9] == 12
        assert shades.mask.sum() == 99

    def test_a_perfect_network_and_long_names(self):
        figure = pictures.confusion_matrix(torch.diag(torch.arange(5)), CLOTHES)
        assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [*CLOTHES]


def test_accuracy_per_class_shows_shares_and_mistakes():
    counts = torch.tensor([[3, 1, 0], [0, 0, 0], [0, 0, 5]])
    figure = pictures.accuracy_per_class(counts, ("a", "b", "c"))
    assert [bar.get_width() for bar in figure.axes[0].patches] == [75, 0, 100]
    assert words(figure) == ["75.00 %   1 of 4 wrong", "none", "100.00 %   0 of 5 wrong"]


class TestGalleries:
    IMAGES = torch.randint(0, 256, (20, 28, 28), dtype=torch.uint8)

    def test_wrongly_read_says_what_was_read_what_it_was_and_how_sure(self):
        probabilities = torch.zeros(2, 10)
        probabilities[0, 7], probabilities[0, 1] = 0.9996, 0.0004
        probabilities[1, 3], probabilities[1, 8] = 0.6, 0.4
        figure = pictures.misclassified(
            self.IMAGES[:2], probabilities, torch.tensor([1, 8]), DIGITS
        )
        assert words(figure) == ["7 (1)\n>99.9 %", "3 (8)\n60.0 %"]
        assert len(drawn(figure)) == 2

    def test_sheet_has_two_rows_green_where_right_and_red_where_wrong(self):
        targets = torch.arange(20) % 10
        predictions = targets.clone()
        predictions[4] = 9
        figure = pictures.sheet(self.IMAGES, predictions, targets, DIGITS)
        texts = figure.axes[0].texts
        assert len({text.get_position()[1] for text in texts}) == 2
        assert len({text.get_position()[0] for text in texts}) == 10
        right, wrong = texts[3], texts[4]
        assert right.get_text() == "✓ 3 (3)"
        assert wrong.get_text() == "✗ 9 (4)"
        assert (right.get_fontweight(), wrong.get_fontweight()) == ("normal", "bold")
        red, green, _ = to_rgb(right.get_color())
        assert green > red
        red, green, _ = to_rgb(wrong.get_color())
        assert red > green

    def test_images_of_any_scale_are_drawn_alike(self):
        zeros = torch.zeros(20, dtype=torch.int64)
        of_bytes = pictures.sheet(self.IMAGES, zeros, zeros, DIGITS)
        scaled = (self.IMAGES.float() / 255 - 0.1307) / 0.3081
        of_floats = pictures.sheet(scaled, zeros, zeros, DIGITS)
        for one, other in zip(drawn(of_bytes), drawn(of_floats), strict=True):
            assert torch.allclose(torch.tensor(one.data), torch.tensor(other.data), atol=1e-5)

    @pytest.mark.parametrize("classes", [DIGITS, CLOTHES * 2])
    @pytest.mark.parametrize("number", [3, 20])
    def test_have_a_narrow_margin_and_a_whole_heading(self, tmp_path, classes, number):
        targets = torch.arange(number) % 10
        heading = "A heading " * 10
        figure = pictures.misclassified(
            self.IMAGES[:number], torch.eye(10)[targets], targets, classes, heading
        )
        pictures.save(figure, tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as image:
            left, top, right, bottom = image.convert("L").point(lambda v: 255 * (v < 250)).getbbox()
            margins = [left, top, image.height - bottom, image.width - right]
        assert min(margins) >= 8
        assert max(margins[:3]) <= 36

    def test_long_names_are_set_in_two_lines(self):
        zeros = torch.zeros(2, dtype=torch.int64)
        figure = pictures.sheet(self.IMAGES[:2], zeros, zeros, CLOTHES)
        assert words(figure)[0] == "✓ T-shirt/top\n(T-shirt/top)"


class TestFilters:
    @pytest.mark.parametrize(
        ("shape", "drawn_shape"),
        [((20, 1, 5, 5), (5, 5)), ((6, 3, 5, 4), (5, 4)), ((30, 784), (28, 28))],
    )
    def test_of_convolutions_and_of_dense_layers(self, shape, drawn_shape):
        found = drawn(pictures.filters(torch.randn(shape)))
        assert len(found) == shape[0]
        assert {weights.shape for weights in found} == {drawn_shape}

    def test_of_several_channels_their_mean_is_drawn(self):
        weights = torch.randn(2, 3, 5, 5)
        for found, expected in zip(drawn(pictures.filters(weights)), weights.mean(1), strict=True):
            torch.testing.assert_close(torch.as_tensor(found.data), expected)

    def test_no_more_than_can_be_seen(self):
        assert len(drawn(pictures.filters(torch.randn(1000, 784)))) == 64

    def test_zero_is_in_the_middle_of_one_scale_for_all(self):
        figure = pictures.filters(torch.tensor([[-2.0, 1.0], [0.5, 0.0]]).reshape(1, 1, 2, 2))
        assert figure.axes[0].images[0].get_clim() == (-2, 2)

    def test_what_is_no_image_is_refused(self):
        with pytest.raises(ValueError, match=r"\(10, 100\)"):
            pictures.filters(torch.randn(10, 100))


def test_saliency_shows_the_image_what_speaks_for_and_what_against():
    attributions = torch.zeros(1, 28, 28)
    attributions[0, 3, 4], attributions[0, 5, 6] = 2.0, -1.0
    images = torch.zeros(1, 28, 28, dtype=torch.uint8)
    images[0, 5:20, 10:15] = 255
    figure = pictures.saliency(images, attributions, ["7"])
    image, speaks_for, against = drawn(figure)
    assert image.max() == 1
    assert (speaks_for[3, 4], speaks_for[5, 6]) == (2, 0)
    assert (against[3, 4], against[5, 6]) == (0, 1)
    assert {"image", "for", "against", "7"} == set(words(figure))


def test_saliency_has_a_scale_for_each_image_that_few_pixels_go_beyond():
    shares = torch.arange(784.0).view(1, 28, 28) / 783
    figure = pictures.saliency(torch.zeros(2, 28, 28), torch.cat([shares, -2 * shares]), ["", ""])
    most = [image.get_clim()[1] for image in figure.axes[0].images[2:]]
    assert most == pytest.approx([0.99, 1.98] * 2)


def test_a_dollar_sign_is_no_formula(tmp_path):
    classes, name = ("$_$", "$_$ and more"), "a$_$b.png"
    images, counts = torch.rand(2, 28, 28), torch.eye(2, dtype=torch.int64)
    targets = torch.tensor([0, 1])
    for figure in (
        pictures.saliency(images, images, [name, name], name),
        pictures.misclassified(images, torch.eye(2), targets, classes, name),
        pictures.sheet(images, targets, targets, classes, name),
        pictures.filters(torch.randn(2, 1, 5, 5), name),
        pictures.confusion_matrix(counts, classes, name),
        pictures.accuracy_per_class(counts, classes, name),
    ):
        pictures.save(figure, tmp_path / "a.png")


def test_images_are_drawn_as_ink_on_paper_row_by_row_and_upright():
    images = torch.zeros(10, 28, 28)
    images[:, 0, 0] = 1
    (axes,) = pictures.gallery(images, [str(n) for n in range(10)], num_columns=4).axes
    first = axes.images[0]
    assert first.cmap(first.norm(1.0))[:3] == (0, 0, 0)
    assert first.cmap(first.norm(0.0))[:3] == (1, 1, 1)
    _, _, bottom, top = first.get_extent()
    low, high = axes.get_ylim()
    assert (bottom - top) * (low - high) > 0
    at = {text.get_text(): text.get_position() for text in axes.texts}
    assert at["0"][1] == at["3"][1] < at["4"][1]
    assert at["0"][0] == at["4"][0] < at["1"][0]


def test_of_filters_positive_weights_are_light():
    (drawn,) = pictures.filters(torch.tensor([[-1.0, 1.0]]).reshape(1, 1, 1, 2)).axes[0].images
    assert drawn.cmap(drawn.norm(-1.0))[0] < drawn.cmap(drawn.norm(1.0))[0]


def test_the_first_class_is_at_the_top():
    axes = pictures.accuracy_per_class(torch.eye(3, dtype=torch.int64), ("a", "b", "c")).axes[0]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
