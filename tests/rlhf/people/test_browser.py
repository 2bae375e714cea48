"""The page as people use it: by keyboard, by mouse, on a phone, and when the server dies under them."""

import contextlib
import os
import re
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import rlhf
from pgjax.rlhf.people import DeskSettings, Task, serve
from tests.rlhf.people.browsing import browsing

pytestmark = pytest.mark.slow

ONCE = DeskSettings(again=0.0, question="Which is shorter?")
browser = pytest.fixture(scope="module")(browsing)


def tasks(n, K=2):
    return [Task(f"prompt {i}", tuple("x" * (k + 1) for k in range(K)), (True,) * K) for i in range(n)]


@contextlib.contextmanager
def served(path, asked, settings=ONCE, annotators=("ada",), goal=None):
    with serve(path, annotators) as page:
        page.ask(asked, settings, goal)
        yield page


def opened(browser, address, width=1000, height=700):
    """A tab on an address; what its console says fails the test that looks."""
    tab = browser.new_page(viewport={"width": width, "height": height})
    tab.set_default_timeout(120_000)  # of a machine that has other things to do
    tab.said = []
    tab.on("console", lambda message: tab.said.append(message.text))
    tab.on("pageerror", lambda error: tab.said.append(str(error)))
    tab.goto(address)
    return tab


def wait_for(tab, count):
    tab.locator("#count", has_text=re.compile(f"^{count}$")).wait_for()


def texts(tab):
    return tab.locator(".pane .text").all_text_contents()


@pytest.mark.parametrize("by", ["keyboard", "mouse"])
def test_twenty_pairs(browser, tmp_path, by):
    with served(tmp_path / "a", tasks(20)) as page:
        tab, wanted = opened(browser, page.addresses["ada"]), {}
        for done in range(20):
            wait_for(tab, f"{done} done, {20 - done} to go")
            shorter = texts(tab).index("x")
            wanted[tab.locator("#prompt .text").text_content()] = shorter
            if by == "keyboard":
                tab.keyboard.press(str(shorter + 1))
            else:
                tab.locator(".pane button").nth(shorter).click()
        wait_for(tab, "20 done, 0 to go")
        assert tab.locator("#said").text_content() == "That is all. Thank you!"
        assert page.done()
        assert tab.said == []
    lines = rlhf.ranking_lines(tmp_path / "a")
    assert [line.ranking for line in lines] == [((0,), (1,))] * 20  # in the order of the file, whatever was shown
    assert {line.prompt: line.more["shown"].index(0) for line in lines} == wanted
    assert 0 < sum(wanted.values()) < 20
    assert all(0 < line.more["seconds"] < 20 for line in lines)


def test_undo_skip_tie_and_a_reload_in_between(browser, tmp_path):
    with served(tmp_path / "a", tasks(4)) as page:
        tab = opened(browser, page.addresses["ada"])
        wait_for(tab, "0 done, 4 to go")
        assert tab.locator("#undo").is_disabled()
        assert tab.locator("footer button").all_text_contents() == ["0 Equal", "s Skip", "u Undo"]
        first = tab.locator("#prompt").text_content(), texts(tab)
        tab.reload()
        wait_for(tab, "0 done, 4 to go")
        assert (tab.locator("#prompt").text_content(), texts(tab)) == first
        tab.keyboard.press("0")
        wait_for(tab, "1 done, 3 to go")
        tab.reload()
        wait_for(tab, "1 done, 3 to go")
        tab.keyboard.press("u")
        wait_for(tab, "0 done, 4 to go")
        assert (tab.locator("#prompt").text_content(), texts(tab)) == first
        tab.locator("#tie").click()
        wait_for(tab, "1 done, 3 to go")
        tab.keyboard.press("s")
        wait_for(tab, "2 done, 2 to go")
        tab.locator("#undo").click()
        wait_for(tab, "1 done, 3 to go")
        tab.locator("#skip").click()
        wait_for(tab, "2 done, 2 to go")
        tab.keyboard.press("Control+1")  # of the browser, and not ours
        tab.keyboard.press("7")
        tab.keyboard.press("2")
        wait_for(tab, "3 done, 1 to go")
    assert [line.ranking for line in rlhf.ranking_lines(tmp_path / "a")][:2] == [((0, 1),), ()]


