import asyncio
import contextlib
import json
import urllib.error
import urllib.request

import pytest
from starlette.testclient import TestClient

import pgjax
from pgjax import rlhf
from pgjax.rlhf.people import DeskSettings, Store, Task, collect_rankings, serve
from pgjax.rlhf.people.application import PAGE, application, security_headers
from pgjax.rlhf.people.guard import BURST, check_host, links_of, name_in, names_of
from pgjax.rlhf.people.office import Office

STRANGE = ["<script>document.title = 'stolen'</script>", "\0", "🙂 שלום\u202e", "x" * 100_000, "\u2028\t  two\n"]
TASKS = [Task(f"p{i}", ("a", STRANGE[i % 5]), (True, False)) for i in range(10)]


ONCE = DeskSettings(again=0.0)


@contextlib.contextmanager
def opened(path, settings=ONCE, goal=None, annotators=("ada", "bob")):
    """An office, and a client of each annotator and of the researcher."""
    with Store(path) as store:
        office = Office(store, links_of(path.with_name("secret"), annotators))
        app = application(office, "127.0.0.1")

        def client(token):
            headers = {"Authorization": f"Bearer {token}"}
            return TestClient(app, "http://127.0.0.1:80", headers=headers, raise_server_exceptions=False)

        asyncio.run(office.ask(TASKS, settings, goal, True))
        yield office, {**{who: client(office.links.annotators[who]) for who in annotators},
                       "researcher": client(office.links.researcher)}  # fmt: skip


def reply_to(state, ranking=((0,), (1,)), **changes):
    view = state["view"]
    return {"id": view["id"], "task": view["task"], "ranking": [*map(list, ranking)], "seconds": 2.0, **changes}


def test_what_is_answered_is_in_the_file_before_it_is_thanked(tmp_path):
    path = tmp_path / "rankings.jsonl"
    with opened(path) as (_, who):
        state = who["ada"].get("/state").json()
        assert (state["done"], state["left"]) == (0, 10)
        for done in range(1, 11):
            shown = state["view"]
            state = who["ada"].post("/answer", json=reply_to(state)).json()
            line = rlhf.ranking_lines(path)[-1]
            assert line.outputs[line.ranking[0][0]] == shown["outputs"][0]["text"]
            assert line.ended[line.ranking[0][0]] == shown["outputs"][0]["ended"]
            assert line.more["seconds"] == 2.0
            assert (state["done"], state["left"]) == (done, 10 - done)
        assert state["view"] is None
        assert state["finished"]
    texts = {text for line in rlhf.ranking_lines(path) for text in line.outputs}
    assert texts == {"a", *STRANGE}  # stored as they were shown


def test_tie_skip_and_undo(tmp_path):
    with opened(tmp_path / "a") as (office, who):
        ada = who["ada"]
        state = ada.post("/answer", json=reply_to(ada.get("/state").json(), [(0, 1)])).json()
        state = ada.post("/answer", json=reply_to(state, [])).json()
        assert office.desk.made == 1
        again = ada.post("/undo").json()
        assert again["done"] == 1
        ada.post("/answer", json=reply_to(again, [(1,), (0,)]))
        assert office.desk.made == 2
        assert [ada.post("/undo").json()["done"] for _ in range(3)] == [1, 0, 0]
    assert rlhf.ranking_lines(tmp_path / "a") == []
    assert (tmp_path / "a").read_text().count("\n") == 6


