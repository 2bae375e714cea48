import contextlib
import re
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pgjax
from pgjax.imitation.demonstrations import ENDS
from tests.cases import counting


def environment(observations, actions, horizon=8):
    return counting(horizon=horizon)._replace(observation_space=observations, action_space=actions)


PLANE, ARM = pgjax.Box(-1.0, 1.0, (2,)), pgjax.Box(-1.0, 1.0, (3,))
ENVIRONMENTS = {
    "table": environment(pgjax.Discrete(5), pgjax.Discrete(3)),
    "discrete": environment(PLANE, pgjax.Discrete(3)),
    "continuous": environment(PLANE, ARM),
    "pixels": environment(pgjax.Box(0, 255, (2, 2, 1), jnp.uint8), pgjax.Discrete(3)),
    "flags": environment(pgjax.Box(False, True, (4,), jnp.bool_), pgjax.Discrete(3)),
    "half": environment(PLANE._replace(dtype=jnp.bfloat16), ARM._replace(dtype=jnp.bfloat16)),
}


def draw(rng, space, *batch):
    if isinstance(space, pgjax.Discrete):
        return rng.integers(space.n, size=batch).astype(np.int32)
    if jnp.issubdtype(space.dtype, jnp.floating):
        return (3 * rng.normal(size=(*batch, *space.shape))).astype(space.dtype)  # an action may be outside its box
    return rng.integers(2 if space.dtype == jnp.bool_ else 256, size=(*batch, *space.shape)).astype(space.dtype)


def demonstrations(env, mask, known_expert, rng):
    """Random demonstrations with a mask [T, N] whose columns end, at the latest, with a label in the last row.

    As in a file that was read, padding is zero, and so is what the expert did where he was not asked."""
    T, N = mask.shape
    real = np.flip(np.maximum.accumulate(np.flip(mask, 0)), 0)  # up to the last label

    def where(condition, array):
        return jnp.asarray(np.where(condition.reshape(T, N, *[1] * (array.ndim - 2)), array, np.zeros((), array.dtype)))

    expert = None
    if known_expert and isinstance(env.action_space, pgjax.Discrete):
        logits = rng.normal(size=(T, N, env.action_space.n)).astype(np.float32)
        logits[..., 0] = -np.inf
        expert = pgjax.policies.Categorical(where(mask, logits))
    elif known_expert:
        mean, log_std = rng.normal(size=(2, T, N, *env.action_space.shape)).astype(np.float32)
        log_std[..., 0] = -np.inf
        expert = pgjax.policies.Gaussian(where(mask, mean), where(mask, log_std))
    return pgjax.Demonstrations(
        where(real, draw(rng, env.observation_space, T, N)),
        where(mask, draw(rng, env.action_space, T, N)),
        jnp.asarray(mask),
        expert,
    )


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert isinstance(ours, jax.Array)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def lengths_to_mask(*lengths):
    return np.arange(max(lengths))[:, None] < np.array(lengths)


UNLABELLED = np.array([[0, 1, 1], [1, 0, 1], [0, 1, 0], [1, 0, 0]], bool)
MASKS = {"one step": lengths_to_mask(1), "whole": lengths_to_mask(3, 1, 8, 8), "unlabelled": UNLABELLED}


@pytest.mark.parametrize("expert", [False, True])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("env", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_what_is_saved_is_loaded(tmp_path, env, mask, expert):
    saved = demonstrations(env, mask, expert, np.random.default_rng(0))
    path = tmp_path / "a file, as it is called"
    pgjax.imitation.save_demonstrations(path, saved)
    assert_same(pgjax.imitation.load_demonstrations(path, env), saved)
    with np.load(path) as arrays:
        assert ("labelled" in arrays) == (mask is UNLABELLED)
    assert list(tmp_path.iterdir()) == [path]
    assert saved.labels == mask.sum()
    assert saved.episodes == mask.shape[1]


def test_demonstrations_at_home_are_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    env = next(iter(ENVIRONMENTS.values()))
    saved = demonstrations(env, MASKS["one step"], False, np.random.default_rng(0))
    pgjax.imitation.save_demonstrations("~/taught.npz", saved)
    assert [path.name for path in tmp_path.iterdir()] == ["taught.npz"]
    assert_same(pgjax.imitation.load_demonstrations("~/taught.npz", env), saved)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), st.integers(0, 2**32 - 1), st.booleans())