def test_three_are_ranked_one_by_one(browser, tmp_path):
    with served(tmp_path / "a", tasks(2, K=3)) as page:
        tab = opened(browser, page.addresses["ada"])
        wait_for(tab, "0 done, 2 to go")
        shown = texts(tab)
        tab.keyboard.press("2")
        assert tab.locator(".pane button").all_text_contents() == ["1 next best", "2 place 1", "3 next best"]
        tab.keyboard.press("2")  # twice is once
        tab.keyboard.press("u")  # takes back the place, and not an answer
        assert tab.locator(".pane button").all_text_contents() == ["1 the best", "2 the best", "3 the best"]
        tab.keyboard.press("3")
        tab.keyboard.press("1")
        wait_for(tab, "1 done, 1 to go")
        second = texts(tab)
        tab.keyboard.press("1")
        tab.keyboard.press("0")
        wait_for(tab, "2 done, 0 to go")
    one, two = rlhf.ranking_lines(tmp_path / "a")
    assert [one.outputs[i] for (i,) in one.ranking] == [shown[2], shown[0], shown[1]]
    assert two.outputs[two.ranking[0][0]] == second[0]
    assert len(two.ranking[1]) == 2


def test_two_annotators_at_once_share_the_tasks(browser, tmp_path):
    with served(tmp_path / "a", tasks(10), annotators=("ada", "bob")) as page:
        tabs = [opened(browser, address) for address in page.addresses.values()]
        for turn in range(10):
            tab = tabs[turn % 2]
            tab.locator(".pane").first.wait_for()
            before = tab.locator("#count").text_content()
            tab.keyboard.press("1")
            tab.locator("#count", has_not_text=before).wait_for()
        watching = opened(browser, page.researcher)
        watching.locator("table").first.wait_for()
        rows = watching.locator("table").first.locator("tr").all_text_contents()
        assert [row[:4] for row in rows[1:]] == ["ada5", "bob5"]
        assert watching.locator("#count").text_content().startswith("10 rankings")
        assert all(tab.said == [] for tab in (*tabs, watching))
    lines = rlhf.ranking_lines(tmp_path / "a")
    assert len({line.prompt for line in lines}) == 10


SERVER = """
import sys, time
from pgjax.rlhf.people import DeskSettings, Task, serve
tasks = [Task(f"prompt {i}", ("x", "xx"), (True, True)) for i in range(6)]
with serve(sys.argv[1], ["ada"], port=int(sys.argv[2])) as page:
    page.ask(tasks, DeskSettings(again=0.0))
    print(page.addresses["ada"], flush=True)
    time.sleep(600)
"""


