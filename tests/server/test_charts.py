"""A chart is a picture that says what it shows, whatever is in it, and draws to scale."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from exchange_server.portal.charts import Bars, bars, short

SVG = "{http://www.w3.org/2000/svg}"


def drawn(chart: Bars) -> ET.Element:
    return ET.fromstring(str(bars(chart)).replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1))  # noqa: S314


def heights(chart: Bars) -> list[float]:
    return [float(one.attrib["height"]) for one in drawn(chart).iter(f"{SVG}rect")]


def test_bars_are_as_tall_as_their_values() -> None:
    low, high, none = heights(Bars("title", ["a", "b", "c"], [("", [5, 10, 0])]))
    assert high == pytest.approx(2 * low)
    assert none == 0


def test_a_chart_says_what_it_shows_and_every_bar_its_value() -> None:
    chart = drawn(Bars("收到 <实例> & more", ["1<2"], [("waiting", [1234])]))
    assert chart.findtext(f"{SVG}title") == "收到 <实例> & more"
    assert chart.attrib["role"] == "img"
    (bar,) = chart.iter(f"{SVG}rect")
    assert bar.findtext(f"{SVG}title") == "1<2 waiting 1.2k"


@pytest.mark.parametrize("values", [[], [0, 0], [0.5], [10**15]])
def test_any_values_make_a_chart_without_styles_of_its_own(values: list[float]) -> None:
    chart = Bars("title", [str(number) for number in range(len(values))], [("", values)])
    assert all(0 <= one <= 200 for one in heights(chart))
    assert "style" not in str(bars(chart))


def test_numbers_are_short() -> None:
    assert [short(one) for one in (0, 7, 999, 1000, 1250, 2_500_000, 4e12)] == [
        *("0", "7", "999", "1k", "1.2k", "2.5M", "4T")
    ]