def test_a_wrong_token_is_refused(tmp_path):
    with opened(tmp_path / "a") as (office, who):
        right = office.links.annotators["ada"]
        for token in ("", "x", right[:-1], right.upper(), right + "0", "é"):
            headers = {"Authorization": f"Bearer {token}".encode()}
            for method, path in (("GET", "/state"), ("POST", "/answer"), ("POST", "/undo")):
                found = who["ada"].request(method, path, headers=headers)
                assert (found.status_code, office.desk.made) == (403, 0)
            assert who["ada"].get("/", params={"token": token}).status_code == 403
        assert who["ada"].get("/", params={"token": right}).text == PAGE.read_text()
        assert who["researcher"].post("/answer", json={}).status_code == 403
        assert len({*office.links.annotators.values(), office.links.researcher}) == 3


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "", "a@127.0.0.1", "[::1"]
)
def test_a_foreign_host_is_refused(tmp_path, host):
    with opened(tmp_path / "a") as (_, who):
        assert who["ada"].get("/state", headers={"Host": host}).status_code == 421
        for ours in ("127.0.0.1", "localhost:81", "[::1]:80"):
            assert who["ada"].get("/state", headers={"Host": ours}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:81", "https://localhost"])
def test_a_foreign_origin_is_refused(tmp_path, origin):
    with opened(tmp_path / "a") as (office, who):
        answer = reply_to(who["ada"].get("/state").json())
        assert who["ada"].post("/answer", json=answer, headers={"Origin": origin}).status_code == 403
        assert who["ada"].post("/answer", json=answer, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert office.desk.made == 0
        ours = {"Host": "127.0.0.1:80", "Origin": "http://127.0.0.1:80", "Sec-Fetch-Site": "same-origin"}
        assert who["ada"].post("/answer", json=answer, headers=ours).status_code == 200
        found = who["ada"].options("/answer", headers={"Host": "127.0.0.1:80", "Origin": "http://127.0.0.1:80"})
        assert found.status_code == 405
        assert not [name for name in found.headers if name.startswith("access-control")]


def test_a_large_body_is_refused(tmp_path):
    with opened(tmp_path / "a") as (office, who):
        assert who["ada"].post("/answer", content=b"x" * 10_000_000).status_code == 413

        def pieces():
            for _ in range(100):
                yield b" " * 1000

        assert who["ada"].post("/answer", content=pieces()).status_code == 413  # no length is said
        assert office.desk.made == 0


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 16_000, 400),
        (b"[]", 409),
        (b"{}", 409),
        (b"null", 409),
        ({"ranking": "01"}, 409),
        ({"ranking": [["0"], [1]]}, 409),
        ({"ranking": [[True], [0]]}, 409),
        ({"ranking": [[0], [7]]}, 409),
        ({"ranking": [[0]]}, 409),
        ({"ranking": [[[0]], [1]]}, 409),
        ({"seconds": "1"}, 409),
        ({"seconds": 1e300}, 409),
        ({"id": 3}, 409),
        ({"task": "../../etc/passwd"}, 409),
        ({"more": 1}, 409),
    ],
)
def test_what_is_malformed_is_refused_and_changes_nothing(tmp_path, content, status):
    with opened(tmp_path / "a") as (office, who):
        answer = reply_to(who["ada"].get("/state").json())
        body = content if isinstance(content, bytes) else json.dumps({**answer, **content})
        found = who["ada"].post("/answer", content=body)
        assert (found.status_code, office.desk.made) == (status, 0)
        assert found.json()["error"].startswith("expected ")
        assert (tmp_path / "a").read_bytes() == b""
        assert who["ada"].post("/answer", json=answer).status_code == 200


def test_an_item_of_somebody_else_is_refused_and_an_answer_twice_counts_once(tmp_path):
    with opened(tmp_path / "a") as (office, who):
        ada, bob = (reply_to(who[name].get("/state").json()) for name in ("ada", "bob"))
        assert who["bob"].post("/answer", json=ada).status_code == 409
        assert who["bob"].post("/answer", json={**bob, "task": ada["task"]}).status_code == 409
        assert office.desk.made == 0
        first = who["ada"].post("/answer", json=ada).json()
        assert who["ada"].post("/answer", json={**ada, "ranking": [[1], [0]]}).json() == first
        assert office.desk.made == 1
    assert len(rlhf.ranking_lines(tmp_path / "a")) == 1


def test_no_path_leads_to_the_file_system(tmp_path):
    with opened(tmp_path / "a") as (_, who):
        for path in ("/page.html", "/../a", "/%2e%2e/a", "/a", "/static/../../a", "//etc/passwd"):
            assert who["ada"].get(path).status_code == 404


def test_too_many_requests_of_one_link_are_refused_and_others_go_on(tmp_path):
    with opened(tmp_path / "a") as (_, who):
        found = [who["ada"].get("/state").status_code for _ in range(int(4 * BURST))]
        assert found[: int(BURST)] == [200] * int(BURST)
        assert 429 in found
        assert who["bob"].get("/state").status_code == 200


def test_every_answer_says_that_nothing_but_this_page_may_run(tmp_path):
    with opened(tmp_path / "a") as (office, who):
        page = who["ada"].get("/", params={"token": office.links.annotators["ada"]})
        for found in (
            page,
            who["ada"].get("/state"),
            who["ada"].get("/nowhere"),
            who["ada"].get("/", headers={"Host": "x"}),
        ):
            assert found.headers["content-security-policy"].startswith("default-src 'none'; script-src 'sha256-")
            assert "unsafe" not in found.headers["content-security-policy"]
            assert found.headers["x-content-type-options"] == "nosniff"
            assert found.headers["referrer-policy"] == "no-referrer"
            assert "access-control-allow-origin" not in found.headers
    html = PAGE.read_text()
    assert security_headers(html) != security_headers(html.replace("busy", "idle"))
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://", "https://"):
        assert way not in html  # texts are texts, and nothing is loaded from elsewhere


def test_an_answer_that_the_disk_does_not_take_does_not_count(tmp_path, monkeypatch):
    with opened(tmp_path / "a") as (office, who):
        first = who["ada"].post("/answer", json=reply_to(who["ada"].get("/state").json())).json()

        def full(events):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(office.store, "append", full)
        found = who["ada"].post("/answer", json=reply_to(first))
        assert found.status_code == 507
        assert "No space left" in found.json()["error"]
        assert who["ada"].post("/undo").status_code == 507
        assert office.desk.made == 1
        monkeypatch.undo()
        assert (first["left"], who["ada"].get("/state").json()["left"]) == (9, 9)  # none of the tasks is lost