def test_the_server_is_killed_in_between_and_nothing_is_lost(browser, tmp_path):
    def start(port):
        command = [sys.executable, "-c", SERVER, str(tmp_path / "a"), str(port)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with start(0) as first:
        address = first.stdout.readline().strip()
        tab = opened(browser, address)
        for done in range(3):
            wait_for(tab, f"{done} done, {6 - done} to go")
            tab.keyboard.press("1")
        wait_for(tab, "3 done, 3 to go")
        os.kill(first.pid, signal.SIGKILL)
    seen = tab.locator("#prompt .text").text_content()
    tab.keyboard.press("2")
    tab.locator("#said", has_text="What you chose is not saved yet; trying again").wait_for()
    with start(int(address.split(":")[2].split("/")[0])) as second:
        try:
            assert second.stdout.readline().strip() == address  # the links are the same
            wait_for(tab, "4 done, 2 to go")
            for done in (4, 5):
                wait_for(tab, f"{done} done, {6 - done} to go")
                tab.keyboard.press("1")
            wait_for(tab, "6 done, 0 to go")
        finally:
            os.kill(second.pid, signal.SIGKILL)
    lines = rlhf.ranking_lines(tmp_path / "a")
    assert len({line.prompt for line in lines}) == len(lines) == 6
    kept = lines[3]
    assert kept.prompt == seen
    assert kept.ranking[0][0] == kept.more["shown"][1]  # what was chosen while nobody listened


@pytest.mark.parametrize("K", [2, 4])
def test_on_a_phone_everything_is_in_reach(browser, tmp_path, K):
    long = [Task("p" * 300, tuple(f"{k} " + "word " * 500 for k in range(K)), (True,) * K)]
    with served(tmp_path / "a", long) as page:
        tab = opened(browser, page.addresses["ada"], width=360, height=640)
        tab.locator(".pane").first.wait_for()
        assert tab.evaluate("() => document.documentElement.scrollWidth") == 360
        boxes = [tab.locator(".pane").nth(k).bounding_box() for k in range(K)]
        assert len({(round(box["width"]), round(box["height"])) for box in boxes}) == 1
        for button in tab.locator("footer button").all():
            box = button.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
            assert box["y"] + box["height"] <= 640
        last = tab.locator(".pane button").last
        last.scroll_into_view_if_needed()
        last.click()
        tab.screenshot(path=tmp_path / "phone.png")


STRANGE = [
    "<script>document.title = 'stolen'</script>",
    "<img src=x onerror=\"document.title='stolen'\">",
    "🙂  two\n\tlines ",
    "שלום hello",
    "x" * 100_000,
    "a\0b",
]


def test_texts_are_texts_whatever_is_in_them(browser, tmp_path):
    asked = [Task(text, (text, "other"), (True, False)) for text in STRANGE]
    with served(tmp_path / "a", asked) as page:
        tab = opened(browser, page.addresses["ada"])
        for done in range(len(STRANGE)):
            wait_for(tab, f"{done} done, {len(STRANGE) - done} to go")
            shown = texts(tab)
            assert sorted(shown) == sorted([tab.locator("#prompt .text").text_content(), "other"])
            which = 1 - shown.index("other")
            body = tab.locator(".pane .body").nth(which)
            if len(shown[which]) == 100_000:
                inside, outside = body.evaluate("e => [e.scrollHeight, e.clientHeight]")
                assert inside > 2 * outside
            if shown[which].startswith("ש"):
                assert tab.locator(".pane .text").nth(which).evaluate("e => getComputedStyle(e).direction") == "rtl"
            marks = tab.locator(".pane .mark").all_text_contents()
            assert [marks[which], marks[1 - which]] == ["■ the end", "✂ cut off here"]
            tab.keyboard.press(str(which + 1))
        wait_for(tab, f"{len(STRANGE)} done, 0 to go")
        assert tab.title() == "Rankings"
        assert tab.said == []
    assert [line.outputs[line.ranking[0][0]] for line in rlhf.ranking_lines(tmp_path / "a")] == STRANGE


def test_a_wrong_link_says_so(browser, tmp_path):
    with served(tmp_path / "a", tasks(2)) as page:
        tab = opened(browser, page.base + "/?token=wrong")
        assert "expected the link that you were given" in tab.text_content("body")


def test_the_page_reports_the_bias_of_an_annotator_who_has_one(browser, tmp_path):
    """Who clicks as `Annotators` choose, with 0.5 nats for the first place; the interval covers that and not 0."""
    rng, who = np.random.default_rng(0), rlhf.Annotators(temperature=1.0, position_bias=0.5)
    gold = {f"prompt {i}": rng.normal(0, 0.7, 2) for i in range(150)}
    asked = [Task(prompt, ("x", "xx"), (True, True)) for prompt in gold]
    with served(tmp_path / "a", asked, DeskSettings(again=1.0, gap=5)) as page:
        tab = opened(browser, page.addresses["ada"])
        for done in range(300):
            wait_for(tab, f"{done} done, \\d+ to go")
            worth = gold[tab.locator("#prompt .text").text_content()]
            of_place = [worth[len(text) - 1] for text in texts(tab)]
            likes = rlhf.utilities(who, jnp.array([of_place]), jnp.ones((1, 2)), jnp.zeros((1, 2)))
            tab.keyboard.press("1" if rng.random() < float(rlhf.preferred(likes)[0]) else "2")
        wait_for(tab, "300 done, 0 to go")
        watching = opened(browser, page.researcher)
        row = watching.locator("tr", has_text="position bias, nats a place")
        row.wait_for()
        value, low, high, n = map(float, re.findall(r"-?\d+\.?\d*", row.text_content()))
    assert low <= 0.5 <= high
    assert low > 0
    assert low < value < high
    assert n > 30