def test_what_is_saved_is_loaded_whatever_the_lengths(tmp_path_factory, lengths, seed, expert):
    rng, env, path = np.random.default_rng(seed), ENVIRONMENTS["discrete"], tmp_path_factory.getbasetemp() / "lengths"
    mask = lengths_to_mask(*lengths)
    mask &= (rng.random(mask.shape) < 0.7) | (np.arange(len(mask))[:, None] == np.array(lengths) - 1)
    saved = demonstrations(env, mask, expert, rng)
    pgjax.imitation.save_demonstrations(path, saved)
    assert_same(pgjax.imitation.load_demonstrations(str(path), env), saved)


def test_what_comes_after_the_last_label_is_left_out(tmp_path):
    env, rng = ENVIRONMENTS["table"], np.random.default_rng(0)
    mask = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0]], bool)
    full = demonstrations(env, mask, True, rng)._replace(observation=jnp.full((3, 3), 4), action=jnp.full((3, 3), 2))
    pgjax.imitation.save_demonstrations(tmp_path / "a", full)
    found = pgjax.imitation.load_demonstrations(tmp_path / "a", env)
    np.testing.assert_array_equal(found.mask, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(found.observation, [[4, 4], [0, 4]])
    np.testing.assert_array_equal(found.action, [[2, 0], [0, 2]])


def test_what_is_not_labelled_is_not_looked_at(tmp_path):
    labelled = [True, False, True]
    actions, logits = np.array([1, np.nan, 2]), np.array([[0.0, 1, 2], [np.nan] * 3, [0, 1, 2]])
    arrays = {"observations": [1, 2, 3], "actions": actions, "terminals": [0, 0, 1], "labelled": labelled}
    np.savez(tmp_path / "a.npz", expert_logits=logits, **arrays)
    found = pgjax.imitation.load_demonstrations(tmp_path / "a.npz", ENVIRONMENTS["table"])
    np.testing.assert_array_equal(found.action, [[1], [0], [2]])
    np.testing.assert_array_equal(found.expert.logits, [[[0, 1, 2]], [[0, 0, 0]], [[0, 1, 2]]])


def test_d4rl_by_hand(tmp_path):
    observations = np.arange(12, dtype=np.float64).reshape(6, 2) / 8
    actions = np.arange(18, dtype=np.float64).reshape(6, 3)  # mostly outside the box
    np.savez(
        tmp_path / "d4rl.npz",
        observations=observations,
        actions=actions,
        rewards=np.ones(6),
        next_observations=observations,
        terminals=np.array([0, 1, 0, 0, 0, 0], bool),
        timeouts=np.array([0, 0, 0, 1, 0, 0], bool),  # the last episode is cut off by the file's end
        **{"infos/qpos": np.zeros((6, 9)), "metadata/algorithm": np.array("SAC"), "infos/any": np.array({}, object)},
    )
    found = pgjax.imitation.load_demonstrations(tmp_path / "d4rl.npz", ENVIRONMENTS["continuous"])
    assert found.observation.dtype == found.action.dtype == jnp.float32
    np.testing.assert_array_equal(found.observation[:, 1], observations[2:4])
    np.testing.assert_array_equal(found.action, actions.reshape(3, 2, 3).swapaxes(0, 1))
    assert found.mask.all()
    assert found.expert is None


def test_minari_by_hand(tmp_path):
    # Episodes of 1, 3 and 2 steps; 9 is what the last step of each led to.
    np.savez(
        tmp_path / "minari.npz",
        observations=np.array([[0], [9], [1], [2], [3], [9], [4], [5], [9]]),
        actions=np.array([1, 0, 1, 0, 1, 1]),
        rewards=np.ones(6),
        terminations=np.array([1, 0, 0, 0, 0, 0], bool),
        truncations=np.array([0, 0, 0, 1, 0, 1], bool),
    )
    found = pgjax.imitation.load_demonstrations(tmp_path / "minari.npz", counting())
    np.testing.assert_array_equal(found.observation[..., 0], [[0, 1, 4], [0, 2, 5], [0, 3, 0]])
    np.testing.assert_array_equal(found.action, [[1, 0, 1], [0, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(found.mask, [[1, 1, 1], [0, 1, 1], [0, 1, 0]])


NAN, INF = np.nan, np.inf
TABLE = {"observations": np.array([0, 1, 2, 3]), "actions": np.array([0, 1, 2, 0]), "episode_ends": [0, 1, 0, 1]}
ROBOT = {"observations": np.zeros((4, 2)), "actions": np.zeros((4, 3)), "terminals": [False, True, False, True]}
MEAN, LOG_STD, LOGITS = (np.zeros(shape) for shape in ((4, 3), (4, 3), (4, 3)))


def put(array, index, value):
    array = np.array(array, float)
    array[index] = value
    return array


WRONG = {
    "no observations": (TABLE, {"observations": None}, "expected observations in FILE, got actions, episode_ends"),
    "no actions": (TABLE, {"actions": None}, "expected actions in FILE, got observations, episode_ends"),
    "no ends": (TABLE, {"episode_ends": None}, f"expected {' or '.join(ENDS)} in FILE, got observations, actions"),
    "nothing": ({}, {}, "expected observations in FILE, got no array at all"),
    "no steps": (
        TABLE,
        {"observations": np.zeros(0), "actions": np.zeros(0), "episode_ends": np.zeros(0)},
        "expected 1 or more steps in FILE, got none",
    ),
    "objects": (
        TABLE,
        {"actions": np.array([{}] * 4)},
        "expected actions, whole and not pickled, in FILE, got: Object arrays cannot be loaded when allow_pickle=False",
    ),
    "text": (TABLE, {"actions": np.array(["up"] * 4)}, "expected numbers as actions in FILE, got type <U2"),
    "complex": (
        TABLE,
        {"observations": np.zeros(4, complex)},
        "expected numbers as observations in FILE, got type c.*",
    ),
    "one number": (TABLE, {"actions": 1}, "expected actions of shape [1] in FILE, got []"),
    "column": (TABLE, {"actions": np.zeros((4, 1))}, "expected actions of shape [4] in FILE, got [4, 1]"),
    "width": (ROBOT, {"actions": np.zeros((4, 2))}, "expected actions of shape [4, 3] in FILE, got [4, 2]"),
    "flat actions": (ROBOT, {"actions": np.zeros(4)}, "expected actions of shape [4, 3] in FILE, got [4]"),
    "lengths": (
        ROBOT,
        {"observations": np.zeros((5, 2))},
        "expected observations of shape [4, 2] or [6, 2] in FILE, got [5, 2]",
    ),
    "observations": (
        ROBOT,
        {"observations": np.zeros((4, 7))},
        "expected observations of shape [4, 2] or [6, 2] in FILE, got [4, 7]",
    ),
    "ends' length": (TABLE, {"episode_ends": [0, 1]}, "expected episode_ends of shape [4] in FILE, got [2]"),
    "ends": (TABLE, {"timeouts": [0, 1, 0.5, 2]}, "expected booleans as timeouts in FILE, got 0.5 at [2]"),
    "ends NaN": (ROBOT, {"terminals": [0, NAN, 0, 0]}, "expected booleans as terminals in FILE, got nan at [1]"),
    "horizon": (
        TABLE,
        {name: np.zeros(11) for name in TABLE} | {"terminals": [1] + 10 * [0]},
        "expected episodes of at most 8 steps, the horizon of counting, in FILE, got 10 in episode 1 (the first is 0)",
    ),
    "NaN observation": (
        ROBOT,
        {"observations": put(np.zeros((4, 2)), (2, 1), NAN)},
        "expected finite numbers (float32) as observations in FILE, got nan at [2, 1]",
    ),
    "NaN observed where unlabelled": (
        ROBOT,
        {"observations": put(np.zeros((4, 2)), 2, NAN), "labelled": [1, 1, 0, 1]},
        "expected finite numbers (float32) as observations in FILE, got nan at [2, 0]",
    ),
    "infinite action": (
        ROBOT,
        {"actions": put(np.zeros((4, 3)), (3, 0), -INF)},
        "expected finite numbers (float32) as actions in FILE, got -inf at [3, 0]",
    ),
    "too large": (
        ROBOT,
        {"actions": put(np.zeros((4, 3)), (0, 2), 1e300)},
        "expected finite numbers (float32) as actions in FILE, got 1e+300 at [0, 2]",
    ),
    "half an action": (
        TABLE,
        {"actions": [0, 1, 0.5, NAN]},
        "expected whole numbers from 0 to 2 as actions in FILE, got 0.5 at [2]",
    ),
    "action": (TABLE, {"actions": [0, 3, 1, 1]}, "expected whole numbers from 0 to 2 as actions in FILE, got 3 at [1]"),
    "negative": (
        TABLE,
        {"actions": [0, -1, 1, 1]},
        "expected whole numbers from 0 to 2 as actions in FILE, got -1 at [1]",
    ),
    "NaN action": (
        TABLE,
        {"actions": [NAN] * 4},
        "expected whole numbers from 0 to 2 as actions in FILE, got nan at [0]",
    ),
    "state": (
        TABLE,
        {"observations": [0, 0, 0, 5]},
        "expected whole numbers from 0 to 4 as observations in FILE, got 5 at [3]",
    ),
    "labelled": (TABLE, {"labelled": [2, 1, 1, 1]}, "expected booleans as labelled in FILE, got 2 at [0]"),
    "labelled's shape": (TABLE, {"labelled": [[1] * 4]}, "expected labelled of shape [4] in FILE, got [1, 4]"),
    "no labels": (TABLE, {"labelled": [0] * 4}, "expected 1 or more labelled steps in FILE, got none"),
    "expert of another kind": (
        TABLE,
        {"expert_mean": MEAN, "expert_log_std": LOG_STD},
        "expected expert_logits in FILE, as an action is one of 3 integers, got expert_mean and expert_log_std",
    ),
    "both experts": (
        ROBOT,
        {"expert_logits": LOGITS, "expert_mean": MEAN, "expert_log_std": LOG_STD},
        "expected expert_mean and expert_log_std in FILE, as an action is an array of shape (3,), "
        "got expert_logits and expert_mean and expert_log_std",
    ),
    "half an expert": (
        ROBOT,
        {"expert_mean": MEAN},
        "expected expert_mean and expert_log_std in FILE, as an action is an array of shape (3,), got expert_mean",
    ),
    "logits' shape": (
        TABLE,
        {"expert_logits": np.zeros((4, 2))},
        "expected expert_logits of shape [4, 3] in FILE, got [4, 2]",
    ),
    "NaN logit": (
        TABLE,
        {"expert_logits": put(LOGITS, (1, 2), NAN)},
        "expected numbers below infinity (float32) as expert_logits in FILE, got nan at [1, 2]",
    ),
    "infinite logit": (
        TABLE,
        {"expert_logits": put(LOGITS, (1, 2), INF)},
        "expected numbers below infinity (float32) as expert_logits in FILE, got inf at [1, 2]",
    ),
    "nothing possible": (
        TABLE,
        {"expert_logits": put(LOGITS, 3, -INF)},
        "expected rows with a finite number as expert_logits in FILE, got [-inf -inf -inf] at [3]",
    ),
    "mean's shape": (
        ROBOT,
        {"expert_mean": np.zeros((3, 3)), "expert_log_std": LOG_STD},
        "expected expert_mean of shape [4, 3] in FILE, got [3, 3]",
    ),
    "NaN mean": (
        ROBOT,
        {"expert_mean": put(MEAN, (0, 0), NAN), "expert_log_std": LOG_STD},
        "expected finite numbers (float32) as expert_mean in FILE, got nan at [0, 0]",
    ),
    "log_std": (
        ROBOT,
        {"expert_mean": MEAN, "expert_log_std": put(LOG_STD, (2, 0), INF)},
        "expected numbers below infinity (float32) as expert_log_std in FILE, got inf at [2, 0]",
    ),
}


def refused(path, env=ENVIRONMENTS["table"]):
    """What a person is told about a file."""
    with pytest.raises(pgjax.InputError) as told:
        pgjax.imitation.load_demonstrations(path, env)
    sentence = str(told.value)
    assert "\n" not in sentence
    return sentence.replace(str(path), "FILE")


@pytest.mark.parametrize(("base", "changed", "sentence"), WRONG.values(), ids=WRONG)
def test_a_sentence_for_every_wrong_file(tmp_path, base, changed, sentence):
    arrays = {name: array for name, array in (base | changed).items() if array is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    told = refused(tmp_path / "a.npz", ENVIRONMENTS["continuous" if base is ROBOT else "table"])
    assert re.fullmatch(sentence, told) if sentence.endswith(".*") else told == sentence


def test_sentences_for_what_is_no_such_file(tmp_path):
    assert refused(tmp_path) == "expected a file with demonstrations, got FILE: Is a directory"
    assert refused(tmp_path / "none.npz") == "expected a file with demonstrations, got FILE: No such file or directory"
    np.save(tmp_path / "single.npy", np.arange(3))
    np.save(tmp_path / "objects.npy", np.array([Trap()]))
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("observations, actions\n")
    for name in ("single.npy", "objects.npy", "empty", "text"):
        expected = "expected an .npz, whole and not pickled, in FILE, got: another kind of file, or one cut short"
        assert refused(tmp_path / name) == expected


class Trap:
    def __reduce__(self):
        return pytest.fail, ("something was unpickled",)


def test_no_object_is_unpickled(tmp_path):
    for name in ("observations", "actions", "episode_ends", "labelled", "expert_logits"):
        np.savez(tmp_path / "a.npz", **TABLE | {name: np.array([Trap()] * 4)})
        assert "not pickled" in refused(tmp_path / "a.npz")


def test_damage_is_noticed(tmp_path):
    path, env = tmp_path / "a.npz", ENVIRONMENTS["table"]
    saved = demonstrations(env, MASKS["whole"], True, np.random.default_rng(0))
    pgjax.imitation.save_demonstrations(path, saved)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for length in rng.choice(len(whole), 20, replace=False):
        path.write_bytes(whole[:length])
        assert refused(path).endswith("one cut short")
    noticed = 0
    for position in rng.choice(len(whole), 200, replace=False):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            found = pgjax.imitation.load_demonstrations(path, env)
        except pgjax.InputError:
            noticed += 1
        else:  # a bit that means nothing, or one in the name of an array that need not be there
            assert_same(found._replace(expert=None), saved._replace(expert=None))
    assert noticed > 100


@contextlib.contextmanager
def full_disk():
    """Let no file of this process grow beyond 100 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path):
    env, path = ENVIRONMENTS["table"], tmp_path / "a.npz"
    old, new = (demonstrations(env, MASKS[name], True, np.random.default_rng(0)) for name in ("one step", "whole"))
    pgjax.imitation.save_demonstrations(path, old)
    with full_disk(), pytest.raises(pgjax.InputError) as told:
        pgjax.imitation.save_demonstrations(path, new)
    assert str(told.value) == f"expected a file that can be written, got {path}: File too large"
    assert_same(pgjax.imitation.load_demonstrations(path, env), old)
    assert list(tmp_path.iterdir()) == [path]
    pgjax.imitation.save_demonstrations(path, new)
    assert_same(pgjax.imitation.load_demonstrations(path, env), new)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("none/a.npz", "No such file or directory"),
        ("directory", "Is a directory"),
        ("file/a.npz", "Not a directory"),
        (255 * "x" + ".npz", "File name too long"),
        ("", "Is a directory"),
    ],
)
def test_a_sentence_where_nothing_can_be_written(tmp_path, monkeypatch, path, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    saved = demonstrations(ENVIRONMENTS["table"], MASKS["whole"], False, np.random.default_rng(0))
    with pytest.raises(pgjax.InputError) as told:
        pgjax.imitation.save_demonstrations(path, saved)
    assert str(told.value) == f"expected a file that can be written, got {tmp_path / path}: {reason}"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["directory", "file"]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"mask": jnp.zeros((8, 4), bool)}, "expected demonstrations with 1 or more labelled steps, got none"),
        ({"mask": jnp.ones(8)}, r"expected observations \[T, N, ...\] for a mask \[T, N\], got \[8, 4\] and \[8\]"),
        ({"action": jnp.ones((8, 3))}, r"expected actions .* got \[8, 3\] and \[8, 4\]"),
        (
            {"expert": pgjax.policies.Categorical(jnp.ones((7, 4, 3)))},
            r"expected expert_logits .* got \[7, 4, 3\] and \[8, 4\]",
        ),
        ({"expert": 1.0}, "expected an expert that is Categorical or Gaussian, got a float"),
    ],
)
def test_a_sentence_for_what_is_not_saved(tmp_path, changed, sentence):
    whole = demonstrations(ENVIRONMENTS["table"], MASKS["whole"], False, np.random.default_rng(0))
    with pytest.raises(pgjax.InputError, match=sentence):
        pgjax.imitation.save_demonstrations(tmp_path / "a", whole._replace(**changed))
    assert not list(tmp_path.iterdir())