def test_the_researcher_sees_who_did_what(tmp_path):
    with opened(tmp_path / "a", DeskSettings(overlap=2, again=1.0, gap=1), goal=20) as (_, who):
        for name in ("ada", "bob"):
            state = who[name].get("/state").json()
            while state["view"]:
                first = [output["text"] for output in state["view"]["outputs"]].index("a")
                state = who[name].post("/answer", json=reply_to(state, [(first,), (1 - first,)])).json()
        found = who["researcher"].get("/state").json()["report"]
        assert (found["made"], found["goal"], found["minutes_left"]) == (20, 20, 0)
        assert [row["annotator"] for row in found["annotators"]] == ["ada", "bob"]
        ada = found["annotators"][0]
        assert (ada["rankings"], ada["again"], ada["skips"], ada["ties"], ada["seconds"]) == (10, 10, 0, 0, 2.0)
        assert found["self_consistency"]["value"] == found["agreement"]["value"] == found["bound"] == 1
        assert found["position_bias"]["value"] is None  # nothing was decided by the place


def test_links_stay_while_their_secret_does_and_names_are_checked(tmp_path):
    links = links_of(tmp_path / "secret", ["ada", "bob"])
    assert links_of(tmp_path / "secret", ["bob", "cid"]).annotators["bob"] == links.annotators["bob"]
    assert links_of(tmp_path / "another", ["bob"]).annotators["bob"] != links.annotators["bob"]
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
    assert links.holder(links.annotators["bob"]) == ("bob", False)
    assert links.holder(links.researcher) == ("", True)
    for names, message in (([], "got none"), (["a", "a"], "got a twice"), ([" "], "got ' '"), (["a\n"], r"got 'a\\n'")):
        with pytest.raises(pgjax.InputError, match=message):
            links_of(tmp_path / "secret", names)


def test_other_machines_are_let_in_only_by_who_knows():
    check_host("localhost", i_know=False)
    check_host("0.0.0.0", i_know=True)
    with pytest.raises(pgjax.InputError, match=r"expected a host of this machine, 127.0.0.1, got 0.0.0.0: everybody"):
        check_host("0.0.0.0", i_know=False)
    known = names_of("0.0.0.0")
    assert known("192.168.1.7")
    assert known("localhost")
    assert not known("evil.example")
    assert not names_of("127.0.0.1")("192.168.1.7")
    assert name_in("[::1]:80") == "::1"
    assert name_in("LOCALHOST") == "localhost"


def answering(address):
    """The state that an annotator's page reads, and a function that answers."""
    base, token = address.split("/?token=")

    def ask(path, fields=None):
        data = None if fields is None else json.dumps(fields).encode()
        request = urllib.request.Request(f"{base}/{path}", data, {"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=120) as found:
            return json.load(found)

    return ask


def test_a_page_is_served_and_its_rankings_are_waited_for(tmp_path, monkeypatch):
    import threading

    from pgjax.rlhf.people import server

    def click(page):
        ask = answering(page.addresses["ada"])
        state = ask("state")
        for _ in range(3):
            state = ask("answer", reply_to(state))

    def print_links(page):
        threading.Thread(target=click, args=(page,)).start()

    monkeypatch.setattr(server, "print_links", print_links)
    outputs = [{"prompt": "", "outputs": ["a", text]} for text in "bcdefg"]
    path = tmp_path / "rankings.jsonl"
    made = collect_rankings(outputs, 3, path, ["ada"], settings=DeskSettings(again=0.0))
    assert made == rlhf.ranking_lines(path)
    assert len(made) == 3
    monkeypatch.setattr(server, "print_links", lambda page: None)
    assert collect_rankings(outputs, 3, path, ["ada"]) == made  # nobody is asked for what is there

    async def in_a_notebook():  # whose cells run inside of a loop of events
        return collect_rankings(outputs, 3, path, ["ada"])

    assert asyncio.run(in_a_notebook()) == made
    with pytest.raises(pgjax.InputError, match="expected 1 to 6 rankings, as 6 tasks with an overlap of 1 have, got 7"):
        collect_rankings(outputs, 7, path, ["ada"])
    with pytest.raises(pgjax.InputError, match="task 0: expected 2 to 9 outputs, got 1"):
        collect_rankings([{"prompt": "", "outputs": ["a"]}], 1, path)


def test_a_second_server_is_refused_in_a_sentence_and_a_port_that_is_taken(tmp_path):
    with serve(tmp_path / "a", ["ada"]) as page:
        port = int(page.base.rpartition(":")[2])
        with pytest.raises(pgjax.InputError, match="no other server has open"), serve(tmp_path / "a", ["ada"]):
            pass
        with (
            pytest.raises(pgjax.InputError, match=f"expected a host and a port that are free, got 127.0.0.1:{port}"),
            serve(tmp_path / "b", ["ada"], port=port),
        ):
            pass
        with (
            pytest.raises(pgjax.InputError, match="expected a host of this machine"),
            serve("b", ["a"], host="0.0.0.0"),
        ):
            pass
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{page.base}/?token=x", timeout=120)
