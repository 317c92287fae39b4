"""The table of the zoo, on the screen and in the README."""

from rich.console import Console

from mnist_zoo.report.models_table import Row, markdown_table, zoo_table

ROWS = [
    Row("A", "1,234", "A", "99.00 %", "98.90 ± 0.10 % (3)", "a book"),
    Row("A", "1,234", "A-other", "", "", "a book"),
    Row("A", "99", "A-small", "", "", "a book"),
    Row("LongerName", "5", "LongerName", "98.5 %", "", "a talk"),
]


def shown(width):
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(zoo_table(ROWS, width))
    return [line.split() for line in capture.get().splitlines()]


def test_a_network_is_named_once_and_its_size_where_it_is_another():
    assert shown(100) == [
        ["network", "parameters", "recipe", "published", "measured", "source"],
        ["A", "1,234", "A", "99.00", "%", "98.90", "±", "0.10", "%", "(3)", "a", "book"],
        ["A-other"],
        ["99", "A-small"],
        ["LongerName", "5", "LongerName", "98.5", "%", "a", "talk"],
    ]


def test_a_source_is_named_once_for_a_network_unless_it_is_another():
    rows = [
        Row("A", "1", "A", "", "", "a book"),
        Row("A", "1", "A-other", "", "", "a talk"),
        Row("A", "1", "A-third", "", "", "a talk"),
        Row("B", "1", "B", "", "", "a talk"),
    ]
    table = zoo_table(rows, 120)
    assert [list(column.cells) for column in table.columns] == [
        ["A", "", "", "B"],
        ["1", "", "", "1"],
        ["A", "A-other", "A-third", "B"],
        [""] * 4,
        [""] * 4,
        ["a book", "a talk", "", "a talk"],
    ]


def test_numbers_end_below_one_another():
    justified = {column.header: column.justify for column in zoo_table(ROWS, 120).columns}
    assert justified == {
        "network": "left",
        "parameters": "right",
        "recipe": "left",
        "published": "right",
        "measured": "right",
        "source": "left",
    }


def test_the_source_may_be_left_out():
    table = zoo_table(ROWS, 95)
    assert [column.header for column in table.columns] == [
        "network", "parameters", "recipe", "published", "measured"
    ]  # fmt: skip
    assert table.row_count == 4


def test_no_name_is_cut_in_a_narrow_terminal():
    words = {word for line in shown(50) for word in line}
    assert {"LongerName", "A-other", "98.90", "(3)"} <= words


def test_markdown_fills_every_cell():
    assert markdown_table(ROWS).splitlines() == [
        "| network | parameters | recipe | published | measured | source |",
        "| --- | ---: | --- | ---: | ---: | --- |",
        "| `A` | 1,234 | `A` | 99.00 % | 98.90 ± 0.10 % (3) | a book |",
        "| `A` | 1,234 | `A-other` |  |  | a book |",
        "| `A` | 99 | `A-small` |  |  | a book |",
        "| `LongerName` | 5 | `LongerName` | 98.5 % |  | a talk |",
    ]


def test_brackets_are_text():
    row = Row("Net", "5", "Net", "", "", "[lecun 98], ch. [/x]")
    console = Console(width=100, force_terminal=False)
    with console.capture() as capture:
        console.print(zoo_table([row], 120))
    assert "[lecun 98], ch. [/x]" in capture.get()
